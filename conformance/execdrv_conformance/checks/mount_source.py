"""What binds under test show: directories, files and mounts of the machine. Knows no check."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from execdrv.spec import Bind, Tmpfs
from execdrv_conformance import kernel
from execdrv_conformance.bench import Bench
from execdrv_conformance.checks.place import plant_directory


@attrs.frozen(kw_only=True)
class Sources:
    """What is bound, on the machine; all of it ends with the scenario."""

    #: The last part of every name here.
    tag: str
    #: Outside the root: a directory and a file, found nowhere else.
    apart: Path
    #: In the root, with mounts below it; a job without binds has it as it is.
    kept: Path
    below: tuple[Path, ...]
    #: In the root: a setuid program, a device node, a program; and one in a mount that is noexec.
    flagged: Path
    unexecutable: Path
    #: For nested targets.
    outer: Path
    inner: Path
    #: In the root: mount points.
    targets: Path


@contextlib.contextmanager
def make_sources(bench: Bench) -> Iterator[Sources]:
    """All sources, furnished; their mounts and what is in the root end with the context."""
    tag = bench.nonce()
    sources = Sources(
        tag=tag,
        apart=bench.directory(f"apart-{tag}"),
        kept=plant_directory(bench, f"kept-{tag}"),
        below=tuple(bench.root / f"srv/kept-{tag}" / name for name in ("sub", "a b\tc")),
        flagged=plant_directory(bench, f"flagged-{tag}"),
        unexecutable=plant_directory(bench, f"unexecutable-{tag}"),
        outer=bench.directory(f"outer-{tag}"),
        inner=bench.directory(f"inner-{tag}"),
        targets=plant_directory(bench, f"targets-{tag}"),
    )
    with contextlib.ExitStack() as stack:
        for path in (sources.kept, sources.flagged, sources.unexecutable, sources.targets):
            stack.callback(shutil.rmtree, path, ignore_errors=True)
        (sources.apart / tag).write_text(tag)
        (sources.kept / "data").write_text("kept")
        for path in sources.below:
            path.mkdir()
            _mount_here(stack, path, "")
            (path / "data").write_text("kept")
        _furnish_flagged(sources.flagged)
        _mount_here(stack, sources.unexecutable, "noexec")
        _copy_program("echo", sources.unexecutable / "echo")
        (sources.outer / "tmpfs").mkdir()
        (sources.outer / "said").write_text("outer")
        (sources.inner / "said").write_text("inner")
        for name in ("apart", "kept", "flags", "unexecutable", "nest"):
            (sources.targets / name).mkdir()
        (sources.targets / "file").write_text("")
        yield sources


def _mount_here(stack: contextlib.ExitStack, path: Path, words: str) -> None:
    flags = kernel.MS_NOEXEC if words == "noexec" else 0
    kernel.mount("xdc", str(path), "tmpfs", flags, "size=1m,mode=755")
    stack.callback(_unmount, path)


def _unmount(path: Path) -> None:
    # A driver that propagates its mounts may have unmounted it with its own end.
    with contextlib.suppress(OSError):
        kernel.umount(str(path), kernel.MNT_DETACH)


def _furnish_flagged(path: Path) -> None:
    _copy_program("id", path / "id")
    (path / "id").chmod(0o4755)
    _copy_program("echo", path / "echo")
    # As harmless as the one in /dev.
    with contextlib.suppress(PermissionError):
        os.mknod(path / "null", 0o666 | 0o020000, os.makedev(1, 3))
        (path / "null").chmod(0o666)


def _copy_program(name: str, path: Path) -> None:
    shutil.copyfile(f"/usr/bin/{name}", path)
    path.chmod(0o755)


def list_binds(bench: Bench, sources: Sources) -> dict[str, Any]:
    """Binds and tmpfs, in an order drawn by the seed: the driver's own order counts."""
    tag = sources.tag
    place = f"/srv/targets-{tag}"

    def bind(source: Path, target: str, *, read_only: bool = False) -> Bind:
        return Bind(
            source=os.fsencode(source),
            target=os.fsencode(f"{place}/{target}"),
            read_only=read_only,
        )

    binds = [
        bind(sources.apart, "apart"),
        bind(sources.apart / tag, "file"),
        bind(sources.kept, "kept", read_only=True),
        bind(sources.flagged, "flags"),
        bind(sources.unexecutable, "unexecutable"),
        bind(sources.outer, "nest/outer"),
        bind(sources.inner, "nest/outer/tmpfs/inner"),
    ]
    tmpfs = [Tmpfs(target=os.fsencode(f"{place}/{name}")) for name in ("nest", "nest/outer/tmpfs")]
    bench.rng.shuffle(binds)
    bench.rng.shuffle(tmpfs)
    return {"binds": tuple(binds), "tmpfs": tuple(tmpfs)}
