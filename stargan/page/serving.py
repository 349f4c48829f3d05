"""The page as a server: how it starts, what it tells of itself, how it stops."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Hashable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from cachetools import TTLCache
from gradio import processing_utils, route_utils, routes, tunneling
from gradio.queueing import Event
from gradio.route_utils import GradioMultiPartParser
from gradio.server_messages import ProcessCompletedMessage, UnexpectedErrorMessage
from gradio.utils import error_payload
from starlette.datastructures import FormData, Headers
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stargan.allocator import bound_memory
from stargan.models.registry import DEFAULT_MODEL
from stargan.page import longwork, subject, texts
from stargan.page.answers import CANCELLATIONS, DISK_FULL, TRAFFIC, i18n
from stargan.page.events import EXAMPLES
from stargan.page.fetching import BoundedTransport, fetch
from stargan.page.files import FILES
from stargan.page.memory import drop_gone, drop_oldest
from stargan.page.models import READY, cluster, load, menu
from stargan.page.panels import PANELS
from stargan.page.preloading import with_links
from stargan.page.theme import CSS, JS, Paper

log = logging.getLogger("stargan.app")

# Requests that wait; whoever comes then is told so. Of these, one page's and one address's: a household or a school shares one.
QUEUE, SESSION_SHARE, ADDRESS_SHARE = 64, 8, 32
# Sessions that are remembered, the last used ones; each takes a third of a megabyte, beside its drawings.
SESSIONS = 256
# Bytes of a request that is no upload; a camera's picture takes up to 3 MB.
MAX_BODY = 8_000_000
# Bytes of an upload: a file of the largest size, and what is around it. And the share of the disk that no upload may take.
MAX_UPLOAD, SPARED = 210_000_000, 1 / 20
# What gradio offers beside what the page is made of: anybody could have it convert videos, by a program and without an end.
# And have all that their session was asked and answered written to the disk.
_UNUSED = ("/process_recording", "/component_server", "/deep_link")
# Bytes of a part of an upload that is no file.
MAX_FIELD = 10_000
# What is under way when the app is told to stop may take so many seconds; then it is broken off, where it can be, within so many;
# and so many has whoever waits, to be told that the app stops.
LAST_SECONDS, BREAKING_OFF, TELLING = 4.0, 2.0, 2.0
# Addresses of files, and of those of other hosts.
_FILE, _ELSEWHERE = re.compile("/file[=/]"), re.compile("/file[=/]https?:", re.IGNORECASE)


def serve(page: gr.Blocks, host: str, port: int | None, *, share: bool = False, mcp: bool = False) -> None:
    """Serves the page until SIGTERM or SIGINT comes, then answers what is under way.

    Args:
        port: None takes GRADIO_SERVER_PORT or 7860, or the next one that is free.

    Raises:
        OSError: the port is taken, or not to be had, in a sentence.
    """
    bound_memory()
    FILES.kept = lambda: {path for block in page.blocks.values() for path in getattr(block, "keep_in_cache", ())}
    FILES.noted = lambda: page.temp_file_sets
    FILES.swept = lambda: drop_gone(page.state_holder)  # which gradio makes anew, at launch
    FILES.keep_swept()
    on_zero_gpu = "SPACES_ZERO_GPU" in os.environ
    if on_zero_gpu:  # its GPU gets what is on the device before launch(), and nothing later
        for name in menu():
            load(name)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        routes.GradioMultiPartParser = route_utils.GradioMultiPartParser = _Upload  # type: ignore[misc]
        processing_utils.async_transport = BoundedTransport()  # type: ignore[assignment]
        processing_utils.async_ssrf_protected_download = fetch
        page.queue(max_size=QUEUE, api_open=False)  # nothing that draws can be asked for past the queue
        share_queue(page)
        page.launch(
            server_name=host,
            server_port=port,
            share=share,
            mcp_server=mcp,
            i18n=i18n,
            theme=Paper(),
            css=CSS + subject.CSS + longwork.CSS,
            js=f"() => {{ ({JS})(); ({subject.JS})(); }}",
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            state_session_capacity=SESSIONS,
            max_file_size="200mb",  # 20 seconds of a phone's video; photos over 50 MB get their own sentence
            allowed_paths=[str(EXAMPLES / kind) for kind in ("page", "videos")],
            app_kwargs={
                "routes": [Route("/healthz", _health)],
                "exception_handlers": {route_utils.FnIndexInferError: _no_endpoint},
                "middleware": [
                    Middleware(_Headers),
                    Middleware(_Streams, page=page),
                    Middleware(_Bounded),
                    Middleware(_Compressed),
                    Middleware(_Remembered),
                ],
            },
            prevent_thread_lock=True,
        )
    except OSError as error:
        why = _obstacle(host, port) if port else str(error)
        raise OSError(errno.EADDRINUSE, f"The app cannot be served at port {port or 7860}: {why}.") from error
    if not on_zero_gpu:  # the page opens at once; whoever is first waits for the model, with progress
        threading.Thread(target=load, args=[DEFAULT_MODEL], daemon=True).start()
    stop.wait()
    if not TRAFFIC.close(LAST_SECONDS):
        CANCELLATIONS.cancel_all()
        if not TRAFFIC.close(BREAKING_OFF):
            log.warning("Stopped in the middle of a request.")
    _empty(page)
    for tunnel in tunneling.CURRENT_TUNNELS:  # a public link would lead to whatever comes to listen at this port
        tunnel.kill()
    # gradio's threads may take longer than whoever stops the app wants to wait
    threading.Timer(1.0, os._exit, [0]).start()
    # page.close() would tell who comes in this very moment that the server "stopped unexpectedly"
    page.app.stop_event.set()  # ends what open pages listen to
    page.server.close()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _empty(page: gr.Blocks) -> None:
    """Waits until the queue has let in all that waits, which is refused, and the last answers are on their way; after a while,
    whoever still waits is told so."""
    queue, end = page._queue, time.monotonic() + TELLING
    while left := [*_waiting(page), *(event for job in queue.active_jobs for event in job or ())]:
        if time.monotonic() > end:
            log.warning("Stopped while %d requests were not answered.", len(left))
            for event in left:
                sentence = texts.say("stopping", texts.preferred(event.request.headers.get("accept-language")))
                queue.send_message(
                    event,
                    ProcessCompletedMessage(
                        output=error_payload(gr.Error(sentence), True), title="Error", success=False
                    ),
                )
            break
        time.sleep(0.05)
    time.sleep(0.5)


def _waiting(page: gr.Blocks) -> list[Event]:
    """What is in the queue, of all functions."""
    lines = list(page._queue.event_queue_per_concurrency_id.values())  # a copy, as gradio adds to them meanwhile
    return [event for line in lines for event in list(line.queue)]


def _health(_request: Request) -> JSONResponse:
    """Whether a model has drawn, and can: what a load balancer asks before it sends visitors."""
    ready = READY.is_set() and ((replicas := cluster()) is None or replicas.ready())
    return JSONResponse({"ready": ready}, 200 if ready else 503)


def _no_endpoint(_request: Request, _error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "There is no such endpoint: /gradio_api/info names all."}, 404)


def _obstacle(host: str, port: int) -> str:
    """Why nothing can be served there, which gradio does not say."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"{host} is no address that can be used here ({error.strerror})"
    return "another program listens there"


def share_queue(page: gr.Blocks) -> None:
    """Nobody gets more than a share of the queue; a refusal is a sentence in the visitor's language. Before anything is let in,
    sessions give up what all of them may not hold; what is let in is numbered, for panels."""
    queue = page._queue
    push = queue.push

    async def pushed(body: Any, request: Request, username: str | None) -> Any:
        waiting = _waiting(page)
        said = partial(texts.say, language=texts.preferred(request.headers.get("accept-language")))
        if len(waiting) >= QUEUE:
            return False, said("queue_full"), "queue_full"
        address = request.client and request.client.host
        own = [event for event in waiting if event.session_hash == body.session_hash]
        if len(own) >= SESSION_SHARE:
            return False, said("queue_share", limit=SESSION_SHARE), "queue_full"
        near = [event for event in waiting if event.request.client and event.request.client.host == address]
        if len(near) >= ADDRESS_SHARE:
            return False, said("queue_full"), "queue_full"
        page.state_holder.update(body.session_hash)  # whoever comes back is no longer the one who was away longest
        drop_oldest(page.state_holder)
        success, event, state = await push(body, request, username)
        if success and isinstance(event, str):
            PANELS.asked(event)
        return success, event, state

    queue.push = pushed  # type: ignore[method-assign]


class _Bounded:
    """Refuses a request that is larger than any that the page makes; its connection ends. And one for a file of another host, which
    gradio would fetch and hand on to anybody, or for what no part of the page needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].rstrip("/")
        if _ELSEWHERE.search(scope["path"]):
            await JSONResponse({"detail": "This is no file of this app."}, 403)(scope, receive, send)
            return
        if path.endswith(_UNUSED):
            await JSONResponse({"detail": "Not Found"}, 404)(scope, receive, send)
            return
        upload = scope["path"].endswith("/gradio_api/upload")
        largest = MAX_UPLOAD if upload else MAX_BODY
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > largest:
            await JSONResponse({"detail": "The request is too large."}, 413)(scope, receive, send)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message if read <= largest else {"type": "http.disconnect"}

        if not upload:
            await self.app(scope, bounded, send)
            return
        try:
            with suppress(FileNotFoundError):  # where somebody cleared the folder away, it comes with the upload
                disk = shutil.disk_usage(FILES.root)
                if disk.free < min(MAX_UPLOAD, SPARED * disk.total):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # noqa: TRY301
            await self.app(scope, bounded, send)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            log.warning("An upload finds no room: %s", error.strerror)
            said = texts.say("disk_full", texts.preferred(Headers(scope=scope).get("accept-language")))
            await PlainTextResponse(said, 507)(scope, receive, send)


class _Upload(GradioMultiPartParser):
    """Leaves no part of an upload that broke off, and holds in memory no more than a file's name takes."""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is None and len(part.data) + end - start > MAX_FIELD:
            raise MultiPartException(f"A field exceeded maximum allowed size of {MAX_FIELD} bytes.")
        super().on_part_data(data, start, end)

    async def parse(self) -> FormData:
        try:
            return await super().parse()
        except BaseException:  # the visitor's leaving among them
            for file in self._files_to_close_on_error:
                with suppress(OSError):
                    os.unlink(file.name)
                with suppress(OSError):  # it would write what is left
                    file.close()
            raise


class _Remembered:
    """The page is rendered once a minute for each address that leads to it. Gradio takes 30 ms of the interpreter for it, which
    the drawings of others make many times as long."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._pages: TTLCache[Hashable, list[Message]] = TTLCache(8, 60)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/" or self._other(scope):
            await self.app(scope, receive, send)
            return
        address = tuple(sorted(header for header in scope["headers"] if self._leads(header[0])))
        key = scope["scheme"], scope.get("root_path"), address
        messages = self._pages.get(key)
        if messages is None:
            sent: list[Message] = []

            async def keep(message: Message) -> None:
                sent.append(message)

            await self.app(scope, receive, keep)
            messages = _preloading(sent)
            if messages and messages[0].get("status") == 200:
                self._pages[key] = messages
        for message in messages:  # what is sent may be changed on its way, as by compression
            await send(dict(message, headers=list(message["headers"])) if "headers" in message else dict(message))

    @staticmethod
    def _other(scope: Scope) -> bool:
        """Whether gradio would heed what follows the question mark; the page itself reads the rest."""
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        return not asked.keys().isdisjoint(("deep_link", "page", "all_endpoints"))

    @staticmethod
    def _leads(name: bytes) -> bool:
        """Whether gradio makes the page's address of a header of that name, or may come to."""
        forwarded = name.startswith(b"x-forwarded-") and name != b"x-forwarded-for"
        return forwarded or name in (b"host", b"forwarded", b"x-gradio-server")


def _preloading(messages: list[Message]) -> list[Message]:
    """A document's answer, with links to what it will ask for; another as it is."""
    if not messages or messages[0].get("status") != 200:
        return messages
    body = with_links(b"".join(message.get("body", b"") for message in messages[1:]))
    headers = [(name, value) for name, value in messages[0]["headers"] if name != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    return [{**messages[0], "headers": headers}, {"type": "http.response.body", "body": body}]


class _Headers:
    """Browsers take every file for what its header says it is, and for nothing else; they show none that was uploaded or made,
    but pictures and clips; and they keep gradio's scripts, whose names change with their content, instead of asking for each of a
    hundred again."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                headers.append((b"x-content-type-options", b"nosniff"))
                kind = dict(headers).get(b"content-type", b"")
                if _FILE.search(scope["path"]) and not kind.startswith((b"image/", b"video/")):
                    headers[:] = [one for one in headers if one[0] != b"content-disposition"]
                    headers.append((b"content-disposition", b"attachment"))
                if "/assets/" in scope["path"] and message["status"] == 200:
                    headers.append((b"cache-control", b"public, max-age=31536000, immutable"))
            await send(message)

        await self.app(scope, receive, told)


class _Streams:
    """An answer that is not here, as of a page that stopped meanwhile, or one that was fetched already: who asks for it is told so
    in a sentence. Gradio would break the connection, and leave a traceback in the log."""

    def __init__(self, app: ASGIApp, page: gr.Blocks) -> None:
        self.app, self._page = app, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        path, request = scope["path"], Request(scope)
        sentence = texts.say("restarted", texts.preferred(request.headers.get("accept-language")))
        if "/call/" in path and not self._known(path.rpartition("/")[2]):
            said = f"event: error\ndata: {json.dumps(sentence)}\n\n"
        elif path.endswith("/queue/data") and not self._known_page(request.query_params.get("session_hash")):
            said = f"data: {UnexpectedErrorMessage(message=sentence, session_not_found=True).model_dump_json()}\n\n"
        else:
            await self.app(scope, receive, send)
            return
        await PlainTextResponse(said, media_type="text/event-stream")(scope, receive, send)

    def _known_page(self, session: str | None) -> bool:
        return session in self._page._queue.pending_messages_per_session

    def _known(self, event: str) -> bool:
        """Whether gradio has an answer, or will have: of events that are under way, and those whose end nobody fetched."""
        queue = self._page._queue
        sessions = (event in events for events in queue.pending_event_ids_session.values())
        return event in queue.event_ids_to_events or self._known_page(event) or any(sessions)


class _Compressed:
    """The document and its settings in gzip, a tenth as heavy: gradio compresses only what has an ending, as scripts have."""

    def __init__(self, app: ASGIApp) -> None:
        self.app, self._compressing = app, GZipMiddleware(app, minimum_size=1000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        documents = scope["type"] == "http" and scope["path"].removesuffix("/").rpartition("/")[2] in ("", "config")
        await (self._compressing if documents else self.app)(scope, receive, send)
