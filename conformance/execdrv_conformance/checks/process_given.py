"""Checks of `proc`: what the job is given at its start: variables, directory, umask.

Most of them read what is gathered once, in one container; so does `process_inherited`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench, Look
from execdrv_conformance.check import Check, Gathered
from execdrv_conformance.checks.process_command import PROCESS
from execdrv_conformance.finding import Arm, Finding, expect, holds, violated
from execdrv_conformance.job import provoke_run
from execdrv_conformance.observe import process
from execdrv_conformance.standin.furnish import CALLER_UMASK

#: Numbers of descriptors that the job tries.
MOST_DESCRIPTORS = 4096
#: PATH and HOME come with every container (execdrv.driver.Defaults).
ALWAYS_SET = (b"PATH", b"HOME")


@attrs.frozen(kw_only=True)
class _Start:
    """What a job was given, told by itself and by the kernel."""

    inside: dict[str, Any]
    outside: dict[str, Any]


@contextlib.contextmanager
def _passed_file(bench: Bench) -> Iterator[int]:
    """A descriptor of the caller's, at a number of this run's own."""
    path = bench.scratch / bench.nonce()
    fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    number = bench.rng.randint(200, 900)
    try:
        os.dup2(fd, number, inheritable=False)
        yield number
    finally:
        os.close(fd)
        os.close(number)
        path.unlink()


@contextlib.contextmanager
def _open_directory(bench: Bench) -> Iterator[Path]:
    """A directory in the root that every user may write to."""
    path = bench.root / "opt" / bench.nonce()
    path.mkdir()
    path.chmod(0o777)
    try:
        yield path
    finally:
        for name in ("file", "folder"):
            with contextlib.suppress(FileNotFoundError):
                one = path / name
                one.rmdir() if one.is_dir() else one.unlink()
        path.rmdir()


def _gather_start(bench: Bench) -> _Start:
    variables = {
        "XDC_EMPTY": b"",
        "XDC_NEWLINE": b"a\nb=c\n",
        "XDC_BYTES": bytes(sorted(bench.rng.sample(range(1, 256), 60))),
        f"xdc.{bench.nonce()}": bench.nonce().encode(),
        "_": b" quoted ' \" $HOME ",
    }
    with _passed_file(bench) as number, _open_directory(bench) as directory:
        passed = os.fstat(number)
        with bench.agent(env=variables, pass_fds=(number,)) as look:
            sent = {os.fsencode(name): value for name, value in variables.items()}
            inside = look.agent.call(
                "process:list_variables", {"names": [name.hex() for name in sent]}
            )
            inside |= look.agent.call("process:list_descriptors", {"most": MOST_DESCRIPTORS})
            outside = {
                "sent": sorted((name + b"=" + value).hex() for name, value in sent.items()),
                "variables": _list_variables(look.pid, set(sent)),
                "descriptors": {str(n): to for n, to in process.read_fds(look.pid).items()},
                # The control gets no descriptor: what it has more is what it must show.
                "passed": number if "pass_fds" in look.fields and look.container else None,
                "passed_file": [passed.st_dev, passed.st_ino],
            }
            if look.container is not None:
                # One that fails, in a root that is not the kit's, has said nothing of the modes.
                with contextlib.suppress(AgentError):
                    inside |= look.agent.call(
                        "process:make_with_umask", {"directory": f"/opt/{directory.name}"}
                    )
                outside |= _look_at_modes(look, directory.name)
    return _Start(inside=inside, outside=outside)


def _list_variables(pid: int, names: set[bytes]) -> list[str]:
    """As the probe of that name: values of others' variables are not for a report."""
    pairs = [word.partition(b"=") for word in process.read_environment(pid)]
    return sorted((n + b"=" + (value if n in names else b"")).hex() for n, _, value in pairs)


def _look_at_modes(look: Look, name: str) -> dict[str, Any]:
    """What the probe has made; of what is not in that process's root nothing is said."""
    directory = Path(f"/proc/{look.pid}/root/opt/{name}")
    facts = {
        "umask": int(process.read_status(look.pid)["Umask"], 8),
        "caller_umask": CALLER_UMASK,
    }
    for made in ("file", "folder"):
        with contextlib.suppress(OSError):
            facts[made] = (directory / made).stat().st_mode & 0o777
    return facts


def start_facts(bench: Bench) -> Gathered:
    """What a job was given, by both sides; asked once a case."""
    start = bench.share(_gather_start)
    return start.inside, start.outside


def _judge_variables(words: list[Any], arm: Arm) -> Finding:
    got = [bytes.fromhex(word) for word in words]
    sent = [bytes.fromhex(word) for word in arm.outside.listed("sent")]
    names = {word.partition(b"=")[0] for word in sent}
    canary = arm.canaries.listed("variable")[0].encode()
    missing = [word for word in sent if got.count(word) != 1]
    more = [
        name
        for word in got
        if word not in sent and (name := word.partition(b"=")[0]) not in ALWAYS_SET
    ]
    doubled = [name for name in (*names, *ALWAYS_SET) if _count(got, name) != 1]
    if missing or more or doubled:
        caller = "the caller's canary among them" if canary in more else "no canary"
        return violated(
            f"missing {missing[:3]}, more {more[:5]} ({caller}), not once {doubled[:3]}"
        )
    return holds(f"{len(sent)} variables as sent, PATH and HOME, no other")


def _count(words: list[bytes], name: bytes) -> int:
    return sum(word.partition(b"=")[0] == name for word in words)


def _judge_modes(facts: Any, arm: Arm) -> Finding:
    # 022 is every driver's (execdrv.driver.Defaults), and there is no field to ask for another.
    file, folder = facts.number("file"), facts.number("folder")
    saw = f"a file got {file:04o}, a directory {folder:04o}"
    return expect((file, folder) == (0o644, 0o755), saw)


def _judge_umask(arm: Arm) -> Finding:
    modes = _judge_modes(arm.outside, arm)
    umask = arm.outside.number("umask")
    saw = f"umask {umask:04o} (the caller's is {arm.outside.number('caller_umask'):04o})"
    return expect(modes.state == "holds" and umask == 0o022, f"{saw}, {modes.saw}")


def _directories(bench: Bench) -> Gathered:
    wanted = bench.rng.choice(["/usr/lib", "/var", "/etc", "/usr/bin"])
    closed = bench.root / "opt" / bench.nonce()
    closed.mkdir()
    closed.chmod(0o700)
    try:
        with bench.agent(workdir=wanted) as look:
            inside = look.agent.call("process:describe_directory", {"path": wanted})
            here = process.identity(f"/proc/{look.pid}/cwd")
            there = process.identity(f"/proc/{look.pid}/root{wanted}")
        answers = {
            "missing": provoke_run(bench, workdir=f"/opt/{bench.nonce()}"),
            "a file": provoke_run(bench, workdir="/bin/true"),
            "closed to the user": provoke_run(
                bench, workdir=f"/opt/{closed.name}", user="54321:54321"
            ),
        }
    finally:
        closed.rmdir()
    inside |= {"wanted": wanted, "ran": [case for case, one in answers.items() if one["ran"]]}
    errors = {case: one["error"] and one["error"]["classes"][0] for case, one in answers.items()}
    return inside, {"same": here == there, "wanted": wanted, "errors": errors}


def _judge_directory_inside(arm: Arm) -> Finding:
    found, wanted = arm.inside.text("directory"), arm.inside.text("wanted")
    ran = arm.inside.listed("ran")
    saw = f"{found}, asked was {wanted}; ran though its directory is {ran or 'wrong: never'}"
    return expect(arm.inside.flag("same") and found == wanted and not ran, saw)


def _judge_directory(arm: Arm) -> Finding:
    # Of what class an error is, is for bad.typed.
    errors, same = arm.outside.table("errors"), arm.outside.flag("same")
    saw = f"{'the' if same else 'not the'} root's {arm.outside.text('wanted')}; errors {errors}"
    return expect(same and all(errors.values()), saw)


CHECKS = (
    Check(
        id="proc.env-exact",
        cases=(PROCESS,),
        scenario=start_facts,
        inside=lambda arm: _judge_variables(arm.inside.listed("variables"), arm),
        outside=lambda arm: _judge_variables(arm.outside.listed("variables"), arm),
        likely="the environment of the caller is passed on",
    ),
    Check(
        id="proc.cwd",
        cases=(PROCESS,),
        scenario=_directories,
        inside=_judge_directory_inside,
        outside=_judge_directory,
        likely="the directory is entered before the root is changed, or its error is dropped",
    ),
    Check(
        id="proc.umask",
        cases=(PROCESS,),
        scenario=start_facts,
        inside=lambda arm: _judge_modes(arm.inside, arm),
        outside=_judge_umask,
        likely="the umask of the caller is inherited",
    ),
)
