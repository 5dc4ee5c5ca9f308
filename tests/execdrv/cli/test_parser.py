"""Reading command lines: where the options end, and what is refused."""

from __future__ import annotations

import pytest

from execdrv.cli.parser import Parser
from execdrv.errors import UsageError


def make_parser() -> Parser:
    parser = Parser(prog="execdrv try")
    parser.takes_command = True
    parser.add_argument("--size")
    parser.add_argument("--many", action="append")
    parser.add_argument("--flag", action="store_true")
    parser.finish(examples=["execdrv try"])
    return parser


@pytest.mark.parametrize(
    ("words", "size", "command"),
    [
        (["--size", "5", "--", "cmd", "-x"], "5", ["cmd", "-x"]),
        (["--size=5", "cmd", "--size", "6"], "5", ["cmd", "--size", "6"]),
        (["cmd", "--", "x"], None, ["cmd", "--", "x"]),
        (["--", "--size", "5"], None, ["--size", "5"]),
        (["--", "--", "x"], None, ["--", "x"]),
        (["-", "x"], None, ["-", "x"]),
        (["", "x"], None, ["", "x"]),
        (["--flag", "--", ""], None, [""]),
        (["--size", "--flag", "cmd"], "--flag", ["cmd"]),
        (["--size", "-5", "cmd"], "-5", ["cmd"]),
        (["--size=", "cmd"], "", ["cmd"]),
        (["--size", "", "cmd"], "", ["cmd"]),
        (["--size=a=b", "cmd"], "a=b", ["cmd"]),
        (["--size", "1", "--size", "2", "cmd"], "2", ["cmd"]),
        (["--size", "\udcff", "\udcfe"], "\udcff", ["\udcfe"]),
        ([], None, []),
        (["--flag"], None, []),
    ],
)
def test_options_end_at_the_first_word_that_is_none(
    words: list[str], size: str | None, command: list[str]
) -> None:
    options = make_parser().parse(words)
    assert (options.size, options.command) == (size, command)


def test_an_option_may_be_repeated() -> None:
    options = make_parser().parse(["--many", "a", "--many=b", "cmd", "--many", "c"])
    assert options.many == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--siz", "5", "cmd"], "'--siz'"),
        (["-z", "cmd"], "'-z'"),
        (["--size"], "'--size' needs a value"),
        (["--size", "--", "cmd"], "'--size' needs a value"),
        (["--size=--", "cmd"], "'--size' needs a value"),
        (["--flag=yes", "cmd"], "'--flag' takes no value"),
    ],
)
def test_wrong_options_are_named(words: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_parser().parse(words)
    assert expected in str(caught.value)
    assert "execdrv try --help" in caught.value.hint
