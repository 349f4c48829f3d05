"""``python -m stargan prepare``: faces to train on, cut out of photos."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargan.commands.arguments import at_least, one_of


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "prepare",
        help="cut the faces out of a folder of photos, to train on",
        description="Finds, aligns and crops every face into the framing of a preset, and reports what was left out and why. The "
        "folders below the photos, such as domains, are kept. Faces that are there already stay as they are.",
    )
    parser.add_argument("photos", type=Path, help="folder of photos, or of folders of them")
    parser.add_argument("faces", type=Path, help="folder for the faces")
    parser.add_argument(
        "--preset",
        type=one_of("stargan.training.config", "PRESETS"),
        default="anime-128",
        help="such as anime-64: size and framing (default: %(default)s)",
    )
    parser.add_argument("--size", type=at_least(16), help="side of the faces in px, instead of the preset's")
    parser.add_argument(
        "--crop",
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="for drawings, which the detector mostly misses: the middle square of this part of every picture, in fractions of "
        "its sides",
    )
    parser.add_argument(
        "--smallest",
        type=at_least(0),
        default=64,
        help="leave out smaller faces and squares, in px (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="make faces again that are there already")
    parser.add_argument(
        "--shards",
        type=Path,
        metavar="FOLDER",
        help="also pack the faces of each folder below, a domain, into WebDataset shards there, for sets larger than memory; "
        "earlier shards are replaced",
    )
    parser.add_argument("--processes", type=at_least(1), help="default: one a core")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from stargan.training.config import PRESETS
    from stargan.training.data import DataError
    from stargan.training.prepare import Job, parse_crop, prepare
    from stargan.training.shards import check_place, write_shards

    preset = PRESETS[options.preset]
    crop = parse_crop(options.crop) if options.crop else None
    job = Job(options.size or preset.architecture.image_size, preset.framing, crop, options.smallest, options.overwrite)
    if options.shards:  # all this before the hours of work
        check_place(options.shards)
        if options.photos.is_dir() and not any(
            place.is_dir() for root in (options.photos, options.faces) if root.is_dir() for place in root.iterdir()
        ):
            raise DataError(f"{options.photos} has no folders in it: shards are of domains, each a folder of photos.")
    report = prepare(options.photos, options.faces, job, options.processes)
    print(report)
    if options.shards:
        print(f"{write_shards(options.faces, options.shards)} shards: {options.shards}")
    return 0
