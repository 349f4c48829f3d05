"""The networks of inference, rewritten to do the same with less work.

Every rewrite is exact but for rounding:

- Nearest upsampling and a 3×3 convolution are four 2×2 convolutions, one for each parity of row and column: 4/9 of the
  work. Together these are one 4×4 convolution, transposed, with stride 2.
- A 3×3 convolution and 2×2 average pooling are one 4×4 convolution with stride 2, the transpose of the above.
- A 1×1 convolution commutes with both, so that shortcuts run at the smaller side.
- The 1/√2 of a residual sum goes into the weights of its two branches.
- A bias before an instance norm is gone after it; one before a sum with a 1×1 convolution is that one's.
- All scales and shifts that a style sets are one matrix product.

What :func:`prepare` then does is for speed alone: see :mod:`stargan.inference.kernels`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stargan.inference.kernels import FoldedConv, scaled_norm, spread
from stargan.networks import (
    LEAK,
    SKIP_SIDES,
    AdaIN,
    AdainResBlock,
    Finisher,
    Generator,
    InstanceNorm,
    ResBlock,
    StyleEncoder,
)

_HALF = math.sqrt(0.5)
Network = TypeVar("Network", bound=nn.Module)


def prepare(module: Network, device: torch.device, dtype: torch.dtype, *, packed: bool = True) -> Network:
    """The folded network on a device, convolving channels-last in ``dtype``; on the CPU with weights packed ahead."""
    module.to(device).requires_grad_(False).eval()
    # What bf16 loses in the encoder is lost to every drawing of a picture, and its time is shared by all of them.
    fewer = dtype == torch.float32 or not isinstance(module, FoldedEncoder)
    for part in module.modules():
        if isinstance(part, FoldedConv):
            part.to(dtype).to(memory_format=torch.channels_last)
            if packed and device.type == "cpu" and torch.backends.mkldnn.is_available():
                part.pack(fewer_multiplications=fewer)
    return module


def for_compiler(module: Network) -> Network:
    """A copy of a prepared network that torch.compile understands, with the same tensors in it.

    Packed weights and fused norms are what eager code is fastest with; the compiler takes some of them wrongly and makes
    slow code of others. While it works, :func:`torch.compiler.is_compiling` is true in every thread, so that no code may
    ask for it: the module that is compiled is one of its own.
    """
    tensors = [t for part in module.modules() for t in vars(part).values() if isinstance(t, Tensor)]
    tensors += [*module.parameters(), *module.buffers()]
    copied = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for part in copied.modules():
        if isinstance(part, FoldedConv | FoldedNorm | FoldedAdainResBlock):
            part.traced = True
    return copied


class FoldedNorm(nn.Module):
    """Instance norm with learned scale and shift, and leaky ReLU."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: InstanceNorm) -> None:
        super().__init__()
        self.register_buffer("scale", norm.weight.detach())
        self.register_buffer("shift", norm.bias.detach())
        self.traced = False

    def forward(self, x: Tensor) -> Tensor:
        return scaled_norm(x, self.scale.expand(len(x), -1), self.shift.expand(len(x), -1), traced=self.traced)


class FoldedResBlock(nn.Module):
    """:class:`stargan.networks.ResBlock` for inputs of one side."""

    def __init__(self, block: ResBlock, side: int) -> None:
        super().__init__()
        self.downsample = block.downsample
        self.norm1, self.norm2 = (
            nn.LeakyReLU(LEAK) if norm is None else FoldedNorm(norm) for norm in (block.norm1, block.norm2)
        )
        bias = block.conv1.bias if block.norm2 is None else None
        if block.downsample:
            self.conv1 = FoldedConv(spread(block.conv1.weight) / 4, bias, side, stride=2)
            side //= 2
        else:
            self.conv1 = FoldedConv(block.conv1.weight, bias, side)
        self.conv2, self.conv1x1 = _branches(block.conv2, block.conv1x1, side, side)

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
        self.traced = False
        if block.upsample:
            # A transposed convolution counts its taps backwards.
            weight = spread(block.conv1.weight).flip(2, 3).transpose(0, 1)
            self.conv1 = FoldedConv(weight, None, side, stride=2, transposed=True)
        else:
            self.conv1 = FoldedConv(block.conv1.weight, None, side)
        if block.shortcut:
            self.conv2, self.conv1x1 = _branches(block.conv2, block.conv1x1, side * (1 + block.upsample), side)
        else:
            self.conv2 = FoldedConv(block.conv2.weight, block.conv2.bias, side * (1 + block.upsample))
            self.conv1x1 = None

    def forward(self, x: Tensor, scale1: Tensor, shift1: Tensor, scale2: Tensor, shift2: Tensor) -> Tensor:
        out = self.conv1(scaled_norm(x, scale1, shift1, traced=self.traced))
        out = self.conv2(scaled_norm(out, scale2, shift2, traced=self.traced))
        if not self.shortcut:
            return out
        alpha = _HALF if self.conv1x1 is None else 1.0
        if self.conv1x1 is not None:
            x = self.conv1x1(x)
        if not self.upsample:
            return out.add_(x, alpha=alpha)
        # Each pixel of the shortcut is added to a 2×2 block, without an upsampled copy of it.
        blocks = out.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        blocks.add_(x.permute(0, 2, 3, 1)[:, :, None, :, None], alpha=alpha)
        return out


class FoldedEncoder(nn.Module):
    """:meth:`stargan.networks.Generator.encoder`: takes and returns the same, in the dtype of :func:`prepare`."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        side = generator.image_size
        self.from_rgb = FoldedConv(generator.from_rgb.weight, generator.from_rgb.bias, side)
        self.blocks = nn.ModuleList()
        for block in cast(Iterable[ResBlock], generator.encode):
            self.blocks.append(FoldedResBlock(block, side))
            side //= 1 + block.downsample
        if hasattr(generator, "hpf"):
            self.hpf = generator.hpf

    def forward(self, x: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        x = self.from_rgb(x)
        edges: dict[int, Tensor] = {}
        for block in self.blocks:
            side = x.shape[2]
            if masks is not None and side in SKIP_SIDES:
                mask = masks[0] if side == 32 else masks[1]
                mask = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False)
                edges[side] = self.hpf(mask.to(x.dtype) * x)
            x = block(x)
        return x, edges


class FoldedDecoder(nn.Module):
    """:meth:`stargan.networks.Generator.decoder`: takes and returns the same, in the dtype of :func:`prepare`.

    Features and edges of one picture serve any number of styles.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        decode = cast(Sequence[AdainResBlock], generator.decode)
        side = generator.image_size // 2 ** sum(block.upsample for block in decode)
        self.blocks = nn.ModuleList()
        norms: list[AdaIN] = []
        for block in decode:
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
        self.norm = FoldedNorm(cast(InstanceNorm, norm))
        to_rgb = cast(nn.Conv2d, to_rgb)
        self.to_rgb = FoldedConv(to_rgb.weight, to_rgb.bias, side, padding=0)
        self.finish = None if generator.finish is None else _fold_finisher(generator.finish, side)

    def forward(self, features: Tensor, style: Tensor, edges: Mapping[int, Tensor] | None = None) -> Tensor:
        affine = F.linear(style, self.weight, self.bias).split(self._widths, dim=1)
        x = features
        for i, block in enumerate(self.blocks):
            x = block(x, *affine[4 * i : 4 * i + 4])
            if edges and x.shape[2] in edges:
                x = x.add_(edges[x.shape[2]])
        x = self.to_rgb(self.norm(x))
        return x if self.finish is None else self.finish(x)


def fold_style_encoder(style_encoder: StyleEncoder, image_size: int) -> StyleEncoder:
    """A style encoder that does the same as the one given, for pictures of one side; that one is left as it is."""
    folded = copy.deepcopy(style_encoder)
    folded.shared = _fold_layers(style_encoder.shared, image_size)
    return folded


def _fold_finisher(finisher: Finisher, side: int) -> Finisher:
    """One that does the same, for drawings of one side."""
    folded = copy.deepcopy(finisher)
    half, quarter, eighth = side // 2, side // 4, side // 8
    folded.first, folded.last = (_fold_layers(part, half) for part in (finisher.first, finisher.last))
    folded.middle = _fold_layers(finisher.middle, eighth)
    for name, sides in {"down": (half, quarter), "up": (eighth, quarter), "merge": (quarter, half)}.items():
        parts = cast(Iterable[nn.Sequential], getattr(finisher, name))
        setattr(folded, name, nn.ModuleList(_fold_layers(*pair) for pair in zip(parts, sides, strict=True)))
    return folded


def _fold_layers(layers: nn.Sequential, side: int) -> nn.Sequential:
    """The same layers, folded, for inputs of one side."""
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, ResBlock):
            folded.append(FoldedResBlock(layer, side))
            side //= 1 + layer.downsample
        elif isinstance(layer, nn.Conv2d):
            stride, padding = int(layer.stride[0]), int(layer.padding[0])
            folded.append(FoldedConv(layer.weight, layer.bias, side, stride=stride, padding=padding))
            side //= stride
        else:
            folded.append(layer)
    return nn.Sequential(*folded)


def _branches(
    conv2: nn.Conv2d, conv1x1: nn.Conv2d | None, side: int, shortcut_side: int
) -> tuple[FoldedConv, FoldedConv | None]:
    """The last convolutions of the two branches that a block adds up."""
    assert conv2.bias is not None
    weight, bias = conv2.weight * _HALF, conv2.bias * _HALF
    if conv1x1 is None:
        return FoldedConv(weight, bias, side), None
    return FoldedConv(weight, None, side), FoldedConv(conv1x1.weight * _HALF, bias, shortcut_side, padding=0)
