"""Which shared libraries a program needs, and where the loader of this machine finds them.

Follows ld.so(8): DT_RPATH of the object and of what loaded it, DT_RUNPATH, ld.so.cache, the default
directories; $ORIGIN and $LIB; files of another class or machine are passed over. LD_LIBRARY_PATH is
not looked at. Reads files, runs nothing (ldd would run the program), changes nothing.
"""

from __future__ import annotations

import os
import re
import struct
from collections import deque
from collections.abc import Iterable, Iterator

import attrs

LD_CACHE = "/etc/ld.so.cache"

#: Searched last, after the directory of the loader itself (which is the first default one).
DEFAULT_DIRS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")

#: Start of the table in ld.so.cache (glibc, sysdeps/generic/dl-cache.h).
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = 48
_CACHE_ENTRY = struct.Struct("=iIIIQ")

#: Flag of DT_FLAGS_1: only DT_RPATH and DT_RUNPATH are searched.
_DF_1_NODEFLIB = 0x800

_VARIABLE = re.compile(r"\$(?:\{(ORIGIN|LIB|PLATFORM)\}|(ORIGIN|LIB|PLATFORM))")


@attrs.frozen(kw_only=True)
class Elf:
    """What the loader reads of an ELF file."""

    #: Class (32 or 64) and machine, as pyelftools names it (EM_X86_64): only equals fit.
    abi: tuple[int, str]
    #: PT_INTERP, or None (a library or a static program).
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    no_default: bool = False


@attrs.frozen(kw_only=True)
class Library:
    """A library as it was found."""

    #: Its path as the loader opens it; may be a link.
    path: str
    #: Name it is asked for by.
    name: str
    #: Whether ld.so.cache or a default directory gave it, not a path in the file that needs it.
    searched: bool


@attrs.frozen(kw_only=True)
class Closure:
    """Everything a program needs to be loaded."""

    #: The loader, for a dynamic program.
    interpreter: str | None
    libraries: tuple[Library, ...]
    #: Libraries (or the loader) that are nowhere on this machine.
    missing: tuple[str, ...]


def is_elf(path: str) -> bool:
    """Whether a file begins as ELF files do."""
    with open(path, "rb") as file:
        return file.read(4) == b"\x7fELF"


def read_elf(path: str) -> Elf | None:
    """What the loader reads of `path`; None if it is no ELF file, or a damaged one.

    Raises:
        OSError: it could not be read.
    """
    from elftools.common.exceptions import ELFError  # 54 ms: only where a tree is made
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    if not is_elf(path):
        return None
    interpreter: str | None = None
    found: dict[str, list[str]] = {"DT_NEEDED": [], "DT_RPATH": [], "DT_RUNPATH": []}
    no_default = False
    with open(path, "rb") as file:
        try:
            elf = ELFFile(file)
            for segment in elf.iter_segments():
                if isinstance(segment, InterpSegment):
                    interpreter = str(segment.get_interp_name())
                elif isinstance(segment, DynamicSegment):
                    for tag in segment.iter_tags():
                        kind = tag.entry.d_tag
                        if kind in found:
                            found[kind].append(str(getattr(tag, kind[3:].lower())))
                        elif kind == "DT_FLAGS_1":
                            no_default = bool(tag.entry.d_val & _DF_1_NODEFLIB)
            abi = (int(elf.elfclass), str(elf["e_machine"]))
        # pyelftools lets some of its parsers' own errors through for damaged files.
        except (ELFError, ValueError, KeyError, AttributeError, IndexError, UnicodeError):
            return None
    return Elf(
        abi=abi,
        interpreter=interpreter,
        needed=tuple(found["DT_NEEDED"]),
        rpath=_split(found["DT_RPATH"]),
        runpath=_split(found["DT_RUNPATH"]),
        no_default=no_default,
    )


def _split(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for value in values for part in value.split(":") if part)


def parse_ld_cache(data: bytes) -> dict[str, list[str]]:
    """The table of ld.so.cache(8): name -> paths in the order of preference.

    Entries for special hardware (glibc-hwcaps) are left out: the plain library serves every
    processor. An unknown format gives an empty table; the default directories remain.
    """
    start = data.find(_CACHE_MAGIC)
    if start < 0 or len(data) < start + _CACHE_HEADER:
        return {}
    (count,) = struct.unpack_from("=I", data, start + len(_CACHE_MAGIC))
    if start + _CACHE_HEADER + count * _CACHE_ENTRY.size > len(data):
        return {}
    table: dict[str, list[str]] = {}
    for index in range(count):
        offset = start + _CACHE_HEADER + index * _CACHE_ENTRY.size
        _flags, key, value, _version, hardware = _CACHE_ENTRY.unpack_from(data, offset)
        if not hardware:
            table.setdefault(_text(data, start + key), []).append(_text(data, start + value))
    return table


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    return os.fsdecode(data[start : end if end >= 0 else len(data)])


#: An object and what loaded it, nearest first: its ELF and the directory $ORIGIN stands for.
_Chain = tuple[tuple[Elf, str], ...]


class Libraries:
    """Finds libraries; remembers every file it has read."""

    def __init__(self) -> None:
        self._files: dict[str, Elf | None] = {}
        self._homes: dict[tuple[int, str], str] = {}
        try:
            with open(LD_CACHE, "rb") as file:
                self._cached = parse_ld_cache(file.read())
        except OSError:
            self._cached = {}  # musl has none

    def read(self, path: str) -> Elf | None:
        """`read_elf` of the file a path leads to, read once."""
        real = os.path.realpath(path)
        if real not in self._files:
            self._files[real] = read_elf(real)
        return self._files[real]

    def home(self, elf: Elf) -> str | None:
        """A directory that the loader for `elf` searches by itself: the one it is in. None before
        a dynamic program for that machine was seen."""
        return self._homes.get(elf.abi)

    def closure(self, path: str, *, loaded_by: str | None = None) -> Closure:
        """Everything that is loaded with an ELF file.

        Args:
            path: a program or library; what is no ELF file needs nothing.
            loaded_by: the program into which a library is loaded at run time.
        """
        elf = self.read(path)
        if elf is None:
            return Closure(interpreter=None, libraries=(), missing=())
        if elf.interpreter and not os.path.isfile(elf.interpreter):
            return Closure(interpreter=None, libraries=(), missing=(elf.interpreter,))
        if elf.interpreter:
            self._homes.setdefault(elf.abi, os.path.dirname(os.path.realpath(elf.interpreter)))
        chain: _Chain = ((elf, os.path.dirname(os.path.realpath(path))),)
        loader = self.read(loaded_by) if loaded_by else None
        if loaded_by and loader:
            chain += ((loader, os.path.dirname(os.path.realpath(loaded_by))),)
        libraries: dict[str, Library | None] = {}
        queue: deque[_Chain] = deque([chain])
        while queue:
            chain = queue.popleft()
            for name in chain[0][0].needed:
                if name in libraries:
                    continue
                library = libraries[name] = self._find(name, chain)
                found = self.read(library.path) if library else None
                if library and found:
                    queue.append(((found, os.path.dirname(library.path)), *chain))
        return Closure(
            interpreter=elf.interpreter,
            libraries=tuple(library for library in libraries.values() if library),
            missing=tuple(name for name, library in libraries.items() if not library),
        )

    def find(self, name: str, elf: Elf) -> str | None:
        """Where a library lies that `elf` opens by name at run time (dlopen(3))."""
        library = self._find(name, ((elf, "/"),))
        return library.path if library else None

    def _find(self, name: str, chain: _Chain) -> Library | None:
        abi = chain[0][0].abi
        for path, searched in self._candidates(name, chain):
            if os.path.isfile(path):
                found = self.read(path)
                if found and found.abi == abi:
                    return Library(path=os.path.normpath(path), name=name, searched=searched)
        return None

    def _candidates(self, name: str, chain: _Chain) -> Iterator[tuple[str, bool]]:
        """Where the loader looks, in its order, and whether it needs no path in the file for it."""
        elf, origin = chain[0]
        if "/" in name:
            yield from ((path, False) for path in self._expand(name, elf, origin))
            return
        if not elf.runpath:
            # DT_RPATH is inherited, but not from an object that has a DT_RUNPATH.
            for loader, place in chain:
                for part in () if loader.runpath else loader.rpath:
                    yield from ((f"{d}/{name}", False) for d in self._expand(part, loader, place))
        for part in elf.runpath:
            yield from ((f"{d}/{name}", False) for d in self._expand(part, elf, origin))
        if elf.no_default:
            return
        yield from ((path, True) for path in self._cached.get(name, ()))
        home = self.home(elf)
        for directory in (*((home,) if home else ()), *DEFAULT_DIRS):
            yield f"{directory}/{name}", True

    def _expand(self, path: str, elf: Elf, origin: str) -> list[str]:
        """The paths that a path with $ORIGIN, $LIB or $PLATFORM may mean; relative ones mean the
        working directory, which nobody should have meant."""
        home = self.home(elf) or "/usr/lib"
        lib = home.removeprefix("/usr").strip("/") or "lib"
        values = {"ORIGIN": origin, "LIB": lib, "PLATFORM": os.uname().machine}
        expanded = _VARIABLE.sub(lambda match: values[match[1] or match[2]], path)
        return [expanded] if expanded.startswith("/") else []
