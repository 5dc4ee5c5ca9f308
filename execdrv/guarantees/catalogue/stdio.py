"""Standard streams and terminals.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="io.split",
        title=(
            "Standard output and standard error MUST arrive apart, each complete, in order and "
            "byte for byte."
        ),
        kind="functional",
        profile="base",
        outside="of a job that writes two patterns in turns: hash of each stream is its pattern's",
        control="the two patterns differ",
    ),
    Guarantee(
        id="io.big",
        title=(
            "64 MiB of output MUST reach a slow reader whole, without deadlock and without "
            "growing memory of the supervisor."
        ),
        kind="functional",
        profile="base",
        outside=(
            "of a job that writes a seeded pattern: hash is equal; resident memory of every "
            "process above the job stays bounded"
        ),
        control="the pattern is drawn anew in each run",
        references=("pipe(7)",),
    ),
    Guarantee(
        id="io.stdin",
        title=(
            "Standard input MUST be streamed to the job, its end included; when none was given it "
            "MUST be empty."
        ),
        kind="functional",
        profile="base",
        inside="reads to the end of file and prints the hash",
        control="a stream that is held open is not seen as ended",
    ),
    Guarantee(
        id="io.eof-daemon",
        title=(
            "The result MUST be returned in time although a grandchild still holds the output "
            "pipe open."
        ),
        kind="functional",
        profile="base",
        outside=(
            "of a job that leaves a process with the pipe: result within the window; the holder is "
            "ended with the container"
        ),
        control="while the command runs there is no result",
    ),
    Guarantee(
        id="io.closed-reader",
        title="When its reader has gone, the job MUST get SIGPIPE or EPIPE and MUST NOT hang.",
        kind="functional",
        profile="base",
        inside="logs the error of its write",
        outside="the job ends within the window",
        control="with a reader the same write succeeds",
        references=("pipe(7)",),
    ),
    Guarantee(
        id="tty.alloc",
        title=(
            "A terminal that was asked for MUST be one: isatty is true, its size is as asked, and "
            "a resize gives SIGWINCH and the new size."
        ),
        kind="functional",
        profile="container",
        needs=("tty",),
        inside="isatty, TIOCGWINSZ, log of SIGWINCH",
        outside="size read at the other end of the pty",
        references=("pty(7)", "ioctl_tty(2)"),
    ),
    Guarantee(
        id="tty.session",
        title=(
            "A job with a terminal MUST lead a session of its own with that terminal as its "
            "controlling one, never the caller's."
        ),
        kind="isolating",
        profile="container",
        needs=("tty",),
        inside="getsid, tcgetsid, and opening /dev/tty",
        outside="tty_nr of the process differs from the caller's",
        control="a plain child of the caller has the caller's terminal",
        references=("setsid(2)", "credentials(7)"),
    ),
    Guarantee(
        id="tty.no-inject",
        title=(
            "The job MUST NOT be able to type into the caller's terminal by TIOCSTI or TIOCLINUX, "
            "with high request bits set either."
        ),
        kind="isolating",
        profile="hardened",
        proof_needs=("tty", "tiocsti"),
        inside="tries each request on every descriptor and on /dev/tty",
        outside="the input queue of the caller's pty stays empty",
        control="a plain child of the caller types a character",
        references=("ioctl_tty(2)", "CVE-2017-5226", "CVE-2016-10124", "CVE-2019-10063"),
    ),
)
