"""Matching of a trained generator: sets of its drawings get what all real ones together have.

A discriminator sees what tells a single drawing from a real one. That those of one kind of photo are, all in all, too much alike or
too much like the photos is found in no single one of them, but in the statistics of a set: of what classifiers of the domains see
of it, and of its patches, from coarse to fine. Each drawing is told where it would have to lie for the set's to be those of real
drawings, as optimal transport says (Peyré and Cuturi 2019, arXiv:1803.00567): for features, between normal distributions; for
patches, along random directions (sliced Wasserstein; Deshpande et al. 2018, arXiv:1803.11188). The decoder learns that by
regression, and keeps what each drawing shows.

Encoder, styles and finisher stay as they are, and so does what is drawn in the other domains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import trange

from stargan.models.checkpoint import Model
from stargan.pictures.tensors import from_levels
from stargan.training.calibrate import moment_matching, total_variance
from stargan.training.data import Faces
from stargan.training.losses import PATCH, grid_penalty, laplacian_pyramid
from stargan.training.refine import (
    BATCH,
    KEPT,
    SIDE,
    Drawings,
    Lesson,
    check,
    device_of,
    draw_sets,
    own,
    shrunk,
)
from stargan.training.trainer import trains_in_bf16

# Pictures ``(N, 3, H, H)`` in [-1, 1] → what a classifier sees of them, ``(N, D)``, differentiable.
Features = Callable[[Tensor], Tensor]
# Sets that a batch is of: a few drawings of each set would say little of its patches.
TOGETHER = 2
# The side of levels whose patches are matched, at most: what is finer is the finisher's.
FINEST = 64
# Patches a level of each drawing, the real pictures that they are compared with, and directions a step.
PATCHES, PICTURES, DIRECTIONS = 8, 3_000, 32
# Steps after which aims are found anew, of the drawings as they have become.
AIMED_EVERY = 150
# Pixels that pictures are moved by, at most, in 128, so that features do not hang on single ones.
MOVED = 2
# Weights of losses beside the squared distance from the aims of features, in total variances, which weighs 1.
PATCH_WEIGHT, GRID = 20.0, 300.0
# What a drawing shows: as details, above the side below; as what that side has; as light.
DETAILS, COARSE, LIGHT = 3.0, 0.5, 1.0
COARSE_SIDE = 32
# The shares of steps in which the rate rises, and falls.
RISING, FALLING = 0.04, 0.35


@dataclass(frozen=True)
class Matching(Drawings):
    """How long it is learned.

    Attributes:
        steps: of all.
        batch_size: of drawings that change.
        learning_rate: of Adam, at most.
    """

    drawings: int = 500
    steps: int = 1200
    batch_size: int = 32
    learning_rate: float = 1.5e-4


def match(
    model: Model,
    faces: Faces,
    domain: str,
    judges: Sequence[Features],
    options: Matching | None = None,
    groups: Sequence[str] = ("",),
) -> tuple[float, float]:
    """Trains the decoder, in place, so that what is drawn in ``domain`` has the statistics of real drawings; the config says so.

    Args:
        model, faces, groups: as :func:`stargan.training.refine.refine` takes them; a finisher is none of its obstacles.
        judges: what several classifiers see: a single one's would be matched for itself alone.

    Returns:
        The mean squared distance of features from where optimal transport takes them, in total variances: before, and in the last
        steps.

    Raises:
        ConfigError, DataError: as of :func:`stargan.training.refine.refine`.
    """
    options = options or Matching()
    random = torch.Generator().manual_seed(0)
    target = check(model, faces, domain, options, groups)
    drawn, kept = draw_sets(model, faces, target, options, groups, random)
    real = _Real(model, faces, target, judges, random)
    sets = [_Set(lesson, judges, real, device_of(model), random) for lesson in drawn]
    before = sum(one.aim(real) for one in sets) / len(sets)
    options = replace(options, bf16=options.bf16 and trains_in_bf16(device_of(model)))  # as it is computed here
    _learn(model, sets, kept, real, judges, options, random)
    after = sum(one.aim(real) for one in sets) / len(sets)
    facts = {"domain": domain, "groups": [*groups], "judges": len(judges), **asdict(options)}
    matched = [*model.config.training.get("matched", []), facts]
    model.config = replace(model.config, training={**model.config.training, "matched": matched})
    return before, after


class _Real:
    """What is known of real drawings.

    Attributes:
        features: of each judge, ``(N, D)``.
        patches: by side in px, ``(M, PATCHES, 3·PATCH²)``, each channel with zero mean and unit variance.
    """

    def __init__(
        self, model: Model, faces: Faces, domain: int, judges: Sequence[Features], random: torch.Generator
    ) -> None:
        pictures = faces.pictures[domain]

        def parts(at: Tensor) -> Iterator[Tensor]:
            of = torch.full((BATCH,), domain)
            return (own(model, from_levels(pictures[part]), of[: len(part)]) for part in at.split(BATCH))

        self.features = _features(parts(torch.arange(len(pictures))), judges, device_of(model))
        chosen = parts(torch.randperm(len(pictures), generator=random)[:PICTURES])
        found = [_patches(part, random) for part in chosen]
        self.patches = {side: torch.cat([one[side] for one in found]) for side in found[0]}
        self.scales = {}
        for side, patches in self.patches.items():
            channels = patches.unflatten(2, (3, -1))
            deviation, mean = torch.std_mean(channels, dim=(0, 1, 3), keepdim=True)
            self.scales[side] = deviation.clamp(min=1e-8), mean
            self.patches[side] = self.normal(side, patches)

    def normal(self, side: int, patches: Tensor) -> Tensor:
        """Patches in the deviations of real ones."""
        deviation, mean = (scale.to(patches.device) for scale in self.scales[side])
        return ((patches.unflatten(2, (3, -1)) - mean) / deviation).flatten(2)


class _Set:
    """Drawings that are compared with the real ones, and what was last seen of them.

    Attributes:
        features, aims: of each judge, ``(N, D)``.
        patches: as those of real drawings.
    """

    def __init__(
        self, lesson: Lesson, judges: Sequence[Features], real: _Real, device: torch.device, random: torch.Generator
    ) -> None:
        self.lesson = lesson
        parts = lesson.aims.split(BATCH)
        self.features = _features(map(from_levels, parts), judges, device)
        found = [_patches(from_levels(part), random) for part in parts]
        self.patches = {side: real.normal(side, torch.cat([one[side] for one in found])) for side in found[0]}
        self.aims: list[Tensor] = []

    def aim(self, real: _Real) -> float:
        """Finds the aims anew; → the mean squared distance of features from them, in total variances."""
        self.aims = []
        distance = 0.0
        for features, others in zip(self.features, real.features, strict=True):
            weight, bias = moment_matching(features, others)
            self.aims.append(features @ weight.T + bias)
            distance += (features - self.aims[-1]).square().sum(1).mean().item() / total_variance(others)
        return distance / len(self.aims)


@torch.no_grad()
def _features(parts: Iterable[Tensor], judges: Sequence[Features], device: torch.device) -> list[Tensor]:
    found = [[judge(x).cpu() for judge in judges] for x in (part.to(device) for part in parts)]
    return [torch.cat(own) for own in zip(*found, strict=True)]


def _patches(x: Tensor, random: torch.Generator) -> dict[int, Tensor]:
    """At random places of each level of each picture: ``(N, PATCHES, 3·PATCH²)`` by side in px."""
    found = {}
    for level in laplacian_pyramid(x):
        side, count = level.shape[2], len(level)
        if side > FINEST:
            continue
        row, column = torch.randint(side - PATCH + 1, (2, count, PATCHES), generator=random).to(x.device)
        windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
        found[side] = windows[torch.arange(count, device=x.device)[:, None], :, row, column].flatten(2)
    return found


def _learn(
    model: Model,
    sets: Sequence[_Set],
    kept: Lesson,
    real: _Real,
    judges: Sequence[Features],
    options: Matching,
    random: torch.Generator,
) -> None:
    layout = torch.channels_last if options.bf16 else torch.contiguous_format
    device, generator = device_of(model), model.generator.to(memory_format=layout)
    draw = torch.compile(generator.decoder) if options.compile else generator.decoder
    learning = nn.ModuleList([generator.decode, generator.to_rgb])
    variances = [total_variance(features) for features in real.features]
    each = max(1, options.batch_size // TOGETHER)

    def rate(step: int) -> float:
        done = step / options.steps
        return min(1, (step + 1) / (RISING * options.steps), (1 - done) / FALLING)

    optimizer = torch.optim.Adam(learning.parameters(), options.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    learning.requires_grad_(True)
    waiting: list[int] = []
    try:
        for step in (bar := trange(options.steps, desc="learning", unit="step")):
            if len(waiting) < TOGETHER:
                waiting = torch.randperm(len(sets), generator=random).tolist()
            chosen = [sets[waiting.pop()] for _ in range(min(TOGETHER, len(sets)))]
            at = [torch.randint(len(one.lesson.aims), (each,), generator=random) for one in chosen]
            stay = torch.randint(len(kept.aims), (math.ceil(KEPT * each * len(chosen)),), generator=random)
            parts = [(one.lesson, which) for one, which in zip(chosen, at, strict=True)] + [(kept, stay)]
            batch = Lesson.joined([Lesson(*(part[i] for part in vars(lesson).values())) for lesson, i in parts])
            with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                features = batch.features.to(device).float().contiguous(memory_format=layout)
                drawn = draw(features, batch.styles.to(device))
            drawn = own(model, drawn.float(), batch.domain)
            mine, difference = drawn[: -len(stay)], drawn - from_levels(batch.aims.to(device))
            loss = _held(difference[: len(mine)]) + _held(difference[len(mine) :]) + GRID * grid_penalty(mine)
            seen = [judge(_moved(mine, random)) for judge in judges]
            for number, (one, which) in enumerate(zip(chosen, at, strict=True)):
                rows = slice(number * each, (number + 1) * each)
                for place, found in enumerate(seen):
                    one.features[place][which] = found[rows].detach().cpu()
                    distance = (found[rows] - one.aims[place][which].to(device)).square().sum(dim=1) / variances[place]
                    # as squared where it is small; what is far off must not outweigh all else
                    loss = loss + 2 * ((1 + distance).sqrt() - 1).mean() / len(seen) / len(chosen)
                loss = loss + PATCH_WEIGHT * _patch_distance(one, which, mine[rows], real, random) / len(chosen)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if step % AIMED_EVERY == AIMED_EVERY - 1:
                bar.set_postfix(distance=round(sum(one.aim(real) for one in sets) / len(sets), 4))
    finally:
        optimizer.zero_grad()
        learning.requires_grad_(False)
        generator.to(memory_format=torch.contiguous_format)


def _held(difference: Tensor) -> Tensor:
    """How far drawings are from what they were."""
    side = difference.shape[2]
    small = shrunk(difference, COARSE_SIDE * side // 128)
    coarse = F.interpolate(small, size=side, mode="bicubic", align_corners=False)
    details = (difference - coarse).abs().mean()
    return DETAILS * details + COARSE * coarse.abs().mean() + LIGHT * shrunk(difference, SIDE).abs().mean()


def _moved(x: Tensor, random: torch.Generator) -> Tensor:
    """All by the same few pixels, mirrored or not."""
    far = max(1, MOVED * x.shape[2] // 128)
    down, right, mirror = torch.randint(2 * far + 1, (3,), generator=random).tolist()
    x = F.pad(x, (far,) * 4, mode="replicate")[:, :, down : down + x.shape[2], right : right + x.shape[3]]
    return x.flip(3) if mirror % 2 else x


def _patch_distance(one: _Set, which: Tensor, drawn: Tensor, real: _Real, random: torch.Generator) -> Tensor:
    """Half the square of how far the patches of drawings would have to move along random directions, by their rank among those that
    were last seen of their set, mean over the levels."""
    total = drawn.new_zeros(())
    found = _patches(drawn, random)
    for side, patches in found.items():
        mine = real.normal(side, patches)
        one.patches[side][which] = mine.detach().cpu()
        known = one.patches[side]
        directions = F.normalize(torch.randn(known.shape[2], DIRECTIONS, generator=random), dim=0)
        others = real.patches[side][torch.randint(len(real.patches[side]), (len(known),), generator=random)]
        before, after = ((patch.flatten(0, 1) @ directions).T.contiguous().sort().values for patch in (known, others))
        projected = (mine.flatten(0, 1) @ directions.to(drawn.device)).T.contiguous()
        with torch.no_grad():
            rank = torch.searchsorted(before, projected.cpu().contiguous()).clamp(max=before.shape[1] - 1)
            move = (after - before).gather(1, rank).to(drawn.device)
            aims = projected + move
        total = total + 0.5 * (projected - aims).square().mean() / len(found)
    return total
