"""Signals to the command, kept in their order until somebody takes them.

Between `with SignalQueue()` and its end no signal of FORWARDED ends or interrupts the command; each
makes the queue's descriptor readable. What the caller ignores (nohup, a background job of a shell
script) stays ignored. For the one thread of the command.
"""

from __future__ import annotations

import os
import signal

#: What is passed on to the job: everything that somebody sends on purpose. Not the kernel's own
#: reports about this process (CHLD, PIPE, SEGV ...), nor what a terminal asks of it (WINCH, TSTP).
FORWARDED: tuple[int, ...] = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGCONT,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)

#: What asks for the end: where there is no job yet, none is started.
ENDING: tuple[int, ...] = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


class SignalQueue:
    """Keeps the signals that come; a context manager."""

    def __init__(self) -> None:
        self._before: dict[int, object] = {}
        self._read_end = self._write_end = self._wakeup_before = -1

    def __enter__(self) -> SignalQueue:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Before the handlers: a signal must find both.
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        for number in FORWARDED:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._read_end)
        os.close(self._write_end)

    def fileno(self) -> int:
        """A descriptor that is readable when a signal has come."""
        return self._read_end

    def take(self) -> list[int]:
        """The signals that have come since, in their order."""
        try:
            return list(os.read(self._read_end, 65536))
        except BlockingIOError:
            return []
