"""How ``python app.py`` starts: ports, the ecosystem's environment, and what is wrong with its settings."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from serving import ROOT


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    return os.environ | {"STARGAN_COMPILE": "0", "GRADIO_TEMP_DIR": str(tmp_path / "files")} | settings


def refused(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "app.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(tmp_path, **settings), capture_output=True, text=True, timeout=120
    )


def test_a_port_that_is_taken_is_said_in_a_sentence(taken: int, tmp_path: Path) -> None:
    done = refused(tmp_path, "--port", str(taken))
    assert done.returncode == 2
    assert f"The app cannot be served at port {taken}: another program listens there." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["0", "70000", "-1", "http"])
def test_a_port_that_cannot_be_is_said_in_a_sentence(tmp_path: Path, port: str) -> None:
    done = refused(tmp_path, f"--port={port}")
    assert done.returncode == 2
    assert f"argument --port: must be a number from 1 to 65535, not '{port}'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_another_machine_is_said_in_a_sentence(tmp_path: Path) -> None:
    done = refused(tmp_path, "--host", "192.0.2.1", "--port", "7999")  # of a net that is for documents alone
    assert done.returncode == 2
    assert "cannot be served at port 7999: 192.0.2.1 is no address that can be used here" in done.stderr


@pytest.mark.parametrize(
    ("missing", "arguments", "sentence"),
    [
        ("gradio", [], "The package gradio is not installed: pip install -r requirements.txt"),
        ("pydantic", [], "The package pydantic is not installed: pip install -r requirements.txt"),
        ("torch", ["--serve", "auto"], "The package torch is not installed: pip install -r requirements.txt"),
        ("ray", ["--serve", "auto"], "--serve needs a further package (ray): pip install 'ray[serve]'"),
    ],
)
def test_a_package_that_is_missing_is_named(tmp_path: Path, missing: str, arguments: list[str], sentence: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv[0] = 'app.py'; import app; sys.exit(app.main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_public_link_ends_with_the_app(tmp_path: Path) -> None:
    """Else it would lead to whatever comes to listen at the port. The link's program is another one here, and real."""
    code = (
        "import subprocess, sys; from gradio import tunneling\n"
        "tunnel = tunneling.Tunnel('', 0, '127.0.0.1', 7860, '', None); tunnel.proc = subprocess.Popen(['sleep', '600'])\n"
        "tunneling.CURRENT_TUNNELS.append(tunnel); print(tunnel.proc.pid, flush=True)\n"
        "import app; sys.argv[0] = 'app.py'; sys.exit(app.main([]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    link = psutil.Process(int(process.stdout.readline()))
    for line in process.stdout:
        if "Running on local URL" in line:
            break
    process.terminate()
    assert process.wait(60) == 0
    with suppress(psutil.NoSuchProcess):  # its parent is gone, and it with it, or it is about to be
        link.wait(10)
    assert not link.is_running() or link.status() == psutil.STATUS_ZOMBIE


def test_on_a_space_visitors_are_told_apart(tmp_path: Path) -> None:
    """All of them come through its proxy, which says who they are; elsewhere, anybody could say so."""
    code = (
        "import os, sys; sys.modules['gradio'] = None; import app\n"
        "try:\n    app.main([])\nexcept SystemExit:\n    print(os.environ.get('FORWARDED_ALLOW_IPS'))"
    )
    for space, trusted in (({"SPACE_ID": "user/space"}, "*"), ({}, "None")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment(tmp_path, **space),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout.strip() == trusted


def test_without_a_port_the_next_free_one_is_taken(taken: int, tmp_path: Path) -> None:
    settings = environment(tmp_path, GRADIO_SERVER_PORT=str(taken), GRADIO_SERVER_NAME="127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-u", "app.py"],
        cwd=ROOT,
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout
        said = next(line for line in process.stdout if "Running on" in line)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found
        assert taken < int(found[1]) < taken + 100
        urllib.request.urlopen(found[0]).close()
    finally:
        process.terminate()
    begin = time.monotonic()
    assert process.wait(30) == 0
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("models", ["nonsense", "../x", "user/repo@..", "a" * 10_000])
def test_a_menu_of_nonsense_is_said_in_a_sentence(models: str, tmp_path: Path) -> None:
    done = refused(tmp_path, STARGAN_MODELS=models)
    assert done.returncode == 2
    assert "STARGAN_MODELS" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 700


def test_an_upscaler_that_cannot_be_had_is_said_in_a_sentence(tmp_path: Path) -> None:
    done = refused(tmp_path, STARGAN_UPSCALER="weights/none.safetensors")
    assert done.returncode == 2
    assert "weights/none.safetensors" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_says_what_there_is(tmp_path: Path) -> None:
    done = refused(tmp_path, "--help")
    assert done.returncode == 0
    assert {"--port", "--share", "--mcp", "--host"} <= set(re.findall(r"--\w+", done.stdout))
