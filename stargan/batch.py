"""Many photos, one after the other: what ``python -m stargan translate`` does.

Every file tells in its metadata what it was made with. A run that was stopped goes on where it was: files that are
there and say what this run would write are left alone. Processes that share the photos need not speak to each other.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from stargan.drawing import (
    Paint,
    Prepared,
    References,
    Seeds,
    Source,
    Styles,
    Task,
    checked_domain,
    prepare,
    prepare_reference,
    silent,
)
from stargan.errors import NoFaceError, PhotoError
from stargan.models.config import ModelConfig
from stargan.pictures.heads import paste_head
from stargan.pictures.io import SUFFIXES
from stargan.pictures.provenance import Provenance, read_provenance, save_picture
from stargan.pictures.tensors import grid

# Photos on one grid: more would not fit a screen.
GRID_ROWS = 8


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

    def provenances(self, whole: bool = False) -> list[Provenance]:
        return [self.styles.provenance(index, composite=whole) for index in range(len(self.styles))]


def latent_looks(paint: Paint, config: ModelConfig, domain: str | None, seeds: Sequence[int], psi: float) -> Looks:
    """Styles of seeds.

    Raises:
        stargan.errors.RequestError: the model has no such domain.
    """
    domain = checked_domain(config, domain)
    styles = paint(Task((), Seeds(domain, tuple(seeds), psi)), silent).styles
    return Looks([f"{domain}-seed{seed}" for seed in seeds], styles)


def reference_looks(
    paint: Paint, config: ModelConfig, domain: str | None, references: Iterable[Path], strength: float
) -> Looks:
    """Styles of pictures of ``domain``: files, or folders of them.

    Raises:
        stargan.errors.RequestError: the model has no such domain.
        ValueError: two pictures would give files of one name, or a picture, which is named, cannot be read.
    """
    domain = checked_domain(config, domain)
    files = find_photos(references)
    pictures, digests = [], []
    for path in files.values():
        try:
            source = Source.open(path)
            pictures.append(prepare_reference(source, config))
        except (PhotoError, OSError) as error:
            raise ValueError(f"{path}: {error}") from error
        digests.append(source.digest[:16])  # by content, as its name is the person's own matter
    recipe = References(domain, tuple(pictures), tuple(digests), None, strength)
    styles = paint(Task((), recipe), silent).styles
    return Looks([f"{domain}-like-{name.replace('/', '-')}" for name in files], styles, pictures)


def find_photos(places: Iterable[Path], output: Path | None = None) -> dict[str, Path]:
    """The pictures that files and folders (and their folders) name, each with the name its results get.

    A name is the path below the folder without the ending, or with it (``a_jpg``) where two differ in nothing else.

    Args:
        output: where results go; results that lie below a place are no photos.

    Raises:
        ValueError: a place does not exist, there are no pictures, or two would get one name.
    """
    found: dict[Path, Path] = {}  # resolved file → path below its place
    for place in places:
        if place.is_dir():
            files = sorted(file for file in place.rglob("*") if _is_photo(file, output))
        elif place.exists():
            files = [place]
        else:
            raise ValueError(f"There is no file or folder {place}.")
        for file in files:
            found.setdefault(file.resolve(), file.relative_to(place) if place.is_dir() else Path(file.name))
    if not found:
        raise ValueError(f"There are no pictures in {', '.join(str(place) for place in places)}.")
    plain = Counter(below.with_suffix("") for below in found.values())
    names: dict[str, Path] = {}
    for file, below in found.items():
        stem = below.with_suffix("")
        name = (stem if plain[stem] == 1 else below.with_name(below.name.replace(".", "_"))).as_posix()
        if name in names:
            raise ValueError(
                f"{names[name]} and {file} would both be written as {name}: translate them one after the other."
            )
        names[name] = file
    return names


def _is_photo(file: Path, output: Path | None) -> bool:
    hidden = file.name.startswith(".")
    made = output is not None and output.resolve() in file.resolve().parents
    return file.suffix.lower() in SUFFIXES and not hidden and not made and file.is_file()


@dataclass
class Tally:
    """How many photos were drawn, found done, and failed."""

    drawn: int = 0
    done: int = 0
    failed: int = 0


def share(photos: dict[str, Path], rank: int, processes: int, with_grid: bool) -> list[list[tuple[str, Path]]]:
    """This process's part of the photos, in groups: the photos of a grid are one process's, which makes it."""
    items, rows = list(photos.items()), GRID_ROWS if with_grid else 1
    return [items[i : i + rows] for i in range(0, len(items), rows)][rank::processes]


def translate_all(
    paint: Paint,
    config: ModelConfig,
    photos: dict[str, Path],
    looks: Looks,
    output: Path,
    *,
    with_grid: bool = False,
    whole: bool = False,
    overwrite: bool = False,
    rank: int = 0,
    processes: int = 1,
    report: Callable[[str], None] = print,
    progress: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Draws every photo in every look: ``<photo>-<look>.png``, and ``grid-<number>.png`` of eight photos each.

    Files are written under another name first, so one that is there is complete.

    Args:
        photos: see :func:`find_photos`.
        whole: the drawing is put back into the photo.
        overwrite: files that are there already are made again.
        rank, processes: this process's number and how many share the work; together they write what one would.
        report: called with a sentence for every photo that fails; the others go on.
        progress: called with the number of photos dealt with.
    """
    tally = Tally()
    for number, group in enumerate(share(photos, rank, processes, with_grid)):
        wanted = [_wanted(looks, output / name, whole) for name, _ in group]
        missing = [
            {file for file, about in files.items() if overwrite or not _is_made(file, about)} for files in wanted
        ]
        sheet, about_sheet = output / f"grid-{number * processes + rank + 1}.png", _about_sheet(looks, group)
        # a new drawing belongs on the grid
        draw_sheet = with_grid and (any(missing) or overwrite or not _is_made(sheet, about_sheet))
        strips: list[list[Image.Image | None]] = []
        for (_, path), files, new in zip(group, wanted, missing, strict=True):
            if new or draw_sheet:
                try:
                    prepared, drawings = _drawn(paint, config, path, looks)
                    for (file, about), drawing in zip(files.items(), drawings, strict=True):
                        if file in new:
                            _save(_placed(prepared, drawing) if whole else drawing, file, about)
                    strips.append([prepared.crops[0], *drawings])
                except (PhotoError, NoFaceError, OSError) as error:
                    tally.failed += 1
                    report(f"{path}: {error}")
                    continue
                finally:
                    progress(1)
            else:
                progress(1)
            tally.drawn += bool(new)
            tally.done += not new
        if strips and draw_sheet:
            # the references head the columns, beside an empty corner
            header: list[list[Image.Image | None]] = [[None, *looks.references]] if looks.references else []
            _save(grid(header + strips), sheet, about_sheet)
    return tally


def _drawn(paint: Paint, config: ModelConfig, path: Path, looks: Looks) -> tuple[Prepared, tuple[Image.Image, ...]]:
    """A photo's biggest face, and its drawing in each look."""
    prepared = prepare(Source.open(path), config)
    return prepared, paint(Task(prepared.crops, looks.styles, passing=True), silent).rows[0]


def _placed(prepared: Prepared, drawing: Image.Image) -> Image.Image:
    return paste_head(prepared.source.picture, prepared.aligned[0], drawing)


def _wanted(looks: Looks, base: Path, whole: bool) -> dict[Path, Provenance]:
    """A photo's files, and what each says of itself."""
    files = [base.with_name(f"{base.name}-{name}.png") for name in looks.names]
    return dict(zip(files, looks.provenances(whole), strict=True))


def _about_sheet(looks: Looks, group: Sequence[tuple[str, Path]]) -> Provenance:
    """What a grid says of itself: what its looks share, and a digest of what is on it."""
    provenances = looks.provenances()
    first = provenances[0]
    content = [*(name for name, _ in group), *looks.names, *map(str, provenances)]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:16]
    shared = {name: value for name, value in first.details.items() if name != "reference"}
    return replace(first, seed=None, details=shared | {"content": digest})


def _is_made(file: Path, about: Provenance) -> bool:
    """Whether the file is there and says of itself what ``about`` says."""
    try:
        return file.is_file() and read_provenance(file) == about.texts()
    except Exception:  # a broken file raises nearly anything; it is made again
        return False


def _save(picture: Image.Image, file: Path, about: Provenance) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}")
    save_picture(picture, partial, about)
    os.replace(partial, file)
