"""A run of the kit from the command line: its directory, its progress, and how it is broken off."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from execdrv.cli.conformance.option import choose_seed
from execdrv.cli.output import complain, visible, write_error
from execdrv.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from execdrv.driver import DriverRef
    from execdrv_conformance.run import Step

#: Seconds between two lines of progress where no terminal is.
_PATIENCE_S = 15.0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends a run as SIGINT does, by KeyboardInterrupt: what it has made is removed first.

    A second signal is not heard: cutting the removal short would leave things on the machine.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(_number: int, _frame: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def run_directory() -> Iterator[Path]:
    """A run directory that is removed in the end."""
    from execdrv_conformance.store import make_run_directory, remove_run_directory

    directory = make_run_directory()
    try:
        yield directory
    finally:
        remove_run_directory(directory)


def measure(
    driver: DriverRef,
    ids: list[str],
    options: Namespace,
    *,
    directory: Path,
    baseline: dict[str, dict[str, Any]] | None = None,
    control: Path | None = None,
    verbose: bool = False,
) -> dict[str, Any]:
    """Run the checks of a driver, with progress on stderr.

    Raises:
        UsageError: the driver can't be loaded; a number is out of range.
    """
    from execdrv_conformance.run import default_workers, run_driver
    from execdrv_conformance.session import UnusableDriverError

    workers = default_workers() if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"cannot use option '--workers' with {workers}: at least one is needed")
    words = {
        "profiles": options.profiles,
        "match": options.match,
        "hostile": not options.no_hostile,
    }
    try:
        with ProgressBar(driver.target, verbose=verbose) as bar:
            return run_driver(
                driver,
                ids=ids,
                seed=choose_seed(options),
                directory=directory,
                workers=workers,
                baseline=baseline,
                control=control,
                progress=bar,
                words=words,
            )
    except UnusableDriverError as error:
        raise UsageError(str(error), hint="`execdrv drivers` lists those installed") from error


class ProgressBar:
    """How far a run is, on stderr: one line that changes at a terminal, else a line now and then.

    A context manager.
    """

    def __init__(self, title: str, *, verbose: bool) -> None:
        self._title = visible(title)
        self._verbose = verbose
        self._moves = os.isatty(2) and not verbose
        self._spoke_at = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._moves:
            write_error("\r\x1b[K")

    def __call__(self, step: Step) -> None:
        """One check is done."""
        result = step.result
        if self._verbose:
            name = f"{result.verdict:<17} {result.id}"
            write_error(visible(f"{name:<42} {result.reason}"[:300].rstrip()) + "\n")
        elif self._moves:
            write_error(f"\r\x1b[K{self._say(step)}")
        elif time.monotonic() - self._spoke_at > _PATIENCE_S:
            self._spoke_at = time.monotonic()
            complain(self._say(step))

    def _say(self, step: Step) -> str:
        done = step.done * 20 // max(1, step.total)
        left = "" if step.left_s is None else f", about {step.left_s:.0f} s left"
        bar = "#" * done + "." * (20 - done)
        return f"{self._title} [{bar}] {step.done}/{step.total}{left}  {step.result.id}"[:100]
