"""What a run leaves on disk: its state, which it goes on from bit for bit, and snapshots, which are models."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from stargan.models.checkpoint import Model, load_model, read_header, save_model
from stargan.models.config import DISCRIMINATOR_FILE, ModelError
from stargan.networks import Discriminator
from stargan.training.config import TrainConfig, differences, from_state, option_of
from stargan.training.grow import grow, grows_from
from stargan.training.trainer import Trainer, TrainingError, device_name

log = logging.getLogger(__name__)
STATE_FILE, STATE_BEFORE, STATE_BROKEN = "state.pt", "state.before.pt", "state.broken.pt"


def capture(trainer: Trainer) -> dict[str, Any]:
    """Everything that going on needs, bit for bit."""
    return {
        "config": asdict(trainer.config),
        "domains": list(trainer.faces.domains),
        "iteration": trainer.iteration,
        "samples": trainer.samples,
        "seconds": trainer.seconds,
        "changes": trainer.changes,
        "licence": trainer.average.config.licence,
        "networks": {name: net.state_dict() for name, net in vars(trainer.nets).items()},
        "average": {name: net.state_dict() for name, net in trainer.average.networks().items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in trainer.optimizers.items()},
        "feature_means": vars(trainer.feature_means),
        "thumbnails": {mode: vars(kept) for mode, kept in trainer.thumbnails.items()},
        "random": trainer.random.get_state(),
        "torch_random": torch.get_rng_state(),
    }


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Goes on from what :func:`capture` gave.

    Raises:
        TrainingError: the run was trained on other domains.
    """
    if tuple(state["domains"]) != trainer.faces.domains:
        raise TrainingError(
            f"This run was trained on the domains {', '.join(state['domains'])}, but the data has "
            f"{', '.join(trainer.faces.domains)}. Give it the same folders, or start another run."
        )
    trainer.iteration, trainer.seconds = state["iteration"], state["seconds"]
    before = from_state(state["config"])
    trainer.samples = state.get("samples", trainer.iteration * before.batch_size)
    trainer.changes = list(state.get("changes", []))
    trainer.average.config = replace(trainer.average.config, licence=state.get("licence", ""))
    if changed := differences(before, trainer.config):
        trainer.changes.append({"iteration": trainer.iteration, "options": changed})
    for name, net in vars(trainer.nets).items():
        net.load_state_dict(state["networks"][name])
    for name, net in trainer.average.networks().items():
        net.load_state_dict(state["average"][name])
    for name, optimizer in trainer.optimizers.items():
        own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizers"][name])
        for group, options in zip(optimizer.param_groups, own, strict=True):
            group.update(options)  # this config's rates: the saved ones may have been changed by an option
        for parameter, kept in optimizer.state.items():
            for key, moment in kept.items():
                if (
                    moment.shape == parameter.shape
                ):  # laid out as the parameter, whatever it was: fused steps go by memory
                    kept[key] = torch.empty_like(parameter).copy_(moment)
    if before.lambda_fm:  # else they have not been kept up, and the discriminator that they are of is gone
        for name, mean in state.get("feature_means", {}).items():
            getattr(trainer.feature_means, name).copy_(mean)
    if before.lambda_sw and trainer.config.lambda_sw:
        for mode, kept in state["thumbnails"].items():
            for name, value in kept.items():
                getattr(trainer.thumbnails[mode], name).copy_(value)
    if state["random"].shape == trainer.random.get_state().shape:
        trainer.random.set_state(state["random"].cpu())
        torch.set_rng_state(state["torch_random"].cpu())
    else:
        log.warning("The run was on another kind of device: its random numbers start anew.")
        trainer.random.manual_seed(trainer.config.seed + trainer.iteration)


def start_from(trainer: Trainer, folder: Path) -> None:
    """Takes over the weights of a model folder, its discriminator's too where it has one, and its licence; grows one of half
    the side. A finisher stays behind: it corrects the drawings that there were.

    Raises:
        TrainingError: it has another architecture or other domains, or a broken discriminator.
    """
    model = load_model(folder)
    model.generator.finish = None
    model.config = replace(model.config, architecture=replace(model.config.architecture, finish_channels=0))
    old, new = model.config.architecture, trainer.config.architecture
    if (new != old and not grows_from(new, old)) or model.config.domains != trainer.faces.domains:
        raise TrainingError(
            f"The model {model.config.name} has the domains {', '.join(model.config.domains)} and {old}, but the run "
            f"has {', '.join(trainer.faces.domains)} and {new}: it cannot start from there. A run starts from a model of "
            "its own architecture, or from one of half the side and twice the base width."
        )
    discriminator = load_discriminator(folder, model, trainer.config.kinds)
    if discriminator is None and not trainer.config.discriminator_warmup:
        log.warning(
            "The model %s has no discriminator: one that has learned nothing can spoil it, unless it learns alone "
            "first, by --discriminator-warmup 400.",
            model.config.name,
        )
    if new == old:
        for name, net in model.networks().items():
            getattr(trainer.nets, name).load_state_dict(net.state_dict())
        if discriminator is not None:
            trainer.nets.discriminator.load_state_dict(discriminator.state_dict())
    else:
        left = grow(trainer, model, discriminator)
        log.info("Grown from %s: drawings differ from its own, enlarged, by %.3f.", model.config.name, left)
    for name, net in trainer.average.networks().items():
        net.load_state_dict(getattr(trainer.nets, name).state_dict())
    trainer.average.config = replace(trainer.average.config, licence=model.config.licence)


def as_model(trainer: Trainer, name: str) -> Model:
    """The averaged networks as a model, with the facts of its training."""
    defaults, chosen = asdict(TrainConfig()), {**asdict(trainer.config), "bf16": trainer.bf16}  # as it is computed here
    facts = {
        "iterations": trainer.iteration,
        "samples": trainer.samples,
        "hours": round(trainer.seconds / 3600, 2),
        "device": device_name(trainer.device),
        "options": {k: v for k, v in chosen.items() if v != defaults[k] and k not in ("architecture", "framing")},
    }
    if trainer.changes:
        facts["changes"] = trainer.changes
    return replace(trainer.average, config=replace(trainer.average.config, name=name, training=facts))


def snapshot_folder(trainer: Trainer, folder: Path) -> Path:
    return folder / "snapshots" / f"{trainer.iteration:06d}"


def save_snapshot(trainer: Trainer, folder: Path) -> None:
    """Writes ``snapshots/<iteration>`` in a run's folder: the averaged networks as a model, and the discriminator."""
    snapshot = snapshot_folder(trainer, folder)
    # a stop must leave no half of a model under that name
    partial = snapshot.with_name(f".{snapshot.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(as_model(trainer, folder.resolve().name), partial)
    save_discriminator(trainer.nets.discriminator, partial)
    shutil.rmtree(snapshot, ignore_errors=True)
    partial.rename(snapshot)


def save_discriminator(discriminator: Discriminator, folder: Path) -> None:
    """Beside a snapshot's weights, as fp16: for a run that starts from it; no part of the model."""
    (folder / DISCRIMINATOR_FILE).write_bytes(_as_stored(discriminator))


def _as_stored(discriminator: Discriminator) -> bytes:
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in discriminator.state_dict().items()}
    return safetensors.torch.save(state)


def load_discriminator(folder: Path, model: Model, kinds: Sequence[str] | None = None) -> Discriminator | None:
    """What :func:`save_discriminator` wrote beside the model, as fp32; None where there is none.

    Args:
        kinds: those that it is to judge by; what it has not learned of one, it takes from the kind's domain. None: its own.

    Raises:
        TrainingError: the file is broken, or of another model.
    """
    file = folder / DISCRIMINATOR_FILE
    if not file.is_file():
        return None
    a = model.config.architecture
    domains = model.config.domains
    own = option_of(model.config.training, "kinds") or ()
    before, after = [*domains, *own], [*domains, *(own if kinds is None else kinds)]
    rows = [before.index(kind if kind in before else kind.partition("/")[0]) for kind in after]
    known, discriminator = (
        Discriminator(a.image_size, len(kinds), a.base_channels, a.max_channels) for kinds in (before, after)
    )
    try:
        read_header(file)
        known.load_state_dict({name: tensor.float() for name, tensor in load_file(file).items()})
    except (ModelError, SafetensorError, OSError, RuntimeError) as error:
        raise TrainingError(f"{file} is broken, or not the discriminator of this model: {error}.") from error
    last = f"main.{len(known.main) - 1}."
    state = known.state_dict()
    discriminator.load_state_dict({n: tensor[rows] if n.startswith(last) else tensor for n, tensor in state.items()})
    return discriminator


def save_made_of(source: Path, model: Model, folder: Path) -> None:
    """Writes ``model`` into ``folder``, which names it, and beside it the discriminator of the model folder ``source``, which it was
    made of: a run that starts from there needs it as much.

    Raises:
        TrainingError: the discriminator is broken, or of another model; nothing is written then.
    """
    discriminator = load_discriminator(source, model)
    beside = {} if discriminator is None else {DISCRIMINATOR_FILE: _as_stored(discriminator)}
    save_model(replace(model, config=replace(model.config, name=folder.resolve().name)), folder, beside=beside)


def save(trainer: Trainer, folder: Path) -> None:
    """Writes the run's state.

    Raises:
        TrainingError: a weight is not finite; the state that is there stays.
    """
    trainer.check_weights()
    save_state(capture(trainer), folder)


def save_state(state: dict[str, Any], folder: Path) -> None:
    """Writes beside, then renames: a stop at any moment leaves a whole file; the state before stays as ``state.before.pt``."""
    file, partial = folder / STATE_FILE, folder / "state.partial"
    with partial.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    if file.exists():
        file.replace(folder / STATE_BEFORE)
    partial.replace(file)


def load_state(folder: Path) -> dict[str, Any] | None:
    """The newest state in a run's folder that can be read; None where there is none at all. A broken one is put aside.

    Raises:
        TrainingError: there are states, and all are broken.
    """
    files = [file for file in (folder / STATE_FILE, folder / STATE_BEFORE) if file.exists()]
    broken: list[str] = []
    for file in files:
        try:
            with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums that it writes
                if wrong := archive.testzip():
                    raise ValueError(f"the checksum of {wrong} is wrong")  # noqa: TRY301
            state = torch.load(file, map_location="cpu", weights_only=True)
            from_state(state["config"])
        except Exception as error:  # torch raises whatever the broken bytes lead it to
            broken.append(f"{file} is broken or not the state of a run: {error}.")
            continue
        if broken:
            log.warning("%s\nThe run goes on from the state before, of iteration %d.", broken[0], state["iteration"])
            with contextlib.suppress(FileNotFoundError):  # another process was first
                files[0].replace(folder / STATE_BROKEN)  # or the next one saved would push it into the good one's place
        return state
    if broken:
        raise TrainingError("\n".join(broken))
    return None
