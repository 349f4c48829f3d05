"""Large pictures are decoded in a process of their own, which is cut off, or dies, alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
from asking import wait_until
from PIL import Image

from stargan.errors import PhotoError
from stargan.page import texts
from stargan.pictures import apart
from stargan.pictures.io import SMALL, UNDER_WAY, installed_formats, open_file, open_photo

ROOT = Path(__file__).resolve().parents[1]
KINDS: dict[str, tuple[str, dict]] = {
    "JPEG": ("CMYK", {"progressive": True}),
    "PNG": ("RGBA", {"compress_level": 1}),
    "WEBP": ("RGBA", {"lossless": True, "method": 0}),
    "TIFF": ("F", {"compression": "tiff_lzw"}),
    "GIF": ("P", {}),
    "AVIF": ("RGB", {"speed": 10}),
    "HEIF": ("RGBA", {"quality": 40}),
}


@cache
def encoded(kind: str, side: int) -> bytes:
    mode, options = KINDS[kind]
    picture = Image.merge(
        "RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256), 9)]
    )
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").rotate(90))
    picture = picture.resize((side, side // 2)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 3
    out = io.BytesIO()
    installed_formats()
    picture.save(out, kind, **options, **({} if kind in ("GIF", "HEIF") else {"exif": exif}))
    return out.getvalue()


def refusal(error: pytest.ExceptionInfo[PhotoError]) -> str:
    """Its key; it has a sentence in each language."""
    key = error.value.key
    assert texts.say(key, "ja") != texts.say(key, "en") == str(error.value)
    return key


def decoders() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended
            if "apart" in " ".join(child.cmdline()):
                found.append(child)
    return found


def interrupted(number: int) -> list[str]:
    """The refusals of a picture whose decoder gets a signal while it decodes."""
    data, keys = encoded("PNG", 9000), []

    def ask() -> None:
        with pytest.raises(PhotoError) as error:
            open_photo(data)
        keys.append(refusal(error))

    asking = threading.Thread(target=ask)
    asking.start()
    assert wait_until(lambda: bool(decoders()), 30, 0.001)
    os.kill(decoders()[0].pid, number)
    asking.join(60)
    return keys


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_picture(kind: str) -> None:
    if kind not in installed_formats():
        pytest.skip(f"no {kind} here")
    data = encoded(kind, 7000 if kind in SMALL else 300)
    picture, here = apart.decode(data), open_file(data, here=True)
    assert picture.mode == here.mode == "RGB"
    assert picture.size == here.size
    assert np.array_equal(np.asarray(picture), np.asarray(here))
    assert picture.info == {}


def test_what_is_refused_is_refused_with_its_values() -> None:
    out = io.BytesIO()
    Image.new("RGB", (9, 400)).save(out, "PNG")
    with pytest.raises(PhotoError, match="only 9 × 400 pixels"):
        apart.decode(out.getvalue())


def test_small_ones_are_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "decode", None)
    assert open_photo(encoded("JPEG", 4000)).width == 4000
    assert open_photo(encoded("WEBP", 2000)).width == 2000


def test_where_there_are_no_limits_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "POSSIBLE", False)
    monkeypatch.setattr(apart, "decode", None)
    assert open_photo(encoded("HEIF", 300)).width == 300


@pytest.mark.parametrize(
    "limits", [{"seconds": 0.05}, {"memory": 30_000_000}, {"patience": 0.2}], ids=lambda limits: next(iter(limits))
)
def test_too_much_is_cut_off(limits: dict) -> None:
    data = encoded("PNG", 9000)
    with pytest.raises(PhotoError) as error:
        apart.decode(data, **limits)
    assert refusal(error) == "photo_costly"
    assert decoders() == []
    assert apart.decode(data).size == (9000, 4500)


def test_one_that_is_killed_is_lost_alone() -> None:
    assert interrupted(signal.SIGKILL) == ["photo_costly"]
    assert open_photo(encoded("PNG", 9000)).size == (9000, 4500)
    assert UNDER_WAY.used == 0
    assert decoders() == []


def test_one_that_crashes_was_of_a_broken_file() -> None:
    assert interrupted(signal.SIGSEGV) == ["photo_broken"]


def test_at_most_two_at_once() -> None:
    data, most, pictures = encoded("JPEG", 7000), [0], []
    threads = [threading.Thread(target=lambda: pictures.append(open_photo(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most[0] = max(most[0], len(decoders()))
    assert len(pictures) == 4
    assert most[0] == 2


def test_a_script_is_not_run_again_and_the_working_directory_not_trusted(tmp_path: Path) -> None:
    """multiprocessing would do the first, ``python -m`` the second."""
    (tmp_path / "json.py").write_text("print('planted')")
    (tmp_path / "photo.heic").write_bytes(encoded("HEIF", 300))
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text("print('run')\nimport stargan\nprint(stargan.open_photo('photo.heic').size)")
    ran = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("run\n(300, 150)\n", "")


def test_from_a_prompt_in_a_checkout(tmp_path: Path) -> None:
    """Where the package is found by the working directory alone."""
    (tmp_path / "photo.heic").write_bytes(encoded("HEIF", 300))
    code = f"import stargan; print(stargan.open_photo({str(tmp_path / 'photo.heic')!r}).size)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("(300, 150)\n", "")


def test_it_needs_no_torch() -> None:
    code = "import sys, stargan.pictures.io, stargan.pictures.apart; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "False\n"
