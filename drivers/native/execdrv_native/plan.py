"""The mount plan has moved to execdrv.linux.view."""

from execdrv.linux.view import plan_mounts

__all__ = ["plan_mounts"]
