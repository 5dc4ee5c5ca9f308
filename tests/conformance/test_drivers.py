"""The drivers of this project against the kit, at the size that CI has time for.

As an author's own file would do it; the whole of each driver is `execdrv conformance run NAME`.
"""

from __future__ import annotations

import os

import pytest

from execdrv_conformance import conformance_checks
from execdrv_conformance.pytest_plugin import BoundCheck

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    # The first check of a case gathers it for all.
    pytest.mark.timeout(150),
]


@conformance_checks("native", profiles=["base", "container"])
def test_native(check: BoundCheck) -> None:
    check.run()


@conformance_checks("lxc", profiles=["base"])
def test_lxc(check: BoundCheck) -> None:
    check.run()


@conformance_checks("chroot", profiles=["base"])
def test_chroot(check: BoundCheck) -> None:
    check.run()
