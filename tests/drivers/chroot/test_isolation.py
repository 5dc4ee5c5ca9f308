"""What a job in a chroot is, and what it can't do: seen from inside and, without /proc, outside."""

from __future__ import annotations

import os
import pty
import resource
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from driver_boxes import Boxes, Running

from execdrv.errors import StartError
from execdrv.linux import syscalls

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def read_status(running: Running) -> dict[str, str]:
    """/proc/PID/status of the job."""
    text = Path(f"/proc/{running.job.pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def see_status(boxes: Boxes, **fields: Any) -> dict[str, str]:
    seen: dict[str, str] = boxes.run("cat", look=read_status, **fields).seen
    return seen


# --- the root ------------------------------------------------------------------------------------


def test_the_jobs_root_and_directory_are_the_root(boxes: Boxes) -> None:
    def look(running: Running) -> Any:
        links = [os.stat(f"/proc/{running.job.pid}/{name}") for name in ("root", "cwd")]
        links.append(os.stat(f"/proc/{running.watched.pid}/root"))
        return [(info.st_dev, info.st_ino) for info in links]

    expected = (boxes.rootfs.stat().st_dev, boxes.rootfs.stat().st_ino)
    assert boxes.run("cat", look=look).seen == [expected] * 3


def test_the_drivers_directory_is_out_of_reach(boxes: Boxes, tmp_path: Path) -> None:
    """Also where the caller stands below the root, or in a directory with a canary."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "secret").touch()
    script = "pwd; ls; ls ..; ls ../..; ls ../../../../../.."
    for directory in (canary, boxes.rootfs / "tmp"):
        result = boxes.sh(script, first=lambda at=directory: os.chdir(at))
        lines = result.text.split()
        assert lines[0] == "/"
        assert "secret" not in lines and "canary" not in lines
        assert lines.count("bin") == 4


def test_links_and_dots_end_at_the_root(boxes: Boxes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    (boxes.rootfs / "tmp/absolute").symlink_to(tmp_path / "secret")
    (boxes.rootfs / "tmp/dots").symlink_to("../" * 40 + str(tmp_path / "secret").lstrip("/"))
    for path in ("/tmp/absolute", "/tmp/dots", f"/../../..{tmp_path}/secret"):
        result = boxes.run("cat", path)
        assert result.code == 1
        assert b"canary" not in result.stdout


@pytest.mark.parametrize("number", [3, 4, 5, 9, 20, 40])
def test_no_directory_leads_through_a_descriptor(boxes: Boxes, number: int) -> None:
    (boxes.rootfs / "link").symlink_to(f"/proc/self/fd/{number}")
    for directory in (f"/proc/self/fd/{number}", f"/proc/1/fd/{number}", "/link"):
        with pytest.raises(StartError, match=directory):
            boxes.run("pwd", workdir=directory)


def test_a_working_directory_is_entered_as_the_user(boxes: Boxes, uid: int) -> None:
    (boxes.rootfs / "private").mkdir(mode=0o700)
    with pytest.raises(StartError, match="/private"):
        boxes.run("pwd", workdir="/private")
    with pytest.raises(StartError, match="/nope"):
        boxes.run("pwd", workdir="/nope")
    os.chown(boxes.rootfs / "private", uid, uid)
    assert boxes.run("pwd", workdir="/private").text == "/private\n"


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("user", [None, "0:0"])
def test_the_climb_out_of_a_chroot_fails(boxes: Boxes, tmp_path: Path, user: str | None) -> None:
    canary = tmp_path / "canary"
    canary.touch()
    fields = {} if user is None else {"user": user}
    result = boxes.run("/bin/escape", "climb", str(canary), **fields)
    assert result.text == "chroot: Operation not permitted\n"


@pytest.mark.usefixtures("programs")
def test_the_climb_succeeds_with_the_capability_that_no_job_gets(
    boxes: Boxes, tmp_path: Path
) -> None:
    """The control: without our barrier the same program escapes."""
    canary = tmp_path / "canary"
    canary.touch()
    result = boxes.run(
        "/bin/escape", "climb", str(canary), user="0:0", cap_add=["SYS_CHROOT"], check=False
    )
    assert result.text == "escaped\n"


def test_nothing_of_a_hostile_root_is_loaded(boxes: Boxes) -> None:
    """A module for every place where python or libc might look, that would leave a mark."""
    import sys
    import sysconfig

    places = {*sys.path, sysconfig.get_path("stdlib"), "/lib/x86_64-linux-gnu", "/usr/lib"}
    for place in places:
        if place.startswith("/"):
            directory = boxes.rootfs / place.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            for module in ("encodings", "pwd", "grp", "socket", "traceback"):
                (directory / f"{module}.py").write_text("open('/MARK', 'w')\n")
    with pytest.raises(StartError):
        boxes.run("/nosuch", "\udcff")
    assert boxes.run("echo", b"\xff\xfe").stdout == b"\xff\xfe\n"
    assert not (boxes.rootfs / "MARK").exists()


def test_links_at_the_places_of_mounts_make_nothing_outside(boxes: Boxes, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("proc", "sys", "dev"):
        shutil.rmtree(boxes.rootfs / name)
        (boxes.rootfs / name).symlink_to(outside)
    assert boxes.sh("exit 4").code == 4
    assert list(outside.iterdir()) == []


# --- descriptors and terminals -------------------------------------------------------------------


def leak_descriptors(directory: Path) -> None:
    """As a careless caller: inheritable descriptors at high numbers, and a lowered limit."""
    fd = os.open(directory, os.O_RDONLY)
    for number in (3, 57, 1500, 2048):
        os.dup2(fd, number, inheritable=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@pytest.mark.usefixtures("programs")
def test_the_job_has_its_three_descriptors_alone(boxes: Boxes, tmp_path: Path) -> None:
    result = boxes.run("/bin/probe", "fds", first=lambda: leak_descriptors(tmp_path))
    assert result.text.split() == ["0", "1", "2"]


@pytest.mark.usefixtures("programs")
def test_passed_descriptors_keep_their_numbers(boxes: Boxes, tmp_path: Path) -> None:
    def open_them() -> None:
        (tmp_path / "given").write_text("given\n")
        fd = os.open(tmp_path / "given", os.O_RDONLY)
        os.dup2(fd, 40)

    result = boxes.run("/bin/probe", "fds", first=open_them, pass_fds=[40])
    assert result.text.split() == ["0", "1", "2", "40"]
    assert boxes.sh("cat <&40", first=open_them, pass_fds=[40]).text == "given\n"


@pytest.mark.usefixtures("programs")
def test_a_root_that_brings_its_own_list_of_descriptors_changes_nothing(
    boxes: Boxes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where close_range(2) is missing, what is open is read from the machine's /proc."""

    def fail(first: int, last: int = 0, flags: int = 0) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(syscalls, "close_range", fail)
    fake = boxes.rootfs / "proc/self/fd"
    fake.mkdir(parents=True)
    (fake / "no number").touch()
    result = boxes.run("/bin/probe", "fds", first=lambda: leak_descriptors(tmp_path))
    assert result.text.split() == ["0", "1", "2"]


@pytest.mark.usefixtures("programs")
def test_the_callers_terminal_takes_no_letter_from_the_job(boxes: Boxes, tmp_path: Path) -> None:
    """Of a caller that has this terminal as its controlling one, as a shell's user has."""

    def take_terminal() -> None:
        _, terminal = pty.openpty()
        os.dup2(terminal, 7)
        os.setsid()
        # Opening it makes it the controlling terminal of this new session.
        os.close(os.open(os.ttyname(terminal), os.O_RDWR))

    def look(running: Running) -> str:
        return Path(f"/proc/{running.job.pid}/stat").read_text()

    result = boxes.sh("exec /bin/probe inject <&7", first=take_terminal, pass_fds=[7])
    assert result.text.startswith("TIOCSTI: ")
    seen = boxes.run("cat", first=take_terminal, look=look).seen
    _, _, _, session, terminal_number, *_ = seen[seen.rindex(")") + 2 :].split()
    assert terminal_number == "0"
    assert session == seen.split()[0]


# --- who the job is ------------------------------------------------------------------------------


def test_a_job_of_the_default_user_has_no_right_at_all(boxes: Boxes, uid: int) -> None:
    status = see_status(boxes)
    assert [int(status[name], 16) for name in CAPABILITY_SETS] == [0] * 5
    assert status["NoNewPrivs"] == "1"
    assert status["Uid"].split() == status["Gid"].split() == [str(uid)] * 4
    assert status["Groups"].split() == [str(uid)]


def test_a_root_job_has_no_capability_unless_asked(boxes: Boxes) -> None:
    status = see_status(boxes, user="0:0")
    assert [int(status[name], 16) for name in CAPABILITY_SETS] == [0] * 5
    status = see_status(boxes, user="0:0", cap_add=["CHOWN"])
    assert [int(status[name], 16) for name in CAPABILITY_SETS] == [0, 1, 1, 1, 0]


@pytest.mark.usefixtures("programs")
def test_groups_of_the_caller_are_gone(boxes: Boxes, uid: int) -> None:
    result = boxes.run("id", "-G", first=lambda: os.setgroups([27, 1000]))
    assert result.text.split() == [str(uid)]
    assert boxes.run("/bin/probe", "groups").text == "setgroups: Operation not permitted\n"


@pytest.mark.usefixtures("programs")
def test_setuid_programs_give_nothing(boxes: Boxes, uid: int) -> None:
    program = boxes.rootfs / "bin/escape"
    program.chmod(0o6755)
    assert stat.S_IMODE(program.stat().st_mode) == 0o6755
    assert boxes.run("/bin/escape", "euid").text == f"{uid}\n"


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("user", [None, "0:0"])
@pytest.mark.parametrize(
    ("program", "act", "answer"),
    [
        ("probe", "handle", "open_by_handle_at: Operation not permitted"),
        # Not by a right that is missing: nobody in a chroot can.
        ("probe", "userns", "unshare: Operation not permitted"),
        ("probe", "keepcaps", "securebits: Operation not permitted"),
        ("escape", "packet", "socket: Operation not permitted"),
    ],
)
def test_what_takes_a_capability_is_refused(
    boxes: Boxes, user: str | None, program: str, act: str, answer: str
) -> None:
    fields = {} if user is None else {"user": user}
    assert boxes.run(f"/bin/{program}", act, **fields).text == answer + "\n"


@pytest.mark.usefixtures("programs")
def test_user_namespaces_are_refused_to_a_job_with_capabilities_too(boxes: Boxes) -> None:
    result = boxes.run("/bin/probe", "userns", user="0:0", cap_add=["SYS_ADMIN"])
    assert result.text == "unshare: Operation not permitted\n"


@pytest.mark.usefixtures("programs")
def test_handles_open_with_the_capability(boxes: Boxes) -> None:
    """The control of the refusal above."""
    result = boxes.run("/bin/probe", "handle", user="0:0", cap_add=["DAC_READ_SEARCH"])
    assert result.text == "done\n"


@pytest.mark.parametrize("node", ["c 1 3", "b 7 0"])
def test_no_device_node_can_be_made(boxes: Boxes, node: str) -> None:
    result = boxes.sh(f"mknod /tmp/node {node}")
    assert result.code == 1
    assert not (boxes.rootfs / "tmp/node").exists()


@pytest.mark.usefixtures("programs")
def test_processes_of_the_machine_are_reached_by_their_own_user_only(boxes: Boxes) -> None:
    """Declared: a chroot hides no process; a user of the container's own can signal none."""
    pid = str(os.getpid())
    assert boxes.run("/bin/probe", "signal", pid).text == "kill: Operation not permitted\n"
    assert boxes.run("/bin/probe", "signal", pid, user="0:0").text == "done\n"


def test_files_of_root_are_closed_and_the_jobs_own_files_are_its_own(
    boxes: Boxes, uid: int
) -> None:
    (boxes.rootfs / "secret").write_text("canary")
    (boxes.rootfs / "secret").chmod(0o600)
    result = boxes.sh("cat /secret; echo x > /tmp/mine; chown 0 /tmp/mine; chmod 4755 /tmp/mine")
    assert b"canary" not in result.stdout
    info = (boxes.rootfs / "tmp/mine").stat()
    assert info.st_uid == info.st_gid == uid
