"""Broken drivers turn red what they break and nothing else; the table, the package and the record
of the long run (scripts/mutants.py) agree."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutantkit import (
    CONTROL_IDS,
    LONG,
    Bed,
    chosen_mutants,
    full_ids,
    kills_of,
    quick_ids,
    read_reds,
    required_mutants,
    target_of,
)

from execdrv.driver import DriverRef
from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.catalogue.mutant import MUTANTS
from execdrv.guarantees.types import Mutant
from execdrv.plugins import load_driver
from execdrv_conformance.checks import load_checks
from execdrv_mutants import driver_name, find_mutants
from execdrv_mutants.init import CHANGES, build_init

CATALOGUE = load_catalogue()
ROOT = Path(__file__).resolve().parents[2]
MUTANTS_DIRECTORY = ROOT / "tests/mutants"
#: Says that it keeps everything, and isolates nothing: no fault of one kind, so not in the table.
NOTHING = "execdrv_mutants.nothing:NothingDriver"


@pytest.fixture(scope="module")
def bed(kit_root: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A stand-in host for all mutants of this module."""
    directory = tmp_path_factory.mktemp("xdc-mutants")
    for path in (directory, *directory.parents[:3]):
        # Jobs of other users pass through to their root; pytest makes its directories 0700.
        if "pytest" in str(path) or "xdc" in str(path):
            path.chmod(0o755)
    for name in CHANGES:
        build_init(name)
    made = Bed(directory, root=kit_root)
    yield made
    assert made.close() == []


# --- table, package and record -----------------------------------------------------------------


def test_table_and_package_name_the_same_mutants() -> None:
    required = {driver_name(mutant.name) for mutant in required_mutants()}
    assert set(find_mutants()) - {"nothing"} == required


@pytest.mark.parametrize("name", sorted(find_mutants()))
def test_mutant_is_a_driver_that_can_be_loaded(name: str) -> None:
    assert load_driver(DriverRef(target=find_mutants()[name])).name == name


def test_what_waits_says_for_what_and_scores_nothing() -> None:
    for mutant in MUTANTS:
        if mutant.waits_for:
            assert driver_name(mutant.name) not in find_mutants()
            assert all(mutant.name not in CATALOGUE[id].mutants for id in mutant.kills)


def test_every_scored_id_has_a_check_and_a_mutant_that_kills_it() -> None:
    reds = read_reds()
    for id, entry in CATALOGUE.items():
        killers = [name for name in entry.mutants if id in reds.get(name, {})]
        if not entry.provisional:
            assert id in load_checks()
            assert killers, id


@pytest.mark.parametrize("mutant", required_mutants(), ids=lambda mutant: mutant.name)
def test_table_says_what_was_measured(mutant: Mutant) -> None:
    """Both ways; see scripts/mutants.py for how to bring them together again."""
    checks = load_checks()
    measured = set(kills_of(read_reds()[mutant.name]))
    assert measured == {id for id in mutant.kills if id in checks}


def test_package_is_a_distribution_of_its_own(tmp_path: Path) -> None:
    """A supervisor must be able to load mutants where only installed packages are on the path."""
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(MUTANTS_DIRECTORY, source, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*command, *options, str(source)], check=True, timeout=120)
    installed = {path.name for path in (target / "execdrv_mutants").glob("*.py")}
    assert installed == {path.name for path in (source / "execdrv_mutants").glob("*.py")}
    assert list(target.glob("execdrv_mutants-*.dist-info"))


def test_matrix_shows_the_record() -> None:
    script = runpy.run_path(str(ROOT / "scripts/mutants.py"))
    assert (ROOT / "docs/kill-matrix.md").read_text() == script["render_matrix"]()


# --- exact sets --------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", chosen_mutants(), ids=lambda mutant: mutant.name)
def test_mutant_turns_red_what_it_breaks_and_nothing_else(bed: Bed, mutant: Mutant) -> None:
    ids = quick_ids(mutant)
    expected = {id: red for id, red in read_reds()[mutant.name].items() if id in ids}
    assert bed.measure_reds(target_of(mutant), ids) == expected


@pytest.mark.timeout(900)
@pytest.mark.skipif(not LONG, reason="takes minutes: EXECDRV_CASES=long runs it")
def test_without_isolation_every_isolating_id_is_red(bed: Bed) -> None:
    # It never touches the root it is given, so no link in there leads it astray.
    ids = [
        id for id in load_checks() if CATALOGUE[id].kind == "isolating" and id != "esc.rootfs-links"
    ]
    results = bed.measure(NOTHING, ids)
    green = {id: (one.verdict, one.reason) for id, one in results.items() if not one.is_failure}
    # What this machine lacks is neither.
    assert {id: why for id, why in green.items() if why[0] != "UNPROVEN-HOST"} == {}


def test_reference_driver_keeps_the_fixed_ids(bed: Bed) -> None:
    assert bed.measure_reds("native", [id for id in CONTROL_IDS if id in load_checks()]) == {}


def test_the_long_run_holds_every_id_of_the_short_one() -> None:
    for mutant in required_mutants():
        assert set(quick_ids(mutant)) <= set(full_ids(mutant))
