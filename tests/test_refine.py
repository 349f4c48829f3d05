"""Refinement of a decoder by its own corrected drawings, on random networks and noise."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stargan.commands import main
from stargan.commands.refine import NAMES
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import Architecture, ModelConfig
from stargan.networks import Discriminator
from stargan.training import refine as refining
from stargan.training.config import ConfigError
from stargan.training.data import DataError, Faces
from stargan.training.refine import Refinement, color_transfer, non_local_means, refine
from stargan.training.state import DISCRIMINATOR_FILE, save_discriminator

DOMAINS = ("anime", "photo")
SHORT = Refinement(drawings=30, passes=1, batch_size=8)


def write_faces(folder: Path, domain: str, *levels: int) -> None:
    """Thirty pictures for each level of brightness: noise. Their names begin with ``g``, ``n``, … by the level."""
    random = np.random.default_rng(0)
    (folder / domain).mkdir(parents=True, exist_ok=True)
    for group, level in zip("gnx", levels, strict=False):
        for index in range(30):
            noise = Image.fromarray(random.integers(level, level + 60, (4, 4, 3), dtype=np.uint8))
            noise.resize((32, 32), Image.Resampling.BICUBIC).save(folder / domain / f"{group}{index}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_faces(tmp_path / "faces", "anime", 180)
    write_faces(tmp_path / "faces", "photo", 10, 180)
    return tmp_path / "faces"


@pytest.fixture
def faces(data: Path) -> Faces:
    return Faces(data, 32, torch.device("cpu"))


@pytest.fixture
def model() -> Model:
    """The domains' styles lie apart, as random ones do not."""
    torch.manual_seed(0)
    model = Model.build(ModelConfig("mine", DOMAINS, Architecture(32, base_channels=8, max_channels=16)))
    model.mapping_network.unshared[0][-1].bias.add_(10.0)
    model.style_encoder.unshared[0].bias.add_(10.0)
    return model


def drawings(model: Model, faces: Faces, domain: str) -> Tensor:
    index = DOMAINS.index(domain)
    x = faces.pictures[1 - index].float() / 127.5 - 1
    codes = torch.randn(len(x), model.config.architecture.latent_dim, generator=torch.Generator().manual_seed(5))
    return model.generator(x, model.mapping_network(codes, torch.full((len(x),), index)))


def test_non_local_means_takes_noise_and_leaves_lines() -> None:
    clean = torch.full((2, 3, 32, 32), -0.5)
    clean[:, :, :, 16:] = 0.5
    clean[:, :, 10] = 0.9
    noise = 0.03 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    found = non_local_means(clean + noise, 0.07)
    assert (found - clean).std() < 0.4 * noise.std()
    # the noise alone is up to 0.1; a blur would take 0.9 off the line of a pixel
    assert (found - clean).abs().max() < 0.15


def test_light_comes_to_have_the_mean_and_the_covariance_of_the_real() -> None:
    random = torch.Generator().manual_seed(0)

    def thumbnails(count: int) -> Tensor:
        """Smooth: of few components."""
        coarse = torch.randn(count, 3, 2, 2, generator=random)
        return torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bilinear")

    real, drawn = 0.4 * thumbnails(2000), 0.1 * thumbnails(500) + 0.3
    moved = color_transfer(drawn, real).flatten(1)
    wanted = real.flatten(1)
    assert (moved.mean(dim=0) - wanted.mean(dim=0)).abs().max() < 0.02
    assert (torch.cov(moved.T) - torch.cov(wanted.T)).norm() < 0.1 * torch.cov(wanted.T).norm()
    assert torch.allclose(color_transfer(real, real), real, atol=1e-3)


def test_the_decoder_learns_the_corrections_and_nothing_else_changes(model: Model, faces: Faces) -> None:
    before = {domain: drawings(model, faces, domain) for domain in DOMAINS}
    weights = {
        (network, name): p.clone() for network, net in model.networks().items() for name, p in net.named_parameters()
    }
    options = Refinement(drawings=100, passes=20, batch_size=8, learning_rate=1e-2)
    first, last = refine(model, faces, "anime", options)
    assert last < 0.5 * first
    changed = {
        (network, name.split(".")[0])
        for network, net in model.networks().items()
        for name, p in net.named_parameters()
        if not torch.equal(p, weights[network, name])
    }
    assert changed == {("generator", "decode"), ("generator", "to_rgb")}
    assert not any(p.requires_grad for net in model.networks().values() for p in net.parameters())
    moved = {domain: (drawings(model, faces, domain) - before[domain]).mean().abs() for domain in DOMAINS}
    assert moved["photo"] < 0.3 * moved["anime"]
    real = faces.pictures[0].float().mean() / 127.5 - 1
    assert (drawings(model, faces, "anime").mean() - real).abs() < 0.5 * (before["anime"].mean() - real).abs()
    facts = model.config.training["refined"]["anime"]
    assert (facts["passes"], facts["groups"]) == (20, [""])


def test_the_same_again_is_the_same(model: Model, faces: Faces) -> None:
    found = []
    for _ in range(2):
        own = deepcopy(model)
        refine(own, faces, "anime", SHORT)
        found.append(drawings(own, faces, "anime"))
    assert torch.equal(*found)


def test_groups_are_of_their_own_photos(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group may be in one domain of sources alone; each is corrected by itself, for seeds and for pictures."""
    write_faces(data, "selfie", 10)
    faces = Faces(data, 32, torch.device("cpu"))
    torch.manual_seed(0)
    model = Model.build(ModelConfig("mine", faces.domains, Architecture(32, base_channels=8, max_channels=16)))
    seen, sizes = [], []
    encoder, corrected = model.generator.encoder, refining._corrected
    monkeypatch.setattr(model.generator, "encoder", lambda x: (seen.append(x.mean().item()), encoder(x))[1])
    monkeypatch.setattr(refining, "_corrected", lambda x, *rest: (sizes.append(len(x)), corrected(x, *rest))[1])
    refine(model, faces, "anime", SHORT, groups=("g", "n"))
    assert sizes == [30] * 6
    # two batches each for seeds and pictures: photos of g, of n, selfies of g; what stays as it is comes after
    assert [mean > 0 for mean in seen[:12]] == [False] * 4 + [True] * 4 + [False] * 4
    with pytest.raises(DataError, match=r"^No source has a name that begins with 'x'\.$"):
        refine(model, faces, "anime", SHORT, groups=("g", "x"))


def test_the_quick_way_learns_the_same(
    model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In bf16 and compiled: kernels are there on any CPU, if slow ones."""
    plain = replace(SHORT, drawings=32, passes=4, learning_rate=1e-3)  # batches of one size: compiled once
    found = []
    for has, options in (
        (True, plain),
        (True, replace(plain, bf16=True, compile=True)),
        (False, replace(plain, bf16=True)),
    ):
        own = deepcopy(model)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        _, last = refine(own, faces, "anime", options)
        found.append((own.config.training["refined"]["anime"]["bf16"], last, drawings(own, faces, "anime")))
    (_, last, drawn), (bf16, quick_last, quick), (fallen, slow_last, slow) = found
    assert (bf16, fallen) == (True, False)
    assert torch.equal(slow, drawn)
    assert slow_last == last
    assert "bf16 is not known to be fast here" in caplog.text
    moved = (drawn - drawings(model, faces, "anime")).abs().mean()
    assert 0 < (quick - drawn).abs().mean() < 0.2 * moved
    assert quick_last == pytest.approx(last, rel=0.02)


def test_a_finisher_learns_where_the_decoder_stays(model: Model, faces: Faces, tmp_path: Path) -> None:
    plain = {domain: drawings(model, faces, domain) for domain in DOMAINS}
    decoder = {name: p.clone() for name, p in model.generator.named_parameters()}
    options = Refinement(drawings=100, passes=10, batch_size=8, learning_rate=3e-3, finish_channels=4)
    own = deepcopy(model)
    first, last = refine(own, faces, "anime", options)
    without, _ = refine(deepcopy(model), faces, "anime", replace(options, finish_channels=0, passes=1))
    assert first == without
    assert last < 0.5 * first
    assert own.config.architecture.finish_channels == 4
    assert own.config.training["finished"]["anime"]["finish_channels"] == 4
    assert all(torch.equal(p, decoder[name]) for name, p in own.generator.named_parameters() if name in decoder)
    assert not any(p.requires_grad for p in own.generator.parameters())
    moved = {domain: (drawings(own, faces, domain) - plain[domain]).abs().mean() for domain in DOMAINS}
    assert moved["photo"] < 0.5 * moved["anime"]
    save_model(own, tmp_path / "finished", torch.float32)
    assert torch.equal(drawings(load_model(tmp_path / "finished"), faces, "anime"), drawings(own, faces, "anime"))


def test_a_finisher_learns_on_or_leaves_it_to_the_decoder(model: Model, faces: Faces) -> None:
    refine(model, faces, "anime", replace(SHORT, finish_channels=4))
    for channels, part in ((4, "finish"), (0, "decode")):
        before = deepcopy(model)
        refine(model, faces, "anime", replace(SHORT, finish_channels=channels))
        changed = {
            name
            for name, p in model.generator.named_parameters()
            if not torch.equal(p, before.generator.get_parameter(name))
        }
        assert {name.split(".")[0].replace("to_rgb", "decode") for name in changed} == {part}
    with pytest.raises(
        ConfigError, match=r"^The model has a finisher of 4 channels: the option finish_channels must be 4 or 0\.$"
    ):
        refine(model, faces, "anime", replace(SHORT, finish_channels=8))


@pytest.mark.parametrize("drawings", [25, 50])  # the last batch is of one drawing; there are 50 steps
def test_any_number_of_drawings_is_learned(model: Model, faces: Faces, drawings: int) -> None:
    options = Refinement(drawings=drawings, passes=4, batch_size=8, light=0.0, denoise=0.0)
    refine(model, faces, "anime", options)
    assert all(torch.isfinite(p).all() and p.grad is None for p in model.generator.parameters())


def test_a_monochrome_domain_is_corrected_in_luma(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    model.config = replace(model.config, grayscale_domains=("anime",))
    seen = []
    learn = refining._learn
    monkeypatch.setattr(refining, "_learn", lambda m, own, *rest: (seen.append(own), learn(m, own, *rest))[1])
    refine(model, faces, "anime", SHORT)
    aims = seen[0].aims.float()
    assert (aims - aims[:, :1]).abs().max() <= 1
    assert aims.std() > 1


def test_what_there_is_not_enough_of_is_named(tmp_path: Path, model: Model, faces: Faces) -> None:
    with pytest.raises(DataError, match=r"^manga is not a domain of the model: these are anime, photo\.$"):
        refine(model, faces, "manga", SHORT)
    write_faces(tmp_path / "alone", "anime", 10)
    alone = Model.build(replace(model.config, domains=("anime",)))
    with pytest.raises(DataError, match="nothing to draw it from"):
        refine(alone, Faces(tmp_path / "alone", 32, torch.device("cpu")), "anime", SHORT)
    faces.pictures[0] = faces.pictures[0][:1]
    with pytest.raises(DataError, match="fewer than two different pictures"):
        refine(model, faces, "anime", SHORT)


def test_what_refinement_cannot_do_is_refused(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture(32, base_channels=8, max_channels=16, high_pass_weight=1.0)
    with pytest.raises(ConfigError, match="landmark masks"):
        refine(Model.build(ModelConfig("mine", DOMAINS, architecture)), faces, "anime", SHORT)
    monkeypatch.setenv("STARGAN_COMPILE", "0")
    with pytest.raises(ConfigError, match=r"Nothing can be compiled here, because STARGAN_COMPILE is 0"):
        refine(model, faces, "anime", replace(SHORT, compile=True))
    with pytest.raises(ConfigError, match="passes must be 1 or more"):
        Refinement(passes=0)
    with pytest.raises(ConfigError, match="drawings must be 25 or more"):
        Refinement(drawings=24)
    with pytest.raises(ConfigError, match=r"^The option finish_channels must be 0 to 64, not 65\.$"):
        Refinement(finish_channels=65)


def test_the_command_writes_a_model_with_its_discriminator(
    model: Model, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_model(model, tmp_path / "mine")
    save_discriminator(Discriminator(32, 2, 8, 16), tmp_path / "mine")
    command = ["refine", str(tmp_path / "mine"), "--data", str(data), "--drawings", "30", "--passes", "2"]
    assert main([*command, "--groups", "g", "n", "--light", "0.5", "--output", str(tmp_path / "better")]) == 0
    assert capsys.readouterr().out.startswith("anime: drawings are 0.")
    found = load_model(tmp_path / "better")
    assert found.config.name == "better"
    facts = found.config.training["refined"]["anime"]
    assert (facts["light"], facts["sharpen"], facts["groups"]) == (0.5, Refinement.sharpen, ["g", "n"])
    assert (tmp_path / "better" / DISCRIMINATOR_FILE).exists()
    (tmp_path / "file").touch()
    assert main([*command, "--output", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    (tmp_path / "mine" / DISCRIMINATOR_FILE).write_bytes(b"broken")
    assert main([*command, "--output", str(tmp_path / "other")]) == 2  # before the work
    assert "drawing" not in capsys.readouterr().err


def test_help_tells_the_defaults(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["refine", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in NAMES:
        of = told[told.index(f"--{name.replace('_', '-')} ", told.index("options:")) :]
        assert of[: of.index(")")].endswith(f"(default: {getattr(Refinement, name):g}")
