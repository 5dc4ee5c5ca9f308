"""The stand-in host: the namespaces and guard groups in which a whole session runs.

guard     the guard groups; made and removed outside
main      the program inside: enters namespaces, is their pid 1, serves the front end
furnish   what the machine of a session has for jobs to see: canaries
canary    one module a kind: processes, network, ipc, files
"""
