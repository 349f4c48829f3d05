"""Faces drawn as anime, with StarGAN v2.

from stargan import load_translator

translator = load_translator()
drawings = translator.latent(photo, domain="anime", count=10, seed=0, psi=0.7)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from stargan.inference.translator import Translator

__version__ = "0.1.0"
__all__ = ["Translator", "load_translator"]


def load_translator(
    name: str | None = None, device: str | torch.device | None = None, precision: str = "auto"
) -> Translator:
    """A model, ready to translate; loaded once a process and shared.

    Args:
        name: None for the default model; or a registered name, a model folder, or "user/repo[@revision]" on the Hub.
        device: None chooses CUDA, then Apple's MPS, then the CPU.
        precision: "auto", "exact" (fp32) or "bf16".

    Raises:
        stargan.models.config.ModelError: the model cannot be found, fetched or read.
    """
    from stargan.inference.translator import cached_translator
    from stargan.models.registry import DEFAULT_MODEL

    return cached_translator(name or DEFAULT_MODEL, device, precision)


def __getattr__(name: str) -> object:
    # torch takes seconds to import: `import stargan` alone does not
    if name == "Translator":
        from stargan.inference.translator import Translator

        return Translator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
