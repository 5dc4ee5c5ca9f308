"""Knobs of the kernel and files by handle, tried from all that a job can make of itself.

Nothing of the machine is changed: what is reached is opened and kept open, so that the observer
sees it too; no knob is written. Attempts are made in a child, which hands over the descriptors that
it got.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket

NEWNS, NEWCGROUP = 0x00020000, 0x02000000
NEWUSER, NEWPID = 0x10000000, 0x20000000
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
#: Seconds that a child may take for its attempts.
PATIENCE_S = 5

#: Descriptors that stay until the end, for the observer.
HELD = []

LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _name(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def _mount(source, target, kind, flags=0, data=None):
    words = [None if word is None else word.encode() for word in (source, target, kind, data)]
    _check(LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]))


def _unmount(target, flags=MNT_DETACH):
    _check(LIBC.umount2(target.encode(), flags))


def _mounts():
    """Type and target of what this process sees mounted; (None, target) where it can't tell."""
    found = []
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", errors="replace") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            found.append((right.split(" ")[0], left.split(" ")[4]))
    return found


# --- attempts in a child -----------------------------------------------------------------------


def _attempt(action):
    """What `action` reaches in a child: names, each with a descriptor that is kept here.

    The action gets a function `reach(name, fd)`; what it raises is told in place of names.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()

        def reach(name, fd):
            socket.send_fds(theirs, [json.dumps([name, ""]).encode()], [fd])

        try:
            signal.alarm(PATIENCE_S)
            action(reach)
            theirs.send(json.dumps(["", "ok"]).encode())
        except OSError as error:
            theirs.send(json.dumps(["", _name(error)]).encode())
        finally:
            os._exit(0)
    theirs.close()
    reached, outcome = [], "died"
    ours.settimeout(PATIENCE_S)
    with contextlib.suppress(OSError):
        while True:
            data, fds, _, _ = socket.recv_fds(ours, 4096, 1)
            if not data:
                break
            name, said = json.loads(data)
            HELD.extend(fds)
            if name:
                reached.append(name)
            else:
                outcome = said
    ours.close()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return reached, outcome


def _become_user(uid=1000):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _enter_new(flags):
    """New namespaces with what they need: a map for a user namespace, private mounts."""
    uid, gid = os.geteuid(), os.getegid()
    _check(LIBC.unshare(flags))
    if flags & NEWUSER:
        maps = {"setgroups": "deny", "uid_map": f"0 {uid} 1", "gid_map": f"0 {gid} 1"}
        for path, line in maps.items():
            with contextlib.suppress(OSError), open(f"/proc/self/{path}", "w") as file:
                file.write(line)
    with contextlib.suppress(OSError):
        # In a chroot `/` is no mount: what is mounted then is taken off again.
        _mount(None, "/", None, MS_REC | MS_PRIVATE)
    if flags & NEWPID:
        pid = os.fork()
        if pid:
            # The child in the new pid namespace says the rest.
            os.waitpid(pid, 0)
            os._exit(0)


@contextlib.contextmanager
def _mounted(kind, target, data=None):
    _mount("xdc", target, kind, 0, data)
    try:
        yield
    finally:
        # Lazily: descriptors below it stay.
        _unmount(target)


# --- knobs -------------------------------------------------------------------------------------


def open_settings(names):
    """Open settings of the machine for writing: as they are, as a user, in new namespaces.

    Args:
        names: paths below /.
    """
    hidden = NEWUSER | NEWNS | NEWPID
    ways = {
        "plainly": lambda reach: _open_all("/", names, reach),
        "as user 1000": lambda reach: (_become_user(), _open_all("/", names, reach)),
        "in a new mount namespace": lambda reach: _unmask(NEWNS, names, reach),
        "in new user, mount and pid namespaces": lambda reach: _unmask(hidden, names, reach),
    }
    return _try_ways(ways)


def _try_ways(ways):
    reached, outcomes = [], {}
    for title, action in ways.items():
        found, outcomes[title] = _attempt(action)
        reached += [f"{name} {title}" for name in found]
    return {"reached": reached, "outcomes": outcomes}


def _open_all(top, names, reach):
    for name in names:
        path = os.path.join(top, name.lstrip("/"))
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            reach(path, fd)
            os.close(fd)


def _unmask(flags, names, reach):
    """Take off what covers a setting, make it writable again, mount a file system of its own."""
    _enter_new(flags)
    for kind, target in reversed(_mounts()):
        if target.startswith(("/proc/", "/sys/")) and kind != "cgroup":
            with contextlib.suppress(OSError):
                _unmount(target)
            with contextlib.suppress(OSError):
                _mount(None, target, None, MS_REMOUNT | MS_BIND)
    for target in ("/proc", "/sys"):
        with contextlib.suppress(OSError):
            _mount(None, target, None, MS_REMOUNT | MS_BIND)
    _open_all("/", names, reach)
    for kind, top in (("proc", "/proc"), ("sysfs", "/sys")):
        with contextlib.suppress(OSError), _mounted(kind, "/mnt"):
            wanted = [name.removeprefix(top) for name in names if name.startswith(top + "/")]
            _open_all("/mnt", wanted, reach)


def open_release_agents(controllers):
    """Open every release_agent for writing: of the hierarchies in view, and of mounts of ours."""
    return _try_ways(
        {
            "in view": lambda reach: _open_agents(reach),
            "as user 1000": lambda reach: (_become_user(), _open_agents(reach)),
            "in a new mount namespace": lambda reach: _mount_groups(NEWNS, controllers, reach),
            "in new user, mount and cgroup namespaces": lambda reach: _mount_groups(
                NEWUSER | NEWNS | NEWCGROUP, controllers, reach
            ),
        }
    )


def _open_agents(reach):
    for kind, target in _mounts():
        if kind == "cgroup":
            _open_all(target, ["release_agent"], reach)


def _mount_groups(flags, controllers, reach):
    _enter_new(flags)
    problem = None
    for controller in controllers:
        try:
            with _mounted("cgroup", "/mnt", controller):
                _open_all("/mnt", ["release_agent"], reach)
        except OSError as error:
            problem = error
    if problem is not None:
        raise problem


# --- handles -----------------------------------------------------------------------------------


class _Handle(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_uint),
        ("kind", ctypes.c_int),
        ("data", ctypes.c_ubyte * 128),
    )


def open_handles(handle, places):
    """Open by handle a file of this job's own, and the canary, whose handle the kit has given.

    Args:
        handle: type and bytes of the canary's handle; None: its file system has no handles.
        places: directories, each on a file system that may be the canary's.
    """
    return _try_ways(
        {
            "plainly": lambda reach: _open_handles(handle, places, reach),
            "as user 1000": lambda reach: (_become_user(), _open_handles(handle, places, reach)),
        }
    )


def _open_handles(handle, places, reach):
    problem = None
    for place in places:
        try:
            directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        wanted = [("its own file", own)] if (own := _own_handle(place)) else []
        if handle is not None:
            wanted.append(("the canary", handle))
        for title, (kind, data) in wanted:
            box = _Handle(length=len(data), kind=kind)
            box.data[: len(data)] = data
            try:
                fd = _check(LIBC.open_by_handle_at(directory, ctypes.byref(box), os.O_RDONLY))
            except OSError as error:
                problem = error
                continue
            reach(f"{title} by {place}", fd)
            os.close(fd)
    if problem is not None:
        raise problem


def _own_handle(place):
    """Type and bytes of the handle of a new file; None where there are no handles."""
    path = os.path.join(place, f"xdc-handle-{os.getpid()}")
    box = _Handle(length=128)
    number = ctypes.c_int()
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError:
        return None
    try:
        _check(
            LIBC.name_to_handle_at(-100, path.encode(), ctypes.byref(box), ctypes.byref(number), 0)
        )
    except OSError:
        return None
    finally:
        # The file is gone, but its handle is of the right kind: the right to use it comes first.
        os.unlink(path)
    return box.kind, list(box.data[: box.length])
