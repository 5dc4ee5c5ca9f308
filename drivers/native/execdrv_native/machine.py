"""These questions have moved to execdrv.linux.obstacle."""

from execdrv.linux.obstacle import (
    detect_bounding,
    detect_obstacle,
    detect_overlay,
    detect_root_obstacle,
)

__all__ = ["detect_bounding", "detect_obstacle", "detect_overlay", "detect_root_obstacle"]
