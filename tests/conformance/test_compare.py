"""The matrix of drivers, the difference of two reports, and the suggested table of offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

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

from execdrv import offers
from execdrv.errors import UsageError
from execdrv_conformance.compare import (
    CELLS,
    compare_reports,
    diff_reports,
    format_markdown,
    format_text,
    has_bad_cells,
)
from execdrv_conformance.suggest import suggest_offers
from execdrv_conformance.verdict import Verdict

Report = dict[str, Any]


@pytest.fixture
def good(tmp_path: Path) -> Report:
    return make(tmp_path / "good")


@pytest.fixture
def plain(tmp_path: Path) -> Report:
    """A driver that makes no namespace, and says so of one guarantee of two."""
    report = make(
        tmp_path / "plain",
        driver=evidence_of(SHARED),
        declaration={**declaration_of(pid__ns=ABSENT), "target": "mod:Plain"},
        requests={"pid.ns": REFUSED},
    )
    assert verdicts_of(report)["pid.ns"] == "ABSENT-CONFIRMED"
    return report


def cells_of(matrix: Report, id: str) -> list[str]:
    row = next(row for row in matrix["rows"] if row["id"] == id)
    return [cell["cell"] for cell in row["cells"]]


def test_every_verdict_has_a_cell() -> None:
    assert set(CELLS) == set(get_args(Verdict))


def test_the_matrix_tells_the_four_kinds_apart(good: Report, plain: Report, tmp_path: Path) -> None:
    lacking = make(tmp_path / "lacking", lacking=("ns.pid",))
    lacking["machine"]["facts"] = good["machine"]["facts"]
    matrix = compare_reports([good, plain, lacking])
    assert [one["label"] for one in matrix["drivers"]] == ["mydrv#1", "Plain", "mydrv#2"]
    assert cells_of(matrix, "proc.exit-code") == ["proven", "proven", "proven"]
    assert cells_of(matrix, "pid.ns") == ["proven", "absent", "not here"]
    assert cells_of(matrix, "pid.hidden")[1] == "FALSE CLAIM"
    assert has_bad_cells(matrix) and not has_bad_cells(compare_reports([good]))
    assert len(matrix["domains"]["pid"]) == 3
    text = format_text(matrix, colour=False)
    assert "\x1b" not in text
    assert "pid.hidden Plain: FALSE CLAIM: inside saw: the canary is listed" in text
    assert "pid.ns mydrv#2: not here: this machine lacks pid namespaces" in text
    assert "\x1b[32m" in format_text(matrix, colour=True)
    assert json.loads(json.dumps(matrix)) == matrix
    page = format_markdown(matrix)
    assert "| pid.ns | proven | absent | not here |" in page


def test_only_what_differs_is_shown_when_asked(good: Report, plain: Report) -> None:
    matrix = compare_reports([good, plain], only_different=True)
    assert [row["id"] for row in matrix["rows"]] == ["pid.ns", "pid.hidden"]
    assert set(matrix["domains"]) == {"pid"}
    assert "no difference" in format_text(
        compare_reports([good, good], only_different=True), colour=False
    )


def test_a_condition_is_shown(tmp_path: Path) -> None:
    status = {"kind": "when", "condition": "net-none", "reason": "else not"}
    report = make(tmp_path / "run", declaration=declaration_of(pid__ns=status))
    assert cells_of(compare_reports([report]), "pid.ns") == ["proven if"]


def test_an_id_that_a_report_lacks_is_not_run(good: Report, tmp_path: Path) -> None:
    short = make(tmp_path / "short", ids=("pid.ns",))
    assert cells_of(compare_reports([good, short]), "pid.hidden") == ["proven", "not run"]


def test_catalogues_are_never_mixed(good: Report) -> None:
    other = copy(good)
    other["kit"]["catalogue"] = "2027.1"
    for mix in (compare_reports, lambda reports: diff_reports(*reports)):
        with pytest.raises(UsageError, match=r"different catalogues: 2026\.1, 2027\.1"):
            mix([good, other])  # type: ignore[operator]


def test_other_machines_are_marked(good: Report) -> None:
    other = copy(good)
    other["machine"]["id"] = "elsewhere"
    matrix = compare_reports([good, other])
    assert [one["label"] for one in matrix["drivers"]] == ["mydrv@m1", "mydrv@m2"]
    assert "different machines" in format_text(matrix, colour=False)
    assert "elsewhere" in format_text(matrix, colour=False)
    assert "different machines" not in format_text(compare_reports([good]), colour=False)


def test_diff_names_each_changed_verdict(good: Report, plain: Report, tmp_path: Path) -> None:
    assert diff_reports(good, good) == []
    lines = diff_reports(good, plain)
    assert [line.partition(":")[0] for line in lines] == ["pid.ns", "pid.hidden"]
    assert "PROVEN -> VIOLATED" in lines[1]
    short = make(tmp_path / "short", ids=("pid.ns",))
    assert "pid.hidden: only in the old one, PROVEN" in diff_reports(good, short)
    assert "pid.hidden: only in the new one, PROVEN" in diff_reports(short, good)


# --- suggest -----------------------------------------------------------------------------------


def evaluate(text: str) -> offers.Offers:
    scope: dict[str, Any] = {}
    exec(text, scope)
    table: offers.Offers = scope["OFFERS"]
    return table


def test_the_suggested_table_is_valid_and_what_was_measured(good: Report, plain: Report) -> None:
    table = evaluate(suggest_offers(good))
    assert table.problems() == ()
    statuses = table.statuses()
    assert statuses["pid.ns"].kind == "enforced"
    assert statuses["mem.tree"] == offers.unclaimed("not measured")
    statuses = evaluate(suggest_offers(plain)).statuses()
    assert statuses["pid.ns"] == offers.absent("no namespace is made")
    assert statuses["pid.hidden"] == offers.absent("TODO: why")
    assert statuses["proc.exit-code"].kind == "enforced"


def test_what_could_not_be_measured_is_unclaimed(tmp_path: Path) -> None:
    for number, fields in enumerate(
        (
            {"driver": {"lost": "it hung"}},
            {"lacking": ("ns.pid",)},
            {"control": evidence_of(OWN)},
        )
    ):
        report = make(tmp_path / f"run-{number}", **fields)
        status = evaluate(suggest_offers(report)).statuses()["pid.ns"]
        assert status.kind == "unclaimed", entry_of(report, "pid.ns")["reason"]


def test_a_declared_condition_is_kept_where_it_fits(tmp_path: Path) -> None:
    status = {"kind": "when", "condition": "net-none", "reason": "else not"}
    report = make(tmp_path / "fits", declaration=declaration_of(pid__ns=status))
    assert evaluate(suggest_offers(report)).statuses()["pid.ns"] == offers.when(
        "net-none", "else not"
    )
    status = {"kind": "when", "condition": "memory-limited", "reason": "else not"}
    report = make(tmp_path / "not", declaration=declaration_of(pid__ns=status))
    assert verdicts_of(report)["pid.ns"] == "UNDER-CLAIMED"
    assert evaluate(suggest_offers(report)).statuses()["pid.ns"].kind == "enforced"
