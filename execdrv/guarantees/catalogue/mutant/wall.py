"""Walls that are missing or have a gap: namespaces, files."""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # --- namespaces
    Mutant(
        name="no-pid-ns",
        fault="makes no pid namespace",
        kills=(
            "life.parent-death",
            "pid.ns",
            "pid.hidden",
            "pid.no-signal",
            "pid.no-ptrace",
            "pid.ns-death",
        ),
    ),
    Mutant(
        name="host-proc-mounted",
        fault="binds the machine's /proc instead of mounting its own",
        kills=("fs.proc-own", "fs.no-host-names", "pid.hidden", "pid.no-ptrace"),
    ),
    Mutant(
        name="no-mnt-ns",
        fault="makes no mount namespace",
        kills=("life.id-unique", "fs.escape-chroot", "mnt.ns", "mnt.prop-out", "mnt.no-old-root"),
    ),
    Mutant(
        name="shared-propagation",
        fault="leaves the propagation of its mounts shared",
        kills=(
            "life.id-unique",
            "mnt.prop-out",
            "mnt.prop-in",
        ),
    ),
    # Not net.lo-up: loopback works on the machine's network too. Not net.no-raw: a capability.
    Mutant(
        name="host-net",
        fault="makes no network namespace",
        kills=(
            "net.ns",
            "net.none",
            "net.no-host-lo",
            "net.no-abstract",
            "net.no-egress",
            "net.siblings",
            "net.no-admin",
            "bad.fails-closed",
        ),
    ),
    Mutant(name="net-but-lo-down", fault="leaves loopback down", kills=("net.lo-up",)),
    # Not ipc.keyring: keyrings belong to no ipc namespace (keyrings(7)).
    Mutant(
        name="no-ipc",
        fault="makes no ipc namespace",
        kills=("ipc.sysv", "ipc.mqueue", "ipc.siblings"),
    ),
    Mutant(
        name="no-uts",
        fault="makes no uts namespace",
        kills=("uts.hostname", "uts.no-host-set", "bad.fails-closed"),
    ),
    Mutant(
        name="userns-maps-root-to-root",
        fault="maps uid 0 of the user namespace to the machine's uid 0",
        kills=("user.map",),
        waits_for="a driver that makes a user namespace",
    ),
    Mutant(name="no-cgroup-ns", fault="makes no cgroup namespace", kills=("cg.view",)),
    # --- files
    Mutant(
        name="no-chroot",
        fault="leaves the machine's root in place",
        kills=(
            "proc.exec-error",
            "fs.root",
            "fs.dotdot",
            "fs.escape-chroot",
            "fs.ro-root",
            "fs.masked",
            "fs.sys-ro",
            "fs.no-host-names",
            "mnt.prop-in",
            "user.no-userns",
            "dev.minimal",
            "dev.no-disk",
            "conc.crosstalk",
            "bad.typed",
            "esc.release-agent",
            "esc.core-pattern",
            "esc.state",
            "esc.fd-cwd",
            "esc.self-exe",
        ),
    ),
    Mutant(
        name="chroot-no-chdir",
        fault="changes the root and leaves the working directory outside",
        kills=("fs.dotdot", "fs.escape-chroot"),
    ),
    Mutant(
        name="old-root-left",
        fault="does not detach the old root after pivot_root",
        kills=(
            "fs.no-host-names",
            "mnt.no-unmask",
            "mnt.no-old-root",
            "bad.fails-closed",
            "esc.release-agent",
            "esc.core-pattern",
        ),
    ),
    Mutant(
        name="ro-bind-not-recursive",
        fault="makes only the top of a read-only bind read-only",
        kills=("mnt.bind-ro-rec",),
    ),
    Mutant(
        name="follows-symlink-target",
        fault="resolves mount targets by plain path",
        kills=("esc.symlink-mount",),
    ),
    Mutant(
        name="shared-tmp",
        fault="shows the machine's /tmp inside",
        kills=(
            "fs.root",
            "fs.dotdot",
            "fs.escape-chroot",
            "fs.tmp-private",
            "conc.crosstalk",
            "esc.state",
        ),
    ),
    Mutant(name="no-nosuid", fault="mounts without nosuid", kills=("mnt.bind-flags",)),
    Mutant(name="unmasked-proc", fault="leaves /proc without masks", kills=("fs.masked",)),
)
