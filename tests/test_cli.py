"""The commands, as a person types them, and what they leave on the disk."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from asking import wait_until
from hub_server import HubServer
from PIL import Image

import stargan
from stargan.batch import GRID_ROWS, find_photos
from stargan.commands import command_line, main
from stargan.commands.arguments import load_translator
from stargan.models.checkpoint import Model, fingerprint, load_model, save_model
from stargan.models.config import ANIME_FRAMING, Architecture, ModelConfig
from stargan.pictures.provenance import read_provenance

ROOT = Path(__file__).resolve().parents[1]
DOMAINS = ("anime", "female", "male")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``faces`` looks for a face, ``whole`` takes any picture."""
    folder = tmp_path_factory.mktemp("models")
    for name, framing in (("faces", ANIME_FRAMING), ("whole", None)):
        torch.manual_seed(0)
        model = Model.build(ModelConfig(name, DOMAINS, Architecture(32, base_channels=8, max_channels=16), framing))
        save_model(model, folder / name)
    return folder


@pytest.fixture(scope="module")
def face(portrait: Image.Image) -> Image.Image:
    return portrait.crop((124, 0, 324, 200)).resize((120, 120))


@pytest.fixture
def photos(face: Image.Image, tmp_path: Path) -> Path:
    """Two faces, one of them in a folder below, a picture without a face, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    face.save(folder / "a.png")
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "more" / "b.jpg", quality=95)
    Image.new("RGB", (90, 90), "grey").save(folder / "grey.png")
    (folder / "notes.txt").write_text("not a picture, and not named as one")
    (folder / "broken.jpg").write_text("not a picture")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in :func:`command`: sums in another order differ in the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def translate(models: Path, tmp_path: Path) -> Callable[..., int]:
    def run(*arguments: object, model: str = "faces") -> int:
        options = ["--model", models / model, "--output", tmp_path / "out", "--device", "cpu"]
        return main(["translate", *map(str, [*arguments, *options])])

    return run


def command(*arguments: object, under: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
    """A process of its own, started by ``under``."""
    return subprocess.Popen(
        [sys.executable, *under, "-m", "stargan", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def listing(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in listing(folder)}


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in listing(folder)}


# the parsers

# What takes seconds to import, and what does the work; only a command that runs needs them.
HEAVY = ("torch", "torchvision", "numpy", "PIL", "huggingface_hub", "gradio")
COMMANDS = (
    "train",
    "prepare",
    "average",
    "calibrate",
    "refine",
    "finish",
    "match",
    "evaluate",
    "sheet",
    "translate",
    "video",
    "import",
    "export",
    "push",
    "serve",
    "bench",
)


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS), ("bench", "infer"), ("bench", "train")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    program = f"""
import atexit, sys
atexit.register(lambda: print(sorted(set({HEAVY}) & set(sys.modules)), len(sys.modules), file=sys.stderr))
from stargan.commands import main
main([*{words}, "--help"])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" ".join(["usage: stargan", *words]))
    heavy, _, count = done.stderr.strip().rpartition(" ")
    assert heavy == "[]"
    # these modules and what they need of Python come to 100; what lists the options of training to 600; torch to 1,500
    assert int(count) < (1000 if words == ("train",) else 300)


def test_the_program_lists_every_command() -> None:
    told, _ = (process := command("--help")).communicate(timeout=60)
    assert process.returncode == 0
    assert told.startswith("usage: python -m stargan")
    assert f"{{{','.join(COMMANDS)}}}" in told


@pytest.mark.parametrize(
    ("arguments", "option", "choices"),
    [
        (["prepare", "photos", "faces"], "--preset", ["anime-128", "tiny"]),
        (["evaluate", "m", "--data", "d", "--validation", "v"], "--modes", ["latent", "reference"]),
        (["import", "file", "--output", "o"], "--framing", ["celeba-hq", "whole"]),
    ],
)
def test_choices_are_named(
    capsys: pytest.CaptureFixture, arguments: list[str], option: str, choices: list[str]
) -> None:
    """What a module too heavy for the parser lists is taken, and nothing else."""
    for choice in choices:
        options = command_line().parse_args([*arguments, option, choice])
        assert getattr(options, option[2:]) in (choice, [choice])
    with pytest.raises(SystemExit) as stop:
        main([*arguments, option, "other"])
    assert stop.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert f"error: argument {option}: invalid choice: 'other' (choose from " in told
    assert all(f"{choice!r}" in told for choice in choices)


@pytest.mark.parametrize("arguments", [["train", "--data", "d", "--run", "r"], ["bench", "train"]])
def test_presets_are_named(
    capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, "--preset", "other"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("There is no preset 'other': choose one of anime-128, ")
    assert "tiny" in told
    assert not list(tmp_path.iterdir())


def test_what_the_machine_lacks_or_refuses_is_a_sentence(
    models: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    train = ["train", "--preset", "tiny", "--data", photos, "--run"]
    model, video = models / "whole", tmp_path / "a.mp4"
    for arguments, sentence in (
        ([*train, photos / "a.png"], "File exists"),
        ([*train, tmp_path / "run", "--device", "gpu"], "This machine has no device 'gpu'."),
        ([*train, tmp_path / "run", "--device", "cuda:63"], "This machine has no device 'cuda:63'."),
        (["evaluate", model, "--data", photos, "--validation", photos, "--device", "gpu"], "no device 'gpu'."),
        (["translate", photos, "--model", model, "--output", video, "--device", "xpu"], "no device 'xpu'."),
        (
            ["translate", tmp_path, "--model", model, "--output", tmp_path],
            f"among the photos of {tmp_path}: name another folder",
        ),
        (["video", photos / "a.png", "--model", model, "--output", video, "--device", "cuda:63"], "no device"),
        (["sheet", model, "--validation", photos, "--output", tmp_path / "sheet"], "is no picture's name"),
        (["sheet", model, "--validation", photos, "--output", tmp_path / "sheet.psd"], "is no picture's name"),
    ):
        assert main([*map(str, arguments)]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.pt").exists()


# translate


def test_folder_of_photos(
    translate: Callable, models: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, face: Image.Image
) -> None:
    assert translate(photos, "--count", 2, "--seed", 7) == 1
    out = tmp_path / "out"
    assert listing(out) == [
        "a-anime-seed7.png",
        "a-anime-seed8.png",
        "grid-1.png",
        "more/b-anime-seed7.png",
        "more/b-anime-seed8.png",
    ]
    told = capsys.readouterr()
    assert f"{photos / 'broken.jpg'}: The file is not a picture" in told.err
    assert f"{photos / 'grey.png'}: No face was found" in told.err
    assert "4 photos: 2 drawn, 0 already there, 2 failed" in told.out
    assert read_provenance(out / "a-anime-seed8.png") == {
        "Software": "stargan 0.1.0",
        "model": "faces",
        "seed": "8",
        "domain": "anime",
        "psi": "0.7",
        "weights": fingerprint(models / "faces"),
        "DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
    }
    # the photos' faces are on it
    assert "composite" in read_provenance(out / "grid-1.png")["DigitalSourceType"]
    with Image.open(out / "grid-1.png") as sheet, Image.open(out / "more/b-anime-seed8.png") as drawn:
        assert sheet.size == (3 * 32 + 2 * 2, 2 * 32 + 2)
        assert np.array_equal(sheet.crop((68, 34, 100, 66)), drawn)

    # a mended photo joins the others, which stay as they are
    before = times(out)
    face.save(photos / "broken.jpg")
    (photos / "grey.png").unlink()
    assert translate(photos, "--count", 2, "--seed", 7) == 0
    assert "3 photos: 1 drawn, 2 already there, 0 failed" in capsys.readouterr().out
    after = times(out)
    assert set(after) - set(before) == {"broken-anime-seed7.png", "broken-anime-seed8.png"}
    assert [name for name in before if before[name] != after[name]] == ["grid-1.png"]
    assert Image.open(out / "grid-1.png").height == 3 * 32 + 2 * 2


def test_drawings_of_another_model_of_that_name_are_made_again(
    models: Path, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As snapshots of a run are: they bear its name."""
    face.save(tmp_path / "a.png")
    earlier, later = load_model(models / "whole"), load_model(models / "whole")
    later.generator.to_rgb[2].bias.data += 0.5
    options = ["translate", tmp_path / "a.png", "--count", 1, "--output", tmp_path / "out", "--device", "cpu"]
    seen = []
    for folder, model in (("000500", earlier), ("001000", later)):
        save_model(model, tmp_path / folder)
        assert main([*map(str, options), "--model", str(tmp_path / folder)]) == 0
        assert "1 drawn, 0 already there" in capsys.readouterr().out
        seen.append(contents(tmp_path / "out"))
    assert all(seen[0][name] != seen[1][name] for name in ("a-anime-seed0.png", "grid-1.png"))


def test_only_what_is_missing_or_made_otherwise_is_made(
    translate: Callable, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    face.save(tmp_path / "a.png")
    out = tmp_path / "out"

    def again(*options: object) -> set[str]:
        """Files that this run wrote."""
        before = times(out) if out.exists() else {}
        assert translate(tmp_path / "a.png", "--count", 2, *options, model="whole") == 0
        return {name for name, written in times(out).items() if written != before.get(name)}

    everything = {"a-anime-seed0.png", "a-anime-seed1.png", "grid-1.png"}
    assert again() == everything
    original = contents(out)
    assert again() == set()
    assert "1 already there" in capsys.readouterr().out

    cut = out / "a-anime-seed1.png"
    cut.write_bytes(original[cut.name][:60])
    assert again() == {cut.name, "grid-1.png"}
    assert contents(out) == original
    (out / "grid-1.png").unlink()
    assert again() == {"grid-1.png"}
    assert contents(out) == original

    assert again("--overwrite") == everything
    assert contents(out) == original
    assert again("--psi", 0.5) == everything
    assert contents(out) != original
    assert again("--psi", 0.5, "--domain", "male") == {"a-male-seed0.png", "a-male-seed1.png", "grid-1.png"}


def test_references(translate: Callable, face: Image.Image, tmp_path: Path) -> None:
    references = tmp_path / "references"
    references.mkdir()
    for name, colour in (("red", "red"), ("blue", "blue")):
        Image.new("RGB", (64, 64), colour).save(references / f"{name}.png")
    face.save(tmp_path / "a.png")
    assert translate(tmp_path / "a.png", "--references", references, "--domain", "female") == 0
    out = tmp_path / "out"
    red, blue = out / "a-female-like-red.png", out / "a-female-like-blue.png"
    assert listing(out) == [blue.name, red.name, "grid-1.png"]
    assert red.read_bytes() != blue.read_bytes()
    assert read_provenance(red)["strength"] == "1"
    with Image.open(out / "grid-1.png") as sheet:  # the references above their columns
        assert sheet.size == (3 * 32 + 2 * 2, 2 * 32 + 2)
        assert [sheet.getpixel((x, 16)) for x in (16, 50, 84)] == [(255, 255, 255), (0, 0, 255), (255, 0, 0)]

    assert translate(tmp_path / "a.png", "--references", references, "--domain", "female", "--strength", 0) == 0
    assert np.array_equal(Image.open(red), Image.open(blue))  # the photo's own style

    # another picture under an old name
    before = red.read_bytes()
    Image.new("RGB", (64, 64), "green").save(references / "red.png")
    assert translate(tmp_path / "a.png", "--references", references, "--domain", "female") == 0
    assert red.read_bytes() != before

    (references / "broken.png").write_text("not a picture")
    assert translate(tmp_path / "a.png", "--references", references) == 2


def test_references_with_one_name(
    translate: Callable, photos: Path, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    references = tmp_path / "references"
    (references / "a").mkdir(parents=True)
    face.save(references / "a" / "b.png")
    face.save(references / "a-b.png")
    assert translate(photos, "--references", references, model="whole") == 2
    assert "Two references would both give files named anime-like-a-b" in capsys.readouterr().err


def test_a_grid_that_cannot_be_written_is_told_and_the_others_go_on(
    translate: Callable, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(GRID_ROWS + 1):
        face.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "out" / "grid-1.png").mkdir(parents=True)
    assert translate(tmp_path / "photos", "--count", 1, model="whole") == 1
    told = capsys.readouterr()
    assert "grid-1.png: " in told.err
    assert f"{GRID_ROWS + 1} photos: {GRID_ROWS + 1} drawn, 0 already there, 1 failed" in told.out
    assert (tmp_path / "out" / "grid-2.png").is_file()


def test_whole_photo(translate: Callable, face: Image.Image, tmp_path: Path) -> None:
    photo = Image.new("RGB", (300, 170), "teal")
    photo.paste(face, (20, 20))
    photo.save(tmp_path / "a.png")
    assert translate(tmp_path / "a.png", "--count", 1, "--whole-photo", "--no-grid") == 0
    path = tmp_path / "out" / "a-anime-seed0.png"
    assert listing(tmp_path / "out") == [path.name]
    assert read_provenance(path)["DigitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    with Image.open(path) as result:
        assert result.size == photo.size
        changed = np.any(np.asarray(result) != np.asarray(photo), axis=2)
    assert changed[60:100, 60:100].mean() > 0.9
    assert not changed[:, 200:].any()


def test_processes_share_the_work_and_write_the_files_of_one(
    translate: Callable,
    models: Path,
    face: Image.Image,
    tmp_path: Path,
    one_thread: None,  # noqa: ARG001
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(GRID_ROWS + 3):
        face.rotate(10 * n).save(photos / f"{n:02}.png")
    (photos / "05.png").write_text("not a picture")
    assert translate(photos, "--count", 2, model="whole") == 1
    expected = contents(tmp_path / "out")
    assert {"grid-1.png", "grid-2.png"} < set(expected)
    assert len(expected) == 2 * (GRID_ROWS + 2) + 2

    shared = tmp_path / "shared"
    arguments = ["translate", photos, "--count", 2, "--model", models / "whole", "--output", shared]
    process = command(*arguments, under=TORCHRUN)
    told, _ = process.communicate(timeout=240)
    assert process.returncode == 1  # of the broken photo
    assert contents(shared) == expected
    assert f"{GRID_ROWS} photos: {GRID_ROWS - 1} drawn, 0 already there, 1 failed" in told
    assert "3 photos: 3 drawn, 0 already there, 0 failed" in told


def test_failed_photos_of_one_process_leave_the_others_at_work(
    models: Path,
    face: Image.Image,
    tmp_path: Path,
    one_thread: None,  # noqa: ARG001
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(GRID_ROWS):  # the first process is done at once
        (photos / f"broken{n}.png").write_text("not a picture")
        face.rotate(10 * n).save(photos / f"face{n}.png")
    arguments = [photos, "--count", 100, "--no-grid", "--model", models / "whole", "--output", tmp_path / "out"]
    process = command("translate", *arguments, under=TORCHRUN)
    told, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert f"{GRID_ROWS} photos: 0 drawn, 0 already there, {GRID_ROWS} failed" in told
    assert f"{GRID_ROWS} photos: {GRID_ROWS} drawn, 0 already there, 0 failed" in told
    assert len(contents(tmp_path / "out")) == 100 * GRID_ROWS


def test_killed_run_goes_on(
    translate: Callable,
    models: Path,
    portrait: Image.Image,
    tmp_path: Path,
    one_thread: None,  # noqa: ARG001
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(40):
        portrait.rotate(9 * n).save(photos / f"{n:02}.bmp")
    out = tmp_path / "out"
    process = command("translate", photos, "--no-grid", "--count", 3, "--model", models / "whole", "--output", out)
    deadline = time.monotonic() + 240
    while not list(out.glob("[!.]*.png")):  # one being written begins with a dot
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = {name: written for name, written in times(out).items() if not name.startswith(".")}
    assert 0 < len(before) < 120
    assert translate(photos, "--no-grid", "--count", 3, model="whole") == 0
    after = times(out)
    assert len(after) == 120  # and nothing unfinished lies around
    assert {name: after[name] for name in before} == before
    resumed = contents(out)
    assert translate(photos, "--no-grid", "--count", 3, "--overwrite", model="whole") == 0
    assert contents(out) == resumed


def test_a_name_that_is_no_text_is_a_name_like_any_other(
    translate: Callable, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As archives of other systems leave them."""
    (tmp_path / "photos").mkdir()
    face.save(tmp_path / "photos" / "a.png")
    shutil.copy(tmp_path / "photos" / "a.png", os.fsencode(tmp_path / "photos") + b"/caf\xe9.png")
    assert translate(tmp_path / "photos", "--count", 1) == 0
    assert "2 photos: 2 drawn" in capsys.readouterr().out


def test_interrupted_by_the_keyboard(models: Path, portrait: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for n in range(40):
        portrait.rotate(9 * n).save(tmp_path / "photos" / f"{n:02}.bmp")
    out = tmp_path / "out"
    # a process that was started in the background ignores it, and so would its child
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = command("translate", tmp_path / "photos", "--model", models / "whole", "--output", out)
    signal.signal(signal.SIGINT, before)
    assert wait_until(lambda: process.poll() is not None or list(out.glob("[!.]*.png")), 240)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.rstrip().endswith("Stopped.")
    assert "Traceback" not in told


def test_names_of_results(face: Image.Image, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for file in (
        one / "a.jpg",
        one / "a.png",
        one / "b.PNG",
        one / "deep" / "a.png",
        one / ".hidden.png",
        two / "b.png",
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        face.save(file)
    assert find_photos([one, one / "b.PNG"]) == {
        "a_jpg": one / "a.jpg",
        "a_png": one / "a.png",
        "b": one / "b.PNG",
        "deep/a": one / "deep" / "a.png",
    }
    assert set(find_photos([one], output=one / "deep")) == {"a_jpg", "a_png", "b"}
    assert set(find_photos([one / "deep"], output=one)) == {"a"}  # above, no result lies among the photos
    with pytest.raises(ValueError, match=r"would lie among the photos of .*one: name another folder"):
        find_photos([one], output=one / "deep" / "..")
    assert set(find_photos([one, two])) == {"a_jpg", "a_png", "b_PNG", "b_png", "deep/a"}
    with pytest.raises(ValueError, match=r"one/a\.png and .*deep/a\.png would both be written as a"):
        find_photos([one / "a.png", one / "deep" / "a.png"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing"], "There is no file or folder missing."),
        (["."], "There are no pictures in ."),
        (["a.png", "--domain", "cat"], "The model whole cannot draw cat: choose one of anime, female, male."),
        (["a.png", "--model", "nothing"], "There is no model 'nothing'"),
        (["a.png", "--references", "missing"], "There is no file or folder missing."),
        (["a.png", "--seed", str(2**31)], "There is no seed 2147483657: the last is 2147483647."),
        (["a.png", "--seed", str(10**20)], "There is no seed 100000000000000000009"),
    ],
)
def test_refusals_are_sentences(
    models: Path,
    face: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "a.png" in arguments:
        face.save("a.png")
    model = [] if "--model" in arguments else ["--model", str(models / "whole")]
    assert main(["translate", *arguments, *model, "--output", "out"]) == 2
    told = capsys.readouterr()
    assert sentence in told.err
    assert "Traceback" not in told.err
    assert not Path("out").exists()


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--count", "two"], ["--seed", "-1"]])
def test_wrong_numbers_are_named(capsys: pytest.CaptureFixture, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["translate", "photos", "--output", "out", *wrong])
    assert stop.value.code == 2
    assert f"not '{wrong[1]}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "most", "wrong"),
    [("--psi", "1.5", wrong) for wrong in ("1.6", "-0.1", "nan", "much")]
    + [("--strength", "1", wrong) for wrong in ("1.1", "-1", "inf", "")],
)
@pytest.mark.parametrize("task", ["translate", "video"])
def test_shares_are_within_their_range(
    capsys: pytest.CaptureFixture, task: str, option: str, most: str, wrong: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([task, "photo.png", "--output", "out", f"{option}={wrong}"])
    assert stop.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f"error: argument {option}: must be a number from 0 to {most}, not {wrong!r}")


def test_the_ends_of_the_ranges_are_taken(translate: Callable, face: Image.Image, tmp_path: Path) -> None:
    face.save(tmp_path / "a.png")
    for name, value in (("psi", "0"), ("psi", "1.5")):
        assert translate(tmp_path / "a.png", f"--{name}", value, "--count", 1, "--no-grid", model="whole") == 0
        assert read_provenance(tmp_path / "out" / "a-anime-seed0.png")[name] == value
    references = ["--references", tmp_path / "a.png", "--no-grid"]
    for value in ("0", "1"):
        assert translate(tmp_path / "a.png", "--strength", value, *references, model="whole") == 0
        assert read_provenance(tmp_path / "out" / "a-anime-like-a.png")["strength"] == value


# video


def video(models: Path, *arguments: object, model: str = "whole") -> int:
    return main(["video", *map(str, [*arguments, "--model", models / model, "--device", "cpu"])])


def test_walk(models: Path, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    face.save(tmp_path / "a.png")
    path = tmp_path / "walk.mp4"
    times_ = ["--seconds", 1, "--fps", 8]
    assert video(models, tmp_path / "a.png", "--seeds", "1,2,3", *times_, "--output", path) == 0
    assert capsys.readouterr().out.strip() == str(path)
    assert imageio_ffmpeg.count_frames_and_secs(path) == (8, 1)
    assert b"anime, seeds 1, 2, 3, psi 0.7" in path.read_bytes()

    gif = tmp_path / "walk.gif"
    references = [tmp_path / "red.png", tmp_path / "blue.png"]
    for reference in references:
        Image.new("RGB", (64, 64), reference.stem).save(reference)
    options = ["--whole-photo", "--loop", *times_, "--output", gif]
    assert video(models, tmp_path / "a.png", "--references", *references, *options) == 0
    with Image.open(gif) as shown:
        assert (shown.n_frames, shown.size) == (8, face.size)
        assert b"anime, 2 references" in shown.info["comment"]
        assert b"composite" in shown.info["comment"]


def test_clip(models: Path, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, path = tmp_path / "clip.mp4", tmp_path / "drawn.mp4"
    writer = imageio_ffmpeg.write_frames(source, face.size, fps=6, macro_block_size=1)
    writer.send(None)
    for _ in range(6):
        writer.send(face.tobytes())
    writer.close()
    assert video(models, source, "--seeds", 5, "--output", path, model="faces") == 0
    assert imageio_ffmpeg.count_frames_and_secs(path) == (6, 1)
    assert next(imageio_ffmpeg.read_frames(path))["size"] == face.size
    capsys.readouterr()
    assert video(models, source, "--seeds", "5,6", "--output", path) == 2
    assert "A clip keeps one style" in capsys.readouterr().err


def test_refused_videos(models: Path, face: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    face.save(tmp_path / "a.png")
    (tmp_path / "text.mp4").write_text("no video")
    for arguments, sentence in (
        ([tmp_path / "a.png", "--output", tmp_path / "walk.mp4"], "at least two styles, not 1"),
        ([tmp_path / "a.png", "--seeds", "1,2", "--output", tmp_path / "walk.txt"], "not as walk.txt"),
        ([tmp_path / "text.mp4", "--output", tmp_path / "walk.mp4"], "text.mp4 is not a video"),
        ([tmp_path / "none.png", "--seeds", "1,2", "--output", tmp_path / "walk.mp4"], "cannot be read"),
    ):
        assert video(models, *arguments) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "walk.mp4").exists()
    with pytest.raises(SystemExit):
        video(models, tmp_path / "a.png", "--seeds", "1,x", "--output", tmp_path / "walk.mp4")
    assert "not '1,x'" in capsys.readouterr().err


# memory and devices


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_memory_that_does_not_suffice_is_said(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("stargan.models.registry.find_model", fails)
    asked = ["average", str(tmp_path), str(tmp_path), "--output", str(tmp_path / "mean")]
    assert main(asked) == 2
    assert capsys.readouterr().err == "The memory does not suffice for this, on the device that computes it.\n"
    error = RuntimeError("a fault of ours")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main(asked)


@pytest.mark.parametrize("device", [None, "cuda"])
def test_each_process_of_torchrun_takes_a_gpu_of_its_own(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: what is asked of PyTorch is looked at."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(stargan, "load_translator", lambda _, place: place)
    monkeypatch.setattr("stargan.pictures.faces.search_on", lambda _: None)
    monkeypatch.setenv("LOCAL_RANK", "3")
    options = argparse.Namespace(device=device, model=None)
    assert load_translator(options) == torch.device("cuda", 3)
    assert chosen == [torch.device("cuda", 3)]


# push


def test_push(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in (models / "whole").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    assert main(["push", str(folder), "user/drawn"]) == 2
    assert "README.md" in capsys.readouterr().err

    (folder / "README.md").write_text("---\nlicense: mit\nlibrary_name: stargan\ntags: [anime]\n---\nA model.\n")
    hub = HubServer()
    try:
        online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        process = command("push", folder, "user/drawn", "--private", HF_TOKEN="hf_writer", **online)
        told, _ = process.communicate(timeout=240)
    finally:
        hub.stop()
    assert process.returncode == 0, told
    assert told.strip().endswith(f"{hub.url}/user/drawn")
    pushed = hub.repositories["user/drawn"]
    assert pushed.private
    assert {name: pushed.files[name] for name in listing(folder)} == contents(folder)
