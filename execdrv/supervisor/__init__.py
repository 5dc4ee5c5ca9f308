"""The process that owns a container, and the ways to start it.

    launch.py      what a supervisor is told, as data
    connection.py  frames over a socket, with descriptors
    assemble.py    a spec with every default resolved: the driver's Box
    refusals.py    why a box can't be made: from the offers, from this machine, from the driver
    owner.py       the container's operations, in the order of the contract
    capture.py     keeping a job's output
    loop.py        the supervisor's event loop and its end
    collector.py   destroying a container from its record alone
    server.py      the fork server of a Host
    launcher.py    the caller's side: starting supervisors and asking them

Driver code runs here and nowhere else. Nothing in here runs in a caller's thread, but launcher.py.
"""
