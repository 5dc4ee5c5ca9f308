"""The pytest front end, as an author of a driver uses it: outcomes, ids, exit statuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.timeout(120),
]

THREE_LINES = """
from execdrv_conformance import conformance_checks

@conformance_checks({driver!r}, ids={ids!r})
def test_conformance(check):
    check.run()
"""

#: Declares what it does not do: the job sees every process of the machine.
LIAR = """
from execdrv.offers import Offers, enforced
from execdrv_chroot.driver import ChrootDriver

class Liar(ChrootDriver):
    name = "liar"
    contract = 1
    offers = Offers({**dict(ChrootDriver.offers.entries), "pid.hidden": enforced()})

class Picky(ChrootDriver):
    name = "picky"
    contract = 1
    options = {"depth": "how deep"}

    def check(self, box):
        if box.options.get("depth") != "3":
            from execdrv.driver import Refusal
            return [Refusal(message="cannot work without depth=3")]
        return super().check(box)
"""


@pytest.fixture(autouse=True)
def author(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory of an author's own, importable."""
    pytester.makepyfile(liar=LIAR)
    path = [str(pytester.path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(word for word in path if word))
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    scratch = pytester.mkdir("scratch")
    scratch.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(scratch))
    for directory in pytester.path.parents:
        if "pytest" in directory.name:
            directory.chmod(0o755)
    return pytester


def write(author: pytest.Pytester, driver: str, *ids: str) -> None:
    author.makepyfile(test_conformance=THREE_LINES.format(driver=driver, ids=ids))


def run(author: pytest.Pytester, *options: str) -> pytest.RunResult:
    result = author.runpytest_subprocess("-p", "no:cacheprovider", "-v", *options)
    left = sorted(os.listdir(os.environ["TMPDIR"]))
    assert [name for name in left if name.startswith("xdc-")] == []
    return result


def test_three_lines_make_one_test_a_guarantee(author: pytest.Pytester) -> None:
    write(author, "native", "pid.ns", "pid.hidden", "proc.exit-code")
    result = run(author)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_conformance[[]pid.ns[]] PASSED*"])
    result.stdout.fnmatch_lines(["3 PROVEN"])
    assert result.ret == 0


def test_absent_is_no_pass(author: pytest.Pytester) -> None:
    write(author, "chroot", "pid.ns", "pid.ns-death", "proc.exit-code")
    result = run(author, "-rxs")
    result.assert_outcomes(passed=1, xfailed=1, skipped=1)
    result.stdout.fnmatch_lines(["*XFAIL*pid.ns*ABSENT-CONFIRMED*"])
    assert result.ret == 0


def test_a_false_claim_fails_with_what_was_seen(author: pytest.Pytester) -> None:
    write(author, "liar:Liar", "pid.hidden", "proc.exit-code")
    result = run(author)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    text = result.stdout.str()
    order = [
        "MUST NOT see a process of the machine",
        "asked",
        "inside saw",
        "outside saw",
        "wanted",
        "likely",
        "execdrv conformance repro pid.hidden",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places), text
    assert "Traceback" not in text


def test_k_selects_by_guarantee_and_nothing_selected_is_5(author: pytest.Pytester) -> None:
    write(author, "native", "pid.ns", "proc.exit-code")
    result = run(author, "-k", "pid")
    result.assert_outcomes(passed=1, deselected=1)
    assert run(author, "-k", "nosuch").ret == 5


def test_the_authors_own_fixture_gives_the_driver(author: pytest.Pytester) -> None:
    author.makeconftest(
        """
        import pytest
        from execdrv import DriverRef

        @pytest.fixture(scope="session")
        def driver_factory():
            return DriverRef(target="liar:Picky", options={"depth": "3"})
        """
    )
    write(author, "no-such-driver", "proc.exit-code")
    result = run(author)
    result.assert_outcomes(passed=1)


def test_a_driver_that_is_not_there_fails_in_one_line(author: pytest.Pytester) -> None:
    write(author, "no-such-driver", "proc.exit-code")
    result = run(author)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no-such-driver*"])
    assert "Traceback" not in result.stdout.str()


def test_a_body_that_returns_without_a_verdict_fails(author: pytest.Pytester) -> None:
    author.makepyfile(
        test_conformance="""
        from execdrv_conformance import conformance_checks

        @conformance_checks("native", ids=["pid.ns"])
        def test_conformance(check):
            pass
        """
    )
    result = run(author)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*returned without check.run()*"])
    assert result.ret == 1


def test_what_never_ran_is_not_green(author: pytest.Pytester) -> None:
    author.makepyfile(
        test_conformance="""
        import pytest
        from execdrv_conformance import conformance_checks

        @pytest.mark.skip(reason="later")
        @conformance_checks("native", ids=["pid.ns"])
        def test_conformance(check):
            check.run()
        """
    )
    result = run(author)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["1 NOT-RUN"])
    assert result.ret == 10
    assert run(author, "--conformance-allow-incomplete").ret == 0


def test_workers_of_xdist_share_a_run(author: pytest.Pytester) -> None:
    write(author, "native", "pid.*", "proc.exit-code")
    alone = run(author, "--conformance-seed", "3")
    shared = run(author, "--conformance-seed", "3", "-n", "2")
    assert shared.parseoutcomes()["passed"] == alone.parseoutcomes()["passed"] >= 5
    assert shared.ret == alone.ret == 0


def test_the_seed_decides_the_order(author: pytest.Pytester) -> None:
    write(author, "native", "pid.*", "proc.*")

    def order(seed: str) -> list[str]:
        result = run(author, "--collect-only", "-q", "--conformance-seed", seed)
        return [line for line in result.outlines if "[" in line]

    assert order("1") == order("1")
    assert order("1") != order("2")
    assert sorted(order("1")) == sorted(order("2"))


def test_other_tests_are_not_touched(author: pytest.Pytester) -> None:
    author.makepyfile(
        test_other="""
        import pytest

        @pytest.fixture
        def check():
            return "mine"

        def test_mine(check):
            assert check == "mine"

        def test_fails():
            assert False
        """
    )
    result = run(author)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*= conformance =*")


def test_the_report_has_all_evidence(author: pytest.Pytester) -> None:
    from execdrv_conformance.report.model import verify_report

    write(author, "native", "pid.ns", "pid.hidden")
    path = Path(author.path, "report.json")
    result = run(author, "-n", "2", "--conformance-report", str(path))
    assert result.ret == 0
    import json

    report = json.loads(path.read_text())
    assert {one["id"]: one["verdict"] for one in report["checks"]} == {
        "pid.ns": "PROVEN",
        "pid.hidden": "PROVEN",
    }
    assert verify_report(report) == []
