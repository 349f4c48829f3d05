"""``python -m stargan video``: a walk through styles, or a clip drawn."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stargan.commands.arguments import add_styles, load_translator

if TYPE_CHECKING:
    from PIL import Image

    from stargan.drawing import Styles, Translator


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "video",
        help="a walk through styles, or a video clip drawn",
        description="From a photo: a walk from style to style. From a video clip of up to 20 seconds: the clip with "
        "its biggest face drawn in every frame, in one style, with its sound.",
    )
    parser.add_argument("source", type=Path, help="a photo, or a video clip")
    add_styles(parser)
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=[0],
        help="such as 1,2,3: of a photo, the styles to walk through, two or more; of a clip, its style (default: 0)",
    )
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
    from stargan.video import is_video

    make = _clip if is_video(options.source) else _walk
    translator = load_translator(options)
    paint, config = translator.paint, translator.config
    if options.references:
        looks = batch.reference_plan(config, options.domain, options.references, options.strength).looks(paint)
        note = f"{looks.styles.domain}, {len(looks.names)} references, strength {options.strength:g}"
    else:
        looks = batch.latent_plan(config, options.domain, options.seeds, options.psi).looks(paint)
        note = f"{looks.styles.domain}, seeds {', '.join(map(str, options.seeds))}, psi {options.psi:g}"
    with tqdm(unit="frame", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        make(options, translator, looks.styles, note, progress)
    print(options.output)
    return 0


def _clip(
    options: argparse.Namespace, translator: Translator, styles: Styles, note: str, progress: Callable[[int, int], None]
) -> None:
    from stargan.drawing import Task
    from stargan.pictures.provenance import Provenance
    from stargan.video import translate_clip

    if len(styles) != 1 or styles.strength != 1:
        raise ValueError("A clip keeps one style: give one seed, or one reference at full strength.")
    whole, config = options.whole_photo is not False, translator.config

    def draw(crops: Sequence[Image.Image]) -> list[Image.Image]:
        return [row[0] for row in translator.paint(Task(tuple(crops), styles, passing=True)).rows]

    provenance = Provenance(translator.name, None, {"styles": note}, composite=whole)
    place = (options.source, options.output)
    size = translator.image_size
    translate_clip(draw, config.framing, size, *place, whole=whole, provenance=provenance, progress=progress)


def _walk(
    options: argparse.Namespace, translator: Translator, styles: Styles, note: str, progress: Callable[[int, int], None]
) -> None:
    from stargan import drawing, video
    from stargan.errors import PhotoError
    from stargan.pictures import faces
    from stargan.pictures.provenance import Provenance

    output, whole = options.output, bool(options.whole_photo)
    frames = video.frame_count(output, options.seconds, options.fps)
    try:
        source = drawing.Source.open(options.source)
    except OSError as error:
        raise PhotoError("photo_unreadable") from error
    prepared = drawing.prepare(source, translator.config)
    (aligned,) = prepared.aligned
    pictures = drawing.walk(aligned.picture, styles, frames, translator.paint, loop=options.loop)

    def finished() -> Iterator[Image.Image]:
        for done, picture in enumerate(pictures, start=1):
            yield faces.paste_back(prepared.source.picture, aligned, picture) if whole else picture
            progress(done, frames)

    provenance = Provenance(translator.name, None, {"styles": note}, composite=whole)
    video.write_video(finished(), output, options.fps, provenance)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"seeds are whole numbers such as 1,2,3, not {text!r}")
    return seeds
