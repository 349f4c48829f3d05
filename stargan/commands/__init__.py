"""``python -m stargan``: the commands."""

from __future__ import annotations

import argparse
import logging
import math
import mimetypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stargan.commands import evaluate, train

if TYPE_CHECKING:
    from stargan.batch import Looks
    from stargan.inference.translator import Translator

# Beyond, styles are like none that the networks were trained on; the app's slider ends there, too.
MAX_PSI = 1.5


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    parser = command_line()
    options, rest = parser.parse_known_args(arguments)
    if rest and "rest" not in options:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("huggingface_hub").setLevel(logging.WARNING)  # it reports every file that it writes
    return options.run(options)


def command_line() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(prog="python -m stargan", description="StarGAN v2: train, evaluate and use it.")
    commands = parser.add_subparsers(dest="command", required=True)
    train.add(commands)
    _add_prepare(commands)
    evaluate.add(commands)
    _add_sheet(commands)
    _add_translate(commands)
    _add_video(commands)
    _add_import(commands)
    _add_push(commands)
    _add_bench(commands)
    return parser


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "prepare",
        help="cut the faces out of a folder of photos, to train on",
        description="Finds, aligns and crops every face into the framing of a preset, and reports what was left out and why. The "
        "folders below the photos, such as domains, are kept. Faces that are there already stay as they are.",
    )
    parser.add_argument("photos", type=Path, help="folder of photos, or of folders of them")
    parser.add_argument("faces", type=Path, help="folder for the faces")
    parser.add_argument("--preset", default="anime-128", help="size and framing (default: %(default)s)")
    parser.add_argument("--size", type=_at_least(16), help="side of the faces in px, instead of the preset's")
    parser.add_argument(
        "--crop",
        metavar="LEFT,TOP,RIGHT,BOTTOM",
        help="for drawings, which the detector mostly misses: this part of every picture, in fractions of its sides",
    )
    parser.add_argument(
        "--smallest", type=_at_least(0), default=64, help="leave out smaller faces, in px (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="make faces again that are there already")
    parser.add_argument("--processes", type=_at_least(1), help="default: one a core")
    parser.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    from stargan.training.config import find_preset
    from stargan.training.prepare import Job, parse_crop, prepare

    try:
        preset = find_preset(options.preset)
        crop = parse_crop(options.crop) if options.crop else None
        job = Job(
            options.size or preset.architecture.image_size, preset.framing, crop, options.smallest, options.overwrite
        )
        report = prepare(options.photos, options.faces, job, options.processes)
    except ValueError as error:
        return _refused(error)
    print(report)
    return 0


def _add_sheet(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("sheet", help="a model's results on validation faces in one picture, for its card")
    parser.add_argument("model", help="a registered name, a model folder, or user/repo")
    parser.add_argument("--validation", type=Path, required=True, help="a folder of pictures for each domain")
    parser.add_argument("--domain", default="anime")
    parser.add_argument("--output", type=Path, required=True)
    parser.set_defaults(run=_sheet)


def _sheet(options: argparse.Namespace) -> int:
    from stargan.models.checkpoint import load_model
    from stargan.models.registry import find_model
    from stargan.training.sheets import results_sheet

    try:
        sheet = results_sheet(load_model(find_model(options.model)), options.validation, options.domain)
    except ValueError as error:
        return _refused(error)
    sheet.save(options.output)
    return 0


def _add_translate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "translate",
        help="draw the faces of many photos",
        description="Draws the biggest face of each photo: separate PNG files, and a grid of every eight photos. A run "
        "that was stopped goes on where it was. The exit status is 1 if any photo failed; the others are still drawn.",
        epilog="Under torchrun, each process takes its share of the photos, in groups of eight (one by one with "
        "--no-grid), and together they write the files of one: torchrun --nproc-per-node 4 -m stargan translate ...",
    )
    parser.add_argument("photos", type=Path, nargs="+", help="photos, or folders of them")
    _add_styles(parser)
    parser.add_argument("--count", type=_at_least(1), default=10, help="seeds for each photo (default: %(default)s)")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="the first of them (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument(
        "--grid", action=argparse.BooleanOptionalAction, default=True, help="also write grids (default)"
    )
    parser.add_argument("--whole-photo", action="store_true", help="put the drawings back into the photos")
    parser.add_argument("--overwrite", action="store_true", help="make files again that are there already")
    parser.set_defaults(run=_translate)


def _translate(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from stargan import batch

    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    try:
        photos = batch.find_photos(options.photos, options.output)
        translator = _translator(options)
        domain = _domain(options, translator)
        if options.references:
            looks = batch.reference_looks(translator, domain, options.references, options.strength)
        else:
            seeds = range(options.seed, options.seed + options.count)
            looks = batch.latent_looks(translator, domain, seeds, options.psi)
        mine = sum(len(group) for group in batch.share(photos, rank, processes, options.grid))
        with tqdm(total=mine, unit="photo", disable=None, position=int(os.environ.get("LOCAL_RANK", 0))) as bar:
            tally = batch.translate_all(
                translator,
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
        return _refused(error)
    print(f"{mine} photos: {tally.drawn} drawn, {tally.done} already there, {tally.failed} failed. {options.output}")
    return 1 if tally.failed else 0


def _add_video(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "video",
        help="a walk through styles, or a video clip drawn",
        description="From a photo: a walk from style to style. From a video clip of up to 20 seconds: the clip with "
        "its biggest face drawn in every frame, in one style, with its sound.",
    )
    parser.add_argument("source", type=Path, help="a photo, or a video clip")
    _add_styles(parser)
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
    parser.set_defaults(run=_video)


def _video(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from stargan import batch

    make = _clip if (mimetypes.guess_type(options.source)[0] or "").startswith("video/") else _walk
    try:
        translator = _translator(options)
        domain = _domain(options, translator)
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
        return _refused(error)
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


def _add_import(commands: argparse._SubParsersAction) -> None:
    from stargan.models.importing import FRAMINGS, PUBLISHED_LICENCE

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
        choices=FRAMINGS,
        help="align faces as CelebA-HQ does, or take the whole picture; default: celeba-hq with a high-pass filter, else whole",
    )
    parser.add_argument(
        "--high-pass-weight",
        type=float,
        help="where the checkpoint lacks its high-pass filter; default: the published 1",
    )
    parser.add_argument("--licence", default=PUBLISHED_LICENCE, help="of the weights (default: %(default)s)")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    import torch

    from stargan.models.checkpoint import save_model
    from stargan.models.importing import import_checkpoint

    try:
        model = import_checkpoint(
            options.file,
            landmarks=options.landmarks,
            domains=options.domains,
            name=options.output.resolve().name,
            framing=options.framing,
            high_pass_weight=options.high_pass_weight,
            licence=options.licence,
        )
        save_model(model, options.output, torch.float32)  # as published; half precision would round it
    except (ValueError, OSError) as error:
        return _refused(error)
    a = model.config.architecture
    high_pass = f"high-pass weight {a.high_pass_weight:g}" if a.high_pass_weight else "no high-pass filter"
    print(f"{options.output}: {a.image_size} px, {high_pass}, domains {', '.join(model.config.domains)}")
    return 0


def _add_push(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "push",
        help="publish a model on the Hugging Face Hub",
        description="Publishes a model folder with its card (README.md). Log in first, with hf auth login or HF_TOKEN.",
    )
    parser.add_argument("folder", type=Path, help="the model folder")
    parser.add_argument("repo", help="user/repo")
    parser.add_argument("--private", action="store_true", help="a new repository is for you alone")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> int:
    from stargan.models.registry import push_model

    try:
        print(push_model(options.folder, options.repo, private=options.private))
    except ValueError as error:
        return _refused(error)
    return 0


def _add_bench(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("bench", help="measure speed and memory on this machine")
    kinds = parser.add_subparsers(dest="kind", required=True)
    infer = kinds.add_parser(
        "infer",
        help="drawing: the published path against this one, in turns",
        description="Draws photos in styles by the published path (a full fp32 pass a picture) and by this repository's, in "
        "turns, and compares seconds, pictures and memory.",
    )
    model = infer.add_mutually_exclusive_group()
    model.add_argument("--model", help="a registered name, a model folder, or user/repo[@revision] on the Hub")
    model.add_argument(
        "--size", type=int, choices=(64, 128, 256, 512), default=256,
        help="without --model: side of a network of published width with random weights (default: %(default)s)",
    )  # fmt: skip
    infer.add_argument(
        "--device", action="append", help="may be repeated; default: the CPU, and CUDA where there is one"
    )
    infer.add_argument(
        "--case", dest="cases", type=_case, action="append", metavar="PxS", help="photos x styles, as 1x10"
    )
    infer.add_argument("--turns", type=_at_least(1), default=5, help="of each path in each case (default: %(default)s)")
    infer.add_argument(
        "--compiled", choices=("auto", "no", "plain", "graphs"), default="auto",
        help="torch.compile; graphs adds autotuning and CUDA graphs, on CUDA; auto: graphs where anything can be compiled, "
        "which is what the app comes to after its start (default: %(default)s)",
    )  # fmt: skip
    infer.add_argument("--json", type=Path, help="file for the results")
    infer.set_defaults(run=_bench_infer)
    training = kinds.add_parser(
        "train",
        allow_abbrev=False,  # what is not known here is an option of training
        help="training: fp32 against bf16, channels-last and torch.compile, in turns",
        description="Trains a preset on noise, eager and tuned in turns, and compares samples a second, utilisation and memory. "
        "All options of train are known, such as --batch-size 32.",
    )
    training.add_argument("--preset", default="anime-64", help="default: %(default)s")
    training.add_argument("--device", help="default: CUDA where there is one")
    training.add_argument("--turns", type=_at_least(1), default=3, help="default: %(default)s")
    training.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="in the tuned path")
    training.add_argument("--json", type=Path, help="file for the results")
    training.set_defaults(run=_bench_train, rest=[])


def _bench_train(options: argparse.Namespace) -> int:
    from stargan.bench.training import train
    from stargan.training.config import find_preset, with_options

    try:
        config = with_options(find_preset(options.preset), options.rest)
        train(options.preset, config, options.device, options.turns, options.compile, options.json)
    except ValueError as error:
        return _refused(error)
    return 0


def _case(text: str) -> tuple[int, int]:
    photos, _, styles = text.partition("x")
    if not (photos.isdecimal() and styles.isdecimal() and int(photos) and int(styles)):
        raise argparse.ArgumentTypeError(f"a case is photos x styles, such as 1x10, not {text!r}")
    return int(photos), int(styles)


def _bench_infer(options: argparse.Namespace) -> int:
    from stargan.bench.inference import infer

    try:
        infer(options.model, options.size, options.device, options.cases, options.turns, options.compiled, options.json)
    except ValueError as error:
        return _refused(error)
    return 0


def _add_styles(parser: argparse.ArgumentParser) -> None:
    """The model, and where styles come from."""
    parser.add_argument("--model", help="a registered name, a model folder, or user/repo[@revision] on the Hub")
    parser.add_argument("--domain", help="what to draw (default: the model's first domain)")
    parser.add_argument(
        "--psi",
        type=_within(0, MAX_PSI),
        default=0.7,
        help=f"truncation of seeds' styles: 0 the average, 1 all variety, at most {MAX_PSI} (default: %(default)s)",
    )
    parser.add_argument(
        "--references", type=Path, nargs="+", help="pictures of the domain, or folders: their styles, not seeds'"
    )
    parser.add_argument(
        "--strength", type=_within(0, 1), default=1.0, help="of references: 0 keeps the photo's own style (default: 1)"
    )
    parser.add_argument("--device", help="cuda, cpu, …; default: CUDA where there is one")


def _translator(options: argparse.Namespace) -> Translator:
    import torch

    from stargan import load_translator
    from stargan.models.registry import DEFAULT_MODEL

    device = options.device
    if device is None and torch.cuda.is_available():
        # torchrun starts a process for each GPU and leaves the choice to it
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    return load_translator(options.model or DEFAULT_MODEL, device)


def _domain(options: argparse.Namespace, translator: Translator) -> str:
    return options.domain or translator.domains[0]


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"seeds are whole numbers such as 1,2,3, not {text!r}")
    return seeds


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number, {least} or more, not {text!r}")
        return int(text)

    return number


def _within(least: float, most: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, not {text!r}")
        return value

    return number


def _refused(error: Exception) -> int:
    """A sentence for the person at the terminal; what this package tells people comes as ValueErrors."""
    print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
