"""The page without a browser: what its components do with what is sent to them."""

from __future__ import annotations

import asyncio

from gradio.state_holder import SessionState

from stargan.page import layout


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
