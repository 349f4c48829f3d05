"""Reference numbers of the published StarGAN v2 networks, and the synthetic weights and inputs that they belong to.

The numbers are read from a folder (``meta.json``, ``reference.npz``, ``training_losses.json``) or from the sample of them that
stands beside this file; ``python tests/parity.py FOLDER`` makes the sample.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SAMPLE = Path(__file__).with_name("parity_sample.npz")
SAMPLE_NOTES = Path(__file__).with_name("parity_sample.json")
# Prime, so that a sample goes through all rows and columns of a picture.
PICTURE_STRIDE = 53
MASKS = ("mask0", "mask1")
MASK_STRIDE = 7  # most of a mask is 0 or 1, which takes no room


class Synthetic:
    """Deterministic tensors by name."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(zlib.crc32(f"{self.seed}/{name}".encode()))

    def vec(self, name: str, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator(name))

    def img(self, name: str, count: int, size: int) -> Tensor:
        small = torch.randn(count, 3, size // 8, size // 8, generator=self.generator(name))
        return torch.tanh(F.interpolate(small, size=(size, size), mode="bicubic", align_corners=False))

    def mask(self, name: str, count: int, size: int) -> Tensor:
        return torch.rand(count, 1, size, size, generator=self.generator(name))

    def fill(self, net: nn.Module) -> nn.Module:
        """Overwrites the network's parameters and buffers, and puts it into eval mode."""
        state = net.state_dict()
        for name, old in state.items():
            if name.endswith("num_batches_tracked") or name == "hpf.filter":
                continue
            r = torch.randn(old.shape, generator=self.generator(name))
            if name.endswith("running_var"):
                r = 0.5 + 0.5 * r.abs()
            elif name.endswith("running_mean"):
                r = 0.1 * r
            elif r.dim() >= 2:
                r = r * (2 / (r.numel() / r.shape[0])) ** 0.5
            elif name.endswith("weight"):
                r = 1 + 0.1 * r
            elif name.endswith("bias"):
                r = 0.1 * r
            state[name] = r
        net.load_state_dict(state)
        return net.eval()


@dataclass
class Reference:
    """What an output must be: every ``stride``-th value of the flattened array, its shape, and its largest absolute value."""

    values: np.ndarray
    shape: tuple[int, ...]
    scale: float
    stride: int = 1

    def errors(self, output: Tensor) -> np.ndarray:
        """Of each value, relative to the array's largest."""
        assert tuple(output.shape) == self.shape
        return np.abs(output.detach().numpy().reshape(-1)[:: self.stride] - self.values) / self.scale


@dataclass
class Numbers:
    """All reference numbers of one seed. ``keys`` are the sorted tensor names of a network, ``losses`` of three iterations."""

    seed: int
    arrays: dict[str, Reference]
    keys: dict[str, list[str]]
    losses: list[dict[str, Any]]


def read_folder(folder: Path) -> Numbers:
    """All of the numbers."""
    return _numbers(
        np.load(folder / "reference.npz"),
        json.loads((folder / "meta.json").read_text())["seed"],
        json.loads((folder / "training_losses.json").read_text()),
        lambda array, _: Reference(array.reshape(-1), array.shape, float(np.abs(array).max())),
    )


def read_sample() -> Numbers:
    """The sample that is kept with the tests."""
    about = json.loads(SAMPLE_NOTES.read_text())

    def reference(values: np.ndarray, name: str) -> Reference:
        made = about["arrays"][name]
        return Reference(values, tuple(made["shape"]), made["scale"], made["stride"])

    return _numbers(np.load(SAMPLE), about["seed"], about["losses"], reference)


def _numbers(
    arrays: Any, seed: int, losses: list[dict[str, Any]], reference: Callable[[np.ndarray, str], Reference]
) -> Numbers:
    keys = {name: arrays[name].tolist() for name in arrays.files if name.endswith("_keys")}
    return Numbers(
        seed, {name: reference(arrays[name], name) for name in arrays.files if name not in keys}, keys, losses
    )


def write_sample(folder: Path) -> None:
    numbers = read_folder(folder)
    kept: dict[str, np.ndarray] = {name: np.array(keys) for name, keys in numbers.keys.items()}
    about: dict[str, Any] = {"seed": numbers.seed, "losses": numbers.losses, "arrays": {}}
    for name, array in numbers.arrays.items():
        stride = 1 if array.values.size < 1000 else MASK_STRIDE if name.endswith(MASKS) else PICTURE_STRIDE
        kept[name] = array.values[::stride]
        about["arrays"][name] = {"shape": array.shape, "scale": array.scale, "stride": stride}
    np.savez_compressed(SAMPLE, **kept)
    SAMPLE_NOTES.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    write_sample(Path(sys.argv[1]))
