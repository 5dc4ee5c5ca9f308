"""What a job of a driver with namespaces sees, and what is seen of it from the machine."""

from __future__ import annotations

import os
import re
import resource
import stat
from pathlib import Path

import pytest
from driver_boxes import Boxes, Running, enter_stand_in, in_fork, mount_table

from execdrv.linux.view import COVERED, LINKS, NODES, PROTECTED
from execdrv.spec import Bind

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup")


def namespaces_of(pid: int | str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}


def shared_namespaces(running: Running) -> list[str]:
    """Those that the job has in common with the machine."""
    ours, theirs = namespaces_of("self"), namespaces_of(running.job.pid)
    return [name for name in NAMESPACES if ours[name] == theirs[name]]


# --- namespaces --------------------------------------------------------------------------------


def test_a_job_shares_no_namespace_with_the_machine(boxes: Boxes) -> None:
    assert boxes.run("cat", look=shared_namespaces).seen == []


def test_the_network_host_is_the_machines_own_and_nothing_else_is(boxes: Boxes) -> None:
    def look(running: Running) -> object:
        return shared_namespaces(running), running.isolated.netns

    assert boxes.run("cat", net="host", look=look).seen == (["net"], None)


def test_the_init_is_pid_1_and_the_job_sees_no_other_process(boxes: Boxes) -> None:
    result = boxes.sh("cat /proc/1/comm; echo $PPID $$; cd /proc; echo [0-9]*")
    assert result.text.split() == ["execdrv-init", "1", "2", "1", "2"]


def test_only_loopback_is_there_and_it_works(boxes: Boxes, probe: str) -> None:
    result = boxes.sh(f"tail -n +3 /proc/net/dev | cut -d: -f1; {probe} loopback")
    assert result.text.split() == ["lo", "done"]


@pytest.mark.parametrize("length", [1, 64])
def test_the_host_name_is_as_asked_and_the_machine_keeps_its_own(boxes: Boxes, length: int) -> None:
    before = os.uname().nodename
    assert boxes.run("hostname", hostname="h" * length).text == "h" * length + "\n"
    assert os.uname().nodename == before


def test_the_job_is_in_its_group_and_sees_it_as_the_root(boxes: Boxes) -> None:
    def look(running: Running) -> object:
        lines = Path(f"/proc/{running.job.pid}/cgroup").read_text().splitlines()
        inside = f"/{running.box.kernel_name}/job"
        return [line for line in lines if not line.endswith(inside)]

    result = boxes.run("cat", "/proc/self/cgroup", "-", look=look)
    # In no hierarchy is the caller's own group the root of what the job may mount.
    assert result.seen == []
    assert {line.split(":", 2)[2] for line in result.text.splitlines()} == {"/"}


def test_the_init_is_in_its_group_before_it_is_ready(boxes: Boxes) -> None:
    seen: list[bytes] = []

    def before_start(box: object) -> None:
        group = box.group  # type: ignore[attr-defined]
        if box.facts["init"]["pid"] not in group.processes():  # type: ignore[attr-defined]
            raise AssertionError("the init is outside of its group")
        seen.append(b"")

    assert boxes.run("true", before_start=before_start).code == 0


# --- the root ----------------------------------------------------------------------------------


def test_writes_to_a_private_root_go_with_the_container(boxes: Boxes) -> None:
    before = _tree(boxes.rootfs)
    result = boxes.sh("echo x > /new; rm /bin/wc; mkdir /etc/d; echo y >> /etc/passwd; cat /new")
    assert (result.text, result.stderr, result.code) == ("x\n", b"", 0)
    assert _tree(boxes.rootfs) == before


def test_a_read_only_root_refuses_writes_and_tmp_takes_them(boxes: Boxes) -> None:
    before = _tree(boxes.rootfs)
    script = "echo x > /t || echo RO; mkdir /etc/d || echo RO; echo y > /tmp/t && cat /tmp/t"
    result = boxes.sh(script, root_mode="read-only")
    assert result.text == "RO\nRO\ny\n"
    assert result.stderr.count(b"Read-only file system") == 2
    assert _tree(boxes.rootfs) == before


def test_a_direct_root_keeps_what_the_job_writes_and_nothing_else(boxes: Boxes) -> None:
    before = _tree(boxes.rootfs)
    script = "echo x > /new; echo y > /dev/shm/a; echo z > /tmp/b"
    assert boxes.sh(script, root_mode="direct").code == 0
    assert (boxes.rootfs / "new").read_text() == "x\n"
    (boxes.rootfs / "new").unlink()
    assert _tree(boxes.rootfs) == before


def test_the_root_keeps_its_mode_and_owner(boxes: Boxes) -> None:
    os.chown(boxes.rootfs, 12, 34)
    boxes.rootfs.chmod(0o751)
    assert boxes.run("stat", "-c", "%a %u %g", "/").text == "751 12 34\n"


@pytest.mark.parametrize("root_mode", ["private", "read-only", "direct"])
def test_no_mount_shows_on_a_machine_whose_mounts_are_shared(boxes: Boxes, root_mode: str) -> None:
    (boxes.rootfs / "mnt").mkdir()
    source = boxes.scratch / "source"
    (source / "below").mkdir(parents=True)

    def look(running: Running) -> object:
        return mount_table()

    before = in_fork(mount_table, first=enter_stand_in)
    binds = [Bind(source=str(source), target="/mnt")]
    result = boxes.run(
        *("sh", "-c", "mount | grep -c /mnt; cat"),
        first=enter_stand_in,
        look=look,
        root_mode=root_mode,
        binds=binds,
    )
    assert result.text == "1\n"
    assert _without_ids(result.seen) == _without_ids(before)


def test_a_later_mount_of_the_machine_does_not_show_inside(boxes: Boxes) -> None:
    from execdrv.linux import syscalls

    source = boxes.scratch / "source"
    (source / "below").mkdir(parents=True)

    def mount_below(box: object) -> None:
        syscalls.mount(b"tmpfs", os.fsencode(source / "below"), fstype=b"tmpfs")
        (source / "below/later").touch()

    result = boxes.run(
        *("ls", "/mnt/below"),
        first=enter_stand_in,
        before_start=mount_below,
        binds=[Bind(source=str(source), target="/mnt")],
    )
    assert (result.text, result.code) == ("", 0)


def test_the_old_root_is_out_of_reach(boxes: Boxes, probe: str) -> None:
    canary = boxes.scratch / "canary"
    canary.touch()
    # With the capability that makes it possible in a plain chroot.
    result = boxes.run(probe, "climb", str(canary), cap_add=["SYS_CHROOT"])
    assert result.text == "done\n"
    assert boxes.run(probe, "climb", str(canary)).text == "chroot: Operation not permitted\n"


def test_entering_the_own_mount_namespace_anew_leads_to_the_same_root(
    boxes: Boxes, probe: str
) -> None:
    canary = boxes.scratch / "canary"
    canary.touch()
    script = f"{probe} setns /proc/self/ns/mnt; ls {canary}; ls /bin/busybox"
    result = boxes.sh(script, cap_add=["SYS_CHROOT", "SYS_ADMIN"])
    assert result.text == "done\n/bin/busybox\n"


def test_the_working_directory_is_inside(boxes: Boxes) -> None:
    result = boxes.sh("pwd; readlink /proc/self/cwd; ls -d ../../bin", first=lambda: os.chdir("/"))
    assert result.text == "/\n/\n../../bin\n"


# --- /proc -------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["0", "1000"])
def test_covered_files_are_empty_and_not_writable(boxes: Boxes, user: str) -> None:
    paths = ["/proc/" + name.decode() for name in COVERED]
    script = "; ".join(
        f"[ -e {p} ] && {{ echo {p} $(cat {p} 2>/dev/null | head -c1 | wc -c) $(ls {p} | wc -l);"
        f" true 2>/dev/null >>{p} && [ ! -d {p} ] && echo writable {p}; }}"
        for p in paths
    )
    result = boxes.sh(script, user=user)
    lines = [line.split() for line in result.text.splitlines()]
    assert len(lines) > 5
    for path, size, entries in lines:
        assert size == "0", path
        assert entries == ("0" if os.path.isdir(path) else "1"), path


def test_what_steers_the_machine_is_read_only(boxes: Boxes) -> None:
    paths = [
        *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger"),
        *("/proc/sys/vm/drop_caches", "/proc/irq/default_smp_affinity", "/proc/pressure/cpu"),
    ]
    there = [path for path in paths if os.path.exists(path)]
    # Opened for appending and closed, never written.
    result = boxes.sh("; ".join(f"true >>{path} && echo {path}" for path in there))
    assert result.text == ""
    assert result.stderr.count(b"Read-only file system") == len(there)


def test_protected_directories_can_be_read(boxes: Boxes) -> None:
    there = [name.decode() for name in PROTECTED if os.path.isdir(b"/proc/" + name)]
    result = boxes.sh("; ".join(f"ls /proc/{name} >/dev/null" for name in there))
    assert result.stderr == b""
    assert boxes.run("cat", "/proc/sys/kernel/ostype").text == "Linux\n"


def test_fake_files_at_proc_are_hidden_by_a_real_procfs(boxes: Boxes) -> None:
    fake = boxes.rootfs / "proc/self/attr"
    fake.mkdir(parents=True)
    (fake / "current").write_text("fake")
    result = boxes.sh("stat -f -c %T /proc; cat /proc/self/attr/current; cat /proc/self/comm")
    assert "fake" not in result.text
    assert result.text.startswith("proc") and result.text.endswith("cat\n")


# --- /dev --------------------------------------------------------------------------------------


def test_dev_holds_exactly_the_documented_entries(boxes: Boxes) -> None:
    result = boxes.sh("cd /dev; find . -mindepth 1 | sort; stat -c '%n %F %a %t:%T' *")
    listed, _, _ = result.text.partition("fd ")
    expected = {*NODES, *LINKS, b"pts", b"pts/ptmx", b"shm"}
    assert listed.split() == sorted("./" + name.decode() for name in expected)
    for name, (major, minor) in NODES.items():
        assert f"{name.decode()} character special file 666 {major:x}:{minor:x}" in result.text


def test_devices_work_though_dev_is_read_only(boxes: Boxes) -> None:
    result = boxes.sh(
        "echo x > /dev/null; head -c3 /dev/zero | wc -c; head -c3 /dev/urandom | wc -c;"
        "echo full > /dev/full; (echo out > /dev/stdout) | cat; true < /dev/ptmx; ls /dev/pts;"
        "touch /dev/new; mknod /dev/n c 1 3; true > /dev/tty",
    )
    assert result.text.split() == ["3", "3", "out", "ptmx"]
    errors = result.stderr.decode().splitlines()
    assert [line.rpartition(": ")[2] for line in errors] == [
        "No space left on device",
        "Read-only file system",
        "Read-only file system",
        "No such device or address",
    ]


def test_no_device_node_can_be_made_even_with_the_capability(boxes: Boxes, probe: str) -> None:
    assert boxes.run(probe, "device", "7", "0").text == "mknod: Operation not permitted\n"
    result = boxes.run(probe, "device", "7", "0", cap_add=["MKNOD"])
    assert result.text == "mknod: Operation not permitted\n"


def test_device_nodes_of_the_root_do_not_open(boxes: Boxes) -> None:
    os.mknod(boxes.rootfs / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for root_mode in ("private", "read-only", "direct"):
        result = boxes.sh("cat /null", root_mode=root_mode)
        assert b"Permission denied" in result.stderr


def test_packet_sockets_are_refused(boxes: Boxes, probe: str) -> None:
    assert boxes.run(probe, "packet").text == "socket: Operation not permitted\n"


# --- modes and users ---------------------------------------------------------------------------


def test_fresh_mounts_have_their_usual_modes_whatever_lies_below(boxes: Boxes) -> None:
    (boxes.rootfs / "tmp").chmod(0o700)
    result = boxes.run("stat", "-c", "%a", "/tmp", "/dev/shm", "/proc", "/dev")
    assert result.text.split() == ["1777", "1777", "555", "755"]


def test_the_callers_umask_reaches_nothing(boxes: Boxes) -> None:
    def first() -> None:
        os.umask(0o777)

    script = "umask; touch /tmp/f; stat -c %a /tmp/f /dev/null /dev/pts /made"
    result = boxes.sh(script, first=first, binds=[Bind(source="/usr", target="/made")])
    assert result.text.split()[:4] == ["0022", "644", "666", "755"]


def test_the_machines_null_device_keeps_its_owner(boxes: Boxes) -> None:
    def look() -> tuple[int, int, int]:
        status = os.stat("/dev/null")
        return status.st_uid, status.st_gid, status.st_mode

    before = look()
    assert boxes.run("chown", "1000", "/dev/null").code == 1
    assert boxes.run("true", user="1000").code == 0
    assert look() == before


def test_a_setuid_program_gains_nothing(boxes: Boxes, probe: str) -> None:
    (boxes.rootfs / "bin/probe").chmod(0o4755)
    assert boxes.run(probe, "euid", user="1000").text == "1000\n"


def test_the_program_of_pid_1_can_not_be_opened_for_writing(boxes: Boxes) -> None:
    result = boxes.sh("readlink /proc/1/exe; : >>/proc/1/exe; cat /proc/1/environ | wc -c")
    assert "python" not in result.text
    assert b"/proc/1/exe" in result.stderr


def test_only_the_standard_descriptors_are_open(boxes: Boxes) -> None:
    def first() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for number in (5, 57, 1500, 2048):
            os.dup2(os.open("/", os.O_RDONLY), number, inheritable=True)
        # A loop up to the limit would miss the higher ones.
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    def look(running: Running) -> object:
        return sorted(map(int, os.listdir(f"/proc/{running.job.pid}/fd")))

    assert boxes.run("cat", first=first, look=look).seen == [0, 1, 2]


def test_nothing_is_loaded_from_the_root(boxes: Boxes) -> None:
    import sys

    mark = "open('/MARK', 'w').close()\n"
    for directory in filter(os.path.isdir, sys.path):
        below = boxes.rootfs / directory.lstrip("/")
        below.mkdir(parents=True, exist_ok=True)
        for name in ("json", "socket", "pwd", "grp", "encodings", "struct", "traceback", "errno"):
            (below / f"{name}.py").write_text(mark)
    (boxes.rootfs / "etc/nsswitch.conf").write_text("passwd: mark\n")
    assert boxes.run("true", b"\xff", root_mode="direct").code == 0
    with pytest.raises(Exception, match="nosuch"):
        boxes.run("/nosuch", root_mode="direct")
    # Also where the child fails after the root has changed.
    with pytest.raises(Exception, match="cannot"):
        boxes.run("true", root_mode="direct", first=_fail_after_pivot)
    assert not (boxes.rootfs / "MARK").exists()


def _fail_after_pivot() -> None:
    from execdrv.linux import layer

    def fail(fd: int) -> int:
        raise OSError(5, "Input/output error")

    layer.mount_id = fail


def _tree(root: Path) -> list[tuple[str, int, int, int]]:
    found = []
    for directory, names, files in os.walk(root):
        for name in (".", *names, *files):
            status = os.lstat(os.path.join(directory, name))
            path = os.path.join(directory, name)
            changed_ns = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
            found.append((path, status.st_mode, status.st_size, changed_ns))
    return sorted(found)


def _without_ids(table: str) -> list[str]:
    """A mount table without the numbers of mounts and peer groups, which others use up too."""
    lines = [re.sub(r" shared:\d+", " shared", line) for line in table.splitlines()]
    return [line.split(" ", 2)[2] for line in lines]
