"""A model folder is read back as it was written, and anything else is refused by name."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE, SAFETENSORS_SINGLE_FILE
from safetensors.torch import load_file, save_file

from stargan.models import checkpoint, registry
from stargan.models.checkpoint import Model, load_model, save_model, weight_files
from stargan.models.config import ANIME_FRAMING, DISCRIMINATOR_FILE, Architecture, ModelConfig, ModelError
from stargan.networks import Discriminator
from stargan.training.state import save_discriminator

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
    for name in ("evaluation.json", "discriminator.safetensors"):
        (sharded / name).write_text("[]")  # of the larger one
    assert len(weight_files(sharded)) >= 2
    monkeypatch.undo()
    save_model(model, sharded)
    assert {file.name for file in sharded.iterdir()} == {"README.md", "config.json", SAFETENSORS_SINGLE_FILE}
    load_model(sharded)


def test_others_can_read_it(sharded: Path, tmp_path: Path) -> None:
    """A server of another user, or a container's: as far as the umask lets them."""
    for file in sharded.iterdir():
        assert file.stat().st_mode & 0o777 == 0o666 & ~_umask(), file.name
    save_discriminator(Discriminator(32, 2, 8, 16), tmp_path)
    assert (tmp_path / "discriminator.safetensors").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def test_an_earlier_model_stays_whole_where_the_disk_is_full(
    sharded: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in sharded.iterdir()}
    monkeypatch.undo()

    def full(_: object, folder: str, **__: object) -> None:
        (Path(folder) / SAFETENSORS_SINGLE_FILE).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stargan.models.checkpoint.save_torch_state_dict", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, sharded)
    assert {file.name: file.read_bytes() for file in sharded.iterdir()} == before


@pytest.mark.parametrize("large", [True, False])
def test_there_is_no_mixture_of_two_models_at_any_time(
    sharded: Path, folder: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may be killed between any two files."""
    where, other = (sharded if large else folder), Model.build(replace(CONFIG, name="other"))
    (where / DISCRIMINATOR_FILE).write_bytes(b"of the earlier one")
    both = {found.config.name: tensors(found) for found in (load_model(where), other)}
    seen = []

    def looked(change: Callable) -> Callable:
        def then(*arguments: object, **options: object) -> object:
            done = change(*arguments, **options)
            try:
                found = load_model(where)
            except ModelError:
                seen.append("")
            else:
                seen.append(found.config.name)
                for name, tensor in tensors(found).items():
                    assert torch.equal(tensor.half(), both[found.config.name][name].half())
            return done

        return then

    monkeypatch.setattr(checkpoint, "SHARD_SIZE", 10**9 if large else 2_000_000)
    with monkeypatch.context() as patch:
        for change in ("replace", "unlink"):
            patch.setattr(Path, change, looked(getattr(Path, change)))
        save_model(other, where, beside={"evaluation.json": b"{}"})
    assert len(seen) >= 5
    assert seen[-1] == "other"
    assert (where / "evaluation.json").read_bytes() == b"{}"
    assert not (where / DISCRIMINATOR_FILE).exists()


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


def widen_header(file: Path, wide: Path) -> None:
    """The same safetensors file with a header of 2 MB, most of it blanks: the library that reads them takes it."""
    content = file.read_bytes()
    length, rest = int.from_bytes(content[:8], "little"), content[8:]
    longer = length + 2_000_000 // 8 * 8
    wide.write_bytes(longer.to_bytes(8, "little") + rest[:length] + b" " * (longer - length) + rest[length:])


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """A file of that format, as it should not be."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (safetensors({}, length=2**63), f"its header cannot have {2**63} bytes."),
        (safetensors({}, length=3), "its header cannot have 3 bytes."),
        (safetensors({}, b" " * 2_000_000, length=1_999_000), "its header cannot have 1999000 bytes."),
        (b"\x08\0\0", "its header cannot have 8 bytes."),
        (safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}), "broken or not"),
        (safetensors({"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, b"0000"), "broken or not"),
        (safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}}, b"0000"), "broken or not"),
        (safetensors({"a": 1}), "broken or not"),
        (struct.pack("<Q", 900_000) + b"[" * 900_000, "broken or not"),
    ],
    ids=range(9),
)
def test_hostile_header(folder: Path, content: bytes, sentence: str) -> None:
    (folder / SAFETENSORS_SINGLE_FILE).write_bytes(content)
    start = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert time.perf_counter() - start < 2
    assert sentence in str(caught.value)
    assert len(str(caught.value).replace(str(folder), "")) < 200


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor is read."""

    def fail(*_: object) -> None:
        raise AssertionError("tensors were loaded before their headers were checked")

    monkeypatch.setattr(checkpoint, "load_file", fail)


@pytest.mark.usefixtures("unloadable")
def test_shapes_and_dtypes_are_checked_before_tensors_are_loaded(folder: Path, sharded: Path) -> None:
    respell(folder, lambda state: state.update({"generator.to_rgb.2.bias": torch.zeros(3, dtype=torch.int64)}))
    with pytest.raises(ModelError, match=r"holds generator\.to_rgb\.2\.bias as 'I64', which are no floating-point"):
        load_model(folder)
    respell(folder, lambda state: state.update({"generator.to_rgb.2.bias": torch.zeros(4)}))
    with pytest.raises(ModelError, match=r"has shape \(4,\) instead of \(3,\)"):
        load_model(folder)
    respell(folder, lambda state: state.update({"x" * 5000: torch.zeros(1)}))
    with pytest.raises(ModelError, match=r"x is not part of this architecture") as caught:
        load_model(folder)
    assert len(str(caught.value)) < 400
    first, second, *_ = weight_files(sharded)
    shutil.copy(first, second)
    with pytest.raises(ModelError, match=r"holds '.*', which another file holds too\."):
        load_model(sharded)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([f"model-{i:05}-of-05000.safetensors" for i in range(5000)], "it names 5000 files, over 256."),
        (["../model.safetensors"], "it names '../model.safetensors'."),
        (["/etc/passwd"], "it names '/etc/passwd'."),
        (["sub/model-00001-of-00002.safetensors"], "it names 'sub/model-00001-of-00002.safetensors'."),
        (["pytorch_model.bin"], "it names 'pytorch_model.bin'."),
        (["x" * 5000], f"it names '{'x' * 58}…."),
        (["model-00001-of-00002.safetensors\n"], "it names"),
    ],
)
def test_hostile_index(sharded: Path, names: list[str], sentence: str) -> None:
    for name in names:
        if "/" not in name and len(name) < 100:
            (sharded / name).touch()
    rewrite(sharded / SAFETENSORS_INDEX_FILE, weight_map={f"tensor{i}": name for i, name in enumerate(names)})
    with pytest.raises(ModelError, match="is not a valid index of weights") as caught:
        load_model(sharded)
    assert sentence in str(caught.value)
    assert len(str(caught.value).replace(str(sharded), "")) < 200


@pytest.mark.parametrize("content", [b"[" * 900_000, b'{"weight_map":' * 9000, b" " * 2_000_000])
def test_index_that_is_a_bomb(sharded: Path, content: bytes) -> None:
    (sharded / SAFETENSORS_INDEX_FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"is not a valid index of weights|has more than 1000000 bytes"):
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
        ({"architecture": {"image_size": 32, "depth": 3}}, "config.json has unknown entries: architecture.depth."),
        ({"architecture": None}, "config.json lacks the entry 'architecture'."),
        ({"architecture": "large"}, "The architecture of a model must be an object, not 'large'."),
        ({"architecture": None, "depth": 3}, "config.json has unknown entries: depth."),
        ({"architecture": {"image_size": 48}}, "must be one of (16, 32, 64, 128, 256, 512, 1024), not 48"),
        ({"architecture": {"image_size": "32"}}, "not '32'"),
        ({"architecture": {"base_channels": 0}}, "The base_channels of a model must be a whole number"),
        ({"architecture": {"max_channels": 10**6}}, "up to 2048, not 1000000"),
        ({"architecture": {"style_dim": None}}, "The style_dim of a model must be a whole number up to 2048, not None"),
        ({"architecture": {"image_size": 32.0}}, "The image_size of a model must be a whole number"),
        (
            {"architecture": {"image_size": True}},
            "The image_size of a model must be a whole number up to 2048, not True.",
        ),
        ({"architecture": {"finish_channels": 65}}, "a whole number from 0 to 64, not 65."),
        ({"architecture": {"high_pass_weight": 1e300}}, "a number from 0 to 1000, not 1e+300."),
        ({"architecture": {"high_pass_weight": float("nan")}}, "a number from 0 to 1000, not nan."),
        (
            {"architecture": {"high_pass_weight": -1}},
            "The high_pass_weight of a model must be a number from 0 to 1000, not -1.",
        ),
        ({"name": None}, "'name'"),
        ({"domains": ["female", "anime"]}, "must be sorted, different names, not ['female', 'anime']"),
        ({"domains": ["anime", "anime"]}, "must be sorted, different names, not ['anime', 'anime']"),
        ({"domains": []}, "must be sorted, different names, not []"),
        (
            {"domains": "anime"},
            "The domains of a model must be names of letters, digits, - and _, up to 64 characters each, not 'anime'.",
        ),
        ({"domains": [1, 2]}, "The domains of a model must be names of"),
        ({"domains": 2}, "The domains of a model must be names of"),
        (
            {"domains": ["../x"]},
            "The domains of a model must be names of letters, digits, - and _, up to 64 characters each, not '../x'.",
        ),
        ({"domains": [".hidden"]}, "not '.hidden'."),
        ({"domains": ["a/b"]}, "not 'a/b'."),
        ({"domains": ["a\n"]}, r"not 'a\n'."),
        ({"domains": [""]}, "not ''."),
        ({"domains": ["a" * 65]}, f"not '{'a' * 58}…."),
        ({"domains": [f"d{i:04}" for i in range(5000)]}, "The domains of a model must be at most 64, not 5000."),
        ({"domains": [f"d{i:04}" for i in range(65)]}, "The domains of a model must be at most 64, not 65."),
        ({"grayscale_domains": ["cat"]}, "The grayscale domains of a model must be among its domains; 'cat' is not."),
        ({"grayscale_domains": "anime"}, "The grayscale_domains of a model must be names of"),
        ({"name": "../x"}, "The name of a model must be 1 to 100 characters without a slash, not '../x'."),
        ({"name": ["x"]}, "The name of a model must be 1 to 100 characters without a slash, not ['x']."),
        ({"licence": "x" * 2000}, "The licence of a model must be a text of up to 1000 characters, not 'xxx"),
        ({"training": []}, "The training of a model must be an object, not []."),
        ({"training": {"a": json.loads("[" * 100 + "]" * 100)}}, "must not nest more than 16 levels."),
        ({"x" * 5000: 1}, f"config.json has unknown entries: {'x' * 59}…."),
        ({str(i): 1 for i in range(5000)}, "config.json has unknown entries: 0, 1, 10, 100,"),
        (
            {"framing": [[0.5, float("nan")]] * 5},
            "The framing of a model must be five points (x, y) in fractions of the side, not nan.",
        ),
        ({"framing": [[0.5, float("inf")]] * 5}, "not inf."),
        ({"framing": [[0.5, 1e9]] * 5}, "not 1000000000.0."),
        (
            {"framing": [[0.5, 0.5, 0.5]] * 5},
            "The framing of a model must be five points (x, y) in fractions of the side, not",
        ),
        ({"framing": [[0.5, 0.5]] * 5}, "The framing of a model must be five points apart, not"),
        ({"framing": [[0.5, i / 10] for i in range(5)]}, "The framing of a model must be five points apart, not"),
        (
            {"architecture": {"image_size": 1024, "base_channels": 2048}},
            "The base_channels of a model of 1024 px must be at most 32, not 2048.",
        ),
        (
            {"architecture": {"image_size": 512, "base_channels": 128, "max_channels": 2048}},
            "The architecture of the model 'tiny' has 872 million parameters; at most 500 million are possible.",
        ),
        ({"framing": [[0.5, 0.5]]}, "must be five points (x, y), not ((0.5, 0.5),)"),
        ({"framing": [[0.5, "left"]] * 5}, "left"),
    ],
)
def test_impossible_config(folder: Path, changes: dict[str, object], sentence: str) -> None:
    rewrite(folder / "config.json", **changes)
    start = time.perf_counter()
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert time.perf_counter() - start < 2
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b"null",
        b"{",
        b"\xff\xfe",
        b"[" * 90_000,
        b'{"a":' * 15_000,
        b" " * 10**6,
        b'{"name": "\\ud800"}',
        b"9" * 5000,
    ],
)
def test_config_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        load_model(folder)
    assert len(str(caught.value).replace(str(folder), "")) < 150


def test_endless_config_is_not_read(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=r"config\.json has more than 100000 bytes"):
        load_model(folder)


def test_published_config_is_read_as_it_stands() -> None:
    text = (registry.WEIGHTS / registry.DEFAULT_MODEL / "config.json").read_text(encoding="utf-8")
    config = ModelConfig.from_json(text)
    written = json.loads(config.to_json())
    architecture = {"finish_channels": 0} | json.loads(text)["architecture"]
    assert written == json.loads(text) | {"grayscale_domains": [], "architecture": architecture}
    assert ModelConfig.from_json(config.to_json()) == config
    assert config.framing == ANIME_FRAMING


def test_configs_are_values() -> None:
    assert replace(CONFIG, name="other") == ModelConfig(
        "other", CONFIG.domains, TINY, POINTS, "CC0-1.0", CONFIG.training
    )
    assert pickle.loads(pickle.dumps(CONFIG)) == CONFIG
    with pytest.raises(ModelError, match="The image_size of a model must be a whole number up to 2048, not '32'"):
        Architecture("32")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="The max_channels of a model must be a whole number up to 2048, not 0"):
        replace(TINY, max_channels=0)
    with pytest.raises(ModelError, match="lacks the entry 'domains'"):
        ModelConfig("x")  # type: ignore[call-arg]


@pytest.mark.parametrize("architecture", [
    TINY,
    Architecture(16),
    Architecture(64, base_channels=32, max_channels=256),
    Architecture(32, base_channels=8, max_channels=16, finish_channels=64),
    Architecture(128, style_dim=512, latent_dim=256),
    Architecture(256, high_pass_weight=1.0),
    Architecture(512, style_dim=8, base_channels=16, max_channels=1024),
    Architecture(1024, max_channels=2048),
])  # fmt: skip
@pytest.mark.parametrize("count", [1, 3, 64])
def test_parameters_are_counted_without_building(architecture: Architecture, count: int) -> None:
    config = ModelConfig("x", tuple(f"d{i:02}" for i in range(count)), architecture)
    with torch.device("meta"):
        networks = Model.build(config).networks()
    networks.pop("landmarks", None)
    built = sum(p.numel() for network in networks.values() for p in network.parameters())
    assert 0.98 * built < architecture.parameters(count) < built


LARGE = """
import resource, sys
from stargan.models.checkpoint import load_model
from stargan.models.config import ModelError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_model(sys.argv[1])
except ModelError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_large_architecture_without_its_weights_takes_no_memory(folder: Path) -> None:
    """Just under what is possible, 1.9 GB, and a small file beside it."""
    large = {"image_size": 1024, "base_channels": 32, "max_channels": 1024, "style_dim": 2048}
    rewrite(folder / "config.json", architecture=large)
    assert 200e6 < Architecture(**large).parameters(2) < 500e6
    run = subprocess.run(
        [sys.executable, "-c", LARGE, folder], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    sentence, megabytes = run.stdout.splitlines()
    assert "The weights do not fit the model tiny" in sentence
    assert int(megabytes) < 150
