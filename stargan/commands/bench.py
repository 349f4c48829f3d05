"""``python -m stargan bench``: speed and memory on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import at_least


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure speed and memory on this machine")
    kinds = parser.add_subparsers(dest="kind", required=True)
    infer = kinds.add_parser(
        "infer",
        help="drawing: the published path against this one, in turns",
        description="Draws photos in styles by the published path (a full fp32 pass a picture) and by this repository's, in "
        "turns, and compares seconds, pictures and memory.",
    )
    model = infer.add_mutually_exclusive_group()
    model.add_argument("--model", help="a registered name, a model folder, or user/repo[@revision] on the Hub")
    model.add_argument(
        "--size", type=int, choices=(64, 128, 256, 512), default=256,
        help="without --model: side of a network of published width with random weights (default: %(default)s)",
    )  # fmt: skip
    infer.add_argument(
        "--device", action="append", help="may be repeated; default: the CPU, and CUDA where there is one"
    )
    infer.add_argument(
        "--case", dest="cases", type=_case, action="append", metavar="PxS", help="photos x styles, as 1x10"
    )
    infer.add_argument("--turns", type=at_least(1), default=5, help="of each path in each case (default: %(default)s)")
    infer.add_argument(
        "--compiled", choices=("auto", "no", "plain", "graphs"), default="auto",
        help="torch.compile; graphs adds autotuning and CUDA graphs, on CUDA; auto: graphs where anything can be compiled, "
        "which is what the app comes to after its start, for its default model (default: %(default)s)",
    )  # fmt: skip
    infer.add_argument("--json", type=Path, help="file for the results")
    infer.set_defaults(run=_bench_infer)
    train = kinds.add_parser(
        "train",
        allow_abbrev=False,  # what is not known here is an option of training
        help="training: fp32 against bf16, channels-last and torch.compile, in turns",
        description="Trains a preset on noise, eager and tuned in turns, and compares samples a second, utilisation and memory (on CUDA, what is fp32 has TF32 convolutions, as PyTorch has). "
        "All options of train are known, such as --batch-size 32.",
    )
    train.add_argument("--preset", default="anime-64", help="such as anime-128 (default: %(default)s)")
    train.add_argument("--device", help="default: CUDA where there is one")
    train.add_argument("--turns", type=at_least(1), default=3, help="default: %(default)s")
    train.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="in the tuned path")
    train.add_argument("--json", type=Path, help="file for the results")
    train.set_defaults(run=_bench_train, rest=[])


def _bench_infer(options: argparse.Namespace) -> int:
    from stargan.bench.inference import infer

    infer(options.model, options.size, options.device, options.cases, options.turns, options.compiled, options.json)
    return 0


def _bench_train(options: argparse.Namespace) -> int:
    from stargan.bench.training import train
    from stargan.training.config import find_preset, with_options

    config = with_options(find_preset(options.preset), options.rest)
    train(options.preset, config, options.device, options.turns, options.compile, options.json)
    return 0


def _case(text: str) -> tuple[int, int]:
    photos, _, styles = text.partition("x")
    if not (photos.isdecimal() and styles.isdecimal() and int(photos) and int(styles)):
        raise argparse.ArgumentTypeError(f"a case is photos x styles, such as 1x10, not {text!r}")
    return int(photos), int(styles)
