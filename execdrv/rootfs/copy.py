"""Writing a plan to a directory: the only code that makes files of a root file system.

Every file is a copy (shared blocks where the file system can, ioctl_ficlone(2)), never a hard link:
root in a container would write through it to this machine. Modes and owners are set by descriptor,
so that neither umask nor the group of the directory has a say. Times are kept for files, since
python compares them with its compiled ones.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from execdrv.rootfs.plan import Copy, Directory, Link, Node, Plan, Text

_FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
_CHUNK_BYTES = 1 << 30

#: What copy_file_range(2) says where the two file systems can't do it together.
_NO_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_plan(plan: Plan, path: str) -> list[str]:
    """Write every entry of a plan below an empty directory of ours.

    Args:
        plan: nothing in it lies below a link (Planner.finish), so no link is followed.
        path: the directory; it becomes the root, 0755.

    Returns:
        What could not be made and can be done without: device nodes (they need CAP_MKNOD) and
        compiled files of python.

    Raises:
        OSError: a part of the tree may be there; the caller removes it.
    """
    refused: list[str] = []
    directories: set[str] = set()
    _set_owner(path)
    os.chmod(path, 0o755)
    for place, entry in sorted(plan.entries.items()):
        if isinstance(entry, Directory):
            _make_directories(path, place, directories, entry.mode)
            continue
        _make_directories(path, os.path.dirname(place), directories, 0o755)
        target = os.path.join(path, place)
        if isinstance(entry, Copy):
            copy_file(entry.source, target, mode=entry.mode)
        elif isinstance(entry, Link):
            os.symlink(entry.target, target)
            _set_owner(target)
        elif isinstance(entry, Text):
            with open(os.open(target, _NEW, 0o600), "w", encoding="utf-8") as file:
                file.write(entry.data)
                _set_mode(file.fileno(), 0o644)
        elif not _make_node(target, entry):
            refused.append("/" + place)
    for interpreter, place in plan.compiled:
        if not _compile(interpreter, path, place):
            refused.append(f"compiled files of /{place}")
    return refused


def copy_file(source: str, target: str, *, mode: int) -> None:
    """Copy a regular file's content and times into a new file.

    Args:
        source: links are followed; the plan has resolved them.
        target: must not exist.
        mode: permission bits of the copy.

    Raises:
        OSError: `target` may be there, whole or in part.
    """
    with (
        open(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as old,
        open(os.open(target, _NEW, 0o600), "wb") as new,
    ):
        seen = os.fstat(old.fileno())
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file any more", source)
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            _copy_bytes(old.fileno(), new.fileno(), seen.st_size)
        _set_mode(new.fileno(), mode)
        os.utime(new.fileno(), ns=(seen.st_mtime_ns, seen.st_mtime_ns))


def _copy_bytes(old: int, new: int, size: int) -> None:
    done = 0
    try:
        while done < size:
            moved = os.copy_file_range(old, new, min(size - done, _CHUNK_BYTES), done, done)
            if moved == 0:
                break  # some file systems answer so and mean "not here"
            done += moved
    except OSError as error:
        if error.errno not in _NO_RANGE:
            raise
    os.lseek(new, done, os.SEEK_SET)
    while done < size:
        moved = os.sendfile(new, old, done, min(size - done, _CHUNK_BYTES))
        if moved == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        done += moved


def _make_directories(path: str, place: str, made: set[str], mode: int) -> None:
    if not place or place in made:
        return
    _make_directories(path, os.path.dirname(place), made, 0o755)
    target = os.path.join(path, place)
    os.mkdir(target, 0o700)
    _set_owner(target)
    os.chmod(target, mode)
    made.add(place)


def _make_node(target: str, node: Node) -> bool:
    try:
        os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(node.major, node.minor))
    except PermissionError:
        return False
    _set_owner(target)
    os.chmod(target, 0o666)
    return True


def _set_owner(path: str) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, 0, follow_symlinks=False)


def _set_mode(fd: int, mode: int) -> None:
    if os.geteuid() == 0:
        os.fchown(fd, 0, 0)
    os.fchmod(fd, mode)


def _compile(interpreter: str, path: str, place: str) -> bool:
    """Make the compiled files of a python library, with the names the files have inside."""
    import subprocess  # only where a machine has no compiled files

    command = [interpreter, "-I", "-S", "-m", "compileall", "-q", "-s", path, "-p", "/"]
    done = subprocess.run(
        [*command, os.path.join(path, place)],
        env={},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        umask=0o022,
        check=False,
    )
    return done.returncode == 0
