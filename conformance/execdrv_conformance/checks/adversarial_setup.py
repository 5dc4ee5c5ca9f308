"""Attacks on the set-up: what is put into the root, a volume, or the path of a mount.

Scenarios of several containers each. In the arm `control` the kit itself does what a careless
driver would do, by plain paths, in the stand-in host, and undoes it.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from execdrv.errors import ExecdrvError
from execdrv.spec import Bind
from execdrv_conformance import kernel
from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check
from execdrv_conformance.checks.adversarial_knob import differing
from execdrv_conformance.checks.adversarial_reach import SETUP, Two, spoilt_root
from execdrv_conformance.finding import Arm, Finding, expect, holds, unfinished, violated
from execdrv_conformance.observe import mount
from execdrv_conformance.standin.tree import copy_tree

# --- mounts that go astray ---------------------------------------------------------------------

#: Starts while a directory and a link change places.
RACES = 24
#: Mean seconds between two exchanges.
SWAP_S = 0.001


def _mount_astray(bench: Bench) -> Two:
    """Binds whose target's path has a link in it, or a directory that a sibling swaps."""
    outside = bench.directory("outside")
    (outside / "b").mkdir()
    (outside / "precious").write_text("precious")
    token = bench.nonce()
    source = bench.directory("source")
    (source / token).touch()
    volume = bench.directory("volume")
    (volume / "a/b").mkdir(parents=True)
    (volume / "swap").symlink_to(outside)
    root = bench.share(spoilt_root)
    for name in ("vol", "plain"):
        (root / name).mkdir()
    up = "../" * (len(root.parts) + 2)
    (root / "absolute").symlink_to(outside)
    (root / "relative").symlink_to(up + str(outside).lstrip("/"))
    before = _tree(outside)
    watch = _Watch(bench=bench, root=root, source=source, token=token, outside=outside)
    watch.start("plain", "/plain")
    for name in ("absolute/b", "relative/b", "absolute/new", "relative/new"):
        watch.start(name.partition("/")[0], f"/{name}")
    watch.start("volume", "/vol/swap/b", volume=volume)
    watch.start("volume", "/vol/swap/new", volume=volume)
    with _swapping(volume / "a", volume / "swap") as watch.swapper:
        # The control needs no luck: it follows links that stay.
        for number in range(0 if bench.is_control else RACES):
            # Every other one has to be made first.
            watch.start("race", f"/vol/a/{('b', f'new-{number}')[number % 2]}", volume=volume)
    return watch.inside, {"made": differing(before, _tree(outside)), **watch.outside}


class _Watch:
    """Starts jobs with a bind, and notes on both sides where it has come to stand."""

    def __init__(
        self, *, bench: Bench, root: Path, source: Path, token: str, outside: Path
    ) -> None:
        self.bench = bench
        self.root = root
        self.source = source
        self.token = token
        at = os.stat(outside)
        self.place = [at.st_dev, at.st_ino]
        self.inside: dict[str, Any] = {"plain": 0, "started": 0, "lost": [], "astray": []}
        self.outside: dict[str, Any] = {"placed": 0, "lost": [], "astray": []}
        #: The process that exchanges names; it rests while a job looks for its mount by name.
        self.swapper = 0
        self._before = _mounts_of_machine()

    def start(self, kind: str, target: str, *, volume: Path | None = None) -> None:
        """A job with the source bound at a target; a refusal is fine."""
        binds = [] if volume is None else [(volume, "/vol")]
        binds.append((self.source, target))
        if self.bench.is_control:
            with self._mounted_plainly(binds):
                self._look(kind, target, {})
            return
        asked = [Bind(source=os.fsencode(path), target=to.encode()) for path, to in binds]
        self._look(kind, target, {"binds": asked, "rootfs": self.root})

    def _look(self, kind: str, target: str, fields: dict[str, Any]) -> None:
        arguments = {"token": self.token, "canary": self.place}
        try:
            with self.bench.agent(user="0", **fields) as look:
                self._swap(signal.SIGSTOP)
                facts = look.agent.call("adversarial_reach:find_bound", arguments)
                mounts = mount.read_mounts(look.pid)
        except (AgentError, ExecdrvError):
            if kind == "plain":
                raise
            return
        finally:
            self._swap(signal.SIGCONT)
        self.inside["started"] += 1
        self.inside["astray"] += facts["astray"]
        if not facts["targets"]:
            self.inside["lost"].append(target)
        placed = [one["target"] for one in mounts if one["root"].endswith(self.source.name)]
        self.outside["astray"] += [
            line for line in _mounts_of_machine() if line not in self._before
        ]
        self.outside["lost"] += [] if placed else [target]
        if kind == "plain":
            self.inside["plain"] += bool(facts["targets"])
            self.outside["placed"] += bool(placed)

    def _swap(self, signum: int) -> None:
        if self.swapper:
            os.kill(self.swapper, signum)

    @contextlib.contextmanager
    def _mounted_plainly(self, binds: list[tuple[Path, str]]) -> Iterator[None]:
        """As a careless driver: makes the target and mounts on it, wherever links lead."""
        with contextlib.ExitStack() as stack:
            for path, target in binds:
                to = f"{self.root}{target}"
                os.makedirs(to, exist_ok=True)
                to = os.path.realpath(to)
                kernel.mount(str(path), to, "", kernel.MS_BIND)
                stack.callback(kernel.umount, to, kernel.MNT_DETACH)
            yield


def _mounts_of_machine() -> list[str]:
    return [f"{one['target']} from {one['root']}" for one in mount.read_mounts()]


def _tree(top: Path) -> dict[str, Any]:
    """Every name below a directory with mode, owner and content; mounts are not entered."""
    device = os.lstat(top).st_dev
    found: dict[str, Any] = {}
    waiting = [top]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            at = path.lstat()
            content = path.read_text(errors="replace") if stat.S_ISREG(at.st_mode) else ""
            found[str(path.relative_to(top))] = [at.st_mode, at.st_uid, at.st_rdev, content]
            if stat.S_ISDIR(at.st_mode) and at.st_dev == device:
                waiting.append(path)
    return found


@contextlib.contextmanager
def _swapping(one: Path, other: Path) -> Iterator[int]:
    """A process that exchanges two names, over and over; afterwards they are as they were."""
    first = one.lstat().st_ino
    rng = random.Random(first)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                kernel.exchange(str(one), str(other))
                # Not so fast that whoever walks the path sees nothing but changes.
                time.sleep(rng.expovariate(1 / SWAP_S))
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if one.lstat().st_ino != first:
            kernel.exchange(str(one), str(other))


def _judge_bound(arm: Arm) -> Finding:
    if not arm.inside.number("plain"):
        return violated("a bind on a plain directory does not stand where it was asked")
    lost, astray = arm.inside.listed("lost"), arm.inside.listed("astray")
    saw = f"{arm.inside.number('started')} jobs started; beside the canary: {astray[:2] or 'none'}"
    return expect(not lost and not astray, f"{saw}; not in view: {lost[:3] or 'none'}")


def _judge_canary_directory(arm: Arm) -> Finding:
    if not arm.outside.number("placed"):
        return violated("a bind on a plain directory is not in the job's mount table")
    made, astray = arm.outside.listed("made"), arm.outside.listed("astray")
    lost = arm.outside.listed("lost")
    saw = f"made in the canary directory: {made[:2] or 'nothing'}; mounts: {astray[:2] or 'none'}"
    return expect(not made and not astray and not lost, f"{saw}; lost: {lost[:2] or 'none'}")


# --- a hostile root ----------------------------------------------------------------------------

KNOBS = ("/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe")
#: With a layer, or whatever the driver's default is, and in the root itself.
MODES = (None, "direct")
TOPS = ("dev", "proc", "sys")
Spoil = Callable[[Path, Path], None]


def _link(name: str, to: str = "") -> Spoil:
    """Puts a link in the place of `name`; without `to` it leads to the canary directory."""

    def spoil(root: Path, outside: Path) -> None:
        _clear(root / name)
        (root / name).symlink_to(to or outside)

    return spoil


def _link_upwards(name: str) -> Spoil:
    def spoil(root: Path, outside: Path) -> None:
        _clear(root / name)
        up = "../" * (len(root.parts) + 3)
        (root / name).symlink_to(up + str(outside).lstrip("/"))

    return spoil


def _fake_proc(root: Path, _: Path) -> None:
    """What a driver writes to, and what it masks, as plain files."""
    for name in ("self/attr/current", "sys/kernel/core_pattern", "kcore", "self/oom_score_adj"):
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("fake")


def _fake_null(root: Path, _: Path) -> None:
    (root / "dev/null").unlink()
    (root / "dev/null").write_text("")
    (root / "dev/null").chmod(0o666)


def _clear(path: Path) -> None:
    if path.is_symlink() or path.is_file() or path.is_char_device():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


#: What is wrong with a root, by name.
SPOILS: dict[str, Spoil] = {
    "dev": _link("dev"),
    "dev upwards": _link_upwards("dev"),
    "proc": _link("proc"),
    "proc upwards": _link_upwards("proc"),
    "sys": _link("sys"),
    "dev/pts": _link("dev/pts"),
    "dev/shm": _link("dev/shm"),
    "dev/mqueue": _link("dev/mqueue"),
    "dev/ptmx": _link("dev/ptmx"),
    "dev/null": _link("dev/null", "/proc/sys/kernel/hostname"),
    "dev/null outside": lambda root, outside: _link("dev/null", f"{outside}/precious")(
        root, outside
    ),
    "a file dev/null": _fake_null,
    "a fake proc": _fake_proc,
}


def _spoil_roots(bench: Bench) -> tuple[None, dict[str, Any]]:
    """One container for each hostile root, with a layer and in the root itself."""
    outside = bench.directory("outside")
    (outside / "precious").write_text("precious")
    (outside / "shm").mkdir()
    tree, mounts, knobs = _tree(outside), _mounts_of_machine(), _knobs()
    facts: dict[str, Any] = {"refused": [], "started": [], "unmasked": []}
    root = bench.share(spoilt_root)
    masks = {} if bench.is_control else {mode: _masks(bench, root, mode) for mode in MODES}
    facts["masks"] = len(masks.get(None, ()))
    for number, (name, spoil) in enumerate(SPOILS.items()):
        spoil(root, outside)
        if bench.is_control:
            _set_up_plainly(root)
        # Links in the place of a whole directory both ways, the others in turn.
        for mode in MODES if name in TOPS else (MODES[number % 2],):
            if not bench.is_control:
                _try_root(bench, f"{name} ({mode or 'default'})", root, mode, masks[mode], facts)
        _restore(bench, root)
    facts["made"] = differing(tree, _tree(outside))
    facts["astray"] = [line for line in _mounts_of_machine() if line not in mounts]
    facts["knobs"] = differing(knobs, _knobs())
    return None, facts


def _knobs() -> dict[str, str]:
    return {path: Path(path).read_text() for path in KNOBS if os.path.exists(path)}


def _fields(mode: str | None) -> dict[str, Any]:
    return {} if mode is None else {"root_mode": mode}


def _restore(bench: Bench, root: Path) -> None:
    for name in TOPS:
        _clear(root / name)
        copy_tree(bench.root / name, root / name)


def _masks(bench: Bench, root: Path, mode: str | None) -> dict[str, str]:
    """Type of what covers places in /proc and /sys of a container whose root is as it should be."""
    with bench.agent(rootfs=root, **_fields(mode)) as look:
        return _covers(look)


def _covers(look: Look) -> dict[str, str]:
    return {
        one["target"]: f"{one['type']} {'ro' if 'ro' in one['options'] else 'rw'}"
        for one in mount.read_mounts(look.pid)
        if look.container is not None and one["target"].startswith(("/proc", "/sys"))
    }


def _try_root(
    bench: Bench, name: str, root: Path, mode: str | None, masks: dict[str, str], facts: Any
) -> None:
    try:
        with bench.agent(rootfs=root, **_fields(mode)) as look:
            facts["started"].append(name)
            covers = _covers(look)
    except (AgentError, ExecdrvError) as error:
        facts["refused"].append(f"{name}: {type(error).__name__}")
        return
    if left_off := [target for target, how in masks.items() if covers.get(target) != how]:
        facts["unmasked"].append(f"{name}: {left_off}")


def _set_up_plainly(root: Path) -> None:
    """As a careless driver: makes what a container's /dev, /proc and /sys need, by plain paths."""
    for name in ("dev/pts", "dev/shm", "proc", "sys"):
        with contextlib.suppress(OSError):
            os.makedirs(root / name, exist_ok=True)
    for name, device in (("null", 3), ("zero", 5)):
        with contextlib.suppress(OSError):
            os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(1, device))


def _judge_roots(arm: Arm) -> Finding:
    made, astray = arm.outside.listed("made"), arm.outside.listed("astray")
    knobs, unmasked = arm.outside.listed("knobs"), arm.outside.listed("unmasked")
    started, refused = arm.outside.listed("started"), arm.outside.listed("refused")
    if made or astray or knobs or unmasked:
        return violated(f"made {made}, mounted {astray}, changed {knobs}, left open {unmasked}")
    if not started and not refused:
        return unfinished("no root was tried")
    return holds(
        f"{len(refused)} roots refused, {len(started)} started with nothing outside changed and "
        f"{arm.outside.number('masks')} places of /proc and /sys covered"
    )


CHECKS = (
    Check(
        id="esc.symlink-mount",
        cases=(SETUP,),
        scenario=_mount_astray,
        inside=_judge_bound,
        outside=_judge_canary_directory,
        likely="mount targets are resolved by plain path, or by name after they were checked",
    ),
    Check(
        id="esc.rootfs-links",
        cases=(SETUP,),
        scenario=_spoil_roots,
        inside=None,
        outside=_judge_roots,
        likely="/dev, /proc or /sys of the root is set up by plain path",
    ),
)
