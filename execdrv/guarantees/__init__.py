"""Guarantees: the named properties that drivers declare and the conformance kit proves.

`ids` is generated and small: profile and machine needs of each id, all that a `run` loads beside
`facts`, which names what a machine or a spec can have. `types` and `catalogue` hold the sentences,
observations and mutants: for the kit, the documentation, `drivers` and `doctor`.

This package imports nothing by itself, so that `ids` stays cheap to reach.
"""
