from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from execdrv.errors import ExecdrvError, OperationError, SpecError, UsageError
from execdrv.rootfs import Root, default_root, is_cached_root, list_roots, make_root, verify_root
from execdrv.rootfs.skeleton import DIRECTORIES, FILES, NODES

Runner = Callable[..., subprocess.CompletedProcess[str]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and device nodes need root")

STRANGER = 54321


def walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = os.path.join(directory, name)
            yield path, os.lstat(path)


def leftovers(cache: str) -> list[str]:
    return [name for name in os.listdir(cache) if name.startswith(".")]


def make_program(path: Path, text: str = "echo made\n", mode: int = 0o755) -> str:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(mode)
    return str(path)


# --- what is in a root -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("echo $((6*7))", "42"),
        ("ls /", "usr"),
        ("id -u", "0"),
        ("ip -o link", "lo"),
        ("echo abc | grep -c b", "1"),
        ("echo abc | sed s/b/x/", "axc"),
        ("hostname >/dev/null; echo $?", "0"),
        ("find /etc -name passwd", "/etc/passwd"),
        ("awk 'BEGIN { print 40 + 2 }'", "42"),
        ("getent hosts localhost | wc -l", "1"),
        ("ls -ld /tmp | cut -c1-10", "drwxr-xr-x"),
        ("head -c 4 /dev/urandom | wc -c", "4"),
        ("ls -l /usr/bin | awk '$3 != \"root\" && NR > 1' | wc -l", "0"),
    ],
)
def test_the_base_runs_in_a_chroot(
    base_root: Root, run_in: Runner, command: str, shown: str
) -> None:
    if command.split()[0] in base_root.missing:
        pytest.skip(f"this machine has no {command.split()[0]}")
    done = run_in(base_root.path, "/bin/sh", "-c", command)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


@needs_root
def test_ps_shows_the_processes_of_its_own_proc(base_root: Root) -> None:
    if "ps" in base_root.missing:
        pytest.skip("this machine has no ps")
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" /bin/ps -e -o pid=,comm='
    command = ["unshare", "-mpf", "sh", "-c", script, base_root.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "ps"]), done.stderr


def test_every_program_of_the_base_finds_its_libraries(base_root: Root, run_in: Runner) -> None:
    """The loader's own --list, inside: what a job will meet."""
    programs = [
        f"/usr/{place}/{name}"
        for place in ("bin", "sbin")
        for name in os.listdir(f"{base_root.path}/usr/{place}")
    ]
    [loader] = [name for name in os.listdir(f"{base_root.path}/usr/lib64") if "ld-" in name] or [""]
    if not loader:
        pytest.skip("the loader of this machine is not in /lib64")
    script = 'for p; do "$0" --list "$p" || echo "$p fails"; done'
    done = run_in(base_root.path, "/bin/sh", "-c", script, f"/lib64/{loader}", *programs)
    assert len(programs) > 80
    assert [
        line for line in done.stdout.splitlines() if "not found" in line or "fails" in line
    ] == []


def test_python3_has_its_modules_and_their_libraries(python_root: Root, run_in: Runner) -> None:
    code = "import json, socket, ctypes, struct, encodings.idna, ssl, sqlite3, bz2, lzma, hashlib"
    done = run_in(python_root.path, "/usr/bin/python3", "-I", "-S", "-c", code, uid=STRANGER)
    assert (done.returncode, done.stderr) == (0, "")


def test_python3_does_not_compile_at_each_start(python_root: Root, run_in: Runner) -> None:
    command = ("/usr/bin/python3", "-I", "-S", "-v", "-c", "import json")
    done = run_in(python_root.path, *command, uid=STRANGER)
    assert done.returncode == 0
    assert "code object from /" not in done.stderr  # what -v says of a source it had to compile
    assert "code object from '/" in done.stderr  # ... and of a compiled file that fits


def test_python3_carries_no_tests_and_no_packages(python_root: Root) -> None:
    names = {os.path.basename(path) for path, _seen in walk(f"{python_root.path}/usr/lib")}
    assert "encodings" in names
    assert names.isdisjoint({"test", "tests", "idlelib", "tkinter", "ensurepip", "site-packages"})


def test_no_file_is_shared_with_the_machine(python_root: Root) -> None:
    files = [(path, seen) for path, seen in walk(python_root.path) if stat.S_ISREG(seen.st_mode)]
    assert len(files) > 500
    assert [path for path, seen in files if seen.st_nlink != 1] == []
    for path, seen in files:
        source = path.removeprefix(python_root.path)
        if os.path.exists(source):
            assert not os.path.samestat(os.stat(source), seen), path


def test_nobody_but_root_can_write_anywhere(
    base_root: Root, python_root: Root, run_in: Runner
) -> None:
    for root in (base_root, python_root):
        assert os.stat(root.path).st_mode & 0o7777 == 0o755
        for path, seen in walk(root.path):
            if not stat.S_ISLNK(seen.st_mode) and not stat.S_ISCHR(seen.st_mode):
                assert not seen.st_mode & 0o7022, path
            assert (seen.st_uid, seen.st_gid) == (0, 0), path
        command = "find / -writable ! -type l ! -type c; echo done"
        done = run_in(root.path, "/bin/sh", "-c", command, uid=STRANGER)
        assert done.stdout == "done\n"


@needs_root
def test_device_nodes_are_right(base_root: Root) -> None:
    for place, node in NODES.items():
        seen = os.lstat(f"{base_root.path}/{place}")
        assert stat.S_ISCHR(seen.st_mode) and seen.st_mode & 0o7777 == 0o666
        assert (os.major(seen.st_rdev), os.minor(seen.st_rdev)) == (node.major, node.minor)


def test_directories_and_settings_are_our_own(base_root: Root) -> None:
    for place in DIRECTORIES:
        assert os.path.isdir(f"{base_root.path}/{place}")
    for place, text in FILES.items():
        assert Path(f"{base_root.path}/{place}").read_text() == text
    assert sorted(os.listdir(f"{base_root.path}/etc")) == sorted(
        place.removeprefix("etc/") for place in FILES
    )


def test_links_lead_nowhere_else(python_root: Root) -> None:
    links = [path for path, seen in walk(python_root.path) if stat.S_ISLNK(seen.st_mode)]
    assert {"bin", "sbin", "lib", "lib64"} <= {os.path.relpath(p, python_root.path) for p in links}
    for path in links:
        assert not os.readlink(path).startswith("/"), path
        assert os.path.realpath(path).startswith(python_root.path + "/"), path
        assert os.path.exists(path), path


@pytest.mark.usefixtures("tiny_base")
def test_special_bits_and_write_bits_are_dropped(tmp_path: Path, open_dir: Path) -> None:
    wild = make_program(open_dir / "wild", mode=0o6777)
    directory = open_dir / "tree"
    directory.mkdir()
    directory.chmod(0o2777)
    make_program(directory / "kept", mode=0o755)
    (directory / "secret").write_text("s")
    (directory / "secret").chmod(0o600)
    root = make_root([wild, str(directory)], output=str(tmp_path / "out"))
    modes = {
        place: os.stat(root.path + place).st_mode & 0o7777
        for place in (wild, str(directory), f"{directory}/kept", f"{directory}/secret")
    }
    assert list(modes.values()) == [0o755, 0o755, 0o755, 0o600]


# --- the cache ---------------------------------------------------------------------------------


def test_the_default_root_is_made_once(base_root: Root, shared_cache: str) -> None:
    said: list[str] = []
    again = default_root(cache=shared_cache, progress=said.append)
    assert (again.path, again.digest, said) == (base_root.path, base_root.digest, [])
    assert os.path.dirname(again.path) == os.path.realpath(shared_cache)
    assert again.name == f"base-{again.digest[:12]}"


def test_the_way_of_a_run_loads_nothing_slow(base_root: Root, shared_cache: str) -> None:
    code = (
        "import sys, execdrv.rootfs as r; before = set(sys.modules)\n"
        f"r.use_root(r.default_root(cache={shared_cache!r}))\n"
        "slow = {'elftools', 'hashlib', 'subprocess', 'tempfile', 'ctypes', 'shutil', 'logging',"
        " 'importlib.metadata', 'email', 'dataclasses', 'execdrv.rootfs.recipe'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.usefixtures("tiny_base")
def test_the_same_content_has_the_same_name(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    private = make_root(output=str(tmp_path / "out"))
    shared = make_root(cache=cache)
    assert shared.names == private.names == ()
    assert shared.digest != private.digest  # /tmp is 1777 in a private tree
    for scratch in ("tmp", "var/tmp", "dev/shm"):
        os.chmod(f"{private.path}/{scratch}", 0o755)
    verify_root(Root(name="x", path=private.path, names=(), digest=shared.digest))


@pytest.mark.usefixtures("tiny_base")
def test_two_requests_with_one_outcome_share_the_tree(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    make_root(["cat", "cat"], cache=cache)
    make_root(["/usr/bin/cat"], cache=cache)
    assert [root.name.partition("-")[0] for root in list_roots(cache=cache)] == ["cat"]
    said: list[str] = []
    make_root(["cat"], cache=cache, progress=said.append)
    make_root(["/usr/bin/cat"], cache=cache, progress=said.append)
    assert said == []


@pytest.mark.usefixtures("tiny_base")
def test_a_change_on_the_machine_makes_a_new_root(tmp_path: Path, open_dir: Path) -> None:
    cache = str(tmp_path / "cache")
    program = make_program(open_dir / "tool", "echo one\n")
    first = make_root([program], cache=cache)
    make_program(open_dir / "tool", "echo two\n")
    second = make_root([program], cache=cache)
    assert second.digest != first.digest
    assert "two" in Path(second.path + program).read_text()
    assert "one" in Path(first.path + program).read_text()


def test_processes_at_once_share_one_tree(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    code = (
        "from execdrv.rootfs import *\n"
        f"root = default_root(cache={cache!r}); verify_root(root); print(root.path)"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(3)
    ]
    answers = {racer.communicate(timeout=60)[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(answers) == 1
    assert [root.path + "\n" for root in list_roots(cache=cache)] == list(answers)
    assert leftovers(cache) == []


@pytest.mark.usefixtures("tiny_base")
def test_threads_at_once_share_one_tree(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    found: list[str] = []
    copied: list[str] = []

    def make() -> None:
        found.append(default_root(cache=cache, progress=copied.append).path)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6 and len(set(found)) == 1
    assert len([line for line in copied if line.startswith("copying")]) == 1


@pytest.mark.parametrize("moment", ["looking", "copying", "checking"])
def test_a_killed_make_is_cleared_by_the_next(tmp_path: Path, moment: str) -> None:
    cache = str(tmp_path / "cache")
    code = (
        "import os\n"
        "from execdrv.rootfs import make_root, recipe\n"
        "recipe.CORE, recipe.OPTIONAL = {'dash': 'sh', 'coreutils': 'cat'}, {}\n"
        f"def die(line):\n    line.startswith({moment!r}) and os.kill(os.getpid(), 9)\n"
        f"make_root(cache={cache!r}, progress=die)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], check=False, env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(leftovers(cache)) == 1 and list_roots(cache=cache) == []
    root = make_root(["cat"], cache=cache)
    assert leftovers(cache) == []
    verify_root(root)


@pytest.mark.usefixtures("tiny_base")
def test_a_make_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def stop(line: str) -> None:
        if line.startswith("checking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_root(cache=str(cache), progress=stop)
    assert os.listdir(cache) == ["make.lock"]


@pytest.mark.usefixtures("tiny_base")
def test_a_file_that_changes_meanwhile_is_copied_again(tmp_path: Path, open_dir: Path) -> None:
    program = make_program(open_dir / "tool", "echo one\n")
    said: list[str] = []

    def upgrade(line: str) -> None:
        said.append(line)
        if len(said) == 2:  # planned, not yet copied
            make_program(open_dir / "tool", "echo longer\n")

    root = make_root([program], cache=str(tmp_path / "cache"), progress=upgrade)
    first_words = " ".join(line.split()[0] for line in said)
    assert first_words == "looking copying files looking copying checking"
    assert "longer" in Path(root.path + program).read_text()


@pytest.mark.usefixtures("tiny_base")
def test_files_that_keep_changing_are_an_error(tmp_path: Path, open_dir: Path) -> None:
    program = make_program(open_dir / "tool", "echo\n")

    def upgrade(line: str) -> None:
        if line.startswith("copying"):
            with open(program, "a") as file:
                file.write("echo more\n")

    with pytest.raises(OperationError, match="keep changing"):
        make_root([program], cache=str(tmp_path / "cache"), progress=upgrade)
    assert os.listdir(tmp_path / "cache") == ["make.lock"]


@pytest.mark.usefixtures("tiny_base")
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("execdrv.rootfs.copy.copy_file", refuse)
    with pytest.raises(OperationError, match="No space left on device") as caught:
        make_root(cache=str(tmp_path / "cache"))
    assert caught.value.errno == 28
    assert os.listdir(tmp_path / "cache") == ["make.lock"]


def test_a_cache_without_execution_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noexec:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr("os.statvfs", lambda _path: Noexec)
    with pytest.raises(UsageError, match="noexec"):
        make_root(cache=str(tmp_path / "cache"))


@pytest.mark.usefixtures("tiny_base")
def test_the_umask_has_no_say(tmp_path: Path) -> None:
    cache = str(tmp_path / "a" / "cache")
    before = os.umask(0o077)
    try:
        strict = make_root(cache=cache)
        os.umask(0)
        loose = make_root(cache=str(tmp_path / "cache"))
    finally:
        os.umask(before)
    assert strict.digest == loose.digest
    for root in (strict, loose):
        assert os.stat(root.path).st_mode & 0o7777 == 0o755
        assert os.stat(root.path + ".json").st_mode & 0o7777 == 0o644
        assert os.stat(root.path + ".lock").st_mode & 0o7777 == 0o600


@needs_root
def test_an_ordinary_user_gets_a_root_without_nodes(open_dir: Path, run_in: Runner) -> None:
    """In the own cache; the tree belongs to the user."""
    os.chown(open_dir, STRANGER, STRANGER)
    code = (
        # All that is imported late: this interpreter may lie in a home of root's.
        "import os, json, hashlib, elftools.elf.elffile\n"
        "from execdrv.rootfs import *\n"
        "from execdrv.rootfs import recipe\n"
        "recipe.CORE, recipe.OPTIONAL = {'dash': 'sh', 'coreutils': 'cat ls'}, {}\n"
        f"os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})\n"
        "r = default_root(); assert default_root() == r; verify_root(r); print(r.path, r.missing)\n"
        "os.close(use_root(r)); print(list_roots()[0].in_use)\n"
    )
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(open_dir)}
    done = subprocess.run(
        ["/usr/bin/env", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path, missing = done.stdout.splitlines()[0].split(" ", 1)
    assert path.startswith(f"{open_dir}/.cache/execdrv/base-")
    assert "/dev/null" in missing and done.stdout.endswith("False\n")
    assert {seen.st_uid for _path, seen in walk(path)} == {STRANGER}
    assert run_in(path, "/bin/sh", "-c", "ls /").returncode == 0


# --- private trees -----------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_base")
def test_a_private_tree_belongs_to_its_user(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    root = make_root(output=str(tmp_path / "out"), cache=str(cache))
    assert root.path == str(tmp_path / "out") and not cache.exists()
    verify_root(root)
    for scratch in ("tmp", "var/tmp", "dev/shm"):
        assert os.stat(f"{root.path}/{scratch}").st_mode & 0o7777 == 0o1777
    assert not is_cached_root(root.path, cache=str(cache))


@pytest.mark.usefixtures("tiny_base")
def test_an_empty_directory_may_be_the_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o700)
    root = make_root(output=str(tmp_path / "out"))
    assert os.path.exists(f"{root.path}/bin/sh")


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize(
    "output", ["full", "file", "link", "none/below", "cache/base-0123456789ab"]
)
def test_an_unfit_output_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "cache").mkdir()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(SpecError) as caught:
        make_root(output=str(tmp_path / output), cache=str(tmp_path / "cache"))
    assert (caught.value.field, caught.value.value) == ("output", str(tmp_path / output))
    assert caught.value.hint
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize("existed", [False, True])
def test_a_private_make_that_fails_leaves_nothing(tmp_path: Path, existed: bool) -> None:
    output = tmp_path / "out"
    if existed:
        output.mkdir()

    def stop(line: str) -> None:
        if line.startswith("checking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_root(output=str(output), progress=stop)
    assert output.exists() == existed and not (existed and os.listdir(output))


@pytest.mark.usefixtures("tiny_base")
def test_a_directory_that_holds_the_target_is_finite(open_dir: Path) -> None:
    """B56: the source contains its own target, a cache, and a link to itself."""
    (open_dir / "again").symlink_to(".")
    (open_dir / "up").symlink_to("..")
    (open_dir / "file").write_text("x")
    output = open_dir / "inner" / "out"
    output.parent.mkdir()
    output.mkdir()
    cache = str(open_dir / "cache")
    shared = make_root([str(open_dir)], cache=cache)
    private = make_root([str(open_dir)], output=str(output), cache=cache)
    for root in (shared, private):
        copy = Path(root.path + str(open_dir))
        assert os.readlink(copy / "again") == "." and os.readlink(copy / "up") == ".."
        assert (copy / "file").read_text() == "x"
        assert not (copy / "cache").exists()
    assert not (Path(private.path + str(open_dir)) / "inner" / "out").exists()


def test_every_error_is_one_of_ours(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ExecdrvError, match="not a directory"):
        default_root(cache=str(tmp_path / "cache"))
    with pytest.raises(ExecdrvError, match="Not a directory"):
        default_root(cache=str(tmp_path / "cache" / "below"))
