"""`execdrv destroy`: end and remove containers, whoever has started them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from execdrv.cli.output import complain, describe_error
from execdrv.errors import ExecdrvError
from execdrv.host import Host
from execdrv.state import check_name

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser

_FAILED = 125


def fill_parser(parser: Parser) -> None:
    """The options of `destroy`."""
    parser.add_argument("id", metavar="ID", nargs="+", help="ids, as `execdrv ps` shows them")
    parser.add_argument(
        "--no-plugins", action="store_true", help="load nothing but what execdrv itself brings"
    )
    parser.finish(examples=["execdrv destroy web", "execdrv ps -q | xargs execdrv destroy"])


def execute(options: Namespace) -> int:
    """Destroy each; 125 if one could not be, or something of it is left."""
    status = 0
    # By a fork server where one is lost: plugins, loaded for their wrappers, may have threads.
    with Host(root=options.root, plugins=not options.no_plugins) as host:
        for id in options.id:
            try:
                host.destroy(check_name(id))
            except ExecdrvError as error:
                complain(describe_error(error))
                status = _FAILED
    return status
