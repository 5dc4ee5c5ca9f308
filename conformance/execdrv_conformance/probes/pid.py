"""Which processes the job can see, signal and trace."""

import ctypes
import os


def describe_self():
    """Its number, and those of its ancestors as /proc tells them."""
    chain = []
    pid = os.getpid()
    while pid > 0 and len(chain) < 64:
        chain.append(pid)
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(") ")[2].split()[1])
        except OSError:
            break
    try:
        link = os.readlink("/proc/self/ns/pid")
    except OSError:
        link = ""
    return {"pid": os.getpid(), "parent": os.getppid(), "chain": chain, "link": link}


def find_processes(pids, name):
    """Which of these numbers show a process of that name, or take signal 0."""
    seen = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read()
        except OSError:
            continue
        if name.encode() in words and int(entry) != os.getpid():
            seen.append(int(entry))
    reached = [pid for pid in pids if _reaches(pid) and not _is_another(pid, name)]
    return {"listed": seen, "signalled": reached}


def _is_another(pid, name):
    """Whether /proc says that this number is a process of another name: one of the job's own."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return name.encode() not in file.read()
    except OSError:
        return False


def _reaches(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It is there.
        return True
    return True


def signal_all(pids, most):
    """Signal 0 to the canaries and to every number up to `most`: those that took it, not ours."""
    own = _own_processes()
    reached = []
    for pid in sorted({*range(2, most), *pids}):
        if pid in own:
            continue
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        reached.append(pid)
    return {"reached": reached[:200], "own": sorted(own)}


def _own_processes():
    """This process, its parents, and whatever is younger than it: what other probes have left.

    The machine's canaries are older than any container.
    """
    own = set(describe_self()["chain"])
    born = _birth("self")
    for entry in os.listdir("/proc") if born is not None else []:
        if entry.isdigit() and (_birth(entry) or 0) >= born:
            own.add(int(entry))
    return own


def _birth(pid):
    """Start time of a process in ticks since boot; None: there is no telling."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(") ")[2].split()[19])
    except OSError:
        return None


def trace(pids):
    """Seize each process and read its memory; it stays seized until this process ends.

    A process of the job's own may have a canary's number, where it has numbers of its own.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    seize = 0x4206
    traced, read, errors = [], [], {}
    own = _own_processes()
    for pid in pids:
        if pid in own:
            continue
        if libc.ptrace(seize, pid, None, None) == 0:
            traced.append(pid)
        else:
            errors[str(pid)] = os.strerror(ctypes.get_errno())
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if b"XDC_CANARY=" in file.read():
                    read.append(pid)
        except OSError:
            pass
    return {"traced": traced, "read": read, "errors": errors}
