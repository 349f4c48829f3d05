"""Folders of faces, one a domain, held in memory as bytes and augmented on the device."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stargan.images import to_tensor

log = logging.getLogger(__name__)

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


class DataError(ValueError):
    """Training data that cannot be used, in a sentence that names the folder."""


def list_domains(root: Path) -> dict[str, list[Path]]:
    """Picture files by domain, both sorted; a domain is a folder under ``root``.

    Raises:
        DataError: ``root`` is no folder, has no domain folder, or one of them has no picture.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder.")
    domains = {
        folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not domains:
        raise DataError(f"{root} has no folders in it: put the faces of each domain into a folder of its own there.")
    if empty := [name for name, files in domains.items() if not files]:
        raise DataError(f"The domain folder {root / empty[0]} has no pictures ({', '.join(sorted(SUFFIXES))}).")
    return domains


def read_square(file: Path, size: int) -> Image.Image | None:
    """A picture as RGB, ``size`` × ``size``; None, and a line in the log, where it cannot be read."""
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
    except Exception as error:  # broken files raise nearly anything, struct.error and SyntaxError among them
        log.warning("skipped %s: %s", file, error)
        return None


class Faces:
    """All pictures of all domains, on the device: ``pictures[domain]`` is ``(N, 3, size, size)`` uint8.

    A picture that cannot be read is skipped, counted in ``skipped`` and named in the log.
    """

    def __init__(self, root: Path, size: int, device: torch.device) -> None:
        self.skipped = 0
        self.domains: tuple[str, ...] = ()
        self.pictures: list[Tensor] = []
        for domain, files in list_domains(root).items():
            with ThreadPoolExecutor() as pool:
                read = [picture for picture in pool.map(lambda file: read_square(file, size), files) if picture]
            if not read:
                raise DataError(f"None of the {len(files)} pictures in {root / domain} can be read.")
            self.skipped += len(files) - len(read)
            self.domains += (domain,)
            self.pictures.append(((to_tensor(read) + 1) * 127.5).round().byte().to(device))
        if self.skipped:
            log.warning("%d pictures in %s cannot be read and are left out.", self.skipped, root)

    def sample(self, domain: Tensor, generator: torch.Generator) -> Tensor:
        """One picture a row, at random from that row's domain: ``(N,)`` int64 → ``(N, 3, size, size)`` float in [-1, 1].

        Nothing here waits for the device: every domain is sampled for every row, and the row's own is kept.
        """
        device = domain.device
        batch = torch.empty(0)
        for index, pictures in enumerate(self.pictures):
            drawn = pictures[torch.randint(len(pictures), (len(domain),), generator=generator, device=device)]
            batch = drawn if index == 0 else torch.where((domain == index)[:, None, None, None], drawn, batch)
        return batch.float() / 127.5 - 1


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
