"""The observer outside: the kernel's own files about processes, mounts, groups and networks.

Parsers of the kit's own, shared with no driver and not with the host: a mistake of theirs must not
hide itself here. Each function reads, and returns plain data; what is gone raises OSError.
"""
