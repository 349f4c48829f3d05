"""Files that are small and dear: what their structure says is judged before a decoder believes it.

Decoders bound a picture's size, but not what else a file may ask of them: hundreds of scans over the same pixels, millions of
empty chunks, a directory whose thousands of entries all point to the same megabytes, comments that are joined one by one.
Each of these took from 4 seconds to minutes, or gigabytes. No encoder that people use comes near any of these limits.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

# Passes over a picture times its pixels. An encoder makes about ten; 50 of 50 megapixels take two seconds.
MAX_SCANNED = 2_500_000_000
# Chunks of a PNG; 50 MB are 6,400 of the usual size. Markers before a JPEG's picture, of which a profile takes up to 255, and in it.
MAX_CHUNKS, MAX_MARKERS = 50_000, 1_000
# Bytes between a JPEG's markers.
MAX_JUNK = 10_000
# Bytes of EXIF, of a colour profile, of what comes before the picture of a GIF.
MAX_EXIF, MAX_PROFILE, MAX_PRELUDE = 1_000_000, 4_000_000, 1_000_000
# Bytes of numbers in a TIFF's directory, each of which becomes an object; pixels of a tile.
MAX_NUMBERS, MAX_TILE = 4_000_000, 50_000_000
# Bytes of a file: what takes longest for each byte. A telephone's 48 megapixels take up to 10 MB.
MAX_FILE = {"AVIF": 25_000_000, "HEIF": 25_000_000}
# Bytes of a run-length encoded BMP, which is decoded by an interpreter.
MAX_RUNS = 5_000_000

# A JPEG's markers without a length.
_ALONE = frozenset((0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
# What is no level within a scan, nor a mark to begin again at.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)
# Bytes of a TIFF value by its type, and the types that stay bytes.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_BYTES = (1, 2, 7)
_COMPRESSION, _TILE_WIDTH, _TILE_HEIGHT = 259, 322, 323


def affordable(kind: str, data: bytes, pixels: int) -> bool:
    """Whether a file of a format of :data:`stargan.pictures.io.FORMATS` asks for no more than pictures do.

    Args:
        pixels: width times height, by the header; 0 before it is known, when only what precedes the picture is judged.
    """
    try:
        return len(data) <= MAX_FILE.get(kind, len(data)) and CHECKS.get(kind, _anything)(data, pixels)
    except (IndexError, ValueError, struct.error):  # cut off: the decoder says so
        return True


def affordable_exif(exif: bytes) -> bool:
    """Whether a picture's EXIF, a TIFF's directory itself, can be read."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        return len(exif) <= MAX_EXIF and _tiff(exif, 0)
    except (IndexError, struct.error):
        return False


def _anything(_data: bytes, _pixels: int) -> bool:
    return True


def _jpeg(data: bytes, pixels: int) -> bool:
    """The markers as Pillow finds them, which skips what is none byte by byte."""
    at, markers, junk, exif = 2, 0, 0, 0
    while markers < MAX_MARKERS and junk < MAX_JUNK and exif < MAX_EXIF:
        found = data.index(b"\xff", at)
        junk += found - at
        at, marker = found + 2, data[found + 1]
        if marker == 0xFF:
            at, junk = at - 1, junk + 1
        elif marker == 0:
            junk += 2
        elif marker == 0xDA:
            return _scans(data, at) * pixels <= MAX_SCANNED
        else:
            markers += 1
            if marker not in _ALONE:
                (length,) = struct.unpack_from(">H", data, at)
                exif += length if marker == 0xE1 and data[at + 2 : at + 8] == b"Exif\0\0" else 0
                at += max(length, 2)
    return False


def _scans(data: bytes, at: int) -> int:
    """Of a JPEG's picture, the first one's header being at ``at``, up to its end: a phone puts a film or further pictures behind."""
    scans, at = 1, at + max(struct.unpack_from(">H", data, at)[0], 2)
    for _ in range(MAX_MARKERS):
        if (found := _MARKER.search(data, at)) is None or found[1] == b"\xd9":
            return scans
        marker, at = found[1][0], found.end()
        scans += marker == 0xDA
        # where libjpeg finds its way back into a scan, it skips no length of reserved ones
        if marker >= 0xC0 and marker not in _ALONE and at + 2 <= len(data):
            at += max(struct.unpack_from(">H", data, at)[0], 2)
    return MAX_SCANNED


def _png(data: bytes, _pixels: int) -> bool:
    at = 8
    for _ in range(MAX_CHUNKS):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or (kind in (b"eXIf", b"iCCP") and length > MAX_PROFILE):
            return kind == b"IEND"
        at += 12 + length
    return False


def _gif(data: bytes, _pixels: int) -> bool:
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    blocks = 0
    while data[at] == 0x21:  # extensions, comments among them, each in blocks of up to 255 bytes
        at += 2
        while data[at]:
            at, blocks = at + 1 + data[at], blocks + 1
            if at > MAX_PRELUDE or blocks > MAX_CHUNKS:
                return False
        at += 1
        if at > MAX_PRELUDE:
            return False
    return True


def _bmp(data: bytes, _pixels: int) -> bool:
    header, compression = struct.unpack_from("<I12xI", data, 14)
    return header == 12 or compression not in (1, 2) or len(data) <= MAX_RUNS


def _tiff(data: bytes, pixels: int) -> bool:
    """Of its first page's directory: values that are where others are, too, are read as often."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    entry, step = (order + "HHQ", 20) if big else (order + "HHI", 12)
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if count > MAX_MARKERS:
        return False
    start += 8 if big else 2
    plain = numbers = 0
    tile = {_TILE_WIDTH: 1, _TILE_HEIGHT: 1}
    for at in range(start, start + count * step, step):
        tag, kind, values = struct.unpack_from(entry, data, at)
        taken = values * _SIZES.get(kind, 1)
        plain, numbers = (plain + taken, numbers) if kind in _BYTES else (plain, numbers + taken)
        value = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + struct.calcsize(entry))[0]
        if tag in tile:
            tile[tag] = value
        if tag == _COMPRESSION and value in (6, 7) and data.count(b"\xff\xda") * pixels > MAX_SCANNED:
            return False
    return plain <= len(data) and numbers <= MAX_NUMBERS and tile[_TILE_WIDTH] * tile[_TILE_HEIGHT] <= MAX_TILE


CHECKS: dict[str, Callable[[bytes, int], bool]] = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "BMP": _bmp, "TIFF": _tiff}
