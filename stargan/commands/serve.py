"""``python -m stargan serve``: puts what draws on a Ray cluster, for pages that hold no model."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "serve",
        help="put replicas that draw on a Ray cluster, for python app.py --serve",
        description="Puts replicas that hold the models on a Ray cluster, one a GPU or a CPU core, and more of them where "
        "tasks wait; they stay until the cluster ends, or until ray's own `serve shutdown`.",
    )
    parser.add_argument("address", help='of the cluster, or "auto" on one of its machines')
    parser.add_argument(
        "--replicas", type=_range, default=(1, 4), metavar="FEWEST[:MOST]", help="how many (default: 1:4)"
    )
    parser.add_argument("--device", help="cuda, mps, cpu, …; default: CUDA, else Apple's MPS, else the CPU")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        from stargan.cluster.serving import deploy
    except ModuleNotFoundError as error:
        raise ValueError(f"This needs more packages ({error.name}): pip install 'ray[serve]'.") from error
    fewest, most = options.replicas
    deploy(options.address, fewest, most, options.device)
    print(f"Replicas draw at {options.address}. Pages: python app.py --serve {options.address}")
    return 0


def _range(text: str) -> tuple[int, int]:
    fewest, _, most = text.partition(":")
    if not (fewest.isdecimal() and (most or fewest).isdecimal() and 1 <= int(fewest) <= int(most or fewest)):
        raise argparse.ArgumentTypeError(f"must be a number from 1 up, or two such as 1:4, not {text!r}")
    return int(fewest), int(most or fewest)
