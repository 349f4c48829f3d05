"""Sets of faces that do not fit into memory: WebDataset shards, here or elsewhere, decoded by processes of their own.

A shard is a tar file ``DOMAIN-NUMBER.tar`` of pictures, in random order. Every domain is a stream of its own, so that each is drawn
as often as training asks for it, however large it is.
"""

from __future__ import annotations

import io
import logging
import os
import random
import re
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from stargan.pictures.io import SUFFIXES
from stargan.training.data import DataError, list_domains, read_square

log = logging.getLogger(__name__)

# Of a shard: large enough that opening one costs nothing, small enough that machines and processes can share a set.
SHARD_BYTES, SHARD_PICTURES = 256_000_000, 10_000
# Pictures among which a stream draws at random, as files: a domain of 10 kB a picture takes 20 MB a process.
SHUFFLED = 2_000
# Pictures that a process decodes before it hands them over, and how many such batches it is ahead.
CHUNK, AHEAD = 32, 4
# Shards that cannot be read, one after another, before training gives up.
PATIENCE = 10
# Samples without a picture that can be read, one after another, before training gives up.
BLANKS = 1_000
# Processes that decode, at most, for each domain.
MAX_WORKERS = 4
_SHARD = re.compile(r"(.+)-\d+\.tar")


def is_sharded(data: str | Path) -> bool:
    """Whether training data is shards: a pattern of tar files, or a folder of them."""
    return str(data).endswith(".tar") or (Path(data).is_dir() and any(Path(data).glob("*.tar")))


def find_shards(data: str | Path) -> dict[str, list[str]]:
    """Shards by domain, both sorted.

    Args:
        data: a folder, or a path or URL that may have braces: ``https://host/faces/{anime,female}-{000000..000007}.tar``.

    Raises:
        DataError: there are none, or one has no domain in its name.
    """
    braceexpand = _webdataset("braceexpand").braceexpand
    if Path(data).is_dir():
        shards = [str(file) for file in sorted(Path(data).glob("*.tar"))]
    else:
        shards = list(braceexpand(str(data)))
        if missing := [shard for shard in shards if "://" not in shard and not Path(shard).is_file()]:
            raise DataError(f"There is no shard {missing[0]}.")
    domains: dict[str, list[str]] = {}
    for shard in shards:
        named = _SHARD.fullmatch(PurePosixPath(shard).name)
        if not named:
            raise DataError(f"A shard's name is its domain's and a number, such as anime-000000.tar, unlike {shard}.")
        domains.setdefault(named[1], []).append(shard)
    return {domain: sorted(domains[domain]) for domain in sorted(domains)}


def check_place(shards: Path) -> None:
    """
    Raises:
        DataError: ``shards`` is a file, a tar file in it is no shard, or webdataset is not installed.
    """
    _webdataset("webdataset")
    if shards.exists() and not shards.is_dir():
        raise DataError(f"{shards} is a file: shards need a folder of their own.")
    if others := sorted(file for file in shards.glob("*.tar") if not _SHARD.fullmatch(file.name)):
        raise DataError(f"{others[0]} is no shard of faces: shards need a folder of their own.")


def write_shards(faces: Path, shards: Path, seed: int = 0) -> int:
    """Packs folders of faces, one a domain, as they are; what was in ``shards`` is replaced.

    Returns:
        How many shards there are.

    Raises:
        DataError: there are no faces, a tar file in ``shards`` is no shard, or webdataset is not installed.
    """
    check_place(shards)
    domains, before = list_domains(faces), set(shards.glob("*.tar"))
    shards.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=shards) as folder:
        _pack(_webdataset("webdataset"), domains, Path(folder), seed)
        # the earlier ones stay until these are whole
        written = {file.replace(shards / file.name) for file in Path(folder).iterdir()}
    for old in before - written:
        old.unlink()
    return len(written)


def _pack(wds: Any, domains: Mapping[str, list[Path]], shards: Path, seed: int) -> None:
    for domain, files in domains.items():
        # in a random order: what is read one after the other must not be alike
        random.Random(seed).shuffle(files)
        pattern = f"{str(shards).replace('%', '%%')}/{domain.replace('%', '%%')}-%06d.tar"
        with wds.ShardWriter(pattern, SHARD_PICTURES, SHARD_BYTES, verbose=0, mtime=0) as writer:
            for number, file in enumerate(files):
                writer.write({"__key__": f"{domain}/{number:08d}", file.suffix[1:].lower(): file.read_bytes()})


class ShardedFaces:
    """As :class:`stargan.training.data.Faces`, from shards: pictures come in the order of streams, not from memory.

    A run that is gone on with draws other pictures than one that was never stopped: its streams begin anew, by the iteration that
    it goes on from. Two runs that were stopped at the same iterations draw the same.

    Args:
        seed, start: of the run, and the iteration that it goes on from.
        rank, world: this process's number and how many share a batch; each reads its own part of it alone.

    Raises:
        DataError: as :func:`find_shards`.
    """

    skipped = 0

    def __init__(
        self,
        data: str | Path,
        size: int,
        device: torch.device,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        shards = find_shards(data)
        self.data, self.size, self.device, self.rank, self.world = data, size, device, rank, world
        self.domains = tuple(shards)
        processes = world if world > 1 else 1
        # of those that this process may use, which a cluster often gives less of than there are
        cores = (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // int(
            os.environ.get("LOCAL_WORLD_SIZE", processes)
        )
        workers = min(max(1, cores // len(shards)), MAX_WORKERS)
        self._streams = [
            _Stream(urls, size, workers, hash((seed, start, rank, index)) % 2**31)
            for index, urls in enumerate(shards.values())
        ]

    def weights(self, by_prefix: Mapping[str, float]) -> tuple[Tensor, list[Tensor | None]]:
        """As :meth:`stargan.training.data.Faces.weights`, of domains alone.

        Raises:
            DataError: pictures within a domain are weighed, a key is no domain, or nothing is left to draw.
        """
        if within := [key for key in by_prefix if "/" in key]:
            raise DataError(
                f"Pictures within a domain ({within[0]}) can be weighed in a folder of faces, not in shards."
            )
        if unknown := sorted(set(by_prefix) - set(self.domains)):
            raise DataError(f"The options name the domain {unknown[0]!r}; the data has {', '.join(self.domains)}.")
        odds = [by_prefix.get(domain, 1.0) for domain in self.domains]
        if not any(odds):
            raise DataError("All domains have the weight 0.")
        return torch.tensor(odds, dtype=torch.float32, device=self.device), [None] * len(odds)

    def tell_apart(self, kinds: Sequence[str]) -> None:
        """Gives every domain its one kind, ``kinds[domain]``: an entry that stands for all of its pictures.

        Raises:
            DataError: there are kinds.
        """
        if kinds:
            raise DataError(f"Kinds ({kinds[0]}) can be told apart in a folder of faces, not in shards.")
        self.kinds = [torch.tensor([index]) for index in range(len(self.domains))]

    def sample(
        self,
        domain: Tensor,
        generator: torch.Generator,  # noqa: ARG002 - streams are random themselves
        odds: Sequence[Tensor | None] | None = None,  # noqa: ARG002 - all are alike
    ) -> tuple[Tensor, Tensor]:
        """One picture a row, from that row's domain: ``(N,)`` int64 → ``(N, 3, size, size)`` float in [-1, 1]; and ``domain``.

        The other processes' rows are gray: nobody looks at them here.

        Raises:
            DataError: shards cannot be read any more.
        """
        joint = torch.full((len(domain), 3, self.size, self.size), 127, dtype=torch.uint8)
        own = torch.arange(len(domain)).chunk(self.world)[self.rank].tolist()
        for row, index in zip(own, domain.cpu()[own].tolist(), strict=True):
            joint[row] = self._streams[index].next()
        return joint.to(self.device).float() / 127.5 - 1, domain


class _Stream:
    """The pictures of a domain, one after another, without an end."""

    def __init__(self, urls: list[str], size: int, workers: int, seed: int) -> None:
        wds = _webdataset("webdataset")
        patience = _Patience(urls)
        pipeline = wds.DataPipeline(
            wds.ResampledShards(urls, seed=seed, deterministic=True),
            wds.tarfile_to_samples(handler=patience.failed),
            patience.read,
            _Shuffle(seed),
            _Decoder(size, patience),
        )
        self._loader = DataLoader(
            pipeline,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=AHEAD,
            worker_init_fn=_at_start,
            generator=torch.Generator().manual_seed(seed),  # else it would draw from the run's own
        )
        self._batches: Iterator[Tensor] | None = None
        self._pictures: Iterator[Tensor] = iter(())

    def next(self) -> Tensor:
        """``(3, size, size)`` uint8."""
        while (picture := next(self._pictures, None)) is None:
            if self._batches is None:  # the processes begin with the first step
                self._batches = iter(self._loader)
            try:
                self._pictures = iter(next(self._batches))
            except (RuntimeError, DataError) as error:  # of a process that decodes, with its traceback
                why = str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]
                raise DataError(f"The shards cannot be read: {why}") from error
        return picture


class _Shuffle:
    """Samples in random order, of each process its own: with one seed for all, those of a single shard would all give the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, samples: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        process = get_worker_info()
        own = random.Random(f"{self.seed} {process.id if process else 0}")
        # nor are they to begin with the same ones
        for _ in range(own.randrange(SHUFFLED)):
            next(samples)
        return iter(_webdataset("webdataset").shuffle(SHUFFLED, initial=SHUFFLED // 4, rng=own)(samples))


class _Decoder:
    """Samples of a tar file → ``(32, 3, size, size)`` uint8; what cannot be read is left out."""

    def __init__(self, size: int, patience: _Patience) -> None:
        self.size, self.patience = size, patience

    def __call__(self, samples: Iterator[dict[str, Any]]) -> Iterator[Tensor]:
        chunk: list[Tensor] = []
        for sample in samples:
            pictures = [
                read_square(io.BytesIO(content), self.size, sample["__key__"])
                for name, content in sample.items()
                # webdataset takes all behind the first dot for the ending
                if f".{name.lower().rpartition('.')[2]}" in SUFFIXES
            ]
            read = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures if picture is not None]
            self.patience.came(sample["__key__"], len(read))
            chunk += read
            if len(chunk) >= CHUNK:
                yield torch.stack(chunk)
                chunk = []


class _Patience:
    """Goes on after a shard that cannot be read, or a sample without a picture, but not for ever."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls, self.left, self.blanks = urls, PATIENCE, 0

    def read(self, samples: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for sample in samples:
            self.left = PATIENCE
            yield sample

    def came(self, sample: str, pictures: int) -> None:
        self.blanks = 0 if pictures else self.blanks + 1
        if self.blanks >= BLANKS:
            raise DataError(f"{BLANKS} samples in a row have no picture that can be read, such as {sample}")

    def failed(self, error: Exception) -> bool:
        log.warning("skipped a shard: %s", error)
        self.left -= 1
        if self.left <= 0:
            raise DataError(f"{PATIENCE} shards in a row cannot be read, such as {self.urls[0]}: {error}")
        return True


def _at_start(_worker: int) -> None:
    """A process that decodes ends when training ends it, and by no signal that a whole group of processes gets: training, which
    is told to stop then, must not lose it before it has saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "sigwaitinfo"):  # but for macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told_by, args=[os.getppid()], daemon=True).start()


def _end_when_told_by(training: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
        pass
    os._exit(0)


def _webdataset(name: str) -> Any:
    """A package that only shards need.

    Raises:
        DataError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise DataError("Shards need the package webdataset: pip install webdataset.") from error
