"""What README says of clusters, measured: ``python tests/measure.py ray|million|shards|visitors|detect``. Nothing here is a test.

Whatever is compared runs in turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image, ImageEnhance

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.png"))


def augmented(folder: Path, count: int, side: int) -> None:
    """Photos that are all different: the examples, turned, cropped and lit at random."""
    random = np.random.default_rng(0)
    sources = [Image.open(file).convert("RGB") for file in PHOTOS]
    folder.mkdir()
    for index in range(count):
        photo = sources[index % len(sources)].rotate(random.uniform(-10, 10), Image.Resampling.BICUBIC)
        edge = random.uniform(0, 0.06) * photo.width
        photo = photo.resize((side, side), Image.Resampling.LANCZOS, (edge, edge, photo.width, photo.height))
        photo = ImageEnhance.Brightness(photo).enhance(random.uniform(0.8, 1.2))
        photo.save(folder / f"{index:05}.jpg", quality=90)


def measure_ray(options: argparse.Namespace) -> None:
    """Photos a second and core seconds a photo, by torchrun with a process a core and by ``--ray`` on the same cores.

    Between the first quarter of the photos and the last two grids: what starting takes is told apart. Core seconds are those of all
    processes, Ray's own among them: other work on the machine changes them little, but that Ray's own take some as long as the
    run lasts.
    """
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        augmented(photos, options.count, options.side)
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={os.cpu_count()}"]
        ways = {"local": ([*torchrun, "-m", "stargan"], []), "ray": (["-m", "stargan"], ["--ray"])}
        found: dict[str, list[Watched]] = {way: [] for way in ways}
        for turn in range(options.turns):
            for way, (start, more) in ways.items():
                out = Path(folder) / f"{way}-{turn}"
                command = [*start, "translate", str(photos), "--count", "10", "--output", str(out), *more]
                found[way].append(watched([sys.executable, *command], out, options.count))
                print(f"{way}: {found[way][-1]}", flush=True)
        for name in ("start_seconds", "start_cores", "seconds", "cores"):
            medians = {way: statistics.median(getattr(one, name) for one in found[way]) for way in ways}
            print(f"{name}, medians: " + ", ".join(f"{way} {value:.4g}" for way, value in medians.items()))


@dataclass
class Watched:
    """A run: seconds and core seconds until a quarter of the photos was drawn, and of each photo after that; the own memory of all
    its processes then and at the end, MB."""

    start_seconds: float
    start_cores: float
    seconds: float
    cores: float
    memory: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"{1 / self.seconds:.2f} photos/s, {self.cores:.4f} core seconds a photo, {self.start_seconds:.0f} s and "
            f"{self.start_cores:.0f} core seconds for the first quarter, {self.memory[0]:.0f} MB then, {self.memory[1]:.0f} MB at last"
        )


def watched(command: list[str], out: Path, count: int) -> Watched:
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    begin, spent = time.monotonic(), dict[int, float]()
    marks: list[tuple[int, float, float, float]] = []  # photos, seconds, core seconds, MB
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        memory = 0.0
        with suppress(psutil.NoSuchProcess):
            for member in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    about, times = member.memory_info(), member.cpu_times()
                    memory += (about.rss - about.shared) / 1e6
                    spent[member.pid] = times.user + times.system
        photos = len(list(out.glob("[!.]*-seed9.png")))
        if photos >= (count / 4, count - 16)[min(len(marks), 1)] and len(marks) < 2:
            marks.append((photos, time.monotonic() - begin, sum(spent.values()), memory))
        time.sleep(max(0.2, count / 2500))  # listing tens of thousands of files takes a while, too
    assert process.returncode == 0, command
    (first, *start, before), (last, *end, after) = marks
    seconds, cores = ((b - a) / (last - first) for a, b in zip(start, end, strict=True))
    return Watched(*start, seconds, cores, (before, after))


def measure_million(options: argparse.Namespace) -> None:
    """Core seconds and bytes of a photo by stage, and what a million of them would take at least.

    Where there is a GPU, finding faces, encoding and decoding are its work; on paper it does them in no time. What is left is the
    core's beside it, which is a worker's: that, and what storage must take, bounds any number of GPUs.
    """
    from stargan import batch, load_translator
    from stargan.stages import STAGES, counted

    torch.set_num_threads(1)  # as a worker
    translator = load_translator(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        augmented(Path(folder) / "photos", options.count, options.side)
        photos = batch.find_photos([Path(folder) / "photos"])
        looks = batch.latent_plan(translator.config, None, range(10), 0.7).looks(translator.paint)
        job = batch.Job(translator.config, translator.weights, looks, with_grid=True)
        files = batch.LocalFiles(Path(folder) / "out")
        first, *others = batch.groups(photos)
        list(batch.translate_group(translator.paint, job, files, first))  # warms up
        count = sum(len(group.photos) for group in others)
        with counted() as stages:
            begin, spent = time.monotonic(), time.process_time()
            for group in others:
                assert all(row.status == "drawn" for row in batch.translate_group(translator.paint, job, files, group))
            share = (time.process_time() - spent) / (time.monotonic() - begin)  # of a core that we got
            total = (time.process_time() - spent) / count
        made = list(files.output.rglob("*.png"))
        written, read = (
            sum(file.stat().st_size for file in found) / options.count for found in (made, photos.values())
        )
        requests = (len(made) + options.count) / options.count
    seconds = {name: stages.seconds.get(name, 0.0) * share / count for name in STAGES}
    seconds["else"] = total - sum(seconds.values())  # aligning, grids, names
    print("core seconds a photo: " + ", ".join(f"{name} {value:.4f}" for name, value in seconds.items()))
    print(f"{total:.3f} in all; {read / 1e3:.0f} kB read, {written / 1e3:.0f} kB written, {requests:.1f} files")
    beside = total - sum(seconds[name] for name in ("detect", "encode", "decode"))
    print(f"a million: {total * 1e6 / 3600:.0f} core hours without a GPU")
    for gpus in (1, 8, 64):
        rate = gpus / beside
        print(
            f"{gpus} GPUs, a core beside each: {1e6 / rate / 3600:.2f} h at least, {rate:.0f} photos/s, "
            f"{rate * (read + written) / 1e6:.0f} MB/s and {rate * requests:.0f} files/s of storage; "
            f"a GPU must do a photo in {1e3 * beside:.1f} ms not to be what bounds it"
        )


def measure_shards(options: argparse.Namespace) -> None:
    """Steps a second from memory and from shards, in turns of the same training."""
    from dataclasses import replace

    from stargan.training.config import PRESETS
    from stargan.training.data import Faces
    from stargan.training.shards import ShardedFaces, write_shards
    from stargan.training.trainer import Trainer

    config = replace(PRESETS[options.preset], compile=False)
    size, device = config.architecture.image_size, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        faces = Path(folder) / "faces"
        faces.mkdir()
        for domain in ("anime", "female", "male"):
            augmented(faces / domain, options.count, size)
        write_shards(faces, Path(folder) / "shards")
        trainers = {
            "memory": Trainer(config, Faces(faces, size, device), device),
            "shards": Trainer(config, ShardedFaces(Path(folder) / "shards", size, device), device),
        }
        seconds: dict[str, list[float]] = {way: [] for way in trainers}
        cores: dict[str, list[float]] = {way: [] for way in trainers}
        for turn in range(options.turns + 1):
            for way, trainer in trainers.items():
                begin, spent = time.monotonic(), core_seconds()
                for _ in range(options.steps):
                    terms = trainer.step()
                trainer.read(terms)
                if turn:  # the first warms up
                    seconds[way].append((time.monotonic() - begin) / options.steps)
                    cores[way].append((core_seconds() - spent) / options.steps)
                    print(f"{way}: {seconds[way][-1]:.2f} s and {cores[way][-1]:.3f} core seconds a step", flush=True)
        memory, shards = (statistics.median(seconds[way]) for way in trainers)
        ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
        print(
            f"{options.preset}: {1 / memory:.2f} steps/s from memory, {1 / shards:.2f} from shards: {100 * memory / shards:.0f} %"
        )
        memory, shards = (statistics.median(cores[way]) for way in trainers)
        print(
            f"core seconds a step: {memory:.3f} from memory, {shards:.3f} with decoding: {100 * memory / shards:.0f} %"
        )
        print(f"pairs of turns: median {100 * statistics.median(ratios):.0f} %")


def core_seconds() -> float:
    """Of this process and those that decode for it."""
    times = [process.cpu_times() for process in (psutil.Process(), *psutil.Process().children())]
    return sum(time.user + time.system for time in times)


def measure_visitors(options: argparse.Namespace) -> None:
    """Requests a second, p50 and p95, with one replica and with two, through nginx and two pages."""
    import clusters
    import serving
    import test_visitors as site

    with tempfile.TemporaryDirectory() as folder:
        face = Image.open(PHOTOS[0]).convert("RGB")
        for number in range(options.count):
            face.rotate(number - options.count / 2).save(Path(folder) / f"{number}.png")
        for replicas in (1, 2) * options.turns:
            with ExitStack() as stack:
                cluster = stack.enter_context(clusters.cluster(2, python_path=str(ROOT)))
                site.deploy(cluster, str(replicas))
                shared = str(Path(folder) / "files")
                pages = [serving.start("--serve", cluster.address, GRADIO_TEMP_DIR=shared) for _ in range(2)]
                for page in pages:
                    stack.callback(page.stop)
                url = stack.enter_context(site.nginx([page.url for page in pages]))
                visitors = [site.Visitor(url, n, Path(folder) / f"{n}.png", 10) for n in range(options.count)]
                rate(visitors, 1)
                for visitor in visitors:
                    visitor.seconds.clear()
                taken = rate(visitors, 4)
            seconds = sorted(second for visitor in visitors for second in visitor.seconds)
            p50, p95 = (seconds[int(part * (len(seconds) - 1))] for part in (0.5, 0.95))
            print(
                f"{replicas} replicas: {len(seconds) / taken:.2f} requests/s, p50 {p50:.2f} s, p95 {p95:.2f} s",
                flush=True,
            )


def rate(visitors: list, requests: int) -> float:
    """Seconds that all took for so many requests each."""
    begin = time.monotonic()
    with ThreadPoolExecutor(len(visitors)) as pool:
        for request in range(requests):
            for done in [pool.submit(visitor.ask, request) for visitor in visitors]:
                done.result()
    return time.monotonic() - begin


def measure_detect(options: argparse.Namespace) -> None:
    """Seconds a photo that the detector takes, one by one and in batches, by the photos' side."""
    from stargan.pictures import faces

    for side in (128, 192, 256, 512, 1024):
        with tempfile.TemporaryDirectory() as folder:
            augmented(Path(folder) / "photos", 16, side)
            photos = [Image.open(file).convert("RGB") for file in sorted((Path(folder) / "photos").iterdir())]
        many: Callable[[], object] = lambda photos=photos: faces.find_all(photos)  # noqa: E731
        single: Callable[[], object] = lambda photos=photos: [faces.find(photo) for photo in photos]  # noqa: E731
        seconds: list[list[float]] = [[], []]
        for _ in range(options.turns + 1):
            for times, look in zip(seconds, (single, many), strict=True):
                begin = time.monotonic()
                look()
                times.append((time.monotonic() - begin) / len(photos))
        one, together = (statistics.median(times[1:]) for times in seconds)
        print(
            f"{side} px: {one:.3f} s one by one, {together:.3f} s together: {one / together:.2f} times as fast",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["ray", "million", "shards", "visitors", "detect"])
    parser.add_argument("--count", type=int, default=200, help="photos; faces a domain; visitors")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--side", type=int, default=512, help="of the photos, px")
    parser.add_argument("--steps", type=int, default=10, help="of training, a turn")
    parser.add_argument("--preset", default="anime-64")
    chosen = parser.parse_args()
    globals()[f"measure_{chosen.what}"](chosen)
