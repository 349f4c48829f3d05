"""What the discriminator's inputs go through: DiffAugment for small data, and luma for monochrome domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-R BT.601, as Pillow's convert("L")
LUMA = (0.299, 0.587, 0.114)


def to_luma(x: Tensor) -> Tensor:
    """``(N, 3, H, W)`` → its luma in three equal channels."""
    weights = x.new_tensor(LUMA).view(1, 3, 1, 1)
    return (x * weights).sum(dim=1, keepdim=True).expand_as(x)


def luma_where(x: Tensor, domain: Tensor, grayscale: Tensor) -> Tensor:
    """Luma for the rows whose domain is marked in ``grayscale``, ``(num_domains,)`` bool; the others as they are."""
    return torch.where(grayscale[domain][:, None, None, None], to_luma(x), x)


def _uniform(x: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(x), 1, 1, 1, device=x.device, dtype=x.dtype).uniform_(low, high)


def color(x: Tensor) -> Tensor:
    """Random brightness, saturation and contrast, each picture its own."""
    x = x + _uniform(x, -0.5, 0.5)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * _uniform(x, 0, 2) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * _uniform(x, 0.5, 1.5) + mean


def translation(x: Tensor, ratio: float = 0.125) -> Tensor:
    """Random shift by up to ``ratio`` of the side, zeros coming in."""
    theta = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)
    side = x.shape[2]
    steps = round(side * ratio)
    theta[:, :, 2] = torch.randint(-steps, steps + 1, (len(x), 2), device=x.device) * (2 / side)
    where = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, where.to(x.dtype), mode="nearest", padding_mode="zeros", align_corners=False)


def cutout(x: Tensor, ratio: float = 0.5) -> Tensor:
    """A random square of ``ratio`` of the side set to zero."""
    count, _, height, width = x.shape
    half_height, half_width = height * ratio / 2, width * ratio / 2
    rows = torch.arange(height, device=x.device).view(1, -1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, -1)
    centre = torch.rand(2, count, 1, 1, device=x.device)
    hidden = ((rows - centre[0] * height).abs() < half_height) & ((columns - centre[1] * width).abs() < half_width)
    return x * (~hidden)[:, None].to(x.dtype)


POLICIES: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


def diff_augment(x: Tensor, policies: Sequence[str]) -> Tensor:
    """Differentiable augmentation of what the discriminator sees (Zhao et al. 2020, arXiv:2006.10738)."""
    for name in policies:
        x = POLICIES[name](x)
    return x
