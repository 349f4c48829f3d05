"""Photos to training faces: every face found, aligned and cropped into a model's framing.

Drawn faces, which the detector mostly misses, take a fixed crop given in fractions, or the middle square.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from stargan.batch import find_photos
from stargan.models.config import Points
from stargan.pictures.faces import Aligned, align, centre_crop, crop, find
from stargan.pictures.io import PhotoError, open_photo
from stargan.training.data import DataError

log = logging.getLogger(__name__)

REPORT = "report.json"
NO_FACE, SMALL, PRESENT = "no face was found", "the face is too small", "is already there"


@dataclass(frozen=True)
class Job:
    """How faces are cut out.

    Attributes:
        size: side of the crops, in px.
        framing: where a face's landmarks come to lie, in fractions of the side; None: the middle square of the picture.
        crop: left, top, right, bottom in fractions of width and height; instead of looking for faces.
        smallest: side in px of the photo that a crop must have been taken from, at least.
        overwrite: make faces again that are there already.
    """

    size: int
    framing: Points | None
    crop: tuple[float, float, float, float] | None = None
    smallest: int = 0
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise DataError(f"A crop is left,top,right,bottom in fractions from 0 to 1, not {self.crop}.")


@dataclass
class Report:
    """What became of every photo.

    Attributes:
        photos: how many there were.
        written: the faces, by the photo that they are from.
        left_out: reasons, by photo; a photo with several faces may be in both.
    """

    photos: int = 0
    written: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        faces = sum(map(len, self.written.values()))
        reasons = Counter(reason.split(":")[0] for reasons in self.left_out.values() for reason in reasons)
        lines = [f"{self.photos} photos: {faces} faces of {len(self.written)} photos were written."]
        return "\n".join(lines + [f"Left out: {count}, {reason}." for reason, count in reasons.most_common()])


def parse_crop(text: str) -> tuple[float, float, float, float]:
    """``0.1,0,0.9,0.8`` → left, top, right, bottom.

    Raises:
        DataError: it is not four numbers.
    """
    try:
        left, top, right, bottom = (float(part) for part in text.split(","))
    except ValueError:
        raise DataError(f"A crop is four fractions left,top,right,bottom, not {text!r}.") from None
    return left, top, right, bottom


def prepare(photos: Path, faces: Path, job: Job, processes: int | None = None) -> Report:
    """Writes the faces of a folder's pictures (and its folders') as PNG, and ``report.json``, which still says what earlier calls did.

    The folders below ``photos``, such as domains, are kept; several faces of one photo are numbered, biggest first.

    Args:
        processes: that share the photos; None: one a core.

    Raises:
        ValueError: there are no pictures in ``photos``.
        ChildProcessError: one of the processes was ended; what is done stays.
    """
    named, folder = find_photos([photos], faces), photos.resolve()
    report = Report(len(named))
    faces.mkdir(parents=True, exist_ok=True)
    chosen = processes or os.cpu_count() or 1
    tasks = [(file, faces / _base(name, file, named), job) for name, file in named.items()]
    with tqdm(total=len(tasks), unit="photo") as bar:
        for file, (written, left_out) in zip(named.values(), _results(tasks, min(chosen, len(tasks))), strict=True):
            # a link may lead out of the folder
            name = (file.relative_to(folder) if file.is_relative_to(folder) else file).as_posix()
            if written:
                report.written[name] = [path.relative_to(faces).as_posix() for path in written]
            if left_out:
                report.left_out[name] = left_out
            bar.update()
    all_written, all_left_out = _with_earlier(report, faces / REPORT)
    told = {"options": asdict(job), "photos": report.photos, "written": all_written, "left_out": all_left_out}
    text = json.dumps(told, indent=2, ensure_ascii=False)
    # names of files may be no text
    (faces / REPORT).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return report


def _with_earlier(report: Report, file: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What was written and left out, and what an earlier report says of photos that were not looked at this time."""
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
        parts = [dict(earlier["written"]), dict(earlier["left_out"])]
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or no such
        parts = [{}, {}]
    seen = {name for name, reasons in report.left_out.items() if reasons != [PRESENT]} | report.written.keys()
    written, left_out = ({name: what for name, what in part.items() if name not in seen} for part in parts)
    news = {
        name: reasons
        for name, reasons in report.left_out.items()
        if name in seen or name not in left_out.keys() | written.keys()
    }
    return written | report.written, left_out | news


def _results(tasks: Sequence[tuple[Path, Path, Job]], processes: int) -> Iterator[tuple[list[Path], list[str]]]:
    if processes == 1:
        yield from map(_faces_of, tasks)
        return
    # processes, not threads: the detector is Python code for the most part. Spawned, as torch's threads do not survive a fork
    try:
        with ProcessPoolExecutor(processes, get_context("spawn"), _take_one_core) as pool:
            yield from pool.map(_faces_of, tasks)
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "A process that cut faces out was ended, as for want of memory: go on with fewer --processes."
        ) from error


def _take_one_core() -> None:
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # so many detectors would not fit into a GPU's memory


def _faces_of(task: tuple[Path, Path, Job]) -> tuple[list[Path], list[str]]:
    """Writes the faces of one photo: the files, and the reasons for what was left out."""
    photo, base, job = task
    if not job.overwrite and any(_faces_there(base)):
        return [], [PRESENT]
    try:
        picture = open_photo(photo)
    except PhotoError as error:
        return [], [f"the picture cannot be used: {error}"]
    found = list(_crops(picture, job))
    kept = [aligned for aligned in found if _side(aligned, job.size) >= job.smallest]
    reasons = [f"{SMALL}: {_side(a, job.size):.0f} px" for a in found if _side(a, job.size) < job.smallest]
    if kept:
        base.parent.mkdir(parents=True, exist_ok=True)
    written = [_face_file(base, index + (len(kept) > 1)) for index in range(len(kept))]
    for earlier in _faces_there(base):  # where they are made again, it may be of fewer
        if earlier not in written:
            earlier.unlink()
    # The first comes last, and under another name first: a photo whose first face is there is complete.
    for aligned, path in reversed(list(zip(kept, written, strict=True))):
        partial = path.with_name(f".{path.name}.partial")
        aligned.picture.save(partial, "PNG")
        partial.replace(path)
    return written, reasons or ([] if found else [NO_FACE])


def _base(name: str, photo: Path, names: Mapping[str, Path]) -> str:
    """What a photo's faces are named by: a photo ``a-1`` beside a photo ``a`` must not look like the first face of that."""
    numbered = re.fullmatch(r"(.+)-\d+", name)
    return f"{name}_{photo.suffix[1:]}" if numbered and numbered[1] in names else name


def _face_file(base: Path, number: int) -> Path:
    """Of a photo's only face, number 0, or of one of several, counted from 1."""
    return base.with_name(f"{base.name}-{number}.png" if number else f"{base.name}.png")


def _faces_there(base: Path) -> Iterator[Path]:
    """A photo's faces that are there already."""
    if (only := _face_file(base, 0)).exists():
        yield only
    yield from takewhile(Path.exists, (_face_file(base, number) for number in count(1)))


def _crops(picture: Image.Image, job: Job) -> Iterator[Aligned]:
    if job.crop is not None:
        left, top, right, bottom = np.array(job.crop) * [*picture.size, *picture.size]
        side = min(right - left, bottom - top)
        middle = (left + right - side) / 2, (top + bottom - side) / 2
        yield crop(picture, (*middle, middle[0] + side, middle[1] + side), job.size)
    elif job.framing is None:
        yield centre_crop(picture, job.size)
    else:
        for face in find(picture):
            yield align(picture, face.landmarks, job.framing, job.size)


def _side(aligned: Aligned, size: int) -> float:
    """Of the square of the photo that the crop was taken from, in px."""
    return size / math.hypot(*aligned.matrix[:, 0])
