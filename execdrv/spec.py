"""What was asked: the ContainerSpec and its parts, as frozen values that validate themselves.

Touches no kernel and no file: whether a driver or this machine can do what is asked is found
elsewhere. Every field but `argv` is UNSET until somebody asks; any value given counts as asked,
also one that equals what the driver would do anyway, so that no driver can ignore a field.
`asked()` maps each field that was asked to the guarantees it asks for.

Texts that reach the kernel (argv, env, paths) are bytes; str is accepted and encoded as the
file system encoding does it (surrogateescape).
"""

from __future__ import annotations

import enum
import os
import re
import resource
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeVar

import attrs

from execdrv import units
from execdrv.errors import SpecError
from execdrv.limits import Limits
from execdrv.linux.capabilities import CAPABILITIES

T = TypeVar("T")


class Unset(enum.Enum):
    """The type of UNSET: nobody asked."""

    UNSET = "UNSET"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

#: What a container id or --name looks like.
NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
#: The longest host name of sethostname(2), in bytes.
HOSTNAME_MAX = 64
#: (uid_t)-1 means "leave as it is" to the kernel, so it is no user's number.
ID_MAX = 2**32 - 2
#: PID_MAX_LIMIT of 64-bit kernels (proc_sys_kernel(5)).
PIDS_MAX = 2**22
#: The kernel's smallest quota, 1 ms, in its longest period, 1 s.
CPUS_MIN = 0.001

#: rlimits by the name used in specs, with the kernel's number (getrlimit(2)).
RLIMITS: Mapping[str, int] = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in sorted(dir(resource))
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}

_NAME = re.compile(NAME_PATTERN)
_HOSTNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_GUARANTEE = re.compile(r"[a-z]+\.[a-z0-9-]+")
_OPTION = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def _refuse(field: str, value: object, reason: str, *, hint: str = "") -> SpecError:
    return SpecError(
        f"cannot use {field} {value!r}: {reason}", hint=hint, field=field, value=repr(value)
    )


# --- converters: one small function a kind of field --------------------------------------------


def _bytes(value: object, field: str) -> bytes:
    if not isinstance(value, str | bytes | os.PathLike):
        raise _refuse(field, value, "must be text or bytes")
    data = os.fsencode(value)
    if b"\0" in data:
        raise _refuse(field, value, "must not contain a NUL byte")
    return data


def _path(value: object, field: str, *, absolute: bool) -> bytes:
    path = _bytes(value, field)
    if not path:
        raise _refuse(field, value, "must not be empty")
    if absolute and not path.startswith(b"/"):
        raise _refuse(field, value, "must be an absolute path")
    return path


def _sequence(value: object, field: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise _refuse(field, value, "must be a list")
    return list(value)


def _argv(value: object) -> tuple[bytes, ...]:
    words = tuple(_bytes(word, "argv") for word in _sequence(value, "argv"))
    if not words:
        raise _refuse("argv", value, "no command was given")
    return words


def _env(value: object, field: str) -> tuple[bytes, ...]:
    """`NAME=VALUE` words from a mapping or a list of such words; the last of a name counts."""
    if isinstance(value, Mapping):
        pairs = [(_bytes(k, field), _bytes(v, field)) for k, v in value.items()]
    else:
        pairs = []
        for word in _sequence(value, field):
            name, equals, content = _bytes(word, field).partition(b"=")
            if not equals:
                raise _refuse(field, word, "must be NAME=VALUE")
            pairs.append((name, content))
    for name, _ in pairs:
        if not name or b"=" in name:
            raise _refuse(field, name, "a variable's name must not be empty or contain '='")
    return tuple(name + b"=" + content for name, content in dict(pairs).items())


def check_id(value: object, field: str) -> int:
    """A user or group number; SpecError if it is out of range."""
    return units.parse_count(value, field=field, minimum=0, maximum=ID_MAX)


def _account(value: object, field: str) -> str:
    if isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit()):
        return str(check_id(value, field))
    if not isinstance(value, str) or not _ACCOUNT.fullmatch(value):
        raise _refuse(field, value, "neither a number nor a name")
    return value


def _user(value: object, field: str) -> str:
    if isinstance(value, str) and ":" in value:
        user, _, group = value.partition(":")
        return f"{_account(user, field)}:{_account(group, field)}"
    return _account(value, field)


def _groups(value: object, field: str) -> tuple[str, ...]:
    return tuple(_account(item, field) for item in _sequence(value, field))


def _name(value: object, field: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _refuse(field, value, f"must match {NAME_PATTERN}")
    return value


def _hostname(value: object, field: str) -> str:
    if isinstance(value, str) and len(value) > HOSTNAME_MAX:
        raise _refuse(field, value, f"longer than {HOSTNAME_MAX} characters")
    if not isinstance(value, str) or not _HOSTNAME.fullmatch(value):
        raise _refuse(field, value, "must be of letters, digits, '.', '_' and '-', no '-' first")
    return value


def _capabilities(value: object, field: str) -> tuple[str, ...]:
    names = []
    for item in _sequence(value, field):
        name = item.upper().removeprefix("CAP_") if isinstance(item, str) else item
        if name != "ALL" and name not in CAPABILITIES:
            raise _refuse(field, item, "no such capability (see capabilities(7)), nor ALL")
        names.append(name)
    return tuple(names)


def _pass_fds(value: object, field: str) -> tuple[int, ...]:
    numbers = [
        units.parse_count(item, field=field, minimum=3, maximum=2**20)
        for item in _sequence(value, field)
    ]
    return tuple(sorted(set(numbers)))


def _cgroup_parent(value: object, field: str) -> str:
    """A path below each hierarchy's mount point; its parts must not lead out of it."""
    text = value.strip("/") if isinstance(value, str) else ""
    parts = text.split("/")
    if not text or any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise _refuse(field, value, "must be a path of plain names, without '..'")
    return text


def _require(value: object, field: str) -> tuple[str, ...]:
    ids = tuple(_sequence(value, field))
    for item in ids:
        if not isinstance(item, str) or not _GUARANTEE.fullmatch(item):
            raise _refuse(field, item, "not a guarantee's id", hint="see `execdrv drivers`")
    return ids


def _driver_options(value: object, field: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _refuse(field, value, "must be a mapping of names to texts")
    for name, text in value.items():
        if not isinstance(name, str) or not _OPTION.fullmatch(name):
            raise _refuse(field, name, f"an option's name must match {_OPTION.pattern}")
        if not isinstance(text, str):
            raise _refuse(field, text, "an option's value must be text")
    return dict(value)


def _one_of(*allowed: str) -> Callable[[object, str], str]:
    def convert(value: object, field: str) -> str:
        if value not in allowed:
            raise _refuse(field, value, f"must be one of {', '.join(allowed)}")
        return str(value)

    return convert


def _values(cls: type[T]) -> Callable[[object, str], tuple[T, ...]]:
    def convert(value: object, field: str) -> tuple[T, ...]:
        items = tuple(_sequence(value, field))
        for item in items:
            if not isinstance(item, cls):
                raise _refuse(field, item, f"must be {cls.__name__} values")
        return items

    return convert


# --- the parts ---------------------------------------------------------------------------------


def _bind_source(value: object) -> bytes:
    return _path(value, "binds", absolute=False)


def _bind_target(value: object) -> bytes:
    return _path(value, "binds", absolute=True)


def _tmpfs_target(value: object) -> bytes:
    return _path(value, "tmpfs", absolute=True)


def _tmpfs_size(value: object) -> int | None:
    return None if value is None else units.parse_bytes(value, field="tmpfs", minimum=4096)


@attrs.frozen(kw_only=True)
class Bind:
    """A file or directory of the machine, shown in the container; always nosuid and nodev."""

    #: Path on the machine; a relative one is taken from the caller's directory.
    source: bytes = attrs.field(converter=_bind_source)
    #: Absolute path in the container; links in it are followed inside the root only.
    target: bytes = attrs.field(converter=_bind_target)
    #: Also for every mount below the source.
    read_only: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))


@attrs.frozen(kw_only=True)
class Tmpfs:
    """An empty, private file system in memory; nosuid and nodev."""

    #: Absolute path in the container.
    target: bytes = attrs.field(converter=_tmpfs_target)
    #: Most bytes it holds; None: the kernel's default, half of the memory.
    size: int | None = attrs.field(default=None, converter=_tmpfs_size)
    #: Permission bits of its root directory.
    mode: int = attrs.field(default=0o1777)

    @mode.validator
    def _check_mode(self, _: object, value: object) -> None:
        if not isinstance(value, int) or not 0 <= value <= 0o7777:
            raise _refuse("tmpfs", value, "a mode must be from 0 to 0o7777")


@attrs.frozen(kw_only=True)
class Rlimit:
    """A resource limit of the job's processes (getrlimit(2)); None means unlimited."""

    #: Name without RLIMIT_, in lower case: nofile, core, nproc ...
    name: str = attrs.field()
    soft: int | None
    hard: int | None

    @name.validator
    def _check_name(self, _: object, value: object) -> None:
        if value not in RLIMITS:
            raise _refuse("rlimits", value, f"no such rlimit; known: {', '.join(sorted(RLIMITS))}")

    def __attrs_post_init__(self) -> None:
        for value in (self.soft, self.hard):
            if value is not None:
                units.parse_count(value, field="rlimits", minimum=0, maximum=2**63 - 1)
        if self.hard is not None and (self.soft is None or self.soft > self.hard):
            raise _refuse(
                "rlimits", self.soft, f"the soft limit of {self.name} exceeds its hard one"
            )


# --- the spec ----------------------------------------------------------------------------------

Asks = tuple[str, ...] | Callable[[Any], tuple[str, ...]]


def _field(convert: Callable[[Any, str], Any], *, asks: Asks) -> Any:
    """A field that is UNSET until asked; None means not asked too.

    Args:
        convert: checks and normalises a value; called with the value and the field's name.
        asks: ids of the guarantees that a value asks for, or a function of the value to them.
    """

    def run(value: Any, _: Any, field: attrs.Attribute[Any]) -> Any:
        return UNSET if value is UNSET or value is None else convert(value, field.name)

    return attrs.field(
        default=UNSET,
        converter=attrs.Converter(run, takes_self=True, takes_field=True),
        metadata={"asks": asks},
    )


def _asks_of_root_mode(mode: str) -> tuple[str, ...]:
    return {"private": ("fs.write-private",), "read-only": ("fs.ro-root",)}.get(mode, ())


def _asks_of_binds(binds: tuple[Bind, ...]) -> tuple[str, ...]:
    ids = ["mnt.bind", "mnt.bind-flags", "mnt.order"] if binds else []
    if any(bind.read_only for bind in binds):
        ids += ["mnt.bind-ro", "mnt.bind-ro-rec"]
    return tuple(ids)


@attrs.frozen(kw_only=True)
class ContainerSpec:
    """Everything that can be asked of a container; see each field for unit and range.

    Raises:
        SpecError: a value is out of its range, or two fields contradict each other.
    """

    #: The command and its arguments; the command is looked up in the container's PATH.
    argv: tuple[bytes, ...] = attrs.field(converter=_argv, metadata={"asks": ("proc.argv-exact",)})
    #: The container's id.
    name: str | Unset = _field(_name, asks=("life.id-unique",))
    #: Variables, NAME=VALUE, added to PATH and HOME; nothing comes from the caller.
    env: tuple[bytes, ...] | Unset = _field(_env, asks=("proc.env-exact",))
    #: Absolute path in the container where the command starts.
    workdir: bytes | Unset = _field(lambda v, f: _path(v, f, absolute=True), asks=("proc.cwd",))
    #: Number or name (of the root file system's /etc/passwd), optionally with :GROUP.
    user: str | Unset = _field(_user, asks=("user.uid",))
    #: Number or name of the primary group.
    group: str | Unset = _field(_account, asks=("user.uid",))
    #: Supplementary groups; the primary group is always among them.
    groups: tuple[str, ...] | Unset = _field(_groups, asks=("user.groups",))
    #: Capabilities added to the driver's default set; ALL is allowed.
    cap_add: tuple[str, ...] | Unset = _field(_capabilities, asks=("cap.bounding", "cap.effective"))
    #: Capabilities taken away; ALL is allowed, and is applied before `cap_add`.
    cap_drop: tuple[str, ...] | Unset = _field(
        _capabilities, asks=("cap.bounding", "cap.effective")
    )
    #: Resource limits of the job's processes.
    rlimits: tuple[Rlimit, ...] | Unset = _field(
        _values(Rlimit), asks=("rlim.soft", "rlim.hard", "rlim.effect")
    )
    #: Directory of the machine that becomes /; UNSET: the default root file system.
    rootfs: bytes | Unset = _field(lambda v, f: _path(v, f, absolute=False), asks=("fs.root",))
    #: private: writes vanish with the container; read-only; direct: the job writes to `rootfs`.
    root_mode: Literal["private", "read-only", "direct"] | Unset = _field(
        _one_of("private", "read-only", "direct"), asks=_asks_of_root_mode
    )
    binds: tuple[Bind, ...] | Unset = _field(_values(Bind), asks=_asks_of_binds)
    tmpfs: tuple[Tmpfs, ...] | Unset = _field(
        _values(Tmpfs), asks=lambda v: ("mnt.tmpfs", "mnt.order") if v else ()
    )
    hostname: str | Unset = _field(_hostname, asks=("uts.hostname",))
    #: none: an own network with loopback only; host: the machine's network, no isolation.
    net: Literal["none", "host"] | Unset = _field(
        _one_of("none", "host"), asks=lambda v: ("net.ns", "net.none") if v == "none" else ()
    )
    #: Most memory of all processes together, in bytes (1 to 2**63-1).
    memory: int | Unset = _field(
        lambda v, f: units.parse_bytes(v, field=f), asks=("mem.limit-oom", "mem.tree")
    )
    #: Swap on top of `memory`, in bytes, 0 for none (the default when memory is asked).
    memory_swap: int | Unset = _field(
        lambda v, f: units.parse_bytes(v, field=f, minimum=0), asks=("mem.swap",)
    )
    #: Cpu time of all processes together, in cpus (at least 0.001).
    cpus: float | Unset = _field(
        lambda v, f: units.parse_decimal(v, field=f, minimum=CPUS_MIN),
        asks=("cpu.quota", "cpu.quota-sum"),
    )
    #: Most processes and threads of the job together (1 to 2**22); the init is not counted.
    pids: int | Unset = _field(
        lambda v, f: units.parse_count(v, field=f, minimum=1, maximum=PIDS_MAX),
        asks=("pids.limit", "pids.threads"),
    )
    #: Wall time in seconds after which the container is killed.
    timeout: float | Unset = _field(
        lambda v, f: units.parse_seconds(v, field=f), asks=("life.deadline",)
    )
    #: Descriptor numbers of the caller which the job gets, beside 0, 1 and 2.
    pass_fds: tuple[int, ...] | Unset = _field(_pass_fds, asks=("proc.fds-closed",))
    #: Path of the parent group below each cgroup hierarchy's mount point.
    cgroup_parent: str | Unset = _field(_cgroup_parent, asks=("cg.placed",))
    #: Ids of guarantees which the driver must keep in full, or nothing is run.
    require: tuple[str, ...] | Unset = _field(_require, asks=lambda v: v)
    #: Options which only this driver knows.
    driver_options: dict[str, str] | Unset = _field(_driver_options, asks=())

    def __attrs_post_init__(self) -> None:
        if self.memory_swap is not UNSET and self.memory is UNSET:
            raise _refuse(
                "memory_swap", self.memory_swap, "needs a memory limit", hint="ask for memory too"
            )
        if self.user is not UNSET and ":" in self.user and self.group is not UNSET:
            raise _refuse("group", self.group, f"user {self.user!r} names a group already")

    @property
    def limits(self) -> Limits:
        """The limits that were asked, for the driver's `limit`."""
        return Limits(
            memory_bytes=self.memory or None,
            memory_swap_bytes=None if self.memory_swap is UNSET else self.memory_swap,
            cpus=self.cpus or None,
            pids=self.pids or None,
        )

    def asked(self) -> dict[str, tuple[str, ...]]:
        """The fields that were asked, in the order of the class, with the ids they ask for."""
        found = {}
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            if value is not UNSET:
                asks: Asks = field.metadata["asks"]
                found[field.name] = asks(value) if callable(asks) else asks
        return found


def value_or(value: T | Unset, default: T) -> T:
    """`value`, or `default` where nobody asked."""
    return default if value is UNSET else value
