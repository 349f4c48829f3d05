"""Exported networks: against the translator, and run as README and examples/browser run them: in Python, Node and Chromium."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from serving import ROOT
from test_browser import CHROMIUM, FLAGS, eventually, violations
from test_readme import code_of

import stargan.commands
from stargan.constants import DEFAULT_MODEL
from stargan.drawing import Source, Translator
from stargan.inference.exported import LIMIT, differences
from stargan.models import exporting
from stargan.models.checkpoint import Model, load_model
from stargan.models.config import CONFIG_FILE, Architecture, ModelConfig, ModelError
from stargan.models.exporting import INPUTS, OUTPUTS, PRECISIONS, file_name
from stargan.models.registry import config_of, find_model

PHOTO = ROOT / "examples" / "photos" / "collins.png"
SQUARE = (151, 36, 297, 182)  # around its face, as in README
BROWSER = ROOT / "examples" / "browser"


def command(*arguments: object) -> int:
    return stargan.commands.main(list(map(str, arguments)))


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(load_model(find_model(DEFAULT_MODEL)), "cpu", "exact")


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the command that made ``exported`` printed."""
    return []


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Path:
    """The folder ``onnx`` of the default model."""
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert command("export", DEFAULT_MODEL, "--onnx", folder) == 0
    told += out.getvalue().splitlines()
    return folder


@pytest.fixture(scope="module")
def about(exported: Path) -> dict[str, Any]:
    return json.loads((exported / "model.json").read_text())


# What is written


def test_it_draws_what_the_translator_draws(exported: Path, told: list[str], about: dict[str, Any]) -> None:
    assert re.fullmatch(rf"{exported}: anime-128 as ONNX, \d+\.\d MB\. .+:", told[0])
    figures = {line.split(":")[0].strip(): [float(n) for n in re.findall(r"\d\.\de-\d+", line)] for line in told[1:]}
    print(figures)
    assert list(figures) == ["fp32", "fp16"]
    assert len(figures["fp32"]) == len(figures["fp16"]) == 3
    assert 0 < max(figures["fp32"]) <= LIMIT
    # half precision is there, and is half precision: 2⁻¹¹ of values about 1, a few times over
    assert 1e-4 < max(figures["fp16"]) < 2e-2
    assert [list(d.values()) for d in about["largest_differences"].values()] == [
        pytest.approx(f, rel=0.06) for f in figures.values()
    ]


def test_the_description_is_all_that_a_caller_needs(
    exported: Path, about: dict[str, Any], translator: Translator
) -> None:
    config = translator.config
    assert (about["model"], tuple(about["domains"])) == (config.name, config.domains)
    assert about["framing"]["landmarks"] == [list(point) for point in config.framing or ()]
    types = {"float32": "tensor(float)", "int64": "tensor(int64)"}
    for name, network in about["networks"].items():
        for precision, file in network["files"].items():
            onnx.checker.check_model(exported / file, full_check=True)
            session = onnxruntime.InferenceSession(exported / file)
            there = {one.name: (one.shape, one.type) for one in [*session.get_inputs(), *session.get_outputs()]}
            said = {one: about["tensors"][one] for one in network["inputs"] + network["outputs"]}
            assert there == {one: (facts["shape"], types[facts["type"]]) for one, facts in said.items()}, (
                name,
                precision,
            )
    halves = [(exported / file_name(name, "fp16")).stat().st_size for name in INPUTS]
    wholes = [(exported / file_name(name, "fp32")).stat().st_size for name in INPUTS]
    assert all(half < 0.6 * whole for half, whole in zip(halves, wholes, strict=True))

    mapping = onnxruntime.InferenceSession(exported / "mapping_network.onnx")
    codes = torch.randn(5, about["latent_dim"], generator=torch.Generator().manual_seed(1))
    for index, domain in enumerate(about["domains"]):
        (styles,) = mapping.run(["style"], {"latent": codes.numpy(), "domain": np.full(5, index)})
        mean = np.array(about["mean_styles"][domain])
        truncated = mean + 0.7 * (styles - mean)
        assert truncated == pytest.approx(translator.styles_of_codes(codes, domain, 0.7).numpy(), abs=1e-4)


def test_a_wrong_network_is_noticed(exported: Path, translator: Translator, tmp_path: Path) -> None:
    for name, what in (
        ("encoder", "pictures"),
        ("mapping_network", "styles of codes"),
        ("style_encoder", "references"),
    ):
        folder = tmp_path / name
        shutil.copytree(exported, folder)
        model = onnx.load(folder / file_name(name, "fp32"))
        (weight,) = (w for w in model.graph.initializer if re.search(r"\.(from_rgb|shared\.0)\.weight$", w.name))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, folder / file_name(name, "fp32"))
        with pytest.raises(ModelError, match=rf"Exported, the .*{what} of anime-128 differ by \d"):
            differences(folder, translator)


def test_another_architecture(tmp_path: Path) -> None:
    """Narrow, with one domain that is monochrome; batches of one and of five."""
    torch.manual_seed(0)
    architecture = Architecture(image_size=32, style_dim=8, latent_dim=4, base_channels=8, max_channels=16)
    model = Model.build(ModelConfig("tiny", ("ink", "photo"), architecture, grayscale_domains=("ink",)))
    exporting.export(model, tmp_path)
    assert not (tmp_path / "model.json").exists()  # which says that all was checked
    found = differences(tmp_path, Translator(model, "cpu", "exact"))
    exporting.describe(model, tmp_path, found)
    assert json.loads((tmp_path / "model.json").read_text())["grayscale_domains"] == ["ink"]
    x = torch.rand(5, 3, 32, 32) * 2 - 1
    for precision in PRECISIONS:
        session = onnxruntime.InferenceSession(tmp_path / file_name("encoder", precision))
        (all_five,) = session.run([OUTPUTS["encoder"]], {"picture": x.numpy()})
        (first,) = session.run([OUTPUTS["encoder"]], {"picture": x[:1].numpy()})
        assert all_five[:1] == pytest.approx(first, abs=1e-2)
        assert all_five == pytest.approx(model.generator.encoder(x)[0].numpy(), abs=5e-2)


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = ModelConfig("masked", ("female", "male"), Architecture(image_size=64, high_pass_weight=1.0))
    (tmp_path / CONFIG_FILE).write_text(masked.to_json())
    assert command("export", tmp_path, "--onnx", tmp_path / "onnx") == 2
    assert capsys.readouterr().err.startswith("The model masked has a high-pass filter")
    assert command("export", "nothing", "--onnx", tmp_path / "onnx") == 2
    assert capsys.readouterr().err.startswith("There is no model 'nothing'")
    (tmp_path / "file").touch()
    assert command("export", DEFAULT_MODEL, "--onnx", tmp_path / "file") == 2
    assert "exists" in capsys.readouterr().err
    monkeypatch.setattr(exporting, "NEEDED", ("onnx", "onnx_is_not_installed"))
    assert command("export", DEFAULT_MODEL, "--onnx", tmp_path / "onnx") == 2
    assert capsys.readouterr().err == ("Exporting needs onnx_is_not_installed: pip install onnx_is_not_installed\n")
    assert not (tmp_path / "onnx").exists()


# README's snippets


def test_the_python_snippet(exported: Path, translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    code = code_of("Elsewhere", "python")
    assert "torch" not in code
    assert "stargan" not in code
    code = code.replace('"examples/', f'"{ROOT}/examples/')
    monkeypatch.chdir(exported.parent)
    names: dict = {}
    exec(code, names)
    drawings = names["drawings"]
    assert len({drawing.tobytes() for drawing in drawings}) == len(drawings) == 8
    wanted = translator.decode(translator.encode(names["photo"]), torch.from_numpy(names["style"]))
    for drawing, ours in zip(drawings, wanted, strict=True):
        assert np.abs(np.asarray(drawing, int) - np.asarray(ours, int)).max() <= 1


def test_its_square_is_where_the_face_is() -> None:
    (found,) = Source.open(PHOTO).faces
    framing = np.asarray(config_of(DEFAULT_MODEL).framing)
    left, top, right, _ = SQUARE
    places = (found.landmarks - (left, top)) / (right - left)
    assert np.abs(places - framing).max() < 0.06  # no two faces are the same
    assert f"crop({SQUARE})" in code_of("Elsewhere", "python")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Nothing on the terminal."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """A plain file server; its address, without a slash."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}"
        host.shutdown()


@pytest.fixture(scope="module")
def site(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of examples/browser, made ready as its README says; the export that is made already is taken."""
    if not shutil.which("npm"):
        pytest.skip("no Node.js is installed")
    top = tmp_path_factory.mktemp("site")
    shutil.copytree(BROWSER, top / "page", ignore=shutil.ignore_patterns("onnx", "ort", "node_modules"))
    (code,) = re.findall(r"```sh\n(.*?)```", (BROWSER / "README.md").read_text(), re.DOTALL)
    export, *rest = code.splitlines()
    given = re.fullmatch(r"PYTHONPATH=\.\./\.\. python -m stargan (.+)", export)
    assert given
    assert (
        vars(stargan.commands.command_line().parse_args(given[1].split())).items()
        >= {
            "model": DEFAULT_MODEL,
            "onnx": Path("onnx"),
        }.items()
    )
    (top / "page" / "onnx").symlink_to(exported)
    subprocess.run(["bash", "-ec", "\n".join(rest)], cwd=top / "page", check=True, timeout=300)
    return top / "page"


def javascript(address: str) -> str:
    return code_of("Elsewhere", "js").replace("http://127.0.0.1:8000", address)


def face(size: int) -> Image.Image:
    return Image.open(PHOTO).convert("RGB").crop(SQUARE).resize((size, size), Image.Resampling.LANCZOS)


def check_pixels(pictures: dict[str, list[int]], translator: Translator) -> None:
    """Of the snippet in JavaScript: two drawings in random styles differ, the one of the mean style is known."""
    shape = (translator.image_size, translator.image_size, 4)
    first, second, mean = (np.array(pictures[name]).reshape(shape) for name in ("first", "second", "mean"))
    assert {int(picture[..., 3].min()) for picture in (first, second, mean)} == {255}
    assert np.abs(first - second).mean() > 2
    crop = face(translator.image_size)
    (wanted,) = translator.decode(translator.encode(crop), translator.mean_style("anime")[None])
    assert np.abs(mean[..., :3] - np.asarray(wanted, int)).max() <= 2  # half precision


CALLS = """
const drawn = { first: [...await draw(pixels)], second: [...await draw(pixels)], mean: [...await draw(pixels, "anime", 0)] };
"""


def test_the_javascript_snippet_in_node(site: Path, translator: Translator) -> None:
    pixels = list(face(translator.image_size).convert("RGBA").tobytes())
    with served(site) as address:
        script = site / "snippet.mjs"
        written = "(await import('node:fs')).writeFileSync('drawn.json', JSON.stringify(drawn)); process.exit(0);"
        script.write_text(f"{javascript(address)}\nconst pixels = {pixels};{CALLS}{written}")
        said = subprocess.run(["node", script], cwd=site, capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    check_pixels(json.loads((site / "drawn.json").read_text()), translator)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def test_the_javascript_snippet_in_a_browser(site: Path, browser: Browser, translator: Translator) -> None:
    face(translator.image_size).save(site / "face.png")
    with served(site) as address:
        (site / "snippet.js").write_text(javascript(address))
        (site / "snippet.html").write_text(
            """<!doctype html><script type="importmap">{"imports":{"onnxruntime-web":"/ort/ort.wasm.bundle.min.mjs"}}</script>
            <script type="module">
            import { draw } from "./snippet.js";
            const picture = await createImageBitmap(await (await fetch("face.png")).blob());
            const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
            context.drawImage(picture, 0, 0);
            const pixels = context.getImageData(0, 0, picture.width, picture.height).data;"""
            + CALLS
            + "window.drawn = drawn;</script>"
        )
        page = browser.new_page()
        page.goto(f"{address}/snippet.html")
        page.wait_for_function("window.drawn", timeout=120_000)
        check_pixels(page.evaluate("window.drawn"), translator)
        page.close()


# The page


@pytest.fixture
def visit(site: Path, browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page and waits for its model; checks at the end that no other host was asked, and that nothing failed."""
    strangers: list[str] = []
    faults: list[str] = []
    contexts = []
    with served(site) as address:

        def open_page(locale: str = "en-US", width: int = 1280, detector: str = "") -> Page:
            context = browser.new_context(locale=locale, viewport={"width": width, "height": 900})
            contexts.append(context)
            page = context.new_page()
            page.add_init_script(detector or "delete window.FaceDetector")
            page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or strangers.append(r.url))
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: message.type == "error" and faults.append(message.text))
            page.goto(address)
            expect(page.locator("#file")).to_be_enabled(timeout=60_000)
            return page

        yield open_page
        for context in contexts:
            context.close()
    assert strangers == []
    assert faults == []


DONE = re.compile(r"8 drawings, (\d+\.\d\d) seconds each\.|8枚、1枚あたり(\d+\.\d\d)秒。")


def drawn(page: Page) -> list[np.ndarray]:
    """The eight drawings, once they are there."""
    expect(page.locator("#status")).to_have_text(DONE, timeout=60_000)
    flat = page.evaluate(
        "[...document.querySelectorAll('#drawings canvas')].map((c) => "
        "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"
    )
    side = page.evaluate("document.querySelector('#drawings canvas').width")
    return [np.array(one).reshape(side, side, 4)[..., :3] for one in flat]


def box(page: Page) -> list[float]:
    """The square, in fractions of the photo: left, top, side of the width."""
    return page.evaluate(
        "(() => { const [s, p] = ['square', 'photo'].map((id) => document.getElementById(id).getBoundingClientRect());"
        "return [(s.left - p.left) / p.width, (s.top - p.top) / p.height, s.width / p.width]; })()"
    )


def settled(page: Page) -> list[np.ndarray]:
    """The drawings after a change that is drawn a moment later."""
    page.wait_for_timeout(400)
    return drawn(page)


def test_the_portrait_is_drawn(visit: Callable[..., Page], translator: Translator) -> None:
    page = visit()
    page.set_input_files("#file", PHOTO)
    first = drawn(page)
    assert len(first) == 8
    # the square by hand: dragged, then made smaller by its corner
    frame = page.locator("#photo").bounding_box()
    assert frame

    def drag(start: tuple[float, float], end: tuple[float, float]) -> None:
        points = [(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end)]
        page.mouse.move(*points[0])
        page.mouse.down()
        page.mouse.move(*points[1], steps=5)
        page.mouse.up()

    left, top, side = box(page)
    goal = [edge / 512 for edge in (SQUARE[0], SQUARE[1], SQUARE[2] - SQUARE[0])]
    drag((left + side / 2, top + side / 2), (goal[0] + side / 2, goal[1] + side / 2))
    assert box(page)[:2] == pytest.approx(goal[:2], abs=0.01)
    drag((goal[0] + side, goal[1] + side), (goal[0] + goal[2], goal[1] + goal[2]))
    assert box(page) == pytest.approx(goal, abs=0.01)
    placed = settled(page)
    pairs = [np.abs(a - b).mean() for index, a in enumerate(placed) for b in placed[:index]]
    assert min(pairs) > 0.5
    assert np.mean(pairs) > 4
    page.click("#draw")
    new = settled(page)
    assert all(np.abs(a - b).mean() > 0.5 for a, b in zip(placed, new, strict=True))

    page.locator("#psi").fill("0")  # the mean style, which the translator has too
    mean = settled(page)
    assert np.abs(mean[0] - mean[7]).max() == 0
    (wanted,) = translator.decode(translator.encode(face(64)), translator.mean_style("anime")[None])
    assert np.abs(mean[0] - np.asarray(wanted, int)).mean() < 6  # the browser cuts and scales in its own way

    page.locator("#psi").fill("1")
    page.select_option("#domain", "male")
    assert np.abs(settled(page)[0] - mean[0]).mean() > 5
    seconds = float(page.get_attribute("#drawings", "data-seconds"))
    cores = len(os.sched_getaffinity(0))
    print(f"\n{seconds:.3f} s a drawing by anime-128 in Chromium, of {cores} cores one is used")
    assert seconds < 2


def test_it_works_by_keyboard_and_on_a_phone(visit: Callable[..., Page]) -> None:
    page = visit(width=390)
    page.set_input_files("#file", PHOTO)
    first, before = drawn(page), box(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "square":
            break
    assert page.evaluate("document.activeElement.id") == "square"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("-")
    moved = box(page)
    assert moved[2] == pytest.approx(before[2] / 1.05, rel=1e-3)
    assert moved[0] > before[0] + 0.02
    assert moved[1] > before[1] + 0.02
    second = settled(page)
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    assert box(page)[0] == pytest.approx(0, abs=1e-6)  # and never outside
    for _ in range(5):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "draw":
            break
    settled(page)
    page.keyboard.press("Enter")
    assert all((a != b).any() for a, b in zip(second, settled(page), strict=True))


def test_japanese(visit: Callable[..., Page]) -> None:
    page = visit("ja-JP")
    expect(page).to_have_title("顔写真をアニメに")
    assert page.get_attribute("html", "lang") == "ja"
    page.set_input_files("#file", PHOTO)
    drawn(page)
    names = page.evaluate(
        "[...document.querySelectorAll('[aria-label]')].map((e) => e.getAttribute('aria-label')).join()"
    )
    text = re.sub("StarGAN v2", "", page.inner_text("body") + names)
    assert re.findall(r"[A-Za-z]{2,}", text) == []


def test_what_is_no_picture_is_refused(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "text.png").write_text("not a picture")
    page.set_input_files("#file", tmp_path / "text.png")
    expect(page.locator("#status")).to_have_text("This file is no picture that your browser can read.")
    expect(page.locator("#draw")).to_be_disabled()


@pytest.mark.parametrize("missing", ["ort", "onnx"])
def test_without_its_files_the_page_says_so(site: Path, browser: Browser, missing: str, tmp_path: Path) -> None:
    for name in {"index.html", "main.js", "ort", "onnx"} - {missing}:
        (tmp_path / name).symlink_to(site / name)
    with served(tmp_path) as address:
        page = browser.new_page(locale="en-US")
        page.goto(address)
        expect(page.locator("#status")).to_have_text("The model could not be loaded: see README.md beside this page.")
        expect(page.locator("#file")).to_be_disabled()
        page.close()


# No Chromium on Linux has a face detector: this one has the API's form, and says what MTCNN finds in the portrait.
DETECTOR = """window.FaceDetector = class {
  async detect(picture) {
    if (!(picture instanceof HTMLCanvasElement) || picture.width !== 512) throw new Error("not the photo");
    return %s;
  }
}"""


DROP = """(base64) => {
    const data = new DataTransfer();
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    data.items.add(new File([bytes], "photo.png", { type: "image/png" }));
    document.getElementById("stage").dispatchEvent(new DragEvent("drop", { dataTransfer: data }));
}"""


def test_a_photo_that_is_dropped_before_the_model_is_there_is_drawn(site: Path, browser: Browser) -> None:
    held: list[Route] = []
    faults: list[str] = []
    with served(site) as address, contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.route("**/onnx/model.json", lambda route: held.append(route))
        page.goto(address)
        eventually(page, lambda: bool(held))
        page.evaluate(DROP, base64.b64encode(PHOTO.read_bytes()).decode())
        held[0].continue_()
        assert len(drawn(page)) == 8
    assert faults == []


def test_a_browsers_face_detector_places_the_square(visit: Callable[..., Page]) -> None:
    (found,) = Source.open(PHOTO).faces
    eyes = [{"type": "eye", "locations": [{"x": float(x), "y": float(y)}]} for x, y in found.landmarks[:2]]
    left, top, right, bottom = map(float, found.box)
    bounds = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    goal = [edge / 512 for edge in (SQUARE[0], SQUARE[1], SQUARE[2] - SQUARE[0])]
    for landmarks, tolerance in ((eyes, 0.02), ([], 0.05)):
        face = {"boundingBox": bounds, "landmarks": landmarks}
        page = visit(detector=DETECTOR % json.dumps([face]))
        page.set_input_files("#file", PHOTO)
        drawn(page)
        assert box(page) == pytest.approx(goal, abs=tolerance)
    for nothing in ("[]", "Promise.reject(new Error('no service'))"):
        page = visit(detector=DETECTOR % nothing)
        page.set_input_files("#file", PHOTO)
        drawn(page)
        assert box(page)[2] == pytest.approx(0.5, abs=0.01)
