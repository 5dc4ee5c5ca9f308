"""From names to a plan: the programs of every root, and what --with adds.

A name is a command of the trusted PATH, an absolute path of a program or directory, or python3
(python.py). A program comes with the loader and every library it needs, a script with its
interpreter, a python with its standard library. Reads the machine, changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Sequence

from execdrv.errors import SpecError, UnsupportedError
from execdrv.rootfs.elf import Libraries
from execdrv.rootfs.plan import Plan, Planner
from execdrv.rootfs.skeleton import add_skeleton

#: Where commands are looked for, whatever the caller's PATH says.
TRUSTED_PATH = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)

#: Commands without which no root is made, by the package that brings them (Debian's names).
CORE = {
    "dash": "sh",
    "coreutils": """
        [ basename cat chgrp chmod chown cp cut date dd df dirname du echo env expr false head id ln
        ls mkdir mkfifo mknod mktemp mv nice nohup od paste printf pwd readlink realpath rm rmdir
        seq sleep sort split stat stty sync tail tee test timeout touch tr true truncate tty uname
        uniq unlink wc whoami yes""",
}

#: Commands that are in the root where this machine has them; a root says which it lacks.
OPTIONAL = {
    "coreutils": """
        arch b2sum base32 base64 basenc chroot cksum comm csplit dircolors expand factor fmt fold
        groups install join link logname md5sum nl nproc numfmt pr printenv sha1sum sha224sum
        sha256sum sha384sum sha512sum shred shuf sum tac tsort unexpand""",
    "diffutils": "cmp",
    "findutils": "find xargs",
    "grep": "grep",
    "gzip": "gzip",
    "hostname": "hostname",
    "iproute2": "ip",
    "libc-bin": "getent",
    "mawk": "awk",
    "mount": "mount umount",
    "procps": "free kill pgrep pkill ps uptime",
    "sed": "sed",
    "tar": "tar",
    "util-linux": "mountpoint setsid unshare",
}

#: Libraries that libc opens by itself, where this machine has them: libgcc_s for ending threads,
#: the others for user and host names with a glibc older than 2.34.
OPENED_BY_LIBC = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")

#: The one locale that needs no choice; without it C.UTF-8 means C under glibc before 2.35.
LOCALE = "/usr/lib/locale/C.utf8"

#: Directories over which containers mount: a file below would be there and not be seen.
COVERED = ("/dev", "/proc", "/run", "/sys", "/tmp")

#: No directories to copy into a root: the whole machine, its settings with its secrets.
REFUSED_DIRS = ("/", "/etc", *COVERED)

_PYTHON = re.compile(r"python3(\.\d+)?")
_SHEBANG_BYTES = 256  # BINPRM_BUF_SIZE, execve(2)


def normal_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names checked for their form, sorted, each once.

    Raises:
        SpecError: field 'with'.
    """
    if isinstance(names, str | bytes):
        raise _refuse(names, "names must be a sequence of strings", hint=f"write [{names!r}]")
    for name in names:
        if not isinstance(name, str) or not name or "\0" in name:
            raise _refuse(name, "it must be a command name or an absolute path")
        if "/" in name and not os.path.isabs(name):
            raise _refuse(name, "it is a relative path", hint="give the absolute path")
    return tuple(sorted(set(names)))


def _refuse(value: object, reason: str, *, hint: str = "") -> SpecError:
    return SpecError(
        f"cannot add {value!r} to a root file system: {reason}",
        hint=hint,
        field="with",
        value=value if isinstance(value, str) else repr(value),
    )


def find_command(name: str) -> str | None:
    """The first executable file of that name on TRUSTED_PATH."""
    for directory in TRUSTED_PATH:
        path = f"{directory}/{name}"
        if is_program(path):
            return path
    return None


def is_program(path: str) -> bool:
    """Whether `path` leads to a regular file that somebody may execute."""
    try:
        seen = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and bool(seen.st_mode & 0o111)


def plan_root(
    names: Sequence[str], *, scratch_mode: int, skip: frozenset[tuple[int, int]] = frozenset()
) -> Plan:
    """What a root with these names holds.

    Args:
        names: as `normal_names` returns them.
        scratch_mode: mode of /tmp, /var/tmp and /dev/shm.
        skip: device and inode of directories that are never copied (the target, the cache).

    Raises:
        SpecError: a name means nothing here (field 'with').
        UnsupportedError: this machine lacks a core command, or a library that a program needs.
    """
    recipe = Recipe(skip=skip)
    add_skeleton(recipe.planner, scratch_mode=scratch_mode)
    recipe.add_base()
    for name in names:
        recipe.add_name(name)
    return recipe.planner.finish()


class Recipe:
    """Fills a planner with programs."""

    def __init__(self, *, skip: frozenset[tuple[int, int]] = frozenset()) -> None:
        self.planner = Planner()
        self.libraries = Libraries()
        self._skip = skip
        self._seen: set[str] = set()
        # A command added here would be taken before the one that was found.
        for directory in ("/etc/ld.so.cache", *TRUSTED_PATH[:2]):
            self.planner.inputs[directory] = None

    def add_base(self) -> None:
        """The programs of every root."""
        for package, commands in CORE.items():
            for name in commands.split():
                self._add_core(name, package)
        shell = os.path.realpath(find_command("sh") or "/bin/sh")
        for library in OPENED_BY_LIBC:
            self._add_opened(library, shell)
        for name in " ".join(OPTIONAL.values()).split():
            self._add_optional(name)
        if os.path.isdir(LOCALE):
            self.planner.add_directory(LOCALE, keep=lambda _path: True)

    def _add_core(self, name: str, package: str) -> None:
        path = find_command(name)
        if path is None:
            raise UnsupportedError(
                f"cannot make a root file system: this machine has no {name!r} in "
                f"{':'.join(TRUSTED_PATH)}",
                hint=f"install {package!r} (apt-get install {package})",
                reason=f"no {name!r}",
            )
        self.add_program(path)

    def _add_optional(self, name: str) -> None:
        path = find_command(name)
        if path is not None:
            # What lacks a library here can't be run here either.
            with contextlib.suppress(UnsupportedError):
                self.add_program(path)
                return
        self.planner.note_missing([name])
        self.planner.inputs.update((f"{place}/{name}", None) for place in TRUSTED_PATH)

    def add_name(self, name: str) -> None:
        """What one --with asks for."""
        if not os.path.isabs(name):
            if name == "python3":
                self.add_python(None)
                return
            path = find_command(name)
            if path is None:
                raise _refuse(
                    name,
                    f"no such command in {':'.join(TRUSTED_PATH)}",
                    hint="install it, or give the absolute path of a program or directory",
                )
            self.add_program(path)
            return
        if os.path.isdir(name):
            self._add_tree(name)
        elif is_program(name):
            real = os.path.realpath(name)
            if _is_below(real, COVERED):
                self.planner.move(real, f"usr/local/bin/{os.path.basename(real)}")
            self.add_program(name)
            self._add_to_path(name)
        else:
            reason = "it is not executable" if os.path.exists(name) else "there is no such file"
            raise _refuse(name, reason, hint="give a program or directory of this machine")

    def add_program(self, path: str) -> None:
        """A program with all it needs to be started; nothing is added when it raises.

        Raises:
            UnsupportedError: this machine lacks its interpreter or one of its libraries.
        """
        if path in self._seen:
            return
        self._seen.add(path)  # before its interpreter, which may be itself
        try:
            words = read_shebang(path)
            if _PYTHON.fullmatch(os.path.basename(path)):
                executable = self.add_python(path)
                if words:  # a script that finds a python, as version managers have them
                    place = self.planner.destination(executable)
                    self.planner.add_link(self.planner.destination(path), place)
                    return
            elif words:
                self._add_interpreter(path, words)
            self.add_closure(path)
            self.planner.add_file(path)
        except OSError as error:
            self._seen.discard(path)
            raise UnsupportedError(
                f"cannot read {error.filename or path!r}: {error.strerror}", reason="unreadable"
            ) from error
        except UnsupportedError:
            self._seen.discard(path)
            raise

    def add_python(self, path: str | None) -> str:
        """A python with its standard library (python.py): this one, or the best of the machine.

        Returns:
            The path of its executable on this machine.
        """
        from execdrv.rootfs.python import add_python

        return add_python(self, path)

    def add_libraries(self, files: Sequence[str], *, loaded_by: str | None = None) -> None:
        """What the ELF files among `files` need; what is not here is noted as missing."""
        for path in files:
            if ".so" not in os.path.basename(path) and not os.stat(path).st_mode & 0o111:
                continue
            self.planner.note_missing(self._add_found(path, loaded_by))

    def _add_interpreter(self, path: str, words: list[str]) -> None:
        """The interpreter of a script; for /usr/bin/env also the command it runs."""
        wanted = [words[0]]
        if os.path.basename(words[0]) == "env":
            command = next((w for w in words[1:] if not w.startswith("-") and "=" not in w), None)
            found = find_command(command) if command and "/" not in command else command
            wanted.append(found or command or words[0])
        for program in wanted:
            if not is_program(program):
                raise UnsupportedError(
                    f"cannot add {path!r} to a root file system: its interpreter {program!r} is "
                    "not on this machine",
                    hint="install the interpreter",
                    reason=f"no {program!r}",
                )
            self.add_program(program)

    def add_closure(self, path: str) -> None:
        """All that is loaded with a program.

        Raises:
            UnsupportedError: a part of it is not on this machine; nothing was added.
        """
        missing = self._add_found(path, None)
        if missing:
            raise UnsupportedError(
                f"cannot add {path!r} to a root file system: it needs {missing[0]!r}, which is not "
                "on this machine",
                hint="install the package that brings the library",
                reason=f"no {missing[0]!r}",
            )

    def _add_found(self, path: str, loaded_by: str | None) -> tuple[str, ...]:
        """Add what a file needs, or return what is missing of it."""
        closure = self.libraries.closure(path, loaded_by=loaded_by)
        if closure.missing and loaded_by is None:
            return closure.missing
        if closure.interpreter:
            self.planner.add_file(closure.interpreter)
        for library in closure.libraries:
            self._add_library(library.path, library.name, searched=library.searched)
        return closure.missing

    def _add_library(self, path: str, name: str, *, searched: bool) -> None:
        """A library, where the loader inside will find it: the tree has no ld.so.cache, so one that
        is found by it here, or that goes elsewhere in the tree, gets a link beside the loader."""
        elf = self.libraries.read(path)
        home = self.libraries.home(elf) if elf else None
        real = os.path.realpath(path)
        if home and _is_below(real, COVERED):
            self.planner.move(real, self.planner.destination(f"{home}/{os.path.basename(real)}"))
        moved = self.planner.destination(real) != real.strip("/")
        place = self.planner.add_file(path)
        if home and (searched or moved) and "/" not in name:
            self.planner.add_link(self.planner.destination(f"{home}/{name}"), place)

    def _add_opened(self, name: str, program: str) -> None:
        elf = self.libraries.read(program)
        found = self.libraries.find(name, elf) if elf else None
        if found:
            self._add_library(found, name, searched=True)
            self._add_found(found, None)

    def _add_tree(self, path: str) -> None:
        real = os.path.realpath(path)
        if real in REFUSED_DIRS or _is_below(real, COVERED):
            raise _refuse(
                path,
                "containers mount over it" if _is_below(real, COVERED) else "it is too much",
                hint="copy what is needed to another directory, or bind it at run time",
            )
        files = self.planner.add_directory(path, keep=lambda _path: True, skip=self._skip)
        self.add_libraries(files)

    def _add_to_path(self, path: str) -> None:
        """Let a program outside of PATH be called by its name."""
        name = os.path.basename(path)
        places = [self.planner.destination(f"{directory}/{name}") for directory in TRUSTED_PATH]
        if not any(place in self.planner.entries for place in places):
            self.planner.add_link(f"usr/local/bin/{name}", self.planner.destination(path))


def read_shebang(path: str) -> list[str]:
    """The words behind `#!` (execve(2)), or nothing."""
    with open(path, "rb") as file:
        line = file.read(_SHEBANG_BYTES).split(b"\n", 1)[0]
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []


def _is_below(path: str, directories: Sequence[str]) -> bool:
    return any(path == directory or path.startswith(directory + "/") for directory in directories)
