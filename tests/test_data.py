"""Folders of faces: what is read, what is refused, what a batch holds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from stargan.training.data import DataError, Faces, augment, evenly, list_domains
from stargan.training.sheets import SOURCES, fixed_faces

CPU = torch.device("cpu")
COLOURS = {"anime": (200, 0, 0), "female": (0, 200, 0), "male": (0, 0, 200)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three domains of one colour each; of anime there are many more pictures."""
    for domain, colour in COLOURS.items():
        (tmp_path / domain).mkdir()
        for index in range(30 if domain == "anime" else 3):
            Image.new("RGB", (40, 40), colour).save(tmp_path / domain / f"{index:02d}.png")
    return tmp_path


def test_domains_are_the_sorted_folders_and_only_pictures_count(root: Path) -> None:
    (root / "anime" / "notes.txt").write_text("no picture")
    (root / ".hidden").mkdir()
    (root / "README.md").write_text("no folder")
    found = list_domains(root)
    assert list(found) == ["anime", "female", "male"]
    assert [len(files) for files in found.values()] == [30, 3, 3]


def test_a_domain_is_all_that_is_in_its_folder(root: Path) -> None:
    """As prepare cuts faces out of albums; what no program may take for a picture is not in it."""
    for place in ("album/2024", ".thumbnails"):
        (root / "female" / place).mkdir(parents=True)
        shutil.copy(root / "female" / "00.png", root / "female" / place / "x.png")
    (root / "female" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "female" / "folder.png").mkdir()
    files = [file.relative_to(root).as_posix() for file in list_domains(root)["female"]]
    assert files == ["female/00.png", "female/01.png", "female/02.png", "female/album/2024/x.png"]
    assert len(Faces(root, 32, CPU).pictures[1]) == 4


def test_of_pictures_that_are_no_square_the_middle_is_taken(root: Path) -> None:
    """As the app takes it for a model without a framing: nothing is squashed."""
    wide = Image.new("RGB", (120, 40), "red")
    wide.paste("lime", (40, 0, 80, 40))
    wide.save(root / "anime" / "00.png")
    taken = Faces(root, 32, CPU).pictures[0][0]
    # edges take in a little of what is beside
    assert (taken[:, :, 3:-3] == torch.tensor([0, 255, 0])[:, None, None]).all()


def test_some_of_many_are_taken_evenly(root: Path) -> None:
    """Names sort by where pictures come from: of two kinds, a sheet and a figure show both."""
    assert evenly(10, 4) == [0, 2, 5, 7]
    assert evenly(3, 5) == evenly(3, None) == [0, 1, 2]
    for index in range(60):
        Image.new("RGB", (40, 40), (0, 250 if index < 30 else 100, 0)).save(
            root / "female" / f"{'gn'[index // 30]}{index}.png"
        )
    greens = [face.getpixel((9, 9))[1] for face in fixed_faces(root, ("anime", "female", "male"), 16)["female"]]
    assert len(greens) == SOURCES
    assert greens.count(250) == greens.count(100) + 1  # and one of the three there were
    for file in sorted((root / "female").iterdir())[:20]:  # the next readable ones stand in
        file.write_bytes(b"no picture")
    assert len(fixed_faces(root, ("anime", "female", "male"), 16)["female"]) == SOURCES - 1


def test_an_empty_domain_folder_is_named(root: Path) -> None:
    (root / "ghost").mkdir()
    with pytest.raises(DataError, match=r"ghost has no pictures"):
        Faces(root, 32, CPU)


@pytest.mark.parametrize(("name", "sentence"), [("nowhere", "is not a folder"), ("", "has no folders in it")])
def test_a_root_that_cannot_be_used(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Faces(tmp_path / name, 32, CPU)


def test_broken_pictures_are_skipped_counted_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "male" / "empty.png").write_bytes(b"")
    (root / "male" / "text.jpg").write_text("not a picture")
    whole = (root / "male" / "00.png").read_bytes()
    (root / "male" / "cut.png").write_bytes(whole[: len(whole) // 2])
    faces = Faces(root, 32, CPU)
    assert faces.skipped == 3
    assert [len(pictures) for pictures in faces.pictures] == [30, 3, 3]
    assert all(name in caplog.text for name in ("empty.png", "text.jpg", "cut.png", "3 pictures"))


def test_a_domain_of_broken_pictures_alone_is_refused(root: Path) -> None:
    for file in (root / "female").iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"None of the 3 pictures in .*female can be read"):
        Faces(root, 32, CPU)


def test_pictures_are_held_as_bytes_at_the_size_asked_for(root: Path) -> None:
    faces = Faces(root, 32, CPU)
    assert [(p.dtype, p.shape[1:]) for p in faces.pictures] == [(torch.uint8, (3, 32, 32))] * 3
    assert [tuple(p[0, :, 5, 5].tolist()) for p in faces.pictures] == list(COLOURS.values())


def test_every_row_is_of_its_own_domain(root: Path) -> None:
    domain = torch.tensor([2, 0, 1, 1, 0, 2])
    x, kind = Faces(root, 32, CPU).sample(domain, torch.Generator().manual_seed(0))
    assert torch.equal(kind, domain)
    assert x.shape == (6, 3, 32, 32)
    assert torch.equal(x.mean(dim=(2, 3)).argmax(dim=1), domain)
    assert x.min() == -1
    assert x.max() == pytest.approx(200 / 127.5 - 1)


def _gradients(count: int) -> torch.Tensor:
    """Pictures whose red rises to the right and whose green rises downwards."""
    ramp = torch.linspace(-1, 1, 32)
    return torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.zeros(32, 32)]).expand(
        count, -1, -1, -1
    )


def test_without_crops_half_of_the_pictures_are_flipped_and_nothing_else() -> None:
    x = _gradients(400)
    out = augment(x, 0.0, torch.Generator().manual_seed(0))
    as_is = (out - x).abs().amax(dim=(1, 2, 3)) < 1e-4
    flipped = (out - x.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (as_is ^ flipped).all()
    assert 150 < flipped.sum() < 250


def test_crops_keep_80_to_100_percent_of_the_area() -> None:
    out = augment(_gradients(500), 1.0, torch.Generator().manual_seed(0))
    # how much of the ramp is left, away from the borders, is the crop's width and height
    width = (out[:, 0, 16, 24] - out[:, 0, 16, 8]).abs() / (_gradients(1)[0, 0, 16, 24] - _gradients(1)[0, 0, 16, 8])
    height = (out[:, 1, 24, 16] - out[:, 1, 8, 16]).abs() / (_gradients(1)[0, 1, 24, 16] - _gradients(1)[0, 1, 8, 16])
    area = (width * height).numpy()
    assert area.min() > 0.78
    assert area.max() < 1.01
    assert np.quantile(area, 0.9) > 0.95
    assert np.quantile(area, 0.1) < 0.85
    assert 0.88 < (width / height).min() < (width / height).max() < 1.13


def test_augmentation_is_as_its_generator_decides_and_stays_in_range() -> None:
    x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    first, again = (augment(x, 0.5, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(x, 0.5, torch.Generator().manual_seed(8)))
    assert first.abs().max() <= 1


def test_reading_takes_hardly_more_memory_than_the_set(tmp_path: Path) -> None:
    """In a process of its own, whose peak of resident memory is measured against that before reading."""
    for domain in ("a", "b"):
        (tmp_path / domain).mkdir()
        picture = Image.effect_noise((64, 64), 80)
        for index in range(1000):  # enlarged to 128 px: 98 MB in all
            picture.save(tmp_path / domain / f"{index}.jpg", quality=30)
    program = f"""
import resource, torch
from pathlib import Path
from PIL import Image
from stargan.training.data import Faces, read_square
torch.zeros(2, 3, 8, 8)[0] = torch.ones(3, 8, 8)
read_square(Path({str(tmp_path)!r}) / "a" / "0.jpg", 128)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

before = peak()
faces = Faces(Path({str(tmp_path)!r}), 128, torch.device("cpu"))
print(peak() - before, sum(pictures.nbytes for pictures in faces.pictures))
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    taken, held = map(int, done.stdout.split())
    assert held == 2000 * 3 * 128 * 128
    assert taken < 1.2 * held + 20e6


def test_pictures_are_upright_and_on_white(root: Path) -> None:
    """As photos are that are to be drawn."""
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(root / "anime" / "00.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # a quarter turn to the right
    lower = Image.new("RGB", (32, 32))
    lower.paste("white", (0, 16, 32, 32))
    lower.save(root / "anime" / "01.png", exif=exif)
    clear, turned, *_ = Faces(root, 32, CPU).pictures[0]
    assert (clear == 255).all()
    assert (turned[:, :, :16] == 255).all()
    assert (turned[:, :, 16:] == 0).all()


def test_broken_pictures_leave_no_hole(root: Path) -> None:
    for index in (0, 7, 29):
        (root / "anime" / f"{index:02d}.png").write_bytes(b"broken")
    Image.new("RGB", (40, 40), (0, 0, 100)).save(root / "anime" / "28.png")
    faces = Faces(root, 32, CPU)
    assert faces.names[0] == [f"{i:02d}.png" for i in range(30) if i not in (0, 7, 29)]
    assert [tuple(p[:, 0, 0].tolist()) for p in faces.pictures[0]] == [COLOURS["anime"]] * 26 + [(0, 0, 100)]


# weights


def test_sources_are_drawn_by_their_weights(root: Path) -> None:
    for domain, names in (("female", ("n", "n2", "g")), ("male", ("n", "g", "g2"))):
        for index, name in enumerate(names):
            (root / domain / f"{index:02d}.png").rename(root / domain / f"{name}.png")
            Image.new("RGB", (32, 32), (0, 0, 50 * index)).save(root / domain / f"{name}.png")
    faces = Faces(root, 32, CPU)
    assert faces.names[1:] == [["g.png", "n.png", "n2.png"], ["g.png", "g2.png", "n.png"]]
    domains, odds = faces.weights({"anime": 2.0, "female/n": 3.0, "female/n2": 6.0})
    assert domains.tolist() == [2.0, 1.0, 1.0]
    assert odds[0] is None
    assert odds[1] is not None
    assert odds[1].tolist() == [1.0, 3.0, 6.0]  # the longest prefix counts
    assert odds[2] is None

    random = torch.Generator().manual_seed(0)
    for index, expected in ((1, [0.1, 0.3, 0.6]), (2, [1 / 3, 1 / 3, 1 / 3])):
        x, _ = faces.sample(torch.full((3000,), index), random, odds)
        drawn = [(x[:, 2, 0, 0] == p[2, 0, 0].float() / 127.5 - 1).float().mean().item() for p in faces.pictures[index]]
        assert drawn == pytest.approx(expected, abs=0.03)


def test_kinds_are_told_apart_by_name(root: Path) -> None:
    """Kinds count on from the domains; a picture's goes with it when it is drawn."""
    faces = Faces(root, 32, CPU)
    for index, pictures in enumerate(faces.pictures):
        pictures[:] = torch.arange(len(pictures), dtype=torch.uint8)[:, None, None, None] + 100 * (index == 2)
    faces.tell_apart(("female/01", "anime/0"))
    assert faces.kinds[0].tolist() == [4] * 10 + [0] * 20
    assert faces.kinds[1].tolist() == [1, 3, 1]
    assert faces.kinds[2].tolist() == [2] * 3
    domain = torch.arange(300) % 3
    x, kind = faces.sample(domain, torch.Generator().manual_seed(0))
    at = ((x[:, 0, 0, 0] + 1) * 127.5).round().long() - 100 * (domain == 2)
    assert kind.tolist() == [faces.kinds[d][a].item() for d, a in zip(domain.tolist(), at.tolist(), strict=True)]
    assert set(kind.tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("manga/a", "No picture has a name that begins with 'manga/a'"),
        ("female/x", "No picture has a name that begins with 'female/x'"),
        ("female", "No picture has a name that begins with 'female'"),
        ("female/0", "leave no picture to female"),
    ],
)
def test_kinds_that_cannot_be(root: Path, kind: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Faces(root, 32, CPU).tell_apart((kind,))


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"manga": 2.0}, "name the domain 'manga'; the data has anime, female, male"),
        ({"manga/n": 2.0}, "name the domain 'manga'"),
        ({"female/x": 2.0}, "No picture of female has a name that begins with 'x'"),
        ({"female/0": 0.0}, "All pictures of female have the weight 0"),
        ({"anime": 0.0, "female": 0.0, "male": 0.0}, "All domains have the weight 0"),
    ],
)
def test_weights_that_cannot_be(root: Path, weights: dict[str, float], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Faces(root, 32, CPU).weights(weights)
