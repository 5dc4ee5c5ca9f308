"""The pytest front end: one test function becomes one test a guarantee.

`conformance_checks` parametrizes the function over the ids; the plugin binds each to a session of
this process when it is set up, and turns the verdict into pytest's outcome. Workers of xdist share
one run directory and one seed; the process without `workerinput` makes both, writes the report and
sets the exit status. The plugin has one fixture, `driver_factory`, and none that runs by itself.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from execdrv.driver import DriverRef
    from execdrv_conformance.result import Result
    from execdrv_conformance.session import Session
    from execdrv_conformance.verdict import Verdict

Function = TypeVar("Function", bound=Callable[..., Any])

MARK = "conformance"
PARAMETER = "check"
_KEY = "execdrv_conformance"
#: How a session says that something is left on the machine.
LEFT_OVER = "left over"
_STASH = pytest.StashKey["Run"]()


class ConformanceFailure(Exception):
    """A guarantee is not as declared; the message is what a report says of it."""


class BoundCheck:
    """What a test function gets as `check`.

    Args:
        id: the guarantee's id.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self._session: Session | None = None
        #: The last result; None: it was not run.
        self.result: Result | None = None

    def __repr__(self) -> str:
        return f"<check {self.id}>"

    def bind(self, session: Session) -> None:
        """Called by the plugin, before the test function."""
        self._session = session
        self.result = None

    def run(self) -> None:
        """Measure, judge, and end the test with the verdict's outcome."""
        from execdrv_conformance.report.text import explain_failure
        from execdrv_conformance.session import UnusableDriverError
        from execdrv_conformance.verdict import CLASSES

        if self._session is None:
            raise pytest.UsageError("the plugin of execdrv_conformance is switched off")
        try:
            self.result = result = self._session.run_check(self.id)
        except UnusableDriverError as error:
            raise ConformanceFailure(str(error)) from None
        words = f"{result.verdict}: {result.reason}"
        match CLASSES[result.verdict]:
            case "green":
                return
            case "neutral" if result.verdict in ("NOT-APPLICABLE", "UNCLAIMED"):
                pytest.skip(words)
            case "neutral":
                pytest.xfail(words)
            case "incomplete":
                pytest.skip(words)
        raise ConformanceFailure(explain_failure(self._session, result))


def conformance_checks(
    driver: str | DriverRef,
    *,
    profiles: Sequence[str] = (),
    ids: Sequence[str] = (),
    hostile: bool = True,
) -> Callable[[Function], Function]:
    """Make a test function one test a guarantee; it calls `check.run()`.

    Args:
        driver: a name, `MODULE:CLASS` or a DriverRef; the fixture `driver_factory` of your
            conftest.py comes before it.
        profiles: only these profiles; none: all.
        ids: only these guarantees, or domains such as `mem.*`; none: all of the profiles.
        hostile: also the adversarial ones.
    Raises:
        ValueError: there is no such profile or id.
    """
    from execdrv_conformance.select import select_ids

    chosen = select_ids(profiles=profiles, ids=ids, hostile=hostile)
    mark = pytest.mark.conformance(driver)
    parameters = pytest.mark.parametrize(PARAMETER, [BoundCheck(id) for id in chosen], ids=chosen)

    def decorate(function: Function) -> Function:
        decorated: Function = mark(parameters(function))
        return decorated

    return decorate


@pytest.fixture(scope="session")
def driver_factory() -> DriverRef | None:
    """Override it in a conftest.py to give the driver options; None: what the decorator says."""
    return None


class Run:
    """What one pytest process keeps of a conformance run."""

    def __init__(self, directory: Path, seed: int, baseline: str | None) -> None:
        self.directory = directory
        self.seed = seed
        self.baseline: dict[str, dict[str, Any]] = {}
        if baseline is not None:
            from execdrv_conformance.baseline import load_baseline

            self.baseline = load_baseline(baseline)
        self.sessions: dict[str, Session] = {}
        #: Selected ids by what the decorator names.
        self.selected: dict[str, list[str]] = {}

    def session(self, driver: DriverRef, named: str) -> Session:
        """The session of a driver in this process.

        Args:
            named: what the decorator says, for which ids were selected.
        """
        from execdrv_conformance.session import Session

        key = f"{driver.target} {sorted(driver.options.items())} {named}"
        if key not in self.sessions:
            # The same in every worker, whichever driver it meets first.
            folder = self.directory / f"driver-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
            folder.mkdir(mode=0o755, exist_ok=True)
            folder.chmod(0o755)
            self.sessions[key] = Session(
                driver,
                ids=self.selected[named],
                seed=self.seed,
                directory=folder,
                baseline=self.baseline,
            )
        return self.sessions[key]

    def close(self) -> list[str]:
        """End the stand-in hosts of this process; returns what was complained of. Repeatable."""
        problems = []
        for session in self.sessions.values():
            session.close()
            problems += session.problems
            session.problems = []
        return problems


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the kit."""
    group = parser.getgroup("conformance", "conformance of execdrv drivers")
    group.addoption("--conformance-seed", type=int, help="seed of nonces, sizes and order")
    group.addoption("--conformance-report", metavar="FILE", help="write the report as JSON")
    group.addoption("--conformance-baseline", metavar="FILE", help="known failures")
    group.addoption(
        "--conformance-allow-incomplete",
        action="store_true",
        help="what this machine can't show does not make the exit status 10",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark; in a worker take over what the controller decided."""
    config.addinivalue_line("markers", f"{MARK}(driver): checks of a driver's guarantees")
    given = getattr(config, "workerinput", {}).get(_KEY)
    if given is not None:
        baseline = config.getoption("--conformance-baseline")
        config.stash[_STASH] = Run(Path(given["directory"]), given["seed"], baseline)
    elif _is_controller(config):
        config.pluginmanager.register(Collector(config), "execdrv-conformance-collector")


def _is_controller(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput")


def _ensure_run(config: pytest.Config) -> Run:
    """The run of this process; the controller makes it when it is first needed."""
    if _STASH not in config.stash:
        from execdrv_conformance.session import make_run_directory

        seed = config.getoption("--conformance-seed")
        chosen = random.randrange(2**32) if seed is None else int(seed)
        baseline = config.getoption("--conformance-baseline")
        config.stash[_STASH] = Run(make_run_directory(), chosen, baseline)
    return config.stash[_STASH]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist where the run is."""
    run = _ensure_run(node.config)
    node.workerinput[_KEY] = {"directory": str(run.directory), "seed": run.seed}


def _check_of(item: pytest.Item) -> BoundCheck | None:
    """The check of a test that `conformance_checks` has made; None for all others."""
    if item.get_closest_marker(MARK) is None:
        return None
    callspec = getattr(item, "callspec", None)
    check = callspec.params.get(PARAMETER) if callspec is not None else None
    return check if isinstance(check, BoundCheck) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the checks among their own places; others stay where they are."""
    places = [number for number, item in enumerate(items) if _check_of(item) is not None]
    if not places:
        return
    run = _ensure_run(config)
    shuffled = [items[number] for number in places]
    random.Random(run.seed).shuffle(shuffled)
    for number, item in zip(places, shuffled, strict=True):
        items[number] = item


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember what was selected, so that a case is gathered for all its checks at once."""
    for item in session.items:
        check = _check_of(item)
        if check is not None:
            ids = _ensure_run(session.config).selected.setdefault(_named_by(item), [])
            ids.append(check.id)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Bind a check to the session of its driver; a body that returns without a verdict fails."""
    check = _check_of(pyfuncitem)
    if check is None:
        return (yield)
    run = _ensure_run(pyfuncitem.config)
    check.bind(run.session(_reference(pyfuncitem), _named_by(pyfuncitem)))
    result = yield
    if check.result is None:
        raise ConformanceFailure(f"{check.id}: NOT-RUN: the test returned without check.run()")
    return result


def _named_by(item: pytest.Item) -> str:
    """What the decorator names, as a key."""
    mark = item.get_closest_marker(MARK)
    return repr(mark.args[0]) if mark is not None else ""


def _reference(item: pytest.Function) -> DriverRef:
    """The driver of a check: of the author's fixture, else of the decorator."""
    from execdrv.driver import DriverRef

    made = item._request.getfixturevalue("driver_factory")
    mark = item.get_closest_marker(MARK)
    named = mark.args[0] if mark is not None else None
    chosen = made() if callable(made) else made
    chosen = named if chosen is None else chosen
    return chosen if isinstance(chosen, DriverRef) else DriverRef(target=str(chosen))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed guarantee is told in the report's words, without a traceback of the kit."""
    report = yield
    check = _check_of(item)
    if check is None:
        return report
    if call.excinfo is not None and isinstance(call.excinfo.value, ConformanceFailure):
        report.longrepr = str(call.excinfo.value)
    report.user_properties.append(("guarantee", check.id))
    if call.when == "call" and check.result is not None:
        report.user_properties.append(("verdict", check.result.verdict))
        report.user_properties.append(("reason", check.result.reason))
    return report


class Collector:
    """The verdicts of a run, in the process that ends it: it sets the exit status.

    Reports of workers come here too, so nothing else needs to cross.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        #: Verdicts by test: none if it was never run, several if it was run again.
        self.verdicts: dict[str, list[Verdict]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What was selected and then stopped by -x or --maxfail is not forgotten."""
        for item in session.items:
            if _check_of(item) is not None:
                self.verdicts.setdefault(item.nodeid, [])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        properties = dict(report.user_properties)
        if "guarantee" in properties:
            found = self.verdicts.setdefault(report.nodeid, [])
            if report.when == "call" and "verdict" in properties:
                found.append(properties["verdict"])  # type: ignore[arg-type]

    def final(self) -> list[Verdict]:
        """One verdict a test, the worst of its runs."""
        from execdrv_conformance.verdict import worst

        return [worst(runs) if runs else "NOT-RUN" for runs in self.verdicts.values()]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        """End what this process made, then set the exit status by the verdicts."""
        result = yield
        if not self.verdicts or exitstatus not in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
        ):
            _end_run(self._config)
            return result
        from execdrv_conformance.verdict import EXIT_KIT_ERROR, exit_status

        left_over = _end_run(self._config)
        allow = bool(self._config.getoption("--conformance-allow-incomplete"))
        own = exit_status(self.final(), left_over=bool(left_over), allow_incomplete=allow)
        if exitstatus == pytest.ExitCode.OK or own == EXIT_KIT_ERROR:
            session.exitstatus = own
        return result

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The last words: how many of each verdict."""
        if self.verdicts:
            counts: dict[str, int] = {}
            for verdict in self.final():
                counts[verdict] = counts.get(verdict, 0) + 1
            words = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
            terminalreporter.section("conformance")
            terminalreporter.line(words)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A worker ends its own stand-in hosts."""
    _end_run(config)


def _end_run(config: pytest.Config) -> list[str]:
    """End the stand-in hosts of this process; the controller writes reports and removes the run.

    Returns:
        What is left over, in the controller.
    """
    run = config.stash.get(_STASH, None)
    if run is None or not run.directory.exists():
        return []
    problems = run.close()
    if not _is_controller(config):
        with open(run.directory / "problems", "a") as file:
            file.write("".join(f"{problem}\n" for problem in problems))
        return []
    from execdrv_conformance.store import remove_run_directory
    from execdrv_conformance.sweep import find_traces

    noted = run.directory / "problems"
    if noted.exists():
        problems += noted.read_text().splitlines()
    left_over = [line for line in problems if line.startswith(LEFT_OVER)]
    left_over += find_traces(run.directory.name)
    if path := config.getoption("--conformance-report"):
        _write_reports(Path(path), run, problems, left_over)
    remove_run_directory(run.directory)
    return left_over


def _write_reports(path: Path, run: Run, problems: list[str], left_over: list[str]) -> None:
    """One report a driver, of what all workers have left: FILE, or FILE-2 and so on for more."""
    from execdrv_conformance.report.model import format_report
    from execdrv_conformance.run import merge_report

    folders = sorted(run.directory.glob("driver-*/session.json"))
    for number, noted in enumerate(folders, 1):
        report = merge_report(
            noted.parent, baseline=run.baseline, problems=problems, left_over=left_over
        )
        target = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        target.write_text(format_report(report))
