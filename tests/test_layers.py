"""Who may import whom (and what else every module owes), read from the sources.

Rooms stand on one another in the order of ROOMS; imports point down. Nothing is executed here.
"""

import ast
import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "midillm_jax"

ROOMS = (
    "errors",
    "files",
    "music",
    "config",
    "config_check",
    "presets",
    "text",
    "model",
    "data",
    "inference",
    "training",
    "evaluation",
    "composing",
    "serving",
    "experiments",
)
"""From the ground up. A module may import its own room and lower ones."""
FORBIDDEN = {
    ("config", "music"): "both stand on the ground",
    ("data", "model"): "data is prepared where no model is",
    ("evaluation", "training"): "scores do not know how a model was trained",
    ("composing", "training"): "music is asked for where nothing is trained",
    ("serving", "training"): "a server needs no training extra",
    ("experiments", "training"): "an experiment trains by the public command",
    ("experiments", "inference"): "an experiment writes music by the public command",
}
COMMANDS = ("prepare", "train", "export", "generate", "evaluate", "serve", "experiment")
"""Stand on top; nothing imports them, and only they import commands.py."""

WITHOUT_JAX = ("music", "text", "data")
"""Rooms that work where jax is absent, with all they import."""
WITHOUT_JAX_AT_IMPORT = (
    "inference.request",
    "inference.compose",
    "inference.vllm",
    "inference.llamacpp",
    "serving.api",
    "serving.http",
    "serving.page",
    "serve",
)
"""Modules whose import, with all it brings along, does not bring jax: a serving box has none."""
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}
STORAGE = {"grain", "array_record", "orbax", "tensorstore"}
"""Not on every platform, so only where shards and checkpoints are."""
STORAGE_ROOMS = ("data", "training")
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
LONGEST = 420


@dataclasses.dataclass(frozen=True)
class Import:
    """``target`` is a dotted name as it is imported; ``on_import`` is False inside a function."""

    target: str
    line: int
    on_import: bool


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    """Module name of a file, below the package: ``music.vocab``, ``music``, ``train``."""
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> list[Import]:
    """Every import of a file; those under TYPE_CHECKING count as made inside a function."""
    found: list[Import] = []

    def visit(node: ast.AST, on_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, on_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: relative import; imports are written in full"
            found.extend(Import(f"{node.module}.{alias.name}", node.lineno, on_import) for alias in node.names)
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        for child in ast.iter_child_nodes(node):
            visit(child, on_import and not later)

    visit(tree(path), True)
    return found


MODULES = {dotted(path): path for path in python_files(PACKAGE) if "configs" not in path.parts}


def ours(target: str) -> str | None:
    """The module of ours that an imported name belongs to: ``midillm_jax.music.vocab.REST`` -> ``music.vocab``."""
    if target.split(".")[0] != PACKAGE:
        return None
    name = target.removeprefix(PACKAGE).removeprefix(".")
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def room(module: str) -> str:
    return module.split(".")[0]


def edges(module: str) -> Iterator[tuple[str, Import]]:
    """Modules of ours that a module imports. The package itself (its version) is nobody's dependency."""
    for each in imports(MODULES[module]):
        target = ours(each.target)
        if target and target != module:
            yield target, each


def test_every_module_has_a_room() -> None:
    known = {*ROOMS, *COMMANDS, "commands", ""}
    assert {room(module) for module in MODULES} <= known
    assert {"music.vocab", "model.llama", "config", "commands"} <= MODULES.keys(), "the sources were not found"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    mine = room(module)
    for target, each in edges(module):
        theirs, where = room(target), f"{MODULES[module]}:{each.line}: imports {target}"
        assert theirs not in COMMANDS, f"{where}, a command; commands stand on top"
        if theirs == "commands":
            assert mine in COMMANDS, f"{where}, which only commands import"
        elif mine in ROOMS:
            assert (mine, theirs) not in FORBIDDEN, f"{where}: {FORBIDDEN[mine, theirs]}"
            assert ROOMS.index(theirs) <= ROOMS.index(mine), f"{where}; {mine} stands below {theirs}"
        elif mine == "commands":
            assert theirs in ("errors", "config"), f"{where}; what all commands share knows no room"


def test_no_import_cycle() -> None:
    done: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path[path.index(module) :], module))}"
        if module not in done:
            for target, _ in edges(module):
                follow(target, (*path, module))
            done.add(module)

    for module in MODULES:
        follow(module, ())


def libraries(module: str, *, on_import_only: bool) -> dict[str, str]:
    """Top-level libraries that a module reaches through modules of ours -> who imports them."""
    reached: dict[str, str] = {}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        # Importing a.b runs a/__init__.py too.
        waiting.extend(parent for parent in (current.rpartition(".")[0],) if parent in MODULES)
        for each in imports(MODULES[current]):
            if on_import_only and not each.on_import:
                continue
            target = ours(each.target)
            if target:
                waiting.append(target)
            elif target is None:
                reached.setdefault(each.target.split(".")[0], f"{MODULES[current]}:{each.line}")
    return reached


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room(module) in WITHOUT_JAX))
def test_rooms_without_jax(module: str) -> None:
    reached = libraries(module, on_import_only=False)
    assert not {name: where for name, where in reached.items() if name in JAX}


@pytest.mark.parametrize("module", [module for module in WITHOUT_JAX_AT_IMPORT if module in MODULES])
def test_requests_are_made_without_jax(module: str) -> None:
    reached = libraries(module, on_import_only=True)
    assert not {name: where for name, where in reached.items() if name in JAX}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_libraries_that_are_not_everywhere(module: str) -> None:
    for each in imports(MODULES[module]):
        library, where = each.target.split(".")[0], f"{MODULES[module]}:{each.line}: imports {each.target}"
        if library in STORAGE:
            assert room(module) in STORAGE_ROOMS, f"{where}; shards and checkpoints are read in data/ and training/"
        if library in ("torch", "transformers"):
            assert room(module) in ("evaluation", "inference"), f"{where}; the network here is in JAX"


@pytest.mark.parametrize("module", ["generate", "inference.sampler", "model.hf", "model.llama"])
def test_generation_reaches_no_storage_library_on_import(module: str) -> None:
    if module not in MODULES:
        pytest.fail(f"{module} is gone; name what took its place")
    reached = libraries(module, on_import_only=True)
    assert not {name: where for name, where in reached.items() if name in STORAGE}


CODE = python_files(PACKAGE, "configs", "benchmarks", "launch")


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pickle_and_no_remote_code(path: Path) -> None:
    for each in imports(path):
        assert each.target.split(".")[0] not in PICKLES, f"{path}:{each.line}: {each.target} runs what it reads"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.keyword):
            assert node.arg not in ("allow_pickle", "trust_remote_code"), f"{path}:{node.value.lineno}: {node.arg}"
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
            pytest.fail(f"{path}:{node.lineno}: torch.load reads pickles")


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{path}: {lines} lines; split it by responsibility"
    assert path.name not in ("utils.py", "util.py", "helpers.py", "misc.py", "common.py"), "name it for what it does"
    if path.name != "__init__.py" or path.stat().st_size:
        assert ast.get_docstring(tree(path)), f"{path}: the module has no docstring"


@pytest.mark.parametrize("path", python_files("configs"), ids=lambda path: path.name)
def test_configs_import_nothing_but_the_schema(path: Path) -> None:
    allowed = (f"{PACKAGE}.config", f"{PACKAGE}.presets", "dataclasses")
    if path.parent.name == "experiments":
        allowed = (f"{PACKAGE}.experiments", "typing")
    for each in imports(path):
        assert each.target.startswith(allowed), f"{path}:{each.line}: imports {each.target}"
