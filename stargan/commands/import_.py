"""``python -m stargan import``: a model of a published checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import one_of


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "import",
        help="make a model of a published StarGAN v2 checkpoint",
        description="Reads a checkpoint of the published StarGAN v2 implementation (100000_nets_ema.ckpt), runs no code in it, "
        "and writes a model folder, which the app and the other commands take.",
        epilog="Nothing is downloaded. The authors publish the files for CelebA-HQ and AFHQ with their code, at "
        "github.com/clovaai/stargan-v2 (see its download script), under the licence CC BY-NC 4.0: to be used and passed on with "
        "their names, and not commercially.",
    )
    parser.add_argument("file", type=Path, help="100000_nets_ema.ckpt")
    parser.add_argument("--output", type=Path, required=True, help="the model folder to write; its name is the model's")
    parser.add_argument(
        "--landmarks", type=Path, help="wing.ckpt; a model with a high-pass filter (CelebA-HQ) needs it"
    )
    parser.add_argument(
        "--domains",
        type=lambda names: tuple(name.strip() for name in names.split(",")),
        help="such as cat,dog,wild, in the order of training; default: those of the released models",
    )
    parser.add_argument(
        "--framing",
        type=one_of("stargan.models.config", "FRAMINGS"),
        help="celeba-hq aligns faces as CelebA-HQ does, whole takes the middle square; default: celeba-hq with a high-pass filter, else whole",
    )
    parser.add_argument(
        "--high-pass-weight",
        type=float,
        help="where the checkpoint lacks its high-pass filter; default: the published 1",
    )
    parser.add_argument("--licence", help="of the weights; default: that of the published ones")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    import torch

    from stargan.models.checkpoint import save_model
    from stargan.models.importing import PUBLISHED_LICENCE, import_checkpoint

    model = import_checkpoint(
        options.file,
        landmarks=options.landmarks,
        domains=options.domains,
        name=options.output.resolve().name,
        framing=options.framing,
        high_pass_weight=options.high_pass_weight,
        licence=options.licence or PUBLISHED_LICENCE,
    )
    save_model(model, options.output, torch.float32)  # as published; half precision would round it
    a = model.config.architecture
    high_pass = f"high-pass weight {a.high_pass_weight:g}" if a.high_pass_weight else "no high-pass filter"
    print(f"{options.output}: {a.image_size} px, {high_pass}, domains {', '.join(model.config.domains)}")
    return 0
