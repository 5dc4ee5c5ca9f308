"""What scripts/generate.py writes is fresh, complete, and stale files are noticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from execdrv.guarantees.catalogue import DOMAINS, load_catalogue
from execdrv.guarantees.facts import MACHINE_FACTS, SPEC_FACTS

ROOT = Path(__file__).resolve().parents[3]
FILES = ("execdrv/guarantees/ids.py", "docs/guarantees.md")
CATALOGUE = load_catalogue()


def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/generate.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory that holds freshly generated files and nothing else."""
    assert generate("--root", str(tmp_path)).returncode == 0
    return tmp_path


def test_committed_files_are_fresh() -> None:
    done = generate("--check")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_check_notices_a_stale_file_and_leaves_it(tree: Path, name: str) -> None:
    path = tree / name
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    before = path.read_bytes()
    done = generate("--check", "--root", str(tree))
    assert done.returncode == 1
    assert str(path) in done.stdout
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", FILES)
def test_check_notices_a_missing_file_and_makes_none(tree: Path, name: str) -> None:
    (tree / name).unlink()
    assert generate("--check", "--root", str(tree)).returncode == 1
    assert not (tree / name).exists()


def test_writing_makes_a_stale_tree_fresh(tree: Path) -> None:
    (tree / FILES[0]).write_text("IDS = {}\n", encoding="utf-8")
    assert generate("--root", str(tree)).returncode == 0
    assert generate("--check", "--root", str(tree)).returncode == 0


def test_page_has_every_id_with_its_sentence_in_a_table_of_its_domain() -> None:
    page = (ROOT / FILES[1]).read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    for id, entry in CATALOGUE.items():
        section = sections[f"{DOMAINS[entry.domain]}: `{entry.domain}.*`"]
        row = next(line for line in section.splitlines() if line.startswith(f"| `{id}`"))
        assert entry.title in row
        for text in (entry.profile, entry.kind, entry.inside, entry.outside, entry.control):
            assert text in row
        assert ("*Provisional" in row) is entry.provisional
        assert all(f"`{name}`" in row for name in (*entry.needs, *entry.mutants))


def test_page_explains_every_fact() -> None:
    page = (ROOT / FILES[1]).read_text(encoding="utf-8")
    for name, meaning in {**MACHINE_FACTS, **SPEC_FACTS}.items():
        assert f"| `{name}` | {meaning} |" in page


def test_every_table_row_has_the_cells_of_its_head() -> None:
    lines = (ROOT / FILES[1]).read_text(encoding="utf-8").splitlines()
    width = 0
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        cells = line.replace("\\|", "").count("|")
        if following.startswith("|---"):
            width = cells
        if line.startswith("|"):
            assert cells == width
