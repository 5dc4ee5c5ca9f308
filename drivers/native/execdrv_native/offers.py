"""What the native driver declares of each guarantee, as constant data.

No machine is asked here: what a guarantee needs of one stands in the catalogue. What is not built
yet is absent, with what is missing as its reason.
"""

from __future__ import annotations

from typing import Final

from execdrv.offers import Offers, Status, absent, enforced, partial, when

_NO_TERMINAL: Final = "terminals are not made yet"
_NO_EXEC: Final = "there is no exec into a running container yet"
_NO_PAUSE: Final = "there is no pause yet"
_NO_FILTER: Final = "no system call filter is set yet"
_NO_USER_NAMESPACE: Final = "no user namespace is made yet"
_NO_FIELD: Final = "there is no option to ask for it yet"
_MORE_CAPABILITIES: Final = "a capability outside the default set may allow it"
_HOST_NETWORK: Final = "with the network 'host' the job uses the machine's own"

_DEFAULT_CAPABILITIES = when("capabilities-default", _MORE_CAPABILITIES)
_OWN_NETWORK = when("net-own", _HOST_NETWORK)

_LIFECYCLE: dict[str, Status] = {
    "life.stop-grace": absent("there is no stop with a grace time yet"),
    "life.exec-join": absent(_NO_EXEC),
    "proc.oom-adj": absent(_NO_FIELD),
    "tty.*": absent(_NO_TERMINAL),
    # The job leads a session without a terminal, and TIOCSTI wants one's own or CAP_SYS_ADMIN.
    "tty.no-inject": _DEFAULT_CAPABILITIES,
    "pause.*": absent(_NO_PAUSE),
    "stat.monotone": absent("there are no numbers of a running container yet"),
    "stat.mem-peak": when("memory-limited", "memory is counted where it is limited"),
    "crash.recover": absent("there are no detached containers yet"),
}

_FILES: dict[str, Status] = {
    "fs.size": absent(_NO_FIELD),
    "fs.inodes": absent(_NO_FIELD),
    "fs.tmp-private": when("root-not-direct", "a direct root brings its own /var/tmp"),
    "fs.sys-ro": _DEFAULT_CAPABILITIES,
    "fs.masked": _DEFAULT_CAPABILITIES,
    "fs.no-host-names": partial(
        "the kernel shows where in its file system a bind, or a root without a layer, comes from",
        remains="mountinfo names the sources of binds and of a root that is not private",
        parts=("binds", "root"),
    ),
    "mnt.no-remount": _DEFAULT_CAPABILITIES,
    "mnt.no-unmask": _DEFAULT_CAPABILITIES,
}

_NAMESPACES: dict[str, Status] = {
    "net.*": _OWN_NETWORK,
    "net.no-raw": _DEFAULT_CAPABILITIES,
    "ipc.keyring": absent("the job keeps the session keyring of its caller"),
    "user.map": absent(_NO_USER_NAMESPACE),
    "user.setgroups": absent(_NO_USER_NAMESPACE),
    "user.no-userns": absent(_NO_FILTER),
    "time.ns": absent("no time namespace is made yet"),
}

_PRIVILEGE: dict[str, Status] = {
    "cg.ro": _DEFAULT_CAPABILITIES,
    "cg.no-leave": _DEFAULT_CAPABILITIES,
    "time.no-set": _DEFAULT_CAPABILITIES,
    "sec.*": absent(_NO_FILTER),
    "lsm.profile": absent("no security label is set yet"),
    "esc.release-agent": _DEFAULT_CAPABILITIES,
    "esc.core-pattern": _DEFAULT_CAPABILITIES,
    "esc.handle": _DEFAULT_CAPABILITIES,
    "esc.setns": _DEFAULT_CAPABILITIES,
    "esc.exec-ptrace": absent(_NO_EXEC),
    # With SYS_ADMIN a job makes a hierarchy that nobody has mounted, and leaves groups in it.
    "esc.teardown": _DEFAULT_CAPABILITIES,
}

_LIMITS: dict[str, Status] = {
    "mem.oom-group": absent("the kernel ends one process, not all"),
    "cpu.weight": absent(_NO_FIELD),
    "cpu.set": absent(_NO_FIELD),
    "cpu.seconds": absent(_NO_FIELD),
    "io.bps": absent(_NO_FIELD),
    "io.iops": absent(_NO_FIELD),
}

OFFERS: Final = Offers(
    {
        "base": enforced(),
        "fs": enforced(),
        "limits": enforced(),
        "container": enforced(),
        "hardened": enforced(),
        "hostile": enforced(),
        **_LIFECYCLE,
        **_FILES,
        **_NAMESPACES,
        **_PRIVILEGE,
        **_LIMITS,
    }
)
