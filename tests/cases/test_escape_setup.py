"""E11 to E27: tricks during set-up, by who owns the root file system, a volume or a name."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from casekit import Command, assert_unsupported, error_line, repeats, tree_hash
from escapekit import USERS, Probes, flipping, offer, try_run

from execdrv import Host
from execdrv.errors import ExecdrvError, IsolationError, SpecError, UsageError
from execdrv.spec import Bind, Tmpfs


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of the machine's, that nobody may reach or change."""
    path = tmp_path / "outside"
    (path / "b").mkdir(parents=True)
    (path / "b/precious").write_text("precious\n")
    before = tree_hash(path)
    yield path
    assert tree_hash(path) == before


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory that is bound into containers."""
    path = tmp_path / "source"
    path.mkdir()
    (path / "bound").write_text("bound\n")
    return path


def execdrv(*words: Any, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
    """Another command than `run`."""
    argv = [sys.executable, "-m", "execdrv", *words]
    return subprocess.run(argv, capture_output=True, timeout=20, check=False, **keywords)


def refuses_binds(X: Command, driver: str) -> bool:
    """Whether the driver mounts nothing; then it must say so."""
    if driver != "chroot":
        return False
    assert_unsupported(X("--bind", "/tmp:/h", "--", "true"), "--bind", "'chroot'", "native")
    return True


# --- E11 ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchanged_root")
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root_mode", ["private", "read-only", "direct"])
def test_e11_a_fake_proc_is_covered_by_a_real_one(
    host: Host, R: Path, driver: str, user: str, root_mode: str, request: pytest.FixtureRequest
) -> None:
    if driver == "chroot":
        assert offer(host, driver, "fs.proc-own").kind == "absent"
        return
    for name in ("self/attr/current", "sys/kernel/core_pattern", "1/oom_score_adj", "uptime"):
        (R / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (R / "proc" / name).write_text("fake\n")
    before = tree_hash(R)
    program = "stat -f -c %t /proc; grep -rlsx fake /proc/uptime /proc/self/attr /proc/1; ls /proc"
    exit_ = host.run(
        driver, ["sh", "-c", program], rootfs=R, root_mode=root_mode, user=user, capture=10_000
    )
    lines = exit_.stdout.decode().split("\n")
    assert (exit_.code, lines[0]) == (0, "9fa0"), exit_  # PROC_SUPER_MAGIC
    assert "fake" not in lines and not any(line.startswith("/proc") for line in lines)
    assert {"1", "cpuinfo", "self"} <= set(lines)
    assert tree_hash(R) == before
    (R / "proc/1/oom_score_adj").unlink()
    for directory in ("self/attr", "sys/kernel", "sys", "self", "1"):
        for path in (R / "proc" / directory).glob("*"):
            path.unlink()
        (R / "proc" / directory).rmdir()
    (R / "proc/uptime").unlink()


def test_e11_nothing_is_mounted_over_proc(
    host: Host, R: Path, source: Path, driver: str, tmp_path: Path
) -> None:
    places = ("/proc", "/proc/self/attr", "/proc/sys", "/proc/1", "/proc/../proc", "/l/sys")
    (R / "l").symlink_to("/proc")
    for place in places:
        for fields in (
            {"binds": [Bind(source=bytes(source), target=place.encode())]},
            {"tmpfs": [Tmpfs(target=place.encode())]},
        ):
            with pytest.raises(ExecdrvError) as caught:
                host.run(driver, ["true"], rootfs=R, **fields)
            assert caught.value.exit_status == 125, place


# --- E12, E18 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_e12_e18_proc_sys_and_dev_must_not_be_links(
    host: Host, X: Command, R: Path, outside: Path, driver: str, name: str
) -> None:
    (R / name).rename(R / "moved")
    up = "../" * (len(R.parts) + 3)
    for target in (str(outside), up + str(outside)[1:], "/tmp/x", "moved", "/proc/self/root", "."):
        (R / name).symlink_to(target)
        before = tree_hash(R)
        for user in USERS:
            with pytest.raises(ExecdrvError) as caught:
                host.run(driver, ["true"], rootfs=R, user=user)
            assert caught.value.exit_status == 125
            assert f"/{name}" in str(caught.value) and "symlink" in str(caught.value)
        assert tree_hash(R) == before
        (R / name).unlink()
    (R / name).symlink_to(outside)
    result = X("--", "sh", "-c", "echo ran")
    assert (result.returncode, result.stdout) == (125, b""), result
    assert f"/{name}" in error_line(result) and "symlink" in error_line(result)


@pytest.mark.parametrize("name", ["proc", "dev"])
def test_e12_e18_a_link_that_comes_and_goes(
    host: Host, R: Path, outside: Path, driver: str, probes: Probes, name: str
) -> None:
    (R / "swap").symlink_to(outside)
    for entry in ("null", "pts", "shm"):
        # What a driver could mount or make something on.
        (R / "dev" / entry).exists() or (R / "dev" / entry).mkdir()
    before = sorted(os.listdir(R))
    with flipping(probes, R / name, R / "swap"):
        ran = [
            try_run(host, driver, ["true"], rootfs=R, root_mode=mode)
            for _ in range(repeats(200) // 2)
            for mode in ((None, "direct") if driver != "chroot" else (None, None))
        ]
    print(f"ran: {sum(ran)} of {len(ran)}")
    assert sorted(os.listdir(R)) == before


# --- E13, E14 ----------------------------------------------------------------------------------


def machine_mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.mark.parametrize("missing", [False, True], ids=["e13", "e14"])
def test_e13_e14_a_target_that_a_sibling_swaps(
    host: Host,
    X: Command,
    tmp_path: Path,
    R: Path,
    source: Path,
    outside: Path,
    driver: str,
    probes: Probes,
    missing: bool,
) -> None:
    """A volume of two jobs; `outside` tells what was made there, mountinfo what was mounted."""
    volume = tmp_path / "volume"
    (volume / "a/b").mkdir(parents=True)
    (volume / "swap").symlink_to(outside)
    (R / "vol").mkdir()
    target = b"/vol/a/new/b" if missing else b"/vol/a/b"
    binds = [Bind(source=bytes(volume), target=b"/vol"), Bind(source=bytes(source), target=target)]
    if driver == "chroot":
        assert_unsupported(
            X("--bind", f"{volume}:/vol", "--bind", f"{source}:{target.decode()}", "--", "true"),
            "--bind",
            "'chroot'",
        )
        return
    before = machine_mounts()
    with flipping(probes, volume / "a", volume / "swap"):
        ran = []
        for _ in range(repeats(500)):
            ran.append(try_run(host, driver, ["true"], rootfs=R, binds=binds))
            assert not [line for line in machine_mounts() if line not in before]
    print(f"ran: {sum(ran)} of {len(ran)}")
    assert sorted(os.listdir(volume)) == ["a", "swap"]
    assert sorted(p.name for p in volume.rglob("*")) == ["a", "b", "swap"]


@pytest.mark.parametrize("root_mode", ["private", "direct"])
def test_e14_a_missing_target_in_the_root_itself(
    host: Host, R: Path, source: Path, outside: Path, driver: str, probes: Probes, root_mode: str
) -> None:
    if driver == "chroot" and root_mode == "private":
        assert offer(host, driver, "fs.write-private").kind == "absent"
        return
    (R / "w/a").mkdir(parents=True)
    (R / "w/swap").symlink_to(outside)
    binds = [Bind(source=bytes(source), target=b"/w/a/new")]
    with flipping(probes, R / "w/a", R / "w/swap"):
        ran = [
            try_run(host, driver, ["true"], rootfs=R, binds=binds, root_mode=root_mode)
            for _ in range(repeats(200))
        ]
    print(f"ran: {sum(ran)} of {len(ran)}")
    # Missing in a directory that is the user's own: refused, never made.
    assert root_mode == "private" or not any(ran)
    assert sorted(path.name for path in (R / "w").rglob("*")) == ["a", "swap"]


# --- E19 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(
    "link", ["/etc", "etc", "../../../../../../../../etc", "/b/../etc", "/proc/self/root/etc"]
)
def test_e19_links_in_a_target_resolve_inside(
    host: Host, X: Command, R: Path, source: Path, driver: str, user: str, link: str
) -> None:
    (R / "a").symlink_to(link)
    (R / "b").mkdir()
    machine = sorted(os.listdir("/etc"))
    inner = tree_hash(R)
    if not refuses_binds(X, driver):
        binds = [Bind(source=bytes(source), target=b"/a/x/c")]
        argv = ["sh", "-c", "cat /etc/x/c/bound; grep -c ' /etc/x/c ' /proc/self/mountinfo"]
        fields: dict[str, Any] = {"rootfs": R, "binds": binds, "user": user, "capture": 1000}
        if link.startswith("/proc"):
            # It leads through a file system that the driver guards.
            with pytest.raises(ExecdrvError) as caught:
                host.run(driver, argv, **fields)
            assert caught.value.exit_status == 125
        else:
            exit_ = host.run(driver, argv, **fields)
            assert (exit_.code, exit_.stdout) == (0, b"bound\n1\n"), exit_
        # A root that is the user's own is not changed to make room.
        with pytest.raises(ExecdrvError) as caught:
            host.run(driver, argv, root_mode="direct", **fields)
        assert caught.value.exit_status == 125
    assert tree_hash(R) == inner
    assert sorted(os.listdir("/etc")) == machine


def test_e19_a_link_that_is_the_target_itself(
    host: Host, X: Command, R: Path, source: Path, outside: Path, driver: str
) -> None:
    if refuses_binds(X, driver):
        return
    (R / "t").mkdir()
    (R / "a").symlink_to("/t")
    (R / "b").symlink_to(outside / "b")
    argv = ["cat", "/t/bound"]
    for mode in ("private", "direct"):
        binds = [Bind(source=bytes(source), target=b"/a")]
        exit_ = host.run(driver, argv, rootfs=R, root_mode=mode, binds=binds, capture=100)
        assert (exit_.code, exit_.stdout) == (0, b"bound\n")
        binds = [Bind(source=bytes(source), target=b"/b")]
        with pytest.raises(ExecdrvError) as caught:
            host.run(driver, ["true"], rootfs=R, root_mode=mode, binds=binds)
        assert caught.value.exit_status == 125


# --- E22 ---------------------------------------------------------------------------------------

LIBRARY_PLACES = ("lib", "usr/lib", "lib64", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu",
                  "lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")  # fmt: skip
LIBRARIES = ("libnss_odd.so.2", "libnss_files.so.2", "libnss_compat.so.2", "libnss_dns.so.2",
             "libgcc_s.so.1", "libc.so.6", "gconv/ISO8859-1.so", "gconv/UTF-16.so")  # fmt: skip


@pytest.fixture
def trapped(R: Path, probes: Probes) -> Path:
    """R, with code that leaves /MARK wherever Python or the C library could look for theirs."""
    import execdrv as package

    assert package.__file__ is not None
    names = [name for name in sys.stdlib_module_names if name != "antigravity"]
    names += ["sitecustomize", "usercustomize", "attrs", "attr", "pluggy", "lxc", "_lxc"]
    own = Path(package.__file__).parent
    for entry in {*sys.path, str(own.parent)}:
        if not entry.startswith("/") or "nonexistent" in entry:
            continue
        place = R / entry[1:]
        place.mkdir(parents=True, exist_ok=True)
        for name in names:
            (place / f"{name}.py").write_text("open('/MARK', 'w').close()\n")
        (place / "encodings").mkdir(exist_ok=True)
        (place / "encodings/__init__.py").write_text("open('/MARK', 'w').close()\n")
    for path in own.rglob("*.py"):
        place = R / str(path)[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("open('/MARK', 'w').close()\n")
    for directory in LIBRARY_PLACES:
        for library in LIBRARIES:
            place = R / directory / library
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(probes("mark.so").read_bytes())
    (R / "etc/nsswitch.conf").write_text("passwd: odd files\ngroup: odd files\nhosts: odd dns\n")
    (R / "etc/ld.so.preload").write_text("/lib/libnss_odd.so.2\n")
    (R / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\njoe:x:1234:1235::/:/bin/sh\n")
    (R / "etc/group").write_text("root:x:0:\nteam:x:1236:\n")
    return R


def test_e22_the_trap_works(trapped: Path) -> None:
    """Whoever imports in that root, or asks its name service, leaves the mark."""
    for program in (
        "import os, sys; sys.modules.pop('colorsys', 0); os.chroot(sys.argv[1]); import colorsys",
        "import ctypes, os, sys; os.chroot(sys.argv[1]); ctypes.CDLL('libnss_odd.so.2')",
    ):
        subprocess.run([sys.executable, "-c", program, trapped], check=True)
        (trapped / "MARK").unlink()


#: Options, command and status: everything that is looked up late.
RUNS: tuple[tuple[tuple[str, ...], tuple[Any, ...], int], ...] = (
    (("--user", "joe"), ("true",), 0),
    (("--user", "joe:team", "--groups", "team"), ("id",), 0),
    (("--user", "joe"), ("printf", b"\xff\xc3\xa9", "\u20ac"), 0),
    (("--user", "joe"), ("nosuch\u20ac",), 127),
    (("--user", "joe"), ("/etc/passwd",), 126),
    (("--user", "jane"), ("true",), 125),
    (("--workdir", "/none\u20ac"), ("true",), 125),
)


def test_e22_no_code_of_the_root_is_loaded(
    X: Command, host: Host, trapped: Path, driver: str
) -> None:
    machine = os.path.exists("/MARK")
    for options, command, status in RUNS:
        # Directly in the root, so that the mark would stay.
        result = X("--root-mode", "direct", *options, "--", *command)
        assert result.returncode == status, result
        assert not (trapped / "MARK").exists(), command
    for user in ("joe", "joe:team", "1000"):
        exit_ = host.run(driver, ["true"], rootfs=trapped, root_mode="direct", user=user)
        assert exit_.code == 0
    assert not (trapped / "MARK").exists()
    assert os.path.exists("/MARK") == machine


# --- E23 ---------------------------------------------------------------------------------------

HELPERS = (
    *("mount", "umount", "ip", "ifconfig", "nft", "iptables", "modprobe", "losetup", "mkfs", "tar"),
    *("newuidmap", "newgidmap", "lxc-start", "lxc-execute", "lxc-user-nic", "lxc-attach", "runc"),
    *("unshare", "nsenter", "chroot", "setpriv", "capsh", "su", "sudo", "id", "getent", "ldd"),
    *("gcc", "cc", "ld", "systemd-run", "sh", "bash", "python3", "python", "uname", "busctl"),
)  # fmt: skip


def test_e23_no_helper_of_the_caller_or_the_job_is_run(
    X: Command, R: Path, tmp_path: Path, driver: str
) -> None:
    marker, planted = tmp_path / "marker", tmp_path / "bin"
    planted.mkdir()
    for name in HELPERS:
        (planted / name).write_text(f"#!/bin/sh\necho $0 >> {marker}\n")
        (planted / name).chmod(0o755)
        for directory in ("sbin", "usr/sbin", "usr/bin", "usr/local/bin", "usr/local/sbin"):
            (R / directory).mkdir(parents=True, exist_ok=True)
            (R / directory / name).write_text("#!/bin/busybox sh\n: > /MARK\n")
            (R / directory / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{planted}:{os.environ['PATH']}"}
    limits = () if driver == "chroot" else ("--memory", "64M", "--pids", "8", "--cpus", "1")
    shown = () if driver == "chroot" else ("--bind", f"{planted}:/h", "--tmpfs", "/t")
    direct = ("--root-mode", "direct")
    (R / "h").mkdir()
    (R / "t").mkdir()
    for options in ((), limits, (*direct, *shown), (*direct, "--user", "1000")):
        for command, status in (("/bin/true", 0), ("/none", 127)):
            result = X(*options, "--", command, env=environment)
            assert result.returncode == status, result
    for words in (("ps",), ("gc",), ("doctor",), ("drivers",)):
        assert execdrv(*words, env=environment).returncode in (0, 1)
    assert not marker.exists(), marker.read_text()
    assert not (R / "MARK").exists()
    # The trap works: a job that calls one leaves the mark.
    assert X(*direct, "--user", "0", "--", "ip", env=environment).returncode == 0
    assert (R / "MARK").exists()


# --- E25 ---------------------------------------------------------------------------------------

OTHER = 1000


def give_away(path: Path) -> None:
    for directory, names, files in os.walk(path):
        for name in (*names, *files, "."):
            os.chown(os.path.join(directory, name), OTHER, OTHER, follow_symlinks=False)


def test_e25_state_is_closed_to_others(host: Host, R: Path, state: Path, driver: str) -> None:
    umask = os.umask(0)
    try:
        with host.start(driver, ["sleep", "60"], rootfs=R, name="e25"):
            found = [state, *state.rglob("*")]
            assert len(found) > 4
            for path in found:
                status = path.lstat()
                assert (status.st_uid, status.st_mode & 0o077) == (0, 0), path
    finally:
        os.umask(umask)


@pytest.mark.parametrize("kind", ["owned by another", "open to others", "link", "file"])
def test_e25_a_state_directory_of_anothers_making_is_refused(
    X: Command, R: Path, state: Path, tmp_path: Path, outside: Path, driver: str, kind: str
) -> None:
    if kind == "link":
        state.symlink_to(outside)
    elif kind == "file":
        state.write_text("")
    else:
        (state / "containers").mkdir(parents=True)
        # What another user would put there, in case that it is read or written.
        (state / "lock").symlink_to(outside / "b/precious")
        (state / "containers/mine").symlink_to(outside / "b")
        if kind == "owned by another":
            state.chmod(0o700)
            give_away(state)
        else:
            state.chmod(0o777)
    before = sorted(str(path) for path in tmp_path.rglob("*") if R not in path.parents)
    result = X("--name", "mine", "--", "sh", "-c", "echo ran")
    assert (result.returncode, result.stdout) == (125, b""), result
    assert str(state) in error_line(result)
    listed = execdrv("ps")
    assert listed.returncode == 125 and os.fsencode(state) in listed.stderr, listed
    # Nor is anything read there: a record names the code that would clean up.
    with Host(root=str(state)) as host:
        run = partial(host.run, driver, ["true"], rootfs=R)
        one = [partial(operation, "mine") for operation in (host.get, host.destroy)]
        for operation in (run, host.containers, host.gc, *one):
            with pytest.raises(UsageError) as caught:
                operation()
            assert str(state) in str(caught.value)
    assert sorted(str(path) for path in tmp_path.rglob("*") if R not in path.parents) == before
    # CLEAN looks for containers there.
    if not state.is_symlink() and state.is_dir():
        shutil.rmtree(state)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("protocol", [0, 5])
def test_e25_no_record_is_code(
    host: Host, R: Path, state: Path, tmp_path: Path, driver: str, protocol: int
) -> None:
    marker = tmp_path / "marker"
    data = pickle.dumps(Bomb(marker), protocol)
    pickle.loads(data)  # noqa: S301  the trap works
    marker.rmdir()
    assert host.run(driver, ["true"], rootfs=R).code == 0
    broken = state / "containers/broken"
    broken.mkdir(mode=0o700)
    (broken / "record").write_bytes(data)
    (broken / "lock").touch()
    listed = execdrv("ps", "--json")
    assert listed.returncode == 0 and b"broken" in listed.stdout, listed
    inspected = execdrv("inspect", "broken")
    assert b"cannot read the record" in inspected.stdout + inspected.stderr, inspected
    assert b"Traceback" not in inspected.stderr
    assert execdrv("destroy", "broken").returncode == 0
    assert not broken.exists()
    assert not marker.exists()


def test_e25_links_in_the_state_lead_nowhere(
    host: Host, R: Path, state: Path, outside: Path, driver: str
) -> None:
    """Somebody got into the directory: what is read and written by name is no link all the same."""
    assert host.run(driver, ["true"], rootfs=R).code == 0
    containers = state / "containers"
    (containers / "linked").symlink_to(outside / "b")
    mine = containers / "mine"
    mine.mkdir(mode=0o700)
    for name in ("record", "record.new", "lock", "socket"):
        (mine / name).symlink_to(outside / "b/precious")
    with pytest.raises(ExecdrvError) as caught:
        host.run(driver, ["true"], rootfs=R, name="linked")
    assert caught.value.exit_status == 125
    for name in ("linked", "mine"):
        with pytest.raises(ExecdrvError):
            host.run(driver, ["true"], rootfs=R, name=name)
        result = execdrv("destroy", name)
        assert b"Traceback" not in result.stderr
    execdrv("gc")
    for path in (containers / "linked", *mine.glob("*")):
        path.unlink(missing_ok=True)
    if mine.exists():
        mine.rmdir()


# --- E26 ---------------------------------------------------------------------------------------

NAMES = (
    "..",
    ".",
    "a/../../b",
    ".hidden",
    "x\n",
    "a b",
    "",
    "/etc",
    "a\\b",
    "a%2fb",
    "-r",
    "a\x01",
)
PARENTS = ("../../other", "..", "a/../../b", "/../x", ".", "a/./b", "a//b", "a\nb", "")


@pytest.mark.parametrize("kind", ["name", "cgroup_parent"])
def test_e26_names_lead_nowhere(
    host: Host, X: Command, R: Path, state: Path, driver: str, kind: str
) -> None:
    with host.start(driver, ["sleep", "60"], rootfs=R, name="other") as other:
        before = sorted(str(path) for path in state.rglob("*"))
        for value in NAMES if kind == "name" else PARENTS:
            with pytest.raises(SpecError, match=kind) as caught:
                host.run(driver, ["true"], rootfs=R, **{kind: value})
            assert caught.value.exit_status == 125
            assert repr(value) in str(caught.value)
        option = "--" + kind.replace("_", "-")
        for value in (NAMES if kind == "name" else PARENTS)[2:4]:
            result = X(f"{option}={value}", "--", "true")
            assert result.returncode == 125, result
            assert repr(value) in error_line(result)
        assert sorted(str(path) for path in state.rglob("*")) == before
        assert [container.id for container in host.containers()] == ["other"]
        assert other.state == "running"


def test_e26_other_commands_take_no_path_for_a_name(
    host: Host, R: Path, state: Path, tmp_path: Path, driver: str
) -> None:
    assert host.run(driver, ["true"], rootfs=R).code == 0
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "lock").touch()
    (victim / "record").write_text("{}")
    for name in ("../../victim", str(victim), "..", ".", "../containers", "a\nb", ""):
        for operation in (host.get, host.destroy):
            with pytest.raises(ExecdrvError) as caught:
                operation(name)
            assert caught.value.exit_status == 125
    for command in ("inspect", "destroy"):
        result = execdrv(command, "../../victim")
        assert result.returncode == 125 and b"Traceback" not in result.stderr, result
    assert sorted(os.listdir(victim)) == ["lock", "record"]


@pytest.mark.parametrize("name", ["system.slice", "init.scope", "user.slice", "cgroup.procs"])
def test_e26_words_that_others_reserve_reach_no_path(
    host: Host, R: Path, driver: str, name: str
) -> None:
    """The kernel's names are made of a hash of it."""
    with host.start(driver, ["sleep", "60"], rootfs=R, name=name) as container:
        job = container.inspect()["job"]["pid"]
        for line in Path(f"/proc/{job}/cgroup").read_text().splitlines():
            parts = line.split(":", 2)[2].split("/")
            assert name not in parts or parts == own_group(line)
    assert host.containers() == []


def own_group(line: str) -> list[str]:
    """Where this process stands in the same hierarchy: it may be in a group of that name."""
    number = line.split(":", 1)[0]
    for own in Path("/proc/self/cgroup").read_text().splitlines():
        if own.split(":", 1)[0] == number:
            return own.split(":", 2)[2].split("/")
    return []


# --- E27 ---------------------------------------------------------------------------------------


def test_e27_no_line_gets_into_a_configuration(
    host: Host, X: Command, R: Path, tmp_path: Path, source: Path, driver: str
) -> None:
    marker = tmp_path / "marker"
    line = f"h\nlxc.hook.pre-start = /bin/touch {marker}"
    for value in (line, line.replace("\n", "\r"), "h\tx", "h = x", "h\\n", "h#x"):
        with pytest.raises(SpecError, match="hostname"):
            host.run(driver, ["true"], rootfs=R, hostname=value)
    result = X("--hostname", line, "--", "true")
    assert result.returncode == 125 and "hostname" in error_line(result), result
    exit_ = host.run(
        driver, ["sh", "-c", 'printf "%s\\n" "$A" "$1"', line, line], rootfs=R, env={"A": line},
        capture=10_000,
    )  # fmt: skip
    assert (exit_.code, exit_.stdout.decode()) == (0, f"{line}\n{line}\n")
    if not refuses_binds(X, driver):
        for target in (line, "a b", "a\tb", "a\\040b", "a,ro", "a#b", "a 0 0\nproc b proc"):
            place = f"/m {target}"
            directory = tmp_path / f"s {target.replace('/', '_')}"
            directory.mkdir()
            (directory / "f").write_text(target)
            binds = [Bind(source=bytes(directory), target=place.encode())]
            exit_ = host.run(driver, ["cat", f"{place}/f"], rootfs=R, binds=binds, capture=1000)
            assert (exit_.code, exit_.stdout.decode()) == (0, target), exit_
            exit_ = host.run(
                driver, ["stat", "-c", "%a", place], rootfs=R, capture=100,
                tmpfs=[Tmpfs(target=place.encode(), mode=0o711)],
            )  # fmt: skip
            assert (exit_.code, exit_.stdout) == (0, b"711\n"), exit_
    assert not marker.exists()


def test_e27_liblxc_gets_one_line_a_value_and_reads_it_back(driver: str, tmp_path: Path) -> None:
    if driver != "lxc":
        pytest.skip(f"driver {driver} has no configuration")
    from execdrv_lxc.binding import load, make_container
    from execdrv_lxc.config import Item

    load()
    for value in ("h\nlxc.hook.pre-start = /bin/true", "h\r", "h\0", "\x1b"):
        with pytest.raises(IsolationError, match=r"lxc\.uts\.name"):
            Item("lxc.uts.name", value)
    container = make_container("e27", str(tmp_path), [Item("lxc.uts.name", "h.x_y-1")])
    assert container.get_config_item("lxc.uts.name") == "h.x_y-1"
    assert container.get_config_item("lxc.hook.pre-start") in ("", [])
    # What liblxc makes something else of is an error, and not run.
    with pytest.raises(IsolationError):
        make_container("e27", str(tmp_path), [Item("lxc.cap.keep", "none", "chown\n")])
