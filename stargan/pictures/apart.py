"""Decoding in a process of its own: it may take too long, take too much, or crash, and only that picture is lost.

It gets a file's bytes on its standard input, and answers with a line of JSON and the picture's RGB rows. What it took goes back
to the system with it. It is Python started anew, not multiprocessing, which would run a caller's script a second time.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from stargan.errors import PhotoError

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

POSSIBLE = resource is not None and bool(sys.executable) and not hasattr(sys, "frozen")
# Of the processor, and bytes beside the file: a picture of 50 megapixels takes up to 2 seconds and 650 MB.
SECONDS, MEMORY = 5.0, 700_000_000
# By the clock, of which other processes may take their part, and the start of this one.
PATIENCE = 20.0
# Processes at the same time.
_PLACES = threading.BoundedSemaphore(2)
# Rows that are sent at once.
_STRIP = 64
# What it ends with where a file brings its decoder down.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
# Where this package lies: a prompt's path has it as "", the working directory, alone.
_HOME = str(Path(__file__).resolve().parents[2])
# Isolated from the environment and from modules that lie in the working directory.
_COMMAND = "import sys; sys.path[:] = sys.argv[3:]; from stargan.pictures.apart import main; main()"


def decode(data: bytes, *, seconds: float = SECONDS, memory: int = MEMORY, patience: float = PATIENCE) -> Image.Image:
    """See :func:`stargan.pictures.io.open_file`.

    Args:
        seconds: of the processor, for decoding alone.
        memory: bytes, beside the file and what is there before. Some decoders call a file broken that takes more.
        patience: seconds by the clock, for all of it.

    Raises:
        PhotoError: as there; or it was cut off.
    """
    command = [sys.executable, "-I", "-c", _COMMAND, str(seconds), str(memory), *filter(None, sys.path), _HOME]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves memory
    with _PLACES, _started(command, environment) as process:
        watch = threading.Timer(patience, process.kill)
        watch.start()
        try:
            return _exchanged(process, data)
        except PhotoError:
            raise
        except (OSError, ValueError) as error:  # it ended too early
            process.kill()
            code = process.wait()
            log.warning("A picture's decoder ended with %s.", code)
            raise PhotoError("photo_broken" if -code in _CRASHES else "photo_costly") from error
        finally:
            watch.cancel()
            process.kill()


def _started(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    except OSError as error:  # no memory or no process to be had
        raise PhotoError("photo_costly") from error


def _exchanged(process: subprocess.Popen[bytes], data: bytes) -> Image.Image:
    assert process.stdin
    assert process.stdout
    with process.stdin as file:
        file.write(data)
    answer = json.loads(process.stdout.readline(10_000))
    if "key" in answer:
        raise PhotoError(answer["key"], **answer["values"])
    picture = Image.new("RGB", answer["size"])
    for top in range(0, picture.height, _STRIP):
        size = (picture.width, min(_STRIP, picture.height - top))
        picture.paste(Image.frombytes("RGB", size, process.stdout.read(3 * size[0] * size[1])), (0, top))
    return picture


# In the process


def main() -> None:
    from stargan.pictures.io import installed_formats, open_file  # which imports this module

    data = sys.stdin.buffer.read()
    installed_formats()
    _limit(float(sys.argv[1]), int(sys.argv[2]))
    with suppress(BrokenPipeError):  # whoever asked has gone
        _answer(data, open_file, sys.stdout.buffer)
    os._exit(0)  # without taking apart what goes anyway


def _limit(seconds: float, memory: int) -> None:
    """From now on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a picture of its memory is not left on the disk
    signal.setitimer(signal.ITIMER_PROF, seconds)  # ends the process; RLIMIT_CPU counts whole seconds, from its start
    with suppress(OSError, ValueError):  # where it cannot be set, time alone is bounded
        resource.setrlimit(resource.RLIMIT_DATA, (_held() + memory,) * 2)


def _held() -> int:
    """Bytes, as RLIMIT_DATA counts them."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[5]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _answer(data: bytes, open_file: Callable[..., Image.Image], out: BinaryIO) -> None:
    try:
        picture = open_file(data, here=True)
    except PhotoError as error:
        out.write(json.dumps({"key": error.key, "values": error.values}).encode() + b"\n")
        out.flush()
        return
    out.write(json.dumps({"size": picture.size}).encode() + b"\n")
    for top in range(0, picture.height, _STRIP):
        out.write(picture.crop((0, top, picture.width, min(top + _STRIP, picture.height))).tobytes())
    out.flush()
