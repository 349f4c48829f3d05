"""Walks and clips, read back from the files that were written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from stargan import video
from stargan.inference.translator import BATCH, Encoded, NoFaceError, Translator
from stargan.models.checkpoint import Model
from stargan.models.config import ANIME_FRAMING, Architecture, ModelConfig
from stargan.page import texts
from stargan.pictures import faces
from stargan.video import VideoError, follow, interpolate, open_clip, translate_clip, walk

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="module")
def translator() -> Translator:
    torch.manual_seed(0)
    config = ModelConfig("tiny", ("anime", "female"), Architecture(32, base_channels=8, max_channels=16), ANIME_FRAMING)
    return Translator(Model.build(config), "cpu", "exact")


@pytest.fixture(scope="module")
def face(portrait: Image.Image) -> Image.Image:
    return portrait.crop((124, 0, 324, 200))


@pytest.fixture(scope="module")
def encoded(translator: Translator, face: Image.Image) -> Encoded:
    return translator.encode(faces.centre_crop(face, 32).picture)


@pytest.fixture(scope="module")
def styles() -> torch.Tensor:
    return torch.randn(3, 64, generator=torch.Generator().manual_seed(0))


@dataclass
class Read:
    about: dict
    frames: list[np.ndarray]
    header: str


def read(path: Path) -> Read:
    reader = imageio_ffmpeg.read_frames(path)
    about = next(reader)
    width, height = about["size"]
    frames = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader]
    return Read(about, frames, ffmpeg("-i", path).stderr)


@contextmanager
def refuses(kind: type[ValueError], sentence: str) -> Iterator[None]:
    """The sentence is said, and the page knows it in Japanese."""
    with pytest.raises(kind, match=sentence) as refused:
        yield
    assert re.search(r"[ぁ-ん]", texts.translated(str(refused.value), "ja"))


def ffmpeg(*arguments: object, check: bool = False) -> subprocess.CompletedProcess:
    command = [FFMPEG, "-hide_banner", "-y", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


# the way between styles


def test_way_passes_each_style_and_slows_down_there(styles: torch.Tensor) -> None:
    way = interpolate(styles, 21)
    assert way.shape == (21, 64)
    for at, style in ((0, 0), (10, 1), (20, 2)):
        assert torch.equal(way[at], styles[style])
    assert torch.allclose(way[5], (styles[0] + styles[1]) / 2, atol=1e-6)
    steps = (way[1:] - way[:-1]).norm(dim=1)
    assert steps[0] < 0.3 * steps[4]
    assert steps[9] < 0.3 * steps[5]


def test_loop_comes_back_without_showing_the_first_style_twice(styles: torch.Tensor) -> None:
    way = interpolate(styles, 30, loop=True)
    for at in range(3):
        assert torch.equal(way[10 * at], styles[at])
    assert torch.allclose(way[1], torch.lerp(styles[0], styles[1], 0.028), atol=1e-6)
    assert torch.allclose(way[29], torch.lerp(styles[0], styles[2], 0.028), atol=1e-6)


@pytest.mark.parametrize(("count", "frames"), [(1, 10), (0, 10), (3, 2)])
def test_way_that_cannot_be_walked_is_refused(count: int, frames: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        interpolate(torch.zeros(count, 64), frames)


# walks


def test_walk_is_an_mp4_that_players_show(
    translator: Translator, encoded: Encoded, styles: torch.Tensor, tmp_path: Path
) -> None:
    steps = []
    path = tmp_path / "new" / "walk.mp4"
    note = "anime, seeds 1, 2"
    written = walk(translator, encoded, styles, path, seconds=2, fps=10, note=note, progress=lambda *s: steps.append(s))
    assert written == path
    assert steps == [(n, 20) for n in range(1, 21)]
    result = read(path)
    assert len(result.frames) == 20
    assert (result.about["codec"], result.about["size"], result.about["fps"]) == ("h264", (512, 512), 10)
    assert result.about["duration"] == pytest.approx(2)
    assert "yuv420p(tv, bt709" in result.header
    assert f"model: tiny; styles: {note}; DigitalSourceType: http" in result.header
    assert "/trainedAlgorithmicMedia" in result.header
    assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")  # plays while it loads
    first, _, last = translator.decode(encoded, styles)
    for frame, drawn in ((result.frames[0], first), (result.frames[-1], last)):
        expected = np.asarray(drawn.resize((512, 512), Image.Resampling.LANCZOS))
        assert difference(frame, expected) < 6
    assert difference(result.frames[0], result.frames[-1]) > 2 * difference(result.frames[0], np.asarray(expected)) / 3
    assert [file.name for file in path.parent.iterdir()] == ["walk.mp4"]


def test_colours_are_kept(translator: Translator, encoded: Encoded, styles: torch.Tensor, tmp_path: Path) -> None:
    """Red and green come out different where the matrix is written and read differently."""
    for suffix in (".mp4", ".gif"):
        for colour in ((220, 40, 30), (30, 200, 60)):
            paint = Image.new("RGB", (64, 64), colour)
            path = walk(
                translator,
                encoded,
                styles,
                tmp_path / f"walk{suffix}",
                seconds=0.3,
                fps=10,
                finish=lambda _, p=paint: p,
            )
            assert np.abs(read(path).frames[1][100, 100].astype(int) - colour).max() <= 6, suffix


def test_walk_is_a_gif_that_repeats(
    translator: Translator, encoded: Encoded, styles: torch.Tensor, tmp_path: Path
) -> None:
    path = walk(translator, encoded, styles, tmp_path / "walk.gif", seconds=1, fps=10, loop=True, composite=False)
    with Image.open(path) as gif:
        assert (gif.n_frames, gif.size, gif.info["loop"], gif.info["duration"]) == (10, (256, 256), 0, 100)
        assert b"Synthetic video. Software: stargan" in gif.info["comment"]
        assert gif.info["comment"].endswith(b"/trainedAlgorithmicMedia")
        shown = np.asarray(gif.convert("RGB"))
    drawn = translator.decode(encoded, styles[:1])[0].resize((256, 256), Image.Resampling.LANCZOS)
    assert difference(shown, np.asarray(drawn)) < 9  # 256 colours


def test_whole_photo_of_odd_size(
    translator: Translator, face: Image.Image, encoded: Encoded, styles: torch.Tensor, tmp_path: Path
) -> None:
    photo = face.resize((201, 151))
    aligned = faces.centre_crop(photo, 32)
    path = walk(
        translator,
        encoded,
        styles,
        tmp_path / "walk.mp4",
        seconds=0.5,
        fps=10,
        composite=True,
        finish=lambda drawn: faces.paste_back(photo, aligned, drawn),
    )
    result = read(path)
    assert result.about["size"] == (200, 150)
    assert "/compositeWithTrainedAlgorithmicMedia" in result.header


def test_frames_are_not_kept(translator: Translator, encoded: Encoded, styles: torch.Tensor, tmp_path: Path) -> None:
    made: list[weakref.ref[Image.Image]] = []
    most = 0

    def finish(picture: Image.Image) -> Image.Image:
        nonlocal most
        shown = picture.copy()
        made.append(weakref.ref(shown))
        most = max(most, sum(picture() is not None for picture in made))
        return shown

    for seconds in (2, 8):
        walk(translator, encoded, styles, tmp_path / "walk.mp4", seconds=seconds, fps=10, finish=finish)
        assert most <= 2 + 2 * BATCH["cpu"], seconds


def test_stopped_walk_leaves_the_earlier_file(
    translator: Translator, encoded: Encoded, styles: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "walk.mp4"
    path.write_text("earlier")

    def stop(done: int, total: int) -> None:  # noqa: ARG001
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk(translator, encoded, styles, path, seconds=2, fps=10, progress=stop)
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def ffmpeg_children() -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "ffmpeg" in line]


def test_killed_encoder_is_an_error(
    translator: Translator, encoded: Encoded, styles: torch.Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "walk.mp4"

    def kill(done: int, total: int) -> None:  # noqa: ARG001
        if done == 12:
            (child,) = ffmpeg_children()
            os.kill(child, signal.SIGKILL)

    with refuses(VideoError, r"walk\.mp4 could not be written: "):
        walk(translator, encoded, styles, path, seconds=2, fps=10, progress=kill)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("walk.avi", {}, r"\.mp4 or \.gif, not as walk\.avi"),
        ("file/below/walk.mp4", {}, "could not be written: Not a directory"),
        ("walk.mp4", {"seconds": 0}, "at most 600 seconds, not 0"),
        ("walk.mp4", {"seconds": 1e6}, "not 1e"),
        ("walk.mp4", {"fps": 1000}, "1 to 120 frames a second, not 1000"),
    ],
)
def test_impossible_walk_is_refused(
    translator: Translator,
    encoded: Encoded,
    styles: torch.Tensor,
    tmp_path: Path,
    name: str,
    options: dict,
    message: str,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        walk(translator, encoded, styles, tmp_path / name, **options)


# clips


def moving(face: Image.Image, frames: int, size: tuple[int, int]) -> Iterator[Image.Image]:
    """A camera that goes over a picture."""
    for n in range(frames):
        left, top = round(n * (face.width - size[0]) / max(1, frames - 1)), round(10 + 5 * np.sin(n / 2))
        yield face.crop((left, top, left + size[0], top + size[1]))


def make_clip(
    path: Path, pictures: Sequence[Image.Image], fps: float, *options: str, sound: str | None = "aac"
) -> Path:
    """With a tone, a place and a chapter's worth of metadata, as a phone writes it."""
    silent = path.with_suffix(".silent.mp4")
    writer = imageio_ffmpeg.write_frames(silent, pictures[0].size, fps=fps, macro_block_size=1, quality=9)
    writer.send(None)
    for picture in pictures:
        writer.send(picture.tobytes())
    writer.close()
    tone = ["-f", "lavfi", "-i", f"sine=440:duration={len(pictures) / fps}", "-c:a", sound] if sound else []
    place = ["-metadata", "location=+35.6586+139.7454/", "-metadata", "title=private"]
    ffmpeg(*options, "-i", silent, *tone, "-c:v", "copy", *place, path, check=True)
    return path


def sound_of(path: Path) -> str:
    return ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "md5", "-", check=True).stdout


@pytest.fixture(scope="module")
def pictures(portrait: Image.Image) -> list[Image.Image]:
    return list(moving(portrait.crop((84, 0, 364, 300)).resize((168, 180)), 12, (144, 156)))


@pytest.fixture(scope="module")
def clip(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures, 12)


def test_clip_keeps_everything_but_the_face(
    translator: Translator, clip: Path, pictures: list[Image.Image], styles: torch.Tensor, tmp_path: Path
) -> None:
    steps = []
    path = translate_clip(translator, clip, styles[0], tmp_path / "out.mp4", progress=lambda *s: steps.append(s))
    result = read(path)
    assert (len(result.frames), result.about["fps"], result.about["size"]) == (12, 12, (144, 156))
    assert steps[-1] == (24, 24)
    assert steps == sorted(steps)
    assert sound_of(path) == sound_of(clip)
    assert "/compositeWithTrainedAlgorithmicMedia" in result.header
    assert "location" in ffmpeg("-i", clip).stderr
    assert not any(word in result.header for word in ("+35", "private"))
    for frame, picture in zip(result.frames, pictures, strict=True):
        (found,) = faces.find(picture)
        left, top, right, bottom = (round(v) for v in found.box)
        source = np.asarray(picture)
        inside = (slice(top + 6, bottom - 6), slice(left + 6, right - 6))
        assert difference(frame[inside], source[inside]) > 20
        assert difference(frame[-20:], source[-20:]) < 8


def test_clip_of_the_face_alone(translator: Translator, clip: Path, styles: torch.Tensor, tmp_path: Path) -> None:
    result = read(translate_clip(translator, clip, styles[0], tmp_path / "out.mp4", whole=False))
    assert (len(result.frames), result.about["size"]) == (12, (512, 512))
    assert result.about["audio_codec"] == "aac"
    assert "/trainedAlgorithmicMedia" in result.header


def test_clip_as_gif_has_no_sound(translator: Translator, clip: Path, styles: torch.Tensor, tmp_path: Path) -> None:
    path = translate_clip(translator, clip, styles[0], tmp_path / "out.gif")
    with Image.open(path) as gif:
        assert gif.size == (144, 156)
        assert gif.n_frames == 12


def test_model_without_framing_takes_the_middle(
    clip: Path, pictures: list[Image.Image], styles: torch.Tensor, tmp_path: Path
) -> None:
    config = ModelConfig("tiny", ("cat",), Architecture(32, base_channels=8, max_channels=16))
    result = read(translate_clip(Translator(Model.build(config), "cpu"), clip, styles[0], tmp_path / "out.mp4"))
    assert len(result.frames) == 12
    assert difference(result.frames[3][60:90, 60:90], np.asarray(pictures[3])[60:90, 60:90]) > 10


def test_sound_that_browsers_do_not_play_is_recoded(
    translator: Translator, pictures: list[Image.Image], styles: torch.Tensor, tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "clip.mov", pictures[:4], 12, sound="pcm_s16le")
    assert read(translate_clip(translator, source, styles[0], tmp_path / "out.mp4")).about["audio_codec"] == "aac"


def test_clip_from_an_upright_phone(pictures: list[Image.Image], tmp_path: Path) -> None:
    """Phones write a turned picture and the angle beside it."""
    lying = [picture.transpose(Image.Transpose.ROTATE_270) for picture in pictures[:3]]
    turned = make_clip(tmp_path / "clip.mp4", lying, 12, "-display_rotation", "90", sound=None)
    clip = open_clip(turned)
    assert clip.size == (144, 156)
    assert difference(np.asarray(next(clip.frames())), np.asarray(pictures[0])) < 6


def test_big_and_fast_clip_is_brought_down(face: Image.Image, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "clip.mp4", [face.resize((1922, 1082))] * 12, 60, sound=None)
    clip = open_clip(source)
    assert (clip.size, clip.fps) == ((1280, 720), 30)
    sizes = [frame.size for frame in clip.frames()]
    assert sizes == [(1280, 720)] * 6


def test_long_clip_is_refused(
    translator: Translator, pictures: list[Image.Image], styles: torch.Tensor, tmp_path: Path
) -> None:
    source = make_clip(tmp_path / "long.mp4", pictures * 2, 1, sound=None)
    with refuses(VideoError, r"long\.mp4 is 24 seconds long; at most 20 are possible"):
        translate_clip(translator, source, styles[0], tmp_path / "out.mp4")


def test_long_clip_that_does_not_say_so_is_refused(
    translator: Translator, face: Image.Image, styles: torch.Tensor, tmp_path: Path
) -> None:
    """As browsers record: the length is not known when the file begins."""
    source = make_clip(tmp_path / "long.mp4", [face.resize((64, 64))] * 24, 12, sound=None)
    stream = tmp_path / "long.webm"
    with stream.open("wb") as file:
        command = [FFMPEG, "-v", "error", "-i", source, "-c:v", "libvpx", "-f", "webm", "-live", "1", "-"]
        subprocess.run(command, stdout=file, check=True)
    assert open_clip(stream).seconds == 0
    with refuses(VideoError, r"long\.webm is longer than 1 seconds"):
        translate_clip(translator, stream, styles[0], tmp_path / "out.mp4", max_seconds=1)


def test_clip_without_a_face_is_refused(translator: Translator, styles: torch.Tensor, tmp_path: Path) -> None:
    source = make_clip(tmp_path / "grey.mp4", [Image.new("RGB", (100, 80), "grey")] * 6, 12, sound=None)
    with refuses(NoFaceError, r"No face was found in grey\.mp4"):
        translate_clip(translator, source, styles[0], tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("content", ["picture", "text", "empty", "sound", "missing", "cut off", "playlist", "script"])
def test_what_is_no_video_is_refused(clip: Path, face: Image.Image, tmp_path: Path, content: str) -> None:
    path = tmp_path / "clip.mp4"
    if content == "picture":
        face.save(path, format="PNG")
    elif content == "sound":
        ffmpeg("-f", "lavfi", "-i", "sine=duration=1", path, check=True)
    elif content == "cut off":
        path.write_bytes(clip.read_bytes()[:2000])
    elif content == "playlist":  # would be read, were playlists not left out
        path = path.with_suffix(".m3u8")
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n")
    elif content == "script":
        path.write_text(f"ffconcat version 1.0\nfile '{clip}'\n")
        assert "Video: h264" in ffmpeg("-safe", "0", "-i", path).stderr
    elif content != "missing":
        path.write_text("no video" if content == "text" else "")
    with refuses(VideoError, r"clip\.(mp4|m3u8) is not a video|There is no video"):
        open_clip(path)


# faces through time


def seen(x: float, y: float, size: float = 40) -> faces.Face:
    landmarks = np.array([x, y]) + size * np.array(ANIME_FRAMING)
    return faces.Face((x, y, x + size, y + size), landmarks, 0.99)


def test_trembling_is_smoothed_without_lag() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (61, 2))
    way = {n: [seen(10 + 2 * n + noise[n, 0], 50 + noise[n, 1])] for n in range(0, 61, video.DETECT_EVERY)}
    track = follow(way, 61, 30)
    assert track.seen.all()
    true = np.stack([seen(10 + 2 * n, 50).landmarks for n in range(61)])
    raw = np.stack([way[n][0].landmarks for n in way])
    tremble = np.abs(raw - true[:: video.DETECT_EVERY]).mean()
    assert np.abs(track.landmarks - true).mean() < 0.75 * tremble
    assert abs((track.landmarks - true)[..., 0].mean()) < 0.5  # neither behind nor ahead

    steady = follow({n: [seen(10 + 2 * n, 50)] for n in range(0, 61, video.DETECT_EVERY)}, 61, 30)
    inner = slice(0, 61)
    assert np.allclose(steady.landmarks[inner], true[inner], atol=0.5)


def test_it_stays_with_the_person() -> None:
    """Somebody nearer to the camera comes in, and is first in the list from then on."""
    way = {n: [seen(50 + n, 50)] if n < 30 else [seen(200, 20, 90), seen(50 + n, 50)] for n in range(0, 60, 3)}
    track = follow(way, 60, 30)
    assert track.seen.all()
    assert abs(track.landmarks[59, 2, 0] - seen(107, 50).landmarks[2, 0]) < 5


def test_lost_face_is_not_drawn_and_another_may_follow() -> None:
    way: dict[int, list[faces.Face]] = {n: [] for n in range(0, 120, 3)}
    way |= {n: [seen(50, 50)] for n in range(0, 31, 3) if n not in (12, 15)}
    way |= {n: [seen(250, 80)] for n in range(90, 120, 3)}
    track = follow(way, 120, 30)
    assert track.seen[:33].all()  # missed for a moment
    assert not track.seen[33:88].any()
    assert track.seen[88:].all()
    assert np.allclose(track.landmarks[:33], seen(50, 50).landmarks, atol=1e-6)
    assert np.allclose(track.landmarks[88:], seen(250, 80).landmarks, atol=1e-6)
    with pytest.raises(ValueError, match="No frame shows a face"):
        follow({0: [], 3: []}, 6, 30)


def test_frames_without_the_face_stay_as_they_are(
    translator: Translator, pictures: list[Image.Image], styles: torch.Tensor, tmp_path: Path
) -> None:
    empty = Image.new("RGB", pictures[0].size, "teal")
    source = make_clip(tmp_path / "clip.mp4", [*pictures[:6], *[empty] * 12], 12, sound=None)
    result = read(translate_clip(translator, source, styles[0], tmp_path / "out.mp4"))
    assert len(result.frames) == 18
    assert all(difference(frame, np.asarray(empty)) < 3 for frame in result.frames[9:])
    assert difference(result.frames[2], np.asarray(pictures[2])) > 5
