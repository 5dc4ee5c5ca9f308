"""A driver on its own: boxes built by hand, run in a forked process, looked at from outside.

The three drivers' tests share this; it takes the place of the supervisor, which is tested
elsewhere. Every run is in a single-threaded child of the test process that is a subreaper, as a
supervisor is, and ends with a look at what was left (CLEAN).
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import sys
import traceback
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from execdrv.driver import Box, Driver, Isolated, Refusal, refused
from execdrv.init import Exited, Order, open_init
from execdrv.init.link import InitLink
from execdrv.limits import Receipt
from execdrv.linux import cgroups, syscalls
from execdrv.linux.capabilities import CAPABILITIES, capability_mask
from execdrv.linux.procfs import ProcessId, kill_own_children
from execdrv.spec import ContainerSpec, value_or

#: The applets of a tiny root.
APPLETS = (
    "cat chmod chown chroot cut cp dd df echo env false find grep head hostname id ip kill ln ls "
    "mkdir mknod mount nc nice printf ps pwd readlink rm rmdir sed seq sh sleep sort stat tail "
    "test touch tr true umount uname wc"
)
TIMEOUT_S = 20.0
PATH = b"PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@attrs.frozen(kw_only=True)
class Result:
    """How a run ended, and what was seen."""

    code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    receipts: tuple[Receipt, ...]
    facts: dict[str, Any]
    #: What the test's own look at the running container returned.
    seen: Any

    @property
    def text(self) -> str:
        return self.stdout.decode()


@attrs.frozen(kw_only=True)
class Running:
    """A container whose job runs, for a test's look from outside."""

    box: Box
    #: What `start` returned, and the job's first process, by their numbers here.
    watched: ProcessId
    job: ProcessId
    isolated: Isolated


Look = Callable[[Running], Any]


@attrs.frozen(kw_only=True)
class _Plan:
    """What a test wants of a run, beside its spec."""

    look: Look | None = None
    before_start: Callable[[Box], Any] | None = None
    stdin: bytes = b""
    check: bool = True


@attrs.define
class Boxes:
    """Runs commands by one driver."""

    driver: type[Driver]
    rootfs: Path
    scratch: Path

    def run(
        self,
        *argv: str | bytes,
        look: Look | None = None,
        first: Callable[[], Any] | None = None,
        before_start: Callable[[Box], Any] | None = None,
        stdin: bytes = b"",
        check: bool = True,
        **fields: Any,
    ) -> Result:
        """Run a command from create to destroy.

        Args:
            look: called while the job runs (the end of its standard input comes after it); what it
                returns is the result's `seen`.
            first: called in the forked process before anything else, to change its surroundings.
            before_start: called when the walls stand.
            stdin: what the job reads.
            check: whether the driver's `check` is asked; without it `isolate` must refuse.
            fields: of the ContainerSpec.
        Raises:
            ExecdrvError: what the driver raised, and for a refusal the first of `check`.
        """
        spec = self._spec(argv, fields)
        plan = _Plan(look=look, before_start=before_start, stdin=stdin, check=check)
        result: Result = in_fork(lambda: self._run(spec, plan), first=first)
        return result

    def run_here(self, *argv: str | bytes, check: bool = True, **fields: Any) -> Result:
        """The same in this process, which must have one thread and be a subreaper."""
        return self._run(self._spec(argv, fields), _Plan(check=check))

    def sh(self, script: str, **keywords: Any) -> Result:
        """Run a shell script."""
        return self.run("/bin/sh", "-c", script, **keywords)

    def check(
        self, *argv: str, first: Callable[[], Any] | None = None, **fields: Any
    ) -> list[Refusal]:
        """The driver's refusals."""
        spec = self._spec(argv or ("/bin/true",), fields)
        found: list[Refusal] = in_fork(
            lambda: list(self.driver().check(self.box(spec))), first=first
        )
        return found

    def time_runs(self, count: int, *argv: str, **fields: Any) -> list[float]:
        """Seconds from create to destroyed of several runs in one process."""
        spec = self._spec(argv, fields)

        def runs() -> list[float]:
            import time

            times = []
            for _ in range(count):
                begin = time.perf_counter()
                self._run(spec, _Plan())
                times.append(time.perf_counter() - begin)
            return times

        found: list[float] = in_fork(runs)
        return found

    # --- in the forked process -----------------------------------------------------------------

    def _spec(self, argv: Sequence[str | bytes], fields: dict[str, Any]) -> ContainerSpec:
        return ContainerSpec(argv=argv, **{"rootfs": str(self.rootfs), **fields})

    def box(self, spec: ContainerSpec) -> Box:
        """A box as the host makes it for `check`."""
        number = uuid.uuid4().hex[:10]
        defaults = self.driver.defaults
        return Box(
            layout=cgroups.detect_layout(),
            id=f"test-{number}",
            kernel_name=f"xdt-{number}",
            spec=spec,
            process=_order(spec, self.driver),
            root_mode=value_or(spec.root_mode, defaults.root_mode),  # type: ignore[arg-type]
            net=value_or(spec.net, defaults.net),  # type: ignore[arg-type]
            hostname=value_or(spec.hostname, f"test-{number}"),
            root=os.open(os.fsencode(spec.rootfs or b""), os.O_PATH | os.O_DIRECTORY),
            bind_sources=tuple(
                os.open(bind.source, os.O_PATH) for bind in value_or(spec.binds, ())
            ),
            passed={number: number for number in value_or(spec.pass_fds, ())},
            directory=os.fsencode(self.scratch / f"box-{number}"),
        )

    def _run(self, spec: ContainerSpec, plan: _Plan) -> Result:
        driver = self.driver()
        with contextlib.ExitStack() as stack:
            box = self.box(spec)
            stack.callback(_close_all, (box.root, *box.bind_sources))
            refusals = driver.check(box) if plan.check else ()
            if refusals:
                raise refused(refusals, driver=driver.name)
            os.mkdir(box.directory, 0o711)
            stack.callback(shutil.rmtree, box.directory)
            stdin, feed = os.pipe()
            streams = [stdin, os.memfd_create("stdout"), os.memfd_create("stderr")]
            stack.callback(_close_all, streams)
            os.write(feed, plan.stdin)
            group = self._make_group(box)
            init = InitLink(_init_memfd())
            stack.callback(init.close)
            stdio = (streams[0], streams[1], streams[2])
            box = attrs.evolve(box, group=group, init=init, stdio=stdio)
            try:
                return self._run_box(driver, box, plan, feed)
            finally:
                driver.destroy(box)
                driver.destroy(box)
                left = kill_own_children(timeout_s=5)
                left += [] if group is None else group.remove()
                if left:
                    raise AssertionError(f"left behind: {left}")

    def _run_box(self, driver: Driver, box: Box, plan: _Plan, feed: int) -> Result:
        driver.create(box)
        isolated = driver.isolate(box)
        if isolated.netns is not None:
            os.close(isolated.netns)
        receipts = driver.limit(box, box.spec.limits)
        if plan.before_start is not None:
            plan.before_start(box)
        watched = driver.start(box)
        init = box.init
        assert init is not None and init.job is not None
        running = Running(box=box, watched=watched, job=init.job, isolated=isolated)
        seen = None if plan.look is None else plan.look(running)
        os.close(feed)
        message = init.gate.receive(TIMEOUT_S)
        if not isinstance(message, Exited):
            raise AssertionError(f"the init said {message!r} in place of the job's end")
        status = message.status
        return Result(
            code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            stdout=_read_all(box.stdio[1]),
            stderr=_read_all(box.stdio[2]),
            receipts=tuple(receipts),
            facts=dict(box.facts),
            seen=seen,
        )

    def _make_group(self, box: Box) -> cgroups.Group | None:
        if not self.driver.uses_group and not box.spec.limits.names():
            return None
        layout = cgroups.detect_layout()
        plan = cgroups.plan_group(
            layout,
            box.kernel_name,
            limits=box.spec.limits,
            devices=self.driver.uses_group and cgroups.devices_supported(layout),
            everywhere=self.driver.uses_group,
        )
        return cgroups.make_group(plan)


def in_fork(action: Callable[[], Any], *, first: Callable[[], Any] | None = None) -> Any:
    """What `action` returns or raises in a forked process, which is a subreaper and has one thread.

    Before and after it this process's mount table must be the same. `first` runs there before it.
    """
    before = mount_table()
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            answer = _answer(action, first)
            with open(write_end, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    assert mount_table() == before, "the machine's mounts have changed"
    if not answer:
        raise AssertionError("the forked process said nothing")
    value, error, trace = pickle.loads(answer)  # noqa: S301 - from our own child
    if error is not None:
        error.add_note(trace)
        raise error
    return value


def enter_stand_in() -> None:
    """Become a stand-in for a machine whose mounts are shared, as under systemd; for `first`."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # First private: the real machine must not become a peer.
    syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(None, b"/", flags=syscalls.MS_REC | syscalls.MS_SHARED)


def mount_table() -> str:
    """The mounts of this process, as the kernel lists them."""
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")


def boxes_of(driver: type[Driver], *, rootfs: Path, scratch: Path) -> Boxes:
    """A driver on a root, for jobs of any user; skips where it can't work at all."""
    obstacle = driver().availability()
    if obstacle is not None:
        pytest.skip(f"{driver.name}: {obstacle}")
    for directory in (scratch, *scratch.parents[:2]):
        directory.chmod(directory.stat().st_mode | 0o111)
    return Boxes(driver=driver, rootfs=rootfs, scratch=scratch)


def make_rootfs(path: Path) -> Path:
    """A tiny root: a static busybox and its applets, the usual directories, no device nodes."""
    busybox = shutil.which("busybox")
    if busybox is None or _names_a_loader(busybox):
        pytest.skip("no static busybox (apt-get install busybox-static)")
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
        (path / name).mkdir(parents=True)
    path.chmod(0o755)
    shutil.copy(busybox, path / "bin/busybox")
    for applet in APPLETS.split():
        (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    return path


# --- private -----------------------------------------------------------------------------------


def _answer(action: Callable[[], Any], first: Callable[[], Any] | None) -> bytes:
    try:
        if first is not None:
            first()
        return pickle.dumps((action(), None, ""))
    except BaseException as error:
        trace = traceback.format_exc()
        try:
            return pickle.dumps((None, error, trace))
        except Exception:
            return pickle.dumps((None, AssertionError(repr(error)), trace))


def _order(spec: ContainerSpec, driver: type[Driver]) -> Order:
    user, _, group = (spec.user or "").partition(":")
    uid = int(user or driver.defaults.uid or 0)
    gid = int(group or driver.defaults.gid or 0)
    names = set(driver.defaults.capabilities)
    names = set() if "ALL" in (spec.cap_drop or ()) else names - set(spec.cap_drop or ())
    names |= set(spec.cap_add or ())
    mask = capability_mask(CAPABILITIES if "ALL" in names else names)
    held = mask if uid == 0 else 0
    return Order(
        argv=spec.argv,
        env=(PATH, *value_or(spec.env, ())),
        cwd=value_or(spec.workdir, b"/"),
        uid=uid,
        gid=gid,
        groups=(gid,),
        bounding=mask,
        permitted=held,
        effective=held,
        keep_fds=value_or(spec.pass_fds, ()),
    )


_memfd: list[int] = []


def _init_memfd() -> int:
    if not _memfd:
        _memfd.append(open_init())
    return _memfd[0]


def _read_all(fd: int) -> bytes:
    return os.pread(fd, 1 << 24, 0)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _names_a_loader(path: str) -> bool:
    """Whether a 64-bit ELF file has a PT_INTERP segment (elf(5))."""
    data = Path(path).read_bytes()
    start, size, count = (
        int.from_bytes(data[32:40], "little"),
        int.from_bytes(data[54:56], "little"),
        int.from_bytes(data[56:58], "little"),
    )
    headers = [data[start + n * size :] for n in range(count)]
    return any(int.from_bytes(header[:4], "little") == 3 for header in headers)


__all__ = ["Boxes", "Result", "Running", "boxes_of"]
__all__ += ["enter_stand_in", "in_fork", "make_rootfs", "mount_table"]
