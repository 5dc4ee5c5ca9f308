"""A few seconds with a driver: is the binding wrong, or the driver?

First one `true` on the machine itself, the only thing of the kit that runs there; then a handful of
checks in a stand-in host. The binding is what stands between driver and host: entry point, class,
declaration, signatures, errors. Runs in the front end.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import attrs

from execdrv.driver import DriverRef
from execdrv.errors import (
    DeadlineError,
    DriverBugError,
    ExecdrvError,
    PluginError,
    SpecError,
    UnknownDriverError,
    UnsupportedError,
)
from execdrv.host import Host
from execdrv_conformance.checks import load_checks
from execdrv_conformance.run import Progress, run_driver

#: What every driver should keep, and what is quick to see.
SMOKE_IDS = (
    "life.create-inert",
    "life.start-once",
    "life.destroy-idem",
    "proc.exit-code",
    "proc.exit-signal",
    "proc.exec-error",
    "proc.argv-exact",
    "proc.env-exact",
    "proc.cwd",
    "proc.fds-closed",
    "io.split",
    "fs.root",
    "user.uid",
    "bad.fails-closed",
)
RUN_TIMEOUT_S = 10.0
_BINDING = (PluginError, UnknownDriverError, SpecError, DriverBugError, DeadlineError)

Blame = Literal["", "binding", "driver", "machine"]


@attrs.frozen(kw_only=True)
class Trial:
    """What became of one `true`."""

    #: Who is wrong; empty: nobody.
    blame: Blame
    #: What happened, in one line.
    words: str
    hint: str = ""


def try_binding(driver: DriverRef, *, state: str | None, root: str) -> Trial:
    """Run `true` on this machine.

    Args:
        state: the state directory; None: the default one.
        root: a root file system.
    """
    with Host(root=state) as host:
        try:
            with host.start(driver, ["true"], rootfs=root, stdout=None, stderr=None) as container:
                exit = container.wait(timeout_s=RUN_TIMEOUT_S)
        except UnsupportedError as error:
            return Trial(blame="machine", words=error.message, hint=error.hint)
        except ExecdrvError as error:
            blame: Blame = "binding" if isinstance(error, _BINDING) else "driver"
            words = f"{type(error).__name__}: {error.message}"
            return Trial(blame=blame, words=words, hint=error.hint)
        except TimeoutError:
            return Trial(blame="driver", words=f"`true` did not end in {RUN_TIMEOUT_S:g} s")
    return _judge_exit(exit.code, exit.reason)


def _judge_exit(code: int | None, reason: str) -> Trial:
    if code == 0 and reason == "exited":
        return Trial(blame="", words="`true` ran and ended with 0")
    return Trial(blame="driver", words=f"`true` ended with {code}, reason {reason!r}")


def run_smoke(
    driver: DriverRef, *, directory: Path, seed: int, root: str, progress: Progress | None = None
) -> dict[str, Any]:
    """The report of the handful of checks."""
    ids = [id for id in SMOKE_IDS if id in load_checks()]
    return run_driver(
        driver,
        ids=ids,
        seed=seed,
        directory=directory,
        root=root,
        workers=1,
        progress=progress,
        words={"smoke": True},
    )


def conclude_smoke(trial: Trial, report: dict[str, Any] | None) -> str:
    """Who is wrong, in one line."""
    if trial.blame == "binding":
        return "the binding is wrong: the driver can't be used by the host at all"
    if trial.blame == "machine":
        return "nothing is shown: this machine, or the driver, refuses a plain container"
    if trial.blame == "driver":
        return "the binding is right; the driver is wrong: it does not even run `true`"
    failed = list(_list_failed(report))
    if failed:
        return f"the binding is right; the driver is wrong: {', '.join(failed)}"
    return "the binding is right, and the driver keeps what it says, as far as was looked"


def _list_failed(report: dict[str, Any] | None) -> Iterator[str]:
    for entry in (report or {"checks": ()})["checks"]:
        if entry["class"] in ("fail", "kit"):
            yield f"{entry['id']} is {entry['verdict']}"
