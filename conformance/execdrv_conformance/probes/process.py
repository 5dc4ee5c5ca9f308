"""The process itself: numbers, words, environment, descriptors, signals, ends."""

import os


def leave_sleepers(count):
    """Children that sleep, and outlive this process if nobody ends them."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                # The socket of the agent must close with the agent.
                null = os.open("/dev/null", os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                import time

                time.sleep(600)
            finally:
                os._exit(0)
        pids.append(pid)
    return {"sleepers": pids}


def list_variables(names):
    """The environment in hex, as NAME=VALUE; of what is not among `names`, in hex too, the name
    alone: it may be a secret of somebody's. What the interpreter itself has added is left out.
    """
    # PEP 538: in the locale C, Python sets this before anybody can look.
    own = (b"LC_CTYPE", (b"C.UTF-8", b"C.utf8", b"UTF-8"))
    words = []
    for name, value in os.environb.items():
        if name == own[0] and value in own[1]:
            continue
        words.append(name + b"=" + (value if name.hex() in names else b""))
    return {"variables": sorted(word.hex() for word in words)}


def list_descriptors(most):
    """Every number that is open, with device and inode of what it leads to."""
    found = {}
    for number in range(most):
        try:
            stat = os.fstat(number)
        except OSError:
            continue
        found[str(number)] = [stat.st_dev, stat.st_ino]
    return {"descriptors": found}


def describe_directory(path):
    """The working directory, and whether it is the one at `path`."""
    here, there = os.stat("."), os.stat(path)
    same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
    return {"directory": os.getcwd(), "same": same}


def make_with_umask(directory):
    """A file and a directory made with every bit asked for: the bits they have got."""
    file, folder = os.path.join(directory, "file"), os.path.join(directory, "folder")
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    os.mkdir(folder, 0o777)
    return {"file": os.stat(file).st_mode & 0o777, "folder": os.stat(folder).st_mode & 0o777}


def log_signals(numbers):
    """A handler for each number; says each signal as it comes, then what else has come."""
    import select
    import signal

    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    os.set_blocking(read_end, False)
    # The interpreter's handler writes the number of each signal there, in the order they come.
    signal.set_wakeup_fd(write_end)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    yield {"ready": True}
    for position in range(len(numbers)):
        select.select([read_end], [], [], 3.0)
        try:
            got = os.read(read_end, 1)
        except BlockingIOError:
            got = b"\0"
        yield {f"signal-{position}": got[0]}
    select.select([read_end], [], [], 0.02)
    try:
        more = os.read(read_end, 64)
    except BlockingIOError:
        more = b""
    signal.set_wakeup_fd(-1)
    yield {"more": list(more)}


def leave_orphans(parents, each):
    """Orphans that all end at once: how many there were, and how many numbers still take signal 0.

    A process that nobody waits for keeps its number, and takes signals, as a zombie.
    """
    import struct
    import time

    report, gate = os.pipe(), os.pipe()
    for _ in range(parents):
        middle = os.fork()
        if middle:
            continue
        try:
            os.close(gate[1])
            for _ in range(each):
                if os.fork() == 0:
                    os.write(report[1], struct.pack("i", os.getpid()))
                    # The end of file is the sign to end: the parent has gone by then.
                    os.read(gate[0], 1)
                    os._exit(0)
        finally:
            os._exit(0)
    for _ in range(parents):
        os.wait()
    pids = []
    while len(pids) < parents * each:
        pids += [pid for (pid,) in struct.iter_unpack("i", os.read(report[0], 4))]
    for number in (*report, *gate):
        os.close(number)
    deadline = time.monotonic() + 2.0
    left = pids
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = [pid for pid in left if _is_there(pid)]
    return {"orphans": len(pids), "left": len(left)}


def _is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def lower_oom_score(value):
    """Try a lower oom_score_adj; the observer sees what came of it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(value))
    except OSError as error:
        return {"error": error.strerror}
    return {"error": ""}
