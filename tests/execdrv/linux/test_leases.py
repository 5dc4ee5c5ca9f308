"""Numbers held by lock files: one holder each, whatever dies or collects in between."""

from __future__ import annotations

import os
import signal
import stat
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from execdrv.errors import CreateError, UsageError
from execdrv.linux.leases import Lease, lease_id, remove_lease, sweep_leases

BASE = 2_040_000_000


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "leases")


def take(directory: str, count: int = 100) -> Lease:
    return lease_id(directory, base=BASE, count=count)


def fork(act: Callable[[], None]) -> int:
    """Run `act` in a child, which exits 0 if it returns."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return pid


def exit_codes(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def die_with_a_lease(directory: str) -> int:
    """A child takes a number and is killed; returns the number."""
    read_end, write_end = os.pipe()

    def act() -> None:
        os.write(write_end, b"%d" % take(directory).number)
        signal.pause()

    pid = fork(act)
    number = int(os.read(read_end, 32))
    os.close(read_end)
    os.close(write_end)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return number


def test_the_lowest_free_number_is_given(directory: str) -> None:
    leases = [take(directory) for _ in range(3)]
    assert [lease.number for lease in leases] == [BASE, BASE + 1, BASE + 2]
    leases[1].release()
    again = take(directory)
    assert again.number == BASE + 1
    for lease in (leases[0], leases[2], again):
        lease.release()


def test_release_leaves_no_file_and_no_descriptor(directory: str) -> None:
    before = os.listdir("/proc/self/fd")
    lease = take(directory)
    assert os.listdir(directory) == [str(BASE)]
    lease.release()
    lease.release()
    assert os.listdir(directory) == []
    assert os.listdir("/proc/self/fd") == before


def test_the_files_are_for_us_alone(directory: str) -> None:
    umask = os.umask(0)
    try:
        lease = take(directory)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(lease.path).st_mode) == 0o600
    assert not os.get_inheritable(lease.fd)
    lease.release()


def test_many_processes_at_once_get_distinct_numbers(directory: str) -> None:
    take(directory).release()
    processes, each = 12, 8
    pipes = {name: os.pipe() for name in ("go", "numbers", "end")}

    def act() -> None:
        for name in ("go", "end"):
            os.close(pipes[name][1])
        os.read(pipes["go"][0], 1)
        leases = [take(directory, processes * each) for _ in range(each)]
        os.write(pipes["numbers"][1], b"".join(b"%d\n" % lease.number for lease in leases))
        os.read(pipes["end"][0], 1)

    pids = [fork(act) for _ in range(processes)]
    # End of file: for all of them at the same moment.
    os.close(pipes["go"][1])
    text = b""
    while text.count(b"\n") < processes * each:
        text += os.read(pipes["numbers"][0], 65536)
    os.close(pipes["end"][1])
    assert exit_codes(pids) == [0] * processes
    for fd in (pipes["go"][0], *pipes["numbers"], pipes["end"][0]):
        os.close(fd)
    assert sorted(map(int, text.split())) == list(range(BASE, BASE + processes * each))


def test_the_number_of_a_dead_holder_is_not_given_again(directory: str) -> None:
    number = die_with_a_lease(directory)
    lease = take(directory)
    assert (number, lease.number) == (BASE, BASE + 1)
    assert remove_lease(directory, number)
    assert remove_lease(directory, number)
    assert take(directory).number == number


def test_the_number_of_a_living_holder_is_not_removed(directory: str) -> None:
    lease = take(directory)
    assert not remove_lease(directory, lease.number)
    assert sweep_leases(directory) == []
    assert os.path.exists(lease.path)
    lease.release()


def test_a_copy_of_the_descriptor_holds_the_number(directory: str) -> None:
    lease = take(directory)
    copy = os.dup(lease.fd)
    os.close(lease.fd)
    assert not remove_lease(directory, lease.number)
    os.close(copy)
    assert remove_lease(directory, lease.number)


def test_sweep_frees_what_dead_holders_left(directory: str) -> None:
    numbers = [die_with_a_lease(directory) for _ in range(3)]
    living = take(directory)
    Path(directory, "other").touch()
    assert sweep_leases(directory, keep=[numbers[1]]) == [numbers[0], numbers[2]]
    assert sweep_leases(directory) == [numbers[1]]
    assert sorted(os.listdir(directory)) == [str(living.number), "other"]
    living.release()


def test_sweep_keeps_a_number_that_is_a_processs_uid(directory: str) -> None:
    uid = os.getuid()
    lease = lease_id(directory, base=uid, count=1)
    os.close(lease.fd)
    assert sweep_leases(directory) == []
    assert remove_lease(directory, uid)


def test_no_number_left_is_an_error_that_says_so(directory: str) -> None:
    held = [take(directory, 2) for _ in range(2)]
    with pytest.raises(CreateError, match=f"all 2 from {BASE} on are in use") as caught:
        take(directory, 2)
    assert "gc" in caught.value.hint
    for lease in held:
        lease.release()


def test_without_a_directory_there_is_nothing_to_free(directory: str) -> None:
    assert remove_lease(directory, BASE)
    assert sweep_leases(directory) == []
    assert not os.path.exists(directory)


def test_a_directory_open_to_others_is_refused(directory: str, tmp_path: Path) -> None:
    os.mkdir(directory)
    os.chmod(directory, 0o755)
    for act in (lambda: take(directory), lambda: remove_lease(directory, BASE)):
        with pytest.raises(UsageError, match="not ours alone"):
            act()
    link = tmp_path / "link"
    os.chmod(directory, 0o700)
    link.symlink_to(directory)
    with pytest.raises(UsageError, match="not a directory"):
        take(str(link))
    assert os.listdir(directory) == []
    with pytest.raises(CreateError, match="No such file"):
        take(str(tmp_path / "missing" / "leases"))


def test_a_link_at_a_number_is_not_followed(directory: str, tmp_path: Path) -> None:
    os.mkdir(directory, 0o700)
    target = tmp_path / "target"
    os.symlink(target, f"{directory}/{BASE}")
    lease = take(directory)
    assert lease.number == BASE + 1
    assert not target.exists()
    lease.release()


def test_taking_and_collecting_at_once_never_gives_a_number_twice(directory: str) -> None:
    """Each holder makes a file of its number that must not be there yet."""
    take(directory).release()
    marks = f"{directory}.marks"
    os.mkdir(marks)
    end = time.monotonic() + 1.0

    def hold() -> None:
        while time.monotonic() < end:
            try:
                lease = take(directory, 4)
            except CreateError:
                continue  # each of the four was held, or was just being collected
            os.close(os.open(f"{marks}/{lease.number}", os.O_CREAT | os.O_EXCL))
            os.unlink(f"{marks}/{lease.number}")
            lease.release()

    def collect() -> None:
        while time.monotonic() < end:
            for number in range(BASE, BASE + 4):
                remove_lease(directory, number)

    assert exit_codes([fork(hold) for _ in range(3)] + [fork(collect) for _ in range(3)]) == [0] * 6
    assert os.listdir(directory) == []
