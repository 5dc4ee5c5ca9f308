"""B01, B06, B11: exit status and finding the command."""

from __future__ import annotations

from pathlib import Path

from casekit import Command, error_line

from execdrv import Host


def test_b01_missing_command_is_127(X: Command) -> None:
    for command in ("nosuchcmd", "/nosuch/x"):
        result = X("--", command)
        assert result.returncode == 127, result
        assert command in error_line(result)


def test_b11_death_by_signal_is_no_success(driver: str, R: Path, host: Host) -> None:
    exit_ = host.run(driver, ["sh", "-c", "kill -SEGV $$"], rootfs=R)
    assert (exit_.code, exit_.signal, exit_.reason) == (None, 11, "signaled")
