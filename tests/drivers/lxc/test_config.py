"""What liblxc is told: plain text of our own, and the host name."""

from __future__ import annotations

import os

import attrs
import pytest

from execdrv.driver import Box
from execdrv.errors import IsolationError
from execdrv.init import Order
from execdrv.linux.capabilities import CONTAINER_CAPABILITIES, capability_mask
from execdrv.spec import Bind, ContainerSpec
from execdrv_lxc.config import Item, plan_items


def make_box(*, net: str = "none", hostname: str = "box", bounding: int = 0) -> Box:
    spec = ContainerSpec(
        argv=["sh"],
        env=["A=1\nlxc.hook.pre-start = /bin/false"],
        rootfs="/a:b,c",
        binds=[Bind(source="/x y", target="/m\nlxc.hook.start = /bin/false")],
    )
    return Box(
        id="box",
        kernel_name="xdt-1",
        spec=spec,
        process=Order(uid=0, gid=0, argv=(b"sh",), bounding=bounding),
        root_mode="private",
        net=net,
        hostname=hostname,
        root=0,
        directory=os.fsencode("/run/x y\nz"),
    )


def values_of(items: list[Item], key: str) -> list[str]:
    return [item.value for item in items if item.key == key]


@pytest.mark.parametrize(
    "value", ["h\nlxc.hook.pre-start = /bin/false", "a\tb", "a\0", "ä", "\x7f"]
)
def test_a_value_that_is_not_plain_text_is_refused_by_name(value: str) -> None:
    with pytest.raises(IsolationError, match=r"lxc\.uts\.name"):
        plan_items(make_box(hostname=value), log_fd=7)


def test_no_text_of_the_user_but_the_host_name_is_in_it() -> None:
    with_user_text = plan_items(make_box(hostname="here"), log_fd=7)
    plain = attrs.evolve(
        make_box(hostname="here"), spec=ContainerSpec(argv=["true"]), directory=b"/d"
    )
    assert with_user_text == plan_items(plain, log_fd=7)
    assert [item.key for item in with_user_text if "here" in item.value] == ["lxc.uts.name"]


def test_the_network_none_has_a_loopback_that_is_up() -> None:
    items = plan_items(make_box(net="none"), log_fd=7)
    assert values_of(items, "lxc.net.0.type") == ["empty"]
    assert values_of(items, "lxc.net.0.flags") == ["up"]
    assert "net" in values_of(items, "lxc.namespace.clone")[0].split()


def test_the_network_host_makes_no_network_namespace() -> None:
    items = plan_items(make_box(net="host"), log_fd=7)
    assert values_of(items, "lxc.net.0.type") == ["none"]
    assert "net" not in values_of(items, "lxc.namespace.clone")[0].split()


def test_the_init_keeps_what_it_needs_beside_the_jobs_capabilities() -> None:
    items = plan_items(make_box(bounding=capability_mask(["CHOWN"])), log_fd=7)
    assert values_of(items, "lxc.cap.keep") == ["chown", "setgid", "setuid", "setpcap"]


def test_there_is_always_a_keep_list_for_without_one_liblxc_keeps_all() -> None:
    assert values_of(plan_items(make_box(bounding=0), log_fd=7), "lxc.cap.keep")
    mask = capability_mask(CONTAINER_CAPABILITIES)
    kept = values_of(plan_items(make_box(bounding=mask), log_fd=7), "lxc.cap.keep")
    assert set(kept) == {name.lower() for name in CONTAINER_CAPABILITIES}


def test_a_list_reads_back_whole() -> None:
    items = [i for i in plan_items(make_box(), log_fd=7) if i.key == "lxc.cap.keep"]
    assert {item.reads_back for item in items} == {"setgid\nsetuid\nsetpcap\n"}
