"""The house: a folder is a floor, and imports go down only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from serving import ROOT

PACKAGE = ROOT / "stargan"
# From the top down. A module may import those of its own floor and of lower ones.
FLOORS = [
    ("app", "stargan.commands", "stargan.page", "stargan.bench"),
    ("stargan.evaluation",),
    ("stargan.training",),
    ("stargan.cluster",),
    ("stargan.batch",),
    ("stargan.drawing", "stargan.video"),
    ("stargan.inference",),
    ("stargan.models",),
    ("stargan.landmarks", "stargan.networks", "stargan.pictures"),
    ("stargan.allocator", "stargan.cache", "stargan.constants", "stargan.errors", "stargan.stages"),
]
FILES = [*PACKAGE.rglob("*.py"), ROOT / "app.py"]


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> set[str]:
    """The modules that a file imports, when it is imported or later; not those for types alone."""
    found: set[str] = set()
    tree = ast.parse(file.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names if node.module.startswith("stargan"))
    return found


def floor(module: str) -> int | None:
    for level, names in enumerate(FLOORS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return level
    return None


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_down_only(file: Path) -> None:
    own = floor(name_of(file))
    if own is None:  # the package itself, and how it is started
        assert name_of(file) in ("stargan", "stargan.__main__")
        return
    upward = {module for module in imports(file) if (level := floor(module)) is not None and level < own}
    assert upward == set()


def test_the_page_alone_knows_gradio_and_languages() -> None:
    for file in FILES:
        name, found = name_of(file), imports(file)
        if not name.startswith("stargan.page"):
            assert not any(module.split(".")[0] == "gradio" for module in found), name
            if name != "app":
                assert not any(module.startswith("stargan.page") for module in found), name


def test_the_page_does_without_what_makes_models() -> None:
    for file in FILES:
        if name_of(file).startswith("stargan.page"):
            makers = ("stargan.training", "stargan.evaluation", "stargan.bench", "stargan.commands")
            assert not any(module.startswith(makers) for module in imports(file)), name_of(file)


def test_app_is_short() -> None:
    assert len((ROOT / "app.py").read_text().splitlines()) < 100
