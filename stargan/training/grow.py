"""A model of twice the side out of a smaller one.

At half the base width, the networks of twice the side hold those of the smaller one block for block: a level is added at the
pictures' side, and all that was learned below it stays. The new level first learns alone, by plain regression, to hand the old
levels what they had from their own first layers, and to draw what they drew, enlarged.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from stargan.models.checkpoint import Model
from stargan.models.config import Architecture
from stargan.networks import Discriminator
from stargan.training.losses import Networks
from stargan.training.trainer import Trainer

LEARNING_RATE = 1e-3


def grows_from(large: Architecture, small: Architecture) -> bool:
    """Whether a model of ``large`` has one of ``small`` inside it."""
    return large == replace(small, image_size=2 * small.image_size, base_channels=large.base_channels) and (
        2 * large.width == small.width and not large.high_pass_weight
    )


def grown_name(network: str, name: str) -> str | None:
    """Where a parameter of the small network is in the large one; None: it has no place there."""
    if network == "generator":
        if name.startswith(("from_rgb", "to_rgb")):
            return None
        return re.sub(r"^encode\.(\d+)", lambda found: f"encode.{int(found[1]) + 1}", name)
    if network in ("style_encoder", "discriminator"):
        trunk = re.match(r"(?:shared|main)\.(\d+)(.*)", name)
        if trunk is None:
            return name
        index = int(trunk[1])
        return None if index == 0 else f"{name.split('.')[0]}.{index + 1}{trunk[2]}"
    return name


def transplant(network: str, state: Mapping[str, Tensor], large: nn.Module) -> None:
    """Copies what the small network's ``state`` has a place for; the new levels keep what they have."""
    moved = {place: tensor for name, tensor in state.items() if (place := grown_name(network, name)) is not None}
    missing, unexpected = large.load_state_dict(moved, strict=False)
    differing = set(missing) ^ {name for name, _ in new_level(network, large)}
    if unexpected or differing:  # not a user's mistake: grows_from said that it fits
        raise RuntimeError(f"{network}: {sorted(differing)} and {unexpected} do not fit.")


def new_level(network: str, large: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that the small network has no counterpart of."""
    last = len(getattr(large, "decode", ())) - 1
    prefixes = {
        "generator": ("from_rgb.", "to_rgb.", "encode.0.", f"decode.{last}."),
        "style_encoder": ("shared.0.", "shared.1."),
        "discriminator": ("main.0.", "main.1."),
    }.get(network, ())
    return [(name, p) for name, p in large.named_parameters() if name.startswith(prefixes)] if prefixes else []


def halved(x: Tensor) -> Tensor:
    """``(N, 3, H, W)`` → ``(N, 3, H/2, W/2)``, smooth."""
    return F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def _distance(x: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, in variances of the target."""
    return F.mse_loss(x, target) / target.var().clamp(min=1e-6)


def grow(trainer: Trainer, small: Model, discriminator: Discriminator | None) -> float:
    """Puts a model into the trainer's networks, which are of twice its side, and lets the new level learn.

    The new level learns by regression, all else frozen, in fp32, on sources as they are drawn in training. With several
    processes, each takes its part of the batch.

    Args:
        small: moved to the trainer's device.
        discriminator: the small one, moved likewise; None where there is none: the large one stays untrained.

    Returns:
        The mean absolute difference of the drawings to those of ``small``, enlarged, in the last tenth of the steps.
    """
    grown: dict[str, nn.Module] = {**small.networks()}
    if discriminator is not None:
        grown["discriminator"] = discriminator
    for name, net in grown.items():
        transplant(name, net.to(trainer.device).state_dict(), getattr(trainer.nets, name))
    for net in vars(trainer.nets).values():
        net.requires_grad_(False)
    new = {name: new_level(name, getattr(trainer.nets, name)) for name in grown}
    learning = [getattr(trainer.nets, name) for name, level in new.items() if level]  # the mapping network stays
    parameters = [p.requires_grad_() for level in new.values() for _, p in level]
    steps = trainer.config.grow_steps
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=LEARNING_RATE / 20)
    differences: list[Tensor] = []
    for _ in trange(steps, desc="growing", disable=trainer.rank > 0):
        sources, targets = trainer.draw_sources()[0], trainer.draw_targets("latent")
        with torch.no_grad():
            mapped = small.mapping_network(targets.first, targets.domain)
        loss, difference = _regression(small, trainer.nets, sources.x, sources.domain, mapped, discriminator)
        loss.backward()
        for net in learning:
            trainer.average_gradients(net)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        differences.append(difference)
    for net in vars(trainer.nets).values():
        net.requires_grad_(True)
    return torch.stack(differences[-max(steps // 10, 1) :]).mean().item()


def _regression(
    small: Model, nets: Networks, x: Tensor, domain: Tensor, mapped: Tensor, discriminator: Discriminator | None
) -> tuple[Tensor, Tensor]:
    """The loss, and the mean absolute difference of the drawings, on pictures ``(N, 3, H, W)`` of twice the small side.

    Half of the drawings are in the styles ``mapped``, ``(N, style_dim)``; half in the pictures' own.
    """
    inner, inner_style = small.generator.from_rgb, small.style_encoder.shared[0]
    with torch.no_grad(), _outputs_of(inner, inner_style) as wanted:
        halves = halved(x)
        own = small.style_encoder(halves, domain)
        style = torch.where((torch.arange(len(x), device=x.device) % 2 == 0)[:, None], mapped, own)
        drawing = small.generator(halves, style)
        enlarged = F.interpolate(drawing, scale_factor=2, mode="bicubic", align_corners=False)
    outer, outer_style = nets.generator.encode[0], nets.style_encoder.shared[1]
    with _outputs_of(outer, outer_style) as found:
        difference = (nets.generator(x, style) - enlarged).abs().mean()
        loss = 10 * difference + _distance(nets.style_encoder(x, domain), own)
    loss = loss + _distance(found[outer], wanted[inner]) + _distance(found[outer_style], wanted[inner_style])
    if discriminator is not None:
        with torch.no_grad():
            judged = discriminator.main[0](halves)
        loss = loss + _distance(nets.discriminator.main[:2](x), judged)
    return loss, difference.detach()


@contextlib.contextmanager
def _outputs_of(*modules: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """What these give while this lasts."""
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _given: object, output: Tensor) -> None:
        outputs[module] = output

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
