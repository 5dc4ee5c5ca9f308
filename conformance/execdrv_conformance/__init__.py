"""The conformance kit: it measures what a driver really isolates, with eyes of its own.

    from execdrv_conformance import conformance_checks

    @conformance_checks("mydrv")
    def test_conformance(check):
        check.run()

The same engine runs under `execdrv conformance run` and under pytest. The kit imports no driver and
nothing of `execdrv.linux`, so that no mistake of theirs can hide itself.

    probes      what runs inside a container, as source text
    observe     what the kernel says outside, by parsers of the kit's own
    canary, standin
                the stand-in host and what is in it for jobs to reach
    check, checks
                how each guarantee is gathered and how its facts are read
    bench, collect
                the stand-in host's side of gathering
    finding, judge, verdict, result
                from facts to a verdict, pure
    session     the front end's side: run directory, evidence, results
    report      what is made of results
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from execdrv_conformance.pytest_plugin import conformance_checks

__all__ = ["conformance_checks"]


def __getattr__(name: str) -> Any:
    # pytest is loaded for those only who write a test file.
    if name != "conformance_checks":
        raise AttributeError(f"module 'execdrv_conformance' has no attribute {name!r}")
    from execdrv_conformance.pytest_plugin import conformance_checks

    return conformance_checks
