"""`ps`, `inspect`, `destroy` and `gc`: what they show and remove, healthy, lost and broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any


def lose(cli: Any, kit: Any, name: str) -> None:
    """Leave a lost container: command and supervisor are killed at once."""
    process = cli.start_ready("--name", name, script="echo ready; exec sleep 300")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(int(children[0]), signal.SIGKILL)
    process.kill()
    process.wait(30)
    kit.wait_until(lambda: b"lost" in cli.run("ps").stdout)


def break_record(cli: Any, name: str, content: bytes) -> None:
    directory = cli.state / "containers" / name
    directory.mkdir(parents=True, mode=0o700)
    for above in (cli.state, cli.state / "containers"):
        above.chmod(0o700)
    (directory / "record").write_bytes(content)


def test_ps_of_nothing_is_a_head_line(cli: Any) -> None:
    result = cli.run("ps")
    assert result.stdout == b"ID  DRIVER  STATE  AGE  COMMAND\n"
    assert not cli.state.exists()
    assert json.loads(cli.run("ps", "--json").stdout) == []


def test_a_running_container_is_shown_and_destroyed(cli: Any, kit: Any) -> None:
    process = cli.start_ready("--name", "web", script=": 'a\x1b'; echo ready; exec sleep 300")
    (line,) = cli.run("ps").stdout.decode().splitlines()[1:]
    assert line.split()[:3] == ["web", "native", "running"]
    assert r"\x1b" in line and "\x1b" not in line
    (entry,) = json.loads(cli.run("ps", "--json").stdout)
    assert (entry["id"], entry["state"], entry["driver"]) == ("web", "running", "native")
    assert entry["command"][0] == "sh" and entry["age_s"] >= 0
    assert cli.run("ps", "-q").stdout == b"web\n"
    record = json.loads(cli.run("inspect", "--json", "web").stdout)
    assert record["state"] == "running" and record["spec"]["name"] == "web"
    text = cli.run("inspect", "web").stdout.decode()
    assert "state: running" in text and r"\x1b" in text and "\x1b" not in text
    # gc takes only what is lost.
    assert json.loads(cli.run("gc", "--json").stdout) == {"removed": [], "left": {}}
    assert cli.run("destroy", "web").returncode == 0
    assert process.wait(30) == 137
    kit.one_error(cli.run("destroy", "web"), 125, "'web'")


def test_destroy_goes_on_after_one_that_fails(cli: Any, kit: Any) -> None:
    process = cli.start_ready("--name", "web", script="echo ready; exec sleep 300")
    kit.one_error(cli.run("destroy", "nosuch", "web"), 125, "'nosuch'")
    assert process.wait(30) == 137
    assert kit.list_containers(cli.state) == []


def test_a_lost_container_is_shown_and_collected(cli: Any, kit: Any) -> None:
    lose(cli, kit, "web")
    (entry,) = json.loads(cli.run("ps", "--json").stdout)
    assert (entry["id"], entry["state"]) == ("web", "lost")
    assert json.loads(cli.run("inspect", "--json", "web").stdout)["state"] == "lost"
    result = cli.run("gc")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"web\n", b"")
    assert cli.run("ps", "-q").stdout == b""


def test_a_lost_container_can_be_destroyed(cli: Any, kit: Any) -> None:
    lose(cli, kit, "web")
    result = cli.run("destroy", "web")
    assert (result.returncode, result.stderr) == (0, b"")
    assert kit.list_containers(cli.state) == []


def test_broken_records_are_marked_beside_good_ones_and_removed(cli: Any, kit: Any) -> None:
    break_record(cli, "empty", b"")
    break_record(cli, "garbage", b"\0\xffnot json")
    break_record(cli, "future", b'{"version": 99}')
    break_record(cli, "a b", b"{}")
    process = cli.start_ready("--name", "good", script="echo ready; exec sleep 300")
    states = {one["id"]: one["state"] for one in json.loads(cli.run("ps", "--json").stdout)}
    assert states == {
        "a b": "broken",
        "empty": "broken",
        "future": "broken",
        "garbage": "broken",
        "good": "running",
    }
    result = cli.run("ps")
    assert result.returncode == 0 and result.stdout.count(b"\n") == 6
    assert b"99" in result.stdout
    assert cli.run("destroy", "empty", "garbage").returncode == 0
    # No name of ours; it is named, and nothing else is kept from being removed.
    kit.one_error(cli.run("gc"), 125, "'a b'")
    assert kit.list_containers(cli.state) == ["a b", "good"]
    subprocess.run(["rm", "-r", cli.state / "containers" / "a b"], check=True)
    cli.run("destroy", "good")
    process.wait(30)


def test_a_full_state_directory_is_said_and_nothing_is_left(cli: Any, kit: Any) -> None:
    # In a mount namespace of its own, which ends with the shell.
    script = (
        'mkdir -p "$EXECDRV_ROOT" && mount -t tmpfs -o size=64k,mode=700 none "$EXECDRV_ROOT" && '
        'head -c 65536 /dev/zero >"$EXECDRV_ROOT/filler" 2>/dev/null; "$@"; status=$?; '
        'ls "$EXECDRV_ROOT/containers" 2>/dev/null; exit $status'
    )
    import sys

    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "execdrv", "run"]
    result = subprocess.run(
        [*command, "--", "true"], env=cli.env, capture_output=True, check=False, timeout=50
    )
    assert "no space left" in kit.one_error(result, 125).lower()
    assert result.stdout == b""


def test_a_state_directory_of_others_is_refused(cli: Any, kit: Any) -> None:
    cli.state.mkdir(mode=0o755)
    cli.state.chmod(0o755)
    kit.one_error(cli.run("run", "--", "true"), 125, str(cli.state), "0700")
