"""The Space: README's front matter, the upload that ``make space`` shows, and the app as a Space runs it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from asking import report
from gradio_client import Client, handle_file
from hub_server import HubServer
from huggingface_hub import SpaceCard, SpaceHardware
from PIL import Image
from safetensors.torch import load
from serving import ROOT, start, unprivileged

from stargan.constants import DEFAULT_MODEL
from stargan.training.state import DISCRIMINATOR_FILE

COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def test_the_front_matter() -> None:
    """What the Hub's reference of a Space's configuration asks."""
    facts = SpaceCard.load(ROOT / "README.md").data.to_dict()
    assert facts["sdk"] == "gradio"
    locked = re.search(r"^gradio==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)[1]
    assert facts["sdk_version"] == locked  # the version that the tests run with
    assert {facts["colorFrom"], facts["colorTo"]} <= COLOURS
    assert len(facts["short_description"]) <= 60
    assert facts["suggested_hardware"] in set(SpaceHardware)
    assert (ROOT / facts["app_file"]).is_file()
    assert facts["license"] == "mit"


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """The commands that ``make space`` shows."""
    recipe = re.search(r'@echo "  (rm -rf space .+)"', (ROOT / "Makefile").read_text())[1]
    return recipe.replace("$(BIN)/", f"{ROOT}/.venv/bin/").split(" && ")


@pytest.fixture(scope="module")
def space(steps: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is uploaded, as a folder that cannot be written."""
    if not (ROOT / ".git").exists():
        pytest.skip("this copy is not under git")
    top = tmp_path_factory.mktemp("space")
    git = {"GIT_DIR": subprocess.check_output(["git", "rev-parse", "--absolute-git-dir"], cwd=ROOT, text=True).strip()}
    subprocess.run(["bash", "-c", " && ".join(steps[:-1])], cwd=top, env=os.environ | git, check=True)
    subprocess.run(["chmod", "-R", "a-w", "space"], cwd=top, check=True)
    return top / "space"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_upload(steps: list[str], space: Path, tmp_path: Path) -> None:
    hub = HubServer()
    hub.add("user/drawn", {"README.md": b"a new Space's own", "gone.py": b"of an earlier version"})
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    try:
        subprocess.run(
            ["bash", "-c", steps[-1].replace("USER/SPACE", "user/drawn")],
            cwd=space.parent,
            env=os.environ | online | {"HF_TOKEN": "hf_writer"},
            check=True,
            timeout=240,
        )
    finally:
        hub.stop()
    assert hub.repositories["user/drawn"].files == contents(space)
    assert ".gitattributes" not in contents(space)  # the Space's own names what goes to Git LFS


def test_the_model_that_travels_with_it(space: Path) -> None:
    """The default one and no other, in fp16, in files that a Space takes without Git LFS; what only training needs stays here."""
    (folder,) = (space / "weights").iterdir()
    assert folder.name == DEFAULT_MODEL
    assert DISCRIMINATOR_FILE not in contents(folder)
    for name, content in contents(folder).items():
        assert len(content) < 10e6, name
        if name.endswith(".safetensors"):
            assert {tensor.dtype for tensor in load(content).values()} == {torch.float16}


def test_the_app_runs_there(space: Path, portrait: Image.Image, tmp_path: Path) -> None:
    before = contents(space)
    photo = tmp_path / "photo.png"
    portrait.save(photo)
    home = tmp_path / "home"
    home.mkdir()
    # without SYSTEM=spaces: it starts hot reloading, which wants the package that a Space has installed beforehand
    server = start(source=space, SPACE_ID="user/drawn", HOME=str(home), STARGAN_COMPILE="")
    try:
        client = Client(server.url, download_files=tmp_path, verbose=False, analytics_enabled=False)
        drawings = client.predict(photo=handle_file(photo), count=2, api_name="/latent_grid")[1]
        assert [Image.open(drawing["image"]).format for drawing in drawings] == ["PNG"] * 2
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert "ERROR" not in log, log
    finally:
        server.stop()
    assert contents(space) == before


def test_nothing_can_be_written_but_uploads(space: Path, portrait: Image.Image, tmp_path: Path) -> None:
    """Neither the weights nor a home or cache."""
    weights = next(space.glob("weights/*/config.json"))
    code = f"open({str(weights)!r}, 'a')"
    tried = subprocess.run([*unprivileged(), "-c", code], capture_output=True, text=True, check=False)
    assert "PermissionError" in tried.stderr
    photo = tmp_path / "photo.png"
    portrait.save(photo)
    (tmp_path / "file").touch()  # a folder below a file cannot be made
    nowhere = str(tmp_path / "file" / "home")
    server = start(
        source=space, HOME=nowhere, XDG_CACHE_HOME=nowhere, HF_HOME=nowhere, TORCH_HOME=nowhere, MPLCONFIGDIR=nowhere
    )
    try:
        client = Client(server.url, download_files=tmp_path, verbose=False, analytics_enabled=False)
        assert len(client.predict(photo=handle_file(photo), count=2, api_name="/latent_grid")[1]) == 2
        report("readonly", "weights, home and caches: it draws as ever")
        log = server.log.read_text()
        assert "Traceback" not in log, log
        assert "ERROR" not in log, log
    finally:
        server.stop()
