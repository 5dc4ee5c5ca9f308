"""What a container holds while it is there: its directory with lock and record, and its uid.

Others see a container by these alone: the lock says that its supervisor lives, the record in which
state it is and what a collector would have to remove. So it is taken before anything is made, and
given up after everything is gone. Runs in the supervisor, which alone writes the record.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import attrs

from execdrv.errors import CleanupError
from execdrv.linux.leases import Lease, lease_id
from execdrv.registry import ContainerDirectory, Registry
from execdrv.state import Record, State, next_state


class Claim:
    """One container's claim on its id and its uid; empty until it takes them.

    Args:
        registry: the state directory.
        container: the id.
    """

    def __init__(self, registry: Registry, container: str) -> None:
        self._registry = registry
        self._container = container
        self._directory: ContainerDirectory | None = None
        self._lease: Lease | None = None
        self._facts: Mapping[str, Any] = {}
        #: As it was last written; None before `write_first`.
        self.record: Record | None = None

    @property
    def directory_fd(self) -> int:
        """Descriptor of the container's directory; -1 where there is none."""
        return self._directory.fd if self._directory is not None else -1

    @property
    def state(self) -> State:
        return self.record.state if self.record is not None else "creating"

    # --- taking --------------------------------------------------------------------------------

    def take_lease(self) -> int:
        """A uid of the container's own, held until the container is gone.

        Raises:
            CreateError: all are taken, or the lease can't be made.
            UsageError: the directory of leases is not ours alone.
        """
        Registry(os.path.dirname(self._registry.leases_path)).open()
        self._lease = lease_id(self._registry.leases_path)
        return self._lease.number

    def take_directory(self) -> str:
        """The id: its directory, locked. Returns the path.

        Raises:
            ContainerExistsError: the id is in use.
            CreateError: the directory can't be made; nothing is left of it.
        """
        self._directory = self._registry.claim(self._container)
        return self._directory.path

    # --- the record ----------------------------------------------------------------------------

    def write_first(self, record: Record, *, facts: Mapping[str, Any]) -> None:
        """Write the first record.

        Args:
            facts: the driver's own lines, which it goes on to change: each write takes them anew.
        Raises:
            OSError: it was not written.
        """
        self._facts = facts
        self._write(record)

    def require(self, operation: str) -> None:
        """Pass only an operation that is legal now.

        Raises:
            StateError: it is not.
        """
        next_state(operation, self.state, container=self._container)

    def advance(self, operation: str, **changes: Any) -> None:
        """Write the state after an operation, and what else it changed."""
        state = next_state(operation, self.state, container=self._container)
        self.update(state=state, **changes)

    def update(self, **changes: Any) -> None:
        """Write changed fields; a container goes on without them where the disk is full."""
        if self.record is not None:
            with contextlib.suppress(OSError):
                self._write(attrs.evolve(self.record, facts=dict(self._facts), **changes))

    def keep_facts(self) -> None:
        """Write the driver's own lines, if it changed them."""
        if self.record is not None and dict(self._facts) != self.record.facts:
            self.update()

    def _write(self, record: Record) -> None:
        if self._directory is not None:
            self._directory.write(record)
        self.record = record

    # --- giving up -----------------------------------------------------------------------------

    def release(self) -> None:
        """Remove the directory, and give back the uid: nothing of the container is left.

        Raises:
            CleanupError: something of the directory is left, and with it the lock and the uid.
        """
        if self._directory is None:
            return
        leftovers = self._directory.remove()
        if leftovers:
            raise CleanupError(
                f"cannot remove container {self._container!r} wholly: left is {leftovers[0]}",
                hint="`execdrv gc` tries again",
                leftovers=leftovers,
            )
        self._directory.close()
        self.release_lease()
        self._directory = None

    def abandon(self) -> None:
        """Undo of `take_directory`, with the record in it; leaves what it can't remove."""
        if self._directory is not None:
            self._directory.remove()
            self._directory.close()
        self._directory = self.record = None

    def release_lease(self) -> None:
        """Give back the uid, if there is one. Repeatable."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
