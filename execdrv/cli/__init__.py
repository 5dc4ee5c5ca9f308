"""The command `execdrv`: finds the subcommand, and turns every error into one line and a status.

One module a subcommand; only the chosen one is imported. Exit statuses: those of the job for
`run`, those of the kit for `conformance`; else 0 done, 1 the answer is no, 125 failed or wrongly
used. Runs in the command itself; no driver's method runs in it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from execdrv.errors import ExecdrvError, UsageError

if TYPE_CHECKING:
    import argparse

    from execdrv.cli.parser import Parser

FAILED = 125

#: Subcommand -> what it does; each is execdrv.cli.NAME, with `fill_parser` and `execute`.
COMMANDS: dict[str, str] = {
    "run": "run a command in a container",
    "drivers": "list the drivers, and what each offers",
    "doctor": "say what this machine lacks, and what to do about it",
    "ps": "list the containers",
    "inspect": "show all that is known of a container",
    "destroy": "end and remove containers",
    "gc": "remove what lost containers have left",
    "rootfs": "make, list and remove root file systems",
    "conformance": "measure what a driver really guarantees",
    "compare": "show what several drivers guarantee, side by side",
    "completion": "print a completion script for a shell",
}

#: Subcommands whose status for a wrong command line is their own: that of pytest.
USAGE_STATUSES = {"conformance": 4}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        words: the arguments; None: those of this process.
    Returns:
        The exit status, 0 to 255.
    """
    fill_standard_streams()
    words = sys.argv[1:] if words is None else list(words)
    options: argparse.Namespace | None = None
    try:
        name, parser = find_command(words)
        if parser is None:
            return show_overview(name)
        options = parser.parse(words[1:])
        status: int = importlib.import_module(f"execdrv.cli.{name}").execute(options)
        return status
    except SystemExit as error:
        # Of argparse, after --help.
        return int(error.code or 0)
    except KeyboardInterrupt:
        end_by_signal(signal.SIGINT)
    except BrokenPipeError:
        # Who read our output has gone away: there is nobody to tell.
        return FAILED
    except ExecdrvError as error:
        report_error(error, debug=getattr(options, "debug", False))
        if isinstance(error, UsageError) and words:
            return USAGE_STATUSES.get(words[0], error.exit_status)
        return error.exit_status
    except Exception as error:
        report_error(error, debug=getattr(options, "debug", False))
        return FAILED


def find_command(words: Sequence[str]) -> tuple[str, Parser | None]:
    """The subcommand that `words` begin with and its parser; or an option of `execdrv` itself.

    Raises:
        UsageError: there is no such subcommand.
    """
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "--version"):
        return name, None
    if name in COMMANDS:
        return name, make_parser(name)
    if name.startswith("-"):
        raise UsageError(
            f"cannot use option {name!r} before a command: there is no such option",
            hint="options follow the command: execdrv run --memory 64M -- CMD",
        )
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    raise UsageError(
        f"cannot do {name!r}: there is no such command",
        hint=f"did you mean {near[0]!r}?" if near else f"commands are {', '.join(COMMANDS)}",
    )


def make_parser(name: str) -> Parser:
    """The parser of a subcommand."""
    from execdrv.cli.parser import Parser

    module = importlib.import_module(f"execdrv.cli.{name}")
    parser = Parser(prog=f"execdrv {name}", description=f"{COMMANDS[name].capitalize()}.")
    module.fill_parser(parser)
    return parser


def show_overview(option: str) -> int:
    """Answer `execdrv`, `execdrv --help` and `execdrv --version`."""
    from execdrv.cli.output import write_out
    from execdrv.version import VERSION

    if option == "--version":
        write_out(f"execdrv {VERSION}\n")
        return 0
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items())
    write_out(
        "usage: execdrv COMMAND [OPTIONS]\n\n"
        "Run commands in isolation, by drivers that say what they keep.\n\n"
        f"commands:\n{listed}\n\n"
        "examples:\n"
        "  execdrv run -- sh -c 'id; hostname'\n"
        "  execdrv run --driver=lxc --memory 64M --pids 16 -- make\n"
        "  execdrv drivers\n\n"
        "`execdrv COMMAND --help` tells more; `execdrv --version` is for reports.\n"
    )
    return 0


def fill_standard_streams() -> None:
    """Open /dev/null where the caller gave no stdin, stdout or stderr.

    First of all: else the first file that is opened would become the job's standard stream.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def report_error(error: Exception, *, debug: bool) -> None:
    """One line on stderr; with `debug` also where it came from, in every process it crossed."""
    from execdrv.cli.output import complain, describe_error, write_error

    complain(describe_error(error))
    if debug:
        import traceback

        write_error("".join(traceback.format_exception(error)))


def end_by_signal(signum: int) -> NoReturn:
    """End as the signal's default does it, so that a calling shell sees that it was one."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    # Not reached, unless the signal is blocked.
    os._exit(128 + signum)
