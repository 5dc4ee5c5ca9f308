"""`execdrv` itself: help, unknown words, errors as one line, streams that are closed or full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from execdrv.cli import COMMANDS, main
from execdrv.version import VERSION


def test_alone_it_prints_the_overview(cli: Any) -> None:
    result = cli.run()
    assert (result.returncode, result.stderr) == (0, b"")
    for name, text in COMMANDS.items():
        assert f"{name}  " in result.stdout.decode() and text in result.stdout.decode()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_the_overview(capfd: pytest.CaptureFixture[str], option: str) -> None:
    assert main([option]) == 0
    assert capfd.readouterr().out.startswith("usage: execdrv COMMAND")


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"execdrv {VERSION}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(cli: Any, command: str) -> None:
    result = cli.run(command, "--help")
    text = result.stdout.decode()
    assert (result.returncode, result.stderr) == (0, b"")
    assert text.startswith(f"usage: execdrv {command}")
    assert "examples:\n  execdrv " in text
    for option in ("--root DIR", "--debug", "--help"):
        assert option in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rum"], ["'rum'", "did you mean 'run'"]),
        (["xyzzy"], ["'xyzzy'", "run, drivers"]),
        ([""], ["''"]),
        (["--frob"], ["'--frob'", "options follow the command"]),
        (["--debug", "ps"], ["'--debug'"]),
        (["ps", "--frob"], ["--frob", "execdrv ps --help"]),
        (["ps", "extra"], ["extra"]),
        (["ps", "--js"], ["--js"]),
        (["drivers", "--json=1"], ["--json"]),
        (["doctor", "--root"], ["--root"]),
        (["inspect"], ["ID"]),
        (["inspect", "a", "b"], ["b"]),
        (["inspect", "../x"], ["'../x'", "[A-Za-z0-9]"]),
        (["inspect", "nosuch"], ["'nosuch'"]),
        (["destroy"], ["ID"]),
        (["destroy", "a/b"], ["'a/b'", "[A-Za-z0-9]"]),
        (["destroy", "nosuch"], ["'nosuch'"]),
        (["gc", "extra"], ["extra"]),
        (["rootfs"], ["make, list, remove"]),
        (["rootfs", "bake"], ["'bake'"]),
        (["rootfs", "make", "--with"], ["--with"]),
        (["rootfs", "make", "--with", "no/path"], ["'no/path'", "absolute"]),
        (["rootfs", "make", "--with", "/nonexistent/x"], ["/nonexistent/x"]),
        (["rootfs", "make", "--output", "/proc/self/comm"], ["/proc/self/comm"]),
        (["rootfs", "remove"], ["NAME"]),
        (["rootfs", "remove", "nosuch"], ["'nosuch'"]),
        (["completion"], ["SHELL"]),
        (["completion", "tcsh"], ["'tcsh'", "bash"]),
    ],
)
def test_wrong_use_is_one_line_and_125(
    cli: Any, kit: Any, words: list[str], expected: list[str]
) -> None:
    kit.one_error(cli.run(*words), 125, *expected)


def test_messages_show_control_characters_and_stray_bytes(cli: Any, kit: Any) -> None:
    line = kit.one_error(cli.run("inspect", b"a\x1b[31m\n\xff\xc2\x9b"), 125)
    assert line.isprintable()
    for shown in (r"\x1b", r"\n", r"ff", r"\x9b"):
        assert shown in line
    line = kit.one_error(cli.run(b"\xfe\x07"), 125, r"\x07")
    assert line.isprintable()


@pytest.mark.parametrize("words", [["run", "--help"], ["ps"], []])
def test_a_reader_that_has_gone_away_gets_no_message(cli: Any, words: list[str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = cli.run(*words, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (result.returncode, result.stderr) == (125, b"")


def test_a_full_disk_is_said(cli: Any, kit: Any) -> None:
    with open("/dev/full", "w") as full:
        result = cli.run("drivers", "--names", stdout=full, stderr=subprocess.PIPE)
    kit.one_error(result, 125, "no space left")


def test_closed_streams_do_no_harm(cli: Any) -> None:
    def close_all() -> None:
        for fd in (0, 1, 2):
            os.close(fd)

    for words in ([], ["ps"], ["nosuch"], ["--version"]):
        result = cli.run(*words, preexec_fn=close_all)
        assert result.returncode == (125 if words == ["nosuch"] else 0), words


def test_interrupt_ends_as_a_signal_does(cli: Any) -> None:
    program = (
        "import os, signal, sys\n"
        "import execdrv.cli, execdrv.cli.ps\n"
        "execdrv.cli.ps.execute = lambda options: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(execdrv.cli.main(['ps']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=cli.env, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


def test_a_fault_of_ours_is_one_line_and_debug_shows_where(cli: Any, kit: Any) -> None:
    program = (
        "import sys, execdrv.cli, execdrv.cli.ps\n"
        "def fail(options): raise ZeroDivisionError('odd')\n"
        "execdrv.cli.ps.execute = fail\n"
        "sys.exit(execdrv.cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, "ps"]
    result = subprocess.run(command, env=cli.env, capture_output=True, check=False)
    kit.one_error(result, 125, "ZeroDivisionError: odd", "--debug")
    result = subprocess.run([*command, "--debug"], env=cli.env, capture_output=True, check=False)
    assert result.returncode == 125
    assert b"Traceback" in result.stderr and b"in fail" in result.stderr


def test_only_the_chosen_command_is_imported(cli: Any) -> None:
    program = (
        "import sys\n"
        "from execdrv.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(*sorted(name for name in sys.modules if name.startswith('execdrv')))\n"
    )
    for words, absent in (
        (["--version"], {"execdrv.host", "execdrv.cli.parser", "execdrv.spec"}),
        (["ps"], {"execdrv.host", "execdrv.cli.run", "execdrv.rootfs", "execdrv.plugins"}),
    ):
        result = subprocess.run(
            [sys.executable, "-c", program, *words], env=cli.env, capture_output=True, check=True
        )
        assert not absent & set(result.stdout.decode().split())
