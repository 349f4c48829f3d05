"""A model folder is read back as it was written, and anything else is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE, SAFETENSORS_SINGLE_FILE
from safetensors.torch import load_file, save_file

from stargan.models import checkpoint
from stargan.models.checkpoint import Architecture, Model, ModelConfig, ModelError, load_model, save_model, weight_files

TINY = Architecture(image_size=32, base_channels=8, max_channels=16)
POINTS = ((0.36, 0.42), (0.64, 0.42), (0.5, 0.59), (0.37, 0.71), (0.63, 0.71))
CONFIG = ModelConfig("tiny", ("anime", "female"), TINY, POINTS, "CC0-1.0", {"samples": 800_000, "device": "CPU"})

State = dict[str, torch.Tensor]


def tensors(model: Model) -> State:
    return {f"{part}.{name}": t for part, net in model.networks().items() for name, t in net.state_dict().items()}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model.build(CONFIG)


@pytest.fixture(scope="module")
def saved(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One weights file."""
    folder = tmp_path_factory.mktemp("saved")
    save_model(model, folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of ``saved`` to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def sharded(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shards and an index."""
    monkeypatch.setattr(checkpoint, "SHARD_SIZE", 2_000_000)
    save_model(model, tmp_path / "sharded")
    return tmp_path / "sharded"


def respell(folder: Path, change: Callable[[State], None]) -> None:
    """Changes the tensors of a folder with one weights file."""
    file = folder / SAFETENSORS_SINGLE_FILE
    state = load_file(file)
    change(state)
    save_file(state, file)


def rewrite(file: Path, **changes: object) -> None:
    """Changes entries of a JSON object; None takes one away."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


# Written and read


def test_round_trip(saved: Path, model: Model) -> None:
    loaded = load_model(saved)
    assert loaded.config == model.config
    assert {tensor.dtype for tensor in load_file(saved / SAFETENSORS_SINGLE_FILE).values()} == {torch.float16}
    found = tensors(loaded)
    assert found.keys() == tensors(model).keys()
    for name, tensor in tensors(model).items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.half().float()), name
    assert not any(net.training or any(p.requires_grad for p in net.parameters()) for net in loaded.networks().values())


def test_round_trip_is_exact_in_fp32(model: Model, tmp_path: Path) -> None:
    save_model(model, tmp_path, torch.float32)
    found = tensors(load_model(tmp_path))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors(model).items())


def test_channels_last_weights_are_saved(model: Model, tmp_path: Path) -> None:
    turned = load_like(model)
    turned.generator.to(memory_format=torch.channels_last)
    save_model(turned, tmp_path, torch.float32)
    found = tensors(load_model(tmp_path))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors(model).items())


def load_like(model: Model) -> Model:
    twin = Model.build(model.config)
    for name, network in twin.networks().items():
        network.load_state_dict(model.networks()[name].state_dict())
    return twin


def test_wide_model_is_cut_into_small_files(tmp_path: Path) -> None:
    wide = Model.build(replace(CONFIG, architecture=replace(TINY, base_channels=64, max_channels=256)))
    save_model(wide, tmp_path)
    files = weight_files(tmp_path)
    assert len(files) >= 2
    assert all(file.stat().st_size < 10_000_000 for file in files)
    index = json.loads((tmp_path / SAFETENSORS_INDEX_FILE).read_text())["weight_map"]
    assert index == {name: file.name for file in files for name in load_file(file)}
    assert index.keys() == tensors(wide).keys()
    found = tensors(load_model(tmp_path))
    assert all(torch.equal(found[name], tensor.half().float()) for name, tensor in tensors(wide).items())


def test_smaller_model_leaves_nothing_of_a_larger_one(
    sharded: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sharded / "README.md").write_text("# A card\n")
    assert len(weight_files(sharded)) >= 2
    monkeypatch.undo()
    save_model(model, sharded)
    assert {file.name for file in sharded.iterdir()} == {"README.md", "config.json", SAFETENSORS_SINGLE_FILE}
    load_model(sharded)


def test_number_too_large_for_the_file_is_refused(model: Model, tmp_path: Path) -> None:
    large = load_like(model)
    large.generator.state_dict()["to_rgb.2.bias"].fill_(1e6)
    with pytest.raises(ModelError, match=r"generator\.to_rgb\.2\.bias holds values that torch\.float16 cannot"):
        save_model(large, tmp_path / "new")
    assert not list((tmp_path / "new").glob("*"))
    save_model(large, tmp_path / "new", torch.float32)


# Weights that do not fit


def test_missing_tensor(folder: Path) -> None:
    respell(folder, lambda state: state.pop("generator.to_rgb.2.bias"))
    with pytest.raises(ModelError, match=r"do not fit the model tiny: generator\.to_rgb\.2\.bias is missing\.$"):
        load_model(folder)


def test_extra_tensor(folder: Path) -> None:
    respell(folder, lambda state: state.update({"discriminator.weight": torch.zeros(1)}))
    with pytest.raises(ModelError, match=r"tiny: discriminator\.weight is not part of this architecture\.$"):
        load_model(folder)


def test_misshapen_tensor(folder: Path) -> None:
    respell(folder, lambda state: state.update({"generator.to_rgb.2.bias": torch.zeros(4)}))
    with pytest.raises(ModelError, match=r"tiny: generator\.to_rgb\.2\.bias has shape \(4,\) instead of \(3,\)\.$"):
        load_model(folder)


def test_every_fault_is_told_at_once(folder: Path) -> None:
    def spoil(state: State) -> None:
        del state["generator.to_rgb.2.bias"]
        state["generator.to_rgb.2.weight"] = state["generator.to_rgb.2.weight"][:1].clone()
        state["generator.extra"] = torch.zeros(1)

    respell(folder, spoil)
    with pytest.raises(ModelError, match=r"bias is missing; .*extra is not part of .*weight has shape \(1, "):
        load_model(folder)


def test_weights_of_another_architecture(folder: Path) -> None:
    rewrite(folder / "config.json", domains=["anime", "female", "male"])
    with pytest.raises(ModelError, match=r"mapping_network\.unshared\.2.* is missing.*; and \d+ more\.$"):
        load_model(folder)


# Files that are broken or not there


@pytest.mark.parametrize("content", [b"", b"0" * 1000, b"\x80\x04\x95pickle"], ids=["empty", "zeros", "pickle"])
def test_broken_weights(folder: Path, content: bytes) -> None:
    (folder / SAFETENSORS_SINGLE_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is broken or not a safetensors file: "):
        load_model(folder)


def test_truncated_weights(folder: Path) -> None:
    file = folder / SAFETENSORS_SINGLE_FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors is broken or not a safetensors file: "):
        load_model(folder)


def test_missing_weights(folder: Path) -> None:
    (folder / SAFETENSORS_SINGLE_FILE).unlink()
    with pytest.raises(ModelError, match=r"lacks the weights file model\.safetensors"):
        load_model(folder)


def test_missing_shard(sharded: Path) -> None:
    shard = weight_files(sharded)[1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"lacks the weights file {shard.name}"):
        load_model(sharded)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": ["b"]}}', "\udcff"]
)
def test_broken_index(sharded: Path, text: str) -> None:
    (sharded / SAFETENSORS_INDEX_FILE).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json is not a valid index of weights"):
        load_model(sharded)


@pytest.mark.parametrize("way", ["../{name}", "{folder}/{name}", "..", "", "."])
def test_index_cannot_leave_the_folder(sharded: Path, saved: Path, tmp_path: Path, way: str) -> None:
    """A stranger's index that names files elsewhere gets none of them."""
    shutil.copy(saved / SAFETENSORS_SINGLE_FILE, tmp_path / "secret.safetensors")
    name = way.format(name="secret.safetensors", folder=tmp_path)
    state = load_file(tmp_path / "secret.safetensors")
    rewrite(sharded / SAFETENSORS_INDEX_FILE, weight_map=dict.fromkeys(state, name))
    with pytest.raises(ModelError, match=r"secret\.safetensors|not a valid index|lacks the weights file"):
        load_model(sharded)


# config.json


@pytest.mark.parametrize("missing", ["file", "folder"])
def test_missing_config(folder: Path, missing: str) -> None:
    (folder / "config.json").unlink()
    path = folder if missing == "file" else folder / "nowhere"
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value) == f"{path} is not a model folder: it has no readable config.json."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": 32, "colour": True}, "config.json has unknown entries: colour, size."),
        ({"architecture": {"image_size": 32, "depth": 3}}, "'depth'"),
        ({"architecture": None}, "'architecture'"),
        ({"architecture": "large"}, "config.json is not a valid model description"),
        ({"architecture": {"image_size": 48}}, "must be one of (16, 32, 64, 128, 256, 512, 1024), not 48"),
        ({"architecture": {"image_size": "32"}}, "not '32'"),
        ({"architecture": {"base_channels": 0}}, "The base_channels of a model must be a whole number"),
        ({"architecture": {"max_channels": 10**6}}, "up to 2048, not 1000000"),
        ({"architecture": {"style_dim": None}}, "The style_dim of a model must be a whole number up to 2048, not None"),
        ({"architecture": {"image_size": 32.0}}, "The image_size of a model must be a whole number"),
        ({"architecture": {"high_pass_weight": -1}}, "must be 0 or more, not -1"),
        ({"name": None}, "'name'"),
        ({"domains": ["female", "anime"]}, "must be sorted, different names, not ['female', 'anime']"),
        ({"domains": ["anime", "anime"]}, "must be sorted, different names, not ['anime', 'anime']"),
        ({"domains": []}, "must be sorted, different names, not []"),
        ({"domains": "anime"}, "not ['a', 'n', 'i', 'm', 'e']"),
        ({"domains": [1, 2]}, "must be names, not [1, 2]"),
        ({"domains": 2}, "config.json is not a valid model description"),
        ({"framing": [[0.5, 0.5]]}, "must be five points (x, y), not ((0.5, 0.5),)"),
        ({"framing": [[0.5, "left"]] * 5}, "left"),
    ],
)
def test_impossible_config(folder: Path, changes: dict[str, object], sentence: str) -> None:
    rewrite(folder / "config.json", **changes)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1]", b"null", b"{", b"\xff\xfe"])
def test_config_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_model(folder)
