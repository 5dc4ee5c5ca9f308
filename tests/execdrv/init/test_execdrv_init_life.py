"""The init after the start: exact ends, reaping, and that it never outlives its supervisor."""

from __future__ import annotations

import os
import resource
import signal
import struct
import time
from typing import Any

import pytest

from execdrv.init import Exited, Failed, Job, Order, Started, encode_order

PATH_ENV = (b"PATH=/bin",)
#: The limit on processes counts a user's on the whole machine, those of other test runs too.
UNUSED_UID = 1_900_000_000 + os.getpid()
#: Signals whose default is not to end the process. The last three stop only what a shell could
#: wake again: a session of one's own never is (setpgid(2), orphaned process groups).
IGNORED = {
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
    signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
}  # fmt: skip


def process_state(pid: int) -> str:
    """The letter of proc(5), or "" if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def start_time(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[19]


def is_running(pid: int) -> bool:
    return process_state(pid) not in ("", "Z", "X")


def children_of(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def cpu_ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as file:
        return sum(int(value) for value in file.read().rpartition(")")[2].split()[11:13])


# ---- exact ends ----------------------------------------------------------------------------


def test_every_exit_code_is_exact(launch: Any) -> None:
    for code in range(256):
        run = launch.ready()
        run.order("sh", "-c", f"exit {code}", env=PATH_ENV)
        assert run.exited().status == code << 8
        run.end()
        launch.runs.remove(run)


@pytest.mark.parametrize("number", range(1, 65))
def test_every_signal_acts_as_outside(launch: Any, wait_for: Any, number: int) -> None:
    run = launch.ready()
    run.order("/bin/probe", "kill", str(number))
    if number == signal.SIGSTOP:
        wait_for(lambda: process_state(run.job()) == "T", "it does not stop")
        os.kill(run.job(), signal.SIGCONT)
    status = run.exited().status
    if number in IGNORED | {signal.SIGSTOP}:
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 77
    else:
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == number


@pytest.mark.parametrize("limit", [0, 2**64 - 1])
def test_core_dump_flag_is_kept(launch_chroot: Any, root: str, limit: int) -> None:
    with open("/proc/sys/kernel/core_pattern") as file:
        if not file.read()[0].isalnum():
            pytest.skip("core dumps of this machine would leave the root")
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        pytest.skip("core dumps are limited here")
    run = launch_chroot.ready()
    run.order("/bin/probe", "kill", "6", cwd=b"/tmp", rlimits=((4, limit, limit),))
    status = run.exited().status
    for name in os.listdir(f"{root}/tmp"):
        if name.startswith("core"):
            os.unlink(f"{root}/tmp/{name}")
    assert os.WTERMSIG(status) == 6
    assert os.WCOREDUMP(status) == bool(limit)


def test_usage_is_the_jobs(launch: Any) -> None:
    run = launch.ready()
    script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
    run.order("sh", "-c", script, env=PATH_ENV)
    exited = run.exited()
    assert 20_000 < exited.utime_us < 10_000_000
    assert exited.stime_us < exited.utime_us
    assert 100 < exited.maxrss_kib < 100_000


def test_signal_from_outside_ends_the_job(launch: Any) -> None:
    run = launch.ready()
    run.order("/bin/sleep", "60")
    os.kill(run.job(), signal.SIGTERM)
    assert run.exited().status == signal.SIGTERM


def test_job_may_end_before_anyone_looks(launch: Any) -> None:
    for _ in range(100):
        run = launch.ready()
        run.gate.send_order(Order(uid=0, gid=0, argv=(b"/bin/true",)))
        time.sleep(0.003)
        kinds = [type(message) for message in run.read_until(Exited)]
        assert kinds == [Job, Started, Exited]
        run.end()
        launch.runs.remove(run)


# ---- the job's pid, and reaping ---------------------------------------------------------------


def test_pid_stays_the_jobs_until_it_is_released(launch: Any, wait_for: Any) -> None:
    run = launch.ready()
    run.order("/bin/sleep", "0.05")
    before = start_time(run.job())
    run.exited()
    assert (process_state(run.job()), start_time(run.job())) == ("Z", before)
    run.gate.release_pid()
    wait_for(lambda: process_state(run.job()) == "", "the job is not reaped")
    run.gate.release_pid()
    wait_for(lambda: process_state(run.pid) == "S", "the init does not sleep")


def test_released_job_is_reaped_when_it_ends(launch: Any, wait_for: Any) -> None:
    run = launch.ready()
    run.order("/bin/sleep", "0.05")
    run.gate.release_pid()
    run.exited()
    wait_for(lambda: process_state(run.job()) == "", "the job is not reaped")


def test_orphans_are_reaped_while_the_job_runs(launch: Any, wait_for: Any) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.01 & sleep 0.01 & sleep 0.01 &); done"
    run = launch.ready()
    run.order("sh", "-c", f"{script}; {script}; echo made; sleep 60", env=PATH_ENV)
    wait_for(lambda: children_of(run.pid) == [run.job()], "orphans are left")
    assert os.read(run.output_fd, 100) == b"made\n"


def test_many_orphans_at_once_are_all_reaped(launch: Any, wait_for: Any) -> None:
    script = "sleep 0.2; for i in $(/bin/busybox seq 200); do (true &); done; echo made; sleep 60"
    run = launch.ready()
    run.order("sh", "-c", script, env=PATH_ENV)
    os.kill(run.pid, signal.SIGSTOP)
    wait_for(lambda: len(children_of(run.pid)) == 201, "there are no 200 orphans")
    wait_for(lambda: len([p for p in children_of(run.pid) if is_running(p)]) == 1, "they live on")
    os.kill(run.pid, signal.SIGCONT)
    wait_for(lambda: children_of(run.pid) == [run.job()], "orphans are left")


def test_orphans_are_reaped_after_the_job_too(launch: Any, wait_for: Any) -> None:
    run = launch.ready()
    run.order("sh", "-c", "(sleep 0.2 & sleep 0.3 &); exit 0", env=PATH_ENV)
    run.exited()
    run.gate.release_pid()
    wait_for(lambda: children_of(run.pid) == [], "orphans are left")


def test_job_that_ends_leaves_its_output_at_end_of_file(launch: Any) -> None:
    run = launch.ready()
    run.order("sh", "-c", "sleep 60 <&- >&- 2>&- & echo ok", env=PATH_ENV)
    assert run.output() == b"ok\n"
    assert run.exited().status == 0
    assert is_running(run.pid)


def test_kept_descriptor_ends_with_the_job(launch: Any) -> None:
    read_fd, write_fd = os.pipe()
    run = launch.ready(before=lambda: os.dup2(write_fd, 40) and None)
    os.close(write_fd)
    run.order("/bin/sh", "-c", "echo kept >&40", keep_fds=(40,))
    assert run.exited().status == 0
    assert os.read(read_fd, 100) == b"kept\n"
    assert os.read(read_fd, 100) == b""
    os.close(read_fd)


def test_background_children_do_not_delay_the_end(launch: Any, wait_for: Any) -> None:
    began = time.monotonic()
    run = launch.ready()
    run.order("sh", "-c", "sleep 60 & echo $!; exit 9", env=PATH_ENV)
    assert os.waitstatus_to_exitcode(run.exited().status) == 9
    assert time.monotonic() - began < 2
    if launch.has_pid_namespace:
        run.gate.close()
        run.output()  # end of file: the kernel has ended what held it
        assert os.waitstatus_to_exitcode(run.reap()) == 0


def test_init_does_not_spin(launch: Any) -> None:
    run = launch.ready()
    stopper = "kill -STOP $$; sleep 60"
    run.order("sh", "-c", f"(sh -c '{stopper}' &); kill -CHLD $PPID; exit 3", env=PATH_ENV)
    run.exited()
    before = cpu_ticks(run.pid)
    time.sleep(0.5)
    assert cpu_ticks(run.pid) - before <= 1
    run.gate.release_pid()
    time.sleep(0.3)
    assert cpu_ticks(run.pid) - before <= 1


def test_fork_storm_does_not_hide_the_end_of_the_gate(launch_pidns: Any) -> None:
    storm = "while :; do (true & true & true &); done"
    run = launch_pidns.ready()
    run.order("sh", "-c", f"{storm}", env=PATH_ENV, rlimits=((6, 400, 400),), uid=UNUSED_UID)
    time.sleep(0.3)
    began = time.monotonic()
    run.gate.close()
    run.reap()
    assert time.monotonic() - began < 2


# ---- what the init is ------------------------------------------------------------------------


def test_init_holds_no_privilege_and_no_stdio_once_the_job_runs(launch: Any, wait_for: Any) -> None:
    run = launch.ready()
    run.order("/bin/sleep", "60")
    # STARTED tells of the job; the init has given up everything before it sends it.
    with open(f"/proc/{run.pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    death = 0 if launch.has_pid_namespace else 1 << 5  # KILL, for the job's death signal
    expected = {"CapInh": 0, "CapPrm": death, "CapEff": death, "CapBnd": 0, "CapAmb": 0}
    assert {name: int(status[name], 16) for name in expected} == expected
    ends = {os.readlink(f"/proc/{run.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{run.pid}/fd")}
    assert len(ends) == 2 and any(end.startswith("socket:") for end in ends)
    assert "anon_inode:[signalfd]" in ends
    assert status["Name"].strip() == "execdrv-init"


def test_init_ignores_every_signal_it_can(launch: Any) -> None:
    for has_job in (False, True):
        run = launch.ready()
        if has_job:
            run.order("/bin/sleep", "60")
        for number in set(range(1, 65)) - {signal.SIGKILL, signal.SIGSTOP}:
            os.kill(run.pid, number)
        time.sleep(0.02)
        assert is_running(run.pid)
    os.kill(run.job(), signal.SIGKILL)
    assert run.exited().status == signal.SIGKILL


def test_init_shows_nothing_to_the_job(launch_pidns: Any) -> None:
    everything = held_capabilities()
    script = (
        "cat /proc/1/environ; readlink /proc/1/exe; readlink /proc/1/fd/0; cat /proc/1/maps;"
        "cat /proc/1/mem; echo x >/proc/1/exe; sh -c 'exec 3>/proc/1/exe'; echo end"
    )
    # SYS_PTRACE may look; so may, from Linux 6.14 on, SYS_ADMIN and PERFMON.
    for capabilities in (0, everything & ~(1 << 19 | 1 << 21 | 1 << 38)):
        run = launch_pidns.ready(env={"SECRET": "token-of-the-caller"})
        sets = dict.fromkeys(("bounding", "permitted", "effective"), capabilities)
        run.order("sh", "-c", script, env=PATH_ENV, **sets)
        run.exited()
        output = run.output().decode()
        assert "token" not in output and "memfd" not in output and "[stack]" not in output
        assert output.endswith("end\n")


def test_environment_of_the_caller_is_gone_even_for_a_tracer(launch_pidns: Any) -> None:
    everything = held_capabilities()
    run = launch_pidns.ready(env={"SECRET": "token-of-the-caller"})
    script = "cat /proc/1/environ | tr -d '\\0'; echo x >/proc/1/exe; echo end"
    sets = dict.fromkeys(("bounding", "permitted", "effective"), everything)
    run.order("/bin/busybox", "sh", "-c", script, env=PATH_ENV, **sets)
    run.exited()
    output = run.output().decode()
    assert "token" not in output
    assert "can't create /proc/1/exe" in output  # sealed
    assert output.endswith("end\n")


def held_capabilities() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))


def test_init_is_small(launch: Any) -> None:
    run = launch.ready()
    run.order("/bin/sleep", "60", b"0" * 100_000, env=(b"A=" + b"b" * 100_000,))
    with open(f"/proc/{run.pid}/smaps_rollup") as file:
        sizes = dict(line.split(":") for line in file.read().splitlines()[1:])
    # Its program is shared by all inits of one memfd; this is what each has of its own.
    assert int(sizes["Anonymous"].split()[0]) < 150


# ---- death -------------------------------------------------------------------------------------


def test_gate_end_ends_the_init_at_once(launch: Any, wait_for: Any) -> None:
    run = launch.ready()
    run.order("/bin/sleep", "60")
    run.gate.close()
    assert os.waitstatus_to_exitcode(run.reap()) == 0
    # In a pid namespace the kernel, else the job's death signal.
    wait_for(lambda: not is_running(run.job()), "the job lives on", 1.0)


@pytest.mark.parametrize("part", range(4))
def test_gate_end_before_the_whole_order_runs_nothing(launch: Any, part: int) -> None:
    whole = encode_order(Order(uid=0, gid=0, argv=(b"/bin/echo", b"ran")))
    run = launch.ready()
    os.write(run.gate.fileno(), whole[: (0, 3, 40, len(whole) - 1)[part]])
    run.gate.close()
    assert os.waitstatus_to_exitcode(run.reap()) == 0
    assert run.output() == b""


@pytest.mark.parametrize("has_job", [False, True])
def test_kill_of_the_supervisor_ends_init_and_job(
    launch: Any, wait_for: Any, has_job: bool
) -> None:
    read_fd, write_fd = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        try:
            run = launch.ready()
            if has_job:
                run.order("/bin/sleep", "60", uid=1000, gid=1000)
            os.write(write_fd, struct.pack("2i", run.pid, run.job() if has_job else 0))
            signal.pause()
        finally:
            os._exit(99)
    os.close(write_fd)
    init, job = struct.unpack("2i", os.read(read_fd, 8))
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    wait_for(lambda: not is_running(init), "the init lives on", 1.0)
    if has_job:
        wait_for(lambda: not is_running(job), "the job lives on", 1.0)
    os.close(read_fd)
    while True:  # they came to us, a subreaper
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def test_death_signal_holds_without_the_gate(launch: Any, wait_for: Any) -> None:
    """A stray copy of the supervisor's end must not keep the container alive."""
    read_fd, write_fd = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        try:
            run = launch.ready()
            run.order("/bin/sleep", "60")
            if os.fork() == 0:
                signal.pause()
            os.write(write_fd, struct.pack("2i", run.pid, run.job()))
            signal.pause()
        finally:
            os._exit(99)
    init, job = struct.unpack("2i", os.read(read_fd, 8))
    holder = next(pid for pid in children_of(supervisor) if pid != init)
    os.kill(supervisor, signal.SIGKILL)
    try:
        wait_for(lambda: not is_running(init) and not is_running(job), "they live on", 1.0)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.close(write_fd)
        os.close(read_fd)
        with pytest.raises(ChildProcessError):
            while True:
                os.waitpid(-1, 0)


def test_job_killed_on_its_way_is_told(launch_chroot: Any) -> None:
    """By the memory limit, say; here while it searches a long PATH."""
    run = launch_chroot.ready()
    slow = b"PATH=" + b":".join([b"/bin/sh/x"] * 12_000)
    run.gate.send_order(Order(uid=0, gid=0, argv=(b"nosuch",), env=(slow,)))
    job = run.read_until(Job)[-1]
    assert isinstance(job, Job)
    os.kill(job.pid, signal.SIGKILL)
    last = run.read_until(Failed, Exited)[-1]
    # Killed in the search: the init can't tell it from a command that was killed at once.
    assert isinstance(last, Failed) or last.status == signal.SIGKILL


def test_fork_that_fails_is_told(launch_chroot: Any) -> None:
    def before() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        os.setresgid(UNUSED_UID, UNUSED_UID, UNUSED_UID)
        os.setresuid(UNUSED_UID, UNUSED_UID, UNUSED_UID)

    failed = launch_chroot.ready(before=before).failed("/bin/true", uid=UNUSED_UID, gid=UNUSED_UID)
    assert (failed.stage, failed.errno) == ("fork", 11)
