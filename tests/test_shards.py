"""Sets larger than memory: shards are written, read here and from another machine, and trained on. Sets in memory are no larger."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from asking import wait_until
from PIL import Image

pytest.importorskip("webdataset", reason="webdataset is not installed: pip install -r requirements-cluster.txt")

from stargan.commands import main
from stargan.training import shards as sharding
from stargan.training.data import DataError, Faces
from stargan.training.shards import CHUNK, ShardedFaces, _Stream, find_shards, is_sharded, write_shards
from stargan.training.state import STATE_FILE

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
COUNTS = {"anime": 50, "photo": 9}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many pictures of one domain, few of another, and a broken one."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for domain, count in COUNTS.items():
        (root / domain).mkdir()
        for index in range(count):
            noise = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            noise.resize((40, 40), Image.Resampling.BICUBIC).save(root / domain / f"{index}.png")
    (root / "photo" / "broken.jpg").write_text("not a picture")
    return root


@pytest.fixture(scope="module")
def shards(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "SHARD_PICTURES", 20)
        assert write_shards(faces, folder) == 3 + 1
    return folder


@pytest.fixture
def served(shards: Path) -> Iterator[str]:
    """The address of the shards on a server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shards)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def identities(x: torch.Tensor) -> list[bytes]:
    """``(N, 3, S, S)`` in [-1, 1] → what each picture is known by."""
    return [((picture + 1) * 127.5).round().byte().numpy().tobytes() for picture in x]


def known(faces: Path) -> dict[bytes, str]:
    """The domain of every picture that can be read, as it is in memory."""
    memory = Faces(faces, 32, CPU)
    return {
        p.numpy().tobytes(): d for d, pictures in zip(memory.domains, memory.pictures, strict=True) for p in pictures
    }


def test_every_file_is_packed_once_as_it_is(faces: Path, shards: Path) -> None:
    packed = []
    assert {file.name for file in shards.iterdir()} == {f"anime-{n:06d}.tar" for n in range(3)} | {"photo-000000.tar"}
    for file in shards.iterdir():
        with tarfile.open(file) as archive:
            packed += [(file.name.split("-")[0], archive.extractfile(member).read()) for member in archive]
    there = [(file.parent.name, file.read_bytes()) for file in faces.rglob("*.*")]
    assert Counter(packed) == Counter(there)
    assert find_shards(shards) == find_shards(f"{shards}/{{anime-{{000000..000002}},photo-000000}}.tar")
    assert is_sharded(shards)
    assert is_sharded("https://host/anime-000000.tar")
    assert not is_sharded(faces)


def test_prepare_packs_what_it_cut_out(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["prepare", faces, tmp_path / "out", "--preset", "tiny", "--crop", "0,0,1,1", "--smallest", "0"]
    assert main([*map(str, command), "--shards", str(tmp_path / "shards"), "--processes", "1"]) == 0
    assert "59 faces of 59 photos" in (told := capsys.readouterr().out)
    assert f"2 shards: {tmp_path}/shards" in told
    with tarfile.open(tmp_path / "shards" / "photo-000000.tar") as archive:
        assert len(archive.getnames()) == 9
    (tmp_path / "shards" / "other.tar").touch()  # told before the faces are cut out
    command[2] = tmp_path / "again"
    assert main([*map(str, command), "--shards", str(tmp_path / "shards"), "--processes", "1"]) == 2
    assert "other.tar is no shard of faces" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_streams_give_the_domains_that_are_asked_for(
    faces: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding, "MAX_WORKERS", 1)  # the same ones on every machine
    whose = known(faces)
    assert len(whose) == sum(COUNTS.values())
    streams = ShardedFaces(shards, 32, CPU, seed=1)
    assert streams.domains == ("anime", "photo")
    random = torch.Generator().manual_seed(0)
    drawn: Counter[bytes] = Counter()
    for _ in range(25):
        domain = torch.randint(2, (24,), generator=random)
        x, kind = streams.sample(domain, random)
        assert torch.equal(kind, domain)
        assert x.dtype == torch.float32
        for identity, index in zip(identities(x), domain.tolist(), strict=True):
            assert whose[identity] == streams.domains[index]
            drawn[identity] += 1
    assert drawn.keys() == whose.keys()  # each, though not all equally often
    assert max(count for identity, count in drawn.items() if whose[identity] == "anime") < 20


def test_streams_are_random_and_repeatable(shards: Path) -> None:
    domain = torch.zeros(40, dtype=torch.int64)

    def drawn(**options: int) -> list[bytes]:
        before = torch.get_rng_state()
        x, _ = ShardedFaces(shards, 32, CPU, **options).sample(domain, torch.Generator())
        assert torch.equal(torch.get_rng_state(), before)  # the run's own random numbers stay as they are
        return identities(x)

    first = drawn(seed=1, start=100)
    assert first == drawn(seed=1, start=100)
    assert first != drawn(seed=1, start=200)
    assert first != drawn(seed=2, start=100)
    assert len(set(first)) > 15


def test_processes_that_decode_one_shard_give_different_pictures(tmp_path: Path) -> None:
    """And the same ones in another run of that seed."""
    faces = tmp_path / "faces" / "photo"
    faces.mkdir(parents=True)
    for number in range(96):
        Image.new("RGB", (32, 32), (2 * number, 0, 0)).save(faces / f"{number}.png")
    assert write_shards(tmp_path / "faces", tmp_path / "shards") == 1
    (urls,) = find_shards(tmp_path / "shards").values()
    streams = [_Stream(urls, 32, 3, 1) for _ in range(2)]
    drawn, again = ([int(stream.next()[0, 0, 0]) for _ in range(3 * CHUNK)] for stream in streams)
    assert drawn == again
    first, second, third = (drawn[start : start + CHUNK] for start in range(0, 3 * CHUNK, CHUNK))
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert len(set(drawn)) > 1.5 * CHUNK


def test_each_process_reads_its_own_part(shards: Path) -> None:
    domain = torch.tensor([0, 1] * 4)
    parts = [
        ShardedFaces(shards, 32, CPU, rank=rank, world=2).sample(domain, torch.Generator())[0] for rank in range(2)
    ]
    for rank, part in enumerate(parts):
        own, other = part.chunk(2)[rank], part.chunk(2)[1 - rank]
        assert own.std() > 0.2
        assert other.unique().numel() == 1
    assert identities(parts[0].chunk(2)[0]) != identities(parts[1].chunk(2)[1])


def test_trains_from_another_machine(faces: Path, served: str, tmp_path: Path) -> None:
    whole = f"{served}/{{anime-{{000000..000002}},photo-000000}}.tar"
    command = ["train", "--preset", "tiny", "--data", whole, "--validation", faces, "--device", "cpu"]
    assert main([*map(str, command), "--run", str(tmp_path / "run")]) == 0
    state = torch.load(tmp_path / "run" / STATE_FILE)
    assert (state["iteration"], state["domains"]) == (4, ["anime", "photo"])
    # and goes on from a folder that has the same domains
    assert (
        main(["train", "--data", str(faces), "--iterations", "5", "--device", "cpu", "--run", str(tmp_path / "run")])
        == 0
    )


def test_told_to_stop_with_all_its_processes_a_run_saves_first(shards: Path, tmp_path: Path) -> None:
    """As torchrun, SLURM, systemd and timeout tell it: the processes that decode get the signal, too."""
    arguments = ["--preset", "tiny", "--iterations", "100000", "--save-minutes", "60", "--run", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "stargan", "train", "--data", str(shards), "--device", "cpu", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        figures = tmp_path / "metrics.jsonl"
        assert wait_until(lambda: figures.exists() and figures.read_bytes().count(b"\n") >= 3, 120)
        decoding = psutil.Process(process.pid).children()
        assert len(decoding) >= len(COUNTS)
        os.killpg(process.pid, signal.SIGTERM)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    finally:
        process.kill()
    assert torch.load(tmp_path / STATE_FILE)["iteration"] == figures.read_bytes().count(b"\n")
    assert wait_until(lambda: not any(one.is_running() for one in decoding), 20)


def test_shards_are_replaced_as_a_whole_and_nothing_else_is(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "dataset.tar").write_text("mine")
    with pytest.raises(DataError, match=r"dataset.tar is no shard of faces: shards need a folder of their own"):
        write_shards(faces, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["dataset.tar"]
    (tmp_path / "dataset.tar").unlink()
    for name in ("anime-000000.tar", "anime-000001.tar", "manga-000000.tar"):
        (tmp_path / name).write_text("an earlier one")
    assert write_shards(faces, tmp_path) == len(COUNTS)
    assert {file.name for file in tmp_path.iterdir()} == {f"{domain}-000000.tar" for domain in COUNTS}
    assert tarfile.is_tarfile(tmp_path / "anime-000000.tar")


def packed(shard: Path, files: dict[str, bytes]) -> Path:
    """As other programs name what they pack."""
    with tarfile.open(shard, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return shard


def test_pictures_with_dots_in_their_names(faces: Path, tmp_path: Path) -> None:
    files = {f"IMG.2020.{file.name}": file.read_bytes() for file in (faces / "anime").iterdir()}
    x, _ = ShardedFaces(packed(tmp_path / "anime-000000.tar", files), 32, CPU).sample(
        torch.zeros(8, dtype=torch.int64), torch.Generator()
    )
    assert {*identities(x)} <= known(faces).keys()


def test_shards_without_pictures_end_training(tmp_path: Path) -> None:
    streams = ShardedFaces(packed(tmp_path / "anime-000000.tar", {f"{n}.png": b"no" for n in range(40)}), 32, CPU)
    with pytest.raises(DataError, match="1000 samples in a row have no picture that can be read, such as"):
        streams.sample(torch.zeros(8, dtype=torch.int64), torch.Generator())


def test_a_place_for_no_shards_is_refused_before_the_work(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((90, 90), 80).save(photos / "a.png")
    for source, place, said in (
        (faces, "file", f"{tmp_path / 'file'} is a file: shards need a folder of their own.\n"),
        (photos, "shards", f"{photos} has no folders in it: shards are of domains, each a folder of photos.\n"),
    ):
        target = tmp_path / "cut"
        options = ["--crop", "0,0,1,1", "--size", "32", "--shards", str(tmp_path / place)]
        assert main(["prepare", str(source), str(target), *options]) == 2
        assert capsys.readouterr().err == said
        assert not target.exists()


def test_what_cannot_be_read_is_said(shards: Path, served: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "anime.tar").touch()
    for data, said in (
        (tmp_path, "A shard's name is its domain's and a number"),
        (f"{tmp_path}/anime-{{000000..000001}}.tar", f"There is no shard {tmp_path}/anime-000000.tar"),
        (f"{served}/nothing-{{000000..000001}}.tar", "The shards cannot be read: 10 shards in a row cannot be read"),
        (f"{shards}/anime-000000.tar", "The options name the domain 'male'"),
    ):
        more = ["--source-weights", "male", "2"] if "male" in said else []
        command = ["train", "--preset", "tiny", "--data", str(data), "--run", str(tmp_path / "run"), "--device", "cpu"]
        assert main([*command, *more]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(DataError, match=r"\(anime/x\) can be weighed in a folder"):
        ShardedFaces(shards, 32, CPU).weights({"anime/x": 2.0})


def python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_set_in_memory_takes_hardly_more_than_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    picture = Image.effect_noise((256, 256), 90).convert("RGB")
    picture.save(tmp_path / "faces" / "0.bmp")
    for index in range(1, 1200):
        (tmp_path / "faces" / f"{index}.bmp").symlink_to("0.bmp")
    program = f"""
import re, torch
from pathlib import Path
from stargan.training.data import Faces
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
few = Faces(Path({str(tmp_path)!r}), 16, torch.device("cpu"))  # what the first use of a decoder takes
before = peak()
faces = Faces(Path({str(tmp_path)!r}), 256, torch.device("cpu"))
print((peak() - before) / faces.pictures[0].nbytes)
"""
    assert 0.9 < float(python(program)) < 1.2


def test_training_needs_none_of_the_packages_of_pages_and_clusters() -> None:
    program = "import sys, stargan.training.run, stargan.commands.train; print(*sys.modules)"
    imported = {module.partition(".")[0] for module in python(program).split()}
    assert "torch" in imported
    assert not imported & {"gradio", "ray", "webdataset", "facenet_pytorch", "braceexpand", "pyarrow"}
