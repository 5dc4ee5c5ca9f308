"""Mounts: which are the job's own, what it sees of others, and what it can change of them."""

import ctypes
import json
import os
import stat

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_MOVE, _MS_REC = 1, 32, 4096, 8192, 16384
_MNT_DETACH = 2
_NEWNS, _NEWUSER, _NEWPID = 0x00020000, 0x10000000, 0x20000000
_AT_FDCWD = -100
#: statx(2): the mount's number, and where it stands in the answer.
_STATX_MNT_ID, _MNT_ID_OFFSET = 0x1000, 144
_MOUNT_SETATTR = 442
#: MOUNT_ATTR_RDONLY, NOSUID, NODEV, NOEXEC; the bits of statvfs(3) are the same.
_FLAGS = 1 | 2 | 4 | 8
_TMPFS_MAGIC = 0x01021994


def _libc():
    return ctypes.CDLL(None, use_errno=True)


def _word(text):
    return None if text is None else os.fsencode(text)


def _mount(source, target, kind, flags, data=None):
    """0, or the errno of mount(2)."""
    libc = _libc()
    words = [_word(source), _word(target), _word(kind), ctypes.c_ulong(flags), _word(data)]
    return 0 if libc.mount(*words) == 0 else ctypes.get_errno()


def _umount(target, flags=0):
    """0, or the errno of umount2(2)."""
    return 0 if _libc().umount2(_word(target), flags) == 0 else ctypes.get_errno()


def _unshare(flags):
    """0, or the errno of unshare(2)."""
    return 0 if _libc().unshare(flags) == 0 else ctypes.get_errno()


def _mount_id(path):
    """The number of the mount that a path leads to; 0 if there is no such path."""
    answer = ctypes.create_string_buffer(256)
    if _libc().statx(_AT_FDCWD, _word(path), 0, _STATX_MNT_ID, answer) != 0:
        return 0
    return int.from_bytes(answer.raw[_MNT_ID_OFFSET : _MNT_ID_OFFSET + 8], "little")


def _fork(function, *arguments):
    """What a function says in a child of its own, whose namespaces may change."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                answer = function(*arguments)
            except Exception as problem:
                answer = {"failed": f"{type(problem).__name__}: {problem}"}
            os.write(writer, json.dumps(answer).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = json.loads(pipe.read() or b'{"failed": "the child ended"}')
    os.waitpid(pid, 0)
    return answer


def _table():
    """The lines of mountinfo, as words; empty where there is none."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            return [line.split(" ") for line in file.read().splitlines()]
    except OSError:
        return []


def _unescape(word):
    for code, letter in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        word = word.replace("\\" + code, letter)
    return word


# --- mnt.ns, mnt.prop-out, mnt.prop-in, mnt.no-old-root ----------------------------------------


def describe_namespace():
    """The namespace's link, and the number of the mount at /."""
    try:
        link = os.readlink("/proc/self/ns/mnt")
    except OSError:
        link = ""
    return {"link": link, "mount": _mount_id("/")}


def mount_tmpfs(places, source):
    """Mount a tmpfs in each place that there is, and say on whose mount it stands."""
    made, errors, below = [], {}, {}
    for place in places:
        if not os.path.isdir(place):
            continue
        below[place] = _mount_id(place)
        error = _mount(source, place, "tmpfs", 0, "size=64k")
        if error:
            errors[place] = os.strerror(error)
        else:
            made.append(place)
    shared = [word for line in _table() for word in line if word.startswith("shared:")]
    return {"made": made, "errors": errors, "below": below, "shared": sorted(set(shared))}


def find_name(places, name):
    """The places in which there is a file of that name."""
    return {"found": [place for place in places if os.path.lexists(f"{place}/{name}")]}


def find_old_root(root, device):
    """The machine's root on every mount point, and as the namespace's own root.

    Args:
        root: its device and inode.
        device: the same device, as mountinfo has it.
    """
    found = []
    for line in _table():
        target = _unescape(line[4])
        if (line[2] == device and line[3] == "/") or _identity(target) == root:
            found.append(target)
    entered = _fork(_enter_own)
    if entered.get("root") == root:
        found.append("the namespace's own root")
    return {"found": found, "mounts": len(_table()), "entered": entered}


def _identity(path):
    try:
        info = os.stat(path)
    except OSError:
        return []
    return [info.st_dev, info.st_ino]


def _enter_own():
    """To enter a mount namespace, one's own too, leads to its root."""
    fd = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    if _libc().setns(fd, _NEWNS) != 0:
        return {"refused": os.strerror(ctypes.get_errno())}
    return {"root": _identity("/")}


# --- mnt.bind, mnt.bind-ro, mnt.bind-ro-rec, mnt.bind-flags, mnt.order, mnt.tmpfs --------------


def find_names(name, most):
    """Paths of all files of that name, of at most so many entries."""
    waiting, walked, found = ["/"], 0, []
    while waiting and walked < most:
        directory = waiting.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            walked += 1
            if entry.name == name:
                found.append(entry.path)
            if entry.is_dir(follow_symlinks=False) and entry.path not in ("/proc", "/sys"):
                waiting.append(entry.path)
    return {"paths": sorted(found), "walked": walked}


def read_word(path):
    """What a small file says."""
    try:
        with open(path) as file:
            return {"word": file.read(256)}
    except OSError as error:
        return {"word": "", "error": error.strerror}


def write_through(directory, place, name):
    """The errno of changing `data` and its directory by every path to them; -1: nothing there."""
    errors = {}
    fd = link = ""
    try:
        number = os.open(f"{directory}/data", os.O_RDONLY)
    except OSError:
        return {"errors": {"data": -1}}
    fd = f"/proc/self/fd/{number}"
    link = f"{place}/{name}"
    os.symlink(directory, link)
    paths = {
        "path": f"{directory}/data",
        "symbolic link": f"{link}/data",
        "root link": f"/proc/self/root{directory}/data",
        "parent": f"{directory}/../{os.path.basename(directory)}/data",
        "descriptor": fd,
    }
    for what, path in paths.items():
        errors[what] = _error_of(_append, path, name)
    here = os.open(".", os.O_PATH)
    os.chdir(directory)
    errors["directory"] = _error_of(_append, "data", name)
    os.fchdir(here)
    os.close(here)
    acts = {
        "create": lambda: os.close(os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT)),
        "chmod": lambda: os.chmod(f"{directory}/data", 0o640),
        "rename": lambda: os.rename(f"{directory}/data", f"{directory}/data-{name}"),
    }
    for what, act in acts.items():
        errors[what] = _error_of(act)
    os.unlink(link)
    os.close(number)
    # By a descriptor there is no way where there is no /proc.
    return {"errors": {what: error for what, error in errors.items() if error != 2}}


def _append(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, text.encode())
    os.close(fd)


def _error_of(function, *arguments):
    """0, or the errno of a call."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


def use_flags(directory, program, uid):
    """What a setuid program, a device node and a program without more rights do on a bind."""
    facts = {"suid": _run(f"{directory}/id", ["-u"], uid), "run": _run(program, ["said"], None)}
    facts["flags"] = [_flags_of(directory), _flags_of(program)]
    try:
        os.close(os.open(f"{directory}/null", os.O_RDWR))
        facts["device"] = "opens"
    except OSError as error:
        facts["device"] = error.strerror
    return facts


def _run(program, words, uid):
    """What it says, or why it does not run."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(writer, 1)
            if uid is not None:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.execv(program, [program, *words])
        except OSError as error:
            os.write(writer, f"refused: {error.strerror}".encode())
        finally:
            os._exit(127)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode().strip()
    os.waitpid(pid, 0)
    return said


def identify(targets):
    """Device and inode at each target, and whether it is a tmpfs."""
    found: dict[str, object] = {}
    for target in targets:
        try:
            info = os.stat(target)
        except OSError as error:
            found[target] = [error.strerror]
        else:
            found[target] = [info.st_dev, info.st_ino, _is_tmpfs(target)]
    return {"seen": found}


def _is_tmpfs(path):
    answer = ctypes.create_string_buffer(256)
    if _libc().statfs(_word(path), answer) != 0:
        return False
    return int.from_bytes(answer.raw[:8], "little") == _TMPFS_MAGIC


def use_tmpfs(targets, name):
    """Kind, entries, mode and size of each target; a file is written there."""
    found: dict[str, object] = {}
    for target in targets:
        try:
            info = os.stat(target)
            entries = os.listdir(target)
            with open(f"{target}/{name}", "w") as file:
                file.write(name)
            size = os.statvfs(target)
        except OSError as error:
            found[target] = {"error": error.strerror}
            continue
        found[target] = {
            "tmpfs": _is_tmpfs(target),
            "entries": entries,
            "mode": stat.S_IMODE(info.st_mode),
            "bytes": size.f_blocks * size.f_frsize,
            "written": os.path.exists(f"{target}/{name}"),
        }
    return {"targets": found}


# --- mnt.no-remount, mnt.no-unmask -------------------------------------------------------------


def _flags_of(target):
    try:
        return os.statvfs(target).f_flag & _FLAGS
    except OSError:
        return 0


def take_flags(targets, everywhere):
    """Flags that remounting takes from mounts, here and in a new user namespace.

    Args:
        everywhere: all mounts of the table too, not only those targets.
    """
    chosen = list(targets)
    if everywhere:
        chosen += [_unescape(line[4]) for line in _table()]
    before = {target: _flags_of(target) for target in chosen}
    flagged = {target: flags for target, flags in before.items() if flags}
    # The new namespace first: it has copies, and what it takes is taken from them.
    nested = _fork(_take_in_namespace, flagged)
    return {"flagged": len(flagged), "lost": _take(flagged), "nested": nested}


def _take(flagged):
    lost = {}
    for target, flags in flagged.items():
        _mount(None, target, None, _MS_REMOUNT | _MS_BIND)
        attributes = (ctypes.c_uint64 * 4)(0, flags, 0, 0)
        _libc().syscall(ctypes.c_long(_MOUNT_SETATTR), _AT_FDCWD, _word(target), 0, attributes, 32)
        if taken := flags & ~_flags_of(target):
            lost[target] = taken
    return lost


def _take_in_namespace(flagged):
    error = _unshare(_NEWUSER | _NEWNS)
    if error:
        return {"refused": os.strerror(error), "lost": {}}
    return {"lost": _take(flagged)}


def take_masks(masks, everywhere, place, name):
    """Which masks can be taken off, moved or covered, here and in a new user namespace.

    Args:
        masks: their mount points.
        everywhere: all mounts below /proc and /sys too.
        place: a directory that can be written.
    """
    chosen = list(masks)
    if everywhere:
        targets = [_unescape(line[4]) for line in _table()]
        chosen += [one for one in targets if one.startswith(("/proc/", "/sys/"))]
    aside = f"{place}/{name}"
    os.mkdir(aside)
    with open(f"{aside}-file", "w"):
        pass
    try:
        nested = _fork(_take_masks_in_namespace, chosen, aside)
        gone = _take_masks(chosen, aside, cover=True)
    finally:
        os.unlink(f"{aside}-file")
        os.rmdir(aside)
    return {"masks": len(chosen), "gone": gone, "nested": nested}


def _take_masks(masks, aside, cover):
    gone = {}
    for mask in masks:
        was = _mount_id(mask)
        source = aside if os.path.isdir(mask) else f"{aside}-file"
        if cover and _mount(source, mask, None, _MS_BIND) == 0:
            gone[mask] = "covered"
            _umount(mask, _MNT_DETACH)
        if _mount(mask, source, None, _MS_MOVE) == 0:
            gone[mask] = "moved"
            _mount(source, mask, None, _MS_MOVE)
        _umount(mask, _MNT_DETACH)
        if _mount_id(mask) != was:
            gone[mask] = "unmounted"
    return gone


def _take_masks_in_namespace(masks, aside):
    # To cover one's own copy shows nothing of the kernel's.
    error = _unshare(_NEWUSER | _NEWNS | _NEWPID)
    if error:
        return {"refused": os.strerror(error), "gone": {}}
    gone = _take_masks(masks, aside, cover=False)
    # A procfs of one's own would have no masks at all.
    fresh = _mount_proc(aside)
    if not fresh:
        gone["/proc"] = "mounted anew"
    return {"gone": gone, "fresh": fresh}


def _mount_proc(place):
    """Why a child can't mount a procfs; one that can stays there for the observer, who ends it."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            error = _mount("proc", place, "proc", 0)
            os.write(writer, os.strerror(error).encode() if error else b"")
            if not error:
                # No stream of the agent's and no pipe may wait for this process.
                null = os.open("/dev/null", os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                os.closerange(3, 1024)
                import time

                time.sleep(30)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        return pipe.read()
