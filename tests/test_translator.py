"""The inference object: the same pictures as the plain networks make, whatever the batch, and compiled or not."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serving import unprivileged

from stargan import Translator, load_translator
from stargan.drawing import Source, prepare
from stargan.errors import NoFaceError
from stargan.inference import compiling, folding
from stargan.inference.translator import ROUNDING, FairLock, batch_sizes
from stargan.models.checkpoint import Model, load_model
from stargan.models.config import Architecture, ModelConfig
from stargan.models.registry import find_model
from stargan.pictures.tensors import to_pictures, to_tensor

ROOT = Path(__file__).parent.parent
DOMAINS = ("anime", "female", "male")
FRAMING = ((0.35, 0.4), (0.65, 0.4), (0.5, 0.6), (0.4, 0.75), (0.6, 0.75))


def build(image_size=64, framing=None, base_channels=16, max_channels=32, finish_channels=0) -> Model:
    torch.manual_seed(0)
    widths = {"base_channels": base_channels, "max_channels": max_channels, "finish_channels": finish_channels}
    architecture = Architecture(image_size, **widths)
    model = Model.build(ModelConfig("test", DOMAINS, architecture, framing))
    for block in model.generator.decode:  # fresh networks hardly heed the style
        block.norm1.fc.weight *= 20
        block.norm2.fc.weight *= 20
    return model


@pytest.fixture(scope="module")
def exact() -> Translator:
    return Translator(build(), "cpu", "exact")


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(noise).resize((64, 64), Image.Resampling.BICUBIC)


def levels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


def test_same_pictures_as_the_plain_generator(exact, picture):
    model = build()
    styles = exact.latent_styles("anime", range(3))
    index = torch.zeros(3, dtype=torch.long)
    codes = [torch.randn(16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    with torch.inference_mode():
        torch.testing.assert_close(styles, model.mapping_network(torch.stack(codes), index))
        expected = model.generator(to_tensor([picture]).expand(3, -1, -1, -1), styles)
    drawn = exact.decode(exact.encode(picture), styles)
    assert abs(levels(drawn) - levels(to_pictures(expected))).max() <= 1


def test_styles_are_those_of_the_plain_style_encoder(exact, picture):
    references = [picture, picture.rotate(90), *[picture.rotate(180)] * 9]
    with torch.inference_mode():
        expected = build().style_encoder(to_tensor(references), torch.full((11,), 2))
    torch.testing.assert_close(exact.reference_styles(references, "male"), expected, rtol=1e-4, atol=1e-5)


def test_a_seed_gives_the_same_picture_whatever_the_batch(exact, picture):
    encoded = exact.encode(picture)
    together = exact.decode(encoded, exact.latent_styles("female", range(10), psi=0.7))
    alone = [exact.decode(encoded, exact.latent_styles("female", [seed], psi=0.7))[0] for seed in range(10)]
    assert len(together) == 10
    assert abs(levels(together) - levels(alone)).max() <= 1
    assert abs(levels(together[:1]) - levels(together[1:2])).max() > 1


@pytest.mark.parametrize("precision", ["exact", "bf16"])
def test_of_a_wide_model_to_the_byte(precision, picture):
    translator = Translator(build(64, base_channels=128, max_channels=256), "cpu", precision)
    encoded = translator.encode(picture)
    styles = translator.latent_styles("anime", range(3))
    alone = [translator.decode(encoded, style[None])[0].tobytes() for style in styles]
    assert [drawn.tobytes() for drawn in translator.decode(encoded, styles)] == alone
    assert len(set(alone)) == 3


def test_bf16_is_close_to_exact(exact, picture):
    fast = Translator(build(), "cpu", "bf16")
    styles = exact.latent_styles("anime", range(4))
    results = [levels(t.decode(t.encode(picture), styles)) for t in (exact, fast)]
    error = ((results[0] - results[1]) ** 2).mean()
    assert 0 < error < 255**2 / 10**3  # 30 dB; random weights are worse than trained ones


def test_truncation(exact):
    styles = exact.latent_styles("anime", [1, 2])
    torch.testing.assert_close(exact.latent_styles("anime", [1, 2], psi=0), exact.mean_style("anime").expand(2, -1))
    halfway = (styles + exact.mean_style("anime")) / 2
    torch.testing.assert_close(exact.latent_styles("anime", [1, 2], psi=0.5), halfway)


def test_own_style_is_that_of_the_domain_that_restores_best(exact, picture):
    encoded = exact.encode(picture)
    of_domains = torch.cat([exact.reference_styles([picture], domain) for domain in DOMAINS])
    error = abs(levels(exact.decode(encoded, of_domains)) - levels([picture])).mean(axis=(1, 2, 3))
    torch.testing.assert_close(exact.own_style(encoded), of_domains[error.argmin()], rtol=1e-4, atol=1e-5)


def test_strength_zero_gives_one_picture_for_all_references(exact, picture):
    references = [picture.rotate(90), picture.rotate(180)]
    first, second = exact.reference(picture, references, "anime", strength=0)
    assert abs(levels([first]) - levels([second])).max() <= 1
    first, second = exact.reference(picture, references, "anime")
    assert abs(levels([first]) - levels([second])).max() > 1


def test_user_mistakes(exact, picture):
    with pytest.raises(ValueError, match="cannot draw cat: choose one of anime, female, male"):
        exact.latent(picture, "cat")
    with pytest.raises(ValueError, match="not 'half'"):
        Translator(build(), "cpu", "half")


def test_no_face():
    translator = Translator(build(framing=FRAMING), "cpu", "exact")
    with pytest.raises(NoFaceError):
        translator.latent(Image.new("RGB", (200, 200), "grey"), "anime")


def test_a_portrait(portrait):
    translator = Translator(build(framing=FRAMING), "cpu")
    drawn = translator.latent(portrait, "anime", count=2)
    assert [picture.size for picture in drawn] == [(64, 64), (64, 64)]


@pytest.mark.parametrize(
    ("count", "limit", "sizes"),
    [(10, 1, [1] * 10), (27, 8, [8, 8, 8, 2, 1]), (16, 32, [16]), (5, 3, [2, 2, 1]), (0, 8, [])],
)
def test_batch_sizes(count, limit, sizes):
    assert batch_sizes(count, limit) == sizes


# concurrent requests


def test_nobody_overtakes_in_the_lock():
    lock, rounds, seen = FairLock(), [], []
    started = threading.Event()

    def long_request():
        for i in range(50):
            with lock:
                rounds.append(i)
                started.set()
                time.sleep(0.01)

    thread = threading.Thread(target=long_request)
    thread.start()
    started.wait()
    with lock:
        seen += rounds
    thread.join()
    assert len(rounds) == 50
    assert len(seen) < 5


def test_the_lock_is_free_after_a_failure():
    lock = FairLock()
    with pytest.raises(RuntimeError), lock:
        raise RuntimeError
    with lock:
        pass


def test_concurrent_requests_do_not_mix(exact, picture):
    pictures = [picture, picture.rotate(90), picture.rotate(180)]
    expected = [levels(exact.latent(p, "anime", count=3)) for p in pictures]
    results: dict[int, np.ndarray] = {}

    def request(i: int) -> None:
        results[i] = levels(exact.latent(pictures[i], "anime", count=3))

    threads = [threading.Thread(target=request, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        assert abs(results[i] - expected[i]).max() <= 1


# compilation


@pytest.mark.parametrize(
    ("name", "value"), [("STARGAN_COMPILE", "0"), ("SPACES_ZERO_GPU", "true"), ("CXX", "no-such-c++")]
)
def test_where_nothing_is_compiled(exact, monkeypatch, caplog, name, value):
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        assert exact.compile_in_background() is None
    assert "stays uncompiled" in caplog.text


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    compiling.keep_cache()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "stargan" / "inductor")
    assert (tmp_path / "stargan" / "inductor").is_dir()
    (tmp_path / "stargan" / "inductor").chmod(0o555)
    code = "import os; from stargan.inference.compiling import keep_cache; keep_cache(); print(*os.environ)"
    done = subprocess.run([*unprivileged(), "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "TORCHINDUCTOR_CACHE_DIR" not in done.stdout  # one that is there and cannot be written


def test_a_cpu_beside_a_gpu_is_compiled_for_as_a_cpu(monkeypatch):
    modes, exact = [], Translator(build(), "cpu", "exact")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda decoder, **options: (modes.append(options["mode"]), decoder)[1])
    exact.compile()
    assert modes == [None]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_pictures_are_the_same(monkeypatch, tmp_path, picture):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("stargan.inference.translator.BATCH", {"cpu": 1})  # one size to compile
    monkeypatch.setattr("stargan.inference.translator.QUIET_SECONDS", 0.0)
    translator = Translator(build(32, base_channels=4, max_channels=8), "cpu", "exact")
    encoded, styles = translator.encode(picture), translator.latent_styles("anime", range(3))
    eager = translator.decode(encoded, styles)
    thread = translator.compile_in_background()
    assert translator.compile_in_background() is thread
    drawn = []
    while thread.is_alive():  # answered at once, with the same bytes, whatever the state of the compilation
        drawn.append(levels(translator.decode(translator.encode(picture), styles)))
    assert len(drawn) > 1
    assert all((during == levels(eager)).all() for during in drawn)
    assert isinstance(translator._decoder, compiling.CompiledDecoder)
    # whoever was drawn before is drawn as before; what is new, by compiled code
    assert (levels(translator.decode(translator.encode(picture), styles)) == levels(eager)).all()
    other = translator.encode(picture.rotate(90))
    assert other.decoder is translator._decoder
    plain = replace(other, decoder=translator._eager_decoder)
    assert abs(levels(translator.decode(other, styles)) - levels(translator.decode(plain, styles))).max() <= 1
    assert any(tmp_path.rglob("*.so"))


def test_requests_take_no_branch_of_the_compiler(monkeypatch, picture):
    """While a thread compiles, torch says in every thread that it does: nothing may go by that."""
    translator = Translator(build(), "cpu", "bf16")
    encoded, styles = translator.encode(picture), translator.latent_styles("anime", range(2))
    expected = levels(translator.decode(encoded, styles))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert (levels(translator.decode(translator.encode(picture), styles)) == expected).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_compiler_never_takes_over_the_call_of_modules(tmp_path):
    """torch.fx's tracer does so in all threads: a request that is under way then fails. Some tracers pass calls on, and may."""
    program = """
import torch, test_translator
traced, trace = [], torch.fx.Tracer.trace
def watched(self, *args, **options):
    traced.append(type(self).call_module is torch.fx.Tracer.call_module)
    return trace(self, *args, **options)
torch.fx.Tracer.trace = watched
from stargan.inference import translator
translator.QUIET_SECONDS = 0
translator = test_translator.Translator(test_translator.build(32, base_channels=4, max_channels=8), "cpu", "exact")
translator.compile_in_background().join()
assert isinstance(translator._decoder, test_translator.compiling.CompiledDecoder)
print(len(traced) > 0, any(traced))
"""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_the_compilers_copy_shares_its_tensors():
    eager = Translator(build(), "cpu", "exact")._eager_decoder
    copied = folding.for_compiler(eager)
    assert {id(buffer) for buffer in copied.buffers()} == {id(buffer) for buffer in eager.buffers()}
    kinds = [part.traced for part in copied.modules() if hasattr(part, "traced")]
    assert kinds
    assert all(kinds)
    assert not any(part.traced for part in eager.modules() if hasattr(part, "traced"))


def test_a_references_style_does_not_depend_on_the_others(exact, picture):
    others = [picture.rotate(angle) for angle in (90, 180, 270)]
    together = exact.reference_styles([picture, *others], "anime")
    assert torch.equal(together[:1], exact.reference_styles([picture], "anime"))


def test_memory_that_does_not_suffice_halves_the_batch(monkeypatch, caplog, picture):
    monkeypatch.setattr("stargan.inference.translator.BATCH", {"cpu": 8})
    translator = Translator(build(), "cpu", "exact")
    encoded, styles = translator.encode(picture), translator.latent_styles("anime", range(11))
    expected = levels(translator.decode(encoded, styles))
    sizes, decoder = [], translator._eager_decoder

    def small(features: torch.Tensor, style: torch.Tensor, edges: dict) -> torch.Tensor:
        sizes.append(len(style))
        if len(style) > 2:
            raise torch.OutOfMemoryError
        return decoder(features, style, edges)

    translator._eager_decoder = small
    drawn = levels(translator.decode(replace(encoded, decoder=small), styles))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 1]
    assert abs(drawn - expected).max() <= 1
    assert "now 2 at a time" in caplog.text


def test_exact_convolutions_leave_the_process_as_it_was(monkeypatch):
    """TF32 is a setting of the whole process: it is off only while an exact translator computes."""
    before = torch.backends.cudnn.allow_tf32
    translator = Translator(build(), "cpu", "exact")
    translator._exact_cuda = True  # as on CUDA
    seen = []
    monkeypatch.setattr(translator, "_encoder", lambda x, _: (seen.append(torch.backends.cudnn.allow_tf32) or x, {}))
    translator.encode(Image.new("RGB", (64, 64)))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_requests_go_on_while_exact_convolutions_are_compiled(monkeypatch):
    """Compiling takes minutes, without TF32 all the while; it waits for requests, and they must not wait for it."""
    translator = Translator(build(), "cpu", "exact")
    translator._exact_cuda = True  # as on CUDA
    before, seen = torch.backends.cudnn.allow_tf32, []

    def warm(decoder: compiling.CompiledDecoder, *_: object) -> None:
        request = threading.Thread(target=translator.encode, args=(Image.new("RGB", (64, 64)),), daemon=True)
        request.start()
        request.join(60)
        assert not request.is_alive()
        with decoder._lane:
            seen.append(torch.backends.cudnn.allow_tf32)

    monkeypatch.setattr(compiling.CompiledDecoder, "warm", warm)
    translator.compile()
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32 == before


def test_every_size_of_every_model_is_compiled(monkeypatch, picture):
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    monkeypatch.setattr("stargan.inference.translator.BATCH", {"cpu": 32})
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    negative = build()  # of the same shapes, so that the same code serves it
    negative.generator.to_rgb[2].weight.neg_()
    models = ((build(), 6), (build(base_channels=8), 12), (negative, 12), (build(finish_channels=4), 18))
    for model, expected in models:
        translator = Translator(model, "cpu", "exact")
        encoded, styles = translator.encode(picture), translator.latent_styles("anime", range(63))
        eager = translator.decode(encoded, styles)
        translator.compile()
        assert len(compiled) == expected
        encoded = replace(encoded, decoder=translator._decoder)
        assert abs(levels(translator.decode(encoded, styles)) - levels(eager)).max() <= 1
        assert len(compiled) == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compilation_waits_until_nothing_is_drawn(monkeypatch, picture):
    monkeypatch.setattr("stargan.inference.translator.QUIET_SECONDS", 3.0)
    translator, begun = Translator(build(), "cpu", "exact"), []
    monkeypatch.setattr(translator, "compile", lambda: begun.append(time.monotonic()))
    thread = translator.compile_in_background()
    time.sleep(0.5)
    translator.encode(picture)
    drawn = time.monotonic()
    thread.join(30)
    assert begun[0] >= drawn + 2  # the last of the work was done a little before the picture came


def test_a_compiler_that_fails_costs_no_request(tmp_path):
    # A process of its own, since torch reads CXX once.
    program = """
import logging, torch
from PIL import Image
from stargan.drawing import Translator
from stargan.models.checkpoint import Model
from stargan.models.config import Architecture, ModelConfig
from stargan.inference import translator
translator.BATCH["cpu"] = 1
translator.QUIET_SECONDS = 0
logging.basicConfig(format="%(levelname)s %(message)s")
config = ModelConfig("test", ("a",), Architecture(32, base_channels=4, max_channels=8))
translator = Translator(Model.build(config), "cpu", "exact")
translator.compile_in_background().join()
print(len(translator.latent(Image.new("RGB", (32, 32)), "a", count=2)), "pictures")
"""
    environment = {**os.environ, "CXX": "false", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "2 pictures\n"
    assert run.stderr.count("WARNING Compiling test failed") == 1


def test_compiled_code_that_fails_costs_no_request(caplog, picture):
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("broken")

    translator = Translator(build(), "cpu", "exact")
    translator._decoder = broken
    assert len(translator.latent(picture, "anime", count=3)) == 3
    assert len([record for record in caplog.records if "given up" in record.message]) == 1
    translator.compile()  # what was given up does not come back
    assert translator.encode(picture.rotate(90)).decoder is translator._eager_decoder


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_the_shipped_model_rounds_within_what_is_promised(portrait):
    """Eager against compiled, and styles one by one against many at a time."""
    crop = prepare(Source.open(portrait), load_translator().config).crops[0]
    for precision in ("exact", "bf16"):
        translator = Translator(load_model(find_model("anime-128")), "cpu", precision)
        encoded, styles = translator.encode(crop), translator.latent_styles("anime", range(16))
        one_by_one = levels(translator.decode(encoded, styles))
        translator._most = 16
        together = levels(translator.decode(encoded, styles))
        translator._most = 1
        translator.compile()
        compiled = levels(translator.decode(replace(encoded, decoder=translator._decoder), styles))
        bound = ROUNDING[translator.dtype]
        print(precision, abs(one_by_one - together).max(), abs(one_by_one - compiled).max())
        assert abs(one_by_one - together).max() <= bound
        assert abs(one_by_one - compiled).max() <= bound
