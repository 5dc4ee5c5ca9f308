"""Reports: canonical, by their own schema, and honest in every form."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from reportkit import (
    ABSENT,
    OWN,
    REFUSED,
    SHARED,
    copy,
    declaration_of,
    entry_of,
    evidence_of,
    make,
    verdicts_of,
)

from execdrv.errors import UsageError
from execdrv.guarantees.catalogue import load_catalogue
from execdrv_conformance.report import model
from execdrv_conformance.report.junit import format_junit
from execdrv_conformance.report.markdown import format_markdown
from execdrv_conformance.report.model import format_report, read_report
from execdrv_conformance.report.schema import find_faults, load_schema
from execdrv_conformance.report.text import explain_entry, format_summary, last_line
from execdrv_conformance.verdict import CLASSES

LIAR = evidence_of(SHARED, codes_right=False)


def test_a_good_driver_is_proven(tmp_path: Path) -> None:
    report = make(tmp_path / "run")
    assert set(verdicts_of(report).values()) == {"PROVEN"}
    assert report["counts"]["verdicts"] == {"PROVEN": 3}
    assert report["counts"]["domains"]["pid"]["catalogue"] == 5
    assert report["counts"]["domains"]["pid"]["declared"] == 5
    proven = report["counts"]["domains"]["pid"]
    assert proven["proven"] + proven["provisional"] == 2
    assert report["conclusion"]["exit_status"] == 0


def test_every_report_is_of_the_published_form(tmp_path: Path) -> None:
    reports = [
        make(tmp_path / "good"),
        make(tmp_path / "liar", driver=LIAR),
        make(tmp_path / "none", done=()),
        make(tmp_path / "lacking", lacking=("ns.pid",)),
        make(tmp_path / "lost", driver={"lost": "it hung"}),
        make(tmp_path / "failed", driver={"failed": "Traceback\nKeyError: 1"}),
    ]
    for report in reports:
        assert find_faults(report) == []
    assert verdicts_of(reports[4])["pid.ns"] == "UNTESTABLE"
    assert verdicts_of(reports[5])["pid.ns"] == "KIT-ERROR"


def test_the_schema_names_every_verdict() -> None:
    schema = load_schema()
    verdict = schema["$defs"]["check"]["properties"]["verdict"]["enum"]
    assert set(verdict) == set(CLASSES)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r.pop("evidence"), "has no 'evidence'"),
        (lambda r: r.update(extra=1), "unknown 'extra'"),
        (lambda r: r["run"].update(seed="7"), "report.run.seed is no integer"),
        (lambda r: r["run"].update(seed=True), "report.run.seed is no integer"),
        (lambda r: r["checks"][0].update(verdict="FINE"), "report.checks[0].verdict is 'FINE'"),
        (lambda r: r["checks"][0].update(id="../x"), "not of the form"),
        (lambda r: r["checks"][0]["cases"][0]["inside"].update(state="sure"), "'sure'"),
        (lambda r: r["machine"]["facts"].update(swap="yes"), "is no boolean"),
    ],
)
def test_what_is_not_of_the_form_is_named(tmp_path: Path, change, word: str) -> None:  # type: ignore[no-untyped-def]
    report = make(tmp_path / "run")
    change(report)
    assert word in "; ".join(find_faults(report))


def test_it_is_canonical_and_comes_back(tmp_path: Path) -> None:
    report = make(tmp_path / "run")
    text = format_report(report)
    assert text.isascii() and json.loads(text) == report
    assert text == format_report(json.loads(text))
    assert list(json.loads(text)) == sorted(report)
    (tmp_path / "r.json").write_text(text)
    assert read_report(tmp_path / "r.json") == report


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "cannot read"),
        ("[]", "no conformance report"),
        ("{}", "no conformance report"),
        ('{"schema": 2}', "this kit reads 1"),
        ('{"schema": 1, "kit": {"catalogue": "2031.1"}}', "'2031.1'"),
        ('{"schema": 1, "kit": {"catalogue": "2026.1"}}', "has no"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match="cannot read report") as caught:
        read_report(tmp_path / "r.json")
    assert word in str(caught.value)


def test_what_never_ran_is_not_run(tmp_path: Path) -> None:
    report = make(tmp_path / "run", done=("pid.ns",))
    assert verdicts_of(report) == {
        "proc.exit-code": "NOT-RUN",
        "pid.ns": "PROVEN",
        "pid.hidden": "NOT-RUN",
    }
    assert report["conclusion"]["exit_status"] == 10


def test_what_is_left_over_is_11(tmp_path: Path) -> None:
    report = make(tmp_path / "run", problems=["left over: /x", "odd"], left_over=["group /y"])
    assert report["conclusion"]["exit_status"] == 11
    assert report["run"]["left_over"] == ["group /y", "left over: /x"]
    assert report["run"]["problems"] == ["odd"]
    assert "left over: /x" in format_summary(report)


def test_a_number_that_is_no_json_becomes_a_word(tmp_path: Path) -> None:
    evidence = evidence_of({**OWN, "pid.ns": {"inside": {"pid": float("nan")}, "outside": {}}})
    report = make(tmp_path / "run", driver=evidence)
    assert verdicts_of(report)["pid.ns"] == "UNTESTABLE"
    assert "NaN" in format_report(report)
    json.loads(format_report(report), parse_constant=lambda word: pytest.fail(word))


# --- text --------------------------------------------------------------------------------------


def test_a_failure_is_told_in_the_order_in_which_one_asks(tmp_path: Path) -> None:
    report = make(tmp_path / "run", driver=LIAR)
    entry = entry_of(report, "pid.ns")
    assert entry["verdict"] == "VIOLATED"
    text = explain_entry(entry, driver=report["driver"]["declaration"], seed=7)
    words = [
        load_catalogue()["pid.ns"].title,
        "asked",
        "inside saw",
        "chain of parents [54]",
        "outside saw",
        "NSpid [54]",
        "wanted",
        "likely",
        "CLONE_NEWPID",
        "execdrv conformance repro pid.ns --driver mydrv --seed 7",
    ]
    places = [text.index(word) for word in words]
    assert places == sorted(places), text


def test_each_verdict_has_a_text(tmp_path: Path) -> None:
    entry = entry_of(make(tmp_path / "run"), "pid.ns")
    for verdict, kind in CLASSES.items():
        changed = {**entry, "verdict": verdict, "class": kind, "reason": "because"}
        text = explain_entry(changed, driver={"target": "d", "options": {"a": "b c"}}, seed=1)
        assert text.startswith(f"{verdict} pid.ns: ")
        assert "--driver-option 'a=b c'" in text


def test_nothing_of_a_job_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    facts = {**SHARED, "pid.ns": {"inside": {"pid": 1, "chain": ["\x1b[2J"], "link": "\x9b"}}}
    facts["pid.ns"]["outside"] = SHARED["pid.ns"]["outside"]
    report = make(tmp_path / "run", driver=evidence_of(facts))
    for text in (format_summary(report), format_markdown(report), format_junit(report)):
        assert "\x1b" not in text and "\x9b" not in text
        assert all(char.isprintable() or char == "\n" for char in text)


def test_the_last_line_has_counts_and_conclusion(tmp_path: Path) -> None:
    line = last_line(make(tmp_path / "good"))
    assert line.startswith("mydrv: 3 PROVEN; all that was selected is proven")
    line = last_line(make(tmp_path / "liar", driver=LIAR))
    assert line.startswith("mydrv: 3 VIOLATED; the driver is not as it says")
    report = make(tmp_path / "gap", done=("pid.ns",))
    assert "1 PROVEN, 2 NOT-RUN; incomplete" in last_line(report)
    assert "which is allowed" in last_line(report, allow_incomplete=True)
    assert format_summary(report).endswith(last_line(report) + "\n")


# --- other tools -------------------------------------------------------------------------------


def test_only_proven_is_a_passed_test_of_junit(tmp_path: Path) -> None:
    report = make(
        tmp_path / "run",
        driver=evidence_of(SHARED),
        declaration=declaration_of(pid__ns=ABSENT, pid__hidden={"kind": "enforced"}),
        requests={"pid.ns": REFUSED},
    )
    assert verdicts_of(report) == {
        "proc.exit-code": "PROVEN",
        "pid.ns": "ABSENT-CONFIRMED",
        "pid.hidden": "VIOLATED",
    }
    suite = ElementTree.fromstring(format_junit(report)).find("testsuite")
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert [child.tag for child in cases["proc.exit-code"]] == ["properties"]
    skipped = cases["pid.ns"].find("skipped")
    assert skipped is not None and skipped.get("type") == "xfail"
    failure = cases["pid.hidden"].find("failure")
    assert failure is not None and "MUST NOT" in str(failure.text)
    properties = {one.get("name"): one.get("value") for one in cases["pid.ns"].iter("property")}
    assert properties["guarantee"] == "pid.ns"
    assert properties["verdict"] == "ABSENT-CONFIRMED"


@pytest.mark.parametrize("verdict", CLASSES)
def test_no_other_verdict_looks_green_to_other_tools(tmp_path: Path, verdict: str) -> None:
    report = copy(make(tmp_path / "run", ids=("pid.ns",)))
    kind = CLASSES[verdict]  # type: ignore[index]
    report["checks"][0].update({"verdict": verdict, "class": kind, "reason": "because"})
    case = ElementTree.fromstring(format_junit(report)).find("testsuite/testcase")
    assert case is not None
    tags = {child.tag for child in case} - {"properties"}
    wanted = {"neutral": "skipped", "incomplete": "skipped", "fail": "failure", "kit": "error"}
    assert tags == ({wanted[kind]} if verdict != "PROVEN" else set())


def test_markdown_shows_failures_and_every_guarantee(tmp_path: Path) -> None:
    text = format_markdown(make(tmp_path / "run", driver=LIAR))
    assert text.startswith("# Conformance of mydrv\n")
    assert "## Failures" in text and "| pid.ns | VIOLATED |" in text
    assert "<" not in text.replace("&lt;", "")


def test_the_digest_of_the_kit_is_of_its_sources() -> None:
    assert len(model.digest_kit()) == 16 and model.digest_kit() == model.digest_kit()
