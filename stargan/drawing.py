"""What the app does with a photo, free of any interface: faces chosen, drawn in styles, set back, packed for saving."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stargan import video
from stargan.inference.translator import NoFaceError, Translator
from stargan.page.texts import RequestError
from stargan.pictures import faces
from stargan.pictures.io import open_photo
from stargan.pictures.provenance import Provenance
from stargan.pictures.tensors import grid, to_grayscale

# Told how much of the work is done, 0 to 1.
Progress = Callable[[float], None]
# A square in a picture: centre x and y in fractions of the width and height, side in fractions of the shorter side.
Square = tuple[float, float, float]

MIDDLE: Square = (0.5, 0.5, 1.0)
MAX_COUNT, MAX_SEED, MAX_PSI, MAX_REFERENCES = 16, 2**31 - 1, 1.5, 8
CLIP_SECONDS, CLIP_RATE = 4, {".mp4": 25, ".gif": 12.5}
# Longer side of a camera's picture, px: more would cost frames.
LIVE_SIZE = 640
# Decoded between two reports of progress.
STEP = 4


@dataclass(frozen=True)
class Subject:
    """What is to be drawn.

    Attributes:
        photo: path of the uploaded file.
        chosen: numbers of its faces, from 1, the biggest.
        square: what to take where there is no face; None refuses such a photo.
        grayscale: draw in black and white.
    """

    photo: str | None
    chosen: Sequence[int] = (1,)
    square: Square | None = None
    grayscale: bool = False


@dataclass(frozen=True)
class Reference:
    """A reference picture: its file, its part in the blend, and where its face is, if a person has said so."""

    path: str
    weight: float = 1.0
    square: Square | None = None


@dataclass(frozen=True)
class Drawn:
    """Drawings of the faces of one photo: a row a face, a column a style.

    Attributes:
        photo: path of the uploaded file.
        styles: ``(columns, style_dim)`` on the CPU, as the first face was drawn.
        captions: one a column, as ``("seed", 7)`` or ``("reference", 2)``.
        details: the settings, for what a saved picture says of itself.
    """

    photo: str
    model: str
    domain: str
    aligned: list[faces.Aligned]
    rows: list[list[Image.Image]]
    styles: Tensor
    captions: list[tuple[str, int]]
    details: dict[str, str]

    @property
    def pictures(self) -> list[Image.Image]:
        return [picture for row in self.rows for picture in row]

    def place(self, index: int) -> tuple[int, int]:
        """Row and column of the picture at ``index`` of :attr:`pictures`."""
        return divmod(index, len(self.captions))

    def sheet(self, header: Sequence[Image.Image] = ()) -> Image.Image:
        """One picture: each row begins with the face as it was; ``header``, as of references, is a row above."""
        rows = [[aligned.picture, *row] for aligned, row in zip(self.aligned, self.rows, strict=True)]
        return grid([[None, *header], *rows] if header else rows)

    def in_photo(self, photo: Image.Image, column: int) -> Image.Image:
        """The photo with all drawn faces of a column in their places."""
        for aligned, row in zip(self.aligned, self.rows, strict=True):
            photo = faces.paste_back(photo, aligned, row[column])
        return photo

    def provenance(self, column: int = 0, composite: bool = False) -> Provenance:
        kind, value = self.captions[column]
        seed = value if kind == "seed" else None
        return Provenance(self.model, seed, self.details, composite)


# drawings


def latent(
    translator: Translator,
    subject: Subject,
    domain: str | None,
    count: int,
    seed: int,
    psi: float,
    progress: Progress = lambda _: None,
) -> Drawn:
    """The subject in the styles of the seeds ``seed``, ``seed + 1``, …

    Raises:
        RequestError: there is no photo or no face in it, no such domain, or a number is out of range.
        stargan.pictures.io.PhotoError: the file is no picture that can be used.
    """
    domain = checked_domain(translator, domain)
    count = number("count", count, 1, MAX_COUNT, whole=True)
    seed = number("seed", seed, 0, MAX_SEED, whole=True)
    psi = number("psi", psi, 0, MAX_PSI)
    aligned = frame(translator, subject)
    seeds = range(seed, seed + count)
    styles = translator.latent_styles(domain, seeds, psi)
    return draw(translator, subject, aligned, domain, styles, [("seed", s) for s in seeds], progress, psi=psi)


def mix(
    translator: Translator,
    subject: Subject,
    references: Sequence[Reference],
    domain: str | None,
    strength: float,
    progress: Progress = lambda _: None,
) -> tuple[Drawn, list[Image.Image]]:
    """The subject in the style of each reference and, of several, in their blend; also the crops of these.

    Args:
        domain: what the references show.
        strength: 0 is the photo's own style, 1 the reference's.

    Raises:
        RequestError, PhotoError: as :func:`latent`; or there is no reference, or too many.
    """
    if not references:
        raise RequestError("no_references")
    if len(references) > MAX_REFERENCES:
        raise RequestError("many_references", count=len(references), limit=MAX_REFERENCES)
    domain = checked_domain(translator, domain)
    strength = number("strength", strength, 0, 1)
    weights = [number("weight", reference.weight, 0, 1) for reference in references]
    aligned = frame(translator, subject)
    crops = [frame_reference(translator, reference).picture for reference in references]
    styles = translator.reference_styles(crops, domain)
    captions = [("reference", n) for n in range(1, len(crops) + 1)]
    if len(crops) > 1:
        styles = torch.cat([styles, blend(styles, weights)[None]])
        captions.append(("blend", 0))
    return draw(translator, subject, aligned, domain, styles, captions, progress, strength=strength), crops


def walk(
    translator: Translator,
    subject: Subject,
    domain: str,
    start: Tensor,
    end: Tensor,
    part: float,
    progress: Progress = lambda _: None,
) -> Drawn:
    """The subject in one style, ``part`` of the way from ``start`` to ``end``, both ``(style_dim,)``."""
    part = number("between", part, 0, 1)
    style = torch.lerp(start, end, part)[None]
    return draw(
        translator, subject, frame(translator, subject), domain, style, [("between", round(100 * part))], progress
    )


def nearby(
    translator: Translator,
    subject: Subject,
    domain: str,
    style: Tensor,
    distance: float,
    count: int,
    seed: int,
    progress: Progress = lambda _: None,
) -> Drawn:
    """The subject in ``count`` styles near ``style``: moved towards those of the seeds ``seed``, ``seed + 1``, …

    Args:
        distance: 0 stays at ``style``, 1 arrives at the seeds' styles.
    """
    count = number("count", count, 1, MAX_COUNT, whole=True)
    seed = number("seed", seed, 0, MAX_SEED, whole=True)
    distance = number("distance", distance, 0, 1)
    others = translator.latent_styles(domain, range(seed, seed + count))
    styles = torch.lerp(style.to(others), others, distance)
    captions = [("near", n) for n in range(1, count + 1)]
    return draw(translator, subject, frame(translator, subject), domain, styles, captions, progress)


def film(
    translator: Translator,
    subject: Subject,
    domain: str,
    styles: Tensor,
    path: Path,
    note: str = "",
    progress: Progress = lambda _: None,
) -> Path:
    """A clip, .mp4 or .gif by ``path``, of the subject's first face going from style to style of a domain, ``(N, style_dim)``."""
    rate = CLIP_RATE[path.suffix]
    way = video.interpolate(styles.to(translator.device), video.frame_count(path, CLIP_SECONDS, rate))
    encoded = translator.encode(frame(translator, subject)[0].picture)

    def frames() -> Iterator[Image.Image]:
        done = 0
        for part in way.split(STEP):
            for picture in translator.decode(encoded, part, domain):
                yield to_grayscale(picture) if subject.grayscale else picture
                done += 1
                progress(done / len(way))

    provenance = Provenance(translator.name, details={"styles": note} if note else {})
    return video.write_video(frames(), path, rate, provenance)


def film_seeds(
    translator: Translator,
    subject: Subject,
    domain: str | None,
    seeds: Sequence[int],
    psi: float,
    path: Path,
    progress: Progress = lambda _: None,
) -> Path:
    """As :func:`film`, through the styles of seeds."""
    domain, styles = seed_styles(translator, domain, seeds, psi)
    return film(translator, subject, domain, styles, path, f"{domain}, seeds {', '.join(map(str, seeds))}", progress)


def draw_frame(
    translator: Translator, picture: Image.Image, style: Tensor | None, domain: str | None, seed: int, psi: float
) -> Image.Image | None:
    """A camera's picture, at most 640 px, with its biggest face drawn; None where it shows none.

    Args:
        style: ``(style_dim,)``, of ``domain``; None takes that of the seed.
    """
    if style is None:
        style = seed_styles(translator, domain, [seed], psi)[1][0]
    picture = picture.convert("RGB")
    picture.thumbnail((LIVE_SIZE, LIVE_SIZE))
    try:
        aligned = translator.align(picture)
    except NoFaceError:
        return None
    (drawn,) = translator.decode(translator.encode(aligned.picture), style[None], domain)
    return faces.paste_back(picture, aligned, drawn)


def draw_clip(
    translator: Translator,
    source: str,
    path: Path,
    style: Tensor | None,
    domain: str | None,
    seed: int,
    psi: float,
    progress: Progress = lambda _: None,
) -> Path:
    """A short video with its main face drawn in one style, see :func:`stargan.video.translate_clip`.

    Args:
        style: ``(style_dim,)``, of ``domain``; None takes that of the seed.

    Raises:
        stargan.errors.VideoError: it cannot be read, or is too long.
        stargan.errors.NoFaceError: it shows no face.
    """
    note = ""
    if style is None:
        domain, styles = seed_styles(translator, domain, [seed], psi)
        style, note = styles[0], f"{domain}, seed {seed}"
    style = style.to(translator.device)[None]
    return video.translate_clip(
        lambda crops: [translator.decode(translator.encode(crop), style, domain)[0] for crop in crops],
        translator.config.framing,
        translator.image_size,
        source,
        path,
        provenance=Provenance(translator.name, details={"styles": note} if note else {}),
        progress=lambda done, steps: progress(done / steps),
    )


def draw(
    translator: Translator,
    subject: Subject,
    aligned: list[faces.Aligned],
    domain: str,
    styles: Tensor,
    captions: list[tuple[str, int]],
    progress: Progress,
    **settings: float,
) -> Drawn:
    """Every face in every style, at ``strength``, if that is among the settings."""
    strength = settings.get("strength", 1)
    rows: list[list[Image.Image]] = []
    shown = None
    for face in aligned:
        encoded = translator.encode(face.picture)
        target = styles if strength == 1 else torch.lerp(translator.own_style(encoded), styles, strength)
        shown = target if shown is None else shown
        row: list[Image.Image] = []
        for part in target.split(STEP):
            row += translator.decode(encoded, part, domain)
            progress((len(rows) + len(row) / len(styles)) / len(aligned))
        rows.append([to_grayscale(picture) for picture in row] if subject.grayscale else row)
    details = {"domain": domain, **{name: f"{value:g}" for name, value in settings.items()}}
    return Drawn(subject.photo, translator.name, domain, aligned, rows, shown.cpu(), captions, details)


def seed_styles(translator: Translator, domain: str | None, seeds: Sequence[int], psi: float) -> tuple[str, Tensor]:
    """The checked domain, and its styles of the seeds: ``(len(seeds), style_dim)``."""
    domain = checked_domain(translator, domain)
    seeds = [number("seed", seed, 0, MAX_SEED, whole=True) for seed in seeds]
    return domain, translator.latent_styles(domain, seeds, number("psi", psi, 0, MAX_PSI))


def blend(styles: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted mean of styles ``(N, style_dim)``: ``(style_dim,)``. Weights that are all 0 count as equal."""
    w = torch.tensor(weights if any(weights) else [1.0] * len(weights), dtype=styles.dtype, device=styles.device)
    return (w[:, None] * styles).sum(dim=0) / w.sum()


# faces and frames


@lru_cache(maxsize=32)
def faces_of(path: str) -> tuple[faces.Face, ...]:
    """The faces in an uploaded file, biggest first; remembered for the last few files."""
    return tuple(faces.find(open_photo(path)))


def frame(translator: Translator, subject: Subject) -> list[faces.Aligned]:
    """The subject's faces in the model's framing.

    Raises:
        RequestError: there is no photo; or no face and no ``square``; or no face of a chosen number.
    """
    if not subject.photo:
        raise RequestError("no_photo")
    photo = open_photo(subject.photo)
    if translator.config.framing is None:
        return [crop(photo, subject.square or MIDDLE, translator.image_size)]
    found = faces_of(subject.photo)
    if not found:
        if subject.square is None:
            raise RequestError("no_face")
        return [crop(photo, subject.square, translator.image_size)]
    for face in subject.chosen:
        if not 1 <= face <= len(found):
            raise RequestError("no_such_face", number=face, count=len(found))
    return [translator.align(photo, found[face - 1]) for face in sorted(set(subject.chosen))]


def frame_reference(translator: Translator, reference: Reference) -> faces.Aligned:
    """A reference in the model's framing; where no face is found, as in most drawings, its proposed square."""
    picture = open_photo(reference.path)
    square = reference.square
    if square is None and translator.config.framing is not None and (found := faces_of(reference.path)):
        return translator.align(picture, found[0])
    return crop(picture, square or proposed_square(picture), translator.image_size)


def crop(photo: Image.Image, square: Square, size: int) -> faces.Aligned:
    """The square of a picture; what lies outside of the picture is reflected."""
    x, y, part = square
    side = max(part * min(photo.size), 1)
    left, top = x * photo.width - side / 2, y * photo.height - side / 2
    return faces.crop(photo, (left, top, left + side, top + side), size)


def proposed_square(picture: Image.Image) -> Square:
    """Where a drawn face probably is."""
    left, top, right, bottom = faces.propose_crop(picture)
    x, y = (left + right) / 2 / picture.width, (top + bottom) / 2 / picture.height
    return x, y, (right - left) / min(picture.size)


def numbered(photo: Image.Image, found: Sequence[faces.Face]) -> Image.Image:
    """The photo, at most 1024 px, with a numbered frame around each face."""
    shown = photo.copy()
    shown.thumbnail((1024, 1024))
    scale = shown.width / photo.width
    pen, line = ImageDraw.Draw(shown), max(2, round(max(shown.size) / 300))
    font = ImageFont.load_default(size=max(14, max(shown.size) // 28))
    for number_, face in enumerate(found, start=1):
        left, top, right, bottom = (value * scale for value in face.box)
        pen.rectangle((left, top, right, bottom), outline="white", width=line * 2)
        pen.rectangle((left, top, right, bottom), outline="#4338ca", width=line)
        text = pen.textbbox((left, top), str(number_), font=font)
        pen.rectangle((left, top, text[2] + 4 * line, text[3] + 4 * line), fill="#4338ca")
        pen.text((left + 2 * line, top + 2 * line), str(number_), font=font, fill="white")
    return shown


# checks and files


def checked_domain(translator: Translator, domain: str | None) -> str:
    """A domain of the model; its first where none is given."""
    domain = domain or translator.domains[0]
    if domain not in translator.domains:
        raise RequestError("bad_domain", model=translator.name, value=domain, choices=", ".join(translator.domains))
    return domain


def number(name: str, value: object, low: float, high: float, whole: bool = False) -> float | int:
    """A number that a person or a program gave, checked.

    Raises:
        RequestError: it is none, or out of range; ``name`` is the key of its label.
    """
    try:
        checked = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        checked = float("nan")
    if not low <= checked <= high or (whole and checked != int(checked)):
        raise RequestError("bad_number", name=name, low=low, high=high, value=value)
    return int(checked) if whole else checked


def pack(files: Sequence[str], archive: Path) -> Path:
    """A zip of files, stored as they are: pictures do not shrink."""
    with zipfile.ZipFile(archive, "w") as store:
        for file in files:
            store.write(file, Path(file).name)
    return archive
