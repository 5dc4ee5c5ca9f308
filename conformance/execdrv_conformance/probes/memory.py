"""Takes memory of each kind, in children that the kernel may end: up to a limit, and over it.

Each size is bounded by who asks; whatever is left held is given back by `drop`.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import select
import shutil
import socket
import time

#: statfs(2)
TMPFS_MAGIC = 0x01021994
F_SETPIPE_SZ = 1031

#: What stays taken between two calls: descriptors, and directories.
_held = []
_directories = []


def touch(sizes):
    """A child for each size: raw wait statuses, 0 where the size was there to be touched."""
    return {"statuses": [_in_child(lambda size=size: _touch(size)) for size in sizes]}


def touch_itself(size):
    """This process touches memory: it says nothing if it is ended."""
    _touch(size)
    return {"touched": size}


def touch_and_keep(size):
    """This process touches memory and gives it back: how much."""
    area = _touch(size)
    area.close()
    return {"touched": size}


def touch_together(small, large, count):
    """Children that each hold a part at one time, a small one and a large one: how it went."""
    return {"small": _share(small, count), "large": _share(large, count)}


def _share(size, count):
    """How many held their part when each one had it or was ended, and how many were ended."""
    told, tell = os.pipe()
    held, hold = os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(told)
                os.close(hold)
                _be_first_to_go()
                area = _touch(size)
                os.write(tell, b"+")
                os.read(held, 1)
                area.close()
                os._exit(0)
            finally:
                os._exit(3)
        pids.append(pid)
    os.close(tell)
    os.close(held)
    # End of file on `told` where all were ended.
    fitted, deadline = 0, time.monotonic() + 5
    while time.monotonic() < deadline and fitted < count - len(_ended(pids)):
        if select.select([told], [], [], 0.01)[0]:
            words = os.read(told, count)
            if not words:
                break
            fitted += len(words)
    alive = count - len(_ended(pids))
    os.close(hold)
    os.close(told)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    killed = sum(1 for status in statuses if status & 0x7F == 9)
    return {"together": alive, "killed": killed}


def _ended(pids):
    """Those of its children that are zombies."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return [pid for pid in pids if os.waitid(os.P_PID, pid, flags) is not None]


def fill_files(directories, under, over, hold):
    """Files in memory: up to the limit and over it at each place, then a small one is held."""
    places = ["memfd", *(one for one in directories if _is_tmpfs(one))]
    found = {}
    for place in places:
        small = _in_child(lambda place=place: _write_zeros(_open(place), under))
        large = _in_child(lambda place=place: _write_zeros(_open(place), over))
        found[place] = [small, large]
    for place in places:
        fd = _open(place)
        _held.append(fd)
        _write_zeros(fd, hold)
    return {"places": found, "held": hold * len(places)}


def fill_kernel(under, over, hold):
    """Full pipes and sockets: up to the limit and over it, then some are held."""
    small = _in_child(lambda: _fill_lines(under))
    large = _in_child(lambda: _fill_lines(over))
    _held.extend(_fill_lines(hold))
    return {"under": small, "over": large, "held": hold}


def name_files(directories, count):
    """Empty files, held: how many."""
    for directory in directories:
        path = os.path.join(directory, f"names-{os.getpid()}")
        try:
            os.mkdir(path)
        except OSError:
            continue
        _directories.append(path)
        for number in range(count):
            os.close(os.open(f"{path}/{number:05d}", os.O_WRONLY | os.O_CREAT, 0o600))
        return {"named": count}
    return {"named": 0}


def drop():
    """Give back what is held."""
    while _held:
        os.close(_held.pop())
    while _directories:
        shutil.rmtree(_directories.pop())


def lose_child(size):
    """A child goes over the limit beside one that sleeps: status of the first, the other's life."""
    sleeper = os.fork()
    if sleeper == 0:
        time.sleep(20)
        os._exit(0)
    status = _in_child(lambda: _touch(size))
    lives = os.waitpid(sleeper, os.WNOHANG) == (0, 0)
    if lives:
        os.kill(sleeper, 9)
        os.waitpid(sleeper, 0)
    return {"status": status, "lives": lives}


def _in_child(act):
    """Raw wait status of a child that does something: 0; 3 << 8 if it failed."""
    pid = os.fork()
    if pid == 0:
        try:
            _be_first_to_go()
            act()
            os._exit(0)
        finally:
            os._exit(3)
    return os.waitpid(pid, 0)[1]


def _be_first_to_go():
    """The kernel, which must end one, takes this one and not the agent."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass


def _touch(size):
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, size, mmap.PAGESIZE):
        area[offset] = 1
    return area


def _is_tmpfs(directory):
    buffer = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None)
    return libc.statfs(os.fsencode(directory), buffer) == 0 and buffer[0] == TMPFS_MAGIC


def _open(place):
    if place == "memfd":
        return os.memfd_create("held")
    path = os.path.join(place, f"held-{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    return fd


def _write_zeros(fd, size):
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        os.write(fd, block)


def _fill_lines(size):
    """Pipes, a quarter of it, and socket pairs, full to the brim: their descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fds, filled = [], 0
    while filled < size:
        if filled < size // 4:
            near, far = os.pipe()
            # A user may have so many pages of pipes (pipe(7)); the small ones do as well.
            with contextlib.suppress(OSError):
                fcntl.fcntl(far, F_SETPIPE_SZ, 1 << 20)
        else:
            one, other = socket.socketpair()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200 << 10)
            far, near = one.detach(), other.detach()
        fds += [near, far]
        os.set_blocking(far, False)
        try:
            while True:
                filled += os.write(far, bytes(16 << 10))
        except BlockingIOError:
            continue
    return fds
