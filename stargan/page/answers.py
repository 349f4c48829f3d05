"""Asking and answering: the visitor's language, one sentence for whatever goes wrong, one line in the log a request."""

from __future__ import annotations

import errno
import functools
import html
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import gradio as gr
from gradio.context import LocalContext
from gradio.exceptions import InvalidPathError
from gradio.processing_utils import check_all_files_in_cache
from gradio.state_holder import SessionState

from stargan.errors import RequestError, UserError
from stargan.models.config import ModelError
from stargan.page import texts
from stargan.page.fetching import one_request
from stargan.page.files import FILES
from stargan.page.memory import ANSWERED, pixels_in
from stargan.stages import counted

log = logging.getLogger("stargan.app")

# Events of the page are no endpoints; drawing waits its turn in the queue, a few visitors at a time.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4}
# At once, outside of the queue.
AT_ONCE: dict[str, Any] = {"api_visibility": "private", "queue": False}


# Values in a list of a request's; the longest that the page sends is a gallery.
LISTED = 256
# How the system says that nothing more can be written.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Traffic:
    """Requests that are being answered, and whether further ones are."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request.

        Raises:
            RequestError: the app is about to stop.
        """
        with self._changed:
            if self._closed:
                raise RequestError("stopping")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self, seconds: float) -> bool:
        """Refuses what comes from now on, and waits for what is under way; whether all of it was answered in time."""
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: self._running == 0, seconds)


TRAFFIC = Traffic()


class Cancellations:
    """Pieces of work that are under way, by visitor's page and handler, and whether they have been cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str | None, str], list[threading.Event]] = {}
        self._all = False

    @contextmanager
    def piece(self, name: str) -> Iterator[None]:
        """One piece of work, which :class:`Told` ends when it has been cancelled."""
        key, cancelled = (page_of_visitor(), name), threading.Event()
        with self._lock:
            self._running.setdefault(key, []).append(cancelled)
            if self._all:
                cancelled.set()
        token = _cancelled.set(cancelled)
        try:
            yield
        finally:
            _cancelled.reset(token)
            with self._lock:
                self._running[key].remove(cancelled)
                if not self._running[key]:
                    del self._running[key]

    def cancel(self, name: str) -> None:
        """Asks what this visitor's page has under way of that name to end."""
        with self._lock:
            for cancelled in self._running.get((page_of_visitor(), name), ()):
                cancelled.set()

    def cancel_all(self) -> None:
        """Asks whatever anybody has under way, or yet begins, to end: the app is about to stop."""
        with self._lock:
            self._all = True
            for cancelled in (one for running in self._running.values() for one in running):
                cancelled.set()


def page_of_visitor() -> str | None:
    """The visitor's page that is being answered."""
    return getattr(LocalContext.request.get(None), "session_hash", None)


_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)
CANCELLATIONS = Cancellations()
Handler = TypeVar("Handler", bound=Callable[..., Any])

# Any: it may stand for most texts of a component, not all of which gradio's annotations name
i18n: Any = gr.I18n(**texts.tables())


def language() -> str:
    """The language of the visitor who is being answered."""
    request = LocalContext.request.get(None)
    return texts.preferred(request.headers.get("accept-language") if request else None)


def say(key: str, **values: object) -> str:
    return texts.say(key, language(), **values)


def reason(error: Exception) -> str:
    """What went wrong, as one sentence in the visitor's language."""
    if isinstance(error, UserError):
        return say(error.key, **error.values)
    if isinstance(error, ModelError):  # a matter of whoever runs the app: its details stay as they are
        return say("model_failed", detail=error)
    if isinstance(error, FileNotFoundError):
        return say("photo_gone")
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        log.error("The disk is full: %s", error.strerror)
        return say("disk_full")
    log.error("unexpected", exc_info=error)
    return say("unexpected")


def shown(error: Exception) -> str:
    """The same, to be put into a page."""
    return html.escape(reason(error), quote=False)


def answering(handler: Handler) -> Handler:
    """Whatever goes wrong in an event becomes one sentence for the visitor, never a traceback.

    Each request leaves a line in the log: what it was, how it ended, and where its time went; never a picture or a name.
    """

    @functools.wraps(handler)
    def answer(*args: Any, **options: Any) -> Any:
        begin, end = time.perf_counter(), "ok"
        with counted() as stages:
            try:
                with (
                    TRAFFIC.request(),
                    CANCELLATIONS.piece(handler.__name__),  # what waits for memory can be cancelled, too
                    ANSWERED.taking(pixels_in((*args, *options.values()), FILES.root)),
                ):
                    return handler(*args, **options)
            except Exception as error:
                end = error.key if isinstance(error, UserError) else type(error).__name__
                raise Refusal(shown(error)) from None
            finally:
                log.info("request %s %s %.3fs %s", handler.__name__, end, time.perf_counter() - begin, stages)

    return answer  # type: ignore[return-value]


class Refusal(gr.Error):
    """A sentence for the visitor, in the place of an answer."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, print_exception=False)


def _check_lengths(inputs: list[Any]) -> None:
    """
    Raises:
        RequestError: a list is longer than any that the page sends: each of its files would be looked at.
    """
    if any(len(value) > LISTED for value in inputs if isinstance(value, list)):
        raise RequestError("bad_input")


def guard(page: gr.Blocks) -> None:
    """What gradio itself raises of a request becomes a sentence, too: a value of a kind that its component cannot take, too
    few values, a file from outside. It would answer with nothing or with all that was sent, and a traceback in the log."""
    preprocess, process = page.preprocess_data, page.process_api

    async def checked_inputs(function: Any, inputs: Any, *args: Any, **options: Any) -> list[Any]:
        try:
            _check_lengths(inputs)
            # gradio itself looks only at files that are marked as such, and takes pictures that are not
            check_all_files_in_cache(inputs)
            with one_request():
                return await preprocess(function, inputs, *args, **options)
        except Exception as error:
            said = next((one for one in (error, error.__cause__) if isinstance(one, UserError)), None)
            raise said or RequestError("bad_input") from error

    async def answered(*args: Any, **options: Any) -> dict[str, Any]:
        LocalContext.request.set(options.get("request"))
        try:
            return await process(*args, **options)
        except Refusal:
            raise
        except Exception as error:
            if isinstance(
                error, InvalidPathError
            ):  # of what an event says of itself, which comes with the function's call
                error = RequestError("bad_input")
            if isinstance(error, UserError):
                log.info("request refused unread: %s", error.key)
            raise Refusal(shown(error)) from None
        finally:
            # a program that names no session comes back to none: it must not take the place of one
            if (session := options.get("session_hash")) and session == options.get("event_id"):
                page.state_holder.session_data.pop(session, None)
                page.state_holder.time_last_used.pop(session, None)

    # for links to what a session shows, which this page has not, gradio would hold all that it was asked and answered, a camera's
    # pictures among them, for as long as it knows the session
    SessionState._update_value_in_config = lambda *_: None  # type: ignore[method-assign]
    page.preprocess_data, page.process_api = checked_inputs, answered  # type: ignore[assignment, method-assign]


class Told:
    """Reports progress to the page in the visitor's language, and ends work that nobody wants any more. A class, so that it can
    be sent to a GPU's process, where nobody cancels.

    Raises:
        RequestError: the work has been cancelled, the visitor has left, or the app is about to stop.
    """

    _cancelled: threading.Event | None = None

    def __init__(self, key: str) -> None:
        self.text = say(key)
        self._cancelled = _cancelled.get()
        self(0.0)

    def __call__(self, part: float) -> None:
        if self._cancelled and self._cancelled.is_set():
            raise RequestError("stopping" if TRAFFIC.closed else "cancelled")
        if _left():
            raise RequestError("left")
        gr.Progress()(part, desc=self.text)

    def __getstate__(self) -> dict[str, str]:
        return {"text": self.text}


def _left() -> bool:
    page, number = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    running = [event for events in page._queue.active_jobs if events for event in events] if page else []
    return any(event._id == number and not event.alive for event in running)
