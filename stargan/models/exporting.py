"""A model's networks as ONNX files, for programs without PyTorch: a phone, a browser, a server in another language.

The networks are the plain ones of :mod:`stargan.networks`. Beside them lies ``model.json``, which says all that a caller needs.
"""

from __future__ import annotations

import copy
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stargan.constants import MAX_PSI
from stargan.models.checkpoint import Model
from stargan.models.config import ModelConfig, ModelError
from stargan.networks import Generator, mean_style

DESCRIPTION_FILE = "model.json"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
# Widely known, and the oldest that PyTorch's exporter writes without converting back.
OPSET = 18
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}
# Names of inputs and outputs, in the order that the networks take them.
INPUTS = {
    "encoder": ("picture",),
    "decoder": ("features", "style"),
    "mapping_network": ("latent", "domain"),
    "style_encoder": ("picture", "domain"),
}
OUTPUTS = {"encoder": "features", "decoder": "picture", "mapping_network": "style", "style_encoder": "style"}


def file_name(network: str, precision: str) -> str:
    """``encoder.onnx``, ``encoder-fp16.onnx``, …"""
    return f"{network}.onnx" if precision == "fp32" else f"{network}-{precision}.onnx"


def check_exportable(config: ModelConfig) -> None:
    """Before anything is loaded.

    Raises:
        ModelError: a package is missing, or the model is one that cannot be exported.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ModelError(f"Exporting needs {', '.join(missing)}: pip install {' '.join(missing)}")
    if config.architecture.high_pass_weight:
        raise ModelError(
            f"The model {config.name} has a high-pass filter, whose masks a further network finds; only models without one can "
            "be exported."
        )


class _Encoder(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, picture: Tensor) -> Tensor:
        return self.generator.encoder(picture)[0]


class _Decoder(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        return self.generator.decoder(features, style)


class _InPrecision(nn.Module):
    """A copy of a network that computes in ``dtype`` and takes and returns float32, so that callers never see float16."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*(x.to(self.dtype) if x.is_floating_point() else x for x in inputs)).float()


def export(model: Model, folder: Path) -> None:
    """Writes each network in each of :data:`PRECISIONS`, with a dynamic batch; the model is on the CPU.

    Raises:
        ModelError: see :func:`check_exportable`.
        OSError: the folder cannot be written.
    """
    check_exportable(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION_FILE).unlink(missing_ok=True)  # of an earlier export, which is being replaced
    a, batch = model.config.architecture, 2
    picture = torch.zeros(batch, 3, a.image_size, a.image_size)
    domain = torch.zeros(batch, dtype=torch.long)
    features = model.generator.encoder(picture)[0]
    networks = {
        "encoder": (_Encoder(model.generator), (picture,)),
        "decoder": (_Decoder(model.generator), (features, torch.zeros(batch, a.style_dim))),
        "mapping_network": (model.mapping_network, (torch.zeros(batch, a.latent_dim), domain)),
        "style_encoder": (model.style_encoder, (picture, domain)),
    }
    for name, (network, inputs) in networks.items():
        for precision, dtype in PRECISIONS.items():
            _export_network(_InPrecision(network, dtype).eval(), name, inputs, folder / file_name(name, precision))


def _export_network(network: _InPrecision, name: str, inputs: tuple[Tensor, ...], file: Path) -> None:
    dynamic = {0: torch.export.Dim("batch")}
    with warnings.catch_warnings():
        # told once an input after the first, all of which share the one axis
        warnings.filterwarnings("ignore", message=".*The axis name: batch will not be used")
        program = torch.onnx.export(
            network,
            inputs,
            input_names=INPUTS[name],
            output_names=[OUTPUTS[name]],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=((dynamic,) * len(inputs),),  # one argument, *inputs
            verbose=False,
        )
    assert program is not None  # with dynamo, it never is
    program.save(file, external_data=False)


def describe(model: Model, folder: Path, differences: dict[str, dict[str, float]]) -> None:
    """Writes ``model.json``.

    Args:
        differences: to this package's own pictures and styles, as
            :func:`stargan.inference.exported.differences` returns them.
    """
    config = model.config
    a = config.architecture
    features = model.generator.encoder(torch.zeros(1, 3, a.image_size, a.image_size))[0]
    tensors: dict[str, dict[str, Any]] = {
        "picture": {
            "shape": ["batch", 3, a.image_size, a.image_size],
            "type": "float32",
            "about": "RGB, channels first, from -1 (black) to 1 (white): level / 127.5 - 1. Clip what the decoder returns. In "
            "grayscale_domains, what the style encoder takes and what the decoder returned are turned into luma, "
            "0.299 R + 0.587 G + 0.114 B, in all three channels.",
        },
        "features": {
            "shape": ["batch", *features.shape[1:]],
            "type": "float32",
            "about": "All that the decoder needs of a picture; encode once, decode in many styles.",
        },
        "latent": {"shape": ["batch", a.latent_dim], "type": "float32", "about": "Standard normal random numbers."},
        "domain": {"shape": ["batch"], "type": "int64", "about": "Index into domains."},
        "style": {"shape": ["batch", a.style_dim], "type": "float32", "about": "Any; styles may be blended."},
    }
    description = {
        "model": config.name,
        "licence": config.licence,
        "domains": config.domains,
        "grayscale_domains": config.grayscale_domains,
        "image_size": a.image_size,
        "latent_dim": a.latent_dim,
        "style_dim": a.style_dim,
        "framing": {
            "landmarks": config.framing,
            "about": "Where the left eye, right eye, nose, left and right mouth corner, as seen in the picture, lie in what the "
            "encoder takes: (x, y) in fractions of the side. null: the picture's middle square is taken as it is.",
        },
        "psi": {
            "largest": MAX_PSI,
            "about": "Truncation: style = mean_styles[domain] + psi * (style - mean_styles[domain]) of a style that the mapping "
            "network returned; 0 gives the average drawing, 1 the full variety.",
        },
        "mean_styles": {
            domain: mean_style(model.mapping_network, index).tolist() for index, domain in enumerate(config.domains)
        },
        "networks": {
            name: {
                "files": {precision: file_name(name, precision) for precision in PRECISIONS},
                "inputs": INPUTS[name],
                "outputs": [OUTPUTS[name]],
            }
            for name in INPUTS
        },
        "tensors": tensors,
        "largest_differences": differences,
    }
    text = json.dumps(description, indent=1, ensure_ascii=False)
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
