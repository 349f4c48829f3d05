"""The objective of StarGAN v2 (paper, section 3.2), as functions of networks and tensors.

Every function returns the loss to minimise and its terms, detached, still on the device: reading them is the caller's choice,
because it waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stargan.networks import Discriminator, Generator, MappingNetwork, StyleEncoder, instance_norm

Terms = dict[str, Tensor]
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

    ``clean`` is what the cycle leads back to: ``x`` itself, or the same in better light.
    """

    x: Tensor
    domain: Tensor
    clean: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.clean is None:
            self.clean = self.x


@dataclass
class Targets:
    """Where to: ``domain`` ``(N,)`` and two inputs of ``style``, latent codes ``(N, latent_dim)`` or references ``(N, 3, H, W)``.

    The second input serves the diversity term alone.
    """

    domain: Tensor
    first: Tensor
    second: Tensor
    style: Callable[[Tensor, Tensor], Tensor]


def adversarial_loss(logits: Tensor, real: bool) -> Tensor:
    """Non-saturating logistic loss, mean over the batch: ``softplus(∓logits)``."""
    return F.softplus(-logits if real else logits).float().mean()


def r1_penalty(discriminator: Discriminator, x: Tensor, domain: Tensor) -> Tensor:
    """``0.5·‖∇ₓD(x)‖²``, mean over the batch (Mescheder et al. 2018), in fp32: squares of bf16 gradients lose too much."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.detach().float().requires_grad_()
        logits = discriminator(x, domain)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


def as_it_is(x: Tensor, domain: Tensor) -> Tensor:  # noqa: ARG001
    return x


def discriminator_loss(
    nets: Networks, reals: Sources, sources: Sources, targets: Targets, seen: Seen, drawn: Drawn = as_it_is
) -> tuple[Tensor, Terms]:
    """Real against translated pictures (the paper's reals are the sources); the R1 penalty comes on top, by itself, because it must run in fp32."""
    with torch.no_grad():
        fake = drawn(nets.generator(sources.x, targets.style(targets.first, targets.domain)), targets.domain)
    real = nets.discriminator(seen(reals.x), reals.domain)
    judged = nets.discriminator(seen(fake), targets.domain)
    terms = {"real": adversarial_loss(real, real=True), "fake": adversarial_loss(judged, real=False)}
    return terms["real"] + terms["fake"], _detached(terms)


def generator_loss(
    nets: Networks,
    sources: Sources,
    targets: Targets,
    weights: dict[str, float],
    seen: Seen,
    drawn: Drawn = as_it_is,
) -> tuple[Tensor, Terms]:
    """Adversarial, style reconstruction, diversity and cycle terms, and :func:`grid_penalty` where its weight is not 0;
    ``weights`` holds ``sty``, ``ds``, ``cyc`` and ``grid``.
    """
    generator = nets.generator
    features, _ = generator.encoder(sources.x)
    style = targets.style(targets.first, targets.domain)
    fake = drawn(generator.decoder(features, style), targets.domain)
    with torch.no_grad():  # the published order: the second picture of the pair is a constant, as are its features here
        other = generator.decoder(features.detach(), targets.style(targets.second, targets.domain))
        other = drawn(other, targets.domain)
    logits = nets.discriminator(seen(fake), targets.domain)
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
    """How much of ``x`` ``(N, 3, H, W)`` alternates from pixel to pixel in rows or columns: the mean square of what a second
    difference keeps, demodulated from the highest frequency and averaged over windows of :data:`GRID` pixels.

    Upsampling leaves such a pattern (Odena et al. 2016, doi:10.23915/distill.00003) on which the discriminator is weak: its
    own first average pooling takes it out.
    """
    x = x.float()
    columns = x.diff(n=2, dim=3) / 4
    rows = x.diff(n=2, dim=2) / 4
    signs = 1 - 2 * (torch.arange(x.shape[2] - 2, device=x.device) % 2).to(x.dtype)
    found = (F.avg_pool2d(h, GRID, GRID // 2).square().mean() for h in (columns * signs, rows * signs[:, None]))
    return torch.stack(list(found)).sum()


def _detached(terms: Terms) -> Terms:
    return {name: value.detach() for name, value in terms.items()}
