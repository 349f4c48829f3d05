"""The real app, as its users start it: ``python app.py`` in a process of its own, on a free port."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen
    log: Path
    uploads: Path

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()


def start(*arguments: str, source: Path = ROOT, **environment: str) -> Server:
    """Starts the app and waits until it answers; raises with its log if it does not. The caller stops it.

    Args:
        source: the folder of the app's code; another than this repository's is not written to, see :func:`unprivileged`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="stargan-app-"))
    log, uploads = folder / "log.txt", folder / "uploads"
    # uncompiled: the tests compare pictures bit by bit, and compiled code rounds otherwise
    settings = {"HF_HUB_OFFLINE": "1", "STARGAN_COMPILE": "0", "GRADIO_TEMP_DIR": str(uploads), **environment}
    python = [sys.executable] if source == ROOT else unprivileged()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*python, "app.py", "--port", str(port), *arguments],
            cwd=source,
            env=os.environ | settings,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    server = Server(f"http://127.0.0.1:{port}/", process, log, uploads)
    atexit.register(server.stop)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if answers(server.url):
            return server
        time.sleep(0.2)
    server.stop()
    raise RuntimeError(f"The app did not start:\n{log.read_text(errors='replace')}")


def unprivileged() -> list[str]:
    """Python to which a read-only folder is one, even for root."""
    return ["setpriv", "--bounding-set=-dac_override", sys.executable] if os.geteuid() == 0 else [sys.executable]


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


@cache
def shared_app() -> Server:
    """One app for all tests that leave it as it was, with a further, untrained model on its menu."""
    return start(STARGAN_MODELS=str(untrained_model()))


@cache
def untrained_model() -> Path:
    """A folder with a small model of random weights and other domains."""
    from stargan.models.checkpoint import Model, save_model
    from stargan.models.config import Architecture, ModelConfig

    folder = Path(tempfile.mkdtemp(prefix="stargan-model-")) / "untrained"
    architecture = Architecture(image_size=32, style_dim=8, latent_dim=4, base_channels=8, max_channels=16)
    save_model(Model.build(ModelConfig("untrained", ("cat", "dog"), architecture)), folder)
    return folder
