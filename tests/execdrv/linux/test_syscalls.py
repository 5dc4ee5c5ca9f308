"""The thin system call layer: right numbers, errors that say what was called, nothing at import."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from execdrv.errors import UnsupportedError
from execdrv.linux import syscalls

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
#: Names that the C library gives to calls of other names.
KERNEL_NAMES = {"umount2": ("umount2", "umount")}


def status_of_child(action: Callable[[], bool]) -> int:
    """The exit status of a forked child: 0 if the action is true there."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if action() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


# --- numbers -----------------------------------------------------------------------------------


def test_every_architecture_knows_the_same_calls() -> None:
    known = [set(table) for table in syscalls.NUMBERS.values()]
    assert all(names == known[0] for names in known)


@pytest.mark.parametrize("architecture", sorted(syscalls.NUMBERS))
def test_numbers_are_those_of_the_kernel_headers(architecture: str) -> None:
    present = [path for path in HEADERS[architecture] if os.path.exists(path)]
    if not present:
        pytest.skip(f"no header {HEADERS[architecture][0]} (apt-get install linux-libc-dev)")
    text = Path(present[0]).read_text()
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    for name, number in syscalls.NUMBERS[architecture].items():
        listed = [numbers[n] for n in KERNEL_NAMES.get(name, (name,)) if n in numbers]
        # A header older than the call can't confirm it.
        assert not listed or int(listed[0]) == number, name
    assert len(numbers) > 200


def test_another_architecture_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="riscv64"))
    syscalls.numbers.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match="'riscv64'"):
            syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS)
    finally:
        syscalls.numbers.cache_clear()


def test_a_32_bit_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    syscalls.numbers.cache_clear()
    try:
        with pytest.raises(UnsupportedError, match="64-bit"):
            syscalls.numbers()
    finally:
        syscalls.numbers.cache_clear()


def test_nothing_is_loaded_by_the_import() -> None:
    script = (
        "from execdrv.linux import syscalls as s;"
        "print(s._syscall_function.cache_info().currsize, s.numbers.cache_info().currsize)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout.split() == [b"0", b"0"]


# --- errors ------------------------------------------------------------------------------------


def test_a_failed_call_is_named_with_its_arguments(directory: int) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        syscalls.openat2(directory, b"no\nsuch", os.O_PATH)
    assert caught.value.errno == errno.ENOENT
    assert f"openat2({directory}, b'no\\nsuch', {{" in str(caught.value)


def test_a_null_pointer_and_negative_numbers_are_shown_as_such() -> None:
    with pytest.raises(OSError, match=r"mount\(NULL, b'/nosuch', NULL, 0x1000, NULL\)"):
        syscalls.mount(None, b"/nosuch", flags=syscalls.MS_BIND)
    with pytest.raises(OSError, match=r"setns\(-1, 0\)") as caught:
        syscalls.setns(-1)
    assert caught.value.errno == errno.EBADF


def test_a_zero_byte_is_refused_before_the_kernel_sees_a_part(directory: int) -> None:
    with pytest.raises(ValueError, match="zero byte"):
        syscalls.openat2(directory, b"a\0b", os.O_PATH)


def test_wide_numbers_reach_the_kernel_whole() -> None:
    def set_signal() -> bool:
        try:
            # Its lower half is a valid signal.
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, (1 << 32) | signal.SIGKILL)
        except OSError as error:
            return error.errno == errno.EINVAL
        return False

    assert status_of_child(set_signal) == 0


# --- files -------------------------------------------------------------------------------------


def test_links_stay_below_the_directory_with_resolve_in_root(
    directory: int, tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "up").symlink_to("/../../inside")
    fd = syscalls.openat2(directory, b"up", os.O_PATH, resolve=syscalls.RESOLVE_IN_ROOT)
    assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "inside"))
    assert not os.get_inheritable(fd)
    os.close(fd)
    with pytest.raises(OSError, match="symbolic links") as caught:
        syscalls.openat2(directory, b"up", os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)
    assert caught.value.errno == errno.ELOOP


def test_a_mount_id_is_that_of_mountinfo() -> None:
    fd = os.open("/proc", os.O_PATH)
    listed = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    assert str(syscalls.mount_id(fd)) in [words[0] for words in listed if words[4] == "/proc"]
    os.close(fd)


# --- processes ---------------------------------------------------------------------------------


def test_clone_returns_in_both_processes() -> None:
    pid = syscalls.clone(0)
    if pid == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_new_uts_namespace_leaves_the_machines_name() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    before = socket.gethostname()

    def rename() -> bool:
        syscalls.unshare(syscalls.CLONE_NEWUTS)
        syscalls.sethostname(b"renamed")
        return os.uname().nodename == "renamed"

    assert status_of_child(rename) == 0
    assert socket.gethostname() == before


def test_a_pid_namespace_made_by_clone_numbers_from_one() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    pid = syscalls.clone(syscalls.CLONE_NEWPID)
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_close_range_closes_what_is_in_it_only() -> None:
    def close() -> bool:
        low, high = os.open("/", os.O_PATH), 300
        os.dup2(low, high)
        syscalls.close_range(200)
        os.fstat(low)
        try:
            os.fstat(high)
        except OSError:
            return True
        return False

    assert status_of_child(close) == 0


def test_capabilities_are_read_as_proc_shows_them() -> None:
    text = Path("/proc/self/status").read_text()
    shown = [
        int(re.search(rf"{name}:\s*(\w+)", text)[1], 16) for name in ("CapEff", "CapPrm", "CapInh")
    ]  # type: ignore[index]
    assert list(syscalls.capget()) == shown


def test_capabilities_can_be_given_up() -> None:
    def give_up() -> bool:
        _, permitted, _ = syscalls.capget()
        kept = permitted & 0b1000_0000_0000_0000_0000_0000_0000_0010_0000_0001
        syscalls.capset(kept, kept, 0)
        return syscalls.capget() == (kept, kept, 0)

    assert status_of_child(give_up) == 0


def test_prctl_changes_and_reads_this_process() -> None:
    def mark() -> bool:
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        answer = bytearray(4)
        syscalls.call("prctl", syscalls.PR_GET_CHILD_SUBREAPER, answer, 0, 0, 0)
        return syscalls.prctl(syscalls.PR_GET_NO_NEW_PRIVS) == 1 and answer[0] == 1

    assert status_of_child(mark) == 0


def test_a_pidfd_names_a_process() -> None:
    child = subprocess.Popen(["sleep", "30"])
    fd = syscalls.pidfd_open(child.pid)
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not os.get_inheritable(fd)
    os.close(fd)
