"""E31 to E36: capabilities, users, groups, the terminal.

Left for later: attaches (E31), user namespaces of ordinary users (E34).
"""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import subprocess
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from casekit import Command, command_line, error_line, wait_until
from escapekit import USERS, Inside, Probes, Report, install, offer, parse

from execdrv import Host
from execdrv.errors import CommandNotExecutableError, ExecdrvError, SpecError
from execdrv.linux.capabilities import CAPABILITIES, CONTAINER_CAPABILITIES
from execdrv.spec import Bind


def mask(names: Any) -> str:
    return f"{sum(1 << CAPABILITIES.index(name) for name in names):x}"


def defaults(driver: str) -> str:
    """The documented default set."""
    return "0" if driver == "chroot" else mask(CONTAINER_CAPABILITIES)


NONE = {"inheritable": "0", "ambient": "0", "securebits": "0", "keepcaps": "0"}


def assert_sets(report: Report, *, bounding: str, held: str) -> None:
    """The five capability sets, and that nothing brings one back."""
    expected = NONE | {"bounding": bounding, "permitted": held, "effective": held}
    assert {key: report[key] for key in expected} == expected, report
    assert report["no-new-privs"] == "1"


def wrapped(
    probes: Probes, how: str, driver: str, R: Path, *options: str, name: str = "ids"
) -> subprocess.CompletedProcess[bytes]:
    """The command of a caller with surprising capabilities."""
    command = install(probes, name, R)
    argv = [probes("wrap"), how, *command_line(driver, R, *options, "--", command)]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
    )


# --- E31, E32 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("user", USERS)
def test_e31_e32_the_capabilities_of_a_job(inside: Inside, driver: str, user: str) -> None:
    held = defaults(driver) if user == "0" else "0"
    assert_sets(inside("ids", user=user), bounding=defaults(driver), held=held)
    assert_sets(inside("ids", user=user, cap_drop=["ALL"]), bounding="0", held="0")
    if driver != "chroot":
        left = CONTAINER_CAPABILITIES - {"CHOWN"}
        report = inside("ids", user=user, cap_drop=["CHOWN"])
        assert_sets(report, bounding=mask(left), held=mask(left) if user == "0" else "0")


def test_e31_e32_the_capabilities_of_a_job_that_nobody_named(inside: Inside, driver: str) -> None:
    report = inside("ids")
    assert_sets(report, bounding=defaults(driver), held=defaults(driver))
    assert (report["uid"] == "0 0 0") == (driver != "chroot")


@pytest.mark.parametrize("user", USERS)
def test_e31_the_callers_inheritable_set_is_not_passed_on(
    R: Path, state: Path, probes: Probes, driver: str, user: str
) -> None:
    control = subprocess.run(
        [probes("wrap"), "capabilities", probes("ids")], capture_output=True, check=True
    )
    assert "0" not in {parse(control.stdout)[name] for name in ("inheritable", "ambient")}
    result = wrapped(probes, "capabilities", driver, R, "--user", user)
    assert result.returncode == 0, result
    held = defaults(driver) if user == "0" else "0"
    assert_sets(parse(result.stdout), bounding=defaults(driver), held=held)


@pytest.mark.parametrize("user", USERS)
def test_e31_file_capabilities_give_nothing(
    inside: Inside, R: Path, probes: Probes, driver: str, user: str
) -> None:
    # vfs_cap_data of capabilities(7), revision 2: every capability permitted and inheritable.
    set_file_capabilities(R / install(probes, "ids", R)[1:], 0x02000000)
    held = defaults(driver) if user == "0" else "0"
    assert_sets(inside("ids", user=user), bounding=defaults(driver), held=held)


@pytest.mark.parametrize("user", USERS)
def test_e31_a_file_that_insists_on_capabilities_is_not_executed(
    inside: Inside, R: Path, probes: Probes, driver: str, user: str
) -> None:
    """With the effective bit the kernel runs it with all it asks for, or not at all (EPERM)."""
    set_file_capabilities(R / install(probes, "ids", R)[1:], 0x02000001)
    with pytest.raises(CommandNotExecutableError, match="not permitted"):
        inside("ids", user=user)


def set_file_capabilities(file: Path, revision_and_flag: int) -> None:
    words = array.array("I", [revision_and_flag, *[0xFFFFFFFF] * 4])
    try:
        os.setxattr(file, "security.capability", words.tobytes())
    except OSError as error:
        pytest.skip(f"this machine takes no file capabilities: {error}")


def test_e32_an_ordinary_user_has_no_rights(inside: Inside, R: Path, driver: str) -> None:
    (R / "owned").write_text("")
    report = inside("rights", "/owned", user="1000")
    for action in ("chown", "setuid", "raw", "mount", "chroot"):
        assert report[action] == "EPERM", report
    assert report["bind-80"] == "EACCES" or driver == "chroot", report
    owner = (R / "owned").stat()
    assert (owner.st_uid, owner.st_gid) == (0, 0)


def test_e32_roots_rights_are_those_of_the_set(inside: Inside, R: Path, driver: str) -> None:
    (R / "owned").write_text("")
    report = inside("rights", "/owned", user="0")
    assert {report[action] for action in ("raw", "mount", "chroot")} == {"EPERM"}
    if driver == "chroot":
        assert report["chown"] == "EPERM"
    else:
        assert (report["chown"], report["bind-80"]) == ("ok", "ok")


def test_e32_capabilities_for_an_ordinary_user_are_refused(
    host: Host, R: Path, driver: str
) -> None:
    for names in (["CHOWN"], ["ALL"]):
        with pytest.raises(ExecdrvError) as caught:
            host.run(driver, ["true"], rootfs=R, user="1000", cap_add=names)
        assert caught.value.exit_status == 125


@pytest.mark.parametrize("user", USERS)
def test_e32_securebits_of_the_caller_keep_nothing(
    R: Path, state: Path, probes: Probes, driver: str, user: str
) -> None:
    """With SECBIT_NO_SETUID_FIXUP, a change of uid takes nothing away."""
    control = subprocess.run(
        [probes("wrap"), "securebits", probes("ids")], capture_output=True, check=True
    )
    assert parse(control.stdout)["securebits"] == "4"
    result = wrapped(probes, "securebits", driver, R, "--user", user)
    if result.returncode == 125:
        assert result.stdout == b"" and "securebits" in error_line(result)
        return
    assert result.returncode == 0, result
    held = defaults(driver) if user == "0" else "0"
    assert_sets(parse(result.stdout), bounding=defaults(driver), held=held)


# --- E33 ---------------------------------------------------------------------------------------


def plant(probes: Probes, name: str, place: Path, *, mode: int, uid: int, gid: int) -> None:
    shutil.copy(probes(name), place)
    os.chown(place, uid, gid)
    place.chmod(mode)


def test_e33_the_trap_works(tmp_path: Path, probes: Probes) -> None:
    """Where nothing resists, the planted program changes who runs it."""
    directory = tmp_path / "open"
    directory.mkdir()
    plant(probes, "ids", directory / "suid", mode=0o6755, uid=1234, gid=1235)
    result = subprocess.run([directory / "suid"], capture_output=True, check=True)
    report = parse(result.stdout)
    assert report["uid"].split()[1] == "1234" and report["gid"].split()[1] == "1235"


@pytest.mark.parametrize("root_mode", [None, "direct"])
def test_e33_setuid_programs_are_inert(
    host: Host, R: Path, tmp_path: Path, probes: Probes, driver: str, root_mode: str | None
) -> None:
    places = [R / "bin/suid", R / "usr/bin/suid"]
    fields: dict[str, Any] = {}
    if driver != "chroot":
        (tmp_path / "h").mkdir()
        (R / "h").mkdir()
        places.append(tmp_path / "h/suid")
        fields["binds"] = [Bind(source=bytes(tmp_path / "h"), target=b"/h")]
    for place in places:
        plant(probes, "ids", place, mode=0o6755, uid=0, gid=0)
    for name in ("/bin/suid", "/usr/bin/suid", "/h/suid")[: len(places)]:
        for argv in ([name], ["sh", "-c", f"{name}; exit $?"]):
            exit_ = host.run(
                driver, argv, rootfs=R, root_mode=root_mode, user="1000", capture=10_000, **fields
            )
            assert exit_.code == 0, exit_
            report = parse(exit_.stdout)
            assert (report["uid"], report["gid"]) == ("1000 1000 1000", "1000 1000 1000"), name
            assert_sets(report, bounding=defaults(driver), held="0")


# --- E34 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["0", "1000", "1000:5001", "12345"])
@pytest.mark.parametrize("groups", [None, ["5002"], ["5002", "0", "27", "5002"]])
def test_e34_exactly_the_groups_of_the_spec(
    inside: Inside, user: str, groups: list[str] | None
) -> None:
    report = inside("ids", user=user, groups=groups)
    primary = user.partition(":")[2] or user
    assert report["gid"] == " ".join([primary] * 3)
    assert set(report["groups"].split()) == {primary, *(groups or [])}


def test_e34_the_callers_groups_are_gone(R: Path, state: Path, probes: Probes, driver: str) -> None:
    (R / "canary").write_text("secret\n")
    os.chown(R / "canary", 0, 4242)
    (R / "canary").chmod(0o640)
    command = install(probes, "ids", R)
    program = f"{command}; cat /canary"
    for user in USERS:
        options = ("--user", user, "--cap-drop", "ALL")
        result = subprocess.run(
            command_line(driver, R, *options, "--", "sh", "-c", program),
            extra_groups=[0, 6, 27, 4242],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        report = parse(result.stdout)
        assert report["groups"] == user, result
        # Root without a capability owns the file; nobody else may read it.
        assert (b"secret" in result.stdout) == (user == "0")
    asked = subprocess.run(
        command_line(driver, R, "--user", "1000", "--groups", "4242", "--", "cat", "/canary"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert asked.stdout == b"secret\n", asked


def test_e34_a_group_that_is_denied_stays_denied(host: Host, R: Path, driver: str) -> None:
    (R / "denied").write_text("secret\n")
    os.chown(R / "denied", 0, 5001)
    (R / "denied").chmod(0o604)
    (R / "g2").mkdir()
    shutil.copy(R / "bin/busybox", R / "g2/cat")
    os.chown(R / "g2/cat", 0, 5002)
    (R / "g2/cat").chmod(0o2755)
    for cat in ("cat", "/g2/cat"):
        for groups in (None, ["5002"]):
            exit_ = host.run(
                driver, [cat, "/denied"], rootfs=R, user="1000:5001", groups=groups, capture=1000
            )
            assert (exit_.code, exit_.stdout) == (1, b""), exit_
            assert b"denied" in exit_.stderr
    # Others may read it, so that it is the group which is denied.
    exit_ = host.run(driver, ["cat", "/denied"], rootfs=R, user="1000:5003", capture=1000)
    assert exit_.stdout == b"secret\n"


# --- E35 ---------------------------------------------------------------------------------------

TRAPS = """root:x:0:0::/:/bin/sh
4294967296:x:0:0::/:/bin/sh
4294967295:x:0:0::/:/bin/sh
18446744073709551616:x:0:0::/:/bin/sh
1:x:0:0::/:/bin/sh
0x0:x:0:0::/:/bin/sh
+1:x:0:0::/:/bin/sh
-1:x:0:0::/:/bin/sh
 1000:x:0:0::/:/bin/sh
1000 :x:0:0::/:/bin/sh
:x:0:0::/:/bin/sh
wraps:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
empty:x:::/:/bin/sh
octal:x:010:010::/:/bin/sh
"""

REFUSED = (
    "4294967296", "4294967295", "18446744073709551616", "-1", "0x0", " 1000", "1000 ", "1:", ":1",
    "+1", "", ":", "1:2:3", "1:4294967296", "1:-1", "1e3", "1.0", "1000\n", "\u0661", "wraps",
    "minus", "empty", "root:4294967296", "0" * 5000 + "x",
)  # fmt: skip


@pytest.fixture
def traps(R: Path) -> Path:
    (R / "etc/passwd").write_text(TRAPS)
    (R / "etc/group").write_text("root:x:0:\n1:x:0:\n4294967296:x:0:\nwraps:x:4294967296:\n")
    return R


def test_e35_what_is_no_user_is_refused(host: Host, X: Command, traps: Path, driver: str) -> None:
    for user in REFUSED:
        with pytest.raises(SpecError, match="user") as caught:
            host.run(driver, ["true"], rootfs=traps, user=user)
        assert caught.value.exit_status == 125
    for user in ("4294967296", "-1", " 1000", "1:", "wraps"):
        result = X(f"--user={user}", "--", "sh", "-c", "echo ran")
        assert (result.returncode, result.stdout) == (125, b""), result
        assert "user" in error_line(result)


def test_e35_what_is_no_group_is_refused(host: Host, traps: Path, driver: str) -> None:
    for group in ("4294967296", "4294967295", "-1", "0x0", " 1", "1 ", "+1", "", "1:", "wraps"):
        for fields in ({"group": group}, {"groups": [group]}):
            with pytest.raises(SpecError, match="group"):
                host.run(driver, ["true"], rootfs=traps, user="1000", **fields)


@pytest.mark.parametrize(
    ("user", "uid", "gid"),
    [
        ("1", "1", "1"),
        ("2147483648", "2147483648", "2147483648"),
        ("4294967294", "4294967294", "4294967294"),
        ("1:2147483649", "1", "2147483649"),
        ("0001", "1", "1"),
        ("1000", "1000", "1000"),
        ("octal", "10", "10"),
    ],
)
@pytest.mark.usefixtures("traps")
def test_e35_digits_are_a_number(inside: Inside, user: str, uid: str, gid: str) -> None:
    """Never a name, and never root unless that was asked."""
    report = inside("ids", user=user)
    assert report["uid"] == " ".join([uid] * 3)
    assert report["gid"] == " ".join([gid] * 3)
    assert report["groups"] == gid
    assert (report["permitted"], report["effective"]) == ("0", "0")


# --- E36 ---------------------------------------------------------------------------------------


class Terminal:
    """A terminal of the kit's, with a session of which it is the controlling one."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        tty.setraw(self.theirs)

    def run(self, argv: list[Any], **keywords: Any) -> subprocess.Popen[bytes]:
        def take() -> None:
            os.setsid()
            fcntl.ioctl(self.theirs, termios.TIOCSCTTY, 0)

        streams = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs, **keywords}
        return subprocess.Popen(argv, preexec_fn=take, **streams)

    def report(self, argv: list[Any], **keywords: Any) -> Report:
        """What a probe prints to a pipe, its other streams being the terminal."""
        with self.run(argv, stdout=subprocess.PIPE, **keywords) as command:
            output, _ = command.communicate(timeout=30)
        assert command.returncode == 0, (output, self.shown())
        return parse(output)

    def typed(self) -> int:
        """Bytes that wait to be read by who reads from the terminal."""
        waiting = array.array("i", [0])
        fcntl.ioctl(self.theirs, termios.FIONREAD, waiting)
        return waiting[0]

    def shown(self) -> bytes:
        os.set_blocking(self.ours, False)
        try:
            return os.read(self.ours, 100_000)
        except BlockingIOError:
            return b""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    os.close(opened.ours)
    os.close(opened.theirs)


def test_e36_a_letter_arrives_where_nothing_resists(terminal: Terminal, probes: Probes) -> None:
    report = terminal.report([probes("tty")])
    assert (report["session"], report["dev-tty"]) == ("ok", "ok"), report
    if report["0-type"] == "EIO":
        pytest.skip("dev.tty.legacy_tiocsti is 0, and the process has no CAP_SYS_ADMIN")
    assert report["0-type"] == "ok"
    assert terminal.typed() >= 2


@pytest.mark.parametrize("user", USERS)
def test_e36_nothing_is_typed_into_the_callers_terminal(
    R: Path, state: Path, probes: Probes, terminal: Terminal, driver: str, user: str
) -> None:
    command = install(probes, "tty", R)
    report = terminal.report(command_line(driver, R, "--user", user, "--", command))
    assert terminal.typed() == 0, report
    assert report["leader"] == "1"
    assert (report["session"], report["dev-tty"]) == ("ENOTTY", "ENXIO"), report
    typed = {key: value for key, value in report.items() if "-type" in key or "-paste" in key}
    assert len(typed) >= 9
    assert not {"ok", "EFAULT"} & set(typed.values()), report
    assert (report["take"], report["steal"]) == ("EPERM", "EPERM")


@pytest.mark.parametrize("user", USERS)
def test_e36_a_job_has_no_controlling_terminal(
    R: Path, state: Path, terminal: Terminal, driver: str, user: str
) -> None:
    argv = command_line(driver, R, "--name", "e36", "--user", user, "--", "sleep", "60")
    with terminal.run(argv) as command, Host(root=str(state)) as host:
        try:
            wait_until(lambda: [c.state for c in host.containers()] == ["running"], timeout_s=15)
            job = host.get("e36").inspect()["job"]["pid"]
            # The fields of proc_pid_stat(5) from the third on: session is the 6th, tty_nr the 7th.
            fields = Path(f"/proc/{job}/stat").read_text().rsplit(")", 1)[1].split()
            assert (fields[3], fields[4]) == (str(job), "0")
            assert Path(f"/proc/{command.pid}/stat").read_text().rsplit(")", 1)[1].split()[4] != "0"
        finally:
            command.terminate()
        assert command.wait(timeout=10) == 143, terminal.shown()


def test_e36_drivers_say_on_what_it_rests(host: Host, driver: str) -> None:
    status = offer(host, driver, "tty.no-inject")
    assert status.kind == "when"
    assert status.condition in ("capabilities-default", "job-without-capabilities")
