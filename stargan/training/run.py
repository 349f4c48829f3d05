r"""Training from the command line or from Python.

    python -m stargan train --preset anime-128 --data faces/train --validation faces/val --run runs/anime-128
    python -m stargan train --data faces/train --validation faces/val --run runs/anime-128     # goes on where it stopped
    torchrun --nproc-per-node 4 -m stargan train --run-folder ...     # several GPUs; batch_size is the joint one

Several machines: the same command on each, HOST being one of them. Processes that end are started again, from the last state,
and the losses go on as if nothing had been. (Without the variable, they may meet through what the killed ones left: pytorch's
issue 135712.)

    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29400 \
        --rdzv-id faces --max-restarts 3 -m stargan train --run-folder ...

A run's folder holds ``state.pt`` (everything that resuming needs; the one before stands beside it), ``snapshots/`` (model
folders of the averaged weights), ``sheets/`` (sample sheets), ``metrics.jsonl`` and ``tensorboard/`` (the same as curves).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from stargan.allocator import is_out_of_memory
from stargan.inference.translator import find_device
from stargan.models.registry import find_model
from stargan.training import loop
from stargan.training.config import PRESETS, TrainConfig, differences, find_preset, from_state
from stargan.training.data import Faces
from stargan.training.shards import ShardedFaces, is_sharded
from stargan.training.sheets import fixed_faces
from stargan.training.state import load_state, restore, save, start_from
from stargan.training.trainer import Trainer, TrainingError, device_name

log = logging.getLogger(__name__)
# Options of a run out of those of its preset, or of those that it had so far.
Change = Callable[[TrainConfig], TrainConfig]


def train(
    folder: Path,
    data: Path | str,
    validation: Path | None = None,
    *,
    preset: str | None = None,
    change: Change = lambda config: config,
    device: str | None = None,
) -> None:
    """Trains in ``folder``, or goes on with the run that is there.

    Args:
        data: a folder with a folder of pictures for each domain, which is held in memory; or WebDataset shards, see
            :mod:`stargan.training.shards`.
        validation: such a folder.
        preset: of :data:`stargan.training.config.PRESETS`; a run that is gone on with has its own options.
        change: makes other options of the preset's, such as ``lambda config: replace(config, lambda_ds=2.0)``; in a run that
            is gone on with, of the run's, from there on.
        device: None: CUDA where there is one. Under torchrun, every process takes the GPU of its LOCAL_RANK.

    Raises:
        stargan.training.config.ConfigError, stargan.training.data.DataError, TrainingError: it cannot start or go on.
        ValueError: this machine has no such device.
    """
    with _process(device) as place, loop.locked(folder, dist.get_rank() if dist.is_initialized() else 0):
        config, state = _config_and_state(folder, preset, change)
        if config.bf16 and place.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every batch has the same shape
        with _memory_advice(config, place):
            faces = _faces(data, config, place, state["iteration"] if state else 0)
            shown = fixed_faces(validation, faces.domains, config.architecture.image_size) if validation else None
            trainer = Trainer(config, faces, place)
            # the run's snapshots have its name, which may be none: said before the first of them
            trainer.average.config = replace(trainer.average.config, name=folder.resolve().name)
            if state is not None:
                restore(trainer, state)
            elif config.init:
                start_from(trainer, find_model(config.init))
                if trainer.rank == 0:
                    save(trainer, folder)  # growing takes its time: a kill must not cost it
            if trainer.iteration >= config.iterations:
                log.warning("The run has its %d iterations: more go on with --iterations.", trainer.iteration)
            loop.run(trainer, folder, shown)


def _config_and_state(folder: Path, preset: str | None, change: Change) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The options of a new run, or the options and the state of the one that is in ``folder``."""
    state = _agreed(load_state(folder))
    if state is None:
        if preset is None:
            raise TrainingError(f"There is no run in {folder}: start one with a preset ({', '.join(PRESETS)}).")
        return change(find_preset(preset)), None
    before = from_state(state["config"])
    config = change(before)
    if preset is not None and (different := differences(config, change(find_preset(preset)))):
        raise TrainingError(
            f"The run in {folder} has other options than the preset {preset} ({'; '.join(different)}). "
            "Leave the preset out to go on as before, and change single options by their names."
        )
    if config.architecture != before.architecture:
        raise TrainingError(f"A run's architecture cannot change ({'; '.join(differences(before, config))}).")
    if config.kinds != before.kinds:
        raise TrainingError(f"A run's kinds cannot change ({', '.join(before.kinds) or 'it has none'}).")
    if config.seed != before.seed:
        raise TrainingError(f"A run's seed cannot change: its random numbers go on from {before.seed}.")
    if config.init != before.init:
        raise TrainingError(
            f"The run in {folder} started from {before.init or 'random weights'}: another --init needs another --run."
        )
    return config, state


def _faces(data: Path | str, config: TrainConfig, device: torch.device, start: int) -> Faces | ShardedFaces:
    size = config.architecture.image_size
    if not is_sharded(data):
        return Faces(Path(data), size, device)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    return ShardedFaces(data, size, device, seed=config.seed, start=start, rank=rank, world=world)


def _agreed(own: dict[str, Any] | None) -> dict[str, Any] | None:
    """The furthest of the processes' states, for all: on machines without a common disk, only some have it.

    After a restart, another machine may have rank 0, whose process it is that saves.
    """
    if not dist.is_initialized():
        return own
    reached: list[int] = [-1] * dist.get_world_size()
    dist.all_gather_object(reached, -1 if own is None else own["iteration"])
    furthest = reached.index(max(reached))
    if min(reached) == max(reached):
        return own
    shared = [own]
    dist.broadcast_object_list(shared, src=furthest)
    return shared[0]


@contextlib.contextmanager
def _process(device: str | None) -> Iterator[torch.device]:
    """This process's device; under torchrun, which sets the variables read here, a member of the group of processes."""
    place = find_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "LOCAL_RANK" not in os.environ:
        yield place
        return
    if place.type == "cuda":
        place = find_device(torch.device("cuda", int(os.environ["LOCAL_RANK"])))
        torch.cuda.set_device(place)
    # gloo beside NCCL: what the processes tell each other between steps must not wait for the GPUs
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        yield place
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _memory_advice(config: TrainConfig, device: torch.device) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"The memory of {device_name(device)} does not suffice for batch_size={config.batch_size} at "
            f"{config.architecture.image_size} px. What needs less: a smaller batch_size (8 at least), bf16, a smaller "
            "image_size, base_channels or max_channels, or more GPUs through torchrun."
        ) from error
