"""docs/cli.md names every command and every option."""

from __future__ import annotations

from pathlib import Path

import pytest

from execdrv.cli.completion import flatten, list_commands

DOCS = Path(__file__).resolve().parents[3] / "docs/cli.md"


@pytest.mark.parametrize("path", [path for path, _ in flatten(list_commands())])
def test_every_command_and_option_is_documented(path: str) -> None:
    text = DOCS.read_text()
    assert f"execdrv {path}" in text
    command = dict(flatten(list_commands()))[path]
    missing = [option.flags[-1] for option in command.options if option.flags[-1] not in text]
    assert missing == []
