"""``python -m stargan video``: a walk through styles, or a clip drawn."""

from __future__ import annotations

import argparse
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargan.commands.arguments import add_styles, choose_domain, load_translator, refused

if TYPE_CHECKING:
    from stargan.batch import Looks
    from stargan.inference.translator import Translator


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "video",
        help="a walk through styles, or a video clip drawn",
        description="From a photo: a walk from style to style. From a video clip of up to 20 seconds: the clip with "
        "its biggest face drawn in every frame, in one style, with its sound.",
    )
    parser.add_argument("source", type=Path, help="a photo, or a video clip")
    add_styles(parser)
    parser.add_argument("--seeds", type=_seeds, default=[0], help="such as 1,2,3: the styles to walk through")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a walk (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=25.0, help="frames a second of a walk (default: %(default)s)")
    parser.add_argument("--loop", action="store_true", help="walk back to the first style")
    parser.add_argument(
        "--whole-photo",
        action=argparse.BooleanOptionalAction,
        help="put the drawing back into the photo or clip (default: for clips, not for photos)",
    )
    parser.add_argument("--output", type=Path, required=True, help="an .mp4 or .gif file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from stargan import batch

    make = _clip if (mimetypes.guess_type(options.source)[0] or "").startswith("video/") else _walk
    try:
        translator = load_translator(options)
        domain = choose_domain(options, translator)
        if options.references:
            looks = batch.reference_looks(translator, domain, options.references, options.strength)
            note = f"{domain}, {len(looks.names)} references, strength {options.strength:g}"
        else:
            looks = batch.latent_looks(translator, domain, options.seeds, options.psi)
            note = f"{domain}, seeds {', '.join(map(str, options.seeds))}, psi {options.psi:g}"
        with tqdm(unit="frame", disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            make(options, translator, looks, domain=domain, note=note, progress=progress)
    except ValueError as error:
        return refused(error)
    print(options.output)
    return 0


def _clip(options: argparse.Namespace, translator: Translator, looks: Looks, **how: Any) -> None:
    from stargan.video import translate_clip

    if len(looks.names) != 1 or looks.strength != 1:
        raise ValueError("A clip keeps one style: give one seed, or one reference at full strength.")
    whole = options.whole_photo is not False
    translate_clip(translator, options.source, looks.styles[0], options.output, whole=whole, **how)


def _walk(options: argparse.Namespace, translator: Translator, looks: Looks, **how: Any) -> None:
    from stargan import video
    from stargan.pictures import faces
    from stargan.pictures.io import open_photo

    photo = open_photo(options.source)
    aligned = translator.align(photo)
    encoded = translator.encode(aligned.picture)
    styles = looks.for_photo(translator, encoded)
    if options.whole_photo:
        how |= {"finish": lambda drawn: faces.paste_back(photo, aligned, drawn), "composite": True}
    clock = {"seconds": options.seconds, "fps": options.fps, "loop": options.loop}
    video.walk(translator, encoded, styles, options.output, **clock, **how)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"seeds are whole numbers such as 1,2,3, not {text!r}")
    return seeds
