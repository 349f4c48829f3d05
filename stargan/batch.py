"""Many photos, one after the other: what ``python -m stargan translate`` does.

Every file tells in its metadata what it was made with. A run that was stopped goes on where it was: files that are
there and say what this run would write are left alone. Processes that share the photos need not speak to each other.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import BinaryIO, Generic, Protocol, TypeVar

from PIL import Image

from stargan.drawing import (
    CACHE,
    MAX_SEED,
    Paint,
    Prepared,
    Recipe,
    References,
    Seeds,
    Source,
    Styles,
    Task,
    checked_domain,
    find_faces,
    png,
    prepare,
    prepare_reference,
    silent,
)
from stargan.errors import NoFaceError, PhotoError
from stargan.models.config import ModelConfig
from stargan.pictures.heads import paste_head
from stargan.pictures.io import SUFFIXES
from stargan.pictures.provenance import Provenance, read_provenance
from stargan.pictures.tensors import grid

# The next run would take results for photos.
AMONG_PHOTOS = "The results would lie among the photos of {place}: name another folder for them."
# Photos on one grid: more would not fit a screen.
GRID_ROWS = 8
# Pixels of photos that are opened before their faces are looked for: the cache must still have them afterwards.
TOGETHER = 16_000_000

P = TypeVar("P", bound=Hashable)  # a photo, as the files name it
P_in = TypeVar("P_in", bound=Hashable, contravariant=True)


@dataclass(frozen=True)
class Looks:
    """The styles that every photo is drawn in.

    Attributes:
        names: one a style, for the file names.
        references: the aligned pictures that the styles are of, where they are.
    """

    names: list[str]
    styles: Styles
    references: list[Image.Image] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Looks before a model has made their styles; it may be sent to where the model is."""

    names: list[str]
    recipe: Recipe
    references: list[Image.Image] = field(default_factory=list)

    def looks(self, paint: Paint) -> Looks:
        return Looks(self.names, paint(Task((), self.recipe), silent).styles, self.references)


def latent_plan(config: ModelConfig, domain: str | None, seeds: Sequence[int], psi: float) -> Plan:
    """Styles of seeds.

    Raises:
        stargan.errors.RequestError: the model has no such domain.
        ValueError: there is no such seed.
    """
    if max(seeds, default=0) > MAX_SEED:
        raise ValueError(f"There is no seed {max(seeds)}: the last is {MAX_SEED}.")
    domain = checked_domain(config, domain)
    return Plan([f"{domain}-seed{seed}" for seed in seeds], Seeds(domain, tuple(seeds), psi))


def reference_plan(config: ModelConfig, domain: str | None, references: Iterable[Path], strength: float) -> Plan:
    """Styles of pictures of ``domain``: files, or folders of them.

    Raises:
        stargan.errors.RequestError: the model has no such domain.
        ValueError: two pictures would give files of one name, or a picture, which is named, cannot be read.
    """
    domain = checked_domain(config, domain)
    files = find_photos(references)
    names = [f"{domain}-like-{name.replace('/', '-')}" for name in files]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ValueError(f"Two references would both give files named {twice[0]}: give one of them another name.")
    pictures, digests = [], []
    for path in files.values():
        try:
            source = Source.open(path)
            pictures.append(prepare_reference(source, config))
        except (PhotoError, OSError) as error:
            raise ValueError(f"{path}: {error}") from error
        digests.append(source.digest[:16])  # by content, as its name is the person's own matter
    recipe = References(domain, tuple(pictures), tuple(digests), None, strength)
    return Plan(names, recipe, pictures)


def find_photos(places: Iterable[Path], output: Path | None = None) -> dict[str, Path]:
    """The pictures that files and folders (and their folders) name, each with the name its results get.

    A name is the path below the folder without the ending, or with it (``a_jpg``) where two differ in nothing else.

    Args:
        output: where results go; if that is below a place, what lies there is no photo.

    Raises:
        ValueError: a place does not exist or is where results go, there are no pictures, or two would get one name.
    """
    found: dict[Path, Path] = {}  # resolved file → path below its place
    results = output and output.resolve()
    for place in (places := list(places)):
        if place.is_dir():
            inside = results if results and place.resolve() in results.parents else None
            files = sorted(file for file in place.rglob("*") if _is_photo(file, inside))
            if files and place.resolve() == results:
                raise ValueError(AMONG_PHOTOS.format(place=place))
        elif place.exists():
            files = [place]
        else:
            raise ValueError(f"There is no file or folder {place}.")
        for file in files:
            found.setdefault(file.resolve(), file.relative_to(place) if place.is_dir() else Path(file.name))
    if not found:
        raise ValueError(f"There are no pictures in {', '.join(str(place) for place in places)}.")
    return named(found)


def named(found: Mapping[P, PurePath]) -> dict[str, P]:
    """Photos by the names that their results get.

    Args:
        found: each with its path below the folder that was searched.

    Raises:
        ValueError: two would get one name.
    """
    plain = Counter(below.with_suffix("") for below in found.values())
    names: dict[str, P] = {}
    for file, below in found.items():
        stem = below.with_suffix("")
        name = (stem if plain[stem] == 1 else below.with_name(below.name.replace(".", "_"))).as_posix()
        if name in names:
            raise ValueError(
                f"{names[name]} and {file} would both be written as {name}: translate them into folders of their own."
            )
        names[name] = file
    return names


def _is_photo(file: Path, results: Path | None) -> bool:
    hidden = file.name.startswith(".")
    made = results in file.resolve().parents
    return file.suffix.lower() in SUFFIXES and not hidden and not made and file.is_file()


class Files(Protocol[P_in]):
    """Where photos come from and results go: folders here, or what another machine offers."""

    def open(self, photo: P_in) -> Source:
        """
        Raises:
            stargan.errors.PhotoError: it cannot be used.
            OSError: it cannot be read.
        """
        ...

    def texts(self, name: str) -> dict[str, str] | None:
        """What the result of that name says of itself; None where there is none, or a broken one."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Writes a result as a whole: one that is there is complete.

        Raises:
            OSError: it cannot be written.
        """
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Files of this machine, or of a disk that it shares."""

    output: Path

    def open(self, photo: Path) -> Source:
        return Source.open(photo)

    def texts(self, name: str) -> dict[str, str] | None:
        file = self.output / name
        return texts_of(file) if file.is_file() else None

    def write(self, name: str, content: bytes) -> None:
        file = self.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}")
        partial.write_bytes(content)
        os.replace(partial, file)


def texts_of(picture: Path | BinaryIO) -> dict[str, str] | None:
    """What a picture says of itself; None of a broken one, which raises nearly anything."""
    try:
        return read_provenance(picture)
    except Exception:
        return None


@dataclass(frozen=True)
class Job:
    """What is made of every photo.

    Attributes:
        weights: fingerprint of the model (:func:`stargan.models.checkpoint.fingerprint`), which every file tells.
        with_grid: also ``grid-<number>.png`` of eight photos each.
        whole: the drawing is put back into the photo.
        overwrite: files that are there already are made again.
    """

    config: ModelConfig
    weights: str
    looks: Looks
    with_grid: bool = False
    whole: bool = False
    overwrite: bool = False

    def provenances(self, whole: bool = False) -> list[Provenance]:
        """One a look: what its files say of themselves."""
        styles, weights = self.looks.styles, {"weights": self.weights}
        plain = [styles.provenance(index, composite=whole) for index in range(len(styles))]
        return [replace(about, details=about.details | weights) for about in plain]


@dataclass(frozen=True)
class Group(Generic[P]):
    """Photos that are one process's work: those of a grid.

    Attributes:
        number: of the grid, from 0.
        photos: each with the name its results get.
    """

    number: int
    photos: Sequence[tuple[str, P]]


@dataclass(frozen=True)
class Row:
    """What became of a photo.

    Attributes:
        photo: the name its results have.
        source: the file.
        status: "drawn"; "there", where its files were; "no_face"; "unreadable"; "failed", where a file could not be read
            or written.
        sentence: why it was not drawn.
        faces: how many the photo shows, of which the biggest is drawn; None where none was looked for.
        seconds: that it took; where faces are looked for in several photos at once, the first has that time.
    """

    photo: str
    source: str
    status: str
    sentence: str = ""
    faces: int | None = None
    seconds: float = 0.0


@dataclass
class Tally:
    """How many photos were drawn, found done, and failed; a grid that could not be written is among the last."""

    drawn: int = 0
    done: int = 0
    failed: int = 0

    def add(self, status: str) -> None:
        """Counts a photo: see :class:`Row`."""
        self.drawn += status == "drawn"
        self.done += status == "there"
        self.failed += status not in ("drawn", "there")


def groups(photos: Mapping[str, P]) -> list[Group[P]]:
    """The photos by eight: those of a grid."""
    items = list(photos.items())
    return [
        Group(number, items[first : first + GRID_ROWS]) for number, first in enumerate(range(0, len(items), GRID_ROWS))
    ]


def translate_all(
    paint: Paint,
    job: Job,
    files: Files[P],
    share: Iterable[Group[P]],
    *,
    report: Callable[[str], None] = print,
    progress: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Draws every photo in every look: ``<photo>-<look>.png``, and ``grid-<number>.png``.

    Args:
        share: this process's part of :func:`groups`; together, processes write what one would.
        report: called with a sentence for every photo that fails; the others go on.
        progress: called with the number of photos dealt with.
    """
    tally = Tally()
    for group in share:
        try:
            for row in translate_group(paint, job, files, group):
                tally.add(row.status)
                if row.sentence:
                    report(f"{row.source}: {row.sentence}")
                progress(1)
        except OSError as error:  # noqa: PERF203 - of the grid, which comes last
            tally.failed += 1
            report(f"grid-{group.number + 1}.png: {error}")
    return tally


def translate_group(paint: Paint, job: Job, files: Files[P], group: Group[P]) -> Iterator[Row]:
    """Draws a group's photos, those of which a file is missing, and their grid: the one way for every process and machine.

    A row comes when its photo's files are written; the grid is written last.
    """
    looks = job.looks
    wanted = [_wanted(job, name) for name, _ in group.photos]
    missing = [
        {name for name, about in of.items() if job.overwrite or not _is_made(files, name, about)} for of in wanted
    ]
    sheet, about_sheet = f"grid-{group.number + 1}.png", _about_sheet(job, group)
    # a new drawing belongs on the grid
    draw_sheet = job.with_grid and (any(missing) or job.overwrite or not _is_made(files, sheet, about_sheet))
    strips: list[list[Image.Image | None]] = []
    # all of them, as in the first run: what else is in a batch may move a face by a rounding
    opened = _opened(files, job, [photo for _, photo in group.photos]) if any(missing) or draw_sheet else iter(())
    for (name, photo), of, new in zip(group.photos, wanted, missing, strict=True):
        begin, status, sentence = time.monotonic(), "drawn" if new else "there", ""
        source = next(opened, None)
        if source is None or (not new and not draw_sheet):
            yield Row(name, str(photo), status)
            continue
        faces_there: int | None = None
        try:
            if isinstance(source, Exception):
                raise source
            prepared = prepare(source, job.config)
            faces_there = len(source.faces) if job.config.framing is not None else None
            drawings = paint(Task(prepared.crops, looks.styles, passing=True), silent).rows[0]
            for (file, about), drawing in zip(of.items(), drawings, strict=True):
                if file in new:
                    files.write(file, png(_placed(prepared, drawing) if job.whole else drawing, about))
            strips.append([prepared.crops[0], *drawings])
        except NoFaceError as error:
            status, sentence, faces_there = "no_face", str(error), 0
        except PhotoError as error:
            status, sentence = "unreadable", str(error)
        except OSError as error:
            status, sentence = "failed", str(error)
        yield Row(name, str(photo), status, sentence, faces_there, time.monotonic() - begin)
    if strips and draw_sheet:
        # the references head the columns, beside an empty corner
        header: list[list[Image.Image | None]] = [[None, *looks.references]] if looks.references else []
        files.write(sheet, png(grid(header + strips), about_sheet))
    CACHE.clear()  # no photo comes twice: what is held of it would be memory for nothing, and in pieces


def _opened(files: Files[P], job: Job, photos: Sequence[P]) -> Iterator[Source | Exception]:
    """The photos in their order, or why one cannot be had; the faces of several are looked for at once."""
    waiting: list[Source | Exception] = []
    pixels = 0
    for photo in photos:
        try:
            source = files.open(photo)
            pixels += source.picture.width * source.picture.height
        except (PhotoError, OSError) as error:
            waiting.append(error)
        else:
            waiting.append(source)
        if pixels >= TOGETHER:
            yield from _searched(job, waiting)
            waiting, pixels = [], 0
    yield from _searched(job, waiting)


def _searched(job: Job, opened: list[Source | Exception]) -> list[Source | Exception]:
    if job.config.framing is not None:
        find_faces([source for source in opened if isinstance(source, Source)])
    return opened


def _placed(prepared: Prepared, drawing: Image.Image) -> Image.Image:
    return paste_head(prepared.source.picture, prepared.aligned[0], drawing)


def _wanted(job: Job, base: str) -> dict[str, Provenance]:
    """A photo's files, and what each says of itself."""
    return dict(zip((f"{base}-{name}.png" for name in job.looks.names), job.provenances(job.whole), strict=True))


def _about_sheet(job: Job, group: Group) -> Provenance:
    """What a grid says of itself: what its looks share, and a digest of what is on it."""
    provenances = job.provenances()
    first = provenances[0]
    content = [*(name for name, _ in group.photos), *job.looks.names, *map(str, provenances)]
    digest = hashlib.sha256("\n".join(content).encode(errors="surrogateescape")).hexdigest()[:16]
    shared = {name: value for name, value in first.details.items() if name != "reference"}
    # the faces as they were are on it, too
    return replace(first, seed=None, composite=True, details=shared | {"content": digest})


def _is_made(files: Files, name: str, about: Provenance) -> bool:
    """Whether the file is there and says of itself what ``about`` says."""
    return files.texts(name) == about.texts()
