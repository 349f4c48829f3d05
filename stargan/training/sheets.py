"""Sample sheets: fixed validation faces, drawn by the averaged networks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stargan.inference.translator import Translator
from stargan.models.checkpoint import Model
from stargan.networks import latent_code, mean_style
from stargan.pictures.tensors import grid, to_grayscale, to_pictures, to_tensor
from stargan.training.augment import luma_where
from stargan.training.data import DataError, evenly, list_domains, read_square

# Faces a domain, as sources and as references; seeds, each drawn at every ψ.
SOURCES, SEEDS, TRUNCATIONS = 6, 4, (0.5, 0.7, 1.0)


def fixed_faces(folder: Path, domains: tuple[str, ...], size: int) -> dict[str, list[Image.Image]]:
    """Faces of each domain, evenly over them, the same for every sheet of a run.

    Raises:
        DataError: none of the domains is there, or has a picture that can be read.
    """
    faces = {
        domain: _read_evenly(files, SOURCES, size)
        for domain, files in list_domains(folder).items()
        if domain in domains
    }
    faces = {domain: pictures for domain, pictures in faces.items() if pictures}
    if not faces:
        raise DataError(f"{folder} has no pictures of the domains {', '.join(domains)}.")
    return faces


def _read_evenly(files: Sequence[Path], count: int, size: int) -> list[Image.Image]:
    """So many of them, evenly; in place of one that cannot be read, the next that can."""
    read: list[Image.Image] = []
    for start, end in pairwise([*evenly(len(files), count), len(files)]):
        read += islice(filter(None, (read_square(file, size) for file in files[start:end])), 1)
    return read


@torch.no_grad()
def write_sheets(model: Model, folder: Path, iteration: int, faces: dict[str, list[Image.Image]]) -> list[Path]:
    """For every target domain, from sources of the others: ``latent`` (at three ψ), ``reference`` and ``cycle``."""
    folder.mkdir(parents=True, exist_ok=True)
    device = next(model.generator.parameters()).device
    monochrome = torch.tensor(
        [domain in model.config.grayscale_domains for domain in model.config.domains], device=device
    )
    written = []
    for target, name in enumerate(model.config.domains):
        others = [domain for domain in faces if domain != name] or [name]
        share = -(-SOURCES // len(others))
        chosen = {domain: [faces[domain][at] for at in evenly(len(faces[domain]), share)] for domain in others}
        sources = [(picture, domain) for domain in others for picture in chosen[domain]][:SOURCES]
        domains = torch.tensor([model.config.domains.index(domain) for _, domain in sources], device=device)
        x = luma_where(to_tensor([picture for picture, _ in sources]).to(device), domains, monochrome)  # as in training
        sheets = {"latent": _latent(model, x, sources, target), "cycle": _cycle(model, x, domains, monochrome, target)}
        if name in faces:
            sheets["reference"] = _reference(model, x, sources, faces[name], target)
        for kind, sheet in sheets.items():
            file = folder / f"{iteration:06d}-{name}-{kind}.png"
            sheet.save(file)
            written.append(file)
    return written


def _decode(model: Model, x: Tensor, style: Tensor, target: int) -> list[Image.Image]:
    return _shown(model, model.generator(x, style.expand(len(x), -1)), target)


def _shown(model: Model, drawn: Tensor, target: int) -> list[Image.Image]:
    pictures = to_pictures(drawn)
    monochrome = model.config.domains[target] in model.config.grayscale_domains
    return [to_grayscale(picture) for picture in pictures] if monochrome else pictures


def _styles_of_seeds(model: Model, seeds: Sequence[int], target: int) -> Tensor:
    """``(len(seeds), style_dim)`` on the model's device."""
    network = model.mapping_network
    device = next(network.parameters()).device
    z = torch.stack([latent_code(seed, network.latent_dim) for seed in seeds]).to(device)
    return network(z, torch.full((len(z),), target, device=device))


def _latent(model: Model, x: Tensor, sources: list[tuple[Image.Image, str]], target: int) -> Image.Image:
    mean = mean_style(model.mapping_network, target)
    styles = _styles_of_seeds(model, range(SEEDS), target)
    rows = [[picture for picture, _ in sources]]
    rows += [_decode(model, x, torch.lerp(mean, style, psi), target) for psi in TRUNCATIONS for style in styles]
    return grid(rows)


def _reference(
    model: Model, x: Tensor, sources: list[tuple[Image.Image, str]], references: list[Image.Image], target: int
) -> Image.Image:
    monochrome = model.config.domains[target] in model.config.grayscale_domains
    given = to_tensor([to_grayscale(reference) for reference in references] if monochrome else references)
    styles = model.style_encoder(given.to(x.device), torch.full((len(references),), target, device=x.device))
    rows = [[None, *(picture for picture, _ in sources)]]
    rows += [
        [reference, *_decode(model, x, style, target)] for reference, style in zip(references, styles, strict=True)
    ]
    return grid(rows)


def _cycle(model: Model, x: Tensor, domain: Tensor, monochrome: Tensor, target: int) -> Image.Image:
    fake = model.generator(x, _styles_of_seeds(model, [0], target).expand(len(x), -1))
    fake = luma_where(fake, torch.full_like(domain, target), monochrome)
    restored = luma_where(model.generator(fake, model.style_encoder(x, domain)), domain, monochrome)
    return grid([to_pictures(x), _shown(model, fake, target), to_pictures(restored)])


def results_sheet(translator: Translator, validation: Path, target: str, columns: int = 20) -> Image.Image:
    """Results alone, without the faces they were made of, which may not be shown: for a model card.

    Five rows of one source each, a seed a column; then up to 50 sources of each other domain, evenly over them, each with a seed of its own.

    Raises:
        DataError: the model has no such domain, or there are no pictures of the others.
    """
    if target not in translator.domains:
        raise DataError(f"The model {translator.name} has the domains {', '.join(translator.domains)}, not {target!r}.")
    sources = []
    for domain, files in list_domains(validation).items():
        pictures = [] if domain == target else _read_evenly(files, 50, translator.image_size)
        monochrome = domain in translator.config.grayscale_domains  # as in training
        sources += [to_grayscale(picture) for picture in pictures] if monochrome else pictures
    if not sources:
        raise DataError(f"{validation} has no pictures of domains other than {target}.")
    styles = translator.latent_styles(target, range(max(columns, len(sources))))
    # five spread over the domains
    rows = [
        translator.decode(translator.encode(sources[at]), styles[:columns], target) for at in evenly(len(sources), 5)
    ]
    each = [
        translator.decode(translator.encode(source), style[None], target)[0]
        for source, style in zip(sources, styles[: len(sources)], strict=True)
    ]
    return grid(rows + [each[first : first + columns] for first in range(0, len(each), columns)])
