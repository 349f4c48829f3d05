"""A small Hub on this machine: what huggingface_hub asks of huggingface.co, answered from memory.

Downloads: a model's page, its folders, and its files; large files are redirected to another address, as on the Hub, and
ranges are served. Uploads, of Spaces too: a repository created, files inline or by Git LFS, commits. And what goes wrong on a real
network: connections that break within a file or are never answered, a log-in page in place of every answer.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = ("*.safetensors", "*.bin")  # as in the .gitattributes of a new Hub repository


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_large(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in LARGE)


@dataclass
class Repository:
    """Files by commit, and the commits' names."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the main branch."""
        return self.commits[self.branches["main"]]

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        listing = "\n".join(f"{path} {git_oid(content)}" for path, content in sorted(files.items()))
        commit = hashlib.sha1(f"{len(self.commits)} {listing}".encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit


class HubServer:
    """Serves ``repositories`` at ``url`` until :meth:`stop`; starts again at the same address.

    Attributes:
        breaks: by name pattern of files, how their next transfers break half way: "close" ends the connection too
            early, "reset" is what a dead router does, "corrupt" sends as many bytes, but others.
        held: by name pattern of a repository's files ("user/repo/file"), what must be set before any is sent.
        silent: connections are accepted and never answered.
        portal: every answer is a web page, like that of a network where one has to log in first.
        readers, writers: access tokens that may read private repositories, and create and change repositories.
        requests: method and path of each request so far.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.breaks: dict[str, list[str]] = {}
        self.held: dict[str, threading.Event] = {}
        self.portal = False
        self.silent = threading.Event()
        self.readers = {"hf_reader", "hf_writer"}
        self.writers = {"hf_writer"}
        self.requests: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.connections: set[socket.socket] = set()
        self.lock = threading.Lock()
        self._port = 0
        self.start()

    def start(self) -> None:
        self._http = Server(("127.0.0.1", self._port), Handler)
        self._http.hub = self
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        for connection in self.connections:  # clients keep theirs open
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def storage(self) -> str:
        """Where large files are: another host than the Hub's, by name at least."""
        return f"http://localhost:{self._port}"

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> Repository:
        self.repositories[name] = Repository(**options)
        self.repositories[name].commit(files)
        self.objects.update({sha256(content): content for path, content in files.items() if is_large(path)})
        return self.repositories[name]

    def next_break(self, path: str) -> str | None:
        with self.lock:
            for pattern, kinds in self.breaks.items():
                if kinds and fnmatch.fnmatch(path, pattern):
                    return kinds.pop(0)
        return None


class Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: HubServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what is being tested; anything else is a fault here."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class HubError(Exception):
    """An answer other than 200; ``code`` is the Hub's name for it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    ROUTES = (
        ("GET", r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?", "show_model"),
        ("GET", r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/(?P<below>.+))?", "show_tree"),
        ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "show_file"),
        ("GET", r"/objects/(?P<oid>\w{64})/(?P<path>.+)", "show_object"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_card"),
        ("POST", r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"(?:/spaces)?/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "offer_objects"),
        ("PUT", r"/objects/(?P<oid>\w{64})", "take_object"),
        ("POST", r"/api/(?:models|spaces)/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
    )

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        self.body = self.read_body()
        while self.hub.silent.is_set():
            time.sleep(0.05)
        if self.hub.portal:
            self.send(b"<html>Welcome! Please log in to this network.</html>", {"Content-Type": "text/html"})
            return
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, path)
            if verb == method and found:
                named = {key: value and unquote(value) for key, value in found.groupdict().items()}
                try:
                    getattr(self, name)(**named)
                except HubError as error:
                    headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
                    self.send(json.dumps({"error": error.message}).encode(), headers, error.status)
                return
        self.send(b"{}", {"X-Error-Message": "no such route"}, 404)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - the standard library's names

    def send(
        self, body: bytes, headers: dict[str, str] | None = None, status: int = 200, breaks: str | None = None
    ) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if breaks == "corrupt":
            self.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))
            return
        self.wfile.write(body[: len(body) // 2] if breaks else body)
        if breaks == "reset":  # closing a socket that lingers for no time sends a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        if breaks:
            self.close_connection = True

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def log_message(self, *_args: object) -> None:
        """Nothing on the terminal."""

    # Who may, and what there is

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def repository(self, name: str) -> Repository:
        if self.token and self.token not in self.hub.readers:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.token):
            raise HubError(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return found

    def at(self, repo: str, revision: str | None) -> tuple[str, dict[str, bytes]]:
        found = self.repository(repo)
        commit = found.branches.get(revision or "main", revision)
        if commit not in found.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, found.commits[commit]

    def may_write(self) -> None:
        if self.token not in self.hub.writers:
            raise HubError(403, "", "You don't have the rights to create or change this repository")

    # Downloads

    def show_model(self, repo: str, revision: str | None) -> None:
        commit, files = self.at(repo, revision)
        siblings = []
        for path, content in files.items():
            sibling = {"rfilename": path, "size": len(content), "blobId": git_oid(content)}
            if is_large(path):
                sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
            siblings.append(sibling)
        self.send_json({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": []})

    def show_tree(self, repo: str, revision: str, below: str | None) -> None:
        """What is in a folder, with what is in its folders where the request is recursive."""
        _, files = self.at(repo, revision)
        start = f"{below}/" if below else ""
        deep = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
        found = {path: content for path, content in files.items() if path.startswith(start)}
        if below and not found:
            raise HubError(404, "EntryNotFound", "Entry not found")
        folders = {str(folder) for path in found for folder in PurePosixPath(path).parents if str(folder) != "."}
        entries: list[dict] = [
            {"type": "directory", "path": folder, "size": 0, "oid": git_oid(folder.encode())}
            for folder in sorted(folders)
            if folder.startswith(start) and (deep or "/" not in folder.removeprefix(start))
        ]
        for path, content in found.items():
            if not deep and "/" in path.removeprefix(start):
                continue
            entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
            if is_large(path):
                entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.send_json(entries)

    def show_file(self, repo: str, revision: str, path: str) -> None:
        commit, files = self.at(repo, revision)
        if self.repository(repo).gated:
            raise HubError(403, "GatedRepo", f"Access to model {repo} is restricted")
        for pattern, event in list(self.hub.held.items()):
            if fnmatch.fnmatch(f"{repo}/{path}", pattern):
                event.wait(60)
        if path not in files:
            raise HubError(404, "EntryNotFound", "Entry not found")
        content = files[path]
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if is_large(path):
            oid = sha256(content)
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self.send(b"", headers | {"Location": f"{self.hub.storage}/objects/{oid}/{path}"}, 302)
        else:
            self.send_part(content, headers | {"ETag": f'"{git_oid(content)}"'}, path)

    def show_object(self, oid: str, path: str) -> None:
        self.send_part(self.hub.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"}, path)

    def send_part(self, content: bytes, headers: dict[str, str], path: str) -> None:
        breaks = self.hub.next_break(path) if self.command == "GET" else None
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if part is None:
            self.send(content, headers, breaks=breaks)
            return
        start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.send(content[start : end + 1], headers, 206, breaks)

    # Uploads

    def create(self) -> None:
        self.may_write()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repositories else 200
        if status == 200:
            private = asked.get("visibility") == "private" or asked.get("private", False)
            self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        self.send_json({"url": f"{self.hub.url}/{name}"}, status)

    def validate_card(self) -> None:
        self.send_json({"errors": [], "warnings": []})

    def preupload(self, repo: str, revision: str) -> None:
        self.at(repo, revision)
        self.may_write()
        files = json.loads(self.body)["files"]
        modes = {True: "lfs", False: "regular"}
        self.send_json(
            {
                "files": [
                    {"path": file["path"], "uploadMode": modes[is_large(file["path"])], "shouldIgnore": False}
                    for file in files
                ]
            }
        )

    def offer_objects(self, repo: str) -> None:
        self.repository(repo)
        self.may_write()
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/objects/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self.send_json({"transfer": "basic", "objects": objects})

    def take_object(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise HubError(400, "", "the content is not what its name says")
        if self.hub.next_break("upload"):
            raise HubError(403, "", "the signature of this address has expired")
        self.hub.objects[oid] = self.body
        self.send(b"")

    def commit(self, repo: str, revision: str) -> None:
        self.may_write()
        _, files = self.at(repo, revision)
        files = dict(files)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        commit = self.hub.repositories[repo].commit(files, revision)
        self.send_json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})
