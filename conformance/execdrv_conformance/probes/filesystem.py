"""The root file system: what the job may write of it, and can't leave."""

import json
import os
import shutil
import stat

_UP = "/.." * 40


def _fork(function, *arguments):
    """What a function says in a child of its own, whose root and users may change."""
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


def _identity(path):
    found = os.stat(path)
    return [found.st_dev, found.st_ino]


def _error_of(function, *arguments):
    """0, or the errno of a call."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno
    return 0


# --- fs.root, fs.dotdot, fs.escape-chroot ------------------------------------------------------


def _holds_word(path, word, directory=None):
    """Whether a path leads to the secret; it is written back as it was, so that its times tell."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return False
    try:
        found = os.read(fd, 64)
        if found != word.encode():
            return False
        os.pwrite(fd, found, 0)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _processes():
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def reach_secret(secret, word, inode, most):
    """By which of many paths, descriptors and inodes the canary's secret opens."""
    forms = [secret, _UP + secret]
    for process in ("self", "thread-self", *_processes()):
        forms += [f"/proc/{process}/root{secret}", f"/proc/{process}/cwd{_UP}{secret}"]
    reached = [form for form in forms if _holds_word(form, word)]
    for fd in range(1024):
        try:
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        except OSError:
            continue
        path = "../" * 40 + secret[1:]
        if is_directory and _holds_word(path, word, fd):
            reached.append(f"descriptor {fd}")
    walked = 0
    if not reached:
        walked, found = _walk("/", inode, most)
        reached += [path for path in found if _holds_word(path, word)]
    return {"reached": reached[:10], "tried": len(forms), "walked": walked, "root": _identity("/")}


def _walk(top, inode, most):
    """Paths of files with that inode number, of at most so many entries."""
    waiting, walked, found = [top], 0, []
    while waiting and walked < most:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            walked += 1
            if entry.is_dir(follow_symlinks=False):
                if entry.path not in ("/proc", "/sys"):
                    waiting.append(entry.path)
            elif entry.inode() == inode and entry.is_file(follow_symlinks=False):
                found.append(entry.path)
    return walked, found


def leave_upwards(secret, word, place, name):
    """Which forms of `..`, of links and of /proc/self lead to the secret."""
    forms = {
        "dots": _UP + secret,
        "dots from here": "../" * 40 + secret[1:],
        "dots and slashes": "/./..//" + "../" * 40 + secret[1:],
        "root link": "/proc/self/root" + secret,
        "root link and dots": "/proc/self/root" + _UP + secret,
        "root link twice": "/proc/self/root/proc/self/root/.." + secret,
        "thread's root link": "/proc/thread-self/root" + secret,
        "cwd link": "/proc/self/cwd" + _UP + secret,
    }
    links = {
        "absolute link": secret,
        "relative link": "../" * 40 + secret[1:],
        "link to the root": "/..",
    }
    reached = [name for name, path in forms.items() if _holds_word(path, word)]
    tried = len(forms)
    for number, (what, target) in enumerate(links.items()):
        link = f"{place}/{name}-{number}"
        if _error_of(os.symlink, target, link):
            continue
        tried += 1
        if _holds_word(link + (secret if target == "/.." else ""), word):
            reached.append(what)
        os.unlink(link)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    tried += 1
    if _holds_word("../" * 40 + secret[1:], word, root):
        reached.append("descriptor of the root")
    os.close(root)
    return {"reached": reached, "tried": tried}


def climb(enter, secret, word, place, name):
    """Chroot below the working directory, and walk up from there to where `..` ends."""
    if made := _error_of(os.mkdir, f"{enter}{place}/{name}"):
        name = ""
    facts = _fork(_climb, enter, secret, word, f"{place}/{name}")
    if not made:
        os.rmdir(f"{enter}{place}/{name}")
    return facts


def _climb(enter, secret, word, below):
    if enter:
        # The control: a chroot and nothing else.
        os.chroot(enter)
        os.chdir("/")
    facts = {"root": _identity("/")}
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    facts["refused"] = _error_of(os.chroot, below)
    os.fchdir(here)
    for _ in range(64):
        os.chdir("..")
    facts["stands"] = _identity(".")
    facts["reached"] = _holds_word("." + secret, word)
    return facts


# --- fs.ro-root, fs.write-private, fs.tmp-private, fs.owner ------------------------------------


def write_everywhere(directory):
    """The errno of each writing call, in a directory with a file `old` and a directory `under`."""
    old, new = f"{directory}/old", f"{directory}/new"

    def create():
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT, 0o644))

    def append():
        fd = os.open(old, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"changed")
        os.close(fd)

    calls = {
        "open": append,
        "create": create,
        "mkdir": lambda: os.mkdir(f"{directory}/made"),
        "symlink": lambda: os.symlink("old", f"{directory}/symlink"),
        "link": lambda: os.link(old, f"{directory}/link"),
        "mkfifo": lambda: os.mkfifo(f"{directory}/fifo"),
        "chmod": lambda: os.chmod(old, 0o600),
        "utime": lambda: os.utime(old, (1, 1)),
        "truncate": lambda: os.truncate(old, 1),
        "rename": lambda: os.rename(old, f"{directory}/renamed"),
        "unlink": lambda: os.unlink(f"{directory}/other"),
        "rmdir": lambda: os.rmdir(f"{directory}/under"),
    }
    return {"errors": {name: _error_of(call) for name, call in calls.items()}}


def change_tree(directory, name):
    """Create, change and remove files of a directory with `old` and `other`; then look at it."""
    with open(f"{directory}/{name}", "w") as file:
        file.write(name)
    with open(f"{directory}/old", "a") as file:
        file.write(name)
    os.unlink(f"{directory}/other")
    return look_at_tree(directory, name)


def look_at_tree(directory, name):
    """What a sibling or the job itself sees of `change_tree`."""
    with open(f"{directory}/old") as file:
        old = file.read()
    return {
        "new": os.path.exists(f"{directory}/{name}"),
        "changed": name in old,
        "removed": not os.path.exists(f"{directory}/other"),
    }


def write_files(directories, name):
    """The errno of writing a file into each directory."""
    errors = {}
    for directory in directories:
        try:
            with open(f"{directory}/{name}", "x") as file:
                file.write(name)
        except OSError as error:
            errors[directory] = error.errno or -1
        else:
            errors[directory] = 0
    return {"errors": errors}


def find_files(directories, name):
    """The directories in which there is a file of that name."""
    return {"found": [one for one in directories if os.path.lexists(f"{one}/{name}")]}


def own_files(directory, name):
    """Owners of a given file, and of one made here."""
    with open(f"{directory}/{name}", "x"):
        pass
    given, new = os.stat(f"{directory}/given"), os.stat(f"{directory}/{name}")
    return {"given": [given.st_uid, given.st_gid], "new": [new.st_uid, new.st_gid]}


# --- fs.size, fs.inodes ------------------------------------------------------------------------


def fill_bytes(directory, name, under, over):
    """The errno of writing up to just under a limit, and then up to just over it."""
    path = f"{directory}/{name}"
    facts = {}
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        written = 0
        for what, size in (("under", under), ("over", over)):
            facts[what] = 0
            while written < size:
                try:
                    written += os.write(fd, b"x" * min(1 << 16, size - written))
                except OSError as error:
                    facts[what] = error.errno or -1
                    break
        os.close(fd)
        facts["written"] = written
    finally:
        os.unlink(path)
    return facts


def fill_inodes(directory, name, under, over):
    """The errno of making files up to just under a limit, and then up to just over it."""
    top = f"{directory}/{name}"
    os.mkdir(top)
    facts = {}
    made = 0
    try:
        for what, count in (("under", under), ("over", over)):
            facts[what] = 0
            while made < count:
                try:
                    os.mknod(f"{top}/{made}", 0o600 | stat.S_IFREG)
                except OSError as error:
                    facts[what] = error.errno or -1
                    break
                made += 1
        facts["made"] = made
    finally:
        shutil.rmtree(top)
    return facts


# --- fs.nosuid ---------------------------------------------------------------------------------


def run_setuid(directories, uid, name):
    """Put setuid programs into directories and run them as another user.

    One says its effective user and group; one sleeps for the observer, who ends it.
    """
    runs, skipped = {}, {}
    for directory in directories:
        path = f"{directory}/{name}"
        try:
            for program in ("id", "sleep"):
                shutil.copyfile(f"/usr/bin/{program}", f"{path}-{program}")
                os.chown(f"{path}-{program}", 0, 0)
                os.chmod(f"{path}-{program}", 0o6755)
            runs[directory] = [
                _run_as(uid, [f"{path}-id", "-u"]),
                _run_as(uid, [f"{path}-id", "-g"]),
                _run_as(uid, [f"{path}-sleep", "20"], stays=True),
            ]
        except OSError as error:
            skipped[directory] = error.strerror
        finally:
            for program in ("id", "sleep"):
                _error_of(os.unlink, f"{path}-{program}")
    return {"runs": runs, "skipped": skipped}


def _run_as(uid, argv, stays=False):
    """What a program says that another user runs; one that stays has begun when this returns."""
    output, says = os.pipe()
    begun, holds = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for number, fd in ((0, null), (1, null if stays else says), (2, null)):
                os.dup2(fd, number)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.execv(argv[0], argv)
        except OSError as error:
            os.write(holds, str(error.strerror).encode())
        finally:
            os._exit(127)
    os.close(says)
    os.close(holds)
    with open(begun, "rb") as pipe:
        refused = pipe.read().decode()
    with open(output, "rb") as pipe:
        said = pipe.read().decode().strip()
    if not stays or refused:
        os.waitpid(pid, 0)
    return refused or said
