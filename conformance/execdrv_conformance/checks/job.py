"""What checks of lives, ends and leftovers share: jobs that beat, other callers, attempts."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from execdrv.errors import ExecdrvError
from execdrv.host import Host
from execdrv_conformance.bench import DEADLINE_S, Bench, Look, describe_error
from execdrv_conformance.observe import process

#: Beats on standard output as long as it lives, at most a minute.
BEAT = "import os,time\nfor _ in range(3000):\n    os.write(1,b'beat\\n')\n    time.sleep(0.02)\n"
#: Kinds of processes that a careless end leaves (probes/lifecycle.py).
KINDS = ("session", "double", "daemon", "deaf", "left")
#: Seconds between two beats, and seconds after which one more must have come.
PERIOD_S = 0.02
QUIET_S = 0.2


def attempt(act: Callable[[], Any]) -> list[str]:
    """Classes of the error that an act raises, nearest first; empty if it raises none."""
    try:
        act()
    except ExecdrvError as error:
        classes: list[str] = describe_error(error)["classes"]
        return classes
    except TimeoutError:
        return ["TimeoutError"]
    return []


def wait_until(holds: Callable[[], bool], *, timeout_s: float) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def state_of(bench: Bench) -> Path:
    """The state directory of the session's hosts."""
    return Path(bench.host.registry.root)


@contextlib.contextmanager
def other_caller(bench: Bench) -> Iterator[Bench]:
    """The same case with a host, and so a fork server, of its own."""
    host = Host(root=str(state_of(bench)), deadline_s=DEADLINE_S)
    try:
        yield attrs.evolve(bench, host=host)
    finally:
        host.close()


def warm_up(bench: Bench) -> None:
    """One container: what the host makes once, and keeps, is there before anybody looks."""
    bench.run(["/bin/true"])


def kill(pid: int) -> None:
    """Kill a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 9)


def sweep(*nonces: str) -> None:
    """End what carries a nonce: leftovers of one check must not be found by the next."""
    for nonce in nonces:
        left = process.find_marked(nonce)
        for pid in left:
            kill(pid)
        process.wait_ended(left, timeout_s=2.0)


class Beats:
    """Lines that processes of a job write as long as they live, in a file of the machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def count(self) -> dict[str, int]:
        """Lines by word."""
        return dict(Counter(self.path.read_text(errors="replace").split()))

    def wait_for(self, words: tuple[str, ...], *, timeout_s: float = 3.0) -> dict[str, int]:
        """The counts, as soon as each word is there."""
        wait_until(lambda: set(words) <= set(self.count()), timeout_s=timeout_s)
        return self.count()

    def count_new(self, *, over_s: float = QUIET_S) -> dict[str, int]:
        """Lines by word that come during a time from now on."""
        before = Counter(self.count())
        time.sleep(over_s)
        return dict(Counter(self.count()) - before)


def beats_of(look: Look) -> Beats:
    """Those of an agent's job: on its standard error, which no line of the agent's own crosses."""
    return Beats(look.bench.scratch / f"{look.agent.nonce}.err")


def leave_kinds(look: Look) -> dict[str, int]:
    """Have the job leave one process of each kind; how often each has beaten by now."""
    look.agent.call("lifecycle:leave_kinds", {"kinds": list(KINDS), "period_s": PERIOD_S})
    return beats_of(look).wait_for(KINDS)
