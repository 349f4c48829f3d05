"""What an evaluation found, as rows, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """The figures of one model, way of guiding, pair of domains and group of sources.

    Attributes:
        group: how the names of the sources begin; "": all of them.
        swd: sliced Wasserstein distance of the outputs to the target's training faces, × 1000, by side in px and their mean.
        floor, untranslated: the same of the target's validation faces, and of the sources as they are.
        spread: :func:`stargan.evaluation.metrics.spread` of the outputs divided by that of the target's training faces.
        judge: ``judged``, ``judged real``, ``feature``, ``feature floor``: see :mod:`stargan.evaluation.judge`; empty without.
        backbones: ``fid``, ``kid`` (× 1000), ``lpips``, where their weights were at hand.
    """

    model: str
    mode: str
    pair: str
    group: str
    swd: dict[str, float]
    floor: dict[str, float]
    untranslated: dict[str, float]
    spread: float
    judge: dict[str, float]
    backbones: dict[str, float]


def means(rows: Sequence[Row]) -> list[Row]:
    """One row a model, mode and group: the mean over its pairs."""

    def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {key: round(sum(value[key] for value in values) / len(values), 4) for key in values[0]}

    sets: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        sets.setdefault((row.model, row.mode, row.group), []).append(row)
    return [
        Row(
            model,
            mode,
            "mean",
            group,
            spread=sum(row.spread for row in of) / len(of),
            **{name: mean([getattr(row, name) for row in of]) for name in _BY_NAME},
        )
        for (model, mode, group), of in sets.items()
    ]


_BY_NAME = ("swd", "floor", "untranslated", "judge", "backbones")


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    columns: dict[str, list[str]] = {name: [getattr(row, name) for row in rows] for name in ("model", "mode", "pair")}
    if any(row.group for row in rows):
        columns["sources"] = [row.group and f"{row.group}…" for row in rows]
    for side in dict.fromkeys(side for row in rows for side in row.swd if side != "mean"):
        columns[f"SWD {side}"] = [f"{row.swd[side]:.1f}" if side in row.swd else "" for row in rows]
    for head, name in (("SWD", "swd"), ("floor", "floor"), ("untranslated", "untranslated")):
        columns[head] = [f"{getattr(row, name)['mean']:.1f}" for row in rows]
    columns["spread"] = [f"{row.spread:.2f}" for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row.judge):
        columns[name] = [f"{row.judge[name]:.3f}" for row in rows]
    for name in dict.fromkeys(name for row in rows for name in row.backbones):
        columns[name.upper()] = [f"{row.backbones[name]:.3f}" for row in rows]
    widths = [max(len(head), *map(len, cells)) for head, cells in columns.items()]
    lines = [list(columns), ["-" * width for width in widths], *map(list, zip(*columns.values(), strict=True))]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def to_json(rows: Sequence[Row], **facts: Any) -> str:
    """The rows and the facts of how they came about."""
    return json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2, default=str) + "\n"
