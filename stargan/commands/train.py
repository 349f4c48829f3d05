"""``python -m stargan train``. The options of training are the fields of ``TrainConfig``, which tyro reads when it runs."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "train",
        help="train on folders of faces, one folder a domain",
        description="Trains, or goes on with a run where it stopped: then the run's own options hold, and neither --preset nor "
        "earlier options need repeating. Several GPUs: torchrun --nproc-per-node 4 -m stargan train --run-folder ...",
        epilog="Every option of training may be given, such as --iterations 20000 --lambda-ds 2 --bf16 "
        "--diff-augment color cutout --target-weights anime 3 female 1 --architecture.image-size 64.",
        add_help=False,
        allow_abbrev=False,  # what is not known here is an option of training
    )
    parser.add_argument("-h", "--help", action=_Help, nargs=0, help="show this, and all options of training")
    parser.add_argument("--preset", help="the options to start from, such as anime-128; a new run needs one")
    parser.add_argument(
        "--data",
        required=True,
        help="folder with a folder of pictures for each domain, held in memory; or shards of larger sets (see prepare --shards): "
        "a folder of them, or a path or URL such as https://host/{anime,female}-{000000..000007}.tar",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        help="the same layout; a few of its faces, evenly over them, are on the sample sheets",
    )
    parser.add_argument(
        "--run",
        "--run-folder",  # torchrun takes "--run" for one of its own options, wherever it stands
        dest="folder",
        type=Path,
        required=True,
        help="where the run is kept; resumed if it exists. Under torchrun, write --run-folder",
    )
    parser.add_argument("--device", help="cuda, cpu, ...; default: CUDA where there is one")
    parser.set_defaults(run=run, rest=[])


def run(options: argparse.Namespace) -> int:
    """``options.rest`` are options of training, as strings."""
    from stargan.training.config import with_options
    from stargan.training.run import train

    train(
        options.folder,
        options.data,
        options.validation,
        preset=options.preset,
        change=partial(with_options, arguments=options.rest),
        device=options.device,
    )
    return 0


class _Help(argparse.Action):
    """Also what every field of TrainConfig does, with the defaults of the preset where one was named before."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        from stargan.training.config import PRESETS, ConfigError, TrainConfig, find_preset, with_options

        parser.print_help()
        print(
            f"\npresets: {', '.join(PRESETS)}\n\noptions of training, with the defaults of {namespace.preset or 'none'}:"
        )
        try:
            with_options(find_preset(namespace.preset) if namespace.preset else TrainConfig(), ["--help"])
        except ConfigError as error:
            parser.exit(2, f"{error}\n")
