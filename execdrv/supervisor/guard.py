"""Running a driver's method: with a deadline, and with its errors filled in.

Runs in supervisors and collectors, which are single-threaded.
"""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Iterator
from types import FrameType

from execdrv.driver import Box, Driver
from execdrv.errors import CleanupError, DeadlineError, DriverBugError, ExecdrvError


@contextlib.contextmanager
def driver_call(
    operation: str, *, driver: Driver, container: str, deadline_s: float
) -> Iterator[None]:
    """A block that calls one method of a driver.

    Raises:
        ExecdrvError: what the driver raised, with driver, container and operation filled in.
        DeadlineError: it took longer than `deadline_s` seconds.
        DriverBugError: it raised anything else.
    """
    try:
        with _deadline(deadline_s, operation):
            yield
    except ExecdrvError as error:
        _fill_in(error, driver=driver.name, container=container, operation=operation)
        raise
    except Exception as error:
        bug = DriverBugError(
            f"cannot {operation} container {container!r}: driver {driver.name!r} raised "
            f"{type(error).__name__}: {error}",
            hint="this is a fault of the driver",
            driver=driver.name,
            container=container,
            operation=operation,
        )
        bug.add_note("".join(traceback.format_exception(error)))
        raise bug from error


def call_destroy(driver: Driver, box: Box, *, deadline_s: float) -> list[str]:
    """The driver's `destroy`; its failure is a leftover, never the end of cleaning up."""
    try:
        with driver_call("destroy", driver=driver, container=box.id, deadline_s=deadline_s):
            driver.destroy(box)
    except CleanupError as error:
        return list(error.leftovers or [str(error)])
    except ExecdrvError as error:
        return [str(error)]
    return []


def _fill_in(error: ExecdrvError, **values: str) -> None:
    for name, value in values.items():
        if name in error.field_names and getattr(error, name) is None:
            setattr(error, name, value)


@contextlib.contextmanager
def _deadline(seconds: float, operation: str) -> Iterator[None]:
    """Raise DeadlineError in the block after `seconds`, unless it ends before.

    By SIGALRM, which also ends a blocked system call. Code that holds the interpreter lock without
    end is not reached; for that, the caller's own patience ends some seconds later.
    """

    def expire(_signum: int, _frame: FrameType | None) -> None:
        raise DeadlineError(
            f"cannot {operation} the container: the driver took longer than {seconds:g} s"
        )

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
