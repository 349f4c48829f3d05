"""The benchmarks: that they measure what they say, in the form that was agreed. How fast anything is, no test says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stargan.bench import inference, training
from stargan.commands import main
from stargan.inference import compiling
from stargan.inference.translator import has_bf16
from stargan.models.checkpoint import Model, save_model
from stargan.models.config import ANIME_FRAMING, Architecture, ModelConfig
from stargan.training.config import PRESETS

KEYS = [
    "case",
    "device",
    "precision",
    "published_seconds",
    "ours_seconds",
    "ratio",
    "max_abs_diff",
    "psnr_db",
    "peak_mb",
]
PRECISIONS = ["exact", "bf16"] if has_bf16(torch.device("cpu")) else ["exact"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    torch.manual_seed(0)
    architecture = Architecture(32, base_channels=8, max_channels=16)
    save_model(Model.build(ModelConfig("small", ("anime", "photo"), architecture, ANIME_FRAMING)), folder)
    return folder


class Here:
    """Stands in for a pool of processes, whose start takes seconds: the work is done here."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def Pool(self, _: int) -> Here:  # noqa: N802
        return self

    def apply(self, work, arguments):
        return work(*arguments)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for bench in (inference, training):
        monkeypatch.setattr(bench, "get_context", Here)


def check(rows: list[dict[str, object]], cases: list[str]) -> None:
    assert [(row["case"], row["precision"]) for row in rows] == [(c, p) for c in cases for p in PRECISIONS]
    for row in rows:
        assert list(row) == KEYS
        assert row["device"] == "cpu"
        assert 0 < row["ours_seconds"] < 60
        assert 0 < row["published_seconds"] < 60
        assert 0.01 < row["ratio"] < 1000
        assert 10 < row["peak_mb"] < 100_000
        exact = row["precision"] == "exact"
        assert 0 < row["max_abs_diff"] < (1e-3 if exact else 0.5)
        assert (50 if exact else 25) < row["psnr_db"] <= 99


@pytest.mark.usefixtures("one_process")
def test_infer(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "speed.json"
    assert main(["bench", "infer", "--model", str(model), "--device", "cpu", "--turns", "2", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    check(rows, ["1x1", "1x10", "5x5"])
    told = capsys.readouterr().out
    assert f"; ours is {'eager' if compiling.obstacle(torch.device('cpu')) else 'compiled'}\n" in told
    for row in rows:
        found = rf"{row['case']} cpu {row['precision']} *: published .* times as fast, .* images/s; .* PSNR .* peak"
        assert re.search(found, told), told
    for precision in PRECISIONS:  # of the machine's own rate
        assert re.search(
            rf"Decoder, {precision}: \d+ GFLOP/s, \d+% of the \d+ GFLOP/s of a matrix product\n  of it: .+ \d+%", told
        )
    assert "From an uploaded photo to ten drawings, finding the face included:" in told


def test_infer_in_processes_of_its_own(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    options = ["--device", "cpu", "--case", "2x3", "--turns", "1", "--compiled", "no", "--json", str(file)]
    assert main(["bench", "infer", "--model", str(model), *options]) == 0
    check(json.loads(file.read_text()), ["2x3"])


def test_infer_where_nothing_is_compiled(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STARGAN_COMPILE", "0")
    options = ["--model", str(model), "--device", "cpu", "--case", "1x1", "--turns", "1"]
    assert main(["bench", "infer", *options, "--compiled", "plain"]) == 2
    assert "Nothing is compiled on cpu: STARGAN_COMPILE is 0." in capsys.readouterr().err
    assert main(["bench", "infer", *options]) == 0
    assert "; ours is eager\n" in capsys.readouterr().out


@pytest.mark.usefixtures("one_process")
def test_infer_counts_what_is_computed() -> None:
    """The published widths: the paper's decoder, but for what folding saves."""
    encoder, decoder = inference.count_flops(Architecture(256))
    assert 20 < encoder < 36
    assert 20 < decoder < 61


@pytest.mark.usefixtures("one_process")
def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "speed.json"
    options = ["--preset", "tiny", "--device", "cpu", "--no-compile", "--turns", "1", "--json", str(file)]
    assert main(["bench", "train", *options]) == 0
    rows = json.loads(file.read_text())
    assert [row["path"] for row in rows] == ["eager", "tuned"]
    for row in rows:
        assert list(row) == ["path", "samples_per_second", "utilisation", "peak_mb"]
        assert row["samples_per_second"] > 0
        assert 0 < row["utilisation"] <= 1.1
        assert row["peak_mb"] > 10
    told = capsys.readouterr().out
    assert "tiny, batches of 4." in told
    assert re.search(r"tuned is [\d.]+ times as fast", told)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_finds_pictures_to_train_on(preset: str) -> None:
    """Also of the kinds within a domain that it draws more often."""
    small = replace(PRESETS[preset], architecture=PRESETS["tiny"].architecture, bf16=False, compile=False, batch_size=2)
    assert training._warm_trainer(small, torch.device("cpu")).iteration == 2


@pytest.mark.usefixtures("one_process")
def test_generators_are_measured_however_long_the_discriminator_would_learn_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And kinds are found, too."""
    updates: list[tuple[str, ...]] = []
    update = training.Trainer.update_generator

    def counted(trainer, sources, targets, stepping):
        updates.append(stepping)
        return update(trainer, sources, targets, stepping)

    monkeypatch.setattr(training.Trainer, "update_generator", counted)
    config = replace(PRESETS["tiny"], discriminator_warmup=400, kinds=("female/n", "anime/a"))
    training.train("tiny", config, "cpu", turns=1, compiled=False)
    assert len(updates) == 4 * 2 + 2 * 2 * 2 + 2 * 4  # warm, two turns of two iterations, in processes of their own


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["infer", "--case", "1by10"], "a case is photos x styles, such as 1x10, not '1by10'"),
        (["infer", "--case", "0x1"], "not '0x1'"),
        (["infer", "--turns", "0"], "must be a whole number, 1 or more, not '0'"),
        (["infer", "--model", "nothing", "--device", "cpu"], "There is no model 'nothing'"),
        (["train", "--preset", "tiny", "--device", "cpu", "--speed", "1"], "Unrecognized options: --speed"),
        (["train", "--preset", "small"], "There is no preset 'small'"),
    ],
)
def test_refusals_are_sentences(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["bench", *arguments])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
