"""Processes that a careless end leaves behind, and what a polite one hears."""

import json
import os
import signal
import time

#: Seconds that one lives at most, whatever becomes of the check.
LIFE_S = 60


def leave_kinds(kinds, period_s):
    """One process of each kind; each beats on standard error while it lives."""
    made = {}
    for kind in kinds:
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                os.close(reader)
                _become(kind, writer, period_s)
            finally:
                os._exit(0)
        os.close(writer)
        made[kind] = int(os.read(reader, 32) or b"0")
        os.close(reader)
    return {"made": made}


def _become(kind, writer, period_s):
    if kind == "session":
        os.setsid()
    elif kind == "double":
        _leave_parent()
        _leave_parent()
    elif kind == "daemon":
        os.setsid()
        _leave_parent()
        os.chdir("/")
        os.umask(0)
    elif kind == "deaf":
        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                # SIGKILL, SIGSTOP, and numbers that the C library keeps.
                continue
    elif kind == "left":
        _leave_parent(after_s=0.05)
    # The socket of the agent must close with the agent.
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    os.write(writer, b"%d" % os.getpid())
    os.close(writer)
    for _ in range(int(LIFE_S / period_s)):
        os.write(2, kind.encode() + b"\n")
        time.sleep(period_s)


def _leave_parent(after_s=0.0):
    """Go on as a child whose parent ends."""
    if os.fork():
        time.sleep(after_s)
        os._exit(0)


def hold(path):
    """Be busy in a directory: a file open there, and the working directory."""
    file = os.open(os.path.join(path, "held"), os.O_CREAT | os.O_RDWR)
    os.chdir(path)
    return {"held": file}


def describe():
    """The job in the words that a process which joins it uses too."""
    links = {name: os.readlink("/proc/self/ns/" + name) for name in os.listdir("/proc/self/ns")}
    root = os.stat("/")
    with open("/proc/self/status") as file:
        sets = [line for line in file if line.startswith("Cap")]
    words = [links, [root.st_dev, root.st_ino], sets, os.getuid(), os.getgid()]
    return {"words": json.dumps(words)}
