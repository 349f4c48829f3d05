"""``python -m stargan translate``: draws the faces of many photos."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stargan.commands.arguments import add_styles, at_least, load_translator

if TYPE_CHECKING:
    from stargan.batch import Plan
    from stargan.models.config import ModelConfig


def add(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "translate",
        help="draw the faces of many photos",
        description="Draws the biggest face of each photo: separate PNG files, and a grid of every eight photos. A run "
        "that was stopped goes on where it was. The exit status is 1 if any photo failed; the others are still drawn.",
        epilog="Under torchrun, each process takes its share of the photos, in groups of eight, and "
        "together they write the files of one: torchrun --nproc-per-node 4 -m stargan translate ... "
        "With --ray, the machines of a Ray cluster share them, whatever becomes of one of these.",
    )
    parser.add_argument(
        "photos", nargs="+", help="photos, or folders of them; with --ray also URIs, such as s3://bucket/photos"
    )
    add_styles(parser)
    parser.add_argument("--count", type=at_least(1), default=10, help="seeds for each photo (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="the first of them (default: %(default)s)")
    parser.add_argument("--output", required=True, help="folder; with --ray also a URI")
    parser.add_argument(
        "--grid", action=argparse.BooleanOptionalAction, default=True, help="also write grids (default)"
    )
    parser.add_argument("--whole-photo", action="store_true", help="put the drawings back into the photos")
    parser.add_argument("--overwrite", action="store_true", help="make files again that are there already")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="local",
        help='on a Ray cluster: its address, or "auto" on one of its machines; without an address, on this machine. Also '
        "writes manifest.parquet, a row a photo",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.ray:
        return _run_on_ray(options)
    with _until_all_are_done():
        return _run_here(options)


@contextlib.contextmanager
def _until_all_are_done() -> Iterator[None]:
    """Under torchrun, which stops a machine's other processes when one exits with another status than 0: none of a machine exits
    before the last."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_torchelastic_launched():
        yield
        return
    store, *_ = next(dist.rendezvous("env://"))
    # a started-again group counts anew
    key = f"done-{os.environ['GROUP_RANK']}-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    processes = int(os.environ["LOCAL_WORLD_SIZE"])
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    # asked again and again, as Ctrl-C would not end a wait; without the store, torchrun is gone, or all are done
    with contextlib.suppress(dist.DistError):
        store.add(key, 1)
        while store.add(key, 0) < processes:
            time.sleep(0.1)
    if failure:
        raise failure


def _run_here(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from stargan import batch
    from stargan.allocator import bound_kernels, bound_memory

    bound_memory()
    bound_kernels()
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if uris := [place for place in [*options.photos, options.output] if "://" in place]:
        raise ValueError(f"{uris[0]} is no folder of this machine: URIs need --ray.")
    output = Path(options.output)
    photos = batch.find_photos(map(Path, options.photos), output)
    translator = load_translator(options)
    looks = _plan(options, translator.config).looks(translator.paint)
    job = batch.Job(translator.config, translator.weights, looks, options.grid, options.whole_photo, options.overwrite)
    share = batch.groups(photos)[rank::processes]
    mine = sum(len(group.photos) for group in share)
    with tqdm(total=mine, unit="photo", disable=None, position=int(os.environ.get("LOCAL_RANK", 0))) as bar:
        tally = batch.translate_all(
            translator.paint,
            job,
            batch.LocalFiles(output),
            share,
            report=lambda sentence: tqdm.write(sentence, file=sys.stderr),
            progress=bar.update,
        )
    print(
        f"{mine} photos: {tally.drawn} drawn, {tally.done} already there, {tally.failed} failed. {options.output}",
        flush=True,
    )
    return 1 if tally.failed else 0


def _run_on_ray(options: argparse.Namespace) -> int:
    import torch
    from tqdm import tqdm

    from stargan.constants import DEFAULT_MODEL
    from stargan.models.registry import MODELS, config_of
    from stargan.pictures import faces

    try:
        from stargan.cluster import connected, translating
    except ModuleNotFoundError as error:
        raise ValueError(f"--ray needs more packages ({error.name}): pip install 'ray[data]'.") from error
    model = options.model or DEFAULT_MODEL
    if model not in MODELS and (folder := Path(model).expanduser()).is_dir():
        model = str(folder.resolve())  # the processes there work in folders of their own
    if options.device == "cpu":  # of another kind, this machine may have none
        faces.search_on(torch.device("cpu"))
    config = config_of(model)
    photos, places = translating.find_photos(options.photos, options.output)
    order = translating.Order(
        model,
        options.device,
        _plan(options, config),
        places,
        translating.place_of(options.output),
        options.grid,
        options.whole_photo,
        options.overwrite,
    )
    with connected(options.ray), tqdm(total=len(photos), unit="photo", disable=None) as bar:
        tally = translating.translate_all(
            order,
            photos,
            report=lambda sentence: tqdm.write(sentence, file=sys.stderr),
            progress=bar.update,
        )
    print(
        f"{len(photos)} photos: {tally.drawn} drawn, {tally.done} already there, {tally.failed} failed. {options.output}"
    )
    return 1 if tally.failed else 0


def _plan(options: argparse.Namespace, config: ModelConfig) -> Plan:
    """The styles that the options ask for."""
    from stargan import batch

    if options.references:
        return batch.reference_plan(config, options.domain, options.references, options.strength)
    return batch.latent_plan(config, options.domain, range(options.seed, options.seed + options.count), options.psi)
