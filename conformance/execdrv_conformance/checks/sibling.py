"""Two containers at once, gathered once for `net.siblings` and `ipc.siblings`."""

from __future__ import annotations

from typing import Any

from execdrv_conformance.agent import AgentError
from execdrv_conformance.bench import Bench
from execdrv_conformance.observe import process


def meet_siblings(bench: Bench) -> dict[str, dict[str, Any]]:
    """One container has listeners and objects, the other tries to reach them.

    Returns:
        Facts of both sides: what the second reached; what the first accepted, and the links of the
        namespaces of both.
    Raises:
        AgentError: one of them does not answer, or leaves out what it was asked.
    """
    word, key = bench.nonce(), bench.rng.randrange(1, 2**30)
    with_queue = bool(bench.machine.get("mqueue"))
    with bench.agent() as first, bench.agent() as second:
        port = first.agent.call("network:listen", {"name": word}).get("port")
        if not isinstance(port, int):
            raise AgentError(f"the first container listens on port {port!r}")
        objects = {"key": key, "name": word}
        made = first.agent.call("ipc:make_objects", {**objects, "with_queue": with_queue})
        try:
            network = second.agent.call("network:reach_sibling", {"port": port, "name": word})
            shared = second.agent.call("ipc:reach_objects", objects)
        finally:
            first.agent.call("ipc:remove_objects", {})
        accepted = first.agent.call("network:count_accepted", {})
        links = {
            kind: {
                name: process.read_namespaces(pid)[kind]
                for name, pid in (("caller", "self"), ("first", first.pid), ("second", second.pid))
            }
            for kind in ("net", "ipc")
        }
    return {
        "inside": {"network": network, "made": made.get("made"), "shared": shared},
        "outside": {"accepted": accepted, **links},
    }
