"""Tries in children: their answers, and that a failure of theirs is an answer too."""

from __future__ import annotations

import os
import subprocess

import pytest

from execdrv.linux import syscalls, trial


def test_a_pair_of_veth_is_made_where_ip_can_make_one() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    command = ["unshare", "-n", "ip", "link", "add", "type", "veth"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert trial.detect_veth() is (done.returncode == 0)


def test_without_a_namespace_no_veth_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_flags: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(syscalls, "unshare", refuse)
    before = os.listdir("/sys/class/net")
    assert trial.detect_veth() is False
    assert os.listdir("/sys/class/net") == before


@pytest.mark.parametrize("machine", sorted(trial._EXIT_42))
def test_the_32_bit_program_is_a_good_elf_file(machine: str) -> None:
    elftools = pytest.importorskip("elftools.elf.elffile")
    import io

    elf = elftools.ELFFile(io.BytesIO(trial._program(*trial._EXIT_42[machine])))
    assert elf.elfclass == 32 and elf.little_endian
    (segment,) = elf.iter_segments()
    start, size = segment["p_vaddr"], segment["p_filesz"]
    assert segment["p_type"] == "PT_LOAD" and segment["p_offset"] == 0
    assert start < elf["e_entry"] < start + size
    # ELF: offset and address are the same modulo the page.
    assert start % segment["p_align"] == 0


def test_a_program_of_another_machine_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {name: (0xFEED, code) for name, (_, code) in trial._EXIT_42.items()}
    monkeypatch.setattr(trial, "_EXIT_42", others)
    assert trial.detect_compat32() is False
    monkeypatch.setattr(trial, "_EXIT_42", {})
    assert trial.detect_compat32() is False
