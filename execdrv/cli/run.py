"""`execdrv run`: a command in a container, from its options to its exit status.

    1. read the options; nothing is opened that stays
    2. fork the supervisor, before any plugin of others is imported
    3. load plugins; create, isolate, limit, start
    4. pass signals on until the container has ended
    5. destroy it, and say how it ended

Runs in the command, which has one thread until step 3; no driver's method runs in it. The command
is a subreaper: what a killed supervisor leaves comes to it, and is ended.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING

from execdrv.cli.forward import ENDING, SignalQueue
from execdrv.cli.outcome import Outcome, ResultFile
from execdrv.cli.output import Progress, complain, describe_error, write_error
from execdrv.cli.request import (
    DEFAULT_DRIVER,
    Request,
    check_passed,
    fill_spec_options,
    make_request,
)
from execdrv.driver import Exit
from execdrv.errors import (
    ContainerNotFoundError,
    StateError,
    SupervisorLostError,
    UnsupportedError,
)
from execdrv.host import Host
from execdrv.supervisor.launcher import ForkLauncher

if TYPE_CHECKING:
    from argparse import Namespace

    from execdrv.cli.parser import Parser
    from execdrv.container import Container


def fill_parser(parser: Parser) -> None:
    """The options of `run`."""
    parser.takes_command = True
    parser.usage = "execdrv run [OPTIONS] [--] COMMAND [ARGUMENT...]"
    fill_spec_options(parser)
    ours = parser.add_argument_group("execdrv itself")
    ours.add_argument("--dry-run", action="store_true", help="show the plan and every refusal")
    ours.add_argument("--result", metavar="FILE", help="write how it ended to FILE, as JSON")
    ours.add_argument(
        "--json", action="store_true", help="say how it ended as one line of JSON on stderr"
    )
    ours.add_argument(
        "--spec",
        metavar="FILE",
        help="a spec as `execdrv inspect --json` prints it; options replace its fields",
    )
    ours.add_argument(
        "--no-plugins", action="store_true", help="load nothing but what execdrv itself brings"
    )
    parser.finish(
        examples=[
            "execdrv run -- sh -c 'id; hostname'",
            "execdrv run --driver=lxc --memory 64M --cpus 0.5 --pids 16 -- make -j4",
            "execdrv run --rootfs ./tree --bind ./src:/src:ro --workdir /src -- ./build",
            "execdrv run --require pid.hidden,mem.limit-oom --memory 1G -- ./untrusted",
            "execdrv run --dry-run --memory 64M -- true",
        ],
        notes=[
            "exit status: the command's own; 128+n if signal n ended it; 137 if it was killed for",
            "memory or time; 125 if execdrv failed; 126 if the command can't be executed; 127 if",
            "it was not found.",
        ],
    )


def execute(options: Namespace) -> int:
    """Run the command; returns the exit status."""
    result = ResultFile(options.result) if options.result is not None else None
    driver = options.driver or os.environ.get("EXECDRV_DRIVER") or DEFAULT_DRIVER
    outcome = Outcome(driver=driver)
    try:
        refuse_ordinary_user(driver)
        request = make_request(options, os.environb)
        outcome.driver, outcome.spec = request.driver.target, request.spec
        check_passed(request.spec)
        if options.dry_run:
            from execdrv.cli.plan import show_plan

            return show_plan(request, options)
        run(request, options, outcome)
    except BrokenPipeError:
        raise
    except Exception as error:
        outcome.error = error
    if result is not None:
        result.write(outcome)
    report(outcome, options)
    return outcome.status


def refuse_ordinary_user(driver: str) -> None:
    """Every driver needs root as yet.

    Raises:
        UnsupportedError: this is an ordinary user's process.
    """
    if os.geteuid() != 0:
        raise UnsupportedError(
            f"cannot run as user {os.geteuid()}: driver {driver!r} needs root",
            hint="sudo execdrv run ...",
            driver=driver,
        )


def report(outcome: Outcome, options: Namespace) -> None:
    """Say on stderr what the exit status does not."""
    if options.json:
        import json

        write_error(json.dumps(outcome.to_plain(), allow_nan=False) + "\n")
    elif (line := outcome.explain()) is not None:
        complain(line)
    error = outcome.error
    if error is None:
        return
    if not options.json:
        complain(describe_error(error))
    if options.debug:
        import traceback

        write_error("".join(traceback.format_exception(error)))


def run(request: Request, options: Namespace, outcome: Outcome) -> None:
    """Steps 2 to 5; `outcome` has what is known also when it raises."""
    with contextlib.ExitStack() as stack:
        progress = Progress()
        host = stack.enter_context(
            Host(
                root=options.root,
                plugins=not options.no_plugins,
                launcher=ForkLauncher(),
                progress=progress,
            )
        )
        with progress:
            container = host.container(request.driver, request.spec, stdin=0, stdout=1, stderr=2)
        outcome.container = container.id
        # From here on; before, a signal ends the command, and the supervisor with its life line.
        signals = stack.enter_context(SignalQueue())
        try:
            warn_of_plugins(host)
            work(container, signals, outcome)
        except SupervisorLostError as error:
            outcome.error = _explain_loss(container, error)
        except Exception as error:
            outcome.error = error
        finally:
            destroy(host, container, outcome)


def warn_of_plugins(host: Host) -> None:
    """Load the plugins, and name those that can't be; the run goes on without them."""
    for failure in host.plugin_failures:
        complain(f"warning: {describe_error(failure.error)}")


def work(container: Container, signals: SignalQueue, outcome: Outcome) -> None:
    """Steps 3 and 4."""
    waiting: list[int] = []
    for operation in ("create", "isolate", "limit", "start"):
        waiting += signals.take()
        ending = next((number for number in waiting if number in ENDING), None)
        if ending is not None:
            outcome.exit = Exit(code=None, signal=ending, reason="signaled", started=False)
            return
        answer = getattr(container, operation)()
        if operation == "limit":
            outcome.receipts = answer
    for number in waiting:
        forward(container, number)
    outcome.exit = wait_and_forward(container, signals)


def wait_and_forward(container: Container, signals: SignalQueue) -> Exit:
    """Pass signals on until the container has ended.

    Raises:
        SupervisorLostError: the supervisor died.
    """
    end = container.fileno()
    poll = select.poll()
    poll.register(end, select.POLLIN)
    poll.register(signals.fileno(), select.POLLIN)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if end in ready:
            return container.wait()
        for number in signals.take():
            forward(container, number)


def forward(container: Container, signum: int) -> None:
    """Pass a signal on; one that asks for the end and can't be passed on ends the container."""
    try:
        container.signal(signum)
    except (StateError, ContainerNotFoundError, SupervisorLostError):
        # It has just ended: there is nobody to tell, and the wait knows.
        pass
    except UnsupportedError as error:
        complain(f"warning: {describe_error(error)}")
        if signum in ENDING:
            container.destroy()


def destroy(host: Host, container: Container, outcome: Outcome) -> None:
    """Step 5; a failure is the outcome, unless something failed before."""
    try:
        container.destroy()
        if isinstance(outcome.error, SupervisorLostError):
            # It may have died within `create`, before this process knew of a container.
            host.end_orphans()
            with contextlib.suppress(ContainerNotFoundError, StateError):
                host.collect(container.id)
    except Exception as error:
        if outcome.error is None:
            outcome.error = error
        else:
            complain(describe_error(error))


def _explain_loss(container: Container, error: SupervisorLostError) -> SupervisorLostError:
    lost = SupervisorLostError(
        f"cannot go on with container {container.id!r}: its supervisor died, and the command was "
        "ended with it",
        container=container.id,
    )
    lost.__cause__ = error
    return lost
