"""A model as users of the Hub know one: its card's figures and example, and the methods of ``ModelHubMixin``."""

from __future__ import annotations

import errno
import inspect
import json
import shutil
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import serving
from asking import wait_until
from gradio_client import Client as GradioClient
from gradio_client import handle_file
from hub_server import HubServer
from huggingface_hub import ModelCard, ModelHubMixin
from PIL import Image
from test_registry import (
    CARD,
    READER,
    STRAY,
    WRITER,
    Client,
    assert_same,
    client,
    clients,
    environment,
    folder,
    home,
    hub,
    model,
)

from stargan import Translator
from stargan.evaluation.report import Row, means, to_json
from stargan.models.cards import copy_model, pictures, published_card
from stargan.models.checkpoint import Model, load_model, save_model
from stargan.models.config import ModelError
from stargan.models.registry import push_model

# fixtures of another module
__all__ = ["client", "clients", "environment", "folder", "home", "hub", "model"]


@pytest.fixture(scope="module")
def programs() -> dict[str, str]:
    return {"first": "0"}


def rows(model: str) -> list[Row]:
    """As an evaluation without weights for LPIPS would find them."""
    swd = {"64": 14.7, "32": 15.7, "mean": 15.2}
    found = [
        Row(model, mode, pair, "", swd, swd, swd, spread, {"judged": 0.9}, {"fid": fid, "kid": float("nan")})
        for mode, pair, spread, fid in (
            ("latent", "female>anime", 0.75, 21.5),
            ("latent", "anime>female", 0.5, 40.25),
            ("reference", "female>anime", 0.7, 31.0),
        )
    ]
    return found + means(found)


def illustrate(folder: Path) -> None:
    """A card that shows two pictures of the folder, one that is not there, one elsewhere, and one outside of the folder."""
    text = "![Results](results.png) ![More](more/faces.png) ![Gone](gone.png) ![Far](https://example.com/far.png)"
    (folder / "README.md").write_text(f"{CARD}{text} ![Outside](more/../../secret.png)\n")
    (folder / "more").mkdir()
    for name in ("results.png", "more/faces.png", "unmentioned.png", "../secret.png"):
        Image.new("RGB", (8, 8), "red").save(folder / name)


# The card


def test_a_pushed_model_tells_its_figures_and_shows_an_example(hub: HubServer, client: Client, folder: Path) -> None:
    illustrate(folder)
    (folder / "evaluation.json").write_text(to_json(rows("runs/x/snapshots/01"), psi=0.8, outputs=10))
    before = (folder / "README.md").read_bytes()
    client(push_model, folder, "user/told", token=WRITER)
    arrived = hub.repositories["user/told"].files
    assert {"results.png", "more/faces.png"} <= set(arrived)
    assert not set(arrived) & {*STRAY, "unmentioned.png", "evaluation.json", "secret.png", "gone.png"}
    assert arrived["results.png"] == (folder / "results.png").read_bytes()
    assert (folder / "README.md").read_bytes() == before

    text = arrived["README.md"].decode()
    assert text.endswith(before.decode().split("---\n")[-1])
    data = ModelCard(text).data
    assert (data.library_name, data.license, data.tags) == ("stargan", "cc0-1.0", ["image-to-image"])
    assert data.widget == [
        {"text": "Results", "output": {"url": "results.png"}},
        {"text": "More", "output": {"url": "more/faces.png"}},
    ]
    assert data.model_name == "tiny"
    told = {
        (result.dataset_config, result.metric_type, result.metric_name.split(", ", 1)[1]): result.metric_value
        for result in data.eval_results
    }
    latent = "latent-guided, ψ = 0.8"
    assert told["female>anime", "fid", latent] == 21.5
    assert told["female>anime", "fid", "reference-guided"] == 31.0
    assert told["mean", "fid", latent] == 30.875
    assert told["anime>female", "spread", latent] == 0.5
    assert told["female>anime", "sliced-wasserstein-distance", latent] == 15.2
    assert told["female>anime", "judged", latent] == 0.9
    assert "kid" not in {kind for _, kind, _ in told}  # NaN is no figure
    assert {result.task_type for result in data.eval_results} == {"image-to-image"}
    (index,) = data.to_dict()["model-index"]
    assert {result["dataset"]["config"] for result in index["results"]} == {"female>anime", "anime>female", "mean"}


def test_what_a_card_says_itself_stays(folder: Path) -> None:
    illustrate(folder)
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license:", "widget:\n- text: mine\nlicense:"))
    assert published_card(folder) == card.read_text()  # to the byte, comments of YAML included
    (folder / "evaluation.json").write_text(to_json(rows("anything")))
    assert ModelCard(published_card(folder)).data.widget == [{"text": "mine"}]


def test_of_an_evaluation_of_several_models_its_own_rows_count(folder: Path) -> None:
    file = folder / "evaluation.json"
    other = [Row(**{**vars(row), "spread": 9.0, "model": "runs/other"}) for row in rows("")]
    file.write_text(to_json([*other, *rows("models/tiny")]))
    figures = ModelCard(published_card(folder)).data.eval_results
    assert {result.metric_value for result in figures if result.metric_type == "spread"} == {0.75, 0.5, 0.625, 0.7}
    file.write_text(to_json([*other, *rows("runs/this")]))
    with pytest.raises(ModelError, match=r"evaluation\.json has rows of 'runs/other', 'runs/this': which is tiny, it"):
        published_card(folder)
    for text in ("{", '{"rows": [{"model": 1}]}', "[]", '{"rows": 3}'):
        file.write_text(text)
        with pytest.raises(ModelError, match=r"evaluation\.json is not what `python -m stargan evaluate` writes"):
            push_model(folder, "user/refused")


def test_the_bundled_card_shows_its_sheet() -> None:
    translator = Translator.from_pretrained("anime-128", device="cpu")
    assert translator.folder is not None
    assert list(pictures(translator.folder)) == ["results.webp"]
    data = ModelCard(published_card(translator.folder)).data
    assert data.library_name == "stargan"
    assert data.widget[0]["output"] == {"url": "results.webp"}


# The methods


def test_they_take_what_those_of_the_mixin_take() -> None:
    for name in ("from_pretrained", "save_pretrained", "push_to_hub"):
        theirs = inspect.signature(getattr(ModelHubMixin, name)).parameters
        ours = inspect.signature(getattr(Translator, name)).parameters
        # config.json is the model's own, and cannot be another
        left_out = {"config"} | {key for key, one in theirs.items() if one.kind is one.VAR_KEYWORD}
        assert set(theirs) - left_out <= set(ours), name
        for key in set(theirs) - left_out:
            assert ours[key].kind == theirs[key].kind, (name, key)
            if key != "commit_message":
                assert ours[key].default == theirs[key].default, (name, key)


def drawing(translator: Translator) -> list:
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    styles = translator.latent_styles("anime", [3])
    (picture,) = translator.decode(translator.encode(Image.fromarray(noise)), styles)
    return np.asarray(picture).tolist()


def publish(folder: Path, repo: str, **options: object) -> tuple[str, list]:
    translator = Translator.from_pretrained(folder, device="cpu", precision="exact")
    return translator.push_to_hub(repo, **options), drawing(translator)


def take(repo: str, **options: object) -> tuple[Path | None, list]:
    translator = Translator.from_pretrained(repo, device="cpu", precision="exact", **options)
    return translator.folder, drawing(translator)


def test_there_and_back(hub: HubServer, client: Client, folder: Path, model: Model, tmp_path: Path) -> None:
    illustrate(folder)
    url, before = client(
        publish,
        folder,
        "user/mixed",
        private=True,
        token=WRITER,
        commit_message="The first",
        ignore_patterns="more/*",
        model_card_kwargs={"license": "mit", "language": "ja"},
    )
    repository = hub.repositories["user/mixed"]
    assert url == f"{hub.url}/user/mixed/commit/{repository.branches['main']}"
    assert repository.private
    assert "results.png" in repository.files
    assert "more/faces.png" not in repository.files
    said = ModelCard(repository.files["README.md"].decode()).data
    assert (said.license, said.language, said.library_name) == ("mit", "ja", "stargan")
    assert (folder / "README.md").read_text().startswith(CARD)

    cache = tmp_path / "cache"
    with pytest.raises(ModelError, match="The Hub has no model user/mixed, or it is private"):
        client(take, "user/mixed", cache_dir=cache, token=False)
    with pytest.raises(ModelError, match=r"'user/mixed' is not in the cache, .*cache, and nothing is to be downloaded"):
        client(take, "user/mixed", cache_dir=cache, token=READER, local_files_only=True)
    found, after = client(take, "user/mixed", cache_dir=cache, token=READER)
    assert after == before
    assert cache in found.parents
    assert_same(found, model)
    hub.requests.clear()
    assert client(take, "user/mixed", cache_dir=cache, local_files_only=True) == (found, before)
    assert hub.requests == []
    assert client(take, "user/mixed", cache_dir=cache, token=READER, force_download=True) == (found, before)
    fetched = {line for line in hub.requests if line.startswith("GET /objects/")}
    assert len(fetched) == len(list(folder.glob("model-*")))


@pytest.mark.parametrize("part", [{"allow_patterns": "README.md"}, {"ignore_patterns": "*.safetensors"}])
def test_weights_that_are_not_pushed_stay(client: Client, folder: Path, tmp_path: Path, part: dict[str, str]) -> None:
    _, before = client(publish, folder, "user/card", token=WRITER)
    client(publish, folder, "user/card", token=WRITER, commit_message="The card", **part)
    assert client(take, "user/card", cache_dir=tmp_path / "cache")[1] == before


def test_a_revision_and_a_branch(hub: HubServer, client: Client, folder: Path, tmp_path: Path) -> None:
    _, first = client(publish, folder, "user/turned", token=WRITER)
    repository = hub.repositories["user/turned"]
    repository.branches["next"] = old = repository.branches["main"]
    other = Model.build(load_model(folder).config)
    save_model(other, tmp_path / "other")
    shutil.copy(folder / "README.md", tmp_path / "other")
    _, second = client(publish, tmp_path / "other", "user/turned", token=WRITER, branch="next")
    assert repository.branches["main"] == old != repository.branches["next"]
    assert first != second
    for revision, wanted in ((None, first), ("next", second), (old, first)):
        assert client(take, "user/turned", revision=revision, cache_dir=tmp_path / "cache")[1] == wanted
    with pytest.raises(ModelError, match="user/turned has no revision 'nowhere'"):
        client(take, "user/turned", revision="nowhere")
    with pytest.raises(ModelError, match="The Hub did not take user/turned: "):
        client(publish, folder, "user/turned", token=WRITER, branch="nowhere")
    with pytest.raises(ModelError, match="You may not write to user/turned"):
        client(publish, folder, "user/turned", token=READER)


def test_saved_without_a_card_it_gets_one(folder: Path, model: Model, tmp_path: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "evaluation.json").write_text(to_json(rows("tiny")))
    target = tmp_path / "saved"
    save_model(Model.build(model.config), target)  # an earlier model in other shards
    (target / "model.safetensors").write_bytes(b"older still")
    translator = Translator.from_pretrained(folder, device="cpu")
    assert translator.save_pretrained(target) is None
    assert_same(target, model)
    assert not (target / "model.safetensors").exists()
    card = ModelCard.load(target / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("stargan", "image-to-image")
    assert {"stargan-v2", "anime"} <= set(card.data.tags)
    assert 'translator.latent("photo.jpg", domain="anime"' in card.text
    assert json.loads((target / "evaluation.json").read_text())["rows"]
    assert len(ModelCard(published_card(target)).data.eval_results) > 10

    (target / "README.md").write_text(f"{CARD}Mine.\n")
    translator.save_pretrained(target)  # as the mixin does: a card that is there stays
    assert (target / "README.md").read_text() == f"{CARD}Mine.\n"
    translator.save_pretrained(folder)  # onto itself
    assert_same(folder, model)


def test_a_copy_that_the_disk_is_too_full_for_leaves_the_earlier_model(
    folder: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(Model.build(model.config), target := tmp_path / "saved")
    before = {file.name: file.read_bytes() for file in target.iterdir()}
    copied: list[object] = []

    def full(source: Path, to: Path) -> Path:
        if copied:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(to)
        Path(to).write_bytes(source.read_bytes())
        return to

    monkeypatch.setattr("stargan.models.cards.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        copy_model(folder, target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before


def test_what_was_made_in_memory_cannot_be_saved_by_it(model: Model, tmp_path: Path) -> None:
    translator = Translator(Model.build(model.config), "cpu")
    with pytest.raises(
        ModelError, match=r"tiny was made in memory: write it with stargan\.models\.checkpoint\.save_model"
    ):
        translator.save_pretrained(tmp_path / "saved")
    with pytest.raises(ModelError, match="made in memory"):
        translator.push_to_hub("user/memory")


def test_a_visitor_sees_how_far_a_model_has_come(
    hub: HubServer, environment: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    """The Hub's library tells it in threads of its own, which know nothing of the visitor."""
    hub.add("user/coming", {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()})
    last = max(file.name for file in folder.glob("model-*"))
    hub.held[f"user/coming/{last}"] = Event()
    online = {**environment, "HF_HOME": str(tmp_path / "hf_home"), "STARGAN_MODELS": "user/coming"}
    server = serving.start(**online)
    try:
        photo = handle_file(serving.ROOT / "examples" / "photos" / "collins.png")
        visitor = GradioClient(server.url, verbose=False)
        job = visitor.submit(photo=photo, model="user/coming", count=1, api_name="/latent_grid")

        def told() -> bool:
            units = job.status().progress_data or []
            return any(unit.desc == "Loading the model" and 0 < (unit.progress or 0) < 1 for unit in units)

        assert wait_until(told, 60)
        hub.held.pop(f"user/coming/{last}").set()
        assert job.result(timeout=60)
    finally:
        for event in hub.held.values():
            event.set()
        server.stop()
