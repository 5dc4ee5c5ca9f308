"""The mutants: for each, its one fault and the guarantees that it turns red.

Data of the catalogue. The kit's own tests build these drivers and hold the kit against this table
in both directions: each named id turns red, every other one stays as it was. Where a fault was
first written down for a whole domain, ids that it can't touch are left out, with the reason beside.
"""

from execdrv.guarantees.types import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # --- namespaces
    Mutant(
        name="no-pid-ns",
        fault="makes no pid namespace",
        kills=("pid.ns", "pid.hidden", "pid.no-signal", "pid.no-ptrace", "pid.ns-death"),
    ),
    Mutant(
        name="host-proc-mounted",
        fault="binds the machine's /proc instead of mounting its own",
        kills=("pid.hidden", "fs.proc-own"),
    ),
    Mutant(name="no-mnt-ns", fault="makes no mount namespace", kills=("mnt.ns",)),
    Mutant(
        name="shared-propagation",
        fault="leaves the propagation of its mounts shared",
        kills=("mnt.prop-out",),
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
        kills=("uts.hostname", "uts.no-host-set"),
    ),
    Mutant(
        name="userns-maps-root-to-root",
        fault="maps uid 0 of the user namespace to the machine's uid 0",
        kills=("user.map",),
    ),
    Mutant(name="no-cgroup-ns", fault="makes no cgroup namespace", kills=("cg.view",)),
    # --- files
    Mutant(name="no-chroot", fault="leaves the machine's root in place", kills=("fs.root",)),
    Mutant(
        name="chroot-no-chdir",
        fault="changes the root and leaves the working directory outside",
        kills=("fs.escape-chroot",),
    ),
    Mutant(
        name="old-root-left",
        fault="does not detach the old root after pivot_root",
        kills=("mnt.no-old-root",),
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
        kills=("fs.tmp-private",),
    ),
    Mutant(name="no-nosuid", fault="mounts without nosuid", kills=("fs.nosuid",)),
    Mutant(name="unmasked-proc", fault="leaves /proc without masks", kills=("fs.masked",)),
    # --- process
    Mutant(
        name="exit-code-masked-to-1",
        fault="returns 1 for every exit code that is not 0",
        kills=("proc.exit-code",),
        liar=True,
    ),
    Mutant(
        name="signal-as-exit-0",
        fault="returns exit code 0 for a death by signal",
        kills=("proc.exit-signal",),
        liar=True,
    ),
    Mutant(
        name="shell=True",
        fault="passes the command through a shell",
        kills=("proc.argv-exact",),
    ),
    Mutant(
        name="inherits-env",
        fault="adds the caller's variables to the job's",
        kills=("proc.env-exact",),
    ),
    Mutant(
        name="leaks-fd",
        fault="leaves a directory descriptor of the machine open in the job",
        kills=("proc.fds-closed", "esc.fd-cwd"),
    ),
    Mutant(
        name="SIGPIPE-ignored",
        fault="starts the job with SIGPIPE ignored",
        kills=("proc.sig-default",),
    ),
    Mutant(name="no-reaper", fault="its pid 1 never waits", kills=("proc.reap",)),
    Mutant(
        name="merges-stderr",
        fault="sends standard error to standard output",
        kills=("io.split",),
    ),
    Mutant(
        name="truncates-64K",
        fault="drops output after 64 KiB",
        kills=("io.big",),
    ),
    Mutant(
        name="keeps-host-ctty",
        fault="leaves the job in the caller's session",
        kills=("tty.no-inject",),
    ),
    # --- privilege
    Mutant(
        name="keeps-one-cap",
        fault="leaves one capability more in the bounding set",
        kills=("cap.bounding",),
    ),
    Mutant(name="no-nnp", fault="does not set no_new_privs", kills=("cap.nnp",)),
    Mutant(
        name="seccomp-x86_64-only",
        fault="lets every call of another architecture through its filter",
        kills=("sec.arch",),
    ),
    Mutant(
        name="seccomp-log-not-deny",
        fault="logs what its filter should deny",
        kills=("sec.deny",),
    ),
    Mutant(
        name="keeps-supplementary-groups",
        fault="leaves the caller's supplementary groups",
        kills=("user.groups",),
    ),
    # --- limits
    Mutant(
        name="memory.high-only",
        fault="slows the job at its memory limit instead of stopping it",
        kills=("mem.limit-oom",),
    ),
    Mutant(
        name="limits-first-process-only",
        fault="limits the memory of the first process, not of the tree",
        kills=("mem.tree",),
    ),
    Mutant(name="no-swap-limit", fault="limits memory and leaves swap free", kills=("mem.swap",)),
    Mutant(
        name="pids-off-by-100",
        fault="sets the task limit 100 too high",
        kills=("pids.limit",),
    ),
    Mutant(
        name="cpu-weight-instead-of-quota",
        fault="sets a weight where a quota was asked for",
        kills=("cpu.quota",),
    ),
    Mutant(
        name="rlimit-soft-only",
        fault="sets the soft resource limits and leaves the hard ones",
        kills=("rlim.hard",),
    ),
    Mutant(
        name="kills-host-sibling",
        fault="ends a neighbour's process when its job runs out of memory",
        kills=("mem.oom-scope",),
    ),
    # --- control
    Mutant(
        name="kill-only-leader",
        fault="kills the first process and leaves the rest",
        kills=("life.kill-tree",),
    ),
    Mutant(
        name="pause-only-leader",
        fault="stops the first process and lets the rest run",
        kills=("pause.tree",),
    ),
    Mutant(
        name="update-noop",
        fault="answers an update with success and does nothing",
        kills=("upd.mem", "upd.cpu", "upd.atomic"),
        liar=True,
    ),
    Mutant(
        name="stats-constant",
        fault="reports the same numbers for ever",
        kills=("stat.cpu", "stat.mem-peak", "stat.oom", "stat.final", "stat.monotone"),
        liar=True,
    ),
    Mutant(
        name="oom-unreported",
        fault="reports an end by lack of memory as a plain SIGKILL",
        kills=("stat.oom",),
        liar=True,
    ),
    # --- liars and leaks
    Mutant(
        name="accepts-unsupported-silently",
        fault="offers a guarantee and ignores the field that asks for it",
        kills=("bad.fails-closed",),
        liar=True,
    ),
    Mutant(
        name="forges-probe-output",
        fault="prints what the probe would print, without running it",
        verdict="CONFLICT",
        liar=True,
    ),
    Mutant(
        name="destroy-lies",
        fault="answers destroy with success and leaves the processes",
        kills=("leak.proc",),
        liar=True,
    ),
    Mutant(name="leaks-mount", fault="leaves a mount behind", kills=("leak.mount",)),
    Mutant(name="leaks-cgroup", fault="leaves a group behind", kills=("leak.cgroup",)),
    Mutant(name="leaks-veth", fault="leaves an interface behind", kills=("leak.net",)),
    Mutant(
        name="leaks-supervisor-fd",
        fault="leaves one more descriptor open in the calling process each time",
        kills=("leak.fd",),
    ),
    Mutant(name="leaks-scratch", fault="leaves a scratch file behind", kills=("leak.files",)),
    Mutant(
        name="leak-only-on-failed-create",
        fault="cleans up after success only",
        kills=("leak.failed",),
    ),
    Mutant(
        name="crash-loses-state",
        fault="keeps in memory what it needs to find its containers again",
        kills=("crash.recover",),
    ),
    Mutant(
        name="id-collision-global-state",
        fault="keeps the last container's data in one global",
        kills=("conc.crosstalk",),
    ),
    Mutant(
        name="hangs-forever",
        fault="never returns from an operation",
        verdict="UNTESTABLE",
    ),
    Mutant(
        name="raises-bare-Exception",
        fault="raises an exception that is no execdrv error",
        kills=("bad.typed",),
    ),
)
