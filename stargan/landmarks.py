"""The landmark network and the two masks of high-pass generators.

A CelebA-HQ generator is handed the source's edges, so that who is seen stays who it is; the masks say where (StarGAN v2,
appendix E). They are made from the heatmaps of 98 facial landmarks (numbered as in WFLW), which a stacked hourglass finds:

- Wang, Bo, Fuxin: *Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression*, ICCV 2019 (arXiv:1904.07399):
  the network as a whole, its boundary heatmap, CoordConv in the hourglass;
- Bulat, Tzimiropoulos: *How Far Are We from Solving the 2D & 3D Face Alignment Problem?*, ICCV 2017 (arXiv:1703.07332):
  the hourglass and its blocks;
- Liu et al.: *An Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution*, NeurIPS 2018
  (arXiv:1807.03247).

Parameter names are those of the published checkpoint, ``wing.ckpt``, so that it loads strictly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANDMARKS = 98
# What the network was trained on, and the side of the masks; the parts' shifts are in px of it.
SIDE = 256
# A heatmap's values below this count as "not here"; a landmark's peak is about 1.
_THRESHOLD = 0.1


class Part(NamedTuple):
    """Landmarks of the face, and how their heatmaps enter a mask: raised to ``power``, which narrows them, and moved."""

    landmarks: Iterable[int]
    power: int
    down: int


# The paper shows the masks but prints neither powers nor shifts. These follow from masks that the published
# implementation makes of 98 known bumps: with these numbers, and no others, every pixel of both is met.
_FINE = (
    Part(range(60, 76), 1, 24),  # eyes: the skin below
    Part(range(60, 76), 3, 8),  # eyes: the lower lids
    Part((51, 96, 97), 1, 0),  # root of the nose, pupils
    Part(range(52, 55), 1, -4),  # bridge of the nose
    Part(range(55, 60), 4, -8),  # nostrils
)
_COARSE = (
    *_FINE,
    Part(range(8, 25), 3, 0),  # chin
    Part((*range(34, 46), *range(47, 51)), 2, 7),  # eyebrows, but for their outer ends
    Part(range(77, 82), 4, 8),  # upper lip, but for the corners of the mouth
    Part(range(83, 88), 4, -8),  # lower lip
    Part(range(88, 96), 3, 2),  # inner side of the lips
)


def face_masks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Heatmaps ``(N, 98, h, w)`` → the masks of :meth:`stargan.networks.Generator.encoder`.

    Returns:
        Two masks ``(N, 1, 256, 256)`` float in [0, 1]: the whole face (for edges at 32 px), and eyes and nose (for edges at
        64 and 128 px).
    """
    maps = F.interpolate(heatmaps, size=(SIDE, SIDE), mode="bilinear", align_corners=True)
    maps = maps.where(maps >= _THRESHOLD, 0.0)
    # A landmark that is nowhere has an empty map: the bound keeps 0 / 0 out.
    maps = maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=_THRESHOLD)
    return _mask(maps, _COARSE), _mask(maps, _FINE)


def _mask(maps: Tensor, parts: Iterable[Part]) -> Tensor:
    """Normalised maps ``(N, 98, H, W)`` → the sum of the parts ``(N, 1, H, W)``, at most 1."""
    total = torch.zeros_like(maps[:, :1])
    for part in parts:
        found = maps[:, list(part.landmarks)].pow(part.power).sum(dim=1, keepdim=True)
        total += found.roll(part.down, dims=2)  # round the border, as published; faces keep away from it
    return total.clamp_(max=1.0)


class CoordConv(nn.Module):
    """A convolution that also sees where it is: each pixel's row and column in [-1, 1], and its distance from the middle,
    1 in the corners."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in + 3, dim_out, kernel, stride=stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(height, width)
        columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(height, width)
        radius = torch.hypot(rows, columns)
        where = torch.stack([rows, columns, radius / radius.max()]).expand(count, -1, -1, -1)
        return self.conv(torch.cat([x, where], dim=1))


class ConvBlock(nn.Module):
    """Three pre-activated convolutions, each of the one before, concatenated; and a shortcut (Bulat, figure 3b)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        half, quarter = dim_out // 2, dim_out // 4
        self.bn1 = nn.BatchNorm2d(dim_in)
        self.conv1 = nn.Conv2d(dim_in, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        # the published name; it changes the width, not the side
        self.downsample = None
        if dim_in != dim_out:
            pointwise = nn.Conv2d(dim_in, dim_out, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(dim_in), nn.ReLU(), pointwise)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(F.relu(self.bn1(x)))
        second = self.conv2(F.relu(self.bn2(first)))
        third = self.conv3(F.relu(self.bn3(second)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.cat([first, second, third], dim=1) + shortcut


class Hourglass(nn.Module):
    """Down ``depth`` times and up again, with a branch that stays at every side."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.coordconv = CoordConv(channels, channels, 1)
        # Published names: b1 stays, b2 goes down, b3 comes up; the last number counts the levels left.
        for level in range(depth, 0, -1):
            for branch in ("b1", "b2", "b3"):
                self.add_module(f"{branch}_{level}", ConvBlock(channels, channels))
        self.b2_plus_1 = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._level(self.coordconv(x), self.depth)

    def _level(self, x: Tensor, level: int) -> Tensor:
        if level == 0:
            return self.b2_plus_1(x)
        low = self.get_submodule(f"b2_{level}")(F.avg_pool2d(x, 2))
        low = self.get_submodule(f"b3_{level}")(self._level(low, level - 1))
        return self.get_submodule(f"b1_{level}")(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class LandmarkNetwork(nn.Module):
    """Picture of a face → a heatmap for each of 98 landmarks. One hourglass, the first where a checkpoint stacks several."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = CoordConv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = ConvBlock(64, 128)
        self.conv3 = ConvBlock(128, 128)
        self.conv4 = ConvBlock(128, 256)
        self.m0 = Hourglass(256, depth=4)
        self.top_m_0 = ConvBlock(256, 256)
        self.conv_last0 = nn.Conv2d(256, 256, 1)
        self.bn_end0 = nn.BatchNorm2d(256)
        self.l0 = nn.Conv2d(256, LANDMARKS + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` in [-1, 1], RGB → heatmaps ``(N, 98, 64, 64)``, about [0, 1] once trained."""
        if x.shape[2:] != (SIDE, SIDE):
            x = F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        x = F.relu(self.bn1(self.conv1((x + 1) / 2)))
        x = F.avg_pool2d(self.conv2(x), 2)
        x = self.top_m_0(self.m0(self.conv4(self.conv3(x))))
        x = self.l0(F.relu(self.bn_end0(self.conv_last0(x))))
        return x[:, :LANDMARKS]  # the last map is the face's boundary

    def masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures ``(N, 3, H, W)`` in [-1, 1] → the two masks of :func:`face_masks`."""
        return face_masks(self(x))
