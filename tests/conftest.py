"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# before any import of gradio or huggingface_hub, which read them once
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="False")
# side by side (make test), each process takes its share of the cores: OpenMP's threads wait for each other in a busy loop
if processes := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(processes))))

import pytest
from PIL import Image

# Tests that must never be skipped where STARGAN_NO_SKIPS is set: there, everything they need is installed.
NEVER_SKIPPED = (
    "test_api",
    "test_browser",
    "test_results",
    "test_quick",
    "test_readme",
    "test_mcp",
    "test_space",
    "test_export",
    "test_cluster",
    "test_shards",
    "test_visitors",
    "test_looks",
)
# Begun first where files run side by side, the longest before the others: else one of them is still at work when all is done.
LONG = (
    "test_browser",
    "test_parity",
    "test_training",
    "test_visitors",
    "test_hostile",
    "test_serving",
    "test_quick",
    "test_export",
    "test_results",
    "test_cluster",
    "test_evaluate",
    "test_translator",
    "test_elastic",
    "test_app",
    "test_bench",
    "test_api",
    "test_shards",
    "test_looks",
    "test_importing",
    "test_video",
)
FACES = Path(__file__).resolve().parents[2] / "shared" / "faces-192"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):  # noqa: ARG001
    report = yield
    strict = os.environ.get("STARGAN_NO_SKIPS") and item.path.stem in NEVER_SKIPPED
    if strict and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is not allowed here: {report.longrepr}"
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def portrait() -> Image.Image:
    """NASA's portrait of Eileen Collins (public domain), 512×512 RGB: one face."""
    from skimage import data

    return Image.fromarray(data.astronaut())
