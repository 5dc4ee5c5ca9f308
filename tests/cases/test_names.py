"""B34 to B42: environment, names, paths."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from casekit import Command, assert_unsupported, command_line, error_line

from execdrv import Host, wire
from execdrv.errors import SpecError, UnsupportedError
from execdrv.spec import NAME_PATTERN, Bind, ContainerSpec

#: Directory names that break programs which split or escape paths.
ODD_NAMES = ("m a", "m,b", "m:c", "m\nd", "m\\e", "m\tf")


def execdrv(*words: Any) -> subprocess.CompletedProcess[bytes]:
    """Another command than `run`."""
    argv = [sys.executable, "-m", "execdrv", *words]
    return subprocess.run(argv, capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("value", [b"x\x1b[0m\x01", b"\x1b\x1b\n\xff\x7f", b"a=b\rc'\"\\"])
def test_b34_control_characters_pass_through_the_environment(
    X: Command, tmp_path: Path, value: bytes
) -> None:
    report = tmp_path / "report.json"
    word = b"A=" + value
    result = X("--env", word, "--result", report, "--", "sh", "-c", 'printf %s "$A"')
    assert (result.returncode, result.stdout) == (0, value), result
    plain = json.loads(report.read_text())
    assert wire.decode(ContainerSpec, plain["spec"]).env == (word,)
    (tmp_path / "spec.json").write_text(json.dumps(plain["spec"]))
    again = X("--spec", tmp_path / "spec.json", "--", "sh", "-c", 'printf %s "$A"')
    assert (again.returncode, again.stdout) == (0, value), again


def test_b34_control_characters_pass_through_the_api(host: Host, R: Path, driver: str) -> None:
    value = "x\x1b[0m\x01"
    exit_ = host.run(
        driver, ["sh", "-c", 'printf %s "$A"'], rootfs=R, env={"A": value}, capture=100
    )
    assert (exit_.code, exit_.stdout) == (0, value.encode())


def test_b36_bytes_that_are_no_text(host: Host, R: Path, driver: str) -> None:
    directory = os.fsencode(R) + b"/w/a\nb\xff"
    os.makedirs(directory)
    exit_ = host.run(
        driver, [b"printf", b"%s", b"\xff\n"], rootfs=R, workdir=b"/w/a\nb\xff", capture=100
    )
    assert (exit_.code, exit_.stdout) == (0, b"\xff\n")
    where = host.run(driver, ["pwd"], rootfs=R, workdir=b"/w/a\nb\xff", capture=100)
    assert (where.code, where.stdout) == (0, b"/w/a\nb\xff\n")


def test_b36_the_command_line_and_the_state_take_any_bytes(
    host: Host, X: Command, R: Path, driver: str
) -> None:
    os.makedirs(os.fsencode(R) + b"/w/a\nb\xff")
    result = X("--workdir", b"/w/a\nb\xff", "--", b"printf", b"%s", b"\xff\n")
    assert (result.returncode, result.stdout) == (0, b"\xff\n"), result
    missing = X("--workdir", b"/w/none\xff", "--", "true")
    assert missing.returncode == 125
    assert "none\\xff" in error_line(missing) or "none\\udcff" in error_line(missing)
    argv = [b"sh", b"-c", b"sleep 60", b"\xfe\x1b"]
    with host.start(driver, argv, rootfs=R, name="b36", workdir=b"/w/a\nb\xff"):
        listed = execdrv("ps")
        assert listed.returncode == 0 and b"b36" in listed.stdout, listed
        assert b"\x1b" not in listed.stdout and b"\xfe" not in listed.stdout
        inspected = execdrv("inspect", "--json", "b36")
        assert inspected.returncode == 0, inspected
        spec = wire.decode(ContainerSpec, json.loads(inspected.stdout)["spec"])
        assert spec.argv == tuple(argv)
        assert spec.workdir == b"/w/a\nb\xff"


@pytest.mark.parametrize("name", ["r.busybox", "A_1-x", "a" * 64])
def test_b37_harmless_names_are_accepted(host: Host, R: Path, driver: str, name: str) -> None:
    with host.start(driver, ["sleep", "60"], rootfs=R, name=name):
        assert [container.id for container in host.containers()] == [name]
        assert name.encode() in execdrv("ps", "-q").stdout.splitlines()


REFUSED_NAMES = (
    "a/b", "..", ".x", "", "a b", "a ", "a\n", "\u00e9", "a" * 65, "a" * 300, "-x", "/a",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_b37_other_names_are_refused_with_the_pattern(
    host: Host, R: Path, state: Path, driver: str, name: str
) -> None:
    with pytest.raises(SpecError) as caught:
        host.run(driver, ["true"], rootfs=R, name=name)
    assert NAME_PATTERN in str(caught.value)
    assert not state.exists() or not any(state.rglob("containers/*"))
    assert host.containers() == []


def test_b37_the_command_line_refuses_them_too(X: Command, state: Path) -> None:
    for name in ("a/b", "", "a\n", "a" * 300):
        result = X(f"--name={name}", "--", "true")
        assert result.returncode == 125, result
        assert NAME_PATTERN in error_line(result)
    assert not state.exists() or not any(state.rglob("containers/*"))
    listed = execdrv("ps", "--json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])


def test_b38_names_of_internal_files_collide_with_nothing(
    host: Host, R: Path, state: Path, driver: str
) -> None:
    with host.start(driver, ["sleep", "60"], rootfs=R, name="b38") as first:
        found = {path.name for path in state.rglob("*") if R not in path.parents}
        names = sorted(found | {"lock", "tmp", "lxc", "containers", "leases", "record", "socket"})
        names = [name for name in names if name != "b38"]
        assert len(names) >= 7
        for name in names:
            try:
                exit_ = host.run(driver, ["sh", "-c", "echo ok"], rootfs=R, name=name, capture=9)
            except SpecError:
                continue
            assert (exit_.code, exit_.stdout) == (0, b"ok\n"), name
        assert first.state == "running"
        first.signal(15)
        assert first.wait(5).signal == 15


def test_b39_a_host_name_of_64_characters(X: Command, driver: str) -> None:
    longest = "h" * 64
    result = X("--hostname", longest, "--", "hostname")
    if driver == "chroot":
        assert_unsupported(result, "--hostname", "'chroot'", "native")
    else:
        assert (result.returncode, result.stdout) == (0, longest.encode() + b"\n"), result


@pytest.mark.parametrize(("name", "said"), [("h" * 65, "64"), ("a b", ""), ("", ""), ("-x", "")])
def test_b39_impossible_host_names_are_refused(
    host: Host, X: Command, R: Path, driver: str, name: str, said: str
) -> None:
    with pytest.raises(SpecError) as caught:
        host.run(driver, ["true"], rootfs=R, hostname=name)
    assert "hostname" in str(caught.value) and said in str(caught.value)
    if said:
        result = X("--hostname", name, "--", "hostname")
        assert result.returncode == 125, result
        assert said in error_line(result)


def mount_options(mountinfo: bytes, path: bytes) -> set[bytes]:
    """The options of the mount at a path, from a job's /proc/self/mountinfo (proc(5))."""
    for line in mountinfo.splitlines():
        fields = line.split(b" ")
        place = fields[4]
        for number in (9, 10, 32, 92):
            place = place.replace(b"\\%03o" % number, bytes([number]))
        if place == path:
            return set(fields[5].split(b","))
    return set()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_b40_binds_at_odd_paths(
    host: Host, R: Path, tmp_path: Path, driver: str, name: str
) -> None:
    source = tmp_path / name
    source.mkdir()
    (source / "f").write_text("seen\n")
    target = f"/{name}"
    program = (
        'cat "$1/f"; (echo x >"$1/f") 2>/dev/null && echo WROTE; '
        '(echo x >"$1/g") 2>/dev/null && echo WROTE; cat /proc/self/mountinfo'
    )
    bind = Bind(source=source, target=target, read_only=True)
    argv = ["sh", "-c", program, "sh", target]
    if driver == "chroot":
        with pytest.raises(UnsupportedError, match=r"--bind: driver 'chroot'"):
            host.run(driver, argv, rootfs=R, binds=[bind])
        return
    exit_ = host.run(driver, argv, rootfs=R, binds=[bind], capture=1 << 16)
    first, _, rest = exit_.stdout.partition(b"\n")
    assert (exit_.code, first) == (0, b"seen"), exit_
    assert b"WROTE" not in rest
    assert {b"ro", b"nosuid", b"nodev"} <= mount_options(rest, target.encode())
    assert (source / "f").read_text() == "seen\n"
    assert os.listdir(source) == ["f"]


def test_b40_a_bind_on_the_command_line_may_have_colons(
    X: Command, tmp_path: Path, driver: str
) -> None:
    source = tmp_path / "m:c"
    source.mkdir()
    (source / "f").write_text("seen\n")
    word = f"{source}".replace(":", "\\:") + ":/x\\:y:ro"
    result = X("--bind", word, "--", "cat", "/x:y/f")
    if driver == "chroot":
        assert_unsupported(result, "--bind", "'chroot'", "native")
    else:
        assert (result.returncode, result.stdout) == (0, b"seen\n"), result


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("mode", ["default", "direct"])
def test_b40_root_directories_of_odd_names(
    host: Host, R: Path, tmp_path: Path, driver: str, name: str, mode: str
) -> None:
    root = tmp_path / name
    R.rename(root)
    (root / "marker").write_text("seen\n")
    fields: dict[str, Any] = {} if mode == "default" else {"root_mode": "direct"}
    exit_ = host.run(driver, ["cat", "/marker"], rootfs=root, capture=100, **fields)
    assert (exit_.code, exit_.stdout) == (0, b"seen\n")
    root.rename(R)


def root_forms(R: Path, links: Path) -> dict[str, tuple[str, Path]]:
    """Ways to name R: by what is said of each, the path and the directory to say it in."""
    links.mkdir()
    (links / "root").symlink_to(R)
    (links / "parent").symlink_to(R.parent)
    (links / "up").symlink_to("..")
    return {
        "trailing slash": (f"{R}/", links),
        "relative": (f"./{R.name}", R.parent),
        "dot at the end": (f"{R.name}/.", R.parent),
        "dot": (".", R),
        "link": (str(links / "root"), links),
        "relative link": ("root/", links),
        "linked parent": (str(links / "parent" / R.name), links),
        "relative linked parent": (f"up/{R.name}", links),
        "doubled slashes": (f"//{str(R)[1:].replace('/', '//')}", links),
        "dot in a linked directory": (".", links / "root"),
    }


def test_b42_every_form_of_a_root_path(
    host: Host, R: Path, tmp_path: Path, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (R / "marker").write_text("seen\n")
    found = R.stat()
    inside = f"{found.st_dev}:{found.st_ino}\nseen\n".encode()
    before = os.getcwd()
    for said, (path, directory) in root_forms(R, tmp_path / "links").items():
        monkeypatch.chdir(directory)
        argv = ["sh", "-c", "stat -c %d:%i /; cat /marker"]
        exit_ = host.run(driver, argv, rootfs=path, root_mode="direct", capture=100)
        assert (exit_.code, exit_.stdout) == (0, inside), said
        exit_ = host.run(driver, ["cat", "/marker"], rootfs=path, capture=100)
        assert (exit_.code, exit_.stdout) == (0, b"seen\n"), said
    monkeypatch.chdir(before)


def test_b42_a_root_path_on_the_command_line(driver: str, R: Path, state: Path) -> None:
    for path, directory in ((".", R), (f"./{R.name}/", R.parent)):
        argv = command_line(driver, path, "--", "test", "-x", "/bin/busybox")
        result = subprocess.run(argv, cwd=directory, capture_output=True, timeout=20, check=False)
        assert result.returncode == 0, result


@pytest.mark.parametrize("kind", ["dangling link", "file", "empty", "missing"])
def test_b42_what_is_no_directory_is_refused(
    host: Host, X: Command, R: Path, tmp_path: Path, driver: str, kind: str
) -> None:
    path = tmp_path / "other"
    if kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "file":
        path.write_text("")
    said = "" if kind == "empty" else str(path)
    started = time.monotonic()
    with pytest.raises(SpecError, match="rootfs") as caught:
        host.run(driver, ["true"], rootfs=said)
    assert time.monotonic() - started < 1
    assert repr(said) in str(caught.value)
    result = X("--", "true", rootfs=said)
    assert result.returncode == 125, result
    assert repr(said) in error_line(result)
