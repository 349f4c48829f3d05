"""``python -m stargan refine``: drawings of a trained model become clean."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargan.commands.arguments import at_least, within

if TYPE_CHECKING:
    from stargan.models.checkpoint import Model
    from stargan.training.data import Faces

# Options of stargan.training.refine.Refinement, whose defaults the help tells.
NAMES = ("denoise", "sharpen", "light", "drawings", "passes", "learning_rate")
FLAGS = ("bf16", "compile")


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "refine",
        help="teach a trained model its own drawings, corrected",
        description="The drawings of a trained model, without a weave of a few pixels, with sharper lines and in the light of "
        "real drawings: image processing corrects them, and the decoder learns to draw so. Calibrate the model first, and finish "
        "it afterwards. With two domains of sources and two groups at 128 px, this takes about an hour on two cores.",
    )
    add_corrections(parser)
    parser.add_argument("--passes", type=at_least(1), help="over all drawings (default: 12)")
    parser.add_argument(
        "--learning-rate", type=within(0, 1), metavar="RATE", help="0 to 1: of Adam, at most (default: 0.0002)"
    )
    parser.set_defaults(run=run)


def add_corrections(parser: argparse.ArgumentParser) -> None:
    """What is corrected, of which model, and how it is learned."""
    add_drawings(parser, "the light of each group corrected apart", 400)
    parser.add_argument("--denoise", type=within(0, 1), help="0 to 1: strength of non-local means (default: 0.07)")
    parser.add_argument("--sharpen", type=within(0, 10), help="0 to 10: amount of the unsharp mask (default: 0.25)")
    parser.add_argument("--light", type=within(0, 1), help="0 to 1: share of the way to real light (default: 1)")


def add_drawings(parser: argparse.ArgumentParser, apart: str, count: int) -> None:
    """Which drawings are changed, of which model, and how it is learned."""
    parser.add_argument("model", help="a registered name, a model folder, or user/repo")
    parser.add_argument("--data", type=Path, required=True, help="the training pictures, a folder for each domain")
    parser.add_argument("--domain", help="whose drawings are changed (default: the model's first domain)")
    parser.add_argument(
        "--groups",
        nargs="+",
        default=[""],
        metavar="PREFIX",
        help=f"only sources whose names begin so, {apart}; default: all together",
    )
    parser.add_argument(
        "--drawings", type=at_least(25), help=f"for each source domain, group and mode (default: {count})"
    )
    parser.add_argument("--bf16", action="store_true", help="learn in bf16, where the device is fast at it")
    parser.add_argument("--compile", action="store_true", help="learn by torch.compile")
    parser.add_argument("--device", help="cuda, cpu, ...; default: CUDA where there is one")
    parser.add_argument("--output", type=Path, required=True, help="the new model's folder, which names it")


def run(options: argparse.Namespace) -> int:
    from stargan.training.refine import Refinement, refine

    chosen = Refinement(**given(options, NAMES + FLAGS))
    domain, (before, after) = improve(
        options, lambda model, faces, domain: refine(model, faces, domain, chosen, options.groups)
    )
    print(f"{domain}: drawings are {after:.3f} from their corrections; before, {before:.3f}")
    return 0


def given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def improve(
    options: argparse.Namespace, work: Callable[[Model, Faces, str], tuple[float, float]]
) -> tuple[str, tuple[float, float]]:
    """Has a model changed, and writes what it became; → the domain, and what ``work`` says of it."""
    import torch

    from stargan.inference.translator import find_device
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model
    from stargan.training.data import Faces
    from stargan.training.state import load_discriminator, save_made_of

    # what is wrong with it is said before the hour of work
    if options.output.is_file():
        raise NotADirectoryError(f"{options.output} is a file: --output names the model's folder.")
    device = find_device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    source = find_model(options.model)
    model = load_model(source)
    model.config = replace(model.config, name=options.output.resolve().name)
    load_discriminator(source, model)
    options.output.mkdir(parents=True, exist_ok=True)
    faces = Faces(options.data, model.config.architecture.image_size, torch.device("cpu"))
    for network in model.networks().values():
        network.to(device)
    domain = options.domain or model.config.domains[0]
    found = work(model, faces, domain)
    save_made_of(source, model, options.output)
    return domain, found
