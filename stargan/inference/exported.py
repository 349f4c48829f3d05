"""Exported networks, run by ONNX Runtime and compared with the translator's pictures and styles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from stargan.inference.translator import Translator
from stargan.models.config import ModelError
from stargan.models.exporting import INPUTS, OUTPUTS, file_name
from stargan.networks import latent_code
from stargan.pictures.tensors import to_grayscale, to_pictures, to_tensor

# What fp32 may differ by, of pictures in [-1, 1] and of styles: the rounding of other kernels, 1/8 of a level of 255.
LIMIT = 1e-3
SEEDS = range(3)


def differences(folder: Path, translator: Translator) -> dict[str, dict[str, float]]:
    """The largest difference by precision and by what differs: pictures, styles of codes, styles of references.

    Three random pictures are drawn in three styles of each domain.

    Args:
        translator: of the same model, in fp32 on the CPU.

    Raises:
        ModelError: fp32 differs by more than :data:`LIMIT`, or fp16 gives what is no number.
    """
    exact = _differences(folder, translator, "fp32")
    for what, difference in exact.items():
        if not difference <= LIMIT:  # not a number is no success
            raise ModelError(f"Exported, the {what} of {translator.name} differ by {difference:.1e}, over {LIMIT:g}.")
    half = _differences(folder, translator, "fp16")
    for what, difference in half.items():
        if not math.isfinite(difference):
            raise ModelError(f"Exported as fp16, the {what} of {translator.name} hold values that fp16 cannot.")
    return {"fp32": exact, "fp16": half}


def _differences(folder: Path, translator: Translator, precision: str) -> dict[str, float]:
    import onnxruntime

    sessions = {
        name: onnxruntime.InferenceSession(folder / file_name(name, precision), providers=["CPUExecutionProvider"])
        for name in INPUTS
    }

    def run(name: str, *inputs: np.ndarray) -> np.ndarray:
        return sessions[name].run([OUTPUTS[name]], dict(zip(INPUTS[name], inputs, strict=True)))[0]

    size, count = translator.image_size, len(SEEDS)
    # as smooth as faces are; levels of 255, as everything that the translator takes
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures = to_pictures(F.interpolate(noise, size=(size, size), mode="bicubic"))
    x = to_tensor(pictures).numpy()
    codes = torch.stack([latent_code(seed, translator.config.architecture.latent_dim) for seed in SEEDS]).numpy()
    features = run("encoder", x)
    worst = dict.fromkeys(("pictures", "styles of codes", "styles of references"), 0.0)

    def compare(what: str, theirs: np.ndarray, ours: torch.Tensor) -> None:
        worst[what] = float(np.maximum(worst[what], np.abs(theirs - ours.cpu().numpy()).max()))  # passes NaN on

    for index, domain in enumerate(translator.domains):
        indices = np.full(count, index, np.int64)
        styles = translator.latent_styles(domain, SEEDS)
        compare("styles of codes", run("mapping_network", codes, indices), styles)
        gray = domain in translator.config.grayscale_domains
        seen = to_tensor([to_grayscale(picture) for picture in pictures]).numpy() if gray else x
        references = translator.reference_styles(pictures, domain)
        compare("styles of references", run("style_encoder", seen, indices), references)
        for number, picture in enumerate(pictures):
            drawn = torch.cat(list(translator._decode(translator.encode(picture), styles)))
            repeated = features[[number] * count]
            compare("pictures", run("decoder", repeated, styles.cpu().numpy()), drawn)
    return worst
