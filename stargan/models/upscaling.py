"""Drawings made larger: by Lanczos, or by a network for that, which STARGAN_UPSCALER names."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from stargan.models.checkpoint import read_header
from stargan.models.config import ModelError, brief
from stargan.models.registry import find_weight_file
from stargan.pictures.tensors import to_grayscale, to_pictures, to_tensor

# A picture → one that is larger by a whole factor.
Network = Callable[[Image.Image], Image.Image]
_loading = threading.Lock()


def enlarge(picture: Image.Image, side: int) -> tuple[Image.Image, str]:
    """A square picture with at least so many px a side, and a note of how it came to them, empty where it had them.

    Raises:
        ModelError: see :func:`upscaler`.
    """
    if picture.width >= side:
        return picture, ""
    source, way = picture.width, "by Lanczos"
    if network := upscaler():
        source_picture, picture = picture, network[1](picture)
        if source_picture.convert("L").convert("RGB").tobytes() == source_picture.tobytes():
            picture = to_grayscale(picture)  # black and white stays so
        way = f"by {network[0]}" if picture.width == side else f"by {network[0]} and Lanczos"
    return picture.resize((side, side), Image.Resampling.LANCZOS), f"enlarged from {source} px to {side} px {way}"


def upscaler() -> tuple[str, Network] | None:
    """The network that STARGAN_UPSCALER names, and its name: a safetensors file, or "user/repo[@revision]" on the Hub, of any
    architecture that the package spandrel knows. None where it names none. Loaded once.

    Raises:
        ModelError: it cannot be fetched or read, or makes no larger pictures; or spandrel is not installed.
    """
    name = os.environ.get("STARGAN_UPSCALER", "").strip()
    with _loading:
        return (Path(name).name, _load(name)) if name else None


@cache
def _load(name: str) -> Network:
    try:
        from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError
    except ModuleNotFoundError as error:
        raise ModelError("STARGAN_UPSCALER needs the package spandrel: pip install spandrel.") from error
    from safetensors import SafetensorError

    file = find_weight_file(name)
    # on a ZeroGPU Space, only functions that ask for it have the GPU: this is quick enough without
    device = "cuda" if torch.cuda.is_available() and "SPACES_ZERO_GPU" not in os.environ else "cpu"
    try:
        read_header(file)
        network = ModelLoader(torch.device(device)).load_from_file(file)
    except (UnsupportedModelError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise ModelError(f"The upscaler {brief(name)} cannot be read, or is of no known architecture.") from error
    if (
        not isinstance(network, ImageModelDescriptor)
        or network.scale < 2
        or (network.input_channels, network.output_channels) != (3, 3)
    ):
        raise ModelError(f"The upscaler {brief(name)} is a network, but none that makes RGB pictures larger.")
    network.eval()

    @torch.inference_mode()
    def enlarged(picture: Image.Image) -> Image.Image:
        x = (to_tensor([picture]).to(device) + 1) / 2  # such networks work on [0, 1]
        return to_pictures(network(x) * 2 - 1)[0]

    return enlarged
