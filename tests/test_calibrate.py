"""Calibration of style encoder and mapping network, on random networks and noise."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stargan.commands import main
from stargan.inference.translator import Translator
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import Architecture, ModelConfig
from stargan.networks import Discriminator
from stargan.training.calibrate import calibrate
from stargan.training.data import DataError, Faces
from stargan.training.state import DISCRIMINATOR_FILE, load_discriminator, save_discriminator

DOMAINS = ("anime", "photo")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for domain in DOMAINS:
        (tmp_path / "faces" / domain).mkdir(parents=True)
        for index in range(80):
            noise = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            noise.resize((32, 32), Image.Resampling.BICUBIC).save(tmp_path / "faces" / domain / f"{index}.png")
    return tmp_path / "faces"


@pytest.fixture
def model() -> Model:
    """The style encoder's styles lie far beside the mapping network's."""
    torch.manual_seed(0)
    architecture = Architecture(32, base_channels=8, max_channels=16)
    model = Model.build(ModelConfig("mine", DOMAINS, architecture))
    for head in model.style_encoder.unshared:
        head.bias.add_(3.0)
    return model


def styles(model: Model, data: Path, domain: str) -> torch.Tensor:
    pictures = [Image.open(file).convert("RGB") for file in sorted((data / domain).iterdir())]
    return Translator(model, "cpu", "exact").reference_styles(pictures, domain)


def off(found: torch.Tensor, model: Model, domain: str) -> float:
    """The mean distance from the nearest of many styles of the mapping network."""
    codes = torch.randn(2000, model.config.architecture.latent_dim, generator=torch.Generator().manual_seed(5))
    index = model.config.domains.index(domain)
    return torch.cdist(found, model.mapping_network(codes, torch.full((2000,), index))).amin(dim=1).mean().item()


def test_styles_of_pictures_come_to_lie_among_those_of_the_mapping_network(model: Model, data: Path) -> None:
    faces = Faces(data, 32, torch.device("cpu"))
    before = {domain: styles(model, data, domain) for domain in DOMAINS}
    others = {name: p.clone() for name, p in model.style_encoder.named_parameters() if "unshared" not in name}
    generator = [p.clone() for p in model.generator.parameters()]
    first = calibrate(model, faces)
    for domain in DOMAINS:
        after = styles(model, data, domain)
        assert off(after, model, domain) < 0.1 * off(before[domain], model, domain)
        assert first[domain][1] < 0.1 * first[domain][0]
    assert all(torch.equal(p, others[name]) for name, p in model.style_encoder.named_parameters() if name in others)
    assert all(torch.equal(a, b) for a, b in zip(model.generator.parameters(), generator, strict=True))
    second = calibrate(model, faces)
    assert all(second[domain][0] < 0.1 * first[domain][0] for domain in DOMAINS)


@pytest.mark.parametrize("deviation", [0.1, 3.0])
def test_styles_of_seeds_are_spread_as_those_of_pictures(model: Model, data: Path, deviation: float) -> None:
    def latent(domain: str) -> torch.Tensor:
        codes = torch.randn(4000, model.config.architecture.latent_dim, generator=torch.Generator().manual_seed(5))
        return model.mapping_network(codes, torch.full((4000,), DOMAINS.index(domain)))

    # random networks hardly tell their inputs apart: these do
    for index, domain in enumerate(DOMAINS):
        for layer, found, wanted in (
            (model.style_encoder.unshared[index], styles(model, data, domain), deviation / 3),
            (model.mapping_network.unshared[index][-1], latent(domain), deviation),
        ):
            scale = wanted / found.std(dim=0).mean()
            layer.bias.copy_(scale * (layer.bias - found.mean(dim=0)))
            layer.weight.mul_(scale)
    before = {name: p.clone() for name, p in model.mapping_network.named_parameters()}
    calibrate(model, Faces(data, 32, torch.device("cpu")))
    changed = {name for name, p in model.mapping_network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {f"unshared.{index}.6.{kind}" for index in range(len(DOMAINS)) for kind in ("weight", "bias")}
    for domain in DOMAINS:
        found, wanted = latent(domain), styles(model, data, domain)
        assert wanted.var(dim=0).sum() == pytest.approx(64 * (deviation / 3) ** 2, rel=0.3)  # as far apart as before
        assert (found.mean(dim=0) - wanted.mean(dim=0)).norm() < 0.1 * torch.cov(wanted.T).trace().sqrt()
        assert (torch.cov(found.T) - torch.cov(wanted.T)).norm() < 0.1 * torch.cov(wanted.T).norm()


def test_a_monochrome_domain_is_fitted_in_luma(model: Model, data: Path) -> None:
    """As the translator reads its references."""
    model.config = replace(model.config, grayscale_domains=("anime",))
    seen = set()

    def look(_: object, given: tuple[torch.Tensor, torch.Tensor]) -> None:
        x, domain = given
        seen.add((int(domain[0]), bool((x == x[:, :1]).all())))

    model.style_encoder.register_forward_pre_hook(look)
    calibrate(model, Faces(data, 32, torch.device("cpu")))
    assert seen == {(0, True), (1, False)}  # anime, photo


def test_pictures_are_taken_as_often_as_training_drew_them(model: Model, data: Path) -> None:
    """Seeds were shared out among kinds of pictures by the same weights."""
    model.config = replace(model.config, training={"options": {"target_weights": {"anime": 9.0, "anime/1": 1e9}}})
    faces, seen = Faces(data, 32, torch.device("cpu")), []

    def look(_: object, given: tuple[torch.Tensor, torch.Tensor]) -> None:
        if given[1][0] == 0:
            seen.append(given[0])

    model.style_encoder.register_forward_pre_hook(look)
    calibrate(model, faces)
    names = [name.startswith("1") for name in faces.names[0]]
    wanted = faces.pictures[0][torch.tensor(names)].float() / 127.5 - 1
    assert sum(names) == 11
    assert torch.cdist(torch.cat(seen).flatten(1), wanted.flatten(1)).amin(dim=1).max() < 0.1


def test_the_discriminator_goes_with_a_calibrated_model(model: Model, data: Path, tmp_path: Path) -> None:
    """Another model's, in the output's folder, does not stay."""
    model.config = replace(model.config, training={"options": {"kinds": ["anime/1"]}})
    save_model(model, tmp_path / "mine")
    command = ["calibrate", str(tmp_path / "mine"), "--data", str(data), "--output", str(tmp_path / "better")]
    trained, other = Discriminator(32, 3, 8, 16), Discriminator(32, 2, 8, 16)
    save_discriminator(trained, tmp_path / "mine")
    assert main(command) == 0
    found = load_discriminator(tmp_path / "better", load_model(tmp_path / "better"), ["anime/1"])
    assert found is not None
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name].half().float())
    (tmp_path / "mine" / DISCRIMINATOR_FILE).unlink()
    save_discriminator(other, tmp_path / "better")
    assert main(command) == 0
    assert not (tmp_path / "better" / DISCRIMINATOR_FILE).exists()


def test_the_command_writes_a_model(
    model: Model, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(model, tmp_path / "mine")
    arguments = ["calibrate", str(tmp_path / "mine"), "--data", str(data), "--output", str(tmp_path / "better")]
    assert main(arguments) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in told] == list(DOMAINS)
    better = load_model(tmp_path / "better")
    assert better.config.training == {"calibrated": True}
    assert better.config.name == "better"
    for domain in DOMAINS:
        assert off(styles(better, data, domain), better, domain) < 0.1 * off(styles(model, data, domain), model, domain)


@pytest.mark.parametrize("left", [1, 2])
def test_pictures_that_are_too_few_or_alike_are_refused(model: Model, data: Path, left: int) -> None:
    first, *others = sorted((data / "photo").iterdir())
    for file in others[left - 1 :]:
        file.unlink()
    for file in others[: left - 1]:
        shutil.copy(first, file)
    with pytest.raises(DataError, match="The pictures of photo are too few, or too much alike, to calibrate with"):
        calibrate(model, Faces(data, 32, torch.device("cpu")))


def test_data_of_other_domains_is_refused(
    model: Model, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(data / "photo")
    with pytest.raises(DataError, match="The model's domains are anime, photo, those of the data anime"):
        calibrate(model, Faces(data, 32, torch.device("cpu")))
    save_model(model, tmp_path / "mine")
    arguments = ["calibrate", str(tmp_path / "mine"), "--data", str(data), "--output", str(tmp_path / "better")]
    assert main(arguments) == 2
    assert "The model's domains are anime, photo" in capsys.readouterr().err
    assert not (tmp_path / "better").exists()
    (tmp_path / "better").write_text("kept")
    assert main(arguments) == 2
    assert "better is a file: --output names the model's folder" in capsys.readouterr().err
