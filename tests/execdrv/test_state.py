"""The record and its directory: who may write it, what is refused, what a lock says."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from execdrv import registry as registry_module
from execdrv import state, wire
from execdrv.driver import DriverRef, Exit
from execdrv.errors import (
    ContainerExistsError,
    ContainerNotFoundError,
    CreateError,
    RecordError,
    SpecError,
    StateError,
    UsageError,
)
from execdrv.init import Order
from execdrv.limits import Receipt
from execdrv.linux.cgroups import GroupDir, GroupPlan
from execdrv.linux.procfs import ProcessId
from execdrv.registry import Registry
from execdrv.spec import ContainerSpec
from execdrv.state import Record, Root

RECORD = Record(
    boot_id="b",
    id="one",
    state="running",
    driver=DriverRef(target="native"),
    spec=ContainerSpec(argv=[b"\xff"]),
    created_at=1.5,
    supervisor=ProcessId(pid=1, start_time=2),
    root=Root(path=b"/r", device=1, inode=2),
    process=Order(uid=0, gid=0, argv=(b"true",)),
    group=GroupPlan(name="g", dirs=(GroupDir(path="/p", version=1, controllers=("pids",)),)),
    facts={"a": [1, {"b": None}]},
    init=ProcessId(pid=3, start_time=4),
    receipts=(Receipt("pids", "applied", "1", "2"),),
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "root"))


# --- transitions -------------------------------------------------------------------------------


def test_the_legal_path() -> None:
    found: Any = "creating"
    for operation in ("create", "isolate", "limit", "limit", "start", "limit", "signal"):
        found = state.next_state(operation, found, container="c")
    assert found == "running"


@pytest.mark.parametrize("operation", sorted(state.TRANSITIONS))
def test_every_other_step_is_refused_with_what_is_allowed(operation: str) -> None:
    every = {"creating", "created", "isolated", "ready", "running", "stopped", "destroying"}
    legal = set(state.TRANSITIONS[operation])
    for wrong in every - legal:
        with pytest.raises(StateError, match=f"it is {wrong}") as caught:
            state.next_state(operation, wrong, container="c")  # type: ignore[arg-type]
        assert set(caught.value.allowed or ()) == legal


def test_start_needs_limit_to_have_been_called() -> None:
    """So that no limit can be forgotten between isolate and start."""
    with pytest.raises(StateError):
        state.next_state("start", "isolated", container="c")


# --- claim and record --------------------------------------------------------------------------


def test_a_record_survives_the_disk(registry: Registry) -> None:
    directory = registry.claim("one")
    directory.write(RECORD)
    assert directory.read() == RECORD
    assert os.stat(os.path.join(directory.path, "record")).st_mode & 0o777 == 0o600


def test_the_directories_are_ours_alone(registry: Registry) -> None:
    registry.claim("one")
    for path in (registry.root, registry.containers_path, registry.path_of("one")):
        assert os.stat(path).st_mode & 0o777 == 0o700


def test_a_name_in_use_is_refused(registry: Registry) -> None:
    first = registry.claim("one")
    with pytest.raises(ContainerExistsError, match="'one': the name is in use"):
        registry.claim("one")
    first.close()
    # Nor is a lost container's name free: something of it may still be there.
    with pytest.raises(ContainerExistsError):
        registry.claim("one")


def test_of_many_claims_one_wins(registry: Registry) -> None:
    registry.open()
    results: list[object] = []

    def claim() -> None:
        try:
            results.append(registry.claim("one"))
        except ContainerExistsError as error:
            results.append(error)

    threads = [threading.Thread(target=claim) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(not isinstance(result, Exception) for result in results) == 1
    assert len(results) == 20


def test_a_full_disk_leaves_the_record_as_it_was(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = registry.claim("one")
    directory.write(RECORD)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        directory.write(attrs.evolve(RECORD, state="stopped"))
    monkeypatch.undo()
    assert directory.read() == RECORD


# --- life and death ----------------------------------------------------------------------------


def test_the_lock_says_who_lives(registry: Registry) -> None:
    directory = registry.claim("one")
    directory.write(RECORD)
    entry = registry.entry("one")
    assert entry is not None
    assert (entry.alive, entry.state) == (True, "running")
    assert registry.adopt("one") is None
    directory.close()
    entry = registry.entry("one")
    assert entry is not None
    assert (entry.alive, entry.state) == (False, "lost")
    adopted = registry.adopt("one")
    assert adopted is not None
    assert adopted.read() == RECORD


def test_a_container_with_an_exit_is_not_lost(registry: Registry) -> None:
    exit_ = Exit(code=0, signal=None, reason="exited", started=True)
    directory = registry.claim("one")
    directory.write(attrs.evolve(RECORD, state="stopped", exit=exit_))
    directory.close()
    entry = registry.entry("one")
    assert entry is not None
    assert entry.state == "stopped"


def test_adopting_nothing_is_an_error(registry: Registry) -> None:
    registry.open()
    with pytest.raises(ContainerNotFoundError, match="'none'"):
        registry.adopt("none")
    for name in ("..", "a/b", ""):
        with pytest.raises(SpecError):
            registry.adopt(name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "JSON"),
        (b"\x80garbage", "JSON"),
        (b"[]", "wanted an object"),
        (b'{"version": 99}', "version 99"),
        (b'{"version": 1}', "is missing"),
        (b"\x80\x04\x95\x1a\x00\x00\x00", "JSON"),  # the beginning of a pickle
    ],
)
def test_a_broken_record_is_marked_and_others_are_listed(
    registry: Registry, text: bytes, reason: str
) -> None:
    good, broken = registry.claim("good"), registry.claim("broken")
    good.write(attrs.evolve(RECORD, id="good"))
    Path(broken.path, "record").write_bytes(text)
    broken.close()
    entries = {entry.id: entry for entry in registry.entries()}
    assert entries["good"].state == "running"
    assert entries["broken"].state == "broken"
    assert reason in entries["broken"].problem
    with pytest.raises(RecordError, match="broken"):
        adopted = registry.adopt("broken")
        assert adopted is not None
        adopted.read()


def test_removal_follows_no_link(registry: Registry, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    directory = registry.claim("one")
    deep = Path(directory.path, "driver", "a")
    deep.mkdir(parents=True)
    (deep / "link").symlink_to(precious)
    (deep / "file\n\xff").write_text("x")
    assert directory.remove() == []
    assert not os.path.exists(directory.path)
    assert (precious / "file").read_text() == "x"


def test_a_newer_field_or_version_is_refused_by_name(registry: Registry) -> None:
    directory = registry.claim("one")
    data = {**wire.encode(RECORD), "colour": "red"}
    Path(directory.path, "record").write_bytes(wire.dumps(data))
    with pytest.raises(RecordError, match="unknown field 'colour'"):
        directory.read()


# --- the state directory -----------------------------------------------------------------------


def test_a_link_or_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(UsageError, match="not a directory"):
        Registry(str(tmp_path / "link")).open()
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    open_to_all.chmod(0o777)
    with pytest.raises(UsageError, match="not ours alone"):
        Registry(str(open_to_all)).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o700)
    os.chown(foreign, 1000, 1000)
    with pytest.raises(UsageError, match="not ours alone"):
        Registry(str(foreign)).open()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_records_of_another_user_are_not_read(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "containers/c").mkdir(parents=True)
    for name in (".", "containers", "containers/c"):
        (foreign / name).chmod(0o700)
        os.chown(foreign / name, 1000, 1000)
    registry = Registry(str(foreign))
    for look in (registry.names, registry.entries, lambda: registry.entry("c")):
        with pytest.raises(UsageError, match="not ours alone"):
            look()
    with pytest.raises(UsageError, match="not ours alone"):
        registry.adopt("c")
    assert os.listdir(foreign) == ["containers"]


def test_no_name_leads_out_of_the_state_directory(registry: Registry, tmp_path: Path) -> None:
    registry.open()
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    for name in ("../../outside", str(outside), "..", ""):
        assert registry.entry(name) is None


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CreateError, match="state directory"):
        Registry(str(tmp_path / "file" / "root")).open()


def test_where_the_state_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXECDRV_ROOT", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert registry_module.default_root() == "/run/execdrv"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert registry_module.default_root() == "/run/user/1000/execdrv"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(UsageError, match="XDG_RUNTIME_DIR is not set"):
        registry_module.default_root()
    monkeypatch.setenv("EXECDRV_ROOT", "/elsewhere")
    assert registry_module.default_root() == "/elsewhere"


def test_kernel_names_are_short_and_differ_by_root_and_id() -> None:
    names = {state.kernel_name(root, id) for root in ("/a", "/b") for id in ("x", "y" * 64)}
    assert len(names) == 4
    assert all(len(name) <= 24 and name.startswith("execdrv-") for name in names)


def test_a_fresh_id_is_a_legal_name() -> None:
    ids = {state.new_id() for _ in range(200)}
    assert len(ids) == 200
    assert all(state.check_name(id) == id and len(id) == 12 for id in ids)
