"""What a driver declares, as the kit sees it: plain data, read once in the stand-in host.

From it follow, purely: what may be asked of the driver in a spec, and what its `when` means there.
The conditions are evaluated here and not by the host, from the spec as the kit sends it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

from execdrv.spec import ContainerSpec

#: Fields that a case may ask of any driver: without them nothing can be seen.
_ALWAYS = ("argv", "env", "rootfs", "name")


@attrs.frozen(kw_only=True)
class Declaration:
    """A driver class's constants, as plain data."""

    target: str
    options: Mapping[str, str]
    name: str
    version: str
    contract: int
    #: `Status.to_plain()` by id.
    statuses: Mapping[str, Mapping[str, Any]]
    #: uid, gid, capabilities, root_mode, net, namespaces.
    defaults: Mapping[str, Any]
    uses_group: bool
    #: Distribution and its version, and a hash of the class's source file.
    origin: Mapping[str, str]
    #: Why the driver can't work on this machine at all; empty: it can.
    unavailable: str = ""

    def to_plain(self) -> dict[str, Any]:
        """For the report."""
        return attrs.asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Declaration:
        """From the report."""
        return cls(**plain)

    def digest(self) -> str:
        """A hash of the statuses."""
        text = json.dumps(self.statuses, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def conditions(self, fields: Mapping[str, Any], machine: Mapping[str, bool]) -> dict[str, bool]:
        """Truth of every named condition for a spec.

        Args:
            fields: fields of the spec that are asked, by name.
            machine: facts of the machine.
        """
        defaults = self.defaults
        allowed = set(defaults["capabilities"])
        asked = set(allowed)
        if "ALL" in fields.get("cap_drop", ()):
            asked = set()
        asked -= set(fields.get("cap_drop", ()))
        added = set(fields.get("cap_add", ()))
        asked |= added  # "ALL" is in no default, so it counts as more
        user = str(fields["user"]).partition(":")[0] if "user" in fields else defaults["uid"]
        root_mode = fields.get("root_mode", defaults["root_mode"])
        net = fields.get("net", defaults["net"])
        limited = {"memory", "memory_swap", "cpus", "pids"} & set(fields)
        return {
            **machine,
            "job-not-root": str(user) not in ("0", "root"),
            "job-without-capabilities": not asked or str(user) not in ("0", "root", "None"),
            "capabilities-default": asked <= allowed,
            "own-uid": "user" not in fields and defaults["uid"] is None,
            "root-private": root_mode == "private",
            "root-read-only": root_mode == "read-only",
            "root-not-direct": root_mode != "direct",
            "net-none": net == "none",
            "net-own": net != "host",
            "group-made": self.uses_group or bool(limited),
            "memory-limited": "memory" in fields,
        }

    def is_offered(self, id: str, conditions: Mapping[str, bool]) -> bool:
        """Whether a spec that asks for a guarantee should pass."""
        status = self.statuses.get(id, {})
        kind = status.get("kind")
        if kind == "when":
            return bool(conditions.get(status.get("condition", ""), False))
        return kind in ("enforced", "partial")

    def leave_out(
        self, fields: Mapping[str, Any], machine: Mapping[str, bool]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The fields that this driver offers, and the others with the id that it lacks.

        One after the other: what is left out may change a condition.
        """
        kept = dict(fields)
        out: dict[str, str] = {}
        while True:
            conditions = self.conditions(kept, machine)
            asked = ContainerSpec(**{"argv": ["true"], **kept}).asked()
            lacking = next(
                (
                    (field, id)
                    for field, ids in asked.items()
                    if field not in _ALWAYS
                    for id in ids
                    if not self.is_offered(id, conditions)
                ),
                None,
            )
            if lacking is None:
                return kept, out
            field, id = lacking
            out[field] = id
            del kept[field]
            if field == "memory":
                kept.pop("memory_swap", None)
