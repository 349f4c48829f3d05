"""Which models there are, and where their weights come from.

- ``find_model("anime-128")``: a row of MODELS, bundled under weights/
- ``find_model("runs/mine/snapshots/010000")``: a model folder
- ``find_model("user/repo@revision")``: a Hub repository, from the cache or downloaded
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import (
    DEFAULT_REVISION,
    ENDPOINT,
    HF_HUB_CACHE,
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
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import WeakFileLock, filter_repo_objects, validate_repo_id
from tqdm import tqdm

from stargan.constants import DEFAULT_MODEL
from stargan.models.cards import model_files, pictures, published_card
from stargan.models.checkpoint import MAX_INDEX_BYTES, MAX_SHARDS, is_weight_file, load_model, weight_files
from stargan.models.config import (
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    MAX_PARAMETERS,
    ModelConfig,
    ModelError,
    brief,
    read_config,
)

# In an installed package, the models lie inside of it; in a checkout, beside it.
_PACKAGE = Path(__file__).parents[1]
WEIGHTS = (_PACKAGE if (_PACKAGE / "weights").is_dir() else _PACKAGE.parent) / "weights"
_WEIGHT_FILES = (SAFETENSORS_SINGLE_FILE, "model-?????-of-?????.safetensors", SAFETENSORS_INDEX_FILE)
# All parameters in fp32, and the card.
MAX_DOWNLOAD_BYTES = 4 * MAX_PARAMETERS + 100_000_000
# In the Hub's cache, a file's content lies under its hash: of SHA-256 for large files, of a git blob for the others.
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Within a branch's name, git itself forbids "..".
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]{0,99}")

# Called with the fraction done, 0 to 1, and what is being done: a gradio.Progress fits.
Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class Fetching:
    """How a model comes from the Hub.

    Attributes:
        token: for private repositories; None takes the one that ``hf auth login`` or HF_TOKEN left, False none.
        cache: the Hub's cache.
        force: downloads again what is there.
        local: only looks in the cache.
    """

    token: str | bool | None = None
    cache: Path = Path(HF_HUB_CACHE)
    force: bool = False
    local: bool = False


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
        ModelSpec(DEFAULT_MODEL, "Anime, 128 px", str(WEIGHTS / DEFAULT_MODEL)),
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
            if _folder(name) is None and _hub_name(name) is None:
                raise ModelError(
                    f"STARGAN_MODELS lists {brief(name)}, which is neither a folder nor user/repo of the Hub."
                )
            models[name] = ModelSpec(name, Path(name).name, name)
    return models


def find_model(
    name: str,
    *,
    token: str | bool | None = None,
    progress: Progress | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: of a registered name, of a path, or of "user/repo[@revision]" on the Hub.

    A model that is in the Hub's cache is taken from there without asking the Hub, even where its branch has moved on
    since: name another revision to get that. Else it is downloaded, by one thread of one process at a time; others that
    want the same model wait, and then find it. What was downloaded is used once all of it has the hashes that the Hub
    and the registry say.

    Args:
        token: for private repositories; None takes the one that ``hf auth login`` or HF_TOKEN left, False none.
        progress: told how the download gets on; None draws a bar on the terminal.
        cache_dir: the Hub's cache, if it is another than HF_HUB_CACHE says.
        force_download: what is in the cache is downloaded again.
        local_files_only: what is not in the cache is not downloaded.

    Raises:
        ModelError: there is no such model, it cannot be fetched, or a file has another sha256 than the registry says.
    """
    cache = Path(cache_dir or HF_HUB_CACHE).expanduser()
    return _found(name, Fetching(token, cache, force_download, local_files_only), progress, weights=True)


def find_file(place: str | Path, name: str) -> Path:
    """The file ``name`` of another program: ``place`` itself, in that folder, or of "user/repo[@revision]" on the Hub.

    Raises:
        ModelError: there is none, or it cannot be fetched.
    """
    path = Path(place).expanduser()
    folder = path.is_dir()
    if folder:
        path /= name
    if path.is_file():
        return path
    hub = None if folder else _hub_name(str(place))
    if hub is None:
        raise ModelError(f"The weights file {path} does not exist.")
    repo, revision = hub
    with _explained(repo, revision, f"{name} of {repo} cannot be fetched"):
        return Path(hf_hub_download(repo, name, revision=revision))


def find_weight_file(name: str) -> Path:
    """The file of weights of another program's model: of a path, or of "user/repo[@revision]" on the Hub, which has one.

    What is in the Hub's cache is taken from there, as by :func:`find_model`.

    Raises:
        ModelError: there is no such file, it is no safetensors, or it cannot be fetched.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ModelError(f"{path} is no safetensors file: others may hold a program, and are not opened.")
        return path
    if (hub := _hub_name(name)) is None:
        raise ModelError(f"There is no file {brief(name)}, and it is not user/repo of the Hub.")
    repo, revision = hub
    how = Fetching()
    with _one_at_a_time(how.cache, repo, "weights"):
        with suppress(LocalEntryNotFoundError):
            folder = Path(
                snapshot_download(
                    repo,
                    revision=revision,
                    cache_dir=how.cache,
                    allow_patterns="*.safetensors",
                    local_files_only=True,
                )
            )
            if len(found := [file for file in folder.rglob("*.safetensors") if _is_whole(file)]) == 1:
                return found[0]
        at = f"{repo}@{revision}" if revision else repo
        with _explained(repo, revision, f"The model {at} is not in the cache, and the Hub ({ENDPOINT}) cannot be had"):
            info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=HF_HUB_ETAG_TIMEOUT)
            listed = {f.rfilename: f for f in info.siblings or () if f.rfilename.endswith(".safetensors")}
            if len(listed) != 1:
                raise ModelError(f"it has {len(listed)} safetensors files, and one is wanted.")
            (file,) = listed
            if (listed[file].size or 0) > MAX_DOWNLOAD_BYTES:
                raise ModelError(f"it is over {MAX_DOWNLOAD_BYTES / 1e9:.1f} GB.")
            folder = _fetched(repo, info.sha or DEFAULT_REVISION, listed, how)
            _point(how.cache, folder, revision or DEFAULT_REVISION)
            return folder / file


def config_of(name: str, *, token: str | bool | None = None) -> ModelConfig:
    """What a model, named as for :func:`find_model`, says of itself. From the Hub, no weights are downloaded.

    Raises:
        ModelError: there is no such model, or its config cannot be fetched or is not valid.
    """
    return read_config(_found(name, Fetching(token), None, weights=False))


def _found(name: str, how: Fetching, progress: Progress | None, *, weights: bool) -> Path:
    """The folder of a model; without ``weights``, of its config at least."""
    spec = MODELS.get(name) or ModelSpec(name, name, name)
    sums = {file: sha for file, sha in spec.sha256.items() if weights or file == CONFIG_FILE}
    if (folder := _folder(spec.source)) is not None:
        if not (folder / CONFIG_FILE).is_file():
            raise ModelError(f"{folder} is not a model folder: it has no {CONFIG_FILE}.")
        _check_sums(folder, spec.name, sums)
        return folder
    if (hub := _hub_name(spec.source)) is None:
        known = ", ".join(MODELS)
        raise ModelError(
            f"There is no model {brief(name)}: give one of {known}, a model folder, or user/repo of the Hub."
        )
    if not how.force and (folder := _cached(*hub, sums, how.cache, weights=weights)) is not None:
        return folder
    if how.local:
        raise ModelError(
            f"The model {brief(spec.source)} is not in the cache, {how.cache}, and nothing is to be downloaded."
        )
    with _one_at_a_time(how.cache, hub[0], "weights" if weights else "config"):
        # somebody else may have been faster
        if not how.force and (folder := _cached(*hub, sums, how.cache, weights=weights)) is not None:
            return folder
        return _downloaded(*hub, spec.name, sums, how, progress, weights=weights)


def push_model(folder: str | Path, repo: str, *, private: bool = False, token: str | None = None) -> str:
    """Publishes a model folder and its card, README.md, on the Hub; returns the page's address.

    Weights of an earlier model there are replaced. Files that do not belong to the model stay at home; the pictures that the
    card shows belong to it, and the figures of an ``evaluation.json`` go into the card that is published.

    Raises:
        ModelError: the folder does not load, has no card or an incomplete one, or the Hub refuses.
    """
    return commit_model(folder, repo, private=private, token=token)[0]


def commit_model(
    folder: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload model",
    branch: str | None = None,
    create_pr: bool | None = None,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    delete_patterns: list[str] | str | None = None,
) -> tuple[str, CommitInfo]:
    """As :func:`push_model`; returns the page's address and the commit. The options are those of ``HfApi.upload_folder``.

    Raises:
        ModelError: as :func:`push_model`, or there is no such branch.
    """
    folder = Path(folder)
    load_model(folder)
    card = published_card(folder)
    deleted = [delete_patterns] if isinstance(delete_patterns, str) else [*(delete_patterns or [])]
    weights = [name for name in model_files(folder) if is_weight_file(name)]
    chosen = filter_repo_objects(weights, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
    if list(chosen) == weights:  # none is left of those that are replaced
        deleted += _WEIGHT_FILES
    api = HfApi(token=token)
    try:
        with tempfile.TemporaryDirectory() as staged:
            for name in [*model_files(folder), *pictures(folder)]:
                _linked(folder / name, Path(staged, name))
            Path(staged, REPOCARD_NAME).write_text(card, encoding="utf-8")
            page = api.create_repo(repo, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo,
                folder_path=staged,
                revision=branch,
                create_pr=create_pr,
                allow_patterns=allow_patterns,
                ignore_patterns=ignore_patterns,
                delete_patterns=deleted,
                commit_message=commit_message,
            )
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise ModelError(f"You may not write to {repo}: log in with a token that can.") from error
        raise ModelError(f"The Hub did not take {repo}: {_brief(error)}.") from error
    # ValueError: a name or a card that the Hub finds invalid; RuntimeError: the upload of a large file broke off
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"The Hub did not take {repo}: {_brief(error)}.") from error
    return str(page), commit


def _linked(file: Path, place: Path) -> None:
    """The file at another place, without copying gigabytes where that can be avoided."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.symlink_to(file.resolve())
    except OSError:  # Windows has no links for everybody
        shutil.copyfile(file, place)


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


def _folder(source: str) -> Path | None:
    """The folder of that path, if there is one."""
    try:
        folder = Path(source).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, "~" of nobody, a null character
        return None


def _cached(repo: str, revision: str | None, sums: Mapping[str, str], cache: Path, *, weights: bool) -> Path | None:
    """The model's folder in the Hub's cache, if all of its files are there and whole: a download may have broken off."""
    config = try_to_load_from_cache(repo, CONFIG_FILE, cache_dir=cache, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        files = [folder / CONFIG_FILE, *(weight_files(folder) if weights else ())]
        whole = all(map(_is_whole, files))
        _check_sums(folder, "", sums)
    except (ModelError, OSError):  # OSError: another process takes a damaged file away
        return None
    return folder if whole else None


def _is_whole(file: Path) -> bool:
    """Whether a file of the Hub's cache has the hash that it lies under; one that lies elsewhere is taken as it is."""
    name = file.resolve().name
    return not _HASH.fullmatch(name) or _hash(file, name) == name


@contextmanager
def _one_at_a_time(cache: Path, repo: str, what: str) -> Iterator[None]:
    """A lock for each repository, which threads and processes of all users of the cache share; a killed one lets go.

    Configs have one of their own: whoever lists the models does not wait for the weights of one.
    """
    file = Path(cache, ".locks", f"stargan--{repo.replace('/', '--')}--{what}.lock")
    with ExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(file))
        except OSError as error:
            raise ModelError(f"Nothing can be written to the Hub's cache, {cache}: {_brief(error)}.") from error
        yield


def _downloaded(
    repo: str,
    revision: str | None,
    name: str,
    sums: Mapping[str, str],
    how: Fetching,
    progress: Progress | None,
    *,
    weights: bool,
) -> Path:
    """Downloads one commit to the Hub's cache, and lets the revision mean it once all files are verified."""
    at = f"{repo}@{revision}" if revision else repo
    with _explained(repo, revision, f"The model {at} is not in the cache, and the Hub ({ENDPOINT}) cannot be reached"):
        # the one request that has a time limit: without it, a network that swallows packets is waited for for ever
        info = HfApi(token=how.token).model_info(
            repo, revision=revision, files_metadata=True, timeout=HF_HUB_ETAG_TIMEOUT
        )
    commit = info.sha or revision or DEFAULT_REVISION
    listed = {file.rfilename: file for file in info.siblings or () if _belongs_to_model(file.rfilename)}
    with _explained(repo, revision, f"The download of {at} broke off; try again, complete files are kept"):
        _check_listing(listed)
        # first, so that gigabytes of some other kind of model are not downloaded only to be refused
        with _one_at_a_time(how.cache, repo, "config") if weights else nullcontext():
            folder = _fetched(repo, commit, {CONFIG_FILE: listed[CONFIG_FILE]}, how)
        read_config(folder)
        if weights:
            size = sum(file.size or 0 for file in listed.values())
            bar = None if progress is None else _bar(progress, size, f"Downloading {at}")
            folder = _fetched(repo, commit, listed, how, bar)
    _check_sums(folder, name, sums)
    with _explained(repo, revision, f"Nothing can be written to the Hub's cache, {how.cache}"):
        _point(how.cache, folder, revision or DEFAULT_REVISION)
    if progress is not None:  # a gradio.Progress is false
        progress(1.0, f"Downloading {at}")
    return folder


def _belongs_to_model(file: str) -> bool:
    """Whether a repository's file is downloaded. Never pickles: a stranger's model must not run code."""
    return file in (CONFIG_FILE, REPOCARD_NAME, SAFETENSORS_INDEX_FILE) or is_weight_file(file)


def _check_listing(listed: Mapping[str, RepoSibling]) -> None:
    """Refuses, by what the Hub says, what would not be read once it is here."""
    if CONFIG_FILE not in listed:
        raise ModelError(f"it has no {CONFIG_FILE}.")
    for name, most in ((CONFIG_FILE, MAX_CONFIG_BYTES), (SAFETENSORS_INDEX_FILE, MAX_INDEX_BYTES)):
        if name in listed and (listed[name].size or 0) > most:
            raise ModelError(f"{name} has more than {most} bytes.")
    if (count := sum(map(is_weight_file, listed))) > MAX_SHARDS:
        raise ModelError(f"it has {count} files of weights, over {MAX_SHARDS}.")
    if (size := sum(file.size or 0 for file in listed.values())) > MAX_DOWNLOAD_BYTES:
        raise ModelError(f"it has {size / 1e9:.1f} GB, over {MAX_DOWNLOAD_BYTES / 1e9:.1f}.")


def _fetched(
    repo: str, commit: str, listed: Mapping[str, RepoSibling], how: Fetching, bar: type[tqdm] | None = None
) -> Path:
    """The cache's folder of a commit, with these files verified; a damaged one, here or on the way, is fetched once more.

    Raises:
        OSError: it came damaged again.
    """
    for _ in range(2):
        downloaded = snapshot_download(
            repo,
            revision=commit,
            cache_dir=how.cache,
            token=how.token,
            allow_patterns=list(listed),
            force_download=how.force,
            tqdm_class=bar,  # type: ignore[arg-type]
        )
        folder = Path(downloaded)
        damaged = [name for name, file in listed.items() if not _is_as_listed(folder / name, file)]
        for name in damaged:  # the cache keeps contents behind links
            (folder / name).resolve().unlink(missing_ok=True)
            (folder / name).unlink(missing_ok=True)
        if not damaged:
            return folder
    raise OSError(f"{damaged[0]} is not what the Hub says it is")


def _is_as_listed(file: Path, listed: RepoSibling) -> bool:
    expected = listed.lfs.sha256 if listed.lfs else listed.blob_id
    return (
        file.is_file()
        and (listed.size is None or file.stat().st_size == listed.size)
        and (expected is None or _hash(file, expected) == expected)
    )


def _hash(file: Path, like: str) -> str:
    """The SHA-256 of a file; or its hash as a git blob, if ``like`` is such a one."""
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _point(cache: Path, folder: Path, revision: str) -> None:
    """Lets a branch or tag mean the commit of this folder, as huggingface_hub's cache notes it: at once or not at all."""
    if revision == folder.name:
        return
    ref = folder.parents[1] / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    written = Path(cache, ".locks", f"stargan--{os.getpid()}-{threading.get_ident()}.ref")
    written.write_text(folder.name, encoding="utf-8")
    written.replace(ref)


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
    except HfHubHTTPError as error:
        raise ModelError(f"The Hub does not give {repo}: {_brief(error)}.") from error
    except ModelError as error:
        raise ModelError(f"{repo} is not a model for this program: {error}") from error
    # JSONDecodeError: another page in the Hub's place, such as a hotel's log-in page
    except (HTTPError, OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{broken}: {_brief(error)}.") from error


def _brief(error: Exception) -> str:
    """One line of an error's text, which may be a page long: what the Hub says, where it says something."""
    told = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
    text = getattr(told, "server_message", None) or str(told)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].rstrip(".")


def _bar(progress: Progress, size: int, text: str) -> type[tqdm]:
    """A progress bar class that calls ``progress`` instead of drawing.

    Of several bars that count the same bytes (as received, as written), the foremost counts.
    """
    reached = 0.0

    class Bar(tqdm):
        def __init__(self, *args, **kwargs) -> None:
            # every step is told, the last one before a line stalls, too
            steps = {"mininterval": 0, "miniters": 1}
            super().__init__(*args, **{**kwargs, **steps, "file": io.StringIO(), "leave": False, "disable": False})

        def display(self, *_args, **_kwargs) -> None:
            nonlocal reached
            if self.unit == "B" and size and self.n / size > reached:
                reached = min(self.n / size, 1.0)
                progress(reached, text)

    return Bar


def _check_sums(folder: Path, model: str, sums: Mapping[str, str]) -> None:
    for name, expected in sums.items():
        file = folder / name
        if not file.is_file():
            raise ModelError(f"The model {model} lacks the file {name}.")
        if (actual := _hash(file, expected)) != expected:
            raise ModelError(f"{name} of the model {model} has the sha256 {actual} instead of {expected}.")
