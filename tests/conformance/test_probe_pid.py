"""Numbers of processes mean nothing without the namespace: a probe knows the job's own."""

from __future__ import annotations

import json
import subprocess
import sys

from execdrv_conformance.agent import read_source

_TRIAL = """
import json, os, signal, sys
names = {"__name__": "probe"}
exec(sys.stdin.read(), names)
pid = os.fork()
if pid == 0:
    signal.pause()
try:
    print(json.dumps([names[name](*arguments) for name, arguments in (
        ("trace", ([pid],)), ("signal_all", ([pid], 2)))]))
finally:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""


def test_a_child_of_the_job_is_no_canary_whatever_its_number() -> None:
    command = [sys.executable, "-I", "-S", "-c", _TRIAL]
    source = read_source("pid")
    result = subprocess.run(command, input=source, capture_output=True, text=True, timeout=20)
    assert result.returncode == 0, result.stderr
    traced, reached = json.loads(result.stdout)
    assert (traced["traced"], traced["read"], reached["reached"]) == ([], [], [])
