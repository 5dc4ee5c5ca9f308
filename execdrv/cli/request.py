"""From the options of `execdrv run` to a spec: one small parser an option, no look at the kernel.

Each option gives one field of ContainerSpec, in the field's own notation where it has one; what is
out of range the spec itself refuses. Here stand only the forms that the command line adds, such as
SRC:DST:ro. `--spec` brings a whole spec as JSON, whose fields the options replace.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from execdrv import wire
from execdrv.driver import DriverRef
from execdrv.errors import SpecError, UsageError
from execdrv.spec import Bind, ContainerSpec, Rlimit, Tmpfs

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser

DEFAULT_DRIVER = "native"

#: Option -> field of the spec, for values that go there as they are.
_PLAIN = {
    "name": "name",
    "rootfs": "rootfs",
    "root_mode": "root_mode",
    "workdir": "workdir",
    "user": "user",
    "group": "group",
    "hostname": "hostname",
    "net": "net",
    "memory": "memory",
    "memory_swap": "memory_swap",
    "cpus": "cpus",
    "pids": "pids",
    "timeout": "timeout",
    "cgroup_parent": "cgroup_parent",
}
#: Option that may be repeated -> field of the spec that is a list; each value may hold commas.
_LISTS = {
    "groups": "groups",
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "pass_fd": "pass_fds",
    "require": "require",
}


@attrs.frozen(kw_only=True)
class Request:
    """What one command line asks for."""

    driver: DriverRef
    spec: ContainerSpec


def fill_spec_options(parser: Parser) -> None:
    """The options that become fields of a spec."""

    def add(group: Any, flag: str, metavar: str, text: str, *, many: bool = False) -> None:
        action = "append" if many else "store"
        group.add_argument(flag, metavar=metavar, help=text, action=action)

    what = parser.add_argument_group("what runs")
    add(what, "--driver", "NAME", "how to isolate (default: EXECDRV_DRIVER, else native)")
    add(what, "--driver-option", "KEY=VALUE", "an option that only this driver knows", many=True)
    add(what, "--name", "NAME", "the container's id (default: 12 letters and digits by chance)")
    add(what, "--env", "NAME[=VALUE]", "set a variable; NAME alone copies the caller's", many=True)
    add(what, "--workdir", "DIR", "where the command starts (default: /)")
    add(what, "--user", "USER[:GROUP]", "a number, or a name of the root file system's passwd")
    add(what, "--group", "GROUP", "the primary group")
    add(what, "--groups", "GROUP,...", "supplementary groups", many=True)
    add(what, "--timeout", "TIME", "kill it after that time: 250ms, 1.5s, 2m")
    add(what, "--pass-fd", "N", "let the command have the caller's descriptor N", many=True)
    files = parser.add_argument_group("files")
    add(files, "--rootfs", "DIR", "the directory that becomes / (default: one made and cached)")
    add(files, "--root-mode", "MODE", "private: writes end with the container; read-only; direct")
    files.add_argument("--read-only", action="store_true", help="the same as --root-mode read-only")
    add(files, "--bind", "SRC:DST[:ro]", r"show a file or directory; \: is a colon", many=True)
    add(files, "--tmpfs", "DST[:size=64M,mode=1777]", "an empty directory in memory", many=True)
    walls = parser.add_argument_group("walls")
    add(walls, "--hostname", "NAME", "the host name inside (default: the container's id)")
    add(walls, "--net", "none|host", "a network with loopback only, or the machine's own")
    add(walls, "--cap-add", "CAP,...", "add capabilities to the driver's default set", many=True)
    add(walls, "--cap-drop", "CAP,...", "take capabilities away; ALL takes all", many=True)
    add(walls, "--require", "ID,...", "run only if these guarantees are kept in full", many=True)
    limits = parser.add_argument_group("limits, for all processes of the command together")
    add(limits, "--memory", "SIZE", "most memory: 64M, 1.5G")
    add(limits, "--memory-swap", "SIZE", "most swap on top of it (default: 0)")
    add(limits, "--cpus", "NUMBER", "cpu time, in cpus: 0.5")
    add(limits, "--pids", "NUMBER", "most processes and threads")
    add(limits, "--rlimit", "NAME=SOFT[:HARD]", "a limit of each process: nofile=256", many=True)
    add(limits, "--cgroup-parent", "GROUP", "an existing cgroup to stand in")


# --- the whole request -------------------------------------------------------------------------


def make_request(options: Namespace, environment: Mapping[bytes, bytes]) -> Request:
    """The request of one command line.

    Args:
        options: what `fill_spec_options` and --spec have parsed.
        environment: the caller's, for `--env NAME`.
    Raises:
        SpecError: an option's value is no such value.
        UsageError: no command was given, or the spec file can't be read.
    """
    fields = make_fields(options, environment)
    target = options.driver
    if options.spec is not None:
        found, spec = read_spec(options.spec, options.command)
        spec = attrs.evolve(spec, **fields)
    else:
        if not options.command:
            raise UsageError(
                "cannot run: no command was given", hint="execdrv run [OPTIONS] -- COMMAND"
            )
        found, spec = None, ContainerSpec(argv=options.command, **fields)
    if target is None and found is not None:
        return Request(driver=found, spec=spec)
    target = target or os.environ.get("EXECDRV_DRIVER") or DEFAULT_DRIVER
    return Request(driver=DriverRef(target=target), spec=spec)


def make_fields(options: Namespace, environment: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The fields of a spec that the options ask for."""
    fields: dict[str, Any] = {}
    for option, field in _PLAIN.items():
        if (value := getattr(options, option)) is not None:
            fields[field] = value
    for option, field in _LISTS.items():
        if (values := getattr(options, option)) is not None:
            fields[field] = [part for value in values for part in value.split(",")]
    if options.read_only:
        if fields.get("root_mode", "read-only") != "read-only":
            raise SpecError(
                f"cannot use --read-only beside --root-mode {fields['root_mode']!r}",
                field="root_mode",
                value=fields["root_mode"],
            )
        fields["root_mode"] = "read-only"
    if options.env is not None:
        fields["env"] = [parse_env(word, environment) for word in options.env]
    if options.bind is not None:
        fields["binds"] = [parse_bind(word) for word in options.bind]
    if options.tmpfs is not None:
        fields["tmpfs"] = [parse_tmpfs(word) for word in options.tmpfs]
    if options.rlimit is not None:
        fields["rlimits"] = [parse_rlimit(word) for word in options.rlimit]
    if options.driver_option is not None:
        fields["driver_options"] = dict(map(parse_driver_option, options.driver_option))
    return fields


def check_passed(spec: ContainerSpec) -> None:
    """Refuse descriptors that the caller has not opened.

    Called before the command opens anything that stays: else one of its own could be passed.

    Raises:
        SpecError: a descriptor of `pass_fds` is not open.
    """
    for fd in spec.pass_fds or ():
        try:
            os.fstat(fd)
        except OSError:
            raise SpecError(
                f"cannot pass descriptor {fd}: it is not open",
                hint=f"open it for the command: execdrv run --pass-fd {fd} ... {fd}<FILE",
                field="pass_fds",
                value=str(fd),
            ) from None


def read_spec(path: str, command: Sequence[str]) -> tuple[DriverRef | None, ContainerSpec]:
    """A spec from a JSON file, and the driver where the file is a whole record.

    Args:
        path: a file as `execdrv inspect --json` writes it, or its `spec` alone.
        command: replaces the file's `argv`, if not empty.
    Raises:
        UsageError: the file can't be read, or has another form.
        SpecError: a value in it is out of its range.
    """

    def refuse(reason: str) -> UsageError:
        return UsageError(
            f"cannot use spec file {path!r}: {reason}",
            hint="`execdrv inspect --json ID` shows the form",
        )

    try:
        with open(path, "rb") as file:
            data = wire.loads(file.read().decode())
        driver = None
        if isinstance(data, dict) and isinstance(data.get("spec"), dict):
            if "driver" in data:
                driver = wire.decode(DriverRef, data["driver"])
            data = data["spec"]
        if isinstance(data, dict) and command:
            data = {**data, "argv": wire.encode([os.fsencode(word) for word in command])}
        return driver, wire.decode(ContainerSpec, data)
    except OSError as error:
        raise refuse((error.strerror or str(error)).lower()) from error
    except wire.WireError as error:
        raise refuse(error.message) from error
    except UnicodeDecodeError as error:
        raise refuse("it is not UTF-8") from error


# --- one option each ---------------------------------------------------------------------------


def _refuse(option: str, value: str, reason: str, *, hint: str = "") -> SpecError:
    return SpecError(
        f"cannot use --{option} {value!r}: {reason}",
        hint=hint,
        field=option.replace("-", "_"),
        value=value,
    )


def parse_env(word: str, environment: Mapping[bytes, bytes]) -> bytes:
    """NAME=VALUE, or NAME with the value of `environment`."""
    data = os.fsencode(word)
    if b"=" in data:
        return data
    if data not in environment:
        raise _refuse("env", word, "no such variable is set here", hint="give NAME=VALUE")
    return data + b"=" + environment[data]


def parse_bind(word: str) -> Bind:
    """SRC:DST[:ro]; backslash makes a colon, or a backslash, part of a path."""
    parts = split_escaped(word, "bind")
    if len(parts) not in (2, 3):
        raise _refuse("bind", word, "must be SRC:DST or SRC:DST:ro")
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in ("ro", "rw"):
        raise _refuse("bind", word, f"{mode!r} is neither ro nor rw")
    return Bind(source=os.fsencode(parts[0]), target=os.fsencode(parts[1]), read_only=mode == "ro")


def parse_tmpfs(word: str) -> Tmpfs:
    """DST[:size=SIZE,mode=OCTAL]."""
    parts = split_escaped(word, "tmpfs")
    if len(parts) > 2:
        raise _refuse("tmpfs", word, "must be DST or DST:size=SIZE,mode=MODE")
    values: dict[str, Any] = {}
    for setting in parts[1].split(",") if len(parts) == 2 else ():
        name, equals, value = setting.partition("=")
        if name not in ("size", "mode") or not equals:
            raise _refuse("tmpfs", word, f"{setting!r} is neither size=SIZE nor mode=MODE")
        values[name] = _parse_mode(word, value) if name == "mode" else value
    return Tmpfs(target=os.fsencode(parts[0]), **values)


def _parse_mode(word: str, value: str) -> int:
    if not value or len(value) > 5 or set(value) - set("01234567"):
        raise _refuse("tmpfs", word, f"{value!r} is no mode in octal digits")
    return int(value, 8)


def parse_rlimit(word: str) -> Rlimit:
    """NAME=SOFT[:HARD], each a number or `unlimited`; SOFT alone is both."""
    name, equals, values = word.partition("=")
    soft, colon, hard = values.partition(":")
    if not equals or (colon and not hard):
        raise _refuse("rlimit", word, "must be NAME=SOFT or NAME=SOFT:HARD")
    first = _parse_rlimit_value(word, soft)
    second = _parse_rlimit_value(word, hard) if colon else first
    return Rlimit(name=name.lower().removeprefix("rlimit_"), soft=first, hard=second)


def _parse_rlimit_value(word: str, value: str) -> int | None:
    if value == "unlimited":
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 19:
        raise _refuse("rlimit", word, f"{value!r} is neither a number nor 'unlimited'")
    return int(value)


def parse_driver_option(word: str) -> tuple[str, str]:
    """KEY=VALUE."""
    key, equals, value = word.partition("=")
    if not equals:
        raise _refuse("driver-option", word, "must be KEY=VALUE")
    return key, value


def split_escaped(word: str, option: str) -> list[str]:
    r"""Split at colons; ``\:`` is a colon and ``\\`` a backslash.

    Raises:
        SpecError: a backslash before anything else: it could be meant either way.
    """
    parts = [""]
    characters: Iterable[str] = iter(word)
    for character in characters:
        if character == ":":
            parts.append("")
        elif character == "\\":
            escaped = next(iter(characters), "")
            if escaped not in (":", "\\"):
                raise _refuse(
                    option, word, "a backslash must stand before a colon or a backslash",
                    hint=r"write \\ for a backslash, \: for a colon",
                )  # fmt: skip
            parts[-1] += escaped
        else:
            parts[-1] += character
    return parts
