"""The endpoints, through a running app and the real Gradio client."""

from __future__ import annotations

import gzip
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from serving import ROOT, Server, shared_app, start, untrained_model

from stargan.drawing import Seeds, Task
from stargan.page import models, texts
from stargan.pictures.io import MAX_BYTES
from stargan.pictures.provenance import read_provenance

# What README documents. A change here breaks programs.
SUBJECT = {"face": 1, "centre_crop": False, "model": "anime-128"}
CONTRACT = {
    "/detect_faces": ({"photo": ...}, ["numbered", "faces"]),
    "/latent_grid": (
        {"photo": ..., "domain": "anime", "count": 8, "seed": 1, "psi": 0.7, **SUBJECT},
        ["crop", "drawings", "grid", "whole_photo"],
    ),
    "/reference_mix": (
        {"photo": ..., "references": [], "domain": "anime", "strength": 1, **SUBJECT},
        ["crop", "drawings", "grid", "whole_photo"],
    ),
    "/interpolate": (
        {"photo": ..., "domain": "anime", "seed_from": 1, "seed_to": 2, "psi": 0.7, **SUBJECT},
        ["clip"],
    ),
    "/list_models": ({}, ["models"]),
}


@pytest.fixture(scope="module")
def server() -> Server:
    return shared_app()


@pytest.fixture(scope="module", autouse=True)
def log_before(server: Server) -> int:
    """Where the app's log was when these tests began: those of other files may have had it before."""
    return server.log.stat().st_size


@pytest.fixture(scope="module")
def client(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(
        server.url, download_files=tmp_path_factory.mktemp("downloads"), verbose=False, analytics_enabled=False
    )


@pytest.fixture(scope="module")
def photo(portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "portrait.png"
    portrait.save(path)
    return path


def opened(path: str | dict) -> Image.Image:
    picture = Image.open(path["image"] if isinstance(path, dict) else path)
    assert picture.format == "PNG"
    return picture


def latent(client: Client, photo: Path, **settings: object) -> tuple:
    return client.predict(photo=handle_file(photo), **settings, api_name="/latent_grid")


def test_contract(client: Client) -> None:
    described = client.view_api(return_format="dict", print_info=False)
    assert not described["unnamed_endpoints"]
    endpoints = described["named_endpoints"]
    assert endpoints.keys() == CONTRACT.keys()
    for name, (parameters, returns) in CONTRACT.items():
        endpoint = endpoints[name]
        found = {
            p["parameter_name"]: p["parameter_default"] if p["parameter_has_default"] else ...
            for p in endpoint["parameters"]
        }
        assert found == parameters, name
        assert [p["label"] for p in endpoint["parameters"]] == list(parameters), name
        assert [r["label"] for r in endpoint["returns"]] == returns, name
        assert endpoint["description"].strip(), name
        assert all(p["python_type"]["type"] for p in endpoint["parameters"]), name


def test_detect_faces(client: Client, photo: Path, portrait: Image.Image) -> None:
    numbered, faces = client.predict(photo=handle_file(photo), api_name="/detect_faces")
    assert opened(numbered).size == portrait.size
    assert [face["number"] for face in faces] == [1]
    left, top, right, bottom = faces[0]["box"]
    assert all(left < x < right and top < y < bottom for x, y in faces[0]["landmarks"])
    assert len(faces[0]["landmarks"]) == 5
    assert 0.9 < faces[0]["score"] <= 1


def test_latent_grid(client: Client, photo: Path, portrait: Image.Image) -> None:
    crop, drawings, grid, whole = latent(client, photo, count=3, seed=4, psi=0.8)
    size = opened(crop).size
    assert [opened(d).size for d in drawings] == [size] * 3
    assert [d["caption"] for d in drawings] == ["seed 4", "seed 5", "seed 6"]
    assert opened(grid).size == (4 * size[0] + 3 * 2, size[1])
    facts = read_provenance(drawings[1]["image"])
    assert (facts["model"], facts["seed"], facts["domain"], facts["psi"]) == ("anime-128", "5", "anime", "0.8")
    assert facts["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert "composite" in read_provenance(whole)["DigitalSourceType"]
    changed = np.any(np.asarray(opened(whole)) != np.asarray(portrait), axis=2)
    assert changed[100:200, 180:280].mean() > 0.5  # the face
    assert not changed[300:].any()  # the suit


def test_a_seed_gives_the_same_drawing_whatever_is_drawn_with_it(client: Client, photo: Path) -> None:
    many = latent(client, photo, count=3, seed=10)[1]
    one = latent(client, photo, count=1, seed=11)[1]
    assert np.asarray(opened(many[1])).tobytes() == np.asarray(opened(one[0])).tobytes()
    assert np.asarray(opened(many[0])).tobytes() != np.asarray(opened(many[1])).tobytes()


def test_reference_mix(client: Client, photo: Path) -> None:
    references = [{"image": handle_file(d["image"])} for d in latent(client, photo, count=2, seed=20, psi=1)[1]]

    def mix(strength: float) -> tuple:
        return client.predict(
            photo=handle_file(photo), references=references, strength=strength, api_name="/reference_mix"
        )

    crop, drawings, grid, _ = mix(1)
    side = opened(crop).width
    assert [d["caption"] for d in drawings] == ["reference 1", "reference 2", "blend"]
    assert opened(grid).size == (4 * side + 3 * 2, 2 * side + 2)
    unlike = np.abs(np.asarray(opened(drawings[0]), int) - np.asarray(opened(mix(0)[1][0]), int))
    assert unlike.mean() > 2


def test_interpolate(client: Client, photo: Path) -> None:
    clip = client.predict(photo=handle_file(photo), seed_from=1, seed_to=3, api_name="/interpolate")
    path = Path(clip["video"] if isinstance(clip, dict) else clip)
    assert path.suffix == ".mp4"
    with av.open(path) as film:
        assert sum(1 for _ in film.decode(video=0)) == 100  # four seconds


def test_list_models_and_another_model(client: Client, photo: Path) -> None:
    name = str(untrained_model())
    models = {model["name"]: model for model in client.predict(api_name="/list_models")}
    assert list(models) == ["anime-128", name]
    assert models["anime-128"]["domains"] == ["anime", "female", "male"]
    assert (models[name]["domains"], models[name]["image_size"]) == (["cat", "dog"], 32)
    drawings = latent(client, photo, model=name, domain="dog", count=1)[1]
    assert opened(drawings[0]).size == (32, 32)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"count": 17}, "Number of drawings must be a number from 1 to 16, not 17"),
        ({"count": 1.5}, "Number of drawings must be a number from 1 to 16, not 1.5"),
        ({"seed": -1}, "Seed must be a number from 0"),
        ({"psi": "much"}, "Variety ψ must be a number from 0 to 1.5, not much"),
        ({"domain": "dog"}, "The model anime-128 cannot draw dog: choose one of anime, female, male."),
        ({"face": 3}, "There is no face 3: 1 were found."),
        ({"model": "/etc"}, "There is no model /etc"),
        ({"model": "<img src=x>"}, "There is no model &lt;img src=x&gt;"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    client: Client, photo: Path, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(AppError) as refused:
        latent(client, photo, **settings)
    assert sentence in str(refused.value)


def test_what_is_said_back_is_short(client: Client, photo: Path) -> None:
    for settings in ({"psi": "x" * 200_000}, {"domain": "y" * 200_000}, {"model": "z" * 200_000}):
        with pytest.raises(AppError) as refused:
            latent(client, photo, **settings)
        assert len(str(refused.value)) < 300


def test_a_photo_that_is_drawn_again_is_not_opened_again(server: Server, client: Client, photo: Path) -> None:
    """Whatever changes only the style runs the decoder alone: as the log tells of each request."""
    for settings in ({"seed": 1}, {"seed": 50}, {"psi": 0.2}):
        latent(client, photo, count=2, **settings)
    lines = [line for line in server.log.read_text().splitlines() if "request latent_grid ok" in line][-3:]
    assert len(lines) == 3
    for line in lines[1:]:
        assert re.search(r"\bdecode=2/", line), line
        assert not re.search(r"\b(open|detect|encode)=", line), line
        assert str(photo.name) not in line


def test_refusals_are_in_the_visitors_language(server: Server, photo: Path) -> None:
    japanese = Client(server.url, headers={"Accept-Language": "ja-JP,ja;q=0.9,en;q=0.5"}, verbose=False)
    with pytest.raises(AppError, match="枚数は1から16までの数です"):
        latent(japanese, photo, count=0)


@pytest.mark.parametrize("path", ["call/latent_grid/0123", "queue/data?session_hash=0123"])
def test_an_answer_that_is_not_here_is_said_to_be_gone(server: Server, path: str) -> None:
    """As of another page behind the same proxy, which stopped."""
    request = urllib.request.Request(server.url + "gradio_api/" + path, headers={"accept-language": "ja"})
    with urllib.request.urlopen(request) as answer:
        said = json.loads(answer.read().decode().partition("data: ")[2])
    assert (said["message"] if isinstance(said, dict) else said) == texts.say("restarted", "ja")


def test_a_photo_without_a_face(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "wall.png"
    Image.new("RGB", (300, 200), "#887766").save(path)
    with pytest.raises(AppError, match="No face was found"):
        latent(client, path, count=1)
    crop, drawings, _, whole = latent(client, path, count=1, centre_crop=True)
    assert opened(crop).size == opened(drawings[0]).size
    assert opened(whole).size == (300, 200)


def bad_files(folder: Path, portrait: Image.Image) -> dict[str, str]:
    """File name → a part of the sentence that it gets."""
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").touch()
    portrait.save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:20_000])
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (12000, 12000)).save(folder / "vast.png")
    portrait.save(folder / "heavy.png")
    os.truncate(folder / "heavy.png", MAX_BYTES + 1_000_000)
    return {
        "text.png": "not a picture",
        "empty.png": "empty",
        "cut.png": "broken or cut off",
        "dot.png": "1 × 1",
        "vast.png": "megapixels",
        "heavy.png": "51 MB",
    }


def test_bad_files_get_a_sentence(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    for name, part in bad_files(tmp_path, portrait).items():
        with pytest.raises(AppError) as refused:
            latent(client, tmp_path / name, count=1)
        assert part in str(refused.value), name


def test_unusual_files_are_drawn(client: Client, portrait: Image.Image, tmp_path: Path) -> None:
    sixteen = Image.fromarray(np.asarray(portrait.convert("L")).astype(np.uint16) << 8)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90° when shown
    portrait.convert("CMYK").save(tmp_path / "cmyk.jpg")
    portrait.convert("P").save(tmp_path / "palette.gif", save_all=True, append_images=[Image.new("P", portrait.size)])
    portrait.convert("RGBA").save(tmp_path / "alpha.png")
    sixteen.save(tmp_path / "sixteen.png")
    portrait.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=turned)
    for path in sorted(tmp_path.iterdir()):
        assert len(latent(client, path, count=1)[1]) == 1, path.name


def test_events_of_the_page_are_private_but_checked(server: Server, client: Client) -> None:
    with pytest.raises(ValueError, match="Cannot find"):
        client.predict(api_name="/draw_latent")
    config = json.load(urllib.request.urlopen(server.url + "config"))
    event = next(d for d in config["dependencies"] if d["api_name"].startswith("draw_latent"))
    junk = ["anime-128", "anime", 10**9, "x", None, "drawing", False, None, None, 0.5, 0.5, 1, None]
    request = urllib.request.Request(
        server.url + "gradio_api/queue/join",
        json.dumps({"data": junk, "fn_index": event["id"], "session_hash": "junk"}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()
    with urllib.request.urlopen(server.url + "gradio_api/queue/data?session_hash=junk", timeout=60) as stream:
        answer = next(
            m
            for line in stream
            if line.startswith(b"data:") and (m := json.loads(line[5:]))["msg"] == "process_completed"
        )
    assert not answer["success"]
    assert "must be a number" in answer["output"]["error"]


def test_only_pictures_of_the_examples_are_served(server: Server) -> None:
    root = server.url + "gradio_api/file=" + str(ROOT / "examples")
    for shown, kind in (("page/photos/collins.webp", "image/webp"), ("videos/collins.mp4", "video/mp4")):
        with urllib.request.urlopen(f"{root}/{shown}") as answer:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-type"] == kind
    for hidden in ("make.py", "readme/latent.png", "README.md", "../app.py"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{root}/{hidden}")
        assert refused.value.code in (403, 404), hidden


def test_the_page_is_the_same_each_time_compressed_or_not(server: Server) -> None:
    """It is remembered for a minute, and compressed on its way."""

    def fetched(encoding: str) -> str:
        with urllib.request.urlopen(
            urllib.request.Request(server.url, headers={"Accept-Encoding": encoding})
        ) as answer:
            assert answer.headers.get("Content-Encoding", "identity") == encoding
            content = answer.read()
        return (gzip.decompress(content) if encoding == "gzip" else content).decode()

    pages = [fetched(encoding) for encoding in ("gzip", "gzip", "identity", "gzip", "identity")]
    assert pages[0].startswith("<!doctype html>")
    assert set(pages) == {pages[0]}


@pytest.mark.parametrize("page", ["monitoring", "monitoring/summary", "gradio_api/runs"])
def test_nothing_is_recorded(server: Server, page: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server.url + page)
    assert refused.value.code in (401, 403, 404)


def test_a_share_link_that_cannot_be_had_costs_nothing(photo: Path) -> None:
    server = start("--share", HTTPS_PROXY="http://127.0.0.1:9", GRADIO_SHARE_SERVER_ADDRESS="127.0.0.1:9")
    try:
        client = Client(server.url, download_files=False, verbose=False, analytics_enabled=False)
        assert len(latent(client, photo, count=1)[1]) == 1
        deadline = time.monotonic() + 60
        while "Could not create share link" not in (said := server.log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert "Could not create share link" in said
        assert "Traceback" not in said
    finally:
        server.stop()


# In the place of the package that lends a GPU on a ZeroGPU Space, and as strict: each call in a forked process, arguments and
# results pickled, of an error only its name.
LENDER = """
import functools, multiprocessing, os, threading
from gradio import Error

def GPU(task=None, *, duration=60):
    if task is None:
        return functools.partial(GPU, duration=duration)

    @functools.wraps(task)
    def lent(*args):
        seconds = duration(*args) if callable(duration) else duration
        with open(os.environ["GPU_LOG"], "a") as log:
            log.write(f"{type(args[1].recipe).__name__} {seconds}\\n")
        if os.path.exists(os.environ["GPU_LOG"] + ".none"):
            raise Error("You have exceeded your <a href='/pro'>free</a> GPU quota (12s requested vs. 3s left). Try again in 1:02:03")
        fork = multiprocessing.get_context("fork")
        asked, answered = fork.SimpleQueue(), fork.SimpleQueue()

        def answer():
            try:
                answered.put((True, task(*asked.get())))
            except Exception as error:
                answered.put((False, type(error).__name__))

        def work():
            thread = threading.Thread(target=answer)
            thread.start()
            thread.join()
            asked.get()  # tensors that it answered with lie in its memory until they are fetched

        process = fork.Process(target=work, daemon=True)
        process.start()
        asked.put(args)
        done, result = answered.get()
        asked.put(None)
        process.join()
        if not done:
            raise Error(result)
        return result

    return lent
"""


@pytest.fixture(scope="module")
def zero_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """The app as on a ZeroGPU Space, and the list of what it asked a GPU for, and for how many seconds."""
    folder = tmp_path_factory.mktemp("zero")
    (folder / "spaces.py").write_text(LENDER)
    log = folder / "asked.txt"
    server = start(
        STARGAN_MODELS=str(untrained_model()), SPACES_ZERO_GPU="true", PYTHONPATH=str(folder), GPU_LOG=str(log)
    )
    yield server, log
    server.stop()


def test_a_zero_gpu_space_is_asked_for_what_each_work_takes(
    zero_gpu: tuple[Server, Path], photo: Path, tmp_path: Path
) -> None:
    server, log = zero_gpu
    client = Client(server.url, download_files=tmp_path, verbose=False, analytics_enabled=False)
    drawings = latent(client, photo, count=2, seed=3)[1]
    assert read_provenance(drawings[1]["image"])["seed"] == "4"
    assert latent(client, photo, count=1, domain="dog", model=str(untrained_model()))[1]
    reference = [{"image": handle_file(drawings[0]["image"])}]
    client.predict(photo=handle_file(photo), references=reference, api_name="/reference_mix")
    client.predict(photo=handle_file(photo), api_name="/interpolate")
    client.predict(photo=handle_file(photo), api_name="/detect_faces")
    assert log.read_text().split("\n") == [
        "Seeds 10",
        "Seeds 10",
        "References 10",
        "Seeds 10",
        "Styles 26",
        "Styles 19",
        "",
    ]
    asked = log.read_text()
    with pytest.raises(AppError, match="There is no face 3: 1 were found"):
        latent(client, photo, face=3)
    with pytest.raises(AppError, match="There is no model /etc"):
        latent(client, photo, model="/etc")
    assert log.read_text() == asked  # no GPU is asked for what is refused
    (none := Path(f"{log}.none")).touch()
    lender = r"exceeded your free GPU quota \(12s requested vs\. 3s left\)\. Try again in 1:02:03$"
    with pytest.raises(AppError, match=f"^No graphics card can be lent for this now: You have {lender}"):
        latent(client, photo, count=1)
    none.unlink()
    assert latent(client, photo, count=1)[1]
    assert "Traceback" not in server.log.read_text()


def test_gpu_time_fits_the_task() -> None:
    crop = Image.new("RGB", (64, 64))
    assert models.gpu_seconds("", Task((crop,), Seeds("anime", tuple(range(8)), 0.7))) == 12
    assert models.gpu_seconds("", Task((crop,) * 16, Seeds("anime", (0,), 0.7))) == 14


def test_without_a_space_asking_for_a_gpu_changes_nothing() -> None:
    assert models.on_gpu(latent) is latent
    assert models.on_gpu(duration=5)(latent) is latent


def test_nothing_unexpected_was_logged(server: Server, log_before: int) -> None:
    """Last: the tests above met with no error that the app had not foreseen."""
    log = server.log.read_bytes()[log_before:].decode(errors="replace")
    assert "Traceback" not in log
    assert "ERROR" not in log


def test_every_text_is_in_both_languages() -> None:
    import string

    for key, (english, japanese) in texts.TEXTS.items():
        names = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in (english, japanese)]
        assert names[0] == names[1], key
        assert english.strip(), key
        assert any(ord(letter) > 0x3000 for letter in japanese), key
