"""Videos: drawings one after another, and short clips with the drawn face in every frame.

Frames are decoded as they are needed and encoded as they are made, so memory does not grow with a video's length. What is
drawn comes from a plain function of crops: models and styles are not known here.
"""

from __future__ import annotations

import math
import os
import shutil
import struct
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.sidedata.sidedata import SideData
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from stargan.errors import NoFaceError, VideoError
from stargan.pictures import faces
from stargan.pictures.provenance import Provenance
from stargan.stages import stage

if TYPE_CHECKING:
    from stargan.models.config import Points

# What counts as a video by its name; a .gif is a picture here, as it is for everything else that takes photos.
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".ogv", ".flv"}
    | {".wmv", ".asf"}
)

# Players blur small videos when they fill the screen; a drawing's side is brought to about this, by an integer factor.
SHOWN_SIDE = {".mp4": 512, ".gif": 256}
# The shortest delay that browsers honour in a GIF is 2/100 s.
GIF_MAX_FPS = 50
MAX_SECONDS = 600

MAX_CLIP_SECONDS = 20
# A clip is brought to these: beyond them it takes longer, and the drawn face does not get better.
MAX_CLIP_SIDE = 1280
MAX_CLIP_FPS = 30
# A clip of fewer frames a second repeats them: the face is drawn again for little, and every player shows the result.
MIN_CLIP_FPS = 1
# A frame of more pixels is not decoded, here or while ffmpeg's libraries look at the file; 8K has 33 million.
MAX_PIXELS = 50_000_000
# Nor is a clip of more pixels in all. 20 seconds of 8K at 30 frames a second are 20 thousand million, and take minutes.
MAX_CLIP_PIXELS = 30_000_000_000
# What the smallest packet counts as, in pixels.
PACKET_PIXELS = 100_000
# Nor is an MP4 opened whose tables claim more samples: 20 seconds of uncompressed sound in two tracks have 4 million.
MAX_SAMPLES = 5_000_000
# Nor one in more pieces: recorders begin a new one every second or so.
MAX_BOXES = 10_000
# What may be read as a clip. There are playlists and scripts, which make the reader open other files and addresses.
READ_ONLY = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,webm,avi,gif,mpeg,mpegts,ogg,flv,asf",
    "max_streams": "32",
    "max_pixels": str(MAX_PIXELS),
}
# Audio that an MP4 can carry as it is and that browsers play there.
COPIED_AUDIO = ("aac", "mp3", "opus")
AUDIO_RATE = 48_000
# How a reader of hostile files fails; av.FFmpegError is its own, the others come from values it cannot represent.
_UNREADABLE = (av.FFmpegError, OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError)

# So often a second a face is looked for, where there are so many frames: a head moves little in between.
DETECTIONS = 10
# A face that is not seen for longer is lost: its drawing goes, and another face may take its place.
LOST_AFTER = 0.5
# Standard deviation, in seconds, of the smoothing over time: the detector's landmarks tremble by 1 to 2 % of the face.
SMOOTHING = 0.08
# Frames whose faces are drawn in one call.
CHUNK = 16

# Square RGB crops → a drawing of each.
Draw = Callable[[Sequence[Image.Image]], list[Image.Image]]
# Told the steps done and all there will be.
Progress = Callable[[int, int], None]


def is_video(path: str | Path) -> bool:
    """Whether a file is a video, going by its name."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


# clips


@dataclass(frozen=True)
class Clip:
    """A video file to read from.

    Attributes:
        size: width and height of the frames as :meth:`frames` gives them, in px.
        fps: frames a second, as :meth:`frames` gives them.
        seconds: as the file says; 0 where it does not, as in a browser's recordings.
        count: frames in the file, as it says; None where it does not.
        audio: codec of its sound, None without.
        turn: what puts its pictures upright.
    """

    path: Path
    size: tuple[int, int]
    fps: Fraction
    seconds: float
    count: int | None
    audio: str | None
    turn: Image.Transpose | None = None

    def frames(self) -> Iterator[Image.Image]:
        """All frames, upright RGB, at a constant rate from the file's beginning, where the sound starts.

        Raises:
            VideoError: the file is broken from some frame on, or takes too long to read.
        """
        width, height = self.size[::-1] if self.turn in _QUARTER_TURNS.values() else self.size
        scaler = VideoReformatter()
        shown: av.VideoFrame | None = None
        with _reading(self.path, "clip_broken") as container:
            for frame in _steady(_decoded(container, self.path), self.fps, _start(container, self.fps)):
                if frame is not shown:
                    shown = frame
                    picture = scaler.reformat(
                        frame, width, height, "rgb24", _matrix(frame), interpolation=Interpolation.AREA
                    ).to_image()
                    if self.turn is not None:
                        picture = picture.transpose(self.turn)
                yield picture


def open_clip(path: str | Path, max_seconds: float = MAX_CLIP_SECONDS) -> Clip:
    """Reads what a video file says of itself, and its first frame.

    Raises:
        VideoError: not a video, longer than ``max_seconds``, or of too many pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise VideoError("clip_gone", file=path.name)
    with _reading(path, "clip_kind") as container:
        stream = _video_stream(container, path)
        count = stream.frames if stream.frames > 0 else None
        pixels = stream.codec_context.width * stream.codec_context.height
        if pixels > MAX_PIXELS or (count or 0) * pixels > MAX_CLIP_PIXELS:
            raise VideoError("clip_heavy", file=path.name)
        seconds = max(0.0, (container.duration or 0) / av.time_base)
        if seconds > max_seconds + 0.5:
            raise VideoError("clip_long", file=path.name, seconds=f"{seconds:.0f}", limit=f"{max_seconds:g}")
        rate = Fraction(stream.average_rate or stream.guessed_rate or MAX_CLIP_FPS)
        sound = container.streams.best("audio")
        audio = sound.codec_context.codec.canonical_name if sound and sound.codec_context else None
        first = next(_decoded(container, path), None)
        if first is None:
            raise VideoError("clip_empty", file=path.name)
        turn = _turn(first)
        shown = (round(first.width * _pixel_aspect(stream)), first.height)
        size = shown[::-1] if turn in _QUARTER_TURNS.values() else shown
    scale = min(1.0, MAX_CLIP_SIDE / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    fps = min(max(rate, Fraction(MIN_CLIP_FPS)), Fraction(MAX_CLIP_FPS))
    return Clip(path, (width, height), fps, seconds, count, audio, turn)


_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED


def _matrix(frame: av.VideoFrame) -> Colorspace | None:
    """By which its colours are decoded: as the file says, or, where it says nothing, as players do."""
    if frame.colorspace != _UNTAGGED:
        return None
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height >= 720 else Colorspace.ITU601


def _pixel_aspect(stream: av.VideoStream) -> Fraction:
    """How much wider than high a pixel is shown: camcorders and broadcasts have others than square ones."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)


def translate_clip(
    draw: Draw,
    framing: Points | None,
    size: int,
    source: str | Path,
    path: str | Path,
    *,
    whole: bool = True,
    max_seconds: float = MAX_CLIP_SECONDS,
    provenance: Provenance,
    progress: Progress | None = None,
) -> Path:
    """A short clip with its main face drawn in every frame; its sound is kept.

    The clip is read twice: once to follow the face, so that its path can be smoothed both ways in time, without lag;
    once to draw it. Where the face is lost for more than a moment, the frames stay as they are.

    Args:
        draw: called with the crops of up to 16 frames at a time.
        framing: where the crops show the landmarks, in fractions of their side; None takes the middle of the frames.
        size: side of the crops, px.
        path: an .mp4 or .gif file (the latter without sound); replaced as a whole, when the video is complete.
        whole: the drawing is pasted back into the frames; otherwise the video shows the drawing alone.
        provenance: of the drawings; whether they are put into the frames is added.
        progress: called with the steps done and all there will be: in each frame, the face is found, then drawn.

    Raises:
        VideoError: not a video, or longer than ``max_seconds``; another format is asked for, or could not be written.
        NoFaceError: no frame shows a face.
    """
    path, clip = Path(path), open_clip(source, max_seconds)
    checked_rate(path, clip.fps)
    expected = round((clip.seconds or max_seconds) * clip.fps)

    found: dict[int, list[faces.Face]] = {}
    waiting: dict[int, Image.Image] = {}
    count = 0
    for frame in clip.frames():
        if framing is not None and count % stride(clip.fps) == 0:
            waiting[count] = frame
        count += 1
        if count > (max_seconds + 0.5) * clip.fps:
            raise VideoError("clip_longer", file=clip.path.name, limit=f"{max_seconds:g}")
        if len(waiting) == CHUNK:
            found.update(zip(waiting, faces.find_all(list(waiting.values())), strict=True))
            waiting = {}
        if progress:
            progress(count, 2 * max(count, expected))
    found.update(zip(waiting, faces.find_all(list(waiting.values())), strict=True))
    if framing is not None and not any(found.values()):
        raise NoFaceError("clip_no_face", file=clip.path.name)
    track = follow(found, count, float(clip.fps)) if framing is not None else None

    def align(index: int, frame: Image.Image) -> faces.Aligned | None:
        if framing is None or track is None:
            return faces.centre_crop(frame, size)
        if whole and not track.seen[index]:
            return None
        return faces.align(frame, track.landmarks[index], framing, size)

    def drawn() -> Iterator[Image.Image]:
        frames = zip(range(count), clip.frames(), strict=False)
        while chunk := list(islice(frames, CHUNK)):
            crops = [align(index, frame) for index, frame in chunk]
            seen = [crop.picture for crop in crops if crop]
            pictures = iter(draw(seen) if seen else [])
            for (index, frame), crop in zip(chunk, crops, strict=True):
                picture = next(pictures) if crop else frame
                yield faces.paste_back(frame, crop, picture) if whole and crop else picture
                if progress:
                    progress(count + index + 1, 2 * count)

    return write_video(drawn(), path, clip.fps, replace(provenance, composite=whole), clip)


@dataclass(frozen=True)
class Track:
    """A face through a clip.

    Attributes:
        landmarks: ``(frames, 5, 2)`` in px; where the face is not seen, those of the nearest frame where it is.
        seen: ``(frames,)`` bool.
    """

    landmarks: np.ndarray
    seen: np.ndarray


def stride(fps: float | Fraction) -> int:
    """A face is looked for in every so manieth frame."""
    return max(1, math.ceil(fps / DETECTIONS))


def follow(found: Mapping[int, Sequence[faces.Face]], frames: int, fps: float) -> Track:
    """Follows the biggest face of a clip, from the faces found in some of its frames (by frame, in their order).

    From one frame to the next it takes the face nearest to where the face was; the biggest, when it has been lost.

    Raises:
        ValueError: no frame shows a face.
    """
    runs: list[list[tuple[int, np.ndarray]]] = []
    for index, there in found.items():
        present = bool(runs) and index - runs[-1][-1][0] <= max(LOST_AFTER * fps, stride(fps))
        if present and there:
            last = runs[-1][-1][1]
            shifts = [float(np.linalg.norm(np.asarray(face.landmarks) - last, axis=1).mean()) for face in there]
            nearest = int(np.argmin(shifts))
            # further than from the eyes to the mouth, it is another face
            if shifts[nearest] < np.linalg.norm(last[3:].mean(axis=0) - last[:2].mean(axis=0)):
                runs[-1].append((index, np.asarray(there[nearest].landmarks, dtype=float)))
        elif there:
            runs.append([(index, np.asarray(there[0].landmarks, dtype=float))])
    if not runs:
        raise ValueError("No frame shows a face.")

    step = stride(fps) - 1  # a face is also there in the frames around, where it was not looked for
    known: list[np.ndarray] = []
    points: list[np.ndarray] = []
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


# reading


@contextmanager
def _reading(path: Path, key: str) -> Iterator[InputContainer]:
    """An open video file; whatever its content makes fail in here is a :class:`VideoError` of that key."""
    try:
        _check_tables(path)
        with av.open(str(path.resolve()), metadata_errors="replace", options=READ_ONLY) as container:
            yield container
    except VideoError:
        raise
    except _UNREADABLE as error:
        raise VideoError(key, file=path.name) from error


def _check_tables(path: Path) -> None:
    """Refuses an MP4 or QuickTime file whose tables claim to describe more samples than a clip can have.

    The library makes room for all of them when it opens the file, 40 bytes each, before it looks whether they are there:
    20 bytes can ask for gigabytes.
    """
    claimed = boxes = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while len(header := file.read(16)) >= 8:
            boxes += 1
            start = file.tell() - len(header)
            length, kind = struct.unpack(">I4s", header[:8])
            if length == 1 and len(header) == 16:
                length = int.from_bytes(header[8:], "big")
            end = min(start + length, size) if length >= 8 else size
            # the pictures and sounds themselves are big, and no table; other kinds of files have no such names
            if kind != b"mdat" and kind.isascii() and kind.decode().isprintable():
                file.seek(start)
                for count in _sample_counts(file, end - start):
                    claimed += count
                    boxes += 1
                    if claimed > MAX_SAMPLES or boxes > MAX_BOXES:
                        raise VideoError("clip_heavy", file=path.name)
            if boxes > MAX_BOXES:
                raise VideoError("clip_heavy", file=path.name)
            file.seek(end)


# Where the number of samples is, from the name of a table of their sizes on: whole, or of a fragment. Compressed tables, as nothing
# has written in this century, count as too many.
_SAMPLE_COUNTS = {b"stsz": 12, b"stz2": 12, b"trun": 8, b"cmov": None}
_CHUNK, _REACH = 1 << 20, 16


def _sample_counts(file: BinaryIO, length: int) -> Iterator[int]:
    """The numbers of samples that tables in so many bytes claim; names may overlap in a file made to hide them."""
    chunk = b""
    while length > 0 and (read := file.read(min(_CHUNK, length))):
        length -= len(read)
        chunk += read
        until = len(chunk) - (_REACH if length > 0 else 0)  # what begins behind comes again
        for name, place in _SAMPLE_COUNTS.items():
            at = chunk.find(name, 0, until + len(name) - 1)
            while at >= 0:
                yield MAX_SAMPLES + 1 if place is None else int.from_bytes(chunk[at + place : at + place + 4], "big")
                at = chunk.find(name, at + 1, until + len(name) - 1)
        chunk = chunk[until:]


def _video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream) or stream.disposition & Disposition.attached_pic:  # of sound: its cover
        raise VideoError("clip_empty", file=path.name)
    if stream.codec_context is None:
        raise VideoError("clip_kind", file=path.name)
    return stream


def _decoded(container: InputContainer, path: Path) -> Iterator[av.VideoFrame]:
    """The frames in the file, as they come, until they are too much work."""
    stream = _video_stream(container, path)
    context = stream.codec_context
    context.options = {"max_pixels": READ_ONLY["max_pixels"]}
    stream.thread_type = "AUTO"
    done = 0
    for packet in container.demux(stream):
        done += max(PACKET_PIXELS, context.width * context.height)
        if done > MAX_CLIP_PIXELS:
            raise VideoError("clip_heavy", file=path.name)
        with stage("open"):
            frames = packet.decode()
        yield from frames


def _start(container: InputContainer, fps: Fraction) -> float:
    """When the clip begins, in seconds on the file's own clock: with its first stream.

    Sound begins some samples early where its codec needs them; the pictures then keep their times.
    """
    start = (container.start_time or 0) / av.time_base
    stream = container.streams.best("video")
    if stream is None or stream.start_time is None or stream.time_base is None:
        return start
    shown = float(stream.start_time * stream.time_base)
    return shown if start < shown < start + 1 / fps else start


def _steady(frames: Iterator[av.VideoFrame], fps: Fraction, start: float) -> Iterator[av.VideoFrame]:
    """Frames at a constant rate: each of the file's where its time is nearest, again until the next, or not at all.

    The first is there from ``start`` on.
    """
    held: av.VideoFrame | None = None
    shown, time = 0, start
    for frame in frames:
        # where the file gives no times, its frames follow each other
        time = float(frame.time if frame.time is not None else time + (1 / fps if held else 0))
        due = math.floor((time - start) * fps + 0.5)
        while held is not None and shown < due:
            yield held
            shown += 1
        held = frame
    if held is not None:
        lasts = held.duration * held.time_base if held.duration and held.time_base else 1 / fps
        end = math.floor((time + lasts - start) * fps + 0.5)
        for _ in range(shown, max(end, 1)):
            yield held


# How a frame is put upright, by what of its display matrix is negative: a, d where the axes stay; b, c where they change.
_FLIPS = {
    (True, True): Image.Transpose.ROTATE_180,
    (True, False): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, True): Image.Transpose.FLIP_TOP_BOTTOM,
}
_QUARTER_TURNS = {
    (False, True): Image.Transpose.ROTATE_270,
    (True, False): Image.Transpose.ROTATE_90,
    (False, False): Image.Transpose.TRANSPOSE,
    (True, True): Image.Transpose.TRANSVERSE,
}


def _turn(frame: av.VideoFrame) -> Image.Transpose | None:
    """What puts the pictures of a file upright, of which this is the first."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return None
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(float)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _FLIPS.get((a < 0, d < 0))
    return _QUARTER_TURNS[b < 0, c < 0]


# writing


def frame_count(path: str | Path, seconds: float, fps: float) -> int:
    """How many frames a video of that length has, in the format that ``path`` names.

    Raises:
        ValueError: seconds or fps out of range.
        VideoError: another file format.
    """
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"A video takes more than 0 and at most {MAX_SECONDS} seconds, not {seconds:g}.")
    return max(1, round(seconds * checked_rate(path, fps)))


def checked_rate(path: str | Path, fps: float | Fraction) -> Fraction:
    """Frames a second as the format that ``path`` names can have them.

    Raises:
        ValueError: fps out of range.
        VideoError: another file format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SHOWN_SIDE:
        raise VideoError("clip_format", file=path.name)
    if not 1 <= fps <= 120:
        raise ValueError(f"A video has 1 to 120 frames a second, not {float(fps):g}.")
    rate = Fraction(fps).limit_denominator(1001)  # as in 30000/1001, the odd rates of television
    return min(rate, Fraction(GIF_MAX_FPS)) if suffix == ".gif" else rate


def write_video(
    frames: Iterable[Image.Image],
    path: str | Path,
    fps: float | Fraction,
    provenance: Provenance,
    sound: Clip | None = None,
) -> Path:
    """Writes frames of one size, and the sound of a clip for as long as they last.

    Drawings alone are enlarged for players; what is put into photos keeps its size, but for an odd row or column that
    H.264 cannot have. Metadata say that the video is synthetic and how it was made; a clip's own are left out.

    Args:
        frames: at least one.
        path: an .mp4 or .gif file (the latter without sound); replaced as a whole, when the video is complete.

    Raises:
        ValueError: no frame; or fps out of range.
        VideoError: another file format; the file could not be written; or the clip's sound could not be read.
    """
    path, rate = Path(path), checked_rate(path, fps)
    gif = path.suffix.lower() == ".gif"
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("A video needs at least one frame.")
    # a photo keeps its size
    times = 1 if provenance.composite else max(1, round(SHOWN_SIDE[path.suffix.lower()] / max(first.size)))
    fitted = (_fitted(picture, times, even=not gif) for picture in chain([first], frames))
    comment = "Synthetic video. " + "; ".join(f"{name}: {value}" for name, value in provenance.texts().items())
    partial = path.with_name(f".{uuid4().hex}{path.suffix.lower()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if gif:
            _write_gif(fitted, partial, rate)
            _add_gif_comment(partial, comment)
        else:
            _write_mp4(fitted, partial, rate, comment, sound)
        os.replace(partial, path)
    except (OSError, av.FFmpegError) as error:
        if sound and isinstance(error, av.InvalidDataError):  # only what was copied can be invalid
            raise VideoError("clip_broken", file=sound.path.name) from error
        raise VideoError("clip_unwritten", file=path.name, detail=error.strerror or type(error).__name__) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path


def _fitted(picture: Image.Image, times: int, even: bool) -> Image.Image:
    """A frame in RGB, ``times`` as large, its sides cut to even ones; of a single row or column it makes two."""
    picture = picture.convert("RGB")
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.LANCZOS)
    if not even:
        return picture
    width, height = picture.width // 2 * 2, picture.height // 2 * 2
    return picture.crop((0, 0, width, height)) if width and height else picture.resize((width or 2, height or 2))


def _timed(pictures: Iterable[Image.Image], rate: Fraction) -> Iterator[av.VideoFrame]:
    for index, picture in enumerate(pictures):
        frame = av.VideoFrame.from_image(picture)
        frame.pts, frame.time_base = index, 1 / rate
        yield frame


def _write_mp4(pictures: Iterator[Image.Image], path: Path, rate: Fraction, comment: str, clip: Clip | None) -> None:
    with av.open(str(path.resolve()), "w", format="mp4", options={"movflags": "+faststart"}) as output:
        output.metadata["comment"] = comment
        stream = output.add_stream("libx264", rate=rate, options={"crf": "20"})
        context = stream.codec_context
        # Untagged, players guess the matrix by the size and get the colours wrong for some: 1 is BT.709, and its limited range.
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        converter = VideoReformatter()
        with closing(_sound(clip, output)) as sound:
            waiting = next(sound, None)  # adds its stream, which must be there before the first packet
            for index, frame in enumerate(_timed(pictures, rate), 1):
                if not context.is_open:
                    context.width, context.height, context.pix_fmt = frame.width, frame.height, "yuv420p"
                with stage("write"):
                    converted = converter.reformat(
                        frame,
                        format="yuv420p",
                        dst_colorspace=Colorspace.ITU709,
                        dst_color_range=ColorRange.MPEG,
                        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
                    )
                    output.mux(stream.encode(converted))
                # the sound until the frame's end; what comes after the last one is left out
                while waiting is not None and waiting[0] < index / rate:
                    output.mux(waiting[1])
                    waiting = next(sound, None)
            output.mux(stream.encode(None))


def _sound(clip: Clip | None, output: OutputContainer) -> Generator[tuple[float, av.Packet]]:
    """The packets of a clip's sound for ``output``, each with its time on the clock of :meth:`Clip.frames`, in seconds."""
    if clip is None or clip.audio is None:
        return
    with _reading(clip.path, "clip_broken") as container:
        source = container.streams.best("audio")
        if not isinstance(source, av.AudioStream):
            return
        last, start = None, _start(container, clip.fps)
        for packet in (_copied if clip.audio in COPIED_AUDIO else _recoded)(container, source, output, start):
            # a file may be wrong about its times, which an MP4 may not
            if packet.dts is not None and packet.pts is not None and (last is None or packet.dts > last):
                last = packet.dts
                yield float(packet.dts * packet.time_base), packet


def _copied(
    container: InputContainer, source: av.AudioStream, output: OutputContainer, start: float
) -> Iterator[av.Packet]:
    target = output.add_stream_from_template(source)
    for packet in container.demux(source):
        if packet.dts is not None and packet.pts is not None:
            shift = round(start / packet.time_base)
            packet.dts, packet.pts, packet.stream = packet.dts - shift, packet.pts - shift, target
            yield packet


def _recoded(
    container: InputContainer, source: av.AudioStream, output: OutputContainer, start: float
) -> Iterator[av.Packet]:
    layout = "mono" if source.codec_context.channels == 1 else "stereo"
    target = output.add_stream("aac", rate=AUDIO_RATE, layout=layout)
    for frame in container.decode(source):
        if frame.pts is not None and frame.time_base is not None:
            frame.pts -= round(start / frame.time_base)
        yield from target.encode(frame)
    yield from target.encode(None)


def _write_gif(pictures: Iterator[Image.Image], path: Path, rate: Fraction) -> None:
    with av.open(str(path.resolve()), "w", format="gif") as output:
        stream = output.add_stream("gif", rate=rate, pix_fmt="pal8")
        graph: Graph | None = None
        for frame in _timed(pictures, rate):
            if graph is None:
                stream.codec_context.width, stream.codec_context.height = frame.width, frame.height
                graph = _palettes(frame)
            graph.push(frame)
            _encode_ready(graph, stream, output)
        if graph is not None:
            graph.push(None)
            _encode_ready(graph, stream, output)
        output.mux(stream.encode(None))


def _palettes(frame: av.VideoFrame) -> Graph:
    """A palette for each frame: one for all would need them all at once."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    both, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    applied = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
    source.link_to(both)
    both.link_to(applied, 0, 0)
    both.link_to(palette, 1, 0)
    palette.link_to(applied, 0, 1)
    applied.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


def _encode_ready(graph: Graph, stream: av.VideoStream, output: OutputContainer) -> None:
    with stage("write"), suppress(av.BlockingIOError, av.EOFError):  # no frame is ready, or none will be
        while True:
            output.mux(stream.encode(graph.vpull()))


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
