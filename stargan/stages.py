"""Where a request's time goes: how often and how long each stage of it ran."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

# In the order of a photo's way.
STAGES = ("open", "detect", "encode", "decode", "write")


@dataclass
class Stages:
    """Runs and seconds by stage."""

    runs: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float, runs: int = 1) -> None:
        self.runs[stage] = self.runs.get(stage, 0) + runs
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def __str__(self) -> str:
        """Such as ``open=1/0.120s decode=8/0.310s``; empty where nothing ran."""
        return " ".join(f"{name}={self.runs[name]}/{self.seconds[name]:.3f}s" for name in STAGES if name in self.runs)


_current: ContextVar[Stages | None] = ContextVar("stages", default=None)


@contextmanager
def counted() -> Iterator[Stages]:
    """Counts the stages that run here, in this thread, while it lasts."""
    stages = Stages()
    token = _current.set(stages)
    try:
        yield stages
    finally:
        _current.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage of :data:`STAGES` runs; its time counts for the innermost :func:`counted`."""
    stages = _current.get()
    begin = time.perf_counter()
    try:
        yield
    finally:
        if stages is not None:
            stages.add(name, time.perf_counter() - begin)


def include(stages: Stages) -> None:
    """What was counted elsewhere, as in another process, counts for the innermost :func:`counted` here."""
    if (current := _current.get()) is not None:
        for name, runs in stages.runs.items():
            current.add(name, stages.seconds[name], runs)
