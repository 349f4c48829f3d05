"""Pictures from people: the one door for files that nobody vouches for."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from PIL import ExifTags, Image, ImageCms, WebPImagePlugin

from stargan.errors import PhotoError
from stargan.pictures import apart
from stargan.pictures.structure import MAX_PROFILE, affordable, affordable_exif
from stargan.stages import stage

Photo = str | Path | bytes | BinaryIO | Image.Image

# The formats that phones, cameras and browsers make, with their files' endings. Others, such as EPS, would start other
# programs to be read.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
# What a folder is searched for.
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
# What every browser shows.
SHOWN_SUFFIXES = SUFFIXES.difference(FORMATS["HEIF"], FORMATS["TIFF"])
MAX_BYTES = 50_000_000
MAX_PIXELS = 50_000_000
MIN_SIDE = 16
# Pixels of all pictures that are decoded at the same time; a further one waits. Decoding takes up to 13 bytes for each.
MAX_UNDER_WAY = 64_000_000
# Pixels up to which a picture of a format is decoded in this process, which saves the start of another one. HEIF's and
# AVIF's headers may say less than what is decoded then.
SMALL = dict.fromkeys(("JPEG", "PNG", "GIF", "BMP"), 16_000_000) | dict.fromkeys(("WEBP", "TIFF"), 4_000_000)
# Rows that are worked on at once, where copies would take too much.
STRIP = 64
# How a picture is turned that EXIF says to lie otherwise.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Budget:
    """So much of something may be in use at once; whoever would exceed it waits, and who comes later waits behind. One alone
    never waits for itself; a thread that has a part must not wait for another: two such would wait for each other for ever."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._mine = threading.local()
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Nothing is there at once, and is no part.

        Raises:
            RuntimeError: this thread has a part already.
        """
        if not amount:
            yield
            return
        if getattr(self._mine, "taken", False):
            raise RuntimeError("This thread has a part of the budget already.")
        place = object()
        with self._changed:
            self._waiting.append(place)
            self._changed.wait_for(
                lambda: self._waiting[0] is place and (self.used == 0 or self.used + amount <= self.limit)
            )
            self._waiting.popleft()
            self.used += amount
            self._changed.notify_all()
        self._mine.taken = True
        try:
            yield
        finally:
            self._mine.taken = False
            with self._changed:
                self.used -= amount
                self._changed.notify_all()


UNDER_WAY = Budget(MAX_UNDER_WAY)


def open_photo(source: Photo) -> Image.Image:
    """An untrusted picture as RGB, turned as its EXIF says, transparency on white, the first frame of an animation.

    Args:
        source: a path, the file's bytes, an open binary file, or a picture of any mode.

    Raises:
        PhotoError: it is empty, no picture, broken, or too large or too small; or decoding it takes too much, and was cut
            off. Size is judged by the header, before decoding.
    """
    return _decoded(source, own=False) if isinstance(source, Image.Image) else open_file(read_file(source))


def read_file(source: str | Path | bytes | BinaryIO) -> bytes:
    """The bytes of a photo's file, of an open one from its beginning.

    Raises:
        PhotoError: it is empty or too large, or cannot be read.
    """
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        if isinstance(source, str | Path):
            about = os.stat(source)
            size = about.st_size
            if not stat.S_ISREG(about.st_mode):  # a device may never end, a pipe never begin
                raise PhotoError("photo_unreadable")
        else:
            size = source.seek(0, os.SEEK_END)
    except (OSError, ValueError) as error:
        raise PhotoError("photo_unreadable") from error
    if size == 0:
        raise PhotoError("photo_empty")
    check_weight(size)
    try:
        with open(source, "rb") if isinstance(source, str | Path) else nullcontext(source) as file:
            file.seek(0)
            return file.read(MAX_BYTES)
    except (OSError, ValueError) as error:
        raise PhotoError("photo_unreadable") from error


def check_weight(size: int) -> None:
    """
    Raises:
        PhotoError: a file of so many bytes is too large for a photo.
    """
    if size > MAX_BYTES:
        raise PhotoError("photo_heavy", size=f"{size / 1e6:.0f}", limit=MAX_BYTES // 10**6)


def open_file(data: bytes, here: bool = False) -> Image.Image:
    """The same of a file's bytes.

    Args:
        here: it is decoded in this process, whatever that takes.
    """
    kind, picture = _opened(data)
    with picture:
        pixels = picture.width * picture.height
        if here or not apart.POSSIBLE or pixels <= SMALL.get(kind, 0):
            return _decoded(picture, own=True)
    with stage("open"), UNDER_WAY.taking(pixels):
        return apart.decode(data)


def pixels_of(source: str | Path | bytes) -> int:
    """By the header; 0 of what :func:`open_photo` refuses."""
    try:
        _, picture = _opened(read_file(source))
    except PhotoError:
        return 0
    with picture:
        return picture.width * picture.height


def _opened(data: bytes) -> tuple[str, Image.Image]:
    """Its format, and the picture, not yet decoded. Raises as :func:`open_photo`."""
    kind = _kind(data)
    if kind is None:
        raise PhotoError("photo_kind")
    if not affordable(kind, data, 0):
        raise PhotoError("photo_dear")
    try:
        picture = Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError("photo_bomb", limit=MAX_PIXELS // 10**6) from None
    except Exception as error:  # broken files raise nearly anything, struct.error and SyntaxError among them
        raise PhotoError("photo_broken") from error
    _check_size(picture)
    if not affordable(kind, data, picture.width * picture.height):
        raise PhotoError("photo_dear")
    return kind, picture


def _decoded(picture: Image.Image, own: bool) -> Image.Image:
    """
    Args:
        own: nobody else has the picture, and it may be taken apart.
    """
    _check_size(picture)
    try:
        with stage("open"), UNDER_WAY.taking(picture.width * picture.height):
            if own:
                picture = _lean(picture)
            picture.load()
            _check_size(picture)  # HEIF may turn out to hold another size than it announced
            rgb = _to_rgb(_upright(picture))
    except PhotoError:
        raise
    except MemoryError as error:
        raise PhotoError("photo_costly") from error
    except Exception as error:
        raise PhotoError("photo_broken") from error
    if rgb is picture:  # the caller's own stays as it is
        rgb = picture.copy()
    rgb.info.clear()  # place, camera and profile of the photo
    return rgb


@lru_cache(maxsize=1)
def installed_formats() -> list[str]:
    """Of :data:`FORMATS`, those that can be read here."""
    with suppress(ImportError):  # where models are only trained, it need not be installed
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # Pillow has AVIF since 11.3, and not everywhere


def _kind(data: bytes) -> str | None:
    """The format that the first bytes are of, of those that can be read."""
    for kind in installed_formats():
        _, accept = Image.OPEN[kind]
        if accept and accept(data[:16]) is True:
            return kind
    return None


def is_shown(file: Path) -> bool:
    """Whether browsers show it: those that go by a file's name, and those that go by its first bytes."""
    with file.open("rb") as opened:
        kind = _kind(opened.read(16))
    return file.suffix.lower() in SHOWN_SUFFIXES and kind not in ("HEIF", "TIFF")


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PhotoError("photo_large", width=width, height=height, limit=MAX_PIXELS // 10**6)
    if min(width, height) < MIN_SIDE:
        raise PhotoError("photo_small", width=width, height=height, least=MIN_SIDE)


def _lean(picture: Image.Image) -> Image.Image:
    """Pillow holds two canvases of a WebP, of 4 bytes a pixel each, for the next frame: they go before its pixels are copied."""
    if not isinstance(picture, WebPImagePlugin.WebPImageFile):
        return picture
    pixels, *_ = picture._get_next()
    picture._decoder = None
    mode = picture.rawmode  # RGBX or RGBA
    return _keeping_info(Image.frombuffer(mode, picture.size, pixels, "raw", mode, 0, 1), picture)


def _upright(picture: Image.Image) -> Image.Image:
    if not affordable_exif(picture.info.get("exif") or b"II*\0\x08\0\0\0\0\0"):
        return picture
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF is no reason to refuse a picture that is whole
        return picture
    return picture if turn is None else _keeping_info(picture.transpose(turn), picture)


def _keeping_info(turned: Image.Image, picture: Image.Image) -> Image.Image:
    turned.info.update(picture.info)
    return turned


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        return _spread(np.asarray(picture)).convert("RGB")
    if picture.has_transparency_data:
        white = Image.new("RGB", picture.size, "white")
        for top in range(0, picture.height, STRIP):  # whole, it would be there four times
            strip = picture.crop((0, top, picture.width, min(top + STRIP, picture.height))).convert("RGBA")
            white.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), (0, top))
        white.info["icc_profile"] = picture.info.get("icc_profile")
        picture = white
    return _to_srgb(picture).convert("RGB")


def _spread(levels: np.ndarray) -> Image.Image:
    """32 bits a pixel and no agreed range: the picture's own becomes 0 to 255. By strips, as doubles take 8 bytes a pixel."""
    strips = [levels[row : row + STRIP] for row in range(0, len(levels), STRIP)]
    ends = [(wide.min(), wide.max()) for wide in map(_finite, strips)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    scale = 255 / ((high - low) or 1)
    shown = np.empty(levels.shape, np.uint8)
    for row, strip in zip(range(0, len(levels), STRIP), strips, strict=True):
        shown[row : row + STRIP] = (_finite(strip) - low) * scale
    return Image.fromarray(shown)


def _finite(levels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(levels.astype(np.float64))


def _to_srgb(picture: Image.Image) -> Image.Image:
    """By the picture's colour profile, where it has one: phones save wider gamuts than sRGB, print shops CMYK."""
    profile = picture.info.get("icc_profile")
    if not profile or len(profile) > MAX_PROFILE:
        return picture
    if picture.mode in ("P", "RGBX"):  # what the profile says of colours, a palette's among them
        picture = picture.convert("RGB")
    if picture.mode not in ("RGB", "L", "CMYK"):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return picture
        srgb = ImageCms.createProfile("sRGB")
        # None is what it gives where it changes the picture itself
        return cast(Image.Image, ImageCms.profileToProfile(picture, source, srgb, outputMode="RGB"))
    except Exception:  # a profile that is broken, or another kind of picture's: the levels are taken as they are
        return picture
