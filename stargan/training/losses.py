"""The objective of StarGAN v2 (paper, section 3.2), as functions of networks and tensors.

What the two networks that play against each other minimise comes with its terms, detached, still on the device: reading them
is the caller's choice, because it waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from stargan.networks import Discriminator, Generator, MappingNetwork, StyleEncoder, instance_norm

Terms = dict[str, Tensor]
# Of the sliced Wasserstein distance (Karras et al. 2018, section 5): 7 × 7 px, down to 16 px.
PATCH, SMALLEST = 7, 16
# What the discriminator gets to see of pictures.
Seen = Callable[[Tensor], Tensor]
# What the generator's output for these domains stands for: its luma where they are monochrome, else itself.
Drawn = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Networks:
    """The four networks that are trained together."""

    generator: Generator
    mapping_network: MappingNetwork
    style_encoder: StyleEncoder
    discriminator: Discriminator


@dataclass
class Sources:
    """Pictures to translate: ``x`` ``(N, 3, H, W)`` in [-1, 1], ``domain`` ``(N,)``.

    ``clean`` is what the cycle leads back to: ``x`` itself, or the same in better light. ``kind`` ``(N,)`` is how the
    discriminator tells pictures of a domain apart: the domain itself, where it has but one.
    """

    x: Tensor
    domain: Tensor
    clean: Tensor = None  # type: ignore[assignment]
    kind: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.clean is None:
            self.clean = self.x
        if self.kind is None:
            self.kind = self.domain


@dataclass
class Targets:
    """Where to: ``domain`` ``(N,)`` and two inputs of ``style``, latent codes ``(N, latent_dim)`` or references ``(N, 3, H, W)``.

    The second input serves the diversity term alone; ``kind`` ``(N,)`` is that of the first, see :class:`Sources`. ``thumbnails``
    are of what is drawn in styles that come so.
    """

    domain: Tensor
    first: Tensor
    second: Tensor
    style: Callable[[Tensor, Tensor], Tensor]
    kind: Tensor = None  # type: ignore[assignment]
    thumbnails: Thumbnails | None = None

    def __post_init__(self) -> None:
        if self.kind is None:
            self.kind = self.domain


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Non-saturating logistic loss, mean over the batch: ``softplus(∓logits)``."""
    return F.softplus(-logits if real else logits).float().mean()


def r1_penalty(discriminator: Discriminator, x: Tensor, kind: Tensor) -> Tensor:
    """``0.5·‖∇ₓD(x)‖²``, mean over the batch (Mescheder et al. 2018), in fp32, of which CUDA's convolutions take TF32: squares of
    bf16 gradients lose too much."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.detach().float().requires_grad_()
        logits = discriminator(x, kind)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


class FeatureMeans:
    """Running means of the discriminator's features, ``(kinds, C)`` each, of real pictures and of translated ones.

    The discriminator looks at what tells each single drawing from a real one, such as its lines. That drawings are, all in all,
    too dark or too much of one kind is found in no single one of them, but here (feature matching; Salimans et al. 2016,
    arXiv:1606.03498, section 3.1). The means of a batch would not do: they are noise, and pulling them together takes away
    variety.
    """

    DECAY = 0.998  # a picture of the kind

    def __init__(self, kinds: int, channels: int, device: torch.device) -> None:
        self.real, self.fake = (torch.zeros(kinds, channels, device=device) for _ in range(2))
        # how much of each is known: all begin at 0
        self.known_real, self.known_fake = (torch.zeros(kinds, 1, device=device) for _ in range(2))

    @torch.no_grad()
    def update(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> None:
        """Features ``(N, C)`` and kinds ``(N,)`` of a batch; under ``torch.distributed``, of this process's part of it."""
        pairs = ((self.real, self.known_real, real), (self.fake, self.known_fake, fake))
        for mean, known, (features, kind) in pairs:
            own = (torch.arange(len(mean), device=kind.device)[:, None] == kind)[:, :, None].float()
            # no matrix product: autocast would make it one of bf16
            found = torch.cat([(own * features.float()).sum(dim=1), own.sum(dim=1)], dim=1)
            if dist.is_initialized():
                dist.all_reduce(found)
            total, count = found[:, :-1], found[:, -1:]
            share = 1 - self.DECAY**count
            mean.lerp_(total / count.clamp(min=1), share)
            known.lerp_(torch.ones_like(known), share)

    def shift(self) -> Tensor:
        """How far the drawings of each kind are off, ``(kinds, C)``; near 0 while little is known."""
        fake, real = self.fake / self.known_fake.clamp(min=1e-30), self.real / self.known_real.clamp(min=1e-30)
        return (fake - real) * torch.minimum(self.known_fake, self.known_real)


class Thumbnails:
    """The last real and translated pictures of each domain, at 16 px, and how far their distributions are apart.

    The discriminator does not see whether drawings are, all in all, too bright at the bottom or too pale, as no single one
    is. The sliced Wasserstein distance does, and each drawing can be told where it would have to lie (Deshpande et al. 2018,
    arXiv:1803.11188); that of a batch would be noise, so it is told by its rank among the last drawings. These are fewer than
    the real ones: the older ones are drawings of another generator, and make it swing.
    """

    SIDE, REAL, FAKE = 16, 1024, 128
    # Projections a step: of windows at random places, each onto random directions.
    WINDOW, WINDOWS, DIRECTIONS = 7, 8, 32

    def __init__(self, domains: int, device: torch.device) -> None:
        shapes = ((domains, kept, 3, self.SIDE, self.SIDE) for kept in (self.REAL, self.FAKE))
        self.real, self.fake = (torch.zeros(shape, device=device) for shape in shapes)
        # how many there have been: the next takes the place of the oldest
        self.count_real, self.count_fake = (torch.zeros(domains, dtype=torch.long, device=device) for _ in range(2))

    @torch.no_grad()
    def update(self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor]) -> None:
        """Pictures ``(N, 3, H, H)`` and domains ``(N,)`` of a batch; under ``torch.distributed``, of this process's part of it."""
        for kept, count, (x, of) in ((self.real, self.count_real, real), (self.fake, self.count_fake, fake)):
            small, domains = self._small(x), of
            if dist.is_initialized():
                small, domains = _gathered(small), _gathered(domains)
            most = kept.shape[1]  # of more at once, two could be given one place
            for part, domain in zip(small.split(most), domains.split(most), strict=True):
                own = (domain[:, None] == torch.arange(len(kept), device=domain.device)).long()
                place = (count + own.cumsum(dim=0) - own).gather(1, domain[:, None])[:, 0]
                kept[domain, place % most] = part
                count += own.sum(dim=0)

    def distance(self, x: Tensor, domain: Tensor, random: torch.Generator) -> Tensor:
        """Half the square of how far translated pictures ``(N, 3, H, H)`` would have to move, a projection, mean over all; 0 for
        domains of which too few have been seen."""
        with torch.autocast(x.device.type, enabled=False):
            across = self.SIDE - self.WINDOW + 1
            rows, columns = torch.randint(across, (2, self.WINDOWS), generator=random, device=x.device)
            directions = torch.randn(
                self.WINDOWS, self.DIRECTIONS, 3 * self.WINDOW**2, generator=random, device=x.device
            )
            directions = F.normalize(directions, dim=2)

            def projected(small: Tensor) -> Tensor:
                """``(N, 3, 16, 16)`` → ``(windows, directions, N)``."""
                windows = small.unfold(2, self.WINDOW, 1).unfold(3, self.WINDOW, 1)[:, :, rows, columns]
                return directions @ windows.permute(2, 1, 3, 4, 0).flatten(1, 3)

            with torch.no_grad():
                real, fake = (
                    projected(kept.flatten(0, 1)).unflatten(2, kept.shape[:2]).sort().values
                    for kept in (self.real, self.fake)
                )
                # of as many real ones as one translated one stands for, the mean
                aims = real.unflatten(3, (self.FAKE, -1)).mean(dim=4)
            own = projected(self._small(x))
            with torch.no_grad():
                rank = torch.searchsorted(fake.index_select(2, domain), own[..., None]).clamp(max=self.FAKE - 1)
                aim = aims.index_select(2, domain).gather(3, rank)[..., 0]
                known = (self.count_real >= self.REAL) & (self.count_fake >= self.FAKE)
            return 0.5 * ((own - aim).square() * known[domain]).mean()

    def _small(self, x: Tensor) -> Tensor:
        return F.interpolate(x.float(), size=(self.SIDE, self.SIDE), mode="area")


def _gathered(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def as_it_is(x: Tensor, domain: Tensor) -> Tensor:  # noqa: ARG001
    return x


def discriminator_loss(
    nets: Networks,
    reals: Sources,
    sources: Sources,
    targets: Targets,
    seen: Seen,
    drawn: Drawn = as_it_is,
    means: FeatureMeans | None = None,
) -> tuple[Tensor, Terms]:
    """Real against translated pictures (the paper's reals are the sources), which the targets' thumbnails take in, and ``means``
    their features; the R1 penalty comes on top, by itself, because it must run in fp32.
    """
    with torch.no_grad():
        fake = drawn(nets.generator(sources.x, targets.style(targets.first, targets.domain)), targets.domain)
    of_real, of_fake = (nets.discriminator.features(seen(x)) for x in (reals.x, fake))
    if means is not None:
        means.update((of_real, reals.kind), (of_fake, targets.kind))
    if targets.thumbnails is not None:
        targets.thumbnails.update((reals.x, reals.domain), (fake, targets.domain))
    real = nets.discriminator.logits(of_real, reals.kind)
    judged = nets.discriminator.logits(of_fake, targets.kind)
    terms = {"real": adversarial_loss(real, real=True), "fake": adversarial_loss(judged, real=False)}
    return terms["real"] + terms["fake"], _detached(terms)


def generator_loss(
    nets: Networks,
    sources: Sources,
    targets: Targets,
    weights: dict[str, float],
    seen: Seen,
    drawn: Drawn = as_it_is,
    means: FeatureMeans | None = None,
    light: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Terms]:
    """Adversarial, style reconstruction, diversity and cycle terms, :func:`grid_penalty` where its weight is not 0, feature
    matching where there are ``means``, and ``light``, which is :meth:`Thumbnails.distance`, where it is given; ``weights`` holds
    ``sty``, ``ds``, ``cyc``, ``grid``, ``fm`` and ``sw``.
    """
    generator = nets.generator
    features, _ = generator.encoder(sources.x)
    style = targets.style(targets.first, targets.domain)
    fake = drawn(generator.decoder(features, style), targets.domain)
    with torch.no_grad():  # the published order: the second picture of the pair is a constant, as are its features here
        other = generator.decoder(features.detach(), targets.style(targets.second, targets.domain))
        other = drawn(other, targets.domain)
    of_fake = nets.discriminator.features(seen(fake))
    logits = nets.discriminator.logits(of_fake, targets.kind)
    terms = {
        "adv": adversarial_loss(logits, real=True),
        "sty": (nets.style_encoder(fake, targets.domain) - style).float().abs().mean(),
        "ds": (fake - other).float().abs().mean(),
    }
    restored = drawn(generator(fake, nets.style_encoder(sources.clean, sources.domain)), sources.domain)
    terms["cyc"] = (restored - sources.clean).float().abs().mean()
    loss = terms["adv"] + weights["sty"] * terms["sty"] - weights["ds"] * terms["ds"] + weights["cyc"] * terms["cyc"]
    if weights["grid"]:
        terms["grid"] = grid_penalty(fake)
        loss = loss + weights["grid"] * terms["grid"]
    if means is not None:
        # to the shift, each drawing adds its own features; this gradient is half that of the squared shift
        shift = means.shift()[targets.kind]
        loss = loss + weights["fm"] * (shift * of_fake.float()).sum(dim=1).mean()
        terms["fm"] = shift.square().sum(dim=1).mean()
    if light is not None:
        terms["sw"] = light(fake, targets.domain)
        loss = loss + weights["sw"] * terms["sw"]
    return loss, _detached(terms)


# Standard deviations of a channel beyond which a value is a spike: eyes and highlights stay below.
SPIKE = 6.0


def spike_penalty(generator: Generator, x: Tensor, style: Tensor) -> Tensor:
    """Squares of what exceeds :data:`SPIKE` standard deviations in what the decoder passes on: summed over a channel, mean
    over channels, pictures and blocks.

    A generator that normalises its features can carry a signal past the norms in a spot that is far out of the ordinary, and
    draws blotches there (Karras et al. 2020, arXiv:1912.04958, section 2, whose remedy is another architecture).
    """
    features, _ = generator.encoder(x)
    passed = [features]
    for block in generator.decode:
        passed.append(block(passed[-1], style))
    return torch.stack(
        [F.relu(instance_norm(h).float().abs() - SPIKE).square().sum(dim=(2, 3)).mean() for h in passed]
    ).mean()


# Pixels over which a pattern must go on to count as a grid: hair is drawn in lines, but in none that alternate for so long.
GRID = 8


def grid_penalty(x: Tensor) -> Tensor:
    """How much of ``x`` ``(N, 3, H, W)`` alternates from pixel to pixel in rows, in columns, or as a checkerboard does: the mean
    square of what second differences keep, demodulated from the highest frequency and averaged over windows of :data:`GRID` pixels.

    Upsampling leaves such a pattern (Odena et al. 2016, doi:10.23915/distill.00003) on which the discriminator is weak: its
    own first average pooling takes it out.
    """
    x = x.float()
    columns = x.diff(n=2, dim=3) / 4
    rows = x.diff(n=2, dim=2) / 4
    signs = 1 - 2 * (torch.arange(x.shape[2] - 2, device=x.device) % 2).to(x.dtype)
    both = columns.diff(n=2, dim=2) / 4 * signs * signs[:, None]
    alternating = (columns * signs, rows * signs[:, None], both)
    found = (F.avg_pool2d(h, GRID, GRID // 2).square().mean() for h in alternating)
    return torch.stack(list(found)).sum()


def _detached(terms: Terms) -> Terms:
    return {name: value.detach() for name, value in terms.items()}


# Laplacian pyramid


def _blur(x: Tensor, gain: float = 1.0) -> Tensor:
    """The 5 × 5 binomial filter, mirrored at the borders."""
    row = x.new_tensor([1, 4, 6, 4, 1]) / 16
    kernel = (torch.outer(row, row) * gain).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=x.shape[1])


def laplacian_pyramid(x: Tensor) -> list[Tensor]:
    """``(N, 3, H, H)`` → what each side from H down to 16 px adds to the next smaller one; the last is the 16 px picture."""
    levels = []
    while x.shape[2] > SMALLEST:
        small = _blur(x)[:, :, ::2, ::2]
        spaced = torch.zeros_like(x)
        spaced[:, :, ::2, ::2] = small
        levels.append(x - _blur(spaced, gain=4.0))
        x = small
    return [*levels, x]
