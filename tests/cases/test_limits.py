"""What limits do, measured: memory, cpu and pids for all processes together."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from casekit import Command, assert_unsupported

from execdrv import Host

pytestmark = pytest.mark.alone

#: Forks until it is refused, then tells how many live beside it, and the errno's name.
FORKS = """
i=0
while [ $i -lt 40 ]; do
    sleep 20 &
    i=$((i + 1))
    echo $i
done
"""


def test_memory_over_the_limit_is_killed_and_under_it_works(
    X: Command, host: Host, R: Path, driver: str
) -> None:
    if driver == "chroot":
        assert_unsupported(X("--memory", "64M", "--", "true"), "memory", "chroot", "native", "lxc")
        return
    over = X("--memory", "64M", "--", "alloc", "200")
    assert over.returncode == 137
    assert b"memory" in over.stderr
    assert X("--memory", "64M", "--", "alloc", "56").returncode == 0
    exit_ = host.run(driver, ["alloc", "200"], rootfs=R, memory="64M")
    assert (exit_.reason, exit_.code, exit_.oom_kills) == ("oom", None, 1)
    assert exit_.memory_peak_bytes is not None
    assert 60 << 20 < exit_.memory_peak_bytes <= 64 << 20


def test_a_memory_limit_holds_for_children_together(host: Host, R: Path, driver: str) -> None:
    if driver == "chroot":
        pytest.skip("driver chroot offers no memory limit (asserted in the test above)")
    fits = host.run(driver, ["sh", "-c", "alloc 30; alloc 30; alloc 30"], rootfs=R, memory="64M")
    assert (fits.code, fits.oom_kills) == (0, 0)
    hog = "x=$(head -c 50m /dev/zero | tr '\\0' x); alloc 30; echo c=$?"
    exit_ = host.run(driver, ["sh", "-c", hog], rootfs=R, memory="64M", capture=100)
    assert exit_.oom_kills >= 1, exit_


@pytest.mark.parametrize("spinners", [1, 3])
def test_half_a_cpu_is_half_a_cpu(
    X: Command, host: Host, R: Path, driver: str, spinners: int
) -> None:
    if driver == "chroot":
        assert_unsupported(X("--cpus", "0.5", "--", "true"), "cpus", "chroot", "native", "lxc")
        return
    spin = "while :; do :; done"
    program = f"{spin} & " * (spinners - 1) + spin
    started = time.monotonic()
    exit_ = host.run(driver, ["sh", "-c", program], rootfs=R, cpus=0.5, timeout=3)
    assert exit_.reason == "timeout"
    assert time.monotonic() - started < 6
    assert exit_.cpu_usage_us is not None and exit_.duration_s is not None
    assert 0.45 <= exit_.cpu_usage_us / 1e6 / exit_.duration_s <= 0.55


def test_sixteen_pids_are_the_job_and_fifteen_children(
    X: Command, host: Host, R: Path, driver: str
) -> None:
    if driver == "chroot":
        assert_unsupported(X("--pids", "16", "--", "true"), "pids", "chroot", "native", "lxc")
        return
    exit_ = host.run(driver, ["sh", "-c", FORKS], rootfs=R, pids=16, capture=10_000)
    lines = exit_.stdout.split()
    assert lines[-1] == b"15"
    # busybox's shell: EAGAIN by its text.
    assert b"Resource temporarily unavailable" in exit_.stderr


def test_receipts_tell_what_the_kernel_holds(host: Host, R: Path, driver: str) -> None:
    if driver == "chroot":
        pytest.skip("driver chroot offers no limits (asserted in the tests above)")
    fields = {"memory": (64 << 20) + 1, "cpus": 0.5, "pids": 16}
    with host.start(driver, ["sleep", "20"], rootfs=R, **fields) as container:
        receipts = {receipt.name: receipt for receipt in container.receipts}
        assert receipts["memory"].status == "clamped"
        assert receipts["memory"].value == str(64 << 20)
        assert receipts["cpus"].status == "applied"
        assert "17" in receipts["pids"].note, receipts["pids"]
        # Called again while it runs: an update.
        changed = container.limit(memory_bytes=32 << 20, memory_swap_bytes=0, pids=8)
        assert {r.name: r.value for r in changed}["memory"] == str(32 << 20)
