"""B47 to B63: root file system and mounts. B58 is not demanded."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from casekit import (
    Command,
    assert_unsupported,
    command_line,
    error_line,
    processes_with,
    tree_hash,
    wait_until,
)

from execdrv import Host


def execdrv(*words: Any, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
    """Another command than `run`."""
    argv = [sys.executable, "-m", "execdrv", *words]
    return subprocess.run(argv, capture_output=True, timeout=20, check=False, **keywords)


@contextlib.contextmanager
def mounted(path: Path, *words: str) -> Iterator[None]:
    """Something mounted on a new directory of the machine's, by mount(8)."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """H, a directory of the machine whose contents must survive whatever happens."""
    path = tmp_path / "H"
    (path / "inner/more").mkdir(parents=True)
    for place in ("f", "inner/f", "inner/more/f"):
        (path / place).write_text("precious\n")
    (path / "inner/link").symlink_to("../f")
    return path


@contextlib.contextmanager
def killed_run(
    driver: str, R: Path, state: Path, name: str, *options: Any
) -> Iterator[dict[str, Any]]:
    """A container whose command and supervisor get SIGKILL at the end of the block."""
    token = f"6{os.getpid()}47"
    argv = command_line(driver, R, "--name", name, *options, "--", "sleep", token)
    with (
        subprocess.Popen(argv, stdin=subprocess.DEVNULL) as command,
        Host(root=str(state)) as host,
    ):
        try:
            wait_until(
                lambda: (
                    name in [c.id for c in host.containers()] and host.get(name).state == "running"
                ),
                timeout_s=20,
            )
            record = host.get(name).inspect()
            yield record
            os.kill(command.pid, signal.SIGKILL)
            os.kill(record["supervisor"]["pid"], signal.SIGKILL)
        finally:
            command.kill()


def test_b47_clean_up_after_a_kill_spares_what_was_bound(
    driver: str, R: Path, state: Path, X: Command, precious: Path
) -> None:
    bind = f"{precious}:/h"
    if driver == "chroot":
        assert_unsupported(X("--bind", bind, "--", "true"), "--bind", "'chroot'", "native")
        return
    before = tree_hash(precious)
    with killed_run(driver, R, state, "b47", "--bind", bind) as record:
        # A process which works in the mount, in a namespace of its own: nothing can be unmounted.
        job = record["job"]["pid"]
        holder = subprocess.Popen(["nsenter", "-t", str(job), "-m", "sh", "-c", "cd /h; sleep 60"])
        wait_until(lambda: os.readlink(f"/proc/{holder.pid}/cwd") == "/h")
    try:
        collected = execdrv("gc")
        assert collected.returncode in (0, 125), collected
        if collected.returncode == 125:
            assert b"b47" in collected.stderr
        assert tree_hash(precious) == before
    finally:
        for pid in [*processes_with("cd /h; sleep 60"), holder.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for name in Path("/proc").iterdir():
            if name.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(name / "cwd") == "/h":
                        os.kill(int(name.name), signal.SIGKILL)
        holder.wait()
    assert execdrv("gc").returncode == 0
    assert tree_hash(precious) == before


@pytest.mark.parametrize("kind", ["mount of the same device", "mount of another", "link"])
def test_b47_clean_up_crosses_no_mount_and_no_link_in_the_state(
    driver: str, R: Path, state: Path, precious: Path, kind: str
) -> None:
    before = tree_hash(precious)
    with killed_run(driver, R, state, "b47"):
        place = state / "containers/b47/h"
        if kind == "link":
            place.symlink_to(precious)
    if kind == "link":
        collected = execdrv("gc")
        assert collected.returncode == 0, collected
        assert tree_hash(precious) == before
        return
    words = ["--bind", str(precious)] if "same" in kind else ["-t", "tmpfs", "b47"]
    with mounted(place, *words):
        if "same" not in kind:
            (place / "f").write_text("precious\n")
        collected = execdrv("gc")
        assert collected.returncode == 125, collected
        assert str(place) in error_line(collected)
        assert (place / "f").read_text() == "precious\n"
        assert tree_hash(precious) == before
    assert execdrv("gc").returncode == 0
    assert tree_hash(precious) == before


def test_b48_unmounting_does_not_travel_back(
    driver: str, R: Path, state: Path, X: Command, tmp_path: Path
) -> None:
    """All in a mount namespace where every mount is shared, as on most machines."""
    device = tmp_path / "dev"
    device.mkdir()
    report = tmp_path / "report"
    if driver == "chroot":
        result = X("--bind", f"{device}:/d", "--", "true")
        assert_unsupported(result, "--bind", "'chroot'", "native")
        return
    program = (
        'set -e; mount --make-rshared /; mount -t tmpfs top "$1"; mkdir "$1/shm"; '
        'mount -t tmpfs below "$1/shm"; touch "$1/shm/x"; cat /proc/self/mountinfo >"$2.before"; '
        'shift 2; "$@"; echo $? >"$REPORT.status"; cat /proc/self/mountinfo >"$REPORT.after"; '
        'ls "$DEVICE/shm" >"$REPORT.list"'
    )
    argv = command_line(driver, R, "--bind", f"{device}:/d", "--", "ls", "/d/shm")
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", program, "sh", device, report, *argv],
        env={**os.environ, "REPORT": str(report), "DEVICE": str(device)},
        capture_output=True,
        timeout=30,
        check=False,
    )
    read = {name: Path(f"{report}.{name}").read_text() for name in ("before", "after", "list")}
    assert result.stdout == b"x\n", result
    assert read["before"] == read["after"]
    assert read["list"] == "x\n"


def test_b55_fresh_mounts_have_their_usual_modes(X: Command, R: Path, driver: str) -> None:
    (R / "tmp").chmod(0o700)
    result = X("--tmpfs", "/tmp", "--", "stat", "-c", "%a", "/tmp", "/dev/shm", "/proc")
    if driver == "chroot":
        assert_unsupported(result, "--tmpfs", "'chroot'", "native")
    else:
        assert (result.returncode, result.stdout) == (0, b"1777\n1777\n555\n"), result


@pytest.fixture
def endless() -> Iterator[Path]:
    """A tree with a link to itself, where a root's --with may take it from (not below /tmp)."""
    path = Path(tempfile.mkdtemp(prefix="execdrv-case-", dir="/var/tmp"))
    path.chmod(0o755)
    (path / "a").symlink_to(".")
    (path / "f").write_text("seen\n")
    yield path
    shutil.rmtree(path)


def test_b56_a_tree_that_holds_its_own_target_is_copied_once(
    host: Host, driver: str, endless: Path
) -> None:
    target = endless / "out"
    made = execdrv("rootfs", "make", "--with", endless, "--output", target)
    assert made.returncode == 0, made
    copy = target / endless.relative_to("/")
    assert os.readlink(copy / "a") == "."
    assert (copy / "f").read_text() == "seen\n"
    assert not (copy / "out/bin").exists()
    exit_ = host.run(driver, ["cat", f"{endless}/a/a/f"], rootfs=target, capture=100)
    assert (exit_.code, exit_.stdout) == (0, b"seen\n")


@pytest.mark.usefixtures("unchanged_root")
class TestUnchangedRoot:
    """Cases after which the root file system is as it was."""

    @pytest.fixture(autouse=True)
    def resolv_conf(self, R: Path) -> None:
        (R / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")

    @pytest.fixture(autouse=True)
    def unchanged(self, resolv_conf: None, unchanged_root: None) -> None:
        """Taken after the link is made."""

    def test_b57_a_bind_over_a_dangling_link(
        self, X: Command, tmp_path: Path, R: Path, driver: str
    ) -> None:
        there = os.path.lexists("/run/systemd/resolve/stub-resolv.conf")
        source = tmp_path / "resolv.conf"
        source.write_text("nameserver 192.0.2.1\n")
        bind = f"{source}:/etc/resolv.conf:ro"
        result = X("--bind", bind, "--", "cat", "/etc/resolv.conf")
        if driver == "chroot":
            assert_unsupported(result, "--bind", "'chroot'", "native")
        elif result.returncode == 125:
            assert "/etc/resolv.conf" in error_line(result)
        else:
            assert (result.returncode, result.stdout) == (0, source.read_bytes()), result
        assert os.path.lexists("/run/systemd/resolve/stub-resolv.conf") == there
        assert os.listdir(tmp_path / "R/etc") and source.read_text() == "nameserver 192.0.2.1\n"

    def test_b62_a_read_only_root(self, X: Command, driver: str) -> None:
        program = "(echo x >/t) 2>/dev/null || echo RO; echo x >/dev/null && echo DEV"
        result = X("--read-only", "--", "sh", "-c", program)
        if driver == "chroot":
            assert_unsupported(result, "read-only", "'chroot'", "native")
        else:
            assert (result.returncode, result.stdout) == (0, b"RO\nDEV\n"), result


def test_b59_a_link_inside_the_target_path(X: Command, R: Path, driver: str) -> None:
    (R / "real/conf").mkdir(parents=True)
    (R / "conf").symlink_to("/real/conf")
    program = "echo x >/conf/stack/f && cat /real/conf/stack/f; cat /proc/self/mountinfo"
    result = X("--tmpfs", "/conf/stack", "--", "sh", "-c", program)
    if driver == "chroot":
        assert_unsupported(result, "--tmpfs", "'chroot'", "native")
        return
    assert result.returncode == 0, result
    first, *mounts = result.stdout.decode().splitlines()
    assert first == "x"
    assert "/real/conf/stack" in [line.split()[4] for line in mounts]
    assert not os.path.lexists("/real/conf")


@pytest.mark.parametrize("mode", ["default", "direct", "read-only"])
def test_b60_a_root_on_a_noexec_file_system(
    X: Command, R: Path, tmp_path: Path, driver: str, mode: str
) -> None:
    place = tmp_path / "noexec"
    with mounted(place, "-t", "tmpfs", "-o", "noexec,mode=755,size=64m", "b60"):
        subprocess.run(["cp", "-a", f"{R}/.", place], check=True)
        options = [] if mode == "default" else ["--root-mode", mode]
        result = X(*options, "--", "/bin/true", rootfs=place)
        if driver == "chroot" and mode == "read-only":
            assert_unsupported(result, "read-only", "'chroot'")
            return
        assert result.returncode == 126, result
        line = error_line(result)
        assert "/bin/true" in line
        assert "noexec" in line or "permission denied" in line


def test_b62_a_read_only_root_without_mountpoints(X: Command, R: Path, driver: str) -> None:
    (R / "proc").rmdir()
    shutil.rmtree(R / "dev")
    before = tree_hash(R)
    result = X("--read-only", "--", "true")
    if driver == "chroot":
        assert_unsupported(result, "read-only", "'chroot'", "native")
    else:
        assert result.returncode == 125, result
        line = error_line(result)
        assert "'/proc'" in line or "'/dev'" in line, line
    assert tree_hash(R) == before


def test_b63_the_callers_umask_does_not_matter(driver: str, R: Path, state: Path) -> None:
    program = "umask; touch /tmp/f; stat -c %a /tmp/f /dev/null"
    result = subprocess.run(
        command_line(driver, R, "--", "sh", "-c", program),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        umask=0o777,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, b"0022\n644\n666\n"), result


def test_b63_the_callers_umask_stays_as_it_is(host: Host, R: Path, driver: str) -> None:
    program = "umask; touch /tmp/f; stat -c %a /tmp/f /dev/null"
    before = os.umask(0o777)
    try:
        exit_ = host.run(driver, ["sh", "-c", program], rootfs=R, capture=1000)
    finally:
        after = os.umask(before)
    assert after == 0o777
    assert (exit_.code, exit_.stdout) == (0, b"0022\n644\n666\n")
