"""The process itself: numbers, words, environment, descriptors, signals, ends."""

import os


def leave_sleepers(count):
    """Children that sleep, and outlive this process if nobody ends them."""
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                # The socket of the agent must close with the agent.
                null = os.open("/dev/null", os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                import time

                time.sleep(600)
            finally:
                os._exit(0)
        pids.append(pid)
    return {"sleepers": pids}
