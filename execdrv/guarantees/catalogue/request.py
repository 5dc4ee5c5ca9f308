"""Many containers at once, and requests that can't be right.

Data of the catalogue (see execdrv.guarantees.catalogue): sentences and observations, no code.
Loaded by the conformance kit, the documentation, `drivers` and `doctor`; never by a `run`. The
mutants that kill each guarantee stand in `mutant`.
"""

from execdrv.guarantees.types import Guarantee

GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        id="conc.many",
        title="Of 20 containers at once each MUST give its own right result.",
        kind="functional",
        profile="base",
        inside="prints its nonce and exits with its number",
        control="one alone gives the same",
    ),
    Guarantee(
        id="conc.crosstalk",
        title="Output, limits and files of containers that run at once MUST NOT mix.",
        kind="functional",
        profile="base",
        inside="prints its nonce, its variable, its limit and the files it finds",
        outside="output, rlimits and group limits of the process that carries each nonce",
    ),
    Guarantee(
        id="conc.races",
        title=(
            "When destroy, kill, exec and stop race, one MUST win and the others MUST get a "
            "result or a typed error: no hang and no leak."
        ),
        kind="functional",
        profile="base",
        outside="all of the leak observations after seeded interleavings, each within its window",
        control="each operation alone succeeds",
    ),
    Guarantee(
        id="conc.threads",
        title=(
            "A driver MUST be usable from many threads of one process, and no container may "
            "inherit another's descriptors."
        ),
        kind="functional",
        profile="base",
        outside=(
            "results of all threads; descriptors of each job, and of a plain child of the caller"
        ),
        control="one thread alone gives the same results",
        references=("fork(2)",),
    ),
    Guarantee(
        id="bad.spec",
        title=(
            "A spec with an unknown field, a wrong type, NaN, a negative number or one over 2^63 "
            "MUST be refused by a typed error, and nothing is run."
        ),
        kind="functional",
        profile="base",
        outside="no process, group or file has appeared",
        control="the same spec with a good value runs",
    ),
    Guarantee(
        id="bad.id",
        title="An id with `/`, `..`, NUL, newline or 300 characters MUST be refused.",
        kind="functional",
        profile="base",
        outside="no path outside the state directory has appeared or changed",
        control="a good id is accepted",
        references=("CVE-2022-2787",),
    ),
    Guarantee(
        id="bad.rootfs",
        title=(
            "A root that is missing, a file, a dangling link or unreadable MUST be a typed error "
            "that names it."
        ),
        kind="functional",
        profile="base",
        outside="all of the leak observations",
        control="a good root runs",
    ),
    Guarantee(
        id="bad.fails-closed",
        title=(
            "Asking for a guarantee that the driver declares absent MUST raise UnsupportedError, "
            "and nothing is run."
        ),
        kind="functional",
        profile="base",
        outside=(
            "UnsupportedError, no output of the command, and no process, group or file has "
            "appeared; what is accepted instead has its effect, as the job sees it"
        ),
        control="what the driver offers is accepted, and the job sees its effect",
    ),
    Guarantee(
        id="bad.typed",
        title="Every failure MUST be an error of the execdrv hierarchy that names stage and field.",
        kind="functional",
        profile="base",
        outside="class and attributes of the error, for each provoked failure",
        control="the same call without the failure raises nothing",
    ),
)
