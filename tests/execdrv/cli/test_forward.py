"""The queue of signals: kept in order, none lost, handlers put back."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator

import pytest

from execdrv.cli.forward import ENDING, FORWARDED, SignalQueue


@pytest.fixture(autouse=True)
def same_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in FORWARDED}
    yield
    assert {number: signal.getsignal(number) for number in FORWARDED} == before
    assert signal.set_wakeup_fd(-1) == -1


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def test_signals_are_kept_in_their_order() -> None:
    with SignalQueue() as queue:
        assert queue.take() == []
        send(signal.SIGUSR1, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
        assert queue.take() == [signal.SIGUSR1, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        assert queue.take() == []


def test_a_signal_wakes_a_poll() -> None:
    with SignalQueue() as queue:
        poll = select.poll()
        poll.register(queue.fileno(), select.POLLIN)
        assert poll.poll(0) == []
        send(signal.SIGHUP)
        assert poll.poll(1000) == [(queue.fileno(), select.POLLIN)]


def test_a_signal_interrupts_a_poll_without_end() -> None:
    with SignalQueue() as queue:
        poll = select.poll()
        poll.register(queue.fileno(), select.POLLIN)
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        assert poll.poll(20000)
        assert time.monotonic() - started < 15
        assert queue.take() == [signal.SIGALRM]


def test_every_instance_of_a_realtime_signal_is_kept() -> None:
    with SignalQueue() as queue:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
        send(*[signal.SIGRTMIN] * 3)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGRTMIN])
        assert queue.take() == [signal.SIGRTMIN] * 3


def test_what_the_caller_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalQueue() as queue:
            send(signal.SIGHUP, signal.SIGUSR2)
            assert queue.take() == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_what_a_terminal_or_the_kernel_says_is_not_forwarded() -> None:
    own = {signal.SIGWINCH, signal.SIGTSTP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGSEGV}
    assert not own & set(FORWARDED)
    assert set(ENDING) <= set(FORWARDED)
