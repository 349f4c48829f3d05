"""What several commands take in common: types of options, the model and its styles.

Nothing heavy is imported to make a parser: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stargan.constants import DEFAULT_MODEL, MAX_PSI

if TYPE_CHECKING:
    from stargan.drawing import Translator


def add_styles(parser: argparse.ArgumentParser) -> None:
    """The model, and where styles come from."""
    parser.add_argument("--model", help="a registered name, a model folder, or user/repo[@revision] on the Hub")
    parser.add_argument("--domain", help="what to draw (default: the model's first domain)")
    parser.add_argument(
        "--psi",
        type=within(0, MAX_PSI),
        default=0.7,
        help=f"truncation of seeds' styles: 0 the average, 1 all variety, at most {MAX_PSI} (default: %(default)s)",
    )
    parser.add_argument(
        "--references", type=Path, nargs="+", help="pictures of the domain, or folders: their styles, not seeds'"
    )
    parser.add_argument(
        "--strength", type=within(0, 1), default=1.0, help="of references: 0 keeps the photo's own style (default: 1)"
    )
    parser.add_argument("--device", help="cuda, mps, cpu, …; default: CUDA, else Apple's MPS, else the CPU")


def load_translator(options: argparse.Namespace) -> Translator:
    """The model that the options of :func:`add_styles` name."""
    import torch

    import stargan
    from stargan.inference.translator import find_device
    from stargan.pictures import faces

    device = options.device
    if device in (None, "cuda") and torch.cuda.is_available():
        # torchrun starts a process for each GPU and leaves the choice to it
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    place = find_device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)  # the face detector takes the current one
    faces.search_on(place)
    return stargan.load_translator(options.model or DEFAULT_MODEL, place)


def one_of(module: str, name: str) -> Callable[[str], str]:
    """A type of options: one of the names that ``name`` in ``module`` lists.

    Unlike ``choices``, the module is imported when the option is given, not for ``--help``: it may import torch.
    """

    def chosen(text: str) -> str:
        names = list(getattr(import_module(module), name))
        if text not in names:
            raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(map(repr, names))})")
        return text

    return chosen


def at_least(least: int) -> Callable[[str], int]:
    """A type of options: whole numbers from ``least`` up."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, not {text!r}")
        return int(text)

    return number


def within(least: float, most: float) -> Callable[[str], float]:
    """A type of options: numbers from ``least`` to ``most``."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not {text!r}")
        return value

    return number
