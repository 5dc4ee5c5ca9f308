from __future__ import annotations

import os

import pytest

from execdrv.linux import bpf


def test_an_instruction_has_the_kernels_form() -> None:
    # struct bpf_insn: code, dst and src in one byte, offset, immediate.
    assert bpf.encode(bpf.EXIT) == bytes.fromhex("9500000000000000")
    assert bpf.encode(bpf.LOAD_WORD, dst=2, src=1, offset=4) == bytes.fromhex("6112040000000000")
    assert bpf.encode(bpf.AND, dst=2, immediate=0xFFFF) == bytes.fromhex("57020000ffff0000")
    assert bpf.encode(bpf.JUMP_NOT_EQUAL, dst=3, offset=2, immediate=-1) == bytes.fromhex(
        "55030200ffffffff"
    )


def test_a_loaded_program_is_closed_on_exec() -> None:
    if not bpf.detect_device_programs():
        pytest.skip("needs CAP_BPF and a kernel with device programs")
    descriptor = bpf.load_device_program(bpf.encode(bpf.MOVE, immediate=1) + bpf.encode(bpf.EXIT))
    try:
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_the_verifier_refuses_a_program_without_an_end() -> None:
    if not bpf.detect_device_programs():
        pytest.skip("needs CAP_BPF and a kernel with device programs")
    with pytest.raises(OSError):
        bpf.load_device_program(bpf.encode(bpf.MOVE, immediate=1))


def test_detect_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    bpf.detect_device_programs()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unknown_machine_is_an_oserror_and_no_wrong_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bpf, "_BPF_NUMBERS", {})
    with pytest.raises(OSError, match=r"no number of bpf\(2\)"):
        bpf.load_device_program(bpf.encode(bpf.EXIT))
    assert not bpf.detect_device_programs()
