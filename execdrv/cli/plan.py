"""`execdrv run --dry-run`: what would be made, and everything that stands against it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from execdrv import wire
from execdrv.cli.output import Progress, quoted, visible, write_json, write_out
from execdrv.driver import Refusal, refused
from execdrv.host import Host
from execdrv.init import Order
from execdrv.linux.capabilities import capability_names
from execdrv.spec import RLIMITS
from execdrv.supervisor.launcher import ForkLauncher
from execdrv.units import format_bytes

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.request import Request

_FAILED = 125
_UNLIMITED = 2**64 - 1


def show_plan(request: Request, options: Namespace) -> int:
    """Print the plan on stdout; 125 if anything stands against it, else 0."""
    progress = Progress()
    with Host(
        root=options.root,
        plugins=not options.no_plugins,
        launcher=ForkLauncher(),
        progress=progress,
    ) as host:
        with progress:
            plan = host.plan(request.driver, request.spec, stdin=0, stdout=1, stderr=2)
        refusals = wire.decode(list[Refusal], plan["refusals"])
        plan["alternatives"] = []
        if refusals:
            error = host.explain(refused(refusals, driver=plan["driver"]), request.spec)
            plan["alternatives"] = getattr(error, "alternatives", None) or []
    if options.json:
        write_json(plan)
    else:
        lines = [*describe_plan(plan), *describe_refusals(plan, refusals)]
        write_out("".join(f"{name:<13} {text}".rstrip() + "\n" for name, text in lines))
    return _FAILED if refusals else 0


def describe_plan(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The plan for people: name and text of each line."""
    process = wire.decode(Order, plan["process"])
    yield "container", visible(plan["id"])
    yield "driver", plan["driver"]
    yield "command", quoted(process.argv)
    root = wire.decode(bytes, plan["rootfs"])
    yield "root", f"{quoted([root])} ({plan['root_mode']})"
    yield "network", plan["net"]
    yield "host name", visible(plan["hostname"])
    yield "user", f"{process.uid}, group {process.gid}, groups {_join(process.groups)}"
    yield "capabilities", " ".join(capability_names(process.bounding)) or "none"
    yield "directory", quoted([process.cwd])
    for word in process.env:
        yield "variable", quoted([word])
    names = {number: name for name, number in RLIMITS.items()}
    yield (
        "rlimits",
        " ".join(
            f"{names[number]}={_rlimit(soft)}:{_rlimit(hard)}"
            for number, soft, hard in process.rlimits
        ),
    )
    yield "limits", _describe_limits(plan["limits"])
    for directory in (plan.get("group") or {}).get("dirs", ()):
        controllers = " ".join(directory["controllers"]) or "no controller"
        yield "cgroup", f"{visible(directory['path'])} ({controllers})"


def describe_refusals(plan: dict[str, Any], refusals: list[Refusal]) -> Iterator[tuple[str, str]]:
    """What stands against the plan."""
    for refusal in refusals:
        yield "refused", visible("; ".join(filter(None, (refusal.message, refusal.hint))))
    if refusals:
        yield "could do it", ", ".join(plan["alternatives"]) or "none of the drivers installed"


def _describe_limits(limits: dict[str, Any]) -> str:
    found = []
    for name, value in limits.items():
        if value is not None:
            shown = format_bytes(value) if name.endswith("_bytes") else f"{value:g}"
            found.append(f"{name.removesuffix('_bytes')}={shown}")
    return " ".join(found) or "none"


def _rlimit(value: int) -> str:
    return "unlimited" if value == _UNLIMITED else str(value)


def _join(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers)) or "none"
