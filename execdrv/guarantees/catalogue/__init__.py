"""The catalogue of guarantees: every id with its sentence, its observations and its mutants.

One data module a heading; `load_catalogue` joins them with the mutants and says which ids are not
scored yet. Knows no driver. Loaded by the conformance kit, the documentation, `drivers` and
`doctor`, never by a `run`; scripts/generate.py writes guarantees/ids.py and docs/guarantees.md
from it.
"""

from __future__ import annotations

import attrs

from execdrv.guarantees.catalogue import (
    adversarial,
    cleanup,
    control,
    device,
    filesystem,
    ipc,
    lifecycle,
    limit,
    memory,
    mount,
    network,
    pid,
    privilege,
    process,
    request,
    stdio,
    user,
)
from execdrv.guarantees.catalogue.mutant import MUTANTS
from execdrv.guarantees.types import Guarantee, Mutant

#: The order of the headings, which is the order of the catalogue.
_HEADINGS = (
    lifecycle,
    process,
    stdio,
    filesystem,
    mount,
    pid,
    network,
    ipc,
    user,
    device,
    privilege,
    memory,
    limit,
    control,
    cleanup,
    request,
    adversarial,
)

#: What each domain is about.
DOMAINS: dict[str, str] = {
    "life": "Life cycle",
    "proc": "Process, exit and signals",
    "io": "Standard streams, and bandwidth of block devices",
    "tty": "Terminals",
    "fs": "File system",
    "mnt": "Mounts",
    "pid": "Processes of others",
    "net": "Network",
    "ipc": "IPC and keys",
    "uts": "Host name",
    "user": "Users and groups",
    "cg": "The job's own cgroup",
    "time": "Clocks",
    "dev": "Devices",
    "cap": "Capabilities",
    "sec": "Seccomp filters",
    "lsm": "Security modules",
    "mem": "Memory limits",
    "cpu": "Cpu limits",
    "pids": "Task limits",
    "rlim": "Resource limits of a process",
    "upd": "Changing limits of a running container",
    "pause": "Pause and resume",
    "stat": "Numbers reported",
    "leak": "Nothing left behind",
    "crash": "After a crash",
    "conc": "Many at once",
    "bad": "Requests that can't be right",
    "esc": "Known escapes and attacks",
}


def load_catalogue() -> dict[str, Guarantee]:
    """Every guarantee by id, in the order of the catalogue, its mutants filled in."""
    killers: dict[str, list[Mutant]] = {}
    waiting: dict[str, str] = {}
    for mutant in MUTANTS:
        for id in mutant.kills:
            if mutant.waits_for:
                waiting[id] = f"its mutant {mutant.name!r} waits for {mutant.waits_for}"
            else:
                killers.setdefault(id, []).append(mutant)
    return {
        entry.id: attrs.evolve(
            entry,
            mutants=tuple(mutant.name for mutant in killers.get(entry.id, ())),
            provisional_why=entry.provisional_why
            or explain_provisional(
                entry, killers.get(entry.id, []), waiting=waiting.get(entry.id, "")
            ),
        )
        for heading in _HEADINGS
        for entry in heading.GUARANTEES
    }


def explain_provisional(entry: Guarantee, killers: list[Mutant], *, waiting: str = "") -> str:
    """Why an entry can't be scored with these mutants, or an empty string if it can.

    A check that nothing turned red yet proves nothing; a one-sided one is fooled more easily, so
    it takes two mutants, one of them a liar.

    Args:
        waiting: what a mutant that can't be made yet waits for.
    """
    if not killers:
        return waiting or "it has no mutant yet"
    if entry.one_sided and (len(killers) < 2 or not any(mutant.liar for mutant in killers)):
        return "it is one-sided and has not yet two mutants, one of them a liar"
    return ""
