"""The declaration is well formed, and says what is built."""

from __future__ import annotations

import pytest

from execdrv_lxc.offers import OFFERS


def test_every_guarantee_has_one_status() -> None:
    assert OFFERS.problems() == ()


def test_nothing_is_unclaimed_or_left_to_luck() -> None:
    assert OFFERS.problems_for_builtin() == ()


@pytest.mark.parametrize(
    "id", ["sec.on", "user.map", "tty.alloc", "life.exec-join", "pause.tree", "cpu.weight"]
)
def test_what_is_not_built_is_absent(id: str) -> None:
    status = OFFERS.status(id)
    assert status is not None and status.kind == "absent"


def test_a_job_with_the_machines_network_is_promised_none_of_its_own() -> None:
    assert OFFERS.satisfies_require("net.none", {"net-own": True})
    assert not OFFERS.satisfies_require("net.none", {"net-own": False})
