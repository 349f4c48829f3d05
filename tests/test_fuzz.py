"""Picture files that no encoder would write: each gives a picture or a sentence, in bounded time and memory.

``STARGAN_FUZZ=20000`` asks for so many mutated files; ``make stress`` does.
"""

from __future__ import annotations

import io
import os
import random
import resource
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from multiprocessing import get_context

import pytest
from asking import report, wait_until
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from stargan.errors import PhotoError
from stargan.pictures.io import Budget, installed_formats, open_photo

FILES = int(os.environ.get("STARGAN_FUZZ", "800"))
# Processes that share them: a core each.
PARTS = min(4, os.cpu_count() or 1)
SECONDS, MEMORY = 5.0, 1_000_000_000
# Written in several ways each: the decoders for them differ.
ENCODERS: list[tuple[str, str, dict]] = [
    ("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True}), ("JPEG", "CMYK", {}), ("JPEG", "L", {"optimize": True}),
    ("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "1", {}), ("PNG", "I;16", {}),
    ("GIF", "P", {}), ("GIF", "P", {"save_all": True, "frames": 3}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}), ("WEBP", "RGB", {"save_all": True, "frames": 3}),
    ("BMP", "RGB", {}), ("BMP", "P", {}),
    ("TIFF", "RGB", {}), ("TIFF", "RGBA", {"compression": "tiff_lzw"}), ("TIFF", "L", {"compression": "jpeg"}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}), ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", {"compression": "packbits"}), ("TIFF", "RGB", {"save_all": True, "frames": 3}),
    ("AVIF", "RGB", {"speed": 10}), ("HEIF", "RGB", {}), ("HEIF", "RGBA", {}),
]  # fmt: skip


@cache
def encoded(number: int, described: bool) -> bytes:
    """A small picture by a real encoder; ``described`` gives it EXIF."""
    kind, mode, options = ENCODERS[number]
    picture = Image.radial_gradient("L").resize((48, 40)).convert("RGB" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = picture.convert("I").point(lambda level: level * 256).convert("I;16")
    options = dict(options)
    if frames := options.pop("frames", 0):
        options["append_images"] = [picture.rotate(90 * n) for n in range(1, frames)]
    if described and kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = 6, "a description"
        options["exif"] = exif
    out = io.BytesIO()
    installed_formats()  # HEIF's encoder comes with its decoder
    picture.save(out, kind, **options)
    return out.getvalue()


PLACES, BYTES = st.integers(0, 2**31), st.sampled_from(b"\0\1\2\x7f\x80\xda\xfe\xff")
NUMBERS = st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 7000, 50_000])
CHANGES = st.one_of(
    st.tuples(st.just("byte"), PLACES, BYTES | st.integers(0, 255)),
    st.tuples(st.just("word"), PLACES, NUMBERS),
    st.tuples(st.just("long"), PLACES, NUMBERS),
    st.tuples(st.just("cut"), PLACES, st.just(0)),
    st.tuples(st.just("drop"), PLACES, st.integers(1, 40)),
    st.tuples(st.just("again"), PLACES, st.integers(1, 2000)),
)


def changed(data: bytes, kind: str, place: int, value: int) -> bytes:
    at = (
        place % max(len(data), 1) if kind == "cut" or place % 3 else place % min(len(data) or 1, 200)
    )  # headers matter most
    if kind == "cut":
        return data[:at]
    if kind == "drop":
        return data[:at] + data[at + value :]
    if kind == "again":
        return data[:at] + data[at : at + 16] * value + data[at:]
    new = {"byte": bytes([value & 255]), "word": struct.pack("<H", value & 0xFFFF), "long": struct.pack(">I", value)}[
        kind
    ]
    return data[:at] + new + data[at + len(new) :]


OUTCOMES: Counter[str] = Counter()
MOST = {"seconds": 0.0, "bytes": 0}


def spent() -> float:
    """Seconds of the processor, by this process and those that it started."""
    return sum(os.times()[:4])


def judged(data: bytes) -> None:
    """It is a picture, or refused with a sentence; anything else is raised."""
    begin = spent()
    try:
        picture, sentence = open_photo(data), ""
    except PhotoError as error:
        picture, sentence = None, str(error)
    assert picture.mode == "RGB" if picture else 10 < len(sentence) < 200
    OUTCOMES["pictures" if picture else "sentences"] += 1
    MOST["seconds"] = max(MOST["seconds"], spent() - begin)
    assert spent() - begin < SECONDS


def own(who: int = resource.RUSAGE_SELF) -> int:
    """Bytes, the most that this process ever had."""
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def taken() -> int:
    """The same with the largest process that decoded for it."""
    return own() + own(resource.RUSAGE_CHILDREN)


@settings(max_examples=-(-FILES // PARTS), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, len(ENCODERS) - 1), st.booleans(), st.lists(CHANGES, min_size=1, max_size=6))
def fuzz(number: int, described: bool, changes: list) -> None:
    if ENCODERS[number][0] not in installed_formats():
        return
    data, before = encoded(number, described), taken()
    for change in changes:
        data = changed(data, *change)
    judged(data)
    MOST["bytes"] = max(MOST["bytes"], taken() - before)
    assert taken() - before < MEMORY


def part(number: int) -> tuple[Counter[str], dict[str, float]]:
    """In a process of its own: other files than the other parts'. What :data:`OUTCOMES` and :data:`MOST` came to."""
    seed(number)(fuzz)()
    return OUTCOMES, MOST


def test_mutated_files_give_a_picture_or_a_sentence() -> None:
    with get_context("spawn").Pool(PARTS) as pool:
        found = pool.map(part, [random.getrandbits(32) for _ in range(PARTS)], chunksize=1)
    outcomes = sum((counted for counted, _ in found), Counter())
    seconds, size = (max(most[key] for _, most in found) for key in ("seconds", "bytes"))
    report(
        "fuzz",
        f"{outcomes['pictures']} pictures and {outcomes['sentences']} sentences of mutated files; the slowest {seconds:.2f} s, the largest {size / 1e6:.0f} MB",
    )
    assert outcomes["pictures"] > 50
    assert outcomes["sentences"] > 50


# Files that are small, or at most 50 MB, and would take minutes or gigabytes.


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*more: bytes, side: int = 64, kind: int = 2, depth: int = 8) -> bytes:
    rows = zlib.compress(bytes((side * {2: 3, 6: 4}[kind] * depth // 8 + 1) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", rows) + chunk(b"IEND")


def jpeg(side: int = 64, before: bytes = b"", scans: int = 1, between: bytes = b"") -> bytes:
    out = io.BytesIO()
    Image.new("L", (side, side)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:2] + before + data[2:last] + (between + data[last:-2]) * scans + data[-2:]


def gif(extension: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("P", (64, 64)).save(out, "GIF")
    data = out.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1)
    return data[:at] + extension + data[at:]


def tiff(*tags: tuple[int, int, int, int], content: bytes = b"", room: int = 0) -> bytes:
    """Tag, type, count and value each, in any number; ``content`` follows the directory."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return (b"II*\0" + struct.pack("<I", 8) + directory).ljust(room, b"\0") + content


def square(side: int) -> list[tuple[int, int, int, int]]:
    return [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]


def overlapping(count: int, each: int) -> bytes:
    return tiff(*((1000 + n % 60_000, 7, each, 8) for n in range(count)), content=bytes(each))


def run_length_bmp(size: int) -> bytes:
    out = io.BytesIO()
    Image.new("P", (7000, 7000)).save(out, "BMP")
    start = struct.unpack("<I", out.getvalue()[10:14])[0]
    header = out.getvalue()[:start]
    return header[:30] + struct.pack("<I", 1) + header[34:] + b"\0\2\0\0" * (size // 4)


DEAR: dict[str, Callable[[], bytes]] = {
    "a thousand scans over 49 megapixels": lambda: jpeg(7000, scans=1000),
    "scans in what libjpeg does not skip": lambda: jpeg(7000, scans=1000, between=b"\xff\x01\xff\xff"),
    "scans behind a reserved marker": lambda: jpeg(7000, scans=1000, between=b"\xff\x02\xff\xff"),
    "scans behind what the first one's header holds": lambda: jpeg(7000, scans=1000).replace(
        b"\xff\xda\0\x08\x01\x01\0", b"\xff\xda\0\x08\x01\xff\xd9", 1
    ),
    "EXIF in 400,000 parts": lambda: jpeg(before=(b"\xff\xe1\0\x09Exif\0\0x") * 400_000),
    "ten million comments": lambda: jpeg(before=b"\xff\xfe\0\2" * 10_000_000),
    "40 MB of fill bytes": lambda: jpeg(before=b"\xff" * 40_000_000),
    "millions of empty image chunks": lambda: png(chunk(b"IDAT") * 4_000_000),
    "millions of texts": lambda: png(chunk(b"tEXt", b"a\0") * 3_000_000),
    "millions of private chunks": lambda: png(chunk(b"prIv") * 4_000_000),
    "comments of a GIF": lambda: gif(b"!\xfe\1x\0" * 400_000),
    "a long comment of a GIF": lambda: gif(b"!\xfe" + (b"\xff" + b"x" * 255) * 60_000 + b"\0"),
    "40 MB of runs": lambda: run_length_bmp(40_000_000),
    "a directory whose entries overlap": lambda: overlapping(65_535, 40_000_000),
    "some entries that overlap": lambda: overlapping(900, 40_000_000),
    "twelve million strips": lambda: tiff(
        *square(64), (259, 3, 1, 1), (273, 4, 6_000_000, 200), (278, 4, 1, 1), (279, 4, 6_000_000, 200),
        room=200, content=bytes(48_000_000),
    ),
    "a tile of 2 gigapixels": lambda: tiff(
        *square(64), (259, 3, 1, 8), (322, 4, 1, 46_000), (323, 4, 1, 46_000), (324, 4, 1, 200), (325, 4, 1, 4_000_000),
        room=200, content=zlib.compress(bytes(400_000_000), 9),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEAR)
def test_what_would_take_minutes_or_gigabytes_is_refused_at_once(name: str) -> None:
    data, before, begin = DEAR[name](), taken(), time.process_time()
    with pytest.raises(PhotoError, match="too long to read"):
        open_photo(data)
    assert time.process_time() - begin < 0.5
    assert taken() - before < 100_000_000


def test_a_film_behind_a_photo_is_no_part_of_it() -> None:
    """Which phones put there, and any pair of bytes is in it."""
    assert open_photo(jpeg(7000, scans=9) + b"\xff\xda" * 1_000_000).size == (7000, 7000)


def test_overlapping_exif_is_not_read() -> None:
    exif = tiff(*((1000 + n, 7, 800_000, 8) for n in range(900)), (0x0112, 3, 1, 6), content=bytes(900_000))
    before = taken()
    judged(png(chunk(b"eXIf", exif)))
    assert taken() - before < 100_000_000


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_large_and_transparent(kind: str) -> None:
    """Decoded and put on white within what a decoder may take; here, there is the picture alone, of 4 bytes a pixel."""
    out = io.BytesIO()
    Image.new("RGBA", (7000, 7000), (255, 0, 0, 128)).save(
        out, kind, **({"lossless": True, "method": 0} if kind == "WEBP" else {})
    )
    data = out.getvalue()
    read, write = os.pipe()
    if (child := os.fork()) == 0:  # the most that a process ever had is its own
        try:
            picture, begin = None, own()
            picture = open_photo(data)
            os.write(write, f"{own() - begin} {picture.getpixel((0, 0))}".encode())
        finally:
            os._exit(0)
    os.close(write)
    memory, _, colour = os.read(read, 100).decode().partition(" ")
    os.waitpid(child, 0)
    assert colour in ("(255, 127, 127)", "(255, 128, 128)")
    assert int(memory) < 250_000_000


def test_pixels_wait_for_their_turn() -> None:
    budget, most, done = Budget(100), [0], []

    def decode(pixels: int) -> None:
        with budget.taking(pixels):
            most[0] = max(most[0], budget.used)
            time.sleep(0.02)
        done.append(pixels)

    sizes = [60, 60, 30, 30, 10, 49, 49, 100]
    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(done) == sorted(sizes)
    assert most[0] <= 100
    with budget.taking(500):  # alone, more than all goes
        assert budget.used == 500
        with pytest.raises(RuntimeError, match="already"), budget.taking(1):
            pass
        with budget.taking(0):  # nor does what takes nothing wait
            pass
    assert budget.used == 0


def test_a_large_picture_is_not_overtaken_for_ever() -> None:
    budget, order = Budget(100), []

    def decode(pixels: int) -> None:
        with budget.taking(pixels):
            order.append(pixels)

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in (90, 10, 11)]
    with budget.taking(50):
        for count, thread in enumerate(threads, start=1):
            thread.start()
            assert wait_until(lambda count=count: budget.waiting == count, 10)
        assert order == []  # the small ones would fit
    for thread in threads:
        thread.join(10)
    assert order[0] == 90
    assert sorted(order) == [10, 11, 90]
