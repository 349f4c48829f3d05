"""``python -m stargan bench train``: what bf16, channels-last and torch.compile gain in training, against fp32.

Both ways run in turns, so that whatever else the machine does slows both; a ratio is the median of the turns' ratios.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import threading
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from stargan.bench.measuring import machine, peak_memory, timed
from stargan.inference.translator import find_device
from stargan.training.config import TrainConfig
from stargan.training.data import Faces
from stargan.training.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """One way of training a preset.

    Attributes:
        samples_per_second: median over the turns, of the joint batch.
        utilisation: of the device, in [0, 1]: of the CPU's cores by this process, of the GPU as its driver says; None where
            the driver's library for Python (nvidia-ml-py) is not installed.
        peak_mb: of a process that trains this way alone; on CUDA, of the GPU's memory.
    """

    path: str
    samples_per_second: float
    utilisation: float | None
    peak_mb: float


def train(
    preset: str,
    config: TrainConfig,
    device: str | None = None,
    turns: int = 3,
    compiled: bool = True,
    output: Path | None = None,
) -> list[Result]:
    """Measures and prints a preset's training, eager and tuned, on pictures of noise; writes ``output``, a JSON list.

    A turn is as many iterations as it takes for every kind of update to come as often as in a long run.

    Args:
        preset: the name of ``config``.
        config: of both, but for what is compared.
        compiled: whether the tuned path is compiled; False leaves it with bf16 and channels-last.

    Raises:
        TrainingError: nothing can be compiled on the device.
    """
    place = find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = replace(config, discriminator_warmup=0)  # else it would be all that is measured
    paths = {
        "eager": replace(config, bf16=False, channels_last=False, compile=False),
        "tuned": replace(config, bf16=True, channels_last=True, compile=compiled),
    }
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    iterations = math.lcm(2, config.r1_every)  # of alternating phases, every second is latent
    print(f"{preset}, batches of {config.batch_size}. {machine(place)}", flush=True)
    trainers = {}
    for path, chosen in paths.items():
        start = time.perf_counter()
        trainers[path] = _warm_trainer(chosen, place)
        print(f"{path}: first iterations {time.perf_counter() - start:.0f} s", flush=True)
    rates: dict[str, list[float]] = {path: [] for path in paths}
    used: dict[str, list[float | None]] = {path: [] for path in paths}
    for _ in range(turns):
        for path, trainer in trainers.items():
            torch.backends.cudnn.benchmark = paths[path].bf16  # as in a run
            with _Utilisation(place) as measured:
                seconds = timed(partial(_steps, trainer, iterations), str(place))
            rates[path].append(iterations * config.batch_size / seconds)
            used[path].append(measured.share)
    del trainers, trainer
    results = []
    for path, chosen in paths.items():
        known = [share for share in used[path] if share is not None]
        share = statistics.median(known) if known else None
        with get_context("spawn").Pool(1) as pool:
            peak = pool.apply(_peak_here, (chosen, str(place)))
        results.append(Result(path, statistics.median(rates[path]), share, peak))
        busy = "unknown" if share is None else f"{share:.0%}"
        print(
            f"{path}: {results[-1].samples_per_second:.1f} samples/s, {place.type.upper()} utilisation {busy}, "
            f"peak {peak:.0f} MB",
            flush=True,
        )
    ratio = statistics.median(b / a for a, b in zip(rates["eager"], rates["tuned"], strict=True))
    print(f"tuned is {ratio:.1f} times as fast", flush=True)
    if output:
        output.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n", encoding="utf-8")
    return results


def _warm_trainer(config: TrainConfig, device: torch.device) -> Trainer:
    """A trainer that has made both kinds of updates."""
    named = {*config.grayscale_domains, *config.photo_augment, *(kind.partition("/")[0] for kind in config.kinds)}
    # domains, or kinds of pictures in them
    weighed = {*(config.source_weights or {}), *(config.target_weights or {}), *config.kinds}
    size = config.architecture.image_size
    with TemporaryDirectory() as folder:
        for kind in sorted({"anime", "photo", *named, *weighed}):
            domain, _, prefix = kind.partition("/")
            (Path(folder) / domain).mkdir(exist_ok=True)
            for index in range(8):
                Image.effect_noise((size, size), 80).save(Path(folder) / domain / f"{prefix}{index}.png")
        faces = Faces(Path(folder), size, device)
    torch.backends.cudnn.benchmark = config.bf16
    trainer = Trainer(config, faces, device)
    for _ in range(2):
        trainer.step()
    return trainer


def _steps(trainer: Trainer, count: int) -> None:
    for _ in range(count):
        trainer.step()


def _peak_here(config: TrainConfig, device: str) -> float:
    """MB."""
    place = torch.device(device)
    _warm_trainer(config, place)
    return (torch.cuda.max_memory_allocated(place) if place.type == "cuda" else peak_memory()) / 1e6


class _Utilisation:
    """While this lasts, how busy the device is: ``share`` afterwards, in [0, 1], or None."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.share: float | None = None
        self._samples: list[float] = []
        self._ended = threading.Event()

    def __enter__(self) -> _Utilisation:
        self._start = time.perf_counter(), time.process_time()
        if self.device.type == "cuda":
            self._thread = threading.Thread(target=self._watch)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self._ended.set()
            self._thread.join()
            self.share = statistics.mean(self._samples) / 100 if self._samples else None
        else:
            wall, busy = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
            self.share = busy / wall / (os.cpu_count() or 1)

    def _watch(self) -> None:
        try:
            while not self._ended.wait(0.2):
                self._samples.append(torch.cuda.utilization(self.device))
        except Exception:  # no nvidia-ml-py, or a driver or a part of a GPU that does not say, by errors of its own
            self._samples.clear()
