"""Many photos on many machines, by Ray Data: what ``python -m stargan translate --ray`` does.

One actor a GPU, or a CPU core, holds the model and draws group after group by :func:`stargan.batch.translate_group`, as a single
machine does; the engine hands out groups, starts actors where machines come, and does again what a lost one had. The driver
gathers a row a photo into ``manifest.parquet``.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from pyarrow import fs
from ray.data import ActorPoolStrategy, DataContext

from stargan import __version__, batch, load_translator
from stargan.allocator import bound_kernels, bound_memory
from stargan.batch import Files, Group, Job, LocalFiles, Plan, Row, Tally
from stargan.cluster import ClusterError
from stargan.cluster.deaths import Deaths
from stargan.drawing import Seeds, Source
from stargan.errors import PhotoError
from stargan.inference.translator import find_device
from stargan.pictures import faces
from stargan.pictures.io import MAX_BYTES, SUFFIXES

log = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"
# A photo in whose turn so many processes ended is not tried again.
DEATHS = 3
# Blocks are what the engine hands out and does again; more of them than this would cost the driver more than they save.
MAX_BLOCKS = 10_000
# Rows that are gathered before a part of the manifest is written.
PART = 2_000
# File systems that know no half-written files.
OBJECT_STORES = frozenset({"s3", "gcs", "gs", "abfs", "abfss", "az", "hf", "memory"})
# Actors at most; there are as many as the cluster has room for.
MAX_ACTORS = 4_096

SCHEMA = pa.schema(
    [
        ("photo", pa.string()),  # the name its results have
        ("source", pa.string()),
        ("status", pa.string()),  # drawn, no_face, unreadable, failed
        ("sentence", pa.string()),  # why it was not drawn
        ("faces", pa.int32()),  # null where none were looked for
        ("styles", pa.list_(pa.string())),
        ("seeds", pa.list_(pa.int64())),  # of styles that have some
        ("model", pa.string()),
        ("seconds", pa.float32()),  # that the photo took; null where its files were there
        ("node", pa.string()),  # Ray's name of the machine
    ]
)
GROUPS = pa.schema(
    [
        ("number", pa.int64()),
        ("names", pa.list_(pa.string())),
        ("places", pa.list_(pa.int32())),
        ("paths", pa.list_(pa.string())),
    ]
)


# where photos are and results go


@dataclass(frozen=True)
class Place:
    """A folder, here or elsewhere.

    Attributes:
        uri: as it was given.
        path: below the file system's root.
    """

    uri: str
    filesystem: fs.FileSystem
    path: str

    @property
    def local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def read(self, path: str) -> bytes:
        """A file's content, up to a byte more than a photo may have.

        Raises:
            OSError: it cannot be read.
        """
        with self.filesystem.open_input_stream(path) as stream:
            return stream.read(MAX_BYTES + 1)

    def write(self, path: str, content: bytes) -> None:
        """Writes a file, and the folders it lies in, as a whole.

        Raises:
            OSError: it cannot be written.
        """
        if self._is_object_store:  # there, a file appears when it is complete
            self._put(path, content)
            return
        partial = str(PurePosixPath(path).with_name(f".{PurePosixPath(path).name}"))
        try:
            self._put(partial, content)
        except FileNotFoundError:
            self.filesystem.create_dir(str(PurePosixPath(path).parent), recursive=True)
            self._put(partial, content)
        self.filesystem.move(partial, path)

    @property
    def _is_object_store(self) -> bool:
        if not isinstance(self.filesystem, fs.PyFileSystem):
            return self.filesystem.type_name in OBJECT_STORES
        protocol = self.filesystem.handler.fs.protocol  # fsspec's: a name, or several
        return not OBJECT_STORES.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    def _put(self, path: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(path) as stream:
            stream.write(content)


@dataclass(frozen=True)
class Remote:
    """A photo at a place, by the number of the place."""

    place: int
    path: str

    def __str__(self) -> str:
        return self.path


def place_of(place: str) -> Place:
    """A folder, or a URI that pyarrow or fsspec knows.

    Raises:
        ClusterError: none knows it.
    """
    try:
        if "://" not in place:
            return Place(place, fs.LocalFileSystem(), str(Path(place).resolve()))
        with suppress(pa.ArrowInvalid):
            return Place(place, *fs.FileSystem.from_uri(_in_one_request(place)))
        from fsspec.core import url_to_fs

        other, path = url_to_fs(place)
        return Place(place, fs.PyFileSystem(fs.FSSpecHandler(other)), path)
    except (ValueError, OSError, ImportError) as error:
        raise ClusterError(f"{place} cannot be used: {error}") from error


def _in_one_request(uri: str) -> str:
    """The URI with which pyarrow writes a file to S3 by one request, instead of the three of an upload in parts."""
    if not uri.startswith("s3://") or "allow_delayed_open" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}allow_delayed_open=true"


def find_photos(sources: Sequence[str], output: str) -> tuple[dict[str, Remote], list[Place]]:
    """The pictures at these places, named as by :func:`stargan.batch.find_photos`; and the places.

    Raises:
        ClusterError, ValueError: a place does not exist or cannot be listed, there are no pictures, or two would get one name.
    """
    places, target = [place_of(source) for source in sources], place_of(output)
    found: dict[Remote, PurePosixPath] = {}
    seen: set[tuple[str, str]] = set()
    for number, place in enumerate(places):
        for path, below in _photos_at(place, target):
            if (key := (place.filesystem.type_name, path)) not in seen:
                seen.add(key)
                found[Remote(number, path)] = below
    if not found:
        raise ClusterError(f"There are no pictures in {', '.join(sources)}.")
    return batch.named(found), places


def _photos_at(place: Place, target: Place) -> Iterator[tuple[str, PurePosixPath]]:
    """Paths of pictures, each with its path below the place, in the order of the names."""
    try:
        about = place.filesystem.get_file_info(place.path)
        if about.type == fs.FileType.NotFound:
            raise ClusterError(f"There is no file or folder {place.uri}.")
        if about.type == fs.FileType.File:
            yield place.path, PurePosixPath(PurePosixPath(place.path).name)
            return
        files = place.filesystem.get_file_info(fs.FileSelector(place.path, recursive=True))
        files.sort(key=lambda file: PurePosixPath(file.path))
    except UnicodeDecodeError as error:
        raise ClusterError(
            f"In {place.uri} the name {error.object!r} is no text: rename it, or leave out --ray."
        ) from error
    except OSError as error:
        raise ClusterError(f"{place.uri} cannot be listed: {error}") from error
    made = PurePosixPath(target.path) if target.filesystem.type_name == place.filesystem.type_name else None
    root = PurePosixPath(place.path)
    inside = made if made and root in made.parents else None
    for file in files:
        path = PurePosixPath(file.path)
        hidden = path.name.startswith(".")
        if file.is_file and path.suffix.lower() in SUFFIXES and not hidden and inside not in path.parents:
            if made == root:
                raise ClusterError(batch.AMONG_PHOTOS.format(place=place.uri))
            yield file.path, path.relative_to(place.path)


@dataclass(frozen=True)
class PlaceFiles:
    """Files at places; a photo of ``deadly``, in whose turn processes ended, is refused."""

    places: Sequence[Place]
    output: Place
    deadly: frozenset[Remote] = frozenset()

    def open(self, photo: Remote) -> Source:
        if photo in self.deadly:
            raise PhotoError("photo_deadly")
        place = self.places[photo.place]
        return Source.open(Path(photo.path) if place.local else place.read(photo.path))

    def texts(self, name: str) -> dict[str, str] | None:
        if self.output.local:
            return self._folder.texts(name)
        try:
            return batch.texts_of(io.BytesIO(self.output.read(f"{self.output.path}/{name}")))
        except OSError:  # it is not there
            return None

    def write(self, name: str, content: bytes) -> None:
        if self.output.local:
            self._folder.write(name, content)
        else:
            self.output.write(f"{self.output.path}/{name}", content)

    @property
    def _folder(self) -> LocalFiles:
        return LocalFiles(Path(self.output.path))


# the work


@dataclass(frozen=True)
class Order:
    """What the machines are told.

    Attributes:
        model: as for :func:`stargan.load_translator`; every machine must find it.
        device: None: CUDA where there is one.
        places: where the photos are.
    """

    model: str
    device: str | None
    plan: Plan
    places: list[Place]
    output: Place
    with_grid: bool = False
    whole: bool = False
    overwrite: bool = False
    version: str = __version__


class Worker:
    """What one actor does: holds the model and draws groups of photos."""

    def __init__(self, order: Order, deaths: ray.actor.ActorHandle) -> None:
        if order.version != __version__:
            raise ClusterError(f"This machine has stargan {__version__}, and whoever asks has {order.version}.")
        bound_memory()
        bound_kernels()
        self.order, self.deaths = order, deaths
        faces.search_on(find_device(order.device))
        self.translator = load_translator(order.model, order.device)
        looks = order.plan.looks(self.translator.paint)
        self.job = Job(
            self.translator.config, self.translator.weights, looks, order.with_grid, order.whole, order.overwrite
        )
        self.files = PlaceFiles(order.places, order.output)
        self.node = ray.get_runtime_context().get_node_id()

    def __call__(self, work: pa.Table) -> pa.Table:
        """Groups (:data:`GROUPS`) → a row a photo (:data:`SCHEMA`)."""
        rows = [row for group in work.to_pylist() for row in self.rows(_group(group))]
        return _table(rows, self.order, self.job.looks.names, self.node)

    def rows(self, group: Group[Remote]) -> list[Row]:
        """What became of a group. One that processes ended over is done photo by photo, to find out over which."""
        before = cast(int, ray.get(self.deaths.begin.remote(group.number)))
        files: Files[Remote] = self.files
        if before >= DEATHS - 1:
            files = replace(self.files, deadly=frozenset(self._deadly(group)))
        rows: list[Row] = []
        try:
            rows.extend(batch.translate_group(self.translator.paint, self.job, files, group))
        except OSError as error:  # of the grid, which comes last: the next run makes it
            log.warning("%s", error)
        self.deaths.end.remote(group.number)
        return rows

    def _deadly(self, group: Group[Remote]) -> Iterator[Remote]:
        alone = replace(self.job, with_grid=False)
        for name, photo in group.photos:
            if ray.get(self.deaths.begin.remote((photo.place, photo.path))):
                yield photo
                continue
            list(batch.translate_group(self.translator.paint, alone, self.files, Group(0, [(name, photo)])))
            ray.get(self.deaths.end.remote((photo.place, photo.path)))


def _group(group: dict) -> Group[Remote]:
    photos = map(Remote, group["places"], group["paths"])
    return Group(group["number"], list(zip(group["names"], photos, strict=True)))


def _table(rows: Sequence[Row], order: Order, styles: list[str], node: str) -> pa.Table:
    recipe = order.plan.recipe
    same = {
        "styles": styles,
        "seeds": list(recipe.numbers) if isinstance(recipe, Seeds) else [],
        "model": order.model,
        "node": node,
    }
    return pa.Table.from_pylist(
        [{**vars(row), **same, "seconds": None if row.status == "there" else row.seconds} for row in rows], SCHEMA
    )


def translate_all(
    order: Order,
    photos: dict[str, Remote],
    *,
    worker: type[Worker] = Worker,
    report: Callable[[str], None] = print,
    progress: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Draws every photo in every look on the cluster that this process is connected to, and writes the manifest.

    Args:
        photos: see :func:`find_photos`.
        report, progress: as for :func:`stargan.batch.translate_all`.

    Raises:
        ClusterError: the manifest cannot be written.
        ray.exceptions.RayError: the cluster could not go on.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    work = _work(batch.groups(photos))
    blocks = min(len(work), MAX_BLOCKS)
    on_gpu = bool(ray.cluster_resources().get("GPU")) and order.device != "cpu"
    room = int(ray.cluster_resources().get("GPU" if on_gpu else "CPU", 1))
    deaths = ray.remote(Deaths).options(num_cpus=0, max_restarts=-1).remote()
    # the groups of a block go to the actor one by one
    rows = ray.data.from_arrow(work, override_num_blocks=blocks).map_batches(
        worker,
        fn_constructor_args=(order, deaths),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=1, max_size=min(blocks, MAX_ACTORS), initial_size=max(1, min(blocks, room, MAX_ACTORS))
        ),
        num_cpus=1,
        num_gpus=1 if on_gpu else None,
    )
    manifest, tally = Manifest(order.output), Tally()
    parts: Iterable[pa.Table] = rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for part in parts:
        for source, status, sentence in zip(
            *(part.column(name).to_pylist() for name in ("source", "status", "sentence")), strict=True
        ):
            tally.add(status)
            if sentence:
                report(f"{source}: {sentence}")
        manifest.add(part)
        progress(len(part))
    manifest.close()
    return tally


def _work(groups: Sequence[Group[Remote]]) -> pa.Table:
    columns = (
        [group.number for group in groups],
        [[name for name, _ in group.photos] for group in groups],
        [[photo.place for _, photo in group.photos] for group in groups],
        [[photo.path for _, photo in group.photos] for group in groups],
    )
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, GROUPS.types, strict=True)], schema=GROUPS)


# the manifest


class Manifest:
    """``manifest.parquet``: a row a photo, of this run and of those before; in parts until the run ends.

    What a stopped run had gathered counts, too.

    Raises:
        ClusterError: (by all methods) it cannot be read or written.
    """

    def __init__(self, output: Place) -> None:
        self.output = output
        with self._told():
            self.parts = self._parts()
            tables = [pq.read_table(path, filesystem=output.filesystem) for path in self._present()]
        self.before = _newest(tables)
        self.gathered: list[pa.Table] = []
        self.tables: list[pa.Table] = []
        self.number = len(self.parts)

    def add(self, rows: pa.Table) -> None:
        self.gathered.append(rows)
        if sum(map(len, self.gathered)) >= PART:
            self._write_part()

    def close(self) -> None:
        """Makes one file of all parts."""
        rows = (
            pa.concat_tables([*self.tables, *self.gathered]) if self.tables or self.gathered else SCHEMA.empty_table()
        )
        with self._told():
            self._write(MANIFEST, _newest([self.before, _completed(rows, self.before)]))
            for path in self._parts():
                self.output.filesystem.delete_file(path)

    def _write_part(self) -> None:
        rows = pa.concat_tables(self.gathered)
        with self._told():
            self._write(f"manifest-part-{self.number:06d}.parquet", _completed(rows, self.before))
        self.number += 1
        self.tables.append(rows)
        self.gathered = []

    def _write(self, name: str, rows: pa.Table) -> None:
        content = io.BytesIO()
        pq.write_table(rows, content)
        PlaceFiles((), self.output).write(name, content.getvalue())

    def _present(self) -> list[str]:
        whole = f"{self.output.path}/{MANIFEST}"
        there = self.output.filesystem.get_file_info(whole).type == fs.FileType.File
        return [whole, *self.parts] if there else self.parts

    def _parts(self) -> list[str]:
        selector = fs.FileSelector(self.output.path, allow_not_found=True)
        names = [file.path for file in self.output.filesystem.get_file_info(selector)]
        return sorted(name for name in names if PurePosixPath(name).name.startswith("manifest-part-"))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise ClusterError(f"The manifest in {self.output.uri} cannot be read or written: {error}") from error


def _newest(tables: Sequence[pa.Table]) -> pa.Table:
    """The last row of each photo, by name."""
    rows = pa.concat_tables([SCHEMA.empty_table(), *tables]).combine_chunks()
    numbered = rows.append_column("index", pa.array(range(len(rows)), pa.int64()))
    last = numbered.group_by("photo").aggregate([("index", "max")])["index_max"]
    return rows.take(last).sort_by("photo")


def _completed(rows: pa.Table, before: pa.Table) -> pa.Table:
    """Rows of photos whose files were there, with what is known of them from before."""
    there = pc.equal(rows["status"], "there")
    at = pc.index_in(rows["photo"], value_set=before["photo"])
    for name in ("faces", "seconds", "node"):
        known = pc.if_else(there, pc.coalesce(before[name].take(at), rows[name]), rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), SCHEMA.field(name), known)
    status = pc.if_else(there, "drawn", rows["status"])
    return rows.set_column(rows.schema.get_field_index("status"), SCHEMA.field("status"), status)
