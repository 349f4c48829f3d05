"""The models on the page's menu, and where they draw: here, or on the GPU that a ZeroGPU Space lends."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import gradio as gr
import torch
from PIL import Image

from stargan.drawing import Paint, Painted, Progress, Seeds, Task, Translator, load_translator, silent
from stargan.errors import RequestError
from stargan.models import registry
from stargan.models.config import ModelConfig, ModelError
from stargan.models.registry import DEFAULT_MODEL, ModelSpec
from stargan.models.upscaling import upscaler
from stargan.page.answers import say
from stargan.pictures import faces
from stargan.stages import Stages, counted, include

if TYPE_CHECKING:
    from stargan.cluster.serving import Replicas

try:  # a ZeroGPU Space lends its GPU to the functions that ask for it; everywhere else, asking changes nothing
    from spaces import GPU as on_gpu  # noqa: N811
except ImportError:

    def on_gpu(function: Callable | None = None, *, duration: object = None) -> Callable:  # noqa: ARG001
        return function or (lambda function: function)


log = logging.getLogger("stargan.app")
# Set once a model has drawn, until its GPU is lost.
READY = threading.Event()


@cache
def menu() -> dict[str, ModelSpec]:
    """The models that visitors may choose, by name.

    Raises:
        stargan.models.config.ModelError: the environment names something else, or an upscaler that cannot be had.
    """
    upscaler()
    return registry.available_models()


def checked(name: str | None) -> str:
    """A name on the menu; the default's where none is given. A request may not name any folder or repository."""
    name = name or DEFAULT_MODEL
    if not isinstance(name, str) or name not in menu():
        raise RequestError("bad_model", value=name, choices=", ".join(menu()))
    return name


@lru_cache(maxsize=64)
def _config(name: str) -> ModelConfig:
    return registry.config_of(name)


def config_of(name: str | None) -> ModelConfig:
    """What a model on the menu says of itself, without its weights."""
    return _config(checked(name))


def translator_for(name: str) -> Translator:
    """A model on the menu; whoever is first waits for it, with progress."""
    text, visitor = say("loading"), copy_context()

    def progress(part: float, _: str) -> None:  # the Hub's library calls it in threads of its own
        visitor.copy().run(lambda: gr.Progress()(part, desc=text))

    return load_translator(name, progress=progress)


def gpu_seconds(_name: str, task: Task, _progress: Progress | None = None) -> int:
    """How long a Space's GPU is asked for at most: short requests wait less, and cost visitors less of their share."""
    return 10 + len(task) // 4


def cluster_address() -> str | None:
    """Of the cluster that draws; None or empty where this process does."""
    return os.environ.get("STARGAN_SERVE")


@cache
def cluster() -> Replicas | None:
    """What sends tasks to the cluster that ``STARGAN_SERVE`` names the address of; None where this process draws.

    Raises:
        ValueError: there is no such cluster, or nothing on it that draws.
    """
    if not (address := cluster_address()):
        return None
    from stargan.cluster.serving import Replicas

    return Replicas(address)


@on_gpu(duration=gpu_seconds)
def attempt(name: str, task: Task, progress: Progress) -> tuple[Painted | None, Exception | None, Stages]:
    """What comes of a task, what it raises, and where its time goes: a Space's GPU is in a process of its own, and of an error
    that leaves it only the name arrives."""
    with counted() as stages:
        try:
            if (send := cluster()) is not None:
                return send(name, task), None, stages
            return translator_for(name).paint(task, progress), None, stages
        except Exception as error:
            return None, error, stages


def painter(name: str | None) -> Paint:
    """What draws with a model on the menu."""
    name = checked(name)

    def paint(task: Task, progress: Progress) -> Painted:
        try:
            painted, error, stages = attempt(name, task, progress)
        except gr.Error as refused:  # the lender's: a visitor's share of time is used up, or no GPU is free
            log.warning("no GPU was lent: %.300s", refused.message)
            raise RequestError("gpu_lent", detail=re.sub(r"<[^>]*>", "", str(refused.message))) from refused
        include(stages)
        if painted is None:
            raise _told(error or RuntimeError("nothing was drawn"))
        READY.set()
        return painted

    return paint


def _told(error: Exception) -> Exception:
    """The same; of a GPU that is full or lost, what a visitor can be told of it."""
    if isinstance(error, torch.OutOfMemoryError):  # for a single picture: of more, fewer at a time were tried
        log.error("The GPU's memory is full: %.200s", error)
        return RequestError("gpu_full")
    if isinstance(error, RuntimeError) and "CUDA error" in str(error):
        # nothing in this process can use it again
        log.critical("The GPU is lost, restart the app: %.200s", error)
        READY.clear()
        return RequestError("gpu_lost")
    return error


def load(name: str) -> None:
    """Ahead of the first request: the model, the detector, and what a compiler can do in a quiet time."""
    try:
        translator = None if cluster() else load_translator(name)
        faces.find(Image.new("RGB", (64, 64)))  # before the compiler wants the cores
        config = config_of(name)
        blank = Image.new("RGB", (config.architecture.image_size,) * 2)
        # here, where this process draws: a Space lends its GPU to what visitors ask for, not to this
        paint = translator.paint if translator else painter(name)
        paint(Task((blank,), Seeds(config.domains[0], (0,), 1.0), passing=True), silent)
        READY.set()
        if translator:
            translator.compile_in_background()
    except (ModelError, RequestError) as error:  # every request says so too
        log.warning("%s", error)
