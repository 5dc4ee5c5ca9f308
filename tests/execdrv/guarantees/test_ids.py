"""ids.py is what a run loads: it agrees with the catalogue and brings nothing along."""

import ast
import json
import subprocess
import sys
from pathlib import Path

from execdrv.guarantees import ids
from execdrv.guarantees.catalogue import load_catalogue
from execdrv.guarantees.types import CATALOGUES

CATALOGUE = load_catalogue()


def modules_after(statement: str) -> set[str]:
    """Names that a fresh interpreter has loaded because of a statement."""
    program = (
        "import sys, json; before = set(sys.modules); "
        f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    path = [entry or str(Path.cwd()) for entry in sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_agrees_with_the_catalogue() -> None:
    assert list(ids.IDS) == list(CATALOGUE)
    for id, (profile, needs) in ids.IDS.items():
        assert (profile, needs) == (CATALOGUE[id].profile, CATALOGUE[id].needs)
    allowed = {id for id, entry in CATALOGUE.items() if entry.not_applicable_allowed}
    later = {id: e.since for id, e in CATALOGUE.items() if e.since != CATALOGUES[0]}
    assert allowed == ids.NOT_APPLICABLE_ALLOWED
    assert later == ids.ADDED_LATER
    assert ids.CATALOGUES == CATALOGUES


def test_imports_nothing() -> None:
    tree = ast.parse(Path(ids.__file__).read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_import_loads_only_itself() -> None:
    loaded = modules_after("import execdrv.guarantees.ids")
    assert "execdrv.guarantees.ids" in loaded
    assert {name for name in loaded if name.startswith("execdrv.guarantees")} == {
        "execdrv.guarantees",
        "execdrv.guarantees.ids",
    }


def test_offers_load_no_sentence_of_the_catalogue() -> None:
    # Use, not import alone: the table, a condition and the validation are what a run may reach.
    loaded = modules_after(
        "from execdrv.offers import Offers, enforced, when; "
        "o = Offers({'base': when('root', 'x'), 'fs': enforced()}); "
        "o.refusal_for('io.big', {}); o.problems()"
    )
    assert "execdrv.offers" in loaded
    assert not {name for name in loaded if name.startswith("execdrv.guarantees.catalogue")}
    assert "execdrv.guarantees.types" not in loaded
