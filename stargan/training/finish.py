"""A finisher for a trained generator (:class:`stargan.networks.Finisher`): what draws as it does, with a surer hand.

A small generator knows what to draw better than how: lines waver, hair smears, a weave lies over flat areas. What such a drawing
should have been nobody can show, but of a real drawing, what it was before it was spoiled is known. So the finisher learns to restore
real drawings, whose lines are shifted, whose details are blurred away, and onto which is laid what non-local means take off the
generator's (as Wang et al. 2021 restore photos, arXiv:2107.10833). Of the generator's own drawings, it is to keep what can be
seen from afar, in the light of real ones (:mod:`stargan.training.refine`); and of both, a discriminator of patches
(Isola et al. 2017, arXiv:1611.07004) must not tell that they are none that somebody drew.

The generator stays as it is, and so does what is drawn in the other domains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import trange

from stargan.models.checkpoint import Model
from stargan.models.config import MAX_FINISH
from stargan.networks import LEAK, Finisher, init_weights
from stargan.pictures.tensors import from_levels, to_levels
from stargan.training.config import ConfigError
from stargan.training.data import Faces, augment
from stargan.training.losses import grid_penalty
from stargan.training.refine import (
    BATCH,
    SIDE,
    Correction,
    Lesson,
    corrections,
    device_of,
    non_local_means,
    own,
    shrunk,
)
from stargan.training.trainer import trains_in_bf16

# Of all steps, the first are without the discriminator, and in the next it learns alone; in the last, the finisher's rate falls.
ALONE, JUDGING, FALLING = 0.45, 0.1, 0.3
# A discriminator that has yet to learn what real drawings look like takes bigger steps.
FIRST_RATE, RATE = 1e-3, 3e-4
# The penalty on its gradient (Mescheder et al. 2018), of a mean over patches, is small: more, and it learns nothing. Every so many
# steps.
R1, R1_EVERY = 5e-4, 8
WIDTH = 32
# Weights of losses beside the mean difference of restored real drawings, which weighs 1. A grid too faint to be much of a difference
# fools the discriminator, and is seen.
COARSE, FINE, FEATURES, ADVERSARIAL, GRID = 2.0, 0.5, 0.1, 0.05, 1000.0
# The generator's own drawings are to fool the discriminator more than restored real ones, whose difference is known.
OWN = 1.5
# The side at which drawings keep what they show, as a share of theirs.
AFAR = 5 / 16
# Of what non-local means take off a drawing, and how many drawings it is taken off.
WEAVE, WOVEN = 0.12, 1_000
# Drawings in the other domains, which stay, for each of this one.
KEPT = 1 / 8
EMA = 0.998
# Random shifts in half px, by how many fields of them 128 px have; noise, likewise.
SHIFTS = {16: 1.2, 32: 1.0}
NOISE = {8: 0.05, 16: 0.05, 32: 0.06, 64: 0.06}


@dataclass(frozen=True)
class Finishing(Correction):
    """What is corrected, and how long it is learned.

    Attributes:
        channels: of the finisher, at half the side.
        steps: of all phases together.
        batch_size: of real drawings, and as many of the generator's.
        learning_rate: of Adam; half of it beside the discriminator.

    Raises:
        ConfigError: there would be nothing to learn, or too few drawings to know their light by; there is no finisher so wide.
    """

    channels: int = 32
    steps: int = 4000
    batch_size: int = 8
    learning_rate: float = 4e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.channels <= MAX_FINISH:
            raise ConfigError(f"The option channels must be 1 to {MAX_FINISH}, not {self.channels}.")


class PatchDiscriminator(nn.Module):
    """Whether patches of 10, 24 and 52 px are of real pictures (Isola et al. 2017, arXiv:1611.07004)."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def level(before: int, after: int, stride: int) -> nn.Sequential:
            coming = nn.Conv2d(before, after, 2 + stride, stride, padding=1)
            return nn.Sequential(coming, nn.LeakyReLU(LEAK), nn.Conv2d(after, after, 3, padding=1), nn.LeakyReLU(LEAK))

        self.levels = nn.ModuleList([level(12, width, 1), level(width, 2 * width, 2), level(2 * width, 2 * width, 2)])
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in (width, 2 * width, 2 * width))

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Pictures ``(N, 3, H, W)`` → logits ``(N, 1, h, w)`` of each level, over 0 for real ones; its features ``(N, C, h, w)``."""
        h = F.pixel_unshuffle(x, 2)
        logits, features = [], []
        for level, head in zip(self.levels, self.heads, strict=True):
            h = level(h)
            features.append(h)
            logits.append(head(h))
        return logits, features


def finish(
    model: Model, faces: Faces, domain: str, options: Finishing | None = None, groups: Sequence[str] = ("",)
) -> tuple[float, float]:
    """Gives a model a finisher, in place, which restores its drawings in ``domain``, or has its finisher learn on; the config says so.

    Args:
        model: on any device; it is computed there.
        faces, groups: as :func:`stargan.training.refine.refine` takes them.

    Returns:
        The mean absolute difference of spoiled real drawings from what they were, pixels being in [-1, 1], before they are restored
        and after, in the last tenth of the steps.

    Raises:
        ConfigError: it has a finisher of another width; and as of :func:`stargan.training.refine.refine`.
        DataError: as there.
    """
    options = options or Finishing()
    device = device_of(model)
    random = torch.Generator().manual_seed(0)
    before = model.generator.finish
    if before is not None and (has := model.config.architecture.finish_channels) != options.channels:
        raise ConfigError(f"The model has a finisher of {has} channels: the option channels must be {has}.")
    model.generator.finish = None
    try:
        changed, kept, _ = corrections(model, faces, domain, options, groups, random)
        drawn, stay = (_drawn(model, lesson) for lesson in (changed, kept))
    finally:
        model.generator.finish = before
    # in other domains, which a finisher may have been made for, too, all stays as it is now
    stays = kept.aims if before is None else to_levels(own(model, from_levels(_drawn(model, kept)), kept.domain))
    options = replace(options, bf16=options.bf16 and trains_in_bf16(device))  # as it is computed here
    woven = torch.randperm(len(drawn), generator=random)[:WOVEN]
    weave = torch.cat([_weave(from_levels(drawn[at].to(device))).half() for at in woven.split(BATCH)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        finisher = Finisher(options.channels).apply(init_weights)
        judge = PatchDiscriminator(WIDTH).apply(init_weights)
    if before is None:
        nn.init.zeros_(cast(nn.Conv2d, finisher.last[1]).weight)  # it changes nothing yet
    else:
        finisher.load_state_dict(before.state_dict())
    learning = _Learning(model, finisher.to(device), judge.to(device), options)
    index, batch = model.config.domains.index(domain), options.batch_size
    spoiled, restored = [], []
    for step in (bar := trange(options.steps, desc="learning", unit="step")):
        of = torch.full((2 * batch,), index)
        y = augment(faces.sample(of, random)[0], 0.0, random)
        real, others = own(model, y, of).to(device).split(batch)
        mine = torch.randint(len(drawn), (batch,), generator=random)
        left = torch.randint(len(stay), (math.ceil(KEPT * batch),), generator=random)
        x = torch.cat([_spoiled(real, weave, random), from_levels(torch.cat([drawn[mine], stay[left]]).to(device))])
        y = torch.cat([real, from_levels(torch.cat([changed.aims[mine], stays[left]]).to(device))])
        found = learning.step(step, x, y, torch.cat([of, kept.domain[left]]), others)
        if step >= int(0.9 * options.steps):
            spoiled.append((own(model, x[:batch], of[:batch]) - real).abs().mean())
            restored.append(found)
            bar.set_postfix(difference=round(found.item(), 4))
    architecture = replace(model.config.architecture, finish_channels=options.channels)
    # what it learned before it learned on is told, too
    facts = [*model.config.training.get("finished", []), {"domain": domain, "groups": [*groups], **asdict(options)}]
    model.config = replace(
        model.config, architecture=architecture, training={**model.config.training, "finished": facts}
    )
    average = cast(Finisher, learning.average.module)
    model.generator.finish = average.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    return torch.stack(spoiled).mean().item(), torch.stack(restored).mean().item()


class _Learning:
    """The two networks, and how a step changes them."""

    def __init__(self, model: Model, finisher: Finisher, judge: PatchDiscriminator, options: Finishing) -> None:
        self.model, self.options, self.device = model, options, device_of(model)
        self.layout = torch.channels_last if options.bf16 else torch.contiguous_format
        self.finisher, self.judge = (net.to(memory_format=self.layout) for net in (finisher, judge))
        self.average = AveragedModel(finisher, multi_avg_fn=_moving_average)
        self.restore, self.tell = (torch.compile(net) if options.compile else net for net in (finisher, judge))
        self.optimizer = torch.optim.Adam(finisher.parameters(), options.learning_rate, betas=(0.5, 0.99))
        self.judges = torch.optim.Adam(judge.parameters(), FIRST_RATE, betas=(0.0, 0.99))

    def step(self, step: int, x: Tensor, y: Tensor, of: Tensor, others: Tensor) -> Tensor:
        """
        Args:
            x, y: spoiled real drawings, as many of the generator's, and what is drawn in other domains; what they are to become;
                ``(N, 3, H, W)`` both.
            of: their domains, ``(N,)`` int64, on the CPU.
            others: other real drawings, as many as of the first.

        Returns:
            The mean absolute difference of restored real drawings from what they were.
        """
        at, count = step / self.options.steps, len(others)
        with self._in_bf16():
            restored = self.restore(x.contiguous(memory_format=self.layout))
        restored, real = own(self.model, restored.float(), of), y[:count]
        difference = restored - y
        found = difference[:count].detach().abs().mean()
        if at >= ALONE:
            self._judge(step, torch.cat([real, others]), restored[: 2 * count].detach())
        if ALONE <= at < ALONE + JUDGING:
            return found
        first, mine, left = difference.split([count, count, len(x) - 2 * count])
        loss = first.abs().mean() + shrunk(first, SIDE).abs().mean() + left.abs().mean()
        loss = loss + GRID * grid_penalty(restored)
        afar = shrunk(mine, round(AFAR * mine.shape[2])).abs().mean() + shrunk(mine, SIDE).abs().mean()
        loss = loss + COARSE * afar + FINE * mine.abs().mean()
        if at >= ALONE:
            loss = loss + self._fooling(restored[: 2 * count], real) * min(1, 10 * (at - ALONE - JUDGING))
        rate = self.options.learning_rate * (1 if at < ALONE else 0.5) * min(1, (step + 1) / 50)
        _take(self.optimizer, loss, rate * min(1, (1 - at) / FALLING), self.finisher)
        self.average.update_parameters(self.finisher)
        return found

    def _judge(self, step: int, real: Tensor, restored: Tensor) -> None:
        (logits, _), (others, _) = self._tell(real), self._tell(restored)
        loss = real.new_zeros(())
        for level, other in zip(logits, others, strict=True):
            loss = loss + F.softplus(-level).mean() + F.softplus(other).mean()
        if step % R1_EVERY == 0:
            x = real[: len(real) // 2].clone().requires_grad_(True)
            logits = self._tell(x, compiled=False)[0]
            (gradient,) = torch.autograd.grad(
                [level.flatten(1).mean(1).sum() for level in logits], x, create_graph=True
            )
            loss = loss + R1_EVERY * R1 / 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
        alone = step < (ALONE + JUDGING) * self.options.steps
        _take(self.judges, loss, FIRST_RATE if alone else RATE, self.judge)

    def _fooling(self, restored: Tensor, real: Tensor) -> Tensor:
        """Low where the discriminator takes drawings for real ones, and finds in the first half what it finds in these."""
        self.judge.requires_grad_(False)
        logits, features = self._tell(restored)
        with torch.no_grad():
            wanted = self._tell(real)[1]
        self.judge.requires_grad_(True)
        total = restored.new_zeros(())
        for level, found, aim in zip(logits, features, wanted, strict=True):
            first, mine = F.softplus(-level).split(len(real))
            total = total + ADVERSARIAL * (first.mean() + OWN * mine.mean())
            total = total + FEATURES * (found[: len(real)] - aim).abs().mean() / aim.abs().mean()
        return total

    def _tell(self, x: Tensor, *, compiled: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        with self._in_bf16():
            logits, features = (self.tell if compiled else self.judge)(x.contiguous(memory_format=self.layout))
        return [level.float() for level in logits], [level.float() for level in features]

    def _in_bf16(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)


@torch.no_grad()
def _moving_average(
    average: tuple[Tensor, ...] | list[Tensor], now: tuple[Tensor, ...] | list[Tensor], count: Tensor | int
) -> None:
    """Of the weights; of the first steps, which move them most, less is kept."""
    decay = min(EMA, (1 + int(count)) / (10 + int(count)))
    for kept, new in zip(average, now, strict=True):
        kept.lerp_(new, 1 - decay)


def _take(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float, network: nn.Module) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimizer.step()


@torch.no_grad()
def _drawn(model: Model, lesson: Lesson) -> Tensor:
    """As the generator draws, ``(N, 3, H, W)`` uint8 on the CPU."""
    device = device_of(model)
    parts = zip(lesson.features.split(BATCH), lesson.styles.split(BATCH), strict=True)
    return torch.cat([to_levels(model.generator.decoder(f.to(device).float(), s.to(device)).cpu()) for f, s in parts])


def _weave(x: Tensor) -> Tensor:
    return x - non_local_means(x, WEAVE)


def _spoiled(x: Tensor, weave: Tensor, random: torch.Generator) -> Tensor:
    """Real drawings ``(N, 3, H, W)`` as an unsure hand would have drawn them."""
    count, side, device = len(x), x.shape[2], x.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=random).to(device)

    def fields(channels: int, fine: int) -> Tensor:
        """Smooth random numbers, which vary ``fine`` times over 128 px."""
        coarse = torch.randn(count, channels, *[max(1, fine * side // 128)] * 2, generator=random)
        return F.interpolate(coarse.to(device), size=side, mode="bicubic", align_corners=False)

    shifts = torch.zeros_like(x[:, :2])
    for fine, most in SHIFTS.items():
        shifts += fields(2, fine) * most * uniform(1, 1, 1) / side
    still = F.affine_grid(torch.eye(2, 3, device=device).expand(count, 2, 3), list(x.shape), align_corners=False)
    x = F.grid_sample(x, still + shifts.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)
    small = int(torch.randint(9 * side // 32, 5 * side // 8, (), generator=random))
    x = F.interpolate(shrunk(x, small), size=side, mode="bicubic", align_corners=False)
    woven = weave[torch.randint(len(weave), (count,), generator=random).to(weave.device)].float()
    x = x + 2 * uniform(1, 1, 1) * torch.where(uniform(1, 1, 1) < 0.5, woven.flip(3), woven)
    for fine, much in NOISE.items():
        x = x + much * uniform(1, 1, 1).square() * (fields(1, fine) + 0.6 * fields(3, fine))
    return x.clamp(-1.1, 1.1)
