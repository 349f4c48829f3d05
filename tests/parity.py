"""Synthetic weights and inputs of the parity numbers: names and a seed decide every value."""

from __future__ import annotations

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
