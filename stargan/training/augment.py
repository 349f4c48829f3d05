"""DiffAugment, which the discriminator's inputs go through, and luma for monochrome domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-R BT.601, as Pillow's convert("L")
LUMA = (0.299, 0.587, 0.114)
# ``uniform(count, *shape)``: that many random numbers in [0, 1) for each of ``count`` pictures, on the device.
Uniform = Callable[..., Tensor]


def to_luma(x: Tensor) -> Tensor:
    """``(N, 3, H, W)`` → its luma in three equal channels."""
    # no tensor of the weights: bringing it to the device would wait for it
    return sum(weight * x[:, i : i + 1] for i, weight in enumerate(LUMA)).expand_as(x)


def luma_where(x: Tensor, domain: Tensor, grayscale: Tensor) -> Tensor:
    """Luma for the rows whose domain is marked in ``grayscale``, ``(num_domains,)`` bool; the others as they are."""
    return torch.where(grayscale[domain][:, None, None, None], to_luma(x), x)


def color(x: Tensor, uniform: Uniform) -> Tensor:
    """Random brightness, saturation and contrast, each picture its own."""
    brightness, saturation, contrast = uniform(len(x), 3)[:, :, None, None, None].unbind(dim=1)
    x = x + (brightness - 0.5)
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (2 * saturation) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (contrast + 0.5) + mean


def translation(x: Tensor, uniform: Uniform, ratio: float = 0.125) -> Tensor:
    """Random shift by up to ``ratio`` of the side, zeros coming in."""
    side = x.shape[2]
    steps = round(side * ratio)
    theta = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)
    theta[:, :, 2] = ((uniform(len(x), 2) * (2 * steps + 1)).floor() - steps) * (2 / side)
    where = F.affine_grid(theta, list(x.shape), align_corners=False)
    # in fp32: bf16 has not the digits to tell the pixels of a big picture apart
    return F.grid_sample(x.float(), where, mode="nearest", padding_mode="zeros", align_corners=False).to(x.dtype)


def cutout(x: Tensor, uniform: Uniform, ratio: float = 0.5) -> Tensor:
    """A random square of ``ratio`` of the side set to zero."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device).view(1, -1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, -1)
    top, left = uniform(len(x), 2)[:, :, None, None].unbind(dim=1)
    hidden = ((rows - top * height).abs() < height * ratio / 2) & ((columns - left * width).abs() < width * ratio / 2)
    return x * (~hidden)[:, None].to(x.dtype)


POLICIES: dict[str, Callable[[Tensor, Uniform], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def diff_augment(x: Tensor, policies: Sequence[str], uniform: Uniform) -> Tensor:
    """Differentiable augmentation of what the discriminator sees (Zhao et al. 2020, arXiv:2006.10738)."""
    for name in policies:
        x = POLICIES[name](x, uniform)
    return x
