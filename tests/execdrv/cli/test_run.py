"""`execdrv run` as its users see it: statuses, lines on stderr, options, reports, plans, plugins.

Under the native driver; that all drivers do the same is shown by tests/cases.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# --- statuses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 1", 1), ("exit 125", 125), ("exit 255", 255), ("kill -9 $$", 137)],
)
def test_the_jobs_own_end_is_passed_through_silently(cli: Any, script: str, status: int) -> None:
    result = cli.run("run", "--", "sh", "-c", script)
    assert (result.returncode, result.stdout, result.stderr) == (status, b"", b"")


@pytest.mark.parametrize(
    ("command", "status"), [("nosuchcmd", 127), ("/nosuch/x", 127), ("/etc", 126), ("", 127)]
)
def test_what_cannot_be_executed_is_named(cli: Any, kit: Any, command: str, status: int) -> None:
    kit.one_error(cli.run("run", "--", command), status, f"'{command}'")


def test_arguments_arrive_exactly(cli: Any) -> None:
    result = cli.run("run", "--", "printf", "[%s]", "a", "", "b c", b"\xff\n", "--memory")
    assert result.stdout == b"[a][][b c][\xff\n][--memory]"
    assert result.returncode == 0


def test_without_a_command_it_is_wrong_use(cli: Any, kit: Any) -> None:
    kit.one_error(cli.run("run", "--"), 125, "no command")
    kit.one_error(cli.run("run"), 125, "no command")


def test_a_killed_job_is_explained(cli: Any, kit: Any) -> None:
    result = cli.run("run", "--memory", "16M", "--", "tail", "/dev/zero")
    kit.one_error(result, 137, "out of memory", "16M")
    result = cli.run("run", "--timeout", "300ms", "--", "sleep", "60")
    kit.one_error(result, 137, "timeout", "0.3 s")


# --- bad values: never a traceback, never a job ------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--driver", "nosuch", ["'nosuch'", "native"]),
        ("--driver", "nosuch.module:Class", ["nosuch.module"]),
        ("--driver-option", "speed=9", ["'speed'", "native"]),
        ("--name", "a/b", ["'a/b'", "[A-Za-z0-9]"]),
        ("--env", "NOT_SET_HERE", ["'NOT_SET_HERE'"]),
        ("--workdir", "rel", ["'rel'", "absolute"]),
        ("--workdir", "/no/such", ["/no/such"]),
        ("--user", "nobodyknows", ["'nobodyknows'"]),
        ("--group", "nogroupknown", ["'nogroupknown'"]),
        ("--groups", "1,nogroupknown", ["'nogroupknown'"]),
        ("--timeout", "soon", ["'soon'"]),
        ("--pass-fd", "97", ["97", "not open"]),
        # Numbers that the command's own files will have.
        *(("--pass-fd", str(number), [str(number), "not open"]) for number in range(3, 9)),
        ("--rootfs", "/no/such", ["/no/such"]),
        ("--rootfs", "/etc/passwd", ["/etc/passwd"]),
        ("--root-mode", "odd", ["'odd'"]),
        ("--bind", "/no/such:/x", ["/no/such"]),
        ("--bind", "x", ["'x'", "SRC:DST"]),
        ("--tmpfs", "/t:size=x", ["'x'"]),
        ("--hostname", "h" * 65, ["64"]),
        ("--net", "bridge", ["'bridge'"]),
        ("--cap-add", "CAP_FLY", ["'CAP_FLY'"]),
        ("--cap-drop", "x", ["'x'"]),
        ("--require", "no.such", ["'no.such'"]),
        ("--require", "tty.alloc", ["tty.alloc", "native"]),
        ("--memory", "64MB", ["'64MB'"]),
        ("--memory-swap", "1G", ["memory"]),
        ("--cpus", "0", ["'0'"]),
        ("--pids", "-1", ["'-1'"]),
        ("--rlimit", "nofile=999999999999", ["nofile", "999999999999"]),
        ("--cgroup-parent", "no/such/group", ["no/such/group"]),
        ("--result", "/no/such/dir/r", ["/no/such/dir"]),
        ("--spec", "/no/such", ["/no/such"]),
        ("--root", "/dev/null/x", ["/dev/null"]),
        ("--frob", "x", ["--frob"]),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(
    cli: Any, kit: Any, option: str, value: str, words: list[str]
) -> None:
    result = cli.run("run", option, value, "--", "touch", "/ran")
    kit.one_error(result, 125, *words)
    assert result.stdout == b""
    assert kit.list_containers(cli.state) == []


def test_a_refusal_names_option_driver_and_who_could(cli: Any, kit: Any) -> None:
    result = cli.run("run", "--driver=chroot", "--memory", "64M", "--", "true")
    kit.one_error(result, 125, "--memory", "64M", "'chroot'", "native")


def test_an_ordinary_user_is_told_that_the_driver_needs_root(cli: Any, kit: Any) -> None:
    program = (
        "import os, sys; os.geteuid = lambda: 1000\n"
        "from execdrv.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "run", "--driver=lxc", "--rootfs=/no", "--", "true"]
    result = subprocess.run(command, env=cli.env, capture_output=True, check=False)
    kit.one_error(result, 125, "1000", "'lxc' needs root")
    assert not cli.state.exists()


# --- streams and descriptors -------------------------------------------------------------------


def test_the_streams_are_the_callers_own(cli: Any, tmp_path: Path) -> None:
    script = "cat; echo out; echo err >&2; readlink /proc/self/fd/1 >/dev/null"
    with (tmp_path / "out").open("wb") as out:
        result = cli.run(
            "run", "--", "sh", "-c", script, input=b"in\n", stdin=None, stdout=out, stderr=out
        )
    assert result.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"in\nout\nerr\n"


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_dev_null(cli: Any, tmp_path: Path, closed: tuple[int, ...]) -> None:
    def close() -> None:
        for fd in closed:
            os.close(fd)

    report = tmp_path / "report"
    report.mkdir()
    script = (
        "for n in 0 1 2; do readlink /proc/$$/fd/$n; done >/report/fds; cat; echo x; echo y >&2"
    )
    result = cli.run(
        "run", "--bind", f"{report}:/report", "--", "sh", "-c", script, preexec_fn=close
    )
    assert result.returncode == 0, result
    targets = (report / "fds").read_text().split()
    # Descriptor 1 is the report's own while it is written.
    assert [targets[fd] for fd in closed if fd != 1] == ["/dev/null"] * len([*{*closed} - {1}])
    assert result.stdout == (b"" if 1 in closed else b"x\n")
    assert result.stderr == (b"" if 2 in closed else b"y\n")


def test_passed_descriptors_arrive_and_no_others(cli: Any) -> None:
    read_end, write_end = os.pipe()
    extra = os.dup(write_end)
    # By path: a shell need not know descriptors above 9.
    script = f"echo hi >/proc/self/fd/{write_end}; ls /proc/self/fd"
    result = cli.run(
        "run", "--pass-fd", str(write_end), "--", "sh", "-c", script, pass_fds=[write_end, extra]
    )
    os.close(write_end)
    os.close(extra)
    assert os.read(read_end, 100) == b"hi\n"
    os.close(read_end)
    # The listing's own descriptor is the only other one.
    assert len(result.stdout.split()) == 5, result


def test_a_waiting_command_uses_no_cpu(cli: Any, kit: Any) -> None:
    process = cli.start("run", "--", "yes")
    process.stdout.read(1)

    def cpu_ticks() -> int:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = cpu_ticks()
    # `yes` stands still once its pipe is full.
    time.sleep(1.5)
    assert (cpu_ticks() - before) / os.sysconf("SC_CLK_TCK") < 0.1
    process.stdout.close()
    process.stdout = None
    assert process.wait(30) in (141, 1)


# --- options -----------------------------------------------------------------------------------


def test_options_reach_the_job(cli: Any, tmp_path: Path) -> None:
    source = tmp_path / "src:1"
    source.mkdir()
    (source / "file").write_text("bound")
    script = (
        "hostname; id -u; id -g; id -G; pwd; echo $A $B; cat '/m\\e/file'; echo;"
        "touch '/m\\e/x' 2>/dev/null || echo read-only; stat -f -c %T /scratch; ulimit -n"
    )
    result = cli.run(
        *("run", "--hostname", "h" * 64, "--user", "1000", "--group=27", "--groups", "7,8"),
        *("--workdir", "/usr", "--env", "A=1 2", "--env", "B", "--rlimit", "nofile=99"),
        *("--bind", rf"{tmp_path}/src\:1:/m\\e:ro", "--tmpfs", "/scratch:size=1M,mode=700"),
        *("--", "sh", "-c", script),
        env={"B": "copied"},
    )
    assert result.stdout.decode().splitlines() == [
        "h" * 64,
        "1000",
        "27",
        "27 7 8",
        "/usr",
        "1 2 copied",
        "bound",
        "read-only",
        "tmpfs",
        "99",
    ], result


def test_the_environment_is_not_the_callers(cli: Any) -> None:
    result = cli.run("run", "--", "env", env={"SECRET": "x"})
    assert sorted(line.split(b"=")[0] for line in result.stdout.split()) == [b"HOME", b"PATH"]


def test_the_environment_chooses_the_driver(cli: Any, kit: Any) -> None:
    kit.one_error(cli.run("run", "--", "true", env={"EXECDRV_DRIVER": "nosuch"}), 125, "'nosuch'")
    assert cli.run("run", "--driver=native", "--", "true").returncode == 0


def test_root_moves_the_state(cli: Any, kit: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    process = cli.start_ready("--root", other, "--name", "web", script="echo ready; sleep 60")
    assert kit.list_containers(other) == ["web"]
    assert cli.run("ps", "--names", "--root", other).stdout == b"web\n"
    assert cli.run("destroy", "web", "--root", other).returncode == 0
    assert process.wait(30) == 137


# --- reports -----------------------------------------------------------------------------------


def read_report(path: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_the_result_file_tells_a_jobs_125_from_ours(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    options = ["--env", "A=x\x1b[0m\x01", "--memory", "64M"]
    result = cli.run("run", "--result", path, *options, "--", "sh", "-c", "exit 125")
    report = read_report(path)
    assert result.returncode == report["status"] == report["exit"]["code"] == 125
    assert report["error"] is None
    assert report["exit"]["reason"] == "exited" and report["exit"]["started"]
    assert report["exit"]["memory_peak_bytes"] > 0
    assert [receipt["name"] for receipt in report["receipts"]] == ["memory"]
    assert report["spec"]["env"] == ["A=x\x1b[0m\x01"]

    result = cli.run("run", "--result", path, "--cap-add", "FLY", "--", "true")
    report = read_report(path)
    assert result.returncode == report["status"] == 125
    assert report["exit"] is None and report["error"]["kind"] == "SpecError"

    result = cli.run("run", "--result", path, "--", "nosuch")
    report = read_report(path)
    assert result.returncode == report["status"] == 127
    assert report["error"]["kind"] == "CommandNotFoundError"


def test_json_is_one_line_on_stderr(cli: Any) -> None:
    result = cli.run("run", "--json", "--name", "web", "--", "sh", "-c", "echo out; kill -9 $$")
    assert result.stdout == b"out\n"
    assert result.stderr.count(b"\n") == 1
    report = json.loads(result.stderr)
    assert (report["status"], report["container"]) == (137, "web")
    assert report["exit"]["signal"] == 9
    result = cli.run("run", "--json", "--hostname", "a b", "--", "true")
    assert json.loads(result.stderr)["error"]["fields"]["field"] == "hostname"


def test_a_dry_run_shows_the_plan_and_makes_nothing(cli: Any, kit: Any) -> None:
    options = ["--memory", "64M", "--user", "7", "--env", "A=\x1b"]
    result = cli.run("run", "--dry-run", *options, "--", "touch", "a b")
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode()
    for words in ("touch 'a b'", "memory=64M", "7, group", r"'A=\x1b'", "private", "CHOWN"):
        assert words in text, text
    assert kit.list_containers(cli.state) == []


def test_a_dry_run_lists_every_refusal(cli: Any) -> None:
    options = ["--driver=chroot", "--memory", "64M", "--hostname", "x", "--pids", "5"]
    result = cli.run("run", "--dry-run", *options, "--", "true")
    refused = [line for line in result.stdout.decode().splitlines() if line.startswith("refused")]
    assert result.returncode == 125
    assert len(refused) == 3
    for option, line in zip(("--hostname", "--memory", "--pids"), sorted(refused), strict=True):
        assert option in line
    assert "could do it" in result.stdout.decode() and "native" in result.stdout.decode()
    result = cli.run("run", "--dry-run", "--json", *options, "--", "true")
    plan = json.loads(result.stdout)
    assert {refusal["field"] for refusal in plan["refusals"]} == {"hostname", "memory", "pids"}
    assert "native" in plan["alternatives"]


def test_a_spec_from_inspect_runs_again(cli: Any, tmp_path: Path) -> None:
    process = cli.start_ready(
        *("--name", "web", "--env", "A=1", "--pids", "9"),
        script='echo ready; if [ "$A" = 1 ]; then sleep 60; fi; echo again $A $B',
    )
    record = cli.run("inspect", "--json", "web").stdout
    assert json.loads(record)["spec"]["pids"] == 9
    path = tmp_path / "spec.json"
    path.write_bytes(record)
    result = cli.run("run", "--spec", path, "--name", "web2", "--env", "B=2")
    assert result.stdout == b"ready\nagain 2\n", result
    result = cli.run("run", "--spec", path)
    assert result.returncode == 125 and b"'web'" in result.stderr and b"in use" in result.stderr
    assert cli.run("destroy", "web").returncode == 0
    process.wait(30)


# --- the first use -----------------------------------------------------------------------------


def test_at_a_terminal_the_first_use_shows_its_progress(cli: Any, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    cache = tmp_path / "cache"
    process = cli.start("run", "--", "true", stderr=theirs, env={"EXECDRV_CACHE": str(cache)})
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # EIO: nobody has the other end any more
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait(30) == 0
    assert b"copying" in shown
    subprocess.run(["rm", "-rf", cache], check=True)


# --- plugins -----------------------------------------------------------------------------------

WRAPPER = """\
import os, threading
from execdrv.hookspecs import hookimpl

children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
with open(os.environ["PLUGIN_LOG"], "a") as log:
    print("imported", len(children), file=log)
# A tracing plugin's thread: it must not disturb anything.
threading.Thread(target=threading.Event().wait, daemon=True).start()

class Plugin:
    @hookimpl(wrapper=True)
    def execdrv_start(self, container):
        with open(os.environ["PLUGIN_LOG"], "a") as log:
            print("start", container.id, file=log)
        return (yield)

plugin = Plugin()
"""


def test_plugins_are_imported_once_after_the_supervisor_was_forked(
    cli: Any, tmp_path: Path
) -> None:
    cli.add_plugin("tracer", WRAPPER)
    log = tmp_path / "log"
    options = {"env": {"PLUGIN_LOG": str(log)}}
    result = cli.run("run", "--name", "web", "--", "true", **options)
    assert (result.returncode, result.stderr) == (0, b"")
    assert log.read_text() == "imported 1\nstart web\n"
    log.unlink()
    assert cli.run("run", "--no-plugins", "--", "true", **options).returncode == 0
    assert not log.exists()


def test_a_broken_plugin_is_a_warning(cli: Any, kit: Any) -> None:
    cli.add_plugin("broken", "raise RuntimeError('no\\nway')\n")
    cli.add_plugin("misspelt", "class P:\n    def execdrv_strat(self): ...\nplugin = P()\n")
    result = cli.run("run", "--", "echo", "ran")
    assert (result.returncode, result.stdout) == (0, b"ran\n")
    lines = kit.error_lines(result)
    assert len(lines) == result.stderr.count(b"\n") == 2
    assert ("warning" in lines[0] and "'broken'" in lines[0]) or "plugin_of_broken" in lines[0]
    assert "execdrv_strat" in lines[1]
    result = cli.run("run", "--no-plugins", "--", "echo", "ran")
    assert (result.returncode, result.stderr) == (0, b"")


DRIVER = """\
import os
from execdrv.errors import CleanupError
from execdrv.hookspecs import hookimpl
from execdrv_native import NativeDriver

class Odd(NativeDriver):
    name = "odd"
    contract = 1

    def create(self, box):
        if "bug" in box.options:
            {}["there is no such key"]

    def destroy(self, box):
        super().destroy(box)
        if "leave" in box.options and not os.path.exists(box.options["leave"]):
            raise CleanupError("left", leftovers=["interface odd0", "file /odd"])

    options = {"bug": "", "leave": ""}

class Plugin:
    @hookimpl
    def execdrv_drivers(self):
        return [Odd]

plugin = Plugin()
"""


def test_a_bug_of_a_driver_is_one_line_and_debug_shows_it_all(cli: Any, kit: Any) -> None:
    cli.add_plugin("odd", DRIVER)
    words = ["run", "--driver=odd", "--driver-option", "bug=1", "--", "true"]
    kit.one_error(cli.run(*words), 125, "'odd'", "KeyError", "fault of the driver")
    result = cli.run("run", "--debug", *words[1:])
    assert result.returncode == 125
    # The remote traceback, which came as a note.
    assert b"plugin_of_odd.py" in result.stderr and b"in create" in result.stderr


def test_what_is_left_is_125_and_named(cli: Any, kit: Any, tmp_path: Path) -> None:
    cli.add_plugin("odd", DRIVER)
    flag = tmp_path / "flag"
    options = ["--driver=odd", "--name", "web", "--driver-option", f"leave={flag}"]
    result = cli.run("run", "--result", tmp_path / "r", *options, "--", "true")
    kit.one_error(result, 125, "interface odd0", "file /odd", "gc")
    report = read_report(tmp_path / "r")
    assert report["exit"]["code"] == 0 and report["error"]["kind"] == "CleanupError"
    assert kit.list_containers(cli.state) == ["web"]
    kit.one_error(cli.run("gc"), 125, "'web'", "interface odd0")
    flag.touch()
    assert cli.run("gc").stdout == b"web\n"


def test_a_destroy_that_fails_elsewhere_ends_the_run_too(
    cli: Any, kit: Any, tmp_path: Path
) -> None:
    cli.add_plugin("odd", DRIVER)
    flag = tmp_path / "flag"
    options = ["--driver=odd", "--name", "web", "--driver-option", f"leave={flag}"]
    process = cli.start_ready(*options, script="echo ready; exec sleep 60")
    kit.one_error(cli.run("destroy", "web"), 125, "interface odd0")
    assert process.wait(40) == 125
    flag.touch()
    assert cli.run("destroy", "web").returncode == 0


# --- start-up ----------------------------------------------------------------------------------

#: Slow to import; none may be needed to run a command.
SLOW = (
    *("importlib.metadata", "email", "zipfile", "logging", "dataclasses", "asyncio", "tempfile"),
    *("subprocess", "pyroute2", "elftools", "shlex", "difflib", "execdrv.guarantees.catalogue"),
    *("lxc", "_lxc", "execdrv_lxc", "execdrv_chroot", "execdrv_native", "execdrv_conformance"),
    *("execdrv.cli.drivers", "execdrv.cli.doctor", "execdrv.cli.plan", "execdrv.rootfs.recipe"),
)


def test_a_run_imports_nothing_slow(cli: Any) -> None:
    program = (
        "import sys\n"
        "from execdrv.cli import main\n"
        "status = main(['run', '--', 'true'])\n"
        "print(status, *sorted(sys.modules))\n"
    )
    cli.run("run", "--", "true")  # the root is made by other modules
    result = subprocess.run(
        [sys.executable, "-c", program], env=cli.env, capture_output=True, check=True
    )
    status, *modules = result.stdout.decode().split()
    assert status == "0"
    assert not set(SLOW) & set(modules)
