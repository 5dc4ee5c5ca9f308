"""The conformance kit: it measures what a driver really isolates, with eyes of its own.

It imports no driver and nothing of `execdrv.linux`, so that no mistake of theirs can hide itself.
Its checks are not written yet.
"""
