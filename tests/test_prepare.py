"""Photos to training faces, by the real detector and with real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from asking import wait_until
from PIL import Image
from serving import ROOT

from stargan.commands import main
from stargan.models.config import ANIME_FRAMING
from stargan.pictures.faces import find
from stargan.training.data import DataError, list_domains
from stargan.training.prepare import Job, parse_crop, prepare


@pytest.fixture
def photos(tmp_path: Path, portrait: Image.Image) -> Path:
    """A portrait, two of it side by side, a tiny one, a wall and a broken file, in two folders."""
    root = tmp_path / "photos"
    (root / "people").mkdir(parents=True)
    (root / "things").mkdir()
    portrait.save(root / "people" / "one.jpg", quality=95)
    face = portrait.crop((100, 0, 356, 256))
    pair = Image.new("RGB", (512, 256))
    pair.paste(face, (0, 0))
    pair.paste(face.resize((200, 200)), (280, 30))
    pair.save(root / "people" / "two.png")
    portrait.resize((160, 160)).save(root / "people" / "far.png")
    Image.new("RGB", (300, 200), "gray").save(root / "things" / "wall.png")
    (root / "things" / "broken.jpg").write_bytes((root / "people" / "one.jpg").read_bytes()[:2000])
    return root


def test_every_face_comes_into_the_framing_and_what_is_left_out_is_reported(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    faces = tmp_path / "faces"
    assert main(["prepare", str(photos), str(faces), "--size", "160", "--processes", "2"]) == 0
    report = json.loads((faces / "report.json").read_text())
    assert report["photos"] == 5
    assert report["written"] == {
        "people/one.jpg": ["people/one.png"],
        "people/two.png": ["people/two-1.png", "people/two-2.png"],
    }
    assert report["left_out"].keys() == {"people/far.png", "things/wall.png", "things/broken.jpg"}
    assert report["left_out"]["people/far.png"][0].startswith("the face is too small: ")
    assert report["left_out"]["things/wall.png"] == ["no face was found"]
    assert report["left_out"]["things/broken.jpg"][0].startswith("the picture cannot be used: ")
    out = capsys.readouterr().out
    assert "5 photos: 3 faces of 2 photos were written." in out
    assert "Left out: 1, the face is too small." in out
    for name in ("one", "two-1", "two-2"):
        picture = Image.open(faces / "people" / f"{name}.png")
        assert picture.size == (160, 160)
        (found,) = find(picture)
        assert np.abs(found.landmarks / 160 - np.array(ANIME_FRAMING)).max() < 0.06
    # a domain folder comes about only where it gets a face
    assert {name: len(files) for name, files in list_domains(faces).items()} == {"people": 3}


def test_nothing_is_overwritten_unless_asked_for(photos: Path, tmp_path: Path) -> None:
    faces, job = tmp_path / "faces", Job(64, None, (0.2, 0, 0.6, 0.4), smallest=64)
    prepare(photos, faces, job, processes=1)
    mine = faces / "people" / "one.png"
    Image.new("RGB", (8, 8)).save(mine)
    second = prepare(photos, faces, job, processes=1)
    assert second.left_out["people/one.jpg"] == second.left_out["people/two.png"] == ["is already there"]
    assert not second.written
    assert Image.open(mine).size == (8, 8)
    prepare(photos, faces, replace(job, overwrite=True), processes=1)
    assert Image.open(mine).size == (64, 64)


def test_the_report_keeps_what_earlier_calls_did(photos: Path, tmp_path: Path) -> None:
    faces, job = tmp_path / "faces", Job(64, ANIME_FRAMING, smallest=64)
    prepare(photos, faces, job, processes=1)
    first = json.loads((faces / "report.json").read_text())
    (photos / "people" / "new.png").write_bytes((photos / "people" / "two.png").read_bytes())
    (photos / "things" / "wall.png").unlink()
    prepare(photos, faces, job, processes=1)
    second = json.loads((faces / "report.json").read_text())
    assert second["photos"] == 5
    assert second["written"] == first["written"] | {"people/new.png": ["people/new-1.png", "people/new-2.png"]}
    assert second["left_out"] == first["left_out"]
    (faces / "report.json").write_text("[]")
    prepare(photos, faces, job, processes=1)
    assert json.loads((faces / "report.json").read_text())["left_out"]["people/one.jpg"] == ["is already there"]


def test_what_is_made_again_leaves_no_earlier_face(photos: Path, tmp_path: Path) -> None:
    faces, job = tmp_path / "faces", Job(64, ANIME_FRAMING, smallest=64)
    prepare(photos, faces, job, processes=1)
    assert len(list_domains(faces)["people"]) == 3
    fewer = prepare(photos, faces, replace(job, smallest=130, overwrite=True), processes=1)
    written = {faces / name for names in fewer.written.values() for name in names}
    assert 0 < len(written) < 3
    assert {*faces.rglob("*.png")} == written
    prepare(photos, faces, replace(job, smallest=10_000, overwrite=True), processes=1)
    assert not [*faces.rglob("*.png")]


def test_links_to_photos_elsewhere(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.jpg").symlink_to(photos / "people" / "one.jpg")
    report = prepare(tmp_path / "linked", tmp_path / "faces", Job(64, None), processes=1)
    assert report.written == {(photos / "people" / "one.jpg").as_posix(): ["a.png"]}
    assert (tmp_path / "faces" / "report.json").exists()


def test_a_fixed_crop_for_drawings(tmp_path: Path) -> None:
    drawing = Image.new("RGB", (200, 100), "white")
    drawing.paste((255, 0, 0), (50, 20, 100, 70))
    (tmp_path / "drawings").mkdir()
    drawing.save(tmp_path / "drawings" / "a.png")
    arguments = ["prepare", str(tmp_path / "drawings"), str(tmp_path / "faces"), "--size", "32", "--smallest", "50"]
    assert main([*arguments, "--crop", "0.25,0.2,0.5,0.7", "--processes", "1"]) == 0
    found = np.asarray(Image.open(tmp_path / "faces" / "a.png"))
    assert (found[4:-4, 4:-4] == (255, 0, 0)).all()


def test_a_model_without_framing_takes_the_middle_square(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), "white")
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "a.png")
    prepare(tmp_path / "in", tmp_path / "out", Job(32, None), processes=1)
    assert (np.asarray(Image.open(tmp_path / "out" / "a.png"))[4:-4, 4:-4] == (0, 0, 255)).all()


@pytest.mark.parametrize("text", ["0.1,0.2,0.3", "a,b,c,d", "0.5,0,0.4,1", "0,0,1.5,1"])
def test_a_crop_that_cannot_be(text: str) -> None:
    with pytest.raises(DataError, match="A crop is"):
        Job(32, None, parse_crop(text))


def test_a_folder_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["prepare", str(tmp_path), str(tmp_path / "faces")]) == 2
    assert "There are no pictures in" in capsys.readouterr().err
    assert not (tmp_path / "faces").exists()


def test_faces_of_two_photos_never_share_a_name(photos: Path, tmp_path: Path) -> None:
    people, faces = photos / "people", tmp_path / "faces"
    (people / "one.jpg").rename(people / "two-1.jpg")
    job = Job(64, ANIME_FRAMING)
    report = prepare(people, faces, job, processes=1)
    assert report.written["two.png"] == ["two-1.png", "two-2.png"]
    assert report.written["two-1.jpg"] == ["two-1_jpg.png"]
    again = prepare(people, faces, job, processes=1)
    assert {name for name, reasons in again.left_out.items() if reasons == ["is already there"]} >= {
        "two.png",
        "two-1.jpg",
    }


def test_a_photo_whose_faces_were_being_written_is_taken_again(photos: Path, tmp_path: Path) -> None:
    faces, job = tmp_path / "faces", Job(64, ANIME_FRAMING)
    prepare(photos, faces, job, processes=1)
    first = faces / "people" / "two-1.png"
    content = first.read_bytes()
    first.unlink()  # the first face of several is written last
    assert prepare(photos, faces, job, processes=1).written.keys() == {"people/two.png"}
    assert first.read_bytes() == content
    assert not list(faces.rglob("*.partial"))


def test_a_process_that_is_killed_is_said_in_a_sentence(portrait: Image.Image, tmp_path: Path) -> None:
    photos, faces = tmp_path / "photos", tmp_path / "faces"
    photos.mkdir()
    for number in range(60):
        portrait.rotate(6 * number).save(photos / f"{number:02}.jpg")
    command = [sys.executable, "-m", "stargan", "prepare", str(photos), str(faces), "--processes", "2"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: any(faces.glob("*.png")), 120)
    child = next(c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline()))
    child.kill()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "A process that cut faces out was ended" in told
    assert "Traceback" not in told
    assert len(list_domains(faces.parent)["faces"]) < 60
