"""What this machine lacks for a container is said with its field, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from execdrv.limits import Limits
from execdrv.linux import cgroups, check, obstacle
from execdrv.linux.capabilities import capability_mask
from execdrv.spec import Bind

MKNOD = capability_mask(["MKNOD"])


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Whether the machine has device control."""
    monkeypatch.setattr(cgroups, "devices_supported", lambda layout: request.param)


@pytest.mark.parametrize(
    ("root_mode", "overlay", "fields"),
    [
        ("private", False, ["root_mode"]),
        ("private", True, []),
        ("read-only", False, []),
        ("direct", False, []),
    ],
)
def test_only_a_private_root_needs_overlay(
    monkeypatch: pytest.MonkeyPatch, root_mode: str, overlay: bool, fields: list[str]
) -> None:
    monkeypatch.setattr(obstacle, "detect_overlay", lambda: overlay)
    assert [problem.field for problem in check.check_overlay(root_mode)] == fields


def test_every_capability_beyond_the_own_bounding_set_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(obstacle, "detect_bounding", lambda: capability_mask(["CHOWN", "KILL"]))
    assert check.check_bounding(capability_mask(["CHOWN"])) == []
    found = check.check_bounding(capability_mask(["CHOWN", "SYS_TIME", "SYS_BOOT"]))
    assert [problem.hint for problem in found] == [
        "leave it out: --cap-drop SYS_BOOT",
        "leave it out: --cap-drop SYS_TIME",
    ]
    assert {problem.guarantee for problem in found} == {"cap.bounding"}


@pytest.mark.parametrize(
    ("devices", "bounding", "guarantees"),
    [(False, MKNOD, ["dev.no-disk"]), (False, 0, []), (True, MKNOD, [])],
    indirect=["devices"],
)
@pytest.mark.usefixtures("devices")
def test_nodes_may_be_made_where_devices_are_controlled(
    bounding: int, guarantees: list[str]
) -> None:
    found = check.check_node_making(bounding, layout=cgroups.Layout())
    assert [problem.guarantee for problem in found] == guarantees


@pytest.mark.parametrize("devices", [False], indirect=True)
@pytest.mark.usefixtures("devices")
def test_a_limit_without_controller_and_a_bad_parent_keep_their_guarantee_and_field() -> None:
    layout = cgroups.Layout()
    assert check.check_groups(layout, Limits(), parent=None) == []
    (problem,) = check.check_groups(layout, Limits(pids=5), parent=None)
    assert problem.message.startswith("cannot limit pids: ")
    assert problem.guarantee == "pids.limit"
    (problem,) = check.check_groups(layout, Limits(), parent="../up")
    assert problem.field == "cgroup_parent"


def test_a_target_that_can_not_be_used_is_named_with_its_field(tmp_path: Path) -> None:
    for name in ("proc", "dev", "tmp"):
        (tmp_path / name).mkdir()
    root = os.open(tmp_path, os.O_PATH)
    try:
        for own, fields in ((True, []), (False, ["binds"])):
            found = check.check_mounts(
                tmpfs=(),
                binds=[Bind(source=str(tmp_path), target="/missing")],
                root=root,
                sources=[root],
                root_is_own=own,
            )
            assert [problem.field for problem in found] == fields
    finally:
        os.close(root)
