"""Photos given by their address, fetched by gradio's own code from a server on this machine that stands for one elsewhere."""

from __future__ import annotations

import asyncio
import io
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import safehttpx
from asking import Visitor
from gradio import processing_utils
from PIL import Image
from serving import start

from stargan.errors import SENTENCES, PhotoError
from stargan.page import fetching
from stargan.pictures.io import MAX_BYTES

# In an app's process: every host is on this machine, and is taken for a public one.
HERE = """
import safehttpx

async def here(hostname):
    return "127.0.0.1"

safehttpx.async_validate_url = here
"""
SENT: list[str] = []


class _Elsewhere(BaseHTTPRequestHandler):
    photo = b""

    def do_GET(self) -> None:
        SENT.append(f"{self.headers['Host']}{self.path}")
        self.send_response(302 if self.path.startswith("/moved") else 200)
        self.send_header("Content-Type", "image/png")
        try:
            getattr(self, "_" + self.path.strip("/").partition(".")[0])()
        except OSError:  # whoever asked has hung up
            SENT.append(f"{self.path} cut")

    def _photo(self) -> None:
        self.send_header("Content-Length", str(len(self.photo)))
        self.end_headers()
        self.wfile.write(self.photo)

    def _moved(self) -> None:
        self.send_header("Location", f"http://elsewhere.test:{self.server.server_port}/photo.png")
        self.end_headers()

    def _moved_here(self) -> None:
        self.send_header("Location", "/photo.png")
        self.end_headers()

    def _announced(self) -> None:
        self.send_header("Content-Length", str(MAX_BYTES + 1))
        self.end_headers()

    def _endless(self) -> None:
        self.end_headers()
        while True:
            self.wfile.write(bytes(1_000_000))

    def _packed(self) -> None:
        """60 MB, in 60 kB."""
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        packing = zlib.compressobj(wbits=31)
        self.wfile.write(packing.compress(bytes(60_000_000)) + packing.flush())

    def _slow(self) -> None:
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def elsewhere(portrait: Image.Image) -> Iterator[str]:
    out = io.BytesIO()
    portrait.save(out, "PNG")
    _Elsewhere.photo = out.getvalue()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://photos.test:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], bytes]:
    async def here(_hostname: str) -> str:
        return "127.0.0.1"

    monkeypatch.setattr(safehttpx, "async_validate_url", here)
    monkeypatch.setattr(processing_utils, "async_transport", fetching.BoundedTransport())

    def fetched(url: str) -> bytes:
        return Path(asyncio.run(processing_utils.async_ssrf_protected_download(url, str(tmp_path)))).read_bytes()

    return fetched


def test_a_photo_is_fetched_also_from_where_it_has_moved_to(fetch: Callable[[str], bytes], elsewhere: str) -> None:
    for name, hosts in (
        ("photo.png", ["photos.test"]),
        ("moved.png", ["photos.test", "elsewhere.test"]),
        ("moved_here.png", ["photos.test", "photos.test"]),
    ):
        SENT.clear()
        assert fetch(elsewhere + name) == _Elsewhere.photo
        assert [sent.partition("/")[0] for sent in SENT] == hosts


@pytest.mark.parametrize("name", ["announced.png", "endless.png"])
def test_one_that_is_too_large_is_not_read_to_its_end(fetch: Callable[[str], bytes], elsewhere: str, name: str) -> None:
    for _ in range(fetching.AT_ONCE + 1):  # each gives its place up
        with pytest.raises(PhotoError, match="at most 50 MB"):
            fetch(elsewhere + name)
    assert fetch(elsewhere + "photo.png") == _Elsewhere.photo


def test_what_is_packed_stays_so(fetch: Callable[[str], bytes], elsewhere: str) -> None:
    assert len(fetch(elsewhere + "packed.png")) < 100_000


def test_a_host_that_sends_little_by_little_is_given_up(
    fetch: Callable[[str], bytes], elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 1.0)
    begin = time.monotonic()
    with fetching.one_request():
        for name in ("slow.png", "photo.png"):  # the next one has no time left
            with pytest.raises(PhotoError, match="not there within 1 seconds"):
                fetch(elsewhere + name)
    assert time.monotonic() - begin < 5
    assert fetch(elsewhere + "photo.png") == _Elsewhere.photo
    while "/slow.png cut" not in SENT and time.monotonic() - begin < 30:  # its host hears of it at its next byte
        time.sleep(0.05)
    assert "/slow.png cut" in SENT


def test_a_host_within_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, elsewhere: str) -> None:
    monkeypatch.setattr(processing_utils, "async_transport", fetching.BoundedTransport())
    SENT.clear()
    inside = elsewhere.replace("photos.test", "127.0.0.1")
    with pytest.raises(ValueError, match="failed validation"):
        asyncio.run(processing_utils.async_ssrf_protected_download(inside + "photo.png", str(tmp_path)))
    assert SENT == []


def test_the_app_fetches_so(elsewhere: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HERE)
    server = start(PYTHONPATH=str(tmp_path))
    try:
        visitor = Visitor(server.url)
        draw = next(function["id"] for function in visitor.functions if function["api_name"] == "latent_grid")

        def answer(name: str) -> dict:
            photo = {"path": elsewhere + name, "url": elsewhere + name, "meta": {"_type": "gradio.FileData"}}
            return visitor.ask(draw, [photo, "anime", 1, 1, 0.7, 1, False, "anime-128"])

        SENT.clear()
        for _ in range(2):  # it may be another one by now
            assert answer("photo.png")["success"]
        assert len(SENT) == 2
        for name in ("announced.png", "endless.png"):
            assert answer(name)["output"]["error"] == SENTENCES["photo_heavy"].format(size=50, limit=50), name
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()
