"""The training loop.

    python -m stargan train --preset anime-128 --data faces/train --validation faces/val --run runs/anime-128
    python -m stargan train --run runs/anime-128                       # goes on where it stopped
    torchrun --nproc-per-node 4 -m stargan train …                     # several GPUs; batch_size is the joint one

A run's folder holds ``state.pt`` (everything that resuming needs), ``snapshots/`` (model folders of the averaged weights),
``sheets/`` (sample sheets) and ``metrics.jsonl``.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from stargan.checkpoint import Model, ModelConfig, save_model
from stargan.networks import Discriminator, init_weights
from stargan.training.augment import diff_augment, luma_where
from stargan.training.config import TrainConfig
from stargan.training.data import Faces, augment
from stargan.training.losses import Networks, Sources, Targets, Terms, discriminator_loss, generator_loss, r1_penalty
from stargan.training.sheets import write_sheets

log = logging.getLogger(__name__)
STATE_FILE = "state.pt"


class TrainingError(RuntimeError):
    """Training that cannot start or go on, in a sentence that says what to do."""


class Trainer:
    """Networks, optimisers and random state of a run; :meth:`step` is one iteration, :meth:`run` all of them."""

    def __init__(self, config: TrainConfig, faces: Faces, device: torch.device) -> None:
        self.config, self.faces, self.device = config, faces, device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if config.batch_size % self.world:
            raise TrainingError(f"The batch of {config.batch_size} cannot be shared equally by {self.world} processes.")
        self.iteration = 0
        self.seconds = 0.0

        torch.manual_seed(config.seed)
        model_config = ModelConfig("untrained", faces.domains, config.architecture, config.framing)
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
        self.source_odds = torch.ones(len(weights), device=device)
        self.target_odds = torch.tensor(weights, device=device)
        self.grayscale = torch.tensor([domain in config.grayscale_domains for domain in faces.domains], device=device)
        self.compiled = _compiled(self.nets) if config.compile else self.nets

    # one iteration

    def step(self) -> Terms:
        """One iteration; its loss terms, on the device."""
        modes = ("latent", "reference")
        if self.config.phases == "alternate":
            modes = (modes[self.iteration % 2],)
        sources = self.draw_sources()
        targets = {mode: self.draw_targets(mode) for mode in modes}
        terms = self.update(sources, targets)
        self.iteration += 1
        return terms

    def update(self, sources: Sources, targets: dict[str, Targets]) -> Terms:
        """The updates of one iteration, in the published order: the discriminator for every mode, the generator likewise."""
        terms: Terms = {}
        for index, (mode, target) in enumerate(targets.items()):
            updates = self.iteration * len(targets) + index
            due = updates % self.config.r1_every == 0
            found = self.update_discriminator(sources, target, self.config.lambda_reg * self.config.r1_every * due)
            terms |= {f"d_{mode}/{name}": value for name, value in found.items()}
        for mode, target in targets.items():
            # style encoder and mapping network step in the latent phase only: trained with the other losses, the
            # style encoder degrades badly (the authors)
            stepping = ("generator", "mapping_network", "style_encoder") if mode == "latent" else ("generator",)
            found = self.update_generator(sources, target, stepping)
            terms |= {f"g_{mode}/{name}": value for name, value in found.items()}
        self.update_average()
        return terms

    def update_discriminator(self, sources: Sources, targets: Targets, r1_weight: float) -> Terms:
        with self.stepping("discriminator"):
            with self.autocast():
                loss, terms = discriminator_loss(self.compiled, sources, targets, self.seen)
            loss.backward()
            if r1_weight:
                penalty = r1_penalty(self.nets.discriminator, self.seen(sources.x, sources.domain), sources.domain)
                (r1_weight * penalty).backward()
                terms["reg"] = penalty.detach()
        return terms

    def update_generator(self, sources: Sources, targets: Targets, stepping: tuple[str, ...]) -> Terms:
        config = self.config
        weights = {"sty": config.lambda_sty, "ds": self.lambda_ds, "cyc": config.lambda_cyc}
        with self.stepping(*stepping):
            with self.autocast():
                loss, terms = generator_loss(self.compiled, sources, targets, weights, self.seen)
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

    def seen(self, x: Tensor, domain: Tensor) -> Tensor:
        """What the discriminator gets to see of a picture."""
        if self.config.grayscale_domains:
            x = luma_where(x, domain, self.grayscale)
        return diff_augment(x, self.config.diff_augment)

    def share(self, joint: Tensor) -> Tensor:
        """This process's part of a joint batch."""
        return joint.chunk(self.world)[self.rank]

    def draw_domains(self, odds: Tensor) -> Tensor:
        return torch.multinomial(odds, self.config.batch_size, replacement=True, generator=self.random)

    def draw_pictures(self, domain: Tensor) -> Tensor:
        x = self.faces.sample(domain, self.random)
        x = self.share(augment(x, self.config.random_crop, self.random))
        return x.contiguous(memory_format=torch.channels_last) if self.config.channels_last else x

    def draw_sources(self) -> Sources:
        domain = self.draw_domains(self.source_odds)
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
            "seconds": self.seconds,
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
        for name, net in vars(self.nets).items():
            net.load_state_dict(state["networks"][name])
        for name, net in self.average.networks().items():
            net.load_state_dict(state["average"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.random.set_state(state["random"].cpu())
        torch.set_rng_state(state["torch_random"].cpu())

    def snapshot(self, name: str) -> Model:
        """The averaged networks as a model, with the facts of its training."""
        defaults, chosen = asdict(TrainConfig()), asdict(self.config)
        facts = {
            "iterations": self.iteration,
            "samples": self.iteration * self.config.batch_size,
            "hours": round(self.seconds / 3600, 2),
            "device": _device_name(self.device),
            "options": {k: v for k, v in chosen.items() if v != defaults[k] and k not in ("architecture", "framing")},
        }
        return replace(self.average, config=replace(self.average.config, name=name, training=facts))

    def run(self, folder: Path, validation: Path | None = None) -> None:
        """Trains to ``config.iterations``, saving and sampling on the way; a stop signal saves before it ends."""
        config = self.config
        folder.mkdir(parents=True, exist_ok=True)
        stopping = _StopSignal()
        saved = time.monotonic()
        with tqdm(total=config.iterations * config.batch_size, initial=self.iteration * config.batch_size, unit="img", disable=self.rank > 0) as bar:
            while self.iteration < config.iterations and not stopping:
                begin = time.monotonic()
                terms = self.step()
                bar.update(config.batch_size)
                if self.iteration % config.log_every == 0 and self.rank == 0:
                    self.report(folder, terms, bar)
                self.seconds += time.monotonic() - begin
                if self.rank == 0:
                    if self.iteration % config.sample_every == 0:
                        write_sheets(self.average, folder / "sheets", self.iteration, validation)
                    if self.iteration % config.snapshot_every == 0:
                        save_model(self.snapshot(folder.name), folder / "snapshots" / f"{self.iteration:06d}")
                    if time.monotonic() - saved > config.save_minutes * 60:
                        save_state(self.state(), folder / STATE_FILE)
                        saved = time.monotonic()
        if self.rank == 0:
            save_state(self.state(), folder / STATE_FILE)
            save_model(self.snapshot(folder.name), folder / "snapshots" / f"{self.iteration:06d}")

    def report(self, folder: Path, terms: Terms, bar: tqdm) -> None:
        """Reads the losses (which waits for the device) and appends them to ``metrics.jsonl``."""
        values = {name: round(value.item(), 5) for name, value in terms.items()}
        row = {"iteration": self.iteration, "seconds": round(self.seconds, 1), "lambda_ds": round(self.lambda_ds, 4), **values}
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        bar.set_postfix({name.split("/")[-1]: f"{value:.2f}" for name, value in values.items()})


def _compiled(nets: Networks) -> Networks:
    """The same networks with compiled forward passes.

    Gradients of gradients cannot pass through compiled code, so the R1 penalty keeps using the plain discriminator.
    """
    compiled = Networks(*(copy.copy(net) for net in vars(nets).values()))
    compiled.generator.encoder = torch.compile(nets.generator.encoder)
    compiled.generator.decoder = torch.compile(nets.generator.decoder)
    compiled.style_encoder.forward = torch.compile(nets.style_encoder.forward)
    compiled.discriminator.forward = torch.compile(nets.discriminator.forward)
    return compiled


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def save_state(state: dict[str, Any], file: Path) -> None:
    """Writes beside, then renames: a stop at any moment leaves the old file or the new one, never half of one."""
    beside = file.with_suffix(".partial")
    with beside.open("wb") as out:
        torch.save(state, out)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


class _StopSignal:
    """True once SIGINT or SIGTERM came; a second one stops at once."""

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: the caller handles signals
                signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.came = True
        signal.signal(number, signal.SIG_DFL)

    def __bool__(self) -> bool:
        return self.came
