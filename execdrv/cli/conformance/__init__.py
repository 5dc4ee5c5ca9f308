"""`execdrv conformance`: what a driver really guarantees, measured by the kit.

Only reads the command line and shows what the kit returns, one module an action; the kit is
imported by who runs it. Exit statuses are the kit's, and those of pytest where they mean the same:
0 all proven or honestly not claimed, 1 failures, 2 interrupted, 4 wrongly used, 5 nothing selected,
10 incomplete, 11 something is left on the machine, 12 the kit failed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from execdrv.cli.conformance.measure import interruptible
from execdrv.cli.conformance.option import STATUSES
from execdrv.cli.output import complain, describe_error
from execdrv.errors import ExecdrvError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser

#: As in the kit's verdict module, which is not loaded for a wrong command line.
_INTERRUPTED = 2
_KIT_ERROR = 12

#: Action -> what it does; each is execdrv.cli.conformance.NAME, with `fill_parser` and `execute`.
#: So `list` is a module here, once it is loaded.
ACTIONS: dict[str, str] = {
    "run": "measure a driver and judge it",
    "smoke": "a few seconds: is the binding wrong, or the driver",
    "repro": "run one check again and show its evidence",
    "list": "list the guarantees that have checks",
    "diff": "say what differs between two reports",
    "verify": "judge reports once more, from their evidence",
    "sweep": "remove what killed runs have left",
}


def fill_parser(parser: Parser) -> None:
    """The actions of `conformance` and their options."""
    kinds = parser.add_subparsers(dest="action", metavar="ACTION")
    for name, text in ACTIONS.items():
        module = importlib.import_module(f"execdrv.cli.conformance.{name}")
        module.fill_parser(kinds.add_parser(name, help=text))
    parser.finish(
        examples=[
            "execdrv conformance smoke mydrv",
            "execdrv conformance run mydrv --out report.json",
            "execdrv conformance run mypackage.driver:MyDriver --profile base",
            "execdrv conformance repro mem.limit-oom --driver mydrv --keep",
        ],
        notes=STATUSES,
    )


def execute(options: Namespace) -> int:
    """Do what was asked."""
    if options.action is None:
        raise UsageError(
            "cannot read the command line: conformance needs an action",
            hint=f"actions are {', '.join(ACTIONS)}",
        )
    try:
        with interruptible():
            module = importlib.import_module(f"execdrv.cli.conformance.{options.action}")
            status: int = module.execute(options)
            return status
    except KeyboardInterrupt:
        complain("interrupted: no report was written, and all was ended")
        return _INTERRUPTED
    except (ExecdrvError, BrokenPipeError):
        raise
    except Exception as error:
        if options.debug:
            raise
        complain(f"the kit failed: {describe_error(error)}")
        return _KIT_ERROR
