"""Many photos on a real Ray cluster of two nodes, one of which comes and whose processes are killed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import serving
import torch
from asking import wait_until
from hub_server import HubServer
from PIL import Image

pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements-cluster.txt")

import clusters  # before ray, for its settings
import pyarrow.parquet as pq
from pyarrow import fs
from ray.cluster_utils import Cluster

from stargan import batch
from stargan.cluster import connected, translating
from stargan.commands import main
from stargan.models.checkpoint import Model, save_model
from stargan.models.config import ANIME_FRAMING, Architecture, ModelConfig
from stargan.models.registry import config_of

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 240
# from an environment of its own: botocore wants an older python-dateutil than requirements.lock has
MOTO = shutil.which("moto_server")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of a core each."""
    with clusters.cluster(1, 1, python_path=os.pathsep.join([str(ROOT), str(ROOT / "tests")])) as started:
        yield started


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``faces`` looks for a face, ``whole`` takes any picture."""
    folder = tmp_path_factory.mktemp("models")
    for name, framing in (("faces", ANIME_FRAMING), ("whole", None)):
        torch.manual_seed(0)
        architecture = Architecture(32, base_channels=8, max_channels=16)
        save_model(Model.build(ModelConfig(name, ("anime", "female"), architecture, framing)), folder / name)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, portrait: Image.Image) -> Path:
    """Ten faces, in two folders; a picture without one, and a broken file."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    face = portrait.crop((124, 0, 324, 200)).resize((120, 120))
    for n in range(10):
        face.rotate(3 * n - 15).save(folder / ("more" if n % 2 else "") / f"{n}.png")
    Image.new("RGB", (90, 90), "grey").save(folder / "grey.png")
    (folder / "broken.jpg").write_text("not a picture")
    return folder


def translate(*arguments: object) -> int:
    return main(["translate", "--count", "2", "--device", "cpu", *map(str, arguments)])


def translate_here(*arguments: object) -> tuple[int, list[str]]:
    """The command as one machine runs it, with a thread, as a worker with one core has: sums in another order differ in the
    last bit. → its exit status and what it says of photos that fail."""
    command = [sys.executable, "-m", "stargan", "translate", "--count", "2", "--device", "cpu", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, failures(done.stderr)


def failures(err: str) -> list[str]:
    return sorted(line for line in err.splitlines() if line.startswith("/"))


def contents(folder: Path) -> dict[str, str]:
    """Digests of all pictures, half-written ones too."""
    digest = hashlib.sha256
    return {
        file.relative_to(folder).as_posix(): digest(file.read_bytes()).hexdigest() for file in folder.rglob("*.png*")
    }


def manifest(folder: Path) -> list[dict[str, Any]]:
    assert [file.name for file in folder.glob("*manifest*")] == ["manifest.parquet"]
    return pq.read_table(folder / "manifest.parquet").to_pylist()


@pytest.fixture(scope="module")
def expected(models: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], list[str]]:
    """What one machine writes, and what it says of the two photos that cannot be drawn."""
    out = tmp_path_factory.mktemp("here")
    status, told = translate_here(photos, "--model", models / "faces", "--output", out)
    assert (status, len(told)) == (1, 2)
    drawn = contents(out)
    assert len(drawn) == 2 * 10 + 2
    return drawn, told


def test_writes_what_one_machine_writes(
    cluster: Cluster,
    models: Path,
    photos: Path,
    expected: tuple[dict[str, str], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = tmp_path / "there" / "deep"
    monkeypatch.chdir(models)  # where the cluster's processes are not
    common = ["--model", "faces", "--ray", cluster.address]
    assert translate(f"file://{photos}", "--output", f"file://{there}", *common) == 1
    assert contents(there) == expected[0]
    out = capsys.readouterr()
    assert "12 photos: 10 drawn, 0 already there, 2 failed" in out.out
    assert failures(out.err) == expected[1]  # the same sentences

    rows = manifest(there)
    assert [row["photo"] for row in rows] == sorted(
        ["0", "more/1", "2", "more/3", "4", "more/5", "6", "more/7", "8", "more/9", "broken", "grey"]
    )
    by_name = {row["photo"]: row for row in rows}
    assert {row["status"] for row in rows} == {"drawn", "no_face", "unreadable"}
    assert (by_name["grey"]["status"], by_name["grey"]["faces"]) == ("no_face", 0)
    assert by_name["grey"]["sentence"].startswith("No face was found")
    assert (by_name["broken"]["status"], by_name["broken"]["faces"]) == ("unreadable", None)
    drawn = by_name["more/3"]
    assert (drawn["status"], drawn["sentence"], drawn["faces"], drawn["seeds"]) == ("drawn", "", 1, [0, 1])
    assert drawn["styles"] == ["anime-seed0", "anime-seed1"]
    assert drawn["model"] == str(models / "faces")
    assert drawn["source"] == str(photos / "more" / "3.png")
    assert drawn["seconds"] > 0

    # started again, it does what is missing; the same folder, as a file system that fsspec alone knows
    kept = there / "more" / "3-anime-seed1.png"
    written = kept.stat().st_mtime_ns
    for file in there.rglob("*.png"):
        if not file.name.startswith("3-"):
            file.unlink()
    assert translate(f"local://{photos}", "--output", f"local://{there}", *common) == 1
    assert contents(there) == expected[0]
    assert kept.stat().st_mtime_ns == written
    assert "12 photos: 9 drawn, 1 already there, 2 failed" in capsys.readouterr().out
    again = {row["photo"]: row for row in manifest(there)}
    assert again["more/3"] == drawn  # as it was found to be then
    assert [(row["photo"], row["status"]) for row in rows] == [(row["photo"], row["status"]) for row in again.values()]


@pytest.fixture
def bucket() -> Iterator[tuple[fs.FileSystem, str]]:
    """An S3 server with a bucket: its file system, and the end of all URIs."""
    if MOTO is None:
        pytest.skip("moto_server is not installed: pipx install 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([MOTO, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        answers = f"http://127.0.0.1:{port}/moto-api/"
        assert wait_until(lambda: serving.answers(answers), SECONDS)
        where = f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
        filesystem, _ = fs.FileSystem.from_uri(f"s3://key:secret@bucket{where}&allow_bucket_creation=true")
        filesystem.create_dir("bucket")
        yield filesystem, where
    finally:
        process.terminate()
        process.wait(20)


def test_an_object_store(
    cluster: Cluster,
    models: Path,
    photos: Path,
    expected: tuple[dict[str, str], list[str]],
    bucket: tuple[fs.FileSystem, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    """What S3 has afterwards is what a folder would have; and a photo with its drawings there is not drawn again."""
    filesystem, where = bucket
    fs.copy_files(str(photos), "bucket/photos", fs.LocalFileSystem(), filesystem)
    source, output = (f"s3://key:secret@bucket/{folder}{where}" for folder in ("photos", "drawn"))
    command = [source, "--output", output, "--model", models / "faces", "--ray", cluster.address]
    assert translate(*command) == 1
    assert "12 photos: 10 drawn, 0 already there, 2 failed" in capsys.readouterr().out
    fs.copy_files("bucket/drawn", str(tmp_path / "first"), filesystem, fs.LocalFileSystem())
    assert contents(tmp_path / "first") == expected[0]
    statuses = {row["photo"]: row["status"] for row in manifest(tmp_path / "first")}
    assert (statuses["more/3"], statuses["grey"], statuses["broken"]) == ("drawn", "no_face", "unreadable")

    filesystem.delete_file("bucket/drawn/more/3-anime-seed1.png")
    assert translate(*command) == 1
    assert "12 photos: 1 drawn, 9 already there, 2 failed" in capsys.readouterr().out
    fs.copy_files("bucket/drawn", str(tmp_path / "second"), filesystem, fs.LocalFileSystem())
    assert contents(tmp_path / "second") == expected[0]
    assert {row["photo"]: row["status"] for row in manifest(tmp_path / "second")} == statuses


def test_photos_on_the_hub(
    models: Path, photos: Path, expected: tuple[dict[str, str], list[str]], tmp_path: Path
) -> None:
    hub = HubServer()
    try:
        files = {f"in/{file.relative_to(photos)}": file.read_bytes() for file in photos.rglob("*") if file.is_file()}
        hub.add("user/photos", {"README.md": b"#", **files})
        command = [
            sys.executable,
            "-m",
            "stargan",
            "translate",
            "hf://user/photos/in",
            "--count",
            "2",
            "--device",
            "cpu",
        ]
        command += ["--model", str(models / "faces"), "--output", str(tmp_path / "drawn"), "--ray"]
        there = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | there, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        assert "12 photos: 10 drawn, 0 already there, 2 failed" in done.stdout, done.stderr
        assert contents(tmp_path / "drawn") == expected[0]
    finally:
        hub.stop()


@dataclass(frozen=True)
class Fragile(translating.PlaceFiles):
    """A picture that ends the process that opens it."""

    def open(self, photo: translating.Remote) -> Any:
        if photo.path.endswith("poison.png") and photo not in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().open(photo)


class Patient(translating.Worker):
    """Marks its node; the second half of the photos waits until a third node is there."""

    def __init__(self, order: translating.Order, deaths: Any) -> None:
        super().__init__(order, deaths)
        self.files = Fragile(order.places, order.output)
        self.marks = Path(order.output.path).parent / "nodes"
        self.marks.mkdir(exist_ok=True)
        (self.marks / self.node).touch()

    def rows(self, group: batch.Group) -> list[batch.Row]:
        deadline = time.monotonic() + SECONDS
        while group.number >= 20 and len(list(self.marks.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        return super().rows(group)


@dataclass
class Run:
    """A run in a thread of its own, so that things can happen to the cluster meanwhile."""

    work: Callable[[], batch.Tally]
    result: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result.append(self.work())
        except BaseException as error:
            self.result.append(error)

    def wait(self) -> batch.Tally:
        self.thread.join(SECONDS)
        assert self.result, "the run did not end"
        assert isinstance(self.result[0], batch.Tally), self.result[0]
        return self.result[0]


def test_a_killed_worker_a_new_node_and_a_deadly_picture(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for n in range(320):
        Image.effect_noise((64, 64), 20 + n / 4).convert("RGB").save(photos / f"{n:03}.png")
    expected = tmp_path / "expected"
    assert translate_here(photos, "--model", models / "whole", "--output", expected) == (0, [])
    Image.new("RGB", (64, 64)).save(photos / "poison.png")  # the last, on a grid of its own

    found, places = translating.find_photos([str(photos)], str(out))
    assert translating.find_photos([str(photos)], str(tmp_path))[0].keys() == found.keys()
    with pytest.raises(translating.ClusterError, match="would lie among the photos"):
        translating.find_photos([str(photos)], str(photos))
    no_text = tmp_path / "names" / os.fsdecode(b"\x83.png")
    no_text.parent.mkdir()
    no_text.touch()
    with pytest.raises(translating.ClusterError, match=r"the name b'.*\\x83.png' is no text"):
        translating.find_photos([str(no_text.parent)], str(out))

    config = config_of(str(models / "whole"))
    plan = batch.latent_plan(config, None, range(2), 0.7)
    order = translating.Order(
        str(models / "whole"), "cpu", plan, places, translating.place_of(str(out)), with_grid=True
    )
    told: list[str] = []
    with connected(cluster.address):
        run = Run(lambda: translating.translate_all(order, found, worker=Patient, report=told.append))
        deadline = time.monotonic() + SECONDS
        while len(list(out.glob("[!.]*.png"))) < 280:  # of 640
            assert not run.result, run.result
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killed = clusters.processes("ray::MapWorker")[0]
        killed.kill()
        clusters.add_node(cluster, 1)
        tally = run.wait()
    assert (tally.drawn + tally.done, tally.failed) == (320, 1)
    (sentence,) = told
    assert sentence.startswith(f"{photos}/poison.png: Processes that worked on this picture ended")

    drawn = contents(out)
    assert drawn == contents(expected)
    rows = manifest(out)
    assert [row["photo"] for row in rows] == [*(f"{n:03}" for n in range(320)), "poison"]  # none lost, none twice
    assert [row["status"] for row in rows] == ["drawn"] * 320 + ["unreadable"]
    assert len({row["node"] for row in rows} - {None}) == 3  # None: its files were there when it was done again


def test_refusals_are_sentences(cluster: Cluster, models: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    for arguments, said in (
        ([photos, "--ray", "127.0.0.1:1"], "No Ray cluster answers at 127.0.0.1:1"),
        ([tmp_path / "nothing", "--ray", cluster.address], f"There is no file or folder {tmp_path}/nothing."),
        (["gopher://x/y", "--ray", cluster.address], "gopher://x/y cannot be used"),
        (["s3://bucket/photos"], "s3://bucket/photos is no folder of this machine: URIs need --ray."),
    ):
        assert translate(*arguments, "--model", models / "faces", "--output", out) == 2
        assert said in capsys.readouterr().err
    assert not out.exists()
