"""``config.json``: what a model is, checked before anything is built of it.

A stranger wrote the file. Whatever is wrong in it is refused in one sentence that names the entry, and what a valid one
may ask for is bounded: the file's size, the depth of what it nests, the number of weights, the width of what is computed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, field, fields
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stargan.constants import default_base_channels
from stargan.errors import ECHO

CONFIG_FILE, EVALUATION_FILE, DISCRIMINATOR_FILE = "config.json", "evaluation.json", "discriminator.safetensors"
# A config with all facts of its training has 2 kB.
MAX_CONFIG_BYTES = 100_000
MAX_DEPTH = 16
MAX_WIDTH = 2048
MAX_DOMAINS = 64
# 2 GB in fp32; the published architecture at 256 px has 57 million.
MAX_PARAMETERS = 500_000_000
# Values of one picture's widest layer, 128 MB in fp32: twice the published width at 1024 px.
MAX_VALUES = 2**25
# A finisher of more channels would cost more than most decoders that it corrects.
MAX_FINISH = 64
IMAGE_SIZES = (16, 32, 64, 128, 256, 512, 1024)

# Five landmarks of a face, ``(x, y)`` in fractions of the side: see ModelConfig.framing.
Points = tuple[tuple[float, float], ...]

# Mean of MTCNN's five landmarks over the training faces.
ANIME_FRAMING: Points = ((0.3635, 0.4230), (0.6423, 0.4235), (0.4952, 0.5894), (0.3749, 0.7084), (0.6314, 0.7097))
# Median over 56 pictures of CelebA-HQ.
CELEBA_HQ_FRAMING: Points = ((0.375, 0.477), (0.626, 0.476), (0.495, 0.634), (0.390, 0.742), (0.613, 0.741))
FRAMINGS: dict[str, Points | None] = {"anime": ANIME_FRAMING, "celeba-hq": CELEBA_HQ_FRAMING, "whole": None}

Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
# Domains name folders and files.
Domain = Annotated[str, Field(pattern=r"^\w[\w-]{0,63}$")]
Name = Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f\x7f]{1,100}$")]
Fraction = Annotated[float, Field(ge=-1, le=2)]

_WHOLE = f"must be a whole number up to {MAX_WIDTH}"
_DOMAINS = "must be names of letters, digits, - and _, up to 64 characters each"
# What an entry must be, where its value is of a wrong type or out of range.
_MUST = {
    "name": "must be 1 to 100 characters without a slash",
    "domains": _DOMAINS,
    "grayscale_domains": _DOMAINS,
    "architecture": "must be an object",
    "framing": "must be five points (x, y) in fractions of the side",
    "licence": "must be a text of up to 1000 characters",
    "training": "must be an object",
    "image_size": _WHOLE,
    "style_dim": _WHOLE,
    "latent_dim": _WHOLE,
    "base_channels": _WHOLE,
    "max_channels": _WHOLE,
    "finish_channels": f"must be a whole number from 0 to {MAX_FINISH}",
    "high_pass_weight": "must be a number from 0 to 1000",
}


class ModelError(ValueError):
    """A model that cannot be used; the message says which file or tensor is at fault, in a sentence for the user."""


def brief(value: object) -> str:
    """``repr(value)``, of which no more than :data:`stargan.errors.ECHO` characters are said back."""
    text = repr(value)
    return text if len(text) <= ECHO else text[: ECHO - 1] + "…"


T = TypeVar("T")
_CHECKED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def _in_a_sentence(cls: type[T]) -> type[T]:
    """Makes a dataclass of pydantic raise ModelError, in one sentence, instead of pydantic's error, a page long."""
    made: Callable[..., None] = cls.__init__

    @wraps(made)
    def init(self: T, *args: Any, **values: Any) -> None:
        try:
            made(self, *args, **values)
        except ValidationError as error:
            raise ModelError(_sentence(error, cls)) from None

    cls.__init__ = init  # type: ignore[method-assign, assignment]
    return cls


@_in_a_sentence
@dataclass(frozen=True, config=_CHECKED)
class Architecture:
    """What decides every tensor's shape, but for the number of domains."""

    image_size: int = 256
    style_dim: Width = 64
    latent_dim: Width = 16
    high_pass_weight: Annotated[float, Field(ge=0, le=1000)] = 0.0
    base_channels: Width | None = None
    max_channels: Width = 512
    finish_channels: Annotated[int, Field(ge=0, le=MAX_FINISH)] = 0

    def __post_init__(self) -> None:
        if self.image_size not in IMAGE_SIZES:
            raise ModelError(f"The image size of a model must be one of {IMAGE_SIZES}, not {brief(self.image_size)}.")
        if self.values > MAX_VALUES:
            most = MAX_VALUES // self.image_size**2
            raise ModelError(
                f"The base_channels of a model of {self.image_size} px must be at most {most}, not {self.width}."
            )

    @property
    def width(self) -> int:
        """Channels of the first layer."""
        return self.base_channels or default_base_channels(self.image_size)

    @property
    def values(self) -> int:
        """Of one picture's widest layer: the first and the last at full side, or, at half of it, the finisher's widest."""
        return max(self.width, self.finish_channels // 4) * self.image_size**2

    def parameters(self, domains: int) -> int:
        """How many weights the matrices of generator, mapping network and style encoder have: over 98 % of all."""
        style, halvings = self.style_dim, int(math.log2(self.image_size)) - 2
        widths = [self.width]
        for _ in range(halvings):
            widths.append(min(2 * widths[-1], self.max_channels))
        levels = list(pairwise(widths))
        inner = levels[: halvings - 2 + (self.high_pass_weight > 0)]
        middle = inner[-1][1] if inner else self.width
        # 3×3 and 1×1 convolutions between two levels, and within the narrower one
        residual = [9 * a * a + 9 * a * b + (a != b) * a * b for a, b in levels]
        generator = (
            2 * sum(residual[: len(inner)])
            + sum(2 * style * (a + b) for a, b in inner)
            + 2 * (2 * 18 * middle**2 + 4 * style * middle)
            + 30 * self.width
        )
        mapping_network = 512 * (self.latent_dim + 3 * 512 + domains * (3 * 512 + style))
        last = widths[-1]
        style_encoder = 27 * self.width + sum(residual) + 16 * last**2 + domains * style * last
        # convolutions from and to the picture, within a level, and 3×3 and 1×1 ones between two
        a, b, c = (self.finish_channels * k for k in (1, 2, 3))
        finisher = 216 * a + 27 * a * a + 45 * b * b + 36 * c * c + 11 * (a * b + b * c)
        return generator + mapping_network + style_encoder + finisher


@_in_a_sentence
@dataclass(frozen=True, config=_CHECKED)
class ModelConfig:
    """``config.json``.

    Attributes:
        framing: where five landmarks of a face lie, ``(x, y)`` in fractions of the side: left eye, right eye, nose,
            left and right mouth corner, as seen in the picture. None: the picture's middle square is taken, without
            looking for a face.
        training: facts of the training run: samples seen, hardware, options.
        grayscale_domains: pictures of these are the luma of what the generator returns.
    """

    name: Name
    domains: Annotated[tuple[Domain, ...], Field(max_length=MAX_DOMAINS)]
    architecture: Architecture
    framing: tuple[tuple[Fraction, Fraction], ...] | None = None
    licence: Annotated[str, Field(max_length=1000)] = ""
    training: dict[str, Any] = field(default_factory=dict)
    grayscale_domains: Annotated[tuple[Domain, ...], Field(max_length=MAX_DOMAINS)] = ()

    def __post_init__(self) -> None:
        if list(self.domains) != sorted(set(self.domains)) or not self.domains:
            raise ModelError(
                f"The domains of a model must be sorted, different names, not {brief(list(self.domains))}."
            )
        if unknown := set(self.grayscale_domains) - set(self.domains):
            raise ModelError(f"The grayscale domains of a model must be among its domains; {min(unknown)!r} is not.")
        if self.framing is not None and len(self.framing) != 5:
            raise ModelError(f"The framing of a model must be five points (x, y), not {brief(self.framing)}.")
        # else a face would be drawn out to a line
        if self.framing is not None and min(max(axis) - min(axis) for axis in zip(*self.framing, strict=True)) < 0.05:
            raise ModelError(f"The framing of a model must be five points apart, not {brief(self.framing)}.")
        if not _is_shallow(self.training, MAX_DEPTH):
            raise ModelError(f"The training entry of a model must not nest more than {MAX_DEPTH} levels.")
        if (count := self.architecture.parameters(len(self.domains))) > MAX_PARAMETERS:
            raise ModelError(
                f"The architecture of the model {brief(self.name)} has {count // 10**6} million parameters; "
                f"at most {MAX_PARAMETERS // 10**6} million are possible."
            )

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Parses ``config.json``.

        Raises:
            ModelError: not JSON, too long, or an unknown, missing or impossible entry, which is named.
        """
        if len(text) > MAX_CONFIG_BYTES:
            raise ModelError(f"{CONFIG_FILE} is longer than {MAX_CONFIG_BYTES} characters.")
        try:
            return _CONFIG.validate_json(text)
        except ValidationError as error:
            raise ModelError(_sentence(error, cls)) from None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


_CONFIG = TypeAdapter(ModelConfig)


def read_config(folder: Path) -> ModelConfig:
    """``config.json`` of a model folder.

    Raises:
        ModelError: it is missing or not a valid description of a model.
    """
    try:
        text = read_text(folder / CONFIG_FILE, MAX_CONFIG_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder} is not a model folder: it has no readable {CONFIG_FILE}.") from error
    return ModelConfig.from_json(text)


def read_text(file: Path, limit: int) -> str:
    """A file of UTF-8.

    Raises:
        ModelError: it has more than ``limit`` bytes; they are not read.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    with file.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ModelError(f"{file} has more than {limit} bytes.")
    return content.decode("utf-8")


def _is_shallow(value: object, depth: int) -> bool:
    if not isinstance(value, dict | list | tuple):
        return True
    return depth > 0 and all(
        _is_shallow(one, depth - 1) for one in (value.values() if isinstance(value, dict) else value)
    )


def _sentence(error: ValidationError, cls: type) -> str:
    """The one thing to say of what pydantic found wrong with a ``cls``."""
    faults = error.errors(include_url=False)
    unknown = sorted(".".join(map(str, fault["loc"])) for fault in faults if fault["type"].startswith("unexpected"))
    if unknown:
        names = ", ".join(unknown)
        return f"{CONFIG_FILE} has unknown entries: {names if len(names) <= ECHO else names[: ECHO - 1] + '…'}."
    fault = faults[0]
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if fault["type"] == "json_invalid":
        return f"{CONFIG_FILE} is not a valid model description: {fault['ctx']['error']}."
    path = [fields(cls)[part].name if isinstance(part, int) and not i else part for i, part in enumerate(fault["loc"])]
    named = [part for part in path if part in _MUST]
    if not named:
        return f"{CONFIG_FILE} is not a valid model description: it must be an object."
    if fault["type"] == "missing" and path[-1] == named[-1]:
        return f"{CONFIG_FILE} lacks the entry '{'.'.join(map(str, path))}'."
    if fault["type"] == "too_long" and path[-1] in ("domains", "grayscale_domains"):
        return f"The {path[-1]} of a model must be at most {MAX_DOMAINS}, not {fault['ctx']['actual_length']}."
    return f"The {named[-1]} of a model {_MUST[named[-1]]}, not {brief(fault['input'])}."
