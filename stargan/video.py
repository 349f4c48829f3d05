"""Videos: walks through styles, and short clips with the drawn face in every frame.

Frames reach ffmpeg as they are made and come from it as they are needed, so memory does not grow with a video's length.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stargan.inference.translator import BATCH, Encoded, NoFaceError, Translator
from stargan.pictures import faces
from stargan.pictures.provenance import Provenance

# It warns of every scaled frame size, which here is meant.
logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)

# Players blur small videos when they fill the screen; a drawing's side is brought to about this, by an integer factor.
SHOWN_SIDE = {".mp4": 512, ".gif": 256}
# The shortest delay that browsers honour in a GIF is 2/100 s.
GIF_MAX_FPS = 50

MAX_CLIP_SECONDS = 20
# A clip is brought to these: beyond them it takes longer, and the drawn face does not get better.
MAX_CLIP_SIDE = 1280
MAX_CLIP_FPS = 30
# What may be read as a clip. ffmpeg also knows playlists and scripts, which make it open other files and addresses.
READ_ONLY = ["-protocol_whitelist", "file", "-format_whitelist", "mov,matroska,webm,avi,gif,mpeg,mpegts,ogg,flv,asf"]
# Audio that an MP4 can carry as it is and that browsers play there.
COPIED_AUDIO = ("aac", "mp3", "opus")

# A face is looked for in every so manieth frame: at 30 frames a second a head moves little in between.
DETECT_EVERY = 3
# A face that is not seen for longer is lost: its drawing goes, and another face may take its place.
LOST_AFTER = 0.5
# Standard deviation, in seconds, of the smoothing over time: the detector's landmarks tremble by 1 to 2 % of the face.
SMOOTHING = 0.08

Progress = Callable[[int, int], None]


class VideoError(ValueError):
    """A video that cannot be read, used or written; the message is a sentence for the user."""


# walks


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


def walk(
    translator: Translator,
    encoded: Encoded,
    styles: Tensor,
    path: str | Path,
    *,
    seconds: float = 4.0,
    fps: float = 25.0,
    loop: bool = False,
    domain: str | None = None,
    note: str = "",
    composite: bool = False,
    finish: Callable[[Image.Image], Image.Image] | None = None,
    progress: Progress | None = None,
) -> Path:
    """A video of one picture, going from style to style.

    Args:
        styles: ``(N, style_dim)``, at least two.
        path: an .mp4 or .gif file; replaced as a whole, when the video is complete.
        domain: see :meth:`stargan.inference.translator.Translator.decode`.
        note: what made the styles (domain, seeds), for the video's metadata.
        composite: the metadata say that drawings were put into a photo, which ``finish`` does.
        finish: done to every frame, such as pasting it back into the photo.
        progress: called with the frames made and all there will be.

    Raises:
        ValueError: see :func:`interpolate`; or seconds or fps out of range.
        VideoError: another file format; or the file could not be written.
    """
    if not 0 < seconds <= 600:
        raise ValueError(f"A video takes more than 0 and at most 600 seconds, not {seconds:g}.")
    path, fps = Path(path), _checked_rate(Path(path), fps)
    way = interpolate(styles, max(1, round(seconds * fps)), loop)

    def frames() -> Iterator[Image.Image]:
        done = 0
        for part in way.split(BATCH.get(translator.device.type, 8)):
            for picture in translator.decode(encoded, part, domain):
                yield finish(picture) if finish else picture
                done += 1
                if progress:
                    progress(done, len(way))

    return _write(frames(), path, fps, _provenance(translator, note, composite))


# clips


@dataclass(frozen=True)
class Clip:
    """A video file to read from.

    Attributes:
        size: width and height of the frames as :meth:`frames` gives them, in px.
        fps: frames a second, as :meth:`frames` gives them.
        seconds: as the file says; 0 where it does not, as in a browser's recordings.
        audio: codec of its sound, None without.
    """

    path: Path
    size: tuple[int, int]
    fps: float
    seconds: float
    audio: str | None

    def frames(self) -> Iterator[Image.Image]:
        """All frames, upright, at a constant rate."""
        # from the file's beginning, where the sound starts
        steady = f"fps={self.fps}:start_time=0,scale={self.size[0]}:{self.size[1]}:flags=area"
        reader = imageio_ffmpeg.read_frames(
            self.path.resolve(), input_params=READ_ONLY, output_params=["-vf", steady, "-an"]
        )
        try:
            next(reader)
            for data in reader:
                yield Image.frombytes("RGB", self.size, data)
        except (OSError, RuntimeError) as error:
            raise VideoError(f"{self.path.name} is broken.") from error


def open_clip(path: str | Path, max_seconds: float = MAX_CLIP_SECONDS) -> Clip:
    """Reads what a video file says of itself.

    Raises:
        VideoError: not a video, or longer than ``max_seconds``.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError(f"There is no video {path}.")
    try:
        reader = imageio_ffmpeg.read_frames(path.resolve(), input_params=READ_ONLY)
        about = next(reader)
        first = next(reader, None)
        reader.close()
    except (
        OSError,
        RuntimeError,
        IndexError,
        AttributeError,
        ValueError,
    ) as error:  # its parser fails in all of these ways
        raise VideoError(f"{path.name} is not a video that can be read.") from error
    if first is None:
        raise VideoError(f"{path.name} has no picture in it.")
    if about["duration"] > max_seconds + 0.5:
        raise VideoError(f"{path.name} is {about['duration']:.0f} seconds long; at most {max_seconds:g} are possible.")
    width, height = about["size"]
    scale = min(1.0, MAX_CLIP_SIDE / max(width, height))
    # H.264 in its usual form needs even sides
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    fps = min(about["fps"] or MAX_CLIP_FPS, MAX_CLIP_FPS)
    return Clip(path, size, fps, about["duration"], about.get("audio_codec"))


def translate_clip(
    translator: Translator,
    source: str | Path,
    style: Tensor,
    path: str | Path,
    *,
    whole: bool = True,
    max_seconds: float = MAX_CLIP_SECONDS,
    domain: str | None = None,
    note: str = "",
    progress: Progress | None = None,
) -> Path:
    """A short clip with its main face drawn in every frame, in one style; its sound is kept.

    The clip is read twice: once to follow the face, so that its path can be smoothed both ways in time, without lag;
    once to draw it. Where the face is lost for more than a moment, the frames stay as they are.

    Args:
        style: ``(style_dim,)``.
        path: an .mp4 or .gif file (the latter without sound); replaced as a whole, when the video is complete.
        whole: the drawing is pasted back into the frames; otherwise the video shows the drawing alone.
        domain: see :meth:`stargan.inference.translator.Translator.decode`.
        note: what made the style, for the video's metadata.
        progress: called with the steps done and all there will be: in each frame, the face is found, then drawn.

    Raises:
        VideoError: not a video, or longer than ``max_seconds``; another format is asked for, or could not be written.
        NoFaceError: no frame shows a face.
    """
    path, clip = Path(path), open_clip(source, max_seconds)
    fps = _checked_rate(path, clip.fps)
    framing = translator.config.framing
    expected = round((clip.seconds or max_seconds) * clip.fps)

    found: dict[int, list[faces.Face]] = {}
    count = 0
    for frame in clip.frames():
        if framing is not None and count % DETECT_EVERY == 0:
            found[count] = faces.find(frame)
        count += 1
        if count > (max_seconds + 0.5) * clip.fps:
            raise VideoError(f"{clip.path.name} is longer than {max_seconds:g} seconds, the most that is possible.")
        if progress:
            progress(count, 2 * max(count, expected))
    if framing is not None and not any(found.values()):
        raise NoFaceError(f"No face was found in {clip.path.name}.")
    track = follow(found, count, clip.fps) if framing is not None else None

    def drawn() -> Iterator[Image.Image]:
        for index, frame in enumerate(clip.frames()):
            if whole and track and not track.seen[index]:
                yield frame
            else:
                if track:
                    aligned = faces.align(frame, track.landmarks[index], framing, translator.image_size)
                else:
                    aligned = faces.centre_crop(frame, translator.image_size)
                (picture,) = translator.decode(translator.encode(aligned.picture), style[None], domain)
                yield faces.paste_back(frame, aligned, picture) if whole else picture
            if progress:
                progress(count + index + 1, 2 * count)

    return _write(drawn(), path, fps, _provenance(translator, note, whole), clip)


@dataclass(frozen=True)
class Track:
    """A face through a clip.

    Attributes:
        landmarks: ``(frames, 5, 2)`` in px; where the face is not seen, those of the nearest frame where it is.
        seen: ``(frames,)`` bool.
    """

    landmarks: np.ndarray
    seen: np.ndarray


def follow(found: dict[int, Sequence[faces.Face]], frames: int, fps: float) -> Track:
    """Follows the biggest face of a clip, from the faces found in some of its frames (by frame, in their order).

    From one frame to the next it takes the face nearest to where the face was; the biggest, when it has been lost.

    Raises:
        ValueError: no frame shows a face.
    """
    runs: list[list[tuple[int, np.ndarray]]] = []
    for index, seen in found.items():
        present = bool(runs) and index - runs[-1][-1][0] <= LOST_AFTER * fps
        if present and seen:
            last = runs[-1][-1][1]
            shifts = [float(np.linalg.norm(np.asarray(face.landmarks) - last, axis=1).mean()) for face in seen]
            nearest = int(np.argmin(shifts))
            # further than from the eyes to the mouth, it is another face
            if shifts[nearest] < np.linalg.norm(last[3:].mean(axis=0) - last[:2].mean(axis=0)):
                runs[-1].append((index, np.asarray(seen[nearest].landmarks, dtype=float)))
        elif seen:
            runs.append([(index, np.asarray(seen[0].landmarks, dtype=float))])
    if not runs:
        raise ValueError("No frame shows a face.")

    step = DETECT_EVERY - 1  # a face is also there in the frames around, where it was not looked for
    known, points = [], []
    for run in runs:
        at, where = np.array([i for i, _ in run]), np.array([w for _, w in run]).reshape(len(run), 10)
        begin = max(at[0] - step, known[-1][-1] + 1 if known else 0)
        span = np.arange(begin, min(at[-1] + step, frames - 1) + 1)
        dense = np.stack([np.interp(span, at, column) for column in where.T], axis=1)
        known.append(span)
        points.append(_smooth(dense, SMOOTHING * fps))
    at, where = np.concatenate(known), np.concatenate(points)
    landmarks = np.stack([np.interp(np.arange(frames), at, column) for column in where.T], axis=1)
    seen = np.zeros(frames, dtype=bool)
    seen[at] = True
    return Track(landmarks.reshape(frames, 5, 2), seen)


def _smooth(signal: np.ndarray, deviation: float) -> np.ndarray:
    """Gaussian smoothing over the first axis; ends are mirrored through their points: steady motion stays."""
    reach = math.ceil(3 * deviation)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    if len(signal) == 1:
        return signal
    padded = np.pad(signal, ((reach, reach), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(column, weights / weights.sum(), mode="valid") for column in padded.T], axis=1)


# files


def _checked_rate(path: Path, fps: float) -> float:
    if path.suffix.lower() not in SHOWN_SIDE:
        raise VideoError(f"A video is written as .mp4 or .gif, not as {path.name}.")
    if not 1 <= fps <= 120:
        raise ValueError(f"A video has 1 to 120 frames a second, not {fps:g}.")
    return min(fps, GIF_MAX_FPS) if path.suffix.lower() == ".gif" else fps


def _provenance(translator: Translator, note: str, composite: bool) -> Provenance:
    return Provenance(translator.name, None, {"styles": note} if note else {}, composite)


def _write(
    frames: Iterator[Image.Image], path: Path, fps: float, provenance: Provenance, clip: Clip | None = None
) -> Path:
    """Encodes frames of one size; ``clip`` gives the sound."""
    comment = "Synthetic video. " + "; ".join(f"{name}: {value}" for name, value in provenance.texts().items())
    gif = path.suffix.lower() == ".gif"
    first = next(frames)
    shown = SHOWN_SIDE[path.suffix.lower()]
    times = 1 if provenance.composite else max(1, round(shown / max(first.size)))  # a photo keeps its size
    scaling = f"scale=iw*{times}:ih*{times}:flags=lanczos+accurate_rnd"
    sound = clip.audio if clip and not gif else None
    if gif:
        # a palette for each frame: one for all would need them all at once
        palettes = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=bayer:bayer_scale=4"
        filters = f"{scaling},{palettes}"
        encoding = {"codec": "gif", "pix_fmt_out": "pal8", "quality": None}
        options = ["-vf", filters]
    else:
        # Untagged, players guess the matrix by the size and get the colours wrong for some.
        colours = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
        # H.264 in the form that all players know needs even sides
        filters = f"{scaling}:out_color_matrix=bt709:out_range=tv,crop=trunc(iw/2)*2:trunc(ih/2)*2,{colours}"
        encoding = {"quality": 6, "audio_codec": "copy" if sound in COPIED_AUDIO else "aac"}
        # the clip's own metadata may hold place and camera
        hidden = ["-map_metadata", "-1", "-map_chapters", "-1"]
        options = ["-vf", filters, *hidden, "-metadata", f"comment={comment}", "-movflags", "+faststart"]

    if sound:
        encoding["audio_path"] = str(clip.path.resolve())
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _encode(chain([first], frames), partial, first.size, fps=fps, output_params=options, **encoding)
        if gif:
            _add_gif_comment(partial, comment)
        os.replace(partial, path)
    except OSError as error:
        # the message of a broken pipe to ffmpeg is its whole command
        reason = error.strerror or str(error).splitlines()[0]
        raise VideoError(f"{path} could not be written: {reason}.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _encode(frames: Iterable[Image.Image], path: Path, size: tuple[int, int], **encoding: Any) -> None:
    writer = imageio_ffmpeg.write_frames(path.resolve(), size, macro_block_size=1, ffmpeg_log_level="error", **encoding)
    writer.send(None)
    sent = 0
    with closing(writer):
        for picture in frames:
            writer.send(picture.tobytes())
            sent += 1
    # ffmpeg's exit status is not to be had: what it wrote is counted
    try:
        written, _ = imageio_ffmpeg.count_frames_and_secs(path.resolve())
    except RuntimeError:
        written = 0
    if written != sent:
        raise OSError(f"ffmpeg kept {written} of {sent} frames")


def _add_gif_comment(path: Path, comment: str) -> None:
    """Puts a comment extension (GIF89a, 24) behind the header; ffmpeg writes none."""
    text = comment.encode("ascii", "replace")
    blocks = [text[i : i + 255] for i in range(0, len(text), 255)]
    extension = b"\x21\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\x00"
    commented = path.with_name(path.name + "+")
    try:
        with path.open("rb") as source, commented.open("wb") as target:
            header = source.read(13)
            table = 3 << ((header[10] & 7) + 1) if header[10] & 0x80 else 0
            target.write(header + source.read(table) + extension)
            shutil.copyfileobj(source, target)
        os.replace(commented, path)
    finally:
        commented.unlink(missing_ok=True)
