"""``python -m stargan sheet``: a model's results in one picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import refused


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("sheet", help="a model's results on validation faces in one picture, for its card")
    parser.add_argument("model", help="a registered name, a model folder, or user/repo")
    parser.add_argument("--validation", type=Path, required=True, help="a folder of pictures for each domain")
    parser.add_argument("--domain", default="anime")
    parser.add_argument("--output", type=Path, required=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model
    from stargan.training.sheets import results_sheet

    try:
        sheet = results_sheet(load_model(find_model(options.model)), options.validation, options.domain)
    except ValueError as error:
        return refused(error)
    sheet.save(options.output)
    return 0
