"""Commands run through liblxc for real: exact ends, nothing of liblxc's to be seen, nothing left."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from conftest import list_traces
from driver_boxes import Boxes, Running, in_fork, mount_table

from execdrv.driver import Box
from execdrv.errors import CommandNotFoundError, IsolationError, UnsupportedError
from execdrv.linux import cgroups
from execdrv.linux.procfs import ProcessId, detect_process, is_running, list_children
from execdrv.spec import ContainerSpec
from execdrv_lxc import LxcDriver, binding, companion, config, driver, monitor
from execdrv_lxc.config import Item

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
    data = bytes(range(256)) * 4096
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

    text = boxes.sh("grep -E 'Sig(Ign|Blk)' /proc/self/status", first=ignore).text
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
    assert boxes.run("dd", "if=/dev/zero", "of=/dev/null", "bs=8M", "count=2", memory="32M").code == 0


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

    def modes() -> list[int]:
        return [stat.S_IMODE(os.fstat(os.memfd_create("plain")).st_mode)] * 3

    assert boxes.run("cat", look=look).seen == in_fork(modes)


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
        os.dup2(read_end, 8)
        os.dup2(write_end, 9)

    def look(running: Running) -> tuple[bytes, bool]:
        os.close(9)
        text = b""
        while chunk := os.read(8, 100):
            text += chunk
        return text, is_running(running.job)

    script = "echo last >&9; exec 9>&-; cat"
    seen = boxes.sh(script, first=first, pass_fds=[9], look=look).seen
    assert seen == (b"last\n", True)


def test_while_it_runs_nothing_of_it_shows_on_the_machine(boxes: Boxes, traces: set[str]) -> None:
    before = mount_table()

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
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, traces: set[str]
) -> None:
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


def test_a_host_name_of_two_lines_is_refused_before_and_while(
    boxes: Boxes, tmp_path: Path
) -> None:
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
            "pivot": (monitor, "_enter_root", broken),
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
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch, traces: set[str], name: str
) -> None:
    monkeypatch.setattr(companion, "STEP_TIMEOUT_S", 2.0)
    fail_in(name)(monkeypatch)
    begin = time.monotonic()
    with pytest.raises(IsolationError, match="cannot"):
        boxes.run("true")
    assert time.monotonic() - begin < 10
    assert list_traces() == traces
