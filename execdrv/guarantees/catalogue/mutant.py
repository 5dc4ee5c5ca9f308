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
        waits_for="a driver that makes a user namespace",
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
        waits_for="a machine where TIOCSTI is open",
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
        waits_for="a driver that sets a filter",
    ),
    Mutant(
        name="seccomp-log-not-deny",
        fault="logs what its filter should deny",
        kills=("sec.deny",),
        waits_for="a driver that sets a filter",
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
        liar=True,
    ),
    Mutant(
        name="limits-first-process-only",
        fault="limits the memory of the first process, not of the tree",
        kills=("mem.tree",),
        liar=True,
    ),
    Mutant(
        name="no-swap-limit",
        fault="limits memory and leaves swap free",
        kills=("mem.swap",),
        waits_for="a machine with swap",
    ),
    Mutant(
        name="pids-off-by-100",
        fault="sets the task limit 100 too high",
        kills=("pids.limit",),
        liar=True,
    ),
    Mutant(
        name="cpu-weight-instead-of-quota",
        fault="sets a weight where a quota was asked for",
        kills=("cpu.quota",),
        liar=True,
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
        waits_for="a driver that can pause",
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
        kills=("pid.ns", "pid.hidden"),
        verdict="CONFLICT",
        liar=True,
    ),
    Mutant(
        name="speaks-for-the-job",
        fault="has a process outside the walls print what the probe has printed",
        kills=("pid.ns", "pid.hidden"),
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
        waits_for="a driver whose containers outlive their caller",
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
    # --- beyond the first list: process
    Mutant(
        name="sigterm-ignored",
        fault="starts the job with SIGTERM ignored",
        kills=("proc.sig-default", "proc.pid1-term"),
    ),
    Mutant(
        name="signals-blocked",
        fault="starts the job with a signal blocked",
        kills=("proc.sig-default", "proc.sig-deliver"),
    ),
    Mutant(
        name="drops-signals",
        fault="answers a signal with success and does not send it",
        kills=("proc.sig-deliver", "proc.pid1-term"),
        liar=True,
    ),
    Mutant(
        name="wrong-cwd",
        fault="starts every job in the root directory",
        kills=("proc.cwd",),
    ),
    Mutant(
        name="wrong-umask",
        fault="starts every job with its own umask",
        kills=("proc.umask",),
    ),
    Mutant(
        name="exec-error-as-exit-127",
        fault="reports a command that can't be executed as one that exited with 127",
        kills=("proc.exec-error",),
        liar=True,
    ),
    Mutant(
        name="no-stdin",
        fault="gives the job an empty standard input, whatever was asked",
        kills=("io.stdin",),
    ),
    Mutant(
        name="waits-for-streams",
        fault="reports the end only when nobody holds the job's output any more",
        kills=("io.eof-daemon",),
    ),
    Mutant(
        name="keeps-all-output",
        fault="keeps all output in memory, whatever was asked",
        kills=("esc.flood",),
    ),
    # --- beyond the first list: life cycle
    Mutant(
        name="starts-early",
        fault="runs the command before anybody asks",
        kills=("life.create-inert",),
    ),
    Mutant(
        name="takes-any-step",
        fault="takes every operation in every state",
        kills=("life.states", "life.start-once"),
    ),
    Mutant(
        name="takes-used-id",
        fault="makes a container of an id that is in use, in the place of the first",
        kills=("life.id-unique",),
    ),
    Mutant(
        name="ignores-deadline",
        fault="lets the job run on when its time is up",
        kills=("life.deadline",),
    ),
    Mutant(
        name="deadline-unreported",
        fault="reports the end of a job whose time was up as asked for",
        kills=("life.deadline",),
        liar=True,
    ),
    Mutant(
        name="answers-waiters-apart",
        fault="tells the second who waits something else than the first",
        kills=("life.wait-many",),
        liar=True,
    ),
    Mutant(
        name="lists-the-dead",
        fault="leaves a container listed as running when its job has ended",
        kills=("life.list-truth",),
        liar=True,
    ),
    Mutant(
        name="destroy-does-nothing",
        fault="answers destroy with success and does nothing",
        kills=("leak.proc", "leak.cgroup", "leak.files"),
        liar=True,
    ),
    Mutant(
        name="final-numbers-lost",
        fault="has forgotten every number when the container has ended",
        kills=("stat.final",),
    ),
    Mutant(
        name="kills-by-bare-number",
        fault="takes a process for its own by the number alone",
        kills=("crash.stale",),
    ),
    # --- beyond the first list: files and mounts
    Mutant(
        name="ro-root-writable",
        fault="leaves a root writable that was asked read-only",
        kills=("fs.ro-root",),
    ),
    Mutant(
        name="writes-through",
        fault="lays no private layer over the root",
        kills=("fs.write-private",),
    ),
    Mutant(
        name="unprotected-proc",
        fault="leaves /proc/sys and the like writable",
        kills=("fs.sys-ro",),
    ),
    Mutant(
        name="masks-with-the-image",
        fault="covers files of /proc with what the root has as /dev/null",
        kills=("esc.rootfs-links",),
    ),
    Mutant(
        name="names-host-paths",
        fault="names directories of the machine as the sources of its mounts",
        kills=("fs.no-host-names",),
    ),
    Mutant(
        name="ro-bind-writable",
        fault="leaves a bind writable that was asked read-only",
        kills=("mnt.bind-ro", "mnt.bind-ro-rec"),
    ),
    Mutant(
        name="bind-is-empty",
        fault="mounts an empty file system where a bind was asked",
        kills=("mnt.bind",),
    ),
    Mutant(
        name="tmpfs-without-options",
        fault="mounts a tmpfs without the size and mode that were asked",
        kills=("mnt.tmpfs",),
    ),
    Mutant(
        name="mounts-deepest-first",
        fault="mounts what was asked deepest first",
        kills=("mnt.order",),
    ),
    Mutant(
        name="extra-device",
        fault="has a node in /dev that nobody asked for",
        kills=("dev.minimal",),
    ),
    Mutant(
        name="wrong-device",
        fault="makes /dev/zero a node of the null device",
        kills=("dev.usable",),
    ),
    Mutant(
        name="makes-any-device",
        fault="leaves root of the container the right to make device nodes and to open them",
        kills=("dev.no-mknod", "dev.no-disk"),
    ),
    # --- beyond the first list: rights
    Mutant(
        name="drops-no-capability",
        fault="leaves root of the container every capability",
        kills=("cap.bounding", "cap.effective"),
    ),
    Mutant(
        name="keeps-sys-admin",
        fault="leaves root of the container CAP_SYS_ADMIN",
        kills=("cap.bounding", "cap.effective"),
    ),
    Mutant(
        name="leaves-way-back",
        fault="leaves the job a descriptor of the machine's mounts, and the right to go there",
        kills=("esc.setns",),
    ),
    Mutant(
        name="leaves-ambient",
        fault="leaves a job that is not root capabilities in the ambient set",
        kills=("cap.effective", "user.no-return", "user.no-host-file"),
    ),
    Mutant(
        name="wrong-user",
        fault="runs the job as the next user and group",
        kills=("user.uid",),
    ),
    # --- beyond the first list: limits
    Mutant(
        name="rlimits-ignored",
        fault="leaves the resource limits of a process as they were",
        kills=("rlim.soft", "rlim.hard", "rlim.effect"),
    ),
    Mutant(
        name="placed-late",
        fault="moves the job into its group when it already runs",
        kills=("cg.placed",),
    ),
    Mutant(
        name="cgroups-writable",
        fault="shows the job the machine's control groups, writable",
        kills=("cg.ro", "cg.no-leave"),
    ),
    Mutant(
        name="takes-any-floor",
        fault="takes a limit too small to start anything, and does not limit",
        kills=("mem.floor",),
        liar=True,
    ),
    # --- beyond the first list: leaks and ends
    Mutant(
        name="says-unmounted",
        fault="fails to unmount what it mounted, and answers destroy with success",
        kills=("leak.mount",),
        liar=True,
    ),
    Mutant(
        name="leaks-netns-name",
        fault="says that the name of its network namespace is gone, and leaves it",
        kills=("leak.net",),
        liar=True,
    ),
    Mutant(
        name="says-cleaned-after-failure",
        fault="says after a failed start that nothing is left, and leaves a group",
        kills=("leak.failed",),
        liar=True,
    ),
    Mutant(
        name="crashes-in-start",
        fault="its supervisor ends in the middle of start",
        verdict="UNTESTABLE",
    ),
    Mutant(
        name="hangs-deaf",
        fault="never returns, and does not hear the host's deadline",
        verdict="UNTESTABLE",
    ),
)
