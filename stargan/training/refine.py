"""Refinement of a trained generator: it learns its own drawings, corrected.

Part of what gives a small generator's drawings away is no matter of what is drawn: a weave of a few pixels in flat areas, lines
that are softer than real ones, and light that is the photo's. Image processing takes it off the finished drawings: non-local
means and an unsharp mask off each, and an affine map at 16 px off all of a kind. The corrected drawings are fixed aims, which the
decoder learns by regression: that is steady where an adversary swings (distillation; Hinton et al. 2015, arXiv:1503.02531). What
the decoder cannot learn, a small network behind it can (:mod:`stargan.training.finish`).

Encoder and styles stay as they are, and so does what is drawn in the other domains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur
from tqdm import tqdm, trange

from stargan.inference.compiling import obstacle
from stargan.models.checkpoint import Model
from stargan.pictures.tensors import from_levels, to_levels
from stargan.training.augment import luma_where
from stargan.training.calibrate import check_domains, moment_matching
from stargan.training.config import ConfigError
from stargan.training.data import DataError, Faces, augment
from stargan.training.trainer import trains_in_bf16

MODES = ("latent", "reference")
BATCH = 20
# Sides in px of what is compared in non-local means, and of where it is looked for.
PATCH, SEARCH = 5, 9
# Light is how bright and of which colour a picture is at so many px, by the principal components of so many real pictures: more
# components would have light follow each drawing's outlines, and leave halos beside them.
SIDE, PICTURES, COMPONENTS = 16, 4_000, 24
# Drawings in the other domains, which stay, for each one that is to change, in a batch.
KEPT = 1 / 8
# The share of steps in which the rate rises.
WARMUP = 0.02


@dataclass(frozen=True)
class Drawings:
    """How many drawings are learned from, and how that is computed.

    Attributes:
        drawings: for each domain of sources, group of them and mode; of each other domain, as many in all, which stay.
        bf16: learned in bf16, channels-last; where the device is not known to be fast at it, in fp32.
        compile: learned by torch.compile.

    Raises:
        ConfigError: there are too few drawings to know what all of a set have in common; a number of what is learned is under 1.
    """

    drawings: int = 400
    bf16: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        for name, least in (("drawings", COMPONENTS + 1), ("passes", 1), ("steps", 1), ("batch_size", 1)):
            if (value := getattr(self, name, least)) < least:
                raise ConfigError(f"The option {name} must be {least} or more, not {value}.")


@dataclass(frozen=True)
class Correction(Drawings):
    """What is corrected in drawings.

    Attributes:
        denoise: distance of patches, in the root of the mean square, pixels being in [-1, 1], at which they count 1/e of what
            equal ones do (non-local means; Buades et al. 2005, doi:10.1109/CVPR.2005.38); 0: nothing is taken for noise.
        sharpen: an unsharp mask: how much of what a Gaussian takes away, whose deviation is 1/128 of the side, is added.
        light: how much of the way to the light of real pictures is gone, 0 to 1.
    """

    denoise: float = 0.07
    sharpen: float = 0.25
    light: float = 1.0


@dataclass(frozen=True)
class Refinement(Correction):
    """What is corrected, and how long it is learned.

    Attributes:
        passes: how often each drawing is learned.
        batch_size: of drawings that change.
        learning_rate: of Adam, at most: it rises and falls once.
    """

    passes: int = 12
    batch_size: int = 16
    learning_rate: float = 2e-4


@dataclass
class Lesson:
    """What the decoder draws from, ``(N, C, h, w)`` fp16 and ``(N, style_dim)``, in which domain, ``(N,)`` int64, and what it is
    to draw, ``(N, 3, H, W)`` uint8; on the CPU."""

    features: Tensor
    styles: Tensor
    domain: Tensor
    aims: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Lesson]) -> Lesson:
        return cls(*(torch.cat(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True)))


def refine(
    model: Model, faces: Faces, domain: str, options: Refinement | None = None, groups: Sequence[str] = ("",)
) -> tuple[float, float]:
    """Trains the decoder, in place, to draw ``domain`` as its drawings are when corrected; the config says so.

    Args:
        model: on any device; it is computed there.
        faces: training pictures of the model's side, on the CPU.
        groups: how the names of sources begin, whose light is corrected apart, as photos of one kind go wrong alike; others are
            not drawn.

    Returns:
        The mean absolute difference of drawings from their corrections, pixels being in [-1, 1]: before, and in the last pass.

    Raises:
        ConfigError: the model is a high-pass one; it has a finisher; nothing can be compiled here.
        DataError: the model and the data have different domains; ``domain`` is none of them, or the only one; it has fewer than
            two different pictures; no source is of a group.
    """
    options = options or Refinement()
    random = torch.Generator().manual_seed(0)
    if model.generator.finish is not None:
        raise ConfigError("The model has a finisher, which was made for its drawings as they are.")
    changed, kept, before = corrections(model, faces, domain, options, groups, random)
    options = replace(options, bf16=options.bf16 and trains_in_bf16(device_of(model)))  # as it is computed here
    after = _learn(model, changed, kept, options, random)
    facts = {**(model.config.training.get("refined") or {}), domain: {"groups": [*groups], **asdict(options)}}
    model.config = replace(model.config, training={**model.config.training, "refined": facts})
    return before, after


def corrections(
    model: Model, faces: Faces, domain: str, options: Correction, groups: Sequence[str], random: torch.Generator
) -> tuple[Lesson, Lesson, float]:
    """Drawings in a domain and what they are to become, drawings in the others, which stay, and the mean absolute difference of the
    former from what they are to become.

    Args, Raises:
        As of :func:`refine`.
    """
    target = check(model, faces, domain, options, groups)
    real = _real_thumbnails(model, faces, target, random)
    sets, kept = draw_sets(model, faces, target, options, groups, random)
    changed, difference = [], 0.0
    for lesson in tqdm(sets, desc="correcting", unit="set"):
        aims = _corrected(lesson.aims, real, options, device_of(model))
        difference += _difference(lesson.aims, aims) / len(sets)
        changed.append(replace(lesson, aims=aims))
    return Lesson.joined(changed), kept, difference


def check(model: Model, faces: Faces, domain: str, options: Drawings, groups: Sequence[str]) -> int:
    """The number of a domain whose drawings can be learned from.

    Raises:
        As of :func:`refine`.
    """
    if model.config.architecture.high_pass_weight:
        raise ConfigError("There are no landmark masks here, which high-pass models draw by.")
    if options.compile and (why := obstacle(device_of(model))):
        raise ConfigError(f"Nothing can be compiled here, because {why}: go on without --compile.")
    check_domains(model, faces)
    if domain not in faces.domains:
        raise DataError(f"{domain} is not a domain of the model: these are {', '.join(faces.domains)}.")
    target = faces.domains.index(domain)
    if len(faces.domains) == 1:
        raise DataError(f"The model draws {domain} alone: there is nothing to draw it from.")
    pictures = faces.pictures[target]
    if (pictures == pictures[0]).all():
        raise DataError(f"Of {domain}, the data has fewer than two different pictures.")
    names = [name for index, names in enumerate(faces.names) for name in names if index != target]
    if missing := sorted(group for group in set(groups) if not any(name.startswith(group) for name in names)):
        raise DataError(f"No source has a name that begins with {missing[0]!r}.")
    return target


def draw_sets(
    model: Model, faces: Faces, target: int, options: Drawings, groups: Sequence[str], random: torch.Generator
) -> tuple[list[Lesson], Lesson]:
    """Drawings in a domain as they are, a set for each domain of sources, group of them and mode; and drawings in the others."""
    others = [index for index in range(len(faces.domains)) if index != target]
    sources = [
        (index, faces.weights({f"{faces.domains[index]}/": 0.0, f"{faces.domains[index]}/{group}": 1.0})[1])
        for index, group in itertools.product(others, groups)
        if any(name.startswith(group) for name in faces.names[index])
    ]
    sets, kept = [], []
    with tqdm(total=len(sources) * len(MODES) + len(others), desc="drawing", unit="set") as bar:
        for (index, odds), mode in itertools.product(sources, MODES):
            sets.append(_draw(model, faces, index, odds, target, mode, options.drawings, random))
            bar.update()
        for other in others:
            of = [index for index in range(len(faces.domains)) if index != other]
            each = math.ceil(options.drawings / (len(of) * len(MODES)))
            for index, mode in itertools.product(of, MODES):
                kept.append(_draw(model, faces, index, None, other, mode, each, random))
            bar.update()
    return sets, Lesson.joined(kept)


@torch.no_grad()
def _draw(
    model: Model,
    faces: Faces,
    source: int,
    odds: list[Tensor | None] | None,
    target: int,
    mode: str,
    count: int,
    random: torch.Generator,
) -> Lesson:
    """Random pictures of a domain, by ``odds`` (:meth:`Faces.weights`), in styles of seeds or of random pictures of the target
    domain, all alike, as it is their light that drawings are to have; for now, they are to stay as they are drawn."""
    parts, device = [], device_of(model)
    for start in range(0, count, BATCH):
        of = torch.full((min(BATCH, count - start),), target)
        x = own(model, faces.sample(shown := torch.full_like(of, source), random, odds)[0], shown)
        x = augment(x, 0.0, random)
        if mode == "latent":
            z = torch.randn(len(of), model.config.architecture.latent_dim, generator=random)
            styles = model.mapping_network(z.to(device), of.to(device))
        else:
            references = own(model, faces.sample(of, random)[0], of)
            styles = model.style_encoder(references.to(device), of.to(device))
        features, _ = model.generator.encoder(x.to(device))
        drawn = to_levels(own(model, model.generator.decoder(features, styles).cpu(), of))
        parts.append(Lesson(features.half().cpu(), styles.cpu(), of, drawn))
    return Lesson.joined(parts)


@torch.no_grad()
def _corrected(drawn: Tensor, real: Tensor, options: Correction, device: torch.device) -> Tensor:
    """What drawings of one set are to become, ``(N, 3, H, W)`` uint8 both; ``real``: thumbnails ``(M, 3, 16, 16)``."""

    def smooth(part: Tensor) -> Tensor:
        x = from_levels(part.to(device))
        return (non_local_means(x, options.denoise) if options.denoise else x).cpu()

    clean = torch.cat([smooth(part) for part in drawn.split(BATCH)])
    thumbnails = _thumbnails(clean)
    moves = torch.zeros_like(thumbnails)
    if options.light:
        moves = options.light * (color_transfer(thumbnails, real) - thumbnails)
    aims = []
    for x, move in zip(clean.split(BATCH), moves.split(BATCH), strict=True):
        x = x + options.sharpen * (x - _gaussian(x))
        x = x + F.interpolate(move, size=x.shape[2:], mode="bicubic", align_corners=False)
        aims.append(to_levels(x))
    return torch.cat(aims)


def non_local_means(x: Tensor, strength: float) -> Tensor:
    """Each pixel as the mean of those near it, weighed by how alike their surroundings are (Buades et al. 2005,
    doi:10.1109/CVPR.2005.38): flat areas become flat, lines stay.

    Args:
        x: ``(N, 3, H, W)``, H and W at least 5 px.
        strength: over 0: the distance of surroundings that count 1/e, see :class:`Refinement`.

    Returns:
        ``(N, 3, H, W)``.
    """
    height, width = x.shape[2:]
    far = SEARCH // 2
    wide = F.pad(x, (far,) * 4, mode="reflect")
    total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
    for down, right in itertools.product(range(SEARCH), repeat=2):
        moved = wide[:, :, down : down + height, right : right + width]
        squares = (moved - x).square().mean(dim=1, keepdim=True)
        distance = F.avg_pool2d(squares, PATCH, stride=1, padding=PATCH // 2, count_include_pad=False)
        weight = torch.exp(-distance / strength**2)
        total += weight * moved
        weights += weight
    return total / weights


def color_transfer(x: Tensor, real: Tensor) -> Tensor:
    """Moves pictures so that their principal components have the mean and the covariance of those of real ones, and moves them
    least: linear colour transfer (Pitié and Kokaram 2007, doi:10.1049/cp:20070055), of whole small pictures.

    Args:
        x, real: ``(N, 3, H, W)`` and ``(M, 3, H, W)``, at least two different ones each, on the CPU.

    Returns:
        ``(N, 3, H, W)``.
    """
    own, aims = x.flatten(1), real.flatten(1)
    _, _, components = torch.linalg.svd(aims - aims.mean(dim=0), full_matrices=False)
    basis = components[:COMPONENTS].T
    weight, bias = moment_matching(own @ basis, aims @ basis)
    return x + ((own @ basis @ weight.T + bias - own @ basis) @ basis.T).view_as(x)


def _learn(model: Model, changed: Lesson, kept: Lesson, options: Refinement, random: torch.Generator) -> float:
    """The mean difference of ``changed`` from the aims, see :func:`refine`."""
    layout = torch.channels_last if options.bf16 else torch.contiguous_format
    device, generator = device_of(model), model.generator.to(memory_format=layout)
    draw = torch.compile(generator.decoder) if options.compile else generator.decoder
    learning = nn.ModuleList([generator.decode, generator.to_rgb])
    steps = options.passes * math.ceil(len(changed.aims) / options.batch_size)

    def rate(step: int) -> float:
        return min(1, (step + 1) / (WARMUP * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))

    optimizer = torch.optim.Adam(learning.parameters(), options.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    mean = 0.0
    learning.requires_grad_(True)
    try:
        for _ in (bar := trange(options.passes, desc="learning", unit="pass")):
            differences = []
            for at in torch.randperm(len(changed.aims), generator=random).split(options.batch_size):
                stay = torch.randint(len(kept.aims), (math.ceil(KEPT * len(at)),), generator=random)
                features, styles, of, aims = (
                    torch.cat([one[at], other[stay]]).to(device)
                    for one, other in zip(vars(changed).values(), vars(kept).values(), strict=True)
                )
                with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
                    drawn = draw(features.float().contiguous(memory_format=layout), styles)
                difference = own(model, drawn.float(), of) - from_levels(aims)
                # the second time without detail, or light, which is little in each pixel, would be learned last
                loss = difference.abs().mean() + _thumbnails(difference).abs().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                differences.append(difference[: len(at)].detach().abs().mean() * len(at))
            mean = torch.stack(differences).sum().item() / len(changed.aims)
            bar.set_postfix(difference=round(mean, 4))
    finally:
        optimizer.zero_grad()
        learning.requires_grad_(False)
    return mean


def _real_thumbnails(model: Model, faces: Faces, domain: int, random: torch.Generator) -> Tensor:
    """Of random pictures of a domain, ``(M, 3, 16, 16)``."""
    pictures = faces.pictures[domain]
    chosen = torch.randperm(len(pictures), generator=random)[:PICTURES]
    return torch.cat(
        [
            _thumbnails(own(model, from_levels(pictures[at]), torch.full((len(at),), domain)))
            for at in chosen.split(BATCH)
        ]
    )


def own(model: Model, x: Tensor, domain: Tensor) -> Tensor:
    """Pictures ``(N, 3, H, W)``, in luma where the model draws a row's domain, ``(N,)`` int64, in luma."""
    if not model.config.grayscale_domains:
        return x
    gray = torch.tensor([d in model.config.grayscale_domains for d in model.config.domains], device=x.device)
    return luma_where(x, domain, gray)


def _difference(x: Tensor, y: Tensor) -> float:
    """The mean absolute difference of pictures held as uint8."""
    parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
    return sum((from_levels(a) - from_levels(b)).abs().mean().item() * len(a) for a, b in parts) / len(x)


def _thumbnails(x: Tensor) -> Tensor:
    return shrunk(x, SIDE)


def shrunk(x: Tensor, side: int) -> Tensor:
    """Pictures at a smaller side, ``(N, 3, side, side)``."""
    return F.interpolate(x, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def _gaussian(x: Tensor) -> Tensor:
    sigma = x.shape[2] / 128
    return gaussian_blur(x, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma, sigma])


def device_of(model: Model) -> torch.device:
    """Where a model is computed."""
    return next(model.generator.parameters()).device
