"""What the root file system shows of the kernel: /proc, knobs, tables of mounts."""

import ctypes
import errno
import os
import stat

_PROC_MAGIC = 0x9FA0


def _processes():
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


class _Statfs(ctypes.Structure):
    """struct statfs of 64-bit machines, as far as its first field (statfs(2))."""

    _fields_ = [("type", ctypes.c_long), ("rest", ctypes.c_char * 248)]


def _type_of(path):
    found = _Statfs()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(path), ctypes.byref(found)) != 0:
        return 0
    return found.type


def list_proc(name):
    """What /proc is, whom it lists, and who of them carries a name."""
    listed = _processes()
    named = []
    for process in listed:
        try:
            with open(f"/proc/{process}/cmdline", "rb") as file:
                words = file.read()
        except OSError:
            continue
        if name.encode() in words and int(process) != os.getpid():
            named.append(int(process))
    try:
        own = os.readlink("/proc/self")
    except OSError:
        own = ""
    return {
        "procfs": _type_of("/proc") == _PROC_MAGIC,
        "listed": [int(process) for process in listed],
        "named": named,
        "self": own,
        "pid": os.getpid(),
    }


def open_kernel_files(paths):
    """Which files of the kernel give something to read, or open for writing; none is written."""
    read, write, errors = [], [], {}
    for path in paths:
        try:
            if os.path.isdir(path):
                if os.listdir(path):
                    read.append(path)
                continue
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            errors[path] = error.errno
        else:
            # To read from kmsg takes away; that it opens is enough.
            opens = not _is_inert(fd) if path.endswith("/kmsg") else _reads(fd)
            if opens:
                read.append(path)
            os.close(fd)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        if not _is_inert(fd):
            write.append(path)
        os.close(fd)
    return {"read": read, "write": write, "errors": errors}


def _is_inert(fd):
    """/dev/null or an empty regular file on a file system of its own, as masks are made of."""
    found = os.fstat(fd)
    if stat.S_ISCHR(found.st_mode):
        return found.st_rdev == os.makedev(1, 3)
    return _type_of(f"/proc/self/fd/{fd}") != _PROC_MAGIC and found.st_size == 0


def _reads(fd):
    try:
        return bool(os.read(fd, 8))
    except OSError as error:
        # What can't be read in this size opened all the same.
        return error.errno in (errno.EINVAL, errno.EAGAIN)


def open_knobs(paths, tops, most):
    """Which knobs open for writing, and how many files below some directories may be written."""
    opened, errors = [], {}
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            errors[path] = error.errno
        else:
            opened.append(path)
    writable, looked = [], 0
    for top in tops:
        for directory, _, files in os.walk(top):
            for file in files:
                path = os.path.join(directory, file)
                looked += 1
                if os.access(path, os.W_OK, effective_ids=True):
                    writable.append(path)
            if looked > most:
                break
    return {"opened": opened, "errors": errors, "writable": writable[:5], "looked": looked}


def search_mounts(words):
    """Lines of every table of mounts that the job can read in which a word stands, by word."""
    tables = ["self/mountinfo", "self/mounts", "self/mountstats", "thread-self/mountinfo"]
    tables += [f"{process}/mountinfo" for process in _processes()]
    readable, found = [], {word: [] for word in words}
    for table in tables:
        try:
            with open(f"/proc/{table}", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        readable.append(table)
        for word in words:
            found[word] += [f"{table}: {line}"[:300] for line in lines if word in line]
    return {"readable": readable, "found": {word: lines[:3] for word, lines in found.items()}}
