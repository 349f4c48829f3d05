"""How good a model is, in numbers: the paper's protocol, and two figures that need no downloaded weights.

Protocol (paper, section 4 and appendix C): for every ordered pair of domains, each validation face of the source domain is
translated ten times, by ten latent codes or by ten references drawn from the target's validation faces. FID and KID compare the
outputs with the target's training faces; LPIPS is the mean over the 45 pairs of one source's outputs.

Without weights: :func:`sliced_wasserstein` beside the same figure for real validation faces (the floor) and for the untranslated
sources, and :func:`spread` over the seeds, as a share of that of real faces.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from stargan.inference.translator import Translator
from stargan.pictures.tensors import to_pictures, to_tensor
from stargan.training.data import DataError, Faces

log = logging.getLogger(__name__)

MODES = ("latent", "reference")
# Karras et al. 2018, section 5: 7 × 7 px, 128 a picture and level, 4 × 128 projections, down to 16 px.
PATCH, PATCHES, PROJECTIONS, REPEATS, SMALLEST = 7, 128, 128, 4, 16
# Sets are compared by this many quantiles of each projection, so that they need not have the same size.
QUANTILES = 4096
# Pictures a set at most: more hardly move the figure.
PICTURES = 2048
# Pictures a second pass through a backbone.
BATCH = 32
# Pairs of real faces that the spread is compared with.
REAL_PAIRS = 2000


# Sliced Wasserstein distance


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


@dataclass(frozen=True)
class Profile:
    """The patches of a set of pictures, projected: what :func:`sliced_wasserstein` compares.

    Attributes:
        quantiles: ``(512, 4096)`` a level, keyed by its side in px.
        scales: mean and deviation of each channel of the patches, by which they were normalised, ``(1, 3, 1, 1)`` each.
    """

    quantiles: dict[int, Tensor]
    scales: dict[int, tuple[Tensor, Tensor]]


def profile(x: Tensor, like: Profile | None = None, seed: int = 0) -> Profile:
    """The profile of a set of pictures, normalised by its own statistics or by those of the set it is compared with.

    Karras et al. normalise each set by its own, which forgives what a weak model does first: blurred drawings, whose details
    are only fainter, would count a quarter of what they count in the drawings' own scale.

    Args:
        x: ``(N, 3, H, H)`` in [-1, 1] on the CPU, H a power of two; of more than 2048 pictures a random choice is taken.
    """
    random = torch.Generator().manual_seed(seed)
    if len(x) > PICTURES:
        x = x[torch.randperm(len(x), generator=random)[:PICTURES]]
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
    """The same over random pairs of different real faces, ``(N, 3, H, W)``: what :func:`spread` is divided by in the report."""
    random = torch.Generator().manual_seed(seed)
    first = torch.randint(len(faces), (REAL_PAIRS,), generator=random)
    second = (first + torch.randint(1, len(faces), (REAL_PAIRS,), generator=random)) % len(faces)
    return sum((faces[a] - faces[b]).abs().mean().item() for a, b in zip(first, second, strict=True)) / REAL_PAIRS


# Backbones


class Backbones:
    """FID and KID on Inception's features, LPIPS on AlexNet's (torchmetrics); each is left out where its weights are not to be had.

    Args:
        inception: file of ``weights-inception-2015-12-05-6726825d.pth``; None downloads it on first use.
        lpips: file of torchvision's ``alexnet-owt-7be5be79.pth``; likewise.
    """

    def __init__(self, device: torch.device, inception: Path | None = None, lpips: Path | None = None) -> None:
        self.device, self.inception, self.lpips = device, None, None
        for file in (inception, lpips):
            if file is not None and not file.is_file():
                raise DataError(f"The weights file {file} does not exist.")
        try:
            with _short_timeout():
                self.inception = _inception(inception).to(device).eval()
        except Exception as error:
            log.warning("FID and KID are left out: %s.", _why(error, "--inception-weights"))
        try:
            with _short_timeout(), _torchvision_file(lpips):
                from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

                self.lpips = LearnedPerceptualImagePatchSimilarity("alex", reduction="none").to(device)
        except Exception as error:
            log.warning("LPIPS is left out: %s.", _why(error, "--lpips-weights"))

    def features(self, x: Tensor) -> Tensor | None:
        """``(N, 3, H, W)`` in [-1, 1] → ``(N, 2048)``."""
        if self.inception is None:
            return None
        with torch.inference_mode():
            batches = (((batch + 1) * 127.5).round().byte().to(self.device) for batch in x.split(BATCH))
            return torch.cat([self.inception(batch) for batch in batches])

    def distances(self, real: Tensor | None, fake: Tensor | None) -> dict[str, float]:
        """FID and KID (mean of 100 subsets, × 1000) between two sets of features."""
        if real is None or fake is None:
            return {}
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        subset = min(1000, len(real), len(fake))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
            metrics = {
                "fid": FrechetInceptionDistance(_Given(real.shape[1])),
                "kid": KernelInceptionDistance(_Given(real.shape[1]), subset_size=subset),
            }
        for metric in metrics.values():
            metric.update(real.cpu(), real=True)
            metric.update(fake.cpu(), real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # which subsets KID takes
            return {"fid": metrics["fid"].compute().item(), "kid": 1000 * metrics["kid"].compute()[0].item()}

    def diversity(self, outputs: Tensor) -> dict[str, float]:
        """LPIPS over all pairs of one source's outputs, mean over the sources; ``outputs`` as for :func:`spread`."""
        if self.lpips is None:
            return {}
        total = 0.0
        pairs = list(itertools.combinations(range(outputs.shape[1]), 2))
        with torch.inference_mode():
            for (a, b), part in itertools.product(pairs, range(0, len(outputs), BATCH)):
                first, second = (outputs[part : part + BATCH, i].to(self.device) for i in (a, b))
                total += self.lpips(first, second).sum().item()
        return {"lpips": total / len(pairs) / len(outputs)}


class _Given(torch.nn.Module):
    """The feature extractor of metrics that are fed with features."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features.view(-1, self.num_features)


def _inception(file: Path | None) -> torch.nn.Module:
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(file) if file else None)


@contextlib.contextmanager
def _torchvision_file(file: Path | None) -> Iterator[None]:
    """While this lasts, torchvision finds ``file`` where it would download AlexNet to."""
    if file is None:
        yield
        return
    from torchvision.models import AlexNet_Weights

    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoints" / AlexNet_Weights.DEFAULT.url.rsplit("/", 1)[1]
        place.parent.mkdir()
        os.symlink(file.resolve(), place)
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)


@contextlib.contextmanager
def _short_timeout(seconds: float = 20) -> Iterator[None]:
    """A download that gets no answer gives up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _why(error: Exception, option: str) -> str:
    if isinstance(error, ImportError):
        return f"{error} (install requirements-dev.txt)"
    if isinstance(error, OSError):
        return (
            f"the weights cannot be downloaded here ({str(error) or type(error).__name__}); give the file with {option}"
        )
    return f"{str(error).splitlines()[0]}; give the file with {option}"


# Evaluation


@dataclass(frozen=True)
class Row:
    """The figures of one model, way of guiding and pair of domains.

    Attributes:
        swd: sliced Wasserstein distance of the outputs to the target's training faces, × 1000, by side in px and their mean.
        floor, untranslated: the same of the target's validation faces, and of the sources as they are.
        spread: :func:`spread` of the outputs divided by :func:`real_spread` of the target's training faces.
        backbones: ``fid``, ``kid`` (× 1000), ``lpips``, where their weights were at hand.
    """

    model: str
    mode: str
    pair: str
    swd: dict[str, float]
    floor: dict[str, float]
    untranslated: dict[str, float]
    spread: float
    backbones: dict[str, float]


@dataclass(frozen=True)
class Protocol:
    """What is translated how; the defaults are the paper's.

    Attributes:
        outputs: pictures a source.
        sources: validation faces a domain at most; None: all.
        pairs: (source, target) domains; None: every ordered pair that the model and the data share.
        psi: truncation of latent styles.
    """

    outputs: int = 10
    sources: int | None = None
    pairs: Sequence[tuple[str, str]] | None = None
    modes: Sequence[str] = MODES
    psi: float = 1.0


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """``female>anime,male>anime`` → (source, target) domains.

    Raises:
        DataError: it is not written so.
    """
    pairs = [pair.strip().split(">") for pair in text.split(",")]
    if wrong := [">".join(pair) for pair in pairs if len(pair) != 2 or not all(pair)]:
        raise DataError(f"A pair of domains is written source>target, not {wrong[0]!r}.")
    return [(source, target) for source, target in pairs]


class Evaluation:
    """Training and validation faces and the way of comparing with them; :meth:`run` takes one model after the other."""

    def __init__(self, data: Path, validation: Path, protocol: Protocol, backbones: Backbones | None = None) -> None:
        self.folders = {"training": data, "validation": validation}
        self.protocol, self.backbones = protocol, backbones
        # the figures of the data are the same for every model of a size
        self.faces = lru_cache(maxsize=2)(self._faces)
        self.profile = lru_cache(maxsize=None)(self._profile)
        self.distance = lru_cache(maxsize=None)(self._distance)
        self.features = lru_cache(maxsize=None)(self._features)

    def run(self, translator: Translator, name: str) -> list[Row]:
        """All pairs and modes.

        Raises:
            DataError: a pair names a domain that the model or the data does not have, or there is nothing to compare.
        """
        size = translator.image_size
        domains = [
            d for d in translator.domains if d in self.faces("training", size) and d in self.faces("validation", size)
        ]
        pairs = self.protocol.pairs or list(itertools.permutations(domains, 2))
        if unknown := sorted({domain for pair in pairs for domain in pair} - set(domains)):
            raise DataError(
                f"{unknown[0]} is not a domain of the model {name} and of the data: they share {domains or 'none'}."
            )
        if not pairs:
            raise DataError(f"The model {name} and the data share fewer than two domains: {domains}.")
        rows = []
        with tqdm(total=len(pairs) * len(self.protocol.modes), desc=name, unit="set") as bar:
            for (source, target), mode in itertools.product(pairs, self.protocol.modes):
                rows.append(self._row(translator, name, mode, source, target))
                bar.update()
        return rows

    def _row(self, translator: Translator, name: str, mode: str, source: str, target: str) -> Row:
        size = translator.image_size
        outputs = self._translate(translator, mode, source, target)
        backbones = {}
        if self.backbones:
            backbones = self.backbones.distances(
                self.features("training", size, target), self.backbones.features(outputs.flatten(0, 1))
            ) | self.backbones.diversity(outputs)
        return Row(
            name,
            mode,
            f"{source}>{target}",
            _with_mean(sliced_wasserstein(outputs.flatten(0, 1), self.profile(size, target))),
            self.distance(size, target, target),
            self.distance(size, source, target),
            spread(outputs) / real_spread(self.faces("training", size)[target]),
            backbones,
        )

    def _translate(self, translator: Translator, mode: str, source: str, target: str) -> Tensor:
        """``(sources, outputs, 3, H, H)``: as a user gets them, 8 bits a channel."""
        random = torch.Generator().manual_seed(0)
        faces = self.faces("validation", translator.image_size)
        sources = to_pictures(faces[source][: self.protocol.sources])
        count = (len(sources), self.protocol.outputs)
        if mode == "latent":
            codes = torch.randn(*count, translator.config.architecture.latent_dim, generator=random)
            styles = translator.styles_of_codes(codes.flatten(0, 1), target, self.protocol.psi)
        else:
            known = translator.reference_styles(to_pictures(faces[target]), target)
            styles = known[torch.randint(len(known), (math.prod(count),), generator=random).to(known.device)]
        styles = styles.unflatten(0, count)
        return torch.stack(
            [
                to_tensor(translator.decode(translator.encode(picture), style, target))
                for picture, style in zip(sources, styles, strict=True)
            ]
        )

    def _faces(self, role: str, size: int) -> dict[str, Tensor]:
        faces = Faces(self.folders[role], size, torch.device("cpu"))
        return {
            domain: pictures.float() / 127.5 - 1 for domain, pictures in zip(faces.domains, faces.pictures, strict=True)
        }

    def _profile(self, size: int, domain: str) -> Profile:
        return profile(self.faces("training", size)[domain])

    def _distance(self, size: int, source: str, target: str) -> dict[str, float]:
        """Of the validation faces of ``source`` as they are."""
        return _with_mean(sliced_wasserstein(self.faces("validation", size)[source], self.profile(size, target)))

    def _features(self, role: str, size: int, domain: str) -> Tensor | None:
        return self.backbones.features(self.faces(role, size)[domain]) if self.backbones else None


def _with_mean(by_side: dict[int, float]) -> dict[str, float]:
    values = {str(side): value for side, value in by_side.items()}
    return {name: round(value, 2) for name, value in {**values, "mean": sum(values.values()) / len(values)}.items()}


def means(rows: Sequence[Row]) -> list[Row]:
    """One row a model and mode: the mean over its pairs."""

    def mean(values: Sequence[dict[str, float]]) -> dict[str, float]:
        return {key: round(sum(value[key] for value in values) / len(values), 4) for key in values[0]}

    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.mode), []).append(row)
    return [
        Row(
            model,
            mode,
            "mean",
            swd=mean([row.swd for row in of]),
            floor=mean([row.floor for row in of]),
            untranslated=mean([row.untranslated for row in of]),
            spread=sum(row.spread for row in of) / len(of),
            backbones=mean([row.backbones for row in of]),
        )
        for (model, mode), of in groups.items()
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    sides = list(dict.fromkeys(side for row in rows for side in row.swd if side != "mean"))
    metrics = list(dict.fromkeys(name for row in rows for name in row.backbones))
    head = ["model", "mode", "pair", *(f"SWD {side}" for side in sides), "SWD", "floor", "untranslated", "spread"]
    lines = [[*head, *(name.upper() for name in metrics)]]
    for row in rows:
        figures = [*(row.swd.get(side) for side in sides), row.swd["mean"], row.floor["mean"], row.untranslated["mean"]]
        cells = [row.model, row.mode, row.pair, *("" if value is None else f"{value:.1f}" for value in figures)]
        lines.append([*cells, f"{row.spread:.2f}", *(f"{row.backbones[name]:.3f}" for name in metrics)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def to_json(rows: Sequence[Row], **facts: Any) -> str:
    """The rows and the facts of how they came about."""
    return json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2, default=str) + "\n"
