"""The core: a photo's way to its drawings. Page, endpoints, commands, clips, the camera and the library all go it.

    path, bytes, file or PIL picture
      → Source      opened once, upright RGB, known by its content
      → Prepared    its chosen faces as aligned crops, for a model
      → Drawn       every face in every style; the whole photo, sheet and archive are made when they are asked for

    seeds, references, blends, walks, neighbours → Styles: vectors, their domain and captions in one value

What is drawn, :class:`Task`, and what comes of it, :class:`Painted`, are small and can be sent to another process, such as the
one that has the GPU: crops and vectors, no paths. What does not depend on the style is kept in one cache, by content.
"""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stargan.cache import ByteCache
from stargan.constants import DEFAULT_MODEL, MAX_PSI
from stargan.errors import NoFaceError, PhotoError, RequestError
from stargan.inference.translator import Encoded, find_device
from stargan.inference.translator import Translator as CropTranslator
from stargan.models.cards import copy_model
from stargan.models.checkpoint import fingerprint, load_model
from stargan.models.config import ModelConfig, ModelError
from stargan.models.registry import commit_model, find_model
from stargan.models.upscaling import enlarge
from stargan.pictures import faces, heads
from stargan.pictures.io import Photo, open_photo, pixels_of, read_file
from stargan.pictures.provenance import Provenance, compress_level, save_picture
from stargan.pictures.tensors import digest, grid, to_grayscale
from stargan.stages import stage

# Told how much of the work is done, 0 to 1.
Progress = Callable[[float], object]


def silent(_part: float) -> None:
    """Nobody is told; a function of its own, as it may be sent to another process."""


# A square in a picture: centre x and y in fractions of the width and height, side in fractions of the shorter side.
Square = tuple[float, float, float]
# What a style came from: ("seed", 7), ("reference", 2), ("blend", 0), ("near", 1), ("between", 40).
Caption = tuple[str, int]

MIDDLE: Square = (0.5, 0.5, 1.0)
MAX_COUNT, MAX_SEED, MAX_REFERENCES = 16, 2**31 - 1, 8
# Pictures of one request: faces times styles.
MAX_DRAWINGS = 64
# Characters in which a saved picture says what its style was made from.
MAX_ORIGIN = 200
# Styles decoded between two reports of progress.
STEP = 4
# Frames of a walk decoded in one task.
WALK_STEP = 64
# Longer side, px, of the photo in a before/after view.
PREVIEW = 1024
# Decoded photos, previews, faces, crops and features, for all requests. A photo of 12 megapixels takes 48 MB.
CACHE = ByteCache(320_000_000)


# Sources


class Source:
    """A picture as it came, opened once.

    Attributes:
        digest: of its content, what it is known by.
        name: of its file, without the ending; empty where it had none.
    """

    def __init__(self, digest: str, name: str, photo: Photo) -> None:
        self.digest, self.name = digest, name
        self._photo = photo

    @classmethod
    def open(cls, photo: Photo) -> Source:
        """Reads and judges a picture: see :func:`stargan.pictures.io.open_photo`.

        Raises:
            stargan.errors.PhotoError: it cannot be used.
            FileNotFoundError: there is no such file.
        """
        if isinstance(photo, Image.Image):
            upright = open_photo(photo)
            return cls(digest(upright), "", upright)
        if isinstance(photo, str | Path):
            source = cls(_digest_of_file(Path(photo)), Path(photo).stem, Path(photo))
        else:
            content = photo if isinstance(photo, bytes) else read_file(photo)
            source = cls(_hashed(content), "", content)
        source.picture  # noqa: B018 - what is no picture is refused here
        return source

    @property
    def picture(self) -> Image.Image:
        """RGB, upright, at its full size; not to be changed.

        Raises:
            FileNotFoundError: its file was deleted since, and the cache has let go of it.
        """
        if isinstance(self._photo, Image.Image):
            return self._photo
        return CACHE.get(("picture", self.digest), self._decode, bytes_of)

    @property
    def gone(self) -> bool:
        """Whether its file was deleted since."""
        return isinstance(self._photo, Path) and not self._photo.exists()

    @property
    def pixels(self) -> int:
        """By the header; 0 where its file was deleted since."""
        if isinstance(self._photo, Image.Image):
            return self._photo.width * self._photo.height
        return pixels_of(self._photo) if isinstance(self._photo, str | Path | bytes) else 0

    def _decode(self) -> Image.Image:
        if isinstance(self._photo, Path):
            self._photo.stat()  # a file that is gone is another matter than one that cannot be read
        return open_photo(self._photo)

    @property
    def preview(self) -> Image.Image:
        """The same with a longer side of at most 1024 px."""

        def make() -> Image.Image:
            shown = self.picture.copy()
            shown.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS, reducing_gap=1.0)  # half the seconds of 2.0
            return shown

        return CACHE.get(("preview", self.digest), make, bytes_of)

    @property
    def faces(self) -> tuple[faces.Face, ...]:
        """Its faces, biggest first."""
        return CACHE.get(
            ("faces", self.digest), lambda: tuple(faces.find(self.picture)), lambda found: 500 * len(found)
        )


def find_faces(sources: Sequence[Source]) -> None:
    """Looks for the faces of several sources at once, which may be faster; :attr:`Source.faces` has them then."""
    unknown = [source for source in sources if ("faces", source.digest) not in CACHE]
    for source, found in zip(unknown, faces.find_all([source.picture for source in unknown]), strict=True):
        CACHE.get(("faces", source.digest), partial(tuple, found), lambda faces: 500 * len(faces))


def _digest_of_file(path: Path) -> str:
    """Of its content. A file that is not written to again, as an upload, is read once."""
    try:
        about = path.stat()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte
        raise PhotoError("photo_unreadable") from error
    key = ("content", str(path), about.st_mtime_ns, about.st_size, about.st_ino)
    return CACHE.get(key, lambda: _hashed(read_file(path)), lambda _: 200)


def _hashed(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def bytes_of(picture: Image.Image) -> int:
    return 4 * picture.width * picture.height  # of which RGB uses three


# Prepared sources


@dataclass(frozen=True, eq=False)
class Prepared:
    """What of a source is drawn.

    Attributes:
        aligned: crops in the model's framing, one a chosen face.
        numbers: of these faces, from 1, the biggest.
    """

    source: Source
    aligned: tuple[faces.Aligned, ...]
    numbers: tuple[int, ...] = (1,)

    @property
    def crops(self) -> tuple[Image.Image, ...]:
        return tuple(aligned.picture for aligned in self.aligned)

    def close_up(self, row: int, side: int) -> Image.Image:
        """One of the crops at another size, from the photo itself, or from its preview where that shows it as large."""
        preview = self.source.preview
        there = self.aligned[row].scaled(preview.width / self.source.picture.width)
        if there.side >= side:
            return faces.resized(preview, there, side)
        return faces.resized(self.source.picture, self.aligned[row], side)


def prepare(
    source: Source, config: ModelConfig, chosen: Sequence[int] = (1,), square: Square | None = None
) -> Prepared:
    """The chosen faces of a source, as a model wants them.

    Args:
        chosen: numbers of faces, from 1, the biggest.
        square: what to take where there is no face, or the model looks for none; None refuses a photo without a face.

    Raises:
        stargan.errors.NoFaceError: there is no face, or none of a chosen number.
        stargan.errors.RequestError: no face is chosen.
    """
    if config.framing is None:
        return Prepared(source, (_crop(source, square or MIDDLE, config),))
    found = source.faces
    if not found:
        if square is None:
            raise NoFaceError()
        return Prepared(source, (_crop(source, square, config),))
    if not chosen:
        raise RequestError("no_faces_chosen")
    for number in chosen:
        if not 1 <= number <= len(found):
            raise NoFaceError("no_such_face", number=number, count=len(found))
    numbers = tuple(sorted(set(chosen)))
    return Prepared(source, tuple(_align(source, number, config) for number in numbers), numbers)


def prepare_reference(source: Source, config: ModelConfig, square: Square | None = None) -> Image.Image:
    """A reference as a model wants it: its biggest face; where none is found, as in most drawings, its proposed square.

    Args:
        square: where its face is, if a person has said so.
    """
    if square is None and config.framing is not None and source.faces:
        return _align(source, 1, config).picture
    return _crop(source, square or proposed_square(source), config).picture


def reference_square(source: Source, config: ModelConfig) -> Square:
    """What :func:`prepare_reference` takes of a reference as long as nobody said so, upright and not beyond its shorter side."""
    if config.framing is None or not source.faces:
        return proposed_square(source)
    aligned, (width, height) = _align(source, 1, config), source.picture.size
    turn, shift = aligned.matrix[:, :2], aligned.matrix[:, 2]
    x, y = np.linalg.solve(turn, aligned.picture.width / 2 - shift)
    return min(max(x / width, 0.0), 1.0), min(max(y / height, 0.0), 1.0), min(aligned.side / min(width, height), 1.0)


def proposed_square(source: Source) -> Square:
    """Where a drawn face probably is."""
    width, height = source.picture.size
    left, top, right, bottom = faces.propose_crop(source.picture)
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / min(width, height)


def _align(source: Source, number: int, config: ModelConfig) -> faces.Aligned:
    size, framing = config.architecture.image_size, config.framing
    assert framing is not None
    return CACHE.get(
        ("aligned", source.digest, number, framing, size),
        lambda: faces.align(source.picture, source.faces[number - 1].landmarks, framing, size),
        lambda aligned: bytes_of(aligned.picture),
    )


def _crop(source: Source, square: Square, config: ModelConfig) -> faces.Aligned:
    """The square of a picture; what lies outside of the picture is reflected."""
    size = config.architecture.image_size

    def make() -> faces.Aligned:
        x, y, part = square
        photo = source.picture
        side = max(part * min(photo.size), 1)
        left, top = x * photo.width - side / 2, y * photo.height - side / 2
        return faces.crop(photo, (left, top, left + side, top + side), size)

    return CACHE.get(("crop", source.digest, square, size), make, lambda aligned: bytes_of(aligned.picture))


def numbered(source: Source) -> Image.Image:
    """:attr:`Source.preview` with a numbered frame around each face."""
    shown = source.preview.copy()
    scale = shown.width / source.picture.width
    pen, line = ImageDraw.Draw(shown), max(2, round(max(shown.size) / 300))
    font = ImageFont.load_default(size=max(14, max(shown.size) // 28))
    for number, face in enumerate(source.faces, start=1):
        left, top, right, bottom = (value * scale for value in face.box)
        pen.rectangle((left, top, right, bottom), outline="white", width=line * 2)
        pen.rectangle((left, top, right, bottom), outline="#4338ca", width=line)
        _, _, width, height = (side + 4 * line for side in pen.textbbox((0, 0), str(number), font=font))
        top = max(0, top - height)  # above the frame: a small face would lie below it
        pen.rectangle((left, top, left + width, top + height), fill="#4338ca")
        pen.text((left + 2 * line, top + 2 * line), str(number), font=font, fill="white")
    return shown


# Styles


@dataclass(frozen=True, eq=False)
class Styles:
    """Styles of one domain of a model, and where each is from.

    Attributes:
        vectors: ``(N, style_dim)`` float32 on the CPU.
        captions: one a style.
        about: one a style: what else it takes to make it again, for what a saved picture says of itself.
        strength: 1 takes the styles as they are, 0 the photo's own.
    """

    vectors: Tensor
    model: str
    domain: str
    captions: tuple[Caption, ...]
    about: tuple[dict[str, str], ...]
    strength: float = 1.0

    def __len__(self) -> int:
        return len(self.vectors)

    def styles(self, translator: CropTranslator) -> Styles:
        """Themselves: see :class:`Recipe`.

        Raises:
            stargan.errors.RequestError: they are of another model.
        """
        if self.model != translator.name:
            raise RequestError("other_model", slot="A", model=self.model)
        return self

    def part(self, first: int, last: int) -> Styles:
        """Those from ``first`` up to ``last``, the latter not included."""
        cut = slice(first, last)
        return replace(self, vectors=self.vectors[cut], captions=self.captions[cut], about=self.about[cut])

    def provenance(self, index: int, composite: bool = False) -> Provenance:
        """What a picture in the style of that number says of itself."""
        kind, value = self.captions[index]
        details = {"domain": self.domain, **self.about[index]}
        return Provenance(self.model, value if kind == "seed" else None, details, composite)

    def blend(self, weights: Sequence[float]) -> Styles:
        """One style: their weighted mean. Weights that are all 0 count as equal."""
        w = torch.tensor(weights if any(weights) else [1.0] * len(self), dtype=self.vectors.dtype)
        vector = (w[:, None] * self.vectors).sum(dim=0, keepdim=True) / w.sum()
        about = self.shared() | {"weights": ", ".join(f"{weight:g}" for weight in weights)}
        if all("reference" in own for own in self.about):
            about["reference"] = ", ".join(own["reference"] for own in self.about)
        return replace(self, vectors=vector, captions=(("blend", 0),), about=(about,))

    def towards(self, other: Styles, part: float) -> Styles:
        """Each ``part`` of the way, from 0 to 1, to those of ``other``, of which there are as many, or one of these."""
        other = other._said_for(self.domain)
        vectors = torch.lerp(self.vectors, other.vectors, part)
        share = round(100 * part)
        return replace(
            self,
            vectors=vectors,
            captions=(("between", share),) * len(vectors),
            about=tuple(
                {
                    "between": f"{share} %",
                    "from": self.origin(min(index, len(self) - 1)),
                    "to": other.origin(min(index, len(other) - 1)),
                }
                for index in range(len(vectors))
            ),
        )

    def walk(self, frames: int, loop: bool = False) -> Styles:
        """A walk through them: see :func:`interpolate`; one style a frame."""
        vectors = interpolate(self.vectors, frames, loop)
        return replace(
            self, vectors=vectors, captions=(("between", 0),) * frames, about=({"styles": self.note()},) * frames
        )

    def note(self) -> str:
        """In words, for a video's metadata."""
        return ", ".join(f"{kind} {value}" for kind, value in self.captions)

    def origin(self, index: int) -> str:
        """What it takes to make one of them again, in words."""
        kind, value = self.captions[index]
        return ", ".join([f"{kind} {value}", *(f"{name} {said}" for name, said in self.about[index].items())])[
            :MAX_ORIGIN
        ]

    def _said_for(self, domain: str) -> Styles:
        """The same, each saying of which domain it is where that is another than the one of those beside it."""
        if self.domain == domain:
            return self
        return replace(self, about=tuple({"domain": self.domain, **about} for about in self.about))

    def shared(self) -> dict[str, str]:
        """What they all say."""
        return {name: value for name, value in self.about[0].items() if all(a.get(name) == value for a in self.about)}


def joined(parts: Sequence[Styles]) -> Styles:
    """Styles of one model and strength behind each other, drawn in the domain of the first."""
    parts = [part._said_for(parts[0].domain) for part in parts]
    return replace(
        parts[0],
        vectors=torch.cat([part.vectors for part in parts]),
        captions=tuple(caption for part in parts for caption in part.captions),
        about=tuple(about for part in parts for about in part.about),
    )


def interpolate(styles: Tensor, frames: int, loop: bool = False) -> Tensor:
    """A walk through styles: ``(N, style_dim)`` → ``(frames, style_dim)``, slowing down at each of them.

    Between two styles it goes straight: the mapping network and the style encoder put out plain vectors, without the
    constant length that would ask for a walk on a sphere.

    Args:
        loop: goes back to the first style, and ends one step before it: repeated, the video does not stand still there.

    Raises:
        ValueError: fewer than two styles, or fewer frames than styles.
    """
    if len(styles) < 2:
        raise ValueError(f"A walk needs at least two styles, not {len(styles)}.")
    if frames < len(styles):
        raise ValueError(f"A walk through {len(styles)} styles needs at least as many frames, not {frames}.")
    stops = torch.cat([styles, styles[:1]]) if loop else styles
    legs = len(stops) - 1
    way = torch.arange(frames, dtype=torch.float64, device=styles.device) * legs / (frames if loop else frames - 1)
    leg = way.long().clamp(max=legs - 1)
    t = way - leg
    t = (t * t * (3 - 2 * t)).to(styles.dtype)
    return torch.lerp(stops[leg], stops[leg + 1], t[:, None])


class Recipe(Protocol):
    """What styles are made of, where the model is: small, and to be sent there. :class:`Styles` are one themselves."""

    def __len__(self) -> int: ...

    def styles(self, translator: CropTranslator) -> Styles: ...


@dataclass(frozen=True)
class Seeds:
    """The styles of seeds, truncated by ``psi``: see :func:`seeds`."""

    domain: str
    numbers: tuple[int, ...]
    psi: float

    def __len__(self) -> int:
        return len(self.numbers)

    def styles(self, translator: CropTranslator) -> Styles:
        vectors = translator.latent_styles(self.domain, self.numbers, self.psi).float().cpu()
        captions = tuple(("seed", number) for number in self.numbers)
        about = ({"psi": f"{self.psi:g}"},) * len(self)
        return Styles(vectors, translator.name, self.domain, captions, about)


@dataclass(frozen=True)
class References:
    """The styles of aligned pictures and, of several, in the end their blend: see :func:`references`."""

    domain: str
    crops: tuple[Image.Image, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...] | None
    strength: float

    def __len__(self) -> int:
        return len(self.crops) + self._blended

    @property
    def _blended(self) -> bool:
        return self.weights is not None and len(self.crops) > 1

    def styles(self, translator: CropTranslator) -> Styles:
        vectors = translator.reference_styles(self.crops, self.domain).float().cpu()
        captions = tuple(("reference", number) for number in range(1, len(self.crops) + 1))
        about = tuple({"reference": name, "strength": f"{self.strength:g}"} for name in self.names)
        each = Styles(vectors, translator.name, self.domain, captions, about, self.strength)
        return joined([each, each.blend(self.weights)]) if self._blended and self.weights else each


@dataclass(frozen=True, eq=False)
class Near:
    """Styles between a given one and those of seeds: see :func:`near`."""

    style: Styles
    numbers: tuple[int, ...]
    distance: float

    def __len__(self) -> int:
        return len(self.numbers)

    def styles(self, translator: CropTranslator) -> Styles:
        style = self.style.styles(translator)
        found = style.towards(Seeds(style.domain, self.numbers, 1.0).styles(translator), self.distance)
        of = {"of": style.origin(0), "distance": f"{self.distance:g}"}
        about = tuple(of | {"towards": str(number)} for number in self.numbers)
        return replace(found, captions=tuple(("near", n) for n in range(1, len(self) + 1)), about=about)


def seeds(config: ModelConfig, domain: str | None, count: object, seed: object, psi: object) -> Seeds:
    """The styles of the seeds ``seed``, ``seed + 1``, …; after the last that there is comes 0.

    Raises:
        stargan.errors.RequestError: there is no such domain, or a number is out of range.
    """
    numbers = _in_a_row(seed, whole("count", count, 1, MAX_COUNT))
    return Seeds(checked_domain(config, domain), numbers, number("psi", psi, 0, MAX_PSI))


def _in_a_row(seed: object, count: int) -> tuple[int, ...]:
    first = whole("seed", seed, 0, MAX_SEED)
    return tuple(n % (MAX_SEED + 1) for n in range(first, first + count))


def seed_pair(config: ModelConfig, domain: str | None, start: object, end: object, psi: object) -> Seeds:
    """The styles of two seeds, to walk between them; raises as :func:`seeds`."""
    pair = (whole("seed", start, 0, MAX_SEED), whole("seed", end, 0, MAX_SEED))
    return Seeds(checked_domain(config, domain), pair, number("psi", psi, 0, MAX_PSI))


@dataclass(frozen=True)
class Reference:
    """A reference picture: its part in the blend, and where its face is, if a person has said so."""

    photo: Photo
    weight: float = 1.0
    square: Square | None = None


def open_reference(photo: Photo) -> Source:
    """
    Raises:
        stargan.errors.RequestError: it is no longer there.
        stargan.errors.PhotoError: it cannot be used.
    """
    try:
        return Source.open(photo)
    except FileNotFoundError as error:
        raise RequestError("reference_gone") from error


def references(
    config: ModelConfig, pictures: Sequence[Reference], domain: str | None, strength: object = 1.0
) -> References:
    """The style of each reference picture and, of several, their blend.

    Args:
        domain: what they show.
        strength: 0 is the photo's own style, 1 the reference's.

    Raises:
        stargan.errors.RequestError: there is no reference, or too many; or as :func:`seeds`.
        stargan.errors.PhotoError: one of them cannot be used.
    """
    if not pictures:
        raise RequestError("no_references")
    if len(pictures) > MAX_REFERENCES:
        raise RequestError("many_references", count=len(pictures), limit=MAX_REFERENCES)
    domain, strength = checked_domain(config, domain), number("strength", strength, 0, 1)
    weights = tuple(number("weight", picture.weight, 0, 1) for picture in pictures)
    sources = [open_reference(picture.photo) for picture in pictures]
    crops = tuple(
        prepare_reference(source, config, picture.square) for source, picture in zip(sources, pictures, strict=True)
    )
    return References(domain, crops, tuple(source.digest[:16] for source in sources), weights, strength)


def near(style: Styles, distance: object, count: object, seed: object) -> Near:
    """``count`` styles near a given one: moved towards those of the seeds ``seed``, ``seed + 1``, …

    Args:
        distance: 0 stays at ``style``, 1 arrives at the seeds' styles.

    Raises:
        stargan.errors.RequestError: a number is out of range.
    """
    numbers = _in_a_row(seed, whole("count", count, 1, MAX_COUNT))
    return Near(style, numbers, number("distance", distance, 0, 1))


# Drawing


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be drawn, to be sent to where the model is.

    Attributes:
        crops: aligned pictures.
        passing: these are frames of many, not worth keeping anything of.
    """

    crops: tuple[Image.Image, ...]
    recipe: Recipe
    grayscale: bool = False
    passing: bool = False

    def __len__(self) -> int:
        """Pictures to be drawn."""
        return len(self.crops) * len(self.recipe)


@dataclass(frozen=True, eq=False)
class Painted:
    """What came of a task: a row of pictures a crop, one a style; the styles, as the first crop was drawn in; and the vectors that each
    was drawn in, ``(styles, style_dim)``."""

    rows: tuple[tuple[Image.Image, ...], ...]
    styles: Styles
    vectors: tuple[Tensor, ...] = ()


# A task and whom to tell of the progress → what came of it: :func:`paint` with a translator, here or in another process.
Paint = Callable[[Task, Progress], Painted]


def paint(translator: CropTranslator, task: Task, progress: Progress = silent) -> Painted:
    """Every crop in every style.

    Raises:
        stargan.errors.RequestError: the styles are of another model.
    """
    styles = task.recipe.styles(translator)
    each: list[Tensor] = []
    rows: list[tuple[Image.Image, ...]] = []
    for crop in task.crops:
        encoded = translator.encode(crop) if task.passing else _encoded(translator, crop)
        vectors = styles.vectors
        if styles.strength != 1:
            vectors = torch.lerp(translator.own_style(encoded).float().cpu(), vectors, styles.strength)
        each.append(vectors)
        row: list[Image.Image] = []
        for part in vectors.split(STEP):
            row += translator.decode(encoded, part, styles.domain)
            progress((len(rows) + len(row) / len(styles)) / len(task.crops))
        rows.append(tuple(to_grayscale(picture) for picture in row) if task.grayscale else tuple(row))
    shown = replace(styles, vectors=each[0], strength=1.0) if each else styles
    return Painted(tuple(rows), shown, tuple(each))


def _encoded(translator: CropTranslator, crop: Image.Image) -> Encoded:
    key = ("encoded", translator.number, digest(crop))
    return CACHE.get(key, lambda: translator.encode(crop), lambda encoded: encoded.size)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawings of the faces of one photo: a row a face, a column a style.

    Attributes:
        styles: one a column, as the first face was drawn in.
        vectors: those that each face was drawn in, ``(columns, style_dim)``: of other strength than 1, each has some of its own.
        grayscale: whether they are black and white, by which the model does not draw.
    """

    prepared: Prepared
    rows: tuple[tuple[Image.Image, ...], ...]
    styles: Styles
    vectors: tuple[Tensor, ...] = ()
    grayscale: bool = False

    @property
    def pictures(self) -> list[Image.Image]:
        return [picture for row in self.rows for picture in row]

    def place(self, index: int) -> tuple[int, int]:
        """Row and column of the picture at ``index`` of :attr:`pictures`."""
        return divmod(index, len(self.styles))

    def file_name(self, index: int) -> str:
        """What that picture is saved as."""
        row, column = self.place(index)
        kind, value = self.styles.captions[column]
        name = f"{self.styles.domain}-{kind}-{value}.png"
        return f"face-{self.prepared.numbers[row]}-{name}" if len(self.rows) > 1 else name

    def style(self, index: int) -> Styles:
        """The style that picture is in, one, as its own face was drawn in it."""
        row, column = self.place(index)
        style = self.styles.part(column, column + 1)
        # another version of this package, on a cluster, may not tell
        return replace(style, vectors=self.vectors[row][column : column + 1]) if self.vectors else style

    def provenance(self, column: int, composite: bool = False) -> Provenance:
        """What a picture in the style of a column says of itself."""
        about = self.styles.provenance(column, composite)
        return replace(about, details=about.details | {"grayscale": "yes"}) if self.grayscale else about

    def enlarged(self, index: int, side: int) -> tuple[Image.Image, Provenance]:
        """That picture with at least so many px a side, and what it says of itself: how it came to them, too."""
        picture, about = self.pictures[index], self.provenance(self.place(index)[1])
        larger, note = CACHE.get(
            ("enlarged", digest(picture), side), lambda: enlarge(picture, side), lambda made: bytes_of(made[0])
        )
        return larger, replace(about, details=about.details | {"size": note}) if note else about

    def sheet(self, header: Sequence[Image.Image] = ()) -> Image.Image:
        """One picture: each row begins with the face as it was; ``header``, as of references, is a row above."""
        rows = [[crop, *row] for crop, row in zip(self.prepared.crops, self.rows, strict=True)]
        return grid([[None, *header], *rows] if header else rows)

    def in_photo(self, column: int) -> Image.Image:
        """The photo at its full size with all drawn faces of a column in their places."""
        return self._pasted(self.prepared.source.picture, self.prepared.aligned, column)

    def in_preview(self, column: int) -> Image.Image:
        """The same in :attr:`Source.preview`."""
        source = self.prepared.source
        scale = source.preview.width / source.picture.width
        return self._pasted(source.preview, [aligned.scaled(scale) for aligned in self.prepared.aligned], column)

    def _pasted(self, photo: Image.Image, aligned: Sequence[faces.Aligned], column: int) -> Image.Image:
        pasted = photo
        for face, row in zip(aligned, self.rows, strict=True):
            # its hair is looked for in the photo: beside it, another face may be drawn already
            pasted = heads.paste_head(pasted, face, row[column], self._hair(photo, face) if face.face else None)
        return pasted

    def _hair(self, photo: Image.Image, face: faces.Aligned) -> heads.Hair:
        key = ("hair", self.prepared.source.digest, photo.size, face.matrix.tobytes())
        return CACHE.get(key, lambda: heads.find_hair(photo, face), lambda hair: bytes_of(hair.mask))

    def sheet_provenance(self) -> Provenance:
        """Of all its styles; the face as it was is on it, too."""
        about = self.provenance(0, composite=True)
        if len(self.styles) == 1:
            return about
        details = {name: value for name, value in about.details.items() if name not in self.styles.about[0]}
        return replace(about, seed=None, details=details | self.styles.shared() | {"styles": self.styles.note()})

    def pack(
        self,
        archive: str | Path | BinaryIO,
        column: int,
        header: Sequence[Image.Image] = (),
        progress: Progress = silent,
    ) -> None:
        """A zip of it all: the crops, every drawing, the sheet, and the photo with the drawings of a column in it."""
        steps = len(self.pictures) + len(self.rows) + 2
        with zipfile.ZipFile(archive, "w") as store:  # stored as they are: pictures do not shrink

            def add(name: str, picture: Image.Image, about: Provenance | None) -> None:
                store.writestr(name, png(picture, about))
                progress(len(store.namelist()) / steps)

            for number, crop in zip(self.prepared.numbers, self.prepared.crops, strict=True):
                add(f"face-{number}-crop.png" if len(self.rows) > 1 else "crop.png", crop, None)
            for index, picture in enumerate(self.pictures):
                add(self.file_name(index), picture, self.provenance(self.place(index)[1]))
            add(f"{self.styles.domain}-sheet.png", self.sheet(header), self.sheet_provenance())
            whole_photo = self.in_photo(column)
            add(f"{self.styles.domain}-in-photo.png", whole_photo, self.provenance(column, composite=True))


def png(picture: Image.Image, about: Provenance | None) -> bytes:
    """A PNG's bytes; without ``about`` where it is no result, such as a crop of the photo."""
    out = io.BytesIO()
    if about:
        save_picture(picture, out, about)
    else:
        with stage("write"):
            picture.save(out, "PNG", compress_level=compress_level(picture))
    return out.getvalue()


def draw(
    prepared: Prepared,
    recipe: Recipe,
    paint: Paint,
    *,
    grayscale: bool = False,
    progress: Progress = silent,
) -> Drawn:
    """Every face in every style.

    Raises:
        stargan.errors.RequestError: that would be too many; or as :func:`paint`.
    """
    task = Task(prepared.crops, recipe, grayscale)
    if len(task) > MAX_DRAWINGS:
        raise RequestError("many_drawings", faces=len(task.crops), styles=len(recipe), limit=MAX_DRAWINGS)
    painted = paint(task, progress)
    return Drawn(prepared, painted.rows, painted.styles, painted.vectors, grayscale)


def walk(
    crop: Image.Image,
    stops: Recipe,
    frames: int,
    paint: Paint,
    *,
    loop: bool = False,
    grayscale: bool = False,
    progress: Progress = silent,
) -> Iterator[Image.Image]:
    """One face going from style to style: a picture a frame, made as they are asked for.

    Raises:
        ValueError: see :func:`interpolate`.
    """
    way = paint(Task((crop,), stops), silent).styles.walk(frames, loop)
    for first in range(0, frames, WALK_STEP):
        part = way.part(first, first + WALK_STEP)
        told = partial(_told_of_part, progress, first / frames, len(part) / frames)
        for picture in paint(Task((crop,), part, grayscale), told).rows[0]:
            told(1.0)  # while those before are written, too, whoever asked may leave
            yield picture


def _told_of_part(progress: Progress, before: float, share: float, done: float) -> None:
    progress(before + share * done)


# Checks


def checked_domain(config: ModelConfig, domain: str | None) -> str:
    """A domain of the model; its first where none is given.

    Raises:
        stargan.errors.RequestError: it has no such domain.
    """
    domain = domain or config.domains[0]
    if domain not in config.domains:
        raise RequestError("bad_domain", model=config.name, value=domain, choices=", ".join(config.domains))
    return domain


def number(name: str, value: object, low: float, high: float) -> float:
    """A number that a person or a program gave, checked.

    Raises:
        stargan.errors.RequestError: it is none, or out of range; ``name`` is the key of its label.
    """
    try:
        checked = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        checked = math.nan
    if not low <= checked <= high:
        raise RequestError("bad_number", name=name, low=low, high=high, value=value)
    return checked


def whole(name: str, value: object, low: int, high: int) -> int:
    """As :func:`number`, and it has no fraction."""
    checked = number(name, value, low, high)
    if checked != int(checked):
        raise RequestError("bad_number", name=name, low=low, high=high, value=value)
    return int(checked)


# The library


class Translator(CropTranslator):
    """A model on a device, for photos: see :class:`stargan.inference.translator.Translator` for its arguments.

    ``from_pretrained``, ``save_pretrained`` and ``push_to_hub`` are those of ``huggingface_hub.ModelHubMixin``, with the same
    arguments. (The mixin itself keeps a copy of all that a constructor is given: here, of the networks.)

    Attributes:
        folder: where the model was read; None if it was made in memory.
    """

    folder: Path | None = None

    @cached_property
    def weights(self) -> str:
        """The fingerprint of that folder (:func:`stargan.models.checkpoint.fingerprint`); empty without one."""
        return fingerprint(self.folder) if self.folder else ""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str | torch.device | None = None,
        precision: str = "auto",
    ) -> Translator:
        """A model of its own, not shared as that of :func:`load_translator` is.

        Args:
            pretrained_model_name_or_path: "user/repo[@revision]" on the Hub, a model folder, or a registered name.
            force_download: what is in the Hub's cache is downloaded again.
            token: for private repositories; None takes the one that ``hf auth login`` or HF_TOKEN left, False none.
            cache_dir: the Hub's cache; None takes the usual one.
            local_files_only: what is not in the cache is not downloaded.
            revision: a branch, tag or commit of a repository.

        Raises:
            stargan.models.config.ModelError: the model cannot be found, fetched or read.
        """
        name = str(pretrained_model_name_or_path)
        if revision and "/" in name and not Path(name).is_dir():
            name = f"{name}@{revision}"
        folder = find_model(
            name,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        translator = cls(load_model(folder), device, precision)
        translator.folder = folder
        return translator

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Writes the model's files and its card to a folder; see :func:`stargan.models.cards.copy_model`.

        Args:
            repo_id, push_to_hub, push_to_hub_kwargs: whether and where to publish it too, and how; None: under the folder's name.
            model_card_kwargs: entries of the card's front matter, such as ``{"license": "mit"}``.

        Returns:
            The address of the commit, if it was published.

        Raises:
            stargan.models.config.ModelError: the model was made in memory, its folder is gone, or the Hub refuses.
            OSError: the folder cannot be written.
        """
        save_directory = Path(save_directory)
        if self.folder is None:
            raise ModelError(f"{self.name} was made in memory: write it with stargan.models.checkpoint.save_model.")
        copy_model(self.folder, save_directory, model_card_kwargs)
        if not push_to_hub:
            return None
        return commit_model(save_directory, repo_id or save_directory.resolve().name, **push_to_hub_kwargs)[
            1
        ].commit_url

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model",
        private: bool | None = None,
        token: str | bool | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        allow_patterns: list[str] | str | None = None,
        ignore_patterns: list[str] | str | None = None,
        delete_patterns: list[str] | str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Publishes the model with its card, figures and example; see :func:`stargan.models.registry.commit_model`.

        Returns:
            The address of the commit.

        Raises:
            stargan.models.config.ModelError: as :meth:`save_pretrained`.
        """
        with tempfile.TemporaryDirectory() as saved:
            url = self.save_pretrained(
                saved,
                repo_id=repo_id,
                push_to_hub=True,
                model_card_kwargs=model_card_kwargs,
                commit_message=commit_message,
                private=private,
                token=token,
                branch=branch,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=delete_patterns,
            )
        assert url is not None
        return url

    def paint(self, task: Task, progress: Progress = silent) -> Painted:
        """See :func:`paint`."""
        return paint(self, task, progress)

    def latent(
        self, photo: Photo, domain: str | None = None, count: int = 10, seed: int = 0, psi: float = 0.7
    ) -> list[Image.Image]:
        """The photo's biggest face in ``count`` styles, of the seeds ``seed``, ``seed + 1``, …

        Args:
            photo: a path, a file's bytes, an open binary file, or a PIL picture of any mode.
            domain: None takes the model's first.
            count: 0 or more; an empty list for 0.
            psi: truncation: 0 gives the average drawing, 1 the full variety, at most 1.5.

        Raises:
            stargan.errors.UserError: (a ValueError) the photo cannot be read or shows no face; there is no such domain; a
                number is out of range.
            FileNotFoundError: there is no such file.
        """
        numbers = _in_a_row(seed, whole("count", count, 0, MAX_SEED))
        recipe = Seeds(checked_domain(self.config, domain), numbers, number("psi", psi, 0, MAX_PSI))
        return self._drawn(photo, recipe)

    def reference(
        self, photo: Photo, references: Photo | Sequence[Photo], domain: str | None = None, strength: float = 1.0
    ) -> list[Image.Image]:
        """The photo's biggest face in the style of each reference, a picture of a face of ``domain``.

        Args:
            references: one or several, as ``photo``. One without a face, as most drawings are to the detector, is cropped by
                :func:`stargan.pictures.faces.propose_crop`. An empty list for none.
            strength: 1 takes the reference's style, 0 the photo's own.

        Raises:
            stargan.errors.UserError, FileNotFoundError: as :meth:`latent`.
        """
        domain, strength = checked_domain(self.config, domain), number("strength", strength, 0, 1)
        alone = isinstance(references, str | Path | bytes | Image.Image) or hasattr(references, "read")
        several = cast("Sequence[Photo]", [references] if alone else references)
        sources = [Source.open(reference) for reference in several]
        crops = tuple(prepare_reference(source, self.config) for source in sources)
        names = tuple(source.digest[:16] for source in sources)
        return self._drawn(photo, References(domain, crops, names, None, strength))

    def _drawn(self, photo: Photo, recipe: Recipe) -> list[Image.Image]:
        prepared = prepare(Source.open(photo), self.config)
        return list(self.paint(Task(prepared.crops, recipe)).rows[0]) if len(recipe) else []


_loaded: dict[tuple[str, str, str], Translator] = {}
_loading: dict[tuple[str, str, str], threading.Lock] = {}
_loading_lock = threading.Lock()


def load_translator(
    name: str | Path | None = None,
    device: str | torch.device | None = None,
    precision: str = "auto",
    progress: Callable[[float, str], object] | None = None,
) -> Translator:
    """A model, ready to translate; loaded once a process and shared. While one loads, others can be had.

    Args:
        name: a registered name, a model folder, or "user/repo[@revision]" on the Hub; None: the default model.
        device: None chooses CUDA, then Apple's MPS, then the CPU.
        precision: "auto", "exact" (fp32) or "bf16".
        progress: told how a download gets on; None draws a bar on the terminal.

    Raises:
        stargan.models.config.ModelError: the model cannot be found, fetched or read.
        ValueError: this machine has no such device.
    """
    name = str(name or DEFAULT_MODEL)
    device = find_device(device)
    key = (name, str(device), precision)
    with _loading_lock:
        own = _loading.setdefault(key, threading.Lock())
    with own:
        if key not in _loaded:
            folder = find_model(name, progress=progress)
            _loaded[key] = Translator(load_model(folder), device, precision)
            _loaded[key].folder = folder
        return _loaded[key]
