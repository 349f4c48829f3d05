"""Training on two nodes, as two launchers of torchrun with a c10d rendezvous: a killed worker, and what becomes of the run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from stargan.training.state import STATE_FILE

ROOT = Path(__file__).resolve().parents[1]
ITERATIONS = 24
SECONDS = 240


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The domains anime and photo: smooth noise."""
    root = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for domain in ("anime", "photo"):
        (root / domain).mkdir()
        for index in range(9):
            noise = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            noise.resize((40, 40), Image.Resampling.BICUBIC).save(root / domain / f"{index}.png")
    return root


def train(data: Path, run: Path) -> list[str]:
    options = ["--data", str(data), "--run-folder", str(run), "--preset", "tiny", "--iterations", str(ITERATIONS)]
    options += ["--diff-augment", "color", "cutout", "--snapshot-every", "1000", "--save-minutes", "0"]
    return ["-m", "stargan", "train", *options]


@contextmanager
def launcher(log: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """A torchrun; with its workers, it is gone at the end."""
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    # else the restarted workers may meet through what the killed ones left in the launchers' store (pytorch issue 135712)
    settings["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *arguments],
            env=os.environ | settings,
            cwd=ROOT,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            for child in (*psutil.Process(process.pid).children(recursive=True), process):
                child.kill()
            process.wait()


def figures(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def worker_of(process: subprocess.Popen) -> psutil.Process:
    (worker,) = (child for child in psutil.Process(process.pid).children() if "train" in child.cmdline())
    return worker


@pytest.fixture(scope="module")
def calm(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes to which nothing happens."""
    folder = tmp_path_factory.mktemp("calm")
    with launcher(folder / "log.txt", "--standalone", "--nproc-per-node", "2", *train(data, folder / "run")) as one:
        assert one.wait(SECONDS) == 0, (folder / "log.txt").read_text()
    return folder / "run"


@pytest.mark.parametrize("common_disk", [True, False])
def test_a_killed_worker_restarts_from_the_last_state(
    data: Path, calm: Path, tmp_path: Path, common_disk: bool
) -> None:
    """The same weights, bit for bit, as a run to which nothing happened."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
    nodes += ["--rdzv-id", "faces", "--local-addr", "127.0.0.1", "--max-restarts", "3"]
    runs = [tmp_path / "run"] * 2 if common_disk else [tmp_path / "run-a", tmp_path / "run-b"]
    logs = [tmp_path / f"node-{n}.txt" for n in range(2)]
    with ExitStack() as stack:
        there = [
            stack.enter_context(launcher(log, *nodes, *train(data, run))) for log, run in zip(logs, runs, strict=True)
        ]
        deadline = time.monotonic() + SECONDS

        def told() -> str:
            return "\n".join(log.read_text(errors="replace") for log in logs)

        while max(len(figures(run)) for run in runs) < 5:
            assert all(node.poll() is None for node in there), told()
            assert time.monotonic() < deadline, told()
            time.sleep(0.02)
        # of the node that saves, where the disks are apart: rank 0 may go to the other
        saving = 0 if figures(runs[0]) else 1
        killed = worker_of(there[1 if common_disk else saving])
        before = max(len(figures(run)) for run in runs)
        killed.send_signal(signal.SIGKILL)
        for node in there:
            assert node.wait(max(1, deadline - time.monotonic())) == 0, told()
    assert before < ITERATIONS  # or it came too late
    assert "exitcode: -9" in told()

    last = max(runs, key=lambda run: torch.load(run / STATE_FILE)["iteration"] if (run / STATE_FILE).exists() else -1)
    state, undisturbed = torch.load(last / STATE_FILE), torch.load(calm / STATE_FILE)
    assert state["iteration"] == undisturbed["iteration"] == ITERATIONS
    for name, network in undisturbed["networks"].items():
        assert all(torch.equal(network[key], state["networks"][name][key]) for key in network), name
    for name, network in undisturbed["average"].items():
        assert all(torch.equal(network[key], state["average"][name][key]) for key in network), name
    if common_disk:  # the losses go on as if nothing had been
        assert [{**line, "seconds": 0} for line in figures(last)] == [{**line, "seconds": 0} for line in figures(calm)]
