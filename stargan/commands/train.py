"""``python -m stargan train``: trains, or goes on with a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import preset, refused


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train on folders of faces, one folder a domain",
        description="Trains, or goes on with a run where it stopped: then the run's own options hold, and neither --preset nor "
        "earlier options need repeating. Several GPUs: torchrun --nproc-per-node 4 -m stargan train --run-folder ...",
    )
    parser.add_argument(
        "--preset", type=preset, help="the options to start from, such as anime-128; a new run needs one"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder of pictures for each domain")
    parser.add_argument("--validation", type=Path, help="the same layout; its first faces are on the sample sheets")
    parser.add_argument(
        "--run",
        "--run-folder",  # torchrun takes "--run" for one of its own options, wherever it stands
        dest="folder",
        type=Path,
        required=True,
        help="where the run is kept; resumed if it exists. Under torchrun, write --run-folder",
    )
    parser.add_argument("--device", help="cuda, cpu, ...; default: CUDA where there is one")
    parser.add_argument("--iterations", type=int, help="of the whole run, those already done included")
    parser.add_argument("--batch-size", type=int, help="over all processes together")
    parser.add_argument(
        "--set",
        dest="options",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any other option, such as lambda_ds=2 or diff_augment=color,cutout; may be repeated",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.training import trainer

    given = {"iterations": options.iterations, "batch_size": options.batch_size}
    changes = options.options + [f"{name}={value}" for name, value in given.items() if value is not None]
    try:
        trainer.train(
            options.folder,
            options.data,
            options.validation,
            preset=options.preset,
            changes=changes,
            device=options.device,
        )
    except ValueError as error:
        return refused(error)
    return 0
