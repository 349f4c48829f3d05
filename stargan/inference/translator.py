"""The one inference object: encode a crop once, decode it in many styles.

A style is a ``(style_dim,)`` vector wherever it came from, a seed or a reference; mixing, truncation, strength and walks are
arithmetic on such vectors. Every tab, request and command of a process shares one translator a model.

What is promised of its pictures: within a process, the same crop in the same style gives the same bytes, whenever a compiler
finishes and whatever else is drawn; on a CPU also whatever is drawn with it. Between eager and compiled code, batch sizes,
and machines, a picture may differ by rounding: by :data:`ROUNDING` levels of 255 at most.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from cachetools import LRUCache
from PIL import Image
from torch import Tensor

from stargan.inference import compiling
from stargan.inference.folding import FoldedDecoder, FoldedEncoder, fold_style_encoder, for_compiler, prepare
from stargan.models.checkpoint import Model
from stargan.networks import latent_code, mean_style
from stargan.pictures.tensors import digest, to_grayscale, to_pictures, to_tensor
from stargan.stages import stage

# Styles decoded at a time, at most: fewer where the pictures are big, see Translator._limit. On a CPU, one: its bf16 kernels
# round by the size of the batch, and a seed's picture must not depend on what else is drawn; one picture fills all cores.
BATCH = {"cpu": 1, "cuda": 32, "mps": 8}
# So long must a CPU have had nothing to draw before it compiles: a compiler makes requests take several times as long.
QUIET_SECONDS = 15.0
# Levels of 255 by which rounding may move a pixel: tests compare the shipped model's drawings.
ROUNDING = {torch.float32: 2, torch.bfloat16: 32}
# Crops that keep the decoder which drew them first; the oldest are forgotten.
_PINNED = 100_000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """All that a source picture needs for any number of styles.

    Attributes:
        x: ``(1, 3, H, W)`` float in [-1, 1], the source itself.
        features, edges: what the generator's encoder returned, for one picture.
        decoder: what draws it, now and later: compiled code rounds otherwise.
    """

    x: Tensor
    features: Tensor
    edges: dict[int, Tensor]
    decoder: compiling.Decoder

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.nbytes for tensor in (self.x, self.features, *self.edges.values()))


class Translator:
    """A model on a device: crops and style vectors in, pictures out. Safe to share between threads.

    Args:
        model: what :func:`stargan.models.checkpoint.load_model` returned; taken over, not copied.
        device: None chooses CUDA, then Apple's MPS, then the CPU.
        precision: "exact" computes in fp32; "bf16" in bfloat16, with norms in fp32; "auto" takes bf16 where the device has it.

    Raises:
        ValueError: this machine has no such device, or there is no such precision.

    Attributes:
        number: no other translator of this process has it.
    """

    _numbers = itertools.count()

    def __init__(self, model: Model, device: str | torch.device | None = None, precision: str = "auto") -> None:
        if precision not in ("auto", "exact", "bf16"):
            raise ValueError(f"precision must be auto, exact or bf16, not {precision!r}")
        self.number = next(self._numbers)
        self.config = model.config
        self.device = find_device(device)
        self.dtype = torch.float32 if precision == "exact" else torch.bfloat16
        if precision == "auto" and not has_bf16(self.device):
            self.dtype = torch.float32
        self._exact_cuda = precision == "exact" and self.device.type == "cuda"
        self._encoder = prepare(FoldedEncoder(model.generator), self.device, self.dtype)
        self._eager_decoder = prepare(FoldedDecoder(model.generator), self.device, self.dtype)
        self._decoder: compiling.Decoder = self._eager_decoder
        # What a style is made by stays in fp32: it costs little, and every picture in that style would carry the error.
        style_encoder = fold_style_encoder(model.style_encoder, self.image_size)
        self._style_encoder = prepare(style_encoder, self.device, torch.float32)
        self._mapping_network = model.mapping_network.to(self.device)
        self._landmarks = None if model.landmarks is None else model.landmarks.to(self.device)
        self._lock = FairLock()
        self._compilation: threading.Thread | None = None
        self._compiled_fails = False
        self._pinned: LRUCache[str, compiling.Decoder] = LRUCache(_PINNED)
        self._most = BATCH.get(self.device.type, 1)
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

    # crops in

    @torch.inference_mode()
    def encode(self, picture: Image.Image) -> Encoded:
        """An aligned crop (of another size, it is scaled) → what decoding it needs."""
        x = self._tensor([picture])
        with self._computing("encode"):
            masks = None if self._landmarks is None else self._landmarks.masks(x)
            features, edges = self._encoder(x.to(self.dtype), masks)
            # whoever came before the compiler was done gets the same bytes afterwards
            decoder = self._pinned.setdefault(digest(picture), self._decoder)
        return Encoded(x, features, edges, decoder)

    # styles

    @torch.inference_mode()
    def latent_styles(self, domain: str, seeds: Sequence[int], psi: float = 1.0) -> Tensor:
        """One style a seed: ``(len(seeds), style_dim)``. A seed gives the same style whichever others are asked for with it.

        Args:
            psi: truncation: 1 leaves a style as it is, 0 gives the domain's mean style.
        """
        codes = [latent_code(seed, self.config.architecture.latent_dim) for seed in seeds]
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
            self._means[domain] = mean_style(self._mapping_network, self.domain_index(domain))
        return self._means[domain]

    @torch.inference_mode()
    def reference_styles(self, pictures: Sequence[Image.Image], domain: str) -> Tensor:
        """The styles of aligned pictures of a domain: ``(len(pictures), style_dim)``."""
        index = torch.tensor([self.domain_index(domain)], device=self.device)
        if domain in self.config.grayscale_domains:
            pictures = [to_grayscale(picture) for picture in pictures]
        styles = [torch.empty(0, self.config.architecture.style_dim, device=self.device)]
        for picture in pictures:  # one by one, as codes are mapped
            x = self._tensor([picture])
            with self._computing("encode"):
                styles.append(self._style_encoder(x, index))
        return torch.cat(styles)

    @torch.inference_mode()
    def own_style(self, encoded: Encoded) -> Tensor:
        """The style that a source already has, ``(style_dim,)``: of the domain whose style restores the source best."""
        index = torch.arange(len(self.domains), device=self.device)
        with self._computing("encode"):
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

    @torch.inference_mode()
    def _decode(self, encoded: Encoded, styles: Tensor) -> Iterator[Tensor]:
        left = styles.to(self.device, torch.float32)
        while len(left):
            part = left[: batch_sizes(len(left), self._limit())[0]]
            with self._computing("decode"):
                try:
                    decoder = self._eager_decoder if self._compiled_fails else encoded.decoder
                    x = decoder(encoded.features, part, encoded.edges)
                except torch.OutOfMemoryError:
                    if len(part) == 1:
                        raise
                    self._most = len(part) // 2
                    log.warning("The memory of %s does not suffice: now %d at a time.", self.device, self._most)
                    torch.cuda.empty_cache()
                    continue
                except Exception:
                    if decoder is self._eager_decoder:
                        raise
                    log.warning("The compiled decoder failed and is given up.", exc_info=True)
                    self._compiled_fails = True
                    self._decoder = self._eager_decoder
                    continue
            left = left[len(part) :]
            yield x.float()

    def _limit(self) -> int:
        """How many styles to decode at once."""
        limit = self._most
        if self.device.type == "cuda":
            values = self.config.architecture.values
            # Eight or so copies of the widest layer are alive at the same time, some in fp32; half of the memory is enough.
            free, _ = torch.cuda.mem_get_info(self.device)
            # what PyTorch holds and does not use is free, too
            free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
            limit = min(limit, free // 2 // (8 * 4 * values))
        return max(1, limit)

    # compilation

    def compile_in_background(self) -> threading.Thread | None:
        """Compiles the decoder, a CPU in a quiet time, and uses it for what is new once it is ready.

        Returns:
            The thread that compiles, the same at every call; None where nothing can be compiled.
        """
        with self._lock:
            if self._compilation is None and (obstacle := compiling.obstacle(self.device)):
                log.info("%s stays uncompiled: %s.", self.name, obstacle)
            elif self._compilation is None:
                self._compilation = compiling.in_background(self._compile_in_quiet, f"Compiling {self.name}")
            return self._compilation

    def _compile_in_quiet(self) -> None:
        if self.device.type == "cpu":
            while (left := self._lock.released + QUIET_SECONDS - time.monotonic()) > 0:
                time.sleep(left)
        self.compile()

    @torch.inference_mode()
    def compile(self, *, graphs: bool = True) -> None:
        """Compiles the decoder here and now, and uses it from then on for crops that were not encoded before.

        Args:
            graphs: on CUDA, whether to look for the fastest kernels and to record CUDA graphs.
        """
        compiling.keep_cache()
        traced = for_compiler(self._eager_decoder)
        on_gpu = self.device.type == "cuda"
        compiled = compiling.CompiledDecoder(self._eager_decoder, traced, self._lock, graphs=graphs and on_gpu)
        encoded = self.encode(Image.new("RGB", (self.image_size, self.image_size)))
        with full_fp32 if self._exact_cuda else contextlib.nullcontext():
            for count in (1 << power for power in range(self._limit().bit_length())):  # see batch_sizes
                style = torch.zeros(count, self.config.architecture.style_dim, device=self.device)
                compiled.warm(encoded.features, style, encoded.edges)
        with self._lock:
            if not self._compiled_fails:
                self._decoder = compiled
        log.info("%s is compiled.", self.name)

    @contextlib.contextmanager
    def _computing(self, name: str) -> Iterator[None]:
        with self._lock, stage(name), full_fp32 if self._exact_cuda else contextlib.nullcontext():
            yield

    def _map(self, codes: Tensor, domain: str) -> Tensor:
        index = torch.full((len(codes),), self.domain_index(domain), device=self.device)
        with torch.inference_mode():
            return self._mapping_network(codes.to(self.device), index)

    def _tensor(self, pictures: Sequence[Image.Image]) -> Tensor:
        size = (self.image_size, self.image_size)
        fitting = [p if p.size == size else p.resize(size, Image.Resampling.LANCZOS) for p in pictures]
        return to_tensor(fitting).to(self.device, memory_format=torch.channels_last)


class _FullFP32:
    """Convolutions without TF32, which cuDNN takes by default and which is only 10 bits exact. It is a setting of the process:
    the first who needs it makes it, and the last one takes it back."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, True

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                torch.backends.cudnn.allow_tf32 = self._before


full_fp32 = _FullFP32()


class FairLock:
    """One computation at a time, since two would only fight for the same cores, and nobody overtakes.

    A plain lock may go straight back to the thread that let go of it, which is how a request of a hundred pictures would
    keep one of ten waiting. Here that thread first has to get past whoever waits already.

    Attributes:
        released: when it last was, by :func:`time.monotonic`; before that, when it was made.
    """

    def __init__(self) -> None:
        self._gate, self._work = threading.Lock(), threading.Lock()
        self.released = time.monotonic()

    def __enter__(self) -> None:
        with self._gate:
            self._work.acquire()

    def __exit__(self, *_: object) -> None:
        self.released = time.monotonic()
        self._work.release()


def batch_sizes(count: int, limit: int) -> list[int]:
    """``count`` as a sum of powers of two up to ``limit``, so that few sizes occur: 27 at 8 → [8, 8, 8, 2, 1]."""
    sizes = []
    while count:
        sizes.append(1 << (min(count, limit).bit_length() - 1))
        count -= sizes[-1]
    return sizes


def find_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name; without one, CUDA where there is one, else Apple's MPS, else the CPU.

    Raises:
        ValueError: this machine has no such device.
    """
    if name is None:
        accelerators = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        return torch.device(next((kind for kind, there in accelerators.items() if there), "cpu"))
    try:
        device = torch.device(name)
        if device.type == "cuda":
            # counted, not tried: a process that has another GPU must not take memory of the first
            there = (device.index or 0) < torch.cuda.device_count()
        else:
            there = torch.empty(0, device=device).device.type == device.type
    except (RuntimeError, AssertionError, NotImplementedError):
        there = False
    if not there:
        raise ValueError(f"This machine has no device {str(name)!r}.")
    return device


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is fast there. On a CPU without instructions for it, it would be slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
