"""``python -m stargan calibrate``: styles of a trained model to where it draws best."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="fit a trained style encoder and mapping network to each other",
        description="Reference-guided drawings of a trained model become as crisp as latent-guided ones, and those "
        "less dark: the last layers of its style encoder are fitted, so that styles of pictures lie where the mapping "
        "network's do, as far apart as before, and then the mapping network's, so that its styles are spread as those.",
    )
    parser.add_argument("model", help="a registered name, a model folder, or user/repo")
    parser.add_argument("--data", type=Path, required=True, help="the training pictures, a folder for each domain")
    parser.add_argument("--output", type=Path, required=True, help="the calibrated model's folder, which names it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model
    from stargan.training.calibrate import calibrate
    from stargan.training.data import Faces
    from stargan.training.state import save_made_of

    if options.output.is_file():
        raise NotADirectoryError(f"{options.output} is a file: --output names the model's folder.")
    source = find_model(options.model)
    model = load_model(source)
    model.config = replace(model.config, name=options.output.resolve().name)  # it may be no name: said before the work
    faces = Faces(options.data, model.config.architecture.image_size, torch.device("cpu"))
    found = calibrate(model, faces)
    save_made_of(source, model, options.output)
    for domain, (before, after) in found.items():
        print(f"{domain}: styles of pictures are {after:.2f} from their aims; before, {before:.2f}")
    return 0
