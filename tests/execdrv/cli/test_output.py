"""What is written: nothing of others reaches a terminal unseen; sizes, ages, errors, progress."""

from __future__ import annotations

import time

import pytest

from execdrv.cli import output
from execdrv.cli.output import Progress, describe_error, visible
from execdrv.errors import CleanupError, ExecdrvError, SpecError, UnsupportedError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain 'text' \u00e9\u4e2d", "plain 'text' \u00e9\u4e2d"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31m\x07\x7f\0", r"\x1b[31m\x07\x7f\x00"),
        ("\x9b2J", r"\x9b2J"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\ud800", r"\ud800"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\U000e0041", r"\U000e0041"),
        ("", ""),
    ],
)
def test_every_character_of_a_message_can_be_seen(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text).isprintable()


def test_quoted_words_can_be_pasted() -> None:
    assert output.quoted([b"a b", b"c", b"", b"\xff"]) == r"'a b' c '' '\xff'"


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0"), (1023, "1023"), (1536, "1.5K"), (19 << 20, "19.0M"), (3 << 40, "3.0T")],
)
def test_rough_sizes(size: int, shown: str) -> None:
    assert output.format_rough_size(size) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m"), (7200, "2h"), (200000, "2d")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert output.format_age(seconds) == shown


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SpecError("cannot use x: no", hint="do y"), "cannot use x: no; do y"),
        (ExecdrvError("cannot z"), "cannot z"),
        (ExecdrvError(), "ExecdrvError"),
        (OSError(28, "No space left on device"), "cannot go on: no space left on device"),
        (
            FileNotFoundError(2, "No such file or directory", "/x"),
            "cannot go on: no such file or directory: '/x'",
        ),
        (
            UnsupportedError("cannot a", hint="do b", alternatives=["lxc", "native"]),
            "cannot a; do b; drivers that could: lxc, native",
        ),
        (
            UnsupportedError("cannot a", hint="drivers that could: lxc", alternatives=["lxc"]),
            "cannot a; drivers that could: lxc",
        ),
        (
            CleanupError("cannot remove 'c' wholly: left is x", leftovers=["x", "y"]),
            "cannot remove 'c' wholly: left is x; in all: x, y",
        ),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str) -> None:
    assert describe_error(error) == line


def test_many_refusals_point_to_the_dry_run() -> None:
    refusals = [{"message": "a"}, {"message": "b"}]
    error = UnsupportedError("cannot a (and 1 more)", refusals=refusals)
    assert describe_error(error).endswith("--dry-run shows all")


def test_a_fault_of_ours_says_so() -> None:
    assert "KeyError: 'x'" in describe_error(KeyError("x"))
    assert "fault of execdrv or of a plugin" in describe_error(KeyError("x"))


def test_tables_are_aligned_and_visible(capfd: pytest.CaptureFixture[str]) -> None:
    output.write_table([("A", "LONG", "LAST"), ("value", "b", "x\ny"), ("c", "", "")])
    assert capfd.readouterr().out == "A      LONG  LAST\nvalue  b     x\\ny\nc\n"


def test_short_work_shows_no_progress(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress("copying")
    assert capfd.readouterr().err == ""


def test_long_work_shows_its_progress(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PATIENCE_S", 0.05)
    with Progress() as progress:
        progress("looking")
        progress("copying")
        time.sleep(0.3)
        progress("checking")
    assert capfd.readouterr().err == (
        "execdrv: making a root file system: looking\n"
        "execdrv: making a root file system: copying\n"
        "execdrv: making a root file system: checking\n"
    )


def test_the_clock_of_progress_is_stopped(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PATIENCE_S", 0.05)
    with Progress() as progress:
        progress("copying")
    time.sleep(0.2)
    assert capfd.readouterr().err == ""
