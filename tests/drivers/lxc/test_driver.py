"""Commands run through liblxc for real: exact ends, nothing of liblxc's to be seen, nothing left."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from driver_boxes import Boxes, Running, in_fork, list_processes, mount_table

from execdrv.driver import Box
from execdrv.errors import IsolationError, UnsupportedError
from execdrv.linux import cgroups
from execdrv.linux.procfs import ProcessId, detect_process, is_running, kill_own_children
from execdrv_lxc import LxcDriver, binding, companion, config, driver, monitor
from execdrv_lxc.config import Item

pytestmark = pytest.mark.usefixtures("need_root")
