from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from execdrv.errors import LimitError
from execdrv.limits import Limits
from execdrv.linux.cgroups import Group, GroupDir, GroupPlan, Layout, apply_limits, check_limits
from execdrv.linux.cgroups.control import swap_in_use
from execdrv.linux.cgroups.limit import plan_cpu_quota

MIB = 1 << 20
PAGE = resource.getpagesize()


@pytest.mark.parametrize(
    ("cpus", "quota_us", "period_us"),
    [
        (0.5, 50_000, 100_000),
        (1, 100_000, 100_000),
        (0.01, 1_000, 100_000),
        (0.29, 29_000, 100_000),
        (0.001, 1_000, 1_000_000),
        (0.007, 1_000, 142_858),
        (0.123456789, 12_345, 100_000),
        (1e6, 10**11, 100_000),
        (1e300, 2**44 - 1, 100_000),
    ],
)
def test_cpus_become_a_quota_that_the_kernel_takes(
    cpus: float, quota_us: int, period_us: int
) -> None:
    assert plan_cpu_quota(cpus) == (quota_us, period_us)


def test_a_quota_is_never_laxer_than_asked_nor_below_the_kernels_minimum() -> None:
    for step in range(1000, 100_000, 7):
        cpus = step / 1e6
        quota_us, period_us = plan_cpu_quota(cpus)
        assert 1000 <= quota_us <= cpus * period_us + 1e-6
        assert 1000 <= period_us <= 1_000_000


def _need(layout: Layout, limits: Limits) -> None:
    problems = check_limits(layout, limits)
    if problems:
        pytest.skip(f"this machine can't: {problems[0]}")


@pytest.fixture
def limited(make: Any, layout: Layout) -> Group:
    """A group with room for every limit."""
    limits = Limits(memory_bytes=1, cpus=1, pids=1)
    _need(layout, limits)
    group: Group = make(limits)
    return group


def _read_all(group: Group) -> dict[str, str]:
    """What every control file of a limit says."""
    names = (
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.max",
        "memory.swap.max",
        "cpu.cfs_quota_us",
        "cpu.cfs_period_us",
        "cpu.max",
        "pids.max",
    )
    texts = {}
    for directory in group.plan.dirs:
        for name in names:
            path = f"{directory.path}/{name}"
            if os.path.exists(path):
                with open(path) as stream:
                    texts[path] = stream.read()
    return texts


def test_limits_are_applied_and_read_back(limited: Group) -> None:
    receipts = apply_limits(limited, Limits(memory_bytes=64 * MIB, cpus=0.5, pids=16))
    assert [(r.name, r.status, r.asked, r.value) for r in receipts] == [
        ("memory", "applied", str(64 * MIB), str(64 * MIB)),
        ("cpus", "applied", "0.5", "0.5"),
        ("pids", "applied", "16", "16"),
    ]
    assert "17" in receipts[2].note
    texts = {os.path.basename(path): text.strip() for path, text in _read_all(limited).items()}
    assert texts["pids.max"] == "17"
    assert str(64 * MIB) in (texts.get("memory.limit_in_bytes"), texts.get("memory.max"))
    assert texts.get("cpu.max", "50000 100000") == "50000 100000"
    # No swap unless it is asked.
    assert texts.get("memory.memsw.limit_in_bytes", str(64 * MIB)) == str(64 * MIB)
    assert texts.get("memory.swap.max", "0") == "0"


@pytest.mark.parametrize("asked", [10 * PAGE + 5, 100 * PAGE - 1, 100 * PAGE + 1, 2**63 - 1])
def test_an_odd_size_is_clamped_to_whole_pages_below(limited: Group, asked: int) -> None:
    (receipt,) = apply_limits(limited, Limits(memory_bytes=asked))
    assert receipt.status == "clamped"
    assert int(receipt.value) == asked // PAGE * PAGE


@pytest.mark.parametrize("asked", [1, PAGE - 1, PAGE + 1])
def test_less_than_the_group_of_the_job_takes_itself_is_refused_or_kept(
    limited: Group, layout: Layout, asked: int
) -> None:
    """On v1 the group below is charged to the limited one; on v2 it has no memory controller."""
    if layout.v1("memory") is None:
        (receipt,) = apply_limits(limited, Limits(memory_bytes=asked))
        assert (receipt.status, int(receipt.value)) == ("clamped", asked // PAGE * PAGE)
        return
    with pytest.raises(LimitError, match=f"cannot limit memory .* to {asked}: ") as caught:
        apply_limits(limited, Limits(memory_bytes=asked))
    assert "it uses more than that already" in caught.value.hint


def test_swap_never_gains_from_the_rounding_of_the_sum(limited: Group) -> None:
    asked = Limits(memory_bytes=10 * PAGE - 1, memory_swap_bytes=2 * PAGE - 1)
    if check_limits_swap(limited):
        pytest.skip("this kernel does not count swap")
    memory, swap = apply_limits(limited, asked)
    assert (int(memory.value), int(swap.value)) == (9 * PAGE, PAGE)
    assert (memory.status, swap.status) == ("clamped", "clamped")


def check_limits_swap(group: Group) -> bool:
    """Whether swap goes uncounted in a group."""
    memory = group.plan.dir_of("memory")
    names = ("memory.memsw.limit_in_bytes", "memory.swap.max")
    return memory is None or not any(os.path.exists(f"{memory.path}/{name}") for name in names)


def test_memory_and_swap_can_be_raised_lowered_and_crossed(limited: Group) -> None:
    if check_limits_swap(limited):
        pytest.skip("this kernel does not count swap")
    sizes = [(64, 0), (128, 0), (32, 0), (100, 100), (150, 0), (50, 150), (50, 0), (64, 64)]
    for memory, swap in sizes:
        asked = Limits(memory_bytes=memory * MIB, memory_swap_bytes=swap * MIB)
        receipts = apply_limits(limited, asked)
        assert [int(receipt.value) for receipt in receipts] == [memory * MIB, swap * MIB]
        assert [receipt.status for receipt in receipts] == ["applied", "applied"]


@pytest.mark.parametrize("cpus", [0.001, 0.01, 0.25, 3, 1e6])
def test_every_cpu_value_that_the_spec_takes_is_applied(limited: Group, cpus: float) -> None:
    (receipt,) = apply_limits(limited, Limits(cpus=cpus))
    assert receipt.status == "applied"
    assert float(receipt.value) == pytest.approx(cpus)


def test_a_quota_between_two_units_is_clamped(limited: Group) -> None:
    (receipt,) = apply_limits(limited, Limits(cpus=0.123456789))
    assert receipt.status == "clamped"
    assert receipt.value == "0.12345"


def test_a_limit_that_is_not_given_stays(limited: Group) -> None:
    apply_limits(limited, Limits(memory_bytes=64 * MIB, cpus=0.5, pids=16))
    before = _read_all(limited)
    apply_limits(limited, Limits(pids=8))
    changed = {path for path, text in _read_all(limited).items() if before[path] != text}
    assert {os.path.basename(path) for path in changed} == {"pids.max"}


def test_a_refused_update_changes_no_limit(limited: Group) -> None:
    apply_limits(limited, Limits(memory_bytes=64 * MIB, cpus=0.5, pids=16))
    before = _read_all(limited)
    # More than the kernel's largest pid: EINVAL, after memory and cpus were written.
    bad = Limits(memory_bytes=32 * MIB, memory_swap_bytes=0, cpus=0.001, pids=5_000_000)
    with pytest.raises(LimitError) as caught:
        apply_limits(limited, bad)
    assert _read_all(limited) == before
    assert [r.name for r in caught.value.receipts or ()] == ["memory", "memory_swap", "cpus"]
    assert "pids.max" in str(caught.value)
    assert "could not be set back" not in str(caught.value)


def test_a_refused_first_limit_leaves_the_group_without_any(limited: Group) -> None:
    before = _read_all(limited)
    with pytest.raises(LimitError):
        apply_limits(limited, Limits(memory_bytes=64 * MIB, cpus=0.5, pids=5_000_000))
    assert _read_all(limited) == before


def test_a_limit_for_which_the_group_was_not_made_is_an_error(make: Any) -> None:
    with pytest.raises(LimitError, match="without the controller 'memory'"):
        apply_limits(make(), Limits(memory_bytes=1 << 20))


def test_limits_of_a_group_that_is_gone_are_an_error(limited: Group) -> None:
    limited.remove()
    with pytest.raises(LimitError):
        apply_limits(limited, Limits(pids=3))


def test_limits_of_no_group_at_all_are_an_error() -> None:
    with pytest.raises(LimitError):
        apply_limits(Group(plan=GroupPlan(name="g")), Limits(pids=3))


@pytest.mark.parametrize(
    ("files", "controller", "limits"),
    [
        (
            {"memory.limit_in_bytes": "99999999", "memory.swappiness": "0"},
            "memory",
            Limits(memory_bytes=4096),
        ),
        (
            {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "999999999"},
            "cpu",
            Limits(cpus=0.5),
        ),
        ({"pids.max": "99999"}, "pids", Limits(pids=3)),
    ],
)
def test_a_kernel_that_is_laxer_than_asked_is_an_error(
    kit: SimpleNamespace, tmp_path: Path, files: dict[str, str], controller: str, limits: Limits
) -> None:
    # FAKE control files: a plain file keeps the end of its old text, which makes a larger number.
    kit.write_tree(tmp_path, files)
    directory = GroupDir(path=str(tmp_path), version=1, controllers=(controller,))
    with pytest.raises(LimitError, match="the kernel says"):
        apply_limits(Group(plan=GroupPlan(name="g", dirs=(directory,))), limits)


def test_more_memory_than_the_limit_is_killed_and_counted_once(
    limited: Group, kit: SimpleNamespace
) -> None:
    apply_limits(limited, Limits(memory_bytes=64 * MIB))
    pid = kit.spawn_python(limited, "x = b'x' * (200 << 20)")
    assert kit.wait_status(pid) == -9
    stats = limited.stats()
    assert stats.oom_kills == 1
    assert stats.memory_peak_bytes is None or 60 * MIB < stats.memory_peak_bytes <= 64 * MIB


def test_memory_just_under_the_limit_works(limited: Group, kit: SimpleNamespace) -> None:
    apply_limits(limited, Limits(memory_bytes=64 * MIB))
    pid = kit.spawn_python(limited, "x = b'x' * (40 << 20)")
    assert kit.wait_status(pid) == 0
    assert limited.stats().oom_kills == 0


def test_without_a_word_about_swap_none_is_used(limited: Group, kit: SimpleNamespace) -> None:
    if not swap_in_use():
        pytest.skip("needs swap on the machine (VM_SWAP_MB=512 scripts/vm/run.sh)")
    apply_limits(limited, Limits(memory_bytes=64 * MIB))
    assert kit.wait_status(kit.spawn_python(limited, "x = b'x' * (128 << 20)")) == -9


def test_swap_that_was_asked_is_used_and_no_more(limited: Group, kit: SimpleNamespace) -> None:
    if not swap_in_use():
        pytest.skip("needs swap on the machine (VM_SWAP_MB=512 scripts/vm/run.sh)")
    apply_limits(limited, Limits(memory_bytes=64 * MIB, memory_swap_bytes=128 * MIB))
    # Swapping is slow where the processor is emulated.
    fits = kit.spawn_python(limited, "x = b'x' * (128 << 20)")
    assert kit.wait_status(fits, timeout_s=60) == 0
    exceeds = kit.spawn_python(limited, "x = b'x' * (256 << 20)")
    assert kit.wait_status(exceeds, timeout_s=60) == -9


def test_memory_of_a_running_group_can_be_limited_afterwards(
    limited: Group, kit: SimpleNamespace
) -> None:
    apply_limits(limited, Limits(memory_bytes=256 * MIB))
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    code = f"import os,time; x = b'x' * (10 << 20); os.write({writing}, b'1'); time.sleep(60)"
    kit.spawn_python(limited, code)
    os.close(writing)
    assert os.read(reading, 1) == b"1"
    os.close(reading)
    (receipt,) = apply_limits(limited, Limits(memory_bytes=64 * MIB))
    assert receipt.status == "applied"
    limited.kill()
    os.wait()


def test_half_a_cpu_is_half_a_cpu(limited: Group, kit: SimpleNamespace) -> None:
    apply_limits(limited, Limits(cpus=0.5))
    # The test shares the machine: let its spinners win whatever they may have.
    cpu = limited.plan.dir_of("cpu")
    assert cpu is not None
    weight, most = ("cpu.shares", "262144") if cpu.version == 1 else ("cpu.weight", "10000")
    Path(cpu.path, weight).write_text(most)
    pids = [kit.spawn_python(limited, "while True: pass") for _ in range(2)]
    kit.wait_until(lambda: (limited.stats().cpu_usage_us or 0) > 100_000)
    usage_us, start = limited.stats().cpu_usage_us or 0, time.monotonic()
    time.sleep(2.0)
    used_us = (limited.stats().cpu_usage_us or 0) - usage_us
    share = used_us / 1e6 / (time.monotonic() - start)
    limited.kill()
    for pid in pids:
        kit.wait_status(pid)
    assert 0.40 <= share <= 0.56


def test_pids_allows_exactly_so_many_beside_the_init(limited: Group, kit: SimpleNamespace) -> None:
    apply_limits(limited, Limits(pids=4))
    # The child stands for the init; its forks are the job.
    code = """
import errno, os, time
forked = 0
try:
    for _ in range(20):
        if os.fork() == 0:
            time.sleep(60)
        forked += 1
except OSError as error:
    os._exit(forked if error.errno == errno.EAGAIN else 99)
"""
    assert kit.wait_status(kit.spawn_python(limited, code)) == 4
    assert len(limited.processes()) == 4
    assert limited.stats().pids_peak in (None, 5)
    limited.kill()
