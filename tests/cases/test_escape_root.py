"""E01 to E10: the root directory and descriptors.

Each probe runs as root in the job's view and as user 1000. Where a chroot resists only a job that
is not root, it runs under the container's own uid in place of root, and the declaration is asked.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from casekit import LONG, Command, command_line, error_line
from escapekit import (
    USERS,
    Inside,
    Probes,
    assert_condition,
    file_place,
    install,
    parse,
    unchanged_programs,
    unprivileged,
)

from execdrv import Host
from execdrv.errors import ExecdrvError, SpecError


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A secret of the machine's, outside of every root."""
    directory = tmp_path / "machine"
    directory.mkdir()
    path = directory / "canary"
    path.write_text("secret\n")
    return path


# --- E01 ---------------------------------------------------------------------------------------


def test_e01_the_climb_works_where_nothing_resists(R: Path, canary: Path, probes: Probes) -> None:
    command = install(probes, "climb", R)
    result = subprocess.run(["chroot", R, command, canary], capture_output=True, check=True)
    report = parse(result.stdout)
    assert (report["chroot"], report["canary"]) == ("ok", "ok"), report
    assert report["root"] == file_place("/")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root_mode", [None, "direct"])
@pytest.mark.parametrize("more", [(), ("userns",)], ids=["plain", "userns"])
def test_e01_double_chroot(
    inside: Inside,
    R: Path,
    canary: Path,
    driver: str,
    user: str,
    root_mode: str | None,
    more: tuple[str, ...],
) -> None:
    user_ = unprivileged(driver, user)
    report = inside("climb", str(canary), *more, user=user_, root_mode=root_mode)
    assert (report["canary"], report["canary-here"]) == ("ENOENT", "ENOENT"), report
    assert file_place("/") not in (report["root"], report["here"])
    assert report["here"] == report["root"]
    if not more or driver == "chroot":
        # Nobody has CAP_SYS_CHROOT, and in a chroot nobody gets it by a user namespace.
        assert (report["chroot"], report["again"]) == ("EPERM", "EPERM")
    if driver == "chroot":
        assert report["root"] == file_place(R)


def test_e01_double_chroot_with_the_capability(
    inside: Inside, X: Command, host: Host, canary: Path, driver: str
) -> None:
    if driver == "chroot":
        for words in (("SYS_CHROOT",), ("ALL",)):
            result = X("--user", "0", "--cap-add", *words, "--", "true")
            assert result.returncode == 125 and "SYS_CHROOT" in error_line(result)
        assert_condition(host, driver, "fs.escape-chroot", "job-not-root")
        return
    report = inside("climb", str(canary), cap_add=["SYS_CHROOT"])
    assert (report["chroot"], report["again"]) == ("ok", "ok")
    assert (report["canary"], report["canary-here"]) == ("ENOENT", "ENOENT"), report
    assert report["root"] != file_place("/")


# --- E02 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("workdir", [None, "/", "/usr/bin", "/usr/../usr/bin/.."])
def test_e02_the_working_directory_is_in_the_root(
    X: Command, R: Path, canary: Path, probes: Probes, driver: str, user: str, workdir: str | None
) -> None:
    where = [] if workdir is None else ["--workdir", workdir]
    command = install(probes, "where", R)
    # From beside the canary, and with a root named from there.
    result = X(*where, "--user", user, "--", command, cwd=canary.parent, rootfs=f"../{R.name}")
    assert result.returncode == 0, result
    report = parse(result.stdout)
    expected = os.path.normpath(workdir or "/")
    assert report["cwd"] == expected, report
    assert report["link"] == ("ENOENT" if driver == "chroot" else expected)
    names = {name for key in report if key.endswith("names") for name in report[key].split()}
    assert names >= {"bin"} and not names & {"canary", "machine", "R"}, report
    assert report["up-up"] == report["root"]


# --- E03 ---------------------------------------------------------------------------------------

LEAKED = (3, 57, 60, 61, 1500, 2048)


def leak(canary: Path) -> Callable[[], None]:
    """For the child that becomes the command: open a lot, then lower the limit."""

    def prepare() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
        file = os.open(canary, os.O_RDWR)
        directory = os.open(canary.parent, os.O_RDONLY)
        ours, _ = socket.socketpair()
        # Directory and socket where Python's own pipe to its parent is not.
        for number, fd in zip(
            LEAKED, [file, file, directory, ours.fileno(), file, file], strict=True
        ):
            os.dup2(fd, number, inheritable=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    return prepare


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kernel", ["plain", "no-close-range"])
def test_e03_no_descriptor_is_inherited(
    R: Path, canary: Path, probes: Probes, state: Path, driver: str, user: str, kernel: str
) -> None:
    command = install(probes, "fds", R)
    argv = command_line(driver, R, "--user", user, "--", command)
    if kernel == "no-close-range":
        argv = [probes("wrap"), kernel, *argv]
    result = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=leak(canary),
        close_fds=False,
        timeout=30,
        check=False,
    )
    if kernel == "no-close-range" and driver == "chroot":
        # Without a /proc nobody can say what is open: then nothing runs.
        assert (result.returncode, result.stdout) == (125, b""), result
        assert "close_range" in error_line(result)
        return
    assert result.returncode == 0, result
    report = parse(result.stdout)
    assert report["open"] == "0 1 2", report
    assert report["listed"] == ("ENOENT" if driver == "chroot" else "0 1 2")


def test_e03_the_leaks_reach_a_plain_child(R: Path, canary: Path, probes: Probes) -> None:
    result = subprocess.run(
        [probes("fds")],
        stdout=subprocess.PIPE,
        preexec_fn=leak(canary),
        close_fds=False,
        check=True,
    )
    assert set(map(str, LEAKED)) <= set(parse(result.stdout)["open"].split())


@pytest.mark.parametrize("user", USERS)
def test_e03_only_the_descriptors_that_were_named(
    host: Host, R: Path, canary: Path, probes: Probes, driver: str, user: str
) -> None:
    command = install(probes, "fds", R)
    opened = [os.open(canary, os.O_RDONLY) for _ in range(3)]
    try:
        for fd in opened:
            os.set_inheritable(fd, True)
        for passed in ([], opened[1:2], opened[::2]):
            exit_ = host.run(
                driver, [command], rootfs=R, user=user, pass_fds=passed, capture=10_000
            )
            assert exit_.code == 0, exit_
            expected = " ".join(map(str, (0, 1, 2, *passed)))
            assert parse(exit_.stdout)["open"] == expected
    finally:
        for fd in opened:
            os.close(fd)


# --- E04 ---------------------------------------------------------------------------------------


@pytest.fixture
def open_directories(canary: Path) -> Iterator[list[int]]:
    """Directories of the machine, open and inheritable in the caller."""
    opened = [os.open(canary.parent, os.O_RDONLY) for _ in range(3)]
    for fd in opened:
        os.set_inheritable(fd, True)
    yield opened
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize("user", USERS)
def test_e04_no_working_directory_through_a_descriptor(
    host: Host, R: Path, driver: str, open_directories: list[int], user: str
) -> None:
    for number in range(3, 41) if LONG else (3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 17, 24, 40):
        forms = [f"/proc/{whose}/fd/{number}" for whose in ("self", "1", "thread-self")]
        for form in list(forms) if LONG or number < 12 else forms[:1]:
            link = R / f"link-{number}-{form.split('/')[2]}"
            link.symlink_to(form)
            forms.append(f"/{link.name}")
        for form in forms if LONG or number < 12 else forms[:1]:
            with pytest.raises(ExecdrvError) as caught:
                host.run(driver, ["ls", "-la", "."], rootfs=R, user=user, workdir=form)
            assert caught.value.exit_status == 125
            assert form in str(caught.value)


@pytest.mark.parametrize("user", USERS)
def test_e04_no_working_directory_through_a_descriptor_that_the_job_has(
    host: Host, R: Path, driver: str, open_directories: list[int], user: str
) -> None:
    """The job may hold it; that it starts there would be a surprise."""
    for fd in open_directories:
        for form in (f"/proc/self/fd/{fd}", f"/proc/thread-self/fd/{fd}"):
            with pytest.raises(ExecdrvError) as caught:
                host.run(driver, ["true"], rootfs=R, user=user, workdir=form, pass_fds=[fd])
            assert caught.value.exit_status == 125
            assert form in str(caught.value)


def test_e04_nothing_leaks_from_the_command_line(
    X: Command, R: Path, canary: Path, driver: str, open_directories: list[int]
) -> None:
    for number in (*range(3, 12), *open_directories):
        result = X(
            "--workdir", f"/proc/self/fd/{number}", "--", "cat", "../../canary", "canary",
            cwd=canary.parent, close_fds=False,
        )  # fmt: skip
        assert (result.returncode, result.stdout) == (125, b""), result
        assert f"/proc/self/fd/{number}" in error_line(result)


# --- E05 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "capabilities"), [("0", ()), ("1000", ()), ("0", ("SYS_PTRACE",))]
)
def test_e05_no_program_of_the_machine_is_in_view(
    inside: Inside, driver: str, user: str, capabilities: tuple[str, ...]
) -> None:
    asked = {"cap_add": list(capabilities)} if capabilities else {}
    with unchanged_programs():
        report = inside("exes", *programs(), user=user, **asked)
    assert (report["foreign"], report["writable"]) == ("0", "0"), report
    if driver == "chroot":
        assert report["seen"] == "0"
        return
    assert report["seen"] == "2"
    # With the capability the init's own program can be read: it is a sealed copy.
    assert report["read-1"] == ("ok" if capabilities else "EACCES")
    assert report["write-1"] in ("EACCES", "ETXTBSY")


def programs() -> list[str]:
    """Where every program of the machine lies that a process around here runs from."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.add(file_place(f"/proc/{name}/exe"))
            except OSError:
                continue
    return sorted(found)


@pytest.mark.parametrize("user", USERS)
def test_e05_a_script_whose_interpreter_is_the_program_that_executes_it(
    X: Command, R: Path, driver: str, user: str
) -> None:
    """What runs then is the init's sealed copy, with the job's rights, and it refuses."""
    (R / "script").write_text("#!/proc/self/exe\n")
    (R / "script").chmod(0o755)
    with unchanged_programs():
        result = X("--user", user, "--", "/script", check_time_s=10)
        again = X("--user", user, "--", "sh", "-c", "/script; echo $?", check_time_s=10)
    assert result.returncode != 0 and result.stdout == b"", result
    if driver == "chroot":
        assert result.returncode == 127, result
    assert again.returncode == 0, again


# --- E07 ---------------------------------------------------------------------------------------


def test_e07_descriptors_that_are_not_open_are_refused(
    X: Command, R: Path, state: Path, canary: Path, probes: Probes
) -> None:
    command = install(probes, "fds", R)
    result = X("--pass-fd", "3,4,5", "--", command)
    assert (result.returncode, result.stdout) == (125, b""), result
    assert "descriptor 3" in error_line(result) and "not open" in error_line(result)
    assert not state.exists()

    def open_the_first() -> None:
        os.dup2(os.open(canary, os.O_RDONLY), 3)

    result = X("--pass-fd", "3,4,5", "--", command, preexec_fn=open_the_first, close_fds=False)
    assert (result.returncode, result.stdout) == (125, b""), result
    assert "descriptor 4" in error_line(result)
    assert not state.exists()


def test_e07_descriptors_that_are_not_open_are_refused_by_the_api(
    host: Host, R: Path, state: Path, driver: str
) -> None:
    assert host.run(driver, ["true"], rootfs=R).code == 0
    before = sorted(state.rglob("*"))
    closed = max(map(int, os.listdir("/proc/self/fd"))) + 10
    with pytest.raises(SpecError, match=rf"descriptor {closed}\b.*not open"):
        host.run(driver, ["true"], rootfs=R, pass_fds=[closed, closed + 1])
    assert sorted(state.rglob("*")) == before


# --- E10 ---------------------------------------------------------------------------------------


def test_e10_a_handle_opens_where_nothing_resists(tmp_path: Path, probes: Probes) -> None:
    result = subprocess.run(
        [probes("handle"), tmp_path / "f", tmp_path], capture_output=True, check=True
    )
    report = parse(result.stdout)
    if report["name"] != "ok":
        pytest.skip(f"the file system of {tmp_path} has no handles: {report['name']}")
    assert report["open"] == "ok"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root_mode", [None, "direct"])
def test_e10_no_file_is_opened_by_its_handle(
    inside: Inside, R: Path, driver: str, user: str, root_mode: str | None
) -> None:
    named = 0
    for directory in ("/tmp", "/var"):
        (R / directory[1:]).mkdir(exist_ok=True)
        (R / directory[1:]).chmod(0o1777)
        report = inside(
            "handle", f"{directory}/f", directory, user=unprivileged(driver, user),
            root_mode=root_mode,
        )  # fmt: skip
        assert report["open"] == "EPERM" or report["name"] == "EOPNOTSUPP", report
        named += report["name"] == "ok"
    assert named, "no file system of the container has handles"


def test_e10_chroot_declares_what_root_may(host: Host, driver: str) -> None:
    condition = "job-without-capabilities" if driver == "chroot" else "capabilities-default"
    assert_condition(host, driver, "esc.handle", condition)
