"""A handle after its container's end: what it remembers, and what it refuses."""

from __future__ import annotations

import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from execdrv import Host
from execdrv.container import Container
from execdrv.driver import Exit
from execdrv.errors import (
    CommandNotFoundError,
    ContainerNotFoundError,
    ExecdrvError,
    StateError,
    SupervisorLostError,
)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static"),
]

STEPS = ("create", "isolate", "limit")


@pytest.fixture(scope="module")
def R(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("container") / "R"
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    for applet in ("sh", "sleep", "echo"):
        (root / "bin" / applet).symlink_to("busybox")
    return root


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    state = tmp_path / "state"
    with Host(root=str(state)) as opened:
        yield opened
    assert list((state / "containers").iterdir() if state.exists() else []) == []


@pytest.fixture(params=["native", "lxc", "chroot"])
def driver(request: pytest.FixtureRequest) -> str:
    if request.param == "lxc":
        from execdrv_lxc import binding

        obstacle = binding.detect_obstacle()
        if obstacle is not None:
            pytest.skip(obstacle)
    return str(request.param)


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def reached_sleep(container: Container) -> bool:
    pid = container.inspect()["job"]["pid"]
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"


def error_of(call: Callable[[], object]) -> ExecdrvError:
    with pytest.raises(ExecdrvError) as caught:
        call()
    return caught.value


# --- how it ended ------------------------------------------------------------------------------


def test_a_destroyed_container_tells_how_it_ended_again_and_again(
    host: Host, R: Path, driver: str
) -> None:
    container = host.start(driver, ["sleep", "60"], rootfs=R)
    container.destroy()
    exit = container.wait(timeout_s=0)
    assert (exit.code, exit.signal, exit.reason) == (None, signal.SIGKILL, "destroyed")
    assert exit.started is True
    assert container.wait() is exit
    assert container.exit is exit
    container.destroy()
    assert container.wait() is exit


def test_an_end_that_nobody_waited_for_is_known_after_destroy(
    host: Host, R: Path, driver: str
) -> None:
    with host.start(driver, ["sh", "-c", "echo word; exit 7"], rootfs=R, capture=99) as container:
        wait_until(lambda: container.state == "stopped")
    exit = container.wait()
    assert (exit.code, exit.reason, exit.stdout) == (7, "exited", b"word\n")


def test_output_until_destroy_is_kept(host: Host, R: Path) -> None:
    argv = ["sh", "-c", "echo word; exec sleep 60"]
    with host.start("native", argv, rootfs=R, capture=99) as container:
        wait_until(lambda: reached_sleep(container))
    assert container.wait().stdout == b"word\n"


def test_who_asked_to_be_told_and_then_destroys_knows_the_end(host: Host, R: Path) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    assert select.select([container], [], [], 0)[0] == []
    container.destroy()
    assert container.wait().reason == "destroyed"


def test_a_second_handle_that_destroys_knows_the_end(host: Host, R: Path) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    other = host.get(container.id)
    other.destroy()
    assert other.wait().reason == "destroyed"


@pytest.mark.parametrize("steps", range(len(STEPS) + 1))
def test_what_was_never_started_says_so(host: Host, R: Path, driver: str, steps: int) -> None:
    container = host.container(driver, ["sleep", "60"], rootfs=R)
    for step in STEPS[:steps]:
        getattr(container, step)()
    container.destroy()
    error = error_of(container.wait)
    assert isinstance(error, StateError)
    assert "is destroyed, and was never started" in str(error)
    assert (error.operation, error.state) == ("wait", "destroyed")
    assert container.state == "destroyed"
    assert container.exit is None


def test_what_failed_to_start_was_never_started(host: Host, R: Path) -> None:
    with host.container("native", ["nosuch"], rootfs=R) as container:
        for step in STEPS:
            getattr(container, step)()
        with pytest.raises(CommandNotFoundError):
            container.start()
    with pytest.raises(StateError, match="was never started"):
        container.wait()


def test_the_end_of_a_lost_container_is_not_made_up(host: Host, R: Path) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    os.kill(container.inspect()["supervisor"]["pid"], signal.SIGKILL)
    wait_until(lambda: container.state == "lost")
    container.destroy()
    error = error_of(container.wait)
    assert isinstance(error, SupervisorLostError)
    # Nothing is left for the collector that the other hint names.
    assert "died" in str(error) and "gc" not in error.hint


def test_the_end_in_a_lost_containers_record_is_known_after_destroy(host: Host, R: Path) -> None:
    container = host.start("native", ["sh", "-c", "exit 7"], rootfs=R)
    wait_until(lambda: container.state == "stopped")
    os.kill(container.inspect()["supervisor"]["pid"], signal.SIGKILL)
    container.destroy()
    assert container.wait().code == 7


def test_the_end_of_what_somebody_else_destroyed_is_unknown(host: Host, R: Path) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    host.destroy(container.id)
    for _ in range(2):
        with pytest.raises(StateError, match="is destroyed, and nobody has kept how it ended"):
            container.wait()
        container.destroy()


# --- other operations --------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Container], object]] = {
    "create": Container.create,
    "isolate": Container.isolate,
    "limit": lambda container: container.limit(pids=9),
    "start": Container.start,
    "signal": lambda container: container.signal(0),
}
ALLOWED = {
    "create": ["creating"],
    "isolate": ["created"],
    "limit": ["isolated", "ready", "running"],
    "start": ["ready"],
    "signal": ["running"],
}


@pytest.mark.parametrize("by", ["this handle", "another"])
def test_operations_on_a_destroyed_container_are_refused(
    host: Host, R: Path, driver: str, by: str
) -> None:
    container = host.start(driver, ["sleep", "60"], rootfs=R)
    if by == "another":
        host.destroy(container.id)
    else:
        container.destroy()
    for name, call in OPERATIONS.items():
        error = error_of(lambda call=call: call(container))  # type: ignore[misc]
        assert isinstance(error, StateError), (name, error)
        assert f"cannot {name} container '{container.id}': it is destroyed, not " in str(error)
        assert (error.container, error.operation) == (container.id, name)
        assert (error.state, error.allowed) == ("destroyed", ALLOWED[name])
    assert container.state == "destroyed"
    with pytest.raises(ContainerNotFoundError):
        container.inspect()
    container.destroy()


@pytest.mark.parametrize("steps", range(3))
def test_a_container_destroyed_before_it_ran_takes_no_more_steps(
    host: Host, R: Path, steps: int
) -> None:
    container = host.container("native", ["sleep", "60"], rootfs=R)
    for step in STEPS[:steps]:
        getattr(container, step)()
    container.destroy()
    with pytest.raises(StateError, match="it is destroyed, not"):
        getattr(container, STEPS[steps])()
    with pytest.raises(StateError, match="is destroyed"):
        container.fileno()


def test_a_destroyed_containers_handle_leaves_its_names_next_owner_alone(
    host: Host, R: Path
) -> None:
    old = host.start("native", ["sleep", "60"], rootfs=R, name="shared")
    old.destroy()
    with host.start("native", ["sleep", "60"], rootfs=R, name="shared") as new:
        old.destroy()
        with pytest.raises(StateError):
            old.signal(signal.SIGKILL)
        assert old.state == "destroyed"
        assert isinstance(old.exit, Exit)
        assert old.wait(timeout_s=0).reason == "destroyed"
        time.sleep(0.05)
        assert new.state == "running"


@pytest.mark.parametrize("loses", [False, True])
def test_destroy_leaves_the_answer_to_a_thread_that_waits(host: Host, R: Path, loses: bool) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    supervisor = container.inspect()["supervisor"]["pid"]
    # As the other thread does, which gives up just now.
    with container._client._wait_lock:
        if loses:
            os.kill(supervisor, signal.SIGKILL)
            wait_until(lambda: container.state == "lost")
        container.destroy()
    if not loses:
        assert container.wait().reason == "destroyed"
    else:
        for _ in range(2):
            error = error_of(container.wait)
            assert "never started" not in str(error)
    container.close()


def test_destroy_leaves_the_connection_to_a_thread_that_takes_the_answer(
    host: Host, R: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = host.start("native", ["sleep", "60"], rootfs=R)
    container.fileno()
    connection = container._client._waiting
    assert connection is not None
    finish = connection.finish
    taking, go_on = threading.Event(), threading.Event()

    def take_slowly(operation: str, *, timeout_s: float) -> object:
        taking.set()
        go_on.wait(10)
        return finish(operation, timeout_s=timeout_s)

    close = container._client.close

    def close_late() -> None:
        taking.wait(10)
        close()

    monkeypatch.setattr(connection, "finish", take_slowly)
    monkeypatch.setattr(container._client, "close", close_late)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(container.wait, 10)
        wait_until(container._client._wait_lock.locked)
        container.destroy()
        go_on.set()
        assert future.result(timeout=10).reason == "destroyed"
    assert container.wait().reason == "destroyed"


def test_threads_that_destroy_at_once_all_know_the_end(host: Host, R: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            container = host.start("native", ["sleep", "60"], rootfs=R)
            before = [pool.submit(container.wait, 10) for _ in range(2)]
            ends = [pool.submit(container.destroy) for _ in range(2)]
            for future in ends:
                future.result(timeout=10)
            reasons = [future.result(timeout=10).reason for future in before]
            assert [*reasons, container.wait().reason] == ["destroyed"] * 3
