"""How good a model is: what is translated how, and what it is compared with.

Protocol (paper, section 4 and appendix C): for every ordered pair of domains, each validation face of the source domain is
translated ten times, by ten latent codes or by ten references drawn from the target's validation faces. FID and KID compare the
outputs with the target's training faces; LPIPS is the mean over the 45 pairs of one source's outputs.

Without downloaded weights: the sliced Wasserstein distance beside the same figure for real validation faces (the floor) and for the
untranslated sources; the spread over the seeds, as a share of that of real faces; and what a classifier of the domains says
(:mod:`stargan.evaluation.judge`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from stargan.evaluation.backbones import Backbones
from stargan.evaluation.judge import Judge
from stargan.evaluation.metrics import (
    Profile,
    as_floats,
    frechet_distance,
    profile,
    real_spread,
    sliced_wasserstein,
    spread,
)
from stargan.evaluation.report import Row
from stargan.inference.translator import Translator
from stargan.pictures.tensors import to_pictures, to_tensor
from stargan.training.augment import to_luma
from stargan.training.data import DataError, Faces, evenly

MODES = ("latent", "reference")


@dataclass(frozen=True)
class Protocol:
    """What is translated how; the defaults are the paper's.

    Attributes:
        outputs: pictures a source.
        sources: validation faces a domain at most, of each group, evenly over them; None: all.
        pairs: (source, target) domains; None: every ordered pair that the model and the data share.
        psi: truncation of latent styles.
        groups: how the names of sources begin, each evaluated apart; references and training faces stay all. None: no groups.
        seed: of the latent codes and the choice of references: how far figures hang on them, others show.
    """

    outputs: int = 10
    sources: int | None = None
    pairs: Sequence[tuple[str, str]] | None = None
    modes: Sequence[str] = MODES
    psi: float = 1.0
    groups: Sequence[str] | None = None
    seed: int = 0


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """``female>anime,male>anime`` → (source, target) domains.

    Raises:
        DataError: it is not written so.
    """
    pairs = []
    for pair in text.split(","):
        source, _, target = pair.strip().partition(">")
        if not source or not target or ">" in target:
            raise DataError(f"A pair of domains is written source>target, not {pair.strip()!r}.")
        pairs.append((source, target))
    return pairs


class Form(NamedTuple):
    """How faces are read: their side, and the domains of which a model is shown luma."""

    size: int
    grayscale: tuple[str, ...] = ()


class Evaluation:
    """Training and validation faces and the way of comparing with them; :meth:`run` takes one model after the other."""

    def __init__(
        self,
        data: Path,
        validation: Path,
        protocol: Protocol,
        backbones: Backbones | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.folders = {"training": data, "validation": validation}
        self.protocol, self.backbones, self.judge = protocol, backbones, judge
        # the figures of the data are the same for every model of a form
        self.faces = lru_cache(maxsize=2)(self._faces)
        self.profile = lru_cache(maxsize=None)(self._profile)
        self.distance = lru_cache(maxsize=None)(self._distance)
        self.features = lru_cache(maxsize=None)(self._features)
        self.judge_features = lru_cache(maxsize=None)(self._judge_features)

    def run(self, translator: Translator, name: str) -> list[Row]:
        """All pairs, modes and groups; a group that a source domain has nothing of has no row there.

        Raises:
            DataError: a pair names a domain that the model or the data does not have, no source is of a group, or there is
                nothing to compare.
        """
        form = Form(translator.image_size, translator.config.grayscale_domains)
        training, validation = (self.faces(role, form).domains for role in ("training", "validation"))
        domains = [d for d in translator.domains if d in training and d in validation]
        pairs = self.protocol.pairs or list(itertools.permutations(domains, 2))
        if unknown := sorted({domain for pair in pairs for domain in pair} - set(domains)):
            raise DataError(
                f"{unknown[0]} is not a domain of the model {name} and of the data: they share {domains or 'none'}."
            )
        if not pairs:
            raise DataError(f"The model {name} and the data share fewer than two domains: {domains}.")
        for role, target in itertools.product(("training", "validation"), sorted({target for _, target in pairs})):
            if len(found := self._pictures(role, form, target)) < 2 or (found == found[0]).all():
                raise DataError(f"Of {target}, {self.folders[role]} has fewer than two different faces.")
        sets = [
            (source, target, group)
            for (source, target), group in itertools.product(pairs, self.protocol.groups or [""])
            if len(self._sources(form, source, group))
        ]
        if empty := set(self.protocol.groups or []) - {group for _, _, group in sets}:
            raise DataError(f"No source has a name that begins with {min(empty)!r}.")
        rows = []
        with tqdm(total=len(sets) * len(self.protocol.modes), desc=name, unit="set") as bar:
            for (source, target, group), mode in itertools.product(sets, self.protocol.modes):
                rows.append(self._row(translator, name, mode, source, target, group))
                bar.update()
        return rows

    def accuracy(self, translator: Translator) -> dict[str, float]:
        """Of the judge, on the validation faces of each domain that it knows; they are read as for this model."""
        if (judge := self.judge) is None:
            return {}
        form = Form(translator.image_size, translator.config.grayscale_domains)
        known = [domain for domain in self.faces("validation", form).domains if domain in judge.domains]
        return {d: judge.judged(self.judge_features("validation", form, d), d) for d in known}

    def _row(self, translator: Translator, name: str, mode: str, source: str, target: str, group: str) -> Row:
        form = Form(translator.image_size, translator.config.grayscale_domains)
        outputs = self._translate(translator, mode, source, target, group)
        flat = outputs.flatten(0, 1)
        backbones = {}
        if self.backbones:
            real = self.features("training", form, target)
            backbones = self.backbones.distances(real, self.backbones.features(flat))
            backbones |= self.backbones.diversity(outputs)
        return Row(
            name,
            mode,
            f"{source}>{target}",
            group,
            _with_mean(sliced_wasserstein(flat, self.profile(form, target))),
            self.distance(form, target, target, ""),
            self.distance(form, source, target, group),
            spread(outputs) / real_spread(self._pictures("training", form, target)),
            self._judged(flat, form, target),
            backbones,
        )

    def _judged(self, outputs: Tensor, form: Form, target: str) -> dict[str, float]:
        if self.judge is None:
            return {}
        own, held_out = self.judge.features(outputs), self.judge_features("validation", form, target)
        reference = self.judge_features("training", form, target)
        return {
            "judged": self.judge.judged(own, target),
            "judged real": self.judge.judged(held_out, target),
            "feature": frechet_distance(own, reference),
            "feature floor": frechet_distance(held_out, reference),
        }

    def _translate(self, translator: Translator, mode: str, source: str, target: str, group: str) -> Tensor:
        """``(sources, outputs, 3, H, H)``: as a user gets them, 8 bits a channel."""
        random = torch.Generator().manual_seed(self.protocol.seed)
        form = Form(translator.image_size, translator.config.grayscale_domains)
        found = self._sources(form, source, group)
        sources = to_pictures(as_floats(found[evenly(len(found), self.protocol.sources)]))
        count = (len(sources), self.protocol.outputs)
        if mode == "latent":
            codes = torch.randn(*count, translator.config.architecture.latent_dim, generator=random)
            styles = translator.styles_of_codes(codes.flatten(0, 1), target, self.protocol.psi)
        else:
            references = to_pictures(as_floats(self._pictures("validation", form, target)))
            known = translator.reference_styles(references, target)
            styles = known[torch.randint(len(known), (math.prod(count),), generator=random).to(known.device)]
        styles = styles.unflatten(0, count)
        return torch.stack(
            [
                to_tensor(translator.decode(translator.encode(picture), style, target))
                for picture, style in zip(sources, styles, strict=True)
            ]
        )

    def _faces(self, role: str, form: Form) -> Faces:
        faces = Faces(self.folders[role], form.size, torch.device("cpu"))
        for index, domain in enumerate(faces.domains):
            if domain in form.grayscale:  # as the model draws them, and was shown them
                parts = faces.pictures[index].split(500)
                faces.pictures[index] = torch.cat([to_luma(part.float()).round().byte() for part in parts])
        return faces

    def _pictures(self, role: str, form: Form, domain: str) -> Tensor:
        """``(N, 3, form.size, form.size)`` uint8."""
        faces = self.faces(role, form)
        return faces.pictures[faces.domains.index(domain)]

    def _sources(self, form: Form, domain: str, group: str) -> Tensor:
        """The validation faces of a domain whose names begin with ``group``: ``(N, 3, form.size, form.size)`` uint8."""
        faces = self.faces("validation", form)
        index = faces.domains.index(domain)
        chosen = [name.startswith(group) for name in faces.names[index]]
        return faces.pictures[index][torch.tensor(chosen)]

    def _profile(self, form: Form, domain: str) -> Profile:
        return profile(self._pictures("training", form, domain))

    def _distance(self, form: Form, source: str, target: str, group: str) -> dict[str, float]:
        """Of the validation faces of ``source`` as they are."""
        return _with_mean(sliced_wasserstein(self._sources(form, source, group), self.profile(form, target)))

    def _features(self, role: str, form: Form, domain: str) -> Tensor | None:
        return self.backbones.features(self._pictures(role, form, domain)) if self.backbones else None

    def _judge_features(self, role: str, form: Form, domain: str) -> Tensor:
        assert self.judge is not None
        return self.judge.features(self._pictures(role, form, domain))


def _with_mean(by_side: dict[int, float]) -> dict[str, float]:
    values = {str(side): value for side, value in by_side.items()}
    return {name: round(value, 2) for name, value in {**values, "mean": sum(values.values()) / len(values)}.items()}
