"""Means of models' weights."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stargan.commands import main
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import Architecture, ModelConfig, ModelError
from stargan.networks import Discriminator
from stargan.training.average import average
from stargan.training.state import DISCRIMINATOR_FILE, load_discriminator, save_discriminator

ARCHITECTURE = Architecture(32, base_channels=8, max_channels=16)


def model(seed: int, **settings: object) -> Model:
    torch.manual_seed(seed)
    config = ModelConfig(f"m{seed}", ("anime", "photo"), ARCHITECTURE, training={"iterations": 100 * seed})
    return Model.build(replace(config, **settings))


def weights(found: Model) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": p for part, net in found.networks().items() for name, p in net.state_dict().items()}


def test_the_mean_of_all_weights_in_proportion() -> None:
    models = [model(1), model(2), model(3)]
    before = [{name: p.clone() for name, p in weights(one).items()} for one in models]
    found = average(models, [2, 1, 1])
    for name, p in weights(found).items():
        assert torch.allclose(p, before[0][name] / 2 + before[1][name] / 4 + before[2][name] / 4, atol=1e-6)
    for one, was in zip(models, before, strict=True):
        assert all(torch.equal(p, was[name]) for name, p in weights(one).items())
    assert found.config.training["mean_of"] == [
        "m1, 100 iterations: 0.5",
        "m2, 200 iterations: 0.25",
        "m3, 300 iterations: 0.25",
    ]
    assert found.config.training["iterations"] == 300
    same = average(models[:1])
    assert all(torch.equal(p, before[0][name]) for name, p in weights(same).items())


@pytest.mark.parametrize(
    "shares", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")], [1.0] * 3]
)
def test_weights_that_cannot_be(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="2 models have as many weights, each over 0, not"):
        average([model(1), model(2)], shares)


def test_the_mean_is_not_calibrated_or_refined_where_a_part_of_it_was() -> None:
    found = average(
        [
            model(1),
            model(
                2,
                training={"iterations": 7, "calibrated": True, "refined": {"anime": {}}, "finished": {}, "matched": []},
            ),
        ]
    )
    assert found.config.training == {"iterations": 7, "mean_of": ["m1, 100 iterations: 0.5", "m2, 7 iterations: 0.5"]}
    both = {"calibrated": True, "finished": [{"steps": 4}]}
    found = average([model(1, training=both), model(2, training=both | {"refined": {"anime": {}}})])
    assert {name: fact for name, fact in found.config.training.items() if name != "mean_of"} == both


def test_the_mean_has_the_licences_of_all() -> None:
    models = [model(number, licence=licence) for number, licence in enumerate(("CC BY-NC 4.0", "", "MIT", "MIT"))]
    assert average(models).config.licence == "CC BY-NC 4.0; MIT"
    assert average(models[:2]).config.licence == "CC BY-NC 4.0"
    alike = [model(number, licence=licence) for number, licence in enumerate(("AGPL-3.0", "GPL-3.0"))]
    assert average(alike).config.licence == "AGPL-3.0; GPL-3.0"
    assert average([average(models), models[2]]).config.licence == "CC BY-NC 4.0; MIT"


@pytest.mark.parametrize(
    "settings",
    [
        {"domains": ("anime", "selfie")},
        {"grayscale_domains": ("anime",)},
        {"architecture": Architecture(32, base_channels=4, max_channels=16)},
    ],
)
def test_models_that_differ_have_no_mean(settings: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="m1 and m2 have other architectures, domains or framings"):
        average([model(1, **settings), model(2)])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean has the last model's discriminator, and no other."""
    for number in (1, 2):
        save_model(model(number), tmp_path / str(number))
    discriminator = Discriminator(32, 2, 8, 16)
    save_discriminator(discriminator, tmp_path / "2")
    folders = [str(tmp_path / "1"), str(tmp_path / "2")]
    out = tmp_path / "mean"
    assert main(["average", *folders, "--weights", "1", "3", "--output", str(out)]) == 0
    assert "m1, 100 iterations: 0.25; m2, 200 iterations: 0.75" in capsys.readouterr().out
    found = load_model(out)
    assert found.config.name == "mean"
    expected = weights(average([load_model(folder) for folder in folders], [1, 3]))
    assert all(torch.allclose(p, expected[name], atol=1e-3) for name, p in weights(found).items())
    kept = load_discriminator(out, found)
    assert kept is not None
    assert torch.equal(kept.main[0].weight, discriminator.main[0].weight.half().float())
    assert main(["average", *reversed(folders), "--output", str(out)]) == 0
    assert not (out / DISCRIMINATOR_FILE).exists()
    kept_file = (out / "model.safetensors").read_bytes()
    (tmp_path / "2" / DISCRIMINATOR_FILE).write_bytes(b"half of a discrim")
    assert main(["average", *folders, "--output", str(out)]) == 2  # and nothing is written
    assert "is broken, or not the discriminator of this model" in capsys.readouterr().err
    assert (out / "model.safetensors").read_bytes() == kept_file
    (tmp_path / "2" / DISCRIMINATOR_FILE).unlink()
    assert main(["average", *folders, "--weights", "1", "--output", str(out)]) == 2
    assert "2 models have as many weights" in capsys.readouterr().err

    command = [sys.executable, "-m", "stargan", "average", *folders, "--output", str(out)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""  # nothing of how it is written
