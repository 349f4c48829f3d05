"""The app as a process: load, faults, long runs. Short forms here; ``STARGAN_STRESS=1``, as ``make stress`` sets it, asks for
the long ones. All traffic stays on this machine."""

from __future__ import annotations

import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from asking import Visitor, report, wait_until
from PIL import Image
from serving import ROOT, Server, start
from test_hostile import usual

from stargan.page import texts
from stargan.page.files import MAX_AGE, Files
from stargan.page.serving import QUEUE

LONG = bool(os.environ.get("STARGAN_STRESS"))
CLIENTS, LOAD_SECONDS = (32, 120.0) if LONG else (8, 10.0)
REQUESTS = 2000 if LONG else 100
# Large photos at once: their formats, and their sides in pixels.
LARGE = [
    ("JPEG", 6000),
    ("WEBP", 7000),
    *[("PNG", 7000), ("JPEG", 7000), ("AVIF", 6900), ("WEBP", 6500)] * (2 if LONG else 0),
]


def latent(photo: dict, seed: int, count: int = 1) -> list:
    return [photo, "anime", count, seed, 0.7, 1, False, "anime-128"]


def number_of(visitor: Visitor, name: str) -> int:
    return next(function["id"] for function in visitor.functions if function["api_name"] == name)


def content(visitor: Visitor, answer: dict) -> bytes:
    """Of the first drawing."""
    assert answer["success"], answer["output"]
    path = answer["output"]["data"][1][0]["image"]["path"]
    return visitor.http.get(f"gradio_api/file={path}").raise_for_status().content


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start()
    assert wait_until(lambda: httpx.get(f"{server.url}healthz", trust_env=False).status_code == 200, 120)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def photos(portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Faces that differ: each is brighter than the one before."""
    folder = tmp_path_factory.mktemp("photos")
    for n in range(4):
        portrait.point(lambda level, n=n: min(255, level * (10 + n) // 10)).save(folder / f"{n}.png")
    return sorted(folder.iterdir())


def test_each_gets_the_drawing_of_its_own_photo_and_seed(server: Server, photos: list[Path]) -> None:
    first = Visitor(server.url)
    draw = number_of(first, "latent_grid")
    seeds = range(1, 5)
    uploaded = [first.upload(photo) for photo in photos]
    expected = {
        (n, seed): content(first, first.ask(draw, latent(uploaded[n], seed)))
        for n in range(len(photos))
        for seed in seeds
    }
    assert len(set(expected.values())) == len(expected)
    stop, answered, opened = threading.Event(), [], []

    def visit(number: int) -> None:
        visitor, chance = Visitor(server.url), random.Random(number)
        own = [visitor.upload(photo) for photo in photos]
        while not stop.is_set():
            n, seed = chance.randrange(len(photos)), chance.choice(seeds)
            answer = visitor.ask(draw, latent(own[n], seed), seconds=300)
            assert content(visitor, answer) == expected[n, seed]
            answered.append(n)

    def look() -> None:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
            while not stop.is_set():
                begin = time.perf_counter()
                http.get("").raise_for_status()
                opened.append(time.perf_counter() - begin)
                time.sleep(0.2)

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        running = [pool.submit(visit, number) for number in range(CLIENTS)] + [pool.submit(look)]
        time.sleep(LOAD_SECONDS)
        stop.set()
        for one in running:
            one.result()
    page = statistics.quantiles(opened, n=20)[-1]
    report(
        "load",
        f"{CLIENTS} clients, {LOAD_SECONDS:.0f} s: {len(answered)} answers, all right; GET / p95 {1000 * page:.0f} ms",
    )
    assert len(answered) >= CLIENTS
    assert page < (0.3 if LONG else 2.0)  # beside other tests on the same cores


def test_the_page_is_rendered_once_for_each_address(server: Server) -> None:
    visitor, process = Visitor(server.url), psutil.Process(server.process.pid)

    def page(query: str = "", **headers: str) -> str:
        answer = visitor.http.get(query, headers={name.replace("_", "-"): value for name, value in headers.items()})
        assert answer.headers["x-content-type-options"] == "nosniff"
        return answer.raise_for_status().text

    first = page()
    assert page(x_gradio_server="http://evil.test") != first != page(x_forwarded_host="evil.test", cookie="a=b")
    assert page(x_forwarded_proto="https") != first
    assert page("?seed=7&example=collins", accept_language="ja") == first
    assert '"deep_link_state":"invalid"' in page("?deep%5Flink=x").replace(" ", "")
    assert page() == first
    assert "evil.test" not in first
    before = sum(process.cpu_times()[:2])
    for _ in range(100):
        page()
    assert (sum(process.cpu_times()[:2]) - before) / 100 < 0.02


def test_a_queue_that_is_full_says_so_and_nobody_takes_it_all(server: Server, photos: list[Path]) -> None:
    greedy, other = Visitor(server.url), Visitor(server.url)
    draw, photo = number_of(greedy, "latent_grid"), greedy.upload(photos[0])
    answers = [greedy.submit(draw, latent(photo, seed, count=16)) for seed in range(100, 164)]
    assert other.submit(draw, latent(other.upload(photos[1]), 1)).done() is False  # let in
    greedy_ends = [answer.result(300) for answer in answers]
    refused = [answer for answer in greedy_ends if "refused" in answer]
    assert refused
    for answer in refused:
        assert answer["refused"] == 503
        assert "wait" in answer["output"]["error"]
        assert len(answer["output"]["error"]) < 200
    assert sum(answer["success"] for answer in greedy_ends) == len(answers) - len(refused)


def test_a_queue_that_many_fill_says_so(server: Server, photos: list[Path]) -> None:
    many = [Visitor(server.url, **{"x-forwarded-for": f"10.0.0.{n}"}) for n in range(1, 12)]
    draw = number_of(many[0], "latent_grid")
    try:
        answers = [
            visitor.submit(draw, latent(photo, seed, count=16))
            for visitor in many
            for photo in [visitor.upload(photos[0])]
            for seed in range(200, 208)
        ]
        refused = [answer.result(0) for answer in answers if answer.done() and "refused" in answer.result(0)]
        assert refused
        for answer in refused:
            assert answer["refused"] == 503
            assert texts.say("queue_full", "en") in answer["output"]["error"]
        assert waiting(many[0]) <= QUEUE
    finally:
        for visitor in many:
            visitor.leave()
    assert wait_until(lambda: waiting(many[0]) == 0, 60)


def test_who_leaves_frees_the_place(server: Server, photos: list[Path]) -> None:
    """Both of what waits and of what is being made."""
    leaving, staying = Visitor(server.url), Visitor(server.url)
    film, draw = number_of(leaving, "interpolate"), number_of(leaving, "latent_grid")
    photo, own = leaving.upload(photos[0]), staying.upload(photos[0])
    assert staying.ask(draw, latent(own, 1))["success"]
    for seed in range(8):
        leaving.submit(film, [photo, "anime", seed, seed + 1, 0.7, 1, False, "anime-128"])
    assert wait_until(lambda: len(leaving.begun) == 4 == waiting(staying), 60, 0.01)
    before = server.log.stat().st_size
    begin = time.monotonic()
    leaving.leave()
    assert wait_until(lambda: waiting(staying) == 0, 30, 0.01)
    waited = time.monotonic() - begin

    def stopped() -> bool:
        return server.log.read_bytes()[before:].count(b"request interpolate left") == 4

    assert wait_until(stopped, 30, 0.01)
    made = time.monotonic() - begin
    report("leaving", f"what waited was gone after {waited:.2f} s, 4 clips in the making after {made:.2f} s")
    assert max(waited, made) < (1 if LONG else 3)  # beside other tests on the same cores
    assert staying.ask(draw, latent(own, 1), seconds=60)["success"]


def waiting(visitor: Visitor) -> int:
    return visitor.http.get("gradio_api/queue/status").raise_for_status().json()["queue_size"]


def test_memory_comes_back_after_large_photos(server: Server, portrait: Image.Image, tmp_path: Path) -> None:
    """And, in the long form, after many sessions; with all that the app has cached before."""
    process, visitor = psutil.Process(server.process.pid), Visitor(server.url)
    draw = number_of(visitor, "latent_grid")
    assert wait_until(lambda: not waiting(visitor), 60)
    time.sleep(5)
    idle = process.memory_info().rss
    paths = []
    for n, (kind, side) in enumerate(LARGE):
        large = portrait.resize((side, side))
        large.putpixel((0, 0), (n, n, n))
        if kind in ("PNG", "WEBP"):
            large.putalpha(200)
        paths.append(tmp_path / f"{n}.{kind.lower()}")
        large.save(
            paths[-1],
            kind,
            **{"PNG": {"compress_level": 1}, "WEBP": {"method": 0}, "AVIF": {"speed": 10}}.get(kind, {}),
        )
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max(most[0], process.memory_info().rss + sum(decoders(process).values()))

    watching = threading.Thread(target=watch)
    watching.start()
    visitors = [Visitor(server.url) for _ in paths]
    futures = [one.submit(draw, latent(one.upload(path), 1)) for one, path in zip(visitors, paths, strict=True)]
    try:
        assert all(future.result(300)["success"] for future in futures)
        if LONG:
            for _ in range(300):
                assert Visitor(server.url).ask(number_of(visitor, "list_models"), [])["success"]
        back = wait_until(lambda: process.memory_info().rss < 1.1 * idle, 60, 1.0)
    finally:
        stop.set()
        watching.join()
    now = process.memory_info().rss
    report(
        "memory",
        f"{len(paths)} photos of 36 to 49 megapixels at once, {300 if LONG else 0} sessions: "
        f"{idle / 1e6:.0f} → {most[0] / 1e6:.0f} → {now / 1e6:.0f} MB",
    )
    assert most[0] < 3e9
    assert back, f"{idle / 1e6:.0f} MB idle, {now / 1e6:.0f} MB a minute later"


def decoders(process: psutil.Process) -> dict[psutil.Process, int]:
    """What decodes for the app, with its bytes."""
    found = {}
    for child in process.children():
        with suppress(psutil.Error):  # it has ended
            if "apart" in " ".join(child.cmdline()):
                found[child] = child.memory_info().rss
    return found


def test_a_decoder_that_dies_takes_nothing_with_it(server: Server, portrait: Image.Image, tmp_path: Path) -> None:
    process, visitor = psutil.Process(server.process.pid), Visitor(server.url)
    draw, path = number_of(visitor, "latent_grid"), tmp_path / "large.png"
    large = portrait.resize((5000, 5000))
    large.putpixel((0, 0), (1, 2, 3))
    large.save(path, compress_level=1)
    photo = visitor.upload(path)
    answer = visitor.submit(draw, latent(photo, 1))
    assert wait_until(lambda: bool(decoders(process)), 60, 0.005)
    next(iter(decoders(process))).kill()
    assert "too much time or memory" in answer.result(60)["output"]["error"]
    assert visitor.ask(draw, latent(photo, 1))["success"]


@pytest.mark.skipif(not LONG, reason="a measurement, which make stress makes")
def test_a_telephones_photo_is_measured(server: Server, portrait: Image.Image, tmp_path: Path) -> None:
    """By the processor: by the clock, it waits for whatever else this machine does."""
    visitor, process, seconds = Visitor(server.url), psutil.Process(server.process.pid), []
    draw = number_of(visitor, "latent_grid")
    for n in range(5):
        path = tmp_path / f"{n}.jpg"
        portrait.resize((4000, 3000)).rotate(n).save(path, quality=90)
        begin, before = time.perf_counter(), sum(process.cpu_times()[:2])
        assert visitor.ask(draw, latent(visitor.upload(path), 1, count=4))["success"]
        seconds.append((sum(process.cpu_times()[:2]) - before, time.perf_counter() - begin))
    by_processor, by_clock = (statistics.median(each) for each in zip(*seconds, strict=True))
    report(
        "click",
        f"12-megapixel JPEG, upload to 4 drawings: {by_processor:.2f} s of the processor, {by_clock:.2f} s by the clock",
    )


def test_long_run(server: Server, photos: list[Path]) -> None:
    """All functions, those of the page, too: memory, threads, open files and child processes stay as they are."""
    visitor, process = Visitor(server.url), psutil.Process(server.process.pid)
    functions = visitor.functions
    named = {function["api_name"]: function["id"] for function in functions}
    own = [visitor.upload(photo) for photo in photos]
    reference = [{"image": own[0], "caption": None}]
    of_the_page = [(function["id"], usual(visitor, function, photos[0])) for function in functions]

    def asked(n: int) -> tuple[str, list]:
        photo, rest = own[n % len(own)], [1, False, "anime-128"]
        return [
            ("latent_grid", [photo, "anime", 1 + n % 3, n, 0.7, *rest]),
            ("detect_faces", [photo]),
            ("reference_mix", [photo, reference, "anime", 1, *rest]),
            ("list_models", []),
            ("latent_grid", [photo, "anime", 99, n, 0.7, *rest]),  # refused
        ][n % 5] if n % 100 else ("interpolate", [photo, "anime", n, n + 1, 0.7, *rest])  # fmt: skip

    def click(function: int, data: list) -> None:
        answer = visitor.ask(function, data)
        assert answer["success"] or "on our side" not in answer["output"]["error"]

    def run(count: int) -> None:
        for n in range(count):
            if n % 4:
                name, data = asked(n)
                assert visitor.ask(named[name], data)["success"] is (data[2:3] != [99])
            else:
                click(*of_the_page[n // 4 % len(of_the_page)])

    for asked_for in of_the_page:
        click(*asked_for)
    run(REQUESTS // 5)
    before = figures(process)
    run(REQUESTS)
    assert wait_until(lambda: not process.children(recursive=True), 10)
    after = figures(process)
    left = [path for path in server.uploads.rglob("*") if path.is_file()]
    Files(server.uploads, lambda: time.time() + MAX_AGE + 1).sweep()
    assert left
    assert not any(path.exists() for path in left)
    report(
        "soak",
        f"{REQUESTS} requests: memory {before[0] / 1e6:.0f} → {after[0] / 1e6:.0f} MB, threads {before[1]} → {after[1]}, "
        f"open files {before[2]} → {after[2]}; {len(left)} files, none after its hour",
    )
    assert after[0] < 1.05 * before[0]
    assert after[1] <= before[1] + 4
    assert after[2] <= before[2] + 4
    assert "Traceback" not in server.log.read_text()


def figures(process: psutil.Process) -> tuple[int, int, int]:
    return process.memory_info().rss, process.num_threads(), process.num_fds()


# Faults


def test_sigterm_in_the_middle_of_a_request(photos: list[Path]) -> None:
    server = start()
    visitor = Visitor(server.url)
    draw, photo = number_of(visitor, "interpolate"), visitor.upload(photos[0])
    futures = [visitor.submit(draw, [photo, "anime", 1, 2, 0.7, 1, False, "anime-128"]) for _ in range(8)]
    assert wait_until(lambda: waiting(visitor) < 8, 10)
    begin = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(15) == 0
    seconds = time.monotonic() - begin
    assert seconds < 10
    assert all(future.done() or future.exception(5) for future in futures)
    answers = [future.result() for future in futures if not future.exception()]
    refused = [answer["output"]["error"] for answer in answers if not answer["success"]]
    assert set(refused) <= {texts.say("stopping", "en")}
    if LONG:  # beside other tests on the same cores, some may be cut off after all
        assert len(answers) == 8
        assert "Stopped in the middle" not in server.log.read_text()
    report("sigterm", f"8 clips: {8 - len(refused)} made, {len(refused)} refused; exit 0 after {seconds:.1f} s")


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_an_upload_that_breaks_off_leaves_nothing(server: Server) -> None:
    before = files_in(server.uploads)
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="x.png"\r\n\r\n'

    def begin(visitor: Visitor) -> None:
        def parts() -> Iterator[bytes]:
            yield head + bytes(1_000_000)
            assert wait_until(lambda: files_in(server.uploads) != before, 30)
            raise ConnectionAbortedError

        with suppress(ConnectionAbortedError):
            visitor.http.post(
                "gradio_api/upload", content=parts(), headers={"Content-Type": "multipart/form-data; boundary=x"}
            )

    visitor = Visitor(server.url)
    begin(visitor)
    assert wait_until(lambda: files_in(server.uploads) == before, 10)
    process = psutil.Process(server.process.pid)
    idle = process.memory_info().rss
    form = {"field": "x" * 60_000_000}
    assert visitor.http.post("gradio_api/upload", data=form, files={"files": ("x.png", b"x")}).status_code == 413
    assert process.memory_info().rss < idle + 30_000_000
    assert files_in(server.uploads) == before


def test_a_disk_that_is_full(photos: list[Path], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        server = start(GRADIO_TEMP_DIR=str(disk / "uploads"))
        visitor = Visitor(server.url)
        draw, photo = number_of(visitor, "latent_grid"), visitor.upload(photos[0])
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        answer = visitor.ask(draw, latent(photo, 1))
        assert not answer["success"]
        assert "disk" in answer["output"]["error"]
        before = files_in(disk)
        upload = visitor.http.post("gradio_api/upload", files={"files": ("x.png", bytes(2_000_000))})
        assert upload.status_code == 507
        assert upload.text == texts.say("disk_full", "en")
        assert files_in(disk) == before
        assert "Traceback" not in server.log.read_text()
        filler.unlink()
        assert visitor.ask(draw, latent(photo, 1))["success"]  # and goes on as if nothing had been
        assert not [path for path in (disk / "uploads").rglob("*") if path.is_file() and not path.stat().st_size]
        report("disk", "full: a sentence, no half-written file; with room again, it draws")
        server.stop()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False)


FAILING = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
from stargan.drawing import Translator
from stargan.page import models
load = models.load_translator

class Failing(Translator):
    def paint(self, *task):
        if said := Path({file!r}).read_text():
            kind, _, message = said.partition(": ")
            raise getattr(torch, kind, RuntimeError)(message)
        return super().paint(*task)

def failing(*name, **options):
    translator = load(*name, **options)
    translator.__class__ = Failing
    return translator

models.load_translator = failing
import importlib.util
spec = importlib.util.spec_from_file_location("the_app", {root!r} + "/app.py")
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)
sys.exit(app.main())
"""


def test_a_gpu_that_is_full_or_lost(photos: list[Path], tmp_path: Path) -> None:
    """As PyTorch says it; where there is a GPU, and here."""
    failure = tmp_path / "failure"
    failure.touch()
    (tmp_path / "app.py").write_text(FAILING.format(root=str(ROOT), file=str(failure)))
    server = start(source=tmp_path)
    try:
        visitor = Visitor(server.url)
        draw, photo = number_of(visitor, "latent_grid"), visitor.upload(photos[0])

        def healthy() -> bool:
            return visitor.http.get("healthz").status_code == 200

        def refusal(said: str) -> str:
            failure.write_text(said)
            answer = visitor.ask(draw, latent(photo, 1))
            assert not answer["success"]
            return answer["output"]["error"]

        assert wait_until(healthy, 60)
        assert "memory is full" in refusal("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        assert healthy()
        failure.write_text("")
        assert visitor.ask(draw, latent(photo, 1))["success"]
        lost = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later"
        for kind in ("AcceleratorError", "RuntimeError"):
            assert "restart it" in refusal(f"{kind}: {lost}")
            assert not healthy()
        log = server.log.read_text()
        assert "restart the app" in log
        assert "Traceback" not in log
        assert visitor.http.get("").status_code == 200
        report("gpu", "full: a sentence, and on; lost: a sentence, /healthz 503")
    finally:
        server.stop()


def test_what_else_is_in_the_named_folder_stays(tmp_path: Path) -> None:
    """The app deletes what is old, but in a folder of its own alone; processes that it starts use the same."""
    (tmp_path / "mine.txt").write_text("kept for years")
    program = """
import os, subprocess, sys, time
from stargan.page.files import FILES, MAX_AGE, Files
FILES.write("old.png", b"")
assert Files(FILES.root, lambda: time.time() + MAX_AGE + 1).sweep() == 1
print(FILES.root, flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "-c", os.environ["PROGRAM"], "child"], check=True)
"""
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path), "PROGRAM": program}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [str(tmp_path / "stargan-files")] * 2
    assert (tmp_path / "mine.txt").read_text() == "kept for years"


def test_no_place_for_uploads_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "app.py", "--port", "7399"],
        cwd=ROOT,
        env=os.environ | {"GRADIO_TEMP_DIR": str(tmp_path / "file" / "uploads")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "GRADIO_TEMP_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_killed_app_leaves_nothing_half_written(photos: list[Path]) -> None:
    server = start()
    visitor = Visitor(server.url)
    draw, photo = number_of(visitor, "latent_grid"), visitor.upload(photos[0])
    for seed in range(12):
        visitor.submit(draw, latent(photo, seed, count=16))
    assert wait_until(lambda: any(server.uploads.rglob("anime-seed-*.png")), 60)
    server.process.kill()
    server.process.wait(10)
    for path in server.uploads.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()  # whole
    # started again more than an hour later
    later = server.uploads.parent / "later"
    later.mkdir()
    (later / "sitecustomize.py").write_text("import time; now = time.time; time.time = lambda: now() + 4000")
    left = [path for path in server.uploads.rglob("anime-seed-*.png") if path.is_file()]
    assert left
    again = start(GRADIO_TEMP_DIR=str(server.uploads), PYTHONPATH=str(later))
    try:
        assert wait_until(lambda: not any(path.exists() for path in left), 30)
        report("kill -9", f"nothing half-written; {len(left)} old results gone after the next start")
    finally:
        again.stop()
        shutil.rmtree(server.uploads.parent, ignore_errors=True)
