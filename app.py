"""The app: ``python app.py`` opens it at http://127.0.0.1:7860.

A photo goes in, drawings of its face come out. What is done with a photo is in stargan/drawing.py, every text in
stargan/page/texts.py, the look in stargan/page/theme.py. Here are the page, its events, and the endpoints that programs call.
"""

from __future__ import annotations

import argparse
import functools
import html
import importlib.util
import logging
import os
import random
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio reads it when it is imported

import gradio as gr
import torch
from gradio.context import LocalContext
from gradio.utils import get_upload_folder
from PIL import Image

from stargan import drawing as studio
from stargan import load_translator
from stargan.drawing import MAX_COUNT, MAX_PSI, MAX_SEED, Drawn, Reference, Subject
from stargan.inference.translator import NoFaceError, Translator
from stargan.models.config import ModelError
from stargan.models.registry import DEFAULT_MODEL, available_models, config_of
from stargan.page import texts
from stargan.page.texts import RequestError
from stargan.page.theme import CSS, JS, Paper
from stargan.pictures import faces
from stargan.pictures.io import PhotoError, open_photo
from stargan.pictures.provenance import Provenance, save_picture
from stargan.video import MAX_CLIP_SECONDS, VideoError, open_clip

try:  # a ZeroGPU Space lends its GPU to the functions that ask for it; everywhere else, asking changes nothing
    from spaces import GPU as on_gpu  # noqa: N811
except ImportError:

    def on_gpu(function: Callable | None = None, *, duration: object = None) -> Callable:  # noqa: ARG001
        return function or (lambda function: function)


log = logging.getLogger("stargan.app")
EXAMPLES = Path(__file__).parent / "examples"
PHOTOS, DRAWINGS = (sorted((EXAMPLES / kind).glob("*.png")) for kind in ("photos", "drawings"))
MODELS = available_models()
DEFAULTS = {"count": 8, "seed": 5, "psi": 0.7}  # seeds that differ, chosen by eye
# Each has a menu of domains.
TABS = 3
# Browsers show these; others, such as HEIC, are shown as PNG.
SHOWN = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif"}
GPU_SECONDS = {studio.film: 40, studio.film_seeds: 40, studio.draw_frame: 5}
# A visitor's camera is drawn for this long, in seconds; then the next one has a turn, and the button starts it again.
LIVE_SECONDS = 120
# Longer side, px, of the photo in a before/after view; the drawn one beside it keeps its full size.
PREVIEW = 1280

i18n = gr.I18n(**texts.tables())


@dataclass(frozen=True)
class Kept:
    """A style that a person put aside: a small vector, and the model and domain that it belongs to."""

    model: str
    domain: str
    style: torch.Tensor


# Asking and answering


def language() -> str:
    """The language of the visitor who is being answered."""
    request = LocalContext.request.get(None)
    return texts.preferred(request.headers.get("accept-language") if request else None)


def say(key: str, **values: object) -> str:
    return texts.say(key, language(), **values)


def reason(error: Exception) -> str:
    """What went wrong, as one sentence in the visitor's language."""
    if isinstance(error, RequestError):
        return say(error.key, **error.values)
    if isinstance(error, (PhotoError, VideoError, NoFaceError)):
        return texts.translated(str(error), language())
    if isinstance(error, ModelError):  # a matter of whoever runs the app: its details stay as they are
        return say("model_failed", detail=error)
    if isinstance(error, FileNotFoundError):
        return say("photo_gone")
    log.error("unexpected", exc_info=error)
    return say("unexpected")


def answering(handler: Callable) -> Callable:
    """Whatever goes wrong in an event becomes one sentence for the visitor, never a traceback."""

    @functools.wraps(handler)
    def answer(*args: Any, **options: Any) -> Any:
        try:
            return handler(*args, **options)
        except gr.Error:
            raise
        except Exception as error:
            sentence = html.escape(reason(error), quote=False)
            raise gr.Error(sentence, print_exception=False) from None

    return answer


class Told:
    """Reports progress to the page in the visitor's language. A class, so that it can be sent to a GPU's process."""

    def __init__(self, key: str) -> None:
        self.text = say(key)
        self(0.0)

    def __call__(self, part: float) -> None:
        gr.Progress()(part, desc=self.text)


def translator_for(name: str | None) -> Translator:
    """Only models on the menu: a request may not name any folder or repository."""
    name = name or DEFAULT_MODEL
    if name not in MODELS:
        raise RequestError("bad_model", value=name, choices=", ".join(MODELS))
    return load_translator(name)


def gpu_seconds(_name: str | None, work: Callable[..., Any], *args: Any) -> int:
    """How long a Space's GPU is asked for at most: short requests wait less, and cost visitors less of their share."""
    if work is studio.draw_clip:
        return 20 + round(4.5 * (open_clip(args[0]).seconds or MAX_CLIP_SECONDS))
    return GPU_SECONDS.get(work, 20)


@on_gpu(duration=gpu_seconds)
def attempt(name: str | None, work: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
    """What comes out of ``work(translator, *args)``, and what it raises: a Space's GPU is in a process of its own, and of
    an error that leaves it only the name arrives."""
    try:
        return work(translator_for(name), *args), None
    except Exception as error:
        return None, error


def at_model(name: str | None, work: Callable[..., Any], *args: Any) -> Any:
    """``work(translator, *args)`` with the model of a name on the menu, where there is a GPU, on it."""
    result, error = attempt(name, work, *args)
    if error:
        raise error
    return result


def fresh_path(name: str) -> Path:
    """Where a result may be written to be shown: an unguessable place, emptied together with the uploads."""
    path = Path(get_upload_folder(), secrets.token_hex(16), name)
    path.parent.mkdir(parents=True)
    LocalContext.blocks.get().upload_file_set.add(str(path))
    return path


def saved(picture: Image.Image, name: str, provenance: Provenance | None = None) -> str:
    """A PNG to show; without ``provenance`` where it is no result, such as a crop of the photo."""
    path = fresh_path(name)
    if provenance:
        save_picture(picture, path, provenance)
    else:
        picture.save(path)
    return str(path)


# The page's events. ``page`` stands for the seven inputs of page_subject().


def page_subject(photo, chosen, x, y, size, grayscale) -> Subject:
    """What the page says is to be drawn. Faces chosen in an earlier photo, which this one lacks, are left out."""
    square = tuple(studio.number(name, v, 0, 1) for name, v in (("crop_x", x), ("crop_y", y), ("crop_size", size)))
    chosen = chosen or [1]
    if photo and chosen != [1]:  # else nothing need be known of the faces, and a model may want none
        found = len(studio.faces_of(photo))
        chosen = [n for n in chosen if n <= found] or [1]
    return Subject(photo, chosen, square, bool(grayscale))


@answering
def look(model, photo, _, *page) -> tuple:
    """A photo arrived: which faces are in it? → note, numbered, chosen, square, crop."""
    hidden = gr.Image(visible=False), gr.CheckboxGroup(visible=False), gr.Column(visible=False), None
    if not photo:
        return gr.skip(), *hidden
    try:
        picture = open_photo(photo)
        aligned = studio.frame(translator_for(model), page_subject(photo, [1], *page))
    except (RequestError, PhotoError) as error:
        return gr.Markdown(f"**{html.escape(reason(error), quote=False)}**", visible=True), *hidden
    whole = translator_for(model).config.framing is None
    found = () if whole else studio.faces_of(photo)
    many = len(found) > 1
    note = "note_whole" if whole else "note_many" if many else "note_one" if found else "note_none"
    return (
        gr.Markdown(say(note, count=len(found)), visible=True),
        gr.Image(saved(studio.numbered(picture, found), "faces.png") if many else None, visible=many),
        gr.CheckboxGroup([(str(n), n) for n in range(1, len(found) + 1)], value=[1] if found else [], visible=many),
        gr.Column(visible=not found),
        saved(aligned[0].picture, "crop.png"),
    )


@answering
def displayable(photo: str | None) -> str | None:
    """→ the photo as a file that browsers show; nothing where it is no photo, as look() says."""
    if not photo:
        return None
    try:
        picture = open_photo(photo)
    except PhotoError:
        return None
    return photo if Path(photo).suffix.lower() in SHOWN else saved(picture, f"{Path(photo).stem}.png")


@answering
def frame(model, *page) -> str:
    """→ the crop of the photo's face, or of its square."""
    return saved(studio.frame(translator_for(model), page_subject(*page))[0].picture, "crop.png")


@answering
def draw_latent(model, domain, count, seed, psi, *page) -> tuple:
    """→ what results() returns, link."""
    subject = page_subject(*page)
    drawn = at_model(model, studio.latent, subject, domain, count, seed, psi, Told("drawing"))
    settings = {"model": model, "domain": domain, "count": count, "seed": seed, "psi": psi}
    settings |= {"grayscale": 1} if subject.grayscale else {}
    if (name := Path(subject.photo).stem) in {path.stem for path in PHOTOS}:
        settings["example"] = name
    return *results(drawn), link(settings)


@answering
def draw_mixed(model, references, adjusted, domain, strength, *page) -> tuple:
    """→ what results() returns, the references' crops."""
    subject, references = page_subject(*page), references_of(references, adjusted)
    drawn, crops = at_model(model, studio.mix, subject, references, domain, strength, Told("drawing"))
    return *results(drawn, crops), crop_gallery(crops)


def results(drawn: Drawn, header: list[Image.Image] | None = None) -> tuple:
    """→ crop, gallery, sheet, before/after, zip, drawn, chosen: what every way of drawing shows."""
    gallery = []
    for index, picture in enumerate(drawn.pictures):
        row, column = drawn.place(index)
        kind, value = drawn.captions[column]
        caption, name = say(f"caption_{kind}", value=value), f"{drawn.domain}-{kind}-{value}.png"
        if len(drawn.rows) > 1:
            caption, name = say("caption_face", number=row + 1, caption=caption), f"face-{row + 1}-{name}"
        gallery.append((saved(picture, name, drawn.provenance(column)), caption))
    crop = saved(drawn.aligned[0].picture, "crop.png")
    sheet = saved(drawn.sheet(header or []), f"{drawn.domain}-sheet.png", drawn.provenance())
    before, after = before_after(drawn, 0)
    archive = studio.pack([crop, sheet, after, *(path for path, _ in gallery)], fresh_path(f"{drawn.domain}.zip"))
    return crop, gallery, sheet, (before, after), gr.DownloadButton(value=str(archive), interactive=True), drawn, 0


def before_after(drawn: Drawn, column: int) -> tuple[str, str]:
    picture = open_photo(drawn.photo)
    provenance = drawn.provenance(column, composite=True)
    after = saved(drawn.in_photo(picture, column), f"{drawn.domain}-in-photo.png", provenance)
    picture.thumbnail((PREVIEW, PREVIEW))
    return saved(picture, "before.png"), after


def link(settings: dict[str, Any]) -> str:
    """The page's address with settings: they bring the same drawings back, of the same photo."""
    headers = LocalContext.request.get().headers
    page = urlsplit(headers.get("referer") or f"http://{headers.get('host')}/")
    return page._replace(query=urlencode(settings), fragment="").geturl()


@answering
def choose(drawn: Drawn | None, event: gr.SelectData) -> tuple:
    """A drawing was chosen → before/after, its number."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    return before_after(drawn, drawn.place(event.index)[1]), event.index


@answering
def look_at_references(model, references, adjusted) -> tuple:
    """References arrived → their crops, which of them can be adjusted."""
    numbers = list(range(1, len(references or []) + 1))
    crops = [studio.frame_reference(translator_for(model), r).picture for r in references_of(references, adjusted)]
    return crop_gallery(crops), gr.Radio(numbers, value=1 if numbers else None)


@answering
def adjust(model, references, adjusted, which, weight, x, y, size) -> tuple:
    """→ the references' crops with one of them moved, all adjustments."""
    if not references or not which or not 1 <= which <= len(references):
        raise RequestError("no_references")
    path = references[which - 1][0]
    adjusted = adjusted | {path: Reference(path, weight, (x, y, size))}
    crops = [studio.frame_reference(translator_for(model), r).picture for r in references_of(references, adjusted)]
    return crop_gallery(crops), adjusted


@answering
def weigh(references, adjusted, which, weight) -> dict:
    """→ all adjustments, one of them with another weight."""
    if not references or not which or not 1 <= which <= len(references):
        raise RequestError("no_references")
    path = references[which - 1][0]
    return adjusted | {path: replace(adjusted.get(path, Reference(path)), weight=weight)}


@answering
def adjustment(references, adjusted, which) -> tuple:
    """→ weight and square of one reference."""
    if not references or not which or not 1 <= which <= len(references):
        return 1.0, *studio.MIDDLE
    reference = adjusted.get(references[which - 1][0]) or Reference(references[which - 1][0])
    return reference.weight, *(reference.square or studio.proposed_square(open_photo(reference.path)))


def add_example(references: list[tuple[str, str]] | None, index: int) -> list[str]:
    """→ the references with an example drawing added; the last ones where they are too many."""
    return [*(path for path, _ in references or []), str(DRAWINGS[index])][-studio.MAX_REFERENCES :]


def references_of(gallery: list[tuple[str, str]] | None, adjusted: dict[str, Reference]) -> list[Reference]:
    return [adjusted.get(path, Reference(path)) for path, _ in gallery or []]


def crop_gallery(crops: list[Image.Image]) -> list[tuple[str, str]]:
    return [(saved(crop, f"reference-{n}.png"), say("caption_reference", value=n)) for n, crop in enumerate(crops, 1)]


@answering
def keep(drawn: Drawn | None, chosen: int) -> tuple:
    """→ the style of the chosen drawing, the drawing."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    column = drawn.place(chosen)[1]
    kept = Kept(drawn.model, drawn.domain, drawn.styles[column])
    return kept, saved(drawn.pictures[chosen], "kept.png", drawn.provenance(column))


def kept_style(slot: str, kept: Kept | None, model: str) -> torch.Tensor:
    if kept is None:
        raise RequestError("nothing_kept", slot=slot)
    if kept.model != translator_for(model).name:
        raise RequestError("other_model", slot=slot, model=kept.model)
    return kept.style


@answering
def draw_near(model, a, distance, count, seed, *page) -> tuple:
    """→ what results() returns."""
    subject, style = page_subject(*page), kept_style("A", a, model)
    told = Told("drawing")
    return results(at_model(model, studio.nearby, subject, a.domain, style, distance, count, seed, told))


@answering
def draw_between(model, a, b, part, *page) -> str:
    """→ the photo's face in the style between A and B, or in A's where there is no B."""
    start, end = kept_style("A", a, model), kept_style("B", b or a, model)
    drawn = at_model(model, studio.walk, page_subject(*page), a.domain, start, end, part, Told("drawing"))
    return saved(drawn.pictures[0], f"{drawn.domain}-between.png", drawn.provenance())


@answering
def film(model, a, b, kind, *page) -> tuple:
    """→ a clip of the walk from A to B: as a video, or as a picture where it is a GIF."""
    styles = torch.stack([kept_style("A", a, model), kept_style("B", b, model)])
    gif = kind == "GIF"
    path = fresh_path("walk.gif" if gif else "walk.mp4")
    at_model(model, studio.film, page_subject(*page), a.domain, styles, path, a.domain, Told("filming"))
    return gr.Video(None if gif else str(path), visible=not gif), gr.Image(str(path) if gif else None, visible=gif)


@answering
def draw_live(model, a, in_style_a, domain, seed, psi, frame) -> Any:
    """→ the camera's picture with its face drawn; nothing new where it shows none.

    While one picture is drawn, the newest that arrives replaces the one that waits: Gradio keeps no queue of them."""
    if frame is None:
        return gr.skip()
    seen = kept_style("A", a, model) if in_style_a else None
    domain = a.domain if in_style_a else domain
    drawn = at_model(model, studio.draw_frame, frame, seen, domain, seed, psi)
    if drawn is None:
        return gr.skip()
    details = {"domain": domain or ""}
    name = translator_for(model).name
    provenance = Provenance(name, None if in_style_a else int(seed), details, composite=True)
    return saved(drawn, "live.png", provenance)


@answering
def draw_clip(model, a, in_style_a, domain, seed, psi, clip) -> str:
    """→ the clip with its face drawn, in one style."""
    if not clip:
        raise RequestError("no_clip")
    seen, path = kept_style("A", a, model) if in_style_a else None, fresh_path("drawn.mp4")
    domain = a.domain if in_style_a else domain
    return str(at_model(model, studio.draw_clip, clip, path, seen, domain, seed, psi, Told("filming")))


@answering
def choose_model(model) -> list:
    """→ the domains of a model, for every tab."""
    gr.Progress()(0, desc=say("loading"))
    return [domain_menu(translator_for(model).domains)] * TABS


def domain_menu(domains: tuple[str, ...], chosen: str | None = None) -> gr.Radio:
    choices = domain_choices(domains)
    return gr.Radio(choices, value=chosen if chosen in domains else choices[0][1])


def domain_choices(domains: tuple[str, ...]) -> list[tuple[Any, str]]:
    return [(i18n(f"domain_{name}") if f"domain_{name}" in texts.TEXTS else name, name) for name in domains]


@answering
def arrive(search: str) -> tuple:
    """The page was opened: an example, or what its link asks for → model, photo, count, seed, psi, grayscale, domains."""
    asked = dict(parse_qsl(search.removeprefix("?")))
    examples = {path.stem: str(path) for path in PHOTOS}
    photo = examples.get(asked.get("example", "")) or (next(iter(examples.values()), None) if not asked else None)
    model = asked.get("model") if asked.get("model") in MODELS else DEFAULT_MODEL

    def value(name: str, low: float, high: float) -> float:
        try:
            return min(max(float(asked[name]), low), high)
        except (KeyError, ValueError):
            return DEFAULTS[name]

    return (
        model,
        photo,
        int(value("count", 1, MAX_COUNT)),
        int(value("seed", 0, MAX_SEED)),
        value("psi", 0, MAX_PSI),
        asked.get("grayscale") == "1",
        *[domain_menu(translator_for(model).domains, asked.get("domain"))] * TABS,
    )


# The endpoints: the contract with programs. README shows how to call them.


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
    if not photo:
        raise RequestError("no_photo")
    found = studio.faces_of(photo)
    listed = [
        {
            "number": n,
            "box": [round(float(v), 1) for v in face.box],
            "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks],
            "score": round(float(face.score), 4),
        }
        for n, face in enumerate(found, start=1)
    ]
    return saved(studio.numbered(open_photo(photo), found), "faces.png"), listed


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
) -> tuple[str, list, str, str]:
    """Draw a photo's face in many styles, one a seed.

    Parameters:
        photo: A picture file with a face.
        domain: What to draw: a domain of the model, such as "anime"; see /list_models.
        count: How many drawings, 1 to 16.
        seed: Seed of the first drawing, 0 to 2147483647; the next ones follow. A seed always gives the same drawing.
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
    drawn = at_model(model, studio.latent, program_subject(photo, face, centre_crop), domain, count, seed, psi)
    return program_results(drawn)


@answering
def reference_mix(
    photo: str,
    references: list,
    domain: str | None = None,
    strength: float = 1.0,
    face: int = 1,
    centre_crop: bool = False,
    model: str | None = None,
) -> tuple[str, list, str, str]:
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
    subject, chosen = program_subject(photo, face, centre_crop), references_of(references, {})
    drawn, crops = at_model(model, studio.mix, subject, chosen, domain, strength)
    return program_results(drawn, crops)


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
    subject, path = program_subject(photo, face, centre_crop), fresh_path("walk.mp4")
    return str(at_model(model, studio.film_seeds, subject, domain, [seed_from, seed_to], psi, path, Told("filming")))


@answering
def list_models() -> list[dict]:
    """List the models there are, the default one first.

    Returns:
        models: For each its name, title, domains, the side of what it draws in pixels, and its licence; or, where it
            cannot be had, its name, title and the reason.
    """
    listed = []
    for name, spec in MODELS.items():
        entry = {"name": name, "title": spec.title}
        try:
            config = config_of(name)
            entry |= {
                "domains": config.domains,
                "image_size": config.architecture.image_size,
                "licence": config.licence,
            }
        except ModelError as error:
            entry["error"] = str(error)
        listed.append(entry)
    return listed


def program_subject(photo: str | None, face: int, centre_crop: bool) -> Subject:
    return Subject(photo, [studio.number("faces", face, 1, 1000, whole=True)], studio.MIDDLE if centre_crop else None)


def program_results(drawn: Drawn, header: list[Image.Image] | None = None) -> tuple:
    crop, gallery, sheet, (_, whole), *_ = results(drawn, header)
    return crop, gallery, sheet, whole


# The layout


def build() -> gr.Blocks:
    """The page and the endpoints."""
    with gr.Blocks(
        title=texts.say("title", "en"),
        analytics_enabled=False,
        delete_cache=(600, 3000),  # looked for every ten minutes, so that nothing gets older than an hour
    ) as page:
        gr.Markdown(i18n("intro"), elem_id="intro")
        kept_a = gr.State(time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                subject = subject_panel()
            with gr.Column(scale=3, min_width=320), gr.Tabs():
                with gr.Tab(i18n("tab_diversity"), id="diversity"):
                    diversity = diversity_tab(subject)
                with gr.Tab(i18n("tab_mixing"), id="mixing"):
                    mixing = mixing_tab(subject)
                with gr.Tab(i18n("tab_live"), id="live"):
                    live = live_tab(subject, kept_a)
        explore_panel(subject, kept_a, diversity, mixing)
        gr.Markdown(i18n("privacy"), elem_id="privacy")

        domains = [tab.domain for tab in (diversity, mixing, live)]
        subject.model.input(choose_model, subject.model, domains, **PRIVATE).success(
            look, [subject.model, *subject.parts], subject.shown, show_progress="hidden", **PRIVATE
        )
        search = gr.Textbox(visible=False)
        chosen = [diversity.count, diversity.seed, diversity.psi, subject.grayscale]
        settings = [subject.model, subject.photo, *chosen, *domains]
        page.load(arrive, search, settings, js="() => [window.location.search]", **PRIVATE).success(
            draw_latent, diversity.inputs, diversity.outputs, show_progress_on=diversity.gallery, **PRIVATE
        )
        endpoints()
    take_as_given(page)
    return page


def take_as_given(page: gr.Blocks) -> None:
    """Hands values over as they came: uploads as paths, unopened, for open_photo to judge, and numbers and choices
    unchecked, for studio to judge. Gradio's own refusals are in English only, and name no field.

    Gradio forgets this of a component that an event returns gr.skip() or an update for: none does for the photo."""
    for block in page.blocks.values():
        if isinstance(block, gr.Image) and block.streaming:
            continue  # a camera's pictures come as data, and are drawn without being stored
        if isinstance(block, (gr.Image, gr.Video)):
            block.preprocess = lambda payload: payload.path if payload else None
        elif isinstance(block, (gr.CheckboxGroup, gr.Dropdown, gr.Number, gr.Radio, gr.Slider)):
            block.preprocess = lambda payload: payload


# Events of the page are no endpoints; drawing waits its turn in the queue, a few visitors at a time.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4}


def subject_panel() -> SimpleNamespace:
    """What is to be drawn: the photo, its faces; shared by all that is beside and below it."""
    titles = [(spec.title, name) for name, spec in MODELS.items()]
    model = gr.Dropdown(titles, value=DEFAULT_MODEL, label=i18n("model"), visible=len(titles) > 1, elem_id="model")
    photo = gr.Image(
        type="filepath",
        label=i18n("photo"),
        sources=["upload", "webcam", "clipboard"],
        height=340,
        buttons=["fullscreen"],
        alt_text=i18n("photo"),
        elem_id="photo",
    )
    note = gr.Markdown(visible=False, elem_id="note")
    numbered = gr.Image(
        label=i18n("numbered"),
        format="png",
        visible=False,
        interactive=False,
        buttons=["fullscreen"],
        elem_id="numbered",
        alt_text=i18n("numbered_alt"),
    )
    chosen = gr.CheckboxGroup([], label=i18n("faces"), visible=False, elem_id="chosen")
    with gr.Column(visible=False, elem_id="square") as square:
        x = gr.Slider(0, 1, 0.5, step=0.01, label=i18n("crop_x"), min_width=120)
        y = gr.Slider(0, 1, 0.5, step=0.01, label=i18n("crop_y"), min_width=120)
        size = gr.Slider(0.05, 1, 1, step=0.01, label=i18n("crop_size"), min_width=120)
    with gr.Row(equal_height=True):
        crop = gr.Image(
            label=i18n("crop"),
            format="png",
            interactive=False,
            height=150,
            buttons=[],
            min_width=130,
            elem_id="crop",
            elem_classes="small",
            alt_text=i18n("crop_alt"),
        )
        with gr.Column(min_width=160):
            grayscale = gr.Checkbox(False, label=i18n("grayscale"))
            examples = gr.Dataset(
                components=[photo], samples=[[str(path)] for path in PHOTOS], type="index", label=i18n("examples"),
                visible=bool(PHOTOS), elem_id="photo-examples",
            )  # fmt: skip
    parts = [photo, chosen, x, y, size, grayscale]
    shown = [note, numbered, chosen, square, crop]
    photo.upload(displayable, photo, photo, show_progress="hidden", **PRIVATE)
    photo.change(look, [model, *parts], shown, show_progress="hidden", **PRIVATE)
    photo.clear(lambda: gr.Markdown(visible=False), None, note, queue=False, api_visibility="private")
    for part in (x, y, size):
        part.input(frame, [model, *parts], crop, show_progress="hidden", trigger_mode="always_last", **PRIVATE)
    return SimpleNamespace(
        model=model, photo=photo, parts=parts, shown=shown, crop=crop, grayscale=grayscale, examples=examples
    )


def results_panel(subject: SimpleNamespace, label: str, sheet_label: str, prefix: str) -> SimpleNamespace:
    """Drawings, the whole photo, what can be saved, and what can be kept for exploring."""
    gallery = gr.Gallery(
        label=i18n(label), format="png", columns=4, height="auto", object_fit="contain", allow_preview=False,
        interactive=False, elem_id=f"{prefix}-gallery", elem_classes="drawings",
    )  # fmt: skip
    gr.Markdown(i18n("drawings_info"))
    with gr.Row():
        keep_a = gr.Button(i18n("keep_a"), size="sm", elem_id=f"{prefix}-keep-a")
        keep_b = gr.Button(i18n("keep_b"), size="sm", elem_id=f"{prefix}-keep-b")
    compare = gr.ImageSlider(
        label=i18n("in_photo"),
        format="png",
        interactive=False,
        max_height=420,
        slider_position=30,
        elem_id=f"{prefix}-compare",
    )
    with gr.Accordion(i18n(sheet_label), open=False):
        sheet = gr.Image(
            show_label=False,
            format="png",
            interactive=False,
            elem_id=f"{prefix}-sheet",
            alt_text=i18n(f"{sheet_label}_alt"),
        )
    archive = gr.DownloadButton(i18n("archive"), interactive=False, elem_id=f"{prefix}-archive")
    drawn, chosen = gr.State(time_to_live=3600), gr.State(0)
    gallery.select(choose, drawn, [compare, chosen], **PRIVATE)
    outputs = [subject.crop, gallery, sheet, compare, archive, drawn, chosen]
    return SimpleNamespace(gallery=gallery, outputs=outputs, drawn=drawn, chosen=chosen, keep_a=keep_a, keep_b=keep_b)


def diversity_tab(subject: SimpleNamespace) -> SimpleNamespace:
    """Many drawings of the photo, one a seed."""
    choices = domain_choices(config_of(DEFAULT_MODEL).domains)
    with gr.Row():
        domain = gr.Radio(choices, value=choices[0][1], label=i18n("domain"), elem_id="domain")
        count = gr.Slider(1, MAX_COUNT, DEFAULTS["count"], step=1, label=i18n("count"), elem_id="count")
    with gr.Accordion(i18n("more"), open=False, elem_id="more"), gr.Row():
        seed = gr.Number(
            DEFAULTS["seed"], label=i18n("seed"), info=i18n("seed_info"), precision=0, minimum=0, maximum=MAX_SEED,
            elem_id="seed",
        )  # fmt: skip
        psi = gr.Slider(0, MAX_PSI, DEFAULTS["psi"], step=0.05, label=i18n("psi"), info=i18n("psi_info"))
    with gr.Row():
        dice = gr.Button(i18n("dice"), elem_id="dice")
        draw = gr.Button(i18n("draw"), variant="primary", elem_id="draw")
    panel = results_panel(subject, "drawings", "sheet", "diversity")
    address = gr.Textbox(
        label=i18n("link"), info=i18n("link_info"), interactive=False, buttons=["copy"], elem_id="link"
    )
    inputs = [subject.model, domain, count, seed, psi, *subject.parts]
    outputs = [*panel.outputs, address]
    drawing = {"show_progress_on": panel.gallery, **PRIVATE}
    draw.click(draw_latent, inputs, outputs, **drawing)
    dice.click(lambda: random.randint(0, MAX_SEED), None, seed, queue=False, api_visibility="private").then(
        draw_latent, inputs, outputs, **drawing
    )
    subject.examples.click(lambda index: str(PHOTOS[index]), subject.examples, subject.photo, **PRIVATE).success(
        draw_latent, inputs, outputs, **drawing
    )
    vars(panel).update(domain=domain, count=count, seed=seed, psi=psi, inputs=inputs, outputs=outputs)
    return panel


def mixing_tab(subject: SimpleNamespace) -> SimpleNamespace:
    """The photo in the style of chosen pictures."""
    choices = domain_choices(config_of(DEFAULT_MODEL).domains)
    references = gr.Gallery(
        label=i18n("references"), type="filepath", format="png", interactive=True, columns=4, height=200,
        file_types=None, sources=["upload", "clipboard"], object_fit="contain", elem_id="references",
    )  # fmt: skip
    adjusted = gr.State({}, time_to_live=3600)
    examples = gr.Dataset(
        components=[gr.Image(visible=False)], samples=[[str(path)] for path in DRAWINGS], type="index",
        label=i18n("examples"), visible=bool(DRAWINGS), elem_id="reference-examples",
    )  # fmt: skip
    with gr.Row():
        domain = gr.Radio(choices, value=choices[0][1], label=i18n("references_domain"), elem_id="references-domain")
        strength = gr.Slider(0, 1, 1, step=0.05, label=i18n("strength"), info=i18n("strength_info"))
    with gr.Accordion(i18n("adjust"), open=False, elem_id="adjust"):
        gr.Markdown(i18n("adjust_info"))
        crops = gr.Gallery(
            label=i18n("crops"), format="png", columns=4, height="auto", interactive=False, allow_preview=False,
            elem_id="reference-crops", elem_classes="drawings",
        )  # fmt: skip
        with gr.Row():
            which = gr.Radio([], label=i18n("adjust_which"))
            weight = gr.Slider(0, 1, 1, step=0.05, label=i18n("weight"))
        with gr.Row():
            x = gr.Slider(0, 1, 0.5, step=0.01, label=i18n("crop_x"), min_width=120)
            y = gr.Slider(0, 1, 0.5, step=0.01, label=i18n("crop_y"), min_width=120)
            size = gr.Slider(0.05, 1, 1, step=0.01, label=i18n("crop_size"), min_width=120)
    mix = gr.Button(i18n("draw"), variant="primary", elem_id="mix")
    panel = results_panel(subject, "mixed", "mixed_sheet", "mixing")
    inputs = [subject.model, references, adjusted, domain, strength, *subject.parts]
    outputs = [*panel.outputs, crops]
    drawing = {"show_progress_on": panel.gallery, **PRIVATE}
    mix.click(draw_mixed, inputs, outputs, **drawing)
    examples.click(add_example, [references, examples], references, **PRIVATE).success(
        draw_mixed, inputs, outputs, **drawing
    )
    this = [references, adjusted, which]
    live = {"show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE}
    references.change(look_at_references, [subject.model, *this[:2]], [crops, which], show_progress="hidden", **PRIVATE)
    which.change(adjustment, this, [weight, x, y, size], show_progress="hidden", **PRIVATE)
    weight.input(weigh, [*this, weight], adjusted, **live)
    for part in (x, y, size):
        part.input(adjust, [subject.model, *this, weight, x, y, size], [crops, adjusted], **live)
    panel.domain = domain
    return panel


def live_tab(subject: SimpleNamespace, kept_a: gr.State) -> SimpleNamespace:
    """The camera, and short clips: many pictures in one style."""
    domains = config_of(DEFAULT_MODEL).domains
    domain = gr.Radio(domain_choices(domains), value=domains[0], label=i18n("domain"), elem_id="live-domain")
    with gr.Row():
        seed = gr.Number(DEFAULTS["seed"], label=i18n("seed"), precision=0, minimum=0, maximum=MAX_SEED)
        psi = gr.Slider(0, MAX_PSI, DEFAULTS["psi"], step=0.05, label=i18n("psi"))
    in_style_a = gr.Checkbox(False, label=i18n("in_style_a"), info=i18n("in_style_a_info"))
    style = [subject.model, kept_a, in_style_a, domain, seed, psi]
    gr.Markdown(i18n("camera_info"))
    with gr.Row():
        camera = gr.Image(
            sources=["webcam"], streaming=True, type="pil", label=i18n("camera"), height=280, elem_id="camera",
            alt_text=i18n("camera"),
        )  # fmt: skip
        shown = gr.Image(
            label=i18n("camera_drawn"), format="png", interactive=False, height=280, buttons=["download"],
            elem_id="live", alt_text=i18n("camera_drawn"),
        )  # fmt: skip
    camera.stream(
        draw_live, [*style, camera], shown, stream_every=0.1, time_limit=LIVE_SECONDS, show_progress="hidden", **PRIVATE
    )
    with gr.Row():
        clip = gr.Video(sources=["upload"], label=i18n("clip_upload"), height=280, elem_id="video")
        drawn = gr.Video(label=i18n("clip_drawn"), interactive=False, height=280, elem_id="drawn-video")
    start = gr.Button(i18n("clip_draw"), variant="primary", elem_id="draw-video")
    start.click(draw_clip, [*style, clip], drawn, show_progress_on=drawn, **PRIVATE)
    return SimpleNamespace(domain=domain)


def explore_panel(subject: SimpleNamespace, kept_a: gr.State, *tabs: SimpleNamespace) -> None:
    """What can be done with kept styles."""
    kept_b = gr.State(time_to_live=3600)
    with gr.Accordion(i18n("tab_explore"), open=False, elem_id="explore") as panel:
        gr.Markdown(i18n("explore_info"))
        with gr.Row():
            picture = {
                "format": "png",
                "interactive": False,
                "height": 180,
                "buttons": ["download"],
                "elem_classes": "small",
            }
            style_a = gr.Image(label=i18n("style_a"), elem_id="style-a", **picture)
            between_picture = gr.Image(label=i18n("between_picture"), elem_id="between", **picture)
            style_b = gr.Image(label=i18n("style_b"), elem_id="style-b", **picture)
        part = gr.Slider(0, 1, 0, step=0.05, label=i18n("between"), elem_id="part")
        with gr.Row():
            kind = gr.Radio(["MP4", "GIF"], value="MP4", label=i18n("clip_format"))
            make = gr.Button(i18n("clip"), elem_id="make-clip")
        clip = gr.Video(label=i18n("clip_result"), visible=False, height=260, autoplay=True, loop=True, elem_id="clip")
        moving = gr.Image(label=i18n("clip_result"), format="gif", visible=False, interactive=False, height=260)
        with gr.Row():
            distance = gr.Slider(0, 1, 0.3, step=0.05, label=i18n("distance"))
            count = gr.Slider(1, MAX_COUNT, 8, step=1, label=i18n("count"))
            seed = gr.Number(1, label=i18n("seed"), precision=0, minimum=0, maximum=MAX_SEED)
        near = gr.Button(i18n("like_a"), elem_id="near")
        results = results_panel(subject, "drawings", "sheet", "near")
    for tab in (*tabs, results):
        for button, kept, shown in ((tab.keep_a, kept_a, style_a), (tab.keep_b, kept_b, style_b)):
            button.click(keep, [tab.drawn, tab.chosen], [kept, shown], **PRIVATE).success(
                lambda: gr.Accordion(open=True), None, panel, queue=False, api_visibility="private"
            )
    page = subject.parts
    part.input(
        draw_between,
        [subject.model, kept_a, kept_b, part, *page],
        between_picture,
        trigger_mode="always_last",
        **PRIVATE,
    )
    make.click(
        film,
        [subject.model, kept_a, kept_b, kind, *page],
        [clip, moving],
        show_progress_on=between_picture,  # the clip itself is not there yet
        **PRIVATE,
    )
    near.click(
        draw_near,
        [subject.model, kept_a, distance, count, seed, *page],
        results.outputs,
        show_progress_on=results.gallery,
        **PRIVATE,
    )


def endpoints() -> None:
    """What programs call. Components that nobody sees name and describe the parameters, in English."""
    hidden = {"visible": False}
    images = ("photo", "crop", "grid", "whole_photo", "numbered")
    photo, crop, grid, whole, numbered = (gr.Image(type="filepath", label=label, **hidden) for label in images)
    domain = gr.Textbox(config_of(DEFAULT_MODEL).domains[0], label="domain", **hidden)
    count = gr.Slider(1, MAX_COUNT, DEFAULTS["count"], step=1, label="count", **hidden)
    seed, seed_from, seed_to = (
        gr.Number(value, label=label, precision=0, minimum=0, maximum=MAX_SEED, **hidden)
        for label, value in (("seed", 1), ("seed_from", 1), ("seed_to", 2))
    )
    psi = gr.Slider(0, MAX_PSI, DEFAULTS["psi"], label="psi", **hidden)
    strength = gr.Slider(0, 1, 1, label="strength", **hidden)
    face = gr.Number(1, label="face", precision=0, minimum=1, **hidden)
    centre_crop = gr.Checkbox(False, label="centre_crop", **hidden)
    model = gr.Dropdown(list(MODELS), value=DEFAULT_MODEL, label="model", **hidden)
    references, drawings = (
        gr.Gallery(label=label, format="png", type="filepath", **hidden) for label in ("references", "drawings")
    )
    faces, models = gr.JSON(label="faces", **hidden), gr.JSON(label="models", **hidden)
    clip = gr.Video(label="clip", **hidden)
    trigger = gr.Button(**hidden)
    which = [face, centre_crop, model]
    drawn = [crop, drawings, grid, whole]
    for function, inputs, outputs in (
        (detect_faces, [photo], [numbered, faces]),
        (latent_grid, [photo, domain, count, seed, psi, *which], drawn),
        (reference_mix, [photo, references, domain, strength, *which], drawn),
        (interpolate, [photo, domain, seed_from, seed_to, psi, *which], [clip]),
        (list_models, [], [models]),
    ):
        trigger.click(function, inputs, outputs, api_name=function.__name__, concurrency_limit=4)


def main() -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description="Faces drawn as anime, in the browser.")
    parser.add_argument("--host", default="0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--share", action="store_true", help="also open a public link, for up to a week")
    parser.add_argument("--mcp", action="store_true", help="also offer the endpoints as MCP tools")
    options = parser.parse_args()
    if options.mcp and importlib.util.find_spec("mcp") is None:
        parser.error("--mcp needs a further package: pip install 'gradio[mcp]'")
    try:
        page = build()
    except ModelError as error:
        parser.error(str(error))
    if "SPACES_ZERO_GPU" in os.environ:  # its GPU gets what is on the device before launch(), and nothing later
        for name in MODELS:
            load(name)
    else:  # the page opens at once; whoever is first waits for the model, with progress
        threading.Thread(target=load, args=[DEFAULT_MODEL], daemon=True).start()
    page.queue(max_size=64).launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        mcp_server=options.mcp,
        i18n=i18n,
        theme=Paper(),
        css=CSS,
        js=JS,
        footer_links=["api"],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="200mb",  # 20 seconds of a phone's video; photos over 50 MB get their own sentence
        allowed_paths=[str(EXAMPLES)],
    )


def load(name: str) -> None:
    try:
        translator = load_translator(name)
        faces.find(Image.new("RGB", (64, 64)))  # the detector, too, and before the compiler wants the cores
        translator.compile_in_background()
    except ModelError as error:  # every request says so too
        log.warning("%s", error)


if __name__ == "__main__":
    main()
