"""`execdrv inspect`: the record of one container. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from execdrv.cli.output import visible, write_json, write_out
from execdrv.host import Host
from execdrv.state import check_name
from execdrv.supervisor.launcher import ForkLauncher

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser


def fill_parser(parser: Parser) -> None:
    """The options of `inspect`."""
    parser.add_argument("id", metavar="ID", help="a container's id, as `execdrv ps` shows it")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    parser.finish(
        examples=[
            "execdrv inspect web",
            "execdrv inspect --json web >web.json; execdrv run --spec web.json --name web2",
        ]
    )


def execute(options: Namespace) -> int:
    """Print the record."""
    with Host(root=options.root, launcher=ForkLauncher()) as host:
        record = host.get(check_name(options.id)).inspect()
    if options.json:
        write_json(record)
    else:
        write_out("".join(f"{line}\n" for line in describe(record)))
    return 0


def describe(value: Any, indent: str = "") -> Iterator[str]:
    """Plain data as indented lines."""
    if isinstance(value, dict):
        pairs = [(f"{visible(str(name))}:", item) for name, item in value.items()]
    else:
        pairs = [("-", item) for item in value]
    for label, item in pairs:
        if isinstance(item, dict | list) and item:
            yield f"{indent}{label}"
            yield from describe(item, indent + "  ")
        else:
            yield f"{indent}{label} {_scalar(item)}"


def _scalar(value: Any) -> str:
    if value is None:
        return "-"
    return visible(value) if isinstance(value, str) else str(value)
