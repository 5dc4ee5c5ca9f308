"""`execdrv rootfs`: root file systems made from this machine's own files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from execdrv.cli.output import (
    Progress,
    complain,
    describe_error,
    format_age,
    format_rough_size,
    quoted,
    visible,
    write_json,
    write_out,
    write_table,
)
from execdrv.errors import ExecdrvError

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser
    from execdrv.rootfs import Root

_FAILED = 125


def fill_parser(parser: Parser) -> None:
    """The subcommands of `rootfs` and their options."""
    # Not required by argparse: its message would name the destination.
    kinds = parser.add_subparsers(dest="action", metavar="ACTION")
    make = kinds.add_parser("make", help="make one, and print its path")
    make.description = (
        "Make a root file system with a shell, coreutils, ip, ps and the like; or find it in the "
        "cache, where `execdrv run` takes it from."
    )
    make.add_argument(
        "--with",
        dest="names",
        metavar="NAME",
        action="append",
        default=[],
        help="add a command, the absolute path of a program or directory, or python3",
    )
    make.add_argument(
        "--output", metavar="DIR", help="make a tree of your own in DIR, not there yet or empty"
    )
    make.add_argument("--json", action="store_true", help="print all that is known of it as JSON")
    make.finish(
        examples=[
            "execdrv rootfs make",
            "execdrv rootfs make --with python3 --with git --output ./tree",
        ]
    )
    listing = kinds.add_parser("list", help="list those in the cache")
    listing.description = "List the root file systems in the cache."
    listing.add_argument("--json", action="store_true", help="print the list as JSON")
    listing.add_argument("-q", "--names", action="store_true", help="print names only")
    listing.finish(examples=["execdrv rootfs list"])
    remove = kinds.add_parser("remove", help="remove some from the cache")
    remove.description = "Remove root file systems from the cache, where nobody uses them."
    remove.add_argument("name", metavar="NAME", nargs="+", help="names, as `list` shows them")
    remove.finish(examples=["execdrv rootfs list -q | xargs execdrv rootfs remove"])
    parser.finish(
        examples=["execdrv rootfs make --with python3", "execdrv rootfs list"],
        notes=["EXECDRV_CACHE names the cache (default: /var/cache/execdrv)"],
    )


def execute(options: Namespace) -> int:
    """Do what was asked."""
    match options.action:
        case "make":
            return _make(options)
        case "list":
            return _list(options)
        case "remove":
            return _remove(options)
    from execdrv.errors import UsageError

    raise UsageError(
        "cannot read the command line: rootfs needs an action",
        hint="actions are make, list, remove",
    )


def _make(options: Namespace) -> int:
    from execdrv.rootfs import make_root

    with Progress() as progress:
        root = make_root(options.names, output=options.output, progress=progress)
    if options.json:
        write_json(plain(root))
        return 0
    write_out(f"{quoted([root.path])}\n")
    if root.missing:
        complain(f"it lacks what this machine has not: {', '.join(root.missing)}")
    return 0


def _list(options: Namespace) -> int:
    from execdrv.rootfs import list_roots

    roots = list_roots()
    if options.json:
        write_json([plain(root) for root in roots])
    elif options.names:
        write_out("".join(f"{root.name}\n" for root in roots))
    else:
        rows = [("NAME", "SIZE", "AGE", "IN USE", "WITH")]
        rows += [
            (
                root.name,
                format_rough_size(root.size_bytes),
                format_age(time.time() - root.made_at_s),
                "yes" if root.in_use else "no",
                quoted(root.names) or "-",
            )
            for root in roots
        ]
        write_table(rows)
    return 0


def _remove(options: Namespace) -> int:
    from execdrv.rootfs import remove_root

    status = 0
    for name in options.name:
        try:
            remove_root(name)
        except ExecdrvError as error:
            complain(describe_error(error))
            status = _FAILED
        else:
            write_out(f"{visible(name)}\n")
    return status


def plain(root: Root) -> dict[str, Any]:
    """A root as plain data."""
    return attrs.asdict(root)
