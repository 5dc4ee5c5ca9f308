"""Terminals that the job has or can reach."""

import contextlib
import ctypes
import fcntl
import os
import struct
import termios

# Not in the module termios of every Python.
_TIOCLINUX = 0x541C
_TIOCGSID = 0x5429


def describe_terminal():
    """Which standard streams are terminals, and whether the session has one."""
    sizes = {}
    for number in (0, 1, 2):
        if os.isatty(number):
            size = fcntl.ioctl(number, termios.TIOCGWINSZ, bytes(8))
            sizes[str(number)] = list(struct.unpack("HHHH", size)[:2])
    try:
        tty = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError as error:
        session, problem = 0, error.strerror
    else:
        session = struct.unpack("i", fcntl.ioctl(tty, _TIOCGSID, bytes(4)))[0]
        problem = ""
        os.close(tty)
    return {
        "sizes": sizes,
        "session": os.getsid(0),
        "terminal_session": session,
        "problem": problem,
    }


def type_character(character):
    """Type it into each terminal that can be reached, with each form of the request."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    ioctl = {"x86_64": 16, "aarch64": 29}[os.uname().machine]
    terminals = {str(n): n for n in range(256) if os.isatty(n)}
    held = sorted(terminals)
    with contextlib.suppress(OSError):
        terminals["/dev/tty"] = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    typed, errors = [], {}
    # 3 is TIOCL_PASTESEL: it types what was selected, on a console.
    requests = {
        "TIOCSTI": (termios.TIOCSTI, character.encode()),
        "TIOCSTI with high bits": (termios.TIOCSTI | 1 << 32, character.encode()),
        "TIOCLINUX": (_TIOCLINUX, b"\x03"),
    }
    for name, number in terminals.items():
        for words, (request, data) in requests.items():
            buffer = ctypes.create_string_buffer(data, 8)
            arguments = (ctypes.c_long(number), ctypes.c_ulong(request), buffer)
            if libc.syscall(ctypes.c_long(ioctl), *arguments) == 0:
                typed.append(f"{words} on {name}")
            else:
                errors[f"{words} on {name}"] = os.strerror(ctypes.get_errno())
    return {"held": held, "typed": typed, "errors": errors}
