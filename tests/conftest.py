"""Settings and fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

# before any import of gradio or huggingface_hub, which read them once
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_ANALYTICS_ENABLED="False")

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
FACES = Path(__file__).resolve().parents[2] / "shared" / "faces-192"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):  # noqa: ARG001
    report = yield
    strict = os.environ.get("STARGAN_NO_SKIPS") and item.path.stem in NEVER_SKIPPED
    if strict and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is not allowed here: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def portrait() -> Image.Image:
    """NASA's portrait of Eileen Collins (public domain), 512×512 RGB: one face."""
    from skimage import data

    return Image.fromarray(data.astronaut())
