"""Objects of System V and POSIX IPC, keys, and the host name: which of others the job reaches."""

import ctypes
import errno
import json
import os
import signal
import socket
import time

IPC_CREAT, IPC_RMID, IPC_NOWAIT, SHM_RDONLY = 0o1000, 0, 0o4000, 0o10000
SESSION_RING, USER_RING = -3, -4
KEYCTL_JOIN, KEYCTL_LINK, KEYCTL_SEARCH, KEYCTL_READ = 1, 8, 10, 11
NUMBERS = {
    "mq_open": {"x86_64": 240, "aarch64": 180},
    "mq_unlink": {"x86_64": 241, "aarch64": 181},
    "keyctl": {"x86_64": 250, "aarch64": 219},
}

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.shmat.restype = ctypes.c_void_p
#: What `make_objects` has made.
MADE = {}


def _check(result):
    if result is None or result < 0 or result == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(name, *arguments):
    number = NUMBERS[name][os.uname().machine]
    return _check(LIBC.syscall(ctypes.c_long(number), *arguments))


def _name(error):
    return errno.errorcode.get(error.errno, str(error))


def _try(acts):
    """Names of acts that work, and the errors of the others."""
    done, errors = {}, {}
    for name, act in acts.items():
        try:
            done[name] = act()
        except OSError as error:
            errors[name] = _name(error)
    return done, errors


def _in_child(act):
    """What `act` returns in a child, which stays until the observer ends it."""
    reader, writer = os.pipe()
    if os.fork() == 0:
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


# --- System V ----------------------------------------------------------------------------------


class _Operation(ctypes.Structure):
    _fields_ = (("number", ctypes.c_ushort), ("value", ctypes.c_short), ("flags", ctypes.c_short))


def _attach(key, size):
    address = _check(LIBC.shmat(_check(LIBC.shmget(key, 0, 0)), None, SHM_RDONLY))
    return ctypes.string_at(address, size).decode(errors="replace")


def _wait_for_zero(key):
    operation = _Operation(0, 0, IPC_NOWAIT)
    return _check(LIBC.semop(_check(LIBC.semget(key, 0, 0)), ctypes.byref(operation), 1))


def _receive(key):
    buffer = ctypes.create_string_buffer(64)
    queue = _check(LIBC.msgget(key, 0))
    try:
        return _check(LIBC.msgrcv(queue, buffer, ctypes.c_size_t(32), ctypes.c_long(0), IPC_NOWAIT))
    except OSError as error:
        # The queue is there, and empty.
        if error.errno == errno.ENOMSG:
            return 0
        raise


def _list_keys(key):
    listed = []
    for kind in ("shm", "sem", "msg"):
        try:
            with open(f"/proc/sysvipc/{kind}") as file:
                keys = [int(line.split()[0]) for line in file.readlines()[1:]]
        except OSError:
            continue
        if key in keys:
            listed.append(kind)
    return listed


def reach_sysv(key, size):
    """Which objects of a key are listed, and which work; the segment stays attached."""
    return _in_child(lambda: _reach_sysv(key, size))


def _reach_sysv(key, size):
    acts = {
        "shmat": lambda: _attach(key, size),
        "semop": lambda: _wait_for_zero(key),
        "msgrcv": lambda: _receive(key),
    }
    reached, errors = _try(acts)
    return {"reached": sorted(reached), "errors": errors, "listed": _list_keys(key)}


# --- POSIX message queues ----------------------------------------------------------------------


def _open_queue(name, flags):
    # One short message: all queues of a user share 800 KiB, whatever the namespace.
    attributes = (ctypes.c_long * 8)(0, 1, 64)
    queue = _call("mq_open", name.encode(), flags, 0o666, ctypes.byref(attributes))
    os.close(queue)
    return queue


def reach_mqueue(name, own):
    """Whether a queue of that name opens, and whether one of its own can be made."""
    acts = {
        "given": lambda: _open_queue(name, os.O_RDONLY),
        "own": lambda: _open_queue(own, os.O_RDWR | os.O_CREAT | os.O_EXCL),
    }
    done, errors = _try(acts)
    if "own" in done:
        _call("mq_unlink", own.encode())
    return {"reached": "given" in done, "made": "own" in done, "errors": errors}


# --- two containers ----------------------------------------------------------------------------


def make_objects(key, name, with_queue):
    """One object of each kind, until `remove_objects`."""
    MADE["shmget"] = _check(LIBC.shmget(key, 4096, IPC_CREAT | 0o666))
    MADE["semget"] = _check(LIBC.semget(key, 1, IPC_CREAT | 0o666))
    MADE["msgget"] = _check(LIBC.msgget(key, IPC_CREAT | 0o666))
    if with_queue:
        _open_queue(name, os.O_RDWR | os.O_CREAT)
        MADE["mqueue"] = name
    return {"made": sorted(MADE)}


def reach_objects(key, name):
    """Which objects of another container's work."""
    acts = {
        "shmat": lambda: _attach(key, 8),
        "semop": lambda: _wait_for_zero(key),
        "msgrcv": lambda: _receive(key),
        "mq_open": lambda: _open_queue(name, os.O_RDONLY),
    }
    reached, errors = _try(acts)
    return {"reached": sorted(reached), "errors": errors}


def remove_objects():
    """Remove what `make_objects` has made."""
    if "mqueue" in MADE:
        _call("mq_unlink", MADE["mqueue"].encode())
    LIBC.shmctl(MADE["shmget"], IPC_RMID, None)
    LIBC.semctl(MADE["semget"], 0, IPC_RMID, None)
    LIBC.msgctl(MADE["msgget"], IPC_RMID, None)
    MADE.clear()
    return {}


# --- keys --------------------------------------------------------------------------------------


def _search(ring, name):
    return _call("keyctl", KEYCTL_SEARCH, ctypes.c_int(ring), b"user", name.encode(), 0)


def _read(key):
    buffer = ctypes.create_string_buffer(64)
    size = _call("keyctl", KEYCTL_READ, ctypes.c_int(key), buffer, ctypes.c_size_t(64))
    return buffer.raw[:size].decode(errors="replace")


def _read_by_way_of_own_ring(name):
    """A key that may be found but not read is read by who holds it: link its ring to one's own."""
    _call("keyctl", KEYCTL_JOIN, None)
    _call("keyctl", KEYCTL_LINK, ctypes.c_int(USER_RING), ctypes.c_int(SESSION_RING))
    return _read(_search(SESSION_RING, name))


def read_keys(session, user):
    """What keys of the caller's session ring and user ring hold, by their names."""
    return _in_child(lambda: _read_keys(session, user))


def _read_keys(session, user):
    acts = {
        "session": lambda: _read(_search(SESSION_RING, session)),
        "user": lambda: _read(_search(USER_RING, user)),
        # The last: it takes another session ring.
        "user by a ring of its own": lambda: _read_by_way_of_own_ring(user),
    }
    found, errors = _try(acts)
    try:
        with open("/proc/keys") as file:
            text = file.read()
        listed = [name for name in (session, user) if name in text]
    except OSError:
        listed = []
    return {"found": found, "errors": errors, "listed": listed}


# --- the host name -----------------------------------------------------------------------------


def read_names():
    """The host name by uname and by gethostname, and its uts namespace."""
    try:
        link = os.readlink("/proc/self/ns/uts")
    except OSError:
        link = ""
    return {"uname": os.uname().nodename, "gethostname": socket.gethostname(), "link": link}


def set_names(host, domain):
    """Try to set both names; what they were, and what they are."""
    before = os.uname().nodename
    acts = {
        "host": lambda: socket.sethostname(host),
        "domain": lambda: _check(LIBC.setdomainname(domain.encode(), len(domain))),
    }
    done, errors = _try(acts)
    return {
        "before": before,
        "now": os.uname().nodename,
        "done": sorted(done),
        "errors": errors,
    }
