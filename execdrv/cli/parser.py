"""Reading command lines: argparse, with our errors and with a command at the end of the options.

A wrong command line raises UsageError, so that no status of argparse's own is ever seen. Where a
command follows the options (`takes_command`), they end at `--` or at the first word that is no
option: all that comes after it belongs to the job, whatever it looks like.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from execdrv.cli.output import write_out
from execdrv.errors import UsageError


class Parser(argparse.ArgumentParser):
    """The parser of one subcommand; every one has --root, --debug and --help."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            add_help=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **keywords,
        )
        #: Whether a command of the user's follows the options.
        self.takes_command = False

    def finish(self, *, examples: Sequence[str], notes: Sequence[str] = ()) -> None:
        """Add what every subcommand has; called last."""
        common = self.add_argument_group("common options")
        common.add_argument(
            "--root",
            metavar="DIR",
            help="keep state in DIR (default: EXECDRV_ROOT, else /run/execdrv)",
        )
        common.add_argument(
            "--debug", action="store_true", help="show where an error comes from, in every process"
        )
        common.add_argument("-h", "--help", action="help", help="show this")
        lines = ["examples:", *(f"  {line}" for line in examples)]
        self.epilog = "\n".join([*lines, *([""] if notes else []), *notes])

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options; with `takes_command`, `command` has the words of the command.

        Raises:
            UsageError: the words can't be understood.
        """
        words, command = self._split(words) if self.takes_command else (list(words), [])
        options = self.parse_args(words)
        if self.takes_command:
            options.command = command
        return options

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            f"cannot read the command line: {message}",
            hint=f"`{self.prog} --help` shows what it takes",
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        # Help, which is all that argparse prints here: a failure to write it must be seen.
        if message:
            write_out(message)

    def options(self) -> list[argparse.Action]:
        """The arguments that begin with a dash."""
        return [action for action in self._actions if action.option_strings]

    def _split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The options, each with its value in one word, and the command."""
        known = {flag: action for action in self.options() for flag in action.option_strings}
        head: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                return head, rest
            if word == "-" or not word.startswith("-"):
                return head, [word, *rest]
            flag, equals, _ = word.partition("=")
            action = known.get(flag)
            if action is None:
                raise UsageError(
                    f"cannot use option {flag!r}: {self.prog!r} has no such option",
                    hint=f"`{self.prog} --help` lists them; the command's own options follow it",
                )
            if action.nargs != 0 and not equals:
                # Joined, so that a value may begin with a dash and be empty.
                value = rest.pop(0) if rest else "--"
                word = f"{flag}={value}"
            if action.nargs != 0 and word == f"{flag}=--":
                # Argparse would drop it, and here somebody has forgotten something.
                self.error(f"option {flag!r} needs a value")
            if action.nargs == 0 and equals:
                self.error(f"option {flag!r} takes no value")
            head.append(word)
        return head, []
