"""Folders of faces, one a domain, held in memory as bytes and augmented on the device."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from stargan.errors import PhotoError
from stargan.pictures.io import SUFFIXES, open_file, read_file

log = logging.getLogger(__name__)


class DataError(ValueError):
    """Training data that cannot be used, in a sentence that names the folder."""


def list_domains(root: Path) -> dict[str, list[Path]]:
    """Picture files by domain, both sorted; a domain is a folder under ``root``, with the folders in it.

    Raises:
        DataError: ``root`` is no folder, has no domain folder, or one of them has no picture.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.")
    domains = {
        folder.name: sorted(
            file
            for file in folder.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(folder).parts[:-1])
        )
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not domains:
        raise DataError(f"{root} has no folders in it: put the faces of each domain into a folder of its own there.")
    if empty := [name for name, files in domains.items() if not files]:
        raise DataError(f"The domain folder {root / empty[0]} has no pictures ({', '.join(sorted(SUFFIXES))}).")
    return domains


def evenly(total: int, count: int | None) -> list[int]:
    """The indices of ``count`` of ``total`` sorted pictures, at most, evenly over them; None: of all.

    Names often sort by where pictures come from: the first ones are of one kind.
    """
    count = total if count is None else min(count, total)
    return [index * total // count for index in range(count)]


def read_square(file: Path | BinaryIO, size: int, name: str | None = None) -> Image.Image | None:
    """A picture's middle square, upright and on white, ``size`` × ``size``; where it cannot be read, None, and a line in the log
    with its name."""
    try:
        return ImageOps.fit(open_file(read_file(file), here=True), (size, size), Image.Resampling.LANCZOS)
    except (PhotoError, OSError) as error:
        log.warning("skipped %s: %s", name or file, error)
        return None


class Faces:
    """All pictures of all domains, on the device: ``pictures[domain]`` is ``(N, 3, size, size)`` uint8.

    A picture that cannot be read is skipped, counted in ``skipped`` and named in the log. ``names[domain]`` are the files' names.
    ``kinds[domain]``, ``(N,)`` int64, tells pictures of a domain apart: see :meth:`tell_apart`.
    """

    def __init__(self, root: Path, size: int, device: torch.device) -> None:
        self.skipped = 0
        self.domains: tuple[str, ...] = ()
        self.names: list[list[str]] = []
        self.pictures: list[Tensor] = []
        for domain, files in list_domains(root).items():
            pictures, read = _read_all(files, size)
            if not read:
                raise DataError(f"None of the {len(files)} pictures in {root / domain} can be read.")
            self.skipped += len(files) - len(read)
            self.domains += (domain,)
            self.names.append([file.name for file in read])
            self.pictures.append(pictures.to(device))
        self.tell_apart(())
        if self.skipped:
            log.warning("%d pictures in %s cannot be read and are left out.", self.skipped, root)

    def tell_apart(self, kinds: Sequence[str]) -> None:
        """From here on, ``"domain/prefix"`` is the kind of those pictures of a domain whose names begin so: kinds count on from
        the domains, each of which is the kind of all else in it.

        Of several prefixes that fit, the longest counts.

        Raises:
            DataError: no picture's name begins so, or the others' begin so, too.
        """
        self.kinds = [
            torch.full((len(pictures),), index, device=pictures.device) for index, pictures in enumerate(self.pictures)
        ]
        # the longest that fits counts, as in weights
        for kind, key in sorted(enumerate(kinds, start=len(self.domains)), key=lambda found: len(found[1])):
            domain, _, prefix = key.partition("/")
            index = self.domains.index(domain) if domain in self.domains else -1
            own = [name.startswith(prefix) for name in self.names[index]] if index >= 0 else []
            if not prefix or not any(own):
                raise DataError(f"No picture has a name that begins with {key!r}, which the options name as a kind.")
            self.kinds[index][torch.tensor(own, device=self.kinds[index].device)] = kind
        found = set(torch.cat(self.kinds).tolist())
        for kind, key in enumerate((*self.domains, *kinds)):
            if kind not in found:
                raise DataError(f"The kinds {', '.join(kinds)} leave no picture to {key}: name one of them less.")

    def weights(self, by_prefix: Mapping[str, float]) -> tuple[Tensor, list[Tensor | None]]:
        """Odds of the domains, and of the pictures within each (None: all alike).

        Args:
            by_prefix: ``"domain"`` weighs a domain, ``"domain/prefix"`` those of its pictures whose names begin so; all else
                weighs 1.

        Raises:
            DataError: a key is no domain, or no picture's name begins so, or nothing is left to draw.
        """
        odds: list[Tensor | None] = []
        for domain, names, pictures in zip(self.domains, self.names, self.pictures, strict=True):
            own = {key.partition("/")[2]: value for key, value in by_prefix.items() if key.startswith(domain + "/")}
            if unknown := [prefix for prefix in own if not any(name.startswith(prefix) for name in names)]:
                raise DataError(f"No picture of {domain} has a name that begins with {unknown[0]!r}.")
            weight = [next((own[p] for p in sorted(own, key=len, reverse=True) if n.startswith(p)), 1.0) for n in names]
            if not any(weight):
                raise DataError(f"All pictures of {domain} have the weight 0: give the domain itself that weight.")
            odds.append(torch.tensor(weight, dtype=torch.float32, device=pictures.device) if own else None)
        if unknown := sorted({key.partition("/")[0] for key in by_prefix} - set(self.domains)):
            raise DataError(f"The options name the domain {unknown[0]!r}; the data has {', '.join(self.domains)}.")
        domains = [by_prefix.get(domain, 1.0) for domain in self.domains]
        if not any(domains):
            raise DataError("All domains have the weight 0.")
        return torch.tensor(domains, dtype=torch.float32, device=self.pictures[0].device), odds

    def sample(
        self, domain: Tensor, generator: torch.Generator, odds: Sequence[Tensor | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """One picture a row, at random from that row's domain: ``(N,)`` int64 → ``(N, 3, size, size)`` float in [-1, 1], and
        their kinds, ``(N,)`` int64.

        Nothing here waits for the device: every domain is sampled for every row, and the row's own is kept.

        Args:
            odds: of the pictures of each domain, see :meth:`weights`; None: all alike.
        """
        device, count = domain.device, len(domain)
        batch, kinds = torch.empty(0), domain
        for index, pictures in enumerate(self.pictures):
            if odds is None or (own := odds[index]) is None:
                at = torch.randint(len(pictures), (count,), generator=generator, device=device)
            else:
                at = torch.multinomial(own, count, replacement=True, generator=generator)
            drawn = pictures[at]
            batch = drawn if index == 0 else torch.where((domain == index)[:, None, None, None], drawn, batch)
            kinds = torch.where(domain == index, self.kinds[index][at], kinds)
        return batch.float() / 127.5 - 1, kinds


def _read_all(files: Sequence[Path], size: int) -> tuple[Tensor, list[Path]]:
    """The pictures that can be read, ``(N, 3, size, size)`` uint8, and their files. Takes hardly more memory than they do."""
    pictures = torch.empty(len(files), 3, size, size, dtype=torch.uint8)

    def read(index: int) -> bool:
        picture = read_square(files[index], size)
        if picture is not None:
            pictures[index] = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return picture is not None

    with ThreadPoolExecutor() as pool:
        good = [index for index, whole in enumerate(pool.map(read, range(len(files)))) if whole]
    for place, index in enumerate(good):
        if place != index:  # there were broken ones before
            pictures[place] = pictures[index]
    return pictures[: len(good)], [files[index] for index in good]


def augment(x: Tensor, crop_probability: float, generator: torch.Generator) -> Tensor:
    """Random flip, and with ``crop_probability`` a crop of 80 to 100 % of the area, side ratio 0.9 to 1.1, scaled back.

    (The paper's augmentation, appendix B.)  ``(N, 3, H, W)`` → the same shape.
    """
    count, device = len(x), x.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator, device=device) * (high - low) + low

    area, log_ratio = uniform(0.8, 1.0), uniform(-0.1, 0.1)
    chosen = uniform(0, 1) < crop_probability
    width = torch.where(chosen, (area.sqrt() * torch.exp(log_ratio / 2)).clamp(max=1), 1.0)
    height = torch.where(chosen, (area.sqrt() * torch.exp(-log_ratio / 2)).clamp(max=1), 1.0)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = width * flip
    theta[:, 1, 1] = height
    theta[:, 0, 2] = uniform(-1, 1) * (1 - width)
    theta[:, 1, 2] = uniform(-1, 1) * (1 - height)
    where = F.affine_grid(theta, list(x.shape), align_corners=False)
    # bicubic: a bilinear crop blurs, and the discriminator would teach the generator that blur
    return F.grid_sample(x, where, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(-1, 1)
