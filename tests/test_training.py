"""Training: options, one iteration, and what may happen to a run: stops, resuming, several processes, divergence."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import report
from PIL import Image
from test_checkpoint import widen_header
from torch.utils._python_dispatch import TorchDispatchMode

from stargan.commands import main
from stargan.inference.translator import Translator
from stargan.models.checkpoint import Model, load_model, read_config, save_model
from stargan.models.config import Architecture, ModelConfig, ModelError
from stargan.networks import Discriminator, Generator, mean_style
from stargan.pictures.tensors import to_tensor
from stargan.training import loop
from stargan.training import run as entry
from stargan.training import state as states
from stargan.training import trainer as training
from stargan.training.augment import diff_augment, jpeg, luma_where, misalign, photograph, to_luma, translation
from stargan.training.config import PRESETS, ConfigError, TrainConfig, differences, from_state, with_options
from stargan.training.data import DataError, Faces
from stargan.training.grow import grown_name, grows_from, halved, new_level
from stargan.training.losses import FeatureMeans, Sources, Targets, Thumbnails, grid_penalty, spike_penalty
from stargan.training.run import train
from stargan.training.sheets import SEEDS, SOURCES, TRUNCATIONS, fixed_faces, write_sheets
from stargan.training.trainer import Trainer, TrainingError

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
TINY = PRESETS["tiny"]
# all that draws random numbers, all that changes what the discriminator sees, and all that is remembered
RANDOM: dict[str, Any] = {
    "lambda_fm": 0.2,
    "lambda_sw": 20.0,
    "kinds": ("photo/0",),
    "diff_augment": ("color", "translation", "cutout"),
    "grayscale_domains": ("anime",),
    "photo_augment": ("photo",),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these run no faster in several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` and ``val`` with the domains anime and photo: smooth noise."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for part, count in (("train", 9), ("val", SOURCES + 2)):
        for domain in ("anime", "photo"):
            folder = root / part / domain
            folder.mkdir(parents=True)
            for index in range(count):
                noise = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
                noise.resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def faces(data: Path) -> Faces:
    return Faces(data / "train", 32, CPU)


def states_equal(a: object, b: object) -> bool:
    """Bit for bit, whatever they are nested in."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(states_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(states_equal, a, b))
    return a == b


def saved(run: Path) -> dict:
    state = states.load_state(run)
    assert state is not None
    return state


def options(**changed: Any) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: replace(config, **changed)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# options


@pytest.mark.parametrize(
    ("option", "name", "value"),
    [
        ("--lambda-ds 2", "lambda_ds", 2.0),
        ("--bf16", "bf16", True),
        ("--diff-augment color cutout", "diff_augment", ("color", "cutout")),
        ("--grayscale-domains anime", "grayscale_domains", ("anime",)),
        ("--target-weights anime 3 anime/a 2", "target_weights", {"anime": 3.0, "anime/a": 2.0}),
        ("--source-weights female/n 3", "source_weights", {"female/n": 3.0}),
        ("--betas 0.5 0.9", "betas", (0.5, 0.9)),
        ("--framing None", "framing", None),
        ("--phases alternate", "phases", "alternate"),
        ("--init anime-128", "init", "anime-128"),
    ],
)
def test_an_option_by_name(option: str, name: str, value: object) -> None:
    changed = with_options(TINY, option.split())
    assert getattr(changed, name) == value
    assert replace(changed, **{name: getattr(TINY, name)}) == TINY


def test_options_can_be_taken_back() -> None:
    config = PRESETS["anime-128-cpu"]
    changed = with_options(
        config, ["--no-bf16", "--photo-augment", "--target-weights", "None", "--source-weights", "anime", "2"]
    )
    expected = {"bf16": False, "photo_augment": (), "target_weights": None, "source_weights": {"anime": 2.0}}
    assert changed == replace(config, **expected)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"architecture": replace(TINY.architecture, high_pass_weight=1.0)}, "Training has no landmark masks"),
        ({"architecture": replace(TINY.architecture, finish_channels=4)}, "A finisher is made by finish"),
        ({"target_weights": {"anime": -1.0}}, "target_weights must be 0 or more"),
        ({"source_weights": {"anime": -1.0}}, "source_weights must be 0 or more"),
        ({"target_weights": {"anime": math.nan}}, "target_weights must be 0 or more, and finite"),
        ({"source_weights": {"anime": math.inf}}, "source_weights must be 0 or more, and finite"),
        ({"lambda_reg": -5.0}, "lambda_reg must be 0 or more, and finite, not -5.0"),
        ({"lambda_ds": math.inf}, "lambda_ds must be 0 or more, and finite, not inf"),
        ({"ds_iterations": -5}, "ds_iterations must be 0 or more, and finite, not -5"),
        ({"ema_decay": math.nan}, "ema_decay must be 0 or more, and finite, not nan"),
        ({"ema_decay": 2.0}, "ema_decay must be 0 to 1, not 2.0"),
        ({"random_crop": 7.0}, "random_crop must be 0 to 1, not 7.0"),
        ({"betas": (0.0, 1.0)}, "betas must be 0 or more, and under 1, not (0.0, 1.0)"),
        ({"seed": 2**64}, "seed must be under 2**63"),
        ({"iterations": 0}, "iterations must be 1 or more, not 0"),
        ({"grow_steps": 0}, "grow_steps must be 1 or more, not 0"),
        ({"phases": "sometimes"}, "both or alternate, not 'sometimes'"),
        ({"reals": "fakes"}, "sources or targets, not 'fakes'"),
        ({"diff_augment": ("colour",)}, "policies color, translation, cutout, not 'colour'"),
    ],
)
def test_what_cannot_be_trained_is_refused(option: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        replace(TINY, **option)


def test_options_of_the_architecture() -> None:
    changed = with_options(TINY, ["--architecture.image-size", "64", "--architecture.base-channels", "None"])
    assert changed.architecture == replace(TINY.architecture, image_size=64, base_channels=None)
    assert differences(TINY, changed) == ["image_size: 32 → 64", "base_channels: 8 → None"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--lambda-dss 1", ["--lambda-dss", "--lambda-ds"]),
        ("--lambda-ds much", ["--lambda-ds", "much"]),
        ("--bf16 1", ["1"]),
        ("--iterations None", ["--iterations", "None"]),
        ("--iterations 0", ["iterations", "1 or more", "not 0"]),
        ("--phases sometimes", ["sometimes", "alternate"]),
        ("--architecture.image-size 100", ["image size", "100"]),
        ("lambda_ds=2", ["lambda_ds=2"]),
    ],
)
def test_an_option_that_cannot_be(
    option: str, words: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["train", "--preset", "tiny", "--data", str(data / "train"), "--run", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as stop:
        main([*command, *option.split()])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_a_preset_that_is_not_there_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "--preset", "anime-1", "--data", str(data), "--run", str(tmp_path / "run")]) == 2
    assert "There is no preset 'anime-1': choose one of anime-128, anime-64" in capsys.readouterr().err


def test_help_explains_every_option_and_shows_the_presets_values(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--preset", "anime-64", "--help"])
    assert stop.value.code == 0
    told = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "--run-folder" in told
    assert "weight of the diversity term; falls linearly to 0 over ``ds_iterations``. (default: 2.0)" in told
    for field in fields(TrainConfig):
        if field.name != "architecture":
            flag = f"--{field.name.replace('_', '-')}"
            found = re.search(rf"{flag}[ ,][^(]*?([a-z][^-]+)\(", told)
            assert found, field.name
            assert len(found[1]) > 5, field.name
    assert "--architecture.base-channels" in told


def test_options_need_tyro(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tyro", None)
    command = ["train", "--preset", "tiny", "--data", "data", "--run", str(tmp_path / "run"), "--iterations", "5"]
    assert main(command) == 2
    assert "Options of training need the package tyro" in capsys.readouterr().err


def test_other_commands_still_refuse_what_they_do_not_know(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sheet", "m", "--validation", "v", "--output", "o", "--lambda-ds", "2"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --lambda-ds 2" in capsys.readouterr().err


def test_every_preset_survives_being_saved() -> None:
    for config in PRESETS.values():
        assert from_state(asdict(config)) == config


def test_unknown_domains_in_options_are_refused(faces: Faces) -> None:
    for options in ({"grayscale_domains": ("manga",)}, {"target_weights": {"manga": 2.0}}):
        with pytest.raises(TrainingError, match=r"'manga'; the data has anime, photo"):
            Trainer(replace(TINY, **options), faces, CPU)


def test_what_is_drawn_must_be_shown_as_real(faces: Faces) -> None:
    """Sources are what is real, unless reals says otherwise."""
    for name, kinds in (("anime", ()), ("anime/0", ("anime/0",))):
        config = replace(TINY, source_weights={name: 0.0}, kinds=kinds)
        with pytest.raises(TrainingError, match=rf"Pictures of {name} are to be drawn, but .* add --reals targets"):
            Trainer(config, faces, CPU)
        Trainer(replace(config, reals="targets"), faces, CPU).step()
    never = {"anime": 0.0, "photo": 1.0}
    Trainer(replace(TINY, source_weights={"anime": 0.0}, target_weights=never), faces, CPU).step()


def test_weights_may_be_whole_numbers_and_name_only_what_is_left_out(faces: Faces) -> None:
    """What is not named weighs 1."""
    Trainer(replace(TINY, target_weights={"anime": 3, "photo": 1}, source_weights={"photo/1": 2}), faces, CPU).step()
    trainer = Trainer(replace(TINY, target_weights={"anime": 0}), faces, CPU)
    assert trainer.draw_targets("latent").domain.tolist() == [1] * TINY.batch_size
    with pytest.raises(DataError, match="All domains have the weight 0"):
        Trainer(replace(TINY, target_weights={"anime": 0, "photo": 0}), faces, CPU)


# one iteration


def test_the_diversity_weight_falls_linearly_to_zero(faces: Faces) -> None:
    trainer = Trainer(replace(TINY, lambda_ds=2.0, ds_iterations=10), faces, CPU)
    found = []
    for trainer.iteration in (0, 5, 10, 11):
        found.append(trainer.lambda_ds)
    assert found == [2.0, 1.0, 0.0, 0.0]


def test_only_what_steps_gets_gradients(faces: Faces) -> None:
    trainer = Trainer(TINY, faces, CPU)
    (sources, _), targets = trainer.draw_sources(), trainer.draw_targets("reference")
    with trainer.stepping("generator"):
        loss, _ = training.generator_loss(
            trainer.nets, sources, targets, {"sty": 1, "ds": 1, "cyc": 1, "grid": 0}, trainer.seen
        )
        loss.backward()
        with_gradients = {name for name, net in vars(trainer.nets).items() if next(net.parameters()).grad is not None}
    assert with_gradients == {"generator"}
    assert all(p.grad is None for net in vars(trainer.nets).values() for p in net.parameters())


@pytest.mark.parametrize("mode", ["latent", "reference"])
def test_mapping_network_and_style_encoder_step_in_the_latent_phase_only(faces: Faces, mode: str) -> None:
    trainer = Trainer(TINY, faces, CPU)
    before = {name: [p.clone() for p in net.parameters()] for name, net in vars(trainer.nets).items()}
    sources, reals = trainer.draw_sources()
    trainer.update(sources, {mode: trainer.draw_targets(mode)}, reals)
    moved = {
        name
        for name, net in vars(trainer.nets).items()
        if any(not torch.equal(p, old) for p, old in zip(net.parameters(), before[name], strict=True))
    }
    both = {"generator", "discriminator"}
    assert moved == (both | {"mapping_network", "style_encoder"} if mode == "latent" else both)


def test_the_sources_encoder_runs_once_for_both_fakes(faces: Faces) -> None:
    trainer = Trainer(TINY, faces, CPU)
    seen, runs = [], trainer.nets.generator.encoder

    def counted(x: torch.Tensor, masks: None = None) -> tuple:
        seen.append(x)
        return runs(x, masks)

    trainer.nets.generator.encoder = counted
    sources, _ = trainer.draw_sources()
    trainer.update_generator(sources, trainer.draw_targets("latent"), ("generator",))
    assert len(seen) == 2  # the sources; the fakes, to restore the sources
    assert sum(x is sources.x for x in seen) == 1


def test_spikes_in_the_features_cost_and_are_unlearned(faces: Faces) -> None:
    trainer = Trainer(TINY, faces, CPU)
    generator = trainer.nets.generator
    x, style = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 64)
    assert spike_penalty(generator, x, style).item() == 0
    with torch.no_grad():  # one spot of a picture answers a hundredfold
        generator.from_rgb.weight.mul_(0).add_(1)
    x[:, :, 5, 5] = 100
    before = spike_penalty(generator, x, style)
    assert before.item() > 1
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        spike_penalty(generator, x, style).backward()
        optimizer.step()
    assert spike_penalty(generator, x, style).item() < 0.8 * before.item()
    spiky = Trainer(replace(TINY, lambda_spikes=0.5), faces, CPU)
    terms = spiky.step()
    assert {"g_latent/spikes", "g_reference/spikes"} <= terms.keys()
    assert "g_latent/spikes" not in trainer.step()


def test_a_grid_costs_and_lines_and_light_do_not(faces: Faces) -> None:
    columns = torch.arange(32)
    grid = (1 - 2 * (columns % 2)).float().expand(1, 3, 32, 32)
    assert grid_penalty(grid).item() == pytest.approx(1)  # across the rows; along them, nothing
    assert grid_penalty(grid.transpose(2, 3)).item() == pytest.approx(1)
    assert grid_penalty(grid * grid.transpose(2, 3)).item() == pytest.approx(1)
    light = torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)
    line = torch.where(columns == 9, -1.0, 1.0).expand(1, 3, 32, 32)
    assert grid_penalty(light).item() < 1e-9
    assert grid_penalty(line).item() < 0.02
    trainer = Trainer(replace(TINY, lambda_grid=200.0), faces, CPU)
    assert {"g_latent/grid", "g_reference/grid"} <= trainer.step().keys()
    assert "g_latent/grid" not in Trainer(TINY, faces, CPU).step()


def test_what_is_known_of_features_grows_to_their_means() -> None:
    """Of two domains that come up unequally often; of the third there are no drawings yet."""
    means = FeatureMeans(3, 4, CPU)
    random = torch.Generator().manual_seed(0)
    real, fake = torch.randn(3, 4, generator=random), torch.randn(3, 4, generator=random)

    def batch(centre: torch.Tensor, domain: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.tensor(domain)
        return centre[at] + 0.1 * torch.randn(len(at), 4, generator=random), at

    means.update(batch(real, [0, 1, 2, 0]), batch(fake, [0, 0, 0, 1]))
    assert means.shift().abs().max() < 0.02
    for _ in range(1500):
        means.update(batch(real, [0, 1, 2, 0]), batch(fake, [0, 0, 0, 1]))
    expected = fake - real
    expected[2] = 0
    assert torch.allclose(means.shift(), expected, atol=0.2)
    assert torch.allclose(means.shift()[0], expected[0], atol=0.03)


def test_feature_matching_moves_drawings_against_their_mean_shift(faces: Faces) -> None:
    rest = {"lambda_sty": 0.0, "lambda_ds": 0.0, "lambda_cyc": 0.0, "learning_rate": 1e-3}
    trainer = Trainer(replace(TINY, lambda_fm=1e4, **rest), faces, CPU)
    sources, reals = trainer.draw_sources()
    targets = trainer.draw_targets("reference")
    trainer.update_discriminator(reals, sources, targets, 1.0)
    for known in (trainer.feature_means.known_real, trainer.feature_means.known_fake):
        known.fill_(1.0)
    shift = trainer.feature_means.shift()[targets.domain]

    def off() -> float:
        with torch.no_grad():
            x = trainer.nets.generator(sources.x, targets.style(targets.first, targets.domain))
            return (trainer.nets.discriminator.features(x) * shift).sum().item()

    before = off()
    terms = trainer.update_generator(sources, targets, ("generator",))
    assert off() < before
    assert terms["fm"].item() == pytest.approx(shift.square().sum(dim=1).mean().item())
    assert "g_latent/fm" not in Trainer(TINY, faces, CPU).step()


def test_the_last_thumbnails_of_each_domain_are_kept() -> None:
    kept = Thumbnails(2, CPU)
    random = torch.Generator().manual_seed(0)
    shown: dict[int, list[float]] = {0: [], 1: []}
    for number in range(300):
        domain = torch.randint(2, (8,), generator=random)
        x = (number + torch.arange(8) / 8)[:, None, None, None].expand(-1, 3, 32, 32)
        kept.update((x, domain), (-x, domain))
        for value, at in zip(x[:, 0, 0, 0].tolist(), domain.tolist(), strict=True):
            shown[at].append(value)
    for domain, values in shown.items():
        assert kept.count_real[domain] == kept.count_fake[domain] == len(values) > Thumbnails.REAL
        assert kept.real[domain].mean(dim=(1, 2, 3)).sort().values.tolist() == values[-Thumbnails.REAL :]
        assert (-kept.fake[domain]).mean(dim=(1, 2, 3)).sort().values.tolist() == values[-Thumbnails.FAKE :]


def _thumbnails(random: torch.Generator, real: torch.Tensor, fake: torch.Tensor) -> Thumbnails:
    """Of two domains, the second hardly seen: noise about these pictures, ``(3, 32, 32)``."""
    kept = Thumbnails(2, CPU)

    def about(centre: torch.Tensor, count: int) -> torch.Tensor:
        return centre + 0.1 * torch.randn(count, 1, 1, 1, generator=random)

    for domain, batches in ((0, Thumbnails.REAL // 64), (1, 1)):
        of = torch.full((64,), domain)
        for _ in range(batches):
            kept.update((about(real, 64), of), (about(fake, 64), of))
    return kept


def test_thumbnails_draw_pictures_to_where_real_ones_lie() -> None:
    """The lower half of translated pictures is too bright, and they are as different among themselves as real ones."""
    random = torch.Generator().manual_seed(0)
    real = torch.full((3, 32, 32), -0.2)
    fake = real.clone()
    fake[:, 16:] += 0.6
    kept = _thumbnails(random, real, fake)
    noise = 0.1 * torch.randn(64, 1, 1, 1, generator=random)
    x = (fake + noise).requires_grad_()
    of_first, of_second = (torch.full((64,), domain) for domain in (0, 1))
    assert kept.distance(x, of_second, random) == 0  # too few are known
    for _ in range(20):
        kept.distance(x, of_first, random).backward()
    assert x.grad is not None
    up, down = (part.mean() for part in x.grad.split(16, dim=2))
    assert down > 10 * up.abs()
    before = torch.stack([kept.distance(x, of_first, random) for _ in range(20)]).mean()
    kept = _thumbnails(random, real, real)
    after = torch.stack([kept.distance(real + noise, of_first, random) for _ in range(20)]).mean()
    assert after < 0.01 * before


def test_thumbnails_leave_pictures_their_ranks() -> None:
    """Of two translated pictures, the brighter stays it: the aims are those of optimal transport on each projection."""
    random = torch.Generator().manual_seed(0)
    kept = _thumbnails(random, torch.full((3, 32, 32), 0.5), torch.zeros(3, 32, 32))
    x = torch.tensor([-0.15, 0.0, 0.15])[:, None, None, None].expand(3, 3, 32, 32).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(kept.distance(x, torch.zeros(3, dtype=torch.long), random), x)
    moves = gradient.mean(dim=(1, 2, 3))
    assert torch.allclose(moves, moves.mean(), rtol=0.15)
    assert moves.mean() < 0


def test_thumbnails_move_what_is_drawn(faces: Faces) -> None:
    rest = {"lambda_sty": 0.0, "lambda_ds": 0.0, "lambda_cyc": 0.0, "learning_rate": 1e-3}
    trainer = Trainer(replace(TINY, lambda_sw=1e6, **rest), faces, CPU)
    sources, reals = trainer.draw_sources()
    targets = trainer.draw_targets("latent")
    kept = trainer.thumbnails["latent"]
    trainer.update_discriminator(reals, sources, targets, 0.0)
    assert kept.count_fake.sum() == kept.count_real.sum() == len(sources.x)
    for count in (kept.count_real, kept.count_fake):
        count.fill_(Thumbnails.REAL)

    def off() -> float:
        with torch.no_grad():
            x = trainer.nets.generator(sources.x, targets.style(targets.first, targets.domain))
            random = torch.Generator().manual_seed(0)
            return sum(kept.distance(x, targets.domain, random).item() for _ in range(50))

    before = off()
    terms = trainer.update_generator(sources, targets, ("generator",))
    assert off() < before
    assert terms["sw"] > 0
    assert "g_latent/sw" not in Trainer(TINY, faces, CPU).step()


def test_latent_codes_are_shared_out_among_kinds_as_pictures_are(data: Path) -> None:
    """Of nine pictures, three are of two kinds; ``anime/1`` weighs six times as much, so that it is half of all."""
    config = replace(TINY, kinds=("anime/0", "anime/1"), target_weights={"anime/1": 7.0}, batch_size=64)
    trainer = Trainer(config, Faces(data / "train", 32, CPU), CPU)
    kinds, references, domains = [], [], []
    for _ in range(30):
        targets = trainer.draw_targets("latent")
        kinds.append(targets.kind)
        domains.append(targets.domain)
        # the first number alone decides
        other = torch.cat([targets.first[:, :1], torch.randn_like(targets.first[:, 1:])], dim=1)
        assert torch.equal(trainer.kinds_of(other, targets.domain), targets.kind)
        targets = trainer.draw_targets("reference")
        references.append(targets.kind[targets.domain == 0])
    kind, domain, reference = torch.cat(kinds), torch.cat(domains), torch.cat(references)
    assert (kind[domain == 1] == 1).all()
    for found in (kind[domain == 0], reference):
        shares = torch.bincount(found, minlength=4) / len(found)
        assert shares.tolist() == pytest.approx([7 / 15, 0, 1 / 15, 7 / 15], abs=0.05)
    ends = torch.full((2, 16), 9.0) * torch.tensor([[-1.0], [1.0]])
    assert trainer.kinds_of(ends, torch.zeros(2, dtype=torch.int64)).tolist() == [0, 3]
    assert trainer.kinds_of(ends, torch.ones(2, dtype=torch.int64)).tolist() == [1, 1]


def test_the_discriminator_judges_by_kind(data: Path) -> None:
    """Each kind's output learns from its own pictures and drawings alone."""
    config = replace(TINY, kinds=("anime/0",), weight_decay=0.0)
    trainer = Trainer(config, Faces(data / "train", 32, CPU), CPU)
    domain = torch.zeros(4, dtype=torch.int64)
    x = torch.zeros(4, 3, 32, 32)
    last = trainer.nets.discriminator.main[-1]
    assert last.weight.shape[0] == 3
    for kind in (0, 2):
        before = last.weight.detach().clone()
        own = torch.full((4,), kind)
        targets = Targets(domain, torch.randn(4, 16), torch.randn(4, 16), trainer.nets.mapping_network, own)
        trainer.update_discriminator(Sources(x, domain, kind=own), Sources(x, domain), targets, 1.0)
        moved = (last.weight.detach() != before).flatten(1).any(dim=1).tolist()
        assert moved[kind]
        assert not moved[2 - kind]
        assert not moved[1]


def test_a_discriminator_learns_a_new_kind_from_its_domain(small: Path, data: Path, tmp_path: Path) -> None:
    """And takes one that it knows along to another run, wherever it stands there."""
    faces = Faces(data / "train", 32, CPU)
    known = load_model(small), ("photo/1", "anime/0")
    discriminator = states.load_discriminator(small, *known)
    plain = states.load_discriminator(small, load_model(small))
    assert discriminator is not None
    assert plain is not None
    assert torch.equal(discriminator.main[-1].weight, plain.main[-1].weight[[0, 1, 1, 0]])
    start = options(init=str(small), kinds=("photo/1", "anime/0"), iterations=4)
    train(tmp_path, data / "train", preset="tiny", change=start, device="cpu")
    last = f"main.{len(discriminator.main) - 1}.weight"
    trained = saved(tmp_path)["networks"]["discriminator"][last].half().float()
    assert trained.shape[0] == 4
    assert not torch.equal(trained[0], trained[3])
    trainer = Trainer(replace(TINY, kinds=("anime/0",)), faces, CPU)
    states.start_from(trainer, tmp_path / "snapshots" / "000004")
    assert torch.equal(trainer.nets.discriminator.main[-1].weight, trained[[0, 1, 3]])
    with pytest.raises(TrainingError, match=r"A run's kinds cannot change \(photo/1, anime/0\)"):
        train(tmp_path, data / "train", change=options(kinds=()), device="cpu")


def test_a_finisher_stays_behind(faces: Faces, tmp_path: Path) -> None:
    finished = replace(TINY.architecture, finish_channels=4)
    model = Model.build(ModelConfig("done", faces.domains, finished, TINY.framing))
    save_model(model, tmp_path, torch.float32)
    trainer = Trainer(replace(TINY, discriminator_warmup=2), faces, CPU)
    states.start_from(trainer, tmp_path)
    assert trainer.nets.generator.finish is None
    model.generator.finish = None
    assert states_equal(dict(trainer.nets.generator.state_dict()), dict(model.generator.state_dict()))
    assert states.as_model(trainer, "on").config.architecture.finish_channels == 0


def test_the_average_follows_slowly(faces: Faces) -> None:
    trainer = Trainer(TINY, faces, CPU)
    start = next(trainer.nets.generator.parameters()).detach().clone()
    trainer.step()
    now, average = (next(model.parameters()) for model in (trainer.nets.generator, trainer.average.generator))
    assert torch.allclose(average, start + (now - start) * 0.001, atol=1e-9)
    assert not torch.equal(average, start)


class _Synchronisations(TorchDispatchMode):
    """Notes every operation that on a GPU would make the program wait: values read back, or brought over from Python."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "lift_fresh", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name.startswith("index") and any(
            t is not None and t.dtype == torch.bool for part in args if isinstance(part, list | tuple) for t in part
        )
        if name.rstrip("_") in self.READS or masks:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum()),
        lambda x: x[x > 0],
        lambda x: x.new_tensor([1.0, 2.0]),
        lambda x: x + torch.tensor([1.0]),
        lambda x: torch.where(x > 0),
    ],
)
def test_what_waits_for_the_device_is_noticed(wait: Callable[[torch.Tensor], object]) -> None:
    with _Synchronisations() as watched:
        wait(torch.ones(3))
    assert watched.found


@pytest.mark.parametrize("phases", ["both", "alternate"])
def test_nothing_in_a_step_waits_for_the_device(faces: Faces, phases: str) -> None:
    trainer = Trainer(
        replace(
            TINY, phases=phases, **RANDOM, bf16=True, reals="targets", source_weights={"photo": 2.0, "photo/1": 3.0}
        ),
        faces,
        CPU,
    )
    trainer.step()  # optimisers make their state at the first step
    with _Synchronisations() as watched:
        trainer.step()
    assert watched.found == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_in_a_step_waits_for_the_gpu(data: Path) -> None:
    device = torch.device("cuda")
    config = replace(TINY, **RANDOM, bf16=True, channels_last=True)
    trainer = Trainer(config, Faces(data / "train", 32, device), device)
    trainer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = trainer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.read(terms)


# growing


LARGE = replace(TINY, architecture=replace(TINY.architecture, image_size=64, base_channels=4), grow_steps=150)


@pytest.fixture(scope="module")
def small(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of 32 px, base width 8, with its discriminator."""
    run = tmp_path_factory.mktemp("small")
    train(run, data / "train", preset="tiny", device="cpu")
    return run / "snapshots" / "000004"


@pytest.fixture
def without_discriminator(small: Path, tmp_path: Path) -> Path:
    shutil.copytree(small, tmp_path / "bare")
    (tmp_path / "bare" / states.DISCRIMINATOR_FILE).unlink()
    return tmp_path / "bare"


def test_a_discriminators_header_is_bounded(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path / "wide")
    widen_header(small / states.DISCRIMINATOR_FILE, tmp_path / "wide" / states.DISCRIMINATOR_FILE)
    with pytest.raises(TrainingError, match="header cannot have"):
        states.load_discriminator(tmp_path / "wide", load_model(small))


def untouched(name: str, net: torch.nn.Module, old: torch.nn.Module) -> None:
    """Every inner tensor of the large network is the small one's; what is left is the new level."""
    state, seen = net.state_dict(), set()
    for key, tensor in old.state_dict().items():
        place = grown_name(name, key)
        if place is not None:
            assert torch.equal(state[place], tensor), f"{name}: {key} → {place}"
            seen.add(place)
    assert set(state) - seen == {key for key, _ in new_level(name, net)}


def difference(small: Model, generator: Generator, faces: Faces) -> float:
    """Of drawings to the small model's, enlarged, in the first domain's mean style."""
    x, _ = faces.sample(torch.arange(12) % 2, torch.Generator().manual_seed(5))
    style = mean_style(small.mapping_network, 0).expand(len(x), -1)
    with torch.no_grad():
        wanted = torch.nn.functional.interpolate(
            small.generator(halved(x), style), scale_factor=2, mode="bicubic", align_corners=False
        )
        return (generator(x, style) - wanted).abs().mean().item()


@pytest.fixture(scope="module")
def large_faces(data: Path) -> Faces:
    return Faces(data / "train", 64, CPU)


@pytest.mark.parametrize("with_discriminator", [True, False])
def test_a_grown_model_holds_the_small_one_and_draws_like_it(
    small: Path, without_discriminator: Path, large_faces: Faces, with_discriminator: bool
) -> None:
    folder = small if with_discriminator else without_discriminator
    model, discriminator = load_model(folder), states.load_discriminator(small, load_model(small))
    trainer = Trainer(replace(LARGE, grow_steps=1), large_faces, CPU)
    fresh = dict(trainer.nets.discriminator.state_dict())
    fresh = {name: tensor.clone() for name, tensor in fresh.items()}
    states.start_from(trainer, folder)
    before = difference(model, trainer.nets.generator, large_faces)

    trainer = Trainer(LARGE if with_discriminator else replace(LARGE, grow_steps=1), large_faces, CPU)
    states.start_from(trainer, folder)
    for name, old in model.networks().items():
        untouched(name, getattr(trainer.nets, name), old)
        assert states_equal(
            dict(getattr(trainer.average, name).state_dict()), dict(getattr(trainer.nets, name).state_dict())
        )
    if with_discriminator:
        untouched("discriminator", trainer.nets.discriminator, discriminator)
        assert difference(model, trainer.nets.generator, large_faces) < 0.8 * before
    else:
        assert states_equal(fresh, dict(trainer.nets.discriminator.state_dict()))
    assert all(p.requires_grad and p.grad is None for net in vars(trainer.nets).values() for p in net.parameters())


def test_published_widths_grow_into_each_other() -> None:
    """They are written as None, and halve with the side."""
    assert grows_from(Architecture(256), Architecture(128))
    assert grows_from(Architecture(256, base_channels=64), Architecture(128))
    assert grows_from(PRESETS["anime-128-cpu"].architecture, PRESETS["anime-64"].architecture)
    for large, less in (
        (Architecture(256), Architecture(64)),
        (Architecture(128), Architecture(128)),
        (Architecture(128), Architecture(256)),
        (Architecture(256, base_channels=32), Architecture(128)),
        (Architecture(256), Architecture(128, max_channels=256)),
        (Architecture(256), Architecture(128, style_dim=32)),
        (Architecture(256, high_pass_weight=1.0), Architecture(128, high_pass_weight=1.0)),
    ):
        assert not grows_from(large, less)


def test_what_does_not_fit_is_not_grown(small: Path, large_faces: Faces, tmp_path: Path) -> None:
    renamed = load_model(small)
    renamed.config = replace(renamed.config, domains=("ink", "photo"))
    save_model(renamed, tmp_path / "renamed")
    states.save_discriminator(Discriminator(32, 2, 8, 16), tmp_path / "renamed")
    with pytest.raises(TrainingError, match="has the domains ink, photo"):
        states.start_from(Trainer(replace(LARGE, kinds=("anime/0",)), large_faces, CPU), tmp_path / "renamed")
    wide = replace(LARGE, architecture=replace(LARGE.architecture, base_channels=8))
    with pytest.raises(TrainingError, match=r"cannot start from there.*half the side and twice the base width"):
        states.start_from(Trainer(wide, large_faces, CPU), small)
    for name, content in (("cut", (small / states.DISCRIMINATOR_FILE).read_bytes()[:1000]), ("text", b"text")):
        shutil.copytree(small, tmp_path / name)
        (tmp_path / name / states.DISCRIMINATOR_FILE).write_bytes(content)
        with pytest.raises(TrainingError, match=r"discriminator\.safetensors is broken"):
            states.start_from(Trainer(LARGE, large_faces, CPU), tmp_path / name)
    shutil.copytree(small, tmp_path / "other")
    for other in (Discriminator(64, 2, 8, 16), Discriminator(32, 3, 8, 16)):
        states.save_discriminator(other, tmp_path / "other")
        with pytest.raises(TrainingError, match="not the discriminator of this model"):
            states.start_from(Trainer(LARGE, large_faces, CPU), tmp_path / "other")


def test_a_discriminator_travels_with_a_snapshot(small: Path, data: Path, tmp_path: Path) -> None:
    """A run of the same size starts with it, in half precision."""
    train(tmp_path, data / "train", preset="tiny", change=options(init=str(small), iterations=1), device="cpu")
    trainer = Trainer(TINY, Faces(data / "train", 32, CPU), CPU)
    states.start_from(trainer, small)
    trained = saved(small.parents[1])["networks"]["discriminator"]
    for name, tensor in trainer.nets.discriminator.state_dict().items():
        assert torch.equal(tensor, trained[name].half().float())


def test_a_model_without_a_discriminator_is_warned_of(
    without_discriminator: Path, small: Path, faces: Faces, caplog: pytest.LogCaptureFixture
) -> None:
    for folder, warmup in ((small, 0), (without_discriminator, 400), (without_discriminator, 0)):
        assert "has no discriminator" not in caplog.text
        states.start_from(Trainer(replace(TINY, discriminator_warmup=warmup), faces, CPU), folder)
    assert "has no discriminator" in caplog.text


def test_a_grown_run_goes_on_bit_for_bit(
    small: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight; stopped and gone on with; and killed after growing, before the first iteration is done."""
    options_ = {"architecture": LARGE.architecture, "grow_steps": 5, "init": str(small)} | RANDOM
    for name in ("straight", "stopped", "killed"):
        if name == "killed":
            with monkeypatch.context() as patched:
                patched.setattr(loop, "run", lambda *_: None)
                train(tmp_path / name, data / "train", preset="tiny", change=options(**options_), device="cpu")
            assert saved(tmp_path / name)["iteration"] == 0
        else:
            iterations = 4 if name == "straight" else 2
            change = options(**options_, iterations=iterations)
            train(tmp_path / name, data / "train", preset="tiny", change=change, device="cpu")
        with monkeypatch.context() as patched:
            patched.setattr(entry, "start_from", lambda *_: pytest.fail("grown a second time"))
            train(tmp_path / name, data / "train", change=options(iterations=4), device="cpu")
    first, second, third = (saved(tmp_path / name) for name in ("straight", "stopped", "killed"))
    for name in ("networks", "average", "optimizers", "random", "iteration", "samples"):
        assert states_equal(first[name], second[name]), name
        assert states_equal(first[name], third[name]), name


def test_two_processes_grow_the_same_network(small: Path, data: Path, tmp_path: Path) -> None:
    """Each regresses on its own part of the batch: were the gradients not shared, they would drift apart."""
    script = tmp_path / "grow.py"
    script.write_text(f"""
import torch, torch.distributed as dist
from dataclasses import replace
from pathlib import Path
from stargan.models.config import Architecture
from stargan.training.config import PRESETS
from stargan.training.data import Faces
from stargan.training.state import start_from
from stargan.training.trainer import Trainer

dist.init_process_group("gloo")
device = torch.device("cpu")
architecture = Architecture(64, base_channels=4, max_channels=16)
config = replace(PRESETS["tiny"], architecture=architecture, grow_steps=3, photo_augment=("photo",))
trainer = Trainer(config, Faces(Path({str(data / "train")!r}), 64, device), device)
start_from(trainer, Path({str(small)!r}))
flat = torch.cat([p.detach().flatten() for net in vars(trainer.nets).values() for p in net.parameters()])
both = [torch.empty_like(flat) for _ in range(2)]
dist.all_gather(both, flat)
assert torch.equal(*both), "the processes have different networks"
dist.barrier()
dist.destroy_process_group()  # left to the interpreter's end, gloo's threads can abort the process
""")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        launcher, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


# what the discriminator sees


def test_a_shift_moves_whole_pixels_in_bf16_too() -> None:
    x = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    given = torch.tensor([[0.1, 0.9], [0.7, 0.4]])
    shifted = translation(x, lambda *_: given)
    assert torch.equal(shifted, translation(x.float(), lambda *_: given).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(translation(x, lambda *_: given), shifted)


def test_a_monochrome_domain_is_drawn_and_seen_in_three_equal_channels(
    faces: Faces, data: Path, tmp_path: Path
) -> None:
    def gray(x: torch.Tensor) -> bool:
        return bool((x.amax(dim=-3) - x.amin(dim=-3)).max() < 1e-5)

    trainer = Trainer(replace(TINY, grayscale_domains=("anime",)), faces, CPU)
    judged = []
    trainer.nets.discriminator.register_forward_pre_hook(lambda _, given: judged.append(given))
    trainer.nets.style_encoder.register_forward_pre_hook(lambda _, given: judged.append(given))
    for _ in range(3):
        trainer.step()
    seen = [(int(d), gray(one)) for x, domain in judged for one, d in zip(x, domain, strict=True)]
    assert set(seen) == {(0, True), (1, False)}  # anime, photo: reals, fakes and references

    save_model(states.as_model(trainer, "gray"), tmp_path)
    translator = Translator(load_model(tmp_path), "cpu")
    picture = Image.open(data / "val" / "photo" / "0.png")
    encoded = translator.encode(picture)
    for domain in translator.domains:
        drawn = to_tensor(translator.decode(encoded, translator.latent_styles(domain, [1, 2]), domain))
        assert gray(drawn) == (domain == "anime")
    validation = fixed_faces(data / "val", translator.domains, 32)
    for file in write_sheets(load_model(tmp_path), tmp_path / "sheets", 1, validation):
        if file.stem.endswith("latent"):
            below = Image.open(file).crop((0, 34, 10**3, 10**3)).convert("RGB")
            assert gray(to_tensor([below])) == ("anime" in file.stem)


def test_sheets_show_a_monochrome_domains_pictures_as_training_does(data: Path, tmp_path: Path) -> None:
    """The style encoder is given luma of that domain alone, the generator luma to lead back."""
    torch.manual_seed(0)
    config = ModelConfig("mine", ("anime", "photo"), TINY.architecture, grayscale_domains=("anime",))
    model, styled, translated = Model.build(config), [], []

    def gray(x: torch.Tensor) -> torch.Tensor:
        return (x == x[:, :1]).flatten(1).all(dim=1)

    def restored(_: object, given: tuple[torch.Tensor, ...]) -> None:
        translated.append(gray(given[0]).tolist())

    model.style_encoder.register_forward_pre_hook(
        lambda _, given: styled.append((given[1].tolist(), gray(given[0]).tolist()))
    )
    model.generator.register_forward_pre_hook(restored)
    write_sheets(model, tmp_path, 1, fixed_faces(data / "val", config.domains, 32))
    assert {tuple(set(zip(*pair, strict=True))) for pair in styled} == {((0, True),), ((1, False),)}
    assert [all(found) for found in translated].count(True) == len(TRUNCATIONS) * SEEDS + SOURCES + 2


def test_luma_is_pillows_in_three_equal_channels(portrait: Image.Image) -> None:
    from stargan.pictures.tensors import to_pictures, to_tensor

    gray = to_luma(to_tensor([portrait]))
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert torch.equal(gray[:, 0], gray[:, 2])
    found, expected = np.asarray(to_pictures(gray)[0])[..., 0], np.asarray(portrait.convert("L"))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_luma_only_where_the_domain_says_so() -> None:
    x = torch.rand(4, 3, 8, 8)
    out = luma_where(x, torch.tensor([0, 1, 0, 1]), torch.tensor([False, True]))
    assert torch.equal(out[[0, 2]], x[[0, 2]])
    assert torch.equal(out[[1, 3]], to_luma(x[[1, 3]]))


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_diff_augment_changes_each_picture_its_own_way_and_lets_gradients_through(policy: str) -> None:
    random = torch.Generator().manual_seed(0)
    x = (torch.rand(1, 3, 32, 32, generator=random) * 2 - 1).expand(8, -1, -1, -1).requires_grad_()
    out = diff_augment(x, (policy,), lambda *shape: torch.rand(*shape, generator=random))
    assert out.shape == x.shape
    assert not any(torch.equal(out[0], other) for other in out[1:])
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.abs().sum() > 0
    if policy == "cutout":  # at most a quarter is hidden; the rest is as it was
        hidden = (out == 0).float().mean(dim=(1, 2, 3))
        assert 0 < hidden.max() <= 0.27
        assert torch.equal(out[out != 0], x.expand_as(out)[out != 0])
    if policy == "translation":  # a shift by whole pixels makes no new values
        assert torch.isin(out[out != 0].detach().round(decimals=5), x.detach().round(decimals=5)).all()


def kept(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The joint batches that the trainer draws from now on, as they are before photo_augment, and their domains."""
    drawn, draw = [], trainer.draw_joint

    def noted(domain: torch.Tensor, odds: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        x, kind = draw(domain, odds)
        drawn.append((x.clone(), domain))
        return x, kind

    monkeypatch.setattr(trainer, "draw_joint", noted)
    return drawn


def test_photo_augment_touches_the_sources_of_its_domains_alone(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(TINY, batch_size=64, photo_augment=("photo",)), faces, CPU)
    drawn = kept(trainer, monkeypatch)
    sources, reals = trainer.draw_sources()
    x, domain = drawn[0]
    assert torch.equal(reals.x, x)
    changed = (sources.x != x).flatten(1).any(dim=1)
    photos = domain == 1
    assert not changed[~photos].any()
    assert changed[photos].float().mean() > 0.9
    # the cycle leads back to the picture in its own light: at most moved
    moved = (sources.clean != x).flatten(1).any(dim=1)
    assert not moved[~photos].any()
    assert 0.2 < moved[photos].float().mean() < 0.8
    still = photos & ~moved
    assert torch.equal(sources.clean[still], x[still])
    targets = trainer.draw_targets("reference")
    assert torch.equal(targets.first, drawn[1][0])
    assert torch.equal(targets.second, drawn[2][0])


def test_the_networks_see_of_photo_augment_what_they_shall(faces: Faces) -> None:
    """The discriminator real pictures as they are, the style encoder the clean one in the cycle, the generator the photo."""
    trainer = Trainer(replace(TINY, photo_augment=("anime", "photo")), faces, CPU)
    sources, reals = trainer.draw_sources()
    targets = trainer.draw_targets("latent")
    given: dict[str, list[torch.Tensor]] = {"discriminator": [], "style_encoder": [], "from_rgb": []}
    trainer.nets.discriminator.register_forward_pre_hook(lambda _, got: given["discriminator"].append(got[0]))
    trainer.nets.style_encoder.register_forward_pre_hook(lambda _, got: given["style_encoder"].append(got[0]))
    trainer.nets.generator.from_rgb.register_forward_pre_hook(lambda _, got: given["from_rgb"].append(got[0]))
    trainer.update_discriminator(reals, sources, targets, 1.0)
    trainer.update_generator(sources, targets, ("generator",))

    def saw(name: str, x: torch.Tensor) -> bool:
        return any(torch.equal(x, got) for got in given[name])

    assert saw("discriminator", reals.x)
    assert saw("style_encoder", sources.clean)
    assert saw("from_rgb", sources.x)
    assert not saw("discriminator", sources.x)
    assert not saw("style_encoder", sources.x)


def test_the_discriminator_is_shown_each_domain_as_often_as_it_is_a_target(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"target_weights": {"anime": 4.0}, "source_weights": {"photo": 9.0}, "batch_size": 64}
    shares = {}
    for reals in ("sources", "targets"):
        trainer = Trainer(replace(TINY, reals=reals, **weights), faces, CPU)
        shown: list[torch.Tensor] = []
        monkeypatch.setattr(trainer, "update", lambda *given, shown=shown: shown.append(given[2].domain) or {})
        for _ in range(20):
            trainer.step()
        shares[reals] = (torch.cat(shown) == 0).float().mean().item()
    assert shares["targets"] == pytest.approx(4 / 5, abs=0.04)
    assert shares["sources"] == pytest.approx(1 / 10, abs=0.04)


def test_pictures_of_a_domain_are_shown_and_referred_to_by_their_weight(data: Path) -> None:
    """Of nine pictures, ``anime/0`` weighs as much as the other eight together; sources are drawn without regard to that."""
    faces = Faces(data / "train", 32, CPU)
    first = faces.pictures[0][0].float() / 127.5 - 1
    config = replace(
        TINY, reals="targets", random_crop=0.0, target_weights={"photo": 0.0, "anime/0": 8.0}, batch_size=64
    )
    trainer = Trainer(config, faces, CPU)

    def share(draw: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> float:
        found = []
        for _ in range(10):
            x, domain = draw()
            found += [any(torch.equal(one, as_is) for as_is in (first, first.flip(2))) for one in x[domain == 0]]
        return sum(found) / len(found)

    def references() -> tuple[torch.Tensor, torch.Tensor]:
        targets = trainer.draw_targets("reference")
        return torch.cat([targets.first, targets.second]), targets.domain.repeat(2)

    assert share(lambda: astuple(trainer.draw_reals())[:2]) == pytest.approx(1 / 2, abs=0.08)
    assert share(references) == pytest.approx(1 / 2, abs=0.06)
    assert share(lambda: astuple(trainer.draw_sources()[0])[:2]) == pytest.approx(1 / 9, abs=0.06)


@pytest.mark.parametrize("change", [misalign, photograph])
def test_what_happens_to_a_photo_is_as_its_generator_decides_and_in_range(
    change: Callable[..., torch.Tensor], portrait: Image.Image
) -> None:
    x = to_tensor([portrait.resize((64, 64))]).expand(200, -1, -1, -1)
    first, again = (change(x, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, change(x, torch.Generator().manual_seed(8)))
    assert first.shape == x.shape
    assert first.isfinite().all()
    assert first.abs().max() <= 1
    assert len({one.sum().item() for one in first}) > 0.45 * len(x)  # each its own way
    if change is photograph:  # a face stays one: alike to the original for the most part
        alike = [torch.corrcoef(torch.stack([one.flatten(), x[0].flatten()]))[0, 1].item() for one in first]
        assert np.quantile(alike, 0.05) > 0.6
    else:
        assert 0.4 < np.mean([torch.allclose(one, x[0], atol=1e-4) for one in first]) < 0.6


def test_a_crooked_crop_is_off_by_as_much_as_it_says() -> None:
    """Found from a ramp in red to the right and one in green downwards: turn, scale and shift of every picture's middle."""
    ramp = torch.linspace(-0.5, 0.5, 65)[:-1] + 0.5 / 64
    x = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)]).expand(800, -1, -1, -1)
    out = misalign(x, torch.Generator().manual_seed(0))
    at = (out[:, :2, 31, 31] + out[:, :2, 32, 32]) / 2  # where the middle of the crop comes from, in sides
    right = (out[:, :2, 32, 48] - out[:, :2, 32, 16]) / (32 / 64)  # far apart: bicubic sampling bends a ramp a little
    scale, angle = right.norm(dim=1), torch.atan2(right[:, 1], right[:, 0]).rad2deg()
    for found, most in ((at[:, 0], 0.1), (at[:, 1], 0.1), (scale - 1, 0.1), (angle, 12.0)):
        assert 0.9 * most < found.max() < 1.04 * most
        assert -1.04 * most < found.min() < -0.9 * most


def test_jpeg_leaves_much_or_blocks(portrait: Image.Image) -> None:
    x = to_tensor([portrait.resize((64, 64))])
    best, worst = (jpeg(x, torch.full((1, 1, 1, 1), quality)) for quality in (1.0, 0.0))
    assert (best - x).abs().mean() < 0.04
    assert (worst - x).abs().mean() > 3 * (best - x).abs().mean()

    def jumps(picture: torch.Tensor) -> float:
        """How much more neighbours differ across the borders of blocks than within them."""
        steps = (picture[..., 1:] - picture[..., :-1]).abs().mean(dim=(0, 1, 2))
        border = torch.arange(len(steps)) % 8 == 7
        return (steps[border].mean() / steps[~border].mean()).item()

    assert jumps(worst) > 1.5 * jumps(x)
    assert jumps(best) == pytest.approx(jumps(x), rel=0.1)
    # each picture by its own quality
    both = jpeg(x.expand(2, -1, -1, -1), torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
    torch.testing.assert_close(both, torch.cat([best, worst]))


def test_jpeg_is_like_pillows(portrait: Image.Image) -> None:
    """About what an encoder does at one of its own qualities."""
    picture = portrait.resize((64, 64))
    x = to_tensor([picture])
    ours = (jpeg(x, torch.full((1, 1, 1, 1), 0.5)) - x).abs().mean().item()
    errors = []
    for quality in (10, 90):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, subsampling=0)
        errors.append((to_tensor([Image.open(file).convert("RGB")]) - x).abs().mean().item())
    assert errors[1] < ours < errors[0]


# a run, and what may happen to it


def test_a_run_leaves_state_snapshots_sheets_and_curves(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "mine"
    arguments = ["train", "--preset", "tiny", "--data", str(data / "train"), "--validation", str(data / "val")]
    assert main([*arguments, "--run", str(run), "--device", "cpu", "--diff-augment", "color"]) == 0
    assert saved(run)["iteration"] == 4
    assert sorted(folder.name for folder in (run / "snapshots").iterdir()) == ["000002", "000004"]
    config = load_model(run / "snapshots" / "000004").config
    assert (config.name, config.domains) == ("mine", ("anime", "photo"))
    assert config.training["samples"] == 16
    assert config.training["options"]["diff_augment"] == ["color"]
    assert [row["iteration"] for row in metrics(run)] == [1, 2, 3, 4]
    assert {"d_latent/reg", "g_reference/cyc", "lambda_ds"} < metrics(run)[0].keys()

    names = {file.name for file in (run / "sheets").iterdir()}
    kinds = ("latent", "reference", "cycle")
    assert names == {f"{i:06d}-{d}-{k}.png" for i in (2, 4) for d in ("anime", "photo") for k in kinds}
    cell = 32 + 2
    rows = {"latent": 1 + SEEDS * len(TRUNCATIONS), "reference": 1 + SOURCES, "cycle": 3}
    for kind, count in rows.items():
        assert Image.open(run / "sheets" / f"000004-anime-{kind}.png").height == count * cell - 2
    first, last = (np.asarray(Image.open(run / "sheets" / f"00000{i}-anime-latent.png")) for i in (2, 4))
    expected = [np.asarray(picture) for picture in fixed_faces(data / "val", config.domains, 32)["photo"]]
    for column, source in enumerate(expected):  # the same sources every time, other drawings of them
        assert (first[:32, column * cell : column * cell + 32] == source).all()
    assert (first[:32] == last[:32]).all()
    assert (first[cell:] != last[cell:]).any()


def test_a_run_starts_from_a_model_and_warms_its_discriminator_up(data: Path, tmp_path: Path) -> None:
    train(tmp_path / "first", data / "train", preset="tiny", device="cpu")
    start = load_model(tmp_path / "first" / "snapshots" / "000004")
    init = str(tmp_path / "first" / "snapshots" / "000004")
    change = options(init=init, discriminator_warmup=2, iterations=2)
    train(tmp_path / "second", data / "train", preset="tiny", change=change, device="cpu")
    warm = saved(tmp_path / "second")
    for name, net in start.networks().items():
        assert states_equal(dict(net.state_dict()), dict(warm["networks"][name])), name
        assert states_equal(dict(net.state_dict()), dict(warm["average"][name])), name
    assert not states_equal(
        dict(warm["networks"]["discriminator"]), dict(saved(tmp_path / "first")["networks"]["discriminator"])
    )
    train(
        tmp_path / "second", data / "train", change=options(iterations=3), device="cpu"
    )  # goes on, from its own state
    after = saved(tmp_path / "second")["networks"]["generator"]
    assert not states_equal(dict(after), dict(warm["networks"]["generator"]))
    assert load_model(tmp_path / "second" / "snapshots" / "000003").config.training["options"]["init"] == init


def test_a_run_keeps_what_it_started_from(data: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", data / "train", preset="tiny", device="cpu")
    before = saved(tmp_path / "run")
    with pytest.raises(TrainingError, match="started from random weights: another --init needs another --run"):
        train(tmp_path / "run", data / "train", change=options(init="anime-128", iterations=5), device="cpu")
    assert saved(tmp_path / "run")["iteration"] == before["iteration"]


def test_a_model_that_does_not_fit_cannot_be_started_from(data: Path, tmp_path: Path, capsys) -> None:
    arguments = ["train", "--preset", "tiny", "--data", str(data / "train"), "--run", str(tmp_path), "--device", "cpu"]
    for model, sentence in (("anime-128", "cannot start from there"), ("no-such", "There is no model 'no-such'")):
        assert main([*arguments, "--init", model]) != 0
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / states.STATE_FILE).exists()


def test_curves_for_tensorboard(data: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=2), device="cpu")
    curves = events.EventAccumulator(str(tmp_path / "tensorboard"))
    curves.Reload()
    found = [(event.step, event.value) for event in curves.Scalars("g_latent/cyc")]
    assert found == [(row["iteration"], pytest.approx(row["g_latent/cyc"], abs=1e-5)) for row in metrics(tmp_path)]


def test_training_a_preset_does_without_what_it_does_not_need(data: Path, tmp_path: Path) -> None:
    absent = ("tensorboard", "tyro", "facenet_pytorch", "gradio", "pillow_heif", "av", "torchmetrics", "skimage")
    done = python(
        f"import sys; sys.modules.update(dict.fromkeys({absent})); from stargan.commands import main;"
        f"sys.exit(main(['train', '--preset', 'tiny', '--data', {str(data / 'train')!r}, '--run', {str(tmp_path)!r}]))"
    )
    assert done.returncode == 0, done.stderr
    assert "TensorBoard is not installed" in done.stderr
    assert len(metrics(tmp_path)) == 4


def test_four_iterations_are_two_and_two_more(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Thumbnails, "REAL", 2)  # else too few are known in so few iterations
    monkeypatch.setattr(Thumbnails, "FAKE", 1)
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train(straight, data / "train", preset="tiny", change=options(**RANDOM), device="cpu")
    train(resumed, data / "train", preset="tiny", change=options(**RANDOM, iterations=2), device="cpu")
    torch.manual_seed(99)  # what else goes on in the process must not matter
    train(resumed, data / "train", change=options(iterations=4), device="cpu")  # no preset: the run's own options
    first, second = saved(straight), saved(resumed)
    for state in (first, second):
        del state["seconds"]
        del state["torch_random"]
    assert [change["options"] for change in second.pop("changes")] == [["iterations: 2 → 4"]]
    assert not first.pop("changes")
    assert states_equal(first, second)
    assert metrics(straight)[-1]["g_latent/sw"] > 0
    assert [{**row, "seconds": 0} for row in metrics(straight)] == [{**row, "seconds": 0} for row in metrics(resumed)]


def test_a_changed_rate_holds_after_resuming(data: Path, tmp_path: Path) -> None:
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=1), device="cpu")
    train(tmp_path, data / "train", change=options(iterations=2, learning_rate=0.005), device="cpu")
    state = saved(tmp_path)
    rates = {name: optimizer["param_groups"][0]["lr"] for name, optimizer in state["optimizers"].items()}
    assert rates == {"generator": 0.005, "style_encoder": 0.005, "discriminator": 0.005, "mapping_network": 1e-6}
    assert state["config"]["learning_rate"] == 0.005


def test_the_same_command_goes_on_and_another_preset_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = [
        "train",
        "--preset",
        "tiny",
        "--data",
        str(data / "train"),
        "--run",
        str(tmp_path),
        "--lambda-ds",
        "3",
    ]
    assert main(command) == 0
    assert main(command) == 0
    assert main([*command, "--preset", "anime-64"]) == 2
    assert "image_size: 32 → 64" in capsys.readouterr().err
    assert main([*command, "--architecture.image-size", "64"]) == 2
    assert "architecture cannot change (image_size: 32 → 64)" in capsys.readouterr().err
    assert saved(tmp_path)["iteration"] == 4


def test_samples_and_changed_options_are_counted_and_told(data: Path, tmp_path: Path) -> None:
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=2), device="cpu")
    train(tmp_path, data / "train", change=options(iterations=4, batch_size=6), device="cpu")
    facts = read_config(tmp_path / "snapshots" / "000004").training
    assert facts["samples"] == 2 * 4 + 2 * 6
    (change,) = facts["changes"]
    assert change == {"iteration": 2, "options": ["iterations: 2 → 4", "batch_size: 4 → 6"]}


def test_a_finished_run_that_is_called_again_leaves_all_as_it_is(data: Path, tmp_path: Path) -> None:
    """A card in its last snapshot, and the state before the last; a snapshot that a kill cost is made up for."""
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=2, save_minutes=0.0), device="cpu")
    train(tmp_path, data / "train", change=options(iterations=3), device="cpu")
    snapshot = tmp_path / "snapshots" / "000003"
    (snapshot / "README.md").write_text("# A card\n")
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.suffix in (".pt", ".md", ".safetensors")}
    train(tmp_path, data / "train", device="cpu")
    assert all(file.read_bytes() == content for file, content in kept.items())
    shutil.rmtree(snapshot)
    train(tmp_path, data / "train", device="cpu")
    assert (snapshot / "model.safetensors").read_bytes() == kept[snapshot / "model.safetensors"]


def test_a_run_whose_folder_is_no_name_of_a_model_does_not_begin(data: Path, tmp_path: Path) -> None:
    """Its first snapshot would fail, and each try after that."""
    run = tmp_path / ("r" * 101)
    with pytest.raises(ModelError, match="name"):
        train(run, data / "train", preset="tiny", change=options(iterations=1), device="cpu")
    assert not (run / "state.pt").exists()


def test_a_runs_seed_cannot_change(data: Path, tmp_path: Path) -> None:
    """Its random numbers go on: the option would do nothing."""
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=1), device="cpu")
    with pytest.raises(TrainingError, match="seed cannot change: its random numbers go on from 0"):
        train(tmp_path, data / "train", change=options(iterations=2, seed=5), device="cpu")


def test_a_run_goes_on_in_another_memory_layout(data: Path, tmp_path: Path) -> None:
    """Adam's moments stay with their weights: fused steps walk through memory."""
    for name, later in (("same", False), ("other", True)):
        run = tmp_path / name
        train(run, data / "train", preset="tiny", change=options(iterations=2), device="cpu")
        train(run, data / "train", change=options(iterations=3, channels_last=later), device="cpu")
    one, two = (saved(tmp_path / name)["networks"]["generator"] for name in ("same", "other"))
    # but for gradients that are rounding alone, which Adam takes for as large as any
    moved = torch.cat([(one[name] - two[name]).abs().flatten() for name in one if one[name].dim() == 4])
    assert moved.quantile(0.9) < 1e-5


def test_figures_that_come_again_are_written_once(data: Path, tmp_path: Path) -> None:
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=2), device="cpu")
    state = (tmp_path / states.STATE_FILE).read_bytes()
    train(tmp_path, data / "train", change=options(iterations=4), device="cpu")
    (tmp_path / states.STATE_FILE).write_bytes(state)  # as if killed before it was saved
    train(tmp_path, data / "train", change=options(iterations=4), device="cpu")
    assert [row["iteration"] for row in metrics(tmp_path)] == [1, 2, 3, 4]


def test_a_line_of_figures_that_a_kill_cut_is_dropped(data: Path, tmp_path: Path) -> None:
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=3), device="cpu")
    file = tmp_path / "metrics.jsonl"
    whole = file.read_text().splitlines(keepends=True)
    for cut in (whole[2][:9], whole[2][:-2], '"', "17\n", "\x00\x00"):
        file.write_text("".join(whole[:2]) + cut)
        with loop._Curves(tmp_path, 3):
            pass
        assert file.read_text() == "".join(whole[:2])
    file.write_text("".join(whole[:2]) + whole[2][:9])
    train(tmp_path, data / "train", change=options(iterations=4), device="cpu")
    assert [row["iteration"] for row in metrics(tmp_path)] == [1, 2, 4]


def _cut(state: Path) -> None:
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])


def _garbage(state: Path) -> None:
    state.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 40)


def _flipped(state: Path) -> None:
    content = bytearray(state.read_bytes())
    for at in range(len(content) // 2, len(content) // 2 + 512):
        content[at] ^= 0xFF
    state.write_bytes(content)


def _gone(state: Path) -> None:  # killed between the two renames
    state.unlink()


@pytest.fixture(scope="module")
def thrice(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three iterations whose state before is of the second."""
    run = tmp_path_factory.mktemp("thrice") / "run"
    train(run, data / "train", preset="tiny", change=options(iterations=2), device="cpu")
    train(run, data / "train", change=options(iterations=3), device="cpu")
    assert torch.load(run / states.STATE_BEFORE, weights_only=True)["iteration"] == 2
    return run


@pytest.mark.parametrize("harm", [_cut, _garbage, _flipped, _gone])
def test_a_broken_state_falls_back_to_the_one_before(
    data: Path,
    thrice: Path,
    small: Path,
    tmp_path: Path,
    harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run, straight = tmp_path / "run", small.parents[1]
    shutil.copytree(thrice, run)
    harm(run / states.STATE_FILE)
    train(run, data / "train", change=options(iterations=4), device="cpu")
    for name in (states.STATE_FILE, states.STATE_BEFORE):  # the broken one takes no good one's place
        torch.load(run / name, weights_only=True)
    if harm is not _gone:
        assert (run / states.STATE_BROKEN).exists()
        assert "state.pt is broken" in caplog.text
        assert "goes on from the state before, of iteration 2" in caplog.text
    assert states_equal(saved(run)["networks"], saved(straight)["networks"])
    assert [row["iteration"] for row in metrics(run)] == [1, 2, 3, 4]

    for name in (states.STATE_FILE, states.STATE_BEFORE):
        (run / name).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match=r"(?s)state\.pt is broken.*state\.before\.pt is broken"):
        train(run, data / "train", device="cpu")


def test_half_of_a_snapshot_never_has_its_name(faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(TINY, faces, CPU)
    states.save_snapshot(trainer, tmp_path)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "snapshots" / "000000").iterdir()}

    def stopped(_: object, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(states, "save_model", stopped)
    with pytest.raises(KeyboardInterrupt):
        states.save_snapshot(trainer, tmp_path)
    assert {file.name: file.read_bytes() for file in (tmp_path / "snapshots" / "000000").iterdir()} == whole
    monkeypatch.undo()
    states.save_snapshot(trainer, tmp_path)
    assert [folder.name for folder in (tmp_path / "snapshots").iterdir()] == ["000000"]
    assert whole.keys() == {file.name for file in (tmp_path / "snapshots" / "000000").iterdir()}


def test_lazy_r1_comes_every_so_often_and_as_much_stronger(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(TINY, r1_every=4, lambda_reg=0.5), faces, CPU)
    weights = []
    update = trainer.update_discriminator
    monkeypatch.setattr(trainer, "update_discriminator", lambda *given: (weights.append(given[3]), update(*given))[1])
    for _ in range(4):  # of two updates each
        trainer.step()
    assert weights == [2.0, 0, 0, 0, 2.0, 0, 0, 0]


def test_changed_domains_are_refused_on_resume(data: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", data / "train", preset="tiny", change=options(iterations=1), device="cpu")
    other = tmp_path / "other"
    for new, old in (("anime", "anime"), ("manga", "photo")):
        (other / new).parent.mkdir(exist_ok=True)
        (other / new).symlink_to(data / "train" / old)
    with pytest.raises(TrainingError, match=r"trained on the domains anime, photo, but the data has anime, manga"):
        train(tmp_path / "run", other, device="cpu")


def test_what_cannot_start_says_why(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"There is no run in .*new: start one with a preset \(anime-128, anime-64"):
        train(tmp_path / "new", data / "train")
    (tmp_path / states.STATE_FILE).write_bytes(b"half of a sta")
    with pytest.raises(TrainingError, match=r"state\.pt is broken or not the state of a run"):
        train(tmp_path, data / "train")
    other = tmp_path / "other"
    (other / "manga").mkdir(parents=True)
    shutil.copy(data / "val" / "anime" / "0.png", other / "manga")
    with pytest.raises(DataError, match="no pictures of the domains anime, photo"):
        train(tmp_path / "new", data / "train", other, preset="tiny", device="cpu")
    assert not (tmp_path / "new").exists()


def test_a_state_of_another_kind_of_device_goes_on_with_other_random_numbers(faces: Faces) -> None:
    trainer = Trainer(TINY, faces, CPU)
    trainer.step()
    state = states.capture(trainer) | {"random": torch.zeros(16, dtype=torch.uint8)}  # a CUDA generator's is 16 bytes
    other = Trainer(TINY, faces, CPU)
    states.restore(other, state)
    other.step()
    assert other.iteration == 2


def test_feature_means_that_were_not_kept_up_begin_anew(faces: Faces) -> None:
    """They are of the discriminator as it was then."""
    matching = replace(TINY, lambda_fm=0.1)
    trainer = Trainer(matching, faces, CPU)
    trainer.step()
    state = states.capture(trainer)
    for config, known in ((matching, True), (replace(matching, lambda_fm=0.0), False)):
        other = Trainer(matching, faces, CPU)
        states.restore(other, state | {"config": asdict(config)})
        assert bool(other.feature_means.known_fake.any()) == known


def test_thumbnails_that_were_not_kept_up_begin_anew(faces: Faces) -> None:
    with_them = replace(TINY, lambda_sw=1.0)
    trainer = Trainer(with_them, faces, CPU)
    trainer.step()
    state = states.capture(trainer)
    other = Trainer(with_them, faces, CPU)
    states.restore(other, state)
    assert other.thumbnails["latent"].count_fake.sum() == TINY.batch_size
    without = Trainer(TINY, faces, CPU)
    states.restore(without, state)
    without.step()
    again = Trainer(with_them, faces, CPU)
    states.restore(again, states.capture(without))
    assert again.thumbnails["latent"].count_fake.sum() == 0


def test_a_licence_goes_with_the_weights(small: Path, data: Path, tmp_path: Path) -> None:
    model = load_model(small)
    save_model(replace(model, config=replace(model.config, licence="not for sale")), tmp_path / "theirs")
    for iterations in (2, 4):
        change = options(init=str(tmp_path / "theirs"), iterations=iterations)
        train(tmp_path / "run", data / "train", preset="tiny", change=change, device="cpu")
    assert load_model(tmp_path / "run" / "snapshots" / "000004").config.licence == "not for sale"


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    file = tmp_path / states.STATE_FILE
    states.save_state({"iteration": 1}, tmp_path)
    with pytest.raises(Exception, match="pickle"):
        states.save_state({"iteration": 2, "tensor": torch.zeros(10_000), "bad": lambda: None}, tmp_path)
    assert torch.load(file)["iteration"] == 1


def test_divergence_is_said_and_the_last_good_state_kept(data: Path, tmp_path: Path) -> None:
    train(tmp_path, data / "train", preset="tiny", change=options(iterations=2), device="cpu")
    wild = options(iterations=40, learning_rate=1e20)
    with pytest.raises(
        TrainingError, match=r"Training has diverged: at iteration \d+, the .* finite|loss .* (nan|inf)"
    ):
        train(tmp_path, data / "train", change=wild, device="cpu")
    state = saved(tmp_path)
    assert all(torch.isfinite(t).all() for net in state["networks"].values() for t in net.values())
    train(tmp_path, data / "train", change=options(iterations=state["iteration"] + 1, learning_rate=1e-4), device="cpu")


@contextlib.contextmanager
def limited_memory(extra: int) -> Iterator[None]:
    """This process may take ``extra`` more bytes of address space."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_that_does_not_suffice_comes_with_advice(data: Path, tmp_path: Path) -> None:
    with (
        limited_memory(500_000_000),
        pytest.raises(TrainingError, match=r"batch_size=400000 at 32 px.*bf16") as found,
    ):
        train(tmp_path, data / "train", preset="tiny", change=options(batch_size=400000), device="cpu")
    assert "image_size" in str(found.value)


# real processes


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def python(program: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


def lines(run: Path) -> int:
    """Of its figures: one an iteration."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def command(run: Path, data: Path, *more: str) -> list[str]:
    return ["-m", "stargan", "train", "--data", str(data / "train"), "--run", str(run), *more]


@contextlib.contextmanager
def training_process(run: Path, command: list[str], iterations: int = 3) -> Iterator[subprocess.Popen]:
    """A run of its own process that has trained for so many iterations."""
    before = lines(run)
    process = subprocess.Popen(
        [sys.executable, *command], env=environment(), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        give_up = time.monotonic() + 120
        while lines(run) < before + iterations:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < give_up, "training did not start"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_stopped_and_gone_on_with(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminated or interrupted, a run saves what it has before it ends, and goes on from there."""
    endless = ["--preset", "tiny", "--iterations", "100000", "--save-minutes", "60"]
    with training_process(tmp_path, command(tmp_path, data, *endless)) as process:
        with pytest.raises(TrainingError, match="Another process is training in"):
            train(tmp_path, data / "train", preset="tiny", device="cpu", change=options(iterations=100000))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, process.stderr.read()
    stopped = saved(tmp_path)["iteration"]
    assert stopped == lines(tmp_path) >= 3

    def interrupted(trainer: Trainer) -> dict[str, torch.Tensor]:
        if trainer.iteration == stopped + 1:
            signal.raise_signal(signal.SIGINT)
        return step(trainer)

    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", interrupted)
    train(tmp_path, data / "train", device="cpu")
    assert saved(tmp_path)["iteration"] == lines(tmp_path) == stopped + 2
    assert (tmp_path / "snapshots" / f"{stopped + 2:06d}").exists()
    train(tmp_path, data / "train", change=options(iterations=stopped + 3), device="cpu")
    assert saved(tmp_path)["iteration"] == stopped + 3


def _writing_a_state(run: Path) -> bool:
    return (run / states.STATE_FILE).exists() and (run / "state.partial").exists()


def _whenever(_: Path) -> bool:
    time.sleep(random.uniform(0, 0.3))
    return True


def killed(run: Path, command: list[str], moment: Callable[[Path], bool]) -> None:
    """Trains until the moment comes, after another iteration; halts the process, to see that it lasts, and kills it."""
    with training_process(run, command, iterations=1) as process:
        give_up = time.monotonic() + 120
        while True:
            assert process.poll() is None, "the run came to its end"
            assert time.monotonic() < give_up, "the moment did not come"
            if not moment(run):
                time.sleep(0.001)
                continue
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if moment is _whenever or moment(run):
                break
            process.send_signal(signal.SIGCONT)
        process.kill()
        assert process.wait() == -signal.SIGKILL


def left_by(run: Path) -> dict[str, str]:
    """A digest of all that does not tell the time: figures, weights, and each part of the state."""
    rows = [{**row, "seconds": 0} for row in metrics(run)]
    parts = {name: part for name, part in saved(run).items() if name != "seconds"}
    found = {"figures": json.dumps(rows).encode()}
    found |= {f"state: {name}": b"".join(pieces(part)) for name, part in parts.items()}
    found |= {file.relative_to(run).as_posix(): file.read_bytes() for file in run.glob("snapshots/**/*.safetensors")}
    found |= {file.relative_to(run).as_posix(): b"" for file in run.rglob("*partial*")}
    return {name: hashlib.sha256(content).hexdigest()[:12] for name, content in sorted(found.items())}


def pieces(value: object) -> Iterator[bytes]:
    """The bits of a state's part, whatever they are nested in."""
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes()
    elif isinstance(value, dict):
        yield from (piece for key in value for piece in (repr(key).encode(), *pieces(value[key])))
    elif isinstance(value, list | tuple):
        yield from (piece for each in value for piece in (b",", *pieces(each)))
    else:
        yield repr(value).encode()


def test_killed_at_any_moment_a_run_goes_on_bit_for_bit(data: Path, tmp_path: Path) -> None:
    straight, interrupted = tmp_path / "straight", tmp_path / "interrupted"

    def of(run: Path) -> list[str]:
        drawing = "--diff-augment color translation cutout --grayscale-domains anime --photo-augment photo"
        often = "--iterations 10 --save-minutes 0 --snapshot-every 5"
        return command(run, data, "--preset", "tiny", *often.split(), *drawing.split())

    for moment in (_writing_a_state, _whenever):
        killed(interrupted, of(interrupted), moment)
        # every iteration is saved: killed between the line and the state, one is lost
        assert lines(interrupted) - saved(interrupted)["iteration"] in (0, 1)
    for run in (interrupted, straight):
        done = subprocess.run(
            [sys.executable, *of(run)],
            env=environment(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert left_by(straight)["snapshots/000010/model.safetensors"]
    assert left_by(interrupted) == left_by(straight)
    report("training", "killed while it wrote its state, and once more: went on bit for bit")


def test_two_processes_train_as_one(data: Path, tmp_path: Path) -> None:
    """Under a real torchrun, with gloo: the joint batch's losses and weights, whatever draws random numbers."""
    same = {"iterations": 3, "r1_every": 2, "phases": "alternate", "learning_rate": 2e-4}
    train(tmp_path / "one", data / "train", preset="tiny", change=options(**RANDOM, **same), device="cpu")
    flags = "--iterations 3 --r1-every 2 --phases alternate --learning-rate 2e-4 --grayscale-domains anime"
    flags += (
        " --diff-augment color translation cutout --photo-augment photo --lambda-fm 0.2 --lambda-sw 20 --kinds photo/0"
    )
    arguments = [
        "train",
        "--preset",
        "tiny",
        "--data",
        str(data / "train"),
        "--run-folder",
        str(tmp_path / "two"),
        *flags.split(),
    ]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "-m", "stargan", *arguments],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        # Not averaging the gradients moves them by 1 to 9 %; rounding, which differs with the machine, by 4e-5
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, rel=2e-3)
    for mode, kept in saved(tmp_path / "one")["thumbnails"].items():
        other = saved(tmp_path / "two")["thumbnails"][mode]
        assert kept["count_fake"].sum() > 0
        for name, value in kept.items():
            assert torch.allclose(value, other[name], atol=1e-2), name
    # Adam's second moments are the gradients of all iterations; those of biases before a norm are rounding alone
    first, second = (saved(tmp_path / name)["optimizers"] for name in ("one", "two"))
    for part, optimizer in first.items():
        pairs = [
            (o["exp_avg_sq"].sqrt(), second[part]["state"][i]["exp_avg_sq"].sqrt())
            for i, o in optimizer["state"].items()
        ]
        largest = max(a.norm() for a, _ in pairs)
        compared = [(a, b) for a, b in pairs if a.norm() > 1e-3 * largest]
        assert len(compared) > len(pairs) / 3
        assert max((a - b).norm() / a.norm() for a, b in compared) < 0.2, part  # 0.03, not averaged 0.6


def test_a_batch_that_cannot_be_shared_is_refused(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(training.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(training.dist, "get_world_size", lambda: 3)
    with pytest.raises(TrainingError, match="batch of 4 cannot be shared equally by 3"):
        Trainer(TrainConfig(architecture=TINY.architecture, batch_size=4), faces, CPU)


def test_the_benchmark_measures_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "figures.json"
    command = ["bench", "train", "--preset", "tiny", "--device", "cpu", "--no-compile", "--turns", "1"]
    assert main([*command, "--json", str(file)]) == 0
    eager, tuned = json.loads(file.read_text())
    assert (eager["path"], tuned["path"]) == ("eager", "tuned")
    for result in (eager, tuned):
        assert result["samples_per_second"] > 0
        assert 0 < result["utilisation"] <= 1
        assert 100 < result["peak_mb"] < 10_000
    assert re.search(r"tuned is \d+\.\d times as fast", capsys.readouterr().out)


def test_what_cannot_be_compiled_is_said(faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(TrainingError, match="compiler no-such-compiler is not there: train with --no-compile"):
        Trainer(replace(TINY, compile=True), faces, CPU)


@pytest.mark.parametrize(("has", "computed_in"), [(True, torch.bfloat16), (False, torch.float32)])
def test_bf16_is_for_a_cpu_that_has_it(
    faces: Faces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, has: bool, computed_in: torch.dtype
) -> None:
    """Emulated, an iteration of anime-128-cpu takes 30 s on two cores and not 3."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    trainer = Trainer(replace(TINY, bf16=True), faces, CPU)
    seen = []
    trainer.nets.generator.from_rgb.register_forward_hook(lambda _module, _given, h: seen.append(h.dtype))
    trainer.step()
    assert set(seen) == {computed_in}
    assert ("training in fp32" in caplog.text) is not has
    assert ("bf16" in states.as_model(trainer, "mine").config.training["options"]) is has
