"""The four networks of StarGAN v2 as plain modules, and a finisher of drawings that is none of them.

Choi, Uh, Yoo, Ha: *StarGAN v2: Diverse Image Synthesis for Multiple Domains*, CVPR 2020 (arXiv:1912.01865), appendix E.
Parameter names are those of the published checkpoints, so that these load strictly.

Images are ``(N, 3, H, W)`` float in [-1, 1], RGB. A style code is ``(N, style_dim)`` float. A domain is an index into the
sorted domain names, ``(N,)`` int64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stargan.constants import default_base_channels

# Sides at which a high-pass generator carries the encoder's edges over to the decoder (paper, appendix E: CelebA-HQ).
SKIP_SIDES = (32, 64, 128)
# Slope of the leaky ReLUs below zero, and what keeps a norm from dividing by zero.
LEAK, EPSILON = 0.2, 1e-5
# Codes that a domain's mean style is taken over: at 10,000 it moves by less than 1 % from draw to draw.
MEAN_STYLE_CODES = 10_000


def init_weights(module: nn.Module) -> None:
    """He initialisation with zero biases (paper, section 4 "training"); call as ``net.apply(init_weights)``."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def instance_norm(x: Tensor) -> Tensor:
    """Each channel of each picture to zero mean and unit variance, computed in fp32 whatever the input's dtype.

    Written as mean and variance because ``F.instance_norm`` copies channels-last input to NCHW and back.
    """
    wide = x.float()
    var, mean = torch.var_mean(wide, dim=(2, 3), keepdim=True, correction=0)
    return ((wide - mean) * torch.rsqrt(var + EPSILON)).to(x.dtype)


def _pick(per_domain: Tensor, domain: Tensor) -> Tensor:
    """``(N, K, ...)`` and ``(N,)`` → ``(N, ...)``: each row's own domain."""
    # shape[0], since len() would be a constant in what is exported
    return per_domain[torch.arange(domain.shape[0], device=domain.device), domain]


class InstanceNorm(nn.Module):
    """Instance normalisation with a learned scale and shift for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x) * self.weight.view(1, -1, 1, 1).to(x.dtype) + self.bias.view(1, -1, 1, 1).to(x.dtype)


class AdaIN(nn.Module):
    """Adaptive instance normalisation: the style code sets each channel's scale and shift."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.fc(style)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return (1 + gamma) * instance_norm(x) + beta


class ResBlock(nn.Module):
    """Pre-activation residual block; ``downsample`` halves the side, ``normalize`` adds instance normalisation."""

    def __init__(self, dim_in: int, dim_out: int, *, normalize: bool = False, downsample: bool = False) -> None:
        super().__init__()
        self.downsample = downsample
        self.conv1 = nn.Conv2d(dim_in, dim_in, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.norm1 = InstanceNorm(dim_in) if normalize else None
        self.norm2 = InstanceNorm(dim_in) if normalize else None
        self.conv1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.conv1x1 is None else self.conv1x1(x)
        out = self.conv1(F.leaky_relu(x if self.norm1 is None else self.norm1(x), LEAK))
        if self.downsample:
            shortcut, out = F.avg_pool2d(shortcut, 2), F.avg_pool2d(out, 2)
        out = self.conv2(F.leaky_relu(out if self.norm2 is None else self.norm2(out), LEAK))
        return (shortcut + out) / math.sqrt(2)  # keeps the variance of the sum at one


class AdainResBlock(nn.Module):
    """Residual block of the decoder, styled by AdaIN; ``upsample`` doubles the side.

    With ``shortcut=False`` (high-pass generators) only the residual branch is used; ``conv1x1`` is kept all the same,
    because published checkpoints hold it.
    """

    def __init__(
        self, dim_in: int, dim_out: int, style_dim: int, *, upsample: bool = False, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.shortcut = shortcut
        self.conv1 = nn.Conv2d(dim_in, dim_out, 3, padding=1)
        self.conv2 = nn.Conv2d(dim_out, dim_out, 3, padding=1)
        self.norm1 = AdaIN(style_dim, dim_in)
        self.norm2 = AdaIN(style_dim, dim_out)
        self.conv1x1 = nn.Conv2d(dim_in, dim_out, 1, bias=False) if dim_in != dim_out else None

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        out = F.leaky_relu(self.norm1(x, style), LEAK)
        if self.upsample:
            out = F.interpolate(out, scale_factor=2.0, mode="nearest")
        out = self.conv2(F.leaky_relu(self.norm2(self.conv1(out), style), LEAK))
        if not self.shortcut:
            return out
        if self.conv1x1 is not None:
            x = self.conv1x1(x)  # a 1×1 convolution commutes with nearest upsampling, so it runs at the small side
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return (x + out) / math.sqrt(2)


class HighPass(nn.Module):
    """Depthwise 3×3 Laplacian, divided by the high-pass weight."""

    filter: Tensor

    def __init__(self, weight: float) -> None:
        super().__init__()
        laplacian = torch.full((3, 3), -1.0)
        laplacian[1, 1] = 8.0
        self.register_buffer("filter", laplacian / weight)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.filter.to(x.dtype).expand(channels, 1, 3, 3)
        return F.conv2d(x, kernel, padding=1, groups=channels)


class Finisher(nn.Module):
    """What restores finished drawings: a small residual U-Net (Ronneberger et al. 2015, arXiv:1505.04597), no part of the paper.

    The generator's last layers are narrow, and normalise every drawing. This works at a half to an eighth of the side.

    Args:
        channels: at half the side; twice as many at a quarter, and three times as many at an eighth.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        a, b, c = channels, 2 * channels, 3 * channels
        # here and at the end, the pixels of a 2×2 block are channels (Shi et al. 2016, arXiv:1609.05158)
        self.first = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, a, 3, padding=1))
        self.down = nn.ModuleList(nn.Sequential(ResBlock(*widths, downsample=True)) for widths in ((a, b), (b, c)))
        self.middle = nn.Sequential(ResBlock(c, c), ResBlock(c, c))
        self.up = nn.ModuleList(nn.Sequential(nn.Conv2d(*widths, 1)) for widths in ((c, b), (b, a)))
        self.merge = nn.ModuleList([nn.Sequential(ResBlock(b, b), ResBlock(b, b)), nn.Sequential(ResBlock(a, a))])
        self.last = nn.Sequential(nn.LeakyReLU(LEAK), nn.Conv2d(a, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """Drawings ``(N, 3, H, W)`` → the same, restored; H and W are multiples of 8."""
        h = self.first(x)
        levels = []
        for down in self.down:
            levels.append(h)
            h = down(h)
        h = self.middle(h)
        for up, merge in zip(self.up, self.merge, strict=True):
            h = merge(levels.pop() + F.interpolate(up(h), scale_factor=2.0, mode="nearest"))
        return x + self.last(h)


class Generator(nn.Module):
    """Source picture and style code → picture in the style's domain.

    The encoder does not see the style: :meth:`encoder` runs once a picture, :meth:`decoder` once a style. (``encode`` and
    ``decode`` themselves are the published names of the two stacks of blocks.)

    Args:
        image_size: side in px, a power of two, at least 32.
        style_dim: length of a style code.
        high_pass_weight: 0 for none; else masked edges of the source are added to the decoder (CelebA-HQ models), one more
            level is downsampled, and decoder blocks have no shortcut.
        base_channels: width at full side; None for the published ``2**14 // image_size``.
        max_channels: width at which doubling stops.
        finish_channels: 0 for none, as published; else finished drawings go through a :class:`Finisher` of that width.
    """

    def __init__(
        self,
        image_size: int = 256,
        style_dim: int = 64,
        high_pass_weight: float = 0.0,
        base_channels: int | None = None,
        max_channels: int = 512,
        finish_channels: int = 0,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        channels = base_channels or default_base_channels(image_size)
        high_pass = high_pass_weight > 0
        halvings = int(math.log2(image_size)) - 4 + high_pass  # the bottleneck is 16 px wide, 8 px with high-pass
        self.from_rgb = nn.Conv2d(3, channels, 3, padding=1)
        self.to_rgb = nn.Sequential(InstanceNorm(channels), nn.LeakyReLU(LEAK), nn.Conv2d(channels, 3, 1))
        encode, decode = [], []
        for _ in range(halvings):
            wider = min(2 * channels, max_channels)
            encode.append(ResBlock(channels, wider, normalize=True, downsample=True))
            decode.append(AdainResBlock(wider, channels, style_dim, upsample=True, shortcut=not high_pass))
            channels = wider
        for _ in range(2):
            encode.append(ResBlock(channels, channels, normalize=True))
            decode.append(AdainResBlock(channels, channels, style_dim, shortcut=not high_pass))
        self.encode = nn.ModuleList(encode)
        self.decode = nn.ModuleList(reversed(decode))
        if high_pass:
            self.hpf = HighPass(high_pass_weight)
        self.finish = Finisher(finish_channels) if finish_channels else None

    def encoder(self, x: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, dict[int, Tensor]]:
        """What does not depend on the style: features, and the edges to add to the decoder.

        Args:
            x: ``(N, 3, H, W)`` float in [-1, 1].
            masks: for high-pass generators, ``(N, 1, H, W)`` float in [0, 1] each: where the edges at 32 px, and where
                those at 64 and 128 px, are kept. None adds no edges.

        Returns:
            Features ``(N, C, h, w)``, and edges ``(N, c, side, side)`` by side (empty without masks).
        """
        x = self.from_rgb(x)
        edges = {}
        for block in self.encode:
            side = x.shape[2]
            if masks is not None and side in SKIP_SIDES:
                mask = masks[0] if side == 32 else masks[1]
                mask = F.interpolate(mask, size=(side, side), mode="bilinear", align_corners=False)
                edges[side] = self.hpf(mask.to(x.dtype) * x)
            x = block(x)
        return x, edges

    def decoder(self, features: Tensor, style: Tensor, edges: Mapping[int, Tensor] | None = None) -> Tensor:
        """Features and edges of :meth:`encoder`, and styles ``(N, style_dim)`` → pictures ``(N, 3, H, W)``, about [-1, 1]."""
        x = features
        for block in self.decode:
            x = block(x, style)
            if edges and x.shape[2] in edges:
                x = x + edges[x.shape[2]]
        x = self.to_rgb(x)
        return x if self.finish is None else self.finish(x)

    def forward(self, x: Tensor, style: Tensor, masks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Sources ``(N, 3, H, W)`` and styles ``(N, style_dim)`` → pictures ``(N, 3, H, W)``, about [-1, 1]."""
        features, edges = self.encoder(x, masks)
        return self.decoder(features, style, edges)


class MappingNetwork(nn.Module):
    """Latent code and domain → style code: four shared layers, then four of the domain's own."""

    def __init__(self, latent_dim: int = 16, style_dim: int = 64, num_domains: int = 2) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        width = 512
        self.shared = nn.Sequential(*_perceptron(latent_dim, width), nn.ReLU())
        self.unshared = nn.ModuleList(nn.Sequential(*_perceptron(width, width, style_dim)) for _ in range(num_domains))

    def forward(self, z: Tensor, domain: Tensor) -> Tensor:
        """Latent codes ``(N, latent_dim)``, standard normal, and domains ``(N,)`` → styles ``(N, style_dim)``."""
        h = self.shared(z)
        return _pick(torch.stack([head(h) for head in self.unshared], dim=1), domain)


def latent_code(seed: int, latent_dim: int) -> Tensor:
    """The latent code that a seed stands for, ``(latent_dim,)`` on the CPU: the same on every machine."""
    return torch.randn(latent_dim, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def mean_style(network: MappingNetwork, domain: int) -> Tensor:
    """The mean style of a domain over fixed latent codes, ``(style_dim,)`` on the network's device: what ψ truncates to."""
    z = torch.randn(MEAN_STYLE_CODES, network.latent_dim, generator=torch.Generator().manual_seed(0))
    device = next(network.parameters()).device
    return network(z.to(device), torch.full((len(z),), domain, device=device)).mean(dim=0)


def _perceptron(dim_in: int, width: int, dim_out: int | None = None) -> list[nn.Module]:
    """Four linear layers with ReLU between them."""
    dims = [dim_in, width, width, width, dim_out or width]
    layers: list[nn.Module] = []
    for before, after in pairwise(dims):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return layers[:-1]


def _trunk(image_size: int, base_channels: int | None, max_channels: int) -> tuple[list[nn.Module], int]:
    """What style encoder and discriminator share: picture → ``(N, C, 1, 1)``; the layers and C."""
    channels = base_channels or default_base_channels(image_size)
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1)]
    for _ in range(int(math.log2(image_size)) - 2):  # down to 4 px
        wider = min(2 * channels, max_channels)
        layers.append(ResBlock(channels, wider, downsample=True))
        channels = wider
    layers += [nn.LeakyReLU(LEAK), nn.Conv2d(channels, channels, 4), nn.LeakyReLU(LEAK)]
    return layers, channels


class StyleEncoder(nn.Module):
    """Reference picture and its domain → style code."""

    def __init__(
        self,
        image_size: int = 256,
        style_dim: int = 64,
        num_domains: int = 2,
        base_channels: int | None = None,
        max_channels: int = 512,
    ) -> None:
        super().__init__()
        layers, channels = _trunk(image_size, base_channels, max_channels)
        self.shared = nn.Sequential(*layers)
        self.unshared = nn.ModuleList(nn.Linear(channels, style_dim) for _ in range(num_domains))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` in [-1, 1] and domains ``(N,)`` → styles ``(N, style_dim)``."""
        h = self.shared(x).flatten(1)
        return _pick(torch.stack([head(h) for head in self.unshared], dim=1), domain)


class Discriminator(nn.Module):
    """Picture and domain → one logit: is it a real picture of that domain? (Or of a kind, where domains have several.)"""

    def __init__(
        self,
        image_size: int = 256,
        num_domains: int = 2,
        base_channels: int | None = None,
        max_channels: int = 512,
    ) -> None:
        super().__init__()
        layers, channels = _trunk(image_size, base_channels, max_channels)
        self.main = nn.Sequential(*layers, nn.Conv2d(channels, num_domains, 1))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` in [-1, 1] and domains ``(N,)`` → logits ``(N,)``."""
        return self.logits(self.features(x), domain)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees, which is linear: ``(N, C)``."""
        return self.main[:-1](x).flatten(1)

    def logits(self, features: Tensor, domain: Tensor) -> Tensor:
        return _pick(self.main[-1](features[:, :, None, None]).flatten(1), domain)
