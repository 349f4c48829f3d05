"""Figures that need no downloaded weights: the sliced Wasserstein distance, the spread, the Fréchet distance of features."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stargan.training.losses import PATCH, laplacian_pyramid

# Karras et al. 2018, section 5: 7 × 7 px, 128 a picture and level, 4 × 128 projections, down to 16 px.
PATCHES, PROJECTIONS, REPEATS = 128, 128, 4
# Sets are compared by this many quantiles of each projection, so that they need not have the same size.
QUANTILES = 4096
# Pictures a set at most: more hardly move the figure.
PICTURES = 2048
# Pairs of real faces that the spread is compared with.
REAL_PAIRS = 2000


def as_floats(x: Tensor) -> Tensor:
    """Pictures held as uint8 → float in [-1, 1]; others as they are."""
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


# Sliced Wasserstein distance


@dataclass(frozen=True)
class Profile:
    """The patches of a set of pictures, projected: what :func:`sliced_wasserstein` compares.

    Attributes:
        quantiles: ``(512, 4096)`` a level, keyed by its side in px.
        scales: deviation and mean of each channel of the patches, by which they were normalised, ``(1, 3, 1, 1)`` each.
    """

    quantiles: dict[int, Tensor]
    scales: dict[int, tuple[Tensor, Tensor]]


def profile(x: Tensor, like: Profile | None = None, seed: int = 0) -> Profile:
    """The profile of a set of pictures, normalised by its own statistics or by those of the set it is compared with.

    Karras et al. normalise each set by its own, which forgives what a weak model does first: blurred drawings, whose details
    are only fainter, would count a quarter of what they count in the drawings' own scale.

    Args:
        x: ``(N, 3, H, H)`` in [-1, 1] or uint8, on the CPU, H a power of two; of more than 2048 pictures a random choice is
            taken.
    """
    random = torch.Generator().manual_seed(seed)
    if len(x) > PICTURES:
        x = x[torch.randperm(len(x), generator=random)[:PICTURES]]
    x = as_floats(x)
    picture = torch.arange(len(x)).repeat_interleave(PATCHES)
    at = ((np.arange(QUANTILES) + 0.5) / QUANTILES * len(picture)).astype(int)
    found = Profile({}, {})
    for level in laplacian_pyramid(x):
        side = level.shape[2]
        row, column = torch.randint(side - PATCH + 1, (2, len(picture)), generator=random)
        patches = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)[picture, :, row, column]
        deviation, mean = torch.std_mean(patches, dim=(0, 2, 3), keepdim=True) if like is None else like.scales[side]
        descriptors = ((patches - mean) / deviation.clamp(min=1e-8)).flatten(1)
        # the directions are the same for every set: only then can their projections be compared
        fixed = torch.Generator().manual_seed(side)
        parts = []
        for _ in range(REPEATS):
            directions = F.normalize(torch.randn(descriptors.shape[1], PROJECTIONS, generator=fixed), dim=0)
            projected = (descriptors @ directions).T.contiguous().numpy()
            projected.sort(axis=1)  # numpy's vectorised sort: ten times torch's speed here
            parts.append(torch.from_numpy(projected[:, at]))
        found.quantiles[side], found.scales[side] = torch.cat(parts), (deviation, mean)
    return found


def sliced_wasserstein(x: Tensor, reference: Profile) -> dict[int, float]:
    """Distance of a set of pictures to a reference set by side in px, × 1000 (arXiv:1710.10196, section 5)."""
    own = profile(x, like=reference)
    return {
        side: 1000 * (own.quantiles[side] - there).abs().mean().item() for side, there in reference.quantiles.items()
    }


# Spread


def spread(outputs: Tensor) -> float:
    """How different the outputs of one source are: mean absolute difference in RGB over all pairs, mean over the sources.

    Args:
        outputs: ``(sources, outputs a source, 3, H, W)``: with ten seeds a source, 45 pairs each.
    """
    pairs = list(itertools.combinations(range(outputs.shape[1]), 2))
    return sum((outputs[:, a] - outputs[:, b]).abs().mean().item() for a, b in pairs) / len(pairs)


def real_spread(faces: Tensor, seed: int = 0) -> float:
    """The same over random pairs of different real faces, ``(N, 3, H, W)`` in [-1, 1] or uint8: what :func:`spread` is divided by in the report."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(len(faces), (REAL_PAIRS,), generator=random)
    second = (first + torch.randint(1, len(faces), (REAL_PAIRS,), generator=random)) % len(faces)
    pairs = zip(first, second, strict=True)
    return sum((as_floats(faces[a]) - as_floats(faces[b])).abs().mean().item() for a, b in pairs) / REAL_PAIRS


# Fréchet distance


def frechet_distance(x: Tensor, reference: Tensor) -> float:
    """Of the Gaussians with the means and covariances of two sets of features, in total variances of the reference.

    ``(‖μ − μᵣ‖² + tr(Σ + Σᵣ − 2 (Σ Σᵣ)^½)) / tr Σᵣ``: 0 for equal sets; 1 where the means alone are as far apart as the
    reference's features are from their own, in the root of the mean square.

    Args:
        x, reference: ``(N, D)``, of at least two pictures each.
    """
    means, covariances = zip(*((f.double().mean(dim=0), torch.cov(f.double().T)) for f in (x, reference)), strict=True)
    shift = (means[0] - means[1]).square().sum()
    # the product's eigenvalues are real and not negative, but for rounding
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    total = covariances[1].trace()
    return ((shift + covariances[0].trace() + total - 2 * root) / total).clamp(min=0).item()
