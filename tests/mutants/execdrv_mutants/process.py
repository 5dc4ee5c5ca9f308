"""Mutants that start the job otherwise than asked, or misreport its end."""

from __future__ import annotations

import os
import time

from attrs import evolve

from execdrv.driver import Box, ExitReason, Isolated
from execdrv.errors import StartError
from execdrv.linux.procfs import ProcessId, detect_process
from execdrv.supervisor import capture, owner
from execdrv_mutants.change import change, is_agent, with_order
from execdrv_mutants.init import use_init
from execdrv_native.driver import NativeDriver


class _OtherInit(NativeDriver):
    """Runs the job below an init with one change."""

    init = ""

    def isolate(self, box: Box) -> Isolated:
        use_init(box, self.init)
        return super().isolate(box)


class ExitCodeMasked(_OtherInit):
    """Returns 1 for every exit code that is not 0."""

    name = "exit-code-masked-to-1"
    init = "exit-code-1"


class ExitCodeOfSevenBits(_OtherInit):
    """Returns the low seven bits of an exit code."""

    name = "exit-code-of-7-bits"
    init = "exit-code-7-bits"


class SignalAsExit(_OtherInit):
    """Returns exit code 0 for a death by signal."""

    name = "signal-as-exit-0"
    init = "signal-0"


class SigpipeIgnored(_OtherInit):
    """Starts the job with SIGPIPE ignored."""

    name = "sigpipe-ignored"
    init = "sigpipe-ignored"


class NoReaper(_OtherInit):
    """Its pid 1 never waits for orphans."""

    name = "no-reaper"
    init = "no-reaper"


class ShellTrue(NativeDriver):
    """Passes the command through a shell."""

    name = "shell-true"

    def start(self, box: Box) -> ProcessId:
        # Careful enough for spaces; what a shell does within double quotes it still does.
        words = b" ".join(b'"%s"' % word for word in box.process.argv)
        return super().start(with_order(box, argv=(b"/bin/sh", b"-c", b"exec " + words)))


class InheritsEnv(NativeDriver):
    """Adds variables of the machine's to the job's: those of whoever started it."""

    name = "inherits-env"

    def start(self, box: Box) -> ProcessId:
        caller = read_environment()
        return super().start(with_order(box, env=(*box.process.env, *caller)))


def read_environment() -> tuple[bytes, ...]:
    """Those of the first process: the supervisor itself has none."""
    with open("/proc/1/environ", "rb") as file:
        return tuple(word for word in file.read().split(b"\0") if b"=" in word)


class LeaksFd(NativeDriver):
    """Leaves a directory descriptor of the machine open in the job."""

    name = "leaks-fd"

    def isolate(self, box: Box) -> Isolated:
        # A number that nobody asks for, and a descriptor of the machine's root.
        box.passed[9] = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return super().isolate(box)

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, keep_fds=(*box.process.keep_fds, 9)))


class MergesStderr(NativeDriver):
    """Sends standard error to standard output."""

    name = "merges-stderr"

    def isolate(self, box: Box) -> Isolated:
        return super().isolate(evolve(box, stdio=(box.stdio[0], box.stdio[1], box.stdio[1])))


class Truncates(NativeDriver):
    """Drops output after 64 KiB, and does not say so."""

    name = "truncates-64k"

    def __init__(self) -> None:
        keep, finish = capture.Capture.__init__, capture.Capture.finish

        def finish_silently(self: capture.Capture) -> bytes:
            kept = finish(self)
            self.truncated = False
            return kept

        change(
            capture.Capture,
            __init__=lambda self, keep_bytes: keep(self, min(keep_bytes, 64 << 10)),
            finish=finish_silently,
        )


class SigtermIgnored(_OtherInit):
    """Starts the job with SIGTERM ignored."""

    name = "sigterm-ignored"
    init = "sigterm-ignored"


class SignalsBlocked(_OtherInit):
    """Starts the job with a signal blocked."""

    name = "signals-blocked"
    init = "signals-blocked"


class WrongCwd(NativeDriver):
    """Starts every job in the root directory."""

    name = "wrong-cwd"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, cwd=b"/"))


class WrongUmask(NativeDriver):
    """Starts every job with its own umask."""

    name = "wrong-umask"

    def start(self, box: Box) -> ProcessId:
        return super().start(with_order(box, umask=0o077))


class ExecErrorAsExit(NativeDriver):
    """Reports a command that can't be executed as one that exited with 127."""

    name = "exec-error-as-exit-127"

    def start(self, box: Box) -> ProcessId:
        try:
            return super().start(box)
        except StartError:
            pid = os.fork()
            if pid == 0:
                os._exit(127)
            found = detect_process(pid)
            if found is None:
                raise
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            return found

    def exit_of(self, box: Box, status: int) -> tuple[int | None, int | None]:
        return os.waitstatus_to_exitcode(status), None


class NoStdin(NativeDriver):
    """Gives the job an empty standard input, whatever was asked."""

    name = "no-stdin"

    def isolate(self, box: Box) -> Isolated:
        if is_agent(box):
            # Without its program every probe would be lost, and nothing told apart.
            return super().isolate(box)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return super().isolate(evolve(box, stdio=(null, *box.stdio[1:])))


class WaitsForStreams(NativeDriver):
    """Reports the end only when nobody holds the job's output any more."""

    name = "waits-for-streams"

    def __init__(self) -> None:
        finish = owner.Owner.finish

        def wait_and_finish(self: owner.Owner, reason: ExitReason | None = None) -> None:
            deadline = time.monotonic() + 20.0
            while reason is None and self.exit is None and time.monotonic() < deadline:
                # All of them, each time.
                if True not in [held.drain() for held in self.captures.values()]:
                    break
                time.sleep(0.01)
            finish(self, reason)

        change(owner.Owner, finish=wait_and_finish)
