"""The baseline file: every line complete, every id known; stale and expired lines fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reportkit import SHARED, evidence_of, make, verdicts_of

from execdrv.errors import UsageError
from execdrv_conformance.baseline import load_baseline

LINE = {"reason": "kernel bug", "issue": "#7", "expires": "2026-12-31"}


def test_json_and_toml_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps({"pid.ns": LINE}))
    (tmp_path / "b.toml").write_text(
        '["pid.ns"]\nreason = "kernel bug"\nissue = "#7"\nexpires = 2026-12-31\n'
    )
    assert load_baseline(tmp_path / "b.json") == {"pid.ns": LINE}
    assert load_baseline(tmp_path / "b.toml") == {"pid.ns": LINE}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ([], "no table"),
        ({"pid.nss": LINE}, "there is no guarantee 'pid.nss'"),
        ({"pid.ns": "later"}, "no table"),
        ({"pid.ns": {**LINE, "until": "x"}}, "'until'"),
        ({"pid.ns": {"reason": "r", "issue": "#1"}}, "no 'expires'"),
        ({"pid.ns": {**LINE, "reason": " "}}, "no 'reason'"),
        ({"pid.ns": {**LINE, "issue": 7}}, "no 'issue'"),
        ({"pid.ns": {**LINE, "expires": "soon"}}, "no day"),
        ({"pid.ns": {**LINE, "flaky": "yes"}}, "'flaky'"),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path: Path, content: Any, word: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="cannot use baseline") as caught:
        load_baseline(path)
    assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "\x00"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    for name in ("b.json", "b.toml"):
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="cannot read baseline"):
        load_baseline(tmp_path / "b.json")
    with pytest.raises(UsageError, match="cannot read baseline"):
        load_baseline(tmp_path / "missing.json")


def test_a_near_miss_is_hinted(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps({"pid.nss": LINE}))
    with pytest.raises(UsageError) as caught:
        load_baseline(tmp_path / "b.json")
    assert caught.value.hint == "did you mean 'pid.ns'?"


def test_stale_and_expired_lines_fail_the_run(tmp_path: Path) -> None:
    expired = {**LINE, "expires": "2026-11-24"}
    bad = evidence_of(SHARED)
    for name, driver, line, verdict, status in (
        ("a", bad, LINE, "KNOWN-FAILING", 0),
        ("b", None, LINE, "STALE", 1),
        ("c", bad, expired, "EXPIRED", 1),
    ):
        report = make(tmp_path / name, ids=("pid.ns",), driver=driver, baseline={"pid.ns": line})
        assert verdicts_of(report) == {"pid.ns": verdict}
        assert report["conclusion"]["exit_status"] == status
