"""``python -m stargan match``: what a trained model draws gets the statistics of real drawings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from stargan.commands.arguments import at_least, within
from stargan.commands.refine import FLAGS, add_drawings, given, improve

if TYPE_CHECKING:
    from stargan.models.checkpoint import Model
    from stargan.training.data import Faces

# Options of stargan.training.match.Matching, whose defaults the help tells.
NAMES = ("drawings", "steps", "learning_rate")
# Sides of the pictures that classifiers see, px, in turns: what one of them does not see, another does.
SIZES = (64, 48, 56)


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "match",
        help="teach a trained model the statistics of real drawings",
        description="Classifiers of the domains are trained; what they see of sets of the model's drawings, and the patches of "
        "these, are to have the statistics of real drawings, while each drawing keeps what it shows. The decoder learns it; a finisher stays as it is. With two "
        "domains of sources and two groups at 128 px, this takes about half an hour on two cores.",
    )
    add_drawings(parser, "each group matched apart", 500)
    parser.add_argument("--judges", type=at_least(1), default=8, help="classifiers (default: %(default)s)")
    parser.add_argument("--steps", type=at_least(1), help="of 32 drawings (default: 1200)")
    parser.add_argument(
        "--learning-rate", type=within(0, 1), metavar="RATE", help="0 to 1: of Adam, at most (default: 0.00015)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from stargan.evaluation.judge import SIZE, train_judge
    from stargan.training.data import Faces as Pictures
    from stargan.training.match import Matching, match
    from stargan.training.refine import check, device_of

    chosen = Matching(**given(options, NAMES + FLAGS))

    def work(model: Model, faces: Faces, domain: str) -> tuple[float, float]:
        check(model, faces, domain, chosen, options.groups)  # before the classifiers
        small = Pictures(options.data, SIZE, torch.device("cpu"))
        # evaluation's own is of the seed 0, and must not be learned by
        judges = [train_judge(small, seed, SIZES[seed % len(SIZES)]) for seed in range(1, options.judges + 1)]
        seen = [judge.to(device_of(model)).seen for judge in judges]
        return match(model, faces, domain, seen, chosen, options.groups)

    domain, (before, after) = improve(options, work)
    print(f"{domain}: features are {after:.3f} from those of real drawings; before, {before:.3f}")
    return 0
