"""The thin layer over the kernel: system calls, mounts, cgroups, ids, /proc.

Public for driver authors. It knows errors, units, limits and the spec, but neither drivers nor
containers; only here is ctypes used. Each module says in which process its functions may run.
"""
