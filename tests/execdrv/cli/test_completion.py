"""Completion scripts: complete by construction, and tried where the shell is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from execdrv.cli import COMMANDS
from execdrv.cli.completion import SHELLS, flatten, list_commands


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(cli: Any, shell: str) -> None:
    result = cli.run("completion", shell)
    assert (result.returncode, result.stderr) == (0, b"")
    script = result.stdout.decode()
    for _, command in flatten(list_commands()):
        assert command.name in script
        for option in command.options:
            long = option.flags[-1]
            assert (long if shell != "fish" else f"-l {long[2:]} ") in script


def test_the_tree_is_that_of_the_command_line() -> None:
    paths = [path for path, _ in flatten(list_commands())]
    assert set(COMMANDS) <= set(paths)
    assert {"rootfs make", "rootfs list", "rootfs remove"} <= set(paths)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_good_syntax(cli: Any, tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_bytes(cli.run("completion", shell).stdout)
    done = subprocess.run([shell, "-n", path], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["execdrv", ""], {"run", "drivers", "rootfs", "completion"}),
        (["execdrv", "ru"], {"run"}),
        (["execdrv", "run", "--driver", ""], {"native", "lxc", "chroot"}),
        (["execdrv", "run", "--driver", "=", "na"], {"native"}),
        (["execdrv", "run", "--driver", "="], {"native"}),
        (["execdrv", "run", "--net", ""], {"none", "host"}),
        (["execdrv", "run", "--memory", "5", "--root-"], {"--root-mode"}),
        (["execdrv", "run", "--memory", "="], set()),
        (["execdrv", "run", "--", "basena"], {"basename"}),
        (["execdrv", "run", "cat", "--memo"], set()),
        (["execdrv", "rootfs", ""], {"make", "list", "remove"}),
        (["execdrv", "rootfs", "make", "--w"], {"--with"}),
        (["execdrv", "completion", ""], {"bash", "zsh", "fish"}),
        (["execdrv", "inspect", ""], {"web"}),
    ],
)
def test_bash_completes(cli: Any, tmp_path: Path, words: list[str], expected: set[str]) -> None:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    # A container for `inspect`; only its name is looked at.
    for directory in (cli.state, cli.state / "containers", cli.state / "containers/web"):
        directory.mkdir(mode=0o700)
    command = tmp_path / "bin" / "execdrv"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m execdrv "$@"\n')
    command.chmod(0o755)
    script = tmp_path / "script"
    script.write_bytes(cli.run("completion", "bash").stdout)
    program = (
        f'PATH={command.parent}:$PATH; . {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_execdrv 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words], env=cli.env, capture_output=True, check=True
    )
    found = set(done.stdout.decode().split())
    assert expected <= found
    if not expected:
        assert found == set()
    shutil.rmtree(cli.state)
