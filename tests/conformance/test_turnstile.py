"""Who is alone is alone: no two exclusive blocks overlap, and no shared one with an exclusive."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from execdrv_conformance.turnstile import pass_turnstile


def _enter(directory: str, exclusive: bool, journal: str, rounds: int) -> None:
    for _ in range(rounds):
        with pass_turnstile(exclusive=exclusive, directory=directory):
            begun = time.monotonic_ns()
            time.sleep(0.002)
            line = f"{int(exclusive)} {begun} {time.monotonic_ns()}\n"
        fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, line.encode())
        os.close(fd)


def test_exclusive_blocks_never_overlap_with_any_other(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    locks = tmp_path / "locks"
    locks.mkdir()
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=_enter, args=(str(locks), number % 2 == 0, str(journal), 12))
        for number in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    blocks = [tuple(map(int, line.split())) for line in journal.read_text().splitlines()]
    assert len(blocks) == 48
    overlaps = [
        (one, other)
        for number, one in enumerate(blocks)
        for other in blocks[number + 1 :]
        if one[1] < other[2] and other[1] < one[2]
    ]
    assert [pair for pair in overlaps if pair[0][0] or pair[1][0]] == []
    assert overlaps, "shared blocks did run side by side, or this test sees nothing"


def test_nothing_is_left_of_the_locks(tmp_path: Path) -> None:
    for exclusive in (False, True, False):
        with pass_turnstile(exclusive=exclusive, directory=str(tmp_path)):
            assert os.listdir(tmp_path)
    assert os.listdir(tmp_path) == []
