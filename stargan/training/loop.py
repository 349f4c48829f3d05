"""The loop of a run's iterations: curves, sheets, snapshots and states on the way, and how it is stopped."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from stargan.training.sheets import write_sheets
from stargan.training.state import STATE_FILE, save, save_snapshot, snapshot_folder
from stargan.training.trainer import Trainer, TrainingError

log = logging.getLogger(__name__)


def run(trainer: Trainer, folder: Path, validation: dict[str, list[Image.Image]] | None = None) -> None:
    """Trains to ``config.iterations``, saving and sampling on the way; a stop signal saves before it ends.

    Args:
        folder: of the run, which this process must have to itself: see :func:`locked`.
        validation: the faces of the sample sheets, by domain; None: no sheets.

    Raises:
        TrainingError: a loss or a weight is not finite.
    """
    config, first = trainer.config, trainer.rank == 0
    with _StopSignal() as stop, _Curves(folder if first else None, trainer.iteration) as curves:
        saved, terms, start = time.monotonic(), dict[str, Tensor](), trainer.iteration
        total = trainer.samples + (config.iterations - trainer.iteration) * config.batch_size
        with tqdm(total=total, initial=trainer.samples, unit="img", disable=not first) as bar:
            while trainer.iteration < config.iterations and not _agreed(trainer, stop.came):
                begin = time.monotonic()
                terms |= trainer.step()  # of both phases, where they alternate
                bar.update(config.batch_size)
                if trainer.iteration % config.log_every == 0:
                    values = trainer.read(terms)
                    curves.add(
                        trainer.iteration, {"seconds": trainer.seconds, "lambda_ds": trainer.lambda_ds, **values}
                    )
                    bar.set_postfix({name.split("/")[-1]: f"{value:.2f}" for name, value in values.items()})
                trainer.seconds += time.monotonic() - begin
                if not first:
                    continue
                if validation and trainer.iteration % config.sample_every == 0:
                    write_sheets(trainer.average, folder / "sheets", trainer.iteration, validation)
                if trainer.iteration % config.snapshot_every == 0:
                    save_snapshot(trainer, folder)
                if time.monotonic() - saved > config.save_minutes * 60:
                    save(trainer, folder)
                    saved = time.monotonic()
        if first:
            # what is there of the same iteration may have been added to since
            new = trainer.iteration > start or not (folder / STATE_FILE).exists()
            if new:
                save(trainer, folder)
            if trainer.iteration % config.snapshot_every and (new or not snapshot_folder(trainer, folder).exists()):
                save_snapshot(trainer, folder)


@contextlib.contextmanager
def locked(folder: Path, rank: int) -> Iterator[None]:
    """Keeps other runs out of the folder, which is made; the system lifts it however this process ends.

    Of several processes that train together, that of rank 0 holds the lock for all.

    Raises:
        TrainingError: another run is in the folder.
    """
    if rank > 0:
        yield
        return
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(f"Another process is training in {folder}.") from error
    try:
        yield
    finally:
        lock.release()
        if new and not any(file.name != ".lock" for file in folder.iterdir()):  # it could not start
            shutil.rmtree(folder)


def _agreed(trainer: Trainer, stop: bool) -> bool:
    """Whether any process was told to stop: all leave after the same iteration, or those left would wait forever."""
    if trainer.world == 1:
        return stop
    flag = torch.tensor(float(stop))
    dist.all_reduce(flag)
    return flag.item() > 0


class _StopSignal:
    """While this lasts, ``came`` is set by SIGINT or SIGTERM; a second one stops at once."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> _StopSignal:
        self.before: dict[int, Any] = {}
        with contextlib.suppress(ValueError):  # not the main thread: signals are the caller's
            self.before = {number: signal.signal(number, self._note) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.came = True
        signal.signal(number, signal.SIG_DFL)


def _iteration_of(line: str) -> float:
    """Of a line of figures; infinite where a kill cut it."""
    try:
        return json.loads(line)["iteration"]
    except (ValueError, TypeError, KeyError):
        return math.inf


class _Curves:
    """Appends figures to ``metrics.jsonl``, and to TensorBoard's files where it is installed; to nothing without a folder.

    Figures of iterations after ``iteration``, the one that a run goes on from, are dropped: they will come again.
    """

    def __init__(self, folder: Path | None, iteration: int) -> None:
        self.folder, self.board = folder, None
        if folder is None:
            return
        file = folder / "metrics.jsonl"
        if file.exists():
            kept = [line for line in file.read_text().splitlines() if _iteration_of(line) <= iteration]
            partial = file.with_suffix(".partial")
            partial.write_text("".join(f"{line}\n" for line in kept))
            partial.replace(file)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("TensorBoard is not installed: the losses go to metrics.jsonl alone.")
        else:
            self.board = SummaryWriter(folder / "tensorboard", purge_step=iteration + 1)

    def __enter__(self) -> _Curves:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def add(self, iteration: int, values: dict[str, float]) -> None:
        if self.folder is None:
            return
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"iteration": iteration, **{k: round(v, 5) for k, v in values.items()}}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, iteration)
