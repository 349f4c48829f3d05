"""Real Ray clusters on this machine."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from stargan.cluster import OBJECT_STORE  # first, as its settings come before ray

from ray.cluster_utils import Cluster  # isort: skip

T = TypeVar("T")
NODE: dict[str, Any] = {"object_store_memory": OBJECT_STORE // 3, "include_dashboard": False}
# Of starting a node, for which Ray waits 30 seconds: not enough where the cores have other work.
TRIES = 4


@contextmanager
def cluster(*cores: int, python_path: str) -> Iterator[Cluster]:
    """A cluster of nodes with so many cores each, whose processes find what is on ``python_path``.

    One at a time on this machine: two that start side by side take longer than Ray waits for them.
    """
    with (
        (Path(tempfile.gettempdir()) / "stargan-cluster.lock").open("w") as lock,
        pytest.MonkeyPatch.context() as patch,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("PYTHONPATH", os.pathsep.join([python_path, os.environ.get("PYTHONPATH", "")]))
        head, *others = cores
        made = _tried(lambda: Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": head}))
        try:
            for count in others:
                add_node(made, count)
            yield made
        finally:
            made.shutdown()


def add_node(cluster: Cluster, cores: int) -> None:
    _tried(lambda: cluster.add_node(**NODE, num_cpus=cores))


def _tried(start: Callable[[], T]) -> T:
    for _ in range(TRIES - 1):
        with suppress(Exception):  # Ray has none of its own
            return start()
    return start()


def processes(title: str) -> list[psutil.Process]:
    """Those of the clusters that this process started, whose titles begin so."""
    return [p for p in psutil.Process().children(recursive=True) if _title(p).startswith(title)]


def _title(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline()[:1])
    except psutil.Error:  # it ended
        return ""
