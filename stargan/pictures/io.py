"""Pictures from people: the one door for files that nobody vouches for."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps


class PhotoError(ValueError):
    """A file that cannot be used as a picture; the message is a sentence for the person who chose it."""


# The formats that phones, cameras and browsers make. Others, such as EPS, would start other programs to be read.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF", "BMP", "TIFF")
MAX_BYTES = 50_000_000
MAX_PIXELS = 50_000_000
MIN_SIDE = 16


def open_photo(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """An untrusted picture as RGB, turned as its EXIF says, transparency on white, the first frame of an animation.

    Args:
        source: a path, the file's bytes, or an open binary file.

    Raises:
        PhotoError: it is empty, no picture, broken, or too large or too small. Size is judged by the header, before
            decoding.
    """
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        size = os.stat(source).st_size if isinstance(source, str | Path) else source.seek(0, os.SEEK_END)
    except OSError as error:
        raise PhotoError("The picture file cannot be read.") from error
    if size == 0:
        raise PhotoError("The file is empty.")
    if size > MAX_BYTES:
        raise PhotoError(f"The file has {size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are accepted.")
    if not isinstance(source, str | Path):
        source.seek(0)
    try:
        picture = Image.open(source, formats=_installed_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PhotoError(f"The picture is too large; at most {MAX_PIXELS / 1e6:.0f} megapixels are accepted.") from None
    except Exception as error:  # broken files raise nearly anything, struct.error and SyntaxError among them
        if _begins_as_picture(source):
            raise PhotoError("The picture is broken or cut off.") from error
        raise PhotoError("The file is not a picture, or of a kind that cannot be read.") from error
    with picture:
        _check_size(picture)
        try:
            picture.load()
            _check_size(picture)  # HEIF may turn out to hold another size than it announced
            rgb = _to_rgb(_upright(picture))
        except PhotoError:
            raise
        except Exception as error:
            raise PhotoError("The picture is broken or cut off.") from error
    rgb.info.clear()  # place, camera and profile of the photo
    return rgb


@lru_cache(maxsize=1)
def _installed_formats() -> list[str]:
    from pillow_heif import register_heif_opener  # where models are only trained, it need not be installed

    register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # Pillow has AVIF since 11.3, and not everywhere


def _begins_as_picture(source: str | Path | BinaryIO) -> bool:
    """Whether the first bytes are those of a format that can be read, so that what follows must be broken."""
    try:
        with open(source, "rb") if isinstance(source, str | Path) else nullcontext(source) as file:
            file.seek(0)
            prefix = file.read(16)
    except (OSError, ValueError):
        return False
    return any(accept(prefix) is True for _, accept in map(Image.OPEN.get, _installed_formats()) if accept)


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"The picture has {width} × {height} pixels; at most {MAX_PIXELS / 1e6:.0f} megapixels are accepted."
        )
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"The picture has only {width} × {height} pixels; at least {MIN_SIDE} × {MIN_SIDE} are needed."
        )


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF is no reason to refuse a picture that is whole
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):  # 32 bits a pixel and no agreed range: the picture's own
        levels = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        span = levels.max() - levels.min()
        return Image.fromarray(((levels - levels.min()) * (255 / (span or 1))).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return _to_srgb(picture).convert("RGB")


def _to_srgb(picture: Image.Image) -> Image.Image:
    """By the picture's colour profile, where it has one: phones save wider gamuts than sRGB, print shops CMYK."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "L", "CMYK"):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return picture
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # a profile that is broken, or another kind of picture's: the levels are taken as they are
        return picture
