"""Makes every picture of README and every example but the portrait, with the default model.

    .venv/bin/python examples/make.py

Run it again after the default model changed.
"""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path

import av
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from stargan import Translator, load_translator
from stargan.constants import DEFAULT_MODEL
from stargan.drawing import Source, prepare
from stargan.pictures.provenance import Provenance, save_picture
from stargan.pictures.tensors import grid

PORTRAIT = HERE / "photos" / "collins.png"
# Chosen by eye, for faces and hair that differ.
FACE_SEEDS = {"female": (2, 7), "male": (5, 7)}
DRAWING_SEEDS = (22, 26, 29, 15, 9, 27)
# Left, top and width of what the video shows of the portrait: at first, in the end.
VIEWS = ((20, 0, 400), (110, 10, 220))
# Cells are enlarged: a page shows them small else.
CELL = 192


def enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((CELL, CELL), Image.Resampling.LANCZOS)


def lighten() -> None:
    """What the page shows: the photos and drawings as WebP, a tenth as heavy."""
    for kind in ("photos", "drawings"):
        folder = HERE / "page" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted((HERE / kind).glob("*.png")):
            picture, light = Image.open(file).convert("RGB"), folder / f"{file.stem}.webp"
            if file == PORTRAIT:
                picture.save(light, quality=88, method=6)
            else:
                save_picture(picture, light, Provenance(DEFAULT_MODEL), "WEBP")


def film(photo: Image.Image, path: Path, seconds: int = 3, rate: int = 20, side: int = 320) -> None:
    """A short video of a still: from the whole of it slowly to the face, and a little to the side."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as output:
        stream = output.add_stream("libx264", rate=rate, options={"crf": "27", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for index in range(seconds * rate):
            part = index / (seconds * rate - 1)
            part = part * part * (3 - 2 * part)
            left, top, width = (start + part * (end - start) for start, end in zip(*VIEWS, strict=True))
            shown = photo.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + width, top + width))
            output.mux(stream.encode(av.VideoFrame.from_image(shown)))
        output.mux(stream.encode(None))


def main() -> None:
    film(Image.open(PORTRAIT).convert("RGB"), HERE / "videos" / "collins.mp4")
    translator = load_translator()
    source = prepare(Source.open(PORTRAIT), translator.config).crops[0]
    (drawing,) = draw(translator, source, "anime", DRAWING_SEEDS[:1])
    # drawing → photo-like face, of a person who does not exist → drawing, of one more
    people = []
    for domain, seeds in FACE_SEEDS.items():
        for seed, face in zip(seeds, draw(translator, drawing, domain, seeds), strict=True):
            save(translator, face, HERE / "photos" / f"{domain}-{seed}.png", domain, seed)
            people.append(face)
    drawings = []
    for seed, face in zip(DRAWING_SEEDS, cycle(people), strict=False):
        drawings += draw(translator, face, "anime", [seed])
        save(translator, drawings[-1], HERE / "drawings" / f"seed-{seed}.png", "anime", seed)
    lighten()
    pictures = HERE / "readme"
    pictures.mkdir(exist_ok=True)
    latent = translator.latent(PORTRAIT, "anime", count=10, seed=22, psi=0.7)
    cells = [enlarged(picture) for picture in (source, *latent)]
    hero = grid([cells[:6], [None, *cells[6:]]])
    provenance = Provenance(translator.name, details={"domain": "anime", "seeds": "22-31", "psi": "0.7"})
    save_picture(hero, pictures / "latent.png", provenance)
    mixed = translator.reference(PORTRAIT, drawings, "anime")
    rows = [[None, *map(enlarged, drawings)], [enlarged(source), *map(enlarged, mixed)]]
    provenance = Provenance(translator.name, details={"domain": "anime", "references": "drawings/"})
    save_picture(grid(rows), pictures / "reference.png", provenance)


def draw(
    translator: Translator, source: Image.Image, domain: str, seeds: list[int] | tuple[int, ...]
) -> list[Image.Image]:
    return translator.decode(translator.encode(source), translator.latent_styles(domain, seeds, psi=1.0))


def save(translator: Translator, picture: Image.Image, file: Path, domain: str, seed: int) -> None:
    file.parent.mkdir(exist_ok=True)
    save_picture(enlarged(picture), file, Provenance(translator.name, seed, {"domain": domain}))


if __name__ == "__main__":
    main()
