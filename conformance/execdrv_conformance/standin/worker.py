"""The worker: takes requests of the front end, one at a time, and answers with plain data.

    describe    a driver's declaration
    case        the evidence of a case in one arm
    request     what becomes of requests for what a driver declares absent

Runs in the stand-in host. It is the caller of every container, and so the one place where the kit
and a driver under test meet; the driver's own code runs in its supervisors.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import shutil
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from execdrv.driver import DriverRef
from execdrv.errors import ExecdrvError
from execdrv.host import Host
from execdrv_conformance.bench import DEADLINE_S, Bench
from execdrv_conformance.canary import Place
from execdrv_conformance.check import Check
from execdrv_conformance.checks import load_checks
from execdrv_conformance.collect import collect, collect_request, list_requests
from execdrv_conformance.declaration import Declaration
from execdrv_conformance.standin.furnish import Canaries, furnish


class Worker:
    """One stand-in host's worker.

    Args:
        run: the run's name.
        scratch: its directory, which has the root file system in `root`.
    """

    def __init__(self, *, run: str, scratch: str) -> None:
        self.place = Place(run=run, scratch=Path(scratch))
        self.canaries: Canaries = furnish(self.place)
        self.host = Host(root=str(self.place.scratch / "state"), deadline_s=DEADLINE_S)
        self.root = self.place.scratch / "root"
        self.machine: dict[str, bool] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked."""
        match request["ask"]:
            case "machine":
                return self._describe_machine()
            case "describe":
                return self._describe_driver(_reference(request))
            case "case":
                return self._run_case(request)
            case "request":
                return self._run_requests(request)
        raise ValueError(f"no request {request['ask']!r}")

    def _describe_machine(self) -> dict[str, Any]:
        from execdrv.guarantees.facts import MACHINE_FACTS
        from execdrv.machine import detect_facts

        self.machine = detect_facts(MACHINE_FACTS)
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return {
            "facts": self.machine,
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "cpus": len(os.sched_getaffinity(0)),
            "memory_bytes": pages,
            "uid": os.geteuid(),
        }

    def _describe_driver(self, reference: DriverRef) -> dict[str, Any]:
        plain = describe_driver(reference)
        # A plain container with nothing asked: what is refused then, no spec can mend.
        try:
            refusals = self.host.check(reference, ["true"], rootfs=self.root)
        except ExecdrvError:
            # A check that fails is the driver's fault, and shows in every case.
            refusals = []
        general = [one.message for one in refusals if not one.field and not one.guarantee]
        return {**plain, "unavailable": general[0] if general else ""}

    def _bench(self, request: dict[str, Any], words: str) -> Bench:
        return Bench(
            arm=request["arm"],
            driver=_reference(request),
            declaration=Declaration.from_plain(request["declaration"]),
            host=self.host,
            canaries=self.canaries,
            scratch=self.place.scratch,
            machine=request["machine"],
            rng=random.Random(f"{request['seed']}/{words}"),
            root=self.root,
        )

    def _run_case(self, request: dict[str, Any]) -> dict[str, Any]:
        checks = load_checks()
        chosen: list[Check] = [checks[id] for id in request["ids"]]
        case = next(
            case for check in chosen for case in check.cases if case.name == request["case"]
        )
        bench = self._bench(request, f"{request['arm']}/{case.name}")
        evidence = collect(bench, case, chosen)
        self.canaries.processes.revive()
        self.canaries.files.restore()
        return evidence

    def _run_requests(self, request: dict[str, Any]) -> dict[str, Any]:
        bench = self._bench(request, f"request/{request['id']}")
        requests = list_requests(load_checks()[request["id"]], bench)
        return {"requests": [collect_request(bench, fields) for fields in requests]}

    def close(self) -> None:
        """Destroy what the checks have left."""
        self.host.close()


def _reference(request: dict[str, Any]) -> DriverRef:
    return DriverRef(target=request["driver"]["target"], options=request["driver"]["options"])


def describe_driver(reference: DriverRef) -> dict[str, Any]:
    """A driver's declaration as plain data; its class is imported here, no method called."""
    from execdrv.plugins import load_driver

    cls = load_driver(reference)
    source = sys.modules[cls.__module__].__file__ or ""
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else ""
    defaults = cls.defaults
    return Declaration(
        target=reference.target,
        options=reference.options,
        name=cls.name,
        version=cls.version,
        contract=cls.contract,
        statuses={id: status.to_plain() for id, status in cls.offers.statuses().items()},
        defaults={
            "uid": defaults.uid,
            "gid": defaults.gid,
            "capabilities": sorted(defaults.capabilities),
            "root_mode": defaults.root_mode,
            "net": defaults.net,
            "namespaces": list(defaults.namespaces),
        },
        uses_group=cls.uses_group,
        origin={"module": cls.__module__, "class": cls.__qualname__, "source": digest},
    ).to_plain()


def serve(channel: socket.socket, *, run: str, scratch: str) -> None:
    """Answer the front end's requests until it closes its end."""
    # A test run's environment must not change what is measured.
    os.chdir("/")
    worker = Worker(run=run, scratch=scratch)
    _send(channel, {"ready": os.getpid()})
    try:
        for line in channel.makefile("rb"):
            try:
                answer = worker.answer(json.loads(line))
            except ExecdrvError as error:
                answer = {"refused": str(error), "hint": error.hint or ""}
            except Exception:
                answer = {"failed": traceback.format_exc()}
            _send(channel, answer)
    finally:
        worker.close()
        shutil.rmtree(worker.place.scratch / "state", ignore_errors=True)


def _send(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")
