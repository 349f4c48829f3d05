"""Which models there are, and where their weights come from.

    find_model("anime-64")                     # a row of MODELS, bundled under weights/
    find_model("runs/mine/snapshots/010000")   # a model folder
    find_model("user/repo@revision")           # a Hub repository, from the cache or downloaded
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import SAFETENSORS_INDEX_FILE
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stargan.checkpoint import CONFIG_FILE, ModelError, load_model, weight_files

WEIGHTS = Path(__file__).parent.parent / "weights"
# Never pickles: a model of a stranger must not run code.
HUB_FILES = [CONFIG_FILE, "*.safetensors", SAFETENSORS_INDEX_FILE, "README.md"]
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class ModelSpec:
    """One row a model.

    Attributes:
        title: as the app's menu shows it.
        source: name of a folder in ``weights/``, a path, or "user/repo[@revision]" on the Hub.
        sha256: of files by name; checked when the model is fetched from the Hub.
    """

    name: str
    title: str
    source: str
    sha256: Mapping[str, str] = field(default_factory=dict)


# What a model can do (domains, size, framing, licence) stands in its own config.json.
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec("anime-64", "Anime, 64 px", str(WEIGHTS / "anime-64")),
    )
}  # fmt: skip
DEFAULT_MODEL = "anime-64"


def available_models() -> dict[str, ModelSpec]:
    """The app's menu: the registered models, and those that the environment variable ``STARGAN_MODELS`` names.

    ``STARGAN_MODELS`` holds Hub repositories or folders, separated by commas or spaces.
    """
    further = re.split(r"[,\s]+", os.environ.get("STARGAN_MODELS", ""))
    return MODELS | {name: ModelSpec(name, Path(name).name, name) for name in further if name}


def find_model(name: str, token: str | None = None) -> Path:
    """The folder of a model: of a registered name, of a path, or of "user/repo[@revision]" on the Hub.

    A model that is in the Hub's cache is taken from there without asking the Hub; else it is downloaded, with progress.

    Raises:
        ModelError: there is no such model, or it cannot be fetched, or a file has another sha256 than the registry says.
    """
    spec = available_models().get(name) or ModelSpec(name, name, name)
    folder = Path(spec.source)
    if (folder / CONFIG_FILE).is_file():
        return folder
    if folder.exists():
        raise ModelError(f"{folder} is not a model folder: it has no {CONFIG_FILE}.")
    hub = _HUB_NAME.fullmatch(spec.source)
    if hub is None:
        known = ", ".join(available_models())
        raise ModelError(f"There is no model {name!r}: give one of {known}, a model folder, or user/repo of the Hub.")
    folder = _cached(hub["repo"], hub["revision"]) or _downloaded(hub["repo"], hub["revision"], token)
    _check(folder, spec)
    return folder


def _cached(repo: str, revision: str | None) -> Path | None:
    """The model's folder in the Hub's cache, if all of its files are there: a download may have broken off."""
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES, local_files_only=True))
        weight_files(folder)
    except (LocalEntryNotFoundError, ModelError):
        return None
    return folder if (folder / CONFIG_FILE).is_file() else None


def _downloaded(repo: str, revision: str | None, token: str | None) -> Path:
    at = f"{repo} at {revision}" if revision else repo
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES, token=token))
    except GatedRepoError as error:
        raise ModelError(f"The model {repo} is gated: ask for access on its Hub page, then log in.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"The Hub has no model {repo}, or it is private and you are not logged in.") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"The model {repo} has no revision {revision!r}.") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(f"The model {at} is not in the cache, and the Hub cannot be reached.") from error
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"The download of {at} broke off: {error}. Try again: what has arrived is kept.") from error


def _check(folder: Path, spec: ModelSpec) -> None:
    for name, expected in spec.sha256.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"The model {spec.name} lacks the file {name}.")
        with file.open("rb") as stream:
            actual = hashlib.sha256(stream.read()).hexdigest()
        if actual != expected:
            # the cache keeps contents behind links: both go, so that the next start downloads afresh
            file.resolve().unlink()
            file.unlink(missing_ok=True)
            raise ModelError(f"{name} of {spec.name} has the sha256 {actual} instead of {expected}; it was deleted.")


def push_model(folder: str | Path, repo: str, private: bool = False, token: str | None = None) -> str:
    """Publishes a model folder with its card on the Hub; returns the page's address.

    Raises:
        ModelError: the folder does not load, has no card, or the Hub refuses.
    """
    folder = Path(folder)
    load_model(folder)
    card = folder / "README.md"
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise ModelError(f"{folder} has no model card: write a README.md that begins with the Hub's front matter.")
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=HUB_FILES)
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(f"The Hub did not take {repo}: {error}.") from error
    return f"{api.endpoint}/{repo}"
