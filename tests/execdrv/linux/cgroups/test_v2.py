"""Swap that is not counted can't be had on the machines of the tests: FAKE directories here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from execdrv.linux.cgroups import v2
from execdrv.linux.cgroups.control import Journal, RefusedError


def test_max_is_the_most_that_the_kernel_counts() -> None:
    assert v2.parse_bytes("4096\n") == 4096
    assert v2.parse_bytes("max\n") > 2**62


def test_without_swap_accounting_and_without_swap_the_limit_stands_alone(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.write_tree(tmp_path, {"memory.max": "max"})
    monkeypatch.setattr(v2, "swap_in_use", lambda: False)
    assert v2.write_memory(Journal(), str(tmp_path), memory_bytes=8192, swap_bytes=0) == (
        8192,
        None,
    )


@pytest.mark.parametrize(("swap_bytes", "in_use"), [(0, True), (4096, True), (4096, False)])
def test_without_swap_accounting_swap_that_could_be_used_is_refused(
    kit: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    swap_bytes: int,
    in_use: bool,
) -> None:
    kit.write_tree(tmp_path, {"memory.max": "max"})
    monkeypatch.setattr(v2, "swap_in_use", lambda: in_use)
    with pytest.raises(RefusedError, match="swapaccount=1"):
        v2.write_memory(Journal(), str(tmp_path), memory_bytes=8192, swap_bytes=swap_bytes)
    assert (tmp_path / "memory.max").read_text() == "max"
