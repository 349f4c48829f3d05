"""``python -m stargan evaluate``: how good models are, in numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import at_least, one_of, refused, within
from stargan.constants import MAX_PSI


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="how good models are, in numbers",
        description="The paper's protocol: FID, KID and LPIPS over every ordered pair of domains; and what needs no downloaded "
        "weights: the sliced Wasserstein distance with its floor, and the spread over seeds. Several models give one table.",
    )
    parser.add_argument(
        "models", nargs="+", help="model folders (such as runs/x/snapshots/*), registered names, or user/repo"
    )
    parser.add_argument("--data", type=Path, required=True, help="training faces, a folder for each domain")
    parser.add_argument(
        "--validation", type=Path, required=True, help="validation faces: the sources and the references"
    )
    parser.add_argument("--output", type=Path, default=Path("evaluation.json"), help="default: %(default)s")
    parser.add_argument("--sources", type=at_least(1), help="validation faces a domain; default: all")
    parser.add_argument("--outputs", type=at_least(2), default=10, help="pictures a source (default: %(default)s)")
    parser.add_argument("--pairs", help="such as female>anime,male>anime; default: every ordered pair")
    parser.add_argument(
        "--modes",
        nargs="+",
        metavar="MODE",
        type=one_of("stargan.evaluation.protocol", "MODES"),
        help="latent, reference; default: both",
    )
    parser.add_argument(
        "--psi", type=within(0, MAX_PSI), default=1.0, help="truncation of latent styles (default: %(default)s)"
    )
    parser.add_argument("--no-backbones", dest="backbones", action="store_false", help="leave out FID, KID and LPIPS")
    parser.add_argument("--inception-weights", type=Path, help="a local weights-inception-2015-12-05-6726825d.pth")
    parser.add_argument("--lpips-weights", type=Path, help="a local alexnet-owt-7be5be79.pth")
    parser.add_argument("--device", help="cuda, cpu, ...; default: CUDA where there is one")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from stargan.evaluation import protocol as evaluate
    from stargan.inference.translator import Translator, best_device
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model

    device = torch.device(options.device) if options.device else best_device()
    try:
        backbones = None
        if options.backbones:
            backbones = evaluate.Backbones(device, options.inception_weights, options.lpips_weights)
        pairs = evaluate.parse_pairs(options.pairs) if options.pairs else None
        protocol = evaluate.Protocol(
            options.outputs, options.sources, pairs, options.modes or evaluate.MODES, options.psi
        )
        evaluation = evaluate.Evaluation(options.data, options.validation, protocol, backbones)
        rows: list[evaluate.Row] = []
        for name in options.models:
            rows += evaluation.run(Translator(load_model(find_model(name)), device), name)
            rows_and_means = rows + (evaluate.means(rows) if len({row.pair for row in rows}) > 1 else [])
            options.output.write_text(evaluate.to_json(rows_and_means, **vars(protocol)), encoding="utf-8")
    except ValueError as error:
        return refused(error)
    print(evaluate.table(rows_and_means))
    return 0
