"""What the page's scripts will ask for, named in the document: else a browser hears of each only from the one before, a round
trip later."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path

import gradio

log = logging.getLogger("stargan.app")

ASSETS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
# Of the components on the first screen, by gradio's names.
KINDS = (
    "accordion", "browserstate", "button", "checkbox", "column", "dataset", "downloadbutton", "form", "gallery", "image",
    "markdown", "number", "radio", "row", "slider", "state", "tabitem", "tabs", "textbox", "uploadbutton",
)  # fmt: skip
# Bytes.
LARGE = 300_000


@lru_cache(maxsize=8)
def needed(entry: str) -> tuple[str, ...]:
    """The names of scripts and style sheets, below ``assets/``, that the document's first script will ask for; none where
    this gradio's scripts are of another form.

    Gradio's bundler notes what each ``import()`` brings as numbers of a list, which each script begins with.
    """
    try:
        script = _read(entry)
        first = _list(script)
        frame, components = (next(name for name in first if name.startswith(kind)) for kind in ("Index-", "core-"))
        found = [*first, *_brought(_read(frame), r"import\(`\./Blocks-")]
        for kind in KINDS:
            found += _brought(_read(components), rf"[{{,]{kind}:\{{.*?component:")
    except (OSError, StopIteration, ValueError, IndexError) as error:
        log.info("Nothing of the page is preloaded: %r", error)
        return ()
    names = [name for name in dict.fromkeys(found) if name != entry]
    # a player of streams, which no picture waits for, comes last
    return tuple(sorted(names, key=lambda name: (ASSETS / name).stat().st_size > LARGE))


def _read(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _list(script: str) -> list[str]:
    return re.findall(r'"\./([\w.-]+)"', _found(r"m\.f\|\|\(m\.f=\[(.*?)\]", script))


def _brought(script: str, call: str) -> list[str]:
    """What a call that a pattern finds brings."""
    names = _list(script)
    return [names[int(number)] for number in _found(call + r".*?__vite__mapDeps\(\[([\d,]+)\]", script).split(",")]


def _found(pattern: str, script: str) -> str:
    match = re.search(pattern, script, re.DOTALL)
    if match is None:
        raise ValueError(f"{pattern} is not there")
    return match[1]


def with_links(document: bytes) -> bytes:
    """An HTML document that names them in its head."""
    entry = re.search(rb"assets/(index-[\w-]+\.js)", document)
    if entry is None:
        return document
    links = ""
    for name in needed(entry[1].decode()):
        kind = "modulepreload" if name.endswith(".js") else "preload"
        links += f'<link rel="{kind}"{" as=style" * name.endswith(".css")} crossorigin href="./assets/{name}">\n'
    return document.replace(b"</head>", links.encode() + b"</head>", 1)
