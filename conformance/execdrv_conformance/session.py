"""A session: one driver, one run directory, one stand-in host at a time, and the checks' results.

Runs in the front end (the command, or a pytest worker). Evidence is one file a case and arm,
written once and renamed into place, so that several workers share it: the first that needs a case
gathers it under that case's lock, the others wait and read. Verdicts come from stored evidence.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from execdrv.driver import DriverRef
from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.guarantees.types import Guarantee
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks import load_checks
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.result import Result, judge_stored, needs_control, read_findings
from execdrv_conformance.standin.handle import StandIn, StandInError
from execdrv_conformance.turnstile import pass_turnstile

#: Every name that a run makes on the machine begins so; `sweep` removes only such.
PREFIX = "xdc-"
#: Stand-in hosts that one session may lose: a driver that hangs the kit hangs it every time.
MOST_LOST = 3
REQUEST_TIMEOUT_S = 60.0
MACHINE_TIMEOUT_S = 30.0


class UnusableDriverError(Exception):
    """The driver can't be loaded; the message says why."""


class Session:
    """Runs checks of one driver and keeps their evidence.

    Args:
        driver: the driver under test.
        ids: the selected guarantees.
        seed: of nonces, sizes and order.
        directory: the run directory, shared by all workers of a run; None: made, and removed.
        baseline: known failures by id.
        control: a directory with evidence of the control arm, shared by sessions of several
            drivers with one seed; None: this run's own.
    """

    def __init__(
        self,
        driver: DriverRef,
        *,
        ids: Iterable[str],
        seed: int,
        directory: Path | None = None,
        baseline: Mapping[str, Mapping[str, Any]] | None = None,
        control: Path | None = None,
        root: str | None = None,
        standin: StandIn | None = None,
    ) -> None:
        self.driver = driver
        self.seed = seed
        self.checks = load_checks()
        self.catalogue: dict[str, Guarantee] = load_catalogue()
        self.ids = [id for id in self.checks if id in set(ids)]
        self.baseline = dict(baseline or {})
        self._made = directory is None
        self.directory = directory or make_run_directory()
        self._control = control or self.directory
        self._root = root
        self._standin = standin
        self._borrowed = standin is not None
        self._count = 0
        self._lost: list[str] = []
        self._no_standin = ""
        self.evidence: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.results: dict[str, Result] = {}
        self.problems: list[str] = []
        self._machine: dict[str, Any] | None = None
        self._declaration: Declaration | None = None

    # --- what is known ------------------------------------------------------------------------

    @property
    def machine(self) -> dict[str, Any]:
        """What this machine is and has, as the stand-in host sees it."""
        if self._machine is None:
            self._machine = self._stored(
                self._control / "machine.json", lambda: self._ask({"ask": "machine"})
            )
            if "facts" not in self._machine:
                why = self._machine.get("lost") or self._machine.get("failed") or "no answer"
                self._no_standin = str(why).strip().splitlines()[-1]
                self._machine = {**self._machine, "facts": {}}
        return self._machine

    @property
    def declaration(self) -> Declaration:
        """What the driver declares.

        Raises:
            UnusableDriverError: it can't be loaded.
        """
        if self._declaration is None:
            plain = self._stored(
                self.directory / "driver.json", lambda: self._ask({"ask": "describe"})
            )
            if "refused" in plain or "failed" in plain or "lost" in plain:
                raise UnusableDriverError(
                    str(plain.get("refused") or plain.get("failed") or plain.get("lost"))
                )
            self._declaration = Declaration.from_plain(plain)
        return self._declaration

    def lacking(self, id: str) -> tuple[str, ...]:
        """What a guarantee needs that is not here, in words."""
        guarantee = self.catalogue[id]
        facts = self.machine["facts"]
        if self._no_standin:
            return (f"a stand-in host ({self._no_standin})",)
        if self.declaration.unavailable:
            return (f"what the driver needs ({self.declaration.unavailable})",)
        needed = (*guarantee.needs, *guarantee.proof_needs)
        return tuple(MACHINE_FACTS[name] for name in needed if not facts.get(name, False))

    # --- checks -------------------------------------------------------------------------------

    def run_check(self, id: str) -> Result:
        """Measure one guarantee and judge it; its evidence is kept.

        Raises:
            UnusableDriverError: the driver can't be loaded.
        """
        check, guarantee = self.checks[id], self.catalogue[id]
        lacking = self.lacking(id)
        # Without a stand-in host nobody has read what the driver declares.
        declaration = _nobody(self.driver) if self._no_standin else self.declaration
        if not lacking and not self._is_not_applicable(id):
            for case in check.cases:
                self._gather(check, guarantee, case, declaration)
            self._request(check, declaration)
        self.results[id] = result = self._judge(check, guarantee, declaration)
        return result

    def _is_not_applicable(self, id: str) -> bool:
        return self.declaration.statuses.get(id, {}).get("kind") == "not-applicable"

    def _gather(
        self, check: Check, guarantee: Guarantee, case: Case, declaration: Declaration
    ) -> None:
        self._gather_arm("driver", case)
        inside, outside, _, _ = read_findings(
            check, self.evidence, arm="driver", case=case.name, declaration=declaration
        )
        if needs_control(guarantee, inside, outside):
            self._gather_arm("control", case)

    def _gather_arm(self, arm: str, case: Case) -> None:
        key = f"{arm}/{case.name}"
        if key in self.evidence:
            return
        folder = self.directory if arm == "driver" else self._control
        self.evidence[key] = self._stored(
            folder / f"{arm}-{case.name}.json", lambda: self._ask_case(arm, case)
        )

    def _ask_case(self, arm: str, case: Case) -> dict[str, Any]:
        ids = self._ids_of(case, arm)
        if len(self._lost) >= MOST_LOST:
            return {"lost": f"the driver hung {len(self._lost)} cases before: {self._lost[-1]}"}
        with pass_turnstile(exclusive=case.exclusive):
            return self._ask(
                {
                    "ask": "case",
                    "case": case.name,
                    "arm": arm,
                    "ids": ids,
                    "declaration": self.declaration.to_plain(),
                    "machine": self.machine["facts"],
                },
                timeout_s=case.budget_s,
            )

    def _ids_of(self, case: Case, arm: str) -> list[str]:
        """The selected checks of a case that this machine can show."""
        return [
            id
            for id in self.ids
            if any(one.name == case.name for one in self.checks[id].cases)
            and not self.lacking(id)
            and not self._is_not_applicable(id)
            and (arm == "driver" or self.catalogue[id].kind in ("isolating", "limit"))
        ]

    def _request(self, check: Check, declaration: Declaration) -> None:
        """Ask for what is declared absent, once by its id and once by its own fields."""
        status = declaration.statuses.get(check.id, {})
        if status.get("kind") not in ("absent", "unclaimed") or check.id in self.requests:
            return
        requests: list[dict[str, Any]] = [{"require": [check.id]}]
        if check.request is not None:
            requests.append(dict(check.request))
        self.requests[check.id] = self._stored(
            self.directory / f"request-{check.id}.json",
            lambda: self._ask(
                {
                    "ask": "request",
                    "arm": "driver",
                    "id": check.id,
                    "requests": requests,
                    "declaration": declaration.to_plain(),
                    "machine": self.machine["facts"],
                },
                timeout_s=REQUEST_TIMEOUT_S,
            ),
        )

    def _judge(self, check: Check, guarantee: Guarantee, declaration: Declaration) -> Result:
        return judge_stored(
            check,
            guarantee,
            declaration=declaration,
            evidence=self.evidence,
            machine=self.machine["facts"],
            lacking=self.lacking(check.id),
            request=self.requests.get(check.id),
            baseline=self.baseline.get(check.id),
            today=datetime.date.today().isoformat(),
        )

    # --- the stand-in host --------------------------------------------------------------------

    def _try_standin(self) -> str:
        """Have a stand-in host; returns why there is none."""
        if self._standin is not None:
            return ""
        self._count += 1
        name = f"{self.directory.name}-{os.getpid()}-{self._count}"
        standin = StandIn(name, directory=self.directory, root=self._find_root())
        try:
            standin.start()
        except (StandInError, OSError) as error:
            standin.close()
            self.problems += standin.problems
            return str(error)
        self._standin = standin
        return ""

    def _find_root(self) -> str:
        if self._root is None:
            from execdrv.rootfs import make_root

            self._root = make_root(["python3"]).path
        return self._root

    def _ask(
        self, request: dict[str, Any], *, timeout_s: float = MACHINE_TIMEOUT_S
    ) -> dict[str, Any]:
        """Ask the stand-in host; where it is lost, say so as evidence."""
        why = self._try_standin()
        if self._standin is None:
            return {"lost": why}
        full = {
            "seed": self.seed,
            "driver": {"target": self.driver.target, "options": self.driver.options},
            **request,
        }
        try:
            return self._standin.ask(full, timeout_s=timeout_s)
        except StandInError as error:
            self._lost.append(str(error))
            self._end_standin()
            return {"lost": str(error)}

    def _end_standin(self) -> None:
        if self._standin is not None and not self._borrowed:
            self._standin.close()
            self.problems += [
                problem for problem in self._standin.problems if problem not in self.problems
            ]
        self._standin, self._borrowed = None, False

    def close(self) -> None:
        """End the stand-in host, remove the run directory if it was made here. Repeatable."""
        self._end_standin()
        if self._made:
            shutil.rmtree(self.directory, ignore_errors=True)

    # --- files --------------------------------------------------------------------------------

    def _stored(self, path: Path, gather: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a file holds, gathered first if nobody has."""
        if not path.exists():
            with _locked(path.with_suffix(".lock")):
                if not path.exists():
                    draft = path.with_suffix(".draft")
                    draft.write_text(json.dumps(gather()))
                    draft.rename(path)
        stored: dict[str, Any] = json.loads(path.read_text())
        return stored


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def make_run_directory() -> Path:
    """A directory for one run, whose name is the run's."""
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    # Jobs of any user pass through it to their root; the name is no secret.
    path.chmod(0o755)
    return path


def _nobody(driver: DriverRef) -> Declaration:
    """Stands in for a declaration that nobody could read: nothing can be shown here."""
    return Declaration(
        target=driver.target,
        options=driver.options,
        name=driver.target,
        version="",
        contract=0,
        statuses={id: {"kind": "enforced"} for id in load_catalogue()},
        defaults={"uid": 0, "capabilities": [], "root_mode": "private", "net": "none"},
        uses_group=False,
        origin={},
    )
