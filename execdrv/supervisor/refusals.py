"""Why a box can't be made: three questions, asked before anything is made.

    1. Does this driver offer what was asked?            its offers, constant data
    2. Has this machine what the catalogue says it needs? execdrv.machine
    3. Do these values work here?                         the driver's `check`

All answers together, so that nobody mends one to meet the next. Changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from execdrv import machine, units
from execdrv.driver import Box, Driver, Refusal
from execdrv.guarantees.facts import MACHINE_FACTS
from execdrv.guarantees.ids import IDS
from execdrv.limits import Receipt
from execdrv.spec import ContainerSpec, value_or
from execdrv.supervisor.assemble import needs_lease, resolve_capabilities

#: Entries of a root over which every container mechanism mounts or makes something; as links, they
#: would lead that elsewhere.
_NEVER_LINKS = ("proc", "sys", "dev")
#: Fields whose option has another name.
_OPTIONS = {"binds": "bind", "rlimits": "rlimit", "pass_fds": "pass-fd"}


def spec_facts(spec: ContainerSpec, driver: type[Driver], *, uid: int | None) -> dict[str, bool]:
    """The facts of a spec under a driver that its `when` may name (guarantees/facts.py).

    Args:
        uid: the job's user; None: not known yet, and then no fact holds that hangs on it.
    """
    defaults = driver.defaults
    capabilities = resolve_capabilities(spec, defaults)
    root_mode = value_or(spec.root_mode, defaults.root_mode)
    net = value_or(spec.net, defaults.net)
    return {
        "job-not-root": bool(uid),
        "job-without-capabilities": not capabilities,
        "capabilities-default": capabilities <= defaults.capabilities,
        "own-uid": needs_lease(spec, defaults),
        "root-private": root_mode == "private",
        "root-read-only": root_mode == "read-only",
        "root-not-direct": root_mode != "direct",
        "net-none": net == "none",
        "net-own": net != "host",
        "group-made": driver.uses_group or bool(spec.limits.names()),
        "memory-limited": spec.limits.memory_bytes is not None,
    }


def list_refusals(
    box: Box, driver: Driver, *, facts: Mapping[str, bool], shared_root: bool
) -> list[Refusal]:
    """Everything that stands against this box; empty if it can be made."""
    found = [*_from_offers(box, type(driver), facts), *_from_require(box, type(driver), facts)]
    found += _from_options(box, type(driver))
    found += _from_machine(box)
    found += _from_root(box, shared_root=shared_root)
    # A driver is asked only about what it offers: its own answer to the rest would say it twice.
    return found or list(driver.check(box))


def _from_offers(box: Box, driver: type[Driver], facts: Mapping[str, bool]) -> Iterable[Refusal]:
    for field, ids in box.spec.asked().items():
        if field == "require":
            continue
        for guarantee in ids:
            reason = driver.offers.refusal_for(guarantee, facts)
            if reason is not None:
                yield Refusal(
                    message=f"cannot keep {_option(box, field)}: "
                    f"driver {driver.name!r} does not offer {guarantee} ({reason})",
                    field=field,
                    guarantee=guarantee,
                )
                # One line a field: the others have the same cause.
                break


def _from_require(box: Box, driver: type[Driver], facts: Mapping[str, bool]) -> Iterable[Refusal]:
    for guarantee in box.spec.require or ():
        if guarantee not in IDS:
            yield Refusal(
                message=f"cannot require {guarantee!r}: there is no guarantee of that id",
                hint="`execdrv drivers --json` lists them",
                field="require",
            )
        elif not driver.offers.satisfies_require(guarantee, facts):
            status = driver.offers.status(guarantee)
            why = (status.remains or status.reason) if status is not None else "not declared"
            yield Refusal(
                message=f"cannot require {guarantee}: driver {driver.name!r} does not keep it "
                f"in full ({why})",
                field="require",
                guarantee=guarantee,
            )


def _from_options(box: Box, driver: type[Driver]) -> Iterable[Refusal]:
    for name in box.options:
        if name not in driver.options:
            known = ", ".join(sorted(driver.options)) or "none"
            yield Refusal(
                message=f"cannot use driver option {name!r}: driver {driver.name!r} has "
                f"no such option (known: {known})",
                field="driver_options",
            )


def _from_machine(box: Box) -> Iterable[Refusal]:
    needed: dict[str, tuple[str, str]] = {}
    for field, ids in box.spec.asked().items():
        for guarantee in ids:
            for fact in IDS[guarantee][1] if guarantee in IDS else ():
                # What limits need of cgroups, the driver's check finds with its place and cause.
                if not fact.startswith("cgroup"):
                    needed.setdefault(fact, (field, guarantee))
    present = machine.detect_facts(needed)
    for fact, (field, guarantee) in needed.items():
        if not present[fact]:
            yield Refusal(
                message=f"cannot keep {_option(box, field)}: this machine lacks "
                f"{MACHINE_FACTS[fact]}",
                hint="`execdrv doctor` says what can be done",
                field=field,
                guarantee=guarantee,
            )


def _from_root(box: Box, *, shared_root: bool) -> Iterable[Refusal]:
    for name in _NEVER_LINKS:
        try:
            found = os.stat(name, dir_fd=box.root, follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISLNK(found.st_mode):
            yield Refusal(
                message=f"cannot use this root file system: its '/{name}' must not be a symlink",
                hint=f"make '/{name}' a directory",
                field="rootfs",
            )
    if shared_root and box.root_mode == "direct" and box.process.uid == 0:
        yield Refusal(
            message="cannot run as user 0 directly on the shared root file system: "
            "it would write to it",
            hint="give a root of your own: `execdrv rootfs make --output DIR`, then --rootfs DIR",
            field="user",
        )


def _option(box: Box, field: str) -> str:
    """The option at fault as people wrote it, with its value."""
    if field == "argv":
        return "the command"
    value = getattr(box.spec, field)
    if field in ("memory", "memory_swap"):
        value = units.format_bytes(value)
    shown = "" if field in ("binds", "tmpfs", "env", "rlimits") else f" {value!r}"
    return f"--{_OPTIONS.get(field, field.replace('_', '-'))}{shown}"


def remaining_receipts(box: Box, driver: type[Driver]) -> list[Receipt]:
    """A receipt for each thing that was asked and is kept in part only."""
    found = []
    for field, ids in box.spec.asked().items():
        for guarantee in ids:
            status = driver.offers.status(guarantee)
            if status is not None and status.kind == "partial":
                asked = repr(getattr(box.spec, field))
                found.append(
                    Receipt(field, "applied", asked, asked, f"{guarantee}: {status.remains}")
                )
    if box.root_mode == "direct":
        note = "the job writes to the directory itself (fs.write-private is absent)"
        found.append(Receipt("root_mode", "applied", "direct", "direct", note))
    return found
