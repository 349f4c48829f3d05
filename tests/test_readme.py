"""README's snippets, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from serving import ROOT, shared_app

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_snippet(monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.split("## From Python\n")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    monkeypatch.chdir(ROOT)
    names: dict = {}
    exec(code, names)
    assert [type(picture) for picture in names["drawings"]] == [Image.Image] * 10
    assert len(names["styled"]) == 3
    assert names["translator"].domains == ("anime", "female", "male")


def test_the_client_snippet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    assert '"http://127.0.0.1:7860"' in code
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    names: dict = {}
    exec(code.replace("http://127.0.0.1:7860", shared_app().url), names)
    _, drawings, grid, whole = names["result"]
    assert len(drawings) == 4
    assert Image.open(grid).format == "PNG"
    assert Image.open(whole).size == Image.open(ROOT / "examples/photos/collins.png").size


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`((?:stargan|examples|weights)/[\w./-]+)`", README)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
