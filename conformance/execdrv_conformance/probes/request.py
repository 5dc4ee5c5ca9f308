"""Whether what was asked has an effect that the job can see: one flag a request."""

import ctypes
import mmap
import os
import resource
import signal
import socket
import time


def look_at_effects(asked):
    """For each request by name, its arguments: True if the job sees its effect, with what it saw.

    The cheap ones first; the last ones spend processes and memory.
    """
    for name in sorted(asked, key=lambda name: (name in ("cpus", "pids", "memory"), name)):
        try:
            seen, saw = _LOOKS[name](asked[name])
        except OSError as error:
            seen, saw = False, f"{type(error).__name__}: {error}"
        yield {name: [bool(seen), str(saw)]}


def _hostname(wanted):
    return os.uname().nodename == wanted, os.uname().nodename


def _root_mode(directory):
    """A directory that everybody may write to: only the mount can refuse."""
    path = os.path.join(directory, "made")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    except OSError as error:
        read_only = bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
        return read_only, f"{error.strerror}, read-only: {read_only}"
    return False, "a file was made"


def _tmpfs(wanted):
    found = os.statvfs(wanted["target"])
    size = found.f_frsize * found.f_blocks
    other = os.stat(wanted["target"]).st_dev != os.stat("/").st_dev
    return other and size == wanted["size"], f"{size} bytes, own device: {other}"


def _bind(wanted):
    with open(os.path.join(wanted["target"], "word")) as file:
        word = file.read()
    with open(os.path.join(wanted["target"], "written"), "w") as file:
        file.write(word)
    return word == wanted["word"], word


def _bind_read_only(wanted):
    with open(os.path.join(wanted["target"], "word")) as file:
        word = file.read()
    try:
        os.close(os.open(os.path.join(wanted["target"], "made"), os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        flag = bool(os.statvfs(wanted["target"]).f_flag & os.ST_RDONLY)
        return word == wanted["word"] and flag, f"{word}, {error.strerror}"
    return False, "a file was made"


def _net(_):
    names = [name for _, name in socket.if_nameindex()]
    return names == ["lo"], names


def _rlimits(wanted):
    found = resource.getrlimit(getattr(resource, "RLIMIT_" + wanted["name"].upper()))
    return list(found) == [wanted["soft"], wanted["hard"]], found


def _cap_drop(number):
    held = ctypes.CDLL(None).prctl(23, ctypes.c_ulong(number), 0, 0, 0)
    return held == 0, f"PR_CAPBSET_READ({number}) is {held}"


def _user(wanted):
    found = [*os.getresuid(), *os.getresgid()]
    return found == [wanted[0]] * 3 + [wanted[1]] * 3, found


def _groups(wanted):
    found = sorted(os.getgroups())
    return set(wanted) <= set(found), found


def _workdir(wanted):
    return os.getcwd() == wanted, os.getcwd()


def _env(wanted):
    found = os.environ.get(wanted[0])
    return found == wanted[1], found


def _cpus(wanted):
    """The share of a cpu that a loop of 0.4 s gets."""
    began, cpu = time.monotonic(), time.process_time()
    while time.monotonic() < began + 0.4:
        pass
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    return share < wanted + 0.3, f"{share:.2f} of a cpu"


def _pids(most):
    """Processes until there are no more, and 32 over the limit at most."""
    gate = os.pipe()
    children = []
    stopped = False
    for _ in range(most + 32):
        try:
            pid = os.fork()
        except BlockingIOError:
            stopped = True
            break
        if pid == 0:
            os.close(gate[1])
            os.read(gate[0], 1)
            os._exit(0)
        children.append(pid)
    os.close(gate[0])
    os.close(gate[1])
    for pid in children:
        os.waitpid(pid, 0)
    return stopped, f"stopped after {len(children)}: {stopped}"


def _memory(limit):
    """A child that touches twice the limit must not come to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            size = 2 * limit
            with mmap.mmap(-1, size) as area:
                for offset in range(0, size, mmap.PAGESIZE):
                    area[offset] = 1
        except MemoryError:
            os._exit(3)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    stopped = status == signal.SIGKILL or os.waitstatus_to_exitcode(status) == 3
    return stopped, f"wait status {status:#x}"


_LOOKS = {
    "hostname": _hostname,
    "root_mode": _root_mode,
    "tmpfs": _tmpfs,
    "bind": _bind,
    "bind-read-only": _bind_read_only,
    "net": _net,
    "rlimits": _rlimits,
    "cap_drop": _cap_drop,
    "user": _user,
    "groups": _groups,
    "workdir": _workdir,
    "env": _env,
    "cpus": _cpus,
    "pids": _pids,
    "memory": _memory,
}
