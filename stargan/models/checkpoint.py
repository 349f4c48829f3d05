"""A model folder, read and written strictly.

A folder holds ``config.json`` (:class:`stargan.models.config.ModelConfig`) and the weights as safetensors: one file, or shards and an index,
as ``huggingface_hub`` writes them. Tensors are named ``generator.*``, ``mapping_network.*``, ``style_encoder.*`` and,
for high-pass models, ``landmarks.*``, followed by the published parameter names.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from huggingface_hub import save_torch_state_dict
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE, SAFETENSORS_SINGLE_FILE
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stargan.errors import ECHO
from stargan.models.config import (
    CONFIG_FILE,
    DISCRIMINATOR_FILE,
    EVALUATION_FILE,
    ModelConfig,
    ModelError,
    brief,
    read_config,
    read_text,
)
from stargan.networks import Generator, MappingNetwork, StyleEncoder

if TYPE_CHECKING:
    from stargan.landmarks import LandmarkNetwork

Shape = tuple[int, ...]
# A plain git repository and a Space both refuse files over 10 MB without large-file storage.
SHARD_SIZE = 9_000_000
# So many hold MAX_PARAMETERS in fp32.
MAX_SHARDS = 256
# A name, dtype, shape and place take about 130 bytes; the largest model has some 1,300 tensors.
MAX_HEADER_BYTES = MAX_INDEX_BYTES = 1_000_000
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass
class Model:
    """A config and its networks, in eval mode. ``landmarks`` is there for high-pass models alone."""

    config: ModelConfig
    generator: Generator
    mapping_network: MappingNetwork
    style_encoder: StyleEncoder
    landmarks: LandmarkNetwork | None = None

    @classmethod
    def build(cls, config: ModelConfig) -> Model:
        """Networks of the config's architecture, with random weights."""
        a = config.architecture
        size, widths = a.image_size, (a.base_channels, a.max_channels)
        landmarks = None
        if a.high_pass_weight:
            from stargan.landmarks import LandmarkNetwork  # most models do without

            landmarks = LandmarkNetwork()
        model = cls(
            config,
            Generator(size, a.style_dim, a.high_pass_weight, *widths, a.finish_channels),
            MappingNetwork(a.latent_dim, a.style_dim, len(config.domains)),
            StyleEncoder(size, a.style_dim, len(config.domains), *widths),
            landmarks,
        )
        for network in model.networks().values():
            network.eval().requires_grad_(False)
        return model

    def networks(self) -> dict[str, nn.Module]:
        found = {name: getattr(self, name) for name in ("generator", "mapping_network", "style_encoder", "landmarks")}
        return {name: network for name, network in found.items() if network is not None}


def save_model(
    model: Model, folder: str | Path, dtype: torch.dtype = torch.float16, beside: Mapping[str, bytes] | None = None
) -> None:
    """Writes ``config.json`` and the weights, floats as ``dtype``; shards, figures and discriminator of an earlier one there go.

    Args:
        beside: other files of this one, by name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()).contiguous()
        for name, tensor in _tensors(model).items()
    }
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"The tensor {name} holds values that {dtype} cannot.")
    # beside, so that a full disk or a kill leaves the earlier model whole
    with TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
        save_torch_state_dict(state, partial, max_shard_size=SHARD_SIZE, force_contiguous=True)
        (Path(partial) / CONFIG_FILE).write_text(model.config.to_json(), encoding="utf-8")
        for name, content in (beside or {}).items():
            (Path(partial) / name).write_bytes(content)
        written = sorted(Path(partial).iterdir())
        for file in written:  # safetensors writes files that nobody else can read
            shutil.copymode(Path(partial) / CONFIG_FILE, file)
        replace_model(written, folder)


def load_model(folder: str | Path) -> Model:
    """Reads a folder that :func:`save_model` wrote; weights become fp32, on the CPU.

    Raises:
        ModelError: a file is missing or broken; a tensor is missing, extra or misshapen (each is named).
    """
    folder = Path(folder)
    config, files = read_config(folder), weight_files(folder)
    _check_headers(files, config)
    state: dict[str, Tensor] = {}
    try:
        for file in files:
            state.update(load_file(file))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is broken or not a safetensors file: {str(error)[:100]}.") from error
    model = Model.build(config)
    load_strictly(model, state)
    return model


def replace_model(files: Sequence[Path], folder: Path) -> None:
    """Moves a whole model's files into a folder of the same disk. What an earlier model has there goes: weights, their index, figures
    and discriminator. A process that is killed meanwhile leaves none, by its config, and never a mixture of both."""
    new = {file.name: file for file in files}
    config = new.pop(CONFIG_FILE)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    for name, file in new.items():
        file.replace(folder / name)
    for file in [*folder.iterdir()]:
        of_a_model = file.name in (SAFETENSORS_INDEX_FILE, EVALUATION_FILE, DISCRIMINATOR_FILE)
        if (of_a_model or is_weight_file(file.name)) and file.name not in new:
            file.unlink()
    config.replace(folder / CONFIG_FILE)


def fingerprint(folder: Path) -> str:
    """Of a model folder's config and weights, 16 hex digits: models of one name, as snapshots of one run are, are told apart.

    Raises:
        ModelError: there are no weights.
    """
    digest = hashlib.sha256((folder / CONFIG_FILE).read_bytes())
    for file in weight_files(folder):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def is_weight_file(name: str) -> bool:
    """Whether a file of this name, in a model folder, holds weights."""
    return name == SAFETENSORS_SINGLE_FILE or _SHARD.fullmatch(name) is not None


@pydantic_dataclass(config=ConfigDict(strict=True))
class _Index:
    """``model.safetensors.index.json``: the file of each tensor. Other entries are for other readers."""

    weight_map: dict[str, str]


_INDEX = TypeAdapter(_Index)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, as its index lists them.

    Raises:
        ModelError: there are none, or the index cannot be read, names a file that is not there or no shard, or too many.
    """
    index = folder / SAFETENSORS_INDEX_FILE
    names = [SAFETENSORS_SINGLE_FILE]
    if index.exists():
        try:
            names = sorted(set(_INDEX.validate_json(read_text(index, MAX_INDEX_BYTES)).weight_map.values()))
        except (ValidationError, OSError, UnicodeError) as error:
            raise ModelError(f"{index} is not a valid index of weights.") from error
    if len(names) > MAX_SHARDS:
        raise ModelError(f"{index} is not a valid index of weights: it names {len(names)} files, over {MAX_SHARDS}.")
    for name in names:
        if not is_weight_file(name):
            raise ModelError(f"{index} is not a valid index of weights: it names {brief(name)}.")
        if not (folder / name).is_file():
            raise ModelError(f"{folder} lacks the weights file {name}.")
    return [folder / name for name in names]


def read_header(file: Path) -> dict[str, tuple[str, Shape]]:
    """Dtype and shape of each tensor in a safetensors file; no tensor is loaded.

    Raises:
        ModelError: it is none, or its header is larger than that of any model here.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
        length, most = int.from_bytes(start, "little"), min(MAX_HEADER_BYTES, file.stat().st_size - 8)
        if len(start) < 8 or length > most:
            raise ModelError(f"{file} is broken or not a safetensors file: its header cannot have {length} bytes.")
        with safe_open(file, "pt") as weights:
            slices = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 - no mapping
            return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is broken or not a safetensors file: {str(error)[:100]}.") from error


def _check_headers(files: list[Path], config: ModelConfig) -> None:
    """Compares what the files say they hold with what the architecture needs, before any of it takes memory."""
    with torch.device("meta"):  # shapes without values
        expected = _tensors(Model.build(config))
    found: dict[str, Shape] = {}
    for file in files:
        for name, (dtype, shape) in read_header(file).items():
            if name in found:
                raise ModelError(f"{file} holds {brief(name)}, which another file holds too.")
            if name in expected and expected[name].is_floating_point() and dtype not in _FLOATS:
                raise ModelError(f"{file} holds {name} as {brief(dtype)}, which are no floating-point numbers.")
            found[name] = shape
    _check_shapes(config.name, expected, found)


def load_strictly(model: Model, state: dict[str, Tensor]) -> None:
    """Copies ``state`` into the model's networks.

    Raises:
        ModelError: naming every tensor that is missing, extra or has another shape.
    """
    _check_shapes(model.config.name, _tensors(model), {name: tuple(tensor.shape) for name, tensor in state.items()})
    for part, network in model.networks().items():
        prefix = part + "."
        network.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})


def _tensors(model: Model) -> dict[str, Tensor]:
    """All parameters and buffers, by the names that they have in files."""
    return {
        f"{part}.{name}": t for part, network in model.networks().items() for name, t in network.state_dict().items()
    }


def _check_shapes(model: str, expected: dict[str, Tensor], found: dict[str, Shape]) -> None:
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name[:ECHO]} is not part of this architecture" for name in found if name not in expected]
    faults += [
        f"{name} has shape {found[name]} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name] != tuple(tensor.shape)
    ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise ModelError(f"The weights do not fit the model {model}: {shown}.")
