"""liblxc, by its Python bindings: the only file that imports them.

`import lxc` would bring subprocess and its helper functions (15 ms), and its `set_config_item`
fails open: on a value that does not read back letter for letter it clears the key and returns
False. So only the extension module below it is used, `_lxc`: each item is set, read back and
compared with what liblxc makes of it. Nothing is imported before the first call; `load` belongs
into the supervisor, everything that may block into a container's monitor.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from execdrv.errors import IsolationError
from execdrv_lxc.config import Item

#: Older ones come with kernels that lack what execdrv.linux needs; nobody has tried them.
OLDEST_VERSION: Final = (5, 0)
#: PyPI's bindings do not build for newer ones.
NEWEST_PYTHON: Final = (3, 12)


def load() -> Any:
    """The extension module.

    Raises:
        ImportError: it is not installed, or liblxc is not.
    """
    import _lxc

    if not hasattr(_lxc, "Container"):  # a directory of that name is a module too
        raise ImportError("module '_lxc' is not that of liblxc")
    return _lxc


def detect_obstacle() -> str | None:
    """Why liblxc can't be used by this Python, in one line with the way out; or None."""
    try:
        version = str(load().get_version())
    except ImportError as error:
        return f"the Python bindings of liblxc are missing: {error} ({_way_out()})"
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_VERSION:
        oldest = ".".join(map(str, OLDEST_VERSION))
        return f"liblxc {version!r} is too old (install {oldest} or newer)"
    return None


def _way_out() -> str:
    if sys.version_info[:2] > NEWEST_PYTHON:
        return (
            "for this Python there are none on PyPI: apt-get install lxc python3-lxc, and run "
            "execdrv by /usr/bin/python3"
        )
    return 'apt-get install lxc lxc-dev gcc python3-dev, then pip install "execdrv[lxc]"'


def make_container(name: str, lxcpath: str, items: Sequence[Item]) -> Any:
    """A container with exactly this configuration, not started; `load` was called before.

    Raises:
        IsolationError: liblxc does not take an item, or makes something else of it.
    """
    try:
        container = load().Container(name, lxcpath)
    except RuntimeError as error:
        raise IsolationError(f"cannot make an lxc container: {error}") from error
    for item in items:
        _set_item(container, item)
    for item in items:
        check_item(item, container.get_config_item(item.key))
    return container


def _set_item(container: Any, item: Item) -> None:
    try:
        taken = container.set_config_item(item.key, item.value)
    except (KeyError, ValueError) as error:
        raise _refused(item, str(error)) from error
    if not taken:
        raise _refused(item, "liblxc refuses it")


def check_item(item: Item, got: str) -> None:
    """Compare what liblxc says of a key with what it has to say.

    Raises:
        IsolationError: they differ.
    """
    # A key that holds a list gives one value a line, in an order of liblxc's own.
    if sorted(got.split("\n")) != sorted(item.reads_back.split("\n")):
        raise _refused(item, f"liblxc made {got!r} of it")


def _refused(item: Item, reason: str) -> IsolationError:
    return IsolationError(
        f"cannot set {item.key!r} of lxc to {item.value!r}: {reason}",
        hint="another version of liblxc may do",
    )


def run(container: Any, argv: Sequence[str]) -> bool:
    """Start the container and stay until it has ended; False if it did not start.

    Blocks, and takes over this process's signals and children: a process of its own is needed,
    with one thread. Descriptors that are not close-on-exec pass to the container's init.
    """
    return bool(container.start(useinit=False, daemonize=False, close_fds=False, cmd=tuple(argv)))
