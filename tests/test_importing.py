"""Published checkpoints: synthetic ones in exactly the released format, each imported or refused by name."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from parity import Synthetic
from PIL import Image
from torch import Tensor

from stargan import Translator, landmarks, load_translator
from stargan.commands import main
from stargan.drawing import CACHE, Source, prepare, prepare_reference
from stargan.landmarks import LandmarkNetwork
from stargan.models.checkpoint import Model, load_model
from stargan.models.config import CELEBA_HQ_FRAMING, ModelError
from stargan.models.importing import import_checkpoint
from stargan.networks import Discriminator, Generator, MappingNetwork, StyleEncoder
from stargan.pictures import faces
from stargan.pictures.tensors import to_pictures, to_tensor

State = dict[str, Tensor]
Checkpoint = dict[str, Any]
FAST = {"image_size": 64, "base_channels": 8, "max_channels": 32}  # the widths do not matter to the format


def networks(domains: int = 3, high_pass_weight: float = 0.0, **architecture: int) -> dict[str, torch.nn.Module]:
    """What a released file holds, with random weights."""
    a = FAST | architecture
    fill = Synthetic(0).fill
    return {
        "generator": fill(Generator(style_dim=64, high_pass_weight=high_pass_weight, **a)),
        "mapping_network": fill(MappingNetwork(16, 64, domains)),
        "style_encoder": fill(StyleEncoder(style_dim=64, num_domains=domains, **a)),
    }


def states(nets: dict[str, torch.nn.Module]) -> dict[str, State]:
    return {name: dict(net.state_dict()) for name, net in nets.items()}


@pytest.fixture(scope="module")
def afhq() -> dict[str, torch.nn.Module]:
    return networks()


@pytest.fixture(scope="module")
def celeba() -> dict[str, torch.nn.Module]:
    return networks(2, 1.0)


@pytest.fixture
def checkpoint(afhq: dict[str, torch.nn.Module]) -> Checkpoint:
    """A file without high-pass filter, as released for AFHQ: tests may change it."""
    return states(afhq)


@pytest.fixture
def high_pass(celeba: dict[str, torch.nn.Module]) -> Checkpoint:
    """A file with high-pass filter, as released for CelebA-HQ: without the buffer hpf.filter."""
    found = states(celeba)
    del found["generator"]["hpf.filter"]
    return found


@pytest.fixture(scope="module")
def landmark_network() -> LandmarkNetwork:
    return Synthetic(0).fill(LandmarkNetwork())


@pytest.fixture(scope="module")
def wing(landmark_network: LandmarkNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The landmark network's file: of a stack of several hourglasses, saved in training."""
    later = {
        "bl0.weight": torch.ones(256, 256, 1, 1),
        "al0.weight": torch.ones(256, 99, 1, 1),
        "m1.coordconv.conv.weight": torch.ones(256, 261, 1, 1),
        "top_m_1.bn1.bias": torch.ones(256),
        "conv_last1.bias": torch.ones(256),
        "bn_end1.bias": torch.ones(256),
        "l1.bias": torch.ones(99),
    }
    file = tmp_path_factory.mktemp("wing") / "wing.ckpt"
    torch.save({"epoch": 60, "state_dict": dict(landmark_network.state_dict()) | later}, file)
    return file


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[object], Path]:
    """Writes a file of the released name."""

    def save(content: object, **options: bool) -> Path:
        file = tmp_path / "100000_nets_ema.ckpt"
        torch.save(content, file, **options)
        return file

    return save


Pictures = list[Tensor]


def drawn(nets: dict[str, torch.nn.Module]) -> Pictures:
    """A latent-guided and a reference-guided picture."""
    s = Synthetic(1)
    size, domain = nets["generator"].image_size, torch.tensor([1])
    x, ref = s.img("x", 1, size), s.img("ref", 1, size)
    with torch.no_grad():
        masks = nets["landmarks"].masks(x) if "landmarks" in nets else None
        styles = nets["mapping_network"](s.vec("z", 1, 16), domain), nets["style_encoder"](ref, domain)
        return [nets["generator"](x, style, masks) for style in styles]


@pytest.fixture(scope="module")
def afhq_pictures(afhq: dict[str, torch.nn.Module]) -> Pictures:
    return drawn(afhq)


@pytest.fixture(scope="module")
def celeba_pictures(celeba: dict[str, torch.nn.Module], landmark_network: LandmarkNetwork) -> Pictures:
    return drawn(celeba | {"landmarks": landmark_network})


def draws(model: Model, pictures: Pictures) -> bool:
    """Bit for bit."""
    return all(map(torch.equal, drawn(model.networks()), pictures))


# imported


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "as before PyTorch 1.6"])
def test_without_high_pass(saved, checkpoint: Checkpoint, afhq_pictures: Pictures, zipped: bool) -> None:
    model = import_checkpoint(saved(checkpoint, _use_new_zipfile_serialization=zipped))
    assert model.config.domains == ("cat", "dog", "wild")
    assert model.config.framing is None
    assert model.config.licence == "CC BY-NC 4.0"
    assert model.config.architecture.high_pass_weight == 0
    assert model.landmarks is None
    assert draws(model, afhq_pictures)


@pytest.mark.parametrize("has_filter", [False, True])
def test_with_high_pass(saved, high_pass: Checkpoint, celeba, celeba_pictures, wing: Path, has_filter: bool) -> None:
    if has_filter:
        high_pass["generator"]["hpf.filter"] = celeba["generator"].hpf.filter
    model = import_checkpoint(saved(high_pass), landmarks=wing)
    assert model.config.domains == ("female", "male")
    assert model.config.framing == CELEBA_HQ_FRAMING
    assert model.config.architecture.high_pass_weight == 1
    assert draws(model, celeba_pictures)


def test_saved_and_loaded(saved, high_pass: Checkpoint, celeba_pictures: Pictures, wing: Path, tmp_path: Path) -> None:
    file, folder = saved(high_pass), tmp_path / "celeba"
    assert main(["import", str(file), "--landmarks", str(wing), "--output", str(folder)]) == 0
    model = load_model(folder)
    assert model.config.name == "celeba"
    assert draws(model, celeba_pictures)


def test_a_sheet_is_of_what_the_model_draws(saved, high_pass: Checkpoint, wing: Path, tmp_path: Path) -> None:
    """With the edges of the high-pass filter."""
    folder, faces, file = tmp_path / "celeba", tmp_path / "val" / "female", tmp_path / "cards" / "sheet.png"
    faces.mkdir(parents=True)
    Image.effect_noise((64, 64), 90).convert("RGB").save(faces / "a.png")
    assert main(["import", str(saved(high_pass)), "--landmarks", str(wing), "--output", str(folder)]) == 0
    command = ["sheet", str(folder), "--validation", str(faces.parent), "--domain", "male"]
    assert main([*command, "--output", str(file)]) == 0
    model = load_translator(str(folder))
    face = Image.open(faces / "a.png").resize((model.image_size, model.image_size), Image.Resampling.LANCZOS)
    drawn = model.decode(model.encode(face), model.latent_styles("male", [1]), "male")[0]
    begin, size = model.image_size + 2, model.image_size
    with Image.open(file) as sheet:
        cell = np.asarray(sheet.convert("RGB").crop((begin, 0, begin + size, size)), int)
    assert np.abs(cell - np.asarray(drawn, int)).max() <= 2


def test_published_widths(saved) -> None:
    """At 256 px: the released architecture, in zeros that take no memory."""
    with torch.device("meta"):
        nets = {
            "generator": Generator(256),
            "mapping_network": MappingNetwork(16, 64, 3),
            "style_encoder": StyleEncoder(256, 64, 3),
        }
    zeros = {
        name: {key: torch.zeros(1).expand(tensor.shape) for key, tensor in net.state_dict().items()}
        for name, net in nets.items()
    }
    model = import_checkpoint(saved(zeros))
    a = model.config.architecture
    assert (a.image_size, a.base_channels, a.max_channels, a.style_dim, a.latent_dim) == (256, None, 512, 64, 16)


@pytest.mark.parametrize(
    ("image_size", "base_channels", "max_channels", "high_pass_weight"),
    [
        (32, 8, 512, 0.0),
        (32, 8, 24, 1.0),
        (128, 4, 16, 0.0),
        (128, 4, 128, 2.5),
        (64, 4, 2048, 0.0),
        (64, None, 256, 0.0),
    ],
)
def test_architectures(
    saved, wing: Path, image_size: int, base_channels: int | None, max_channels: int, high_pass_weight: float
) -> None:
    """Read off the tensors alone: the same networks are built, whatever bound on the widths they come from."""
    nets = networks(4, high_pass_weight, image_size=image_size, base_channels=base_channels, max_channels=max_channels)
    model = import_checkpoint(saved(states(nets)), landmarks=wing if high_pass_weight else None, domains=tuple("abcd"))
    a = model.config.architecture
    assert (a.image_size, a.base_channels, a.high_pass_weight) == (image_size, base_channels, high_pass_weight)
    for name, net in nets.items():
        found = model.networks()[name].state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in net.state_dict().items())


@pytest.mark.parametrize("has_fan", [True, False])
def test_prefixes(saved, high_pass: Checkpoint, celeba_pictures, landmark_network, wing: Path, has_fan: bool) -> None:
    """Data-parallel training puts ``module.`` before every name; its files may hold the landmark network themselves."""
    if has_fan:
        high_pass["fan"] = landmark_network.state_dict()
    prefixed = {name: {f"module.{key}": t for key, t in state.items()} for name, state in high_pass.items()}
    model = import_checkpoint(saved(prefixed), landmarks=None if has_fan else wing)
    assert draws(model, celeba_pictures)


def test_what_a_person_may_choose(saved, checkpoint: Checkpoint) -> None:
    model = import_checkpoint(
        saved(checkpoint), domains=("a", "b", "c"), framing="celeba-hq", name="mine", licence="mine alone"
    )
    assert (model.config.name, model.config.domains, model.config.licence) == ("mine", ("a", "b", "c"), "mine alone")
    assert model.config.framing == CELEBA_HQ_FRAMING


# the high-pass filter


def test_weight_of_a_lacking_filter(saved, high_pass: Checkpoint, wing: Path) -> None:
    model = import_checkpoint(saved(high_pass), landmarks=wing, high_pass_weight=2.0)
    assert torch.equal(model.generator.hpf.filter, torch.tensor([[-0.5] * 3, [-0.5, 4, -0.5], [-0.5] * 3]))
    assert model.config.architecture.high_pass_weight == 2


def test_weight_is_read_off_the_filter(saved, high_pass: Checkpoint, celeba, wing: Path) -> None:
    high_pass["generator"]["hpf.filter"] = celeba["generator"].hpf.filter / 0.3
    file = saved(high_pass)
    assert import_checkpoint(file, landmarks=wing).config.architecture.high_pass_weight == 0.3
    with pytest.raises(ModelError, match=r"hpf\.filter has the high-pass weight 0\.3, not 1\."):
        import_checkpoint(file, landmarks=wing, high_pass_weight=1.0)


@pytest.mark.parametrize(
    "values",
    [torch.zeros(3, 3), torch.full((3, 3), 8.0), torch.full((3, 3), float("nan")), torch.full((3, 3), torch.inf),
     torch.ones(3), torch.ones(5, 5)],
)  # fmt: skip
def test_other_filters(saved, high_pass: Checkpoint, wing: Path, values: Tensor) -> None:
    high_pass["generator"]["hpf.filter"] = values
    with pytest.raises(ModelError, match=r"generator\.hpf\.filter is not the 3×3 Laplacian"):
        import_checkpoint(saved(high_pass), landmarks=wing)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_impossible_weights(saved, high_pass: Checkpoint, wing: Path, weight: float) -> None:
    with pytest.raises(ModelError, match=f"must be more than 0, not {weight:g}"):
        import_checkpoint(saved(high_pass), landmarks=wing, high_pass_weight=weight)


def test_what_goes_with_high_pass_alone(saved, checkpoint: Checkpoint, wing: Path) -> None:
    file = saved(checkpoint)
    with pytest.raises(ModelError, match=r"wing\.ckpt has no use: the generator .* has no high-pass filter"):
        import_checkpoint(file, landmarks=wing)
    with pytest.raises(ModelError, match="a high-pass weight of 1 has no use"):
        import_checkpoint(file, high_pass_weight=1.0)
    with pytest.raises(ModelError, match="has no use"):
        import_checkpoint(saved(checkpoint | {"fan": {}}))


# refused: files


def test_code_is_not_run(saved, checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    for zipped in (True, False):
        file = saved(checkpoint | {"generator": Trap()}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match=r"is refused: it holds more than tensors, and code .* would have to run"):
            import_checkpoint(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_namespace(saved, checkpoint: Checkpoint, zipped: bool) -> None:
    content = checkpoint | {"args": argparse.Namespace(img_size=256)}
    with pytest.raises(ModelError, match=r"is refused: it holds more than tensors, and code \(argparse\.Namespace\)"):
        import_checkpoint(saved(content, _use_new_zipfile_serialization=zipped))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated(saved, checkpoint: Checkpoint, zipped: bool, part: float) -> None:
    file = saved(checkpoint, _use_new_zipfile_serialization=zipped)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelError, match=r"100000_nets_ema\.ckpt is broken or not a checkpoint\."):
        import_checkpoint(file)


@pytest.mark.parametrize(
    "content", [b"hello, this is text", b"<!DOCTYPE html><html>", b"PK\x03\x04", b"\x89PNG\r\n\x1a\n"]
)
def test_not_a_checkpoint(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "page.ckpt"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"page\.ckpt is broken or not a checkpoint\."):
        import_checkpoint(file)


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.ckpt cannot be read: No such file"):
        import_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        import_checkpoint(tmp_path)


@pytest.mark.parametrize(("content", "kind"), [(torch.ones(3), "Tensor"), ([1, 2], "list")])
def test_not_a_dictionary(saved, content: object, kind: str) -> None:
    with pytest.raises(ModelError, match=f"holds a {kind}, not a dictionary of networks"):
        import_checkpoint(saved(content))


def test_small_file_that_would_fill_the_memory(saved, checkpoint: Checkpoint, tmp_path: Path) -> None:
    """PyTorch itself reads all of these without a word."""

    class Long:
        def __reduce__(self) -> tuple[type, tuple[int]]:
            return bytearray, (10**6,)

    files = [tmp_path / "compressed.ckpt", tmp_path / "overlapping.ckpt"]
    large = saved(checkpoint | {"fan": {"x": torch.zeros(10**6)}})
    with zipfile.ZipFile(large) as plain, zipfile.ZipFile(files[0], "w", zipfile.ZIP_DEFLATED) as compressed:
        for name in plain.namelist():
            compressed.writestr(name, plain.read(name))
    assert files[0].stat().st_size < large.stat().st_size - 3 * 10**6
    with zipfile.ZipFile(files[1], "w") as archive:
        archive.writestr("a", b"0" * 10**5)
        archive.filelist += archive.filelist * 50
    for file in files:
        with pytest.raises(ModelError, match="is refused: read, it would take more memory than it has bytes"):
            import_checkpoint(file)
    for zipped in (True, False):
        file = saved(checkpoint | {"fan": {"x": Long()}}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match="is refused: read, it would take more memory than it has bytes"):
            import_checkpoint(file)


# refused: networks


@pytest.mark.parametrize("part", ["generator", "mapping_network", "style_encoder"])
def test_a_network_missing(saved, checkpoint: Checkpoint, part: str) -> None:
    del checkpoint[part]
    with pytest.raises(ModelError, match=f"lacks the {part.replace('_', ' ')}; it holds"):
        import_checkpoint(saved(checkpoint))


def test_discriminator_alone(saved) -> None:
    discriminator = Discriminator(64, 3, 8, 32).state_dict()
    with pytest.raises(
        ModelError, match="lacks the generator, mapping network and style encoder; it holds discriminator"
    ):
        import_checkpoint(saved({"discriminator": discriminator}))
    with pytest.raises(ModelError, match=r"lacks the generator.*; it holds main\.0\.weight"):
        import_checkpoint(saved(discriminator))


def test_state_of_training(saved, checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"holds the discriminator, so it is a state of training; .*_nets_ema"):
        import_checkpoint(saved(checkpoint | {"discriminator": Discriminator(64, 3, 8, 32).state_dict()}))


def test_an_unknown_network(saved, checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"holds more than .*: classifier"):
        import_checkpoint(saved(checkpoint | {"classifier": {}}))


def test_optimiser_states(saved) -> None:
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))]).state_dict()
    content = dict.fromkeys(("generator", "mapping_network", "style_encoder"), optimiser)
    with pytest.raises(ModelError, match=r"generator in .* is no state dict of a network: its entry 'state' is a dict"):
        import_checkpoint(saved(content))


@pytest.mark.parametrize("state", [{}, None, torch.ones(3)])
def test_not_a_state_dict(saved, checkpoint: Checkpoint, state: object) -> None:
    with pytest.raises(ModelError, match=r"mapping_network in .* is no state dict of a network"):
        import_checkpoint(saved(checkpoint | {"mapping_network": state}))


# refused: tensors


def refused(saved, checkpoint: Checkpoint, part: str, key: str) -> None:
    """The tensor is named, with its network."""
    with pytest.raises(ModelError) as error:
        import_checkpoint(saved(checkpoint))
    assert re.search(rf"\b{re.escape(f'{part}.{key}')}( |\.$)", str(error.value))


def some_tensors(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """Every ninth, and all that the architecture is read off."""
    telling = ("from_rgb", "encode.0.", "decode.0.norm1", "shared.0.", "shared.4.", "shared.6.", "unshared.0.6")
    keys = [(part, key) for part, tensors in checkpoint.items() for key in tensors]
    return [(part, key) for i, (part, key) in enumerate(keys) if i % 9 == 0 or key.startswith(telling)]


def test_a_missing_tensor(saved, checkpoint: Checkpoint) -> None:
    for part, key in some_tensors(checkpoint):
        tensor = checkpoint[part].pop(key)
        refused(saved, checkpoint, part, key)
        checkpoint[part][key] = tensor


def test_a_misshapen_tensor(saved, checkpoint: Checkpoint) -> None:
    for part, key in some_tensors(checkpoint):
        tensor = checkpoint[part][key]
        for axis in range(tensor.dim()):
            if (part, key, axis) == ("mapping_network", "shared.0.weight", 1):
                continue  # the only trace of the latent codes' length, which may be anything
            checkpoint[part][key] = torch.cat([tensor, tensor.narrow(axis, 0, 1)], dim=axis)
            refused(saved, checkpoint, part, key)
        checkpoint[part][key] = tensor


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("generator", "hpf.filter"),
        ("generator", "encode.0.conv1x1.bias"),
        ("generator", "extra"),
        ("generator", "module.from_rgb.weight"),
        ("mapping_network", "shared.8.weight"),
        ("style_encoder", "shared.2.norm1.weight"),
    ],
)
def test_an_extra_tensor(saved, checkpoint: Checkpoint, part: str, key: str) -> None:
    checkpoint[part][key] = torch.ones(3, 3)
    refused(saved, checkpoint, part, key)


def test_numbers_of_blocks(saved, checkpoint: Checkpoint) -> None:
    for index in (4, 5, 6):
        checkpoint["generator"][f"encode.{index}.conv1.bias"] = torch.ones(3)
    with pytest.raises(ModelError, match=r"has 7 blocks; for the style encoder's 64 px it must have 4, or 5 with"):
        import_checkpoint(saved(checkpoint))
    checkpoint["style_encoder"] = {"shared.0.weight": torch.ones(8, 3, 3, 3)}
    with pytest.raises(ModelError, match="The style encoder has 0 residual blocks"):
        import_checkpoint(saved(checkpoint))


def test_values_that_are_no_numbers(saved, checkpoint: Checkpoint, tmp_path: Path, capsys) -> None:
    checkpoint["generator"]["from_rgb.bias"] = torch.full((8,), torch.nan)
    assert main(["import", str(saved(checkpoint)), "--output", str(tmp_path / "out")]) == 2
    assert "generator.from_rgb.bias" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


# refused: landmarks


def test_landmarks_are_needed(saved, high_pass: Checkpoint) -> None:
    with pytest.raises(ModelError, match=r"needs the landmark network: add --landmarks wing\.ckpt"):
        import_checkpoint(saved(high_pass))


def test_other_landmarks(saved, high_pass: Checkpoint, landmark_network, tmp_path: Path) -> None:
    file, wing = saved(high_pass), tmp_path / "other.ckpt"
    state = dict(landmark_network.state_dict())
    cases = {
        "landmarks.l0.bias is missing": {key: tensor for key, tensor in state.items() if key != "l0.bias"},
        "landmarks.l0.bias has shape (69,) instead of (99,)": state | {"l0.bias": torch.ones(69)},
        "landmarks.conv5.weight is not part of this architecture": state | {"conv5.weight": torch.ones(1)},
    }
    for message, changed in cases.items():
        torch.save({"state_dict": changed}, wing)
        with pytest.raises(ModelError) as error:
            import_checkpoint(file, landmarks=wing)
        assert message in str(error.value)
    with pytest.raises(ModelError, match="is no state dict of a network: its entry 'generator' is a dict"):
        import_checkpoint(file, landmarks=file)


# refused: domains


def test_another_number_of_domains(saved, checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="has 3 domains, but 2 are named: cat, dog"):
        import_checkpoint(saved(checkpoint), domains=("cat", "dog"))


def test_domains_without_names(saved) -> None:
    file = saved(states(networks(4)))
    with pytest.raises(ModelError, match="has 4 domains and no names for them: add --domains with 4 names"):
        import_checkpoint(file)
    file = saved(states(networks(2)))  # as many as CelebA-HQ's, but without its high-pass filter
    with pytest.raises(ModelError, match="has 2 domains and no names for them"):
        import_checkpoint(file)


def test_networks_of_different_domains(saved, checkpoint: Checkpoint) -> None:
    checkpoint["style_encoder"] = states(networks(2))["style_encoder"]
    with pytest.raises(ModelError, match="The mapping network has 3 domains, but the style encoder 2"):
        import_checkpoint(saved(checkpoint))


@pytest.mark.parametrize("domains", [("dog", "cat", "wild"), ("cat", "cat", "dog")])
def test_unsorted_domains(saved, checkpoint: Checkpoint, domains: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="must be sorted, different names"):
        import_checkpoint(saved(checkpoint), domains=domains)


def test_unknown_framing(saved, checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="must be one of anime, celeba-hq, whole, not 'square'"):
        import_checkpoint(saved(checkpoint), framing="square")


# the command


def test_command(saved, checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = saved(checkpoint), tmp_path / "pets"
    assert main(["import", str(file), "--domains", "cat, dog, lion", "--output", str(folder)]) == 0
    assert "pets: 64 px, no high-pass filter, domains cat, dog, lion" in capsys.readouterr().out
    config = load_model(folder).config
    assert (config.name, config.domains) == ("pets", ("cat", "dog", "lion"))
    assert config.training == {"imported_from": "100000_nets_ema.ckpt"}


def test_command_refuses_in_a_sentence(saved, high_pass: Checkpoint, tmp_path: Path, capsys) -> None:
    assert main(["import", str(saved(high_pass)), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "add --landmarks wing.ckpt" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_says_where_the_files_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "github.com/clovaai/stargan-v2" in text
    assert "CC BY-NC 4.0" in text
    assert "Nothing is downloaded" in text


# used


Nets = dict[str, torch.nn.Module]
LARGE = {"image_size": 256, "base_channels": 8, "max_channels": 32}  # as released, but for the widths


@pytest.fixture(scope="module")
def celeba_hq(landmark_network: LandmarkNetwork, wing: Path, tmp_path_factory) -> tuple[Path, Nets]:
    """The folder that ``import`` makes of a CelebA-HQ checkpoint, and the networks that went into it."""
    nets = networks(2, 1.0, **LARGE)
    content = states(nets)
    del content["generator"]["hpf.filter"]
    folder = tmp_path_factory.mktemp("imported")
    torch.save(content, folder / "100000_nets_ema.ckpt")
    arguments = [folder / "100000_nets_ema.ckpt", "--landmarks", wing, "--output", folder / "celeba-hq"]
    assert main(["import", *map(str, arguments)]) == 0
    return folder / "celeba-hq", nets | {"landmarks": landmark_network}


@pytest.fixture(scope="module")
def animals(tmp_path_factory) -> tuple[Path, Nets]:
    """The same of an AFHQ checkpoint."""
    nets = networks(3, **LARGE)
    folder = tmp_path_factory.mktemp("imported")
    torch.save(states(nets), folder / "100000_nets_ema.ckpt")
    assert main(["import", str(folder / "100000_nets_ema.ckpt"), "--output", str(folder / "afhq")]) == 0
    return folder / "afhq", nets


def aligned_crop(translator: Translator, photo: Image.Image) -> Image.Image:
    return prepare(Source.open(photo), translator.config).crops[0]


def plainly(nets: Nets, picture: Image.Image, styles: Tensor) -> Tensor:
    """What the networks make of an aligned picture, one full pass a style."""
    x = to_tensor([picture])
    with torch.inference_mode():
        masks = nets["landmarks"].masks(x) if "landmarks" in nets else None
        return torch.cat([nets["generator"](x, style[None], masks) for style in styles])


def error(pictures: list[Image.Image], tensors: Tensor) -> int:
    """The largest difference, in levels of 255."""
    drawn, expected = ([np.asarray(picture, int) for picture in of] for of in (pictures, to_pictures(tensors)))
    assert len(drawn) == len(expected)
    return int(np.abs(np.stack(drawn) - np.stack(expected)).max())


def same_as_plain(translator: Translator, nets: Nets, portrait: Image.Image) -> None:
    """Drawn from seeds and by references, each by itself and together."""
    domain = translator.domains[1]
    aligned = aligned_crop(translator, portrait)
    index, codes = torch.tensor([1]), torch.stack([torch.randn(16, generator=seeded(seed)) for seed in (3, 4, 5)])
    references = [portrait.rotate(4), portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    framed = [prepare_reference(Source.open(reference), translator.config) for reference in references]
    with torch.inference_mode():
        of_seeds = nets["mapping_network"](codes, index.expand(3))
        of_references = nets["style_encoder"](to_tensor(framed), index.expand(2))
    expected = plainly(nets, aligned, of_seeds)

    encoded = translator.encode(aligned)
    styles = translator.latent_styles(domain, [3, 4, 5])
    drawn = translator.decode(encoded, styles)
    torch.testing.assert_close(torch.cat(list(translator._decode(encoded, styles))), expected, rtol=0, atol=1e-3)
    assert [one.tobytes() for one in drawn] == [translator.decode(encoded, s[None])[0].tobytes() for s in styles]
    assert error(translator.latent(portrait, domain, count=3, seed=3, psi=1.0), expected) <= 1
    assert error(drawn[:1], expected[1:2]) > 1
    assert error(translator.reference(portrait, references, domain), plainly(nets, aligned, of_references)) <= 1


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_celeba_hq_draws_what_its_networks_draw(celeba_hq: tuple[Path, Nets], portrait: Image.Image) -> None:
    folder, nets = celeba_hq
    translator = load_translator(str(folder), "cpu", "exact")
    assert (translator.domains, translator.image_size) == (("female", "male"), 256)
    same_as_plain(translator, nets, portrait)
    aligned = aligned_crop(translator, portrait)
    styles = translator.latent_styles("male", [3])
    without_edges = plainly({"generator": nets["generator"]}, aligned, styles)
    assert error(translator.decode(translator.encode(aligned), styles), without_edges) > 1


def test_afhq_draws_what_its_networks_draw(
    animals: tuple[Path, Nets], portrait: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stargan.pictures.faces.find", None)  # no face is looked for
    folder, nets = animals
    translator = load_translator(str(folder), "cpu", "exact")
    assert translator.domains == ("cat", "dog", "wild")
    same_as_plain(translator, nets, portrait)
    tall = Image.new("RGB", (300, 500), "teal")
    tall.paste(portrait.resize((300, 300)), (0, 100))
    middle = np.asarray(aligned_crop(translator, tall), int)
    whole = np.asarray(portrait.resize((300, 300)).resize((256, 256), Image.Resampling.BICUBIC), int)
    assert np.abs(middle - whole).mean() < 2


def test_landmarks_and_masks_are_found_once_a_picture(
    celeba_hq: tuple[Path, Nets], portrait: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load_translator(str(celeba_hq[0]), "cpu", "exact")
    calls: Counter[str] = Counter()
    hooks = [
        net.register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name, net in (("landmarks", translator._landmarks), ("encoder", translator._encoder))
    ]
    masks = landmarks.face_masks
    monkeypatch.setattr(landmarks, "face_masks", lambda heatmaps: calls.update(["masks"]) or masks(heatmaps))
    CACHE.clear()
    assert len(translator.latent(portrait, "male", count=4)) == 4
    assert calls == {"landmarks": 1, "encoder": 1, "masks": 1}
    translator.reference(portrait, [portrait] * 3, "female", strength=0.5)
    assert calls == {"landmarks": 1, "encoder": 1, "masks": 1}  # the photo is known, and references need none
    for hook in hooks:
        hook.remove()


def test_celeba_hq_framing(celeba_hq: tuple[Path, Nets], portrait: Image.Image) -> None:
    """Any photo is brought into it, and the landmarks lie there in the crop."""
    translator = load_translator(str(celeba_hq[0]), "cpu", "exact")
    assert translator.config.framing == CELEBA_HQ_FRAMING
    expected = np.array(CELEBA_HQ_FRAMING)
    for photo in (portrait, portrait.rotate(15, Image.Resampling.BICUBIC), portrait.resize((900, 900))):
        (face,) = faces.find(aligned_crop(translator, photo))
        assert np.abs(face.landmarks / 256 - expected).max() < 0.04


@pytest.mark.parametrize("model", ["celeba_hq", "animals"])
def test_bf16_stays_close(model: str, portrait: Image.Image, request: pytest.FixtureRequest) -> None:
    folder, nets = request.getfixturevalue(model)
    translator = load_translator(str(folder), "cpu", "bf16")
    aligned, styles = aligned_crop(translator, portrait), translator.latent_styles(translator.domains[0], [1, 2])
    expected = plainly(nets, aligned, styles)
    drawn = torch.cat(list(translator._decode(translator.encode(aligned), styles)))
    assert 0 < (drawn - expected).square().mean() < 4 / 10**3  # 30 dB; random weights are worse than trained ones


def test_commands_take_an_imported_model(
    celeba_hq: tuple[Path, Nets],
    animals: tuple[Path, Nets],
    portrait: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    portrait.save(tmp_path / "a.png")
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "grey.png")
    photos, out = [str(tmp_path / "a.png"), str(tmp_path / "grey.png")], tmp_path / "out"

    cats = ["translate", *photos, "--model", str(animals[0]), "--count", "2", "--output", str(out / "cats")]
    assert main(cats) == 0
    made = ["a-cat-seed0.png", "a-cat-seed1.png", "grey-cat-seed0.png", "grey-cat-seed1.png", "grid-1.png"]
    assert sorted(file.name for file in (out / "cats").iterdir()) == made

    options = ["--domain", "male", "--references", photos[0], "--output", str(out / "men")]
    assert main(["translate", *photos, "--model", str(celeba_hq[0]), *options]) == 1
    assert "grey.png: No face was found in this picture." in capsys.readouterr().err
    assert sorted(file.name for file in (out / "men").iterdir()) == ["a-male-like-a.png", "grid-1.png"]
    with Image.open(out / "men" / "a-male-like-a.png") as drawn:
        assert drawn.size == (256, 256)

    walk = ["--seeds", "1,2", "--seconds", "1", "--fps", "3", "--output", str(out / "walk.mp4")]
    for folder in (celeba_hq[0], animals[0]):
        assert main(["video", photos[0], "--model", str(folder), *walk]) == 0
        assert imageio_ffmpeg.count_frames_and_secs(out / "walk.mp4") == (3, 1)


@pytest.mark.parametrize(("model", "domains"), [("celeba_hq", ("female", "male")), ("animals", ("cat", "dog", "wild"))])
def test_evaluation_takes_an_imported_model(
    model: str, domains: tuple[str, ...], portrait: Image.Image, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)[0]
    for part in ("train", "val"):
        for number, domain in enumerate(domains):
            (tmp_path / part / domain).mkdir(parents=True)
            for turn in range(2):
                picture = portrait.rotate(10 * number + 5 * turn).resize((256, 256))
                picture.save(tmp_path / part / domain / f"{turn}.png")
    few = ["--no-backbones", "--sources", "1", "--outputs", "2", "--pairs", f"{domains[0]}>{domains[1]}"]
    places = ["--data", tmp_path / "train", "--validation", tmp_path / "val", "--output", tmp_path / "figures.json"]
    assert main(["evaluate", str(folder), *few, *map(str, places)]) == 0
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["mode"] for row in rows] == ["latent", "reference"]
    assert all(np.isfinite(row["swd"]["mean"]) and row["spread"] >= 0 for row in rows)
