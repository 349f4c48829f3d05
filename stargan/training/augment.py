"""What pictures go through: DiffAugment before the discriminator, what a phone and a room do to a source, luma."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# ITU-R BT.601, as Pillow's convert("L")
LUMA = (0.299, 0.587, 0.114)
# What JFIF scales the differences of blue and red to luma by, so that they have the range of luma.
_BLUE, _RED = 0.5 / (1 - LUMA[2]), 0.5 / (1 - LUMA[0])
# ``uniform(count, *shape)``: that many random numbers in [0, 1) for each of ``count`` pictures, on the device.
Uniform = Callable[..., Tensor]


def to_luma(x: Tensor) -> Tensor:
    """``(N, 3, H, W)`` → its luma in three equal channels."""
    return _luma(x).expand_as(x)


def _luma(x: Tensor) -> Tensor:
    """``(N, 1, H, W)``."""
    red, green, blue = x.split(1, dim=1)  # no tensor of the weights: bringing it to the device would wait for it
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


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
    # in fp32: bf16 has not the digits to tell the pixels of a big picture apart
    with torch.autocast(x.device.type, enabled=False):
        where = F.affine_grid(theta, list(x.shape), align_corners=False)
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


# What a phone and a room do to a face. On sources alone: the generator learns to see through it.


def misalign(x: Tensor, random: torch.Generator, degrees: float = 12.0, share: float = 0.1) -> Tensor:
    """Half of the pictures turned, moved and scaled at random, as an alignment by five points may be off.

    Args:
        degrees: at most turned by, to either side.
        share: at most moved by, to every side, and scaled by, in parts of the side.
    """
    turn, scale, right, down, chosen = _draws(x, random, 5)
    chosen = chosen < 0.5
    angle = torch.where(chosen, (2 * turn - 1) * math.radians(degrees), 0.0)
    zoom = torch.where(chosen, 1 + (2 * scale - 1) * share, 1.0)
    theta = torch.zeros(len(x), 2, 3, device=x.device)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos() * zoom
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin() * zoom, angle.sin() * zoom
    for axis, draw in enumerate((right, down)):  # the side is 2 here
        theta[:, axis, 2] = torch.where(chosen, (2 * draw - 1) * 2 * share, 0.0)
    where = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, where, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(-1, 1)


def photograph(x: Tensor, random: torch.Generator) -> Tensor:
    """Light, lens, sensor and file: gamma, contrast, colour temperature, light from one side, blur, noise and JPEG.

    Each happens to about half of the pictures, ``(N, 3, H, W)`` in [-1, 1], and to each by its own amount.
    """
    gamma, contrast, warmth, tint, side, direction, blur, noise, quality = (
        draw[:, None, None, None] for draw in _draws(x, random, 9)
    )
    light = ((x + 1) / 2).clamp(min=1e-4)
    light = light ** torch.exp(_half(gamma, -0.6, 0.6))
    mean = light.mean(dim=(1, 2, 3), keepdim=True)
    light = mean + (light - mean) * torch.exp(_half(contrast, -0.4, 0.3))
    warm, green = _half(warmth, -0.2, 0.2), _half(tint, -0.05, 0.05)
    light = light * torch.exp(torch.cat([warm, green, -warm], dim=1))
    rows = torch.linspace(-1, 1, x.shape[2], device=x.device).view(1, 1, -1, 1)
    columns = torch.linspace(-1, 1, x.shape[3], device=x.device).view(1, 1, 1, -1)
    angle = direction * 2 * math.pi
    light = light * torch.exp(_half(side, -0.8, 0.8) * (columns * angle.cos() + 0.5 * rows * angle.sin()))
    x = 2 * light.clamp(0, 1) - 1
    x = torch.lerp(x, _blurred(x), _half(blur, 0.0, 1.0))
    grain = torch.randn(x.shape, generator=random, device=x.device)
    x = (x + grain * _half(noise, 0.0, 0.12)).clamp(-1, 1)
    return torch.where(quality < 0.5, jpeg(x, quality * 2), x)


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """What JPEG's quantisation leaves of pictures in [-1, 1] whose side is a multiple of 8: ``(N, 3, H, W)``.

    On the device and for a quality a picture, which no library's encoder does; at the full side for colour, too.

    Args:
        quality: ``(N, 1, 1, 1)`` from 0 (blocks) to 1 (hardly seen).
    """
    count, _, height, width = x.shape
    # cosine transform of 8 × 8 blocks, orthonormal
    k = torch.arange(8, device=x.device, dtype=x.dtype)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    basis[0] *= math.sqrt(0.5)
    luma = _luma(x)
    split = torch.cat([luma, (x[:, 2:] - luma) * _BLUE, (x[:, :1] - luma) * _RED], dim=1) * 127.5
    blocks = split.view(count, 3, height // 8, 8, width // 8, 8)
    levels = torch.einsum("ui,ncaibj,vj->ncaubv", basis, blocks, basis)
    # steps grow with the frequency, as in the standard's tables, and are coarser for colour
    steps = (8 + 7 * (k[:, None] + k[None])) * torch.exp(3.0 * (0.5 - quality))[..., None, None]
    channel = torch.arange(3, device=x.device).view(1, 3, 1, 1, 1, 1)
    steps = steps.view(count, 1, 1, 8, 1, 8) * torch.where(channel == 0, 1.0, 1.6)
    blocks = torch.einsum("ui,ncaubv,vj->ncaibj", basis, (levels / steps).round() * steps, basis)
    luma, blue, red = (blocks.reshape(x.shape) / 127.5).split(1, dim=1)
    red, blue = luma + red / _RED, luma + blue / _BLUE
    green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return torch.cat([red, green, blue], dim=1).clamp(-1, 1)


def _draws(x: Tensor, random: torch.Generator, count: int) -> tuple[Tensor, ...]:
    """``count`` times ``(N,)`` uniform in [0, 1)."""
    return torch.rand(count, len(x), generator=random, device=x.device).unbind()


def _half(draw: Tensor, low: float, high: float) -> Tensor:
    """For half of the draws 0; for the others uniform in [low, high)."""
    return torch.where(draw < 0.5, low + (high - low) * 2 * draw, 0.0)


def _blurred(x: Tensor) -> Tensor:
    """A Gaussian of 1/64 of the side."""
    sigma = x.shape[2] / 64
    reach = math.ceil(2 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="reflect"), kernel[:, :, None], groups=x.shape[1])
    return F.conv2d(F.pad(x, (0, 0, reach, reach), mode="reflect"), kernel[..., None], groups=x.shape[1])
