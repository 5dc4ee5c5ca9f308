"""What the documents show is true: README's snippets run, hooks and fields are all described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from execdrv import hookspecs
from execdrv.driver import Box, Driver, Exit
from execdrv.spec import ContainerSpec

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()


def snippets(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("number", range(len(snippets(README, "python"))))
def test_readmes_python_snippets_run(number: int, tmp_path: Path) -> None:
    program = snippets(README, "python")[number]
    environment = {**os.environ, "EXECDRV_ROOT": str(tmp_path / "state")}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    for shown in re.findall(r"print\(.*?\)\s+# (.*)", program):
        assert shown in result.stdout
    assert result.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    "line",
    [
        line.removeprefix("# ").partition("  #")[0].strip()
        for block in snippets(README, "console")
        for line in block.splitlines()
        if line.startswith("# execdrv run")
    ],
)
def test_readmes_run_lines_are_legal(line: str, tmp_path: Path) -> None:
    """As a plan: the commands in them are the reader's."""
    (tmp_path / "tree").mkdir()
    for name in ("proc", "dev", "tmp"):
        (tmp_path / "tree" / name).mkdir()
    (tmp_path / "src").mkdir()
    words = line.split()[2:]
    head, tail = words[: words.index("--")], words[words.index("--") :]
    environment = {**os.environ, "EXECDRV_ROOT": str(tmp_path / "state")}
    argv = [sys.executable, "-m", "execdrv", "run", *head, "--dry-run", *tail]
    result = subprocess.run(
        argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert result.returncode == 0, result


def test_the_example_driver_in_the_docs_is_the_one_that_is_tested() -> None:
    text = (TOP / "docs/writing-a-driver.md").read_text()
    assert (TOP / "tests/outside/sample_plugin/driver.py").read_text() in text


def test_every_hook_and_its_arguments_are_documented() -> None:
    text = (TOP / "docs/contract.md").read_text()
    for name in dir(hookspecs):
        if name.startswith("execdrv_"):
            code = getattr(hookspecs, name).__code__
            arguments = ", ".join(code.co_varnames[: code.co_argcount])
            assert f"`{name}({arguments})`" in text


def test_every_method_and_field_of_the_contract_is_documented() -> None:
    text = (TOP / "docs/contract.md").read_text()
    methods = [n for n, v in vars(Driver).items() if callable(v) and not n.startswith("_")]
    for name in methods:
        assert f"`{name}(" in text, name
    for cls in (Box, Exit):
        for field in attrs.fields(cls):
            assert f"`{field.name}`" in text, f"{cls.__name__}.{field.name}"


def test_every_field_of_the_spec_is_documented() -> None:
    text = (TOP / "docs/contract.md").read_text()
    for field in attrs.fields(ContainerSpec):
        assert f"| `{field.name}` |" in text, field.name
