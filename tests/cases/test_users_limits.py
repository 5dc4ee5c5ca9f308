"""B64 to B75: users, groups, limits.

Left for later, with what they need: attaches of B73; ordinary users in B67 and B75.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from casekit import Command, assert_unsupported, command_line, error_line

from execdrv import Host
from execdrv.errors import ExecdrvError, SpecError, UnsupportedError


def refuses(host: Host, driver: str, R: Path, option: str, **fields: Any) -> bool:
    """Whether the driver offers no limits; then it must say so, naming the option and itself."""
    if driver != "chroot":
        return False
    with pytest.raises(UnsupportedError) as caught:
        host.run(driver, ["true"], rootfs=R, **fields)
    assert option in str(caught.value) and "'chroot'" in str(caught.value)
    assert caught.value.exit_status == 125
    assert "native" in (caught.value.alternatives or ())
    return True


def test_b64_a_user_without_an_account(X: Command) -> None:
    program = "id -u; id -g; echo $HOME; pwd"
    result = X("--user", "12345:678", "--workdir", "/tmp", "--", "sh", "-c", program)
    assert (result.returncode, result.stdout) == (0, b"12345\n678\n/\n/tmp\n"), result


def test_b66_a_working_directory_that_is_none(X: Command, R: Path) -> None:
    before = sorted(os.listdir(R))
    for name, options in (("/nope", ()), ("/bin/sh", ()), ("/nope/x", ("--user", "1000"))):
        result = X("--workdir", name, *options, "--", "sh", "-c", "echo ran")
        assert (result.returncode, result.stdout) == (125, b""), result
        assert name in error_line(result)
    assert sorted(os.listdir(R)) == before


def test_b66_a_closed_working_directory(X: Command, R: Path) -> None:
    for name, owner in (("u", 1000), ("r", 0)):
        (R / name).mkdir(mode=0o700)
        os.chown(R / name, owner, owner)
    program = "pwd; echo x >/dev/null"
    own = X("--workdir", "/u", "--user", "1000", "--", "sh", "-c", program)
    assert (own.returncode, own.stdout) == (0, b"/u\n"), own
    closed = X("--workdir", "/r", "--user", "1000", "--", "sh", "-c", program)
    assert (closed.returncode, closed.stdout) == (125, b""), closed
    line = error_line(closed)
    assert "/r" in line and "1000" in line


def test_b66_a_relative_working_directory(X: Command, host: Host, R: Path, driver: str) -> None:
    with pytest.raises(SpecError, match="workdir 'rel'"):
        host.run(driver, ["true"], rootfs=R, workdir="rel")
    result = X("--workdir", "rel", "--", "true")
    assert result.returncode == 125
    assert "'rel'" in error_line(result)


def ids_of(output: bytes) -> tuple[str, set[str]]:
    """The primary group, and all, from `id -g; id -G`."""
    primary, everything = output.decode().splitlines()
    return primary, set(everything.split())


@pytest.mark.parametrize("user", [None, "1000", "1000:50"])
def test_b67_exactly_the_groups_that_were_asked(
    host: Host, R: Path, driver: str, user: str | None
) -> None:
    fields: dict[str, Any] = {} if user is None else {"user": user}
    argv = ["sh", "-c", "id -g; id -G"]
    exit_ = host.run(driver, argv, rootfs=R, groups=[27, 27, 1000], capture=1000, **fields)
    primary, everything = ids_of(exit_.stdout)
    assert everything == {primary, "27", "1000"}
    exit_ = host.run(driver, argv, rootfs=R, capture=1000, **fields)
    primary, everything = ids_of(exit_.stdout)
    assert everything == {primary}
    if user == "1000:50":
        assert primary == "50"


def test_b67_nothing_of_the_callers_groups(driver: str, R: Path, state: Path) -> None:
    result = subprocess.run(
        command_line(driver, R, "--", "sh", "-c", "id -g; id -G"),
        extra_groups=[4, 24, 27],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 0, result
    primary, everything = ids_of(result.stdout)
    assert everything == {primary}


@pytest.mark.parametrize("value", [0, -1, "1e3", "64 MiB ", "", "64MB", 2**63, 2**64, 1.5, True])
def test_b71_impossible_memory_limits(host: Host, R: Path, driver: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        host.run(driver, ["true"], rootfs=R, memory=value)
    assert "memory" in str(caught.value) and repr(value) in str(caught.value)


def test_b71_impossible_memory_limits_on_the_command_line(X: Command) -> None:
    for value in ("0", "1e3", "64 MiB ", str(2**63)):
        result = X("--memory", value, "--", "true")
        assert result.returncode == 125, result
        assert "memory" in error_line(result) and repr(value) in error_line(result)


@pytest.mark.parametrize("value", [1, 4095, "4096"])
def test_b71_too_little_memory_to_run_anything(
    host: Host, R: Path, driver: str, value: object
) -> None:
    if refuses(host, driver, R, "memory", memory=value):
        return
    started = time.monotonic()
    try:
        exit_ = host.run(driver, ["alloc", "1"], rootfs=R, memory=value)
    except ExecdrvError as error:
        assert error.exit_status == 125
        assert "limit" in str(error) or "memory" in str(error)
    else:
        assert exit_.reason == "oom", exit_
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("value", ["1m", "6MiB", 2**63 - 1, (6 << 20) + 1])
def test_b71_other_memory_limits_hold(host: Host, R: Path, driver: str, value: Any) -> None:
    if refuses(host, driver, R, "memory", memory=value):
        return
    allowed = {"1m": 1 << 20, "6MiB": 6 << 20}.get(value, value)
    exit_ = host.run(driver, ["alloc", "24"], rootfs=R, memory=value)
    if allowed > 24 << 20:
        assert exit_.code == 0
    else:
        assert exit_.reason == "oom", exit_
        # A process on its way out may take some pages more than its group has.
        assert exit_.memory_peak_bytes is None or exit_.memory_peak_bytes <= allowed + (1 << 20)


def test_b71_none_is_no_limit(host: Host, R: Path, driver: str) -> None:
    assert host.run(driver, ["alloc", "100"], rootfs=R, memory=None).code == 0


IMPOSSIBLE_CPUS = (0, -1, float("nan"), float("inf"), "0,5", "nan", "1e3", "", 0.0009, True)


@pytest.mark.parametrize("value", IMPOSSIBLE_CPUS)
def test_b72_impossible_cpu_limits(host: Host, R: Path, driver: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        host.run(driver, ["true"], rootfs=R, cpus=value)
    assert "cpus" in str(caught.value) and repr(value) in str(caught.value)
    if value == 0.0009:
        assert "0.001" in str(caught.value)


@pytest.mark.parametrize("value", [0.001, 0.01])
def test_b72_small_cpu_limits_are_never_unlimited(
    host: Host, R: Path, driver: str, value: float
) -> None:
    if refuses(host, driver, R, "cpus", cpus=value):
        return
    spin = ["sh", "-c", "while :; do :; done"]
    exit_ = host.run(driver, spin, rootfs=R, cpus=value, timeout=2)
    assert exit_.reason == "timeout"
    assert exit_.cpu_usage_us is not None
    # One quota more than asked, and what one tick runs over it.
    assert exit_.cpu_usage_us < value * 3e6 + 40_000


def test_b72_more_cpus_than_there_are(host: Host, R: Path, driver: str) -> None:
    if refuses(host, driver, R, "cpus", cpus=1e6):
        return
    for value in (1e6, (os.cpu_count() or 1) + 1, "1.5"):
        assert host.run(driver, ["true"], rootfs=R, cpus=value).code == 0


def test_b73_one_process_is_enough_for_one_process(host: Host, R: Path, driver: str) -> None:
    if refuses(host, driver, R, "pids", pids=1):
        return
    assert host.run(driver, ["true"], rootfs=R, pids=1).code == 0
    started = time.monotonic()
    program = "/bin/true & wait; echo $?"
    exit_ = host.run(driver, ["sh", "-c", program], rootfs=R, pids=1, capture=1000)
    assert exit_.code != 0 or exit_.stdout not in (b"", b"0\n"), exit_
    assert exit_.reason == "exited"
    assert b"fork" in exit_.stderr
    assert time.monotonic() - started < 5
    # With one more it works: the helpers of the driver do not count.
    exit_ = host.run(driver, ["sh", "-c", program], rootfs=R, pids=2, capture=1000)
    assert (exit_.code, exit_.stdout) == (0, b"0\n")


@pytest.mark.parametrize("value", [0, -1, 2**22 + 1, "many", 1.0])
def test_b73_impossible_pids_limits(host: Host, R: Path, driver: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        host.run(driver, ["true"], rootfs=R, pids=value)
    assert "pids" in str(caught.value) and repr(value) in str(caught.value)


def test_b74_a_memory_limit_holds_without_a_word_on_swap(host: Host, R: Path, driver: str) -> None:
    for fields in ({"memory": "64M"}, {"memory": "64M", "memory_swap": 0}):
        if refuses(host, driver, R, "memory", **fields):
            continue
        exit_ = host.run(driver, ["alloc", "128"], rootfs=R, **fields)
        assert exit_.reason == "oom"
        assert exit_.memory_peak_bytes is not None
        assert 48 << 20 < exit_.memory_peak_bytes <= 64 << 20
        assert host.run(driver, ["alloc", "48"], rootfs=R, **fields).code == 0


def test_b74_swap_without_memory(X: Command, host: Host, R: Path, driver: str) -> None:
    for value in (0, "64M"):
        with pytest.raises(SpecError, match="memory_swap"):
            host.run(driver, ["true"], rootfs=R, memory_swap=value)
    result = X("--memory-swap", "64M", "--", "true")
    assert result.returncode == 125
    assert "memory" in error_line(result)


def test_b74_swap_is_limited_or_refused(host: Host, R: Path, driver: str) -> None:
    fields = {"memory": "64M", "memory_swap": "16M"}
    if refuses(host, driver, R, "memory", **fields):
        return
    accounted = any(
        list(Path("/sys/fs/cgroup").glob(pattern))
        for pattern in ("memory/memory.memsw.limit_in_bytes", "*/memory.swap.max")
    )
    if accounted:
        assert host.run(driver, ["alloc", "128"], rootfs=R, **fields).reason == "oom"
        assert host.run(driver, ["alloc", "48"], rootfs=R, **fields).code == 0
    else:
        with pytest.raises(ExecdrvError, match="swap") as caught:
            host.run(driver, ["true"], rootfs=R, **fields)
        assert caught.value.exit_status == 125


def without_controller(controller: str, argv: Sequence[Any]) -> list[Any]:
    """A command in a mount namespace where no mount of a controller is to be seen."""
    places = [
        line.split()[4]
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if " - cgroup " in line and controller in line.rsplit(" ", 1)[1].split(",")
    ]
    # On v2 the controllers are in one place.
    place = places[0] if places else "/sys/fs/cgroup"
    program = 'mount --make-rprivate / && umount -R "$0" && exec "$@"'
    return ["unshare", "-m", "sh", "-c", program, place, *argv]


@pytest.mark.parametrize(
    ("option", "value", "controller"),
    [("--memory", "64M", "memory"), ("--cpus", "0.5", "cpu"), ("--pids", "16", "pids")],
)
def test_b75_a_limit_that_can_not_be_applied(
    driver: str, R: Path, state: Path, option: str, value: str, controller: str
) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[bytes]:
        argv = command_line(driver, R, *options, "--", "sh", "-c", "echo ran")
        return subprocess.run(
            without_controller(controller, argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )

    result = run(option, value)
    assert b"ran" not in result.stdout
    if driver == "chroot":
        assert_unsupported(result, option, "'chroot'", "native")
        return
    assert_unsupported(result, controller, "cgroup")
    planned = run(option, value, "--dry-run")
    assert planned.returncode == 125, planned
    assert controller.encode() in planned.stdout + planned.stderr
    assert b"cgroup" in planned.stdout + planned.stderr
