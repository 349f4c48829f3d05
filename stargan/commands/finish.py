"""``python -m stargan finish``: a trained model gets a finisher, which restores its drawings."""

from __future__ import annotations

import argparse

from stargan.commands.arguments import at_least, within
from stargan.commands.refine import FLAGS, add_corrections, given, improve

# Options of stargan.training.finish.Finishing, whose defaults the help tells.
NAMES = ("denoise", "sharpen", "light", "drawings", "channels", "steps", "learning_rate")


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "finish",
        help="give a trained model a small network that draws its drawings with a surer hand",
        description="A network behind the generator learns to restore real drawings that were spoiled as the model's are, and "
        "to fool a discriminator of patches with the model's own, which keep what they show. It comes after refine; a finisher that is there learns on. With two "
        "domains of sources and two groups at 128 px, this takes about 40 minutes on two cores.",
    )
    add_corrections(parser)
    parser.add_argument("--channels", type=at_least(1), help="of the network, at half the model's side (default: 32)")
    parser.add_argument("--steps", type=at_least(1), help="of 8 real drawings and 8 of the model's (default: 4000)")
    parser.add_argument("--learning-rate", type=within(0, 1), metavar="RATE", help="0 to 1: of Adam (default: 0.0004)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.training.finish import Finishing, finish

    chosen = Finishing(**given(options, NAMES + FLAGS))
    domain, (before, after) = improve(
        options, lambda model, faces, domain: finish(model, faces, domain, chosen, options.groups)
    )
    print(f"{domain}: spoiled drawings are {after:.3f} from what they were; before they are restored, {before:.3f}")
    return 0
