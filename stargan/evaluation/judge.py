"""A small classifier of the domains, trained on the spot: what needs no downloaded weights and still sees more than statistics.

Two figures come of it. ``judged``: the share of the outputs that it takes for the target domain; beside it, ``judged real``, the
same of the target's validation faces. ``feature``: the Fréchet distance between its features of the outputs and of the target's
training faces, in total variances of the latter (:func:`stargan.evaluation.metrics.frechet_distance`); beside it, ``feature
floor``, the same of all the target's validation faces, which is what a perfect model would reach with as many pictures. The
features vary most in how sure the classifier is: outputs that are all alike typical of their domain are far off, too.

Pictures are brought to 64 px. In training, all domains alike are turned, lit, blurred and compressed at random, so that no
domain is known by its sharpness. A judge knows the domains that it was trained on alone: figures by different judges, such as of
other data, are not comparable.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import trange

from stargan.evaluation.metrics import as_floats
from stargan.training.augment import misalign, photograph
from stargan.training.data import DataError, Faces, augment, list_domains

log = logging.getLogger(__name__)

SIZE, FEATURES, BATCH = 64, 32, 64
# Passes over the data, but for big sets, where so many batches suffice: a minute and a half on two cores.
PASSES, MOST_STEPS = 40, 1000
LEARNING_RATE = 2e-3


class Judge(nn.Module):
    """Pictures ``(N, 3, H, H)`` in [-1, 1] or uint8 → logits of the domains ``(N, len(domains))``.

    Args:
        size: to which pictures are brought, px; that of evaluation's is :data:`SIZE`.
    """

    def __init__(self, domains: Sequence[str], size: int = SIZE) -> None:
        super().__init__()
        self.domains, self.size = tuple(domains), size
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 32, 2), (32, 64, 2), (64, 128, 2), (128, 128, 1)):
            layers += [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, FEATURES))
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, len(domains)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.seen(x))

    def seen(self, x: Tensor) -> Tensor:
        """What the last layer sees: ``(N, 32)``; differentiable."""
        x = as_floats(x)
        if x.shape[2] != self.size:
            x = F.interpolate(x, size=(self.size,) * 2, mode="bilinear", antialias=True, align_corners=False)
        return self.trunk(x)

    @torch.inference_mode()
    def features(self, x: Tensor) -> Tensor:
        """The same of many pictures."""
        return torch.cat([self.seen(part) for part in x.split(BATCH)])

    def judged(self, features: Tensor, domain: str) -> float:
        """The share of the pictures, by their :meth:`features`, that are taken for ``domain``."""
        with torch.inference_mode():
            return (self.head(features).argmax(dim=1) == self.domains.index(domain)).float().mean().item()


def find_judge(data: Path, file: Path | None = None) -> Judge:
    """The judge of a folder of training faces: read from ``file``, or trained and kept there.

    Args:
        data: a folder of pictures for each domain.
        file: None: a hidden one in ``data``, named after the names and sizes of the pictures, so that other data has another.

    Raises:
        DataError: the data cannot be used; the file is no judge, or one of other domains.
    """
    domains = list_domains(data)
    place = file or data / f".judge-{_fingerprint(data, domains)}.safetensors"
    if place.exists():
        return _load(place, tuple(domains))
    judge = train_judge(Faces(data, SIZE, torch.device("cpu")))
    try:
        partial = place.with_name(f"{place.name}.partial")
        partial.write_bytes(save(judge.state_dict(), {"domains": json.dumps(judge.domains)}))
        partial.replace(place)
    except (OSError, SafetensorError) as error:
        log.warning("The judge is not kept (%s): --judge names a file for it.", error)
    return judge


def _load(file: Path, domains: tuple[str, ...]) -> Judge:
    try:
        with safe_open(file, "pt") as opened:
            judge = Judge(json.loads(opened.metadata()["domains"]))
            judge.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} is not a judge: {error}.") from error
    if judge.domains != domains:
        raise DataError(f"The judge {file} knows {', '.join(judge.domains)}, but the data has {', '.join(domains)}.")
    return judge.eval()


def _fingerprint(data: Path, domains: dict[str, list[Path]]) -> str:
    # the first line tells of how pictures are read, which a judge's figures depend on
    files = [file for files in domains.values() for file in files]
    names = ["middle squares", *(f"{file.relative_to(data)} {file.stat().st_size}" for file in files)]
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:12]


def train_judge(faces: Faces, seed: int = 0, size: int = SIZE) -> Judge:
    """Each domain as often as any other; on the CPU, where the same seed gives the same judge on the same machine."""
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge(faces.domains, size).train()
    batches = -(-sum(map(len, faces.pictures)) // BATCH)
    steps = min(PASSES * batches, MOST_STEPS)
    optimizer = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in trange(steps, desc="training the judge"):
        domain = torch.randint(len(faces.domains), (BATCH,), generator=random)
        x = augment(faces.sample(domain, random)[0], 0.5, random)
        x = photograph(misalign(_blurred(x, random), random), random)
        loss = F.cross_entropy(judge(x), domain, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def _blurred(x: Tensor, random: torch.Generator) -> Tensor:
    """Half of the pictures made up to four times smaller and enlarged again."""
    small = int(torch.randint(SIZE // 4, SIZE + 1, (1,), generator=random))
    soft = F.interpolate(x, size=(small, small), mode="bilinear", antialias=True, align_corners=False)
    soft = F.interpolate(soft, size=x.shape[2:], mode="bicubic", align_corners=False).clamp(-1, 1)
    return torch.where((torch.rand(len(x), generator=random) < 0.5)[:, None, None, None], soft, x)
