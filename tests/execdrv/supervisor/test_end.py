"""How an end is judged: every combination of who ended it and what the job did."""

from __future__ import annotations

import pytest

from execdrv.driver import Exit
from execdrv.supervisor.end import judge


@pytest.mark.parametrize(
    ("reason", "exited", "oom_kills", "expected", "status"),
    [
        (None, (0, None), 0, (0, None, "exited"), 0),
        (None, (255, None), 0, (255, None, "exited"), 255),
        # A child's death for memory is data: the command's own end decides.
        (None, (3, None), 2, (3, None, "exited"), 3),
        # 137 by exit is no signal.
        (None, (137, None), 1, (137, None, "exited"), 137),
        (None, (None, 9), 0, (None, 9, "signaled"), 137),
        (None, (None, 9), 1, (None, 9, "oom"), 137),
        (None, (None, 15), 1, (None, 15, "signaled"), 143),
        # The init itself was ended.
        (None, (None, None), 1, (None, 9, "oom"), 137),
        (None, (None, None), 0, (None, None, "lost"), 125),
        ("timeout", (None, None), 0, (None, 9, "timeout"), 137),
        ("timeout", (0, None), 3, (None, 9, "timeout"), 137),
        ("destroyed", (None, 15), 0, (None, 9, "destroyed"), 137),
    ],
)
def test_an_end_is_judged(
    reason: object,
    exited: tuple[int | None, int | None],
    oom_kills: int,
    expected: tuple[object, object, object],
    status: int,
) -> None:
    code, signum, why = judge(reason, exited=exited, oom_kills=oom_kills)  # type: ignore[arg-type]
    assert (code, signum, why) == expected
    found = Exit(code=code, signal=signum, reason=why, started=True)
    assert found.status == status
