"""Works for a while, for numbers and for changes while it runs."""

import os
import signal
import time


def work(cpu_s, size):
    """Touch memory, use cpu time: what this process has used since it began."""
    area = bytearray(size)
    for offset in range(0, size, 4096):
        area[offset] = 1
    deadline = time.monotonic() + 6 * cpu_s
    while time.process_time() < cpu_s and time.monotonic() < deadline:
        pass
    return {"cpu_s": time.process_time(), "touched": len(area)}


def spin_steps(step_s, count):
    """Work for a while: cpu time and time at its begin and after each step."""
    begun, cpu = time.monotonic(), time.process_time()
    marks = [[0.0, 0.0]]
    for number in range(1, count + 1):
        while time.monotonic() - begun < number * step_s:
            pass
        marks.append([time.process_time() - cpu, time.monotonic() - begun])
    return {"marks": marks}


def tick(wall_s, timer_s):
    """Parent and child count for a while: ticks, the longest gap between two, timers that fired."""
    fired = []
    before = signal.signal(signal.SIGALRM, lambda *_: fired.append(time.monotonic()))
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            ticks, gap = _tick(wall_s)
            os.write(tell, b"%d %f" % (ticks, gap))
        finally:
            os._exit(0)
    os.close(tell)
    signal.setitimer(signal.ITIMER_REAL, timer_s)
    ticks, gap = _tick(wall_s)
    words = os.read(told, 100).split()
    os.close(told)
    os.waitpid(pid, 0)
    signal.signal(signal.SIGALRM, before)
    return {
        "ticks": [ticks, int(words[0])],
        "gaps": [gap, float(words[1])],
        "fired": len(fired),
    }


def _tick(wall_s):
    ticks, gap = 0, 0.0
    begun = last = time.monotonic()
    while last - begun < wall_s:
        now = time.monotonic()
        gap, last = max(gap, now - last), now
        ticks += 1
    return ticks, gap
