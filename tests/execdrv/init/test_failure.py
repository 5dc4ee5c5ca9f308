"""Failures: the class gives the exit status, the one line names what was asked for."""

from __future__ import annotations

import errno

import pytest

from execdrv.errors import CommandNotExecutableError, CommandNotFoundError, StartError
from execdrv.init.failure import error_of, quote
from execdrv.init.message import Failed

NOT_FOUND, NOT_EXECUTABLE = CommandNotFoundError, CommandNotExecutableError


def exec_failure(number: int, path: bytes, detail: bytes = b"") -> Failed:
    return Failed("exec", number, path, detail)


@pytest.mark.parametrize(
    ("failed", "argv0", "kind", "message"),
    [
        (exec_failure(2, b"nosuch", b"path"), b"nosuch", NOT_FOUND,
         "cannot execute 'nosuch': not found in PATH"),
        (exec_failure(2, b"/nosuch/x"), b"/nosuch/x", NOT_FOUND,
         "cannot execute '/nosuch/x': no such file or directory"),
        (exec_failure(20, b"/bin/sh/x"), b"/bin/sh/x", NOT_FOUND,
         "cannot execute '/bin/sh/x': not a directory"),
        (exec_failure(2, b"", b"empty"), b"", NOT_FOUND,
         "cannot execute '': the command is empty"),
        (exec_failure(13, b"/etc", b"directory"), b"/etc", NOT_EXECUTABLE,
         "cannot execute '/etc': it is a directory"),
        (exec_failure(13, b"/dev/null", b"not-regular"), b"/dev/null", NOT_EXECUTABLE,
         "cannot execute '/dev/null': it is not a regular file"),
        (exec_failure(8, b"/s.sh"), b"/s.sh", NOT_EXECUTABLE,
         "cannot execute '/s.sh': its format is not executable"),
        (exec_failure(2, b"/bin/s", b"interpreter:/no/such"), b"s", NOT_FOUND,
         "cannot execute 's': its interpreter '/no/such' is not in the root file system"
         " (as '/bin/s')"),
        (exec_failure(2, b"/dos.sh", b"interpreter:/bin/sh\r"), b"/dos.sh", NOT_FOUND,
         "cannot execute '/dos.sh': its interpreter '/bin/sh\\r' is not in the root file system"),
        (exec_failure(2, b"/x", b"loader:/lib64/ld.so"), b"/x", NOT_FOUND,
         "cannot execute '/x': its program loader '/lib64/ld.so' is not in the root file system"),
        (exec_failure(2, b"/x", b"interpreter:"), b"/x", NOT_FOUND,
         "cannot execute '/x': its interpreter or program loader is not in the root file system"),
        (exec_failure(13, b"/x", b"interpreter:/i"), b"/x", NOT_EXECUTABLE,
         "cannot execute '/x': permission denied for its interpreter '/i'"),
        (exec_failure(13, b"/d.txt", b"mode"), b"/d.txt", NOT_EXECUTABLE,
         "cannot execute '/d.txt': permission denied, no execute bit that applies to its user"),
        (exec_failure(13, b"/bin/true", b"noexec"), b"/bin/true", NOT_EXECUTABLE,
         "cannot execute '/bin/true': its file system is mounted noexec"),
        (exec_failure(13, b"/bin/a\xff\n"), b"/bin/a\xff\n", NOT_EXECUTABLE,
         "cannot execute '/bin/a\\xff\\n': permission denied"),
        (exec_failure(7, b"/x"), b"/x", NOT_EXECUTABLE,
         "cannot execute '/x': its arguments and environment are too long"),
        (exec_failure(26, b"/x"), b"/x", NOT_EXECUTABLE,
         "cannot execute '/x': text file busy"),
        (Failed("chdir", 2, b"/nope", b"0:0"), b"true", StartError,
         "cannot start 'true': cannot enter working directory '/nope' for user 0, group 0:"
         " no such file or directory"),
        (Failed("chdir", 13, b"/r", b"1000:1001"), b"true", StartError,
         "cannot start 'true': cannot enter working directory '/r' for user 1000, group 1001:"
         " permission denied"),
        (Failed("chdir", 18, b"/proc/self/fd/9", b"unreachable"), b"true", StartError,
         "cannot start 'true': working directory '/proc/self/fd/9' is not inside the root file"
         " system"),
        (Failed("rlimit", 1, b"7", b""), b"true", StartError,
         "cannot start 'true': cannot set rlimit 'nofile': operation not permitted"),
        (Failed("rlimit", 22, b"99", b""), b"true", StartError,
         "cannot start 'true': cannot set rlimit '99': invalid argument"),
        (Failed("keep-fds", 9, b"3", b""), b"true", StartError,
         "cannot start 'true': fd 3 is not open"),
        (Failed("close-fds", 38, b"/proc/self/fd", b""), b"true", StartError,
         "cannot start 'true': cannot close the descriptors that are not the job's: function not"
         " implemented"),
        (Failed("fork", 11, b"", b""), b"true", StartError,
         "cannot start 'true': cannot fork: resource temporarily unavailable"),
        (Failed("bounding", 1, b"24", b"absent"), b"true", StartError,
         "cannot start 'true': capability 24 is not in execdrv's own bounding set"),
        (Failed("bounding", 1, b"3", b""), b"true", StartError,
         "cannot start 'true': cannot drop capability 3: operation not permitted"),
        (Failed("capabilities", 1, b"", b"ambient"), b"true", StartError,
         "cannot start 'true': cannot set its capabilities (ambient): operation not permitted"),
        (Failed("no-new-privs", 1, b"", b"set"), b"true", StartError,
         "cannot start 'true': no_new_privs is set for execdrv itself and can't be cleared"),
        (Failed("uid", 1, b"", b""), b"true", StartError,
         "cannot start 'true': cannot set its uid: operation not permitted"),
        (Failed("seccomp", 22, b"", b""), b"true", StartError,
         "cannot start 'true': cannot set its seccomp: invalid argument"),
        (Failed("order", 71, b"", b""), b"true", StartError,
         "cannot start 'true': its init does not understand the order (protocol error)"),
        (Failed("rlimit", 0, b"", b"signal:9"), b"true", StartError,
         "cannot start 'true': signal 9 ended it in stage 'rlimit'"),
    ],
)  # fmt: skip
def test_failure_reads_as_one_line_of_the_right_class(
    failed: Failed, argv0: bytes, kind: type[StartError], message: str
) -> None:
    error = error_of(failed, argv0)
    assert type(error) is kind
    assert str(error) == message
    assert "\n" not in error.hint
    assert error.fields() == {"errno": failed.errno}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_only_what_is_not_there_is_not_found(number: int) -> None:
    status = error_of(exec_failure(number, b"/x"), b"/x").exit_status
    absent = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
    assert status == (127 if number in absent else 126)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "'plain'"),
        (b"it's", '"it\'s"'),
        ("grün".encode(), "'grün'"),
        (b"\xff\xfe", "'\\xff\\xfe'"),
        (b"a\r\n\t\x1b[0m", "'a\\r\\n\\t\\x1b[0m'"),
        (b"\\udcff", "'\\\\udcff'"),
        ("\u202egnp".encode(), "'\\u202egnp'"),
        (b"x" * 300, "'" + "x" * 256 + "...'"),
    ],
)
def test_quote_shows_every_byte_on_one_line(value: bytes, shown: str) -> None:
    assert quote(value) == shown
