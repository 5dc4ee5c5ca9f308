"""The process that owns a container, and the ways to start it.

    launch.py      what a supervisor is told, as data
    connection.py  frames over a socket, with descriptors
    assemble.py    a spec with every default resolved: the driver's Box
    refusals.py    why a box can't be made: from the offers, from this machine, from the driver
    draft.py       a container before it is made: box, refusals, groups, first record
    owner.py       the container's operations, in the order of the contract
    claim.py       what it holds meanwhile: its directory with the record, and its uid
    tree.py        its processes: reaping them, and ending them all
    capture.py     keeping a job's output
    end.py         how it ended, judged from what was read
    loop.py        the supervisor's event loop and its end
    collector.py   destroying a container from its record alone
    server.py      the fork server of a Host
    launcher.py    the caller's side: starting supervisors and collectors
    client.py      the caller's side: asking a supervisor, and waiting for the end

Driver code runs here and nowhere else. Nothing in here runs in a caller's thread, but the
caller's side.
"""
