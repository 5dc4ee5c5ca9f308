"""Filters of system calls: what they deny, by every entry, and what they must not.

Denied calls are made with arguments that no kernel takes: without a filter they give another
error. Helpers that the observer must see stay until it ends them, twenty seconds at most.
"""

import ctypes
import errno
import json
import mmap
import os
import signal
import sys
import threading
import time

MACHINE = os.uname().machine
BAD = 1

#: By call: numbers on x86_64, aarch64 and in the 32-bit entry of x86; arguments; and the error
#: that they give without a filter, whatever the capabilities.
DENIED = {
    "keyctl": ((250, 219, 288), (9999, 0, 0, 0), errno.EOPNOTSUPP),
    "add_key": ((248, 217, 286), (BAD, BAD, 0, 0), errno.EFAULT),
    "request_key": ((249, 218, 287), (BAD, BAD, 0, 0), errno.EFAULT),
    "unshare": ((272, 97, 310), (1, 0, 0, 0), errno.EINVAL),
    "setns": ((308, 268, 346), (-1, 0, 0, 0), errno.EBADF),
    "mount": ((165, 40, 21), (BAD, BAD, BAD, 0), errno.EFAULT),
    "umount2": ((166, 39, 52), (BAD, 0xFFFF, 0, 0), errno.EINVAL),
    "perf_event_open": ((298, 241, 336), (BAD, 0, 0, 0), errno.EFAULT),
    "open_tree": ((428, 428, 428), (-1, BAD, 0xFFFF, 0), errno.EINVAL),
}
#: What a filter answers in place of the call.
REFUSALS = (errno.EPERM, errno.EACCES, errno.ENOSYS)

LIBC = ctypes.CDLL(None, use_errno=True)


def _name(number):
    return errno.errorcode.get(number, str(number))


def _number_of(call):
    return DENIED[call][0][0 if MACHINE == "x86_64" else 1]


def _ask(number, arguments):
    """The errno of a call, 0 if it works."""
    words = [ctypes.c_long(word) for word in (*arguments, 0, 0, 0, 0)[:6]]
    ctypes.set_errno(0)
    return 0 if LIBC.syscall(ctypes.c_long(number), *words) >= 0 else ctypes.get_errno()


def _call_denied():
    """By call: its errno, and whether that is a filter's answer and not the call's own.

    The one is compared with what the call says itself, so that a missing capability is no proof.
    """
    found = {}
    for name, (_, arguments, plain) in DENIED.items():
        number = _ask(_number_of(name), arguments)
        found[name] = [_name(number), number in REFUSALS and number != plain]
    return found


def call_denied():
    """Each call that a filter must deny."""
    return {"calls": _guarded(_call_denied)}


def _guarded(act):
    """What an act returns in a child; "killed N" where a filter ends it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            signal.alarm(10)
            os.write(writer, json.dumps(act()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return {"the process": [f"killed by {os.WTERMSIG(status)}", True]}
    return json.loads(text)


def call_allowed(directory):
    """Which usual calls do not do what they must, and the answers to those that are denied."""
    return {"failed": _use_allowed(directory), "calls": _guarded(_call_denied)}


def _use_allowed(directory):
    """Names of what fails. The second use renames the file that the first one makes."""
    path = os.path.join(directory, f"xdc-{os.getpid()}-{time.monotonic_ns()}")
    uses = {
        "use_files": lambda: _use_files(path),
        "use_names": lambda: _use_names(path),
        "use_processes": _use_processes,
        "use_pipes": _use_pipes,
        "use_sockets": _use_sockets,
        "use_memory": _use_memory,
        "use_threads": _use_threads,
        "use_clocks": _use_clocks,
        "use_signals": _use_signals,
    }
    failed = []
    for name, use in uses.items():
        try:
            if not use():
                failed.append(name)
        except OSError as error:
            failed.append(f"{name}: {_name(error.errno)}")
    return failed


def _use_files(path):
    with open(path, "w+b") as file:
        file.write(b"abc")
        file.seek(0)
        return file.read() == b"abc" and os.stat(path).st_size == 3


def _use_names(path):
    os.rename(path, path + "-2")
    os.link(path + "-2", path)
    os.unlink(path + "-2")
    os.unlink(path)
    return not os.path.exists(path)


def _use_processes():
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def _use_pipes():
    reader, writer = os.pipe()
    os.write(writer, b"x")
    data = os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    return data == b"x"


def _use_sockets():
    import socket

    one, other = socket.socketpair()
    with one, other:
        one.send(b"x")
        return other.recv(1) == b"x"


def _use_memory():
    with mmap.mmap(-1, 1 << 16) as memory:
        memory[:3] = b"abc"
        return memory[:3] == b"abc"


def _use_threads():
    done = []
    thread = threading.Thread(target=done.append, args=(1,))
    thread.start()
    thread.join(5)
    return done == [1]


def _use_clocks():
    begun = time.monotonic()
    time.sleep(0.001)
    return time.monotonic() > begun and time.time() > 0


def _use_signals():
    got = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: got.append(number))
    os.kill(os.getpid(), signal.SIGUSR2)
    signal.signal(signal.SIGUSR2, before)
    return got == [signal.SIGUSR2]


#: Call NUMBER with four words by the 32-bit entry of x86: int 0x80; ebx, ecx, edx, esi; edi is 0.
_INT80 = bytes.fromhex("53 89f8 89f3 87d1 4489c6 31ff cd80 5b c3")


def call_by_other_entries():
    """The denied calls by the 32-bit entry, with x32's numbers, and with high argument bits."""
    if MACHINE != "x86_64":
        raise OSError(errno.ENOSYS, "the 32-bit entry is known for x86_64 only")
    return {
        "int80": _guarded(_call_by_int80),
        "x32": _guarded(_call_by_x32),
        "high bits": _guarded(_call_with_high_bits),
    }


def _call_by_int80():
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_INT80)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    enter = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 5)(address)
    found = {}
    for name, ((_, _, number), arguments, plain) in DENIED.items():
        answer = -enter(number, *(word & 0xFFFFFFFF for word in arguments))
        found[name] = [_name(answer), answer in REFUSALS and answer != plain]
    return found


def _call_by_x32():
    found = {}
    for name, (_, arguments, plain) in DENIED.items():
        answer = _ask(_number_of(name) | 0x40000000, arguments)
        # A kernel without x32 says ENOSYS: then it is no way round.
        found[name] = [_name(answer), answer != plain]
    return found


def _call_with_high_bits():
    found = {}
    for name, argument in (("setns", 0x1_FFFF_FFFF), ("keyctl", 0x1_0000_270F)):
        _, arguments, plain = DENIED[name]
        answer = _ask(_number_of(name), (argument, *arguments[1:]))
        found[name] = [_name(answer), answer in REFUSALS and answer != plain]
    return found


_CALL_AFTER_EXEC = """
import ctypes, os, sys, time
l = ctypes.CDLL(None, use_errno=True)
n = 0 if l.syscall(int(sys.argv[1]), 9999, 0, 0, 0) >= 0 else ctypes.get_errno()
os.write(1, str(n).encode())
os.close(1)
time.sleep(20)
"""


def call_in_threads():
    """A denied call in a new thread, and after an exec; both stay for the observer."""
    number, (_, _, plain) = _number_of("keyctl"), DENIED["keyctl"]
    found = {}
    for name, act in (("thread", _call_in_thread), ("exec", _call_after_exec)):
        answer = _keep_in_child(act, number)
        if answer == "":
            # It was ended, as a filter may.
            found[name] = ["killed", True]
            continue
        found[name] = [_name(int(answer)), int(answer) in REFUSALS and int(answer) != plain]
    return {"calls": found}


def _keep_in_child(act, number):
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.close(reader)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 2)
            os.dup2(writer, 1)
            os.close(writer)
            signal.alarm(20)
            act(number)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        return pipe.read()


def _call_in_thread(number):
    def call():
        os.write(1, str(_ask(number, DENIED["keyctl"][1])).encode())
        os.close(1)
        time.sleep(20)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def _call_after_exec(number):
    os.execv(sys.executable, ["python3", "-I", "-S", "-c", _CALL_AFTER_EXEC, str(number)])
