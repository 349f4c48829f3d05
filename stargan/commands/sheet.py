"""``python -m stargan sheet``: a model's results in one picture."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("sheet", help="a model's results on validation faces in one picture, for its card")
    parser.add_argument("model", help="a registered name, a model folder, or user/repo")
    parser.add_argument("--validation", type=Path, required=True, help="a folder of pictures for each domain")
    parser.add_argument("--domain", default="anime")
    parser.add_argument("--output", type=Path, required=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from PIL import Image

    from stargan.inference.translator import Translator
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model
    from stargan.training.sheets import results_sheet

    # what is wrong with it is said before the work
    if Image.registered_extensions().get(options.output.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{options.output} is no picture's name, such as sheet.png.")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    translator = Translator(load_model(find_model(options.model)))
    results_sheet(translator, options.validation, options.domain).save(options.output)
    return 0
