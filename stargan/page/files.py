"""Uploads and results on disk: one folder, of this app alone, where nothing gets older than an hour."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gradio.utils import get_upload_folder

from stargan.allocator import give_memory_back
from stargan.constants import MAX_AGE
from stargan.drawing import CACHE

log = logging.getLogger(__name__)

# What is older than MAX_AGE is looked for this often, in seconds: together less than the hour that visitors are told.
SWEEP_EVERY = 300.0
# What nobody asked for again in so many seconds leaves the memory, but for so many bytes, which are a photo of 12 megapixels
# and what is made of it; looked for this often.
UNUSED, KEPT, LOOK_EVERY = 30.0, 64_000_000, 10.0
# An empty folder may be about to be written to.
_EMPTY_AGE = 60.0


class Files:
    """The folder of uploads and results.

    Args:
        root: nothing else may be kept there.
        clock: seconds since the epoch, as files' times are.
        born: when a file came here. Its content's own time says nothing: gradio copies with it.

    Raises:
        OSError: the folder cannot be made or written to, in a sentence.

    Attributes:
        kept: files that stay as long as the app runs: gradio's copies of the examples.
        noted: names of files that gradio writes down, by which it would delete them; a sweep empties them.
        swept: called after each sweep.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.time,
        born: Callable[[os.stat_result], float] = lambda about: about.st_ctime,
    ) -> None:
        self.root, self._clock, self._born = root, clock, born
        self.kept: Callable[[], Iterable[str]] = tuple
        self.noted: Callable[[], Iterable[set[str]]] = tuple
        self.swept: Callable[[], object] = tuple
        try:
            root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            root.mkdir(exist_ok=True, mode=0o700)
            if root.parent.parent == Path(tempfile.gettempdir()):  # where anybody may have been first
                for folder in (root.parent, root):
                    _check_own(folder)
            tempfile.TemporaryFile(dir=root).close()
        except OSError as error:
            said = f"Uploads and results cannot be kept in {root} ({error.strerror}): name another folder in GRADIO_TEMP_DIR."
            raise OSError(error.errno, said) from error

    def fresh(self, name: str) -> Path:
        """Where a file of that name can be written: an unguessable place."""
        path = self.root / secrets.token_hex(16) / name
        path.parent.mkdir(parents=True)
        return path

    def write(self, name: str, content: bytes) -> str:
        """A new file; its path."""
        path = self.fresh(name)
        write_whole(path, content)
        return str(path)

    def sweep(self) -> int:
        """Deletes what is too old, and folders that are empty; how many files it was."""
        now, deleted = self._clock(), 0
        for names in self.noted():
            names.clear()
        for name in self.kept():
            with contextlib.suppress(OSError):
                os.utime(name)  # so that another app that sweeps here knows, too
        for path in sorted(self.root.rglob("*"), reverse=True):  # what is in a folder before the folder
            with contextlib.suppress(OSError):  # somebody else was faster
                age = now - self._born(path.lstat())
                if path.is_dir() and not path.is_symlink():
                    if age > _EMPTY_AGE and not any(path.iterdir()):
                        path.rmdir()
                elif age > MAX_AGE:
                    path.unlink()
                    deleted += 1
                elif age < 0:  # the clock was set back: its hour begins now
                    os.utime(path, (now, now))  # which sets the time of the change, too
        return deleted

    def keep_swept(self) -> None:
        """Sweeps now, since a killed app swept nothing, and then every few minutes, in a thread."""

        def run() -> None:
            swept = -math.inf
            while True:
                try:
                    CACHE.drop_unused(UNUSED, KEPT)
                    give_memory_back()
                    if time.monotonic() - swept >= SWEEP_EVERY:
                        swept = time.monotonic()
                        CACHE.drop_older(MAX_AGE)
                        self.sweep()
                        self.swept()
                except Exception:
                    log.exception("The folder of uploads and results could not be swept.")
                time.sleep(LOOK_EVERY)

        threading.Thread(target=run, name="Sweeping", daemon=True).start()


def _check_own(folder: Path) -> None:
    """
    Raises:
        OSError: somebody else's, or open to others: they would see uploads, or have the sweep delete what they name.
    """
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode):
        raise OSError(errno.ENOTDIR, f"{folder} is a link")
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
        raise OSError(errno.EACCES, f"{folder} is open to others")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """→ where to write a file that then is there with all of its content, or not at all: whether the app is killed, the disk is
    full or the work is cancelled."""
    part = path.with_name(f".{secrets.token_hex(4)}.part")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """As :func:`written_whole`, where the content is at hand.

    Raises:
        OSError: it cannot be written.
    """
    with written_whole(path) as part:
        part.write_bytes(content)


FILES = Files(Path(get_upload_folder()))
