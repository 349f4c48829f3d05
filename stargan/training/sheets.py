"""Sample sheets: fixed validation faces, drawn by the averaged networks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stargan.models.checkpoint import Model
from stargan.pictures.tensors import grid, to_grayscale, to_pictures, to_tensor
from stargan.training.data import DataError, list_domains, read_square

# Faces a domain, as sources and as references; seeds, each drawn at every ψ.
SOURCES, SEEDS, TRUNCATIONS = 6, 4, (0.5, 0.7, 1.0)


def mean_style(model: Model, domain: int, count: int = 4096) -> Tensor:
    """The mean style of a domain over fixed latent codes: ``(style_dim,)``."""
    network = model.mapping_network
    z = torch.randn(count, network.latent_dim, generator=torch.Generator().manual_seed(0))
    device = next(network.parameters()).device
    return network(z.to(device), torch.full((count,), domain, device=device)).mean(dim=0)


def fixed_faces(folder: Path, domains: tuple[str, ...], size: int) -> dict[str, list[Image.Image]]:
    """The first faces of each domain, the same for every sheet of a run.

    Raises:
        DataError: none of the domains is there, or has a picture that can be read.
    """
    faces = {
        domain: list(islice(filter(None, (read_square(file, size) for file in files)), SOURCES))
        for domain, files in list_domains(folder).items()
        if domain in domains
    }
    faces = {domain: pictures for domain, pictures in faces.items() if pictures}
    if not faces:
        raise DataError(f"{folder} has no pictures of the domains {', '.join(domains)}.")
    return faces


@torch.no_grad()
def write_sheets(model: Model, folder: Path, iteration: int, faces: dict[str, list[Image.Image]]) -> list[Path]:
    """For every target domain, from sources of the others: ``latent`` (at three ψ), ``reference`` and ``cycle``."""
    folder.mkdir(parents=True, exist_ok=True)
    device = next(model.generator.parameters()).device
    written = []
    for target, name in enumerate(model.config.domains):
        others = [domain for domain in faces if domain != name] or [name]
        share = -(-SOURCES // len(others))
        sources = [(picture, domain) for domain in others for picture in faces[domain][:share]][:SOURCES]
        x = to_tensor([picture for picture, _ in sources]).to(device)
        sheets = {"latent": _latent(model, x, sources, target), "cycle": _cycle(model, x, sources, target)}
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


def _latent(model: Model, x: Tensor, sources: list[tuple[Image.Image, str]], target: int) -> Image.Image:
    mean = mean_style(model, target)
    z = torch.randn(SEEDS, model.mapping_network.latent_dim, generator=torch.Generator().manual_seed(1)).to(x.device)
    styles = model.mapping_network(z, torch.full((SEEDS,), target, device=x.device))
    rows = [[picture for picture, _ in sources]]
    rows += [_decode(model, x, torch.lerp(mean, style, psi), target) for psi in TRUNCATIONS for style in styles]
    return grid(rows)


def _reference(
    model: Model, x: Tensor, sources: list[tuple[Image.Image, str]], references: list[Image.Image], target: int
) -> Image.Image:
    styles = model.style_encoder(
        to_tensor(references).to(x.device), torch.full((len(references),), target, device=x.device)
    )
    rows = [[None, *(picture for picture, _ in sources)]]
    rows += [
        [reference, *_decode(model, x, style, target)] for reference, style in zip(references, styles, strict=True)
    ]
    return grid(rows)


def _cycle(model: Model, x: Tensor, sources: list[tuple[Image.Image, str]], target: int) -> Image.Image:
    z = torch.randn(1, model.mapping_network.latent_dim, generator=torch.Generator().manual_seed(2)).to(x.device)
    fake = model.generator(x, model.mapping_network(z, torch.tensor([target], device=x.device)).expand(len(x), -1))
    back = torch.tensor([model.config.domains.index(domain) for _, domain in sources], device=x.device)
    restored = model.generator(fake, model.style_encoder(x, back))
    return grid([[picture for picture, _ in sources], _shown(model, fake, target), to_pictures(restored)])


@torch.no_grad()
def results_sheet(model: Model, validation: Path, target: str, columns: int = 20) -> Image.Image:
    """Results alone, without the faces they were made of, which may not be shown: for a model card.

    Five rows of one source each, a seed a column; then every source of the other domains once, each with a seed of its own.

    Raises:
        DataError: the model has no such domain, or there are no pictures of the others.
    """
    if target not in model.config.domains:
        raise DataError(
            f"The model {model.config.name} has the domains {', '.join(model.config.domains)}, not {target!r}."
        )
    device = next(model.generator.parameters()).device
    size, index = model.config.architecture.image_size, model.config.domains.index(target)
    files = [f for domain, found in list_domains(validation).items() if domain != target for f in found[:50]]
    sources = [picture for picture in (read_square(file, size) for file in files) if picture]
    if not sources:
        raise DataError(f"{validation} has no pictures of domains other than {target}.")
    # five spread over the domains
    many = [sources[i] for i in range(0, len(sources), -(-len(sources) // 5)) for _ in range(columns)]
    x = to_tensor(many + sources).to(device)
    seeds = [*list(range(columns)) * (len(many) // columns), *range(len(sources))]
    z = torch.stack(
        [torch.randn(model.mapping_network.latent_dim, generator=torch.Generator().manual_seed(s)) for s in seeds]
    )
    styles = model.mapping_network(z.to(device), torch.full((len(z),), index, device=device))
    drawn = [
        picture
        for part, style in zip(x.split(16), styles.split(16), strict=True)
        for picture in _shown(model, model.generator(part, style), index)
    ]
    return grid([drawn[i : i + columns] for i in range(0, len(drawn), columns)])
