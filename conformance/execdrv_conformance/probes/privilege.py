"""What the job may do: its capability sets, setuid programs, labels.

Helpers that the observer must see stay until it ends them, twenty seconds at most.
"""

import contextlib
import ctypes
import errno
import json
import os
import signal

CAPGET_VERSION = 0x20080522
PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_SET_SECUREBITS = 8, 23, 28
PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 39, 47
AMBIENT_IS_SET, AMBIENT_RAISE = 1, 2
#: keep-caps, no-setuid-fixup and no-root, each unlocked.
SECUREBITS = 1 << 4 | 1 << 2 | 1 << 0
#: A user that nobody is.
NOBODY = 54329

LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _name(number):
    return errno.errorcode.get(number, str(number))


def _prctl(option, *arguments):
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(LIBC.prctl(option, *words))


# --- capability sets ---------------------------------------------------------------------------


def _capget():
    """Effective, permitted and inheritable as numbers."""
    header = (ctypes.c_uint32 * 2)(CAPGET_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(LIBC.capget(header, data))
    return [data[n] | data[n + 3] << 32 for n in range(3)]


def _capset(effective, permitted, inheritable):
    header = (ctypes.c_uint32 * 2)(CAPGET_VERSION, 0)
    sets = (effective, permitted, inheritable)
    low, high = [one & 0xFFFFFFFF for one in sets], [one >> 32 for one in sets]
    _check(LIBC.capset(header, (ctypes.c_uint32 * 6)(*low, *high)))


def _read_set(option, *arguments):
    found = 0
    for number in range(64):
        try:
            found |= _prctl(option, *arguments, number) << number
        except OSError:
            # The last capability that this kernel knows.
            break
    return found


def read_sets():
    """All five sets, and no_new_privs."""
    effective, permitted, inheritable = _capget()
    return {
        "bounding": _read_set(PR_CAPBSET_READ),
        "effective": effective,
        "permitted": permitted,
        "inheritable": inheritable,
        "ambient": _read_set(PR_CAP_AMBIENT, AMBIENT_IS_SET),
        "nnp": _prctl(PR_GET_NO_NEW_PRIVS),
    }


#: Prints the union of a process's sets; for after an exec.
_PRINT_SETS = """
import ctypes
l = ctypes.CDLL(None)
d = (ctypes.c_uint32 * 6)()
l.capget((ctypes.c_uint32 * 2)(0x20080522, 0), d)
print((d[0] | d[1] | d[2]) | (d[3] | d[4] | d[5]) << 32, flush=True)
"""


def bring_back():
    """The union of the sets after each way to bring a dropped capability back."""
    ways = {
        "capset": _raise_all,
        "keep-caps": _keep_capabilities,
        "securebits": _set_securebits,
        "securebits cleared": _clear_securebits_and_exec,
        "exec as root": _drop_and_exec,
        "ambient": _raise_ambient_and_exec,
    }
    return {"sets": {name: _union_in_child(way) for name, way in ways.items()}}


def _union_in_child(way):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.dup2(writer, 1)
            signal.alarm(10)
            way()
            effective, permitted, inheritable = _capget()
            os.write(1, b"%d\n" % (effective | permitted | inheritable))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return int(text.split()[0])


def _ignore_refusal(act, *arguments):
    with contextlib.suppress(OSError):
        act(*arguments)


def _raise_all():
    permitted = _capget()[1]
    for number in range(64):
        one = 1 << number
        _ignore_refusal(_capset, permitted | one, permitted | one, one)


def _become_nobody():
    _ignore_refusal(os.setresuid, NOBODY, NOBODY, NOBODY)


def _keep_capabilities():
    _ignore_refusal(_prctl, PR_SET_KEEPCAPS, 1)
    _become_nobody()
    permitted = _capget()[1]
    _ignore_refusal(_capset, permitted, permitted, permitted)


def _set_securebits():
    _ignore_refusal(_prctl, PR_SET_SECUREBITS, SECUREBITS)
    _become_nobody()
    _raise_all()


def _exec_printer():
    os.execv("/usr/bin/python3", ["python3", "-I", "-S", "-c", _PRINT_SETS])


def _clear_securebits_and_exec():
    # Root that is held by bits alone, which nobody has locked, is root again.
    _ignore_refusal(_prctl, PR_SET_SECUREBITS, 0)
    _exec_printer()


def _drop_and_exec():
    _capset(0, 0, 0)
    _exec_printer()


def _raise_ambient_and_exec():
    permitted = _capget()[1]
    _ignore_refusal(_capset, permitted, permitted, permitted)
    for number in range(64):
        _ignore_refusal(_prctl, PR_CAP_AMBIENT, AMBIENT_RAISE, number)
    _ignore_refusal(_prctl, PR_SET_KEEPCAPS, 1)
    _become_nobody()
    _exec_printer()


# --- setuid programs ---------------------------------------------------------------------------


#: Run by a copy of the interpreter which gives its process another user or a capability.
_PRINT_SELF = """
import ctypes, json, os, time
d = (ctypes.c_uint32 * 6)()
ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(0x20080522, 0), d)
u = os.getresuid() + os.getresgid()
os.write(1, json.dumps({"ids": u, "permitted": d[1] | d[4] << 32}).encode())
os.close(1)
time.sleep(20)
"""


def run_privileged(programs):
    """What each program's process is; they stay for the observer.

    Args:
        programs: path by name.
    """
    found = {"self": {"ids": [*os.getresuid(), *os.getresgid()], "permitted": _capget()[1]}}
    errors = {}
    for name, path in programs.items():
        answer = _run_program(path)
        try:
            found[name] = json.loads(answer)
        except ValueError:
            errors[name] = answer
    return {"found": found, "errors": errors}


def _run_program(path):
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 2)
            os.dup2(writer, 1)
            signal.alarm(20)
            os.execv(path, [path, "-I", "-S", "-c", _PRINT_SELF])
        except OSError as error:
            os.write(1, _name(error.errno).encode())
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader) as pipe:
        return pipe.read()


# --- labels ------------------------------------------------------------------------------------


def read_label(caller):
    """The security module's label of this process, None where it can't be read; the caller's."""
    try:
        with open("/proc/self/attr/current") as file:
            return {"label": file.read().strip("\0\n"), "caller": caller}
    except OSError:
        return {"label": None, "caller": caller}
