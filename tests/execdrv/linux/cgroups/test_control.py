from __future__ import annotations

from pathlib import Path

import pytest

from execdrv.linux.cgroups.control import (
    Journal,
    parse_keyed,
    read_control,
    read_number,
    read_optional,
    write_control,
)


def test_keyed_numbers_are_read_and_the_rest_is_left_out() -> None:
    assert parse_keyed("low 0\noom_kill 3\nodd\nrate x\n") == {"low": 0, "oom_kill": 3}


def test_a_long_file_is_read_whole(tmp_path: Path) -> None:
    text = "".join(f"{pid}\n" for pid in range(50_000))
    (tmp_path / "f").write_text(text)
    assert read_control(str(tmp_path / "f")) == text


@pytest.mark.parametrize(
    ("text", "number"), [("12\n", 12), ("-1\n", -1), ("max\n", None), ("", None)]
)
def test_a_number_is_read_or_none(tmp_path: Path, text: str, number: int | None) -> None:
    (tmp_path / "f").write_text(text)
    assert read_number(str(tmp_path / "f")) == number
    assert read_number(str(tmp_path / "missing")) is None


def test_writing_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_control(str(tmp_path / "missing"), "1")
    with pytest.raises(FileNotFoundError):
        Journal().write(str(tmp_path / "missing"), "1")
    assert list(tmp_path.iterdir()) == []
    assert read_optional(str(tmp_path / "missing")) is None


def test_the_journal_brings_every_file_back_last_one_first(tmp_path: Path) -> None:
    # FAKE control files: each old text is as long as the new one, a plain file is not cut.
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    for path in (first, second):
        (tmp_path / path).write_text("1")
    journal = Journal()
    assert journal.write(first, "2") == "2"
    assert journal.write(second, "2") == "2"
    assert journal.write(first, "3") == "3"
    assert journal.roll_back() == []
    assert [read_control(path) for path in (first, second)] == ["1", "1"]
    assert journal.roll_back() == []


def test_the_journal_names_what_could_not_be_brought_back(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("1")
    journal = Journal()
    journal.write(str(path), "2")
    path.unlink()
    assert journal.roll_back() == [str(path)]
