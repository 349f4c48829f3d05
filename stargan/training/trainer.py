"""Networks, optimisers and random state of a training run, and one iteration: what a step sees and what it updates."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stargan.inference.compiling import obstacle
from stargan.inference.translator import has_bf16
from stargan.models.checkpoint import Model
from stargan.models.config import ModelConfig
from stargan.networks import Discriminator, init_weights
from stargan.training.augment import diff_augment, luma_where, misalign, photograph
from stargan.training.config import TrainConfig
from stargan.training.data import Faces, augment
from stargan.training.losses import (
    FeatureMeans,
    Networks,
    Sources,
    Targets,
    Terms,
    Thumbnails,
    discriminator_loss,
    generator_loss,
    r1_penalty,
    spike_penalty,
)
from stargan.training.shards import ShardedFaces

log = logging.getLogger(__name__)


class TrainingError(ValueError):
    """Training that cannot start or go on, in a sentence that says what to do."""


class Trainer:
    """Networks, optimisers and random state of a run; :meth:`step` is one iteration."""

    def __init__(self, config: TrainConfig, faces: Faces | ShardedFaces, device: torch.device) -> None:
        self.config, self.faces, self.device = config, faces, device
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        if config.batch_size % self.world:
            raise TrainingError(f"The batch of {config.batch_size} cannot be shared equally by {self.world} processes.")
        weighed = {key.partition("/")[0] for key in (*(config.target_weights or {}), *config.kinds)}
        named = {*config.grayscale_domains, *config.photo_augment, *weighed}
        if unknown := sorted(named - set(faces.domains)):
            raise TrainingError(f"The options name the domain {unknown[0]!r}; the data has {', '.join(faces.domains)}.")
        if config.compile and (why := obstacle(device)):
            raise TrainingError(f"Nothing can be compiled here, because {why}: train with --no-compile.")
        self.bf16 = config.bf16 and trains_in_bf16(device, quiet=self.rank > 0)
        self.iteration = self.samples = 0
        self.seconds = 0.0
        self.changes: list[dict[str, Any]] = []  # of options, on the way

        torch.manual_seed(config.seed)
        model_config = ModelConfig(
            "untrained", faces.domains, config.architecture, config.framing, grayscale_domains=config.grayscale_domains
        )
        model = Model.build(model_config)
        a = config.architecture
        kinds = len(faces.domains) + len(config.kinds)
        faces.tell_apart(config.kinds)
        discriminator = Discriminator(a.image_size, kinds, a.base_channels, a.max_channels)
        self.nets = Networks(model.generator, model.mapping_network, model.style_encoder, discriminator)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        last = discriminator.main[-1]
        assert isinstance(last, nn.Conv2d)
        self.feature_means = FeatureMeans(kinds, last.in_channels, device)
        modes = ("latent", "reference") if config.lambda_sw else ()
        self.thumbnails = {mode: Thumbnails(len(faces.domains), device) for mode in modes}
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
        self.source_odds, self.source_picture_odds = faces.weights(config.source_weights or {})
        self.target_odds, self.target_picture_odds = faces.weights(config.target_weights or {})
        counts = _kind_counts(faces, self.target_picture_odds, kinds)
        if config.reals == "sources":
            shown = _kind_counts(faces, self.source_picture_odds, kinds) * self.source_odds.cpu()[:, None] > 0
            missing = (counts * self.target_odds.cpu()[:, None] > 0) & ~shown
            if missing.any():
                kind = [*faces.domains, *config.kinds][int(missing.any(dim=0).nonzero()[0])]
                raise TrainingError(
                    f"Pictures of {kind} are to be drawn, but by source_weights none is a source, and sources are what the "
                    "discriminator is shown as real: add --reals targets."
                )
        # of each domain, up to each kind: 1 from its last on
        cumulative = counts.cumsum(dim=1)
        self.kind_shares = (cumulative / cumulative[:, -1:]).to(device)
        self.photos = torch.tensor([domain in config.photo_augment for domain in faces.domains], device=device)
        self.grayscale = torch.tensor([domain in config.grayscale_domains for domain in faces.domains], device=device)
        self.compiled = _compiled(self.nets) if config.compile else self.nets

    # one iteration

    def step(self) -> Terms:
        """One iteration; its loss terms, on the device."""
        modes = ["latent", "reference"]
        if self.config.phases == "alternate":
            modes = [modes[self.iteration % 2]]
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
                loss, terms = discriminator_loss(
                    self.compiled, reals, sources, targets, self.seen, self.drawn, self.matched
                )
            loss.backward()
            if r1_weight:
                penalty = r1_penalty(self.nets.discriminator, self.seen(reals.x), reals.kind)
                (r1_weight * penalty).backward()
                terms["reg"] = penalty.detach()
        return terms

    def update_generator(self, sources: Sources, targets: Targets, stepping: tuple[str, ...]) -> Terms:
        config = self.config
        weights = {
            "sty": config.lambda_sty,
            "ds": self.lambda_ds,
            "cyc": config.lambda_cyc,
            "grid": config.lambda_grid,
            "fm": config.lambda_fm,
            "sw": config.lambda_sw,
        }
        light = partial(targets.thumbnails.distance, random=self.random) if targets.thumbnails else None
        with self.stepping(*stepping):
            with self.autocast():
                loss, terms = generator_loss(
                    self.compiled, sources, targets, weights, self.seen, self.drawn, self.matched, light
                )
            loss.backward()
            if config.lambda_spikes:  # of a quarter of the batch: it costs a further pass through the generator
                few = -(-len(sources.x) // 4)
                with self.autocast():
                    style = targets.style(targets.first[:few], targets.domain[:few]).detach()
                    penalty = spike_penalty(self.nets.generator, sources.x[:few], style)
                (config.lambda_spikes * penalty).backward()
                terms["spikes"] = penalty.detach()
        return terms

    @property
    def matched(self) -> FeatureMeans | None:
        return self.feature_means if self.config.lambda_fm else None

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
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

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

    def draw_joint(self, domain: Tensor, odds: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Pictures of the whole batch, and their kinds."""
        x, kind = self.faces.sample(domain, self.random, odds)
        return augment(self.drawn(x, domain), self.config.random_crop, self.random), kind

    def own(self, joint: Tensor) -> Tensor:
        """This process's part of joint pictures, laid out as the networks want them."""
        x = self.share(joint)
        return x.contiguous(memory_format=torch.channels_last) if self.config.channels_last else x

    def draw_pictures(self, domain: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures of target domains, references or what is shown as real, and their kinds."""
        x, kind = self.draw_joint(domain, self.target_picture_odds)
        return self.own(x), self.share(kind)

    def draw_sources(self) -> tuple[Sources, Sources]:
        """Sources, and the same pictures as they are, which the discriminator may be shown as real."""
        domain = self.draw_domains(self.source_odds)
        x, kind = self.draw_joint(domain, self.source_picture_odds)
        own = self.share(domain)
        real = Sources(self.own(x), own, kind=self.share(kind))
        if not self.config.photo_augment:
            return real, real
        photos = self.photos[domain][:, None, None, None]
        clean = torch.where(photos, misalign(x, self.random), x)
        x = torch.where(photos, photograph(clean, self.random), clean)
        return Sources(self.own(x), own, self.own(clean), real.kind), real

    def draw_reals(self) -> Sources:
        domain = self.draw_domains(self.target_odds)
        x, kind = self.draw_pictures(domain)
        return Sources(x, self.share(domain), kind=kind)

    def draw_targets(self, mode: str) -> Targets:
        domain, thumbnails = self.draw_domains(self.target_odds), self.thumbnails.get(mode)
        if mode == "reference":
            (first, kind), (second, _) = (self.draw_pictures(domain) for _ in range(2))
            return Targets(self.share(domain), first, second, self.compiled.style_encoder, kind, thumbnails)
        shape = (self.config.batch_size, self.config.architecture.latent_dim)
        first, second = (self.share(torch.randn(shape, generator=self.random, device=self.device)) for _ in range(2))
        own = self.share(domain)
        return Targets(own, first, second, self.compiled.mapping_network, self.kinds_of(first, own), thumbnails)

    def kinds_of(self, z: Tensor, domain: Tensor) -> Tensor:
        """The kinds that latent codes ``(N, latent_dim)`` stand for, by their first number: as often as pictures are of
        them by ``target_weights``."""
        quantile = torch.special.ndtr(z[:, :1]).clamp(max=1 - 1e-6)
        return (self.kind_shares[domain] <= quantile).sum(dim=1)

    # what came of it

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
            raise self.diverged(f"the loss {wrong[0]} is {found[wrong[0]]}")
        return found

    def diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"Training has diverged: at iteration {self.iteration}, {what}. Go on from the last good state, where there "
            "is one, with a lower learning_rate, a higher lambda_reg or without bf16."
        )

    def check_weights(self) -> None:
        """
        Raises:
            TrainingError: a weight is not finite.
        """
        for part, net in vars(self.nets).items():
            if not all(torch.isfinite(p).all() for p in net.parameters()):
                raise self.diverged(f"the {part.replace('_', ' ')} has weights that are not finite")


def _kind_counts(faces: Faces | ShardedFaces, odds: Sequence[Tensor | None], kinds: int) -> Tensor:
    """How much the pictures of each domain that are of each kind weigh together, ``(domains, kinds)``, on the CPU."""
    counts = [
        torch.bincount(kind.cpu(), None if own is None else own.cpu(), minlength=kinds).float()
        for kind, own in zip(faces.kinds, odds, strict=True)
    ]
    return torch.stack(counts)


def trains_in_bf16(device: torch.device, *, quiet: bool = False) -> bool:
    """Whether bf16 is fast there; if not, the log says that it is done without, but for ``quiet``."""
    if not (fast := has_bf16(device)) and not quiet:
        log.warning("bf16 is not known to be fast here, and may be many times slower: training in fp32.")
    return fast


def _compiled(nets: Networks) -> Networks:
    """The same networks with compiled forward passes.

    Gradients of gradients cannot pass through compiled code, so the R1 penalty keeps using the plain discriminator.
    """
    # each runs with and without gradients, into its weights and through them: more variants than dynamo expects
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    compiled = Networks(*(copy.copy(net) for net in vars(nets).values()))
    for net, name in (
        ("generator", "encoder"),
        ("generator", "decoder"),
        ("style_encoder", "forward"),
        ("discriminator", "features"),
    ):
        setattr(getattr(compiled, net), name, torch.compile(getattr(getattr(nets, net), name)))
    return compiled


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
