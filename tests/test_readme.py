"""README's snippets, run as they stand there."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import gradio
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright
from serving import ROOT, shared_app
from test_browser import CHROMIUM, FLAGS

import stargan.commands
from stargan.constants import DEFAULT_MODEL
from stargan.models.registry import find_model
from stargan.pictures.provenance import read_provenance
from stargan.training.state import DISCRIMINATOR_FILE

JS_CLIENT = "2.7.0"
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


def test_the_snippet_for_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    section = README.split("\n## On the Hub\n")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section[section.index("    from stargan") :].splitlines())
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    bundled = find_model(DEFAULT_MODEL)
    saved = {file.name for file in (tmp_path / "models" / "mine").iterdir()}
    assert saved == {file.name for file in bundled.iterdir()} - {DISCRIMINATOR_FILE}


def given(text: str) -> list[list[str]]:
    return [line.split("#")[0].split()[3:] for line in text.splitlines() if line.startswith("    python -m stargan ")]


def test_the_commands_can_be_given() -> None:
    listed = given(README.split("## Commands\n")[1].split("\n## ")[0])
    assert {command[0] for command in listed} >= {
        "translate",
        "video",
        "prepare",
        "train",
        "evaluate",
        "import",
        "export",
        "bench",
    }
    assert len(given(README)) > len(listed)
    for command in given(README):
        stargan.commands.command_line().parse_args(command)


def code_of(section: str, language: str) -> str:
    """README's code in a language, in a section."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return code


def snippet(language: str) -> str:
    """README's code in a language, for the app of these tests."""
    code = code_of("From a program, through the app", language)
    return code.replace("http://127.0.0.1:7860", shared_app().url.rstrip("/"))


def test_the_client_snippet(tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet("python") + "\nimport json; print(json.dumps(result))\n")
    told = subprocess.check_output(
        [sys.executable, script], cwd=ROOT, env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)}, text=True, timeout=120
    )
    _, drawings, grid, whole = json.loads(told.splitlines()[-1])
    assert [read_provenance(drawing["image"])["seed"] for drawing in drawings] == ["7", "8", "9", "10"]
    assert Image.open(grid).format == "PNG"
    assert Image.open(whole).size == Image.open(ROOT / "examples/photos/collins.png").size


@pytest.mark.skipif(not shutil.which("npm"), reason="no Node.js is installed")
def test_the_javascript_snippet(tmp_path: Path) -> None:
    install = ["npm", "install", "--no-audit", "--no-fund", "--silent", f"@gradio/client@{JS_CLIENT}"]
    subprocess.run(install, cwd=tmp_path, check=True, timeout=300)
    script = tmp_path / "snippet.mjs"
    script.write_text(snippet("js") + "\nconsole.log(JSON.stringify(drawings)); process.exit(0);\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    said = subprocess.run(["node", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    check_drawings(json.loads(said.stdout.splitlines()[-1]))


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl is installed")
def test_the_curl_snippet() -> None:
    said = subprocess.run(["bash", "-c", snippet("sh")], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert said.stdout.startswith("event: complete\ndata: "), said.stdout + said.stderr
    _, drawings, _, _ = json.loads(said.stdout.split("data: ", 1)[1].splitlines()[0])
    check_drawings(drawings)


def check_drawings(drawings: list[dict]) -> None:
    """Four drawings that can be fetched, of the seeds that were asked for."""
    pictures = [io.BytesIO(urllib.request.urlopen(drawing["image"]["url"]).read()) for drawing in drawings]
    assert [read_provenance(picture)["seed"] for picture in pictures] == ["7", "8", "9", "10"]


@pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed")
@pytest.mark.parametrize("tag", ["gradio-app", "iframe"])
def test_the_embed_tags(tag: str, tmp_path: Path) -> None:
    script, *tags = snippet("html").replace("<!-- or -->", "").strip().splitlines()
    version = re.search(r"^sdk_version: (.+)$", README, re.MULTILINE)[1]
    assert script.count(version) == 1
    # the script that this version of Gradio brings; its authors' server holds the same
    shutil.copytree(Path(gradio.__file__).parent / "templates" / "frontend", tmp_path / version)
    (chosen,) = (line for line in tags if line.startswith(f"<{tag}"))
    page = re.sub(r"https://[\w.-]+/", "/", script) + chosen.replace("https://user-space.hf.space", shared_app().url)
    (tmp_path / "index.html").write_text(f"<!doctype html><title>Mine</title>{page}")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host, sync_playwright() as playwright:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        shown = browser.new_page(locale="en-US")
        shown.goto(f"http://127.0.0.1:{host.server_port}/")
        inside = shown.frame_locator("iframe") if tag == "iframe" else shown.locator("gradio-app")
        expect(inside.get_by_role("heading", name="Anime portraits from your photo")).to_be_visible(timeout=60_000)
        expect(inside.locator("#diversity-gallery button.thumbnail-item").first).to_be_visible(timeout=60_000)
        # as a part of somebody else's page, it changes nothing of that, and has no bar at the window's edge
        phone = browser.new_page(locale="ja-JP", viewport={"width": 390, "height": 800})
        phone.goto(f"http://127.0.0.1:{host.server_port}/")
        inside = phone.frame_locator("iframe") if tag == "iframe" else phone.locator("gradio-app")
        expect(inside.locator("#diversity-gallery button.thumbnail-item").first).to_be_visible(timeout=60_000)
        assert phone.title() == "Mine"
        for button in ("#dice", "#diversity-save"):
            assert inside.locator(button).evaluate("(button) => getComputedStyle(button).position") != "fixed"
        browser.close()
        host.shutdown()


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`((?:stargan|examples|weights)/[\w./-]+)`", README)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
