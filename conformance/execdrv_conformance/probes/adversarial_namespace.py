"""Namespaces of the machine, entered by whatever leads to them; processes that join, seized.

One that got into a namespace stays until the end, for the observer.
"""

import contextlib
import ctypes
import errno
import os
import time

NEWUTS, NEWIPC, NEWNET = 0x04000000, 0x08000000, 0x40000000
PTRACE_SEIZE = 0x4206

#: Children that stay until the end, for the observer.
HELD = []

LIBC = ctypes.CDLL(None, use_errno=True)


def _pids():
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _mounts():
    """Type and target of what this process sees mounted; (None, target) where it can't tell."""
    found = []
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", errors="replace") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            found.append((right.split(" ")[0], left.split(" ")[4]))
    return found


def _listed_fds():
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return []


# --- namespaces --------------------------------------------------------------------------------


#: Kinds of namespaces as /proc/PID/ns names them.
NAMESPACES = ("uts", "ipc", "net", "mnt", "pid", "cgroup", "user", "time")


def enter_namespaces(pid, links, word):
    """Enter namespaces of the machine, by every link, file, pidfd and descriptor in reach.

    Each in a child of its own; one that got there stays for the observer.

    Args:
        pid: a neighbour with namespaces of its own, as the machine numbers it.
        links: those of the neighbour, and of the machine where they are not the job's too.
        word: the neighbour's host name.
    """
    tried, entered, problem, there = 0, [], "", set()
    for title, fd, link in _namespace_fds(pid, set(links)):
        if link not in there:
            tried += 1
            outcome = _enter(fd, link, set(links), word)
            if outcome:
                problem = outcome
            else:
                entered.append(title)
                there.add(link)
        os.close(fd)
    return {"tried": tried, "entered": entered, "problem": problem}


def _enter(fd, link, links, word):
    """Why a child can't enter; empty: it is there. Without a link it is a process' descriptor."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ours)
            for number in (0, 1, 2):
                # The agent's socket must close with the agent.
                os.close(number)
            if LIBC.setns(fd, 0 if link else NEWUTS | NEWIPC | NEWNET):
                os.write(theirs, errno.errorcode.get(ctypes.get_errno(), "?").encode())
            elif not link and not _is_elsewhere(links, word):
                os.write(theirs, b"its own")
            else:
                os.write(theirs, b"there")
                os.close(theirs)
                time.sleep(30)
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as file:
        said = file.read().decode()
    if said == "there":
        HELD.append(child)
        return ""
    os.waitpid(child, 0)
    return said or "the child died"


def _is_elsewhere(links, word):
    if os.uname().nodename == word:
        return True
    return any(_link(f"/proc/self/ns/{name}") in links for name in NAMESPACES)


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _namespace_fds(pid, links):
    """Each descriptor that may lead to the machine's namespaces: title, descriptor, link."""
    with contextlib.suppress(OSError):
        yield f"pidfd of {pid}", os.pidfd_open(pid), ""
    for number in _listed_fds():
        link = _link(f"/proc/self/fd/{number}")
        if link in links or link == "anon_inode:[pidfd]":
            with contextlib.suppress(OSError):
                yield f"descriptor {number}", os.dup(number), link if link in links else ""
    for path in _namespace_paths(pid):
        # Only what is a namespace is opened: others' descriptors may lead to anything.
        if _link(path) in links:
            with contextlib.suppress(OSError):
                yield path, os.open(path, os.O_RDONLY), _link(path)
    for path in [target for kind, target in _mounts() if kind == "nsfs"]:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY)
            if (link := _link(f"/proc/self/fd/{fd}")) in links:
                yield path, fd, link
            else:
                os.close(fd)


def _namespace_paths(pid):
    """Links to namespaces and to others' descriptors, also by directories that lead elsewhere."""
    for one in _pids():
        yield from (f"/proc/{one}/ns/{name}" for name in NAMESPACES)
        with contextlib.suppress(OSError):
            yield from (f"/proc/{one}/fd/{number}" for number in os.listdir(f"/proc/{one}/fd"))
    tops = [f"/proc/self/fd/{number}" for number in _listed_fds()]
    tops += [f"/proc/{one}/{name}" for one in _pids() for name in ("root", "cwd")]
    for top in [one for one in tops if os.path.isdir(one)]:
        for proc in (top, f"{top}/proc"):
            for one in ("1", pid):
                yield from (f"{proc}/{one}/ns/{name}" for name in NAMESPACES)


# --- processes that join -----------------------------------------------------------------------


def catch_joining(seconds, first):
    """Seize whatever process appears, and open its descriptors, for a while.

    Args:
        first: False: what is there already counts too.
    """
    old = {int(pid) for pid in _pids()} if first else {os.getpid(), os.getppid(), 1}
    yield {"ready": True}
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seen, traced, opened = set(), [], []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for pid in {int(name) for name in _pids()} - old - seen:
            seen.add(pid)
            if LIBC.ptrace(PTRACE_SEIZE, pid, None, None) == 0:
                traced.append(pid)
            with contextlib.suppress(OSError):
                opened += [f"{pid}:{fd}" for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
        time.sleep(0.001)
    yield {"seen": sorted(seen), "traced": traced, "opened": opened}
