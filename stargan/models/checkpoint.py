"""A model folder, read and written strictly.

A folder holds ``config.json`` (:class:`ModelConfig`) and the weights as safetensors: one file, or shards and an index,
as ``huggingface_hub`` writes them. Tensors are named ``generator.*``, ``mapping_network.*``, ``style_encoder.*`` and,
for high-pass models, ``landmarks.*``, followed by the published parameter names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stargan.networks import Generator, MappingNetwork, StyleEncoder

CONFIG_FILE = "config.json"
# A plain git repository and a Space both refuse files over 10 MB without large-file storage.
SHARD_SIZE = 9_000_000
# So that a stranger's config cannot take all memory.
MAX_WIDTH = 2048
IMAGE_SIZES = (16, 32, 64, 128, 256, 512, 1024)

Points = tuple[tuple[float, float], ...]


class ModelError(ValueError):
    """A model that cannot be used; the message says which file or tensor is at fault, in a sentence for the user."""


@dataclass(frozen=True)
class Architecture:
    """What decides every tensor's shape, but for the number of domains."""

    image_size: int = 256
    style_dim: int = 64
    latent_dim: int = 16
    high_pass_weight: float = 0.0
    base_channels: int | None = None
    max_channels: int = 512

    def __post_init__(self) -> None:
        if self.image_size not in IMAGE_SIZES:
            raise ModelError(f"The image size of a model must be one of {IMAGE_SIZES}, not {self.image_size!r}.")
        for name in ("image_size", "style_dim", "latent_dim", "base_channels", "max_channels"):
            value = getattr(self, name)
            whole = isinstance(value, int) and 1 <= value <= MAX_WIDTH
            if not whole and not (name == "base_channels" and value is None):
                raise ModelError(f"The {name} of a model must be a whole number up to {MAX_WIDTH}, not {value!r}.")
        if not isinstance(self.high_pass_weight, (int, float)) or self.high_pass_weight < 0:
            raise ModelError(f"The high_pass_weight of a model must be 0 or more, not {self.high_pass_weight!r}.")


@dataclass(frozen=True)
class ModelConfig:
    """``config.json``.

    Attributes:
        framing: where five landmarks of a face lie, ``(x, y)`` in fractions of the side: left eye, right eye, nose,
            left and right mouth corner, as seen in the picture. None: the whole picture is taken, without looking for
            a face.
        training: facts of the training run: samples seen, hardware, options.
        grayscale_domains: pictures of these are the luma of what the generator returns.
    """

    name: str
    domains: tuple[str, ...]
    architecture: Architecture
    framing: Points | None = None
    licence: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    grayscale_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(isinstance(domain, str) for domain in self.domains):
            raise ModelError(f"The domains of a model must be names, not {list(self.domains)}.")
        if list(self.domains) != sorted(set(self.domains)) or not self.domains:
            raise ModelError(f"The domains of a model must be sorted, different names, not {list(self.domains)}.")
        if unknown := set(self.grayscale_domains) - set(self.domains):
            raise ModelError(f"The grayscale domains of a model must be among its domains; {min(unknown)!r} is not.")
        if self.framing is not None and (len(self.framing) != 5 or any(len(point) != 2 for point in self.framing)):
            raise ModelError(f"The framing of a model must be five points (x, y), not {self.framing}.")

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Parses ``config.json``.

        Raises:
            ModelError: not JSON, or an unknown, missing or impossible entry, which is named.
        """
        try:
            values = json.loads(text)
            unknown = sorted(values.keys() - {f.name for f in fields(cls)})
            if not unknown:
                values["architecture"] = Architecture(**values["architecture"])
                values["domains"] = tuple(values["domains"])
                values["grayscale_domains"] = tuple(values.get("grayscale_domains", ()))
                if values.get("framing") is not None:
                    values["framing"] = tuple((float(x), float(y)) for x, y in values["framing"])
                return cls(**values)
        except ModelError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{CONFIG_FILE} is not a valid model description: {error}.") from error
        raise ModelError(f"{CONFIG_FILE} has unknown entries: {', '.join(unknown)}.")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass
class Model:
    """A config and its networks, in eval mode. ``landmarks`` is there for high-pass models alone."""

    config: ModelConfig
    generator: Generator
    mapping_network: MappingNetwork
    style_encoder: StyleEncoder
    landmarks: nn.Module | None = None

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
            Generator(size, a.style_dim, a.high_pass_weight, *widths),
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


def save_model(model: Model, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """Writes ``config.json`` and the weights, floats as ``dtype``; shards of an earlier model there are replaced."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        f"{part}.{name}": (tensor.detach().cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()).contiguous()
        for part, network in model.networks().items()
        for name, tensor in network.state_dict().items()
    }
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"The tensor {name} holds values that {dtype} cannot.")
    save_torch_state_dict(state, folder, max_shard_size=SHARD_SIZE, force_contiguous=True)
    (folder / CONFIG_FILE).write_text(model.config.to_json(), encoding="utf-8")


def load_model(folder: str | Path) -> Model:
    """Reads a folder that :func:`save_model` wrote; weights become fp32, on the CPU.

    Raises:
        ModelError: a file is missing or broken; a tensor is missing, extra or misshapen (each is named).
    """
    folder = Path(folder)
    model = Model.build(read_config(folder))
    state = _read_weights(folder)
    load_strictly(model, state)
    return model


def read_config(folder: Path) -> ModelConfig:
    """``config.json`` of a model folder.

    Raises:
        ModelError: it is missing or not a valid description of a model.
    """
    try:
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder} is not a model folder: it has no readable {CONFIG_FILE}.") from error
    return ModelConfig.from_json(text)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, as its index lists them.

    Raises:
        ModelError: there are none, or the index cannot be read or names a file that is not there.
    """
    index = folder / SAFETENSORS_INDEX_FILE
    if not index.exists():
        files = [folder / SAFETENSORS_SINGLE_FILE]
    else:
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            files = [folder / Path(name).name for name in sorted(names)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index} is not a valid index of weights.") from error
    for file in files:
        if not file.is_file():
            raise ModelError(f"{folder} lacks the weights file {file.name}.")
    return files


def _read_weights(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    files = weight_files(folder)
    try:
        for file in files:
            state.update(load_file(file))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file} is broken or not a safetensors file: {error}.") from error
    return state


def load_strictly(model: Model, state: dict[str, Tensor]) -> None:
    """Copies ``state`` into the model's networks.

    Raises:
        ModelError: naming every tensor that is missing, extra or has another shape.
    """
    expected = {
        f"{part}.{name}": tensor for part, net in model.networks().items() for name, tensor in net.state_dict().items()
    }
    faults = [f"{name} is missing" for name in expected if name not in state]
    faults += [f"{name} is not part of this architecture" for name in state if name not in expected]
    faults += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        shown = "; ".join(faults[:8]) + (f"; and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise ModelError(f"The weights do not fit the model {model.config.name}: {shown}.")
    for part, network in model.networks().items():
        prefix = part + "."
        network.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})


def with_training(config: ModelConfig, **facts: Any) -> ModelConfig:
    """The config with further facts of its training."""
    return replace(config, training={**config.training, **facts})
