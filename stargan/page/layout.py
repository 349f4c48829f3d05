"""What is on the page: its panels as typed values, and which event runs which handler."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from stargan.drawing import MAX_COUNT, MAX_PSI, MAX_SEED
from stargan.page import events, texts
from stargan.page.answers import AT_ONCE, PRIVATE, guard, i18n
from stargan.page.endpoints import endpoints
from stargan.page.events import DEFAULTS, DRAWINGS, MAX_NEW_SEED, VIDEOS, domain_choices
from stargan.page.longwork import long_work
from stargan.page.models import config_of
from stargan.page.subject import SubjectPanel, square_fields, subject_panel

# A visitor's camera is drawn for this long, in seconds; then the next one has a turn, and the button starts it again.
LIVE_SECONDS = 120


@dataclass(frozen=True)
class ResultsPanel:
    """Drawings, the whole photo, what can be saved, and what can be kept for exploring.

    Attributes:
        outputs: what :class:`stargan.page.events.Results` holds.
        view: "drawing" or "photo": what the chosen one is looked at in.
        sheet_open: whether the sheet is unfolded: only then it is made.
    """

    gallery: gr.Gallery
    outputs: list[Any]
    drawn: gr.State
    chosen: gr.State
    view: gr.Radio
    sheet_open: gr.State
    keep_a: gr.Button
    keep_b: gr.Button
    link: gr.Textbox


@dataclass(frozen=True)
class DiversityTab:
    results: ResultsPanel
    domain: gr.Radio
    count: gr.Slider
    seed: gr.Number
    psi: gr.Slider
    inputs: list[Any]
    outputs: list[Any]


@dataclass(frozen=True)
class MixingTab:
    results: ResultsPanel
    domain: gr.Radio
    inputs: list[Any]


def build() -> gr.Blocks:
    """The page and the endpoints."""
    with gr.Blocks(
        title=texts.say("title", "en"),
        analytics_enabled=False,
    ) as page:
        gr.Markdown(i18n("intro"), elem_id="intro")
        kept_a = gr.State(time_to_live=3600)
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300, elem_id="subject"):
                subject = subject_panel()
            with gr.Column(scale=2, min_width=320), gr.Tabs():
                with gr.Tab(i18n("tab_diversity"), id="diversity"):
                    diversity = diversity_tab(subject)
                with gr.Tab(i18n("tab_mixing"), id="mixing") as mixing_is:
                    mixing = mixing_tab(subject, mixing_is)
                with gr.Tab(i18n("tab_live"), id="live", elem_id="tab-live") as live_is:
                    live = live_tab(subject, kept_a, live_is)
        explore_panel(subject, kept_a, diversity.results, mixing.results)
        gr.Markdown(i18n("privacy"), elem_id="privacy")

        domains = [diversity.domain, mixing.domain, live]
        looked = subject.model.input(
            events.choose_model, [subject.model, *domains], domains, show_progress="hidden", **PRIVATE
        ).success(events.look, [subject.model, *subject.parts], subject.shown, show_progress="hidden", **PRIVATE)
        for draw, inputs, outputs, panel in (
            (events.draw_first, diversity.inputs, diversity.outputs, diversity.results),
            (events.draw_mixed, mixing.inputs, mixing.results.outputs, mixing.results),
        ):
            looked.success(draw, inputs, outputs, show_progress_on=panel.gallery, **PRIVATE)
        search = gr.Textbox(visible=False)
        chosen = [diversity.count, diversity.seed, diversity.psi, subject.grayscale]
        settings = [subject.model, subject.photo, *chosen, *domains]
        arrival = "(...given) => [window.location.search, ...given.slice(1)]"
        page.load(events.arrive, [search, *domains], settings, js=arrival, show_progress="hidden", **PRIVATE)
        endpoints()
    take_as_given(page)
    guard(page)
    return page


def take_as_given(page: gr.Blocks) -> None:
    """Hands values over as they came: uploads as paths, unopened, for open_photo to judge, and numbers and choices
    unchecked, for studio to judge. Gradio's own refusals are in English only, and name no field; and a choice that was
    right when it was sent may be none any more when it arrives, as of faces when the photo changes."""
    for block in page.blocks.values():
        _take_as_given(block)
    preprocess = page.preprocess_data

    async def preprocessed(function: Any, inputs: list[Any], state: Any, *args: Any, **options: Any) -> list[Any]:
        for block in function.inputs:
            if state and block._id in state:  # a visitor's own copy, which gradio makes anew with each update
                _take_as_given(state.blocks_config.blocks[block._id])
        return await preprocess(function, inputs, state, *args, **options)

    page.preprocess_data = preprocessed  # type: ignore[assignment, method-assign]


def _take_as_given(block: Any) -> None:
    if isinstance(block, gr.Image) and block.streaming:
        block.preprocess = events.camera_bytes  # type: ignore[assignment, method-assign]
    elif isinstance(block, (gr.Image, gr.Video)):
        block.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    elif isinstance(block, (gr.CheckboxGroup, gr.Dropdown, gr.Number, gr.Radio, gr.Slider)):
        block.preprocess = lambda payload: payload  # type: ignore[method-assign]


def results_panel(
    subject: SubjectPanel,
    label: str,
    sheet_label: str,
    prefix: str,
    *,
    settings: Callable[[], object] | None = None,
    with_link: bool = False,
) -> ResultsPanel:
    """
    Args:
        settings: puts what can be set between what is done with a drawing and what is saved of all.
    """
    gallery = gr.Gallery(
        label=i18n(label), format="png", columns=4, height="auto", object_fit="contain", allow_preview=False,
        interactive=False, buttons=[], elem_id=f"{prefix}-gallery", elem_classes="drawings",
    )  # fmt: skip
    views = [(i18n("view_drawing"), "drawing"), (i18n("view_photo"), "photo")]
    view = gr.Radio(views, value="drawing", show_label=False, container=False, elem_id=f"{prefix}-view")
    large = gr.Image(
        label=i18n("chosen_drawing"),
        format="png",
        interactive=False,
        height=400,
        buttons=["fullscreen"],
        elem_id=f"{prefix}-large",
        elem_classes="small",
        alt_text=i18n("chosen_drawing"),
    )
    compare = gr.ImageSlider(
        label=i18n("in_photo"),
        format="png",
        interactive=False,
        visible=False,
        max_height=420,
        slider_position=30,
        buttons=["fullscreen"],
        elem_id=f"{prefix}-compare",
    )
    with gr.Row():
        save = gr.DownloadButton(i18n("save"), variant="primary", interactive=False, elem_id=f"{prefix}-save")
        keep_a = gr.Button(i18n("keep_a"), elem_id=f"{prefix}-keep-a")
        keep_b = gr.Button(i18n("keep_b"), elem_id=f"{prefix}-keep-b")
    if settings:
        settings()
    with gr.Accordion(i18n("save_all"), open=False, elem_id=f"{prefix}-all") as folded:
        with gr.Row():
            whole = gr.Button(i18n("whole_photo"), elem_id=f"{prefix}-whole")
            archive = gr.Button(i18n("archive"), elem_id=f"{prefix}-archive")
        sheet = gr.Image(
            label=i18n(sheet_label),
            format="png",
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=f"{prefix}-sheet",
            alt_text=i18n(f"{sheet_label}_alt"),
        )
        address = gr.Textbox(
            label=i18n("link"), info=i18n("link_info"), interactive=False, buttons=["copy"], visible=with_link,
            elem_id="link" if with_link else None,
        )  # fmt: skip
    file = gr.DownloadButton(visible="hidden", elem_id=f"{prefix}-file")
    drawn, header, chosen = gr.State(time_to_live=3600), gr.State(()), gr.State(0)
    sheet_open = gr.State(False)
    gallery.select(
        events.choose,
        [drawn, view],
        [large, save, compare, chosen],
        show_progress_on=[large, compare],
        trigger_mode="multiple",  # "always_last" would take the last click for the first again
        **(PRIVATE | {"concurrency_limit": 1}),  # in their order, so that the last click wins
    )
    view.input(
        events.look_from,
        [view, drawn, chosen],
        [large, compare],
        show_progress="hidden",
        trigger_mode="always_last",
        **PRIVATE,
    )
    folded.expand(events.unfold_sheet, [drawn, header], [sheet, sheet_open], **PRIVATE)
    folded.collapse(lambda: False, None, sheet_open, **AT_ONCE)
    # made when they are asked for, then handed over as a click on a link would
    hand_over = f"() => setTimeout(() => document.querySelector('#{prefix}-file').click(), 100)"
    for button, make, inputs in (
        (whole, events.whole_photo, [drawn, chosen]),
        (archive, events.pack, [drawn, header, chosen]),
    ):
        long_work(button, make, inputs, file, show_progress_on=button).success(
            None, None, None, js=hand_over, **AT_ONCE
        )
    outputs = [subject.crop, gallery, large, save, compare, sheet, drawn, header, chosen]
    return ResultsPanel(gallery, outputs, drawn, chosen, view, sheet_open, keep_a, keep_b, address)


def diversity_tab(subject: SubjectPanel) -> DiversityTab:
    """Many drawings of the photo, one a seed."""
    choices = domain_choices(config_of(None).domains)
    dice = gr.Button(i18n("dice"), variant="primary", elem_id="dice")
    # placed by settings(), below the drawings
    hidden: dict[str, Any] = {"render": False}
    domain = gr.Radio(choices, value=choices[0][1], label=i18n("domain"), elem_id="domain", **hidden)
    count = gr.Slider(1, MAX_COUNT, DEFAULTS["count"], step=1, label=i18n("count"), elem_id="count", **hidden)
    seed = gr.Number(
        DEFAULTS["seed"], label=i18n("seed"), info=i18n("seed_info"), precision=0, minimum=0, maximum=MAX_SEED,
        elem_id="seed", **hidden,
    )  # fmt: skip
    psi = gr.Slider(0, MAX_PSI, DEFAULTS["psi"], step=0.05, label=i18n("psi"), info=i18n("psi_info"), **hidden)

    def settings() -> None:
        with gr.Accordion(i18n("more"), open=False, elem_id="more"):
            domain.render()
            with gr.Row():
                count.render()
                psi.render()
            with gr.Row():
                seed.render()
                subject.grayscale.render()

    panel = results_panel(subject, "drawings", "sheet", "diversity", settings=settings, with_link=True)
    inputs = [subject.model, domain, count, seed, psi, panel.view, panel.sheet_open, *subject.parts]
    outputs = [*panel.outputs, panel.link]
    drawing = {"show_progress_on": panel.gallery, "trigger_mode": "always_last", **PRIVATE}
    subject.arrived.success(events.draw_first, inputs, outputs, **drawing)
    dice.click(lambda: random.randint(0, MAX_NEW_SEED), None, seed, **AT_ONCE).then(
        events.draw_latent, inputs, outputs, **drawing
    )
    changed = [part.input for part in (domain, count, seed, psi, *subject.parts[1:])]
    gr.on(changed, events.draw_first, inputs, outputs, **drawing)
    return DiversityTab(panel, domain, count, seed, psi, inputs, outputs)


def mixing_tab(subject: SubjectPanel, tab: gr.Tab) -> MixingTab:
    """The photo in the style of chosen pictures; an example is one of them when the tab is first opened."""
    choices = domain_choices(config_of(None).domains)
    with gr.Row(elem_id="reference-strip"):
        examples = gr.Dataset(
            components=[gr.Image(visible=False)], samples=[[str(path)] for path in DRAWINGS], type="index",
            label=i18n("add_reference"), visible=bool(DRAWINGS), elem_id="reference-examples", elem_classes="in-a-row",
        )  # fmt: skip
        own = gr.UploadButton(
            i18n("own_reference"),
            file_count="multiple",
            type="filepath",
            elem_id="own-reference",
            min_width=120,
            scale=0,
        )
    references = gr.Gallery(
        [str(path) for path in DRAWINGS[:1]], label=i18n("references"), type="filepath", format="png", interactive=True, columns=8, height=150,
        file_types=None, sources=["upload", "clipboard"], object_fit="contain", allow_preview=False, buttons=[],
        elem_id="references",
    )  # fmt: skip
    adjusted, opened = gr.State({}, time_to_live=3600), gr.State(False)
    # placed by settings(), below the drawings
    hidden: dict[str, Any] = {"render": False}
    domain = gr.Radio(
        choices,
        value=choices[0][1],
        label=i18n("references_domain"),
        elem_id="references-domain",
        min_width=260,
        **hidden,
    )
    strength = gr.Slider(
        0, 1, 1, step=0.05, label=i18n("strength"), info=i18n("strength_info"), min_width=260, **hidden
    )
    adjusting: list[AdjustPanel] = []

    def settings() -> None:
        with gr.Row():
            strength.render()
            domain.render()
        adjusting.append(adjust_panel())

    panel = results_panel(subject, "mixed", "mixed_sheet", "mixing", settings=settings)
    (adjust,) = adjusting
    which, weight, crops, square = adjust.which, adjust.weight, adjust.crops, adjust.square
    mixed = [subject.model, references, adjusted, domain, strength, panel.view, panel.sheet_open, *subject.parts]
    inputs = [opened, *mixed]
    drawing = {"show_progress_on": panel.gallery, "trigger_mode": "always_last", **PRIVATE}
    this = [references, adjusted, which]
    live = {"show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE}
    aside = [adjust.whole, weight, *square]
    look, seen = [subject.model, *this], [crops, which, *aside]
    came = references.change(events.look_at_references, look, seen, **live)
    # a gallery does not always tell of a change that an event brought
    added = [
        trigger(handler, [references, given], references, show_progress="hidden", **PRIVATE).success(
            events.look_at_references, look, seen, **live
        )
        for trigger, handler, given in (
            (examples.click, events.add_example, examples),
            (own.upload, events.add_own, own),
        )
    ]
    first = tab.select(lambda: True, None, opened, **AT_ONCE).success(events.look_at_references, look, seen, **live)
    crops.select(events.choose_reference, None, which, **AT_ONCE)
    which.change(events.adjustment, look, aside, show_progress="hidden", **PRIVATE)
    weighed = weight.input(events.weigh, [*this, weight], adjusted, **live)
    moved = gr.on(
        [part.input for part in square],
        events.adjust,
        [subject.model, *this, weight, *square],
        [crops, adjusted],
        **live,
    )
    changed = [part.input for part in (domain, strength, *subject.parts[1:])]
    gr.on(changed, events.draw_mixed, inputs, panel.outputs, **drawing)
    for event in (came, *added, weighed, moved, subject.arrived):
        event.success(events.draw_mixed, inputs, panel.outputs, **drawing)
    first.success(events.draw_mixed_first, [panel.drawn, *inputs], panel.outputs, **drawing)
    return MixingTab(panel, domain, inputs)


@dataclass(frozen=True)
class AdjustPanel:
    """Where the face of each reference is, and its weight in the blend."""

    whole: gr.Image
    which: gr.Radio
    weight: gr.Slider
    crops: gr.Gallery
    square: list[gr.Number]


def adjust_panel() -> AdjustPanel:
    with gr.Accordion(i18n("adjust"), open=False, elem_id="adjust"):
        gr.Markdown(i18n("adjust_info"))
        with gr.Row():
            with gr.Column(min_width=240):
                whole = gr.Image(
                    label=i18n("reference_whole"), format="png", interactive=False, height=280, buttons=[],
                    elem_id="reference-whole", alt_text=i18n("reference_whole"),
                )  # fmt: skip
            with gr.Column(min_width=240):
                which = gr.Radio([], label=i18n("adjust_which"), visible=False, elem_id="which-reference")
                weight = gr.Slider(0, 1, 1, step=0.05, label=i18n("weight"), elem_id="weight")
                crops = gr.Gallery(
                    label=i18n("crops"), format="png", columns=4, height="auto", interactive=False, allow_preview=False,
                    buttons=[], elem_id="reference-crops", elem_classes="drawings",
                )  # fmt: skip
        _, square = square_fields("reference-square")
    return AdjustPanel(whole, which, weight, crops, square)


def live_tab(subject: SubjectPanel, kept_a: gr.State, tab: gr.Tab) -> gr.Radio:
    """The camera, and short clips: many pictures in one style."""
    domains = config_of(None).domains
    domain = gr.Radio(domain_choices(domains), value=domains[0], label=i18n("domain"), elem_id="live-domain")
    with gr.Row():
        seed = gr.Number(DEFAULTS["seed"], label=i18n("seed"), precision=0, minimum=0, maximum=MAX_SEED, min_width=260)
        psi = gr.Slider(0, MAX_PSI, DEFAULTS["psi"], step=0.05, label=i18n("psi"), min_width=260)
    in_style_a = gr.Checkbox(False, label=i18n("in_style_a"), info=i18n("in_style_a_info"))
    style = [subject.model, kept_a, in_style_a, domain, seed, psi]
    gr.Markdown(i18n("camera_info"))
    with gr.Row():
        camera = gr.Image(
            sources=["webcam"], streaming=True, label=i18n("camera"), height=280, elem_id="camera",
            alt_text=i18n("camera"),
        )  # fmt: skip
        shown = gr.Image(
            label=i18n("camera_drawn"), interactive=False, height=280, buttons=["download"],
            elem_id="live", alt_text=i18n("camera_drawn"),
        )  # fmt: skip
    # shown without being stored
    shown.postprocess = _as_data_url  # type: ignore[assignment, method-assign]
    camera.stream(
        events.draw_live,
        [*style, camera],
        shown,
        stream_every=0.1,
        time_limit=LIVE_SECONDS,
        show_progress="hidden",
        **PRIVATE,
    )
    with gr.Row():
        # there when the tab is opened: a player is heavy, and every page would wait for it
        hidden: dict[str, Any] = {"height": 280, "visible": False}
        clip = gr.Video(sources=["upload"], label=i18n("clip_upload"), elem_id="video", **hidden)
        drawn = gr.Video(label=i18n("clip_drawn"), interactive=False, elem_id="drawn-video", **hidden)
    tab.select(lambda: [gr.Video(visible=True)] * 2, None, [clip, drawn], **AT_ONCE)
    examples = gr.Dataset(
        components=[gr.Video(visible=False)], samples=[[str(path)] for path in VIDEOS], type="index",
        label=i18n("examples"), visible=bool(VIDEOS), elem_id="video-examples", elem_classes="in-a-row",
    )  # fmt: skip
    examples.click(events.example_video, examples, clip, show_progress="hidden", **PRIVATE)
    note = gr.Markdown(visible=False, elem_id="video-note")
    start = gr.Button(i18n("clip_draw"), variant="primary", elem_id="draw-video")
    long_work(start, events.draw_clip, [*style, clip], [drawn, note], show_progress_on=drawn)
    return domain


def explore_panel(subject: SubjectPanel, kept_a: gr.State, *tabs: ResultsPanel) -> None:
    """What can be done with kept styles."""
    kept_b = gr.State(time_to_live=3600)
    with gr.Accordion(i18n("tab_explore"), open=False, elem_id="explore") as panel:
        gr.Markdown(i18n("explore_info"))
        with gr.Row():
            picture: dict[str, Any] = {
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
            kind = gr.Radio(["MP4", "GIF"], value="MP4", label=i18n("format"))
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
            button.click(events.keep, [tab.drawn, tab.chosen], [kept, shown], **PRIVATE).success(
                lambda: gr.Accordion(open=True), None, panel, **AT_ONCE
            )
    page = subject.parts
    part.input(
        events.draw_between,
        [subject.model, kept_a, kept_b, part, *page],
        between_picture,
        trigger_mode="always_last",
        **PRIVATE,
    )
    long_work(
        make,
        events.film,
        [subject.model, kept_a, kept_b, kind, *page],
        [clip, moving],
        show_progress_on=between_picture,  # the clip itself is not there yet
    )
    near.click(
        events.draw_near,
        [subject.model, kept_a, distance, count, seed, results.view, results.sheet_open, *page],
        results.outputs,
        show_progress_on=results.gallery,
        **PRIVATE,
    )


def _as_data_url(data: bytes | None) -> ImageData | None:
    return ImageData(url="data:image/webp;base64," + base64.b64encode(data).decode()) if data else None
