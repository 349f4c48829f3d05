"""The one inference object: encode a picture once, decode it in many styles.

A style is a ``(style_dim,)`` vector wherever it came from, a seed or a reference; mixing, truncation, strength and walks are
arithmetic on such vectors. Every tab, request and command of a process shares one translator a model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from stargan import faces
from stargan.checkpoint import Model, load_model
from stargan.images import to_pictures, to_tensor
from stargan.registry import find_model

# Codes that the mean style is taken over: at 10,000 it moves by less than 1 % from draw to draw.
MEAN_STYLE_CODES = 10_000
# Decoded at a time; memory grows with it, speed hardly does.
BATCH = {"cpu": 8, "cuda": 32, "mps": 8}


class NoFaceError(ValueError):
    """No face was found in a photo whose model needs one."""


@dataclass(frozen=True)
class Encoded:
    """All that a source picture needs for any number of styles.

    Attributes:
        x: ``(1, 3, H, W)`` float in [-1, 1], the source itself.
        features, edges: what the generator's encoder returned, for one picture.
    """

    x: Tensor
    features: Tensor
    edges: dict[int, Tensor]


class Translator:
    """A model on a device, with the picture handling that belongs to it. Safe to share between threads.

    Args:
        model: what :func:`stargan.checkpoint.load_model` returned; taken over, not copied.
        device: None chooses CUDA, then Apple's MPS, then the CPU.
        precision: "exact" computes in fp32; "bf16" in bfloat16, with norms in fp32; "auto" takes bf16 where the device has it.
    """

    def __init__(self, model: Model, device: str | torch.device | None = None, precision: str = "auto") -> None:
        if precision not in ("auto", "exact", "bf16"):
            raise ValueError(f"precision must be auto, exact or bf16, not {precision!r}")
        self.model, self.config = model, model.config
        self.device = torch.device(device) if device else best_device()
        self.dtype = torch.float32 if precision == "exact" else torch.bfloat16
        if precision == "auto" and not has_bf16(self.device):
            self.dtype = torch.float32
        for network in model.networks().values():
            network.to(self.device, memory_format=torch.channels_last)
        self._lane = threading.Lock()  # one computation at a time: two would only fight for the same cores
        self._means: dict[str, Tensor] = {}

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def domains(self) -> tuple[str, ...]:
        return self.config.domains

    @property
    def image_size(self) -> int:
        """Side of sources and results, in px."""
        return self.config.architecture.image_size

    def domain_index(self, domain: str) -> int:
        """Raises ValueError, naming the domains there are, for another one."""
        if domain not in self.domains:
            raise ValueError(f"The model {self.name} has the domains {', '.join(self.domains)}, not {domain!r}.")
        return self.domains.index(domain)

    # pictures in

    def align(self, photo: Image.Image, face: faces.Face | None = None) -> faces.Aligned:
        """The photo's face (its biggest, unless ``face`` says which) in the model's framing.

        A model without framing takes the middle square of the photo.

        Raises:
            NoFaceError: the model needs a face and the photo shows none.
        """
        if self.config.framing is None:
            return faces.centre_crop(photo, self.image_size)
        if face is None:
            found = faces.find(photo)
            if not found:
                raise NoFaceError("No face was found in this picture.")
            face = found[0]
        return faces.align(photo, face.landmarks, self.config.framing, self.image_size)

    @torch.inference_mode()
    def encode(self, picture: Image.Image) -> Encoded:
        """An aligned picture (see :meth:`align`; another size is scaled) → what decoding it needs."""
        x = self._tensor([picture])
        with self._lane, self._autocast():
            masks = self.model.landmarks.masks(x) if self.model.landmarks is not None else None
            features, edges = self.model.generator.encoder(x, masks)
        return Encoded(x, features, edges)

    # styles

    @torch.inference_mode()
    def latent_styles(self, domain: str, seeds: Sequence[int], psi: float = 1.0) -> Tensor:
        """One style a seed: ``(len(seeds), style_dim)``. A seed gives the same style whichever others are asked for with it.

        Args:
            psi: truncation: 1 leaves a style as it is, 0 gives the domain's mean style.
        """
        codes = [torch.randn(self.config.architecture.latent_dim, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return self.styles_of_codes(torch.stack(codes), domain, psi)

    @torch.inference_mode()
    def styles_of_codes(self, codes: Tensor, domain: str, psi: float = 1.0) -> Tensor:
        """Latent codes ``(N, latent_dim)`` → styles ``(N, style_dim)``, truncated by ``psi``."""
        styles = self._map(codes, domain)
        return styles if psi == 1 else torch.lerp(self.mean_style(domain), styles, psi)

    def mean_style(self, domain: str) -> Tensor:
        """The mean style of a domain, ``(style_dim,)``: the same every time, computed once."""
        if domain not in self._means:
            codes = torch.randn(MEAN_STYLE_CODES, self.config.architecture.latent_dim, generator=torch.Generator().manual_seed(0))
            self._means[domain] = self._map(codes, domain).mean(dim=0)
        return self._means[domain]

    @torch.inference_mode()
    def reference_styles(self, pictures: Sequence[Image.Image], domain: str) -> Tensor:
        """The styles of aligned pictures of a domain: ``(len(pictures), style_dim)``."""
        x = self._tensor(pictures)
        index = torch.full((len(x),), self.domain_index(domain), device=self.device)
        with self._lane:
            return self.model.style_encoder(x, index)

    @torch.inference_mode()
    def own_style(self, encoded: Encoded) -> Tensor:
        """The style that a source already has, ``(style_dim,)``: of the domain whose style restores the source best."""
        index = torch.arange(len(self.domains), device=self.device)
        with self._lane:
            styles = self.model.style_encoder(encoded.x.expand(len(index), -1, -1, -1), index)
        error = torch.cat([(x - encoded.x).abs().mean(dim=(1, 2, 3)) for x in self._decode(encoded, styles)])
        return styles[error.argmin()]

    # pictures out

    def decode(self, encoded: Encoded, styles: Tensor) -> list[Image.Image]:
        """One picture a style: ``(N, style_dim)`` → N pictures."""
        return [picture for batch in self._decode(encoded, styles) for picture in to_pictures(batch)]

    @torch.inference_mode()
    def _decode(self, encoded: Encoded, styles: Tensor) -> Iterator[Tensor]:
        for part in styles.to(self.device).split(BATCH.get(self.device.type, 8)):
            count = len(part)
            features = encoded.features.expand(count, -1, -1, -1)
            edges = {side: edge.expand(count, -1, -1, -1) for side, edge in encoded.edges.items()}
            with self._lane, self._autocast():
                x = self.model.generator.decoder(features, part, edges)
            yield x.float()

    # the two ways of the paper, in one call each

    def latent(self, photo: Image.Image, domain: str, count: int = 10, seed: int = 0, psi: float = 0.7) -> list[Image.Image]:
        """The photo's face in ``count`` styles, of the seeds ``seed``, ``seed + 1``, …

        Raises:
            NoFaceError: see :meth:`align`.
            ValueError: the model has no such domain.
        """
        styles = self.latent_styles(domain, range(seed, seed + count), psi)
        return self.decode(self.encode(self.align(photo).picture), styles)

    def reference(
        self, photo: Image.Image, references: Sequence[Image.Image], domain: str, strength: float = 1.0
    ) -> list[Image.Image]:
        """The photo's face in the style of each reference, a picture of a face of ``domain``.

        Args:
            strength: 1 takes the reference's style, 0 the photo's own.

        Raises:
            NoFaceError: the photo shows no face. A reference without one, as most drawings are to the detector, is cropped by
                :func:`stargan.faces.propose_crop`.
        """
        aligned = [self.align_reference(reference).picture for reference in references]
        encoded = self.encode(self.align(photo).picture)
        styles = self.reference_styles(aligned, domain)
        if strength != 1:
            styles = torch.lerp(self.own_style(encoded), styles, strength)
        return self.decode(encoded, styles)

    def align_reference(self, reference: Image.Image) -> faces.Aligned:
        """As :meth:`align`, but where no face is found, the proposed crop."""
        try:
            return self.align(reference)
        except NoFaceError:
            return faces.crop(reference, faces.propose_crop(reference), self.image_size)

    def _map(self, codes: Tensor, domain: str) -> Tensor:
        index = torch.full((len(codes),), self.domain_index(domain), device=self.device)
        with torch.inference_mode():
            return self.model.mapping_network(codes.to(self.device), index)

    def _tensor(self, pictures: Sequence[Image.Image]) -> Tensor:
        size = (self.image_size, self.image_size)
        fitting = [p if p.size == size else p.resize(size, Image.Resampling.LANCZOS) for p in pictures]
        return to_tensor(fitting).to(self.device, memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def best_device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there. On a CPU without instructions for it, it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


_cache: dict[tuple[str, str, str], Translator] = {}
_cache_lock = threading.Lock()


def cached_translator(name: str, device: str | torch.device | None, precision: str) -> Translator:
    """See :func:`stargan.load_translator`."""
    key = (name, str(device or best_device()), precision)
    with _cache_lock:
        if key not in _cache:
            _cache[key] = Translator(load_model(find_model(name)), device, precision)
        return _cache[key]
