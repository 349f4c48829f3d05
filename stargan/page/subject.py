"""The left column: the photo, its faces, and the square that is drawn where none is found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from stargan.drawing import MIDDLE
from stargan.models.registry import DEFAULT_MODEL
from stargan.page import events, texts
from stargan.page.answers import AT_ONCE, PRIVATE, i18n
from stargan.page.events import PHOTOS
from stargan.page.models import menu

# Texts that the script of this column shows itself.
_SPOKEN = ("camera_shoot", "camera_cancel", "camera_refused", "camera_title", "square_alt")


@dataclass(frozen=True)
class SubjectPanel:
    """What is to be drawn: the photo, its faces; shared by all that is beside and below it.

    Attributes:
        parts: inputs of every handler that draws: photo, chosen, x, y, size, grayscale.
        standing: the photo that was looked at last: it changes when one came or went, not when one was refused.
        shown: what :func:`stargan.page.events.look` returns.
    """

    model: gr.Dropdown
    photo: gr.Image
    parts: list[Any]
    shown: list[Any]
    crop: gr.Image
    grayscale: gr.Checkbox
    standing: gr.State

    @property
    def changes(self) -> list[Any]:
        """The events that say that something else of the photo is to be drawn, or in another way."""
        _, chosen, _, _, size, grayscale = self.parts
        return [part.input for part in (chosen, size, grayscale)]

    @property
    def standing_parts(self) -> list[Any]:
        """``parts`` of the photo that stands: the next one may be refused before an event of this one is heard."""
        return [self.standing, *self.parts[1:]]


def subject_panel() -> SubjectPanel:
    titles = [(spec.title, name) for name, spec in menu().items()]
    model = gr.Dropdown(titles, value=DEFAULT_MODEL, label=i18n("model"), visible=len(titles) > 1, elem_id="model")
    photo = gr.Image(
        type="filepath",
        label=i18n("photo"),
        sources=["upload"],  # the camera and the clipboard are the script's: with labels, and at once
        height=320,
        buttons=["fullscreen"],
        alt_text=i18n("photo"),
        elem_id="photo",
    )
    with gr.Row(elem_id="take"):
        gr.Button(i18n("upload_photo"), elem_id="upload-photo", min_width=120)
        gr.Button(i18n("use_camera"), elem_id="use-camera", min_width=120)
    examples = gr.Dataset(
        components=[photo], samples=[[str(path)] for path in PHOTOS], type="index", label=i18n("examples"),
        visible=bool(PHOTOS), elem_id="photo-examples", elem_classes="in-a-row",
    )  # fmt: skip
    gr.Markdown(i18n("deleted"), elem_id="deleted")
    with gr.Row(elem_id="found"):
        crop = gr.Image(
            show_label=False,
            container=False,
            format="png",
            interactive=False,
            height=96,
            width=96,
            min_width=96,
            buttons=[],
            elem_id="crop",
            elem_classes="small",
            alt_text=i18n("crop_alt"),
        )
        with gr.Column(min_width=160):
            note = gr.Markdown(visible=False, elem_id="note")
            chosen = gr.CheckboxGroup([], label=i18n("faces"), visible=False, elem_id="chosen")
    numbered = gr.Image(
        label=i18n("numbered"),
        format="png",
        visible=False,
        interactive=False,
        height=180,
        buttons=["fullscreen"],
        elem_id="numbered",
        alt_text=i18n("numbered_alt"),
    )
    square, numbers = square_fields("square", visible=False)
    grayscale = gr.Checkbox(False, label=i18n("grayscale"), render=False)  # shown among the other settings
    parts = [photo, chosen, *numbers, grayscale]
    shown = [note, numbered, chosen, square, crop]
    standing = gr.State()  # a path, which stays: an example's photo does, too
    # each, or what is chosen while one is looked at would never be
    photo.upload(
        events.displayable,
        [photo, standing],
        [photo, note],
        show_progress="hidden",
        trigger_mode="multiple",
        **PRIVATE,
    ).failure(lambda standing: standing, standing, photo, **AT_ONCE)  # the queue is full
    # gradio says twice of each photo that it changed; a text's change is said once
    path = gr.Textbox(visible="hidden")
    photo.change(None, photo, path, js="(photo) => photo?.path ?? ''", **AT_ONCE)
    path.change(
        events.look_anew,
        [model, *parts, standing],
        [*shown, *numbers, standing],
        show_progress="hidden",
        **PRIVATE,
    )
    examples.click(  # the last one clicked wins
        events.example_photo, examples, photo, show_progress="hidden", trigger_mode="always_last", **AT_ONCE
    )
    photo.clear(lambda: events.photo_gone(), None, note, **AT_ONCE)  # before the next photo's is there
    # in the queue, as gradio tells of a state's change only there
    photo.clear(lambda: None, None, standing, show_progress="hidden", **PRIVATE)
    size = numbers[-1]
    size.input(events.frame, [model, *parts], crop, show_progress="hidden", trigger_mode="always_last", **PRIVATE)
    return SubjectPanel(model, photo, parts, shown, crop, grayscale, standing)


def square_fields(elem_id: str, **options: Any) -> tuple[gr.Column, list[gr.Number]]:
    """What the script's square on a picture sets: x, y and, last, size, which tells of all; as :data:`stargan.drawing.Square`
    means them."""
    labels = zip(("crop_x", "crop_y", "crop_size"), MIDDLE, strict=True)
    with gr.Column(elem_id=elem_id, elem_classes="square-fields", **options) as square:
        numbers = [gr.Number(value, label=i18n(label)) for label, value in labels]
    return square, numbers


CSS = """
.square-fields { display: none !important; }
.square { position: absolute; z-index: 5; cursor: move; touch-action: none; box-sizing: border-box; border: 2px solid white;
  outline: 2px solid var(--primary-600); box-shadow: 0 0 0 9999px rgb(0 0 0 / 45%); }
.block:has(> .square) > label { display: none; } /* it would lie on a corner */
.square:focus-visible { outline-width: 4px !important; outline-offset: 0 !important; }
/* small corners that are easily hit */
.square i { position: absolute; width: clamp(16px, 33%, 44px); aspect-ratio: 1; touch-action: none; }
.square i::after { content: ""; position: absolute; inset: 0; margin: auto; width: 14px; height: 14px; border-radius: 50%;
  background: white; border: 3px solid var(--primary-600); }
.square .nw { left: -8px; top: -8px; cursor: nwse-resize; }
.square .se { right: -8px; bottom: -8px; cursor: nwse-resize; }
.square .ne { right: -8px; top: -8px; cursor: nesw-resize; }
.square .sw { left: -8px; bottom: -8px; cursor: nesw-resize; }
#photo .image-frame img, #reference-whole img { object-fit: contain; }
#video-note { border-left: 3px solid var(--primary-600); padding: 0.25rem 0.75rem; }
#told { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
#take button { min-height: 44px; font-size: 1rem; padding-inline: 0.5rem; white-space: nowrap; }
#take { flex-wrap: nowrap; }
#deleted p { font-size: 0.875rem; color: var(--body-text-color-subdued); }
#found { flex-wrap: nowrap; align-items: center; }
#found:not(:has(#crop img)) #crop { display: none; }
#crop { flex: none; border-radius: var(--radius-lg); overflow: hidden; }
#photo:not(:has(.image-frame img)) { height: 220px !important; }
/* a video is drawn without the photo: what stays is which model draws */
#columns:has(#tab-live-button[aria-selected="true"]) { flex-direction: column; }
#columns:has(#tab-live-button[aria-selected="true"]) > * { width: 100%; }
#columns:has(#tab-live-button[aria-selected="true"]) #subject > :not(#model):not(:has(#model)) { display: none; }
#camera-shot { border: 0; border-radius: var(--radius-lg); padding: 1rem; max-width: min(640px, 94vw);
  background: var(--background-fill-primary); color: var(--body-text-color); }
#camera-shot::backdrop { background: rgb(0 0 0 / 60%); }
#camera-shot video { width: 100%; border-radius: var(--radius-md); transform: scaleX(-1); background: black; }
#camera-shot button { min-height: 44px; padding-inline: 1.25rem; margin: 0.75rem 0.5rem 0 0; border-radius: var(--radius-md);
  border: 1px solid var(--border-color-primary); font-weight: 600; }
#camera-shot button.primary { background: var(--button-primary-background-fill); color: white; }
#reference-strip { align-items: center; }
#reference-strip > :first-child { flex: 1; min-width: 0 !important; }
#own-reference { min-height: 44px; font-size: 1rem; white-space: nowrap; }
/* gradio shows it to a mouse alone, and small */
#references .delete-button { opacity: 1; width: 44px; height: 44px; align-items: end; justify-content: start; background: none; border: 0; }
#references .delete-button svg { box-sizing: content-box; padding: 6px; background: var(--background-fill-primary);
  border: 1px solid var(--border-color-primary); border-radius: var(--radius-sm); }
#references .icon-button-wrapper { display: none; } /* a button in a button; there is one with a label above */
#references .grid-container { margin-top: 1.25rem; grid-template-columns: repeat(auto-fill, 96px) !important; grid-auto-rows: 96px; }
#references .thumbnail-item { height: 96px; aspect-ratio: 1; }
@media (min-width: 768px) { /* the photo stays beside the drawings */
  #columns { align-items: flex-start; }
  #subject { position: sticky; top: 0.5rem; }
  #photo-examples .gallery { display: grid; grid-template-columns: repeat(5, 1fr); }
  #photo-examples .gallery :is(span, .container, img) { display: block; width: 100%; height: auto; aspect-ratio: 1; }
}
@media (max-width: 640px) {
  #photo:has(.image-frame img) { height: 170px !important; }
  #crop { width: 72px !important; height: 72px !important; min-width: 72px !important; }
}
"""

_SCRIPT = Path(__file__).with_name("subject.js").read_text(encoding="utf-8")
JS = _SCRIPT.replace("{}; // texts", json.dumps({key: texts.TEXTS[key] for key in _SPOKEN}, ensure_ascii=False) + ";")
