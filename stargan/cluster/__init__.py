"""Work on more than one machine, by Ray; a single one needs none of it (requirements-cluster.txt)."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

# before ray is imported, which reads them once: it would report home, and warn of its next version
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Workers of a cluster that is started here get what this process would get: Ray's 15 gave them a tenth of a busy machine.
os.environ.setdefault("RAY_worker_niceness", "0")

import ray
from ray.exceptions import RayError

# Of a cluster that is started here, for as long as it is needed: what passes between its processes are rows and small pictures.
OBJECT_STORE = 300_000_000
# Seconds in which a cluster must answer.
PATIENCE = 10
# How often it is tried to start one.
STARTS = 4
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


class ClusterError(ValueError):
    """A cluster that cannot be reached, or could not do its work, in a sentence."""


def connect(address: str) -> None:
    """Makes this process a driver of the Ray cluster at ``address``; "local" starts one on this machine.

    Raises:
        ClusterError: there is none.
    """
    try:
        if address == "local":
            _start()
            return
        if at := re.fullmatch(r"(?:ray://)?([^/]+):(\d+)", address):  # Ray itself would ask for minutes
            socket.create_connection((at[1].strip("[]"), int(at[2])), PATIENCE).close()
        ray.init(address, **QUIET)
    except Exception as error:  # Ray has no class of its own for a node that does not start
        raise ClusterError(f"No Ray cluster answers at {address}: {error}") from error


def _start() -> None:
    """Starts a cluster of this machine's cores. Ray waits 30 seconds for it, which is not enough where the cores have other work."""
    for _ in range(STARTS - 1):
        with suppress(Exception):
            ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, **QUIET)
            return
        ray.shutdown()
    ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, **QUIET)


@contextmanager
def connected(address: str) -> Iterator[None]:
    """While this lasts, the process is a driver: see :func:`connect`.

    Raises:
        ClusterError: there is no cluster, or its work failed.
    """
    connect(address)
    try:
        yield
    except RayError as error:
        raise ClusterError(f"The cluster could not go on: {reason(error)}") from error
    finally:
        ray.shutdown()


def reason(error: Exception) -> str:
    """What went wrong on the other machine: the last line of its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
