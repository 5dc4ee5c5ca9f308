"""Commands run through liblxc for real: exact ends, nothing of liblxc's seen, nothing left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from driver_boxes import Boxes, Running, _Plan, enter_stand_in, in_fork, mount_table

from execdrv.driver import Box
from execdrv.errors import CommandNotFoundError, IsolationError
from execdrv.linux import cgroups, syscalls
from execdrv.linux.procfs import (
    ProcessId,
    detect_process,
    is_running,
    kill_own_children,
    list_children,
)
from execdrv.spec import ContainerSpec
from execdrv_lxc import LxcDriver, binding, companion, config, driver, monitor
from execdrv_lxc.config import Item

# keyctl(2)
READ_KEY = """
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    char text[64] = "";
    int serial = 0;
    FILE *file = fopen(argv[1], "r");
    if (argc != 2 || !file || fscanf(file, "%d", &serial) != 1)
        return 2;
    if (syscall(SYS_keyctl, 11 /* KEYCTL_READ */, serial, text, sizeof text - 1) < 0)
        return puts(strerror(errno)), 1;
    return puts(text), 0;
}
"""

pytestmark = pytest.mark.usefixtures("need_root")


# --- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 3, 37, 125, 126, 127, 128, 129, 137, 139, 254, 255])
def test_the_exit_code_is_exact(boxes: Boxes, code: int) -> None:
    result = boxes.sh(f"exit {code}")
    assert (result.code, result.signal) == (code, None)


@pytest.mark.parametrize("name", ["KILL", "SEGV", "ABRT", "TERM", "INT", "HUP", "USR1"])
def test_the_ending_signal_is_exact_and_acts_as_outside(boxes: Boxes, name: str) -> None:
    result = boxes.sh(f"kill -{name} $$; echo alive")
    assert (result.code, result.signal) == (None, signal.Signals[f"SIG{name}"].value)
    assert result.stdout == b""


def test_a_command_that_is_not_there_is_told_from_one_that_exits_127(boxes: Boxes) -> None:
    with pytest.raises(CommandNotFoundError, match="nosuch"):
        boxes.run("nosuch")
    assert boxes.sh("exit 127").code == 127


def test_the_streams_pass_through_whole(boxes: Boxes) -> None:
    data = bytes(range(256)) * 200
    result = boxes.sh("cat; echo wrong >&2", stdin=data)
    assert (result.stdout, result.stderr) == (data, b"wrong\n")


def test_the_environment_is_what_was_asked_and_nothing_of_liblxc(boxes: Boxes) -> None:
    result = boxes.run("env", env=["A=1\nlxc.hook.start = /bin/false"])
    assert sorted(result.text.splitlines()) == sorted(
        ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "lxc.hook.start = /bin/false"]
    )


def test_signals_that_the_caller_ignores_reach_no_job(boxes: Boxes) -> None:
    def ignore() -> None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])

    # Not by a shell, which ignores some itself.
    text = boxes.run("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status", first=ignore).text
    assert [line.split()[1] for line in text.splitlines()] == ["0" * 16] * 2


@pytest.mark.parametrize(
    ("user", "held"), [("0", "00000000000005fb"), ("1000:1000", "0000000000000000")]
)
def test_the_capability_sets_are_exact(boxes: Boxes, user: str, held: str) -> None:
    text = boxes.sh("grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status", user=user).text
    values = dict(line.split(":") for line in text.splitlines())
    assert {name: value.strip() for name, value in values.items()} == {
        "CapInh": "0000000000000000",
        "CapPrm": held,
        "CapEff": held,
        "CapBnd": "00000000000005fb",
        "CapAmb": "0000000000000000",
        "NoNewPrivs": "1",
        "Groups": user.partition(":")[2] or "0",
    }


def test_every_capability_that_liblxc_can_give_can_be_asked_for(boxes: Boxes) -> None:
    def asked(box: Box) -> str:
        return f"{box.process.bounding:016x}"

    lacking = [r for r in boxes.check(cap_add=["ALL"]) if "does not have it" in r.message]
    drop = [refusal.message.split()[3].rstrip(":") for refusal in lacking] + ["SYS_BOOT"]
    from execdrv.linux.capabilities import CAPABILITIES

    names = [name for name in CAPABILITIES if name not in drop]
    result = boxes.sh(
        "grep CapBnd /proc/self/status",
        cap_add=names,
        look=lambda running: asked(running.box),
    )
    assert result.text.split()[1] == result.seen


def test_a_job_that_could_reboot_is_refused_for_liblxc_would_start_it_anew(boxes: Boxes) -> None:
    (refusal,) = boxes.check(cap_add=["SYS_BOOT"])
    assert "SYS_BOOT" in refusal.message and "native" in refusal.hint
    assert refusal.field == "cap_add"


def test_limits_bind_the_job_and_not_the_monitor(boxes: Boxes) -> None:
    script = "i=0; while [ $i -lt 12 ]; do sleep 1 & i=$((i+1)); done; wait; echo $i"
    assert boxes.sh(script, pids=13).text == "12\n"
    refused = boxes.sh("i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done; wait", pids=13)
    assert b"fork" in refused.stderr


def test_memory_over_the_limit_ends_the_job(boxes: Boxes) -> None:
    result = boxes.run("tail", "-c", "100m", "/dev/zero", memory="32M")
    assert result.signal == signal.SIGKILL
    assert (
        boxes.run("dd", "if=/dev/zero", "of=/dev/null", "bs=8M", "count=2", memory="32M").code == 0
    )


def test_the_callers_session_keyring_is_out_of_reach(boxes: Boxes, tmp_path: Path) -> None:
    read = compile_static(tmp_path / "read", READ_KEY)
    (boxes.rootfs / "bin/readkey").write_bytes(read.read_bytes())
    (boxes.rootfs / "bin/readkey").chmod(0o755)
    serial = boxes.rootfs / "serial"

    def make_key() -> None:
        serial.write_text(str(add_session_key(b"secret")))
        shown = subprocess.run([read, serial], capture_output=True, text=True, check=False)
        assert shown.stdout == "secret\n", "the control does not work"

    assert boxes.run("readkey", "/serial", first=make_key).text == "Permission denied\n"


# --- what is seen of liblxc --------------------------------------------------------------------


def test_the_streams_keep_their_modes(boxes: Boxes) -> None:
    # liblxc sets what is no /dev/null to 0700.
    def look(running: Running) -> list[int]:
        return [stat.S_IMODE(os.fstat(fd).st_mode) for fd in running.box.stdio]

    assert 0o700 not in boxes.run("cat", look=look).seen


def test_the_monitor_keeps_nothing_of_the_job_and_no_control_socket(boxes: Boxes) -> None:
    def first() -> None:
        os.dup2(os.memfd_create("passed"), 9)

    def look(running: Running) -> list[str]:
        directory = f"/proc/{running.box.facts['monitor']['pid']}/fd"
        return sorted(os.readlink(f"{directory}/{name}") for name in os.listdir(directory))

    shown = boxes.run("cat", first=first, pass_fds=[9], look=look).seen
    found = [text for text in shown if "socket" in text or "memfd" in text]
    assert set(found) == {"/memfd:lxc-log (deleted)"}


def test_who_reads_from_the_job_sees_its_end_of_file_while_it_lives(boxes: Boxes) -> None:
    def first() -> None:
        read_end, write_end = os.pipe()
        for fd, number in ((read_end, 8), (write_end, 9)):
            if fd != number:
                os.dup2(fd, number)
                os.close(fd)

    def look(running: Running) -> tuple[bytes, bool]:
        os.close(9)
        text = b""
        while chunk := os.read(8, 100):
            text += chunk
        return text, is_running(running.job)

    script = "echo last >&9; exec 9>&-; cat"
    seen = boxes.sh(script, first=first, pass_fds=[9], look=look).seen
    assert seen == (b"last\n", True)


def test_while_it_runs_nothing_of_it_shows_on_the_machine(
    boxes: Boxes, list_traces: Callable[[], set[str]]
) -> None:
    before, traces = mount_table(), list_traces()

    def look(running: Running) -> tuple[bool, set[str], str, list[str]]:
        sockets = Path("/proc/net/unix").read_text()
        return (
            mount_table() == before,
            list_traces(),
            "yes" if running.box.kernel_name in sockets else "no",
            os.listdir(running.box.directory),
        )

    assert boxes.run("cat", look=look).seen == (True, traces, "no", [])
    assert list_traces() == traces


def test_only_init_and_job_are_in_the_containers_group(boxes: Boxes) -> None:
    assert boxes.run("cat", look=groups_of).seen == {
        "monitor": False,
        "companion": False,
        "init": True,
        "job": True,
    }


def groups_of(running: Running) -> dict[str, bool]:
    """Whether each process is in the container's group."""
    assert running.box.group is not None
    inside = set(running.box.group.processes())
    children = set(list_children(os.getpid())) - {running.box.facts["monitor"]["pid"]}
    return {
        "monitor": running.box.facts["monitor"]["pid"] in inside,
        "companion": bool(children),
        "init": running.watched.pid in inside,
        "job": running.job.pid in inside,
    }


def test_no_mount_of_the_container_is_shared_with_another(boxes: Boxes) -> None:
    lines = boxes.run("cat", "/proc/self/mountinfo").text.splitlines()
    optional = [line.partition(" - ")[0].split()[6:] for line in lines]
    assert len(lines) > 10 and not any(optional)


def test_the_monitor_has_neither_the_callers_session_nor_its_handler_of_children(
    boxes: Boxes,
) -> None:
    def first() -> None:
        signal.set_wakeup_fd(os.open("/dev/null", os.O_WRONLY | os.O_NONBLOCK))
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def look(running: Running) -> tuple[bool, int]:
        pid = running.box.facts["monitor"]["pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        (caught,) = [line.split()[1] for line in status.splitlines() if line[:6] == "SigCgt"]
        return os.getsid(pid) == pid, int(caught, 16) & 1 << signal.SIGCHLD - 1

    assert boxes.run("cat", first=first, look=look).seen == (True, 0)


def test_it_works_where_the_caller_ignores_its_children(boxes: Boxes) -> None:
    def first() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    assert boxes.sh("exit 3", first=first).code == 3


def test_a_direct_root_is_not_even_touched(boxes: Boxes) -> None:
    # liblxc makes a file of its own in a root that it can write to.
    before = boxes.rootfs.stat().st_mtime_ns
    boxes.run("true", root_mode="direct")
    assert boxes.rootfs.stat().st_mtime_ns == before


def test_the_machines_lxc_configuration_changes_nothing(boxes: Boxes) -> None:
    def first() -> None:
        enter_stand_in()
        syscalls.mount(b"tmpfs", b"/etc", fstype=b"tmpfs")
        os.mkdir("/etc/lxc")
        Path("/etc/lxc/lxc.conf").write_text("lxc.cgroup.use = nosuch\nlxc.lxcpath = /nosuch\n")
        Path("/etc/lxc/default.conf").write_text("lxc.hook.pre-start = /bin/false\n")

    assert boxes.run("true", first=first).code == 0


# --- what goes wrong ---------------------------------------------------------------------------


def with_item(monkeypatch: pytest.MonkeyPatch, item: Item) -> None:
    """Have every container configured with one item more."""
    plan = config.plan_items
    monkeypatch.setattr(
        monitor, "plan_items", lambda box, *, log_fd: [*plan(box, log_fd=log_fd), item]
    )


def test_liblxcs_own_message_reaches_the_user(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, list_traces: Callable[[], set[str]]
) -> None:
    traces = list_traces()
    with_item(monkeypatch, Item("lxc.mount.entry", "nosuch nosuch none bind 0 0", "x"))
    monkeypatch.setattr(binding, "check_item", lambda item, got: None)
    with pytest.raises(IsolationError, match=r"liblxc says: .*nosuch"):
        boxes.run("true")
    assert list_traces() == traces


def test_an_item_that_does_not_read_back_stops_it_before_liblxc_starts(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_item(monkeypatch, Item("lxc.no_new_privs", "0"))
    monkeypatch.setattr(binding, "run", lambda *_: os.abort())
    with pytest.raises(IsolationError, match=r"'lxc\.no_new_privs' of lxc to '1'"):
        boxes.run("true")


def test_a_host_name_of_two_lines_is_refused_before_and_while(boxes: Boxes, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    name = f"h\nlxc.hook.pre-start = /bin/touch {mark}"
    original = Boxes.box

    def box_with_name(self: Boxes, spec: ContainerSpec) -> Box:
        return attrs.evolve(original(self, spec), hostname=name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Boxes, "box", box_with_name)
        (refusal,) = boxes.check()
        assert refusal.field == "hostname" and "not plain text" in refusal.message
        with pytest.raises(IsolationError, match="not plain text"):
            boxes.run("true", check=False)
    assert not mark.exists()


def add_session_key(secret: bytes) -> int:
    """Give this process a session keyring of its own, with a key; returns the key's serial."""
    numbers = {"x86_64": (248, 250), "aarch64": (217, 219)}
    if os.uname().machine not in numbers:
        pytest.skip("the numbers of keyctl and add_key are not known here")
    add_key, keyctl = numbers[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(keyctl, 1, None) < 0:  # KEYCTL_JOIN_SESSION_KEYRING
        pytest.skip("this kernel has no keyrings")
    serial: int = libc.syscall(add_key, b"user", b"xdt-canary", secret, len(secret), -3)
    assert serial > 0
    return serial


def compile_static(path: Path, source: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    path.with_suffix(".c").write_text(source)
    subprocess.run(["gcc", "-static", "-o", path, path.with_suffix(".c")], check=True)
    return path


def fail_in(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Break one step; what it raises must come out typed, with nothing left."""

    def broken(*_: object, **__: object) -> Any:
        raise OSError(28, "broken on purpose")

    def end(*_: object, **__: object) -> Any:
        os._exit(3)

    def kill(*_: object, **__: object) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def apply(patch: pytest.MonkeyPatch) -> None:
        module, function, how = {
            "arrange": (monitor, "arrange_fds", broken),
            "root": (monitor, "_build_roots", broken),
            "root, killed": (monitor, "_build_roots", kill),
            "pivot": (monitor, "enter_root", broken),
            "companion": (companion, "_make_cgroup_namespace", broken),
            "companion, killed": (companion, "_make_cgroup_namespace", kill),
            "namespace": (monitor, "setns", broken),
            "container": (binding, "make_container", broken),
            "start": (binding, "run", lambda *_: False),
            "start, killed": (binding, "run", kill),
            "start, ended": (binding, "run", end),
            "find": (driver, "list_children", lambda _: []),
            "group": (cgroups.Group, "add", broken),
            "finish": (companion, "_finish", broken),
            "finish, killed": (companion, "_finish", kill),
            "proc": (companion, "_check_proc", broken),
            "guards": (companion, "_guard_proc", broken),
            "devices": (cgroups, "allow_devices", broken),
        }[name]
        patch.setattr(module, function, how)

    return apply


@pytest.mark.parametrize(
    "name",
    [
        *("arrange", "root", "root, killed", "pivot", "companion", "companion, killed"),
        *("namespace", "container", "start", "start, killed", "start, ended", "find", "group"),
        *("finish", "finish, killed", "proc", "guards", "devices"),
    ],
)
def test_a_failure_in_any_step_is_typed_quick_and_leaves_nothing(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, list_traces: Callable[[], set[str]], name: str
) -> None:
    monkeypatch.setattr(companion, "STEP_TIMEOUT_S", 2.0)
    fail_in(name)(monkeypatch)
    begin, traces = time.monotonic(), list_traces()
    with pytest.raises(IsolationError, match="cannot"):
        boxes.run("true")
    assert time.monotonic() - begin < 10
    assert list_traces() == traces


# --- death -------------------------------------------------------------------------------------


@attrs.frozen
class Reported:
    """A container in another process, as that has told of it."""

    supervisor: int
    box_facts: dict[str, Any]
    processes: tuple[ProcessId, ...]
    group: cgroups.GroupPlan

    def ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while any(is_running(process) for process in self.processes):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def in_another_supervisor(boxes: Boxes, act: Callable[[Reported], Any]) -> Any:
    """What `act` returns, called beside a process below a new subreaper that runs a container."""
    spec = ContainerSpec(argv=["sleep", "1000"], rootfs=str(boxes.rootfs))

    def outer() -> Any:
        read_end, write_end = os.pipe()
        supervisor = os.fork()
        if supervisor == 0:
            # Itself the subreaper of what it makes, as a supervisor is.
            with contextlib.suppress(BaseException):
                syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
                boxes._run(spec, _Plan(look=lambda running: report(running, write_end)))
            os._exit(0)
        os.close(write_end)
        reported = pickle.loads(os.read(read_end, 1 << 16))  # noqa: S301 - from our own child
        try:
            return act(reported)
        finally:
            assert kill_own_children(timeout_s=5) == []
            cgroups.open_group(reported.group).remove()

    return in_fork(outer)


def report(running: Running, pipe: int) -> None:
    facts = running.box.facts
    processes = (ProcessId(**facts["monitor"]), running.watched, running.job)
    assert running.box.group is not None
    reported = Reported(os.getpid(), dict(facts), processes, running.box.group.plan)
    os.write(pipe, pickle.dumps(reported))
    while True:
        signal.pause()


def test_a_killed_supervisor_takes_the_container_with_it(boxes: Boxes) -> None:
    def act(reported: Reported) -> bool:
        os.kill(reported.supervisor, signal.SIGKILL)
        return reported.ended_within(1.0)

    assert in_another_supervisor(boxes, act)


def test_a_supervisor_killed_in_the_middle_of_isolate_leaves_no_process(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_build_roots", lambda *_: time.sleep(1000))
    spec = ContainerSpec(argv=["true"], rootfs=str(boxes.rootfs))

    def outer() -> list[int]:
        supervisor = os.fork()
        if supervisor == 0:
            with contextlib.suppress(BaseException):
                syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
                boxes._run(spec, _Plan())
            os._exit(0)
        deadline = time.monotonic() + 20
        while len(list_children(supervisor)) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        found = [detect_process(pid) for pid in list_children(supervisor)]
        assert len(found) == 2, "monitor and companion"
        os.kill(supervisor, signal.SIGKILL)
        deadline = time.monotonic() + 1
        while any(process and is_running(process) for process in found):
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)
        left = [process.pid for process in found if process and is_running(process)]
        assert kill_own_children(timeout_s=5) == []
        for directory in group_directories(boxes):
            os.rmdir(f"{directory}/job")
            os.rmdir(directory)
        return left

    assert in_fork(outer) == []


def group_directories(boxes: Boxes) -> list[str]:
    """The groups of the boxes whose directories are left in the scratch directory."""
    names = {f"xdt-{path.name[4:]}" for path in boxes.scratch.glob("box-*")}
    found = []
    for top, directories, _ in os.walk("/sys/fs/cgroup"):
        found += [f"{top}/{name}" for name in directories if name in names]
    return found


@pytest.mark.parametrize("victim", ["monitor", "init"])
def test_a_killed_monitor_or_init_takes_the_rest_with_it(boxes: Boxes, victim: str) -> None:
    def act(reported: Reported) -> bool:
        os.kill(reported.box_facts[victim]["pid"], signal.SIGKILL)
        return reported.ended_within(1.0)

    assert in_another_supervisor(boxes, act)


def test_destroy_works_from_the_record_alone(boxes: Boxes) -> None:
    def act(reported: Reported) -> tuple[bool, bool]:
        box = boxes.box(ContainerSpec(argv=["sleep"], rootfs=str(boxes.rootfs)))
        box = attrs.evolve(box, facts=reported.box_facts)
        LxcDriver().destroy(box)
        ended = reported.ended_within(0.5)
        LxcDriver().destroy(box)
        return ended, is_running(reported.processes[0])

    assert in_another_supervisor(boxes, act) == (True, False)


def test_destroy_harms_no_process_that_has_got_the_number(boxes: Boxes) -> None:
    def action() -> bool:
        decoy = os.fork()
        if decoy == 0:
            signal.pause()
            os._exit(0)
        there = detect_process(decoy)
        assert there is not None
        stale = {"pid": decoy, "start_time": there.start_time - 1}
        box = boxes.box(ContainerSpec(argv=["sleep"], rootfs=str(boxes.rootfs)))
        LxcDriver().destroy(attrs.evolve(box, facts={"init": stale, "monitor": stale}))
        alive = is_running(there)
        os.kill(decoy, signal.SIGKILL)
        os.waitpid(decoy, 0)
        return alive

    assert in_fork(action)


def test_destroy_before_isolate_does_nothing(boxes: Boxes) -> None:
    LxcDriver().destroy(boxes.box(ContainerSpec(argv=["true"], rootfs=str(boxes.rootfs))))


# --- steps and repetition ----------------------------------------------------------------------


def test_nothing_runs_before_start(boxes: Boxes, tmp_path: Path) -> None:
    canary = boxes.rootfs / "canary"
    seen = []

    def before_start(box: Box) -> None:
        assert box.group is not None
        seen.append((canary.exists(), box.group.processes() == [box.facts["init"]["pid"]]))
        (tmp_path / "seen").write_text(repr(seen))

    boxes.run("touch", "/canary", root_mode="direct", before_start=before_start)
    assert (tmp_path / "seen").read_text() == "[(False, True)]"
    assert canary.exists()


def test_many_runs_leave_no_descriptor_and_no_child(boxes: Boxes) -> None:
    spec = ContainerSpec(argv=["true"], rootfs=str(boxes.rootfs))

    def action() -> tuple[list[int], list[int]]:
        counts = []
        for _ in range(12):
            boxes._run(spec, _Plan())
            counts.append(len(os.listdir("/proc/self/fd")))
        return counts, list_children(os.getpid())

    counts, children = in_fork(action)
    assert len(set(counts[1:])) == 1 and children == []


@pytest.mark.parametrize("name", ["a b", "a:b", "a,b", "a\nb", "a\\b", "a\tb", "\u00e4", "-"])
@pytest.mark.parametrize("root_mode", ["private", "read-only", "direct"])
def test_a_root_of_any_name_works(boxes: Boxes, name: str, root_mode: str) -> None:
    root = boxes.scratch / name
    boxes.rootfs.rename(root)
    shown = boxes.run("ls", "/", rootfs=str(root), root_mode=root_mode).text
    assert "bin" in shown.split()


def test_a_state_directory_of_any_name_works(boxes: Boxes) -> None:
    scratch = boxes.scratch / "a b:c,d\ne"
    scratch.mkdir()
    assert attrs.evolve(boxes, scratch=scratch).run("true").code == 0
