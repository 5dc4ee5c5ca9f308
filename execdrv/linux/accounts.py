"""Users and groups as a root file system's /etc/passwd and /etc/group name them.

Plain text, read by descriptor inside the root and parsed here: neither NSS nor the `pwd` module,
which would load code from, or answer for, the wrong tree. The tree is hostile: links lead nowhere
out of it (openat2(2), RESOLVE_IN_ROOT), a fifo or device there is never waited for, a huge file
is refused. Runs in the supervisor, before anything is made. passwd(5), group(5).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from execdrv.errors import SpecError
from execdrv.linux import syscalls

#: The longest passwd or group file that is read.
FILE_BYTES_MAX: Final = 1 << 20
#: (uid_t)-1 means "leave as it is" to setresuid(2), so it is nobody's number.
ID_MAX: Final = 2**32 - 2
#: RESOLVE_IN_ROOT gives up when a directory on the way is renamed at that moment (openat2(2)).
_OPEN_TRIES: Final = 16

_PASSWD: Final = "/etc/passwd"
_GROUP: Final = "/etc/group"


class User(NamedTuple):
    """A user, resolved."""

    #: 0 to 2**32-2, as the primary group's.
    uid: int
    gid: int
    #: Absolute path in the root; "/" where the root has no such user.
    home: bytes


class PasswdEntry(NamedTuple):
    """One well-formed line of a passwd file."""

    name: bytes
    uid: int
    gid: int
    home: bytes


def lookup_user(root_fd: int, text: str) -> User:
    """The user that a spec names.

    Digits are a number and never a name. A number takes group and home from the first entry of
    that uid, but group 0 only if it is uid 0 (nobody asked for root's group); without an entry the
    group has the same number. A name takes its entry as it is.

    Args:
        root_fd: descriptor of the root directory (O_PATH is enough).
        text: a number, or a name of the root's /etc/passwd.
    Raises:
        SpecError: the number is out of range, there is no such name, or the file can't be used.
    """
    number = _parse_number(text, field="user")
    entries = parse_passwd(_read_accounts(root_fd, _PASSWD, asked=text, field="user"))
    if number is None:
        for entry in entries:
            if entry.name == os.fsencode(text):
                return User(entry.uid, entry.gid, entry.home)
        raise _no_such_name(text, field="user", path=_PASSWD)
    for entry in entries:
        if entry.uid == number:
            gid = entry.gid if entry.gid != 0 or number == 0 else number
            return User(number, gid, entry.home)
    return User(number, number, b"/")


def lookup_group(root_fd: int, text: str, *, field: str = "group") -> int:
    """The number of the group that a spec names: digits are a number and never a name.

    Args:
        root_fd: descriptor of the root directory (O_PATH is enough).
        text: a number, or a name of the root's /etc/group.
        field: the spec's field, for the error.
    Raises:
        SpecError: the number is out of range, there is no such name, or the file can't be used.
    """
    number = _parse_number(text, field=field)
    if number is not None:
        return number
    for name, gid in parse_group(_read_accounts(root_fd, _GROUP, asked=text, field=field)):
        if name == os.fsencode(text):
            return gid
    raise _no_such_name(text, field=field, path=_GROUP)


def parse_passwd(data: bytes) -> Iterator[PasswdEntry]:
    """The well-formed lines of a passwd file, in order; the others are passed over.

    Passed over are comments, NIS lines (+ and -), a wrong number of fields, and ids that are no
    plain decimal number in range. A home that is no absolute path reads as "/".
    """
    for fields in _split_lines(data, count=7):
        uid, gid = parse_id(fields[2]), parse_id(fields[3])
        if uid is not None and gid is not None:
            home = fields[5] if fields[5].startswith(b"/") else b"/"
            yield PasswdEntry(fields[0], uid, gid, home)


def parse_group(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and number of the well-formed lines of a group file; see `parse_passwd`."""
    for fields in _split_lines(data, count=4):
        gid = parse_id(fields[2])
        if gid is not None:
            yield fields[0], gid


def parse_id(text: bytes) -> int | None:
    """A user or group number in plain decimal digits, or None for anything else."""
    digits = text.lstrip(b"0") or b"0"
    # The length first: int() refuses some thousand digits, and takes its time before that.
    if not text.isdigit() or len(digits) > len(str(ID_MAX)):
        return None
    number = int(digits)
    return number if number <= ID_MAX else None


def _split_lines(data: bytes, *, count: int) -> Iterator[list[bytes]]:
    for line in data.split(b"\n"):
        fields = line.split(b":")
        # A NUL would cut the home's variable short in the job's environment.
        is_entry = len(fields) == count and fields[0][:1] not in (b"", b"#", b"+", b"-")
        if is_entry and b"\0" not in line:
            yield fields


def _parse_number(text: str, *, field: str) -> int | None:
    """The number that `text` is, or None if it is a name."""
    if not (text.isascii() and text.isdigit()):
        return None
    number = parse_id(text.encode("ascii"))
    if number is None:
        raise SpecError(
            f"cannot use {field} {text!r}: must be from 0 to {ID_MAX}", field=field, value=text
        )
    return number


def _no_such_name(text: str, *, field: str, path: str) -> SpecError:
    return SpecError(
        f"cannot use {field} {text!r}: the root's {path} has no such name",
        hint=f"give a number, or a name that is in the root file system's {path}",
        field=field,
        value=text,
    )


def _read_accounts(root_fd: int, path: str, *, asked: str, field: str) -> bytes:
    """The whole file; empty where the root has none."""
    try:
        fd = _open_in_root(root_fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise _unusable(error.errno, path=path, asked=asked, field=field) from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _unusable("not a regular file", path=path, asked=asked, field=field)
        data = _read_capped(fd)
    except OSError as error:
        raise _unusable(error.errno, path=path, asked=asked, field=field) from error
    finally:
        os.close(fd)
    if len(data) > FILE_BYTES_MAX:
        reason = f"larger than {FILE_BYTES_MAX} bytes"
        raise _unusable(reason, path=path, asked=asked, field=field)
    return data


def _open_in_root(root_fd: int, path: str) -> int:
    """Look the file up without opening it: opening alone makes some devices act."""
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    for _ in range(_OPEN_TRIES - 1):
        with contextlib.suppress(BlockingIOError):
            return syscalls.openat2(root_fd, os.fsencode(path), os.O_PATH, resolve=resolve)
    return syscalls.openat2(root_fd, os.fsencode(path), os.O_PATH, resolve=resolve)


def _read_capped(path_fd: int) -> bytes:
    """At most one byte more than the cap, so that the caller sees that there is more."""
    # O_NONBLOCK: another process's lease on the file (fcntl(2)) is not waited for.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    data = bytearray()
    with open(os.open(f"/proc/self/fd/{path_fd}", flags), "rb", buffering=0) as file:
        while chunk := file.read(FILE_BYTES_MAX + 1 - len(data)):
            data += chunk
    return bytes(data)


def _unusable(reason: str | int | None, *, path: str, asked: str, field: str) -> SpecError:
    text = reason if isinstance(reason, str) else os.strerror(reason or 0).lower()
    return SpecError(
        f"cannot look up {field} {asked!r} in the root's {path}: {text}",
        hint=f"make the root file system's {path} a plain text file, or remove it",
        field=field,
        value=asked,
    )
