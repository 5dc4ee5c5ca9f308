"""What stands against a box is said before anything is made, each with its field."""

from __future__ import annotations

import attrs
import pytest
from driver_boxes import Boxes, in_fork

from execdrv.driver import Refusal
from execdrv.init import Order
from execdrv.linux.capabilities import CAPABILITIES, capability_mask
from execdrv.spec import ContainerSpec
from execdrv_lxc import check

pytestmark = pytest.mark.usefixtures("need_root")


def refusals(boxes: Boxes, **changes: object) -> list[Refusal]:
    """For a box of which some values are others."""

    def action() -> list[Refusal]:
        box = boxes.box(ContainerSpec(argv=["true"], rootfs=str(boxes.rootfs)))
        return check.list_refusals(attrs.evolve(box, **changes))

    found: list[Refusal] = in_fork(action)
    return found


def test_a_plain_box_is_not_refused(boxes: Boxes) -> None:
    assert refusals(boxes) == []


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("root_mode", {"root_mode": "shared"}),
        ("net", {"net": "bridge"}),
        ("hostname", {"hostname": "a\nb"}),
        ("hostname", {"hostname": "\u00e4"}),
    ],
)
def test_a_value_that_it_can_not_take_is_refused_with_its_field(
    boxes: Boxes, field: str, changes: dict[str, str]
) -> None:
    (refusal,) = refusals(boxes, **changes)
    assert refusal.field == field and repr(changes[field]) in refusal.message


def test_capabilities_that_execdrv_has_not_are_refused_by_name(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = capability_mask(set(CAPABILITIES) - {"SYS_TIME"})
    monkeypatch.setattr(check.obstacle, "detect_bounding", lambda: held)
    asked = capability_mask(["CHOWN", "SYS_TIME"])
    process = Order(uid=0, gid=0, argv=(b"true",), bounding=asked)
    (refusal,) = refusals(boxes, process=process)
    assert "SYS_TIME" in refusal.message and refusal.field == "cap_add"


def test_without_overlay_a_private_root_is_refused_and_a_read_only_one_is_not(
    boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check.obstacle, "detect_overlay", lambda: False)
    (refusal,) = refusals(boxes)
    assert refusal.field == "root_mode" and "--root-mode" in refusal.hint
    assert refusals(boxes, root_mode="read-only") == []


def test_an_obstacle_stands_alone(boxes: Boxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.binding, "detect_obstacle", lambda: "no bindings (install them)")
    (refusal,) = refusals(boxes, net="bridge")
    assert refusal.message == "cannot run an lxc container: no bindings (install them)"
