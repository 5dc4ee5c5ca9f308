"""Swap that is not counted can't be had on the machines of the tests: FAKE directories here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from execdrv.linux.cgroups import v1
from execdrv.linux.cgroups.control import Journal, RefusedError

UNLIMITED = "9223372036854771712"


def test_without_swap_accounting_and_without_swap_the_limit_stands_alone(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.write_tree(tmp_path, {"memory.limit_in_bytes": "8192", "memory.swappiness": "60"})
    monkeypatch.setattr(v1, "swap_in_use", lambda: False)
    assert v1.write_memory(Journal(), str(tmp_path), memory_bytes=4096, swap_bytes=0) == (
        4096,
        None,
    )
    assert (tmp_path / "memory.swappiness").read_text() == "60"


def test_without_swap_accounting_swap_is_forbidden_by_swappiness(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit.write_tree(tmp_path, {"memory.limit_in_bytes": "8192", "memory.swappiness": "6"})
    monkeypatch.setattr(v1, "swap_in_use", lambda: True)
    journal = Journal()
    assert v1.write_memory(journal, str(tmp_path), memory_bytes=4096, swap_bytes=0) == (4096, None)
    assert (tmp_path / "memory.swappiness").read_text() == "0"
    assert journal.roll_back() == []
    assert (tmp_path / "memory.swappiness").read_text() == "6"


def test_without_swap_accounting_a_fixed_swappiness_is_refused(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The fake keeps the second digit, as a kernel that takes no 0 would keep the whole.
    kit.write_tree(tmp_path, {"memory.limit_in_bytes": "8192", "memory.swappiness": "60"})
    monkeypatch.setattr(v1, "swap_in_use", lambda: True)
    (tmp_path / "memory.swappiness").write_text("61")
    with pytest.raises(RefusedError, match="swappiness"):
        v1.write_memory(Journal(), str(tmp_path), memory_bytes=4096, swap_bytes=0)


def test_without_swap_accounting_a_swap_limit_is_refused(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    kit.write_tree(tmp_path, {"memory.limit_in_bytes": UNLIMITED})
    with pytest.raises(RefusedError, match="swapaccount=1"):
        v1.write_memory(Journal(), str(tmp_path), memory_bytes=4096, swap_bytes=4096)
    assert (tmp_path / "memory.limit_in_bytes").read_text() == UNLIMITED


def test_a_group_that_inherited_no_oom_kill_gets_it_back(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    files = {
        "memory.limit_in_bytes": "8192",
        "memory.memsw.limit_in_bytes": "8192",
        "memory.oom_control": "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n",
    }
    kit.write_tree(tmp_path, files)
    v1.write_memory(Journal(), str(tmp_path), memory_bytes=4096, swap_bytes=0)
    assert (tmp_path / "memory.oom_control").read_text().startswith("0")
