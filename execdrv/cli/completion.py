"""`execdrv completion`: a script that lets a shell complete our command lines.

The script is made from the parsers of all subcommands, so it can't forget an option. Names of
drivers, containers and roots it asks of `execdrv` itself when they are needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from execdrv.cli.output import write_out
from execdrv.guarantees.ids import IDS

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser

SHELLS = ("bash", "zsh", "fish")

#: Values of an option or argument: words, or one of the kinds `files`, `directories`, `drivers`,
#: `containers`, `roots`, `command`.
Values = tuple[str, ...] | str

_OPTION_VALUES: dict[str, Values] = {
    "--baseline": "files",
    "--driver": "drivers",
    "--id": tuple(IDS),
    "--junit": "files",
    "--markdown": "files",
    "--net": ("none", "host"),
    "--out": "files",
    "--output": "directories",
    "--profile": ("base", "fs", "limits", "container", "hardened", "hostile"),
    "--reports": "directories",
    "--result": "files",
    "--root": "directories",
    "--root-mode": ("private", "read-only", "direct"),
    "--rootfs": "directories",
    "--spec": "files",
}
_ARGUMENT_VALUES: dict[str, Values] = {
    "run": "command",
    "inspect": "containers",
    "destroy": "containers",
    "rootfs remove": "roots",
    "conformance run": "drivers",
    "conformance smoke": "drivers",
    "conformance repro": tuple(IDS),
    "conformance list": "files",
    "conformance diff": "files",
    "conformance verify": "files",
    "compare": "drivers",
    "completion": SHELLS,
}


@attrs.frozen(kw_only=True)
class Option:
    """One option of a command."""

    #: All its spellings, the long ones last.
    flags: tuple[str, ...]
    text: str
    takes_value: bool
    values: Values = ()


@attrs.frozen(kw_only=True)
class Command:
    """One command: `rootfs make` is a command below `rootfs`."""

    name: str
    text: str
    options: tuple[Option, ...]
    #: What its arguments are.
    values: Values = ()
    children: tuple[Command, ...] = ()


def fill_parser(parser: Parser) -> None:
    """The options of `completion`."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    parser.finish(
        examples=[
            "execdrv completion bash >/etc/bash_completion.d/execdrv",
            "execdrv completion zsh >/usr/local/share/zsh/site-functions/_execdrv",
            "execdrv completion fish >/etc/fish/completions/execdrv.fish",
        ]
    )


def execute(options: Namespace) -> int:
    """Print the script."""
    from execdrv.cli import shells

    make = {"bash": shells.make_bash, "zsh": shells.make_zsh, "fish": shells.make_fish}
    write_out(make[options.shell](list_commands()))
    return 0


def list_commands() -> list[Command]:
    """Every subcommand with its options, from the parsers."""
    from execdrv.cli import COMMANDS, make_parser

    return [_describe(name, name, text, make_parser(name)) for name, text in COMMANDS.items()]


def _describe(name: str, path: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options: list[Option] = []
    children: list[Command] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            children += [
                _describe(child, f"{path} {child}", texts.get(child, ""), below)
                for child, below in action.choices.items()
            ]
        elif action.option_strings:
            options.append(_describe_option(action))
    return Command(
        name=name,
        text=text,
        options=tuple(options),
        values=_ARGUMENT_VALUES.get(path, ()),
        children=tuple(children),
    )


def _describe_option(action: argparse.Action) -> Option:
    flags = tuple(sorted(action.option_strings, key=len))
    return Option(
        flags=flags,
        text=action.help or "",
        takes_value=action.nargs != 0,
        values=_OPTION_VALUES.get(flags[-1], ()),
    )


def flatten(commands: list[Command], above: str = "") -> Iterator[tuple[str, Command]]:
    """Every command with its path: `rootfs`, `rootfs make` ..."""
    for command in commands:
        path = f"{above} {command.name}".strip()
        yield path, command
        yield from flatten(list(command.children), path)
