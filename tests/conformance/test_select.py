"""What is selected: ids, domains, profiles, words; a name that means nothing is never nothing."""

from __future__ import annotations

from typing import Any

import pytest

from execdrv.errors import UsageError
from execdrv.guarantees.catalogue import load_catalogue
from execdrv_conformance.checks import load_checks
from execdrv_conformance.select import select_ids


def test_nothing_said_is_all_that_has_checks() -> None:
    assert set(select_ids()) == set(load_checks())
    order = list(load_catalogue())
    assert select_ids() == sorted(select_ids(), key=order.index)


@pytest.mark.parametrize("word", ["pid", "pid.*"])
def test_a_domain_is_its_ids(word: str) -> None:
    assert select_ids(ids=[word]) == [id for id in select_ids() if id.startswith("pid.")]


def test_selections_narrow_each_other() -> None:
    catalogue = load_catalogue()
    assert select_ids(ids=["pid.ns", "proc.exit-code"]) == ["proc.exit-code", "pid.ns"]
    assert all(catalogue[id].profile == "base" for id in select_ids(profiles=["base"]))
    assert select_ids(profiles=["base"], ids=["pid.ns"]) == []
    assert select_ids(substring="exit-c") == ["proc.exit-code"]


def test_the_hostile_ones_can_be_left_out() -> None:
    catalogue = load_catalogue()
    calm = select_ids(hostile=False)
    assert not any(catalogue[id].profile == "hostile" for id in calm)
    hostile = [id for id in select_ids() if catalogue[id].profile == "hostile"]
    assert select_ids(hostile=False, profiles=["hostile"]) == hostile
    assert select_ids(hostile=False, ids=hostile[:1]) == hostile[:1]


@pytest.mark.parametrize(
    ("fields", "words", "hint"),
    [
        ({"ids": ["pid.nss"]}, "no such guarantee", "did you mean 'pid.ns'?"),
        ({"ids": ["xyzzy"]}, "no such guarantee", "shows all"),
        ({"ids": [""]}, "no such guarantee", ""),
        ({"profiles": ["bas"]}, "no such profile", "did you mean 'base'?"),
        ({"profiles": ["zzz"]}, "no such profile", "base, fs, limits"),
    ],
)
def test_a_name_that_means_nothing_is_an_error(
    fields: dict[str, Any], words: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        select_ids(**fields)
    assert hint in caught.value.hint
