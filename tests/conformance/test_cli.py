"""`execdrv conformance` and `execdrv compare` as their users type them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from reportkit import SHARED, copy, entry_of, evidence_of, make

from execdrv.cli import main
from execdrv.guarantees.catalogue import load_catalogue
from execdrv_conformance.report.model import format_report

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.json"
    path.write_text(format_report(make(tmp_path / "good")))
    return str(path)


@pytest.fixture
def liar(tmp_path: Path) -> str:
    path = tmp_path / "liar.json"
    path.write_text(format_report(make(tmp_path / "liar", driver=evidence_of(SHARED))))
    return str(path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "needs an action"),
        (["dance"], "'dance'"),
        (["run"], "DRIVER"),
        (["run", "native", "pid.nss"], "did you mean 'pid.ns'"),
        (["run", "native", "--profile", "bas"], "did you mean 'base'"),
        (["run", "native", "--seed", "x"], "--seed"),
        (["run", "native", "pid.ns", "--workers", "0"], "'--workers'"),
        (["run", "native", "pid.ns", "--driver-option", "x"], "KEY=VALUE"),
        (["run", "native", "pid.ns", "--out", "/nowhere/r.json"], "'--out'"),
        (["run", "native", "pid.ns", "--baseline", "/nowhere/b.json"], "cannot read baseline"),
        (["repro", "nosuch.id"], "no such guarantee"),
        (["list", "--stale"], "no report"),
        (["list", "x.json"], "only --stale"),
        (["diff", "/nowhere/a.json", "/nowhere/b.json"], "cannot read report"),
        (["verify", "/nowhere/a.json"], "cannot read report"),
    ],
)
def test_wrong_use_is_one_line_and_4(capfd: Capture, words: list[str], expected: str) -> None:
    assert main(["conformance", *words]) == 4
    out, error = capfd.readouterr()
    assert out == "" and error.count("\n") == 1 and error.startswith("execdrv: ")
    assert expected in error


def test_wrong_use_of_other_commands_is_still_125(capfd: Capture) -> None:
    assert main(["compare", "--frob"]) == 125
    assert main(["compare", "/nowhere/a.json"]) == 125


def test_list_shows_every_guarantee(capfd: Capture) -> None:
    assert main(["conformance", "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(load_catalogue())
    assert main(["conformance", "list", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)) == len(lines) - 1


def test_list_names_what_is_not_scored_and_why(capfd: Capture) -> None:
    assert main(["conformance", "list", "--without-mutant", "--json"]) == 0
    listed = {one["id"]: one for one in json.loads(capfd.readouterr().out)}
    wanted = {id for id, entry in load_catalogue().items() if entry.provisional}
    assert set(listed) == wanted
    assert all(one["provisional"] for one in listed.values())


def test_list_names_what_no_report_has(capfd: Capture, good: str) -> None:
    assert main(["conformance", "list", "--stale", good, "--json"]) == 0
    listed = {one["id"] for one in json.loads(capfd.readouterr().out)}
    assert set(load_catalogue()) - listed == {"proc.exit-code", "pid.ns", "pid.hidden"}


def test_verify_is_1_when_a_verdict_does_not_follow(
    capfd: Capture, tmp_path: Path, good: str, liar: str
) -> None:
    assert main(["conformance", "verify", good, liar]) == 0
    assert capfd.readouterr().out.count("all 3 verdicts follow") == 2
    report = copy(json.loads(Path(liar).read_text()))
    entry_of(report, "pid.ns")["verdict"] = "PROVEN"
    Path(liar).write_text(json.dumps(report))
    assert main(["conformance", "verify", good, liar]) == 1
    assert "says PROVEN, the evidence says VIOLATED" in capfd.readouterr().out
    Path(liar).write_text('{"schema": "\\u001b[2J"}')
    assert main(["conformance", "verify", liar]) == 1
    assert "\x1b" not in capfd.readouterr().out


def test_diff_is_1_when_verdicts_differ(capfd: Capture, good: str, liar: str) -> None:
    assert main(["conformance", "diff", good, good]) == 0
    assert capfd.readouterr().out == "0 guarantees differ\n"
    assert main(["conformance", "diff", good, liar]) == 1
    out = capfd.readouterr().out
    assert "pid.ns: PROVEN -> VIOLATED" in out and out.endswith("2 guarantees differ\n")


def test_compare_reads_reports(capfd: Capture, good: str, liar: str) -> None:
    assert main(["compare", good]) == 0
    assert "\x1b" not in capfd.readouterr().out
    assert main(["compare", good, liar, "--only-different"]) == 1
    out = capfd.readouterr().out
    assert "FALSE CLAIM" in out and "proc.exit-code" not in out
    assert main(["compare", good, liar, "--json"]) == 1
    assert len(json.loads(capfd.readouterr().out)["rows"]) == 3
    assert main(["compare", good, "--markdown"]) == 0
    assert "| guarantee | mydrv |" in capfd.readouterr().out


def test_compare_refuses_to_mix_catalogues(capfd: Capture, tmp_path: Path, good: str) -> None:
    report = json.loads(Path(good).read_text())
    report["kit"]["catalogue"] = "2027.1"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(report))
    assert main(["compare", good, str(other)]) == 125
    assert "'2027.1'" in capfd.readouterr().err


# --- real runs ---------------------------------------------------------------------------------


@pytest.fixture
def real(kit_root: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A driver by its class, so that no entry point is needed."""
    monkeypatch.setenv("EXECDRV_CACHE", str(Path(kit_root).parent))
    return "execdrv_native.driver:NativeDriver"


@needs_root
def test_a_run_writes_its_reports_and_leaves_nothing(
    capfd: Capture, tmp_path: Path, real: str
) -> None:
    out, junit, page = (tmp_path / name for name in ("r.json", "r.xml", "r.md"))
    words = ["--out", str(out), "--junit", str(junit), "--markdown", str(page)]
    words += ["--seed", "3", "-n", "2", "-v"]
    assert main(["conformance", "run", real, "pid.ns", "proc.exit-code", *words]) == 0
    shown, error = capfd.readouterr()
    last = shown.splitlines()[-1]
    assert last.startswith(f"{real}: 2 PROVEN; all that was selected is proven")
    assert "seed 3)" in last
    assert "PROVEN            pid.ns" in error
    report = json.loads(out.read_text())
    name = report["run"]["name"]
    assert name.startswith("xdc-") and not os.path.exists(f"/tmp/{name}")
    assert report["run"]["left_over"] == report["run"]["problems"] == []
    assert ElementTree.fromstring(junit.read_bytes())[0].get("tests") == "2"
    assert page.read_text().startswith("# Conformance of")
    assert main(["conformance", "verify", str(out)]) == 0
    assert "all 2 verdicts follow" in capfd.readouterr().out


@needs_root
def test_repro_shows_the_evidence_and_keeps_it_when_asked(capfd: Capture, real: str) -> None:
    words = ["repro", "pid.ns", "--driver", real, "--seed", "3", "--keep"]
    assert main(["conformance", *words]) == 0
    out = capfd.readouterr().out
    assert "chain of parents" in out and "evidence driver/plain:" in out
    kept = Path(next(line.split()[1] for line in out.splitlines() if line.startswith("kept: ")))
    report = json.loads((kept / "report.json").read_text())
    assert report["run"]["seed"] == 3
    shutil.rmtree(kept)


@needs_root
def test_a_driver_that_is_not_there_is_wrong_use(capfd: Capture, real: str) -> None:
    assert main(["conformance", "run", "no-such-driver", "pid.ns"]) == 4
    assert "no-such-driver" in capfd.readouterr().err
    assert main(["conformance", "smoke", "nosuchmodule:Driver"]) == 1
    out = capfd.readouterr().out
    assert out.splitlines()[-1].startswith("nosuchmodule:Driver: the binding is wrong")


@needs_root
def test_a_baseline_and_what_is_incomplete(capfd: Capture, tmp_path: Path, real: str) -> None:
    line = {"reason": "r", "issue": "#1", "expires": "2999-01-01"}
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"proc.exit-code": line}))
    words = ["run", real, "proc.exit-code", "--baseline", str(path)]
    assert main(["conformance", *words]) == 1
    out = capfd.readouterr().out
    assert "STALE proc.exit-code" in out and "1 STALE" in out.splitlines()[-1]
    assert main(["conformance", "run", real, "-k", "no-such-word"]) == 5
