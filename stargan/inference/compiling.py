"""Compilation of the decoder: out of the way of requests, and never at their cost."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

Decoder = Callable[[Tensor, Tensor, Mapping[int, Tensor]], Tensor]


def obstacle(device: torch.device) -> str | None:
    """Why nothing can be compiled for the device here, or None if it can."""
    if os.environ.get("STARGAN_COMPILE") == "0":
        return "STARGAN_COMPILE is 0"
    if os.environ.get("SPACES_ZERO_GPU"):
        return "ZeroGPU has no torch.compile"
    if device.type not in ("cpu", "cuda"):
        return f"compiled code gains nothing on {device.type}"
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:  # CUDA's kernels have launchers in C++, too
        return f"the C++ compiler {compiler} is not there"
    return None


def keep_cache() -> None:
    """Compiled code goes to the user's cache folder, so that the next start need not compile, unless set otherwise."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "stargan" / "inductor")))
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # torch then uses a temporary folder
        del os.environ["TORCHINDUCTOR_CACHE_DIR"]


@functools.cache
def _leave_modules_alone() -> None:
    """Once a process, torch's compiler traces the identity by ``torch.fx.symbolic_trace``, which for that moment takes over the
    call of every module, in every thread: a request under way would fail. It is given the graph that would come of it."""
    with suppress(ImportError):  # a torch that is built in another way
        from torch._inductor.loop_body import InterpreterShim

        graph = torch.fx.Graph()
        graph.output(graph.placeholder("x"))
        traced = torch.fx.GraphModule(nn.Module(), graph)
        InterpreterShim._dummy_gm = staticmethod(lambda: traced)  # type: ignore[method-assign, assignment]


class CompiledDecoder:
    """A decoder that runs compiled for the numbers of styles it was warmed for, and as it is for others.

    Args:
        plain: takes features and edges of one picture, and styles.
        traced: does the same, in the form for the compiler.
        lane: held while a CUDA graph is recorded, when no other work may be under way.
        graphs: for CUDA alone: whether to look for the fastest kernels and to record a CUDA graph a batch size.
    """

    def __init__(
        self, plain: Decoder, traced: nn.Module, lane: AbstractContextManager[None], *, graphs: bool = True
    ) -> None:
        self._plain = plain
        self._lane = lane
        self._graphs = graphs
        # CUDA graphs are recorded here: those of torch.compile belong to one thread, and requests come in many.
        mode = "max-autotune-no-cudagraphs" if graphs else None
        # fullgraph: torch would else go on uncompiled, with no more than a line in its log, where it can compile only parts
        self._compiled: Decoder = torch.compile(traced, fullgraph=True, dynamic=False, mode=mode)
        self._ready: dict[int, Decoder] = {}

    def __call__(self, features: Tensor, style: Tensor, edges: Mapping[int, Tensor]) -> Tensor:
        return self._ready.get(len(style), self._plain)(features, style, edges)

    @torch.inference_mode()
    def warm(self, features: Tensor, style: Tensor, edges: Mapping[int, Tensor]) -> None:
        """Compiles for inputs of these shapes; takes from seconds to minutes."""
        _leave_modules_alone()
        decoder = self._compiled
        # torch counts how often it compiled a function, whichever decoder it was for, and gives up at 8 by itself
        with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.accumulated_recompile_limit):
            decoder(features, style, edges)
            if self._graphs:
                with self._lane, torch.cuda.device(features.device):
                    decoder = _Graph(decoder, features, style, edges)
        self._ready[len(style)] = decoder


class _Graph:
    """A decoder's kernels on CUDA, recorded once and then launched all at once."""

    def __init__(self, decoder: Decoder, features: Tensor, style: Tensor, edges: Mapping[int, Tensor]) -> None:
        self._inputs = (features.clone(), style.clone(), {side: edge.clone() for side, edge in edges.items()})
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # recording wants everything allocated and chosen before
            for _ in range(2):
                decoder(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = decoder(*self._inputs)

    def __call__(self, features: Tensor, style: Tensor, edges: Mapping[int, Tensor]) -> Tensor:
        kept_features, kept_style, kept_edges = self._inputs
        kept_features.copy_(features)
        kept_style.copy_(style)
        for side, edge in edges.items():
            kept_edges[side].copy_(edge)
        self._graph.replay()
        return self._output.clone()


def in_background(work: Callable[[], None], name: str) -> threading.Thread:
    """Runs ``work`` on a thread that gives way to others and whose failure is logged, nothing more."""

    def run() -> None:
        if sys.platform == "linux":
            os.nice(10)  # there, of this thread and of the compilers it starts alone
        try:
            work()
        except Exception:
            log.warning("%s failed; the pictures come without it, only slower.", name, exc_info=True)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
