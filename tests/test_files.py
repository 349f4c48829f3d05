"""Uploads and results on disk: nothing gets older than an hour, whatever happened to the app that wrote it."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image

from stargan.drawing import Drawn, Prepared, Source, Styles
from stargan.page.files import MAX_AGE, SWEEP_EVERY, Files
from stargan.page.memory import pixels_in


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000.0  # before any real time: what is written meanwhile is new

    def __call__(self) -> float:
        return self.now


def changed(about: os.stat_result) -> float:
    """In the place of when a file came, which tests cannot set."""
    return about.st_mtime


def left(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix().split("/")[-1] for path in root.rglob("*") if path.is_file()}


def aged(path: Path, now: float) -> Path:
    os.utime(path, (now, now))
    os.utime(path.parent, (now, now))
    return path


def test_visitors_are_told_an_hour() -> None:
    assert MAX_AGE + SWEEP_EVERY < 3600


def test_what_is_old_goes_with_its_folder(tmp_path: Path) -> None:
    clock = Clock()
    files = Files(tmp_path / "files", clock, changed)
    old = aged(Path(files.write("old.png", b"x")), clock.now)
    clock.now += MAX_AGE - 1
    new = aged(Path(files.write("new.png", b"x")), clock.now)
    assert files.sweep() == 0
    clock.now += 2
    assert files.sweep() == 1
    assert left(files.root) == {"new.png"}
    os.utime(old.parent, (clock.now, clock.now))  # the system's own clock is another
    clock.now += 61
    files.sweep()
    assert not old.parent.exists()  # empty for a minute
    assert new.parent.exists()
    clock.now += MAX_AGE
    files.sweep()
    os.utime(new.parent, (clock.now, clock.now))
    clock.now += 61
    files.sweep()
    assert list(files.root.iterdir()) == []


def test_what_a_killed_app_left_goes_at_the_next_start(tmp_path: Path) -> None:
    clock = Clock()
    root = tmp_path / "files"
    upload = root / "0123" / "photo.jpg"  # as gradio writes it
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"x")
    aged(upload, clock.now - 7200)
    Files(root, clock, changed).sweep()
    assert left(root) == set()


def test_a_folder_that_is_about_to_be_written_to_stays(tmp_path: Path) -> None:
    clock = Clock()
    files = Files(tmp_path / "files", clock, changed)
    path = files.fresh("x.png")
    os.utime(path.parent, (clock.now, clock.now))
    files.sweep()
    path.write_bytes(b"x")


def test_a_clock_that_is_set_back_begins_the_hour_anew(tmp_path: Path) -> None:
    clock = Clock()
    files = Files(tmp_path / "files", clock, changed)
    aged(Path(files.write("x.png", b"x")), clock.now + 86_400)
    files.sweep()
    assert left(files.root) == {"x.png"}
    clock.now += MAX_AGE + 1
    files.sweep()
    assert left(files.root) == set()


def test_a_file_comes_when_it_is_written_whatever_its_content_says(tmp_path: Path) -> None:
    """As gradio copies an example: with the time of the original."""
    files = Files(tmp_path / "files")
    copy = Path(files.write("example.png", b"x"))
    os.utime(copy, (0, 0))
    assert files.sweep() == 0
    assert copy.exists()


def test_what_the_page_needs_as_long_as_it_runs_stays(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = time.time()
    files = Files(tmp_path / "files", clock, changed)
    example, upload = (aged(Path(files.write(f"{n}.png", b"x")), clock.now - 7200) for n in ("example", "upload"))
    files.kept = lambda: [str(example), str(tmp_path / "gone.png")]
    assert files.sweep() == 1
    assert (example.exists(), upload.exists()) == (True, False)


def test_sweeping_while_files_come(tmp_path: Path) -> None:
    clock = Clock()
    files, stop, faults = Files(tmp_path / "files", clock, changed), threading.Event(), []

    def write() -> None:
        try:
            while not stop.wait(0.005):
                path = Path(files.write("x.png", b"x"))
                with suppress(FileNotFoundError):  # it was swept meanwhile
                    os.utime(path, (clock.now - MAX_AGE - 1,) * 2)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    deleted = 0
    for _ in range(20):
        time.sleep(0.02)
        deleted += files.sweep()
    stop.set()
    for thread in threads:
        thread.join()
    assert deleted > 0
    assert faults == []


@pytest.mark.parametrize("whose", ["link", "open", "inner link"])
def test_a_folder_that_somebody_else_made_first_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Where anybody may write: they would see the uploads, and the sweep would delete what a link leads to."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "mine").mkdir()
    folder = tmp_path / "tmp" / "stargan-0"
    folder.parent.mkdir()
    if whose == "link":
        folder.symlink_to(tmp_path / "mine")
    else:
        folder.mkdir()
        if whose == "open":
            folder.chmod(0o777)
        else:
            (folder / "files").symlink_to(tmp_path / "mine")
    with pytest.raises(
        OSError, match=r"Uploads and results cannot be kept in .*: name another folder in GRADIO_TEMP_DIR"
    ):
        Files(folder / "files")
    if whose == "open":
        folder.chmod(0o755)
        Files(folder / "files")
    Files(tmp_path / "tmp" / "stargan-1" / "files")
    assert (tmp_path / "tmp" / "stargan-1").stat().st_mode & 0o777 == 0o700


def test_a_requests_pixels_are_counted_by_the_headers_of_its_photos(tmp_path: Path) -> None:
    files = Files(tmp_path / "files")

    def photo(width: int) -> str:
        path = files.fresh("photo.png")
        Image.new("RGB", (width, 100)).save(path)
        return str(path)

    outside = tmp_path / "outside.png"
    Image.new("RGB", (100, 100)).save(outside)
    gallery = [(photo(300), "caption"), (photo(400), None)]
    source = Source.open(photo(200))
    styles = Styles(torch.zeros(1, 1), "model", "anime", (("seed", 1),), ({},))
    drawn = Drawn(Prepared(source, ()), (), styles)
    within = photo(50)
    around = f"{files.root}/../{outside.name}"
    given = [within, gallery, drawn, Path(photo(60)).read_bytes(), str(outside), around, "anime", 7, None, files.root]
    assert pixels_in(given, files.root) == 100 * (50 + 300 + 400 + 200 + 60)
    assert pixels_in([[within] * 1000, f"{within}/../photo.png"], files.root) == 100 * 50
    broken = [files.write("x.png", b"x"), str(files.root / "gone.png"), str(files.root / "x\0\ud800"), "x" * 200_000]
    assert pixels_in([*broken, b"", math.nan], files.root) == 0
