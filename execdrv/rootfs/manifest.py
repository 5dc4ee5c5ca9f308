"""What the cache remembers of its roots: a few small JSON files, and when to believe them.

NAME.json says what the root NAME is, with a stamp that tells a change of the tree; default.json and
with.KEY.json say which root answers a request, and from which files of this machine it was made.
They are data only, written in one step, and believed only while nobody else may write them. Gets
the cache directory as a path that was checked; `find_root` is on the way of every run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from execdrv.errors import OperationError, UsageError
from execdrv.rootfs.tree import Stamp, digest_tree, list_tree, stamp_paths

#: Form of the files; one of another form counts as absent.
VERSION = 1

#: Form of a root's name: what it holds, and the start of its digest.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*-[0-9a-f]{12}")


@attrs.frozen(kw_only=True)
class Root:
    """A root file system."""

    #: What it holds and the start of its digest: `base-0123456789ab`.
    name: str
    #: Absolute path of its top directory.
    path: str
    #: What was asked for beside the base, sorted.
    names: tuple[str, ...]
    #: SHA-256 of the whole tree (tree.digest_tree), 64 hexadecimal digits.
    digest: str
    #: Sum of the sizes of its files.
    size_bytes: int = 0
    #: When it was made: seconds since 1970.
    made_at_s: float = 0.0
    #: What it lacks of what was wished for: optional commands, libraries, device nodes.
    missing: tuple[str, ...] = ()
    #: Whether somebody used it when `list_roots` looked; None: nobody looked.
    in_use: bool | None = None


@contextlib.contextmanager
def explained(message: str) -> Iterator[None]:
    """Turn an OSError into an OperationError that begins with `message`."""
    try:
        yield
    except OSError as error:
        place = f" ({os.fsdecode(error.filename)!r})" if error.filename else ""
        reason = f"{error.strerror or error}{place}"
        raise OperationError(f"{message}: {reason}", errno=error.errno) from error


# --- is it still what it was -------------------------------------------------------------------


def find_root(directory: str, names: Sequence[str]) -> Root | None:
    """The root that answers a request, if it was made and nothing changed since.

    Checked each time: owner and mode of the files here and of the tree; change time and size of
    every file in the tree, and of every file of this machine that went into it. Where one in the
    tree differs, the digest of the whole decides.

    Args:
        directory: the cache.
        names: as recipe.normal_names returns them.

    Returns:
        None if one has to be made.

    Raises:
        UsageError: the tree has changed, or others may write here.
    """
    request = read_file(os.path.join(directory, request_name(names)))
    if request is None or request.get("names") != list(names):
        return None
    inputs = request.get("inputs")
    if not _is_current(inputs, below="/"):
        return None
    found = read_root(directory, str(request.get("root")))
    if found is None:
        return None
    check_tree(*found)
    return found[0]


def check_tree(root: Root, stamps: Sequence[Stamp]) -> None:
    """Compare a tree with its stamps, and where they differ, with its digest.

    Raises:
        UsageError: the tree has changed.
        OperationError: it could not be read.
    """
    with explained(f"cannot read root file system {root.name!r}"):
        top = os.lstat(root.path)
        if not _is_ours(top):
            raise _refuse(root.path, _describe(top))
        if not _is_current(stamps, below=root.path):
            # A change time may differ for harmless reasons (labels, a restored backup).
            verify_root(root)
            found = stamp_paths(list_tree(root.path)[0], below=root.path)
            with contextlib.suppress(OSError):  # a cache that is read-only now
                write_root(os.path.dirname(root.path), root, found)


def _is_current(stamps: Any, *, below: str) -> bool:
    """Whether nothing changed; a damaged list counts as changed."""
    try:
        return bool(stamps) and stamp_paths((s[0] for s in stamps), below=below) == stamps
    except (TypeError, LookupError, ValueError):
        return False


def verify_root(root: Root) -> None:
    """Read the whole tree and compare it with its digest (about 0.1 s for the base).

    Raises:
        UsageError: the tree is not as it was made.
        OperationError: it could not be read.
    """
    with explained(f"cannot read root file system {root.name!r}"):
        changed = digest_tree(root.path) != root.digest
    if changed:
        raise UsageError(
            f"cannot use root file system {root.name!r}: {root.path!r} has changed",
            hint=f"remove it (execdrv rootfs remove {root.name}); it is made again when needed",
        )


# --- the files ---------------------------------------------------------------------------------


def request_name(names: Sequence[str]) -> str:
    """Name of the file that remembers the answer to a request."""
    if not names:
        return "default.json"
    import hashlib  # 5 ms: not on the way of a run with the default root

    key = hashlib.sha256(b"\0".join(os.fsencode(name) for name in names)).hexdigest()
    return f"with.{key[:12]}.json"


def is_request(name: str) -> bool:
    """Whether a file name is one that `request_name` gives."""
    return name == "default.json" or re.fullmatch(r"with\.[0-9a-f]{12}\.json", name) is not None


def write_request(
    directory: str, root: Root, names: Sequence[str], inputs: Sequence[Stamp]
) -> None:
    """Remember which root answers a request, and what it was made of."""
    content = {"names": list(names), "root": root.name, "inputs": inputs}
    write_file(os.path.join(directory, request_name(names)), content)


def write_root(directory: str, root: Root, stamps: Sequence[Stamp]) -> None:
    """Write NAME.json: the root, and the stamps of what is in its tree."""
    content = attrs.asdict(root)
    for elsewhere in ("name", "path", "in_use"):
        del content[elsewhere]
    write_file(os.path.join(directory, root.name + ".json"), {**content, "tree": stamps})


def read_root(directory: str, name: str) -> tuple[Root, list[Stamp]] | None:
    """A root and the stamps of its tree from NAME.json; None without one, or without the tree.

    Raises:
        UsageError: others may write here.
    """
    path = os.path.join(directory, name)
    if not NAME.fullmatch(name) or not os.path.isdir(path):
        return None
    content = read_file(path + ".json")
    if content is None:
        return None
    try:
        root = Root(
            name=name,
            path=path,
            names=tuple(content["names"]),
            digest=str(content["digest"]),
            size_bytes=int(content["size_bytes"]),
            made_at_s=float(content["made_at_s"]),
            missing=tuple(content["missing"]),
        )
        return root, content["tree"]
    except (KeyError, TypeError, ValueError):
        return None


def read_file(path: str) -> dict[str, Any] | None:
    """The content of a file of the cache; None if it is absent, damaged or of another form.

    Raises:
        UsageError: it is a link, belongs to somebody else, or others may write to it.
    """
    import json

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        raise _refuse(path, reason) from error
    with open(fd, "rb") as file:
        seen = os.fstat(fd)
        if not _is_ours(seen):
            raise _refuse(path, _describe(seen))
        try:
            content = json.loads(file.read())
        except (ValueError, OSError):
            return None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return None
    return content


def write_file(path: str, content: dict[str, Any]) -> None:
    """Write a file of the cache in one step (0644)."""
    import json

    directory, name = os.path.split(path)
    draft = os.path.join(directory, f".making-{os.urandom(6).hex()}-{name}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(draft, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump({"version": VERSION, **content}, file)
        os.fchmod(file.fileno(), 0o644)
    os.rename(draft, path)


def _is_ours(seen: os.stat_result) -> bool:
    """Whether root or we own it, and nobody else may write to it."""
    return (
        seen.st_uid in (0, os.geteuid())
        and not seen.st_mode & 0o022
        and not stat.S_ISLNK(seen.st_mode)
    )


def _describe(seen: os.stat_result) -> str:
    return f"it belongs to uid {seen.st_uid}, mode {seen.st_mode & 0o7777:04o}"


def _refuse(path: str, reason: str) -> UsageError:
    return UsageError(
        f"cannot use {path!r} of the cache: {reason}",
        hint="remove it, or set EXECDRV_CACHE to a directory of your own",
    )
