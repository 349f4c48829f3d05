"""What both benchmarks measure with: seconds, peak memory, the machine by name."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds."""
    synchronise = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else (lambda: None)
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def peak_memory() -> float:
    """The most bytes of memory that this process has had."""
    try:
        # ru_maxrss also counts what the parent process had when it started this one
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores, torch {torch.__version__}"
