"""``python -m stargan evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import at_least, within
from stargan.constants import MAX_PSI


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="how good models are, in numbers",
        description="The paper's protocol: FID, KID and LPIPS over every ordered pair of domains; and what needs no downloaded "
        "weights: the sliced Wasserstein distance with its floor, the spread over seeds, and what a small classifier of the domains, "
        "trained on the spot, takes the outputs for. Several models give one table.",
    )
    parser.add_argument(
        "models", nargs="+", help="model folders (such as runs/x/snapshots/*), registered names, or user/repo"
    )
    parser.add_argument("--data", type=Path, required=True, help="training faces, a folder for each domain")
    parser.add_argument(
        "--validation", type=Path, required=True, help="validation faces: the sources and the references"
    )
    parser.add_argument("--output", type=Path, default=Path("evaluation.json"), help="default: %(default)s")
    parser.add_argument(
        "--sources",
        type=at_least(1),
        help="validation faces a domain and group, at most, evenly over them; default: all",
    )
    parser.add_argument(
        "--groups", nargs="+", metavar="PREFIX", help="sources whose names begin so, each evaluated apart, such as g n"
    )
    parser.add_argument("--outputs", type=at_least(2), default=10, help="pictures a source (default: %(default)s)")
    parser.add_argument("--pairs", help="such as female>anime,male>anime; default: every ordered pair")
    parser.add_argument("--modes", nargs="+", choices=("latent", "reference"), default=("latent", "reference"))
    parser.add_argument(
        "--psi", type=within(0, MAX_PSI), default=1.0, help="truncation of latent styles (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=0,
        help="of codes and the choice of references: figures of other ones differ a little (default: %(default)s)",
    )
    parser.add_argument(
        "--judge",
        type=Path,
        metavar="FILE",
        help="the classifier of the domains; it is trained and kept there if it is not. Default: a hidden file in --data",
    )
    parser.add_argument("--no-judge", action="store_true", help="leave out what needs the classifier")
    parser.add_argument("--no-backbones", dest="backbones", action="store_false", help="leave out FID, KID and LPIPS")
    where = "where %s is: the file, a folder, or user/repo on the Hub; default: from its authors"
    parser.add_argument(
        "--inception-weights", metavar="PLACE", help=where % "weights-inception-2015-12-05-6726825d.pth"
    )
    parser.add_argument("--lpips-weights", metavar="PLACE", help=where % "alexnet-owt-7be5be79.pth")
    parser.add_argument("--device", help="cuda, mps, cpu, ...; default: CUDA, else Apple's MPS, else the CPU")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.evaluation.backbones import Backbones
    from stargan.evaluation.judge import find_judge
    from stargan.evaluation.protocol import Evaluation, Protocol, parse_pairs
    from stargan.evaluation.report import Row, means, table, to_json
    from stargan.inference.translator import Translator, find_device
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model

    # what is wrong with it is said before the minutes of work
    if options.output.is_dir():
        raise IsADirectoryError(f"{options.output} is a folder: --output names the file of figures.")
    device = find_device(options.device)
    folders = [find_model(name) for name in options.models]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    backbones = None
    if options.backbones:
        backbones = Backbones(device, options.inception_weights, options.lpips_weights)
    pairs = parse_pairs(options.pairs) if options.pairs else None
    protocol = Protocol(
        options.outputs, options.sources, pairs, options.modes, options.psi, options.groups, options.seed
    )
    judge = None if options.no_judge else find_judge(options.data, options.judge)
    evaluation = Evaluation(options.data, options.validation, protocol, backbones, judge)
    missing = backbones.missing if backbones else {"FID, KID and LPIPS": "they were not asked for"}
    facts = {**vars(protocol), "not_measured": missing}
    rows: list[Row] = []
    for name, folder in zip(options.models, folders, strict=True):
        translator = Translator(load_model(folder), device)
        rows += evaluation.run(translator, name)
        facts["judge_accuracy"] = evaluation.accuracy(translator)
        rows_and_means = rows + (means(rows) if len({row.pair for row in rows}) > 1 else [])
        options.output.write_text(to_json(rows_and_means, **facts), encoding="utf-8")
    print(table(rows_and_means))
    if judge is not None:
        right = ", ".join(f"{domain} {share:.1%}" for domain, share in facts["judge_accuracy"].items())
        print(f"The judge is right about validation faces: {right}.")
    for what, why in backbones.missing.items() if backbones else ():
        print(f"Not measured: {what}, because {why}.")
    return 0
