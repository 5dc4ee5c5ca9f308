"""Fixtures for the tests of cgroups: sample texts, fake trees, and real groups that always go.

The functions reach the tests as attributes of the fixture `kit`: test files import no conftest.
"""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from execdrv.limits import Limits
from execdrv.linux.cgroups import Group, Layout, detect_layout, make_group, plan_group

SAMPLES = Path(__file__).parent / "samples"


def read_sample(name: str, top: Path) -> dict[str, Any]:
    """The two texts of a sample, as arguments of `detect_layout`; `@` is the top of the tree.

    The mountpoints lie below an empty directory, so that what this machine really has mounted
    there can't be seen.
    """
    mountinfo = (SAMPLES / f"{name}.mountinfo").read_text().replace("@", str(top))
    return {"mountinfo": mountinfo, "own": (SAMPLES / f"{name}.cgroup").read_text()}


@pytest.fixture
def sample(tmp_path: Path) -> Callable[[str], Layout]:
    """What `detect_layout` makes of a sample."""
    return lambda name: detect_layout(**read_sample(name, tmp_path))


def write_tree(top: Path, files: dict[str, str]) -> None:
    """A FAKE cgroup directory: plain files, with no kernel behind them."""
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
    """Poll until a condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the condition did not come true in time")
        time.sleep(0.002)


def spawn(group: Group, *argv: str) -> int:
    """Fork a child that enters the group as its first step, then executes `argv`.

    Returns its pid once it is inside.
    """
    descriptors = group.procs_fds()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for descriptor in descriptors:
                os.write(descriptor, b"0")
            os.write(writing, b"1")
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    os.close(writing)
    entered = os.read(reading, 1)
    os.close(reading)
    for descriptor in descriptors:
        os.close(descriptor)
    if not entered:
        pytest.fail(f"no process could enter {group.plan}")
    return pid


def spawn_python(group: Group, code: str) -> int:
    """The same for a piece of Python."""
    return spawn(group, sys.executable, "-I", "-S", "-c", code)


def wait_status(pid: int, *, timeout_s: float = 10.0) -> int:
    """The exit status of a child (negative: the signal), bounded in time."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], timeout_s)[0]:
            pytest.fail(f"process {pid} did not end within {timeout_s} s")
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(action: Callable[[], None], *, timeout_s: float = 20.0) -> None:
    """Run a part of a test in a forked child, which may move itself; its failure is the test's."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as stream:
        status = wait_status(pid, timeout_s=timeout_s)
        if status != 0:
            pytest.fail(f"the child ended with {status}:\n{stream.read()}")


def groups_named(layout: Layout, part: str) -> list[str]:
    """Every directory of every hierarchy whose name has `part` in it."""
    return [
        directory
        for hierarchy in layout.hierarchies
        for directory, _, _ in os.walk(hierarchy.mountpoint)
        if part in os.path.basename(directory)
    ]


def without_unified(layout: Layout) -> Layout:
    """The layout as if cgroup2 were not mounted."""
    return Layout(hierarchies=tuple(h for h in layout.hierarchies if h.version == 1))


@pytest.fixture
def kit() -> SimpleNamespace:
    """The functions above."""
    functions = (
        read_sample,
        write_tree,
        wait_until,
        spawn,
        spawn_python,
        wait_status,
        in_child,
        groups_named,
        without_unified,
    )
    return SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture(scope="session")
def machine() -> Layout:
    """This machine's cgroups, where groups can be made."""
    layout = detect_layout()
    if layout.mode == "none":
        pytest.skip("needs cgroups; none is mounted here")
    if os.geteuid() != 0:
        pytest.skip("needs root to make cgroups")
    return layout


#: A hybrid machine stands for two: cgroup2 left out, it is one of v1 alone.
LAYOUTS = ["as-is", "v1-only"] if detect_layout().mode == "hybrid" else ["as-is"]


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, machine: Layout) -> Layout:
    """This machine as it is; and a hybrid one also as if cgroup2 were not mounted."""
    return machine if request.param == "as-is" else without_unified(machine)


@attrs.define
class Maker:
    """Makes groups with names of their own, and plans for them."""

    layout: Layout
    prefix: str
    made: list[Group] = attrs.field(factory=list)

    def name(self) -> str:
        return f"{self.prefix}-{len(self.made)}"

    def __call__(
        self,
        limits: Limits | None = None,
        *,
        devices: bool = False,
        everywhere: bool = False,
        parent: str | None = None,
        layout: Layout | None = None,
    ) -> Group:
        plan = plan_group(
            layout or self.layout,
            self.name(),
            limits=limits or Limits(),
            devices=devices,
            everywhere=everywhere,
            parent=parent,
        )
        group = make_group(plan)
        self.made.append(group)
        return group


@pytest.fixture
def make(layout: Layout, machine: Layout) -> Iterator[Maker]:
    """A maker of real groups; at the end nothing of them may be left in any hierarchy."""
    maker = Maker(layout=layout, prefix=f"execdrv-test-{os.getpid()}")
    yield maker
    leftovers = [path for group in reversed(maker.made) for path in group.remove()]
    assert leftovers == []
    assert groups_named(machine, maker.prefix) == []
