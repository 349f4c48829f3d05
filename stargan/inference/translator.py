"""The one inference object: encode a picture once, decode it in many styles.

A style is a ``(style_dim,)`` vector wherever it came from, a seed or a reference; mixing, truncation, strength and walks are
arithmetic on such vectors. Every tab, request and command of a process shares one translator a model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from stargan.inference import compiling
from stargan.inference.folding import FoldedDecoder, FoldedEncoder, fold_style_encoder, prepare
from stargan.models.checkpoint import Model, load_model
from stargan.models.registry import find_model
from stargan.pictures import faces
from stargan.pictures.tensors import to_grayscale, to_pictures, to_tensor

# Codes that the mean style is taken over: at 10,000 it moves by less than 1 % from draw to draw.
MEAN_STYLE_CODES = 10_000
# Styles decoded at a time, at most: fewer where the pictures are big, see Translator._limit. On a CPU, one: its bf16 kernels
# round by the size of the batch, and a seed's picture must not depend on what else is drawn; one picture fills all cores.
BATCH = {"cpu": 1, "cuda": 32, "mps": 8}
# References encoded at a time.
_REFERENCES = 8
# So long must a CPU have had nothing to draw before it compiles: a compiler makes requests take several times as long.
QUIET_SECONDS = 15.0

log = logging.getLogger(__name__)


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
        model: what :func:`stargan.models.checkpoint.load_model` returned; taken over, not copied.
        device: None chooses CUDA, then Apple's MPS, then the CPU.
        precision: "exact" computes in fp32; "bf16" in bfloat16, with norms in fp32; "auto" takes bf16 where the device has it.
    """

    def __init__(self, model: Model, device: str | torch.device | None = None, precision: str = "auto") -> None:
        if precision not in ("auto", "exact", "bf16"):
            raise ValueError(f"precision must be auto, exact or bf16, not {precision!r}")
        self.config = model.config
        self.device = torch.device(device) if device else best_device()
        self.dtype = torch.float32 if precision == "exact" else torch.bfloat16
        if precision == "auto" and not has_bf16(self.device):
            self.dtype = torch.float32
        if precision == "exact" and self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False  # on by default, and only 10 bits exact
        self._encoder = prepare(FoldedEncoder(model.generator), self.device, self.dtype)
        self._eager_decoder = prepare(FoldedDecoder(model.generator), self.device, self.dtype)
        self._decoder: FoldedDecoder | compiling.CompiledDecoder = self._eager_decoder
        # What a style is made by stays in fp32: it costs little, and every picture in that style would carry the error.
        style_encoder = fold_style_encoder(model.style_encoder, self.image_size)
        self._style_encoder = prepare(style_encoder, self.device, torch.float32)
        self._mapping_network = model.mapping_network.to(self.device)
        self._landmarks = None if model.landmarks is None else model.landmarks.to(self.device)
        self._lane = Lane()
        self._compilation: threading.Thread | None = None
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
        with self._lane:
            masks = None if self._landmarks is None else self._landmarks.masks(x)
            features, edges = self._encoder(x.to(self.dtype), masks)
        return Encoded(x, features, edges)

    # styles

    @torch.inference_mode()
    def latent_styles(self, domain: str, seeds: Sequence[int], psi: float = 1.0) -> Tensor:
        """One style a seed: ``(len(seeds), style_dim)``. A seed gives the same style whichever others are asked for with it.

        Args:
            psi: truncation: 1 leaves a style as it is, 0 gives the domain's mean style.
        """
        codes = [
            torch.randn(self.config.architecture.latent_dim, generator=torch.Generator().manual_seed(s)) for s in seeds
        ]
        return self.styles_of_codes(torch.stack(codes), domain, psi)

    @torch.inference_mode()
    def styles_of_codes(self, codes: Tensor, domain: str, psi: float = 1.0) -> Tensor:
        """Latent codes ``(N, latent_dim)`` → styles ``(N, style_dim)``, truncated by ``psi``."""
        # one by one: a matrix product rounds by the number of its rows, and a style must not depend on its neighbours
        styles = torch.cat([self._map(code[None], domain) for code in codes])
        return styles if psi == 1 else torch.lerp(self.mean_style(domain), styles, psi)

    def mean_style(self, domain: str) -> Tensor:
        """The mean style of a domain, ``(style_dim,)``: the same every time, computed once."""
        if domain not in self._means:
            codes = torch.randn(
                MEAN_STYLE_CODES, self.config.architecture.latent_dim, generator=torch.Generator().manual_seed(0)
            )
            self._means[domain] = self._map(codes, domain).mean(dim=0)
        return self._means[domain]

    @torch.inference_mode()
    def reference_styles(self, pictures: Sequence[Image.Image], domain: str) -> Tensor:
        """The styles of aligned pictures of a domain: ``(len(pictures), style_dim)``."""
        index = self.domain_index(domain)
        if domain in self.config.grayscale_domains:
            pictures = [to_grayscale(picture) for picture in pictures]
        styles = []
        for first in range(0, len(pictures), _REFERENCES):
            x = self._tensor(pictures[first : first + _REFERENCES])
            with self._lane:
                styles.append(self._style_encoder(x, torch.full((len(x),), index, device=self.device)))
        return torch.cat(styles)

    @torch.inference_mode()
    def own_style(self, encoded: Encoded) -> Tensor:
        """The style that a source already has, ``(style_dim,)``: of the domain whose style restores the source best."""
        index = torch.arange(len(self.domains), device=self.device)
        with self._lane:
            styles = self._style_encoder(encoded.x.expand(len(index), -1, -1, -1), index)
        error = torch.cat([(x - encoded.x).abs().mean(dim=(1, 2, 3)) for x in self._decode(encoded, styles)])
        return styles[error.argmin()]

    # pictures out

    def decode(self, encoded: Encoded, styles: Tensor, domain: str | None = None) -> list[Image.Image]:
        """One picture a style: ``(N, style_dim)`` → N pictures.

        Args:
            domain: that the styles are of; needed for models with monochrome domains alone.
        """
        drawn = [picture for batch in self._decode(encoded, styles) for picture in to_pictures(batch)]
        return [to_grayscale(picture) for picture in drawn] if domain in self.config.grayscale_domains else drawn

    def compile_in_background(self) -> threading.Thread | None:
        """Compiles the decoder, a CPU in a quiet time, and uses it once it is ready; until then pictures come as before.

        Returns:
            The thread that compiles, the same at every call; None where nothing can be compiled.
        """
        with self._lane:
            if self._compilation is None and (obstacle := compiling.obstacle(self.device)):
                log.info("%s stays uncompiled: %s.", self.name, obstacle)
            elif self._compilation is None:
                self._compilation = compiling.in_background(self._compile_in_quiet, f"Compiling {self.name}")
            return self._compilation

    def _compile_in_quiet(self) -> None:
        if self.device.type == "cpu":
            while (left := self._lane.left + QUIET_SECONDS - time.monotonic()) > 0:
                time.sleep(left)
        self.compile()

    @torch.inference_mode()
    def compile(self, *, graphs: bool = True) -> None:
        """Compiles the decoder here and now, and uses it from then on.

        Args:
            graphs: whether to look for the fastest kernels and, on CUDA, to record CUDA graphs.
        """
        compiling.keep_cache()
        compiled = compiling.CompiledDecoder(self._eager_decoder, self._lane, graphs=graphs)
        encoded = self.encode(Image.new("RGB", (self.image_size, self.image_size)))
        for count in (1 << power for power in range(self._limit().bit_length())):  # see batch_sizes
            style = torch.zeros(count, self.config.architecture.style_dim, device=self.device)
            compiled.warm(encoded.features, style, encoded.edges)
            self._decoder = compiled
        log.info("%s is compiled.", self.name)

    @torch.inference_mode()
    def _decode(self, encoded: Encoded, styles: Tensor) -> Iterator[Tensor]:
        for part in styles.to(self.device, torch.float32).split(batch_sizes(len(styles), self._limit())):
            with self._lane:
                try:
                    x = self._decoder(encoded.features, part, encoded.edges)
                except Exception:
                    if self._decoder is self._eager_decoder:
                        raise
                    log.warning("The compiled decoder failed and is given up.", exc_info=True)
                    self._decoder = self._eager_decoder
                    x = self._decoder(encoded.features, part, encoded.edges)
            yield x.float()

    def _limit(self) -> int:
        """How many styles to decode at once."""
        limit = BATCH.get(self.device.type, 1)
        if self.device.type == "cuda":
            values = self._eager_decoder.to_rgb.weight.shape[1] * self.image_size**2
            # Eight or so copies of the widest layer are alive at the same time, some in fp32; half of the memory is enough.
            free, _ = torch.cuda.mem_get_info(self.device)
            limit = min(limit, free // 2 // (8 * 4 * values))
        return max(1, limit)

    # the two ways of the paper, in one call each

    def latent(
        self, photo: Image.Image, domain: str, count: int = 10, seed: int = 0, psi: float = 0.7
    ) -> list[Image.Image]:
        """The photo's face in ``count`` styles, of the seeds ``seed``, ``seed + 1``, …

        Raises:
            NoFaceError: see :meth:`align`.
            ValueError: the model has no such domain.
        """
        styles = self.latent_styles(domain, range(seed, seed + count), psi)
        return self.decode(self.encode(self.align(photo).picture), styles, domain)

    def reference(
        self, photo: Image.Image, references: Sequence[Image.Image], domain: str, strength: float = 1.0
    ) -> list[Image.Image]:
        """The photo's face in the style of each reference, a picture of a face of ``domain``.

        Args:
            strength: 1 takes the reference's style, 0 the photo's own.

        Raises:
            NoFaceError: the photo shows no face. A reference without one, as most drawings are to the detector, is cropped by
                :func:`stargan.pictures.faces.propose_crop`.
        """
        aligned = [self.align_reference(reference).picture for reference in references]
        encoded = self.encode(self.align(photo).picture)
        styles = self.reference_styles(aligned, domain)
        if strength != 1:
            styles = torch.lerp(self.own_style(encoded), styles, strength)
        return self.decode(encoded, styles, domain)

    def align_reference(self, reference: Image.Image) -> faces.Aligned:
        """As :meth:`align`, but where no face is found, the proposed crop."""
        try:
            return self.align(reference)
        except NoFaceError:
            return faces.crop(reference, faces.propose_crop(reference), self.image_size)

    def _map(self, codes: Tensor, domain: str) -> Tensor:
        index = torch.full((len(codes),), self.domain_index(domain), device=self.device)
        with torch.inference_mode():
            return self._mapping_network(codes.to(self.device), index)

    def _tensor(self, pictures: Sequence[Image.Image]) -> Tensor:
        size = (self.image_size, self.image_size)
        fitting = [p if p.size == size else p.resize(size, Image.Resampling.LANCZOS) for p in pictures]
        return to_tensor(fitting).to(self.device, memory_format=torch.channels_last)


class Lane:
    """One computation at a time, since two would only fight for the same cores, and nobody overtakes.

    A plain lock may go straight back to the thread that let go of it, which is how a request of a hundred pictures would
    keep one of ten waiting. Here that thread first has to get past whoever waits already.

    Attributes:
        left: when it was last left, by :func:`time.monotonic`; before that, when it was made.
    """

    def __init__(self) -> None:
        self._gate, self._work = threading.Lock(), threading.Lock()
        self.left = time.monotonic()

    def __enter__(self) -> None:
        with self._gate:
            self._work.acquire()

    def __exit__(self, *_: object) -> None:
        self.left = time.monotonic()
        self._work.release()


def batch_sizes(count: int, limit: int) -> list[int]:
    """``count`` as a sum of powers of two up to ``limit``, so that few sizes occur: 27 at 8 → [8, 8, 8, 2, 1]."""
    sizes = []
    while count:
        sizes.append(1 << (min(count, limit).bit_length() - 1))
        count -= sizes[-1]
    return sizes


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
