"""How a run ended, told to people and to programs, and the file it is written to."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from execdrv.cli.outcome import Outcome, ResultFile
from execdrv.driver import Exit
from execdrv.errors import (
    CleanupError,
    CommandNotExecutableError,
    CommandNotFoundError,
    StartError,
    UsageError,
)
from execdrv.limits import Receipt
from execdrv.spec import ContainerSpec


def ended(reason: str, code: int | None = None, signum: int | None = None) -> Exit:
    return Exit(code=code, signal=signum, reason=reason, started=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exit_", "error", "status"),
    [
        (ended("exited", 0), None, 0),
        (ended("exited", 255), None, 255),
        (ended("signaled", signum=15), None, 143),
        (ended("oom", signum=9), None, 137),
        (ended("timeout", signum=9), None, 137),
        (ended("destroyed", signum=9), None, 137),
        (ended("lost"), None, 125),
        (None, None, 125),
        (None, CommandNotFoundError("x"), 127),
        (None, CommandNotExecutableError("x"), 126),
        (None, StartError("x"), 125),
        (None, ZeroDivisionError("x"), 125),
        (ended("exited", 0), CleanupError("left"), 125),
    ],
)
def test_the_status_tells_job_and_execdrv_apart(
    exit_: Exit | None, error: Exception | None, status: int
) -> None:
    assert Outcome(driver="native", exit=exit_, error=error).status == status


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("oom", "killed: out of memory (limit 64M)"),
        ("timeout", "killed: it ran longer than its timeout of 1.5 s"),
        ("destroyed", "killed: somebody destroyed container 'web'"),
        ("lost", "lost: container 'web' ended without telling how"),
        ("exited", None),
        ("signaled", None),
    ],
)
def test_a_kill_is_explained(reason: str, words: str | None) -> None:
    spec = ContainerSpec(argv=["x"], memory="64M", timeout=1.5)
    outcome = Outcome(driver="native", spec=spec, container="web", exit=ended(reason))
    assert outcome.explain() == words


def test_the_report_has_everything(tmp_path: Path) -> None:
    spec = ContainerSpec(argv=["x", b"\xff"], env={"A": "x\x1b[0m\x01"})
    outcome = Outcome(
        driver="native",
        spec=spec,
        container="web",
        exit=ended("exited", 3),
        receipts=(Receipt("memory", "applied", "1", "1"),),
    )
    path = tmp_path / "result.json"
    ResultFile(str(path)).write(outcome)
    report: dict[str, Any] = json.loads(path.read_text())
    assert report["version"] == 1
    assert (report["status"], report["container"], report["driver"]) == (3, "web", "native")
    assert report["exit"]["code"] == 3 and report["exit"]["started"] is True
    assert "stdout" not in report["exit"]
    assert report["error"] is None
    assert report["receipts"][0]["name"] == "memory"
    assert report["spec"]["env"] == ["A=x\x1b[0m\x01"]
    assert report["spec"]["argv"] == ["x", {"base64": "/w=="}]


def test_a_failure_of_execdrv_is_in_the_report() -> None:
    error = CommandNotFoundError("cannot execute 'x': no", hint="look", errno=2)
    report = Outcome(driver="lxc", error=error).to_plain()
    assert report["exit"] is None
    assert report["error"] == {
        "kind": "CommandNotFoundError",
        "message": "cannot execute 'x': no",
        "hint": "look",
        "fields": {"errno": 2},
    }


# --- the file ----------------------------------------------------------------------------------


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    before = path.stat().st_ino
    reader = path.open()
    ResultFile(str(path)).write(Outcome(driver="native"))
    assert path.stat().st_ino != before
    assert reader.read() == "old"
    reader.close()
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real.json")
    ResultFile(str(tmp_path / "link")).write(Outcome(driver="native"))
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["driver"] == "native"


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(path.read_text()))
    reader.start()
    ResultFile(str(path)).write(Outcome(driver="native"))
    reader.join(10)
    assert json.loads(texts[0])["driver"] == "native"
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_descriptor_is_written_to(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+") as file:
        ResultFile(f"/dev/fd/{file.fileno()}").write(Outcome(driver="native"))
        assert json.loads(file.read())["driver"] == "native"


@pytest.mark.parametrize("name", ["", ".", "no/such/dir/r.json", "file/r.json"])
def test_a_file_that_cannot_be_made_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write the result to"):
        ResultFile(name)


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    path.write_text("old")
    file = ResultFile(str(path))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(UsageError, match="no space left"):
        file.write(Outcome(driver="native"))
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["r.json"]
