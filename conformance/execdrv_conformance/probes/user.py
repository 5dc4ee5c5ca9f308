"""The job's users, groups, control groups and clocks: what it is, and what it can become or change.

Helpers that the observer must see stay until it ends them. Clocks are never set: the values are
such as the kernel refuses after it has looked at the right to set them.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import time

NEWNS, NEWCGROUP, NEWUSER = 0x00020000, 0x02000000, 0x10000000
MS_REC, MS_PRIVATE = 16384, 1 << 18
CLONE3 = 435
#: A user that nobody is.
NOBODY = 54329
#: Of v1 and v2.
LIMIT_FILES = ("pids.max", "memory.limit_in_bytes", "memory.max")
#: Directories of a group tree that a search looks at, at most.
MOST_GROUPS = 2000

LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _name(error):
    return errno.errorcode.get(error.errno, str(error))


def _read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _in_child(act):
    """What `act` returns in a child, which stays until the observer ends it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(20)
            os.close(reader)
            result = act()
            os.write(writer, json.dumps(result).encode())
            os.close(writer)
            null = os.open("/dev/null", os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            time.sleep(20)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        return json.loads(pipe.read() or b"{}")


# --- users and groups --------------------------------------------------------------------------


def describe():
    """All four of its users and groups, and its supplementary groups."""
    return {
        "uids": [*os.getresuid(), LIBC.setfsuid(-1)],
        "gids": [*os.getresgid(), LIBC.setfsgid(-1)],
        "groups": sorted(os.getgroups()),
    }


def read_files(paths):
    """Its groups, and by name `read`, or why a file can't be read."""
    reads = {}
    for name, path in paths.items():
        try:
            with open(path) as file:
                file.read(1)
            reads[name] = "read"
        except OSError as error:
            reads[name] = _name(error)
    return {"gids": [*os.getresgid()], "groups": sorted(os.getgroups()), "reads": reads}


def return_to_root(keep_saved):
    """Which calls make it user 0 again, one child each; those that do stay.

    Args:
        keep_saved: become this user first, with the saved user 0 kept: what the control does.
    """
    calls = {
        "setuid": lambda: os.setuid(0),
        "seteuid": lambda: os.seteuid(0),
        "setreuid": lambda: os.setreuid(0, 0),
        "setreuid real": lambda: os.setreuid(0, -1),
        "setreuid effective": lambda: os.setreuid(-1, 0),
        "setresuid": lambda: os.setresuid(0, 0, 0),
        "setresuid real": lambda: os.setresuid(0, -1, -1),
        "setresuid effective": lambda: os.setresuid(-1, 0, -1),
        "setresuid saved": lambda: os.setresuid(-1, -1, 0),
        "setfsuid": lambda: LIBC.setfsuid(0),
    }
    returned, errors = [], {}
    for name, call in calls.items():
        became, error = _try_to_return(call, keep_saved)
        if became:
            returned.append(name)
        elif error:
            errors[name] = error
    return {"returned": returned, "errors": errors}


def _try_to_return(call, keep_saved):
    """Whether a child is user 0 in any way after a call, and the call's error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            signal.alarm(20)
            if keep_saved is not None:
                os.setresuid(keep_saved, keep_saved, 0)
            error = ""
            try:
                call()
            except OSError as problem:
                error = _name(problem)
            now = [*os.getresuid()[:2], LIBC.setfsuid(-1)]
            became = 0 in now or (keep_saved is None and 0 in os.getresuid())
            os.write(writer, json.dumps([became, error]).encode())
            os.close(writer)
            if became:
                null = os.open("/dev/null", os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                time.sleep(20)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        became, error = json.loads(pipe.read())
    if not became:
        os.waitpid(pid, 0)
    return became, error


def read_maps():
    """The maps of its user namespace, and the number that the caller's user 0 has in it."""
    with socket.socket(fileno=os.dup(0)) as line:
        # The credentials of who has made the agent's line, in this user namespace (unix(7)).
        _, uid, _ = struct.unpack("iII", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return {
        "uid": os.getuid(),
        "caller": uid,
        "uid_map": _read("/proc/self/uid_map"),
        "gid_map": _read("/proc/self/gid_map"),
    }


def drop_group(path, group):
    """Whether a group that may not read a file can be left, and the file read then."""

    def act():
        facts = {"dropped": False, "content": None, "error": ""}
        try:
            os.setgroups([group])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setgroups([])
            facts["dropped"] = not os.getgroups()
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with open(path) as file:
                facts["content"] = file.read(64)
        except OSError as error:
            facts["error"] = _name(error)
        return facts

    return _in_child(act)


def make_user_namespace():
    """Which calls make a user namespace; the processes in them stay."""
    made, errors = [], {}

    def unshare():
        _check(LIBC.unshare(NEWUSER))
        return "made"

    def clone3():
        arguments = (ctypes.c_uint64 * 8)(NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
        pid = _check(LIBC.syscall(ctypes.c_long(CLONE3), arguments, ctypes.c_size_t(64)))
        if pid == 0:
            try:
                signal.alarm(20)
                null = os.open("/dev/null", os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                # The pipe of the answer too: who asks waits for its end.
                os.closerange(3, 256)
                time.sleep(20)
            finally:
                os._exit(0)
        return "made"

    for name, call in (("unshare", unshare), ("clone3", clone3)):
        answer = _in_child(lambda call=call: _say(call))
        if answer == "made":
            made.append(name)
        else:
            errors[name] = answer
    return {"made": made, "errors": errors}


def _say(call):
    try:
        return call()
    except OSError as error:
        return _name(error)


# --- control groups ----------------------------------------------------------------------------


def read_groups():
    """Its own groups: path by controllers; None without a /proc."""
    text = _read("/proc/self/cgroup")
    return {"groups": None if text is None else _parse_groups(text)}


def _parse_groups(text):
    return {line.split(":", 2)[1]: line.split(":", 2)[2] for line in text.splitlines()}


def _mounts():
    """Target and options of the group hierarchies that it sees mounted."""
    for line in (_read("/proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            yield left.split(" ")[4], kind, options.split(",")


def _own_directories(trees):
    """Directories with this process in them, in each tree."""
    found = []
    for top in trees:
        for looked, (path, _, _) in enumerate(os.walk(top)):
            if looked > MOST_GROUPS:
                break
            words = (_read(os.path.join(path, "cgroup.procs")) or "").split()
            if str(os.getpid()) in words:
                found.append((top, path))
                break
    return found


def _trees():
    """Where the hierarchies that limit tasks or memory are mounted."""
    return [
        target
        for target, kind, options in _mounts()
        if kind == "cgroup2" or {"pids", "memory"} & set(options)
    ]


def _above(top, path):
    """A directory and those above it, up to the top of its tree."""
    while True:
        yield path
        if path == top or len(path) <= len(top):
            return
        path = os.path.dirname(path)


def _mount_groups(places):
    """Hierarchies that this process mounts for itself, in a user namespace of its own."""
    _check(LIBC.unshare(NEWUSER | NEWNS | NEWCGROUP))
    uid, gid = os.geteuid(), os.getegid()
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with contextlib.suppress(OSError):
            # Not all of it may be allowed (CAP_SETFCAP); some ways go without.
            fd = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(fd, line.encode())
            os.close(fd)
    LIBC.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    mounted = []
    kinds = (("cgroup", b"pids"), ("cgroup", b"memory"), ("cgroup2", None))
    for place, (kind, data) in zip(places, kinds, strict=True):
        if not LIBC.mount(b"xdc", place.encode(), kind.encode(), ctypes.c_ulong(0), data):
            mounted.append(place)
    return mounted


def raise_limits(pids, memory, places):
    """Which limits of its own it can raise: by what it sees, and by what it mounts.

    A limit that was asked, and no other one, is raised by one task or one mebibyte.

    Args:
        pids: the limit that was asked; None: none was.
        memory: likewise.
        places: three directories on which it may mount in a mount namespace of its own.
    """
    if pids is None:
        return {"raised": [], "found": 0, "ways": {}}
    seen = _raise(_trees(), pids, memory)
    mounted = _in_child(lambda: _raise_mounted(places, pids, memory))
    return {
        "raised": seen["raised"] + mounted["raised"],
        "found": seen["found"] + mounted["found"],
        "ways": {"seen": seen["errors"], "mounted": mounted["errors"]},
    }


def _raise_mounted(places, pids, memory):
    try:
        trees = _mount_groups(places)
    except OSError as error:
        return {"raised": [], "found": 0, "errors": {"mount": _name(error)}}
    return _raise(trees, pids, memory)


def _raise(trees, pids, memory):
    raised, errors, found = [], {}, 0
    files = {
        # The drivers' own first process may count as one more.
        "pids.max": (range(pids, pids + 9), 1),
        "memory.memsw.limit_in_bytes": (range(memory, 2 * memory + 1), 1 << 20),
        "memory.limit_in_bytes": ((memory,), 1 << 20),
        "memory.max": ((memory,), 1 << 20),
    }
    for top, own in _own_directories(trees):
        for path in _above(top, own):
            for name, (asked, more) in files.items():
                text = (_read(os.path.join(path, name)) or "").strip()
                if not text.isdigit() or int(text) not in asked:
                    continue
                found += 1
                error = _write(os.path.join(path, name), str(int(text) + more))
                if error:
                    errors[name] = error
                else:
                    raised.append(name)
    return {"raised": sorted(set(raised)), "found": found, "errors": errors}


def _write(path, text):
    """Empty, or the error of writing a file."""
    try:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        return _name(error)
    return ""


def leave_group(asked):
    """Whether a child can leave its group for the parent or a sibling; if so, it stays there.

    Args:
        asked: whether a group was asked for.
    """
    if not asked:
        return {"left": [], "found": 0, "errors": {}}
    return _in_child(_leave_group)


def _leave_group():
    left, errors, found = [], {}, 0
    for top, own in _own_directories(_trees()):
        if own == top:
            continue
        # A group of the unified hierarchy that limits nothing is not what was asked for.
        if not any(os.path.exists(os.path.join(own, name)) for name in LIMIT_FILES):
            continue
        parent = os.path.dirname(own)
        siblings = [os.path.join(parent, name) for name in sorted(os.listdir(parent))]
        others = [path for path in siblings if path != own and os.path.isdir(path)]
        for path in [parent, *others[:4]]:
            found += 1
            error = _write(os.path.join(path, "cgroup.procs"), "0")
            if error:
                errors[error] = errors.get(error, 0) + 1
            else:
                left.append(os.path.basename(top))
                break
    return {"left": left, "found": found, "errors": errors}


# --- clocks ------------------------------------------------------------------------------------


def read_clocks(monotonic_s, boottime_s):
    """How far its clocks are from the caller's, which were read just before; its namespace."""
    try:
        link = os.readlink("/proc/self/ns/time")
    except OSError:
        link = ""
    return {
        "monotonic_s": time.clock_gettime(time.CLOCK_MONOTONIC) - monotonic_s,
        "boottime_s": time.clock_gettime(time.CLOCK_BOOTTIME) - boottime_s,
        "link": link,
    }


#: x86_64 and aarch64.
CLOCKS = {"settimeofday": (164, 170), "adjtimex": (159, 171), "clock_adjtime": (305, 266)}
ADJ_TICK = 0x4000


def set_clocks():
    """The errors of setting clocks to what is out of range: EPERM is said before EINVAL."""
    column = 0 if os.uname().machine == "x86_64" else 1
    # struct timezone, 9999 minutes west; struct timex with a tick of one microsecond.
    zone = struct.pack("ii", 9999, 0)
    tick = struct.pack("I84xq160x", ADJ_TICK, 1)
    calls = {
        "settimeofday": (None, ctypes.create_string_buffer(zone)),
        "adjtimex": (ctypes.create_string_buffer(tick),),
        "clock_adjtime": (0, ctypes.create_string_buffer(tick)),
    }
    answers = {}
    for name, arguments in calls.items():
        ctypes.set_errno(0)
        result = LIBC.syscall(ctypes.c_long(CLOCKS[name][column]), *arguments)
        answers[name] = "done" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")
    return {"answers": answers}
