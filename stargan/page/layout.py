"""What is on the page: its panels as typed values, and which event runs which handler."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from stargan.drawing import MAX_COUNT, MAX_PSI, MAX_SEED
from stargan.page import comparing, events, favourites, sharing, texts
from stargan.page.answers import AT_ONCE, PRIVATE, guard, i18n
from stargan.page.endpoints import endpoints
from stargan.page.events import DEFAULTS, DRAWINGS, VIDEOS, domain_choices
from stargan.page.longwork import long_work
from stargan.page.models import cluster_address, config_of
from stargan.page.subject import SubjectPanel, square_fields, subject_panel

# One of four buttons beside each other; two and two on a phone.
BESIDE: dict[str, Any] = {"size": "md", "min_width": 110}
# Without the ↺, of which gradio does not tell as of a person's input.
SLIDER: dict[str, Any] = {"min_width": 260, "buttons": []}
# A visitor's camera is drawn for this long, in seconds; then the next one has a turn, and the button starts it again.
LIVE_SECONDS = 120
# The page's name of what the camera shows, drawn.
LIVE = "live"
# One of three pictures beside each other.
MORPHED: dict[str, Any] = {
    "format": "png", "interactive": False, "height": 180, "buttons": [], "min_width": 90, "elem_classes": "small",
}  # fmt: skip


@dataclass(frozen=True)
class ResultsPanel:
    """Drawings, the whole photo, what can be saved, and what can be kept for exploring.

    Attributes:
        outputs: what :class:`stargan.page.events.Results` holds.
        view: "drawing" or "photo": what the chosen one is looked at in.
        sheet_open: whether the sheet is unfolded: only then it is made.
        aside: what was drawn in the place of what the settings say, if so; ``back`` goes back.
        in_turn: how what is done with the chosen one waits until it is chosen.
    """

    gallery: gr.Gallery
    outputs: list[Any]
    drawn: gr.State
    chosen: gr.State
    view: gr.Radio
    sheet_open: gr.State
    aside: gr.State
    keep: gr.Button
    in_turn: dict[str, Any]
    back: gr.Button


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
    look: list[Any]
    seen: list[Any]


def build(*, shared: bool = False) -> gr.Blocks:
    """The page and the endpoints.

    Args:
        shared: whether visitors come by a public link, too, through the host of that.
    """
    with gr.Blocks(
        title=texts.say("title", "en"),
        analytics_enabled=False,
    ) as page:
        gr.Markdown(i18n("intro"), elem_id="intro")
        kept_a, between = gr.State(time_to_live=3600), between_picture()
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300, elem_id="subject"):
                subject = subject_panel()
                # of another face, it is none between styles A and B; cleared first, as events wait for those before
                gr.on(subject.changes, lambda: None, None, between, **AT_ONCE)
                served = "_served" if cluster_address() else ""
                gr.Markdown(i18n(f"privacy{served}"), elem_id="privacy")
                if shared:
                    gr.Markdown(i18n("privacy_shared"), elem_id="privacy-shared")
            with gr.Column(scale=2, min_width=320):
                with gr.Tabs() as tabs:
                    with gr.Tab(i18n("tab_diversity"), id="diversity"):
                        diversity = diversity_tab(subject)
                    with gr.Tab(i18n("tab_mixing"), id="mixing") as mixing_is:
                        mixing = mixing_tab(subject, mixing_is)
                    with gr.Tab(i18n("tab_live"), id="live", elem_id="tab-live") as live_is:
                        live = live_tab(subject, kept_a, live_is)
                favourites_panel(page, subject, kept_a, between, tabs, diversity.results, mixing.results)

        domains = [diversity.domain, mixing.domain, live]
        # the model that was chosen last is the one that draws
        last: dict[str, Any] = {"trigger_mode": "always_last", **PRIVATE}
        looked = subject.model.input(
            events.choose_model, [subject.model, *domains], domains, show_progress="hidden", **last
        ).success(events.look, [subject.model, *subject.parts], subject.shown, show_progress="hidden", **last)
        looked.success(events.look_at_references, mixing.look, mixing.seen, show_progress="hidden", **last)
        for draw, inputs, outputs, panel in (
            (events.draw_first, diversity.inputs, diversity.outputs, diversity.results),
            (events.draw_mixed, mixing.inputs, mixing.results.outputs, mixing.results),
        ):
            looked.success(draw, inputs, outputs, show_progress_on=panel.gallery, **last)
        page.load(None, None, None, js=comparing.SLIDER, **AT_ONCE)
        # radio buttons of a tab that is not open yet show no choice unless an event has named it
        page.load(lambda: gr.Radio(value="drawing"), None, mixing.results.view, **AT_ONCE)
        search = gr.Textbox(visible=False)
        chosen = [diversity.count, diversity.seed, diversity.psi, subject.grayscale]
        settings = [subject.model, subject.photo, *chosen, *domains]
        arrival = "() => window.location.search"
        page.load(events.arrive, search, settings, js=arrival, show_progress="hidden", **PRIVATE)
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
        for block in (*function.inputs, *function.outputs):
            if state and block._id in state:  # a visitor's own copy, which gradio makes anew with each update
                _take_as_given(state.blocks_config.blocks[block._id])
        return await preprocess(function, inputs, state, *args, **options)

    page.preprocess_data = preprocessed  # type: ignore[assignment, method-assign]


def _take_as_given(block: Any) -> None:
    if isinstance(block, gr.Image) and block.elem_id == LIVE:
        block.postprocess = _as_data_url  # type: ignore[assignment, method-assign]
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
    back = gr.Button(i18n("back"), visible=False, size="md", elem_id=f"{prefix}-back")
    gallery = gr.Gallery(
        label=i18n(label), show_label=False, format="png", columns=4, height="auto", object_fit="contain",
        allow_preview=False, interactive=False, buttons=[], elem_id=f"{prefix}-gallery", elem_classes="drawings",
    )  # fmt: skip
    views = [(i18n("view_drawing"), "drawing"), (i18n("view_photo"), "photo")]
    view = gr.Radio(
        views, value="drawing", show_label=False, container=False, elem_id=f"{prefix}-view", elem_classes="view"
    )
    picture: dict[str, Any] = {"format": "png", "interactive": False, "show_label": False, "min_width": 60}
    with gr.Row(elem_classes="pair") as pair:
        face = gr.Image(
            label=i18n("crop"), height=200, buttons=[], elem_id=f"{prefix}-face", elem_classes=["small", "face"],
            alt_text=i18n("crop_alt"), **picture,
        )  # fmt: skip
        large = gr.Image(
            label=i18n("chosen_drawing"), height=384, buttons=["fullscreen"], elem_id=f"{prefix}-large",
            elem_classes=["small", "large"], alt_text=i18n("chosen_drawing"), **picture,
        )  # fmt: skip
    compare = gr.ImageSlider(
        label=i18n("in_photo"),
        format="png",
        interactive=False,
        visible=False,
        max_height=384,
        slider_position=30,
        buttons=["fullscreen"],
        elem_id=f"{prefix}-compare",
        elem_classes="large",
    )
    with gr.Row(elem_classes=["four", "actions"]):
        save = gr.DownloadButton(i18n("save"), variant="primary", interactive=False, elem_id=f"{prefix}-save", **BESIDE)
        share = gr.Button(i18n("share"), elem_id=f"{prefix}-share", **BESIDE)
        keep = gr.Button(i18n("keep"), elem_id=f"{prefix}-keep", **BESIDE)
        more = gr.Button(i18n("more_like"), elem_id=f"{prefix}-more-like", **BESIDE)
    if settings:
        settings()
    with gr.Accordion(i18n("save_all"), open=False, elem_id=f"{prefix}-all") as folded:
        with gr.Row(equal_height=True):
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
            label=i18n("link"), info=i18n("link_info"), placeholder=i18n("link_none"), interactive=False, buttons=["copy"], visible=with_link,
            elem_id="link" if with_link else None,
        )  # fmt: skip
    file = gr.DownloadButton(visible="hidden", elem_id=f"{prefix}-file")
    # whose events these are, for the handlers that both panels have
    name = gr.State(prefix)
    drawn, header, chosen = gr.State(time_to_live=3600), gr.State((), time_to_live=3600), gr.State(0)
    sheet_open, aside = gr.State(False), gr.State(time_to_live=3600)
    # in their order, so that the last click wins, and what is done next is done with what was chosen last
    in_turn = PRIVATE | {"concurrency_limit": 1, "concurrency_id": f"{prefix}-choice"}
    # what was chosen before is not saved in its place
    gallery.select(None, None, save, js="() => ({__type__: 'update', interactive: false})", **AT_ONCE)
    gallery.select(
        events.choose,
        [name, drawn, view],
        [face, large, save, compare, chosen],
        show_progress_on=[large, compare],
        trigger_mode="multiple",  # "always_last" would take the last click for the first again
        **in_turn,
    ).failure(lambda drawn: gr.DownloadButton(interactive=drawn is not None), drawn, save, **AT_ONCE)
    turned: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    view.input(lambda *inputs: events.turn_to(*inputs), [name, view], None, **turned, **in_turn).then(
        events.look_from,
        [name, view, drawn, chosen],
        [pair, compare],
        **turned,
        **PRIVATE,
    )
    folded.expand(events.unfold_sheet, [name, drawn, header], [sheet, sheet_open], **PRIVATE)
    folded.collapse(lambda panel: events.fold_sheet(panel), name, sheet_open, **AT_ONCE)
    # made when they are asked for, then handed over as a click on a link would
    hand_over = f"() => setTimeout(() => document.querySelector('#{prefix}-file').click(), 100)"
    for button, make, inputs in (
        (whole, events.whole_photo, [drawn, chosen]),
        (archive, events.pack, [drawn, header, chosen]),
    ):
        long_work(button, make, inputs, file, show_progress_on=button).success(
            None, None, None, js=hand_over, **AT_ONCE
        )
    share.click(lambda: None, None, None, **in_turn).then(
        sharing.share, [drawn, chosen], file, show_progress_on=share, **PRIVATE
    ).success(None, file, None, js=sharing.HAND_ON, **AT_ONCE)
    outputs = [subject.crop, gallery, face, large, save, compare, sheet, drawn, header, chosen, aside, back, address]
    more.click(lambda: None, None, None, **in_turn).then(
        favourites.more_like, [name, subject.model, drawn, aside, chosen, view, sheet_open, *subject.parts], outputs, show_progress_on=gallery,
        **PRIVATE,
    )  # fmt: skip
    return ResultsPanel(gallery, outputs, drawn, chosen, view, sheet_open, aside, keep, in_turn, back)


def diversity_tab(subject: SubjectPanel) -> DiversityTab:
    """Many drawings of the photo, one a seed."""
    choices = domain_choices(config_of(None).domains)
    dice = gr.Button(i18n("dice"), variant="primary", elem_id="dice")
    # placed by settings(), below the drawings
    hidden: dict[str, Any] = {"render": False}
    domain = gr.Radio(choices, value=choices[0][1], label=i18n("domain"), elem_id="domain", **hidden)
    count = gr.Slider(1, MAX_COUNT, DEFAULTS["count"], step=1, label=i18n("count"), elem_id="count", **SLIDER, **hidden)
    seed = gr.Number(
        DEFAULTS["seed"], label=i18n("seed"), info=i18n("seed_info"), precision=0, minimum=0, maximum=MAX_SEED,
        elem_id="seed", **hidden,
    )  # fmt: skip
    psi = gr.Slider(
        0, MAX_PSI, DEFAULTS["psi"], step=0.05, label=i18n("psi"), info=i18n("psi_info"), elem_id="psi", **SLIDER, **hidden,
    )  # fmt: skip

    def settings() -> None:
        with gr.Accordion(i18n("more"), open=False, elem_id="more"):
            domain.render()
            with gr.Row():
                count.render()
                psi.render()
            seed.render()
            subject.grayscale.render()

    panel = results_panel(subject, "drawings", "sheet", "diversity", settings=settings, with_link=True)
    settled = [subject.model, domain, count, seed, psi, panel.view, panel.sheet_open]
    inputs = [*settled, *subject.parts]
    outputs = panel.outputs
    drawing = {"show_progress_on": panel.gallery, "trigger_mode": "always_last", **PRIVATE}
    subject.standing.change(events.draw_first, [*settled, *subject.standing_parts], outputs, **drawing)
    dice.click(lambda: events.new_seed(), None, seed, **AT_ONCE).then(events.draw_latent, inputs, outputs, **drawing)
    gr.on([part.input for part in (domain, count, seed, psi)], events.draw_as_set, inputs, outputs, **drawing)
    left = drawing | {"show_progress": "hidden"}  # most often, nothing is to be drawn
    gr.on([count.release, psi.release], events.draw_as_corrected, inputs, outputs, **left)
    gr.on(subject.changes, events.redraw_latent, [panel.aside, *inputs], outputs, **drawing)
    panel.back.click(events.back_to_latent, [panel.aside, *inputs], outputs, **drawing)
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
    adjusted = gr.State({})  # numbers and paths, which stay as the sliders do
    opened = gr.Checkbox(False, visible=False)  # held by the browser: the app may be another one meanwhile
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
    strength = gr.Slider(0, 1, 1, step=0.05, label=i18n("strength"), info=i18n("strength_info"), **SLIDER, **hidden)
    panels: list[AdjustPanel] = []

    def settings() -> None:
        with gr.Row():
            strength.render()
            domain.render()
        panels.append(adjust_panel())

    panel = results_panel(subject, "mixed", "mixed_sheet", "mixing", settings=settings)
    (adjust,) = panels
    which, weight, crops, square = adjust.which, adjust.weight, adjust.crops, adjust.square
    settled = [opened, subject.model, references, adjusted, domain, strength, panel.view, panel.sheet_open]
    inputs = [*settled, *subject.parts]
    drawing = {"show_progress_on": panel.gallery, "trigger_mode": "always_last", **PRIVATE}
    live = {"show_progress": "hidden", "trigger_mode": "always_last", **PRIVATE}
    # adjustments are of the reference whose square is shown, which may not yet be the one that was clicked last
    this, aside = [references, adjusted, adjust.seen], [crops, adjust.whole, weight, *square, adjust.seen]
    look, seen = [subject.model, references, adjusted, which], [which, *aside]
    came = references.change(events.look_at_references, look, seen, **live)
    # each in its turn, so that none is lost; a gallery does not always tell of a change that an event brought
    in_turn: dict[str, Any] = {"trigger_mode": "multiple", "show_progress": "hidden", **PRIVATE, "concurrency_limit": 1}
    before, heard = gr.State(events.Added()), gr.Number(0, visible=False)
    added = [
        trigger(
            handler,
            [before, heard, references, given],
            [references, before, heard],
            concurrency_id="references",
            **in_turn,
        ).success(events.look_at_references, look, seen, **live)
        for trigger, handler, given in (
            (examples.click, events.add_example, examples),
            (own.upload, events.add_own, own),
        )
    ]
    first = tab.select(lambda: True, None, opened, **AT_ONCE).success(events.look_at_references, look, seen, **live)
    crops.select(events.choose_reference, None, which, **in_turn)
    which.change(events.adjustment, look, aside, **live)
    adjusting = live | {"concurrency_limit": 1, "concurrency_id": "adjusting"}  # each adds to what the one before made
    weighed = weight.input(events.weigh, [*this, weight], adjusted, **adjusting)
    moved = square[-1].input(
        events.adjust,
        [subject.model, *this, weight, *square],
        [crops, adjusted],
        **adjusting,
    )
    gr.on([domain.input, strength.input], events.draw_mixed, inputs, panel.outputs, **drawing)
    gr.on(subject.changes, events.redraw_mixed, [panel.aside, *inputs], panel.outputs, **drawing)
    panel.back.click(events.back_to_mixed, [panel.aside, *inputs], panel.outputs, **drawing)
    subject.standing.change(events.draw_mixed_anew, [*settled, *subject.standing_parts], panel.outputs, **drawing)
    for event in (came, *added, weighed, moved):
        event.success(events.draw_mixed, inputs, panel.outputs, **drawing)
    first.success(events.draw_mixed_first, [panel.drawn, *inputs], panel.outputs, **drawing)
    return MixingTab(panel, domain, inputs, look, seen)


@dataclass(frozen=True)
class AdjustPanel:
    """Where the face of each reference is, and its weight in the blend.

    Attributes:
        seen: the number of the reference whose square is shown.
    """

    whole: gr.Image
    which: gr.Radio
    weight: gr.Slider
    crops: gr.Gallery
    square: list[gr.Number]
    seen: gr.Number


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
                weight = gr.Slider(0, 1, 1, step=0.05, label=i18n("weight"), buttons=[], elem_id="weight")
                crops = gr.Gallery(
                    label=i18n("crops"), format="png", columns=4, height="auto", interactive=False, allow_preview=False,
                    buttons=[], elem_id="reference-crops", elem_classes="drawings",
                )  # fmt: skip
        _, square = square_fields("reference-square")
        seen = gr.Number(1, precision=0, visible=False)
    return AdjustPanel(whole, which, weight, crops, square, seen)


def live_tab(subject: SubjectPanel, kept_a: gr.State, tab: gr.Tab) -> gr.Radio:
    """Short clips, and the camera: many pictures in one style."""
    domains = config_of(None).domains
    domain = gr.Radio(domain_choices(domains), value=domains[0], label=i18n("domain"), elem_id="live-domain")
    in_style_a = gr.Checkbox(False, label=i18n("in_style_a"), info=i18n("in_style_a_info"))
    with gr.Accordion(i18n("more"), open=False, elem_id="live-more"), gr.Row():
        seed = gr.Number(DEFAULTS["seed"], label=i18n("seed"), precision=0, minimum=0, maximum=MAX_SEED, min_width=260)
        psi = gr.Slider(0, MAX_PSI, DEFAULTS["psi"], step=0.05, label=i18n("psi"), **SLIDER)
    style = [subject.model, kept_a, in_style_a, domain, seed, psi]
    with gr.Row():
        # there when the tab is opened: a player is heavy, and every page would wait for it
        hidden: dict[str, Any] = {"height": 280, "min_width": 260, "visible": False}
        clip = gr.Video(sources=["upload"], label=i18n("clip_upload"), elem_id="video", **hidden)
        drawn = gr.Video(label=i18n("clip_drawn"), interactive=False, elem_id="drawn-video", **hidden)
    tab.select(lambda: [gr.Video(visible=True)] * 2, None, [clip, drawn], **AT_ONCE)
    examples = gr.Dataset(
        components=[gr.Video(visible=False)], samples=[[str(path)] for path in VIDEOS], type="index",
        label=i18n("examples"), visible=bool(VIDEOS), elem_id="video-examples", elem_classes="in-a-row",
    )  # fmt: skip
    examples.click(events.example_video, examples, clip, show_progress="hidden", **PRIVATE)
    note = gr.Markdown(visible=False, elem_id="video-note")
    clip.change(lambda: gr.Markdown(visible=False), None, note, **AT_ONCE)
    start = gr.Button(i18n("clip_draw"), variant="primary", elem_id="draw-video")
    long_work(start, events.draw_clip, [*style, clip], [drawn, note], show_progress_on=drawn)
    gr.Markdown(i18n("camera_info"))
    with gr.Row():
        camera = gr.Image(
            sources=["webcam"], streaming=True, label=i18n("camera"), height=280, min_width=260, elem_id="camera",
            alt_text=i18n("camera"),
        )  # fmt: skip
        shown = gr.Image(
            label=i18n("camera_drawn"), interactive=False, height=280, min_width=260, buttons=["download"],
            elem_id=LIVE, alt_text=i18n("camera_drawn"),
        )  # fmt: skip
    camera_note = gr.Markdown(visible=False, elem_id="camera-note")
    camera.stream(
        events.draw_live,
        [*style, camera],
        [shown, camera_note],
        stream_every=0.1,
        time_limit=LIVE_SECONDS,
        show_progress="hidden",
        **PRIVATE,
    )
    return domain


def favourites_panel(
    page: gr.Blocks,
    subject: SubjectPanel,
    kept_a: gr.State,
    between: gr.Image,
    tabs: gr.Tabs,
    diversity: ResultsPanel,
    mixing: ResultsPanel,
) -> None:
    """Kept styles, and what can be done with them; hidden until there are any."""
    stored = gr.BrowserState([], storage_key=favourites.STORAGE_KEY, secret=favourites.STORAGE_SECRET)
    picked = gr.Number(0, visible=False)
    with gr.Accordion(i18n("favourites"), visible=False, elem_id="favourites") as panel:
        gr.Markdown(i18n("favourites_info"))
        pictures = gr.Gallery(
            label=i18n("favourites"), format="png", show_label=False, columns=6, height="auto", object_fit="contain",
            allow_preview=False, interactive=False, buttons=[], elem_id="tray", elem_classes="drawings",
        )  # fmt: skip
        with gr.Row(elem_classes="four"):
            use, use_a, use_b, remove, remove_all = (
                gr.Button(i18n(name), elem_id=name.replace("_", "-"), **BESIDE)
                for name in ("use", "use_a", "use_b", "remove", "remove_all")
            )
        with gr.Column(visible=False, elem_id="morph") as morph:
            kept_b, style_a, style_b = morph_panel(subject, kept_a, between)
    shown = [stored, pictures, picked, panel]
    page.load(favourites.arrive, stored, shown, show_progress="hidden", **PRIVATE)
    for results in (diversity, mixing):
        # in the queue, as only there it can say something
        results.keep.click(
            favourites.keep, [stored, subject.model, results.drawn, results.aside, results.chosen], shown,
            show_progress="hidden", trigger_mode="always_last", **results.in_turn,
        )  # fmt: skip
    page_now = [diversity.aside, diversity.chosen, diversity.view, diversity.sheet_open, *subject.parts]
    for trigger, handler, inputs in (
        (pictures.select, favourites.use, [stored, *page_now]),
        (partial(use.click, js=favourites.HIGHLIGHTED), favourites.use_picked, [stored, picked, *page_now]),
    ):
        trigger(
            handler,
            inputs,
            [picked, *diversity.outputs],
            show_progress_on=pictures,
            trigger_mode="multiple",
            **PRIVATE,
        ).success(
            lambda: gr.Tabs(selected="diversity"), None, tabs, **AT_ONCE
        ).then(None, None, None, js=favourites.LOOK_UP, **AT_ONCE)  # fmt: skip
    remove.click(favourites.remove, [stored, picked], shown, js=favourites.HIGHLIGHTED, **AT_ONCE)
    remove_all.click(favourites.remove_all, None, shown, **AT_ONCE)
    for button, kept, picture in ((use_a, kept_a, style_a), (use_b, kept_b, style_b)):
        button.click(
            favourites.as_slot, [stored, picked], [kept, picture], js=favourites.HIGHLIGHTED, **AT_ONCE
        ).success(lambda: (gr.Column(visible=True), None), None, [morph, between], **AT_ONCE)


def between_picture() -> gr.Image:
    """Where what is between style A and B is to be shown."""
    label = i18n("between_picture")
    return gr.Image(label=label, alt_text=label, elem_id="between", render=False, **MORPHED)


def morph_panel(subject: SubjectPanel, kept_a: gr.State, between: gr.Image) -> tuple[gr.State, gr.Image, gr.Image]:
    """From style A to style B → the latter, and where A and B are shown."""
    kept_b = gr.State(time_to_live=3600)
    with gr.Row(elem_classes="three"):
        style_a = gr.Image(label=i18n("style_a"), alt_text=i18n("style_a"), elem_id="style-a", **MORPHED)
        between.render()
        style_b = gr.Image(label=i18n("style_b"), alt_text=i18n("style_b"), elem_id="style-b", **MORPHED)
    part = gr.Slider(0, 1, 0, step=0.05, label=i18n("between"), buttons=[], elem_id="part")
    with gr.Row():
        kind = gr.Radio(["MP4", "GIF"], value="MP4", label=i18n("format"), min_width=260)
        make = gr.Button(i18n("clip"), elem_id="make-clip")
    clip = gr.Video(label=i18n("clip_result"), visible=False, height=260, autoplay=True, loop=True, elem_id="clip")
    moving = gr.Image(label=i18n("clip_result"), format="gif", visible=False, interactive=False, height=260)
    page = subject.parts
    part.input(
        events.draw_between,
        [subject.model, kept_a, kept_b, part, *page],
        between,
        trigger_mode="always_last",
        **PRIVATE,
    )
    long_work(
        make,
        events.film,
        [subject.model, kept_a, kept_b, kind, *page],
        [clip, moving],
        show_progress_on=between,  # the clip itself is not there yet
    )
    # of another photo, or by another model, it is none between these
    subject.standing.change(lambda: None, None, between, show_progress="hidden", **PRIVATE)
    subject.model.input(lambda: None, None, between, **AT_ONCE)
    return kept_b, style_a, style_b


def _as_data_url(data: bytes | None) -> ImageData | None:
    """What is shown without being stored."""
    return ImageData(url="data:image/webp;base64," + base64.b64encode(data).decode()) if data else None
