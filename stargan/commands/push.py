"""``python -m stargan push``: publishes a model on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "push",
        help="publish a model on the Hugging Face Hub",
        description="Publishes a model folder with its card (README.md) and the pictures that the card shows. Figures of an "
        "evaluation.json in the folder, which evaluate --output writes, go into the card. Log in first, with hf auth login or HF_TOKEN.",
    )
    parser.add_argument("folder", type=Path, help="the model folder")
    parser.add_argument("repo", help="user/repo")
    parser.add_argument("--private", action="store_true", help="a new repository is for you alone")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.models.registry import push_model

    print(push_model(options.folder, options.repo, private=options.private))
    return 0
