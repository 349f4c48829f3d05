"""Folders of faces: what is read, what is refused, what a batch holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stargan.training.data import DataError, Faces, augment, list_domains

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
    x = Faces(root, 32, CPU).sample(domain, torch.Generator().manual_seed(0))
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
