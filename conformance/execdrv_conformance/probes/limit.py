"""Limits on tasks, cpu time, disks, and a process's resources: up to each, and over it."""

import contextlib
import errno
import os
import resource
import signal
import threading
import time


def fork_until_refused(most):
    """Children that wait, until a fork is refused or `most` are there; then all are ended."""
    read_end, write_end = os.pipe()
    children = []
    error = ""
    try:
        while len(children) < most:
            try:
                pid = os.fork()
            except OSError as problem:
                error = errno.errorcode.get(problem.errno or 0, str(problem.errno))
                break
            if pid == 0:
                os.close(write_end)
                os.read(read_end, 1)
                os._exit(0)
            children.append(pid)
    finally:
        # End of file wakes all of them.
        os.close(write_end)
        for pid in children:
            os.waitpid(pid, 0)
        os.close(read_end)
    return {"forked": len(children), "error": error}


def thread_until_refused(most):
    """Threads that wait, until one is refused or `most` are there; then all are ended."""
    threading.stack_size(64 << 10)
    go = threading.Event()
    threads = []
    refused = False
    while len(threads) < most:
        one = threading.Thread(target=go.wait)
        try:
            one.start()
        except RuntimeError:
            refused = True
            break
        threads.append(one)
    go.set()
    for one in threads:
        one.join()
    threading.stack_size(0)
    return {"threads": len(threads), "refused": refused}


def bomb(children, each, lives_s):
    """`children` processes that make `each` more, all at once; every one lives for a while."""
    read_end, write_end = os.pipe()
    refused = made = 0
    pids = []
    for _ in range(children):
        try:
            pid = os.fork()
        except OSError:
            refused += 1
            continue
        if pid == 0:
            _multiply(each, write_end, lives_s)
        made += 1
        pids.append(pid)
    os.close(write_end)
    words = b""
    while data := os.read(read_end, 65536):
        words += data
    os.close(read_end)
    for pid in pids:
        os.waitpid(pid, 0)
    made += words.count(b"+")
    return {"made": made, "refused": refused + words.count(b"-")}


def _multiply(count, write_end, lives_s):
    pids = []
    for _ in range(count):
        try:
            pid = os.fork()
        except OSError:
            os.write(write_end, b"-")
            continue
        if pid == 0:
            time.sleep(lives_s)
            os._exit(0)
        os.write(write_end, b"+")
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    if not pids:
        time.sleep(lives_s)
    os._exit(0)


def spin(wall_s):
    """Work for a time: the cpu time it got."""
    return _spin(wall_s)


def spin_aloud(cpu_s, wall_s):
    """Use up cpu time, at most for a while, and say again and again how much it is by now."""
    begun, before_s = time.monotonic(), time.process_time()
    done = False
    while not done:
        _spin(cpu_s / 8)
        spent_s = time.process_time() - before_s
        done = spent_s >= cpu_s or time.monotonic() - begun >= wall_s
        yield {"cpu_s": spent_s, "done": done}


def _spin(wall_s):
    begun, cpu = time.monotonic(), time.process_time()
    while time.monotonic() - begun < wall_s:
        pass
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.monotonic() - begun}


def spin_together(wall_s, processes):
    """Work in processes, each with a second thread: the cpu time of all of them."""
    begun = time.monotonic()
    before = os.times()
    pids = []
    for _ in range(processes):
        pid = os.fork()
        if pid == 0:
            other = threading.Thread(target=_spin, args=(wall_s,))
            other.start()
            _spin(wall_s)
            other.join()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    after = os.times()
    cpu_s = sum(
        getattr(after, name) - getattr(before, name)
        for name in ("children_user", "children_system")
    )
    return {"cpu_s": cpu_s, "wall_s": time.monotonic() - begun}


def contend(cpu, wall_s):
    """Work on one cpu for a time, beside somebody else."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        return _spin(wall_s)
    finally:
        os.sched_setaffinity(0, own)


def widen_cpus(cpus):
    """Ask for every cpu: those it may run on then."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, set(cpus))
    return {"cpus": sorted(os.sched_getaffinity(0))}


def write_blocks(directories, size, count):
    """Write `count` blocks to a file, each down to the disk: how fast.

    The file is in the first of the directories that takes one.
    """
    fd = -1
    for directory in directories:
        path = os.path.join(directory, f"blocks-{os.getpid()}")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            break
        except OSError:
            continue
    block = os.urandom(size)
    begun = time.monotonic()
    try:
        for number in range(count):
            os.pwrite(fd, block, number * size)
            os.fdatasync(fd)
    finally:
        os.close(fd)
        os.unlink(path)
    took_s = time.monotonic() - begun
    return {"bytes_per_s": size * count / took_s, "ops_per_s": count / took_s}


def read_limits(names):
    """Soft and hard limit by name; unlimited is -1."""
    return {
        "limits": {
            name: list(resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper())))
            for name in names
        }
    }


def raise_limits(names):
    """Try to raise each hard limit by one, and to lift it: those where it worked."""
    raised = []
    for name in names:
        number = getattr(resource, "RLIMIT_" + name.upper())
        soft, hard = resource.getrlimit(number)
        for wanted in (hard + 1, resource.RLIM_INFINITY):
            if hard == resource.RLIM_INFINITY:
                break
            try:
                resource.setrlimit(number, (soft, wanted))
            except (OSError, ValueError):
                continue
            raised.append(name)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(number, (soft, hard))
    return {"raised": raised, **read_limits(names)}


def provoke_limits(directory, most_fds, file_bytes, most_processes, argument_bytes):
    """Go up to and over each limit: what stopped it, and what did not."""
    found = {"fds": _open_many(most_fds)}
    under, over = os.path.join(directory, "under"), os.path.join(directory, "over")
    found["under"] = _in_child(lambda: _write_file(under, file_bytes // 2))
    found["over"] = _in_child(lambda: _write_file(over, file_bytes * 2))
    found["forked"] = fork_until_refused(most_processes)["forked"]
    found["arguments"] = _in_child(lambda: _execute(argument_bytes))
    found["few_arguments"] = _in_child(lambda: _execute(1000))
    os.chdir(directory)
    status = _in_child(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    found["crash"] = status
    found["core"] = sorted(name for name in os.listdir(".") if name.startswith("core"))
    for name in found["core"]:
        os.unlink(name)
    os.chdir("/")
    return found


def _open_many(most):
    """The highest number of a descriptor that it got."""
    fds = []
    try:
        while len(fds) < most:
            fds.append(os.open("/", os.O_RDONLY))
    except OSError:
        pass
    for fd in fds:
        os.close(fd)
    return max(fds, default=0)


def _in_child(act):
    """Raw wait status of a child that does something and exits with 0, or with 3 if it failed."""
    pid = os.fork()
    if pid == 0:
        try:
            # Python ignores it, and would tell an error in its place.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            act()
            os._exit(0)
        except BaseException:
            os._exit(3)
    return os.waitpid(pid, 0)[1]


def _write_file(path, size):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    os.unlink(path)
    block = b"x" * 65536
    for _ in range(size // len(block)):
        os.write(fd, block)


def _execute(size):
    words = ["a" * 1000] * (size // 1000)
    os.execv("/bin/true", ["/bin/true", *words])
