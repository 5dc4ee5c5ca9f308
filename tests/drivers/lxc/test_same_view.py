"""What the native driver's view of files and namespaces promises, this driver's promises too.

The tests are the native driver's own; the fixture `boxes` of this directory runs them here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def _load(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "native" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"same_view_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _tests_of(module: ModuleType) -> dict[str, Callable[..., None]]:
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


_modules = [_load(name) for name in ("test_isolation", "test_mount_requests")]
for _module in _modules:
    globals().update(_tests_of(_module))
