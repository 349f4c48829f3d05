"""A model of twice the side out of a smaller one.

At half the base width, the networks of twice the side hold those of the smaller one block for block: a level is added at the
pictures' side, and all that was learned below it stays. The new level first learns alone, by plain regression, to hand the old
levels what they had from their own first layers, and to draw what they drew, enlarged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from stargan.models.checkpoint import Model
from stargan.models.config import Architecture
from stargan.training.losses import Networks

LEARNING_RATE = 1e-3
# ``draw()``: pictures of twice the side ``(N, 3, H, W)`` in [-1, 1] and their domains ``(N,)``.
Draw = Callable[[], tuple[Tensor, Tensor]]


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
    moved = {new: tensor for name, tensor in state.items() if (new := grown_name(network, name)) is not None}
    missing, unexpected = large.load_state_dict(moved, strict=False)
    new = {name for name, _ in _new_level(network, large)}
    if unexpected or set(missing) != new:  # not a user's mistake: grows_from said that it fits
        raise RuntimeError(f"{network}: {sorted(set(missing) ^ new)} and {unexpected} do not fit.")


def _new_level(network: str, large: nn.Module) -> list[tuple[str, nn.Parameter]]:
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


def learn_new_level(
    small: Model, nets: Networks, draw: Draw, steps: int, random: torch.Generator, first_layer: nn.Module | None = None
) -> float:
    """Regression of the new levels, all else frozen; in fp32.

    Args:
        small: the model inside, on the device of ``nets``.
        nets: transplanted from ``small``.
        draw: see :data:`Draw`.
        first_layer: of the small discriminator; None where ``nets`` has an untrained one.

    Returns:
        The mean absolute difference of the drawings to those of ``small``, enlarged, in the last tenth of the steps.
    """
    for net in vars(nets).values():
        net.requires_grad_(False)
    named = {"generator": nets.generator, "style_encoder": nets.style_encoder}
    if first_layer is not None:
        named["discriminator"] = nets.discriminator
    parameters = [p.requires_grad_() for name, net in named.items() for _, p in _new_level(name, net)]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), eta_min=LEARNING_RATE / 20)
    device, latent_dim = next(nets.generator.parameters()).device, small.config.architecture.latent_dim
    differences: list[Tensor] = []
    for _ in trange(steps, desc="growing"):
        x, domain = draw()
        x_small = halved(x)
        target = domain[torch.randperm(len(domain), generator=random, device=device)]
        z = torch.randn(len(x), latent_dim, generator=random, device=device)
        with torch.no_grad():
            # half of the styles are the mapping network's, half the style encoder's own
            style = small.mapping_network(z, target)
            own = small.style_encoder(x_small, domain)
            style = torch.where((torch.arange(len(x), device=device) % 2 == 0)[:, None], style, own)
            features = small.generator.from_rgb(x_small)
            drawing = small.generator(x_small, style)
            enlarged = F.interpolate(drawing, scale_factor=2, mode="bicubic", align_corners=False)
            trunk = small.style_encoder.shared[0](x_small)
        g, s = nets.generator, nets.style_encoder
        first = g.encode[0](g.from_rgb(x))
        hidden = first
        for block in g.encode[1:]:
            hidden = block(hidden)
        drawn = g.decoder(hidden, style)
        difference = (drawn - enlarged).abs().mean()
        seen = s.shared[1](s.shared[0](x))
        code = nets.style_encoder.unshared
        of_code = torch.stack([head(s.shared[2:](seen).flatten(1)) for head in code], dim=1)
        of_code = of_code[torch.arange(len(x), device=device), domain]
        loss = _distance(first, features) + 10 * difference + _distance(seen, trunk) + _distance(of_code, own)
        if first_layer is not None:
            with torch.no_grad():
                judged = first_layer(x_small)
            loss = loss + _distance(nets.discriminator.main[1](nets.discriminator.main[0](x)), judged)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        differences.append(difference.detach())
    for net in vars(nets).values():
        net.requires_grad_(True)
    return torch.stack(differences[-max(steps // 10, 1) :]).mean().item() if differences else float("nan")
