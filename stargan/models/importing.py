"""Checkpoints of the published StarGAN v2 implementation → models.

A released file, ``100000_nets_ema.ckpt``, is a dictionary of three state dicts: ``generator``, ``mapping_network`` and
``style_encoder``. It says nothing of the architecture: that is read off the tensors, and proved by all of them fitting.
``wing.ckpt`` holds the landmark network that CelebA-HQ models need (:mod:`stargan.landmarks`).
"""

from __future__ import annotations

import mmap
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stargan.models.checkpoint import Model, load_strictly
from stargan.models.config import FRAMINGS, Architecture, ModelConfig, ModelError, brief
from stargan.networks import HighPass, default_base_channels

NETWORKS = ("generator", "mapping_network", "style_encoder")
PUBLISHED_LICENCE = "CC BY-NC 4.0"

# Domains of the released models, by their number and whether they have a high-pass filter.
_RELEASED_DOMAINS = {(2, True): ("female", "male"), (3, False): ("cat", "dog", "wild")}
# The published landmark network is the first hourglass of four; only its heatmaps are used. The others, and what hands the
# first one's result on to them, are the only tensors ever left out.
_LATER_STACKS = re.compile(r"(m|top_m_|conv_last|bn_end|l|bl|al)[1-9]\d*\.|(bl|al)0\.")


def import_checkpoint(
    file: str | Path,
    *,
    landmarks: str | Path | None = None,
    domains: Sequence[str] | None = None,
    name: str | None = None,
    framing: str | None = None,
    high_pass_weight: float | None = None,
    licence: str = PUBLISHED_LICENCE,
) -> Model:
    """Reads a published checkpoint, without running any code in it; fp32, on the CPU.

    Args:
        file: ``…_nets_ema.ckpt``.
        landmarks: ``wing.ckpt``; high-pass models need it, unless the checkpoint itself holds it as ``fan``.
        domains: the names in the order of training, which is sorted. None: those of the released model with as many
            domains.
        name: the model's; None for the file's, without its ending.
        framing: one of :data:`stargan.models.config.FRAMINGS`. None: CelebA-HQ's for a high-pass model, else the middle square.
        high_pass_weight: what the high-pass filter is divided by, where the checkpoint lacks the filter, as the released
            one does. None for the published 1.
        licence: of the weights.

    Raises:
        ModelError: the file is broken, or would need code to be run; a network, or what cannot be read off the tensors, is
            missing; a tensor is missing, extra or misshapen (each is named). The message is a sentence for the user.
    """
    file = Path(file)
    content = _read(file)
    fan = content.pop("fan", None)
    state: dict[str, Tensor] = {}
    for part, tensors in _networks(file, content).items():
        state |= {f"{part}.{key}": tensor for key, tensor in tensors.items()}
    architecture = _architecture(state, high_pass_weight)
    high_pass = architecture.high_pass_weight > 0

    if not high_pass:
        if landmarks is not None or fan is not None:
            source = f"The landmark network in {file if landmarks is None else landmarks}"
            raise ModelError(f"{source} has no use: the generator in {file} has no high-pass filter.")
    else:
        # The released weights lack this one buffer, which holds nothing learned.
        state.setdefault("generator.hpf.filter", HighPass(architecture.high_pass_weight).get_buffer("filter"))
        if landmarks is not None:
            found = _read_landmarks(Path(landmarks))
        elif fan is not None:
            found = _state_dict(fan, f"fan in {file}")
        else:
            raise ModelError(
                f"The generator in {file} has a high-pass filter, so it needs the landmark network: add --landmarks wing.ckpt."
            )
        state |= {f"landmarks.{key}": tensor for key, tensor in found.items() if not _LATER_STACKS.match(key)}

    if framing is None:
        framing = "celeba-hq" if high_pass else "whole"
    elif framing not in FRAMINGS:
        raise ModelError(f"The framing must be one of {', '.join(FRAMINGS)}, not {brief(framing)}.")
    config = ModelConfig(
        name or file.stem,
        _domains(state, domains, high_pass),
        architecture,
        FRAMINGS[framing],
        licence,
        {"imported_from": file.name},
    )
    model = Model.build(config)
    load_strictly(model, state)
    return model


# reading files


def _read(file: Path) -> dict[str, Any]:
    """The dictionary that a checkpoint is.

    Raises:
        ModelError: the file cannot be read, or not without running code.
    """
    try:
        if _grows(file):
            raise ModelError(f"{file} is refused: read, it would take more memory than it has bytes.")
        with file.open("rb") as stream:
            content = _unpickled(file, stream)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} holds a {type(content).__name__}, not a dictionary of networks.")
    return content


def _grows(file: Path) -> bool:
    """Whether a small file could fill the memory: an archive that is compressed, which PyTorch's are not, or whose parts
    overlap; or a pickle with a byte array, of which it need only say how long it is."""
    size = file.stat().st_size
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError):  # as before PyTorch 1.6, or broken
        parts = []
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or sum(part.file_size for part in parts) > size:
        return True
    if not size:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"bytearray") >= 0


def _unpickled(file: Path, stream: Any) -> Any:
    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle makes of the reader: KeyError, EOFError, OSError, …
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ModelError(
                f"{file} is refused: it holds more than tensors, and code ({code[1]}) would have to run to read it."
            ) from error
        raise ModelError(f"{file} is broken or not a checkpoint.") from error


def _networks(file: Path, content: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The three networks of a checkpoint, and nothing else."""
    if missing := [part for part in NETWORKS if part not in content]:
        there = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise ModelError(f"{file} lacks the {_listed(missing)}; it holds {there}.")
    extra = [str(key) for key in content if key not in NETWORKS]
    if "discriminator" in extra:
        raise ModelError(
            f"{file} also holds the discriminator, so it is a state of training; take the averaged weights instead, in the "
            "file whose name ends in _nets_ema.ckpt."
        )
    if extra:
        raise ModelError(f"{file} holds more than {_listed(NETWORKS)}: {', '.join(extra)}.")
    return {part: _state_dict(content[part], f"{part} in {file}") for part in NETWORKS}


def _read_landmarks(file: Path) -> dict[str, Tensor]:
    """``wing.ckpt``: the state dict is one of several entries; the others are of its training."""
    content = _read(file)
    return _state_dict(content.get("state_dict", content), f"the landmark network in {file}")


def _state_dict(content: Any, what: str) -> dict[str, Tensor]:
    """A state dict without the ``module.`` that data-parallel training puts before every name."""
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{what} is no state dict of a network.")
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise ModelError(f"{what} is no state dict of a network: its entry {key!r} is a {type(tensor).__name__}.")
    prefix = "module."
    if all(key.startswith(prefix) for key in content):
        return {key.removeprefix(prefix): tensor for key, tensor in content.items()}
    return dict(content)


# reading tensors


def _architecture(state: dict[str, Tensor], high_pass_weight: float | None) -> Architecture:
    """The only architecture that these tensors can be of; that they all are is for :func:`load_strictly` to say."""
    # The style encoder goes down to 4 px whatever the generator does, so its depth tells the picture's side.
    levels = max(_indices(state, r"style_encoder\.shared\.(\d+)\.conv1\."), default=0)
    if not 3 <= levels <= 8:
        raise ModelError(
            f"The style encoder has {levels} residual blocks; one for pictures of 32 to 1024 px has 3 to 8 of them."
        )
    image_size = 4 * 2**levels
    blocks = len(_indices(state, r"generator\.encode\.(\d+)\."))
    high_pass = blocks > levels
    if not levels <= blocks <= levels + 1:
        raise ModelError(
            f"The generator's encoder has {blocks} blocks; for the style encoder's {image_size} px it must have {levels}, or "
            f"{levels + 1} with a high-pass filter."
        )

    base = _agreed(state, ("generator.from_rgb.weight", 0), ("style_encoder.shared.0.weight", 0))
    last_block, after = f"style_encoder.shared.{levels}.conv2.weight", f"style_encoder.shared.{levels + 2}.weight"
    widest = _agreed(state, (last_block, 0), (after, 1))
    doubled = widest == base * 2**levels  # to the end: then any bound from here on gives the same networks
    return Architecture(
        image_size,
        style_dim=_agreed(state, ("generator.decode.0.norm1.fc.weight", 1), ("mapping_network.unshared.0.6.weight", 0)),
        latent_dim=_agreed(state, ("mapping_network.shared.0.weight", 1)),
        high_pass_weight=_high_pass_weight(state, high_pass, high_pass_weight),
        base_channels=None if base == default_base_channels(image_size) else base,
        max_channels=max(widest, Architecture.max_channels) if doubled else widest,
    )


def _high_pass_weight(state: dict[str, Tensor], high_pass: bool, asked: float | None) -> float:
    """0 without high-pass; else what the filter says, what was asked for, or the published 1."""
    if asked is not None and not asked > 0:
        raise ModelError(f"The high-pass weight must be more than 0, not {asked:g}.")
    if not high_pass:
        if asked is not None:
            raise ModelError(f"The generator has no high-pass filter, so a high-pass weight of {asked:g} has no use.")
        return 0.0
    if (given := state.get("generator.hpf.filter")) is None:
        return 1.0 if asked is None else asked
    weight = 0.0
    if given.shape == (3, 3) and given[1, 1] > 0:
        weight = float(f"{8 / given[1, 1].item():.6g}")  # without the rounding of fp32
    if not weight or not torch.allclose(given.float(), HighPass(weight).get_buffer("filter"), rtol=1e-5):
        raise ModelError("generator.hpf.filter is not the 3×3 Laplacian (8 amid -1) divided by a high-pass weight.")
    if asked is not None and abs(asked - weight) > 1e-5 * weight:
        raise ModelError(f"generator.hpf.filter has the high-pass weight {weight:g}, not {asked:g}.")
    return weight


def _domains(state: dict[str, Tensor], given: Sequence[str] | None, high_pass: bool) -> tuple[str, ...]:
    counts = {
        part: len(_indices(state, rf"{part}\.unshared\.(\d+)\.")) for part in ("mapping_network", "style_encoder")
    }
    count = counts["mapping_network"]
    if len(set(counts.values())) > 1:
        raise ModelError(f"The mapping network has {count} domains, but the style encoder {counts['style_encoder']}.")
    if given is not None:
        if len(given) != count:
            names = ", ".join(given)
            raise ModelError(f"The checkpoint has {count} domains, but {len(given)} are named: {names}.")
        return tuple(given)
    if (count, high_pass) not in _RELEASED_DOMAINS:
        raise ModelError(
            f"The checkpoint has {count} domains and no names for them: add --domains with {count} names, separated by commas, "
            "in the order of training, which is the alphabet's."
        )
    return _RELEASED_DOMAINS[count, high_pass]


def _indices(state: dict[str, Tensor], pattern: str) -> set[int]:
    """The numbers that the pattern's group finds at the start of tensor names."""
    return {int(match[1]) for key in state if (match := re.match(pattern, key))}


def _agreed(state: dict[str, Tensor], *places: tuple[str, int]) -> int:
    """The size that every one of these (tensor, axis) has, so that no misshapen tensor is taken for another architecture."""
    sizes = {}
    for key, axis in places:
        if key not in state:
            raise ModelError(f"The checkpoint lacks the tensor {key}.")
        shape = tuple(state[key].shape)
        if not axis < len(shape) or 0 in shape:
            raise ModelError(f"The tensor {key} has the impossible shape {shape}.")
        sizes[key] = shape[axis]
    if len(set(sizes.values())) > 1:
        told = " and ".join(f"{key} has shape {tuple(state[key].shape)}" for key in sizes)
        raise ModelError(f"Two tensors do not fit together: {told}.")
    return next(iter(sizes.values()))


def _listed(names: Sequence[str]) -> str:
    names = [name.replace("_", " ") for name in names]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
