"""E54 to E64: files of the kernel, and devices.

Nothing dangerous is written: a probe opens a file for writing and closes it. A chroot resists by
the job's lack of rights, so that it runs under the container's own uid where the others run as
root; what the driver declares for root is asked too.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from casekit import Command, error_line
from escapekit import USERS, Inside, assert_condition, unprivileged

from execdrv import Host
from execdrv.errors import ExecdrvError
from execdrv.spec import Bind

#: What an open of a file says that is out of reach.
CLOSED = {"ENOENT", "EACCES", "EPERM", "EROFS", "ENOTDIR", "ENXIO", "ENODEV"}


def rests_on(driver: str) -> str:
    """The condition of offers that rest on what a job may not do."""
    return "job-without-capabilities" if driver == "chroot" else "capabilities-default"


@contextlib.contextmanager
def mounted(kind: str, place: Path) -> Iterator[None]:
    """A file system of the machine's in a root, as people do who make a chroot by hand."""
    subprocess.run(["mount", "-t", kind, kind, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


# --- E54, E55 ----------------------------------------------------------------------------------

SETTINGS = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/poweroff_cmd", "/proc/sys/kernel/usermodehelper/bset",
    "/proc/sys/vm/drop_caches", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/kernel/sysrq",
)  # fmt: skip


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root_mode", [None, "direct"])
def test_e54_e55_core_pattern_and_sysrq_are_closed(
    inside: Inside, driver: str, user: str, root_mode: str | None
) -> None:
    trigger = "/proc/sysrq-trigger"
    report = inside(
        "opens", *SETTINGS, trigger, user=unprivileged(driver, user), root_mode=root_mode
    )
    for path in (*SETTINGS, trigger):
        assert report[f"w:{path}"] in CLOSED, report
    if driver != "chroot":
        assert report[f"w:{SETTINGS[0]}"] in ("EROFS", "EACCES")


@pytest.mark.parametrize("user", USERS)
def test_e54_e55_nor_from_namespaces_of_the_jobs_own(
    inside: Inside, driver: str, user: str
) -> None:
    report = inside("unmask", user=unprivileged(driver, user))
    assert report["plain-mount"] == "EPERM"
    if driver == "chroot":
        assert report["userns"] == "EPERM"
    for attempt in (
        *("unmount", "unmount-kcore", "remount", "core-pattern", "sysrq"),
        *("mount", "fresh-core-pattern", "fresh-kcore", "sysfs"),
    ):
        assert report[attempt] != "ok", report


@pytest.mark.parametrize("user", USERS)
def test_e54_no_memory_is_dumped(inside: Inside, R: Path, driver: str, user: str) -> None:
    assert inside("ids", user=user)["core"] == "0 0"
    before = sorted(os.listdir(R / "tmp"))
    report = inside("crash", user=user, workdir="/tmp", root_mode="direct")
    assert report["signal"] == "6"
    # A handler behind a pipe is called whatever the limit says (core(5)).
    if not Path("/proc/sys/kernel/core_pattern").read_text().startswith("|"):
        assert report["dumped"] == "0"
    assert sorted(os.listdir(R / "tmp")) == before


def test_e54_e55_what_it_rests_on(host: Host, driver: str) -> None:
    assert_condition(host, driver, "esc.core-pattern", rests_on(driver))


def test_e54_e64_the_machines_proc_and_sys_in_the_root(
    X: Command, inside: Inside, R: Path, driver: str
) -> None:
    for kind, name in (("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "dev")):
        with mounted(kind, R / name):
            if driver == "chroot":
                result = X("--", "true")
                assert result.returncode == 125, result
                assert f"/{name}" in error_line(result) and "mounted" in error_line(result)
                continue
            for mode in (None, "direct"):
                report = inside("writable", "/proc", "/sys", root_mode=mode)
                assert report["opened"] == "0", report
                found = inside("opens", "/proc/kcore", "/sys/kernel", root_mode=mode)
                assert found["r:/proc/kcore"] in CLOSED | {"empty"}
                assert found["r:/sys/kernel"] == "ENOENT"


# --- E61, E62 ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[int]:
    """A disk of the machine's with a secret: the number of a loop device."""
    image = tmp_path / "image"
    image.write_bytes(b"secret\n" * 1000)
    made = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", image], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"no loop device can be made here: {made.stderr!r}")
    path = made.stdout.decode().strip()
    try:
        yield os.stat(path).st_rdev
    finally:
        subprocess.run(["losetup", "--detach", path], check=True)


def test_e61_the_disk_can_be_read_where_nothing_resists(disk: int) -> None:
    path = f"/dev/block/{os.major(disk)}:{os.minor(disk)}"
    found = path if os.path.exists(path) else f"/dev/loop{os.minor(disk)}"
    with open(found, "rb") as file:
        assert file.read(6) == b"secret"


@pytest.mark.parametrize("user", USERS)
def test_e61_no_disk_node_is_made_or_opened(
    inside: Inside, disk: int, driver: str, user: str
) -> None:
    numbers = (str(os.major(disk)), str(os.minor(disk)))
    for place in ("", "/tmp", "/dev", "/dev/shm"):
        report = inside("node", *numbers, place, user=unprivileged(driver, user))
        assert report["mknod"] in ("EPERM", "EROFS", "EACCES", "ENOENT"), report
        assert report["open"] in ("ENOENT", "EACCES"), report


def test_e61_nor_with_the_capability(
    host: Host, inside: Inside, R: Path, tmp_path: Path, disk: int, driver: str
) -> None:
    if driver == "chroot":
        for id in ("dev.no-mknod", "dev.no-disk"):
            assert_condition(host, driver, id, "job-without-capabilities")
        return
    numbers = (str(os.major(disk)), str(os.minor(disk)))
    (tmp_path / "h").mkdir()
    binds = [Bind(source=bytes(tmp_path / "h"), target=b"/h")]
    made = 0
    for place in ("", "/tmp", "/dev/shm", "/h"):
        report = inside("node", *numbers, place, binds=binds, cap_add=["MKNOD"])
        assert report["open"] in ("EPERM", "EACCES", "ENOENT"), report
        made += report["mknod"] == "ok"
    # Where a mount of the job's own lets nodes work, the group's device control is what resists.
    words = ("node", *numbers, "/tmp", "mount")
    report = inside(*words, cap_add=["MKNOD", "SYS_ADMIN"])
    assert report["mount"] == "ok", report
    assert report["open"] in ("EPERM", "EACCES", "ENOENT"), report
    made += report["mknod"] == "ok"
    print(f"nodes made: {made}")


def test_e61_nodes_that_the_root_brings_are_inert(
    inside: Inside, R: Path, disk: int, driver: str
) -> None:
    """A chroot mounts nothing, so that `nodev` is the machine's: see E62 for its /dev."""
    if driver == "chroot":
        return
    os.mknod(R / "disk", stat.S_IFBLK | 0o666, disk)
    (R / "disk").chmod(0o666)
    for mode in ("private", "read-only", "direct"):
        for user in USERS:
            report = inside("opens", "/disk", root_mode=mode, user=user)
            assert {report["r:/disk"], report["w:/disk"]} <= {"EPERM", "EACCES", "EROFS"}, report


@pytest.mark.parametrize("user", USERS)
def test_e61_the_device_rules_are_out_of_reach(inside: Inside, driver: str, user: str) -> None:
    files = [
        f"{mount}/devices.{name}"
        for mount in ("/sys/fs/cgroup/devices", "/sys/fs/cgroup", "/cgroup/devices")
        for name in ("allow", "deny")
    ]
    report = inside("opens", *files, user=unprivileged(driver, user))
    for file in files:
        assert report[f"w:{file}"] in CLOSED, report
    assert inside("writable", "/sys", user=unprivileged(driver, user))["opened"] == "0"


NODES = {
    "null": "1:3",
    "zero": "1:5",
    "full": "1:7",
    "random": "1:8",
    "urandom": "1:9",
    "tty": "5:0",
}
LINKS = {"ptmx", "fd", "stdin", "stdout", "stderr"}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root_mode", [None, "direct"])
def test_e62_exactly_the_harmless_devices(
    host: Host, R: Path, driver: str, user: str, root_mode: str | None
) -> None:
    program = "find /dev -exec stat -c '%n|%F|%t:%T' {} +"
    exit_ = host.run(
        driver, ["sh", "-c", program], rootfs=R, user=user, root_mode=root_mode, capture=10_000
    )
    assert (exit_.code, exit_.stderr) == (0, b""), exit_
    found: dict[str, tuple[str, str]] = {}
    for line in exit_.stdout.decode().splitlines():
        name, kind, numbers = line.split("|")
        found[name.removeprefix("/dev").removeprefix("/")] = (kind, numbers)
    nodes = {name: value[1] for name, value in found.items() if "special" in value[0]}
    pts = nodes.pop("pts/ptmx", None)
    assert nodes == NODES
    links = {name for name, (kind, _) in found.items() if kind == "symbolic link"}
    directories = {name for name, (kind, _) in found.items() if kind == "directory"}
    if driver == "chroot":
        assert (links, directories, pts) == (set(), {""}, None)
    else:
        assert (links, directories, pts) == (LINKS, {"", "pts", "shm"}, "5:2")
    assert set(found) == {*nodes, *links, *directories} | ({"pts/ptmx"} if pts else set())


POWERFUL = {
    "mem": ("c", 1, 1), "kmem": ("c", 1, 2), "port": ("c", 1, 4), "kmsg": ("c", 1, 11),
    "kvm": ("c", 10, 232), "fuse": ("c", 10, 229), "loop-control": ("c", 10, 237),
    "net/tun": ("c", 10, 200), "sda": ("b", 8, 0), "loop0": ("b", 7, 0), "tty1": ("c", 4, 1),
    "console": ("c", 5, 1), "input/event0": ("c", 13, 64), "vhost-net": ("c", 10, 238),
    "null": ("b", 1, 3), "a/deep/one": ("c", 1, 1),
}  # fmt: skip


def test_e62_powerful_devices_of_the_root_are_hidden_or_refused(
    host: Host, inside: Inside, R: Path, driver: str
) -> None:
    for name, (letter, major, minor) in POWERFUL.items():
        path = R / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        kind = stat.S_IFBLK if letter == "b" else stat.S_IFCHR
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
        if driver == "chroot":
            for user in (None, "0", "1000"):
                with pytest.raises(ExecdrvError) as caught:
                    host.run(driver, ["true"], rootfs=R, user=user)
                assert caught.value.exit_status == 125
                assert f"/dev/{name}" in str(caught.value)
            path.unlink()
    if driver != "chroot":
        names = [f"/dev/{name}" for name in POWERFUL if name != "null"]
        for mode in (None, "direct"):
            report = inside("opens", *names, root_mode=mode)
            assert set(report.values()) == {"ENOENT"}, report


# --- E64 ---------------------------------------------------------------------------------------

SECRETS = (
    *("/proc/kcore", "/proc/kallsyms", "/proc/keys", "/proc/key-users", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi/scsi", "/proc/scsi/device_info"),
    *("/proc/acpi/wakeup", "/proc/asound/cards", "/proc/latency_stats", "/proc/interrupts"),
    *("/proc/iomem", "/proc/ioports", "/proc/modules", "/proc/slabinfo", "/proc/vmallocinfo"),
    *("/proc/pagetypeinfo", "/proc/kmsg", "/proc/kpageflags", "/proc/kpagecount", "/proc/mtrr"),
    *("/proc/dynamic_debug/control", "/proc/driver/rtc", "/proc/vmcore", "/proc/sysrq-trigger"),
    *("/sys/firmware/dmi/tables/DMI", "/sys/firmware/acpi/tables/DSDT", "/sys/kernel/vmcoreinfo"),
    *("/sys/class/powercap/intel-rapl:0/energy_uj", "/sys/kernel/debug/sched/debug"),
    *("/sys/kernel/security/lsm", "/sys/kernel/notes", "/sys/power/state"),
    "/sys/kernel/uevent_helper",
    *("/dev/mem", "/dev/kmsg", "/dev/port", "/dev/kvm", "/dev/snapshot"),
)  # fmt: skip


@pytest.mark.parametrize("user", USERS)
def test_e64_secrets_and_controls_are_closed(inside: Inside, driver: str, user: str) -> None:
    report = inside("opens", *SECRETS, user=unprivileged(driver, user))
    for path in SECRETS:
        print(f"{driver:8} {path:45} read: {report['r:' + path]:8} write: {report['w:' + path]}")
    open_ = {key: value for key, value in report.items() if value not in CLOSED}
    # Covered by an empty file.
    assert all(key.startswith("r:/proc/") and value == "empty" for key, value in open_.items())


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root_mode", [None, "direct"])
def test_e64_no_setting_of_the_machine_can_be_written(
    inside: Inside, driver: str, user: str, root_mode: str | None
) -> None:
    """Each file is tried that is there, so that a new kernel's are too."""
    report = inside(
        "writable", "/proc", "/sys", user=unprivileged(driver, user), root_mode=root_mode
    )
    assert report["opened"] == "0", report
    assert driver == "chroot" or int(report["files"]) > 500


def test_e64_what_it_rests_on(host: Host, driver: str) -> None:
    for id in ("fs.masked", "fs.sys-ro"):
        assert_condition(host, driver, id, rests_on(driver))
