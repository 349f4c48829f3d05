"""Everything a training run can be told, and the presets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from stargan.models.config import ANIME_FRAMING, Architecture, Points


class ConfigError(ValueError):
    """An option that does not exist or cannot have that value, in a sentence that names it."""


_COUNTS = ("iterations", "batch_size", "r1_every", "grow_steps", "snapshot_every", "sample_every", "log_every")
_SHARES = ("ema_decay", "random_crop")
# A state's random numbers are seeded with the seed and the iteration, in 64 bits.
_MAX_SEED = 2**63


@dataclass(frozen=True)
class TrainConfig:
    """Defaults are the paper's (section 4 and appendix B); what departs from them is named in the model card.

    Attributes:
        architecture: of the networks; a run's cannot change.
        framing: where the five landmarks of a face lie, x and y in fractions of the side (left eye, right eye, nose, left
            and right corner of the mouth); it is written into the model, which asks its sources to be cut so. None: the
            pictures' middle squares.
        iterations: of the whole run, those already done included.
        batch_size: samples an iteration, over all processes together; under 8 is known to fail.
        learning_rate: of generator, style encoder and discriminator.
        mapping_learning_rate: of the mapping network.
        betas: of Adam.
        weight_decay: of Adam.
        ema_decay: how much of the averaged weights, which are what is kept as the model, each iteration leaves.
        lambda_reg: weight of the R1 penalty.
        lambda_sty: weight of the style reconstruction term.
        lambda_ds: weight of the diversity term; falls linearly to 0 over ``ds_iterations``.
        lambda_cyc: weight of the cycle term.
        lambda_spikes: weight of a penalty on spots in the generator's features that are far out of the ordinary, which come
            out as blotches; 0: none, as published.
        lambda_grid: weight of a penalty on drawings that alternate from pixel to pixel; 0: none, as published.
        lambda_fm: weight of feature matching, which pulls the mean of drawings, as the discriminator sees them, to that of real
            pictures (Salimans et al. 2016); 0: none, as published.
        lambda_sw: weight of the sliced Wasserstein distance between drawings and real pictures at 16 px, which is how light and
            colour are spread over them (Deshpande et al. 2018); 0: none, as published.
        ds_iterations: over which the diversity term fades out.
        random_crop: share of the pictures that are cropped at random, to 80 to 100 % of their area.
        seed: of all that is random.
        phases: "both": latent-guided, then reference-guided updates in every iteration; "alternate": one of them an
            iteration, in turn (half the work an iteration).
        r1_every: the penalty every so many discriminator updates, multiplied by as many (lazy regularisation, Karras 2020).
        target_weights: how often a domain is the target ("anime"), or one of the pictures of a domain whose names begin so
            ("anime/a") is a reference or, by ``reals``, shown as real, against 1 for all else; None: all alike.
        grayscale_domains: fakes and reals of these domains are luma, in three equal channels; so are the model's drawings.
        diff_augment: DiffAugment policies (Zhao et al. 2020) of all that the discriminator sees: "color", "translation",
            "cutout".
        kinds: pictures of a domain whose names begin so ("anime/a") are of a kind that the discriminator judges by an output of its
            own, and latent codes are shared out among the kinds by their first number, in the shares that pictures have by
            target_weights: of a mixture, a generator learns the kind that is drawn more easily. Some pictures must be of
            none. A run's cannot change.
        source_weights: how often a source is of a domain ("anime"), or one of the pictures of a domain whose names begin so
            ("female/n"), against 1 for all else; None: all alike.
        photo_augment: domains whose sources go through what a phone and a room do to a face (light, noise, a crooked
            crop); never what the discriminator takes for real. The cycle leads back to the picture in its own light.
        reals: what the discriminator is shown as real. "sources", as published; "targets": other pictures, of each
            domain as often as it is a target, since one that is often drawn must be known well.
        init: a model (name, folder or Hub repository) whose weights the run starts from, instead of random ones. One of
            half the side and twice the base width is grown (see stargan/training/grow.py). A finisher stays behind.
        grow_steps: of the regression by which the new level of a grown model learns alone.
        discriminator_warmup: iterations at the start in which the discriminator learns alone; for an ``init``
            without one, since an untrained one would spoil the generator.
        bf16: forward passes in bf16, but for the R1 penalty; where the device is not known to be fast at it, all stays in fp32.
        channels_last: pictures and weights laid out channels-last, which is what bf16 convolutions like.
        compile: forward passes by torch.compile.
        save_minutes: between two states, from which a stopped run goes on.
        snapshot_every: iterations between two snapshots, which are models.
        sample_every: iterations between two sample sheets.
        log_every: iterations between two lines of figures; reading them waits for the device.
    """

    architecture: Architecture = field(default_factory=Architecture)
    framing: Points | None = ANIME_FRAMING
    iterations: int = 100_000
    batch_size: int = 8
    learning_rate: float = 1e-4
    mapping_learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.0, 0.99)
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    lambda_reg: float = 1.0
    lambda_sty: float = 1.0
    lambda_ds: float = 1.0
    lambda_cyc: float = 1.0
    lambda_spikes: float = 0.0
    lambda_grid: float = 0.0
    lambda_fm: float = 0.0
    lambda_sw: float = 0.0
    ds_iterations: int = 100_000
    random_crop: float = 0.5
    seed: int = 0
    phases: Literal["both", "alternate"] = "both"
    r1_every: int = 1
    target_weights: dict[str, float] | None = None
    grayscale_domains: tuple[str, ...] = ()
    diff_augment: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    source_weights: dict[str, float] | None = None
    photo_augment: tuple[str, ...] = ()
    reals: Literal["sources", "targets"] = "sources"
    init: str | None = None
    grow_steps: int = 400
    discriminator_warmup: int = 0
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False
    save_minutes: float = 5.0
    snapshot_every: int = 5_000
    sample_every: int = 1_000
    log_every: int = 50

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(f"The option {name} must be 1 or more, not {getattr(self, name)}.")
        for name, value in vars(self).items():
            if name not in _COUNTS and isinstance(value, int | float) and not 0 <= value < math.inf:
                raise ConfigError(f"The option {name} must be 0 or more, and finite, not {value}.")
        for name in _SHARES:
            if getattr(self, name) > 1:
                raise ConfigError(f"The option {name} must be 0 to 1, not {getattr(self, name)}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"The option betas must be 0 or more, and under 1, not {self.betas}.")
        if self.seed >= _MAX_SEED:
            raise ConfigError(f"The option seed must be under 2**63, not {self.seed}.")
        if self.architecture.high_pass_weight:
            raise ConfigError("Training has no landmark masks: the option high_pass_weight must be 0.")
        if self.architecture.finish_channels:
            raise ConfigError(
                "A finisher is made by finish, for a trained model: the option finish_channels must be 0."
            )
        if self.phases not in ("both", "alternate"):
            raise ConfigError(f"The option phases is both or alternate, not {self.phases!r}.")
        if self.reals not in ("sources", "targets"):
            raise ConfigError(f"The option reals is sources or targets, not {self.reals!r}.")
        for name in ("target_weights", "source_weights"):
            weights = getattr(self, name)
            if not all(0 <= weight < math.inf for weight in (weights or {}).values()):
                raise ConfigError(f"The option {name} must be 0 or more, and finite, not {weights}.")
        if self.diff_augment:
            from stargan.training.augment import POLICIES  # and torch, which --help does without

            if unknown := sorted(set(self.diff_augment) - set(POLICIES)):
                raise ConfigError(f"DiffAugment has the policies {', '.join(POLICIES)}, not {unknown[0]!r}.")


_TUNED: dict[str, Any] = {"bf16": True, "channels_last": True, "compile": True}

PRESETS: dict[str, TrainConfig] = {
    # For one GPU. At 64 px, a mapping network that learned ten times as slowly gave seeds that differ in brightness
    # more than in hue, and λ_ds under 1 gave less variety than real drawings have.
    "anime-128": TrainConfig(Architecture(128, base_channels=64, max_channels=256), iterations=28_000, batch_size=16, learning_rate=2e-4, mapping_learning_rate=1e-4, lambda_ds=2.0, ds_iterations=56_000, r1_every=8, target_weights={"anime": 3.0, "female": 1.0, "male": 1.0}, snapshot_every=1_000, **_TUNED),
    # What two CPU cores carry in a few hours: narrower, and half an iteration at a time.
    "anime-64": TrainConfig(Architecture(64, base_channels=32, max_channels=256), iterations=30_000, batch_size=16, learning_rate=2e-4, mapping_learning_rate=1e-5, lambda_ds=2.0, ds_iterations=8_000, phases="alternate", r1_every=8, target_weights={"anime": 2.0, "female": 1.0, "male": 1.0}, snapshot_every=1_000, sample_every=500, save_minutes=3.0, **_TUNED),
    # Twice the side on two CPU cores: half the width, so that it holds a model of anime-64, which --init names, block for block.
    "anime-128-cpu": TrainConfig(Architecture(128, base_channels=16, max_channels=256), iterations=200_000, batch_size=8, learning_rate=2e-4, mapping_learning_rate=1e-4, lambda_ds=3.0, lambda_spikes=0.01, lambda_grid=800.0, ds_iterations=200_000, phases="alternate", r1_every=8, target_weights={"anime": 4.0, "female": 1.0, "male": 1.0}, photo_augment=("female", "male"), reals="targets", discriminator_warmup=400, snapshot_every=1_000, sample_every=500, save_minutes=3.0, **_TUNED),
    # A few iterations, for tests.
    "tiny": TrainConfig(Architecture(32, base_channels=8, max_channels=16), iterations=4, batch_size=4, ds_iterations=4, snapshot_every=2, sample_every=2, log_every=1),
    # The paper's AFHQ setting.
    "published-256": TrainConfig(Architecture(256), framing=None, lambda_ds=2.0),
}  # fmt: skip


def from_state(values: dict[str, Any]) -> TrainConfig:
    """The config that a run was saved with, ``asdict(config)``; options that came later have their defaults."""
    return TrainConfig(**{**values, "architecture": Architecture(**values["architecture"])})


def find_preset(name: str) -> TrainConfig:
    """
    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}: choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def with_options(config: TrainConfig, arguments: Sequence[str]) -> TrainConfig:
    """The config with options of the command line, such as ``--lambda-ds 2 --architecture.image-size 64``.

    Options that cannot be end the program, with what is wrong on stderr and the exit status 2; ``--help`` ends it, too.

    Raises:
        ConfigError: tyro, which reads them, is not installed.
    """
    if not arguments:
        return config  # a machine that trains presets alone does without tyro
    try:
        import tyro
    except ModuleNotFoundError as error:
        raise ConfigError("Options of training need the package tyro: pip install tyro.") from error
    return tyro.cli(TrainConfig, prog="python -m stargan train", description="", default=config, args=arguments)


def option_of(training: dict[str, Any], name: str) -> Any:
    """What a model was trained with, of the facts in its config; None: not known, or the paper's."""
    options = training.get("options")
    return options.get(name) if isinstance(options, dict) else None


def differences(before: TrainConfig, after: TrainConfig) -> list[str]:
    """The options that differ, each as ``lambda_ds: 2.0 → 1.0``."""
    old, new = ({**asdict(config), **asdict(config.architecture)} for config in (before, after))
    return [f"{name}: {old[name]} → {new[name]}" for name in old if name != "architecture" and old[name] != new[name]]
