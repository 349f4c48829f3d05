"""What programs call: the contract that README documents and a test pins."""

from __future__ import annotations

from typing import Any

import gradio as gr

from stargan import drawing
from stargan.drawing import Drawn, Recipe, Source, Square
from stargan.errors import RequestError
from stargan.models.config import ModelError
from stargan.models.registry import DEFAULT_MODEL
from stargan.page import events
from stargan.page.answers import Told, answering
from stargan.page.events import saved
from stargan.page.models import config_of, menu, painter

# What an endpoint that draws returns: crop, drawings, grid, whole photo.
Answer = tuple[str, list[tuple[str, str]], str, str]


@answering
def detect_faces(photo: str) -> tuple[str, list[dict]]:
    """Find the faces in a photo.

    Parameters:
        photo: A picture file: PNG, JPEG, WebP, HEIC and others, up to 50 megapixels.

    Returns:
        numbered: The photo, at most 1024 px, with a numbered frame around each face.
        faces: The faces, biggest first: number, box (left, top, right, bottom) and five landmarks (left eye, right eye,
            nose, left and right mouth corner) in pixels of the photo, and the detector's score from 0 to 1.
    """
    source = _source(photo)
    listed = [
        {
            "number": n,
            "box": [round(float(v), 1) for v in face.box],
            "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks],
            "score": round(float(face.score), 4),
        }
        for n, face in enumerate(source.faces, start=1)
    ]
    return saved(drawing.numbered(source), "faces.png"), listed


@answering
def latent_grid(
    photo: str,
    domain: str | None = None,
    count: int = 8,
    seed: int = 1,
    psi: float = 0.7,
    face: int = 1,
    centre_crop: bool = False,
    model: str | None = None,
) -> Answer:
    """Draw a photo's face in many styles, one a seed.

    Parameters:
        photo: A picture file with a face.
        domain: What to draw: a domain of the model, such as "anime"; see /list_models.
        count: How many drawings, 1 to 16.
        seed: Seed of the first drawing, 0 to 2147483647; the next ones follow. A seed always gives the same style.
        psi: Truncation: 0 gives the average drawing, 1 the full variety, at most 1.5.
        face: Which face, as numbered by /detect_faces; 1 is the biggest.
        centre_crop: Draw the middle square of a photo in which no face is found, instead of refusing it.
        model: A name from /list_models; the default model if empty.

    Returns:
        crop: The face as the model sees it.
        drawings: One PNG a seed, with the caption "seed N".
        grid: The crop and all drawings in one picture.
        whole_photo: The photo with the first drawing in the face's place.
    """
    recipe = drawing.seeds(config_of(model), domain, count, seed, psi)
    return _answer(_draw(photo, face, centre_crop, model, recipe))


@answering
def reference_mix(
    photo: str,
    references: list,
    domain: str | None = None,
    strength: float = 1.0,
    face: int = 1,
    centre_crop: bool = False,
    model: str | None = None,
) -> Answer:
    """Draw a photo's face in the style of reference pictures.

    Parameters:
        photo: A picture file with a face.
        references: One to eight picture files of faces of the domain. Drawn faces need not be detectable.
        domain: What the references show: a domain of the model, such as "anime"; see /list_models.
        strength: From 0, the photo's own style, to 1, the reference's.
        face: Which face, as numbered by /detect_faces; 1 is the biggest.
        centre_crop: Draw the middle square of a photo in which no face is found, instead of refusing it.
        model: A name from /list_models; the default model if empty.

    Returns:
        crop: The face as the model sees it.
        drawings: One PNG a reference and, of several, one in the mean of their styles, with captions.
        grid: The references above, the crop and its drawings below.
        whole_photo: The photo with the first drawing in the face's place.
    """
    recipe = drawing.references(config_of(model), events.references_of(references, {}), domain, strength)
    return _answer(_draw(photo, face, centre_crop, model, recipe), recipe.crops)


@answering
def interpolate(
    photo: str,
    domain: str | None = None,
    seed_from: int = 1,
    seed_to: int = 2,
    psi: float = 0.7,
    face: int = 1,
    centre_crop: bool = False,
    model: str | None = None,
) -> str:
    """Make a clip of a photo's face walking from one style to another.

    Parameters:
        photo: A picture file with a face.
        domain: What to draw: a domain of the model, such as "anime"; see /list_models.
        seed_from: Seed of the first style, 0 to 2147483647.
        seed_to: Seed of the last style, 0 to 2147483647.
        psi: Truncation: 0 gives the average drawing, 1 the full variety, at most 1.5.
        face: Which face, as numbered by /detect_faces; 1 is the biggest.
        centre_crop: Draw the middle square of a photo in which no face is found, instead of refusing it.
        model: A name from /list_models; the default model if empty.

    Returns:
        clip: An MP4 of four seconds.
    """
    config = config_of(model)
    stops = drawing.seed_pair(config, domain, seed_from, seed_to, psi)
    prepared = drawing.prepare(_source(photo), config, *_which(face, centre_crop))
    return events.film_walk(model or DEFAULT_MODEL, prepared, stops, ".mp4")


@answering
def list_models() -> list[dict]:
    """List the models there are, the default one first.

    Returns:
        models: For each its name, title, domains, the side of what it draws in pixels, and its licence; or, where it
            cannot be had, its name, title and the reason.
    """
    return [_listed(name, title) for name, title in ((name, spec.title) for name, spec in menu().items())]


def _listed(name: str, title: str) -> dict:
    entry: dict = {"name": name, "title": title}
    try:
        config = config_of(name)
    except ModelError as error:
        return entry | {"error": str(error)}
    size, licence = config.architecture.image_size, config.licence
    return entry | {"domains": config.domains, "image_size": size, "licence": licence}


def _source(photo: str | None) -> Source:
    if not photo:
        raise RequestError("no_photo")
    return Source.open(photo)


def _which(face: object, centre_crop: object) -> tuple[tuple[int, ...], Square | None]:
    return (drawing.whole("faces", face, 1, 1000),), drawing.MIDDLE if centre_crop else None


def _draw(photo: str | None, face: object, centre_crop: object, model: str | None, recipe: Recipe) -> Drawn:
    prepared = drawing.prepare(_source(photo), config_of(model), *_which(face, centre_crop))
    return drawing.draw(prepared, recipe, painter(model), progress=Told("drawing"))


def _answer(drawn: Drawn, header: tuple = ()) -> Answer:
    crop, gallery = saved(drawn.prepared.crops[0], "crop.png"), events.gallery_of(drawn)
    about = drawn.provenance(0, composite=True)
    whole = saved(drawn.in_photo(0), f"{drawn.styles.domain}-in-photo.png", about)
    sheet = saved(drawn.sheet(header), f"{drawn.styles.domain}-sheet.png", drawn.sheet_provenance())
    return crop, gallery, sheet, whole


def endpoints() -> None:
    """Components that nobody sees name and describe the parameters, in English."""
    hidden: dict[str, Any] = {"visible": False}
    images = ("photo", "crop", "grid", "whole_photo", "numbered")
    photo, crop, grid, whole, numbered = (gr.Image(type="filepath", label=label, **hidden) for label in images)
    domain = gr.Textbox(config_of(None).domains[0], label="domain", **hidden)
    count = gr.Slider(1, drawing.MAX_COUNT, events.DEFAULTS["count"], step=1, label="count", **hidden)
    seed, seed_from, seed_to = (
        gr.Number(value, label=label, precision=0, minimum=0, maximum=drawing.MAX_SEED, **hidden)
        for label, value in (("seed", 1), ("seed_from", 1), ("seed_to", 2))
    )
    psi = gr.Slider(0, drawing.MAX_PSI, events.DEFAULTS["psi"], label="psi", **hidden)
    strength = gr.Slider(0, 1, 1, label="strength", **hidden)
    face = gr.Number(1, label="face", precision=0, minimum=1, **hidden)
    centre_crop = gr.Checkbox(False, label="centre_crop", **hidden)
    model = gr.Dropdown(list(menu()), value=DEFAULT_MODEL, label="model", **hidden)
    references, drawings = (
        gr.Gallery(label=label, format="png", type="filepath", **hidden) for label in ("references", "drawings")
    )
    found, models = gr.JSON(label="faces", **hidden), gr.JSON(label="models", **hidden)
    clip = gr.Video(label="clip", **hidden)
    trigger = gr.Button(**hidden)
    which = [face, centre_crop, model]
    drawn = [crop, drawings, grid, whole]
    for function, inputs, outputs in (
        (detect_faces, [photo], [numbered, found]),
        (latent_grid, [photo, domain, count, seed, psi, *which], drawn),
        (reference_mix, [photo, references, domain, strength, *which], drawn),
        (interpolate, [photo, domain, seed_from, seed_to, psi, *which], [clip]),
        (list_models, [], [models]),
    ):
        trigger.click(function, inputs, outputs, api_name=function.__name__, concurrency_limit=4)
