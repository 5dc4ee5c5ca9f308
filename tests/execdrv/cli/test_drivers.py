"""`execdrv drivers`: each with version, origin, availability and offers."""

from __future__ import annotations

import json
from typing import Any

from execdrv.guarantees.ids import IDS

WRAPPER = """\
from execdrv.hookspecs import hookimpl
class P:
    @hookimpl(wrapper=True)
    def execdrv_start(self, container): return (yield)
plugin = P()
"""


def test_the_table_has_the_built_in_drivers(cli: Any) -> None:
    result = cli.run("drivers")
    assert (result.returncode, result.stderr) == (0, b"")
    table = result.stdout.decode().split("\n\n")[0]
    rows = {line.split()[0]: line for line in table.splitlines()}
    for name in ("native", "lxc", "chroot"):
        assert "execdrv 0" in rows[name]
    assert rows["native"].split()[-1] == "yes"
    assert "life " in result.stdout.decode()


def test_verbose_shows_every_guarantee(cli: Any) -> None:
    text = cli.run("drivers", "-v", "--no-plugins").stdout.decode()
    section = text.split("native offers:\n")[1]
    assert {line.split()[0] for line in section.splitlines() if "." in line[:12]} >= set(IDS)
    assert "absent: " in text and "enforced" in text


def test_json_has_all_of_it(cli: Any) -> None:
    found = {one["name"]: one for one in json.loads(cli.run("drivers", "--json").stdout)}
    native = found["native"]
    assert native["kind"] == "driver" and native["available"] is True
    assert native["distributions"] == [f"execdrv {native['version']}"]
    assert set(native["offers"]) == set(IDS)
    assert native["defaults"]["root_mode"] == "private"


def test_names_are_for_completion(cli: Any) -> None:
    cli.add_plugin("broken", "raise RuntimeError\n")
    assert cli.run("drivers", "--names").stdout == b"broken\nchroot\nlxc\nnative\n"
    assert cli.run("drivers", "--names", "--no-plugins").stdout == b"chroot\nlxc\nnative\n"


def test_broken_plugins_and_conflicts_are_shown(cli: Any) -> None:
    cli.add_plugin("broken", "raise RuntimeError('no\\x1b way')\n")
    cli.add_plugin("audit", WRAPPER)
    cli.add_plugin("native", "plugin = 1\n", distribution="usurper")
    result = cli.run("drivers")
    assert (result.returncode, result.stderr) == (0, b"")
    text = result.stdout.decode()
    drivers = [line.split()[0] for line in text.split("\n\n")[0].splitlines()]
    assert drivers == ["DRIVER", "chroot", "lxc"]
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "broken: " in rows["broken"] and r"no\x1b way" in rows["broken"]
    assert "wraps start" in rows["audit"]
    assert "usurper 1.5" in rows["native"] and "broken" in rows["native"]
    assert "\x1b" not in text
    kinds = {one["name"]: one["kind"] for one in json.loads(cli.run("drivers", "--json").stdout)}
    assert (kinds["broken"], kinds["audit"], kinds["native"]) == ("broken", "plugin", "broken")
