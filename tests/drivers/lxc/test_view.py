"""Who makes which part of the view, and what is kept from liblxc meanwhile."""

from __future__ import annotations

import pytest

from execdrv.linux.mounts import Cover, NewFs, Protect
from execdrv.linux.syscalls import MOUNT_ATTR_NODEV, MOUNT_ATTR_RDONLY
from execdrv.linux.view import COVERED, PROTECTED, plan_mounts
from execdrv.spec import Bind, Tmpfs
from execdrv_lxc.view import View, plan_view


def make_view(root_mode: str = "private") -> View:
    return plan_view(
        tmpfs=[Tmpfs(target="/dev/mine")],
        binds=[Bind(source="/", target="/m")],
        root_mode=root_mode,
    )


def test_every_step_of_the_whole_view_is_done_by_somebody() -> None:
    whole = plan_mounts(tmpfs=[Tmpfs(target="/dev/mine")], binds=[Bind(source="/", target="/m")])
    view = make_view()
    # liblxc makes the first; its place is held.
    assert [step.target for step in view.steps] == [
        step.target for step in whole if not isinstance(step, Cover | Protect)
    ]
    assert len(view.guards) == len(COVERED) + len(PROTECTED)
    assert view.terminals in whole


@pytest.mark.parametrize("target", [b"/proc", b"/dev/pts"])
def test_the_place_of_what_comes_later_is_held_by_a_file_system_that_is_guarded(
    target: bytes,
) -> None:
    (step,) = [s for s in make_view().steps if isinstance(s, NewFs) and s.target == target]
    assert step.fstype == b"ramfs"


def test_no_device_opens_in_dev_before_it_is_released() -> None:
    (dev,) = [s for s in make_view().steps if isinstance(s, NewFs) and s.target == b"/dev"]
    assert dev.attributes & MOUNT_ATTR_NODEV
    assert make_view().released[b"/dev"] == MOUNT_ATTR_NODEV


@pytest.mark.parametrize("root_mode", ["private", "direct"])
def test_the_root_can_be_written_to_only_after_its_release(root_mode: str) -> None:
    view = make_view(root_mode)
    assert view.root_attributes == view.released[b"/"] == MOUNT_ATTR_RDONLY


def test_a_read_only_root_is_never_released() -> None:
    assert b"/" not in make_view("read-only").released


def test_what_was_asked_is_left_as_it_is() -> None:
    (asked,) = [s for s in make_view().steps if isinstance(s, NewFs) and s.asked]
    assert asked in plan_mounts(tmpfs=[Tmpfs(target="/dev/mine")])
