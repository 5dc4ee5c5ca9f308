"""A spec with every default filled in: the driver's Box.

Looks at the root's account files and at nothing else. Defaults come from the driver's table
(`Driver.defaults`) and from the constants here, which hold for every driver; the job gets nothing
of the caller's environment. Runs in the supervisor, before anything is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import attrs

from execdrv.driver import Box, Defaults, Driver
from execdrv.errors import SpecError, UnsupportedError
from execdrv.init import Order
from execdrv.linux import accounts
from execdrv.linux.capabilities import CAPABILITIES, capability_mask
from execdrv.spec import HOSTNAME_MAX, RLIMITS, UNSET, ContainerSpec, value_or
from execdrv.state import kernel_name
from execdrv.supervisor.launch import Launch

PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UMASK = 0o022
#: A soft limit above this makes programs that close every possible descriptor spin for minutes.
NOFILE_SOFT_MAX = 1024
#: RLIM_INFINITY as the kernel's 64-bit calls write it.
UNLIMITED = 2**64 - 1


@attrs.frozen(kw_only=True)
class Identity:
    """Who the job is, resolved in the root's account files."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: bytes


def needs_lease(spec: ContainerSpec, defaults: Defaults) -> bool:
    """Whether the container gets a uid of its own: nobody asked, and the driver has no default."""
    return spec.user is UNSET and defaults.uid is None


def resolve_identity(
    spec: ContainerSpec, defaults: Defaults, *, root: int, leased_id: int | None
) -> Identity:
    """The job's ids.

    Args:
        root: descriptor of the root directory.
        leased_id: the uid of the container's own, where it has one.
    Raises:
        SpecError: a name is not in the root's account files.
    """
    group = ""
    if spec.user is not UNSET:
        name, _, group = spec.user.partition(":")
        user = accounts.lookup_user(root, name)
    elif leased_id is not None:
        user = accounts.User(uid=leased_id, gid=leased_id, home=b"/")
    else:
        user = accounts.lookup_user(root, str(defaults.uid or 0))
        user = user._replace(gid=user.gid if defaults.gid is None else defaults.gid)
    if spec.group is not UNSET:
        group = spec.group
    gid = accounts.lookup_group(root, group) if group else user.gid
    named = [accounts.lookup_group(root, text, field="groups") for text in spec.groups or ()]
    return Identity(uid=user.uid, gid=gid, groups=tuple(sorted({gid, *named})), home=user.home)


def resolve_capabilities(spec: ContainerSpec, defaults: Defaults) -> frozenset[str]:
    """The names in the job's bounding set: the default, less `cap_drop`, plus `cap_add`."""
    names = set(defaults.capabilities)
    dropped, added = set(spec.cap_drop or ()), set(spec.cap_add or ())
    names = set() if "ALL" in dropped else names - dropped
    return frozenset(CAPABILITIES if "ALL" in added else names | added)


def resolve_environment(spec: ContainerSpec, home: bytes) -> tuple[bytes, ...]:
    """PATH and HOME, then what was asked; a name that was asked replaces ours."""
    asked = value_or(spec.env, ())
    names = {word.partition(b"=")[0] for word in asked}
    ours = [(b"PATH", PATH), (b"HOME", home)]
    return (*(name + b"=" + value for name, value in ours if name not in names), *asked)


def resolve_rlimits(
    spec: ContainerSpec, caller: Mapping[str, tuple[int | None, int | None]]
) -> tuple[tuple[int, int, int], ...]:
    """Every rlimit as the init sets it: number, soft, hard.

    Raises:
        UnsupportedError: a hard limit above the caller's, which takes CAP_SYS_RESOURCE.
    """
    values = {name: pair for name, pair in caller.items() if name in RLIMITS}
    values["core"] = (0, 0)
    _, hard = values["nofile"]
    soft_most = NOFILE_SOFT_MAX if hard is None else min(NOFILE_SOFT_MAX, hard)
    values["nofile"] = (soft_most, hard)
    for limit in spec.rlimits or ():
        caller_hard = caller[limit.name][1]
        above = caller_hard is not None and (limit.hard is None or limit.hard > caller_hard)
        if above and not _may_raise_rlimits():
            raise UnsupportedError(
                f"cannot raise rlimit {limit.name!r} to {_shown(limit.hard)}: "
                f"the caller's own hard limit is {caller_hard}",
                hint="raising it takes CAP_SYS_RESOURCE, which this process lacks",
                guarantee="rlim.soft",
            )
        values[limit.name] = (limit.soft, limit.hard)
    return tuple(
        (RLIMITS[name], _kernel_value(soft), _kernel_value(hard))
        for name, (soft, hard) in sorted(values.items())
    )


def _may_raise_rlimits() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) & capability_mask(["SYS_RESOURCE"]))
    return False


def _kernel_value(value: int | None) -> int:
    return UNLIMITED if value is None else value


def _shown(value: int | None) -> str:
    return "unlimited" if value is None else str(value)


def assemble_process(
    launch: Launch, defaults: Defaults, *, root: int, leased_id: int | None
) -> Order:
    """What the init will run.

    Raises:
        SpecError, UnsupportedError: as the functions above.
    """
    spec = launch.spec
    identity = resolve_identity(spec, defaults, root=root, leased_id=leased_id)
    names = resolve_capabilities(spec, defaults)
    if identity.uid != 0 and spec.cap_add:
        raise SpecError(
            f"cannot add capabilities {', '.join(spec.cap_add)} for user {identity.uid}: "
            "only uid 0 can hold them, since the ambient set stays empty",
            hint="run as user 0 with --cap-drop ALL --cap-add NAME",
            field="cap_add",
            value=repr(spec.cap_add),
        )
    mask = capability_mask(names)
    held = mask if identity.uid == 0 else 0
    return Order(
        argv=spec.argv,
        env=resolve_environment(spec, identity.home),
        cwd=value_or(spec.workdir, b"/"),
        uid=identity.uid,
        gid=identity.gid,
        groups=identity.groups,
        umask=UMASK,
        bounding=mask,
        permitted=held,
        effective=held,
        rlimits=resolve_rlimits(spec, launch.rlimits),
        keep_fds=value_or(spec.pass_fds, ()),
    )


def assemble_box(
    launch: Launch, driver: type[Driver], fds: Mapping[str, int], *, leased_id: int | None
) -> Box:
    """The box for `check`: no group, no network namespace, no init yet.

    Raises:
        SpecError, UnsupportedError: a value can't be resolved.
    """
    spec, defaults = launch.spec, driver.defaults
    root = fds["root"]
    return Box(
        id=launch.id,
        kernel_name=kernel_name(launch.root, launch.id),
        spec=spec,
        process=assemble_process(launch, defaults, root=root, leased_id=leased_id),
        root_mode=value_or(spec.root_mode, defaults.root_mode),
        net=value_or(spec.net, defaults.net),
        hostname=value_or(spec.hostname, launch.id[:HOSTNAME_MAX]),
        root=root,
        bind_sources=tuple(fds[f"bind:{n}"] for n in range(len(spec.binds or ()))),
        passed={number: fds[f"pass:{number}"] for number in spec.pass_fds or ()},
        directory=os.fsencode(os.path.join(launch.root, "containers", launch.id, "driver")),
        options={**launch.driver.options, **value_or(spec.driver_options, {})},
    )
