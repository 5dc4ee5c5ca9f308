"""The job that the init makes: who it is, where it stands, what it holds."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
from typing import Any

import pytest

from execdrv.init import Failed, Job, Started

PATH_ENV = b"PATH=/bin"
ALL_SIGNALS = set(range(1, 65))


def last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def held_bounding() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))


def probe(launch: Any, **fields: Any) -> dict[str, str]:
    """What a job under this order says of itself."""
    before = fields.pop("before", None)
    run = launch.ready(before=before)
    assert isinstance(run.order("/bin/probe", "show", **fields)[-1], Started), run.messages
    assert run.exited().status == 0
    lines = run.output().decode().splitlines()
    return dict(line.split("=", 1) for line in lines)


# ---- the job's state -----------------------------------------------------------------------


def test_job_is_the_user_asked_for_and_nothing_more(launch: Any) -> None:
    def hold_groups() -> None:
        os.setgroups([4, 6, 1234])  # of the caller: must not arrive

    found = probe(launch, uid=1000, gid=678, groups=(678, 27, 27), before=hold_groups)
    assert (found["uid"], found["gid"]) == ("1000 1000 1000", "678 678 678")
    assert found["groups"] == "27 678"


def test_no_groups_means_none(launch: Any) -> None:
    found = probe(launch, uid=5, gid=6, before=lambda: os.setgroups([4, 6, 1234]))
    assert found["groups"] == ""


def test_many_groups_in_any_order(launch: Any) -> None:
    groups = tuple(range(60, 0, -1))
    assert probe(launch, groups=groups)["groups"] == " ".join(map(str, range(1, 61)))


@pytest.mark.parametrize("uid", [0, 1000])
def test_no_capability_unless_asked(launch: Any, uid: int) -> None:
    found = probe(launch, uid=uid)
    for name in ("bounding", "permitted", "effective", "inheritable", "ambient", "securebits"):
        assert found[name] == "0", name
    assert found["no_new_privs"] == "1"


def test_root_keeps_exactly_the_bounding_set(launch: Any) -> None:
    wanted = 0b1110_0000_1011  # CHOWN, DAC_OVERRIDE, FOWNER, SETPCAP and two more
    found = probe(launch, bounding=wanted, permitted=wanted, effective=wanted)
    for name in ("bounding", "permitted", "effective"):
        assert found[name] == f"{wanted:x}", name
    assert (found["inheritable"], found["ambient"]) == ("0", "0")


def test_every_capability_of_the_caller_can_be_kept(launch: Any) -> None:
    wanted = held_bounding()
    assert probe(launch, bounding=wanted, permitted=wanted, effective=wanted)["bounding"] == (
        f"{wanted:x}"
    )


def test_other_users_lose_all_but_the_bounding_set(launch: Any) -> None:
    found = probe(launch, uid=1000, bounding=0b1011)
    assert found["bounding"] == "b"
    assert {found[name] for name in ("permitted", "effective", "inheritable", "ambient")} == {"0"}


def test_ambient_capabilities_survive_for_other_users(launch: Any) -> None:
    one = 1 << 10  # NET_BIND_SERVICE
    sets = dict.fromkeys(("bounding", "permitted", "effective", "inheritable", "ambient"), one)
    found = probe(launch, uid=1000, **sets)
    assert {found[name] for name in sets} == {"400"}
    assert found["securebits"] == "0"


def test_ambient_capabilities_of_the_caller_end(launch: Any, libc: Any) -> None:
    one = 1 << 10

    def before() -> None:
        header = struct.pack("=Ii", 0x20080522, 0)
        full = 2**32 - 1
        data = bytearray(struct.pack("=6I", full, full, 0, full, full, 0))
        held = libc.capget(header, (ctypes.c_char * 24).from_buffer(data))
        struct.pack_into("=I", data, 8, one)  # inheritable
        if held or libc.capset(header, bytes(data)) or libc.prctl(47, 2, 10, 0, 0):
            raise OSError("no ambient capability")

    sets = dict.fromkeys(("bounding", "permitted", "effective", "inheritable"), one)
    found = probe(launch, before=before, **sets)
    assert (found["inheritable"], found["ambient"]) == ("400", "0")


def test_capability_beyond_the_kernels_last_is_refused(launch: Any) -> None:
    number = last_capability() + 1
    failed = launch.ready().failed("/bin/true", bounding=1 << number)
    assert (failed.stage, failed.path, failed.detail) == ("bounding", b"%d" % number, b"absent")


def test_effective_beyond_permitted_is_refused(launch: Any) -> None:
    assert launch.ready().failed("/bin/true", bounding=3, effective=1).stage == "capabilities"


def test_no_new_privs_can_be_left_off(launch: Any) -> None:
    assert probe(launch, no_new_privs=False)["no_new_privs"] == "0"


def test_no_new_privs_that_cannot_be_cleared_is_said(launch: Any, libc: Any) -> None:
    run = launch.ready(before=lambda: libc.prctl(38, 1, 0, 0, 0))
    failed = run.failed("/bin/true", no_new_privs=False)
    assert (failed.stage, failed.detail) == ("no-new-privs", b"set")


def test_signals_are_reset_whatever_the_caller_does_with_them(launch: Any, libc: Any) -> None:
    def spoil() -> None:
        for number in ALL_SIGNALS - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, ALL_SIGNALS - {32, 33})

    found = probe(launch, before=spoil)
    assert (found["ignored"], found["blocked"]) == ("0", "0")


def test_exit_status_arrives_when_the_caller_ignores_sigchld(launch: Any) -> None:
    run = launch.ready(before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None)
    run.order("sh", "-c", "sleep 0.01; exit 3", env=(PATH_ENV,))
    assert os.waitstatus_to_exitcode(run.exited().status) == 3


@pytest.mark.parametrize("asked", [0o022, 0o777, 0])
def test_umask_is_the_orders(launch: Any, asked: int) -> None:
    assert probe(launch, umask=asked, before=lambda: os.umask(0o777) and None)["umask"] == (
        f"{asked:04o}"
    )


def test_session_is_the_jobs_own_and_has_no_terminal(launch: Any) -> None:
    found = probe(launch)
    assert (found["session"], found["tty"]) == ("own", "-1")


def test_job_is_dumpable_again(launch: Any) -> None:
    assert probe(launch)["dumpable"] == "1"


def test_arguments_and_environment_are_exact(launch: Any) -> None:
    run = launch.ready(env={"SECRET": "of the caller"})
    argv = ("/bin/probe", "show", "", "a b", b"\xff\n", "")
    run.order(*argv, env=(b"A=", b"B=\xfe\n", b"A=2"))
    run.exited()
    output = run.output()
    assert b"argv=[/bin/probe][show][][a b][\xff\n][]\n" in output
    assert output.endswith(b"env=[A=][B=\xfe\n][A=2]\n")


def test_rlimits_are_exact(launch: Any) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    asked = ((resource.RLIMIT_NOFILE, 64, hard - 1), (resource.RLIMIT_CORE, 0, 0))
    found = probe(launch, rlimits=asked)["rlimits"].split()
    assert found[resource.RLIMIT_NOFILE] == f"40:{hard - 1:x}"
    assert found[resource.RLIMIT_CORE] == "0:0"


@pytest.mark.parametrize("number", [resource.RLIMIT_NOFILE, 16, 4294967295])
def test_rlimit_the_kernel_refuses_is_named(launch: Any, number: int) -> None:
    failed = launch.ready().failed("/bin/true", rlimits=((number, 2, 1),))
    assert (failed.stage, failed.path) == ("rlimit", b"%d" % number)
    assert failed.errno


# ---- the working directory -------------------------------------------------------------------


def test_working_directory_is_entered_as_the_user(launch: Any) -> None:
    assert probe(launch, uid=1000, gid=1000, cwd=b"/u")["cwd"] == "/u"
    failed = launch.ready().failed("/bin/true", uid=1000, gid=1001, cwd=b"/r")
    assert (failed.stage, failed.path, failed.detail) == ("chdir", b"/r", b"1000:1001")


@pytest.mark.parametrize("cwd", [b"/nope", b"/bin/sh", b"/" + b"x" * 300, b"/u" * 4000])
def test_working_directory_that_cannot_be_entered_is_named(launch: Any, cwd: bytes) -> None:
    failed = launch.ready().failed("/bin/true", cwd=cwd)
    assert failed.stage == "chdir"
    assert failed.path == cwd[:4095]


def test_working_directory_never_leads_through_an_open_descriptor(launch: Any, root: str) -> None:
    def hold_directories() -> None:
        for number in (0, 9, 30):
            os.dup2(host_dir, number)

    host_dir = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    targets = [
        f"/proc/{who}/fd/{number}" for who in ("self", "1", "thread-self") for number in range(41)
    ]
    for target in targets:
        link = os.path.join(root, "tmp/link")
        os.symlink(target, link)
        for cwd in (target.encode(), b"/tmp/link"):
            run = launch.ready(before=hold_directories)
            failed = run.failed("/bin/true", cwd=cwd, keep_fds=(9,))
            assert (failed.stage, failed.path) == ("chdir", cwd)
            if launch.has_pid_namespace and target in ("/proc/self/fd/0", "/proc/self/fd/9"):
                assert failed.detail == b"unreachable"  # the job's own, so chdir itself succeeds
        os.unlink(link)
    os.close(host_dir)


def test_init_and_job_start_inside_the_root_wherever_the_caller_was(launch: Any) -> None:
    outside = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    assert probe(launch, before=lambda: os.fchdir(outside))["cwd"] == "/"
    run = launch.ready(before=lambda: os.fchdir(outside))
    os.close(outside)
    assert os.readlink(f"/proc/{run.pid}/cwd") == os.readlink(f"/proc/{run.pid}/root")


# ---- descriptors -------------------------------------------------------------------------------


@pytest.fixture
def leaks() -> Any:
    """Opens canaries, inheritable, some above the limit that then holds."""

    def open_canaries() -> None:
        canary = os.open("/bin", os.O_RDONLY)
        pair = socket.socketpair()
        for number in (5, 9, 57, 1500, 2048):
            os.dup2(canary, number)
        os.dup2(pair[0].fileno(), 58)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    return open_canaries


def test_job_holds_its_stdio_only(launch: Any, leaks: Any) -> None:
    assert probe(launch, before=leaks)["fds"] == "0 1 2 "


def test_job_keeps_what_it_was_given(launch: Any, leaks: Any) -> None:
    assert probe(launch, before=leaks, keep_fds=(2048, 5, 57))["fds"] == "0 1 2 5 57 2048 "


@pytest.mark.parametrize("missing", [3, 700])
def test_kept_descriptor_that_is_not_open_is_named(launch: Any, missing: int) -> None:
    failed = launch.ready(before=lambda: os.closerange(3, 5)).failed(
        "/bin/true", keep_fds=(missing,)
    )
    assert (failed.stage, failed.path) == ("keep-fds", b"%d" % missing)


@pytest.mark.parametrize("stdio", [0, 1, 2])
def test_closed_stdio_is_refused_and_not_filled_with_ours(launch: Any, stdio: int) -> None:
    failed = launch.ready(before=lambda: os.close(stdio)).failed("/bin/true")
    assert (failed.stage, failed.path) == ("keep-fds", b"%d" % stdio)


def test_without_close_range_the_list_of_proc_is_used(
    launch_pidns: Any, leaks: Any, forbid: Any
) -> None:
    def before() -> None:
        leaks()
        forbid("close_range")

    assert probe(launch_pidns, before=before, keep_fds=(57,))["fds"] == "0 1 2 57 "


def test_without_close_range_and_proc_nothing_starts(
    launch_chroot: Any, forbid: Any, root: str
) -> None:
    failed = launch_chroot.ready(before=lambda: forbid("close_range")).failed("/bin/true")
    assert failed.stage == "close-fds"
    os.makedirs(f"{root}/proc/self/fd")
    try:  # a directory of the job's own at that name proves nothing
        failed = launch_chroot.ready(before=lambda: forbid("close_range")).failed("/bin/true")
        assert failed.stage == "close-fds"
    finally:
        os.removedirs(f"{root}/proc/self/fd")
        os.makedirs(f"{root}/proc", exist_ok=True)


# ---- order of the messages -----------------------------------------------------------------------


def test_pids_are_those_the_supervisor_sees(launch: Any) -> None:
    run = launch.ready()
    job, started = run.order("/bin/sleep", "60")
    assert isinstance(job, Job) and isinstance(started, Started)
    with open(f"/proc/{job.pid}/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    assert int(fields["PPid"]) == run.pid
    assert fields["Name"].strip() == "sleep"
    assert int(fields["NSpid"].split()[-1]) == started.inner_pid
    assert (started.inner_pid == job.pid) is not launch.has_pid_namespace


def test_nothing_runs_before_the_order(launch: Any) -> None:
    run = launch.ready()
    with open(f"/proc/{run.pid}/task/{run.pid}/children") as file:
        assert file.read() == ""
    run.gate.close()
    assert os.waitstatus_to_exitcode(run.reap()) == 0
    assert run.output() == b""


def test_failure_leaves_no_process(launch: Any) -> None:
    run = launch.ready()
    run.failed("/nosuch")
    job = run.job()
    assert not os.path.exists(f"/proc/{job}")
    assert [type(message) for message in run.messages] == [Job, Failed]
