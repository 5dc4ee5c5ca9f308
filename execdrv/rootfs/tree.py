"""Whole directory trees: what is in them, whether they changed, and how they go away.

A stamp is cheap and tells that something changed; a digest is exact and reads every file. Nothing
here follows a link or enters another mount. Runs in the process that makes, checks or removes a
root file system; knows nothing of the cache.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

#: Path, change time in ns and size in bytes; -1 and -1 where there is nothing.
Stamp = list[str | int]


def stamp_paths(paths: Iterable[str], *, below: str = "/") -> list[Stamp]:
    """What changes whenever one of these files or directories does; about 2 us each.

    Nobody can set a change time (inode(7)): a write, chmod, or new link shows in the file's, an
    entry that came or went in the directory's.

    Args:
        paths: absolute, or relative to `below`.

    Raises:
        OSError: `below` is not there.
    """
    stamps: list[Stamp] = []
    top = os.open(below, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            try:
                seen = os.stat(path, dir_fd=top)
                stamps.append([path, seen.st_ctime_ns, seen.st_size])
            except OSError:
                stamps.append([path, -1, -1])
    finally:
        os.close(top)
    return stamps


def list_tree(path: str) -> tuple[list[str], int]:
    """What `stamp_paths` has to look at to see any change below a directory, and the sum of the
    sizes of its files.

    Left out are links and device nodes: they can't change in place, and whoever may write to a
    device may touch it.

    Returns:
        Paths relative to `path`, "." for itself; bytes.

    Raises:
        OSError: a directory could not be read.
    """
    paths = ["."]
    size = 0
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(path, directory)) as entries:
            for entry in entries:
                below = os.path.join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(below)
                    paths.append(below)
                elif entry.is_file(follow_symlinks=False):
                    paths.append(below)
                    size += entry.stat(follow_symlinks=False).st_size
    return sorted(paths), size


def digest_tree(path: str) -> str:
    """SHA-256 over everything a job could see of a tree: names, types, modes, owners, contents,
    link targets, device numbers, hard links and file capabilities; not the times.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: something could not be read.
    """
    import hashlib  # 5 ms: not on the way of a run

    whole = hashlib.sha256()
    pending = [path]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            seen = entry.stat(follow_symlinks=False)
            content = ""
            if stat.S_ISDIR(seen.st_mode):
                pending.append(entry.path)
            elif stat.S_ISREG(seen.st_mode):
                fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                with open(fd, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                content += f" {seen.st_size} {seen.st_nlink} {_file_capabilities(entry.path)}"
            elif stat.S_ISLNK(seen.st_mode):
                content = os.readlink(entry.path)
            else:
                content = f"{os.major(seen.st_rdev)}:{os.minor(seen.st_rdev)}"
            name = os.path.relpath(entry.path, path)
            fields = (name, f"{seen.st_mode:o}", f"{seen.st_uid}:{seen.st_gid}", content)
            whole.update(b"\0".join(os.fsencode(field) for field in fields) + b"\0\0")
    return whole.hexdigest()


def _file_capabilities(path: str) -> str:
    try:
        return os.getxattr(path, "security.capability", follow_symlinks=False).hex()
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return ""
        raise


def has_mount(path: str) -> bool:
    """Whether something is mounted on `path` or below it, in this mount namespace.

    Raises:
        OSError: /proc is not there.
    """
    # Written as the kernel writes them (proc_pid_mountinfo(5)): octal for blank, tab, newline, \.
    wanted = os.fsencode(os.path.realpath(path)).replace(b"\\", b"\\134").replace(b" ", b"\\040")
    wanted = wanted.replace(b"\t", b"\\011").replace(b"\n", b"\\012")
    with open("/proc/self/mountinfo", "rb") as lines:
        points = [line.split(b" ", 5)[4] for line in lines]
    return any(point == wanted or point.startswith(wanted + b"/") for point in points)


def remove_tree(path: str) -> None:
    """Remove a directory and all below it, by descriptors: no link is followed, no mount entered.

    A path that is not there is done already. When it raises, a part of the tree may be gone; it
    may be called again.

    Raises:
        OSError: EBUSY with the place, if something is mounted there (what is mounted is untouched);
            or what the kernel said.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if has_mount(path):
            raise OSError(errno.EBUSY, "something is mounted below it", path)
        _remove_entries(fd, path)
    finally:
        os.close(fd)
    os.rmdir(path)


def empty_directory(path: str) -> None:
    """Remove what is in a directory, and leave the directory. Rules and errors as `remove_tree`."""
    with os.scandir(path) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        below = os.path.join(path, name)
        if is_directory:
            remove_tree(below)
        else:
            os.unlink(below)


def _remove_entries(fd: int, path: str) -> None:
    device = os.fstat(fd).st_dev
    with os.scandir(fd) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(seen.st_mode):
            os.unlink(name, dir_fd=fd)
            continue
        below = os.path.join(path, name)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        child = os.open(name, flags, dir_fd=fd)
        try:
            if os.fstat(child).st_dev != device:  # mounted since `has_mount` looked
                raise OSError(errno.EBUSY, "a file system is mounted on it", below)
            _remove_entries(child, below)
        finally:
            os.close(child)
        os.rmdir(name, dir_fd=fd)
