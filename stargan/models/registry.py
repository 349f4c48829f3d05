"""Which models there are, and where their weights come from.

- ``find_model("anime-64")``: a row of MODELS, bundled under weights/
- ``find_model("runs/mine/snapshots/010000")``: a model folder
- ``find_model("user/repo@revision")``: a Hub repository, from the cache or downloaded
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCard, hf_hub_download, snapshot_download
from huggingface_hub.constants import (
    ENDPOINT,
    HF_HUB_ETAG_TIMEOUT,
    REPOCARD_NAME,
    SAFETENSORS_INDEX_FILE,
    SAFETENSORS_SINGLE_FILE,
)

# HTTPError is the HTTP library's own base error, under whichever name this version of huggingface_hub has that library:
# a connection that is refused or breaks raises it as it is.
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects, validate_repo_id
from tqdm import tqdm

from stargan.constants import DEFAULT_MODEL
from stargan.models.checkpoint import load_model, weight_files
from stargan.models.config import CONFIG_FILE, ModelConfig, ModelError, read_config

# Inside an installed package; beside it in a checkout and on a Space.
_INSTALLED = Path(__file__).parents[1] / "weights"
WEIGHTS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "weights"
_WEIGHT_FILES = (SAFETENSORS_SINGLE_FILE, "model-?????-of-?????.safetensors", SAFETENSORS_INDEX_FILE)
# Never pickles: a stranger's model must not run code.
HUB_FILES = (CONFIG_FILE, REPOCARD_NAME, *_WEIGHT_FILES)
CARD_ENTRIES = ("license", "tags", "library_name")
# Within a branch's name, git itself forbids "..".
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*")

# Called with the fraction done, 0 to 1, and what is being done: a gradio.Progress fits.
Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class ModelSpec:
    """One row a model. What it can do (domains, size, framing, licence) stands in its own config.json.

    Attributes:
        title: as the app's menu shows it.
        source: a folder, or "user/repo[@revision]" on the Hub.
        sha256: of files by name; checked whenever the model is looked up.
    """

    name: str
    title: str
    source: str
    sha256: Mapping[str, str] = field(default_factory=dict)


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(DEFAULT_MODEL, "Anime, 64 px", str(WEIGHTS / DEFAULT_MODEL)),
    )
}  # fmt: skip


def available_models() -> dict[str, ModelSpec]:
    """The app's menu: the registered models, then those that the environment variable ``STARGAN_MODELS`` names.

    ``STARGAN_MODELS`` holds Hub repositories ("user/repo[@revision]") or folders, separated by commas or spaces.

    Raises:
        ModelError: it holds something else.
    """
    models = dict(MODELS)
    for name in re.split(r"[,\s]+", os.environ.get("STARGAN_MODELS", "")):
        if name and name not in models:
            if not Path(name).expanduser().is_dir() and _hub_name(name) is None:
                raise ModelError(f"STARGAN_MODELS lists {name!r}, which is neither a folder nor user/repo of the Hub.")
            models[name] = ModelSpec(name, Path(name).name, name)
    return models


def find_model(name: str, *, token: str | None = None, progress: Progress | None = None) -> Path:
    """The folder of a model: of a registered name, of a path, or of "user/repo[@revision]" on the Hub.

    A model that is in the Hub's cache is taken from there without asking the Hub, even where its branch has moved on
    since: name another revision to get that. Else it is downloaded.

    Args:
        token: for private repositories; None takes the one that ``hf auth login`` or HF_TOKEN left.
        progress: told how the download gets on; None draws a bar on the terminal.

    Raises:
        ModelError: there is no such model, it cannot be fetched, or a file has another sha256 than the registry says.
    """
    spec = MODELS.get(name) or ModelSpec(name, name, name)
    folder = Path(spec.source).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise ModelError(f"{folder} is not a model folder: it has no {CONFIG_FILE}.")
        _check_sums(folder, spec, discard=False)
        return folder
    hub = _hub_name(spec.source)
    if hub is None:
        known = ", ".join(MODELS)
        raise ModelError(f"There is no model {name!r}: give one of {known}, a model folder, or user/repo of the Hub.")
    folder = _cached(*hub) or _downloaded(*hub, token, progress)
    _check_sums(folder, spec, discard=True)
    return folder


def push_model(folder: str | Path, repo: str, *, private: bool = False, token: str | None = None) -> str:
    """Publishes a model folder and its card, README.md, on the Hub; returns the page's address.

    Weights of an earlier model there are replaced. Files that do not belong to the model stay at home.

    Raises:
        ModelError: the folder does not load, has no card or an incomplete one, or the Hub refuses.
    """
    folder = Path(folder)
    load_model(folder)
    _check_card(folder / REPOCARD_NAME)
    index = [SAFETENSORS_INDEX_FILE] if (folder / SAFETENSORS_INDEX_FILE).exists() else []
    files = [CONFIG_FILE, REPOCARD_NAME, *index, *(file.name for file in weight_files(folder))]
    api = HfApi(token=token)
    try:
        page = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=list(_WEIGHT_FILES),
            commit_message="Upload model",
        )
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise ModelError(f"You may not write to {repo}: log in with a token that can.") from error
        raise ModelError(f"The Hub did not take {repo}: {_brief(error)}.") from error
    # ValueError: a name or a card that the Hub finds invalid; RuntimeError: the upload of a large file broke off
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The Hub did not take {repo}: {_brief(error)}.") from error
    return str(page)


def _hub_name(source: str) -> tuple[str, str | None] | None:
    """Repository and revision of "user/repo@revision"; None if it is something else."""
    repo, at, revision = source.partition("@")
    try:
        validate_repo_id(repo)
    except HFValidationError:
        return None
    if "/" not in repo or (at and not _REVISION.fullmatch(revision)):
        return None
    return repo, revision or None


def _cached(repo: str, revision: str | None) -> Path | None:
    """The model's folder in the Hub's cache, if all of its files are there: a download may have broken off."""
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(HUB_FILES), local_files_only=True))
        weight_files(folder)
    except (LocalEntryNotFoundError, ModelError):
        return None
    return folder if (folder / CONFIG_FILE).is_file() else None


def _downloaded(repo: str, revision: str | None, token: str | None, progress: Progress | None) -> Path:
    at = f"{repo}@{revision}" if revision else repo
    with _explained(repo, revision, f"The model {at} is not in the cache, and the Hub ({ENDPOINT}) cannot be reached"):
        # the one request that has a time limit: without it, a network that swallows packets is waited for for ever
        info = HfApi(token=token).model_info(repo, revision=revision, files_metadata=True, timeout=HF_HUB_ETAG_TIMEOUT)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    size = sum(sizes[name] for name in filter_repo_objects(sizes, allow_patterns=list(HUB_FILES)))
    with _explained(repo, revision, f"The download of {at} broke off; try again, complete files are kept"):
        # first, so that gigabytes of some other kind of model are not downloaded only to be refused
        config = hf_hub_download(repo, CONFIG_FILE, revision=revision, token=token)
        read_config(Path(config).parent)
        folder = snapshot_download(
            repo,
            revision=revision,
            token=token,
            allow_patterns=list(HUB_FILES),
            tqdm_class=None if progress is None else _bar(progress, size, f"Downloading {at}"),  # type: ignore[arg-type]
        )
    if progress is not None:  # a gradio.Progress is false
        progress(1.0, f"Downloading {at}")
    return Path(folder)


@contextmanager
def _explained(repo: str, revision: str | None, broken: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into a ModelError; ``broken`` says what a failing network means."""
    try:
        yield
    except GatedRepoError as error:
        raise ModelError(f"The model {repo} is gated: ask for access at {ENDPOINT}/{repo}, then log in.") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"The Hub has no model {repo}, or it is private and you are not logged in.") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"The model {repo} has no revision {revision!r}.") from error
    except RemoteEntryNotFoundError as error:
        raise ModelError(f"{repo} is not a model for this program: it has no {CONFIG_FILE}.") from error
    except HfHubHTTPError as error:
        raise ModelError(f"The Hub does not give {repo}: {_brief(error)}.") from error
    except ModelError as error:
        raise ModelError(f"{repo} is not a model for this program: {error}") from error
    # JSONDecodeError: another page in the Hub's place, such as a hotel's log-in page
    except (HTTPError, OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{broken}: {_brief(error)}.") from error


def _brief(error: BaseException) -> str:
    """One line of an error's text, which may be a page long: what the Hub says, where it says something."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    text = getattr(error, "server_message", None) or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].rstrip(".")


def _bar(progress: Progress, size: int, text: str) -> type[tqdm]:
    """A progress bar class that calls ``progress`` instead of drawing.

    Of several bars that count the same bytes (as received, as written), the foremost counts.
    """
    reached = 0.0

    class Bar(tqdm):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "leave": False, "disable": False})

        def display(self, *_args, **_kwargs) -> None:
            nonlocal reached
            if self.unit == "B" and size and self.n / size > reached:
                reached = min(self.n / size, 1.0)
                progress(reached, text)

    return Bar


def _check_sums(folder: Path, spec: ModelSpec, *, discard: bool) -> None:
    for name, expected in spec.sha256.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"The model {spec.name} lacks the file {name}.")
        actual = hashlib.sha256(file.read_bytes()).hexdigest()
        if actual != expected:
            if discard:  # the cache keeps contents behind links: both go, so that the next start downloads afresh
                file.resolve().unlink()
                file.unlink(missing_ok=True)
            raise ModelError(f"{name} of the model {spec.name} has the sha256 {actual} instead of {expected}.")


def _check_card(file: Path) -> None:
    if not file.is_file():
        raise ModelError(f"{file.parent} has no model card: write a {file.name} with the Hub's front matter.")
    try:
        data = ModelCard(file.read_text(encoding="utf-8")).data.to_dict()
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ModelError(f"The front matter of {file} cannot be read: {_brief(error)}.") from error
    if missing := [entry for entry in CARD_ENTRIES if not data.get(entry)]:
        raise ModelError(f"The front matter of {file} lacks: {', '.join(missing)}.")


def config_of(name: str) -> ModelConfig:
    return read_config(find_model(name))
