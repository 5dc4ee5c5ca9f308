"""What a job does to whoever has to end it and to clean up after it: wrecks, floods, storms.

Everything is bounded, stays below the directory or group that it is given, and is the job's own.
"""

import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import time

NEWNS, NEWCGROUP, NEWUSER = 0x00020000, 0x02000000, 0x10000000
MS_BIND = 4096
FS_IOC_SETFLAGS, IMMUTABLE, APPEND = 0x40086602, 0x10, 0x20
#: Names of directories below each other; together longer than PATH_MAX, 4096.
DEEP, NAME = 30, "d" * 200
#: Seconds for a child to prepare itself; a frozen one never says that it has.
PATIENCE_S, FROZEN_S = 5, 0.1
#: Ignored by whoever has not asked for them, so that nobody ends by one.
HARMLESS = (signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH)

LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def build_wreck(place, outside, tricks):
    """Make everything that is hard to remove, in a new directory.

    Args:
        outside: a directory of the machine that links lead to.
        tricks: the names of those that are tried.
    """
    os.mkdir(place, 0o777)
    built, refused = [], {}
    for name in tricks:
        try:
            TRICKS[name](place, outside)
            built.append(name)
        except OSError as error:
            refused[name] = errno.errorcode.get(error.errno or 0, str(error))
    return {"built": built, "refused": refused}


def _deep(place, _):
    start = os.open(".", os.O_RDONLY)
    os.chdir(place)
    try:
        for _level in range(DEEP):
            os.mkdir(NAME)
            os.chdir(NAME)
        with open("bottom", "w") as file:
            file.write("bottom")
    finally:
        os.fchdir(start)
        os.close(start)


def _closed(place, _):
    """Directories of mode 0 in each other, and files in them."""
    path = f"{place}/closed"
    made = []
    for level in range(5):
        os.mkdir(path)
        with open(f"{path}/file", "w") as file:
            file.write("closed")
        made.append(path)
        path += f"/{level}"
    for path in reversed(made):
        os.chmod(f"{path}/file", 0)
        os.chmod(path, 0)


def _names(place, _):
    for name in (
        b"new\nline",
        b"\xff\xfe",
        b"-rf",
        b" ",
        b"...",
        b"*",
        b"a" * 255,
        b"\\134",
        b"$(x)",
    ):
        with open(os.fsencode(place) + b"/" + name, "wb"):
            pass


def _nodes(place, _):
    os.mkfifo(f"{place}/fifo", 0)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{place}/socket")
    os.mkdir(f"{place}/sticky", 0o1777)


def _links(place, outside):
    os.symlink(outside, f"{place}/out")
    os.symlink("/", f"{place}/top")
    os.symlink("../" * 40 + outside.lstrip("/"), f"{place}/up")
    os.symlink("loop", f"{place}/loop")
    with open(f"{place}/one", "w"):
        pass
    for number in range(50):
        os.link(f"{place}/one", f"{place}/hard-{number}")


def _immutable(place, _):
    for name, flags in (("fixed", IMMUTABLE), ("growing", APPEND)):
        os.mkdir(f"{place}/{name}")
        for path in (f"{place}/{name}/file", f"{place}/{name}"):
            fd = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_CREAT | os.O_RDWR)
            try:
                fcntl.ioctl(fd, FS_IOC_SETFLAGS, ctypes.c_long(flags))
            finally:
                os.close(fd)


def _processes(place, _):
    """Sleepers that ignore signals, in a directory that is gone, with a file that is gone."""
    os.mkdir(f"{place}/gone")
    for _number in range(3):
        _leave(lambda: _sit_in(f"{place}/gone"))
    time.sleep(0.02)
    os.rmdir(f"{place}/gone")


def _sit_in(path):
    os.setsid()
    os.chdir(path)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, signal.SIG_IGN)


def _leave(prepare, *, frozen=False):
    """A child that prepares itself, and then sleeps; what it raises is raised here.

    Args:
        frozen: it may stop for ever before it can say that it is ready.
    """
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            for number in (0, 1, 2):
                os.close(number)
            try:
                prepare()
            except OSError as error:
                os.write(theirs, str(error.errno).encode())
                os._exit(1)
            os.close(theirs)
            time.sleep(600)
        finally:
            os._exit(0)
    os.close(theirs)
    ready = select.select([ours], [], [], FROZEN_S if frozen else PATIENCE_S)[0]
    said = os.read(ours, 16) if ready else b""
    os.close(ours)
    if said:
        os.waitpid(pid, 0)
        raise OSError(int(said), os.strerror(int(said)))
    return pid


def _mount(source, target, kind, flags=0, data=None):
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    _check(LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))


def _own_namespaces(flags):
    """A user namespace with every capability in it, and others that belong to it."""
    uid, gid = os.geteuid(), os.getegid()
    _check(LIBC.unshare(NEWUSER | flags))
    maps = {"setgroups": "deny", "uid_map": f"{uid} {uid} 1", "gid_map": f"{gid} {gid} 1"}
    for name, line in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)


def _busy_mount(place, _):
    """File systems in each other, with somebody in them, as the job is."""
    path = f"{place}/busy"
    os.mkdir(path)
    _mount_nested(path)
    _leave(lambda: os.chdir(f"{path}/more"))


def _hidden_mount(place, _):
    """The same where only a child of the job sees it."""
    path = f"{place}/hidden"
    os.mkdir(path)

    def hide():
        _own_namespaces(NEWNS)
        _mount_nested(path)
        os.chdir(f"{path}/more")

    _leave(hide)


def _mount_nested(path):
    _mount("xdc", path, "tmpfs", 0, "size=1m")
    os.mkdir(f"{path}/more")
    _mount("xdc", f"{path}/more", "tmpfs", 0, "size=1m")


def _own_mount(place, outside):
    """The machine's directory, bound where the clean-up will look."""
    os.mkdir(f"{place}/bound")
    _mount("/vol", f"{place}/bound", None, MS_BIND)


def _groups(place, _):
    """Groups in groups with a sleeper below, as the job is."""
    _nest_all(f"{place}/group", lambda: None)


def _hidden_groups(place, _):
    """The same by a child in namespaces of its own: the user in them owns what the job's owns."""
    _nest_all(f"{place}/hidden-group", lambda: _own_namespaces(NEWNS | NEWCGROUP))


def _nest_all(path, prepare):
    """In each hierarchy that can be had; where frozen processes can be killed, they are frozen."""
    problem = None
    for kind in ("freezer", "pids", "memory", ""):
        name = f"{path}-{kind or 'unified'}"
        os.mkdir(name)
        try:
            _leave(lambda kind=kind, name=name: (prepare(), _nest(name, kind)), frozen=not kind)
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem


def _own_group(controller):
    """The path of this process's group in a hierarchy; never anything above it is touched."""
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            if controller in names.split(","):
                return path
    raise OSError(errno.ENOENT, "no such hierarchy")


def _nest(path, controller):
    """This process into a new group of a new group, below its own, by a mount of its own.

    On cgroup v2 it is then frozen. On v1 nobody could kill it any more, not even the kit.
    """
    own = _own_group(controller)
    _mount("xdc", path, "cgroup" if controller else "cgroup2", 0, controller or None)
    inner = f"{path}{own.rstrip('/')}/nested-{os.getpid()}/inner"
    os.makedirs(inner)
    with open(f"{inner}/cgroup.procs", "w") as file:
        file.write("0")
    if not controller:
        with open(f"{inner}/cgroup.freeze", "w") as file:
            file.write("1")


TRICKS = {
    "deep": _deep,
    "closed": _closed,
    "names": _names,
    "nodes": _nodes,
    "links": _links,
    "immutable": _immutable,
    "processes": _processes,
    "busy-mount": _busy_mount,
    "hidden-mount": _hidden_mount,
    "own-mount": _own_mount,
    "groups": _groups,
    "hidden-groups": _hidden_groups,
}


# --- floods ------------------------------------------------------------------------------------


def storm(signals, children):
    """Signals to the parents that this job can see, and orphans that die at once.

    Handlers of the job's own count what comes to itself.
    """
    counted = [0]
    signal.signal(signal.SIGUSR1, lambda *_: counted.__setitem__(0, counted[0] + 1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    yield {"ready": True}
    sent = refused = 0
    targets = sorted({1, os.getppid()} - {0, os.getpid()})
    for number in range(signals):
        try:
            os.kill(targets[number % len(targets)], HARMLESS[number % len(HARMLESS)])
            sent += 1
        except OSError:
            refused += 1
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            # Its child is an orphan the moment it ends.
            os.fork()
            os._exit(0)
        os.waitpid(pid, 0)
    yield {"sent": sent, "refused": refused, "children": children, "own": counted[0]}
