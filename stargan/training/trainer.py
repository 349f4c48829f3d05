"""The training loop.

    python -m stargan train --preset anime-128 --data faces/train --validation faces/val --run runs/anime-128
    python -m stargan train --data faces/train --validation faces/val --run runs/anime-128     # goes on where it stopped
    torchrun --nproc-per-node 4 -m stargan train --run-folder ...     # several GPUs; batch_size is the joint one

A run's folder holds ``state.pt`` (everything that resuming needs), ``snapshots/`` (model folders of the averaged
weights), ``sheets/`` (sample sheets), ``metrics.jsonl`` and ``tensorboard/`` (the same as curves).
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from stargan.inference.compiling import obstacle
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import ModelConfig
from stargan.models.registry import find_model
from stargan.networks import Discriminator, init_weights
from stargan.training.augment import diff_augment, luma_where, misalign, photograph
from stargan.training.config import PRESETS, TrainConfig, differences, from_state, with_options
from stargan.training.data import Faces, augment
from stargan.training.grow import grows_from, learn_new_level, transplant
from stargan.training.losses import Networks, Sources, Targets, Terms, discriminator_loss, generator_loss, r1_penalty
from stargan.training.sheets import fixed_faces, write_sheets

log = logging.getLogger(__name__)
STATE_FILE = "state.pt"
DISCRIMINATOR_FILE = "discriminator.safetensors"


class TrainingError(ValueError):
    """Training that cannot start or go on, in a sentence that says what to do."""


def train(
    folder: Path,
    data: Path,
    validation: Path | None = None,
    *,
    preset: str | None = None,
    changes: Sequence[str] = (),
    device: str | None = None,
) -> None:
    """Trains in ``folder``, or goes on with the run that is there.

    Args:
        data, validation: folders with a folder of pictures for each domain.
        preset: of :data:`stargan.training.config.PRESETS`; a run that is gone on with has its own options.
        changes: ``name=value`` options; in a run that is gone on with, they hold from there on.
        device: None: CUDA where there is one. Under torchrun, every process takes the GPU of its LOCAL_RANK.

    Raises:
        stargan.training.config.ConfigError, stargan.training.data.DataError, TrainingError: it cannot start or go on.
    """
    with _process(device) as place:
        config, state = _config_and_state(folder / STATE_FILE, preset, changes)
        if config.bf16 and place.type == "cuda":
            torch.backends.cudnn.benchmark = True  # every batch has the same shape
        with _memory_advice(config, place):
            faces = Faces(data, config.architecture.image_size, place)
            shown = fixed_faces(validation, faces.domains, config.architecture.image_size) if validation else None
            trainer = Trainer(config, faces, place)
            if state is not None:
                trainer.restore(state)
            elif config.init:
                trainer.start_from(find_model(config.init))
            if trainer.iteration >= config.iterations:
                log.warning("The run has its %d iterations: more go on with --iterations.", trainer.iteration)
            trainer.run(folder, shown)


def _config_and_state(
    file: Path, preset: str | None, changes: Sequence[str]
) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The options of a new run, or the options and the state of the one whose state is in ``file``."""
    if not file.exists():
        if preset is None:
            raise TrainingError(f"There is no run in {file.parent}: start one with a preset ({', '.join(PRESETS)}).")
        return with_options(PRESETS[preset], changes), None
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        before = from_state(state["config"])
    except Exception as error:  # torch raises whatever the broken bytes lead it to
        raise TrainingError(f"{file} is broken or not the state of a run: {error}.") from error
    config = with_options(before, changes)
    if preset is not None and (different := differences(config, with_options(PRESETS[preset], changes))):
        raise TrainingError(
            f"The run in {file.parent} has other options than the preset {preset} ({'; '.join(different)}). "
            "Leave the preset out to go on as before, and change single options by name=value."
        )
    if config.architecture != before.architecture:
        raise TrainingError(f"A run's architecture cannot change ({'; '.join(differences(before, config))}).")
    return config, state


@contextlib.contextmanager
def _process(device: str | None) -> Iterator[torch.device]:
    """This process's device; under torchrun, which sets the variables read here, a member of the group of processes."""
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "LOCAL_RANK" not in os.environ:
        yield place
        return
    if place.type == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
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
    except RuntimeError as error:  # the CPU's allocator has no error class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise TrainingError(
            f"The memory of {_device_name(device)} does not suffice for batch_size={config.batch_size} at "
            f"{config.architecture.image_size} px. What needs less: a smaller batch_size (8 at least), bf16=true, a smaller "
            "image_size, base_channels or max_channels, or more GPUs through torchrun."
        ) from error


class Trainer:
    """Networks, optimisers and random state of a run; :meth:`step` is one iteration, :meth:`run` all of them."""

    def __init__(self, config: TrainConfig, faces: Faces, device: torch.device) -> None:
        self.config, self.faces, self.device = config, faces, device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if config.batch_size % self.world:
            raise TrainingError(f"The batch of {config.batch_size} cannot be shared equally by {self.world} processes.")
        named = {*config.grayscale_domains, *config.photo_augment, *(config.target_weights or {})}
        if unknown := sorted(named - set(faces.domains)):
            raise TrainingError(f"The options name the domain {unknown[0]!r}; the data has {', '.join(faces.domains)}.")
        if config.compile and (why := obstacle(device)):
            raise TrainingError(f"Nothing can be compiled here, because {why}: train with compile=false.")
        self.iteration = self.samples = 0
        self.seconds = 0.0
        self.changes: list[dict[str, Any]] = []  # of options, on the way

        torch.manual_seed(config.seed)
        model_config = ModelConfig(
            "untrained", faces.domains, config.architecture, config.framing, grayscale_domains=config.grayscale_domains
        )
        model = Model.build(model_config)
        a = config.architecture
        discriminator = Discriminator(a.image_size, len(faces.domains), a.base_channels, a.max_channels)
        self.nets = Networks(model.generator, model.mapping_network, model.style_encoder, discriminator)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        for net in vars(self.nets).values():
            net.apply(init_weights)
            net.to(device, memory_format=layout).train().requires_grad_(True)
        # the average starts at the initial weights
        self.average = copy.deepcopy(model)
        for net in self.average.networks().values():
            net.eval().requires_grad_(False)
        self.optimizers = {
            name: torch.optim.Adam(
                net.parameters(),
                config.mapping_learning_rate if name == "mapping_network" else config.learning_rate,
                config.betas,
                weight_decay=config.weight_decay,
                fused=True,
            )
            for name, net in vars(self.nets).items()
        }
        # joint draws: every process draws the whole batch from the same stream and keeps its share
        self.random = torch.Generator(device).manual_seed(config.seed)
        weights = [(config.target_weights or {}).get(domain, 1.0) for domain in faces.domains]
        self.source_odds, self.picture_odds = faces.weights(config.source_weights or {})
        self.photos = torch.tensor([domain in config.photo_augment for domain in faces.domains], device=device)
        self.target_odds = torch.tensor(weights, device=device)
        self.grayscale = torch.tensor([domain in config.grayscale_domains for domain in faces.domains], device=device)
        self.compiled = _compiled(self.nets) if config.compile else self.nets

    # one iteration

    def step(self) -> Terms:
        """One iteration; its loss terms, on the device."""
        modes = ("latent", "reference")
        if self.config.phases == "alternate":
            modes = (modes[self.iteration % 2],)
        sources, reals = self.draw_sources()
        targets = {mode: self.draw_targets(mode) for mode in modes}
        if self.config.reals == "targets":
            reals = self.draw_reals()
        terms = self.update(sources, targets, reals)
        self.iteration += 1
        self.samples += self.config.batch_size
        return terms

    def update(self, sources: Sources, targets: dict[str, Targets], reals: Sources) -> Terms:
        """The updates of one iteration, in the published order: the discriminator for every mode, the generator likewise."""
        terms: Terms = {}
        for index, (mode, target) in enumerate(targets.items()):
            updates = self.iteration * len(targets) + index
            due = updates % self.config.r1_every == 0
            found = self.update_discriminator(
                reals, sources, target, self.config.lambda_reg * self.config.r1_every * due
            )
            terms |= {f"d_{mode}/{name}": value for name, value in found.items()}
        if self.iteration < self.config.discriminator_warmup:
            return terms
        for mode, target in targets.items():
            # style encoder and mapping network step in the latent phase only: trained with the other losses, the
            # style encoder degrades badly (the authors)
            stepping = ("generator", "mapping_network", "style_encoder") if mode == "latent" else ("generator",)
            found = self.update_generator(sources, target, stepping)
            terms |= {f"g_{mode}/{name}": value for name, value in found.items()}
        self.update_average()
        return terms

    def update_discriminator(self, reals: Sources, sources: Sources, targets: Targets, r1_weight: float) -> Terms:
        with self.stepping("discriminator"):
            with self.autocast():
                loss, terms = discriminator_loss(self.compiled, reals, sources, targets, self.seen, self.drawn)
            loss.backward()
            if r1_weight:
                penalty = r1_penalty(self.nets.discriminator, self.seen(reals.x), reals.domain)
                (r1_weight * penalty).backward()
                terms["reg"] = penalty.detach()
        return terms

    def update_generator(self, sources: Sources, targets: Targets, stepping: tuple[str, ...]) -> Terms:
        config = self.config
        weights = {"sty": config.lambda_sty, "ds": self.lambda_ds, "cyc": config.lambda_cyc}
        with self.stepping(*stepping):
            with self.autocast():
                loss, terms = generator_loss(self.compiled, sources, targets, weights, self.seen, self.drawn)
            loss.backward()
        return terms

    @property
    def lambda_ds(self) -> float:
        left = 1 - self.iteration / self.config.ds_iterations if self.config.ds_iterations else 0.0
        return self.config.lambda_ds * max(left, 0.0)

    @contextlib.contextmanager
    def stepping(self, *names: str) -> Iterator[None]:
        """Gradients for these networks alone; on leaving, they take a step."""
        for name, net in vars(self.nets).items():
            net.requires_grad_(name in names)
        yield
        for name in names:
            self.average_gradients(getattr(self.nets, name))
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()

    def average_gradients(self, net: nn.Module) -> None:
        """The mean over the processes, as one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def update_average(self) -> None:
        for name, net in self.average.networks().items():
            current = [p.detach() for p in getattr(self.nets, name).parameters()]
            torch._foreach_lerp_(list(net.parameters()), current, 1 - self.config.ema_decay)

    # what a step sees

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def seen(self, x: Tensor) -> Tensor:
        """What the discriminator gets to see of pictures."""
        return diff_augment(x, self.config.diff_augment, self.uniform)

    def drawn(self, x: Tensor, domain: Tensor) -> Tensor:
        """Pictures, real or fake, of domains that may be monochrome."""
        return luma_where(x, domain, self.grayscale) if self.config.grayscale_domains else x

    def uniform(self, count: int, *shape: int) -> Tensor:
        """``(count, *shape)`` uniform in [0, 1): this process's part of a joint draw."""
        return self.share(torch.rand(count * self.world, *shape, generator=self.random, device=self.device))

    def share(self, joint: Tensor) -> Tensor:
        """This process's part of a joint batch."""
        return joint.chunk(self.world)[self.rank]

    def draw_domains(self, odds: Tensor) -> Tensor:
        return torch.multinomial(odds, self.config.batch_size, replacement=True, generator=self.random)

    def draw_joint(self, domain: Tensor, odds: Sequence[Tensor | None] | None = None) -> Tensor:
        """Pictures of the whole batch."""
        x = self.faces.sample(domain, self.random, odds)
        return augment(self.drawn(x, domain), self.config.random_crop, self.random)

    def own(self, joint: Tensor) -> Tensor:
        """This process's part of joint pictures, laid out as the networks want them."""
        x = self.share(joint)
        return x.contiguous(memory_format=torch.channels_last) if self.config.channels_last else x

    def draw_pictures(self, domain: Tensor) -> Tensor:
        return self.own(self.draw_joint(domain))

    def draw_sources(self) -> tuple[Sources, Sources]:
        """Sources, and the same pictures as they are, which the discriminator may be shown as real."""
        domain = self.draw_domains(self.source_odds)
        x = self.draw_joint(domain, self.picture_odds)
        real, own = self.own(x), self.share(domain)
        if not self.config.photo_augment:
            return Sources(real, own), Sources(real, own)
        photos = self.photos[domain][:, None, None, None]
        clean = torch.where(photos, misalign(x, self.random), x)
        x = torch.where(photos, photograph(clean, self.random), clean)
        return Sources(self.own(x), own, self.own(clean)), Sources(real, own)

    def draw_reals(self) -> Sources:
        domain = self.draw_domains(self.target_odds)
        return Sources(self.draw_pictures(domain), self.share(domain))

    def draw_targets(self, mode: str) -> Targets:
        domain = self.draw_domains(self.target_odds)
        if mode == "reference":
            pair = [self.draw_pictures(domain) for _ in range(2)]
            return Targets(self.share(domain), *pair, self.compiled.style_encoder)
        shape = (self.config.batch_size, self.config.architecture.latent_dim)
        pair = [self.share(torch.randn(shape, generator=self.random, device=self.device)) for _ in range(2)]
        return Targets(self.share(domain), *pair, self.compiled.mapping_network)

    # the state of a run

    def state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "domains": list(self.faces.domains),
            "iteration": self.iteration,
            "samples": self.samples,
            "seconds": self.seconds,
            "changes": self.changes,
            "networks": {name: net.state_dict() for name, net in vars(self.nets).items()},
            "average": {name: net.state_dict() for name, net in self.average.networks().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "random": self.random.get_state(),
            "torch_random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from :meth:`state`.

        Raises:
            TrainingError: the run was trained on other domains.
        """
        if tuple(state["domains"]) != self.faces.domains:
            raise TrainingError(
                f"This run was trained on the domains {', '.join(state['domains'])}, but the data has "
                f"{', '.join(self.faces.domains)}. Give it the same folders, or start another run."
            )
        self.iteration, self.seconds = state["iteration"], state["seconds"]
        before = from_state(state["config"])
        self.samples = state.get("samples", self.iteration * before.batch_size)
        self.changes = list(state.get("changes", []))
        if changed := differences(before, self.config):
            self.changes.append({"iteration": self.iteration, "options": changed})
        for name, net in vars(self.nets).items():
            net.load_state_dict(state["networks"][name])
        for name, net in self.average.networks().items():
            net.load_state_dict(state["average"][name])
        for name, optimizer in self.optimizers.items():
            own = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizers"][name])
            for group, options in zip(optimizer.param_groups, own, strict=True):
                group.update(options)  # this config's rates: the saved ones may have been changed by an option
        if state["random"].shape == self.random.get_state().shape:
            self.random.set_state(state["random"].cpu())
            torch.set_rng_state(state["torch_random"].cpu())
        else:
            log.warning("The run was on another kind of device: its random numbers start anew.")
            self.random.manual_seed(self.config.seed + self.iteration)

    def start_from(self, folder: Path) -> None:
        """Takes over the weights of a model folder, its discriminator's too where it has one; grows one of half the side.

        Raises:
            TrainingError: it has another architecture or other domains.
        """
        model, discriminator = load_model(folder), load_discriminator(folder)
        old, new = model.config.architecture, self.config.architecture
        if (new != old and not grows_from(new, old)) or model.config.domains != self.faces.domains:
            raise TrainingError(
                f"The model {model.config.name} has the domains {', '.join(model.config.domains)} and {old}, but the run "
                f"has {', '.join(self.faces.domains)} and {new}: it cannot start from there. A run starts from a model of "
                "its own architecture, or from one of half the side and twice the base width."
            )
        states = {name: net.state_dict() for name, net in model.networks().items()}
        if discriminator is not None:
            states["discriminator"] = discriminator
        for name, state in states.items():
            if new == old:
                getattr(self.nets, name).load_state_dict(state)
            else:
                transplant(name, state, getattr(self.nets, name))
        if new != old:
            self._grow(model, discriminator)
        for name, net in self.average.networks().items():
            net.load_state_dict(getattr(self.nets, name).state_dict())

    def _grow(self, model: Model, discriminator: dict[str, Tensor] | None) -> None:
        for net in model.networks().values():
            net.to(self.device)
        first_layer = None
        if discriminator is not None:
            a = model.config.architecture
            small = Discriminator(a.image_size, len(self.faces.domains), a.base_channels, a.max_channels)
            small.load_state_dict(discriminator)
            first_layer = small.main[0].to(self.device)

        def draw() -> tuple[Tensor, Tensor]:
            sources, _ = self.draw_sources()
            return sources.x, sources.domain

        left = learn_new_level(model, self.nets, draw, self.config.grow_steps, self.random, first_layer)
        log.info("Grown from %s: drawings differ from its own, enlarged, by %.3f.", model.config.name, left)

    def snapshot(self, name: str) -> Model:
        """The averaged networks as a model, with the facts of its training."""
        defaults, chosen = asdict(TrainConfig()), asdict(self.config)
        facts = {
            "iterations": self.iteration,
            "samples": self.samples,
            "hours": round(self.seconds / 3600, 2),
            "device": _device_name(self.device),
            "options": {k: v for k, v in chosen.items() if v != defaults[k] and k not in ("architecture", "framing")},
        }
        if self.changes:
            facts["changes"] = self.changes
        return replace(self.average, config=replace(self.average.config, name=name, training=facts))

    def run(self, folder: Path, validation: dict[str, list[Image.Image]] | None = None) -> None:
        """Trains to ``config.iterations``, saving and sampling on the way; a stop signal saves before it ends.

        Args:
            validation: the faces of the sample sheets, by domain; None: no sheets.

        Raises:
            TrainingError: another process trains in this folder; a loss or a weight is not finite.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self._locked(folder), _StopSignal() as stop, self._curves(folder) as curves:
            config = self.config
            saved, terms = time.monotonic(), {}
            total = self.samples + (config.iterations - self.iteration) * config.batch_size
            with tqdm(total=total, initial=self.samples, unit="img", disable=self.rank > 0) as bar:
                while self.iteration < config.iterations and not self._agreed(stop.came):
                    begin = time.monotonic()
                    terms |= self.step()  # of both phases, where they alternate
                    bar.update(config.batch_size)
                    if self.iteration % config.log_every == 0:
                        values = self.read(terms)
                        curves.add(self.iteration, {"seconds": self.seconds, "lambda_ds": self.lambda_ds, **values})
                        bar.set_postfix({name.split("/")[-1]: f"{value:.2f}" for name, value in values.items()})
                    self.seconds += time.monotonic() - begin
                    if self.rank > 0:
                        continue
                    if validation and self.iteration % config.sample_every == 0:
                        write_sheets(self.average, folder / "sheets", self.iteration, validation)
                    if self.iteration % config.snapshot_every == 0:
                        self._save_snapshot(folder)
                    if time.monotonic() - saved > config.save_minutes * 60:
                        self._save_state(folder)
                        saved = time.monotonic()
            if self.rank == 0:
                self._save_state(folder)
                if self.iteration % config.snapshot_every:  # else it is there already
                    self._save_snapshot(folder)

    def read(self, terms: Terms) -> dict[str, float]:
        """The losses as numbers, which waits for the device: their mean over the processes.

        Raises:
            TrainingError: one of them is not finite.
        """
        values = torch.stack([value.float() for value in terms.values()])
        if self.world > 1:
            dist.all_reduce(values)
        found = {name: round(value / self.world, 5) for name, value in zip(terms, values.tolist(), strict=True)}
        if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
            raise self._diverged(f"the loss {wrong[0]} is {found[wrong[0]]}")
        return found

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"Training has diverged: at iteration {self.iteration}, {what}. The last good state is kept; go on from it "
            "with a lower learning_rate, a higher lambda_reg or bf16=false."
        )

    def _save_state(self, folder: Path) -> None:
        for part, net in vars(self.nets).items():
            if not all(torch.isfinite(p).all() for p in net.parameters()):
                raise self._diverged(f"the {part.replace('_', ' ')} has weights that are not finite")
        save_state(self.state(), folder / STATE_FILE)

    def _save_snapshot(self, folder: Path) -> None:
        snapshot = folder / "snapshots" / f"{self.iteration:06d}"
        partial = snapshot.with_name(
            f".{snapshot.name}.partial"
        )  # a stop must leave no half of a model under that name
        shutil.rmtree(partial, ignore_errors=True)
        save_model(self.snapshot(folder.resolve().name), partial)
        save_discriminator(self.nets.discriminator, partial)
        shutil.rmtree(snapshot, ignore_errors=True)
        partial.rename(snapshot)

    def _curves(self, folder: Path) -> _Curves:
        return _Curves(folder if self.rank == 0 else None, self.iteration)

    def _agreed(self, stop: bool) -> bool:
        """Whether any process was told to stop: all leave after the same iteration, or those left would wait forever."""
        if self.world == 1:
            return stop
        flag = torch.tensor(float(stop))
        dist.all_reduce(flag)
        return flag.item() > 0

    @contextlib.contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """Keeps other processes out of the folder; the system lifts it however this one ends."""
        if self.rank > 0:
            yield
            return
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise TrainingError(f"Another process is training in {folder}.") from error
        try:
            yield
        finally:
            lock.release()


def _compiled(nets: Networks) -> Networks:
    """The same networks with compiled forward passes.

    Gradients of gradients cannot pass through compiled code, so the R1 penalty keeps using the plain discriminator.
    """
    # each runs with and without gradients, into its weights and through them: more variants than dynamo expects
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    compiled = Networks(*(copy.copy(net) for net in vars(nets).values()))
    compiled.generator.encoder = torch.compile(nets.generator.encoder)
    compiled.generator.decoder = torch.compile(nets.generator.decoder)
    compiled.style_encoder.forward = torch.compile(nets.style_encoder.forward)
    compiled.discriminator.forward = torch.compile(nets.discriminator.forward)
    return compiled


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def save_discriminator(discriminator: Discriminator, folder: Path) -> None:
    """Beside a snapshot's weights, as fp16: for a run that starts from it; no part of the model."""
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in discriminator.state_dict().items()}
    save_file(state, folder / DISCRIMINATOR_FILE)


def load_discriminator(folder: Path) -> dict[str, Tensor] | None:
    """What :func:`save_discriminator` wrote, as fp32; None where there is none.

    Raises:
        TrainingError: the file is broken.
    """
    file = folder / DISCRIMINATOR_FILE
    if not file.is_file():
        return None
    try:
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{file} is broken or not a safetensors file: {error}.") from error


def save_state(state: dict[str, Any], file: Path) -> None:
    """Writes beside, then renames: a stop at any moment leaves the old file or the new one, never half of one."""
    beside = file.with_suffix(".partial")
    with beside.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


class _StopSignal:
    """While this lasts, ``came`` is set by SIGINT or SIGTERM; a second one stops at once."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> _StopSignal:
        self.before = {}
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
