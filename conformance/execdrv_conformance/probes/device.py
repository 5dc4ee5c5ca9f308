"""Device nodes: which there are, what they do, and which others can be made or opened."""

import errno
import os
import stat


def list_nodes():
    """Everything in /dev with its type: nodes by their numbers, links by where they lead."""
    found = {}
    for directory, names, files in os.walk("/dev"):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            found[path] = _describe(path)
        if len(found) > 1000:
            break
    return {"entries": found}


def _describe(path):
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return "link"
    if stat.S_ISDIR(info.st_mode):
        return "directory"
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
        return f"{kind} {os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    return "file"


def use_nodes(size):
    """What reading and writing the six usual nodes does, or the errno."""
    facts = {name: _try(use, size) for name, use in _USES.items()}
    facts["tty"] = _error_of(_open_and_close, "/dev/tty")
    return facts


def _try(use, size):
    try:
        return use(size)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def _use_null(size):
    with open("/dev/null", "r+b", buffering=0) as file:
        return [len(file.read(size)), file.write(b"x" * size)]


def _use_zero(size):
    with open("/dev/zero", "r+b", buffering=0) as file:
        return [file.read(size) == bytes(size), file.write(b"x" * size)]


def _use_full(size):
    with open("/dev/full", "r+b", buffering=0) as file:
        return [file.read(size) == bytes(size), _error_of(file.write, b"x")]


def _use_random(name, size):
    with open(f"/dev/{name}", "rb", buffering=0) as file:
        first, second = file.read(size), file.read(size)
    return [len(first), len(second), first != second, len(set(first + second)) > 16]


_USES = {
    "null": _use_null,
    "zero": _use_zero,
    "full": _use_full,
    "random": lambda size: _use_random("random", size),
    "urandom": lambda size: _use_random("urandom", size),
}


def _open_and_close(path):
    os.close(os.open(path, os.O_RDWR | os.O_NOCTTY))


def _error_of(function, *arguments):
    """0, or the errno of a call."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def open_devices(paths, numbers, places, name):
    """Which devices open by name, and which by a node made in some place.

    What opens is held open by a child, for the observer, who ends it. Nothing is read or written.

    Args:
        numbers: lists of a name, `c` or `b`, major and minor.
    """
    held, opened, made, errors = [], [], [], {}
    for path in paths:
        error = _hold(path, held)
        if error:
            errors[path] = errno.errorcode.get(error, str(error))
        else:
            opened.append(path)
    for place in places:
        for what, kind, major, minor in numbers:
            path = f"{place}/{name}"
            mode = 0o666 | (stat.S_IFBLK if kind == "b" else stat.S_IFCHR)
            error = _error_of(os.mknod, path, mode, os.makedev(major, minor))
            if not error:
                made.append(f"{what} in {place}")
                error = _hold(path, held)
                os.unlink(path)
            if error:
                errors[f"{what} in {place}"] = errno.errorcode.get(error, str(error))
            else:
                opened.append(f"{what} in {place}")
    if held:
        _keep(held)
    return {"opened": opened, "made": made, "errors": errors}


def _hold(path, held):
    """0 and one descriptor more, or the errno of the last try."""
    error = 0
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        try:
            held.append(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))
        except OSError as problem:
            error = problem.errno or -1
        else:
            return 0
    return error


def _keep(held):
    """A child that holds the descriptors, while this process closes them."""
    if os.fork() == 0:
        try:
            # The agent's streams end with the agent.
            null = os.open("/dev/null", os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            import time

            time.sleep(30)
        finally:
            os._exit(0)
    for fd in held:
        os.close(fd)
