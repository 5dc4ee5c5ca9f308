"""What stands against making containers: each obstacle in words with the way out."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from execdrv.linux import obstacle

#: mountinfo of a machine with a disk root, of a container, of an initramfs, of a plain chroot.
DISK = (
    "22 27 0:21 / /proc rw - proc proc rw\n27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
)
STACKED = DISK + "31 27 0:30 / / rw - overlay overlay rw,lowerdir=/a\\040b\n"
INITRAMFS = "1 1 0:2 / / rw - rootfs rootfs rw\n20 1 0:21 / /proc rw - proc proc rw\n"
CHROOT = "22 27 0:21 / /proc rw - proc proc rw\n"


@pytest.mark.parametrize("text", [DISK, STACKED])
def test_a_mounted_root_is_no_obstacle(text: str) -> None:
    assert obstacle.find_root_obstacle(text) is None


@pytest.mark.parametrize(
    ("text", "words"), [(INITRAMFS, "initramfs"), (CHROOT, "not a mount point, inside a chroot")]
)
def test_a_root_that_can_not_be_exchanged_is_named(text: str, words: str) -> None:
    assert words in (obstacle.find_root_obstacle(text) or "")


def test_an_ordinary_user_is_told_to_use_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "sudo" in (obstacle.detect_obstacle() or "")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
class TestAsRoot:
    """With a machine on which containers can be made."""

    def test_missing_capabilities_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        everything = (1 << 41) - 1
        without = everything & ~(1 << 21) & ~(1 << 27)
        monkeypatch.setattr(obstacle, "capget", lambda: (without, without, 0))
        found = obstacle.detect_obstacle()
        assert found is not None and "CAP_SYS_ADMIN" in found and "CAP_MKNOD" in found

    @pytest.mark.parametrize(
        ("number", "words"), [(errno.ENOSYS, "Linux 5.12"), (errno.EPERM, "filter")]
    )
    def test_a_missing_system_call_is_named(
        self, monkeypatch: pytest.MonkeyPatch, number: int, words: str
    ) -> None:
        def fail(fd: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(obstacle, "mount_setattr", fail)
        assert words in (obstacle.detect_obstacle() or "")

    def test_the_bounding_set_is_that_of_this_process(self) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        (shown,) = [line.split()[1] for line in lines if line.startswith("CapBnd")]
        assert obstacle.detect_bounding() == int(shown, 16)

    def test_a_file_system_that_the_kernel_lacks_is_no_exception(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(fstype: bytes) -> int:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

        monkeypatch.setattr(obstacle, "fsopen", fail)
        assert obstacle.detect_overlay() is False
