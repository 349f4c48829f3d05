"""Untrusted pictures, and what results say of themselves."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps, PngImagePlugin
from pillow_heif import register_heif_opener

import stargan
from stargan.page import texts
from stargan.pictures import io as images
from stargan.pictures.io import MAX_BYTES, MIN_SIDE, PhotoError, open_photo
from stargan.pictures.provenance import Provenance, read_provenance, save_picture
from stargan.pictures.tensors import grid, to_pictures, to_tensor

# Pillow grumbles at damage, besides refusing it
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

register_heif_opener()

EMPTY = "The file is empty."
NO_PICTURE = "The file is not a picture, or of a kind that cannot be read."
BROKEN = "The picture is broken or cut off."
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def small(portrait: Image.Image) -> Image.Image:
    """72×96, of smooth colours, so that lossy formats keep them."""
    return portrait.crop((120, 0, 360, 320)).resize((72, 96), Image.Resampling.BOX)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def distance(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference in levels."""
    assert a.size == b.size
    assert a.mode == b.mode == "RGB"
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def refusal(data: bytes | Path) -> str:
    with pytest.raises(PhotoError) as caught:
        open_photo(data)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


# what is taken


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 4),
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
        ("HEIF", {"quality": 95}, 4),
        ("GIF", {}, 12),
    ],
)
def test_formats_of_phones_and_browsers(small: Image.Image, kind: str, options: dict, tolerance: float) -> None:
    assert distance(open_photo(encoded(small, kind, **options)), small) <= tolerance


def test_path_bytes_and_file_are_the_same(small: Image.Image, tmp_path: Path) -> None:
    data = encoded(small, "PNG")
    path = tmp_path / "no extension needed"
    path.write_bytes(data)
    with path.open("rb") as file:
        opened = [open_photo(source) for source in (data, io.BytesIO(data), path, str(path), file)]
    assert all(distance(picture, small) == 0 for picture in opened)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_its_exif_says(small: Image.Image, kind: str, orientation: int) -> None:
    # what a camera held in that orientation stores: the undone turn
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = small.transpose(undo[orientation]) if orientation in undo else small
    if kind == "HEIF":  # its writer takes an upright picture and stores the turn itself
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = encoded(stored, kind, quality=95, exif=exif.tobytes())
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
        data = encoded(stored, kind, exif=exif, **options)
    assert distance(open_photo(data), small) < 5


def test_broken_exif_is_no_reason_to_refuse(small: Image.Image) -> None:
    data = encoded(small, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 20)
    assert distance(open_photo(data), small) < 4


def test_transparency_becomes_white(small: Image.Image) -> None:
    clear = small.convert("RGBA")
    alpha = Image.new("L", small.size, 255)
    alpha.paste(0, (0, 0, 36, 96))
    clear.putalpha(alpha)
    whitened = small.copy()
    whitened.paste("white", (0, 0, 36, 96))
    assert distance(open_photo(encoded(clear, "PNG")), whitened) == 0
    assert distance(open_photo(encoded(clear, "WEBP", lossless=True, exact=True)), whitened) == 0
    gray = open_photo(encoded(clear.convert("LA"), "PNG"))
    assert distance(gray, ImageOps.grayscale(whitened).convert("RGB")) < 0.6


def test_palette_with_a_transparent_colour() -> None:
    picture = Image.new("P", (32, 32), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 16, 32))
    for kind in ("PNG", "GIF"):
        opened = open_photo(encoded(picture, kind, transparency=0))
        assert opened.getpixel((4, 4)) == (255, 255, 255)
        assert opened.getpixel((24, 4)) == (0, 0, 255)


def test_rgb_with_a_transparent_colour() -> None:
    picture = Image.new("RGB", (32, 32), (1, 2, 3))
    assert open_photo(encoded(picture, "PNG", transparency=(1, 2, 3))).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_levels(small: Image.Image, mode: str) -> None:
    picture = small.convert(mode)
    assert distance(open_photo(encoded(picture, "PNG")), picture.convert("RGB")) == 0


def test_cmyk(small: Image.Image) -> None:
    assert distance(open_photo(encoded(small.convert("CMYK"), "JPEG", quality=95)), small) < 5
    assert distance(open_photo(encoded(small.convert("CMYK"), "TIFF")), small) < 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits(small: Image.Image, kind: str) -> None:
    gray = ImageOps.grayscale(small)
    wide = Image.fromarray(np.asarray(gray, dtype=np.uint16) * 257)
    assert wide.mode == "I;16"
    assert distance(open_photo(encoded(wide, kind)), gray.convert("RGB")) <= 1


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_levels_without_a_white_are_spread(dtype: type) -> None:
    ramp = np.linspace(-3, 900, 64 * 64).reshape(64, 64).astype(dtype)
    opened = np.asarray(open_photo(encoded(Image.fromarray(ramp), "TIFF")))
    assert opened.min() == 0
    assert opened.max() == 255
    assert (np.diff(opened[:, :, 0].astype(int).ravel()) >= 0).all()
    flat = Image.fromarray(np.full((32, 32), np.nan if dtype is np.float32 else 7, dtype))
    assert open_photo(encoded(flat, "TIFF")).getextrema() == ((0, 0),) * 3


def animated(kind: str) -> bytes:
    """Three frames: red, green, blue."""
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100, **options)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind: str) -> None:
    data = animated(kind)
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 3
    assert open_photo(data).getpixel((20, 20)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
def test_a_picture_that_somebody_has_open_stays_as_it_is(kind: str) -> None:
    """As it is now: edited, or moved on to another frame."""
    with Image.open(io.BytesIO(animated(kind))) as picture:
        for _ in range(2):
            assert open_photo(picture).getpixel((20, 20)) == (255, 0, 0)
        picture.seek(1)
        picture.load()
        assert open_photo(picture).getpixel((20, 20)) == (0, 255, 0)
        picture.paste(Image.new("RGB", (40, 40), "blue"))
        assert open_photo(picture).getpixel((20, 20)) == (0, 0, 255)
        picture.seek(2)
        assert picture.convert("RGB").getpixel((20, 20)) == (0, 0, 255)


def test_colour_profile_is_followed() -> None:
    swapped = swapped_profile()
    green = Image.new("RGB", (32, 32), (0, 255, 0))
    shown = open_photo(encoded(green, "PNG", icc_profile=swapped)).getpixel((9, 9))
    assert shown[0] > 250
    assert shown[1] < 5
    for mode, kind in (("RGBA", "PNG"), ("P", "PNG"), ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "TIFF")):
        lossless = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(green.convert(mode), kind, icc_profile=swapped, **lossless)
        assert open_photo(data).getpixel((9, 9)) == shown, (mode, kind)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for harmless in (srgb, b"no profile", swapped[:200]):
        assert open_photo(encoded(green, "PNG", icc_profile=harmless)).getpixel((9, 9)) == (0, 255, 0)


def swapped_profile() -> bytes:
    """sRGB with the tags of its red and green primaries exchanged: what it calls green is red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red], profile[green] = ord("g"), ord("r")
    name = profile.index("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "Swap".encode("utf-16-be")
    return bytes(profile)


def test_nothing_of_the_photo_s_metadata_stays(small: Image.Image, tmp_path: Path) -> None:
    data = photo_with_a_place(small)
    assert b"Camera" in data
    opened = open_photo(data)
    assert opened.info == {}
    opened.save(tmp_path / "crop.png")
    assert_no_trace(tmp_path / "crop.png")


def photo_with_a_place(picture: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    exif.get_ifd(0x8825)[1] = "N"
    return encoded(picture, "JPEG", exif=exif, comment=b"Camera comment", xmp=b"<x>Camera</x>")


def assert_no_trace(path: Path) -> None:
    assert b"Camera" not in path.read_bytes()
    assert b"eXIf" not in path.read_bytes()
    with Image.open(path) as picture:
        assert not picture.getexif()
        assert "icc_profile" not in picture.info


# what is refused


def test_size_is_judged_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda *_: decoded.append(1))
    assert refusal(png_header(12_000, 12_000)).startswith("The picture has 12000 × 12000 pixels; at most 50 megapixels")
    assert "at most 50 megapixels" in refusal(png_header(40_000, 40_000))
    assert "at most 50 megapixels" in refusal(png_header(50_000_001, 1))
    assert "has only 1 × 1 pixels" in refusal(png_header(1, 1))
    assert not decoded


def test_too_small(small: Image.Image) -> None:
    least = small.crop((0, 0, MIN_SIDE, MIN_SIDE))
    assert open_photo(encoded(least, "PNG")).size == (MIN_SIDE, MIN_SIDE)
    for size in ((1, 1), (MIN_SIDE - 1, 200)):
        sentence = refusal(encoded(Image.new("RGB", size), "PNG"))
        assert f"has only {size[0]} × {size[1]} pixels" in sentence


def test_file_size(tmp_path: Path) -> None:
    heavy = tmp_path / "heavy.png"
    with heavy.open("wb") as file:
        file.truncate(MAX_BYTES + 1_000_000)
    assert refusal(heavy) == "The file has 51 MB; at most 50 MB are accepted."
    assert refusal(bytes(MAX_BYTES + 1_000_000)) == refusal(heavy)


def test_no_pictures(tmp_path: Path) -> None:
    assert refusal(b"") == EMPTY
    (tmp_path / "empty.jpg").touch()
    assert refusal(tmp_path / "empty.jpg") == EMPTY
    assert refusal(tmp_path / "missing.jpg") == "The picture file cannot be read."
    for other in (b"a", b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7\n", bytes(1000)):
        assert refusal(other) == NO_PICTURE
    # Pillow would start Ghostscript for it
    assert refusal(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n") == NO_PICTURE
    with pytest.raises(PhotoError):
        open_photo(tmp_path)


def test_every_refusal_is_translated(small: Image.Image) -> None:
    sources = [b"", b"text", png_header(12_000, 12_000), png_header(40_000, 40_000), png_header(3, 3)]
    sources += [encoded(small, "PNG")[:-2000], bytes(MAX_BYTES + 1)]
    for source in sources:
        with pytest.raises(PhotoError) as refused:
            open_photo(source)
        error = refused.value
        assert str(error) == texts.say(error.key, "en", **error.values)
        assert texts.say(error.key, "ja", **error.values) != str(error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_cut_off_half_way(small: Image.Image, kind: str) -> None:
    data = encoded(small, kind)
    assert refusal(data[: len(data) // 2]) == BROKEN
    assert refusal(data[:20]) == BROKEN


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF"])
def test_damage_gives_a_picture_or_a_sentence(small: Image.Image, kind: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    data = encoded(small, kind, **options)
    dice = random.Random(kind)
    damaged = [data[: dice.randrange(len(data))] for _ in range(30)]
    for reach in (64, 400, len(data)):  # headers, where decoders are most surprised, and anywhere
        for _ in range(20):
            changed = bytearray(data)
            for _ in range(dice.choice((1, 4, 16))):
                changed[dice.randrange(min(reach, len(data)))] = dice.randrange(256)
            damaged.append(bytes(changed))
    outcomes = {outcome(file) for file in damaged}
    assert "sentence" in outcomes


def outcome(data: bytes) -> str:
    try:
        picture = open_photo(data)
    except PhotoError:
        return "sentence"
    assert picture.mode == "RGB"
    assert min(picture.size) >= MIN_SIDE
    return "picture"


def test_a_missing_decoder_disables_its_format_alone(small: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    images.installed_formats.cache_clear()
    try:
        with monkeypatch.context() as patch:
            patch.delitem(Image.OPEN, "AVIF", raising=False)
            patch.setattr(Image, "init", lambda: True)
            assert "AVIF" not in images.installed_formats()
            assert distance(open_photo(encoded(small, "BMP")), small) == 0
    finally:
        images.installed_formats.cache_clear()


# tensors and grids


def test_tensors_and_back(small: Image.Image) -> None:
    tensor = to_tensor([small, ImageOps.mirror(small)])
    assert tensor.shape == (2, 3, 96, 72)
    assert tensor.dtype == torch.float32
    assert tensor.min() >= -1
    assert tensor.max() <= 1
    assert distance(to_pictures(tensor)[0], small) == 0
    extremes = to_pictures(torch.tensor([-7.0, -1, 0, 1, 7]).expand(1, 3, 1, 5))[0]
    assert [extremes.getpixel((x, 0))[0] for x in range(5)] == [0, 0, 128, 255, 255]


def test_grid(small: Image.Image) -> None:
    sheet = grid([[None, small], [small.resize((36, 48)), small]], gap=2)
    assert sheet.size == (2 * 72 + 2, 2 * 96 + 2)
    assert sheet.getpixel((10, 10)) == (255, 255, 255)
    assert distance(sheet.crop((74, 98, 146, 194)), small) == 0


# results


@pytest.mark.parametrize(
    ("composite", "term"), [(False, "trainedAlgorithmicMedia"), (True, "compositeWithTrainedAlgorithmicMedia")]
)
def test_a_result_says_that_it_is_synthetic(small: Image.Image, tmp_path: Path, composite: bool, term: str) -> None:
    said = Provenance("anime-128", seed=7, details={"domain": "anime", "psi": "0.7"}, composite=composite)
    path = str(tmp_path / "result.png")
    save_picture(small, path, said)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert distance(picture.convert("RGB"), small) == 0
        assert {"seed": "7", "model": "anime-128"}.items() <= picture.text.items()
        packet = picture.text["XML:com.adobe.xmp"]
    # as exiftool and others look for it
    assert 'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"' in packet
    uri = f"http://cv.iptc.org/newscodes/digitalsourcetype/{term}"
    assert f"<Iptc4xmpExt:DigitalSourceType>{uri}</Iptc4xmpExt:DigitalSourceType>" in packet
    assert read_provenance(path) == said.texts()
    assert said.texts() == {
        "Software": f"stargan {stargan.__version__}",
        "model": "anime-128",
        "seed": "7",
        "domain": "anime",
        "psi": "0.7",
        "DigitalSourceType": uri,
    }


def test_any_name_can_be_said(small: Image.Image, tmp_path: Path) -> None:
    said = Provenance("<a & 'b' \"c\"> アニメ", details={"note": "ψ ≤ 1\nsecond line"})
    save_picture(small, tmp_path / "x.png", said)
    assert read_provenance(tmp_path / "x.png") == said.texts()


def test_a_result_carries_nothing_of_the_photo(small: Image.Image, tmp_path: Path) -> None:
    with Image.open(io.BytesIO(photo_with_a_place(small))) as photo:
        photo.load()
    photo.info["icc_profile"] = swapped_profile()
    save_picture(photo, tmp_path / "result.png", Provenance("anime-128", seed=0))
    assert_no_trace(tmp_path / "result.png")


def test_other_pictures_say_nothing(small: Image.Image, tmp_path: Path) -> None:
    for name in ("plain.png", "plain.jpg"):
        small.save(tmp_path / name)
        assert read_provenance(tmp_path / name) == {}


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("JPEG", "a.jpg", True),
        ("HEIF", "a.jpg", False),
        ("TIFF", "a.png", False),
        ("JPEG", "a.heic", False),
        ("HEIF", "a.heic", False),
    ],
)
def test_what_browsers_show_is_known_by_name_and_content(
    small: Image.Image, tmp_path: Path, kind: str, name: str, shown: bool
) -> None:
    small.convert("RGB").save(tmp_path / name, kind)
    assert images.is_shown(tmp_path / name) == shown
