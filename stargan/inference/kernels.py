"""Convolutions and norms for fixed weights: as few multiplications as are faster, packed ahead for the CPU.

On a CPU, direct convolutions run near the peak of its arithmetic, so wide ones are computed with fewer multiplications
(:class:`Winograd`, :class:`Upsampling`). Norms stay in fp32, whatever the precision of the convolutions.
"""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stargan.networks import EPSILON, LEAK

# Fewer multiplications gain nothing where adding up and moving what is multiplied takes as long.
_WINOGRAD_CHANNELS = 128
_UPSAMPLING_CHANNELS = 256
# Bytes of input that Winograd takes on at a time: with what is made of it, they stay in the cache.
_STRIP = 4 << 20


def spread(weight: Tensor) -> Tensor:
    """The 3×3 weights ``(out, in, 3, 3)`` summed over a 2×2 window: ``(out, in, 4, 4)``."""
    return reduce(torch.add, (F.pad(weight, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1)))


class FoldedConv(nn.Module):
    """A convolution at fixed weights.

    Args:
        weight: ``(out, in, k, k)``; ``(in, out, k, k)`` if transposed.
        side: of the input, or its height and width, in px: what :func:`prepare` packs the weights for. Others work as well,
            if slowly.
    """

    weight: Tensor  # None once it is packed and of no more use
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        side: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 1,
        transposed: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.size = (side, side) if isinstance(side, int) else side
        self.stride, self.padding, self.transposed, self.groups = stride, padding, transposed, groups
        # set in the copy that torch.compile gets, see for_compiler
        self.traced = False
        self._packed: Tensor | None = None
        self._fewer: Winograd | Upsampling | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self._fewer is not None:
            return self._fewer(x)
        s, p, groups = self.stride, self.padding, self.groups
        # torch.compile takes packed weights of a transposed convolution for plain ones, with their channels mixed up.
        if self._packed is None or (self.transposed and self.traced):
            convolve = F.conv_transpose2d if self.transposed else F.conv2d
            return convolve(x, self.weight, self.bias, stride=s, padding=p, groups=groups)
        plain: tuple[str, list[float], str] = ("none", [], "")  # nothing is fused behind it
        if self.transposed:
            return torch.ops.mkldnn._convolution_transpose_pointwise(
                x, self._packed, self.bias, [p, p], [0, 0], [s, s], [1, 1], groups, *plain
            )
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, [p, p], [s, s], [1, 1], groups, *plain
        )

    def pack(self, *, fewer_multiplications: bool = True) -> None:
        """Reorders the weights once for the CPU's library, which would else do it at every call.

        Args:
            fewer_multiplications: whether to take a way with fewer of them, where it is faster; it rounds more coarsely.

        These operators are how torch.compile does it; they have no public name. Without them the plain ones serve.
        """
        if self._packed is not None or self._fewer is not None:
            return
        self._fewer = self._with_fewer_multiplications() if fewer_multiplications else None
        if self._fewer is not None:
            self.weight = None  # type: ignore[assignment]  # what was made of it takes up to four times its memory
            return
        s, p, groups, ops = self.stride, self.padding, self.groups, torch.ops.mkldnn
        size = [1, self.weight.shape[0 if self.transposed else 1] * groups, *self.size]
        try:
            if self.transposed:
                self._packed = ops._reorder_convolution_transpose_weight(
                    self.weight, [p, p], [0, 0], [s, s], [1, 1], groups, size
                )
            else:
                self._packed = ops._reorder_convolution_weight(self.weight, [p, p], [s, s], [1, 1], groups, size)
        except (AttributeError, RuntimeError):
            return
        if not self.transposed:  # else torch.compile wants it, see forward
            self.weight = None  # type: ignore[assignment]

    def _with_fewer_multiplications(self) -> Winograd | Upsampling | None:
        """The same convolution, for inputs of ``side``, where that is faster."""
        narrow, exact = min(self.weight.shape[:2]), self.weight.dtype == torch.float32
        if self.transposed and self.weight.shape[0] >= _UPSAMPLING_CHANNELS:
            return Upsampling(self.weight, self.bias, self.size)
        if self.weight.shape[2] != 3 or self.stride != 1 or self.transposed or self.padding != 1:
            return None
        side = min(self.size)
        # bf16 has digits to spare for what tiles of 4 lose only where little comes after it
        tile = 4 if exact or side >= 64 else 2
        least = _WINOGRAD_CHANNELS if tile == 4 else 2 * _WINOGRAD_CHANNELS
        if narrow < least or side < 16 or any(length % tile for length in self.size):
            return None
        return Winograd(self.weight, self.bias, self.size, tile)


def winograd_matrices(tile: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the minimal algorithm for ``tile`` outputs of three taps: what outputs, taps and inputs are multiplied by, float64.

    Toom and Cook's: the polynomials are evaluated at points, multiplied there, and interpolated. Any points will do; these
    lose the fewest digits: those of the literature, 0, ±1 and ±2, lose twice as many.
    """
    points = {2: (0, 1, -1), 4: (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))}[tile]
    p = torch.tensor(points, dtype=torch.float64)
    size = tile + 2  # one point is infinity
    outputs, taps, inputs = (
        torch.zeros(shape, dtype=torch.float64) for shape in ((tile, size), (size, 3), (size, size))
    )
    outputs[:, :-1] = p ** torch.arange(tile)[:, None]
    outputs[-1, -1] = taps[-1, -1] = 1
    for i, point in enumerate(p):
        others = torch.cat([p[:i], p[i + 1 :]])
        taps[i] = point ** torch.arange(3) / (point - others).prod()
        inputs[i, :-1] = _polynomial(others)
    inputs[-1] = _polynomial(p)
    return outputs, taps, inputs


def _polynomial(roots: Tensor) -> Tensor:
    """Coefficients, the constant first."""
    coefficients = torch.ones(1, dtype=roots.dtype)
    for root in roots:
        coefficients = F.pad(coefficients, (1, 0)) - root * F.pad(coefficients, (0, 1))
    return coefficients


class Winograd(nn.Module):
    """A 3×3 convolution with a fourth (tiles of 4) or 4/9 (tiles of 2) of the multiplications.

    Lavin, Gray: *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016 (arXiv:1509.09308). Sides must be multiples of
    the tile's. Each point that the polynomials are evaluated at is a group of channels of a picture with a pixel a tile, and
    what is multiplied there a 1×1 convolution in groups.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, size: tuple[int, int], tile: int) -> None:
        super().__init__()
        self.tile, self.channels, self.bias = tile, weight.shape[0], bias
        outputs, taps, inputs = (torch.kron(m, m) for m in winograd_matrices(tile))
        dtype, points = weight.dtype, len(taps)
        evaluated = taps @ weight.double().permute(2, 3, 0, 1).reshape(9, -1)
        rows, columns = size[0] // tile, size[1] // tile
        # as many rows of tiles at a time as stay in the cache with what is made of them
        strips = points * rows * columns * weight.shape[1] * weight.element_size() // _STRIP
        self.step = max(1, rows // max(1, strips))
        grouped = evaluated.view(-1, weight.shape[1], 1, 1).to(dtype)
        self.products = FoldedConv(grouped, None, (self.step, columns), padding=0, groups=points)
        self.products.pack()
        self.inputs, self.outputs = inputs.to(dtype), outputs.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        drawn = [self._picture(picture) for picture in F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))]
        return torch.stack(drawn).permute(0, 3, 1, 2) if len(drawn) > 1 else drawn[0][None].permute(0, 3, 1, 2)

    def _picture(self, x: Tensor) -> Tensor:
        """``(H + 2, W + 2, in)`` → ``(H, W, out)``."""
        tile, size, points = self.tile, self.tile + 2, len(self.inputs)
        rows, columns, channels = (x.shape[0] - 2) // tile, (x.shape[1] - 2) // tile, x.shape[2]
        patches = x.unfold(0, size, tile).unfold(1, size, tile).permute(0, 1, 3, 4, 2)
        out = x.new_empty(rows, tile, columns, tile, self.channels)
        for first in range(0, rows, self.step):
            part = patches[first : first + self.step].reshape(-1, points, channels)
            part = (self.inputs @ part).view(1, -1, columns, points * channels)
            products = self.products(part.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            tiles = self.outputs @ products.reshape(-1, points, self.channels)
            tiles = tiles.view(-1, columns, tile, tile, self.channels)
            out[first : first + self.step] = tiles.permute(0, 2, 1, 3, 4)
        out = out.view(rows * tile, columns * tile, -1)
        return out if self.bias is None else out.add_(self.bias)


class Upsampling(nn.Module):
    """Nearest upsampling and a 3×3 convolution with 9/16 of the multiplications of four 2×2 convolutions.

    Of one row x and taps a, b, c: with s = a + b + c, output 2i is s·x[i] - a·(x[i] - x[i - 1]), and output 2i + 1 is
    s·x[i] + c·(x[i + 1] - x[i]): three products for two outputs. So for the columns.

    Args:
        weight: ``(in, out, 4, 4)``, of the transposed convolution that does the same.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, size: tuple[int, int]) -> None:
        super().__init__()
        self.bias = bias
        height, width = size
        # A transposed convolution counts its taps backwards: (c, b + c, a + b, a).
        taps = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]], dtype=torch.float64)
        w = torch.einsum("ap,bq,iopq->aboi", taps, taps, weight.double()).to(weight.dtype)[..., None, None]
        self.plain = FoldedConv(w[0, 0], None, size, padding=0)
        self.across = FoldedConv(torch.cat([w[0, 1], w[0, 2]]), None, (height, width + 1), padding=0)
        self.down = FoldedConv(torch.cat([w[1, 0], w[2, 0]]), None, (height + 1, width), padding=0)
        both = torch.cat([w[1, 1], w[1, 2], w[2, 1], w[2, 2]])
        self.both = FoldedConv(both, None, (height + 1, width + 1), padding=0)
        for product in (self.plain, self.across, self.down, self.both):
            product.pack()

    def forward(self, x: Tensor) -> Tensor:
        drawn = torch.stack([self._picture(picture) for picture in x.permute(0, 2, 3, 1)])
        return drawn.permute(0, 3, 1, 2)

    def _picture(self, x: Tensor) -> Tensor:
        """``(H, W, in)`` → ``(2H, 2W, out)``."""
        height, width, _ = x.shape
        down = F.pad(x, (0, 0, 0, 0, 1, 1)).diff(dim=0)
        across, both = (F.pad(part, (0, 0, 1, 1)).diff(dim=1) for part in (x, down))
        s = self._product(self.plain, x)
        a, c = self._product(self.across, across).chunk(2, dim=2)
        top, bottom = self._product(self.down, down).chunk(2, dim=2)
        top_a, top_c, bottom_a, bottom_c = self._product(self.both, both).chunk(4, dim=2)
        left, right = s - a[:, :-1], s + c[:, 1:]
        out = x.new_empty(height, 2, width, 2, s.shape[2])
        out[:, 0, :, 0] = left - (top[:-1] - top_a[:-1, :-1])
        out[:, 0, :, 1] = right - (top[:-1] + top_c[:-1, 1:])
        out[:, 1, :, 0] = left + (bottom[1:] - bottom_a[1:, :-1])
        out[:, 1, :, 1] = right + (bottom[1:] + bottom_c[1:, 1:])
        out = out.view(2 * height, 2 * width, -1)
        return out if self.bias is None else out.add_(self.bias)

    @staticmethod
    def _product(convolution: FoldedConv, x: Tensor) -> Tensor:
        """A 1×1 convolution of ``(H, W, in)``: ``(H, W, out)``."""
        return convolution(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)


def scaled_norm(x: Tensor, scale: Tensor, shift: Tensor, *, traced: bool = False) -> Tensor:
    """Leaky ReLU of the instance norm of ``x``, times ``scale`` plus ``shift``, ``(N, C)`` each; one ``x`` serves them all.

    Statistics and arithmetic have the dtype of ``scale``; the result has that of ``x``.

    Args:
        traced: in the form that torch.compile makes fast.
    """
    if x.device.type == "cpu" and not traced:
        # of one picture, an instance norm is a batch norm, whose kernel is fast on channels-last and exact far from zero
        rows = [
            torch.native_batch_norm(row, a, b, None, None, True, 0.0, EPSILON)[0]
            for row, a, b in zip(x.expand(len(scale), -1, -1, -1).split(1), scale, shift, strict=True)
        ]
        return F.leaky_relu_(rows[0] if len(rows) == 1 else torch.cat(rows), LEAK)
    var, mean = torch.var_mean(x.to(scale.dtype), dim=(2, 3), keepdim=True, correction=0)
    scale = scale[:, :, None, None] * torch.rsqrt(var + EPSILON)
    shift = torch.addcmul(shift[:, :, None, None], mean, scale, value=-1)
    # one pass that reads and writes the narrow dtype; in terms of "+" and "*", it would be four, most of them in fp32
    size = (len(scale), *x.shape[1:])
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return F.leaky_relu_(torch.addcmul(shift, x, scale, out=out), LEAK)
