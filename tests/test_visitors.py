"""Many visitors: nginx before two pages before two replicas, all real; a replica is killed and a page stopped meanwhile."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import serving
import torch
from asking import file_at, wait_until
from PIL import Image

pytest.importorskip("ray", reason="ray is not installed: pip install -r requirements-cluster.txt")

import clusters  # before ray, for its settings
from ray.cluster_utils import Cluster

from stargan import load_translator
from stargan.cluster import serving as replication
from stargan.constants import DEFAULT_MODEL
from stargan.drawing import CACHE, Seeds, Source, Task
from stargan.errors import SENTENCES

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
ROOT = Path(__file__).resolve().parents[1]
# Visitors at once, and requests of each.
VISITORS, REQUESTS = int(os.environ.get("STARGAN_VISITORS", "32")), 2
SECONDS = 240


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node; a replica, and a second one where tasks wait."""
    with clusters.cluster(2, python_path=str(ROOT)) as started:
        deploy(started, "1:2")
        yield started


def deploy(cluster: Cluster, replicas: str) -> None:
    command = [
        sys.executable,
        "-m",
        "stargan",
        "serve",
        cluster.address,
        "--replicas",
        replicas,
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def pages(cluster: Cluster) -> Iterator[list[serving.Server]]:
    """Two pages that share a folder of uploads and results, and hold no model."""
    with tempfile.TemporaryDirectory(prefix="stargan-pages-") as shared:
        started = [serving.start("--serve", cluster.address, GRADIO_TEMP_DIR=shared) for _ in range(2)]
        for page in started:
            assert wait_until(lambda page=page: serving.answers(page.url + "healthz"), SECONDS), page.log.read_text()
        yield started
        for page in started:
            page.stop()


@pytest.fixture(scope="module")
def site(pages: list[serving.Server]) -> Iterator[str]:
    """The address of nginx, with README's settings."""
    with nginx([page.url for page in pages]) as url:
        yield url


@contextmanager
def nginx(pages: list[str]) -> Iterator[str]:
    settings = re.search(r"```nginx\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    port = free_port()
    settings = settings.replace("listen 80;", f"listen 127.0.0.1:{port};")
    for number, page in enumerate(pages, 1):
        assert f"10.0.0.{number}:7860" in settings
        settings = settings.replace(f"10.0.0.{number}:7860", httpx.URL(page).netloc.decode())
    with tempfile.TemporaryDirectory(prefix="stargan-nginx-") as folder:
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        whole += f"events {{}}\nhttp {{ access_log off; {paths}\n{settings}\n}}\n"
        if os.geteuid() == 0:
            whole = "user root;\n" + whole
        (Path(folder) / "nginx.conf").write_text(whole)
        process = subprocess.Popen([NGINX, "-p", folder, "-c", f"{folder}/nginx.conf", "-e", f"{folder}/error.log"])
        try:
            url = f"http://127.0.0.1:{port}/"
            assert wait_until(lambda: serving.answers(url), 30), (Path(folder) / "error.log").read_text()
            yield url
        finally:
            process.terminate()
            process.wait(20)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@dataclass
class Visitor:
    """Somebody with a cookie jar, a photo and seeds of their own, who asks again where a connection broke.

    Attributes:
        count: drawings of a request.
        drawn: by seed, the first drawing that came.
        refused: sentences that came instead; what the sentence asks for is done, and after a while the request is made again.
        broken: connections that broke, after which the request was made again.
        seconds: of each request that was answered.
    """

    url: str
    number: int
    photo: Path
    count: int = 1
    drawn: dict[int, Image.Image] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False)

    def seed(self, request: int) -> int:
        return 1000 * self.number + request

    def ask(self, request: int) -> None:
        seed, begin = self.seed(request), time.monotonic()
        while len(self.refused) + len(self.broken) < 60:
            try:
                kind, value = self._once(seed)
            except httpx.HTTPError as error:
                self.broken.append(repr(error))
                time.sleep(0.5)
                continue
            if kind == "complete":
                self.seconds.append(time.monotonic() - begin)
                answer = self.http.get("gradio_api/file=" + value[1][0]["image"]["path"]).raise_for_status()
                self.drawn[seed] = Image.open(io.BytesIO(answer.content)).convert("RGB")
                return
            self.refused.append(str(value["error"] if isinstance(value, dict) else value))
            time.sleep(1)

    def _once(self, seed: int) -> tuple[str, object]:
        with self.photo.open("rb") as file:
            upload = self.http.post("gradio_api/upload", files={"files": ("photo.png", file)}).raise_for_status()
        photo = {"path": upload.json()[0], "meta": {"_type": "gradio.FileData"}}
        body = {"photo": photo, "domain": "anime", "count": self.count, "seed": seed, "psi": 0.7}
        event = self.http.post("gradio_api/call/v2/latent_grid", json=body).raise_for_status().json()["event_id"]
        with self.http.stream("GET", f"gradio_api/call/latent_grid/{event}") as stream:
            stream.raise_for_status()
            kind = ""
            for line in stream.iter_lines():
                name, _, rest = line.partition(": ")
                if name == "event":
                    kind = rest
                elif name == "data" and kind in ("complete", "error"):
                    return kind, json.loads(rest)
        raise httpx.ReadError("the stream ended without an answer")


@pytest.fixture(scope="module")
def visitors(site: str, portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> list[Visitor]:
    folder = tmp_path_factory.mktemp("photos")
    face = portrait.crop((124, 0, 324, 200))
    found = []
    for number in range(1, VISITORS + 1):
        face.rotate(number - VISITORS / 2).save(folder / f"{number}.png")
        found.append(Visitor(site, number, folder / f"{number}.png"))
    return found


def replicas() -> list[psutil.Process]:
    return clusters.processes("ray::ServeReplica")


def health(page: serving.Server) -> int:
    return httpx.get(page.url + "healthz", timeout=60, trust_env=False).status_code


def test_a_replica_comes_where_tasks_wait(visitors: list[Visitor]) -> None:
    assert len(replicas()) == 1
    enough = threading.Event()

    def visit(visitor: Visitor) -> None:
        while not enough.is_set():
            visitor.ask(0)

    with ThreadPoolExecutor(VISITORS) as pool:
        visits = [pool.submit(visit, visitor) for visitor in visitors]
        came = wait_until(lambda: len(replicas()) == 2, SECONDS, 0.5)
        enough.set()
        for done in visits:
            done.result(SECONDS)
    assert came
    assert not [sentence for visitor in visitors for sentence in (*visitor.refused, *visitor.broken)]
    for visitor in visitors:
        visitor.seconds.clear()


def test_a_program_that_keeps_no_cookies_is_answered_by_the_page_that_it_asked(
    site: str, visitors: list[Visitor]
) -> None:
    """As README's curl, or JavaScript on another site: each request comes by itself."""
    photo = visitors[0].photo.read_bytes()
    (path,) = httpx.post(f"{site}gradio_api/upload", files={"files": ("photo.png", photo)}, trust_env=False).json()
    call = f"{site}gradio_api/call/detect_faces"
    for _ in range(8):
        asked = httpx.post(call, json={"data": [file_at(path)]}, trust_env=False)
        assert asked.status_code == 200, asked.text
        answer = httpx.get(f"{call}/{asked.json()['event_id']}", timeout=SECONDS, trust_env=False).text
        assert "event: complete" in answer, answer


def test_everybody_is_answered_though_a_replica_and_a_page_end(
    pages: list[serving.Server], visitors: list[Visitor]
) -> None:
    answered = threading.Semaphore(0)

    def visit(visitor: Visitor) -> None:
        for request in range(REQUESTS):
            visitor.ask(request)
            answered.release()

    with ThreadPoolExecutor(VISITORS) as pool:
        visits = [pool.submit(visit, visitor) for visitor in visitors]
        for _ in range(VISITORS):  # about a request each
            assert answered.acquire(timeout=SECONDS)
        assert len(replicas()) == 2
        replicas()[0].kill()
        assert health(pages[1]) == 200  # the other one draws
        pages[0].process.terminate()
        for done in visits:
            done.result(SECONDS)
    assert pages[0].process.wait(20) == 0
    assert pages[1].process.poll() is None

    # a cookie keeps each at one page, and both pages had visitors
    assert all(visitor.http.cookies.get("page") for visitor in visitors)
    asked = [page.log.read_text().count("request latent_grid") for page in pages]
    assert min(asked) > 0, asked

    # whoever is refused, as by the page that is stopping, is told why; none of the other is lost with the replica
    refused = {sentence for visitor in visitors for sentence in visitor.refused}
    assert refused <= {*SENTENCES.values()}
    broken = [error for visitor in visitors for error in visitor.broken]
    assert len(broken) <= 2, broken  # of who comes in the moment in which the page closes
    assert "request latent_grid stopping" not in pages[1].log.read_text()
    drawn = {seed: (visitor, picture) for visitor in visitors for seed, picture in visitor.drawn.items()}
    assert len(drawn) == VISITORS * REQUESTS
    threads = torch.get_num_threads()
    for visitor in visitors:
        Source.open(visitor.photo).faces  # noqa: B018 - found as a page finds them, and remembered
    torch.set_num_threads(1)  # as a replica has
    translator = load_translator("anime-128", "cpu")
    for seed, (visitor, picture) in drawn.items():  # nobody has another's face, or another seed's style
        (expected,) = translator.latent(visitor.photo, "anime", 1, seed, 0.7)
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 2, (visitor.number, seed)
    torch.set_num_threads(threads)
    taken = [second for visitor in visitors for second in visitor.seconds]
    print(f"{len(taken)} answers, p50 {statistics.median(taken):.2f} s; refused: {refused}; broken: {broken}")


def test_an_upload_outlives_the_page_that_took_it(pages: list[serving.Server], visitors: list[Visitor]) -> None:
    """What a page has begun to answer in its last moment, another page answers."""
    stopping = serving.start()
    photo, stopped, codes = visitors[0].photo.read_bytes(), threading.Event(), set()

    def upload(url: str) -> None:
        with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as http:
            while not stopped.is_set():
                codes.add(http.post("gradio_api/upload", files={"files": ("photo.png", photo)}).status_code)

    with nginx([stopping.url, pages[1].url]) as url, ThreadPoolExecutor(VISITORS) as pool:
        uploads = [pool.submit(upload, url) for _ in visitors]
        time.sleep(2)
        stopping.process.terminate()
        assert stopping.process.wait(20) == 0
        stopped.set()
        for done in uploads:
            done.result(SECONDS)
    assert codes == {200}


def test_whoever_waits_is_told_that_the_page_stops_though_nothing_draws(
    cluster: Cluster, visitors: list[Visitor]
) -> None:
    page = serving.start("--serve", cluster.address)
    assert wait_until(lambda: health(page) == 200, SECONDS)
    hanging = replicas()
    for process in hanging:
        process.suspend()
    try:
        with ThreadPoolExecutor(10) as pool:  # more than are let in at once
            asking = [Visitor(page.url, visitor.number, visitor.photo) for visitor in visitors[:10]]
            asked = [pool.submit(visitor._once, visitor.seed(0)) for visitor in asking]
            status = page.url + "gradio_api/queue/status"
            assert wait_until(lambda: httpx.get(status, trust_env=False).json()["queue_size"] >= 6, 60)
            time.sleep(1)  # until all of them listen to what becomes of it
            page.process.terminate()
            assert page.process.wait(20) == 0
            answers = [answer.result(20) for answer in asked]
    finally:
        for process in hanging:
            process.resume()
    assert [(kind, value["error"]) for kind, value in answers] == [("error", SENTENCES["stopping"])] * 10


def test_a_page_whose_replicas_are_gone_is_not_ready(cluster: Cluster, pages: list[serving.Server]) -> None:
    assert health(pages[1]) == 200
    code = f"import ray; from ray import serve; ray.init({cluster.address!r}); serve.delete('stargan')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=SECONDS)
    assert wait_until(lambda: health(pages[1]) == 503, SECONDS)


def test_a_replica_forgets_faces(monkeypatch: pytest.MonkeyPatch, portrait: Image.Image) -> None:
    monkeypatch.setattr(replication, "MAX_AGE", 0.5)
    monkeypatch.setattr(replication, "FORGET_EVERY", 0.1)
    painter = replication.Painter("cpu")
    face = portrait.resize((128, 128))
    painted, error, _ = painter(DEFAULT_MODEL, Task((face,), Seeds("anime", (1,), 0.7)))
    assert painted, error
    assert wait_until(lambda: not any(name[0] == "encoded" for name in [*CACHE._entries]), 30)


def test_a_page_without_replicas_does_not_start() -> None:
    """Whoever starts it is told why."""
    done = subprocess.run(
        [sys.executable, "app.py", "--serve", "127.0.0.1:1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "No Ray cluster answers at 127.0.0.1:1" in done.stderr
