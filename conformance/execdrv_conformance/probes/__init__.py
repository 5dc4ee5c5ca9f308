"""What runs inside the container: small functions of the standard library alone, as source text.

`agent` is the loop that the job runs; every other module here holds probes: public functions that
return a dict of facts (or yield several), with values that JSON can carry. They are sent into the
container and never imported from its tree; they can't import each other or the kit.
"""
