"""FID, KID and LPIPS, by the networks that the papers take; their weights are downloads, or files that are at hand."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stargan.evaluation.metrics import as_floats
from stargan.models.registry import find_file
from stargan.training.data import DataError

if TYPE_CHECKING:
    from torchmetrics import Metric

log = logging.getLogger(__name__)
# Pictures that pass through a backbone at a time.
BATCH = 32
# As torch-fidelity and torchvision publish them.
INCEPTION, ALEXNET = "weights-inception-2015-12-05-6726825d.pth", "alexnet-owt-7be5be79.pth"


class Backbones:
    """FID and KID on Inception's features, LPIPS on AlexNet's (torchmetrics); each is left out where its weights are not to be had.

    Args:
        inception: where :data:`INCEPTION` is: the file itself, a folder, or ``user/repo[@revision]`` on the Hub; None downloads it from
            its authors on first use.
        lpips: where :data:`ALEXNET` is, likewise.

    Attributes:
        missing: what cannot be measured, and why.

    Raises:
        DataError: a file that was named cannot be read, or holds more than weights.
        stargan.models.config.ModelError: it does not exist, or cannot be fetched.
    """

    def __init__(
        self, device: torch.device, inception: Path | str | None = None, lpips: Path | str | None = None
    ) -> None:
        self.device = device
        self.inception: torch.nn.Module | None = None
        self.lpips: Metric | None = None
        self.missing: dict[str, str] = {}
        files = _find(inception, INCEPTION), _find(lpips, ALEXNET)
        try:
            with _short_timeout():
                self.inception = _inception(files[0]).to(device).eval()
        except Exception as error:
            self.missing["FID and KID"] = _why(error, "--inception-weights")
        try:
            with _short_timeout(), _torchvision_file(files[1]):
                from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

                self.lpips = LearnedPerceptualImagePatchSimilarity("alex", reduction="none").to(device)
        except Exception as error:
            self.missing["LPIPS"] = _why(error, "--lpips-weights")
        for name, reason in self.missing.items():
            log.warning("%s left out: %s.", name, reason)

    def features(self, x: Tensor) -> Tensor | None:
        """``(N, 3, H, W)`` in [-1, 1] or uint8 → ``(N, 2048)``; None without Inception."""
        if self.inception is None:
            return None
        with torch.inference_mode():
            batches = (((as_floats(b) + 1) * 127.5).round().byte().to(self.device) for b in x.split(BATCH))
            return torch.cat([self.inception(batch) for batch in batches])

    def distances(self, real: Tensor | None, fake: Tensor | None) -> dict[str, float]:
        """FID and KID (mean of 100 subsets, × 1000) between two sets of features."""
        if real is None or fake is None:
            return {}
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        subset = min(1000, len(real), len(fake))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*will save all extracted features in buffer")
            metrics = {
                "fid": FrechetInceptionDistance(_Given(real.shape[1])),
                "kid": KernelInceptionDistance(_Given(real.shape[1]), subset_size=subset),
            }
        for metric in metrics.values():
            metric.update(real.cpu(), real=True)
            metric.update(fake.cpu(), real=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # which subsets KID takes
            return {"fid": metrics["fid"].compute().item(), "kid": 1000 * metrics["kid"].compute()[0].item()}

    def diversity(self, outputs: Tensor) -> dict[str, float]:
        """LPIPS over all pairs of one source's outputs, mean over the sources; ``outputs`` as for :func:`spread`."""
        if self.lpips is None:
            return {}
        total = 0.0
        pairs = list(itertools.combinations(range(outputs.shape[1]), 2))
        with torch.inference_mode():
            for (a, b), part in itertools.product(pairs, range(0, len(outputs), BATCH)):
                first, second = (outputs[part : part + BATCH, i].to(self.device) for i in (a, b))
                total += self.lpips(first, second).sum().item()
                self.lpips.reset()  # it would keep every value, and go through them all at the next
        return {"lpips": total / len(pairs) / len(outputs)}


class _Given(torch.nn.Module):
    """The feature extractor of metrics that are fed with features."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features.view(-1, self.num_features)


def _find(place: Path | str | None, name: str) -> Path | None:
    if place is None:
        return None
    file = find_file(place, name)
    try:  # the libraries would run what a pickle wants to be run
        torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"The weights file {file} cannot be read, or holds more than weights.") from error
    return file


def _inception(file: Path | None) -> torch.nn.Module:
    from torchmetrics.image.fid import NoTrainInceptionV3

    return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(file) if file else None)


@contextlib.contextmanager
def _torchvision_file(file: Path | None) -> Iterator[None]:
    """While this lasts, torchvision finds ``file`` where it would download AlexNet to."""
    if file is None:
        yield
        return
    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoints" / ALEXNET
        place.parent.mkdir()
        os.symlink(file.resolve(), place)
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)


@contextlib.contextmanager
def _short_timeout(seconds: float = 20) -> Iterator[None]:
    """A download that gets no answer gives up."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _why(error: Exception, option: str) -> str:
    if isinstance(error, ImportError):
        return f"{error} (install requirements-dev.txt)"
    if isinstance(error, OSError):
        return (
            f"the weights cannot be downloaded here ({str(error) or type(error).__name__}); give the file with {option}"
        )
    return f"{' '.join(str(error).split()) or type(error).__name__}; give the file with {option}"
