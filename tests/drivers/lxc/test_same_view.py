"""What the native driver's view of files and namespaces promises, this driver's promises too.

The tests are the native driver's own; the fixture `boxes` of this directory runs them here.
"""

from __future__ import annotations

import importlib.util
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


#: This one breaks a function of the native driver's; its like is in test_driver.py.
_NATIVE_ONLY = {"test_nothing_is_loaded_from_the_root"}

for _name in ("test_isolation", "test_mount_requests"):
    _module = _load(_name)
    # The tests, and the fixtures they take; what starts with `_` they find in their own module.
    globals().update(
        {
            name: value
            for name, value in vars(_module).items()
            if name[0] != "_" and name not in _NATIVE_ONLY
        }
    )
