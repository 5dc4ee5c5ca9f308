"""The API over real supervisors: life, faults of drivers, loss, and what is left (nothing)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from execdrv import Host, wire
from execdrv.container import Container
from execdrv.errors import (
    CommandNotFoundError,
    ContainerNotFoundError,
    CreateError,
    DeadlineError,
    DriverBugError,
    ExecdrvError,
    OperationError,
    PluginError,
    SpecError,
    StartError,
    StateError,
    SupervisorLostError,
    UnsupportedError,
)
from execdrv.linux.procfs import ProcessId, list_children
from execdrv.registry import Registry
from execdrv.state import Record, kernel_name

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static"),
]


@pytest.fixture(scope="module")
def R(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("host") / "R"
    for name in ("bin", "proc", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    for applet in ("sh", "true", "sleep", "cat", "echo"):
        (root / "bin" / applet).symlink_to("busybox")
    return root


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def host(state: Path) -> Iterator[Host]:
    with Host(root=str(state)) as opened:
        yield opened
    assert list((state / "containers").iterdir() if state.exists() else []) == []


def groups_of(host: Host, id: str) -> list[str]:
    """The groups of a container that are there."""
    name = kernel_name(host.registry.root, id)
    return [
        os.path.join(directory, name)
        for directory, names, _ in os.walk("/sys/fs/cgroup")
        if name in names
    ]


# --- life --------------------------------------------------------------------------------------


def test_steps_in_their_order_and_no_other(host: Host, R: Path) -> None:
    with host.container("native", ["sleep", "60"], rootfs=R) as container:
        with pytest.raises(StateError, match="was not created"):
            container.isolate()
        container.create()
        assert container.state == "created"
        with pytest.raises(StateError, match="it is created, not ready"):
            container.start()
        container.isolate()
        with pytest.raises(StateError, match="it is isolated, not ready"):
            container.start()
        container.limit()
        process = container.start()
        assert container.state == "running"
        assert Path(f"/proc/{process.pid}/root").stat().st_dev != Path("/").stat().st_dev
        with pytest.raises(StateError, match="it is running"):
            container.start()
    assert container.state == "destroyed"
    container.destroy()


def test_several_waiters_and_a_late_one_get_the_same_exit(host: Host, R: Path) -> None:
    with host.start("native", ["sh", "-c", "sleep 0.3; exit 9"], rootfs=R) as container:
        others = [host.get(container.id) for _ in range(3)]
        results: list[object] = []
        threads = [
            threading.Thread(target=lambda other=other: results.append(other.wait(10)))
            for other in others
        ]
        for thread in threads:
            thread.start()
        mine = container.wait(10)
        for thread in threads:
            thread.join()
        assert [result == mine for result in results] == [True] * 3
        late = host.get(container.id)
        assert late.wait(0.5) == mine
        for other in [*others, late]:
            other.close()


def test_a_container_is_readable_at_its_exit(host: Host, R: Path) -> None:
    with host.start("native", ["sleep", "0.3"], rootfs=R) as container:
        assert select.select([container], [], [], 0)[0] == []
        assert select.select([container], [], [], 5)[0] == [container]
        assert container.wait(0).code == 0


def test_threads_that_wait_on_one_handle_get_the_same_output(host: Host, R: Path) -> None:
    container = host.start(
        "native", ["/bin/sh", "-c", "sleep 0.2; echo word"], rootfs=R, capture=99
    )
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(container.wait(timeout_s=5).stdout))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"word\n"] * 4
    assert container.wait().stdout == b"word\n"
    container.destroy()


def test_who_waits_is_told_when_another_thread_destroys_by_the_same_handle(
    host: Host, R: Path
) -> None:
    for _ in range(5):
        container = host.start("native", ["/bin/sleep", "60"], rootfs=R)
        found: list[str] = []

        def wait(container: Container = container, found: list[str] = found) -> None:
            found.append(container.wait(timeout_s=5).reason)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.01)
        container.destroy()
        thread.join()
        assert found == ["destroyed"]


def test_a_container_is_created_once(host: Host, R: Path) -> None:
    container = host.container("native", ["/bin/true"], rootfs=R)
    with pytest.raises(StateError):
        container.signal(0)
    container.create()
    with pytest.raises(StateError):
        container.create()
    container.destroy()


def test_wait_gives_up_when_told(host: Host, R: Path) -> None:
    with host.start("native", ["sleep", "60"], rootfs=R) as container:
        with pytest.raises(TimeoutError):
            container.wait(0.05)
        container.signal(signal.SIGTERM)
        assert container.wait(5).signal == signal.SIGTERM
        with pytest.raises(StateError, match="it is stopped"):
            container.signal(signal.SIGTERM)


def test_a_container_that_is_destroyed_tells_who_waits(host: Host, R: Path) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    other = host.get(container.id)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(other.wait(10)))
    thread.start()
    time.sleep(0.1)
    host.destroy(container.id)
    thread.join()
    assert [getattr(result, "reason", result) for result in results] == ["destroyed"]
    other.close()
    container.destroy()


def test_a_command_that_does_not_start_leaves_no_exit(host: Host, R: Path) -> None:
    container = host.container("native", ["nosuch"], rootfs=R)
    container.create()
    container.isolate()
    container.limit()
    with pytest.raises(CommandNotFoundError):
        container.start()
    assert (container.state, container.exit) == ("stopped", None)
    with pytest.raises(StartError, match="was not started"):
        container.wait(1)
    container.destroy()


def test_the_end_of_a_host_is_the_end_of_its_containers(state: Path, R: Path) -> None:
    with Host(root=str(state)) as host:
        process = host.start("native", ["sleep", "60"], rootfs=R).inspect()["job"]
    assert not os.path.exists(f"/proc/{process['pid']}")
    assert list((state / "containers").iterdir()) == []


def test_the_death_of_the_caller_is_the_end_of_its_containers(state: Path, R: Path) -> None:
    program = (
        "import sys, time\nfrom execdrv import Host\n"
        f"c = Host(root={str(state)!r}).start('native', ['sleep', '60'], rootfs={str(R)!r})\n"
        "print(c.inspect()['job']['pid'], flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        job = int(caller.stdout.readline())
        caller.kill()
        caller.wait()
    deadline = time.monotonic() + 3
    while os.path.exists(f"/proc/{job}") or list((state / "containers").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_forked_child_has_a_host_of_its_own(host: Host, R: Path) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    pid = os.fork()
    if pid == 0:
        try:
            code = host.run("native", ["sh", "-c", "exit 6"], rootfs=R).code
            host.close()
            os._exit(code or 0)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
    assert container.state == "running"
    container.destroy()


def test_eight_threads_at_once(host: Host, R: Path) -> None:
    codes: list[int | None] = []

    def work(number: int) -> None:
        for _ in range(4):
            codes.append(host.run("native", ["sh", "-c", f"exit {number}"], rootfs=R).code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == sorted(list(range(8)) * 4)  # type: ignore[type-var]


def test_the_callers_cpus_and_rlimits_reach_the_job(host: Host, R: Path) -> None:
    """Also where the fork server was started with others."""
    host.run("native", ["true"], rootfs=R)
    cpus, nofile = os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_NOFILE)
    one = min(cpus)
    try:
        os.sched_setaffinity(0, {one})
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, nofile[1]))
        with host.start("native", ["sleep", "60"], rootfs=R) as container:
            job = container.inspect()["job"]["pid"]
            assert os.sched_getaffinity(job) == {one}
            # The soft limit is at most 1024; a hard one is the caller's.
            assert resource.prlimit(job, resource.RLIMIT_NOFILE)[1] == nofile[1]
    finally:
        os.sched_setaffinity(0, cpus)
        resource.setrlimit(resource.RLIMIT_NOFILE, nofile)


def test_no_child_of_ours_meets_the_callers_wait(host: Host, R: Path) -> None:
    before = list_children(os.getpid())
    host.run("native", ["true"], rootfs=R)
    assert set(list_children(os.getpid())) <= set(before)


# --- faults of drivers -------------------------------------------------------------------------


def test_a_driver_that_hangs_is_ended_at_its_deadline(state: Path, R: Path) -> None:
    with Host(root=str(state), deadline_s=0.5) as host:
        started = time.monotonic()
        with pytest.raises(DeadlineError, match=r"longer than 0\.5 s"):
            host.run("sampledrivers:HangsInIsolate", ["true"], rootfs=R)
        assert time.monotonic() - started < 5
        assert host.containers() == []


def test_a_driver_that_hangs_for_good_is_killed(
    state: Path, R: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execdrv.supervisor.client.PATIENCE_S", 0.5)
    with Host(root=str(state), deadline_s=0.5) as host:
        with pytest.raises(DeadlineError):
            host.run("sampledrivers:HangsForGood", ["true"], rootfs=R)
        assert host.containers() == []


def test_a_bare_exception_is_a_drivers_fault(host: Host, R: Path) -> None:
    with pytest.raises(DriverBugError, match="raised KeyError: 'colour'") as caught:
        host.run("sampledrivers:RaisesBareException", ["true"], rootfs=R)
    assert (caught.value.driver, caught.value.operation) == ("chroot", "isolate")
    assert any("sampledrivers.py" in note for note in caught.value.__notes__)


def test_a_failed_create_leaves_nothing(host: Host, R: Path, state: Path) -> None:
    with pytest.raises(CreateError, match="by intent"):
        host.run("sampledrivers:FailsInCreate", ["true"], rootfs=R)
    assert host.containers() == []
    for lease in Path(host.registry.leases_path).iterdir():
        with pytest.raises(BlockingIOError), lease.open() as file:
            # Somebody else's, who lives: ours would be gone or free.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_limit_without_a_receipt_is_a_drivers_fault(host: Host, R: Path) -> None:
    """A driver that offers a limit and ignores it does not get as far as running the command."""
    mark = R / "mark"
    with pytest.raises(DriverBugError, match="no receipt for memory"):
        host.run(
            "sampledrivers:GivesNoReceipts", ["sh", "-c", "echo > /mark"], rootfs=R, memory="64M"
        )
    assert not mark.exists()


def test_a_driver_that_starts_a_thread_is_refused(host: Host, R: Path) -> None:
    with pytest.raises(DriverBugError, match="started 1 threads"):
        host.run("sampledrivers:StartsAThread", ["true"], rootfs=R)


def test_all_refusals_come_at_once(host: Host, R: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"cannot do one \(and 1 more\)") as caught:
        host.run("sampledrivers:RefusesTwice", ["true"], rootfs=R)
    assert [refusal["message"] for refusal in caught.value.refusals or ()] == [
        "cannot do one",
        "cannot do two",
    ]
    found = host.check("sampledrivers:RefusesTwice", ["true"], rootfs=R)
    assert [refusal.message for refusal in found] == ["cannot do one", "cannot do two"]


def test_a_driver_of_another_contract_is_refused_in_a_sentence(host: Host, R: Path) -> None:
    with pytest.raises(PluginError, match="lacks"):
        host.run("sampledrivers:FromAnotherTime", ["true"], rootfs=R)


def test_a_drivers_death_in_start_is_a_lost_supervisor(host: Host, R: Path) -> None:
    with pytest.raises(SupervisorLostError):
        host.run("sampledrivers:DiesInStart", ["true"], rootfs=R)
    assert host.containers() == []


def test_descriptors_that_a_driver_sends_its_caller_do_not_stay(host: Host, R: Path) -> None:
    host.run("sampledrivers:SendsDescriptors", ["true"], rootfs=R)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert host.run("sampledrivers:SendsDescriptors", ["true"], rootfs=R).code == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_the_driver_left_is_ended(host: Host, R: Path) -> None:
    assert host.run("sampledrivers:LeavesAProcess", ["true"], rootfs=R).code == 0
    left = [name for name in os.listdir("/proc") if name.isdigit() and "61777" in _words(int(name))]
    assert left == []


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


# --- loss and collection -----------------------------------------------------------------------


def lose(host: Host, R: Path, **fields: str) -> str:
    """A container whose supervisor was killed; the Host's handle is thrown away."""
    container = host.start("native", ["sleep", "60"], rootfs=R, **fields)
    os.kill(container.inspect()["supervisor"]["pid"], signal.SIGKILL)
    with pytest.raises(SupervisorLostError):
        container.wait(5)
    assert container.state == "lost"
    host.forget(container)
    container.close()
    return container.id


def test_a_lost_container_is_collected(host: Host, R: Path) -> None:
    first, second = lose(host, R), lose(host, R)
    assert groups_of(host, first)
    assert {entry.id for entry in host.registry.entries()} == {first, second}
    host.destroy(first)
    assert host.gc() == {second: None}
    assert groups_of(host, first) + groups_of(host, second) == []
    with pytest.raises(ContainerNotFoundError):
        host.get(first)


def rewrite(host: Host, id: str, **changes: object) -> None:
    directory = Registry(host.registry.root).adopt(id)
    assert directory is not None
    directory.write(attrs.evolve(directory.read(), **changes))
    directory.close()


def test_a_pid_with_another_start_time_is_left_alone(host: Host, R: Path) -> None:
    """B94: the number in a stale record belongs to somebody else now."""
    id = lose(host, R)
    with subprocess.Popen(["sleep", "60"]) as decoy:
        stale = ProcessId(pid=decoy.pid, start_time=1)
        rewrite(
            host, id, init=stale, job=stale, facts={"init": {"pid": decoy.pid, "start_time": 1}}
        )
        host.destroy(id)
        assert decoy.poll() is None
        decoy.kill()


def test_a_record_of_another_boot_ends_no_process(host: Host, R: Path) -> None:
    id = lose(host, R)
    with subprocess.Popen(["sleep", "60"]) as decoy:
        fields = Path(f"/proc/{decoy.pid}/stat").read_text().rsplit(")", 1)[1].split()
        real = ProcessId(pid=decoy.pid, start_time=int(fields[19]))
        rewrite(host, id, init=real, job=real, boot_id="another", facts={})
        host.destroy(id)
        assert decoy.poll() is None
        decoy.kill()


@pytest.mark.parametrize("text", [b"", b"\x80garbage", b'{"version": 99}'])
def test_a_broken_record_is_removed_with_its_groups(host: Host, R: Path, text: bytes) -> None:
    id = lose(host, R, pids="5")
    assert groups_of(host, id)
    Path(host.registry.path_of(id), "record").write_bytes(text)
    (entry,) = host.registry.entries()
    assert entry.state == "broken"
    assert host.gc() == {id: None}
    assert groups_of(host, id) == []


def test_gc_leaves_the_living_alone(host: Host, R: Path) -> None:
    with host.start("native", ["sleep", "60"], rootfs=R) as container:
        assert host.gc() == {}
        assert container.state == "running"


def test_the_fork_server_can_die(host: Host, R: Path) -> None:
    """What it forked lives on; the next container gets a new one."""
    container = host.start("native", ["sleep", "60"], rootfs=R)
    server = Path(f"/proc/{container.inspect()['supervisor']['pid']}/stat").read_text()
    os.kill(int(server.rsplit(")", 1)[1].split()[1]), signal.SIGKILL)
    time.sleep(0.1)
    assert host.run("native", ["sh", "-c", "exit 4"], rootfs=R).code == 4
    assert container.state == "running"
    container.destroy()


# --- what is asked -----------------------------------------------------------------------------


def test_a_plan_tells_what_would_be_made_and_makes_nothing(host: Host, R: Path) -> None:
    plan = host.plan("native", ["true"], rootfs=R, memory="64M", user="5:6")
    assert (plan["process"]["uid"], plan["process"]["gid"]) == (5, 6)
    assert plan["limits"]["memory_bytes"] == 64 << 20
    assert plan["refusals"] == []
    assert plan["group"]["dirs"]
    assert host.containers() == []
    refused = host.plan("chroot", ["true"], rootfs=R, memory="64M", hostname="x")
    assert [refusal["field"] for refusal in refused["refusals"]] == ["hostname", "memory"]


def test_a_record_round_trips_through_inspect(host: Host, R: Path) -> None:
    with host.start("native", [b"sleep", b"60"], rootfs=R, env={"A": b"\xff"}) as container:
        plain = container.inspect()
        record = wire.decode(Record, wire.loads(wire.dumps(plain)))
        assert record.spec.env == (b"A=\xff",)
        assert record.id == container.id


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"colour": "red"}, "colour"),
        ({"rootfs": "/nosuch"}, "/nosuch"),
        ({"rootfs": "/etc/passwd"}, "/etc/passwd"),
        ({"pass_fds": [77]}, "77"),
        ({"stdin": 78}, "78"),
        ({"capture": -1}, "capture"),
        ({"capture": "many"}, "many"),
    ],
)
def test_a_wrong_value_is_refused_by_name(
    host: Host, R: Path, fields: dict[str, object], word: str
) -> None:
    with pytest.raises(SpecError, match=word):
        host.run("native", ["true"], **{"rootfs": R, **fields})


def test_an_unknown_driver_is_refused_by_name(host: Host, R: Path) -> None:
    for driver in ("nosuch", "no.such:Driver", "sampledrivers:Nope"):
        with pytest.raises(ExecdrvError, match=driver):
            host.run(driver, ["true"], rootfs=R)


def test_a_refused_descriptor_leaves_none_open(host: Host, R: Path) -> None:
    host.run("native", ["true"], rootfs=R)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        with contextlib.suppress(SpecError):
            host.run("native", ["true"], rootfs=R, pass_fds=[77])
        with contextlib.suppress(OperationError):
            host.run("native", ["nosuch"], rootfs=R)
    assert len(os.listdir("/proc/self/fd")) == len(before)
