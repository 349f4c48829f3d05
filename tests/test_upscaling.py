"""Upscalers: small ones made here, from a file and from a Hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import HubServer
from PIL import Image
from safetensors.torch import save_file
from serving import ROOT
from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact
from test_checkpoint import widen_header

from stargan.drawing import CACHE, Source, draw, load_translator, prepare, seeds
from stargan.models import upscaling
from stargan.models.config import ModelError
from stargan.models.upscaling import enlarge
from stargan.pictures.provenance import read_provenance, save_picture


@pytest.fixture(autouse=True)
def fresh() -> None:
    upscaling._load.cache_clear()
    CACHE.clear()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pixels four times as large (what this network adds to), and a quarter more of red."""
    network = SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=2, upscale=4)
    last = network.body[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    with torch.no_grad():
        last.bias[:16] += 0.25
    file = tmp_path_factory.mktemp("upscaler") / "anime-x4.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, file)
    return file


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 180, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def expected(picture: Image.Image) -> np.ndarray:
    large = np.asarray(picture.resize((64, 64), Image.Resampling.NEAREST)).astype(float)
    return (large + np.array([0.25 * 255, 0, 0])).round()


def test_a_header_is_bounded(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that reads it takes 100 MB."""
    widen_header(weights, tmp_path / "wide.safetensors")
    monkeypatch.setenv("STARGAN_UPSCALER", str(tmp_path / "wide.safetensors"))
    with pytest.raises(ModelError, match="cannot be read"):
        upscaling.upscaler()


def test_without_one_it_is_lanczos(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARGAN_UPSCALER", raising=False)
    larger, note = enlarge(picture, 48)
    assert larger.tobytes() == picture.resize((48, 48), Image.Resampling.LANCZOS).tobytes()
    assert note == "enlarged from 16 px to 48 px by Lanczos"
    assert enlarge(picture, 16) == (picture, "")


def test_with_one(picture: Image.Image, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARGAN_UPSCALER", str(weights))
    larger, note = enlarge(picture, 64)
    assert np.abs(np.asarray(larger) - expected(picture)).max() <= 1
    assert note == "enlarged from 16 px to 64 px by anime-x4.safetensors"
    larger, note = enlarge(picture, 128)
    assert larger.size == (128, 128)
    assert note.endswith("by anime-x4.safetensors and Lanczos")
    assert enlarge(picture, 8) == (picture, "")  # nothing is made smaller


def test_black_and_white_stays_so(picture: Image.Image, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARGAN_UPSCALER", str(weights))
    larger, _ = enlarge(picture.convert("L").convert("RGB"), 64)
    r, g, b = larger.split()
    assert r.tobytes() == g.tobytes() == b.tobytes()


def test_a_saved_drawing_says_what_enlarged_it(
    portrait: Image.Image, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STARGAN_UPSCALER", str(weights))
    translator = load_translator(device="cpu")
    config = translator.config
    drawn = draw(prepare(Source.open(portrait), config), seeds(config, None, 1, 3, 0.7), translator.paint)
    picture, about = drawn.enlarged(0, 1024)
    save_picture(picture, tmp_path / "saved.png", about)
    said = read_provenance(tmp_path / "saved.png")
    assert said["size"] == f"enlarged from {config.architecture.image_size} px to 1024 px by {weights.name} and Lanczos"
    assert said["seed"] == "3"
    red = np.asarray(picture).mean(axis=(0, 1)) - np.asarray(drawn.pictures[0]).mean(axis=(0, 1))
    assert red[0] > 20 > abs(red[2])


def test_what_is_no_upscaler(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickle, cut, other, same = (
        tmp_path / name for name in ("evil.pth", "cut.safetensors", "other.safetensors", "same.safetensors")
    )
    pickle.write_bytes(b"\x80\x04")
    cut.write_bytes(weights.read_bytes()[:100])
    save_file({"weight": torch.zeros(3)}, other)
    save_file(SRVGGNetCompact(num_feat=16, num_conv=2, upscale=1).state_dict(), same)
    for name, sentence in (
        (str(pickle), "no safetensors file"),
        (str(cut), "cannot be read"),
        (str(other), "no known architecture"),
        (str(same), "none that makes RGB pictures larger"),
        ("nothing at all", "There is no file"),
    ):
        monkeypatch.setenv("STARGAN_UPSCALER", name)
        with pytest.raises(ModelError, match=sentence):
            upscaling.upscaler()


def test_from_the_hub(weights: Path, tmp_path: Path) -> None:
    """The real client; the second time, without asking."""
    hub = HubServer()
    try:
        hub.add("user/anime-x4", {"anime-x4.safetensors": weights.read_bytes(), "evil.pth": b"\x80\x04"})
        hub.add("user/two", {"a.safetensors": weights.read_bytes(), "b.safetensors": weights.read_bytes()})
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
        }  # fmt: skip

        def enlarged(name: str) -> subprocess.CompletedProcess[str]:
            code = (
                "from PIL import Image; from stargan.models.upscaling import enlarge; "
                "print(enlarge(Image.new('RGB', (16, 16)), 64))"
            )
            return subprocess.run(
                [sys.executable, "-c", code], env=environment | {"STARGAN_UPSCALER": name},
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip

        first = enlarged("user/anime-x4")
        assert "16 px to 64 px by anime-x4" in first.stdout, first.stderr
        assert not any("evil.pth" in request for request in map(str, hub.requests))
        hub.requests.clear()
        assert enlarged("user/anime-x4").stdout.partition(",")[2] == first.stdout.partition(",")[2]
        assert hub.requests == []
        assert "it has 2 safetensors files" in enlarged("user/two").stderr
        assert "The Hub has no model user/none" in enlarged("user/none").stderr
    finally:
        hub.stop()
