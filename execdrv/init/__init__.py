"""`execdrv-init`, the small static pid 1 of every container, and the protocol it speaks.

The program is execdrv-init.c, built with the package; its supervisor uses what is named here.
"""

from execdrv.init.protocol import (
    Exited,
    Failed,
    Gate,
    Job,
    Message,
    Order,
    Ready,
    Started,
    encode_order,
    error_of,
    open_init,
)

__all__ = [
    "Exited",
    "Failed",
    "Gate",
    "Job",
    "Message",
    "Order",
    "Ready",
    "Started",
    "encode_order",
    "error_of",
    "open_init",
]
