"""What keeps memory from growing while many photos are drawn."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from serving import ROOT

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")

PROGRAM = """
import psutil, torch
from stargan.allocator import bound_kernels

if {bounded}:
    bound_kernels()
convolution = torch.nn.Conv2d(48, 64, 3)
with torch.inference_mode():
    convolution(torch.zeros(1, 48, 8, 8))
    before = psutil.Process().memory_info().rss
    for index in range(600):
        convolution(torch.zeros(1 + index % 30, 48, 8 + index // 30, 8))
print(psutil.Process().memory_info().rss - before)
"""


def growth(bounded: bool) -> int:
    """Bytes that a process of two threads grows by over 600 shapes."""
    command, threads = [sys.executable, "-c", PROGRAM.format(bounded=bounded)], {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | threads, capture_output=True, check=True, timeout=120)
    return int(done.stdout)


def test_photos_of_ever_new_shapes_do_not_fill_the_memory_with_kernels() -> None:
    assert growth(bounded=True) < 0.7 * growth(bounded=False)
