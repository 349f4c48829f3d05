"""The page without a browser: what its components do with what is sent to them."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time

import pytest
from gradio.state_holder import SessionState
from PIL import Image

from stargan import drawing
from stargan.drawing import Seeds
from stargan.page import events, layout
from stargan.page.answers import CANCELLATIONS, Refusal, Told, answering
from stargan.page.files import FILES
from stargan.page.models import config_of, painter

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


def test_a_film_is_cancelled() -> None:
    """The real one, with the real model."""
    config = config_of(None)
    prepared = drawing.prepare(drawing.Source.open(PORTRAIT), config)
    stops = painter(None)(drawing.Task(prepared.crops, Seeds("anime", (5, 9), 1.0)), drawing.silent).styles
    a, b = stops.part(0, 1), stops.part(1, 2)
    cancelled_soon("film")
    with pytest.raises(Refusal, match="cancelled"):
        events.film(None, a, b, "MP4", PORTRAIT, [1], *drawing.MIDDLE, False)


def test_progress_is_sent_to_another_process() -> None:
    told = pickle.loads(pickle.dumps(Told("drawing")))
    assert told.text == "Drawing"
    told(0.5)
