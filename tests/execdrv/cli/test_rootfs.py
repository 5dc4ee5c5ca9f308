"""`execdrv rootfs`: made, listed, used and removed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def own_cache(cli: Any, tmp_path: Path) -> Path:
    """A cache that may be emptied."""
    path = tmp_path / "own-cache"
    cli.env["EXECDRV_CACHE"] = str(path)
    return path


def test_make_list_remove(cli: Any, kit: Any, own_cache: Path) -> None:
    assert cli.run("rootfs", "list").stdout == b"NAME  SIZE  AGE  IN USE  WITH\n"
    result = cli.run("rootfs", "make", "--with", "env")
    assert result.returncode == 0, result
    path = Path(result.stdout.decode().strip())
    assert path.parent == own_cache and (path / "bin").exists()
    # Found again, not made.
    again = json.loads(cli.run("rootfs", "make", "--with", "env", "--json").stdout)
    assert (again["path"], again["names"]) == (str(path), ["env"])
    (listed,) = json.loads(cli.run("rootfs", "list", "--json").stdout)
    assert listed["name"] == path.name and listed["in_use"] is False
    assert cli.run("rootfs", "list", "-q").stdout.decode() == f"{path.name}\n"
    assert path.name in cli.run("rootfs", "list").stdout.decode()
    result = cli.run("rootfs", "remove", "nosuch", path.name)
    kit.one_error(result, 125, "'nosuch'")
    assert result.stdout.decode() == f"{path.name}\n"
    assert not path.exists()


def test_one_in_use_is_not_removed(cli: Any, kit: Any) -> None:
    process = cli.start_ready("--name", "web", script="echo ready; exec sleep 300")
    (used,) = json.loads(cli.run("rootfs", "list", "--json").stdout)
    assert used["in_use"] is True
    kit.one_error(cli.run("rootfs", "remove", used["name"]), 125, used["name"], "uses it")
    assert cli.run("destroy", "web").returncode == 0
    process.wait(30)


def test_a_tree_of_ones_own_can_be_run(cli: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    result = cli.run("rootfs", "make", "--output", tree)
    assert (result.returncode, result.stdout.decode()) == (0, f"{tree}\n")
    (tree / "own").write_text("mine")
    assert cli.run("run", "--rootfs", tree, "--", "cat", "/own").stdout == b"mine"
    subprocess.run(["rm", "-rf", tree], check=True)
