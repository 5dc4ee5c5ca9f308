"""The chroot driver declares what it can't wall off, and nothing more than it does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from execdrv_chroot.offers import OFFERS

#: What is planned for each guarantee, one letter for each of native, lxc and chroot.
PLAN: dict[str, str] = runpy.run_path(str(Path(__file__).parents[2] / "data/plan_columns.py"))[
    "PLAN_COLUMNS"
]
#: Required, and not there yet, with what will bring it; this list only shrinks.
STILL_TO_COME = {
    "life.stop-grace": "a stop with a time of grace",
    "cpu.seconds": "a budget of cpu seconds",
    "stat.monotone": "numbers of a running container",
    "esc.teardown": "a mount namespace, for a job with CAP_SYS_ADMIN: `when` till then",
}
#: Condition -> what it makes true of a default box, and of one that runs as root with capabilities.
DEFAULT = {"job-not-root": True, "job-without-capabilities": True, "own-uid": True}
PLAIN_USER = {**DEFAULT, "own-uid": False}
ROOT = {"job-not-root": False, "job-without-capabilities": True, "own-uid": False}
MIGHTY_ROOT = {"job-not-root": False, "job-without-capabilities": False, "own-uid": False}


def test_every_guarantee_has_one_status() -> None:
    assert OFFERS.problems() == ()


def test_nothing_is_unclaimed_or_left_to_luck() -> None:
    assert OFFERS.problems_for_builtin() == ()


def test_what_is_planned_is_offered_or_listed() -> None:
    wrong = []
    for id, letters in PLAN.items():
        status = OFFERS.status(id)
        wanted = {"R": "enforced", "A": "absent", "-": "not-applicable"}.get(letters[2])
        if wanted is not None and (status is None or status.kind != wanted):
            wrong.append(id)
    assert wrong == list(STILL_TO_COME)


@pytest.mark.parametrize(
    "id",
    [
        *("mem.limit-oom", "mem.tree", "mem.swap", "cpu.quota", "cpu.quota-sum", "pids.limit"),
        *("pids.threads", "uts.hostname", "net.ns", "net.none", "fs.ro-root", "fs.write-private"),
        *("mnt.bind", "mnt.bind-ro", "mnt.tmpfs", "mnt.order", "pid.ns", "ipc.sysv", "cg.placed"),
    ],
)
def test_what_a_chroot_can_not_do_is_refused_with_a_reason(id: str) -> None:
    reason = OFFERS.refusal_for(id, DEFAULT)
    assert reason is not None and ("chroot" in reason or "cgroup" in reason)


@pytest.mark.parametrize(
    "id",
    [
        *("proc.argv-exact", "proc.env-exact", "proc.cwd", "proc.fds-closed", "user.uid"),
        *("user.groups", "cap.bounding", "cap.effective", "rlim.soft", "rlim.hard", "rlim.effect"),
        *("fs.root", "life.id-unique", "life.deadline"),
    ],
)
def test_what_options_ask_for_and_a_chroot_does_passes_for_every_job(id: str) -> None:
    assert OFFERS.satisfies_require(id, MIGHTY_ROOT)


def test_the_climb_out_is_claimed_for_jobs_of_other_users_than_root_only() -> None:
    assert OFFERS.satisfies_require("fs.escape-chroot", PLAIN_USER)
    assert not OFFERS.satisfies_require("fs.escape-chroot", ROOT)
    assert "not walled in" in (OFFERS.refusal_for("fs.escape-chroot", ROOT) or "")


def test_walls_made_of_missing_capabilities_are_claimed_for_jobs_without_any() -> None:
    for id in ("esc.handle", "dev.no-mknod", "time.no-set", "net.no-raw", "fs.masked"):
        assert OFFERS.satisfies_require(id, ROOT)
        assert not OFFERS.satisfies_require(id, MIGHTY_ROOT)


def test_other_processes_of_the_same_user_are_declared_within_reach() -> None:
    for id in ("pid.no-signal", "pid.no-ptrace"):
        assert OFFERS.satisfies_require(id, DEFAULT)
        assert not OFFERS.satisfies_require(id, PLAIN_USER)


def test_the_gap_when_supervisor_and_starter_die_at_once_is_declared() -> None:
    status = OFFERS.status("life.parent-death")
    assert status is not None and status.kind == "partial"
    assert "at the same moment" in status.remains and "gc" in status.remains
    assert not OFFERS.satisfies_require("life.parent-death", DEFAULT)
