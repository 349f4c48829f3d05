"""Models by name, folder and Hub repository. The Hub is a real server on this machine, its clients real processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from hub_server import HubServer, sha256
from huggingface_hub.hf_api import RepoSibling

import stargan
from stargan import load_translator
from stargan.models import checkpoint, registry
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import Architecture, ModelConfig, ModelError
from stargan.models.registry import MODELS, ModelSpec, available_models, config_of, find_model, push_model

CARD = "---\nlicense: cc0-1.0\nlibrary_name: stargan\ntags:\n- image-to-image\n---\n# A model\n"
TINY = Architecture(image_size=32, base_channels=8, max_channels=16)
# What a folder or repository may hold besides a model, and nobody wants: code in a pickle, another format, notes.
STRAY = {"pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"other", "notes.txt": b"private"}

# What the clients' processes run


class Told(list):
    """What was told of a download's progress; false at first, as a gradio.Progress is."""

    def __call__(self, part: float, text: str) -> None:
        self.append((part, text))


def fetch(name: str, **options: Any) -> tuple[Path, Told]:
    """find_model, and what it told of its progress."""
    told = Told()
    return find_model(name, progress=told, **options), told


def fetch_row(spec: ModelSpec) -> Path:
    """find_model, with one row more in the registry."""
    MODELS[spec.name] = spec
    return find_model(spec.name)


def fetch_slowly(slow: str, quick: str) -> Path:
    """find_model of a model that is slow to come in one thread, meanwhile of another in the next."""
    running.append(Thread(target=find_model, args=(slow,)))
    running[0].start()
    time.sleep(0.3)
    return find_model(quick)


def finish() -> None:
    running.pop().join()


def fetch_in_threads(name: str) -> set[Path]:
    with ThreadPoolExecutor(4) as threads:
        return set(threads.map(find_model, [name] * 4))


running: list[Thread] = []


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf_home")


Client = Callable[..., Any]


@pytest.fixture(scope="module")
def environment(hub: HubServer, home: Path) -> dict[str, str]:
    """Of a process that finds its Hub here."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_ETAG_TIMEOUT": "3",
        "HF_HUB_DISABLE_XET": "1",  # Xet has a server of its own
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "0",
    }


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    """The clients' names, and whether ``HF_HUB_OFFLINE`` is set for them."""
    return {"first": "0", "second": "0", "told to be offline": "1"}


@pytest.fixture(scope="module")
def clients(environment: dict[str, str], programs: dict[str, str]) -> Iterator[dict[str, Client]]:
    """Processes whose environment says where the Hub is; each value runs a function in one of them.

    They share a cache, as one start of a program after another does. All begin together, to load while others work.
    """
    pools = {}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        for name, offline in programs.items():
            patch.setenv("HF_HUB_OFFLINE", offline)
            pools[name] = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            pools[name].submit(fetch, registry.DEFAULT_MODEL)  # the process starts now, with this environment
    yield {
        name: lambda *call, pool=pool, **options: pool.submit(*call, **options).result() for name, pool in pools.items()
    }
    for pool in pools.values():
        pool.shutdown()


@pytest.fixture
def client(clients: dict[str, Client]) -> Client:
    return clients["first"]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model.build(ModelConfig("tiny", ("anime", "female"), TINY))


@pytest.fixture
def folder(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with shards, a card and what does not belong to it."""
    monkeypatch.setattr(checkpoint, "SHARD_SIZE", 2_000_000)
    save_model(model, tmp_path / "model")
    for name, content in {"README.md": CARD.encode(), **STRAY}.items():
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(content)
    return tmp_path / "model"


@pytest.fixture
def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def shards(files: dict[str, bytes]) -> list[str]:
    found = sorted(name for name in files if name.startswith("model-"))
    assert len(found) >= 2
    return found


def assert_same(folder: Path, model: Model) -> None:
    loaded = load_model(folder)
    assert loaded.config == model.config
    for name, network in model.networks().items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(loaded.networks()[name].state_dict()[key], tensor.half().float()), f"{name}.{key}"


# Names and folders


def test_bundled_model_is_found_and_loads() -> None:
    found = find_model(registry.DEFAULT_MODEL)
    assert found.parent == registry.WEIGHTS
    assert load_model(found).config.name == registry.DEFAULT_MODEL


def test_every_row_is_named_by_its_key() -> None:
    assert [spec.name for spec in MODELS.values()] == list(MODELS)


def test_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(folder)) == folder
    monkeypatch.chdir(folder.parent.parent)
    assert find_model(f"{folder.parent.name}/model").samefile(folder)  # though user/repo looks the same
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_model("~/model") == folder


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a model folder: it has no config\.json"):
        find_model(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["anime", "../up", "/no/such/folder", "a/b/c", "user/repo@", "user/repo@../../x", "user/re po", "@main"]
)
def test_name_that_is_nothing(name: str) -> None:
    with pytest.raises(ModelError, match="There is no model") as caught:
        find_model(name)
    assert repr(name) in str(caught.value)
    assert "anime-128" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["x" * 5000, "~nobody-of-that-name/model", "nul\0l", "a/" * 3000, "user/repo@" + "x" * 5000, "🦊" * 300]
)
def test_name_that_no_path_can_have(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence, which does not say all of it back."""
    with pytest.raises(ModelError, match="There is no model") as caught:
        find_model(name)
    assert len(str(caught.value)) < 160
    with pytest.raises(ModelError, match="There is no model"):
        config_of(name)
    if "\0" not in name:  # no environment variable can hold that
        monkeypatch.setenv("STARGAN_MODELS", name)
        with pytest.raises(ModelError, match=r"STARGAN_MODELS lists .*, which is neither a folder nor") as caught:
            available_models()
        assert len(str(caught.value)) < 150


def test_default_model_needs_no_name() -> None:
    assert load_translator() is load_translator(registry.DEFAULT_MODEL)


def test_weights_of_an_installed_package(tmp_path: Path) -> None:
    """There they lie within it; whatever else is around."""
    package = Path(stargan.__file__).parent
    shutil.copytree(package, tmp_path / "site" / "stargan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(registry.WEIGHTS, tmp_path / "site" / "stargan" / "weights")
    (tmp_path / "site" / "weights").mkdir()
    code = (
        "from stargan.models.registry import *; print(find_model(DEFAULT_MODEL)); print(config_of(DEFAULT_MODEL).name)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    folder, name = run.stdout.splitlines()
    assert Path(folder) == tmp_path / "site" / "stargan" / "weights" / registry.DEFAULT_MODEL
    assert name == registry.DEFAULT_MODEL


def test_wrong_sum_of_a_folder_leaves_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "mine", ModelSpec("mine", "Mine", str(folder), {"config.json": "0" * 64}))
    with pytest.raises(ModelError, match=r"config\.json of the model mine has the sha256 \w{64} instead of 0{64}"):
        find_model("mine")
    assert (folder / "config.json").exists()


# The app's menu


@pytest.mark.parametrize("value", [None, "", "  ", ", ,"])
def test_menu_without_further_models(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STARGAN_MODELS", raising=False)
    if value is not None:
        monkeypatch.setenv("STARGAN_MODELS", value)
    assert available_models() == MODELS


def test_menu_with_further_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARGAN_MODELS", f" user/one, {folder}  user/two@v1.0,,anime-128 user/one ")
    menu = available_models()
    assert list(menu) == [*MODELS, "user/one", str(folder), "user/two@v1.0"]
    assert menu["anime-128"] == MODELS["anime-128"]
    assert [spec.title for spec in menu.values()][len(MODELS) :] == ["one", "model", "two@v1.0"]


@pytest.mark.parametrize("wrong", ["nonsense", "https://example.org/model", "user/repo@", "/no/such/folder"])
def test_menu_with_nonsense(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARGAN_MODELS", f"user/one,{wrong}")
    with pytest.raises(ModelError, match="STARGAN_MODELS lists") as caught:
        available_models()
    assert repr(wrong) in str(caught.value)
    assert find_model("anime-128").is_dir()  # which has nothing to do with it


# From the Hub


def test_download_then_cache(hub: HubServer, client: Client, files: dict[str, bytes], model: Model) -> None:
    hub.add("user/plain", files)
    found, told = client(fetch, "user/plain")
    assert_same(found, model)
    assert {str(file.relative_to(found)) for file in found.rglob("*")} == set(files) - set(STRAY) - {"onnx"}
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert len(parts) >= 2
    assert {text for _, text in told} == {"Downloading user/plain"}

    hub.requests.clear()
    hub.repositories["user/plain"].commit({})
    again, told = client(fetch, "user/plain")
    assert again == found
    assert told == []
    assert hub.requests == []


def test_revisions(hub: HubServer, client: Client, files: dict[str, bytes]) -> None:
    repository = hub.add("user/versions", files)
    first = repository.branches["main"]
    card = (CARD + "Better.\n").encode()
    repository.commit({**files, "README.md": card}, branch="v2.0")
    repository.commit({**files, "README.md": card}, branch="refs/pr/1")
    for revision, expected in (("v2.0", card), ("refs/pr/1", card), (first, CARD.encode()), ("main", CARD.encode())):
        found, _ = client(fetch, f"user/versions@{revision}")
        assert (found / "README.md").read_bytes() == expected


def test_private(hub: HubServer, client: Client, files: dict[str, bytes], model: Model) -> None:
    hub.add("user/private", files, private=True)
    with pytest.raises(ModelError, match="The Hub has no model user/private, or it is private and you are not logged"):
        client(fetch, "user/private")
    with pytest.raises(ModelError, match="The Hub does not give user/private: Invalid credentials"):
        client(fetch, "user/private", token="hf_wrong")
    found, _ = client(fetch, "user/private", token="hf_reader")
    assert_same(found, model)


def test_what_the_hub_does_not_have(hub: HubServer, client: Client, files: dict[str, bytes]) -> None:
    hub.add("user/gated", files, gated=True)
    hub.add("user/text", {"README.md": b"hello", "model.safetensors": b"0" * 1000})
    hub.add("user/bert", {"config.json": b'{"hidden_size": 768}', "model.safetensors": b"0" * 1000})
    for name, sentence in {
        "user/nothing": "The Hub has no model user/nothing, or it is private and you are not logged in.",
        "user/gated@v9": "The model user/gated has no revision 'v9'.",
        "user/gated": f"The model user/gated is gated: ask for access at {hub.url}/user/gated, then log in.",
        "user/text": "user/text is not a model for this program: it has no config.json.",
        "user/bert": "user/bert is not a model for this program: config.json has unknown entries: hidden_size.",
    }.items():
        with pytest.raises(ModelError) as caught:
            client(fetch, name)
        assert str(caught.value) == sentence
    assert not [line for line in hub.requests if "model.safetensors" in line and ("bert" in line or "text" in line)]


def test_connection_that_breaks_once_resumes(
    hub: HubServer, client: Client, files: dict[str, bytes], model: Model
) -> None:
    hub.add("user/shaky", files)
    hub.breaks = {shards(files)[0]: ["close"]}
    hub.requests.clear()
    found, told = client(fetch, "user/shaky")
    assert_same(found, model)
    assert told[-1][0] == 1.0
    assert hub.breaks[shards(files)[0]] == []


def test_connection_that_stays_broken(hub: HubServer, client: Client, files: dict[str, bytes], model: Model) -> None:
    hub.add("user/broken", files)
    last = shards(files)[-1]
    hub.breaks = {last: ["reset"]}
    with pytest.raises(ModelError, match="The download of user/broken broke off; try again"):
        client(fetch, "user/broken")
    hub.portal = True
    with pytest.raises(ModelError, match="The model user/broken is not in the cache"):
        client(fetch, "user/broken")
    hub.portal = False
    hub.requests.clear()
    found, _ = client(fetch, "user/broken")
    assert_same(found, model)
    assert any(last in line for line in hub.requests if "GET /objects" in line)


def test_wrong_sum_is_never_used(hub: HubServer, client: Client, files: dict[str, bytes], model: Model) -> None:
    shard = shards(files)[0]
    spec = ModelSpec("signed", "Signed", "user/signed", {name: sha256(files[name]) for name in (shard, "config.json")})
    repository = hub.add("user/signed", {**files, "config.json": files["config.json"].replace(b"anime", b"a_nim")})
    for _ in range(2):
        hub.requests.clear()
        with pytest.raises(ModelError, match=r"config\.json of the model signed has the sha256 \w+ instead of"):
            client(fetch_row, spec)
        assert hub.requests  # the second start asked again

    repository.commit(files)
    assert_same(client(fetch_row, spec), model)

    bad = ModelSpec("signed", "Signed", "user/signed", {"pytorch_model.bin": "0" * 64})
    with pytest.raises(ModelError, match=r"The model signed lacks the file pytorch_model\.bin"):
        client(fetch_row, bad)


def test_another_page_in_the_hubs_place(hub: HubServer, client: Client) -> None:
    hub.portal = True
    try:
        with pytest.raises(ModelError, match=f"The model user/unseen is not in the cache, and the Hub .{hub.url}"):
            client(fetch, "user/unseen")
    finally:
        hub.portal = False


def test_hub_that_never_answers(hub: HubServer, client: Client) -> None:
    hub.silent.set()
    start = time.perf_counter()
    try:
        with pytest.raises(ModelError, match=r"cannot be reached: .*timed out"):
            client(fetch, "user/unseen")
    finally:
        hub.silent.clear()
    assert time.perf_counter() - start < 30


def test_second_start_without_network(
    hub: HubServer, clients: dict[str, Client], files: dict[str, bytes], model: Model
) -> None:
    hub.add("user/kept", files)
    hub.add("user/half", files)
    hub.add("user/forged", files)
    client = clients["first"]
    client(fetch, "user/kept")
    hub.breaks = {shards(files)[-1]: ["reset"]}
    with pytest.raises(ModelError, match="broke off"):
        client(fetch, "user/half")
    forged = ModelSpec("forged", "Forged", "user/forged", {shards(files)[0]: "0" * 64})
    with pytest.raises(ModelError, match="sha256"):
        client(fetch_row, forged)
    hub.stop()
    try:
        for offline in (clients["second"], clients["told to be offline"]):
            found, told = offline(fetch, "user/kept")
            assert_same(found, model)
            assert told == []
            for name in ("user/half", "user/forged", "user/unseen", "user/kept@v2"):
                with pytest.raises(ModelError) as caught:
                    offline(fetch, name)
                begin = f"The model {name} is not in the cache, and the Hub ({hub.url}) cannot be reached: "
                assert str(caught.value).startswith(begin)
                assert "\n" not in str(caught.value)
    finally:
        hub.start()
    hub.requests.clear()
    clients["second"](fetch, "user/kept")
    assert hub.requests == []  # so there is no time-out to wait for


# The config alone


def weights_asked(hub: HubServer) -> list[str]:
    return [line for line in hub.requests if "safetensors" in line]


def test_config_is_had_without_weights(
    hub: HubServer, clients: dict[str, Client], files: dict[str, bytes], model: Model
) -> None:
    hub.add("user/config", files)
    hub.requests.clear()
    assert clients["first"](config_of, "user/config") == model.config
    assert any(line.endswith("config.json") for line in hub.requests)
    assert weights_asked(hub) == []
    hub.requests.clear()
    for client in clients.values():
        assert client(config_of, "user/config") == model.config
    assert hub.requests == []
    hub.stop()
    try:
        assert clients["second"](config_of, "user/config") == model.config
        with pytest.raises(ModelError, match="The model user/config is not in the cache, and the Hub"):
            clients["second"](find_model, "user/config")
        with pytest.raises(ModelError, match="The model user/unseen is not in the cache, and the Hub"):
            clients["second"](config_of, "user/unseen")
    finally:
        hub.start()
    assert_same(clients["second"](find_model, "user/config"), model)


def test_config_of_names_and_folders(folder: Path, model: Model) -> None:
    assert config_of(str(folder)) == model.config
    assert config_of(registry.DEFAULT_MODEL).name == registry.DEFAULT_MODEL
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    assert config_of(str(folder)) == model.config
    with pytest.raises(ModelError, match=r"has no config\.json"):
        config_of(str(folder.parent))


def test_config_does_not_wait_for_weights(
    hub: HubServer, clients: dict[str, Client], files: dict[str, bytes], model: Model
) -> None:
    hub.add("user/heavy", files)
    hub.held["user/heavy/model-*"] = Event()
    with ThreadPoolExecutor() as threads:
        download = threads.submit(clients["first"], find_model, "user/heavy")
        until(lambda: any("user/heavy/resolve" in line for line in weights_asked(hub)))
        config = threads.submit(clients["second"], config_of, "user/heavy")
        try:
            assert config.result(timeout=20) == model.config
            assert not download.done()
        finally:
            hub.held.pop("user/heavy/model-*").set()
        assert_same(download.result(), model)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_repository_that_is_too_much(hub: HubServer, client: Client, files: dict[str, bytes]) -> None:
    """Told by its listing: none of it is downloaded."""
    config = files["config.json"]
    for name, content, sentence in (
        ("user/long", {"config.json": config + b" " * 100_000}, "config.json has more than 100000 bytes."),
        (
            "user/split",
            {"config.json": config} | {f"model-{i:05}-of-00300.safetensors": b"%d" % i for i in range(300)},
            "it has 300 files of weights, over 256.",
        ),
        (
            "user/index",
            {"config.json": config, "model.safetensors.index.json": b" " * 1_000_001},
            "model.safetensors.index.json has more than 1000000 bytes.",
        ),
    ):
        hub.add(name, content)
        hub.requests.clear()
        with pytest.raises(ModelError) as caught:
            client(find_model, name)
        assert str(caught.value) == f"{name} is not a model for this program: {sentence}"
        assert not [line for line in hub.requests if "/resolve/" in line]
    listed = {name: RepoSibling(rfilename=name, size=size) for name, size in (("config.json", 9), ("a", 2_200_000_000))}
    with pytest.raises(ModelError, match=r"it has 2\.2 GB, over 2\.1\."):
        registry._check_listing(listed)


# Whole, or not at all


def blobs_sent(hub: HubServer) -> list[str]:
    return [line for line in hub.requests if line.startswith("GET /objects/")]


def reference(home: Path, repo: str) -> Path:
    """What says which commit the main branch is, in the cache."""
    return home / "hub" / f"models--{repo.replace('/', '--')}" / "refs" / "main"


def test_file_that_arrives_damaged_is_fetched_again(
    hub: HubServer, client: Client, files: dict[str, bytes], model: Model
) -> None:
    """As many bytes as the Hub says, but others."""
    hub.add("user/noisy", files)
    for name in ("config.json", shards(files)[0]):
        hub.breaks[name] = ["corrupt"]
    assert_same(client(find_model, "user/noisy"), model)
    assert not any(hub.breaks.values())


def test_file_that_stays_damaged_is_never_used(
    hub: HubServer, clients: dict[str, Client], home: Path, files: dict[str, bytes], model: Model
) -> None:
    hub.add("user/bad", files)
    last = shards(files)[-1]
    hub.breaks[last] = ["corrupt"] * 2
    with pytest.raises(
        ModelError, match=f"The download of user/bad broke off; .*: {last} is not what the Hub says it is"
    ):
        clients["first"](find_model, "user/bad")
    assert not reference(home, "user/bad").exists()
    with pytest.raises(ModelError, match="The model user/bad is not in the cache"):
        clients["told to be offline"](find_model, "user/bad")
    assert_same(clients["first"](find_model, "user/bad"), model)
    assert reference(home, "user/bad").exists()


@pytest.mark.parametrize("spoil", ["flipped", "cut", "gone"])
def test_file_damaged_in_the_cache(
    hub: HubServer, clients: dict[str, Client], files: dict[str, bytes], model: Model, spoil: str
) -> None:
    name = f"user/{spoil}"
    hub.add(name, files)
    folder = clients["first"](find_model, name)
    for file in (folder / "config.json", folder / shards(files)[0]):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        blob = file.resolve()
        if spoil == "gone":
            blob.unlink()
        else:
            blob.write_bytes(content if spoil == "flipped" else content[:-1])
    with pytest.raises(ModelError, match=f"The model {name} is not in the cache"):
        clients["told to be offline"](find_model, name)
    assert_same(clients["second"](find_model, name), model)
    assert_same(clients["told to be offline"](find_model, name), model)


# Several at once


def test_two_processes_download_one_model(
    hub: HubServer, clients: dict[str, Client], files: dict[str, bytes], model: Model
) -> None:
    """The second waits, even for a file that came damaged at first, and finds it."""
    hub.add("user/shared", files)
    hub.held["user/shared/model-*"] = Event()
    hub.breaks[shards(files)[0]] = ["corrupt"]
    hub.requests.clear()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(clients["first"], find_model, "user/shared")
        until(lambda: any("user/shared/resolve" in line for line in weights_asked(hub)))
        second = threads.submit(clients["second"], find_model, "user/shared")
        time.sleep(0.5)
        assert not first.done()
        assert not second.done()
        hub.held.pop("user/shared/model-*").set()
        found = {first.result(), second.result()}
    assert len(found) == 1
    assert_same(found.pop(), model)
    assert len(blobs_sent(hub)) == len(shards(files)) + 1
    assert sum(line == "GET /api/models/user/shared" for line in hub.requests) == 1


def test_process_killed_at_a_download_lets_go(
    hub: HubServer, clients: dict[str, Client], environment: dict[str, str], files: dict[str, bytes], model: Model
) -> None:
    hub.add("user/killed", files)
    hub.held["user/killed/model-*"] = Event()
    hub.requests.clear()
    code = "from stargan.models.registry import find_model; find_model('user/killed')"
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment, cwd=root) as process:
        until(lambda: any("user/killed/resolve" in line for line in weights_asked(hub)))
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(clients["second"], find_model, "user/killed")
            time.sleep(0.5)
            assert not waiting.done()
            process.send_signal(signal.SIGKILL)
            process.wait()
            hub.held.pop("user/killed/model-*").set()
            assert_same(waiting.result(timeout=30), model)


def test_slow_download_holds_up_no_other_model(
    hub: HubServer, client: Client, files: dict[str, bytes], model: Model
) -> None:
    for name in ("user/slow", "user/quick"):
        hub.add(name, files)
    hub.held["user/slow/*"] = Event()
    with ThreadPoolExecutor() as threads:
        try:
            found = threads.submit(client, fetch_slowly, "user/slow", "user/quick").result(timeout=20)
        finally:
            hub.held.pop("user/slow/*").set()
    assert_same(found, model)
    client(finish)
    assert_same(client(find_model, "user/slow"), model)


def test_threads_download_a_model_once(hub: HubServer, client: Client, files: dict[str, bytes], model: Model) -> None:
    hub.add("user/threads", files)
    hub.requests.clear()
    (found,) = client(fetch_in_threads, "user/threads")
    assert_same(found, model)
    assert len(blobs_sent(hub)) == len(shards(files))
    assert sum(line == "GET /api/models/user/threads" for line in hub.requests) == 1


# To the Hub

WRITER, READER = "hf_writer", "hf_reader"


def test_push_and_find(hub: HubServer, client: Client, folder: Path, files: dict[str, bytes], model: Model) -> None:
    assert client(push_model, folder, "user/pushed", token=WRITER) == f"{hub.url}/user/pushed"
    arrived = dict(hub.repositories["user/pushed"].files)
    del arrived[".gitattributes"]
    assert arrived == {name: content for name, content in files.items() if name not in STRAY}
    assert not hub.repositories["user/pushed"].private
    found, _ = client(fetch, "user/pushed")
    assert_same(found, model)


def test_second_push_leaves_nothing_of_the_first(
    hub: HubServer, client: Client, folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(push_model, folder, "user/twice", private=True, token=WRITER)
    assert hub.repositories["user/twice"].private
    assert "model.safetensors.index.json" in hub.repositories["user/twice"].files
    monkeypatch.setattr(checkpoint, "SHARD_SIZE", 9_000_000)
    save_model(model, folder)
    client(push_model, folder, "user/twice", private=True, token=WRITER)
    expected = {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert set(hub.repositories["user/twice"].files) == expected


def test_push_without_the_right_to(hub: HubServer, client: Client, folder: Path) -> None:
    for repo in ("user/mine", "user/plain"):
        with pytest.raises(ModelError, match=f"You may not write to {repo}: log in with a token that can"):
            client(push_model, folder, repo, token=READER)
    assert "user/mine" not in hub.repositories
    with pytest.raises(ModelError, match=r"The Hub did not take user/a/b: .*'user/a/b'"):
        client(push_model, folder, "user/a/b", token=WRITER)


def test_push_that_breaks_off(hub: HubServer, client: Client, folder: Path) -> None:
    hub.breaks = {"upload": ["refused"]}
    with pytest.raises(ModelError, match=r"The Hub did not take user/halfway: Error while uploading 'model-0000"):
        client(push_model, folder, "user/halfway", token=WRITER)
    assert set(hub.repositories["user/halfway"].files) == {".gitattributes"}
    hub.stop()
    try:
        with pytest.raises(ModelError, match="The Hub did not take user/halfway: "):
            client(push_model, folder, "user/halfway", token=WRITER)
    finally:
        hub.start()


def test_push_refuses_what_is_not_whole(folder: Path) -> None:
    card = folder / "README.md"
    for text, sentence in {
        "# A model\n": "lacks: license, tags, library_name",
        CARD.replace("license: cc0-1.0\n", ""): "lacks: license",
        CARD.replace("tags:", "tags: ["): "cannot be read",
        "---\n- a\n---\n": "cannot be read",
    }.items():
        card.write_text(text)
        with pytest.raises(ModelError, match=f"front matter of .*README.md {sentence}"):
            push_model(folder, "user/refused")
    card.unlink()
    with pytest.raises(ModelError, match=r"has no model card: write a README\.md"):
        push_model(folder, "user/refused")
    card.write_text(CARD)
    next(folder.glob("model-00001-*")).write_bytes(b"0" * 1000)
    with pytest.raises(ModelError, match=r"model-00001-of-\d+\.safetensors is broken"):
        push_model(folder, "user/refused")
