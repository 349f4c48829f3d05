"""``python -m stargan``: the commands."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stargan", description="StarGAN v2: train, evaluate and use it.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands)
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    return options.run(options)


def _add_train(commands: argparse._SubParsersAction) -> None:
    from stargan.training.config import PRESETS

    parser = commands.add_parser("train", help="train on folders of faces, one folder a domain")
    parser.add_argument("--preset", choices=PRESETS)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder of pictures for each domain")
    parser.add_argument("--validation", type=Path, help="the same layout; its first faces are on the sample sheets")
    parser.add_argument("--run", dest="folder", type=Path, required=True, help="where the run is kept; resumed if it exists")
    parser.add_argument("--device", help="cuda, cpu, …; default: CUDA where there is one")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    import torch

    from stargan.training.config import PRESETS
    from stargan.training.data import Faces
    from stargan.training.trainer import STATE_FILE, Trainer

    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    config = PRESETS[options.preset]
    trainer = Trainer(config, Faces(options.data, config.architecture.image_size, device), device)
    state = options.folder / STATE_FILE
    if state.exists():
        trainer.restore(torch.load(state, map_location=device, weights_only=True))
    trainer.run(options.folder, options.validation)
    return 0


if __name__ == "__main__":
    sys.exit(main())
