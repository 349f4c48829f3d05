"""``make audit`` and the lock file that it reads, against a service that answers as OSV does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
# What the audit asks first, to know that it talks to such a service at all.
PROBE = ("requests", "2.19.0")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


class Service:
    """OSV's ``/v1/query``: knows the vulnerable packages and versions, and notes what it was asked."""

    def __init__(self) -> None:
        self.vulnerable = {PROBE}
        self.asked: set[tuple[str, str]] = set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                name, version = query["package"]["name"], query["version"]
                service.asked.add((name, version))
                found = {"id": "TEST-2026-1", "summary": "Reads what it should not.", "affected": []}
                body = json.dumps({"vulns": [found]} if (name, version) in service.vulnerable else {}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/query"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.server.shutdown()
    service.server.server_close()


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Of this environment's programs; what is installed is not checked first, as ``make`` else does."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = ["make", "--silent", "--old-file=.venv/dev", "audit", f"BIN={Path(sys.executable).parent}"]

    def run(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, f"OSV={url}"], cwd=ROOT, capture_output=True, text=True, timeout=120)

    return run


def locked(name: str) -> str:
    """The version of a package that is locked for this Python."""
    found = map(Requirement, re.findall(rf"^({name}==.*) \\$", LOCK, re.MULTILINE))
    (here,) = (requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate())
    return str(here.specifier).removeprefix("==")


def test_all_that_is_locked_is_asked_about(audit: Callable, service: Service) -> None:
    done = audit(service.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No known vulnerabilities found" in done.stderr
    assert service.asked >= {(name, locked(name)) for name in ("gradio", "pillow", "safetensors", "pytest")}
    assert len(service.asked) > 100


def test_a_vulnerability_fails(audit: Callable, service: Service) -> None:
    service.vulnerable.add(("pillow", locked("pillow")))
    done = audit(service.url)
    assert done.returncode != 0
    assert re.search(rf"pillow +{re.escape(locked('pillow'))} +TEST-2026-1", done.stdout)


def test_offline_it_is_skipped_with_a_notice(audit: Callable, service: Service) -> None:
    """Where nobody answers; and where somebody does, but knows nothing, as a proxy or a mirror."""
    service.vulnerable.clear()
    for url in ("http://127.0.0.1:9/v1/query", service.url):
        done = audit(url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout == f"Skipped the audit of known vulnerabilities: {url} does not answer.\n"
    assert service.asked == {PROBE}


def test_every_locked_package_has_hashes() -> None:
    """So that what is installed is what was locked, file for file."""
    packages = re.split(r"\n(?=\S)", LOCK.split("\n", 2)[2])
    assert len(packages) > 100
    for package in packages:
        assert re.search(r"^\S+==\S+ ", package)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", package), package
