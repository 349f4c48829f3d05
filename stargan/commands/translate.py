"""``python -m stargan translate``: draws the faces of many photos."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from stargan.commands.arguments import add_styles, at_least, load_translator, refused


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "translate",
        help="draw the faces of many photos",
        description="Draws the biggest face of each photo: separate PNG files, and a grid of every eight photos. A run "
        "that was stopped goes on where it was. The exit status is 1 if any photo failed; the others are still drawn.",
        epilog="Under torchrun, each process takes its share of the photos, in groups of eight (one by one with "
        "--no-grid), and together they write the files of one: torchrun --nproc-per-node 4 -m stargan translate ...",
    )
    parser.add_argument("photos", type=Path, nargs="+", help="photos, or folders of them")
    add_styles(parser)
    parser.add_argument("--count", type=at_least(1), default=10, help="seeds for each photo (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="the first of them (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument(
        "--grid", action=argparse.BooleanOptionalAction, default=True, help="also write grids (default)"
    )
    parser.add_argument("--whole-photo", action="store_true", help="put the drawings back into the photos")
    parser.add_argument("--overwrite", action="store_true", help="make files again that are there already")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from stargan import batch

    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    try:
        photos = batch.find_photos(options.photos, options.output)
        translator = load_translator(options)
        paint, config = translator.paint, translator.config
        if options.references:
            looks = batch.reference_looks(paint, config, options.domain, options.references, options.strength)
        else:
            seeds = range(options.seed, options.seed + options.count)
            looks = batch.latent_looks(paint, config, options.domain, seeds, options.psi)
        mine = sum(len(group) for group in batch.share(photos, rank, processes, options.grid))
        with tqdm(total=mine, unit="photo", disable=None, position=int(os.environ.get("LOCAL_RANK", 0))) as bar:
            tally = batch.translate_all(
                paint,
                config,
                photos,
                looks,
                options.output,
                with_grid=options.grid,
                whole=options.whole_photo,
                overwrite=options.overwrite,
                rank=rank,
                processes=processes,
                report=lambda sentence: tqdm.write(sentence, file=sys.stderr),
                progress=bar.update,
            )
    except ValueError as error:
        return refused(error)
    print(f"{mine} photos: {tally.drawn} drawn, {tally.done} already there, {tally.failed} failed. {options.output}")
    return 1 if tally.failed else 0
