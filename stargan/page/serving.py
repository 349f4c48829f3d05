"""The page as a server: how it starts, what it tells of itself, how it stops."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import sys
import threading

import gradio as gr
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stargan.models.registry import DEFAULT_MODEL
from stargan.page.answers import TRAFFIC, i18n
from stargan.page.events import EXAMPLES
from stargan.page.files import FILES
from stargan.page.models import READY, load, menu
from stargan.page.theme import CSS, JS, Paper

log = logging.getLogger("stargan.app")

# Visitors that wait; more are told so.
QUEUE = 64
# What is under way when the app is told to stop may take this long, in seconds.
LAST_SECONDS = 8.0


def serve(page: gr.Blocks, host: str, port: int | None, *, share: bool = False, mcp: bool = False) -> None:
    """Serves the page until SIGTERM or SIGINT comes, then answers what is under way.

    Args:
        port: None takes GRADIO_SERVER_PORT or 7860, or the next one that is free.

    Raises:
        OSError: the port is taken, in a sentence.
    """
    give_memory_back()
    FILES.kept = lambda: {path for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}
    FILES.keep_swept()
    on_zero_gpu = "SPACES_ZERO_GPU" in os.environ
    if on_zero_gpu:  # its GPU gets what is on the device before launch(), and nothing later
        for name in menu():
            load(name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        page.queue(max_size=QUEUE).launch(
            server_name=host,
            server_port=port,
            share=share,
            mcp_server=mcp,
            i18n=i18n,
            theme=Paper(),
            css=CSS,
            js=JS,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            max_file_size="200mb",  # 20 seconds of a phone's video; photos over 50 MB get their own sentence
            allowed_paths=[str(EXAMPLES / kind) for kind in ("photos", "drawings")],
            app_kwargs={"routes": [Route("/healthz", _health)], "middleware": [Middleware(_NoSniffing)]},
            prevent_thread_lock=True,
        )
    except OSError as error:
        taken = "another program listens there" if port else str(error)
        raise OSError(errno.EADDRINUSE, f"The app cannot be served at port {port or 7860}: {taken}.") from error
    if not on_zero_gpu:  # the page opens at once; whoever is first waits for the model, with progress
        threading.Thread(target=load, args=[DEFAULT_MODEL], daemon=True).start()
    stop.wait()
    if not TRAFFIC.close(LAST_SECONDS):
        log.warning("Stopped in the middle of a request.")
    # gradio's threads may take longer than whoever stops the app wants to wait
    threading.Timer(1.5, os._exit, [0]).start()
    page.close(verbose=False)
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _health(_request: Request) -> JSONResponse:
    """Whether a model has drawn: what a load balancer asks before it sends visitors."""
    ready = READY.is_set()
    return JSONResponse({"ready": ready}, 200 if ready else 503)


class _NoSniffing:
    """Browsers take every file for what its header says it is, and for nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"x-content-type-options", b"nosniff"))
            await send(message)

        await self.app(scope, receive, told)


def give_memory_back() -> None:
    """Sets the C library's allocator so that what large photos took goes back to the system, where it is glibc."""
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        arena_max, mmap_threshold, trim_threshold = -8, -3, -1  # malloc.h
        libc.mallopt(arena_max, 2)  # else each of many threads keeps what it freed
        libc.mallopt(mmap_threshold, 16 << 20)  # else it grows with the largest photo, which then lies in a heap
        libc.mallopt(trim_threshold, 64 << 20)
    except (OSError, AttributeError):
        log.info("The allocator stays as it is: this is not glibc.")
