from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from execdrv.errors import ExecdrvError, OperationError, SpecError, StateError, UsageError
from execdrv.rootfs import (
    Root,
    cache,
    cache_dir,
    default_root,
    is_cached_root,
    list_roots,
    make_root,
    remove_root,
    use_root,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="other owners and mounts need root")

STRANGER = 54321


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def root(directory: str, tiny_base: None) -> Root:
    return make_root(cache=directory)


# --- where it is -------------------------------------------------------------------------------


def test_the_argument_beats_the_variable_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXECDRV_CACHE", "/from/variable")
    assert cache.cache_path("/given") == "/given"
    assert cache.cache_path() == "/from/variable"
    monkeypatch.setenv("EXECDRV_CACHE", "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache.cache_path() == "/var/cache/execdrv"


@pytest.mark.parametrize(
    ("xdg", "expected"), [("/x", "/x/execdrv"), ("not/absolute", "/h/.cache/execdrv")]
)
def test_an_ordinary_user_has_an_own_cache(
    monkeypatch: pytest.MonkeyPatch, xdg: str, expected: str
) -> None:
    monkeypatch.delenv("EXECDRV_CACHE", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", "/h")
    assert cache.cache_path() == expected


def test_it_is_made_for_its_owner_alone_to_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = cache_dir(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    assert made == str(tmp_path / "a" / "b")
    for path in (made, os.path.dirname(made)):
        assert os.stat(path).st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777, 0o1777])
def test_a_directory_that_others_may_write_is_refused(directory: str, mode: int) -> None:
    os.mkdir(directory)
    os.chmod(directory, mode)
    with pytest.raises(UsageError, match="others may write") as caught:
        cache_dir(directory)
    assert "EXECDRV_CACHE" in caught.value.hint
    assert os.stat(directory).st_mode & 0o7777 == mode


def test_a_directory_that_anybody_may_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "cache").mkdir(parents=True)
    above.chmod(0o777)
    with pytest.raises(UsageError, match="anybody may replace it"):
        cache_dir(str(above / "cache"))
    above.chmod(0o1777)  # as /tmp
    assert cache_dir(str(above / "cache")) == str(above / "cache")


@needs_root
def test_a_directory_of_somebody_else_is_refused(directory: str) -> None:
    os.mkdir(directory)
    os.chown(directory, STRANGER, STRANGER)
    with pytest.raises(UsageError, match=f"belongs to uid {STRANGER}"):
        cache_dir(directory)


@needs_root
def test_a_link_of_somebody_else_is_not_followed(tmp_path: Path) -> None:
    """E25: the name is taken beforehand by a link to a directory of ours."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (tmp_path / "cache").symlink_to(canary)
    assert cache_dir(str(tmp_path / "cache")) == str(canary)  # our own link is
    os.chown(canary, STRANGER, STRANGER)  # ... but not to somebody else's directory
    with pytest.raises(UsageError, match=f"belongs to uid {STRANGER}"):
        make_root(cache=str(tmp_path / "cache"))
    os.chown(canary, 0, 0)
    os.lchown(tmp_path / "cache", STRANGER, STRANGER)
    with pytest.raises(UsageError, match=f"belongs to uid {STRANGER}"):
        make_root(cache=str(tmp_path / "cache"))
    assert os.listdir(canary) == []


@pytest.mark.parametrize("name", ["make.lock", "default.json"])
def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / name).symlink_to(canary)
    with pytest.raises(ExecdrvError):
        make_root(cache=str(tmp_path / "cache"))
    assert not canary.exists()


def test_nothing_in_it_is_secret_or_open_to_others(directory: str, root: Root) -> None:
    modes = {
        name: os.lstat(f"{directory}/{name}").st_mode & 0o7777 for name in os.listdir(directory)
    }
    assert modes == {
        root.name: 0o755,
        f"{root.name}.json": 0o644,
        f"{root.name}.lock": 0o600,
        "default.json": 0o644,
        "make.lock": 0o600,
    }


# --- use, list, remove -------------------------------------------------------------------------


def test_the_list_shows_what_is_there(directory: str, root: Root) -> None:
    [listed] = list_roots(cache=directory)
    assert (listed.name, listed.path, listed.names) == (root.name, root.path, ())
    assert listed.digest == root.digest and listed.in_use is False
    sizes = [path.lstat().st_size for path in Path(root.path).rglob("*")
             if stat.S_ISREG(path.lstat().st_mode)]  # fmt: skip
    assert listed.size_bytes == sum(sizes) > 100_000
    assert abs(listed.made_at_s - os.stat(root.path).st_mtime) < 60


def test_looking_into_no_cache_makes_none(directory: str) -> None:
    assert list_roots(cache=directory) == []
    assert not is_cached_root("/usr", cache=directory)
    assert not os.path.exists(directory)


def test_a_root_in_use_is_not_removed(directory: str, root: Root) -> None:
    first, second = use_root(root), use_root(root)
    assert not os.get_inheritable(first)
    os.close(first)
    assert [listed.in_use for listed in list_roots(cache=directory)] == [True]
    with pytest.raises(StateError, match="a container uses it") as caught:
        remove_root(root.name, cache=directory)
    assert caught.value.hint
    assert default_root(cache=directory) == root
    os.close(second)
    assert [listed.in_use for listed in list_roots(cache=directory)] == [False]
    remove_root(root.name, cache=directory)


def test_use_ends_with_the_process(directory: str, root: Root) -> None:
    code = (
        "from execdrv.rootfs import *\n"
        f"fd = use_root(list_roots(cache={directory!r})[0]); print('used', flush=True); input()"
    )
    user = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True,
                            env={"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert user.stdout is not None and user.stdout.readline() == "used\n"
    with pytest.raises(StateError):
        remove_root(root.name, cache=directory)
    user.kill()
    user.communicate(timeout=10)
    remove_root(root.name, cache=directory)


def test_removal_leaves_nothing_of_it(directory: str, root: Root) -> None:
    remove_root(root.name, cache=directory)
    assert os.listdir(directory) == ["make.lock"]
    assert list_roots(cache=directory) == []
    with pytest.raises(UsageError, match="not in the cache"):
        use_root(root)
    assert default_root(cache=directory).digest == root.digest


@pytest.mark.usefixtures("tiny_base")
def test_removal_leaves_the_others(directory: str, root: Root) -> None:
    other = make_root(["true"], cache=directory)
    remove_root(root.name, cache=directory)
    said: list[str] = []
    assert make_root(["true"], cache=directory, progress=said.append) == other
    assert said == []


def test_a_root_removed_while_its_lock_is_waited_for_is_told(
    directory: str, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """use_root has opened the lock file when another process removes the root."""
    flock = fcntl.flock

    def remove_first(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_SH:
            remove_root(root.name, cache=directory)
        flock(fd, operation)

    monkeypatch.setattr("fcntl.flock", remove_first)
    with pytest.raises(UsageError, match="not in the cache"):
        use_root(root)


@pytest.mark.parametrize("name", ["", "nosuch", "..", "make.lock", "/", "base-0123456789ab", "a/b"])
def test_an_unknown_name_removes_nothing(directory: str, root: Root, name: str) -> None:
    before = sorted(os.listdir(directory))
    with pytest.raises(SpecError, match="none of that name") as caught:
        remove_root(name, cache=directory)
    assert caught.value.value == name
    assert sorted(os.listdir(directory)) == before


def test_removal_follows_no_link(directory: str, root: Root, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "kept").write_text("x")
    os.symlink(canary, f"{root.path}/tmp/link")
    os.symlink("/", f"{root.path}/tmp/all")
    remove_root(root.name, cache=directory)
    assert (canary / "kept").read_text() == "x"


@needs_root
@pytest.mark.parametrize("kind", ["-t tmpfs none", "--bind canary"])
def test_removal_enters_no_mount(directory: str, root: Root, tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "kept").write_text("x")
    script = (
        f'cd "$0" && mount {kind} {root.path}/mnt && shift 0 && '
        f'"$1" -c "from execdrv.rootfs import *; remove_root({root.name!r}, cache={directory!r})"'
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, str(tmp_path), sys.executable],
                          env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "StateError" in done.stderr and "something is mounted in it" in done.stderr
    assert (canary / "kept").read_text() == "x"
    assert default_root(cache=directory) == root


def test_a_removal_that_was_killed_is_gone_on_with(directory: str, root: Root) -> None:
    os.rename(root.path, f"{directory}/.removing-{root.name}")
    make_root(["cat"], cache=directory)
    assert not [name for name in os.listdir(directory) if root.name in name]


def test_a_lock_left_with_a_forked_process_does_not_block(directory: str, root: Root) -> None:
    """Another thread forks while the lock is held: the child has a copy of the descriptor."""
    read_end, write_end = os.pipe()
    with cache.locked(directory):
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)
            os._exit(0)
    os.close(read_end)
    code = f"from execdrv.rootfs import *; remove_root({root.name!r}, cache={directory!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20,
                   env={"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    os.close(write_end)
    os.waitpid(child, 0)


# --- is it shared ------------------------------------------------------------------------------


def test_a_cached_root_is_known_by_every_name(
    directory: str, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(root.path)
    inside = (
        root.path,
        f"{root.path}/usr/bin",
        str(tmp_path / "link"),
        f"{directory}/x/../{root.name}",
    )
    for path in (*inside, directory, os.fsencode(root.path)):
        assert is_cached_root(path, cache=directory), path
    monkeypatch.chdir(root.path)
    assert is_cached_root(".", cache=directory)
    for other in (str(tmp_path), "/", f"{directory}-other", str(tmp_path / "not-there")):
        assert not is_cached_root(other, cache=directory), other


def test_a_root_of_another_cache_is_known_too(root: Root, tmp_path: Path) -> None:
    assert is_cached_root(f"{root.path}/usr", cache=str(tmp_path / "another"))


def test_failing_to_lock_is_told(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_fd: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OperationError, match="No locks available"):
        make_root(cache=directory)
