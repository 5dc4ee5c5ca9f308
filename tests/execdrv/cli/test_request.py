"""From options to a spec: every option's notation, every wrong value, and specs from files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from execdrv import wire
from execdrv.cli.parser import Parser
from execdrv.cli.request import (
    Request,
    check_passed,
    fill_spec_options,
    make_request,
    parse_bind,
    parse_env,
    parse_rlimit,
    parse_tmpfs,
)
from execdrv.driver import DriverRef
from execdrv.errors import ExecdrvError, SpecError, UsageError
from execdrv.spec import UNSET, Bind, ContainerSpec, Rlimit, Tmpfs


def make(*words: str, environment: dict[bytes, bytes] | None = None) -> Request:
    parser = Parser(prog="execdrv run")
    parser.takes_command = True
    fill_spec_options(parser)
    parser.add_argument("--spec")
    parser.finish(examples=[])
    return make_request(parser.parse(words), environment or {})


def make_spec(*words: str, **keywords: Any) -> ContainerSpec:
    return make(*words, "--", "cmd", **keywords).spec


def test_what_nobody_asked_for_is_unset() -> None:
    spec = make("cmd", "-x").spec
    assert spec.argv == (b"cmd", b"-x")
    fields = [field.name for field in attrs.fields(ContainerSpec) if field.name != "argv"]
    assert all(getattr(spec, name) is UNSET for name in fields)


def test_every_field_of_a_spec_has_an_option() -> None:
    parser = Parser(prog="execdrv run")
    fill_spec_options(parser)
    flags = {flag for action in parser.options() for flag in action.option_strings}
    names = {"binds": "bind", "rlimits": "rlimit", "pass_fds": "pass-fd"}
    names["driver_options"] = "driver-option"
    for field in attrs.fields(ContainerSpec):
        name = names.get(field.name, field.name.replace("_", "-"))
        assert name == "argv" or f"--{name}" in flags


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--name", "A_1-x"], "name", "A_1-x"),
        (["--env", "A=1", "--env=B=", "--env", "A=2"], "env", (b"A=2", b"B=")),
        (["--workdir", "/w d"], "workdir", b"/w d"),
        (["--user", "1000:games"], "user", "1000:games"),
        (["--group", "27"], "group", "27"),
        (["--groups", "27,1000", "--groups", "adm"], "groups", ("27", "1000", "adm")),
        (["--cap-add", "NET_ADMIN,cap_sys_time"], "cap_add", ("NET_ADMIN", "SYS_TIME")),
        (["--cap-drop", "ALL"], "cap_drop", ("ALL",)),
        (["--rootfs", "tree"], "rootfs", b"tree"),
        (["--root-mode", "direct"], "root_mode", "direct"),
        (["--read-only"], "root_mode", "read-only"),
        (["--read-only", "--root-mode", "read-only"], "root_mode", "read-only"),
        (["--hostname", "h" * 64], "hostname", "h" * 64),
        (["--net", "none"], "net", "none"),
        (["--memory", "1.5G"], "memory", 3 << 29),
        (["--memory", "1M", "--memory-swap", "0"], "memory_swap", 0),
        (["--cpus", "0.5"], "cpus", 0.5),
        (["--pids", "16"], "pids", 16),
        (["--timeout", "250ms"], "timeout", 0.25),
        (["--pass-fd", "7", "--pass-fd", "5"], "pass_fds", (5, 7)),
        (["--cgroup-parent", "/a/b"], "cgroup_parent", "a/b"),
        (["--require", "pid.hidden,mem.tree"], "require", ("pid.hidden", "mem.tree")),
        (
            ["--driver-option", "k=v=w", "--driver-option=l="],
            "driver_options",
            {"k": "v=w", "l": ""},
        ),
        (["--rlimit", "nofile=256"], "rlimits", (Rlimit(name="nofile", soft=256, hard=256),)),
        (["--tmpfs", "/t"], "tmpfs", (Tmpfs(target=b"/t"),)),
        (
            ["--bind", "a:/b", "--bind=/c:/d:ro"],
            "binds",
            (Bind(source=b"a", target=b"/b"), Bind(source=b"/c", target=b"/d", read_only=True)),
        ),
    ],
)
def test_each_option_gives_its_field(words: list[str], field: str, value: object) -> None:
    assert getattr(make_spec(*words), field) == value


#: Option, a value that can't be right, what the message must name beside the value.
BAD_VALUES = [
    ("--name", "a/b", "[A-Za-z0-9]"),
    ("--name", "..", "name"),
    ("--name", ".x", "name"),
    ("--name", "", "name"),
    ("--name", "a ", "name"),
    ("--name", "a\n", "name"),
    ("--name", "\u00e9", "name"),
    ("--name", "n" * 65, "name"),
    ("--env", "=x", "env"),
    ("--env", "", "env"),
    ("--env", "NOT_SET_HERE", "no such variable"),
    ("--env", "A=\0", "NUL"),
    ("--workdir", "relative", "absolute"),
    ("--workdir", "", "workdir"),
    ("--user", "", "user"),
    ("--user", "-1", "user"),
    ("--user", "4294967295", "user"),
    ("--user", "a b", "user"),
    ("--user", "1:", "user"),
    ("--group", "no group", "group"),
    ("--groups", "", "groups"),
    ("--groups", "27,,28", "groups"),
    ("--timeout", "0", "timeout"),
    ("--timeout", "-1s", "timeout"),
    ("--timeout", "soon", "250ms"),
    ("--timeout", "nan", "timeout"),
    ("--pass-fd", "2", "pass_fds"),
    ("--pass-fd", "x", "pass_fds"),
    ("--pass-fd", "-3", "pass_fds"),
    ("--rootfs", "", "rootfs"),
    ("--root-mode", "shared", "private, read-only, direct"),
    ("--bind", "/src", "SRC:DST"),
    ("--bind", "/a:/b:rx", "neither ro nor rw"),
    ("--bind", "/a:/b:ro:x", "SRC:DST"),
    ("--bind", "/a:b", "absolute"),
    ("--bind", ":/b", "empty"),
    ("--bind", "/a\\x:/b", "backslash"),
    ("--bind", "/a:/b\\", "backslash"),
    ("--tmpfs", "", "empty"),
    ("--tmpfs", "t", "absolute"),
    ("--tmpfs", "/t:huge", "size=SIZE"),
    ("--tmpfs", "/t:size=huge", "64M"),
    ("--tmpfs", "/t:mode=9", "octal"),
    ("--tmpfs", "/t:mode=", "octal"),
    ("--tmpfs", "/t:mode=77777", "mode"),
    ("--tmpfs", "/t:size=1M:x", "DST"),
    ("--hostname", "h" * 65, "64"),
    ("--hostname", "a b", "hostname"),
    ("--hostname", "-x", "hostname"),
    ("--hostname", "", "hostname"),
    ("--net", "bridge", "none, host"),
    ("--cap-add", "CAP_FLY", "no such capability"),
    ("--cap-drop", "", "no such capability"),
    ("--require", "pid", "guarantee"),
    ("--require", "", "guarantee"),
    ("--memory", "64MB", "64M"),
    ("--memory", "0", "memory"),
    ("--memory", "-1", "memory"),
    ("--memory", "99999999999G", "2**63-1"),
    ("--memory", "nan", "memory"),
    ("--memory-swap", "1G", "needs a memory limit"),
    ("--cpus", "0", "cpus"),
    ("--cpus", "inf", "cpus"),
    ("--cpus", "half", "0.5"),
    ("--pids", "0", "pids"),
    ("--pids", "1.5", "whole number"),
    ("--pids", "\u0663", "whole number"),
    ("--rlimit", "nofile", "NAME=SOFT"),
    ("--rlimit", "nofile=", "unlimited"),
    ("--rlimit", "nofile=1:", "NAME=SOFT"),
    ("--rlimit", "nofile=2:1", "exceeds"),
    ("--rlimit", "nofile=-1", "unlimited"),
    ("--rlimit", "files=1", "nofile"),
    ("--rlimit", "nofile=99999999999999999999", "unlimited"),
    ("--cgroup-parent", "a/../b", "'..'"),
    ("--cgroup-parent", "", "cgroup_parent"),
    ("--driver-option", "novalue", "KEY=VALUE"),
    ("--driver-option", "Bad Key=1", "name must match"),
]


@pytest.mark.parametrize(("option", "value", "word"), BAD_VALUES)
def test_a_bad_value_is_refused_with_option_and_value(option: str, value: str, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(option, value)
    line = f"{caught.value}; {caught.value.hint}"
    assert word in line
    assert option[2:].replace("-", "_")[:4] in line.replace("-", "_")


def test_every_option_that_takes_a_value_has_a_bad_one() -> None:
    parser = Parser(prog="execdrv run")
    fill_spec_options(parser)
    valued = {action.option_strings[-1] for action in parser.options() if action.nargs != 0}
    # Any text may name a driver; that it is none is found later.
    assert valued - {option for option, _, _ in BAD_VALUES} == {"--driver"}


def test_read_only_beside_another_mode_is_refused() -> None:
    with pytest.raises(SpecError, match="--read-only beside --root-mode 'direct'"):
        make_spec("--read-only", "--root-mode", "direct")


def test_without_a_command_it_is_refused() -> None:
    with pytest.raises(UsageError, match="no command"):
        make("--memory", "1M")
    with pytest.raises(UsageError, match="no command"):
        make("--")


# --- single notations --------------------------------------------------------------------------


def test_a_name_alone_copies_the_callers_variable() -> None:
    environment = {b"A": b"v=\xff", b"EMPTY": b""}
    assert parse_env("A", environment) == b"A=v=\xff"
    assert parse_env("EMPTY", environment) == b"EMPTY="
    assert parse_env("A=", environment) == b"A="


@pytest.mark.parametrize(
    ("word", "source", "target"),
    [
        (r"/m\:c:/x", b"/m:c", b"/x"),
        (r"/m\\e:/x\:y", rb"/m" + b"\\e", b"/x:y"),
        ("/m a,b\tf\n:/x\n", b"/m a,b\tf\n", b"/x\n"),
        ("./\udcff:/\udcfe", b"./\xff", b"/\xfe"),
        (r"/m\\:/x", b"/m\\", b"/x"),
    ],
)
def test_any_path_can_be_bound(word: str, source: bytes, target: bytes) -> None:
    assert parse_bind(word) == Bind(source=source, target=target)
    assert parse_bind(word + ":ro").read_only
    assert not parse_bind(word + ":rw").read_only


def test_tmpfs_settings() -> None:
    assert parse_tmpfs(r"/a\:b:size=64M,mode=755") == Tmpfs(
        target=b"/a:b", size=1 << 26, mode=0o755
    )
    assert parse_tmpfs("/a:mode=1777").mode == 0o1777


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("nofile=256:512", Rlimit(name="nofile", soft=256, hard=512)),
        ("RLIMIT_CORE=unlimited", Rlimit(name="core", soft=None, hard=None)),
        ("stack=8388608:unlimited", Rlimit(name="stack", soft=8388608, hard=None)),
        ("cpu=0", Rlimit(name="cpu", soft=0, hard=0)),
    ],
)
def test_rlimits(word: str, expected: Rlimit) -> None:
    assert parse_rlimit(word) == expected


# --- the driver --------------------------------------------------------------------------------


def test_the_driver_is_native_or_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXECDRV_DRIVER", raising=False)
    assert make("cmd").driver == DriverRef(target="native")
    monkeypatch.setenv("EXECDRV_DRIVER", "")
    assert make("cmd").driver == DriverRef(target="native")
    monkeypatch.setenv("EXECDRV_DRIVER", "lxc")
    assert make("cmd").driver == DriverRef(target="lxc")
    assert make("--driver", "chroot", "cmd").driver == DriverRef(target="chroot")


# --- specs from files --------------------------------------------------------------------------


@pytest.fixture
def write_spec(tmp_path: Path) -> Any:
    def write(data: Any) -> str:
        path = tmp_path / "spec.json"
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        path.write_bytes(text)
        return str(path)

    return write


def test_a_spec_comes_back_from_its_file(write_spec: Any) -> None:
    spec = ContainerSpec(
        argv=["a", b"\xff"],
        env={"A": "x\x1b[0m\x01"},
        memory="64M",
        binds=[Bind(source="/s", target="/t")],
    )
    assert make("--spec", write_spec(wire.encode(spec))).spec == spec


def test_a_record_brings_its_driver_too(write_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECDRV_DRIVER", "chroot")
    record = {
        "version": 1,
        "driver": {"target": "lxc", "options": {"a": "b"}},
        "spec": {"argv": ["x"], "name": "web"},
    }
    request = make("--spec", write_spec(record))
    assert request.driver == DriverRef(target="lxc", options={"a": "b"})
    assert request.spec == ContainerSpec(argv=["x"], name="web")
    assert make("--driver=native", "--spec", write_spec(record)).driver.target == "native"


def test_options_and_command_replace_fields_of_the_file(write_spec: Any) -> None:
    path = write_spec({"argv": ["x"], "name": "web", "env": ["A=1", "B=2"], "pids": 5})
    request = make("--spec", path, "--name", "w2", "--env", "C=3", "--", "y", "z")
    assert request.spec == ContainerSpec(argv=["y", "z"], name="w2", env=["C=3"], pids=5)


def test_a_command_fills_in_for_a_file_without_one(write_spec: Any) -> None:
    path = write_spec({"pids": 5})
    assert make("--spec", path, "cmd").spec == ContainerSpec(argv=["cmd"], pids=5)
    with pytest.raises(UsageError, match="'argv' is missing"):
        make("--spec", path)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"argv": ["x"], "memori": 5}, "'memori'"),
        ({"argv": "x"}, "a list"),
        ({"argv": ["x"], "memory": "64M"}, "memory"),
        ({"argv": ["x"], "memory": 0}, "memory"),
        ({"argv": []}, "argv"),
        ({"argv": ["x"], "binds": [{"source": "/a"}]}, "target"),
        ({"spec": {"argv": ["x"]}, "driver": {"target": 5}}, "target"),
        ({"argv": ["x"], "name": "../x"}, "'../x'"),
        ([], "object"),
        (5, "object"),
        (None, "object"),
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        (b'{"argv": ["x"], "argv": ["y"]}', "twice"),
        (b'{"argv": ["x"], "cpus": NaN}', "NaN"),
        (b"[" * 100000, "JSON"),
    ],
)
def test_a_file_of_another_form_is_refused(write_spec: Any, data: Any, word: str) -> None:
    with pytest.raises(ExecdrvError) as caught:
        make("--spec", write_spec(data))
    assert word in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="'/no/such/spec': no such file"):
        make("--spec", "/no/such/spec")


# --- descriptors -------------------------------------------------------------------------------


def test_only_open_descriptors_can_be_passed() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    check_passed(ContainerSpec(argv=["x"], pass_fds=[read_end]))
    os.close(read_end)
    with pytest.raises(SpecError, match=f"descriptor {read_end}: it is not open"):
        check_passed(ContainerSpec(argv=["x"], pass_fds=[read_end]))
