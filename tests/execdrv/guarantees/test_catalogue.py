"""The catalogue is whole, says each thing once, and uses no word that is not explained."""

import re
import runpy
from collections import Counter
from pathlib import Path
from typing import get_args

import attrs
import pytest

from execdrv.guarantees import catalogue as package
from execdrv.guarantees.catalogue import DOMAINS, explain_provisional, load_catalogue
from execdrv.guarantees.catalogue.mutant import MUTANTS
from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.guarantees.types import (
    CATALOGUES,
    KINDS,
    PROFILES,
    Guarantee,
    Kind,
    Mutant,
    Profile,
)

ROOT = Path(__file__).resolve().parents[3]
CATALOGUE = load_catalogue()
ENTRIES = list(CATALOGUE.values())
PLAN: dict[str, str] = runpy.run_path(str(ROOT / "tests/data/plan_columns.py"))["PLAN_COLUMNS"]
NEWER_THAN_THE_PLAN = {"mnt.bind", "mnt.tmpfs"}


def entries_of_modules() -> list[Guarantee]:
    """Every Guarantee that any module of the package lists, read from its files."""
    found: list[Guarantee] = []
    for path in Path(package.__file__).parent.glob("*.py"):
        if path.name != "__init__.py":
            found += runpy.run_path(str(path))["GUARANTEES"]
    return found


def test_holds_every_id_of_the_plan_and_two_newer_ones() -> None:
    assert len(PLAN) == 168
    assert set(CATALOGUE) == set(PLAN) | NEWER_THAN_THE_PLAN


def test_joins_every_data_module_and_no_id_stands_twice() -> None:
    listed = [entry.id for entry in entries_of_modules()]
    assert [id for id, times in Counter(listed).items() if times > 1] == []
    assert set(listed) == set(CATALOGUE)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_entry_is_well_formed(entry: Guarantee) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z0-9-]+", entry.id)
    assert entry.domain in DOMAINS
    assert entry.profile in PROFILES
    assert entry.kind in KINDS
    assert entry.since in CATALOGUES
    assert set(entry.needs + entry.proof_needs) <= set(MACHINE_FACTS)
    assert not set(entry.needs) & set(entry.proof_needs)
    assert len(set(entry.references)) == len(entry.references)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_sentence_is_one_of_rfc_2119(entry: Guarantee) -> None:
    other = {"MUST": "SHOULD", "SHOULD": "MUST"}[entry.level]
    assert re.search(rf"\b{entry.level}\b", entry.title)
    assert other not in entry.title
    assert entry.title.endswith(".") and len(entry.title) < 200
    for text in (entry.inside, entry.outside, entry.control):
        assert not text.endswith(".") and text == text.strip()


def test_no_two_sentences_are_equal() -> None:
    assert len({entry.title for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_what_must_be_calibrated_says_its_control(entry: Guarantee) -> None:
    assert entry.inside or entry.outside
    if entry.kind in ("isolating", "limit") or entry.one_sided:
        assert entry.control


def test_not_applicable_is_allowed_where_the_plan_has_it() -> None:
    planned = {id for id, columns in PLAN.items() if "-" in columns}
    assert {entry.id for entry in ENTRIES if entry.not_applicable_allowed} == planned


def test_every_domain_has_an_id() -> None:
    assert {entry.domain for entry in ENTRIES} == set(DOMAINS)


def test_every_word_is_explained() -> None:
    assert set(KINDS) == set(get_args(Kind))
    assert set(PROFILES) == set(get_args(Profile))


def test_needs_no_fact_that_the_catalogue_does_not_use() -> None:
    used = {fact for entry in ENTRIES for fact in entry.needs + entry.proof_needs}
    # Device control is no guarantee's need: it is a way to keep dev.*, named by conditions.
    assert set(MACHINE_FACTS) - used == {"cgroup.devices"}


def test_mutants_have_names_of_their_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    # The design's list of 58 is the least.
    assert len(names) == len(set(names)) >= 58


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_kills_ids_of_the_catalogue_or_shows_another_verdict(mutant: Mutant) -> None:
    assert set(mutant.kills) <= set(CATALOGUE)
    assert len(set(mutant.kills)) == len(mutant.kills)
    assert bool(mutant.kills) == (mutant.verdict != "UNTESTABLE")
    for id in mutant.kills:
        assert (mutant.name in CATALOGUE[id].mutants) == (not mutant.waits_for)


def test_guarantee_names_no_mutant_that_does_not_kill_it() -> None:
    kills = {mutant.name: mutant.kills for mutant in MUTANTS}
    for entry in ENTRIES:
        assert all(entry.id in kills[name] for name in entry.mutants)


def test_id_without_mutant_is_provisional() -> None:
    assert CATALOGUE["tty.alloc"].mutants == ()
    assert CATALOGUE["tty.alloc"].provisional_why == "it has no mutant yet"
    assert CATALOGUE["mem.swap"].provisional_why.startswith("its mutant 'no-swap-limit'")
    assert not CATALOGUE["pid.ns"].provisional
    for entry in ENTRIES:
        assert entry.mutants or entry.provisional


def test_ids_newer_than_the_plan_are_provisional() -> None:
    for id in NEWER_THAN_THE_PLAN:
        assert CATALOGUE[id].provisional


@pytest.mark.parametrize(
    ("outside", "killers", "scored"),
    [
        ("seen", [], False),
        ("seen", ["honest"], True),
        ("", ["honest"], False),
        ("", ["liar"], False),
        ("", ["honest", "honest"], False),
        ("", ["honest", "liar"], True),
    ],
)
def test_one_sided_id_takes_two_mutants_and_a_liar(
    outside: str, killers: list[str], scored: bool
) -> None:
    entry = attrs.evolve(CATALOGUE["pid.ns"], inside="seen", outside=outside)
    mutants = [
        Mutant(name=f"m{number}", fault="", kills=(entry.id,), liar=kind == "liar")
        for number, kind in enumerate(killers)
    ]
    assert (explain_provisional(entry, mutants) == "") is scored
