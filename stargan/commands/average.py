"""``python -m stargan average``: the mean of several models' weights."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "average",
        help="the mean of several models' weights, as a model",
        description="Of snapshots that started from one another: their mean draws more evenly than each of them. It has the "
        "last one's discriminator, for a run that starts from it. To be calibrated afterwards.",
    )
    parser.add_argument("models", nargs="+", metavar="model", help="a registered name, a model folder, or user/repo")
    parser.add_argument("--weights", type=float, nargs="+", help="of each, in any proportion; default: all alike")
    parser.add_argument("--output", type=Path, required=True, help="the new model's folder, which names it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model
    from stargan.training.average import average
    from stargan.training.state import save_made_of

    if options.output.is_file():
        raise NotADirectoryError(f"{options.output} is a file: --output names the model's folder.")
    folders = [find_model(name) for name in options.models]
    mean = average([load_model(folder) for folder in folders], options.weights)
    save_made_of(folders[-1], mean, options.output)
    print(f"{options.output}: {'; '.join(mean.config.training['mean_of'])}")
    return 0
