"""The mutants: for each, its one fault and the guarantees that it turns red.

Data of the catalogue. The kit's own tests build these drivers and hold the kit against this table
in both directions: each named id turns red, every other one stays as it was. Where a fault was
first written down for a whole domain, ids that it can't touch are left out, with the reason beside.
"""

from execdrv.guarantees.catalogue.mutant import (
    job,
    liar,
    more_end,
    more_life,
    more_wall,
    unlisted,
    wall,
)
from execdrv.guarantees.types import Mutant

#: Those of the first proposal of 2026.1.
FIRST: tuple[Mutant, ...] = (*wall.MUTANTS, *job.MUTANTS, *liar.MUTANTS)

MUTANTS: tuple[Mutant, ...] = (
    *FIRST,
    *more_life.MUTANTS,
    *more_wall.MUTANTS,
    *more_end.MUTANTS,
    *unlisted.MUTANTS,
)
