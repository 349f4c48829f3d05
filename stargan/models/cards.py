"""Model cards as the Hub reads them: what a card must say, and what is added to it from what lies beside it.

``evaluation.json``, which ``python -m stargan evaluate`` writes, becomes the entry ``model-index``, so that the Hub shows the
figures; a picture that the card shows becomes its example.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.constants import REPOCARD_NAME, SAFETENSORS_INDEX_FILE
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stargan.models.checkpoint import replace_model, weight_files
from stargan.models.config import CONFIG_FILE, EVALUATION_FILE, ModelConfig, ModelError, brief, read_config, read_text

CARD_ENTRIES = ("license", "tags", "library_name")
MAX_EVALUATION_BYTES = 10_000_000
_PICTURE = re.compile(r"!\[([^\]]*)\]\((\w[\w./ -]*\.(?:png|jpe?g|webp|gif))\)", re.IGNORECASE)


@dataclass(config=ConfigDict(allow_inf_nan=True))
class _Row:
    """What is taken of a row of ``evaluation.json``: see :class:`stargan.evaluation.report.Row`."""

    model: str
    mode: str
    pair: str
    spread: float
    group: str = ""
    swd: dict[str, float] = field(default_factory=dict)
    judge: dict[str, float] = field(default_factory=dict)
    backbones: dict[str, float] = field(default_factory=dict)

    def figures(self) -> dict[tuple[str, str], float]:
        """Type and name of each figure, and its value."""
        found = {
            ("fid", "FID"): self.backbones.get("fid"),
            ("kid", "KID × 1000"): self.backbones.get("kid"),
            ("lpips", "LPIPS between drawings of one source"): self.backbones.get("lpips"),
            ("sliced-wasserstein-distance", "Sliced Wasserstein distance × 1000"): self.swd.get("mean"),
            ("spread", "Spread as a share of that of real pictures"): self.spread,
            ("judged", "Taken for the target domain by a classifier"): self.judge.get("judged"),
        }
        return {what: value for what, value in found.items() if value is not None and math.isfinite(value)}


@dataclass
class _Evaluation:
    rows: list[_Row]
    psi: float | None = None


_EVALUATION = TypeAdapter(_Evaluation)


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    file = folder / REPOCARD_NAME
    if not file.is_file():
        raise ModelError(f"{folder} has no model card: write a {REPOCARD_NAME} with the Hub's front matter.")
    try:
        return ModelCard(file.read_text(encoding="utf-8"))
    except (ValueError, TypeError, OSError, yaml.YAMLError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"The front matter of {file} cannot be read: {lines[0].rstrip('.')}.") from error


def published_card(folder: Path) -> str:
    """The text of a folder's card, as it is published: with its figures and an example, where there are any.

    Raises:
        ModelError: there is no card, it lacks an entry, or ``evaluation.json`` cannot be read.
    """
    card = read_card(folder)
    said = card.data.to_dict()
    if missing := [entry for entry in CARD_ENTRIES if not said.get(entry)]:
        raise ModelError(f"The front matter of {folder / REPOCARD_NAME} lacks: {', '.join(missing)}.")
    results = eval_results(folder)
    shown = pictures(folder)
    example = bool(shown) and not said.get("widget")
    if not results and not example:
        return str((folder / REPOCARD_NAME).read_text(encoding="utf-8"))
    if results:
        card.data["model_name"], card.data["eval_results"] = read_config(folder).name, results
    if example:
        card.data["widget"] = [
            {"text": text or Path(name).stem, "output": {"url": name}} for name, text in shown.items()
        ]
    return str(card)


def pictures(folder: Path) -> dict[str, str]:
    """The pictures in the folder that its card shows, and what it calls them."""
    text = (folder / REPOCARD_NAME).read_text(encoding="utf-8")
    found = {name: alt for alt, name in _PICTURE.findall(text) if ".." not in Path(name).parts}
    return {name: alt for name, alt in found.items() if (folder / name).is_file()}


def eval_results(folder: Path) -> list[EvalResult]:
    """The figures in a model folder's ``evaluation.json``, for the entry ``model-index``; none without the file.

    Raises:
        ModelError: it cannot be read, or has rows of several models of which none is this one.
    """
    file = folder / EVALUATION_FILE
    if not file.is_file():
        return []
    try:
        evaluation = _EVALUATION.validate_json(read_text(file, MAX_EVALUATION_BYTES))
    except (ValidationError, OSError, UnicodeError) as error:
        raise ModelError(f"{file} is not what `python -m stargan evaluate` writes.") from error
    name = read_config(folder).name
    models = {row.model for row in evaluation.rows}
    own = models if len(models) == 1 else {model for model in models if Path(model).name in (name, folder.name)}
    if evaluation.rows and len(own) != 1:
        raise ModelError(
            f"{file} has rows of {', '.join(map(brief, sorted(models)))}: which is {name}, it does not say."
        )
    results = []
    for row in evaluation.rows:
        if row.model not in own:
            continue
        guided = f"{row.mode}-guided"
        if row.mode == "latent" and evaluation.psi is not None:
            guided += f", ψ = {evaluation.psi:g}"
        sources = f"{row.pair}, sources {row.group}…" if row.group else row.pair
        results += [
            EvalResult(
                task_type="image-to-image",
                dataset_type="imagefolder",  # the Hub's word for folders of pictures that are not published
                dataset_name="Held-out faces",
                dataset_config=sources,
                dataset_split="validation",
                metric_type=kind,
                metric_name=f"{title}, {guided}",
                metric_value=round(value, 4),
            )
            for (kind, title), value in row.figures().items()
        ]
    return results


def new_card(config: ModelConfig) -> ModelCard:
    """The card of a model that has none yet."""
    data = ModelCardData(
        license="other",
        license_name="see-model-card",
        license_link=REPOCARD_NAME,
        library_name="stargan",
        pipeline_tag="image-to-image",
        tags=["stargan-v2", "image-to-image", *(["anime"] if "anime" in config.domains else [])],
    )
    size = config.architecture.image_size
    return ModelCard(
        f"---\n{data.to_yaml()}\n---\n\n# {config.name}\n\n"
        f"A StarGAN v2 (Choi et al., CVPR 2020) with the domains {', '.join(config.domains)}, {size} px.\n\n"
        "```python\nfrom stargan import Translator\n\n"
        'translator = Translator.from_pretrained("user/repo")  # this repository\n'
        f'drawings = translator.latent("photo.jpg", domain="{config.domains[0]}", count=10, seed=0, psi=0.7)\n```\n\n'
        f"Licence: {config.licence or 'not stated'}.\n"
    )


def model_files(folder: Path) -> list[str]:
    """What of a folder belongs to the model, without its card."""
    index = [SAFETENSORS_INDEX_FILE] if (folder / SAFETENSORS_INDEX_FILE).exists() else []
    return [CONFIG_FILE, *index, *(file.name for file in weight_files(folder))]


def copy_model(folder: Path, target: Path, entries: Mapping[str, Any] | None = None) -> None:
    """Copies a model to another folder, with its card, the pictures that it shows and its figures.

    Weights, figures and discriminator of an earlier model in ``target`` are removed; a card that is there stays. Where there is
    none, one is written.

    Args:
        entries: of the card's front matter, such as ``{"license": "mit"}``, in place of those that it has.

    Raises:
        ModelError: the folder holds no whole model, or its card cannot be read.
        OSError: the target cannot be written.
    """
    target.mkdir(parents=True, exist_ok=True)
    if not target.samefile(folder):
        names, shown = model_files(folder), []
        if not (target / REPOCARD_NAME).exists() and (folder / REPOCARD_NAME).is_file():
            shown = [REPOCARD_NAME, *pictures(folder)]
        figures = [EVALUATION_FILE] if (folder / EVALUATION_FILE).is_file() else []
        with TemporaryDirectory(prefix=".partial-", dir=target) as partial:  # a full disk leaves what is there
            model = [Path(shutil.copyfile(folder / name, Path(partial) / name)) for name in [*names, *figures]]
            replace_model(model, target)
        for name in shown:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
    if not (target / REPOCARD_NAME).exists():
        new_card(read_config(folder)).save(target / REPOCARD_NAME)
    if entries:
        card = read_card(target)
        for key, value in entries.items():
            card.data[key] = value
        card.save(target / REPOCARD_NAME)
