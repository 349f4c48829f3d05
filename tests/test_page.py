"""The page without a browser: what its components do with what is sent to them."""

from __future__ import annotations

import asyncio
import math
import pickle
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from asking import wait_until
from gradio.context import LocalContext
from gradio.data_classes import PredictBodyInternal
from gradio.state_holder import SessionState, StateHolder
from PIL import Image
from starlette.requests import Request

from stargan import drawing
from stargan.drawing import Seeds
from stargan.errors import RequestError
from stargan.page import events, layout, memory, serving, subject, texts
from stargan.page.answers import CANCELLATIONS, Refusal, Told, answering, i18n
from stargan.page.files import FILES
from stargan.page.models import READY, config_of, painter
from stargan.page.panels import PANELS, Panels

PORTRAIT = str(events.EXAMPLES / "photos" / "collins.png")


def test_what_an_event_updated_is_still_taken_as_given() -> None:
    """A face that was chosen in the photo before must not be refused: it is sent while the new photo is looked at."""
    page = layout.build()
    (chosen,) = (block for block in page.blocks.values() if block.elem_id == "chosen")
    function = next(fn for fn in page.fns.values() if chosen in fn.inputs and len(fn.inputs) < 9)
    state = SessionState(page)
    updated = type(chosen)(choices=[], value=[])  # as gradio does where a handler returns an update
    updated._id = chosen._id
    state[chosen._id] = updated
    given = [None if block.stateful else block.value for block in function.inputs]
    given[function.inputs.index(chosen)] = [1]
    taken = asyncio.run(page.preprocess_data(function, given, state))
    assert taken[function.inputs.index(chosen)] == [1]


def four_times(portrait: Image.Image) -> Image.Image:
    four = Image.new("RGB", (1024, 1024))
    for corner in ((0, 0), (512, 0), (0, 512), (512, 512)):
        four.paste(portrait, corner)
    return four


def test_another_model_keeps_what_was_chosen(portrait: Image.Image) -> None:
    four_times(portrait).save(path := FILES.fresh("four.png"))
    menus = events.choose_model("anime-128", "male", "female", "no domain of it")
    assert [menu.value for menu in menus] == ["male", "female", "anime"]
    looked = events.look("anime-128", str(path), [2, 3, 9], 0.5, 0.5, 1, False)
    assert looked.chosen.value == [2, 3]
    assert events.look("anime-128", str(path), [9], 0.5, 0.5, 1, False).chosen.value == [1]
    # as after a model that takes the whole picture
    assert events.look("anime-128", str(path), [], 0.5, 0.5, 1, False).chosen.value == [1]


def test_faces_keep_their_numbers(portrait: Image.Image) -> None:
    drawn = drawing.draw(
        drawing.prepare(drawing.Source.open(four_times(portrait)), config_of(None), (4, 2)),
        drawing.seeds(config_of(None), None, 2, 7, 0.7),
        painter(None),
    )
    assert [said for _, said in events.gallery_of(drawn)] == [
        f"face {face}: seed {s}" for face in (2, 4) for s in (7, 8)
    ]
    assert drawn.file_name(3) == "face-4-anime-seed-8.png"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[threading.Thread, list, threading.Event]]]:
    """Begins a drawing of a visitor's page in a thread; it ends when it is let go."""
    begun: list[threading.Event] = []

    def begin(
        handler: Callable, *inputs: object, error: Exception | None = None
    ) -> tuple[threading.Thread, list, threading.Event]:
        started, go, found = threading.Event(), threading.Event(), []

        def paints(model: str | None) -> Callable:
            started.set()
            assert go.wait(60)
            if error:
                raise error
            return painter(model)

        def run() -> None:
            LocalContext.request.set(VISITOR)
            found.append(handler(*inputs))

        begun.append(go)
        with monkeypatch.context() as patch:
            patch.setattr(events, "painter", paints)
            thread = threading.Thread(target=run)
            thread.start()
            assert started.wait(60)
        return thread, found, go

    token = LocalContext.request.set(VISITOR)
    yield begin
    LocalContext.request.reset(token)
    for go in begun:
        go.set()


VISITOR: Any = SimpleNamespace(session_hash="visitor", headers={})
SETTINGS = ("anime-128", "anime", 1, 7, 0.7, "drawing", False)
SUBJECT = ([1], 0.5, 0.5, 1.0, False)


@pytest.mark.parametrize("newer", ["other photo", "none", "near", "reference"])
def test_what_is_no_longer_asked_for_does_not_take_the_place_of_what_is(newer: str, held: Callable) -> None:
    """Different events of the page draw into one panel: gradio orders those of one alone."""
    examples = [str(path) for path in events.PHOTOS[:2]]
    thread, found, go = held(events.draw_latent, *SETTINGS, examples[0], *SUBJECT)
    if newer == "other photo":
        last = events.draw_first(*SETTINGS, examples[1], *SUBJECT)
    elif newer == "none":
        last = events.draw_first(*SETTINGS, None, *SUBJECT)
    elif newer == "near":
        style = drawing.seeds(config_of(None), None, 1, 3, 0.7)
        last = events.redraw_latent(events.Aside(style, "anime-128", 0), *SETTINGS, examples[1], *SUBJECT)
    else:  # which is drawn into the other panel
        pictures = [(str(events.DRAWINGS[0]), None)]
        last = events.draw_mixed(True, "anime-128", pictures, {}, "anime", 1.0, "drawing", False, examples[1], *SUBJECT)
    go.set()
    thread.join(60)
    if newer == "none":
        assert last == (None, *events.NOTHING)
    else:
        assert last.drawn is not None
    assert (found == [events.AS_IT_WAS]) == (newer != "reference")


def test_what_is_refused_takes_no_place(held: Callable) -> None:
    thread, found, go = held(events.draw_latent, *SETTINGS, str(events.PHOTOS[0]), *SUBJECT)
    with pytest.raises(Refusal, match="from 1 to 16"):
        events.draw_as_set(*SETTINGS[:2], 99, *SETTINGS[3:], str(events.PHOTOS[0]), *SUBJECT)
    go.set()
    thread.join(60)
    assert found[0].drawn is not None


def test_what_was_asked_for_last_stays_whichever_begins_first() -> None:
    """What waits in the queue, or for memory, begins late."""
    panels = Panels()
    tokens = LocalContext.request.set(VISITOR), LocalContext.event_id.set("early")
    panels.asked("early")
    panels.asked("late")
    LocalContext.event_id.set("late")
    assert panels.newest("diversity", lambda: "late", "none") == "late"
    LocalContext.event_id.set("early")
    assert panels.newest("diversity", lambda: "early", "none") == "none"
    LocalContext.event_id.set("never heard of")
    assert panels.newest("diversity", lambda: "later", "none") == "later"
    LocalContext.request.reset(tokens[0])
    LocalContext.event_id.reset(tokens[1])


def test_requests_are_numbered_as_they_come() -> None:
    page = gr.Blocks()
    with page:
        button = gr.Button()
        button.click(lambda: None, None, None)
    page.queue()
    serving.share_queue(page)
    body = PredictBodyInternal(data=[], fn_index=0, session_hash="visitor")
    request = Request({"type": "http", "headers": [], "client": ("127.0.0.1", 1), "query_string": b"", "path": "/"})
    asked = []
    for _ in range(2):
        success, event, _ = asyncio.run(page._queue.push(body, request, None))
        assert success
        asked.append(PANELS._asked[event])
    assert asked[0] < asked[1]


def test_what_fails_and_is_no_longer_asked_for_is_not_told_of(held: Callable) -> None:
    given = (*SETTINGS, str(events.PHOTOS[0]), *SUBJECT)
    thread, found, go = held(events.draw_latent, *given, error=RequestError("photo_gone"))
    events.draw_first(*SETTINGS, None, *SUBJECT)
    go.set()
    thread.join(60)
    assert found == [events.AS_IT_WAS]


def test_what_is_opened_while_something_is_drawn_is_filled(held: Callable) -> None:
    example = str(events.PHOTOS[0])
    for looked_at in (True, False):
        thread, found, go = held(events.draw_latent, *SETTINGS, example, *SUBJECT)
        if looked_at:
            events.look_from("diversity", "photo", None, 0)
            events.unfold_sheet("diversity", None, ())
        else:
            events.look_from("diversity", "drawing", None, 0)
            events.fold_sheet("diversity")
        go.set()
        thread.join(60)
        (shown,) = found
        assert (shown.compare is not None, shown.sheet is not None) == (looked_at, looked_at)


def test_the_photo_before_chosen_again_is_a_new_one() -> None:
    """Its upload has the same path, so that nothing would change, also after it was deleted and is there again."""
    photo = FILES.fresh("photo.png")
    shutil.copy(PORTRAIT, photo)
    again, _ = events.displayable(str(photo), str(photo))
    assert again != str(photo)
    assert Path(again).read_bytes() == photo.read_bytes()
    assert events.displayable(str(photo), again)[0] == gr.skip()


@pytest.fixture
def asked() -> Iterator[Callable[[str], None]]:
    """A visitor's page asks, by an event's id; called again, by another one."""
    tokens = LocalContext.request.set(VISITOR), LocalContext.event_id.set(None)
    yield LocalContext.event_id.set
    LocalContext.request.reset(tokens[0])
    LocalContext.event_id.reset(tokens[1])


@pytest.mark.parametrize("newer", ["photo", "example", "none"])
def test_a_photo_that_was_slow_to_open_does_not_take_the_place_of_a_newer_one(
    newer: str, asked: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (90, 90), "red").save(first := tmp_path / "first.tif")
    Image.new("RGB", (90, 90), "blue").save(second := tmp_path / "second.png")
    stay = (gr.skip(), gr.skip())

    def slow(*_: object) -> str:
        if newer == "photo":
            monkeypatch.undo()
            asked("second")
            assert events.displayable(str(second), None) == stay
            asked("first")
        elif newer == "example":
            events.example_photo(0)
        else:
            events.photo_gone()
        return "first.png"

    for event in ("first", "second"):
        PANELS.asked(event)
    asked("first")
    monkeypatch.setattr(events, "_for_browsers", slow)
    assert events.displayable(str(first), None) == stay


def test_a_photo_that_waits_while_one_before_is_opened_is_brought_back(asked: Callable, tmp_path: Path) -> None:
    Image.new("RGB", (90, 90), "red").save(first := tmp_path / "first.tif")
    Image.new("RGB", (90, 90), "blue").save(second := tmp_path / "second.png")
    for event in ("first", "second"):
        PANELS.asked(event)
    asked("first")
    assert Path(events.displayable(str(first), None)[0]).name == "first.png"
    asked("second")
    assert events.displayable(str(second), None) == (str(second), gr.skip())


def test_what_browsers_do_not_show_is_drawn_once(tmp_path: Path) -> None:
    """From the file that comes in its place."""
    with Image.open(PORTRAIT) as portrait:
        portrait.save(path := tmp_path / "portrait.tif")
    assert set(map(str, events.look_anew(None, str(path), [1], 0.5, 0.5, 1, False, None))) == {str(gr.skip())}
    shown, _ = events.displayable(str(path), None)
    *_, standing = events.look_anew(None, shown, [1], 0.5, 0.5, 1, False, None)
    assert standing == shown


def test_a_tile_is_of_the_drawings_that_it_was_clicked_among(asked: Callable) -> None:
    """And is looked at as is now chosen, not as when it was clicked."""
    pair = events.draw_latent(*SETTINGS[:2], 2, *SETTINGS[3:], str(events.PHOTOS[0]), *SUBJECT)
    click = events.Chosen(None, {"index": 1})
    events.look_from("diversity", "photo", pair.drawn, 0)
    _, _, _, compare, chosen = events.choose("diversity", pair.drawn, "drawing", click)
    assert compare != gr.skip()
    assert chosen == 1
    events.turn_to("diversity", "drawing")
    assert events.choose("diversity", pair.drawn, "photo", click)[3] == gr.skip()
    PANELS.asked("click")
    other = events.draw_latent(*SETTINGS, str(events.PHOTOS[1]), *SUBJECT)
    asked("click")
    for drawn in (pair.drawn, other.drawn):
        assert events.choose("diversity", drawn, "drawing", click) == (gr.skip(),) * 5


def test_where_a_new_photo_cannot_be_drawn_nothing_of_the_one_before_stays(
    held: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drawings of another person would stay beside it."""
    told: list[str] = []
    monkeypatch.setattr(events.gr, "Warning", told.append)
    photo, failure = str(events.PHOTOS[0]), RequestError("gpu_full")
    pictures = [(str(events.DRAWINGS[0]), None)]
    mixed = ("anime-128", pictures, {}, "anime", 1.0, "drawing", False)
    for handler, inputs in ((events.draw_first, SETTINGS), (events.draw_mixed_anew, (True, *mixed))):
        thread, found, go = held(handler, *inputs, photo, *SUBJECT, error=failure)
        go.set()
        thread.join(60)
        assert found == [(gr.skip(), *events.NOTHING)]
        assert told.pop() == texts.say("gpu_full", "en")
    # not where others came in their place meanwhile
    thread, found, go = held(events.draw_first, *SETTINGS, photo, *SUBJECT, error=failure)
    assert events.draw_latent(*SETTINGS, photo, *SUBJECT).drawn is not None
    go.set()
    thread.join(60)
    assert found == [events.AS_IT_WAS]


def test_what_the_page_still_shows_does_not_end_by_itself() -> None:
    page = layout.build()
    draws = next(f for f in page.fns.values() if f.api_name == "draw_first")
    mixes = next(f for f in page.fns.values() if f.api_name == "draw_mixed")
    standing = draws.inputs[7]
    adjusted = next(block for block in mixes.inputs if isinstance(block, gr.State) and block.value == {})
    assert [(type(state), state.time_to_live) for state in (standing, adjusted)] == [(gr.State, math.inf)] * 2


def test_the_biggest_face_is_told_to_be_chosen_where_it_is(portrait: Image.Image) -> None:
    two = Image.new("RGB", (1024, 512))
    for left in (0, 512):
        two.paste(portrait, (left, 0))
    two.save(path := FILES.fresh("two.png"))
    notes = [events.look("anime-128", str(path), chosen, 0.5, 0.5, 1, False).note.value for chosen in ([1], [2])]
    assert notes == [texts.say("note_many", "en", count=2), texts.say("note_some", "en", count=2)]


def test_a_link_says_nothing_of_references() -> None:
    """What is drawn by seeds is of the link's domain; references are drawings, as their examples are."""
    *_, drawn, references, filmed = events.arrive("?example=collins&domain=male")
    assert [menu.value for menu in (drawn, references, filmed)] == ["male", "anime", "male"]


def test_large_photos_do_not_wait_for_each_other_for_ever(portrait: Image.Image) -> None:
    """Nor one for itself, whose pixels were counted twice."""
    path = FILES.fresh("large.jpg")
    portrait.resize((6400, 6400)).save(path)  # more than half of what may be under way
    looked: list[tuple] = []
    given = (None, str(path), [1], 0.5, 0.5, 1, False, None)
    threads = [threading.Thread(target=lambda: looked.append(events.look_anew(*given)), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[-1] for found in looked] == [str(path)] * 3


def test_nothing_that_a_session_was_asked_is_noted_in_it() -> None:
    """Of a camera's pictures it would be the last one, for as long as the session is known."""
    page = layout.build()
    function = next(f for f in page.fns.values() if f.api_name == "draw_live")
    state = SessionState(page)
    inputs = [None] * len(function.inputs)
    inputs[3] = "a word that nobody else says"
    asyncio.run(page.process_api(function, inputs, state=state))
    assert "nobody else" not in repr(state.config_values)


def test_sessions_give_up_drawings_of_deleted_photos(tmp_path: Path) -> None:
    with gr.Blocks() as page:
        drawn, header, number = gr.State(), gr.State(()), gr.State(0)
    sessions = StateHolder()
    sessions.set_blocks(page)
    for name in "ab":
        photo = Path(shutil.copy(PORTRAIT, tmp_path / f"{name}.png"))
        prepared = drawing.prepare(drawing.Source.open(photo), config_of(None))
        session = sessions[name]
        session[drawn._id] = drawing.draw(prepared, drawing.seeds(config_of(None), None, 1, 1, 0.7), painter(None))
        session[header._id], session[number._id] = (Image.new("RGB", (64, 64)),), 7
    memory.drop_gone(sessions)
    assert all(sessions[name][drawn._id] for name in "ab")
    (tmp_path / "a.png").unlink()
    memory.drop_gone(sessions)
    assert [sessions[name][drawn._id] is None for name in "ab"] == [True, False]
    assert (sessions["a"][header._id], sessions["a"][number._id], len(sessions["b"][header._id])) == ((), 7, 1)


def test_sessions_give_up_drawings_the_oldest_first() -> None:
    config = config_of(None)
    prepared = drawing.prepare(drawing.Source.open(PORTRAIT), config)
    with gr.Blocks() as page:
        drawn, header, number = gr.State(), gr.State(()), gr.State(0)
    sessions = StateHolder()
    sessions.set_blocks(page)
    for name in "abc":
        session = sessions[name]
        session[drawn._id] = drawing.draw(prepared, drawing.seeds(config, None, 4, 1, 0.7), painter(None))
        session[header._id], session[number._id] = (Image.new("RGB", (64, 64)),), 7
    sessions["a"]  # is looked at again
    one = memory._bytes_in(sessions["a"].state_data.values())
    assert one == 4 * (5 * 128**2 + 64**2)

    memory.drop_oldest(sessions, 3 * one)
    assert all(sessions.session_data[name][drawn._id] for name in "abc")
    memory.drop_oldest(sessions, 2 * one)
    b, c, a = sessions.session_data.values()
    assert (b[drawn._id], b[header._id], b[number._id]) == (None, (), 7)
    assert all(session[drawn._id] and session[header._id] for session in (a, c))
    assert events.choose.__wrapped__("diversity", a[drawn._id], "drawing", events.Chosen(None, {"index": 1}))
    with pytest.raises(Refusal, match="Choose a drawing first"):
        events.choose("diversity", b[drawn._id], "drawing", events.Chosen(None, {"index": 1}))


def cancelled_soon(name: str) -> None:
    """Cancels a piece of work of this thread's page as soon as it runs."""

    def cancel() -> None:
        deadline = time.monotonic() + 60
        while (None, name) not in CANCELLATIONS._running and time.monotonic() < deadline:
            time.sleep(0.001)
        CANCELLATIONS.cancel(name)

    threading.Thread(target=cancel, daemon=True).start()


def test_work_that_is_cancelled_ends_and_other_work_goes_on() -> None:
    steps = []

    @answering
    def slow(ends: int) -> str:
        told = Told("filming")
        for step in range(ends):
            steps.append(step)
            time.sleep(0.01)
            told(step / ends)
        return "done"

    @answering
    def other() -> str:
        with pytest.raises(Refusal, match=r"It was cancelled\."):
            slow(6000)
        return "done"

    cancelled_soon("slow")
    assert other() == "done"
    assert len(steps) < 1000
    assert slow(3) == "done"  # that was of the first alone
    assert CANCELLATIONS._running == {}


def test_work_that_waits_for_memory_is_cancelled() -> None:
    photo = FILES.fresh("photo.png")
    Image.new("RGB", (64, 64)).save(photo)

    @answering
    def waiting(_photo: str) -> None:
        Told("filming")

    said: list[Refusal] = []

    def visit() -> None:
        with pytest.raises(Refusal, match=r"It was cancelled\.") as refused:
            waiting(str(photo))
        said.append(refused.value)

    visitor = threading.Thread(target=visit, daemon=True)
    with memory.ANSWERED.taking(memory.ANSWERED.limit):
        visitor.start()
        assert wait_until(lambda: memory.ANSWERED.waiting > 0, 60)
        CANCELLATIONS.cancel("waiting")
    visitor.join(60)
    assert len(said) == 1


def test_a_film_is_cancelled() -> None:
    """The real one, with the real model."""
    config = config_of(None)
    prepared = drawing.prepare(drawing.Source.open(PORTRAIT), config)
    stops = painter(None)(drawing.Task(prepared.crops, Seeds("anime", (5, 9), 1.0)), drawing.silent).styles
    a, b = (events.Kept(stops.part(at, at + 1), "anime-128") for at in (0, 1))
    cancelled_soon("film")
    with pytest.raises(Refusal, match="cancelled"):
        events.film(None, a, b, "MP4", PORTRAIT, [1], *drawing.MIDDLE, False)


def test_the_dice_do_not_repeat_themselves() -> None:
    """Compiling in the background sets Python's generator back to where it was before."""
    before = random.getstate()
    thrown = [events.new_seed() for _ in range(9)]
    random.setstate(before)
    assert [events.new_seed() for _ in range(9)] != thrown
    assert all(0 <= seed <= events.MAX_NEW_SEED for seed in thrown)


def test_a_page_that_draws_is_ready() -> None:
    """Though what was tried at its start failed."""
    READY.clear()
    config = config_of(None)
    crops = drawing.prepare(drawing.Source.open(PORTRAIT), config).crops
    painter(None)(drawing.Task(crops, Seeds("anime", (5,), 1.0)), drawing.silent)
    assert READY.is_set()


def test_progress_is_sent_to_another_process() -> None:
    told = pickle.loads(pickle.dumps(Told("drawing")))
    assert told.text == "Drawing"
    told(0.5)


def test_what_browsers_do_not_show_is_sent_as_they_do(tmp_path: Path) -> None:
    """Large ones as JPEG: a PNG of 50 megapixels would be refused for its size."""
    noise = Image.effect_noise((2200, 2000), 40).convert("RGB")
    noise.save(large := tmp_path / "large.tif")
    noise.crop((0, 0, 900, 900)).save(small := tmp_path / "small.tif")
    noise.crop((0, 0, 90, 90)).save(plain := tmp_path / "plain.png")
    for file, suffix, most in ((large, ".jpg", large.stat().st_size / 3), (small, ".png", small.stat().st_size)):
        shown, note = events.displayable(str(file), None)
        assert (Path(shown).name, note) == (f"{file.stem}{suffix}", gr.skip())
        assert Path(shown).stat().st_size < most
        with Image.open(file) as before, Image.open(shown) as after:
            assert after.size == before.size
            difference = np.abs(np.asarray(after, int) - np.asarray(before, int))
            assert difference.mean() <= (3 if suffix == ".jpg" else 0)
    assert events.displayable(str(plain), None) == (gr.skip(), gr.skip())
    # and so are references
    added, *_ = events.add_own(events.Added(), None, [], [str(small), str(plain)])
    assert [Path(file).suffix for file in added] == [".png", ".png"]
    assert added[1] == str(plain)


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({"referer": "https://app.host/?seed=1#x", "sec-fetch-site": "same-origin"}, "https://app.host/?seed=2"),
        ({"referer": "https://app.host/?seed=1"}, "https://app.host/?seed=2"),  # a browser that says no more, or http
        ({"referer": "https://blog.example/", "sec-fetch-site": "cross-site"}, "https://app.host/?seed=2"),
        ({}, "https://app.host/?seed=2"),
    ],
)
def test_a_link_is_to_the_app_though_it_is_part_of_another_page(headers: dict[str, str], address: str) -> None:
    request = SimpleNamespace(headers={"host": "app.host", "x-forwarded-proto": "https", **headers})
    token = LocalContext.request.set(request)
    try:
        assert events.link({"seed": 2}) == address
    finally:
        LocalContext.request.reset(token)


def test_what_is_missing_is_said_in_the_sentences_language() -> None:
    error = RequestError("bad_number", name="count", low=1, high=16, value=None)
    assert str(error).endswith("not nothing.")
    assert "空欄" in texts.say(error.key, "ja", **error.values)


def test_what_is_translated_of_gradio_s_own_sentences_it_still_says() -> None:
    scripts = Path(gr.__file__).parent.joinpath("templates", "frontend", "assets").glob("*.js")
    says = "".join(file.read_text(encoding="utf-8") for file in scripts)
    own = subject.JS.partition("const sentences")[2]
    sentences = re.findall(r'\["([^"]+\.)", "', own)
    assert len(sentences) == 3
    assert [sentence for sentence in sentences if sentence not in says] == []


def test_a_public_links_host_is_told_of() -> None:
    def said(**options: bool) -> list[str]:
        blocks = layout.build(**options).blocks.values()
        return [str(block.value) for block in blocks if getattr(block, "elem_id", None) == "privacy-shared"]

    assert (said(), said(shared=True)) == ([], [str(i18n("privacy_shared"))])


@pytest.mark.parametrize(("address", "text"), [("", "privacy"), ("ray://192.0.2.1:10001", "privacy_served")])
def test_the_page_says_where_faces_are_drawn(address: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARGAN_SERVE", address)
    blocks = layout.build().blocks.values()
    (said,) = (block.value for block in blocks if getattr(block, "elem_id", None) == "privacy")
    assert str(said) == str(i18n(text))
