"""Runs the init for real: compiled once a session, in a busybox tree, with and without a pid
namespace. Nothing of execdrv but execdrv.init is used; the walls are made here with a few calls."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from execdrv.init import Exited, Failed, Gate, Job, Message, Order, Ready, Started
from execdrv.init.binary import seal_program

SOURCE = Path(__file__).parents[3] / "execdrv/init/execdrv-init.c"
CLONE_NEWNS, CLONE_NEWPID = 0x20000, 0x20000000
MS_NOSUID_NODEV_NOEXEC, MS_REC_PRIVATE = 0xE, 0x44000
SYS_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine(), 0)
LIBC = ctypes.CDLL(None, use_errno=True)
#: Calls with the interpreter's lock held. Another thread (pytest-xdist has one, mostly asleep)
#: that took it while this one clones would be its owner in the child for ever.
LOCKED_LIBC = ctypes.PyDLL(None, use_errno=True)
#: No step of a test takes longer, or it fails.
PATIENCE_S = 10.0
#: The numbers of the calls that tests forbid.
CALLS = {
    "x86_64": {
        "close_range": (436,), "kill": (62,), "sendmsg": (46,), "sendto": (44,), "write": (1, 20),
        "stat": (4, 5, 6, 262, 332), "open": (2, 257, 437), "exit_group": (231,),
    },
    "aarch64": {
        "close_range": (436,), "kill": (129,), "sendmsg": (211,), "sendto": (206,),
        "write": (64, 66), "stat": (79, 80, 291), "open": (56, 437), "exit_group": (94,),
    },
}.get(platform.machine(), {})  # fmt: skip
ENOSYS = 38


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags]
    subprocess.run([*command, "-o", str(target), str(source)], check=True, timeout=120)
    return target


def clone(flags: int) -> int:
    """fork(2) with namespaces; the child only arranges itself and executes."""
    pid: int = LOCKED_LIBC.syscall(SYS_CLONE, flags | signal.SIGCHLD, None, None, None, None)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return pid


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    encoded = kind.encode() if kind else None
    if LIBC.mount(source.encode(), target.encode(), encoded, flags, None) < 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


class Run:
    """One init with its gate, and what its job writes."""

    def __init__(self, gate: Gate, pid: int, output_fd: int) -> None:
        self.gate, self.pid, self.output_fd = gate, pid, output_fd
        self.messages: list[Message] = []
        self.status: int | None = None

    def order(self, *argv: str | bytes, **fields: object) -> list[Message]:
        """Sends an order and returns what comes until the command runs or does not."""
        words = tuple(word if isinstance(word, bytes) else os.fsencode(word) for word in argv)
        values: dict[str, object] = {"uid": 0, "gid": 0, "argv": words, **fields}
        self.gate.send_order(Order(**values))  # type: ignore[arg-type]
        return self.read_until(Started, Failed)

    def read_until(self, *kinds: type) -> list[Message]:
        fresh: list[Message] = []
        while True:
            message = self.gate.receive(PATIENCE_S)
            if message is None:
                return fresh
            fresh.append(message)
            self.messages.append(message)
            if isinstance(message, kinds):
                return fresh

    def failed(self, *argv: str | bytes, **fields: object) -> Failed:
        """Sends an order that must fail; the init must then end with 125."""
        last = self.order(*argv, **fields)[-1]
        assert isinstance(last, Failed), self.messages
        assert self.gate.receive(PATIENCE_S) is None
        assert os.waitstatus_to_exitcode(self.reap()) == 125
        return last

    def exited(self) -> Exited:
        last = self.read_until(Exited)[-1]
        assert isinstance(last, Exited), self.messages
        return last

    def output(self) -> bytes:
        """What the job wrote, to the end of file."""
        chunks: list[bytes] = []
        os.set_blocking(self.output_fd, False)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                chunk = os.read(self.output_fd, 65536)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
        raise AssertionError("no end of file on the job's output")

    def job(self) -> int:
        return next(message.pid for message in self.messages if isinstance(message, Job))

    def reap(self) -> int:
        """The init's wait status; it must end by itself within the time."""
        deadline = time.monotonic() + PATIENCE_S
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
            elif time.monotonic() > deadline:
                raise AssertionError("the init does not end")
            else:
                time.sleep(0.001)
        return self.status

    def end(self) -> None:
        self.gate.close()
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.output_fd)


class Launcher:
    """Starts inits in a tree, below a plain chroot or a pid namespace."""

    def __init__(self, memfd: int, root: str, *, has_pid_namespace: bool) -> None:
        self.memfd, self.root, self.has_pid_namespace = memfd, root, has_pid_namespace
        self.runs: list[Run] = []

    def __call__(
        self,
        *,
        before: Callable[[], None] | None = None,
        memfd: int | None = None,
        env: dict[str, str] | None = None,
        root: str | None = None,
    ) -> Run:
        """A waiting init.

        Args:
            before: run in the child, last before the init is executed.
            memfd: another program than this session's init.
        """
        gate, child_fd = Gate.pair()
        read_fd, write_fd = os.pipe()
        pid = clone(CLONE_NEWPID | CLONE_NEWNS if self.has_pid_namespace else 0)
        if pid == 0:
            try:
                self._enter(root or self.root)
                null = os.open("/dev/null", os.O_RDONLY)
                os.dup2(null, 0)
                os.dup2(write_fd, 1)
                os.dup2(write_fd, 2)
                # Above every number that a test uses.
                gate_fd = fcntl.fcntl(child_fd, fcntl.F_DUPFD, 4000)
                source = self.memfd if memfd is None else memfd
                program_fd = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, 4000)
                if before:
                    before()
                os.execve(program_fd, [b"execdrv-init", b"%d" % gate_fd], env or {})
            finally:
                os._exit(99)
        os.close(child_fd)
        os.close(write_fd)
        run = Run(gate, pid, read_fd)
        self.runs.append(run)
        return run

    def _enter(self, root: str) -> None:
        if self.has_pid_namespace:
            mount("none", "/", None, MS_REC_PRIVATE)
            mount("proc", f"{root}/proc", "proc", MS_NOSUID_NODEV_NOEXEC)
        os.chroot(root)
        os.chdir("/")

    def ready(self, **fields: object) -> Run:
        run = self(**fields)  # type: ignore[arg-type]
        assert run.gate.receive(PATIENCE_S) == Ready(run.pid)
        return run


@pytest.fixture(scope="session")
def build_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    return tmp_path_factory.mktemp("init")


@pytest.fixture(scope="session")
def program(build_dir: Path) -> Path:
    return compile_c(SOURCE, build_dir / "execdrv-init", "-O2", "-static", "-s")


@pytest.fixture(scope="session")
def memfd(program: Path) -> Iterator[int]:
    fd = seal_program(program.read_bytes())
    yield fd
    os.close(fd)


@pytest.fixture(scope="session")
def sanitized_memfd(build_dir: Path) -> Iterator[int]:
    """The init with what finds reads beyond a buffer; needs shared libraries, so no chroot."""
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    fd = seal_program(compile_c(SOURCE, build_dir / "sanitized", *flags).read_bytes())
    yield fd
    os.close(fd)


@pytest.fixture(scope="session")
def root(build_dir: Path) -> str:
    """A tree with a static busybox, a probe, and the files that the cases of exec need."""
    if os.geteuid() != 0:
        pytest.skip("needs root (chroot, setuid)")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs a static busybox")
    tree = build_dir / "root"
    for name in ("bin", "dev", "proc", "tmp", "etc", "u", "r", "usr/local/bin"):
        (tree / name).mkdir(parents=True)
    for path in (build_dir.parent, build_dir, tree):
        path.chmod(0o755)
    (tree / "tmp").chmod(0o1777)
    for number, name in ((3, "null"), (5, "zero")):
        os.mknod(tree / "dev" / name, 0o20666, os.makedev(1, number))
        (tree / "dev" / name).chmod(0o666)
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in ("sh", "sleep", "true", "cat", "echo", "kill", "id", "readlink"):
        (tree / "bin" / applet).symlink_to("busybox")
    compile_c(Path(__file__).with_name("probe.c"), tree / "bin/probe", "-O2", "-static", "-s")
    os.chown(tree / "u", 1000, 1000)
    for name in ("u", "r"):
        (tree / name).chmod(0o700)
    return str(tree)


@pytest.fixture(params=["chroot", "pidns"])
def launch(request: pytest.FixtureRequest, memfd: int, root: str) -> Iterator[Launcher]:
    """Both ways in which an init lives; what a test leaves is ended."""
    yield from _launcher(memfd, root, has_pid_namespace=request.param == "pidns")


@pytest.fixture
def launch_chroot(memfd: int, root: str) -> Iterator[Launcher]:
    yield from _launcher(memfd, root, has_pid_namespace=False)


@pytest.fixture
def launch_pidns(memfd: int, root: str) -> Iterator[Launcher]:
    yield from _launcher(memfd, root, has_pid_namespace=True)


def _launcher(memfd: int, root: str, *, has_pid_namespace: bool) -> Iterator[Launcher]:
    # As a supervisor does: what outlives an init in a chroot comes to us.
    LIBC.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    launcher = Launcher(memfd, root, has_pid_namespace=has_pid_namespace)
    yield launcher
    for run in launcher.runs:
        run.end()
    LIBC.prctl(36, 0, 0, 0, 0)
    _end_strays()


def _end_strays() -> None:
    with open("/proc/thread-self/children") as file:
        children = [int(pid) for pid in file.read().split()]
    for pid in children:
        with open(f"/proc/{pid}/comm") as file:
            name = file.read().strip()
        if name in ("sleep", "sh", "busybox", "probe"):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture(scope="session")
def libc() -> ctypes.CDLL:
    return LIBC


@pytest.fixture(scope="session")
def mount_at() -> Callable[[str, str, int], None]:
    return lambda kind, target, flags: mount(kind, target, kind, flags)


def _filter_bytes(*names: str, kill: bool = False) -> bytes:
    """A seccomp filter: these calls answer ENOSYS, or end the caller; all others pass."""
    numbers = [number for name in names for number in CALLS[name]]
    code = [(0x20, 0, 0, 0)]  # load the number
    for at, number in enumerate(numbers):
        code.append((0x15, len(numbers) - at, 0, number))  # equal: to the last one
    code.append((0x06, 0, 0, 0x7FFF0000))  # allow
    code.append((0x06, 0, 0, 0x80000000 if kill else 0x50000 | ENOSYS))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


@pytest.fixture(scope="session")
def filter_bytes() -> Callable[..., bytes]:
    return _filter_bytes


@pytest.fixture(scope="session")
def forbid() -> Callable[..., None]:
    """Puts such a filter on the caller, as an outer container manager would."""

    def install(*names: str) -> None:
        data = _filter_bytes(*names)
        code = ctypes.create_string_buffer(data, len(data))
        program = struct.pack("HxxxxxxP", len(data) // 8, ctypes.addressof(code))
        if LIBC.prctl(22, 2, ctypes.c_char_p(program), 0, 0) < 0:  # PR_SET_SECCOMP
            raise OSError(ctypes.get_errno(), "seccomp")

    return install


@pytest.fixture
def wait_for() -> Callable[[Callable[[], bool], str], None]:
    """Waits until a condition holds."""

    def wait(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.002)

    return wait
