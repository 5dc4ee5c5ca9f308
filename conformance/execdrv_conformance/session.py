"""A session: one driver, one run directory, one stand-in host at a time, and the checks' results.

Runs in the front end (the command, or a pytest worker). Evidence is one file a case and arm,
written once and renamed into place, so that several workers share it: the first that needs a case
gathers it under that case's lock, the others wait and read. Verdicts come from stored evidence.
"""

from __future__ import annotations

import datetime
import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from execdrv.driver import DriverRef
from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.types import Guarantee
from execdrv_conformance.check import Case, Check
from execdrv_conformance.checks import load_checks
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.result import (
    Result,
    find_lacking,
    judge_stored,
    needs_control,
    read_findings,
    say_no_standin,
)
from execdrv_conformance.standin.handle import StandIn, StandInError
from execdrv_conformance.store import (
    hold_run,
    locked,
    make_run_directory,
    name_run,
    read_json,
    release_run,
    remove_run_directory,
    write_json,
)
from execdrv_conformance.turnstile import pass_turnstile

#: Stand-in hosts that one session may lose: a driver that hangs the kit hangs it every time.
MOST_LOST = 3
REQUEST_TIMEOUT_S = 60.0
MACHINE_TIMEOUT_S = 30.0

#: Of the stand-in hosts of this process: sessions in one directory must not share a name.
_numbers = itertools.count(1)


__all__ = ["RunEndedError", "Session", "UnusableDriverError", "make_run_directory"]


class UnusableDriverError(Exception):
    """The driver can't be loaded; the message says why."""


class RunEndedError(Exception):
    """The run was ended from outside while a check was running; it has no result."""


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
        self._lost: list[str] = []
        self._no_standin = ""
        self._stopped = False
        self.evidence: dict[str, dict[str, Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.results: dict[str, Result] = {}
        self.problems: list[str] = []
        #: Seconds of each check; the first of a case pays for the others.
        self.took_s: dict[str, float] = {}
        self._machine: dict[str, Any] | None = None
        self._declaration: Declaration | None = None
        self._holds = not self._made
        if self._holds:
            hold_run(self.directory)
        #: What the first session of this directory has noted: the day, the time, the driver.
        self.noted = self._note()

    def _note(self) -> dict[str, Any]:
        path = self.directory / "session.json"
        if not path.exists():
            now = datetime.datetime.now(datetime.UTC)
            write_json(
                path,
                {
                    "target": self.driver.target,
                    "options": self.driver.options,
                    "ids": self.ids,
                    "seed": self.seed,
                    # One day for the baseline, whenever the run passes midnight.
                    "today": datetime.date.today().isoformat(),
                    "started": now.isoformat(timespec="seconds"),
                    "begun_s": time.monotonic(),
                },
            )
        return read_json(path)

    # --- what is known ------------------------------------------------------------------------

    @property
    def machine(self) -> dict[str, Any]:
        """What this machine is and has, as the stand-in host sees it."""
        if self._machine is None:
            self._machine = self._stored(
                self._control / "machine.json", lambda: self._ask({"ask": "machine"})
            )
            if "facts" not in self._machine:
                self._no_standin = say_no_standin(self._machine)
                self._machine = {"lost": self._no_standin, "facts": {}}
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

    @property
    def known_declaration(self) -> Declaration:
        """The same, or a stand-in for it: without a stand-in host nobody has read it."""
        _ = self.machine
        return _nobody(self.driver) if self._no_standin else self.declaration

    def lacking(self, id: str) -> tuple[str, ...]:
        """What a guarantee needs that is not here, in words."""
        machine = self.machine
        unavailable = "" if self._no_standin else self.declaration.unavailable
        return find_lacking(self.catalogue[id], machine, unavailable=unavailable)

    # --- checks -------------------------------------------------------------------------------

    def run_check(self, id: str) -> Result:
        """Measure one guarantee and judge it; its evidence is kept.

        Raises:
            UnusableDriverError: the driver can't be loaded.
        """
        begun = time.monotonic()
        check, guarantee = self.checks[id], self.catalogue[id]
        lacking = self.lacking(id)
        declaration = self.known_declaration
        if not lacking and not self._is_not_applicable(id):
            for case in check.cases:
                self._gather(check, guarantee, case, declaration)
            self._request(check, declaration)
        self.results[id] = result = self._judge(check, guarantee, declaration)
        self.took_s[id] = round(time.monotonic() - begun, 3)
        write_json(
            self.directory / f"result-{id}.json",
            {"id": id, "verdict": result.verdict, "took_s": self.took_s[id]},
        )
        return result

    def read_back(self) -> None:
        """Judge what other sessions with this directory have measured; asks for nothing.

        Of the selected checks those that nobody ran are NOT-RUN. For the process that puts the
        work of several together.
        """
        for id in self.ids:
            check = self.checks[id]
            for case in check.cases:
                for arm, folder in (("driver", self.directory), ("control", self._control)):
                    path = folder / f"{arm}-{case.name}.json"
                    if path.exists():
                        self.evidence[f"{arm}/{case.name}"] = read_json(path)
            if (path := self.directory / f"request-{id}.json").exists():
                self.requests[id] = read_json(path)
            path = self.directory / f"result-{id}.json"
            if path.exists():
                self.took_s[id] = read_json(path)["took_s"]
            self.results[id] = self._judge(
                check,
                self.catalogue[id],
                self.known_declaration,
                not_run="" if path.exists() else "it was selected, and did not run",
            )

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
        """Ask for what is declared absent, or absent under a condition, to see it refused."""
        kind = declaration.statuses.get(check.id, {}).get("kind")
        if kind not in ("absent", "unclaimed", "when") or check.id in self.requests:
            return
        self.requests[check.id] = self._stored(
            self.directory / f"request-{check.id}.json",
            lambda: self._ask(
                {
                    "ask": "request",
                    "arm": "driver",
                    "id": check.id,
                    "declaration": declaration.to_plain(),
                    "machine": self.machine["facts"],
                },
                timeout_s=REQUEST_TIMEOUT_S,
            ),
        )

    def _judge(
        self,
        check: Check,
        guarantee: Guarantee,
        declaration: Declaration,
        *,
        not_run: str = "",
    ) -> Result:
        return judge_stored(
            check,
            guarantee,
            declaration=declaration,
            evidence=self.evidence,
            machine=self.machine["facts"],
            lacking=self.lacking(check.id),
            request=self.requests.get(check.id),
            not_run=not_run,
            baseline=self.baseline.get(check.id),
            today=self.noted["today"],
        )

    # --- the stand-in host --------------------------------------------------------------------

    def _try_standin(self) -> str:
        """Have a stand-in host; returns why there is none."""
        if self._standin is not None:
            return ""
        name = f"{name_run(self.directory)}-{os.getpid()}-{next(_numbers)}"
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
        if self._stopped:
            raise RunEndedError
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
            self._end_standin()
            if self._stopped:
                # Nothing is written down of a case that was broken off.
                raise RunEndedError from error
            self._lost.append(str(error))
            return {"lost": str(error)}

    def _end_standin(self) -> None:
        standin, self._standin = self._standin, None
        if standin is not None and not self._borrowed:
            standin.close()
            self.problems += [one for one in standin.problems if one not in self.problems]
        self._borrowed = False

    def stop(self) -> None:
        """Break off what another thread is doing with this session: it gets RunEndedError."""
        self._stopped = True
        if (standin := self._standin) is not None and not self._borrowed:
            standin.kill()

    def close(self) -> None:
        """End the stand-in host, remove the run directory if it was made here. Repeatable."""
        self._end_standin()
        if self._made:
            remove_run_directory(self.directory)
        elif self._holds:
            self._holds = False
            release_run(self.directory)

    # --- files --------------------------------------------------------------------------------

    def _stored(self, path: Path, gather: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a file holds, gathered first if nobody has."""
        if not path.exists():
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    write_json(path, gather())
        return read_json(path)


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
