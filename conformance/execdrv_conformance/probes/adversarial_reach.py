"""What of the machine may lie open in a container: directories, programs, mounts, our state.

What is reached is kept open, so that the observer sees it too. Of the machine nothing is changed,
but for a marker that is left beside the canary.
"""

import contextlib
import errno
import os
import socket
import stat

#: Descriptors and connections that stay until the end, for the observer.
HELD = []


def _name(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def _place(found):
    return [found.st_dev, found.st_ino]


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


# --- descriptors and working directories -------------------------------------------------------


def climb_descriptors(canary, most):
    """From each open directory upwards; where the canary is found, a marker is left beside it."""
    opened, reached = [], []
    for fd in sorted({*range(most), *_listed_fds()}):
        try:
            found = os.fstat(fd)
        except OSError:
            continue
        opened.append(fd)
        if stat.S_ISDIR(found.st_mode):
            reached += [f"descriptor {fd}, {how}" for how in _climb(fd, **canary)]
    for pid in _pids():
        for name in ("cwd", "root"):
            path = f"/proc/{pid}/{name}"
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                reached += [f"{path}, {how}" for how in _climb(fd, **canary)]
                os.close(fd)
    return {"opened": opened, "reached": reached}


def climb_here(canary):
    """The same from the working directory alone."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    reached = _climb(fd, **canary)
    os.close(fd)
    try:
        here = os.getcwd()
    except OSError as error:
        here = _name(error)
    return {"reached": reached, "cwd": here}


def _listed_fds():
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return []


def _climb(fd, directory, secret, marker):
    """Ways in which the canary is found from a directory upwards; a marker is left beside it.

    Args:
        directory: where the canary lies on the machine.
        secret: device and inode of the file `secret` in it.
    """
    for level in range(24):
        up = "../" * level + "."
        for place in (up, up + directory):
            with contextlib.suppress(OSError):
                if _place(os.stat(f"{place}/secret", dir_fd=fd)) == secret:
                    path = f"{place}/{marker}"
                    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o666, dir_fd=fd))
                    return [f"{level} up"]
    return []


# --- programs ----------------------------------------------------------------------------------


def hold_programs(programs):
    """Open each program of the machine that a process here runs from, to read and to write."""
    seen, held, writable = 0, [], []
    paths = [f"/proc/{pid}/exe" for pid in [*_pids(), "self", "thread-self"]]
    paths += [f"/proc/self/fd/{number}" for number in _listed_fds()]
    for path in paths:
        try:
            place = _place(os.stat(path))
        except OSError:
            continue
        seen += 1
        if place not in programs:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDONLY)
            HELD.append(fd)
            held.append(fd)
        try:
            HELD.append(os.open(path, os.O_WRONLY))
            writable.append(path)
        except OSError as error:
            # A program that runs: once it has ended, the same open succeeds.
            if error.errno == errno.ETXTBSY:
                writable.append(f"{path} (busy)")
    return {"seen": seen, "held": held, "writable": writable}


def reopen_programs(held):
    """Open for writing what was opened for reading; nothing is written."""
    writable = []
    for fd in held:
        with contextlib.suppress(OSError):
            HELD.append(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY))
            writable.append(fd)
    return {"reopened": writable}


# --- the state of execdrv ----------------------------------------------------------------------


def find_state(paths, places, most):
    """Open files of a state directory for writing, and connect to its sockets.

    Args:
        paths: where they are on the machine.
        places: device and inode of each.
        most: entries of this root that are looked at.
    """
    known = {tuple(place) for place in places}
    reached, looked = [], 0
    tops = ["", *(f"/proc/{pid}/{name}" for pid in _pids() for name in ("root", "cwd"))]
    for path in [top + path for top in tops for path in paths]:
        reached += _take(path, known)
    for number in _listed_fds():
        with contextlib.suppress(OSError):
            if tuple(_place(os.fstat(number))) in known and number not in HELD:
                reached.append(f"descriptor {number}")
    for directory, names, files in os.walk("/"):
        if directory == "/":
            names[:] = [name for name in names if name not in ("proc", "sys")]
        looked += len(files)
        for name in (*names, *files):
            reached += _take(os.path.join(directory, name), known)
        if looked > most:
            break
    return {"reached": sorted(set(reached)), "looked": looked}


def _take(path, known):
    """Have a file of the state directory open for writing, or its socket connected."""
    try:
        found = os.lstat(path)
        if tuple(_place(found)) not in known:
            return []
        if stat.S_ISSOCK(found.st_mode):
            HELD.append(_connect(path))
        else:
            how = os.O_RDONLY if stat.S_ISDIR(found.st_mode) else os.O_WRONLY | os.O_NONBLOCK
            HELD.append(os.open(path, how))
    except OSError:
        return []
    return [path]


def _connect(path):
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        channel = socket.socket(socket.AF_UNIX, kind)
        channel.settimeout(1)
        try:
            channel.connect(path)
        except OSError as error:
            channel.close()
            if error.errno != errno.EPROTOTYPE:
                raise
        else:
            return channel
    raise OSError(errno.EPROTOTYPE, "no type of socket fits")


# --- mounts ------------------------------------------------------------------------------------


def find_bound(token, canary):
    """Mounts at whose top a file named `token` lies, and those of them beside the canary."""
    targets, astray = [], []
    for _, target in _mounts():
        target = target.replace("\\040", " ")
        if os.path.exists(os.path.join(target, token)):
            targets.append(target)
            with contextlib.suppress(OSError):
                if _place(os.stat(os.path.dirname(target))) == canary:
                    astray.append(target)
    return {"targets": targets, "astray": astray}
