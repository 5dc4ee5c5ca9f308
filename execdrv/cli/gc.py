"""`execdrv gc`: remove what containers have left whose supervisor is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execdrv.cli.outcome import plain_error
from execdrv.cli.output import complain, describe_error, visible, write_json, write_out
from execdrv.host import Host
from execdrv.supervisor.launcher import ForkLauncher

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser

_FAILED = 125


def fill_parser(parser: Parser) -> None:
    """The options of `gc`."""
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")
    parser.add_argument(
        "--no-plugins", action="store_true", help="load nothing but what execdrv itself brings"
    )
    parser.finish(
        examples=["execdrv gc"],
        notes=["prints the ids of what was removed; exit status: 125 if something is left"],
    )


def execute(options: Namespace) -> int:
    """Collect all that is lost; 125 if something is left."""
    with Host(root=options.root, plugins=not options.no_plugins, launcher=ForkLauncher()) as host:
        done = host.gc()
    removed = [id for id, error in done.items() if error is None]
    left = {id: error for id, error in done.items() if error is not None}
    if options.json:
        write_json(
            {"removed": removed, "left": {id: plain_error(error) for id, error in left.items()}}
        )
    else:
        write_out("".join(f"{visible(id)}\n" for id in removed))
        for error in left.values():
            complain(describe_error(error))
    return _FAILED if left else 0
