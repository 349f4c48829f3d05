"""Work that takes long: it waits its turn in a queue of its own, shows its place there, and can be cancelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from stargan.page.answers import AT_ONCE, CANCELLATIONS, PRIVATE, i18n

# Two at a time of all kinds together: those who draw single pictures do not wait for them.
LONG: dict[str, Any] = PRIVATE | {"concurrency_limit": 2, "concurrency_id": "long"}


def long_work(button: gr.Button, handler: Callable, inputs: Any, outputs: Any, **options: Any) -> Any:
    """A click on ``button`` starts ``handler``; while it waits or runs, a button to cancel it is here.

    What it was to replace stays when it is cancelled. The handler must report its progress by
    :class:`stargan.page.answers.Told`, which is where it ends.

    Args:
        options: as those of ``button.click``.

    Returns:
        The event, to add others behind it.
    """
    cancel = gr.Button(i18n("cancel"), elem_id=f"{button.elem_id}-cancel", elem_classes="cancel")
    shown = "() => document.querySelector('#{}').classList.{}('running')"
    show, hide = (shown.format(cancel.elem_id, change) for change in ("add", "remove"))
    button.click(None, None, None, js=show, **AT_ONCE)
    started = button.click(handler, inputs, outputs, **options, **LONG)
    started.then(None, None, None, js=hide, **AT_ONCE)
    cancel.click(None, None, None, js=hide, **AT_ONCE)
    # gradio takes it out of the queue, but lets go on what runs
    cancel.click(lambda: CANCELLATIONS.cancel(handler.__name__), None, None, cancels=[started], **AT_ONCE)
    return started


CSS = """
.cancel:not(.running) { display: none; }
.cancel { min-height: 44px; }
/* what went wrong is said in a sentence; what was there before stays to be seen */
[data-testid="status-tracker"]:has(> .error) { display: none; }
"""
