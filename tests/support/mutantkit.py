"""Running mutants: which ids of one turn red, with the control arm's evidence shared by all.

For tests/conformance/test_mutants.py and scripts/mutants.py. A mutant is a broken driver of
tests/mutants; the table is execdrv/guarantees/catalogue/mutant. The control arm has no driver,
so what it shows holds for every mutant: it is gathered once, for all ids of a case.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from execdrv.driver import DriverRef
from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.catalogue.mutant import FIRST, MUTANTS
from execdrv.guarantees.types import Mutant
from execdrv_conformance.check import Case
from execdrv_conformance.checks import load_checks
from execdrv_conformance.result import Result
from execdrv_conformance.session import Session
from execdrv_conformance.standin.handle import StandIn
from execdrv_mutants import driver_name, find_mutants

#: What each mutant turned red when all was measured: mutant -> id -> verdict.
REDS_PATH = Path(__file__).resolve().parent.parent / "data" / "mutant_reds.json"

#: Measured with every mutant: a fault must turn red what it breaks, and nothing else.
CONTROL_IDS = (
    "proc.exit-code",
    "proc.cwd",
    "fs.root",
    "mnt.ns",
    "pid.ns",
    "net.ns",
    "ipc.sysv",
    "uts.hostname",
    "user.uid",
    "cap.bounding",
)

#: Verdicts that say what is wrong; what could not be measured is red too, and no kill.
CONCLUSIVE = ("VIOLATED", "CONFLICT", "FAILS-OPEN", "UNDER-CLAIMED")

#: Modules whose mutants leave mounts, processes or files, by nature.
SPOILING = ("namespace", "leak", "control", "nothing")

#: Ids that take seconds: left to the long run, unless it is the first that a mutant kills.
SLOW = (
    "conc.crosstalk",
    "conc.many",
    "conc.races",
    "conc.threads",
    "crash.mid-create",
    "esc.teardown",
    "leak.failed",
)

SEED = 11

#: CI has time for the mutants of the first proposal; `make mutants` and EXECDRV_CASES=long run
#: all of them.
LONG = os.environ.get("EXECDRV_CASES") == "long"


def required_mutants() -> list[Mutant]:
    """The mutants that can be made here, in the order of the table."""
    return [mutant for mutant in MUTANTS if not mutant.waits_for]


def chosen_mutants() -> list[Mutant]:
    """Those that are run here: at CI size the ones of the first proposal, else all."""
    chosen = MUTANTS if LONG else FIRST
    return [mutant for mutant in chosen if not mutant.waits_for]


def target_of(mutant: Mutant) -> str:
    """MODULE:CLASS of a mutant's driver."""
    return find_mutants()[driver_name(mutant.name)]


def quick_ids(mutant: Mutant) -> list[str]:
    """Its own ids and the fixed ones, as far as they have checks and there is time for them."""
    if mutant.verdict == "UNTESTABLE":
        # Where nothing can be measured, one says it as well as all, and each costs a deadline.
        return ["pid.ns"]
    own = [id for id in mutant.kills if id not in SLOW or id == mutant.kills[0]]
    return [id for id in load_checks() if id in {*own, *CONTROL_IDS}]


def full_ids(mutant: Mutant) -> list[str]:
    """All of its own ids, and the base profile besides."""
    if mutant.verdict == "UNTESTABLE":
        return quick_ids(mutant)
    quick = {*quick_ids(mutant), *mutant.kills}
    catalogue = load_catalogue()
    return [id for id in load_checks() if id in quick or catalogue[id].profile == "base"]


def read_reds() -> dict[str, dict[str, str]]:
    """What is on file."""
    found: dict[str, dict[str, str]] = json.loads(REDS_PATH.read_text())
    return found


def kills_of(reds: dict[str, str]) -> list[str]:
    """The ids of measured ones that count as killed."""
    return [id for id, verdict in reds.items() if verdict in CONCLUSIVE]


class _Session(Session):
    """Gathers the control arm for every id of a case, whatever ids were selected."""

    def _ids_of(self, case: Case, arm: str) -> list[str]:
        if arm != "control":
            return super()._ids_of(case, arm)
        return [
            id
            for id, check in self.checks.items()
            if case in check.cases
            and self.catalogue[id].kind in ("isolating", "limit")
            and not self.lacking(id)
        ]


class Bed:
    """A stand-in host for one mutant after the other, and what the control arm has shown.

    Args:
        directory: for all of it; jobs of any user must be able to pass through.
        root: a root file system with Python.
    """

    def __init__(self, directory: Path, *, root: str) -> None:
        self.directory = directory
        self.root = root
        self.control = directory / "control"
        self.control.mkdir(exist_ok=True)
        self._standin: StandIn | None = None
        self._count = 0
        self.problems: list[str] = []

    def measure(self, target: str, ids: list[str]) -> dict[str, Result]:
        """The result of each id under one driver."""
        self._count += 1
        run = self.directory / f"xdc-mut{os.getpid()}-{self._count}"
        run.mkdir(mode=0o755)
        session = _Session(
            DriverRef(target=target),
            ids=ids,
            # Names that the kit draws must not meet those of the mutant before.
            seed=SEED + self._count,
            directory=run,
            control=self.control,
            root=self.root,
            standin=None if _spoils(target) else self._find_standin(),
        )
        try:
            return {id: session.run_check(id) for id in session.ids}
        finally:
            session.close()
            self.problems += session.problems

    def measure_reds(self, target: str, ids: list[str]) -> dict[str, str]:
        """The ids that turn red, with their verdicts."""
        return {
            id: result.verdict
            for id, result in self.measure(target, ids).items()
            if result.is_failure
        }

    def _find_standin(self) -> StandIn:
        if self._standin is None or self._standin._channel is None:
            # A mutant that hangs takes it along.
            name = f"xdc-bed{os.getpid()}-{self._count}"
            self._standin = StandIn(name, directory=self.directory, root=self.root)
            self._standin.start()
        return self._standin

    def close(self) -> list[str]:
        """End it; returns what is left of it, and of others that were made beside it."""
        if self._standin is not None:
            self._standin.close()
            self.problems += self._standin.problems
        return self.problems


def _spoils(target: str) -> bool:
    """Whether a driver may leave something that the next one would meet: then it is alone."""
    return target.partition(":")[0].rpartition(".")[2] in SPOILING
