"""Making root file systems: into the cache, or as a private tree.

    1. under make.lock: look again whether another process made it meanwhile
    2. plan (recipe.py), note the state of every file of this machine that goes in
    3. write a draft beside the cache's roots (copy.py); if a file changed meanwhile, from 2 again
    4. digest the draft as it is on disk: that names it
    5. NAME.lock, NAME.json, rename the draft to NAME, then remember the request

A kill at any point leaves a draft or an unused small file; the next holder of the lock removes it.
Runs in the command, the host or the kit; where a root is there already, only manifest.py works.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Sequence

import attrs

from execdrv.errors import OperationError, SpecError, UsageError
from execdrv.rootfs.cache import (
    MAKING,
    Progress,
    cache_dir,
    cache_path,
    is_cached_root,
    locked,
    make_lock,
)
from execdrv.rootfs.manifest import (
    Root,
    check_tree,
    explained,
    find_root,
    read_root,
    verify_root,
    write_request,
    write_root,
)
from execdrv.rootfs.tree import Stamp, empty_directory, list_tree, remove_tree, stamp_paths

#: How often a make begins again because packages are being installed under it.
ATTEMPTS = 3

#: Nobody but root may write in a shared root; in a private one anybody may in /tmp.
_SHARED_SCRATCH = 0o755
_PRIVATE_SCRATCH = 0o1777

#: A change of these makes a new default root, as a change of the machine's files does.
_CODE = ("copy.py", "elf.py", "plan.py", "python.py", "recipe.py", "skeleton.py")


def default_root(*, cache: str | None = None, progress: Progress | None = None) -> Root:
    """The root of a run that names none: a shell, coreutils and the like (recipe.CORE, OPTIONAL).

    Made on first use, and again when the machine's files change. On every use these are checked:
    owner and mode of the cache, its files and the tree; change time and size of every file in the
    tree (nobody can set a change time) and of those it was made from. The digest of all contents
    is read where one in the tree differs, and by `verify_root`.

    Args:
        cache: directory; None means EXECDRV_CACHE or the default (cache.cache_path).
        progress: called with one line for each thing that takes time.

    Raises:
        UsageError: the cache is not safe, or the tree was changed.
        UnsupportedError: this machine lacks a core command.
        OperationError: the tree could not be made; nothing is left of it.
    """
    found = find_root(cache_dir(cache), ())
    return found if found is not None else make_root(cache=cache, progress=progress)


def make_root(
    names: Sequence[str] = (),
    *,
    output: str | None = None,
    cache: str | None = None,
    progress: Progress | None = None,
) -> Root:
    """Make a root file system with the base and `names`, or find it in the cache.

    Args:
        names: commands of recipe.TRUSTED_PATH, absolute paths of programs or directories,
            'python3'.
        output: directory for a private tree, not there or empty; None: into the cache.
        cache: directory; None means EXECDRV_CACHE or the default (cache.cache_path).
        progress: called with one line for each thing that takes time.

    Raises:
        SpecError: a name means nothing on this machine (field 'with'); `output` (field 'output').
        UsageError: the cache is not safe, or the tree in it was changed.
        UnsupportedError: this machine lacks a core command, or a part of what was asked for.
        OperationError: the tree could not be made; nothing is left of it.
    """
    from execdrv.rootfs.recipe import normal_names

    wanted = normal_names(names)
    report = progress or _ignore
    if output is not None:
        return _make_private(wanted, os.path.abspath(output), cache_path(cache), report)
    directory = cache_dir(cache)
    found = find_root(directory, wanted)
    if found is not None:
        return found
    with locked(directory, progress=progress):
        found = find_root(directory, wanted)
        if found is not None:
            return found
        with explained(f"cannot make root file system in {directory!r}"):
            return _make_shared(wanted, directory, report)


def _ignore(_line: str) -> None:
    pass


def _make_shared(names: tuple[str, ...], directory: str, report: Progress) -> Root:
    mount_flags = os.statvfs(directory).f_flag
    if mount_flags & os.ST_NOEXEC:
        raise UsageError(
            f"cannot use cache directory {directory!r}: nothing can be executed there (noexec)",
            hint="set EXECDRV_CACHE to a directory on another file system",
        )
    draft = os.path.join(directory, f"{MAKING}{os.urandom(6).hex()}")
    os.mkdir(draft, 0o700)
    try:
        root, inputs = _fill(
            names, draft, skip=(directory,), scratch=_SHARED_SCRATCH, report=report
        )
        if mount_flags & os.ST_NODEV:
            nodes = "device nodes (its file system is mounted nodev)"
            root = attrs.evolve(root, missing=(*root.missing, nodes))
        root = attrs.evolve(root, path=os.path.join(directory, root.name))
        make_lock(root)
        if not os.path.isdir(root.path):
            # First the file, so that no tree is without one; and again, for the rename changes the
            # time of the top directory (after a kill in between the digest decides, once).
            _write_stamped(directory, root, draft)
            os.rename(draft, root.path)
            _write_stamped(directory, root, root.path)
        else:  # another request had the same outcome, or the machine went back
            known = read_root(directory, root.name)
            if known is None:
                verify_root(root)
                _write_stamped(directory, root, root.path)
            else:
                check_tree(*known)
                root = known[0]
        write_request(directory, root, names, inputs)
    finally:
        remove_tree(draft)  # nothing, if it got its place
    return root


def _write_stamped(directory: str, root: Root, path: str) -> None:
    write_root(directory, root, stamp_paths(list_tree(path)[0], below=path))


def _make_private(names: tuple[str, ...], output: str, cache: str, report: Progress) -> Root:
    if is_cached_root(output, cache=cache):
        raise _refuse_output(output, "it is in the cache of shared root file systems")
    made = False
    try:
        os.mkdir(output, 0o755)
        made = True
    except FileExistsError:
        if os.path.islink(output) or not os.path.isdir(output):
            raise _refuse_output(output, "it is not a directory") from None
        if os.listdir(output):
            raise _refuse_output(output, "it is not empty") from None
    except FileNotFoundError:
        reason = f"there is no directory {os.path.dirname(output)!r}"
        raise _refuse_output(output, reason) from None
    except OSError as error:
        raise _refuse_output(output, str(error.strerror)) from error
    try:
        with explained(f"cannot make root file system in {output!r}"):
            skip = (output, cache)
            return _fill(names, output, skip=skip, scratch=_PRIVATE_SCRATCH, report=report)[0]
    except BaseException:
        with contextlib.suppress(OSError):  # the first error says more
            empty_directory(output)
            if made:
                os.rmdir(output)
        raise


def _refuse_output(output: str, reason: str) -> SpecError:
    return SpecError(
        f"cannot make root file system in {output!r}: {reason}",
        hint="name a directory that is not there yet, or an empty one",
        field="output",
        value=output,
    )


def _fill(
    names: tuple[str, ...], path: str, *, skip: tuple[str, ...], scratch: int, report: Progress
) -> tuple[Root, list[Stamp]]:
    """Write the tree to an empty directory, and say what it was made of."""
    from execdrv.rootfs.copy import write_plan
    from execdrv.rootfs.plan import Copy
    from execdrv.rootfs.recipe import plan_root
    from execdrv.rootfs.tree import digest_tree

    identities = [os.stat(place) for place in skip if os.path.isdir(place)]
    skipped = frozenset((seen.st_dev, seen.st_ino) for seen in identities)
    code = [os.path.join(os.path.dirname(__file__), file) for file in _CODE]
    for _attempt in range(ATTEMPTS):
        report("looking for programs and their libraries")
        plan = plan_root(names, scratch_mode=scratch, skip=skipped)
        inputs = stamp_paths((*plan.inputs, *code))
        files = sum(isinstance(entry, Copy) for entry in plan.entries.values())
        report(f"copying {files} files")
        refused = write_plan(plan, path)
        if stamp_paths((*plan.inputs, *code)) == inputs:
            report("checking the copies")
            digest = digest_tree(path)
            root = Root(
                name=f"{_title(names)}-{digest[:12]}",
                path=path,
                names=names,
                digest=digest,
                size_bytes=list_tree(path)[1],
                made_at_s=time.time(),
                missing=(*plan.missing, *refused),
            )
            return root, inputs
        report("files of this machine changed meanwhile, beginning again")
        empty_directory(path)
    raise OperationError(
        f"cannot make root file system in {path!r}: files of this machine keep changing",
        hint="wait until no package is being installed",
    )


def _title(names: tuple[str, ...]) -> str:
    """What a root holds, as the start of its name."""
    parts = [re.sub(r"[^A-Za-z0-9_.]", "_", name.rpartition("/")[2]) for name in names]
    title = "+".join(parts).lstrip("_.")[:40]
    return title or "base"
