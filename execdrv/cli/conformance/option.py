"""Options of several actions and of `compare`, and what they name: ids, a driver, files.

Nothing is measured here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser
    from execdrv.driver import DriverRef

#: For the notes of a help text.
STATUSES = (
    "exit status: 0 all proven or honestly not claimed, 1 failures, 2 interrupted, 4 wrongly used,",
    "  5 nothing selected, 10 incomplete, 11 something is left on the machine, 12 the kit failed",
)


def add_selection(parser: Parser) -> None:
    """Options that say what is measured, and how."""
    parser.add_argument(
        "--profile",
        metavar="NAME",
        dest="profiles",
        action="append",
        default=[],
        help="only base, fs, limits, container, hardened or hostile; repeatable",
    )
    parser.add_argument("-k", "--match", metavar="WORD", default="", help="only ids with this word")
    parser.add_argument(
        "--no-hostile", action="store_true", help="without the adversarial checks (esc.*)"
    )
    parser.add_argument("--seed", metavar="N", type=int, help="of nonces, sizes and order")
    parser.add_argument(
        "-n",
        "--workers",
        metavar="N",
        type=int,
        help="how many at once (default: half the cpus, 4 at most)",
    )


def add_driver_options(parser: Parser) -> None:
    """The option for what only one driver knows."""
    parser.add_argument(
        "--driver-option",
        metavar="KEY=VALUE",
        dest="driver_options",
        action="append",
        default=[],
        help="an option that only this driver knows; repeatable",
    )


def select(options: Namespace, ids: list[str] | None = None) -> list[str]:
    """The ids that the options mean."""
    from execdrv_conformance.select import select_ids

    return select_ids(
        profiles=options.profiles,
        ids=options.ids if ids is None else ids,
        hostile=not options.no_hostile,
        substring=options.match,
    )


def choose_seed(options: Namespace) -> int:
    """The seed that was given, else one by chance; kept for who asks again."""
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(4), "big")
    return int(options.seed)


def read_driver(target: str, words: list[str]) -> DriverRef:
    """A driver with its options."""
    from execdrv.cli.request import parse_driver_option
    from execdrv.driver import DriverRef

    return DriverRef(target=target, options=dict(map(parse_driver_option, words)))


def check_writable(path: str | None, option: str) -> None:
    """Refuse a file that can't be written before minutes are spent."""
    if path is not None and not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        raise UsageError(
            f"cannot use option '--{option}' with {path!r}: its directory can't be written"
        )


def write_file(path: str, text: str, option: str) -> None:
    """Write a file of the user's.

    Raises:
        UsageError: it can't be written.
    """
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(
            f"cannot use option '--{option}' with {path!r}: {error.strerror}"
        ) from error
