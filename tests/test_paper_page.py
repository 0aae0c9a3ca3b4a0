"""docs/paper.md names files, symbols, commands and sections of other pages: each of them is there."""

import ast
import functools
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "paper.md"

COMMANDS = {path.stem for path in (ROOT / "midillm_jax").glob("*.py") if "commands.run(main" in path.read_text()}
FOREIGN = {"hf", "pip"}
"""Programs of others, which are not checked."""
FIELDS = ("config.py", "composing/options.py", "data/build.py", "data/sources/__init__.py")
"""Where options of commands are, beside the command's own module."""


@functools.cache
def symbols(path: Path) -> frozenset[str]:
    """Names that a module defines, those inside classes as ``Class.name``."""
    found = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    collect(node.body, f"{prefix}{node.name}.")
            targets = node.targets if isinstance(node, ast.Assign) else getattr(node, "target", None)
            for target in targets if isinstance(targets, list) else [targets]:
                if isinstance(target, ast.Name):
                    found.add(prefix + target.id)

    collect(ast.parse(path.read_text()).body, "")
    return frozenset(found)


@functools.cache
def anchors(path: Path) -> frozenset[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def commands_in(page: str) -> Iterator[str]:
    """Lines of indented blocks, continued lines joined."""
    lines = [line[4:] for line in page.splitlines() if line.startswith("    ")]
    yield from "\n".join(lines).replace("\\\n", " ").splitlines()


def spans_in(page: str) -> Iterator[str]:
    """What stands between backticks outside of indented blocks."""
    yield from re.findall(r"`([^`\n]+)`", "\n".join(line for line in page.splitlines() if not line.startswith("    ")))


def unknown_options(words: list[str], known: str, *, fields: bool) -> list[str]:
    """Options that do not occur in the text of those who read them: as fields and parameters, or as they are."""
    found = []
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        name = re.sub("^--(no-)?", "", option).rpartition(".")[2].replace("-", "_")
        forms = [rf"{option}(?![\w-])", *([rf"\b{name}\s*:"] if fields else [])]
        if not any(re.search(form, known) for form in forms):
            found.append(f"{option} is not an option of {' '.join(words[:3])}")
    return found


def command_problems(line: str) -> list[str]:
    words = shlex.split(line)
    if not words or words[0] in FOREIGN:
        return []
    if words[:2] == ["python", "-m"] and words[2].removeprefix("midillm_jax.") in COMMANDS:
        module = ROOT / "midillm_jax" / f"{words[2].removeprefix('midillm_jax.')}.py"
        known = "".join(path.read_text() for path in (module, *(module.parent / field for field in FIELDS)))
        found = unknown_options(words, known, fields=True)
        named = [after for word, after in itertools.pairwise(words) if word == "--config"]
        return found + [f"configs/{name} is not there" for name in named if not (ROOT / "configs" / name).is_file()]
    script = words[1] if words[0] == "python" else words[0]
    if script.startswith(("benchmarks/", "launch/")):
        if not (ROOT / script).is_file():
            return [f"{script} is not there"]
        return unknown_options(words, (ROOT / script).read_text(), fields=False)
    return [f"{line!r} is no command of this repository"]


def span_problems(span: str) -> list[str]:
    named = re.fullmatch(r"([\w.-]+(?:/[\w.-]+)+\.(?:py|sh|md|csv))(?::([\w.]+))?", span)
    if named:
        path, symbol = ROOT / named[1], named[2]
        if not path.is_file():
            return [f"{named[1]} is not there"]
        return [] if symbol is None or symbol in symbols(path) else [f"{named[1]} has no {symbol}"]
    if "/" not in span and span.split()[0] in COMMANDS:
        return command_problems(f"python -m midillm_jax.{span}")
    return []


def link_problems(target: str) -> list[str]:
    place, _, anchor = target.partition("#")
    path = (PAGE.parent / place).resolve() if place else PAGE
    if not path.is_file():
        return [f"{target}: there is no such page"]
    return [] if not anchor or anchor in anchors(path) else [f"{target}: there is no such section"]


def problems(page: str) -> list[str]:
    """What the page names and the repository does not have, and rows that do not fit their table."""
    found = [problem for line in commands_in(page) for problem in command_problems(line)]
    found += [problem for span in spans_in(page) for problem in span_problems(span)]
    links = re.findall(r"\]\(([^)\s]+)\)", page)
    found += [problem for link in links if "://" not in link for problem in link_problems(link)]
    told = set(re.findall(r"^\*\*(W\d)\*\*,", page, re.MULTILINE))
    rows = [line for line in page.splitlines() if line.startswith("|")]
    asked = {name for row in rows for name in re.findall(r"\bW\d\b", row)}
    found += [f"{name} is told or asked for, not both" for name in sorted(told ^ asked)]
    cells = 0
    for before, row in itertools.pairwise(["", *page.splitlines()]):
        if row.startswith("|"):
            cells = cells if before.startswith("|") else row.count("|")
            found += [] if row.count("|") == cells else [f"a row of {row.count('|')} bars among rows of {cells}: {row}"]
    return found


def test_all_that_the_page_names_is_there() -> None:
    assert problems(PAGE.read_text()) == []


def test_the_page_names_much() -> None:
    """That the reading above still finds what is to be checked."""
    page = PAGE.read_text()
    assert len([span for span in spans_in(page) if ".py" in span]) > 50
    assert len(list(commands_in(page))) > 10
    assert "RAG, MoE and chain-of-thought" in page.replace("\n", " ")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("`midillm_jax/music/vocabulary.py`", "midillm_jax/music/vocabulary.py is not there"),
        ("`midillm_jax/music/vocab.py:ROWS`", "midillm_jax/music/vocab.py has no ROWS"),
        ("`midillm_jax/config.py:DataConfig.rows`", "has no DataConfig.rows"),
        ("`evaluate --idds`", "--idds is not an option"),
        ("    python -m midillm_jax.train --config stage3.py", "configs/stage3.py is not there"),
        ("    python -m midillm_jax.train --config stage1.py --data.rows 4", "--data.rows is not an option"),
        ("    python -m midillm_jax.training --config stage1.py", "is no command of this repository"),
        ("    python -m midillm_jax.evaluate \\\n        --modell m", "--modell is not an option"),
        ("    python benchmarks/speed.py", "benchmarks/speed.py is not there"),
        ("    python benchmarks/latency.py --shapes 1b", "--shapes is not an option"),
        ("    launch/data.sh --fetch", "--fetch is not an option"),
        ("[data](data.md#batch)", "data.md#batch: there is no such section"),
        ("[data](dates.md)", "dates.md: there is no such page"),
        ("| a | b |\n|---|---|\n| a |", "a row of 2 bars among rows of 3"),
        ("| W1 |", "W1 is told or asked for, not both"),
    ],
)
def test_what_is_not_there_is_found(wrong: str, told: str) -> None:
    (found,) = problems(f"Some words.\n\n{wrong}\n")
    assert told in found
