"""Photos that a request gives the address of: fetched from public hosts alone, within a photo's limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import httpx
import safehttpx
from gradio.processing_utils import PUBLIC_HOSTNAME_WHITELIST
from gradio.processing_utils import async_ssrf_protected_download as _fetch

from stargan.errors import PhotoError
from stargan.page.files import FILES
from stargan.pictures.io import check_weight

# For all that a request names, also from a host that sends little by little, or sends on and on to others.
SECONDS = 20.0
# Fetched at once: gradio holds each in memory until it is whole.
AT_ONCE = 4
T = TypeVar("T")
_END: ContextVar[float | None] = ContextVar("end", default=None)


@contextmanager
def one_request() -> Iterator[None]:
    """What is fetched meanwhile has :data:`SECONDS` in all."""
    token = _END.set(time.monotonic() + SECONDS)
    try:
        yield
    finally:
        _END.reset(token)


class BoundedTransport(httpx.AsyncBaseTransport):
    """What gradio fetches, it reads to its end, however long that is and takes. This gives up.

    Raises:
        PhotoError: it is too large, or takes too long.
        ValueError: the host has no public address.
    """

    def __init__(self) -> None:
        self._turn = threading.Semaphore(AT_ONCE)  # gradio fetches in more than one event loop

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        end, asked = _END.get() or time.monotonic() + SECONDS, request.url
        transport: httpx.AsyncHTTPTransport
        if safehttpx.matches_domain_whitelist(
            asked.host, PUBLIC_HOSTNAME_WHITELIST
        ):  # within a Space, it is no public address
            transport = httpx.AsyncHTTPTransport()
        else:
            transport = safehttpx.AsyncSecureTransport(await safehttpx.async_validate_url(asked.host))
        request.headers["accept-encoding"] = "identity"
        await _before(end, self._wait())
        body: _Body | None = None
        try:
            response = await _before(end, transport.handle_async_request(request))
            request.url = asked  # it was the address' of the host; where a page has moved to is told from its own
            response.headers.pop("content-encoding", None)  # a few bytes could become any number
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = body = _Body(response.stream, transport, self._turn, end)
            length = response.headers.get("content-length", "0")
            if length.isdigit():
                check_weight(int(length))
        except BaseException:
            if body:
                await body.aclose()
            else:
                self._turn.release()
                await transport.aclose()
            raise
        return response

    async def _wait(self) -> None:
        while not self._turn.acquire(blocking=False):
            await asyncio.sleep(0.05)


class _Body(httpx.AsyncByteStream):
    def __init__(
        self, stream: httpx.AsyncByteStream, transport: httpx.AsyncBaseTransport, turn: threading.Semaphore, end: float
    ) -> None:
        self._stream, self._transport, self._turn, self._end = stream, transport, turn, end
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read, parts = 0, aiter(self._stream)
        while (part := await _before(self._end, anext(parts, None))) is not None:
            read += len(part)
            check_weight(read)
            yield part

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._turn.release()
            await self._stream.aclose()
            await self._transport.aclose()


async def fetch(url: str, cache_dir: str) -> str:  # noqa: ARG001 - as gradio calls it
    """As gradio does it, into a folder of its own: there, gradio would take what it has of that address from before, or is just
    writing for somebody else."""
    return await _fetch(url, str(FILES.fresh("photo").parent))


async def _before(end: float, work: Awaitable[T]) -> T:
    try:
        return await asyncio.wait_for(work, end - time.monotonic())
    except asyncio.TimeoutError:
        raise PhotoError("photo_slow", seconds=round(SECONDS)) from None
