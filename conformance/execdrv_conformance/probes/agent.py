"""The job of a case: takes probes on its standard input, and says what they find.

Runs inside the container, as `python3 -I -S -c`; standard library only. Each line it writes carries
the nonce and a sequence number, and each probe ends with the count of its facts, so that what is
lost or added shows. Standard input and output are one end of a socket pair of the kit's.
"""

import json
import os
import sys


def write_line(line):
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def run_probe(function, arguments):
    """Every fact as a dict of its own."""
    result = function(**arguments)
    if isinstance(result, dict):
        yield result
    elif result is not None:
        yield from result


def serve(nonce, requests):
    """Answer until the end of the requests."""
    sequence = 0
    modules = {}
    write_line({"nonce": nonce, "seq": sequence, "hello": os.getpid()})
    for line in requests:
        request = json.loads(line)
        if "load" in request:
            modules[request["load"]] = space = {"__name__": request["load"]}
            exec(compile(request["source"], request["load"], "exec"), space)
            continue
        facts = 0
        error = ""
        try:
            module, _, name = request["call"].partition(":")
            for fact in run_probe(modules[module][name], request["arguments"]):
                sequence += 1
                facts += 1
                write_line({"nonce": nonce, "seq": sequence, "fact": fact})
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        sequence += 1
        write_line({"nonce": nonce, "seq": sequence, "plan": facts, "error": error})


if __name__ == "probe":
    serve(sys.argv[1], iter(sys.stdin.buffer.readline, b""))
