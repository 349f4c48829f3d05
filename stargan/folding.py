"""The networks of inference, rewritten to do the same with less work.

Every rewrite is exact but for rounding:

- Nearest upsampling and a 3×3 convolution are four 2×2 convolutions, one for each parity of row and column: 4/9 of the
  work. Together these are one 4×4 convolution, transposed, with stride 2.
- A 3×3 convolution and 2×2 average pooling are one 4×4 convolution with stride 2, the transpose of the above.
- A 1×1 convolution commutes with both, so that shortcuts run at the smaller side.
- The 1/√2 of a residual sum goes into the weights of its two branches.
- All scales and shifts that a style sets are one matrix product.

What :func:`prepare` then does is for speed alone: channels-last weights of the chosen precision, packed ahead for the
CPU. Norms stay in fp32, whatever the precision of the convolutions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stargan.networks import (
    SKIP_SIDES,
    AdaIN,
    AdainResBlock,
    Generator,
    InstanceNorm,
    ResBlock,
    StyleEncoder,
)

_LEAK = 0.2
_EPS = 1e-5
_HALF = math.sqrt(0.5)


def spread(weight: Tensor) -> Tensor:
    """The 3×3 weights ``(out, in, 3, 3)`` summed over a 2×2 window: ``(out, in, 4, 4)``."""
    return sum(F.pad(weight, (left, 1 - left, top, 1 - top)) for left in (0, 1) for top in (0, 1))


class FoldedConv(nn.Module):
    """A convolution at fixed weights.

    Args:
        weight: ``(out, in, k, k)``; ``(in, out, k, k)`` if transposed.
        side: of the input, in px: what :func:`prepare` packs the weights for. Other sides work as well.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        side: int,
        *,
        stride: int = 1,
        padding: int = 1,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.side, self.stride, self.padding, self.transposed = side, stride, padding, transposed
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        s, p = self.stride, self.padding
        # torch.compile takes packed weights of a transposed convolution for plain ones, with their channels mixed up.
        if self._packed is None or (self.transposed and torch.compiler.is_compiling()):
            convolve = F.conv_transpose2d if self.transposed else F.conv2d
            return convolve(x, self.weight, self.bias, stride=s, padding=p)
        plain = ("none", [], "")  # nothing is fused behind it
        if self.transposed:
            return torch.ops.mkldnn._convolution_transpose_pointwise(
                x, self._packed, self.bias, [p, p], [0, 0], [s, s], [1, 1], 1, *plain
            )
        return torch.ops.mkldnn._convolution_pointwise(x, self._packed, self.bias, [p, p], [s, s], [1, 1], 1, *plain)

    def pack(self) -> None:
        """Reorders the weights once for the CPU's library, which would else do it at every call.

        These operators are how torch.compile does it; they have no public name. Without them the plain ones serve.
        """
        s, p, ops = self.stride, self.padding, torch.ops.mkldnn
        size = [1, self.weight.shape[0 if self.transposed else 1], self.side, self.side]
        try:
            if self.transposed:
                self._packed = ops._reorder_convolution_transpose_weight(
                    self.weight, [p, p], [0, 0], [s, s], [1, 1], 1, size
                )
            else:
                self._packed = ops._reorder_convolution_weight(self.weight, [p, p], [s, s], [1, 1], 1, size)
        except (AttributeError, RuntimeError):
            self._packed = None


def prepare(module: nn.Module, device: torch.device, dtype: torch.dtype, *, packed: bool = True) -> nn.Module:
    """The folded network on a device, convolving channels-last in ``dtype``; on the CPU with weights packed ahead."""
    module.to(device).requires_grad_(False).eval()
    for part in module.modules():
        if isinstance(part, FoldedConv):
            part.to(dtype=dtype, memory_format=torch.channels_last)
            if packed and device.type == "cpu" and torch.backends.mkldnn.is_available():
                part.pack()
    return module


def scaled_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Leaky ReLU of the instance norm of ``x``, times ``scale`` plus ``shift``, ``(N, C)`` each.

    Statistics and arithmetic have the dtype of ``scale``; the result has that of ``x``.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = [_eager_norm(row, a, b) for row, a, b in zip(x.split(1), scale, shift, strict=True)]
        return F.leaky_relu_(rows[0] if len(rows) == 1 else torch.cat(rows), _LEAK)
    wide = x.to(scale.dtype)
    var, mean = torch.var_mean(wide, dim=(2, 3), keepdim=True, correction=0)
    scale = scale[:, :, None, None] * torch.rsqrt(var + _EPS)
    return F.leaky_relu(wide * scale + (shift[:, :, None, None] - mean * scale), _LEAK).to(x.dtype)


def _eager_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Instance norm of one picture, as a group norm of one channel a group: on channels-last far faster than var_mean.

    That kernel subtracts the squared mean from the mean square, which loses the variance of a channel whose mean is far
    from zero. So a rough mean, of some 16 × 16 pixels, is taken off before; the norm removes the rest.
    """
    step = max(1, x.shape[2] // 16)
    rough = x[:, :, ::step, ::step].mean(dim=(2, 3), keepdim=True)
    return F.group_norm(x - rough, x.shape[1], scale, shift, _EPS)


class FoldedNorm(nn.Module):
    """Instance norm with learned scale and shift, and leaky ReLU."""

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.register_buffer("scale", norm.weight.detach())
        self.register_buffer("shift", norm.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return scaled_norm(x, self.scale.expand(len(x), -1), self.shift.expand(len(x), -1))


class FoldedResBlock(nn.Module):
    """:class:`stargan.networks.ResBlock` for inputs of one side."""

    def __init__(self, block: ResBlock, side: int) -> None:
        super().__init__()
        self.downsample = block.downsample
        self.norm1, self.norm2 = (
            nn.LeakyReLU(_LEAK) if norm is None else FoldedNorm(norm) for norm in (block.norm1, block.norm2)
        )
        if block.downsample:
            self.conv1 = FoldedConv(spread(block.conv1.weight) / 4, block.conv1.bias, side, stride=2)
            side //= 2
        else:
            self.conv1 = FoldedConv(block.conv1.weight, block.conv1.bias, side)
        self.conv2 = FoldedConv(block.conv2.weight * _HALF, block.conv2.bias * _HALF, side)
        self.conv1x1 = _shortcut(block.conv1x1, side)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        shortcut = F.avg_pool2d(x, 2) if self.downsample else x
        if self.conv1x1 is None:
            return out.add_(shortcut, alpha=_HALF)
        return out.add_(self.conv1x1(shortcut))


class FoldedAdainResBlock(nn.Module):
    """:class:`stargan.networks.AdainResBlock` for inputs of one side; scales and shifts are given."""

    def __init__(self, block: AdainResBlock, side: int) -> None:
        super().__init__()
        self.upsample, self.shortcut = block.upsample, block.shortcut
        half = _HALF if block.shortcut else 1.0
        self.conv1x1 = _shortcut(block.conv1x1, side) if block.shortcut else None
        if block.upsample:
            # A transposed convolution counts its taps backwards.
            weight = spread(block.conv1.weight).flip(2, 3).transpose(0, 1)
            self.conv1 = FoldedConv(weight, block.conv1.bias, side, stride=2, transposed=True)
            side *= 2
        else:
            self.conv1 = FoldedConv(block.conv1.weight, block.conv1.bias, side)
        self.conv2 = FoldedConv(block.conv2.weight * half, block.conv2.bias * half, side)

    def forward(self, x: Tensor, scale1: Tensor, shift1: Tensor, scale2: Tensor, shift2: Tensor) -> Tensor:
        out = self.conv2(scaled_norm(self.conv1(scaled_norm(x, scale1, shift1)), scale2, shift2))
        if not self.shortcut:
            return out
        alpha = _HALF if self.conv1x1 is None else 1.0
        if self.conv1x1 is not None:
            x = self.conv1x1(x)
        if not self.upsample:
            return out.add_(x, alpha=alpha)
        # Each pixel of the shortcut is added to a 2×2 block, without an upsampled copy of it.
        blocks = out.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        blocks.add_(x[:, :, :, None, :, None], alpha=alpha)
        return out


class FoldedEncoder(nn.Module):
    """:meth:`stargan.networks.Generator.encoder`: takes and returns the same, in the dtype of :func:`prepare`."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        side = generator.image_size
        self.from_rgb = FoldedConv(generator.from_rgb.weight, generator.from_rgb.bias, side)
        self.blocks = nn.ModuleList()
        for block in generator.encode:
            self.blocks.append(FoldedResBlock(block, side))
            side //= 1 + block.downsample
        self.hpf = getattr(generator, "hpf", None)

    def forward(self, x: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        x = self.from_rgb(x.to(self.from_rgb.weight.dtype))
        edges = {}
        for block in self.blocks:
            side = x.shape[2]
            if masks is not None and side in SKIP_SIDES:
                mask = masks[0] if side == 32 else masks[1]
                mask = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False)
                edges[side] = self.hpf(mask.to(x.dtype) * x)
            x = block(x)
        return x, edges


class FoldedDecoder(nn.Module):
    """:meth:`stargan.networks.Generator.decoder`: takes and returns the same, in the dtype of :func:`prepare`."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        side = generator.image_size // 2 ** sum(block.upsample for block in generator.decode)
        self.blocks = nn.ModuleList()
        norms: list[AdaIN] = []
        for block in generator.decode:
            self.blocks.append(FoldedAdainResBlock(block, side))
            side *= 1 + block.upsample
            norms += [block.norm1, block.norm2]
        halves = [half for norm in norms for half in norm.fc.weight.detach().chunk(2)]
        biases = [half for norm in norms for half in norm.fc.bias.detach().chunk(2)]
        biases[::2] = [bias + 1 for bias in biases[::2]]  # AdaIN's scale is 1 + γ
        self._widths = [len(half) for half in halves]
        self.register_buffer("weight", torch.cat(halves))
        self.register_buffer("bias", torch.cat(biases))
        norm, _, to_rgb = generator.to_rgb
        self.norm = FoldedNorm(norm)
        self.to_rgb = FoldedConv(to_rgb.weight, to_rgb.bias, side, padding=0)

    def forward(self, features: Tensor, style: Tensor, edges: Mapping[int, Tensor] | None = None) -> Tensor:
        affine = F.linear(style, self.weight, self.bias).split(self._widths, dim=1)
        x = features
        for i, block in enumerate(self.blocks):
            x = block(x, *affine[4 * i : 4 * i + 4])
            if edges and x.shape[2] in edges:
                x = x.add_(edges[x.shape[2]])
        return self.to_rgb(self.norm(x))


def fold_style_encoder(style_encoder: StyleEncoder, image_size: int) -> StyleEncoder:
    """A style encoder that does the same as the one given, for pictures of one side; that one is left as it is."""
    side = image_size
    layers: list[nn.Module] = []
    for layer in style_encoder.shared:
        if isinstance(layer, ResBlock):
            layers.append(FoldedResBlock(layer, side))
            side //= 1 + layer.downsample
        elif isinstance(layer, nn.Conv2d):
            layers.append(FoldedConv(layer.weight, layer.bias, side, padding=layer.padding[0]))
        else:
            layers.append(layer)
    folded = copy.deepcopy(style_encoder)
    folded.shared = nn.Sequential(*layers)
    return folded


def _shortcut(conv1x1: nn.Conv2d | None, side: int) -> FoldedConv | None:
    return None if conv1x1 is None else FoldedConv(conv1x1.weight * _HALF, None, side, padding=0)
