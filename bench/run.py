"""One command under each driver, cold and warm, next to what a user could take instead.

    cold   a whole `execdrv run` process, from its start to its end
    warm   `Host.run` in a process that has run some before

All contenders run in turn, round after round, so that a change of the machine's speed meets them
alike; medians, and ratios within a round, are what counts. This measures; it judges nothing and is
no test. `bench/run.py [ROUNDS]` (20 unless told).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from execdrv import Host

Contender = Callable[[], None]


def make_root(directory: Path) -> Path:
    """A root with a static busybox and nothing else."""
    root = directory / "root"
    for name in ("bin", "proc", "dev", "tmp", "sys"):
        (root / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("bench: busybox-static is not installed")
    shutil.copy(busybox, root / "bin/true")
    return root


def command(*words: str, **keywords: object) -> Contender:
    """A contender that runs a process; it fails loudly, so that no failure is timed."""

    def run() -> None:
        subprocess.run(
            words,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            **keywords,  # type: ignore[call-overload]
        )

    return run


def runc_contender(directory: Path, root: Path) -> Contender:
    """`runc run` with its default spec, without a terminal."""
    bundle = directory / "bundle"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/bin/true"]}
    spec["root"] = {"path": str(root), "readonly": True}
    (bundle / "config.json").write_text(json.dumps(spec))
    state = directory / "runc"
    return command("runc", "--root", str(state), "run", "--bundle", str(bundle), "bench")


def lxc_contender(directory: Path, root: Path) -> Contender:
    """`lxc-execute` with an empty network and /proc."""
    config = directory / "lxc.conf"
    config.write_text(
        f"lxc.rootfs.path = dir:{root}\nlxc.net.0.type = empty\nlxc.uts.name = bench\n"
        "lxc.mount.auto = proc:mixed\nlxc.cgroup.dir = execdrv-bench\n"
    )
    name = f"execdrv-bench-{os.getpid()}"
    path = ("-P", str(directory), "-n", name, "-f", str(config))
    return command("lxc-execute", *path, "--", "/bin/true")


def remove_lxc_groups() -> None:
    """lxc-execute leaves its groups behind (ours do not): take away those of this measurement."""
    for top in Path("/sys/fs/cgroup").glob("*/execdrv-bench"):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)


def peers(directory: Path, root: Path) -> dict[str, Contender]:
    """What is installed of the tools to compare with."""
    found: dict[str, Contender] = {"chroot(1)": command("chroot", str(root), "/bin/true")}
    if shutil.which("runc"):
        found["runc run"] = runc_contender(directory, root)
    if shutil.which("bwrap"):
        mounts = ("--ro-bind", str(root), "/", "--proc", "/proc", "--dev", "/dev")
        found["bwrap --unshare-all"] = command("bwrap", *mounts, "--unshare-all", "/bin/true")
    if shutil.which("lxc-execute"):
        found["lxc-execute"] = lxc_contender(directory, root)
    return found


def ours(host: Host, directory: Path, root: Path) -> dict[str, Contender]:
    """Each driver, warm and cold; native also with limits."""
    found: dict[str, Contender] = {}
    execdrv = str(Path(sys.executable).with_name("execdrv"))
    limits = {"memory": "64M", "cpus": 0.5, "pids": 16}
    for driver in ("native", "lxc", "chroot"):

        def warm(driver: str = driver, **fields: object) -> None:
            if host.run(driver, ["/bin/true"], rootfs=root, **fields).code != 0:
                raise SystemExit(f"bench: driver {driver} failed")

        found[f"{driver} warm"] = warm
        if driver != "chroot":
            found[f"{driver} warm, 3 limits"] = lambda warm=warm: warm(**limits)  # type: ignore[misc]
        words = ("run", f"--driver={driver}", "--rootfs", str(root), "--", "/bin/true")
        environment = {**os.environ, "EXECDRV_ROOT": str(directory / "cold")}
        found[f"{driver} cold"] = command(execdrv, *words, env=environment)
    return found


def measure(contenders: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each contender in each round, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 2):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if number >= 2:
                times[name].append((time.perf_counter() - started) * 1000)
    return times


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        root = make_root(directory)
        with Host(root=str(directory / "warm")) as host:
            contenders = {**peers(directory, root), **ours(host, directory, root)}
            try:
                times = measure(contenders, rounds)
            finally:
                remove_lxc_groups()
    yardstick = times.get("runc run")
    print(f"{'':26}{'median ms':>10}{'least':>9}{'x runc':>9}   ({rounds} rounds, in turn)")
    for contender, values in times.items():
        ratio = ""
        if yardstick:
            pairs = zip(values, yardstick, strict=True)
            ratio = f"{statistics.median(ours / theirs for ours, theirs in pairs):.2f}"
        print(f"{contender:26}{statistics.median(values):10.2f}{min(values):9.2f}{ratio:>9}")


if __name__ == "__main__":
    main()
