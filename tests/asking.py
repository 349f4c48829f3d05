"""A visitor of the running app by raw HTTP, as nobody's browser would ask: any function, any value, and no client between."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx


class Visitor:
    """One session. Its answers come on one stream, in whichever order they are done.

    Attributes:
        begun: ids of the requests whose progress was told.

    Args:
        url: of the app, ending in a slash.
        headers: sent with every request.
    """

    def __init__(self, url: str, **headers: str) -> None:
        self.session = secrets.token_hex(6)
        self.http = httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False)
        self.begun: set[str] = set()
        self._asked: dict[str, Future[dict]] = {}
        self._early: dict[str, dict] = {}
        self._lock = threading.Lock()
        self._reading = False
        self._stop = threading.Event()
        self._socket: socket.socket | None = None

    @cached_property
    def functions(self) -> list[dict[str, Any]]:
        """What the app can be asked to run, named and private, each with its input components."""
        config = self.http.get("config").raise_for_status().json()
        components = {component["id"]: component for component in config["components"]}
        return [
            function | {"components": [components[number] for number in function["inputs"]]}
            for function in config["dependencies"]
            if function["backend_fn"]
        ]

    def upload(self, path: Path) -> dict[str, Any]:
        """The file as an input's value."""
        with path.open("rb") as file:
            answer = self.http.post("gradio_api/upload", files={"files": (path.name, file)}).raise_for_status()
        return file_at(answer.json()[0])

    def post(self, function: int, data: list, event_data: Any = None) -> httpx.Response:
        """Only the request to put it into the queue. NaN and infinity are sent as such, which Python's JSON knows."""
        body = {"data": data, "fn_index": function, "session_hash": self.session, "event_data": event_data}
        return self.http.post(
            "gradio_api/queue/join", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )

    def submit(self, function: int, data: list, event_data: Any = None) -> Future[dict]:
        """What will be the last message about it: ``success``, and ``output`` with ``data`` or ``error``.

        Where it is not even let into the queue: ``refused``, the answer's status, and the text in ``output["error"]``.
        """
        future: Future[dict] = Future()
        answer = self.post(function, data, event_data)
        if answer.status_code != 200:
            future.set_result({"success": False, "refused": answer.status_code, "output": {"error": answer.text}})
            return future
        number = answer.json()["event_id"]
        with self._lock:
            if number in self._early:
                future.set_result(self._early.pop(number))
                return future
            self._asked[number] = future
            start, self._reading = not self._reading, True
        if start:
            threading.Thread(target=self._read, daemon=True).start()
        return future

    def ask(self, function: int, data: list, event_data: Any = None, seconds: float = 120) -> dict:
        """The same, waited for."""
        return self.submit(function, data, event_data).result(seconds)

    def leave(self) -> None:
        """As a browser does whose tab is closed: the stream ends."""
        self._stop.set()
        if self._socket:
            with suppress(OSError):  # it has ended
                self._socket.shutdown(socket.SHUT_RDWR)  # closing would wait for what is being read

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                with self.http.stream("GET", f"gradio_api/queue/data?session_hash={self.session}") as stream:
                    self._socket = stream.extensions["network_stream"].get_extra_info("socket")
                    for line in stream.iter_lines():
                        if self._stop.is_set():
                            return
                        if line.startswith("data:"):
                            self._heard(json.loads(line[5:]))
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                self._fail(error)
            with self._lock:
                if not self._asked:
                    self._reading = False
                    return

    def _heard(self, message: dict) -> None:
        if message["msg"] == "progress":
            self.begun.add(message["event_id"])
        if message["msg"] not in ("process_completed", "process_streaming"):
            return
        number = message["event_id"]
        if message["msg"] == "process_streaming":  # a camera's function waits for the next picture, which does not come
            self.http.post(f"gradio_api/stream/{number}/close")
        with self._lock:
            future = self._asked.pop(number, None)
            if future is None:
                self._early[number] = message
        if future is not None:
            future.set_result(message)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            waiting = list(self._asked.values())
            self._asked.clear()
        for future in waiting:
            future.set_exception(error)


def file_at(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def wait_until(holds: Callable[[], bool], seconds: float, step: float = 0.05) -> bool:
    """Whether it came to hold in that time."""
    deadline = time.monotonic() + seconds
    while not (done := holds()) and time.monotonic() < deadline:
        time.sleep(step)
    return done


def report(what: str, figures: str) -> None:
    """A line for the table of ``make stress``."""
    if path := os.environ.get("STARGAN_REPORT"):
        with open(path, "a") as file:
            file.write(f"{what:8} {figures}\n")
