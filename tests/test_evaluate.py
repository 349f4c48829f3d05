"""Evaluation: the distance and the spread are what they say, and the command compares models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import FACES
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from stargan.commands import main
from stargan.evaluation import protocol as evaluate
from stargan.evaluation.protocol import laplacian_pyramid, profile, real_spread, sliced_wasserstein, spread
from stargan.models.checkpoint import Model, save_model
from stargan.models.config import Architecture, ModelConfig
from stargan.networks import init_weights
from stargan.pictures.tensors import to_tensor
from stargan.training.data import DataError, read_square

DOMAINS = ("anime", "photo")


def noise(count: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures."""
    small = torch.rand(count, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(small, size=(size, size), mode="bicubic").clamp(-1, 1)


# the distance


def test_the_pyramid_holds_the_whole_picture() -> None:
    x = noise(2, 64)
    levels = laplacian_pyramid(x)
    assert [level.shape[2] for level in levels] == [64, 32, 16]
    restored = levels[-1]
    for level in reversed(levels[:-1]):
        spaced = torch.zeros_like(level)
        spaced[:, :, ::2, ::2] = restored
        restored = level + evaluate._blur(spaced, gain=4.0)
    torch.testing.assert_close(restored, x)


def test_a_constant_picture_has_no_details() -> None:
    *details, rest = laplacian_pyramid(torch.full((1, 3, 64, 64), 0.3))
    assert all(level.abs().max() < 1e-6 for level in details)
    assert torch.allclose(rest, torch.tensor(0.3))


def test_a_set_has_no_distance_to_itself_and_order_does_not_matter() -> None:
    x = noise(60)
    reference = profile(x)
    assert set(sliced_wasserstein(x, reference).values()) == {0.0}
    assert list(reference.quantiles) == [32, 16]
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(3))]
    assert max(sliced_wasserstein(shuffled, reference).values()) < 40


def test_sets_of_different_sizes_can_be_compared() -> None:
    reference = profile(noise(400))
    few, many = (sliced_wasserstein(noise(count, seed=5), reference) for count in (40, 400))
    assert all(many[side] < few[side] < 120 for side in many)


def test_a_shift_of_all_colours_is_its_own_distance() -> None:
    """A shift by one deviation moves every projection by the direction's sum: on average √(2/π) for a unit direction of ones."""
    x = noise(200)
    reference = profile(x)
    deviation = reference.scales[16][0]
    found = sliced_wasserstein(x + deviation.view(1, 3, 1, 1), reference)[16] / 1000
    assert found == pytest.approx(math.sqrt(2 / math.pi), rel=0.1)


def test_blur_shows_at_the_level_whose_details_it_takes() -> None:
    x = torch.rand(100, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reference = profile(x)
    found = sliced_wasserstein(gaussian_blur(x, 5, 0.8), reference)
    assert found[64] > 300
    assert found[64] > 3 * found[16]


@pytest.mark.skipif(not FACES.is_dir(), reason="needs the faces beside the repository")
def test_known_figures_of_drawings() -> None:
    def read(part: str, domain: str, count: int) -> torch.Tensor:
        files = sorted((FACES / part / domain).iterdir())
        return to_tensor([read_square(file, 64) for file in files[:: max(1, len(files) // count)]])

    reference = profile(read("train", "anime", 1500))
    drawings, photos = read("val", "anime", 200), read("val", "female", 100)

    def mean(x: torch.Tensor) -> float:
        return float(np.mean(list(sliced_wasserstein(x, reference).values())))

    assert mean(drawings) < 18
    assert 230 < mean(photos) < 300
    assert 350 < mean(gaussian_blur(drawings, 15, 3.0)) < 430
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert 45 < mean((drawings * weights).sum(dim=1, keepdim=True).expand_as(drawings)) < 75


# the spread


def test_spread_is_the_mean_over_pairs_and_sources() -> None:
    levels = torch.tensor([[0.0, 0.3, 0.9], [0.5, 0.5, 0.5]])
    outputs = levels[:, :, None, None, None].expand(-1, -1, 3, 4, 4)
    assert spread(outputs) == pytest.approx((0.3 + 0.6 + 0.9) / 3 / 2)


def test_real_spread_is_over_different_faces() -> None:
    faces = torch.tensor([0.0, 1.0])[:, None, None, None].expand(-1, 3, 4, 4)
    assert real_spread(faces) == 1.0  # a face with itself would count 0
    uniform = torch.rand(500, 1, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, 3, 2, 2)
    assert real_spread(uniform) == pytest.approx(1 / 3, rel=0.05)


# whole evaluations


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    for part, count in (("train", 12), ("val", 5)):
        for seed, domain in enumerate(DOMAINS):
            (root / part / domain).mkdir(parents=True)
            for index, x in enumerate(noise(count, 32, seed + 10 * count)):
                array = ((x + 1) * 127.5).byte().permute(1, 2, 0).numpy()
                Image.fromarray(array).save(root / part / domain / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two models of random weights."""
    root = tmp_path_factory.mktemp("models")
    for seed in range(2):
        torch.manual_seed(seed)
        config = ModelConfig(f"m{seed}", DOMAINS, Architecture(32, base_channels=8, max_channels=16))
        model = Model.build(config)
        for network in model.networks().values():
            network.apply(init_weights)  # torch's own would hardly let a style show
        save_model(model, root / f"m{seed}")
    return [str(root / f"m{seed}") for seed in range(2)]


def run(data: Path, *arguments: str) -> int:
    folders = ["--data", str(data / "train"), "--validation", str(data / "val"), "--device", "cpu"]
    return main(["evaluate", *arguments, *folders])


def test_several_models_in_one_table(
    data: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "figures.json"
    assert run(data, *models, "--no-backbones", "--outputs", "3", "--output", str(output)) == 0
    found = json.loads(output.read_text())
    assert found["outputs"] == 3
    rows = found["rows"]
    pairs = {"anime>photo", "photo>anime"}
    assert {(row["model"], row["mode"], row["pair"]) for row in rows} == {
        (model, mode, pair) for model in models for mode in ("latent", "reference") for pair in {*pairs, "mean"}
    }
    assert all(row["swd"].keys() == {"32", "16", "mean"} for row in rows)
    # what concerns the data alone is the same for both models; the outputs of random weights are far from any face
    floors = {(row["pair"], row["floor"]["mean"], row["untranslated"]["mean"]) for row in rows}
    assert len(floors) == 3
    assert all(row["swd"]["mean"] > 2 * row["floor"]["mean"] for row in rows)
    for model in models:
        of = [row for row in rows if row["model"] == model and row["mode"] == "latent"]
        (mean,) = [row["spread"] for row in of if row["pair"] == "mean"]
        assert mean == pytest.approx(np.mean([row["spread"] for row in of if row["pair"] != "mean"]))
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(rows)
    assert table[0].split() == [
        *[
            "|",
            "model",
            "|",
            "mode",
            "|",
            "pair",
            "|",
            "SWD",
            "32",
            "|",
            "SWD",
            "16",
            "|",
            "SWD",
            "|",
            "floor",
            "|",
            "untranslated",
            "|",
            "spread",
            "|",
        ]
    ]
    assert len({len(line) for line in table}) == 1


def test_the_same_twice_and_pairs_modes_and_sources_of_choice(data: Path, models: list[str], tmp_path: Path) -> None:
    chosen = ["--no-backbones", "--pairs", "photo>anime", "--modes", "latent", "--sources", "2", "--outputs", "2"]
    files = [tmp_path / name for name in ("first.json", "second.json")]
    for file in files:
        assert run(data, models[0], *chosen, "--output", str(file)) == 0
    assert files[0].read_text() == files[1].read_text()
    (row,) = json.loads(files[0].read_text())["rows"]
    assert (row["mode"], row["pair"]) == ("latent", "photo>anime")


def test_without_truncation_outputs_spread_more(data: Path, models: list[str], tmp_path: Path) -> None:
    spreads = []
    for psi in ("0.2", "1"):
        file = tmp_path / f"{psi}.json"
        arguments = [
            "--no-backbones",
            "--modes",
            "latent",
            "--pairs",
            "photo>anime",
            "--psi",
            psi,
            "--output",
            str(file),
        ]
        assert run(data, models[0], *arguments) == 0
        spreads.append(json.loads(file.read_text())["rows"][0]["spread"])
    assert spreads[0] < spreads[1] / 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--pairs", "photo>manga"], "manga is not a domain of the model"),
        (["--pairs", "photo-anime"], "written source>target, not 'photo-anime'"),
        (["--inception-weights", "/nowhere/w.pth"], "The weights file /nowhere/w.pth does not exist"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    data: Path, models: list[str], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    backbones = [] if "--inception-weights" in arguments else ["--no-backbones"]
    assert run(data, models[0], *backbones, *arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_model_without_two_of_the_datas_domains(models: list[str], data: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "anime").symlink_to(data / part / "anime")
    evaluation = evaluate.Evaluation(tmp_path / "train", tmp_path / "val", evaluate.Protocol())
    from stargan import load_translator

    with pytest.raises(DataError, match=r"share fewer than two domains: \['anime'\]"):
        evaluation.run(load_translator(models[0], "cpu"), "m0")


# backbones


def test_weights_that_cannot_be_downloaded_are_told_before_any_work(
    data: Path,
    models: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # nothing downloaded earlier
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nobody listens
    file = tmp_path / "out.json"
    assert run(data, models[0], "--outputs", "2", "--output", str(file)) == 0
    sentences = [record.message for record in caplog.records if "left out" in record.message]
    assert len(sentences) == 2
    assert sentences[0].startswith("FID and KID are left out: the weights cannot be downloaded here")
    assert sentences[1].endswith("give the file with --lpips-weights.")
    assert all(row["backbones"] == {} and row["swd"] for row in json.loads(file.read_text())["rows"])


def test_distances_of_features() -> None:
    """Against the formulas: Fréchet distance of two Gaussians; KID of a set with itself is about zero."""
    backbones = evaluate.Backbones.__new__(evaluate.Backbones)
    random = torch.Generator().manual_seed(0)
    real = torch.randn(400, 8, generator=random)
    moved = real + 2
    found = backbones.distances(real, moved)
    assert found["fid"] == pytest.approx(4 * 8, rel=1e-3)  # equal covariances: the squared distance of the means
    assert found["kid"] > 100 * abs(backbones.distances(real, torch.randn(400, 8, generator=random))["kid"])
    assert backbones.distances(None, moved) == {}


@pytest.fixture
def weight_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Files in the published layouts, with random weights: the trained ones are downloads."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    from torchvision.models import alexnet

    torch.manual_seed(0)
    files = {"inception": tmp_path / "inception.pth", "lpips": tmp_path / "alexnet.pth"}
    with monkeypatch.context() as patched:
        patched.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        inception = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(inception.state_dict(), files["inception"])
    torch.save(alexnet().state_dict(), files["lpips"])
    return files


def test_backbones_from_local_files(
    weight_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    before = torch.hub.get_dir()
    backbones = evaluate.Backbones(torch.device("cpu"), **weight_files)
    assert torch.hub.get_dir() == before
    assert not caplog.records
    features = backbones.features(noise(3))
    assert features.shape == (3, 2048)
    assert torch.equal(features, backbones.features(noise(3)))
    outputs = noise(6).unflatten(0, (2, 3))
    assert backbones.diversity(outputs)["lpips"] > 0
    assert backbones.diversity(outputs[:, :1].expand(-1, 3, -1, -1, -1))["lpips"] == pytest.approx(0, abs=1e-6)
