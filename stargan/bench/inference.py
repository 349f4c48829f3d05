"""``python -m stargan bench infer``: what this repository's way of drawing gains.

It compares with the generator as the paper gives it, in fp32 and one full pass a picture; ours is
:class:`stargan.inference.translator.Translator`. Both paths run in turns, so that whatever else the machine does slows both; a
ratio is the median of the turns' ratios.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from stargan.bench.measuring import machine, peak_memory, timed
from stargan.drawing import CACHE, Source, Translator, prepare
from stargan.inference import compiling
from stargan.inference.folding import FoldedDecoder, FoldedEncoder
from stargan.inference.translator import Encoded, find_device, full_fp32, has_bf16
from stargan.models.checkpoint import Model, load_model
from stargan.models.config import Architecture, ModelConfig, ModelError
from stargan.models.registry import find_model
from stargan.networks import Generator
from stargan.pictures import faces
from stargan.pictures.tensors import to_pictures, to_tensor

PORTRAIT = Path(__file__).parents[2] / "examples" / "photos" / "collins.png"
# Photos × styles; the GPU is filled by more.
CASES = {"cpu": ((1, 1), (1, 10), (5, 5)), "cuda": ((1, 1), (1, 10), (5, 5), (1, 16))}
PRECISIONS = ("exact", "bf16")


@dataclass(frozen=True)
class Result:
    """One case: ``photos`` × ``styles`` pictures.

    Attributes:
        case: "1x10": one photo in ten styles.
        published_seconds, ours_seconds: medians over the turns, from pictures to pictures.
        ratio: the median of published ÷ ours of each turn.
        max_abs_diff: the largest difference to the published path's output, which is about in [-1, 1].
        psnr_db: of 8-bit pictures against those of the published path.
        peak_mb: of a process that runs ours alone; on CUDA, of the GPU's memory.
    """

    case: str
    device: str
    precision: str
    published_seconds: float
    ours_seconds: float
    ratio: float
    max_abs_diff: float
    psnr_db: float
    peak_mb: float


def infer(
    model: str | None = None,
    size: int = 256,
    devices: Sequence[str] | None = None,
    cases: Sequence[tuple[int, int]] | None = None,
    turns: int = 5,
    compiled: str = "auto",
    output: Path | None = None,
) -> list[Result]:
    """Measures and prints every case on every device; writes ``output``, a JSON list, anew after each.

    Args:
        model: a name for :func:`stargan.models.registry.find_model`; None for the published width at ``size`` and random weights.
        devices: None for the CPU, and CUDA where it is.
        compiled: "no" for eager mode, which is how a translator starts; "plain" for torch.compile; "graphs" for
            torch.compile with, on CUDA, autotuning and CUDA graphs; "auto" for "graphs" where anything can be compiled.

    Raises:
        ModelError: see :func:`stargan.models.registry.find_model`.
        ValueError: nothing can be compiled on a device, but should be; or the photo of the benchmark is not there.
    """
    if not PORTRAIT.exists():
        raise ValueError(
            f"The benchmark draws examples/photos/{PORTRAIT.name}: run it in a checkout of the repository."
        )
    if devices is None:
        devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    results: list[Result] = []
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
    for name in devices:
        device = find_device(name)
        if device.type not in CASES:
            raise ValueError(f"This is measured on {' and '.join(CASES)}, not on {device.type}.")
        faces.search_on(device)
        obstacle = compiling.obstacle(device)
        if obstacle and compiled in ("plain", "graphs"):
            raise ValueError(f"Nothing is compiled on {device}: {obstacle}.")
        way = ("no" if obstacle else "graphs") if compiled == "auto" else compiled
        drawn = {"no": "eager", "plain": "compiled", "graphs": "compiled"}[way]
        print(f"{machine(device)}; ours is {drawn}", flush=True)
        precisions = [p for p in PRECISIONS if p == "exact" or has_bf16(device)]
        setup = _Setup(model, size, name, way)
        generator = setup.model().generator.to(device)
        translators = {precision: setup.translator(precision) for precision in precisions}
        for case in cases or CASES[device.type]:
            results += _case(setup, generator, translators, case, turns)
            if output:
                rows = [asdict(result) for result in results]
                output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        _decoder(translators, device, turns)
        if translators["exact"].config.framing is not None:
            _photo(translators[precisions[-1]], turns)
    return results


@dataclass(frozen=True)
class _Setup:
    """What a fresh process needs to build the same thing."""

    name: str | None
    size: int
    device: str
    compiled: str

    def model(self) -> Model:
        if self.name is not None:
            model = load_model(find_model(self.name))
            if model.landmarks is not None:
                raise ModelError(
                    f"{self.name} keeps edges by landmarks: it cannot be measured against a plain generator."
                )
            return model
        torch.manual_seed(0)
        return Model.build(ModelConfig(f"random-{self.size}", ("anime", "photo"), Architecture(self.size)))

    def translator(self, precision: str) -> Translator:
        translator = Translator(self.model(), self.device, precision)
        if self.compiled != "no":
            translator.compile(graphs=self.compiled == "graphs")
        return translator


def _case(
    setup: _Setup, generator: Generator, translators: dict[str, Translator], case: tuple[int, int], turns: int
) -> list[Result]:
    photos, styles = inputs(translators["exact"], *case)
    name = "x".join(map(str, case))
    runs: dict[str, Callable[[], list[Image.Image]]] = {
        "published": lambda: [p for x in draw_published(generator, photos, styles) for p in to_pictures(x)]
    }
    for precision, translator in translators.items():
        runs[precision] = partial(_pictures, translator, photos, styles)
    with torch.inference_mode():
        pictures = {run: draw() for run, draw in runs.items()}  # also warms up
        expected = torch.cat(list(draw_published(generator, photos, styles)))
        errors = {
            precision: max(
                (x - y).abs().max().item()
                for x, y in zip(expected.split(len(styles)), _ours(translator, photos, styles), strict=True)
            )
            for precision, translator in translators.items()
        }
        seconds: dict[str, list[float]] = {run: [] for run in runs}
        for _ in range(turns):
            for run, draw in runs.items():
                seconds[run].append(timed(draw, setup.device))
    published = statistics.median(seconds["published"])
    published_peak = _peak(setup, None, case)
    results = []
    for precision in translators:
        ours = statistics.median(seconds[precision])
        result = Result(
            case=name,
            device=setup.device,
            precision=precision,
            published_seconds=published,
            ours_seconds=ours,
            ratio=statistics.median(a / b for a, b in zip(seconds["published"], seconds[precision], strict=True)),
            max_abs_diff=errors[precision],
            psnr_db=_psnr(pictures["published"], pictures[precision]),
            peak_mb=_peak(setup, precision, case),
        )
        results.append(result)
        print(
            f"{name:>5} {setup.device} {precision:5}: published {published:.3f} s, ours {ours:.3f} s, "
            f"{result.ratio:.1f} times as fast, {len(photos) * len(styles) / ours:.1f} images/s; "
            f"difference at most {result.max_abs_diff:.1e}, PSNR {result.psnr_db:.1f} dB; "
            f"peak {result.peak_mb:.0f} MB (published {published_peak:.0f} MB)",
            flush=True,
        )
    return results


def inputs(translator: Translator, photos: int, styles: int) -> tuple[list[Image.Image], Tensor]:
    """A portrait and turned copies of it, in the model's framing, and styles ``(styles, style_dim)``."""
    portrait = prepare(Source.open(PORTRAIT), translator.config).crops[0]
    sources = [ImageOps.mirror(portrait).rotate(3 * i) if i % 2 else portrait.rotate(3 * i) for i in range(photos)]
    return sources, translator.latent_styles(translator.domains[0], range(styles))


def draw_published(generator: Generator, photos: Sequence[Image.Image], styles: Tensor) -> list[Tensor]:
    """A full pass of the generator for each photo and style: ``(1, 3, H, W)`` each."""
    device = generator.from_rgb.weight.device
    with full_fp32:
        each = styles.to(device)
        return [generator(to_tensor([photo]).to(device), style[None]).cpu() for photo in photos for style in each]


def _pictures(translator: Translator, photos: Sequence[Image.Image], styles: Tensor) -> list[Image.Image]:
    return [picture for photo in photos for picture in translator.decode(translator.encode(photo), styles)]


def _ours(translator: Translator, photos: Sequence[Image.Image], styles: Tensor) -> list[Tensor]:
    """As :func:`draw_published`, but one ``(styles, 3, H, W)`` a photo."""
    return [torch.cat(list(translator._decode(translator.encode(photo), styles))).cpu() for photo in photos]


def _decoder(translators: dict[str, Translator], device: torch.device, turns: int) -> None:
    """Prints the decoder's share of the rate at which the device multiplies big matrices, at the precision in question."""
    architecture = translators["exact"].config.architecture
    count = max(styles for _, styles in CASES[device.type])
    flops = dict(zip(("encoder", "decoder"), count_flops(architecture), strict=True))
    print(f"A picture takes {flops['encoder']:.1f} GFLOP in the encoder and {flops['decoder']:.1f} in the decoder.")
    for precision, translator in translators.items():
        (photo,), styles = inputs(translator, 1, count)
        encoded = translator.encode(photo)
        rates, peaks = [], []
        for _ in range(max(turns, 3)):
            peaks.append(_matmul_rate(device, translator.dtype))
            seconds = timed(partial(_drawn, translator, encoded, styles), str(device))
            rates.append(flops["decoder"] * count / seconds)
        share = statistics.median(rate / peak for rate, peak in zip(rates, peaks, strict=True))
        print(
            f"Decoder, {precision}: {statistics.median(rates):.0f} GFLOP/s, {share:.0%} of the "
            f"{statistics.median(peaks):.0f} GFLOP/s of a matrix product",
            flush=True,
        )
        print(_profile(translator, encoded, styles), flush=True)


def _profile(translator: Translator, encoded: Encoded, styles: Tensor) -> str:
    """What the decoder spends its time on, the longest first."""
    on_gpu = translator.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        _drawn(translator, encoded, styles)
    spent = {e.key: e.self_device_time_total if on_gpu else e.self_cpu_time_total for e in profiled.key_averages()}
    longest = sorted(spent, key=lambda key: spent[key], reverse=True)[:6]
    total = max(sum(spent.values()), 1e-9)  # where nobody may measure a GPU, nothing was spent
    return "  of it: " + ", ".join(f"{key[:60]} {spent[key] / total:.0%}" for key in longest)


def _drawn(translator: Translator, encoded: Encoded, styles: Tensor) -> None:
    for _ in translator._decode(encoded, styles):
        pass


def _photo(translator: Translator, turns: int) -> None:
    """Prints the time from an upload to ten drawings of it, with all that lies between."""

    def draw() -> list[Image.Image]:
        CACHE.clear()  # a photo that nobody has sent before
        return translator.latent(PORTRAIT, translator.domains[0], count=10)

    draw()
    seconds = statistics.median(timed(draw, str(translator.device)) for _ in range(turns))
    print(f"From an uploaded photo to ten drawings, finding the face included: {seconds:.2f} s", flush=True)


def count_flops(architecture: Architecture) -> tuple[float, float]:
    """GFLOP that the folded encoder takes for a picture, and the folded decoder for a style."""
    with torch.device("meta"), torch.no_grad():
        a = architecture
        generator = Model.build(ModelConfig("counted", ("any",), a)).generator
        encoder, decoder = FoldedEncoder(generator), FoldedDecoder(generator)
        with FlopCounterMode(display=False) as counter:
            features, _ = encoder(torch.empty(1, 3, a.image_size, a.image_size))
        encoding = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            decoder(features, torch.empty(1, a.style_dim))
    return encoding / 1e9, counter.get_total_flops() / 1e9


# peak memory


def _peak(setup: _Setup, precision: str | None, case: tuple[int, int]) -> float:
    """MB that a fresh process takes for a case; precision None means the published path."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_here, (setup, precision, case))


@torch.inference_mode()
def _peak_here(setup: _Setup, precision: str | None, case: tuple[int, int]) -> float:
    if precision is None:
        model = setup.model()
        generator = model.generator.to(setup.device)
        side = generator.image_size
        # Passes follow one another, so that a single one has the same peak.
        draw_published(generator, [Image.new("RGB", (side, side))], torch.zeros(1, model.config.architecture.style_dim))
    else:
        translator = setup.translator(precision)
        side = translator.image_size
        styles = translator.latent_styles(translator.domains[0], range(case[1]))
        translator.decode(translator.encode(Image.new("RGB", (side, side))), styles)
    if setup.device != "cpu":
        return torch.cuda.max_memory_allocated(setup.device) / 1e6
    return peak_memory() / 1e6


def _matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """GFLOP/s of a product of two big matrices: the best of a few, since the first ones only warm up."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    seconds = min(timed(lambda: a @ a, str(device)) for _ in range(4))
    return 2 * side**3 / seconds / 1e9


def _psnr(pictures: Sequence[Image.Image], others: Sequence[Image.Image]) -> float:
    """dB; 99 for equal pictures."""
    error = (to_tensor(pictures) - to_tensor(others)).mul(127.5).square().mean().item()
    return min(99.0, 10 * math.log10(255**2 / error)) if error else 99.0
