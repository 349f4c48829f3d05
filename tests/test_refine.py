"""Refinement of a decoder by its own corrected drawings, and a finisher that learns to restore spoiled ones, on random networks and
noise."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stargan.commands import main
from stargan.commands.finish import NAMES as FINISHING
from stargan.commands.match import NAMES as MATCHING
from stargan.commands.refine import NAMES
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import Architecture, ModelConfig
from stargan.networks import Discriminator
from stargan.pictures.tensors import to_levels
from stargan.training import finish as finishing
from stargan.training import match as matches
from stargan.training import refine as refining
from stargan.training.augment import to_luma
from stargan.training.config import ConfigError
from stargan.training.data import DataError, Faces
from stargan.training.finish import Finishing, PatchDiscriminator, finish
from stargan.training.match import Matching, match
from stargan.training.refine import Drawings, Refinement, color_transfer, non_local_means, refine
from stargan.training.state import DISCRIMINATOR_FILE, save_discriminator

DOMAINS = ("anime", "photo")
SHORT = Refinement(drawings=30, passes=1, batch_size=8)
FEW = Matching(drawings=30, steps=4, batch_size=4)
BRIEF = Finishing(drawings=30, steps=20, batch_size=4, channels=4)


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


def seen(x: Tensor) -> Tensor:
    """As a classifier would: ``(N, 4)``, of colours and of edges."""
    edges = (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3))
    return torch.cat([x.mean(dim=(2, 3)), 2 * edges[:, None]], dim=1)


def matched(model: Model, faces: Faces, domain: str, options: Matching) -> tuple[float, float]:
    return match(model, faces, domain, [seen], options)


@pytest.mark.parametrize(("work", "options"), [(refine, SHORT), (finish, BRIEF), (matched, FEW)])
def test_the_same_again_is_the_same(model: Model, faces: Faces, work: Callable, options: Drawings) -> None:
    found = []
    for _ in range(2):
        own = deepcopy(model)
        work(own, faces, "anime", options)
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


def test_a_monochrome_domains_photos_are_seen_in_luma(model: Model, faces: Faces) -> None:
    """As in training, where their files are in colour."""
    model.config = replace(model.config, grayscale_domains=("photo",))
    random, again = (torch.Generator().manual_seed(0) for _ in range(2))
    lesson = refining._draw(model, faces, 1, None, 0, "latent", 6, random)
    gray = Faces.__new__(Faces)
    vars(gray).update(vars(faces))
    gray.pictures = [faces.pictures[0], to_luma(faces.pictures[1].float()).round().byte()]
    expected = refining._draw(model, gray, 1, None, 0, "latent", 6, again)
    assert (faces.pictures[1] - faces.pictures[1][:, :1]).any()
    assert (lesson.features - expected.features).abs().max() < 0.05 * expected.features.abs().max()


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
    finished = Architecture(32, base_channels=8, max_channels=16, finish_channels=4)
    with pytest.raises(ConfigError, match="has a finisher"):
        refine(Model.build(ModelConfig("mine", DOMAINS, finished)), faces, "anime", SHORT)


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
    assert main([*command, "--output", str(tmp_path / ("n" * 101))]) == 2  # before the work, as is what follows
    assert "name" in (told := capsys.readouterr().err)
    assert "drawing" not in told
    (tmp_path / "mine" / DISCRIMINATOR_FILE).write_bytes(b"broken")
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "drawing" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "names", "options"),
    [("refine", NAMES, Refinement), ("finish", FINISHING, Finishing), ("match", MATCHING, Matching)],
)
def test_help_tells_the_defaults(
    command: str, names: tuple[str, ...], options: type[Drawings], capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for name in names:
        of = told[told.index(f"--{name.replace('_', '-')} ", told.index("options:")) :]
        assert of[: of.index(")")].endswith(f"(default: {getattr(options, name):g}")


def test_what_is_spoiled_is_still_the_same_drawing() -> None:
    """Its details are gone and its lines shifted, by no more than a few px; seen from afar, it is as it was."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 4, 4, generator=random) * 1.6 - 0.8
    x = torch.nn.functional.interpolate(coarse, size=128, mode="nearest")
    spoiled = finishing._spoiled(x, torch.zeros(2, 3, 128, 128), random)
    assert spoiled.shape == x.shape
    edges = (x[..., 1:] - x[..., :-1]).abs().amax(), (spoiled[..., 1:] - spoiled[..., :-1]).abs().amax()
    assert edges[1] < 0.9 * edges[0]
    blocks = torch.nn.functional.avg_pool2d(spoiled - x, 32)
    assert blocks.abs().max() < 0.25
    assert 0.02 < (spoiled - x).abs().mean() < 0.2
    weave = 0.1 * torch.randn(2, 3, 128, 128, generator=random)
    woven = finishing._spoiled(x, weave, random)
    assert finishing.non_local_means(woven, 0.2).sub(woven).std() > 0.08  # 0.04 without it


def test_patches_are_as_wide_as_they_are_said_to_be() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator(4)
    x = torch.randn(1, 3, 128, 128, requires_grad=True)
    for logits, width in zip(judge(x)[0], (10, 24, 52), strict=True):
        side = logits.shape[2]
        (gradient,) = torch.autograd.grad(logits[0, 0, side // 2, side // 2], x, retain_graph=True)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero()
        assert seen.max() - seen.min() + 1 == width


def test_spoiled_drawings_are_restored(model: Model, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By regression alone, which the first phase is; the discriminator then asks for sharp lines rather than for the right ones."""
    random = np.random.default_rng(0)
    for file in (data / "anime").iterdir():  # with lines that can be restored
        blocks = Image.fromarray(random.choice(np.array([0, 255], np.uint8), (4, 4, 3)))
        blocks.resize((32, 32), Image.Resampling.NEAREST).save(file)
    monkeypatch.setattr(finishing, "ALONE", 1.0)
    monkeypatch.setattr(finishing, "GRID", 0.0)
    monkeypatch.setattr(finishing, "_weave", torch.zeros_like)  # drawings of random weights are all weave
    options = replace(BRIEF, steps=1000, learning_rate=3e-3, channels=8)
    spoiled, restored = finish(model, Faces(data, 32, torch.device("cpu")), "anime", options)
    assert restored < 0.95 * spoiled


def test_a_finisher_learns_light_and_nothing_else_changes(model: Model, faces: Faces, tmp_path: Path) -> None:
    plain = {domain: drawings(model, faces, domain) for domain in DOMAINS}
    before = {name: deepcopy(net.state_dict()) for name, net in model.networks().items()}
    own = deepcopy(model)
    finish(own, faces, "anime", replace(BRIEF, steps=200, learning_rate=3e-3), ("g",))
    assert own.config.architecture.finish_channels == 4
    (facts,) = own.config.training["finished"]
    assert (facts["steps"], facts["groups"]) == (200, ["g"])
    for name, net in own.networks().items():
        assert all(torch.equal(net.state_dict()[key], tensor) for key, tensor in before[name].items())
        assert not any(p.requires_grad for p in net.parameters())
    moved = {domain: (drawings(own, faces, domain) - plain[domain]).abs().mean() for domain in DOMAINS}
    assert moved["photo"] < 0.5 * moved["anime"]
    light = faces.pictures[0].float().mean() / 127.5 - 1  # of real drawings
    assert (drawings(own, faces, "anime").mean() - light).abs() < 0.5 * (plain["anime"].mean() - light).abs()
    save_model(own, tmp_path / "finished", torch.float32)
    assert torch.equal(drawings(load_model(tmp_path / "finished"), faces, "anime"), drawings(own, faces, "anime"))


def test_each_phase_moves_what_learns_in_it(
    model: Model,
    faces: Faces,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The discriminator learns from the second on; the finisher not in that, and in the third it is told what to do by the other."""
    moved, fooled = [], []
    step, fooling = finishing._Learning.step, finishing._Learning._fooling

    def watched(self: finishing._Learning, *given: Tensor) -> Tensor:
        nets = (self.finisher, self.judge)
        earlier = [[p.clone() for p in net.parameters()] for net in nets]
        found = step(self, *given)
        moved.append(
            tuple(
                any(not torch.equal(*pair) for pair in zip(e, net.parameters(), strict=True))
                for e, net in zip(earlier, nets, strict=True)
            )
        )
        return found

    def fooled_by(self: finishing._Learning, *given: Tensor) -> Tensor:
        fooled.append(fooling(self, *given))
        return fooled[-1]

    monkeypatch.setattr(finishing._Learning, "step", watched)
    monkeypatch.setattr(finishing._Learning, "_fooling", fooled_by)
    finish(model, faces, "anime", BRIEF)
    assert moved == [(True, False)] * 9 + [(False, True)] * 2 + [(True, True)] * 9
    assert len(fooled) == 9
    assert all(loss.item() > 0 for loss in fooled)


def test_a_finisher_learns_on(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its weights, by the same drawings as before: what it makes of them is not what it is to restore."""
    seen = []
    drawn = finishing._drawn
    monkeypatch.setattr(finishing, "_drawn", lambda *given: (seen.append(drawn(*given)), seen[-1])[1])
    finish(model, faces, "anime", replace(BRIEF, steps=200, learning_rate=3e-3))
    before = deepcopy(model.generator.finish)
    finish(model, faces, "anime", replace(BRIEF, steps=1, learning_rate=1e-6))
    assert torch.equal(seen[0], seen[2])
    moved = [(p - q).abs().max() for p, q in zip(before.parameters(), model.generator.finish.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-5
    assert [facts["steps"] for facts in model.config.training["finished"]] == [200, 1]


def test_a_finisher_of_another_domain_learns_on(model: Model, faces: Faces) -> None:
    """What it does in the first one stays."""
    plain = drawings(model, faces, "anime")
    for domain in DOMAINS:
        finish(model, faces, domain, replace(BRIEF, steps=200, learning_rate=3e-3))
        if domain == "anime":
            first = drawings(model, faces, "anime")
    assert (drawings(model, faces, "anime") - first).abs().mean() < 0.3 * (first - plain).abs().mean()


def test_the_quick_way_finishes_the_same(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16 and compiled: kernels are there on any CPU, if slow ones."""
    found = []
    for options in (BRIEF, replace(BRIEF, bf16=True, compile=True)):
        own = deepcopy(model)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
        _, restored = finish(own, faces, "anime", options)
        found.append((restored, own.config.training["finished"][0]["bf16"]))
    (plain, _), (quick, bf16) = found
    assert bf16
    assert quick == pytest.approx(plain, rel=0.1)


def test_a_monochrome_domain_is_finished_in_luma(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is seen: what the discriminator is shown has no colours, drawn or real."""
    model.config = replace(model.config, grayscale_domains=("anime",))
    seen = []
    judge = finishing._Learning._judge
    monkeypatch.setattr(finishing._Learning, "_judge", lambda *given: (seen.append(given[2:]), judge(*given))[1])
    finish(model, faces, "anime", BRIEF)
    assert seen
    assert all((x - x[:, :1]).abs().max() < 1e-5 for pair in seen for x in pair)


def test_what_cannot_be_finished_is_refused(model: Model, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = Architecture(32, base_channels=8, max_channels=16, finish_channels=8)
    with pytest.raises(ConfigError, match=r"has a finisher of 8 channels: the option channels must be 8\.$"):
        finish(Model.build(ModelConfig("mine", DOMAINS, finished)), faces, "anime", BRIEF)
    monkeypatch.setenv("STARGAN_COMPILE", "0")
    with pytest.raises(ConfigError, match=r"Nothing can be compiled here, because STARGAN_COMPILE is 0"):
        finish(model, faces, "anime", replace(BRIEF, compile=True))
    with pytest.raises(ConfigError, match=r"^The option channels must be 1 to 64, not 65\.$"):
        Finishing(channels=65)
    with pytest.raises(ConfigError, match="steps must be 1 or more"):
        Finishing(steps=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_steps_can_be_taken(model: Model, faces: Faces, steps: int) -> None:
    found = finish(model, faces, "anime", replace(BRIEF, steps=steps))
    assert all(0 < difference < 1 for difference in found)


def test_the_command_finishes_a_model_with_its_discriminator(
    model: Model,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    save_model(model, tmp_path / "mine")
    save_discriminator(Discriminator(32, 2, 8, 16), tmp_path / "mine")
    command = ["finish", str(tmp_path / "mine"), "--data", str(data), "--drawings", "30", "--steps", "4"]
    assert main([*command, "--groups", "g", "--channels", "4", "--output", str(tmp_path / "better")]) == 0
    assert capsys.readouterr().out.startswith("anime: spoiled drawings are 0.")
    found = load_model(tmp_path / "better")
    assert (found.config.name, found.config.architecture.finish_channels) == ("better", 4)
    assert (tmp_path / "better" / DISCRIMINATOR_FILE).exists()


# matching


@pytest.mark.parametrize("finished", [False, True])
def test_sets_of_drawings_get_what_real_ones_have_and_nothing_else_changes(
    finished: bool, model: Model, faces: Faces
) -> None:
    if finished:
        finish(model, faces, "anime", BRIEF)
    plain = drawings(model, faces, "anime")  # real ones are like these, but darker, and each its own way
    faces.pictures[0] = to_levels(plain - 0.2 + torch.linspace(-0.5, 0.5, len(plain))[:, None, None, None])
    faces.names[0] = faces.names[0][: len(faces.pictures[0])]
    faces.tell_apart(())
    own = deepcopy(model)
    options = replace(FEW, steps=200, batch_size=16, learning_rate=1e-3)
    before, after = match(own, faces, "anime", [seen, lambda x: seen(x)[:, :2]], options, ("g", "n"))
    assert after < 0.8 * before
    (facts,) = own.config.training["matched"]
    assert (facts["steps"], facts["groups"], facts["judges"]) == (200, ["g", "n"], 2)
    for name, net in own.networks().items():
        assert not any(p.requires_grad for p in net.parameters())
        learned = {
            key.partition(".")[0]
            for key, tensor in model.networks()[name].state_dict().items()
            if not torch.equal(net.state_dict()[key], tensor)
        }
        assert learned == ({"decode", "to_rgb"} if name == "generator" else set())
    moved = {d: (drawings(own, faces, d) - drawings(model, faces, d)).abs().mean() for d in DOMAINS}
    assert moved["photo"] < 0.65 * moved["anime"]  # 0.9 of it, if they were not held


def test_patches_are_told_where_to_lie_by_their_rank(model: Model, faces: Faces) -> None:
    """The aims of a set that is a shift off are that shift away, and of one that is right, nowhere."""
    random = torch.Generator().manual_seed(0)
    real = matches._Real(model, faces, 0, [seen], random)
    lesson = refining._draw(model, faces, 1, None, 0, "latent", 30, random)
    one = matches._Set(replace(lesson, aims=faces.pictures[0][:30]), [seen], real, torch.device("cpu"), random)
    x = faces.pictures[0][:30].float() / 127.5 - 1
    right = matches._patch_distance(one, torch.arange(30), x, real, random)
    one.patches = {side: patches + 2.0 for side, patches in one.patches.items()}
    x = (x + 2.0 * real.scales[16][0].flatten()[:, None, None]).requires_grad_(True)
    off = matches._patch_distance(one, torch.arange(30), x, real, random)
    assert right < 0.2 * off
    off.backward()
    assert x.grad is not None
    assert (x.grad.sum(dim=(2, 3)) > 0).float().mean() > 0.9  # down, which is where real ones lie


def test_what_cannot_be_matched_is_said_before_the_classifiers(
    data: Path, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_model(model, tmp_path / "mine")
    command = ["match", str(tmp_path / "mine"), "--data", str(data), "--output", str(tmp_path / "better")]
    for options, said in ((["--domain", "manga"], "manga is not a domain"), (["--groups", "q"], "begins with 'q'")):
        assert main([*command, *options]) == 2
        assert said in (told := capsys.readouterr().err)
        assert "training the judge" not in told


def test_match_as_a_command(
    data: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("stargan.evaluation.judge.MOST_STEPS", 3)
    save_model(model, tmp_path / "mine")
    command = ["match", str(tmp_path / "mine"), "--data", str(data), "--output", str(tmp_path / "better")]
    assert main([*command, "--judges", "2", "--steps", "3", "--drawings", "30"]) == 0
    assert "from those of real drawings" in capsys.readouterr().out
    found = load_model(tmp_path / "better")
    assert (found.config.name, found.config.training["matched"][0]["judges"]) == ("better", 2)
