"""The rules of the layout, read from the sources: who may import what, and what no file may do.

The tables come first and are meant to be edited together with ARCHITECTURE.md; a new module needs a
line in LAYERS before this passes. Nothing is imported here: the sources are parsed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

TREE = Path(__file__).resolve().parents[1]
ROOTS = {
    "execdrv": TREE / "execdrv",
    "execdrv_native": TREE / "drivers/native/execdrv_native",
    "execdrv_lxc": TREE / "drivers/lxc/execdrv_lxc",
    "execdrv_chroot": TREE / "drivers/chroot/execdrv_chroot",
    "execdrv_conformance": TREE / "conformance/execdrv_conformance",
}
DRIVERS = ("execdrv_native", "execdrv_lxc", "execdrv_chroot")
KIT = "execdrv_conformance"

#: Lowest first. A module belongs to the longest name that is its own or its package's, and imports
#: from lines above its own only, or from its own package. Imports for type checkers are free.
LAYERS = (
    ("execdrv.errors", "execdrv.version"),
    ("execdrv.units",),
    ("execdrv.limits",),
    # A table of names and numbers that the spec needs too.
    ("execdrv.linux.capabilities",),
    ("execdrv.spec",),
    ("execdrv.guarantees",),
    ("execdrv.offers",),
    ("execdrv.linux",),
    ("execdrv.machine",),
    ("execdrv.init",),
    ("execdrv.rootfs",),
    ("execdrv.driver",),
    ("execdrv.hookspecs",),
    ("execdrv.wire",),
    ("execdrv.state",),
    ("execdrv.registry",),
    ("execdrv.plugins",),
    ("execdrv.dispatch",),
    ("execdrv.supervisor",),
    ("execdrv.container",),
    ("execdrv.host",),
    ("execdrv",),
    ("execdrv.cli",),
    ("execdrv.__main__",),
)

#: What a driver may import of execdrv: these modules, and what lies below the packages among them.
PUBLIC = (
    "execdrv",
    "execdrv.driver",
    "execdrv.errors",
    "execdrv.guarantees",
    "execdrv.hookspecs",
    "execdrv.init",
    "execdrv.limits",
    "execdrv.linux",
    "execdrv.offers",
    "execdrv.spec",
    "execdrv.units",
    "execdrv.version",
)

#: Third-party and standard modules that belong to one place: name, where, only inside functions.
CONFINED = (
    (
        "ctypes",
        ("execdrv.linux", "execdrv_conformance.kernel", "execdrv_conformance.probes"),
        False,
    ),
    ("lxc", ("execdrv_lxc.binding",), True),
    ("_lxc", ("execdrv_lxc.binding",), True),
    ("pyroute2", (), True),
    ("elftools", ("execdrv.rootfs.elf", KIT), True),
    ("pytest", ("execdrv_conformance.pytest_plugin",), False),
)

#: Too slow for the start of a command; imported inside functions, by everything but the kit.
LATE = (
    "asyncio",
    "dataclasses",
    "email",
    "importlib.metadata",
    "logging",
    "subprocess",
    "tempfile",
    "zipfile",
)

#: Where execdrv may import the kit, inside functions: it is asked for there by name.
KIT_COMMANDS = ("execdrv.cli.conformance", "execdrv.cli.compare")

#: The command lines: only they print and exit.
COMMAND_LINES = ("execdrv.cli", "execdrv.__main__")


class Import(NamedTuple):
    """One import of one module, or of a name from it."""

    importer: str
    line: int
    module: str
    name: str | None  #: what stands after `import` in `from module import name`
    at_import: bool  #: runs when the importer is imported
    for_types: bool  #: stands below `if TYPE_CHECKING`

    def __str__(self) -> str:
        what = self.module if self.name is None else f"{self.module}:{self.name}"
        return f"{self.importer}:{self.line} imports {what}"


def is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def find_modules(roots: Mapping[str, Path] = ROOTS) -> dict[str, ast.Module]:
    modules = {}
    for package, root in roots.items():
        for path in sorted(root.rglob("*.py")):
            parts = [package, *path.relative_to(root).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = ast.parse(path.read_text(), str(path))
    return modules


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def walk(
    node: ast.AST, at_import: bool = True, for_types: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    """Every node below `node`, with: does it run at import, is it for type checkers only."""
    for child in ast.iter_child_nodes(node):
        yield child, at_import, for_types
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for part in child.body:
                yield part, False, True
                yield from walk(part, False, True)
            for part in child.orelse:
                yield part, at_import, for_types
                yield from walk(part, at_import, for_types)
            continue
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, at_import and not inside, for_types)


def find_imports(importer: str, tree: ast.Module, modules: Mapping[str, object]) -> list[Import]:
    """The imports of one module; `from package import module` counts as an import of module."""
    found = []
    for node, at_import, for_types in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.append(Import(importer, node.lineno, alias.name, None, at_import, for_types))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                base, name = node.module or "", alias.name
                if f"{base}.{name}" in modules:
                    base, name = f"{base}.{name}", None
                found.append(Import(importer, node.lineno, base, name, at_import, for_types))
    return found


MODULES = find_modules()
IMPORTS = [found for name, tree in MODULES.items() for found in find_imports(name, tree, MODULES)]


def find_layer(module: str) -> tuple[int, str] | None:
    """Position and name of the entry of LAYERS that `module` belongs to."""
    names = {name: position for position, line in enumerate(LAYERS) for name in line}
    # The package execdrv itself is a layer, but not the home of modules that have no other.
    while module not in names:
        module = module.rpartition(".")[0]
        if module in ("", "execdrv"):
            return None
    return names[module], module


def find_upward(imports: list[Import]) -> list[str]:
    wrong = []
    for found in imports:
        if found.for_types or not is_within(found.importer, ("execdrv",)):
            continue
        if not is_within(found.module, ("execdrv",)):
            continue
        own, other = find_layer(found.importer), find_layer(found.module)
        if own and other and own[1] != other[1] and other[0] >= own[0]:
            wrong.append(str(found))
    return wrong


def find_circles(imports: list[Import]) -> list[list[str]]:
    """Circles of imports that run when a module is imported (a package's own line included)."""
    below: dict[str, set[str]] = {}
    for found in imports:
        if found.at_import and found.module != found.importer:
            below.setdefault(found.importer, set()).add(found.module)
    circles: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            circles.append([*trail[trail.index(module) :], module])
        elif module not in done:
            for other in sorted(below.get(module, ())):
                visit(other, [*trail, module])
            done.add(module)

    for module in sorted(below):
        visit(module, [])
    return circles


def find_unconfined(imports: list[Import]) -> list[str]:
    return [
        str(found)
        for found in imports
        for name, places, late in CONFINED
        if is_within(found.module, (name,)) and not found.for_types
        if not is_within(found.importer, places) or (late and found.at_import)
    ]


def find_late(imports: list[Import]) -> list[str]:
    return [
        str(found)
        for found in imports
        if found.at_import and not is_within(found.importer, (KIT,))
        if is_within(found.module if found.name is None else f"{found.module}.{found.name}", LATE)
    ]


def find_private_use(imports: list[Import]) -> list[str]:
    """What a driver imports of execdrv that is not for drivers."""
    wrong = []
    for found in imports:
        package = found.importer.partition(".")[0]
        if package not in DRIVERS:
            continue
        if is_within(found.module, ("execdrv",)):
            private = any(
                part.startswith("_") and not part.startswith("__")
                for part in [*found.module.split("."), found.name or ""]
            )
            # `execdrv` in PUBLIC means the package's own names, not every module in it.
            public = found.module == "execdrv" or is_within(
                found.module, tuple(name for name in PUBLIC if name != "execdrv")
            )
            if private or not public or found.name == "*":
                wrong.append(str(found))
        elif is_within(found.module, tuple(name for name in ROOTS if name != package)):
            wrong.append(str(found))
    return wrong


def find_calls(tree: ast.AST, names: tuple[str, ...]) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names
    ]


def expect_none(wrong: list[str]) -> None:
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_all_five_packages_are_there() -> None:
    expect_none([name for name in ROOTS if name not in MODULES])


def test_every_module_has_a_layer() -> None:
    own = [name for name in MODULES if is_within(name, ("execdrv",))]
    expect_none([f"{name} has no line in LAYERS" for name in own if find_layer(name) is None])


def test_every_line_of_the_tables_names_something() -> None:
    places = [place for _, places, _ in CONFINED for place in places]
    names = [name for line in LAYERS for name in line]
    names += [*PUBLIC, *places, *COMMAND_LINES, *KIT_COMMANDS]
    expect_none([f"there is no {name}" for name in names if name not in MODULES])


def test_imports_run_downwards() -> None:
    expect_none(find_upward(IMPORTS))


def test_no_imports_in_a_circle() -> None:
    expect_none([" > ".join(circle) for circle in find_circles(IMPORTS)])


def test_imports_are_absolute() -> None:
    expect_none(
        [
            f"{name}:{node.lineno} imports from '{'.' * node.level}'"
            for name, tree in MODULES.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.level
        ]
    )


def is_for_kit(found: Import) -> bool:
    return (
        is_within(found.importer, KIT_COMMANDS)
        and not is_within(found.module, DRIVERS)
        and not (found.at_import and not found.for_types)
    )


@pytest.mark.parametrize(
    ("importer", "source", "allowed"),
    [
        ("execdrv.cli.compare", "def f():\n    import execdrv_conformance.run", True),
        ("execdrv.cli.compare", "import execdrv_conformance.run", False),
        ("execdrv.cli.conformance.run", "def f():\n    import execdrv_conformance.run", True),
        ("execdrv.cli.conformance.run", "import execdrv_conformance.run", False),
        ("execdrv.cli.compare", "def f():\n    import execdrv_native", False),
        ("execdrv.cli.run", "def f():\n    import execdrv_conformance.run", False),
    ],
)
def test_only_two_commands_import_the_kit_and_late(
    importer: str, source: str, allowed: bool
) -> None:
    (found,) = find_imports(importer, ast.parse(source), {})
    assert is_for_kit(found) == allowed


def test_host_imports_no_driver_and_not_the_kit() -> None:
    expect_none(
        [
            str(found)
            for found in IMPORTS
            if is_within(found.importer, ("execdrv",)) and is_within(found.module, (*DRIVERS, KIT))
            if not is_for_kit(found)
        ]
    )


def test_drivers_import_only_public_names() -> None:
    expect_none(find_private_use(IMPORTS))


def test_kit_has_eyes_of_its_own() -> None:
    expect_none(
        [
            str(found)
            for found in IMPORTS
            if is_within(found.importer, (KIT,))
            and is_within(found.module, (*DRIVERS, "execdrv.linux"))
        ]
    )


#: What a kit that favours a driver would compare with.
DRIVER_NAMES = {
    word
    for package in DRIVERS
    for word in (package, package.removeprefix("execdrv_"), f"{package}:plugin")
}


def find_favours(module: str, tree: ast.Module) -> list[str]:
    """Where a module compares something with a driver's name, or looks something up by it."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.Dict | ast.MatchValue | ast.Subscript):
            words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            if DRIVER_NAMES & {word for word in words if isinstance(word, str)}:
                wrong.append(f"{module}:{node.lineno} branches on a driver's name")
    return wrong


def test_kit_favours_no_driver() -> None:
    kit = [(name, tree) for name, tree in MODULES.items() if is_within(name, (KIT,))]
    assert len(kit) > 10
    expect_none([line for name, tree in kit for line in find_favours(name, tree)])


@pytest.mark.parametrize(
    "source",
    [
        "if declaration.name == 'native': pass",
        "if name in ('lxc', 'other'): pass",
        "match name:\n    case 'chroot': pass",
        "slow = {'native': 2}[name]",
        "import x\nif cls.__module__ == 'execdrv_lxc': pass",
    ],
)
def test_favouring_a_driver_is_found(source: str) -> None:
    assert find_favours("kit", ast.parse(source))


def test_probes_need_nothing_but_the_standard_library() -> None:
    """They are sent into containers as text: an import of ours would fail there."""
    probes = f"{KIT}.probes"
    expect_none(
        [
            str(found)
            for found in IMPORTS
            if is_within(found.importer, (probes,))
            and found.module.partition(".")[0] not in sys.stdlib_module_names
        ]
    )


def test_confined_modules_stay_in_their_place() -> None:
    expect_none(find_unconfined(IMPORTS))


def test_slow_modules_are_imported_where_they_are_used() -> None:
    expect_none(find_late(IMPORTS))


def test_library_code_asserts_nothing() -> None:
    expect_none(
        [
            f"{name}:{node.lineno} asserts"
            for name, tree in MODULES.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Assert)
        ]
    )


def test_only_command_lines_print_and_exit() -> None:
    names = ("print", "exit", "quit", "sys.exit", "sys.stdout.write", "sys.stderr.write")
    expect_none(
        [
            f"{name}:{line} prints or exits"
            for name, tree in MODULES.items()
            if not is_within(name, COMMAND_LINES)
            for line in find_calls(tree, names)
        ]
    )


def test_every_module_says_what_it_is_for() -> None:
    expect_none(
        [
            f"{name} has no docstring"
            for name, tree in MODULES.items()
            if len(tree.body) > 1 and not ast.get_docstring(tree)
        ]
    )


# ---- The finders find: each rule against a source that breaks it ---------------------------------


@pytest.mark.parametrize(
    ("find", "importer", "source"),
    [
        (find_upward, "execdrv.linux.mounts", "from execdrv.driver import Box"),
        (find_upward, "execdrv.linux.mounts", "def f():\n    import execdrv.host"),
        (find_upward, "execdrv.errors", "from execdrv import units"),
        (find_upward, "execdrv.state", "from execdrv import Host"),
        (find_circles, "execdrv.units", "import execdrv.units2\n"),
        (find_private_use, "execdrv_lxc.driver", "from execdrv.wire import encode"),
        (find_private_use, "execdrv_lxc.driver", "from execdrv.errors import _rebuild"),
        (find_private_use, "execdrv_lxc.driver", "import execdrv_native.driver"),
        (find_private_use, "execdrv_lxc.driver", "from execdrv import host"),
        (find_unconfined, "execdrv.host", "def f():\n    import ctypes.util"),
        (find_unconfined, "execdrv_lxc.binding", "import lxc"),
        (find_unconfined, "execdrv_lxc.driver", "def f():\n    import lxc"),
        (find_late, "execdrv.host", "from importlib import metadata"),
        (find_late, "execdrv.host", "try:\n    import tempfile\nfinally:\n    pass"),
    ],
)
def test_finder_finds_a_planted_break(find: object, importer: str, source: str) -> None:
    known = dict.fromkeys(("execdrv.units", "execdrv.host", "execdrv.units2"))
    imports = find_imports(importer, ast.parse(source), known)
    imports += find_imports("execdrv.units2", ast.parse("import execdrv.units"), known)
    assert callable(find)
    assert len(find(imports)) == 1


@pytest.mark.parametrize(
    ("find", "importer", "source"),
    [
        (find_upward, "execdrv.driver", "from execdrv.linux.cgroups import Group"),
        (find_upward, "execdrv.linux.a", "from execdrv.linux import b"),
        (find_upward, "execdrv.hookspecs", "if TYPE_CHECKING:\n    import execdrv.container"),
        (find_circles, "execdrv.units", "def f():\n    import execdrv.units2\n"),
        (find_private_use, "execdrv_lxc.driver", "from execdrv.linux.cgroups import limit"),
        (find_private_use, "execdrv_lxc.driver", "import execdrv_lxc.binding"),
        (find_unconfined, "execdrv_lxc.binding", "def f():\n    import lxc"),
        (find_late, "execdrv.host", "def f():\n    import tempfile"),
    ],
)
def test_finder_lets_good_imports_pass(find: object, importer: str, source: str) -> None:
    known = dict.fromkeys(("execdrv.units", "execdrv.units2"))
    imports = find_imports(importer, ast.parse(source), known)
    imports += find_imports("execdrv.units2", ast.parse("import execdrv.units"), known)
    assert callable(find)
    assert find(imports) == []
