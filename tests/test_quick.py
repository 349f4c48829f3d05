"""Clicks that are faster than the answers, in a real browser, served by the real app: the last one wins, nothing is lost, and
what is highlighted is what is looked at and what is saved."""

# ruff: noqa: F811 - fixtures are imported, and are parameters then

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from playwright.sync_api import Page, expect
from test_browser import (  # noqa: F401
    CHROMIUM,
    DRAWN,
    MIXED,
    UNDER_WAY,
    browser,
    contents,
    eventually,
    filmed,
    open_adjusting,
    pictures,
    press,
    server,
    settle,
    unfold,
    visit,
)
from test_results import TRAY, Visit, alike, seeds, selected

from stargan.pictures.provenance import read_provenance

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
TILES = "#diversity-gallery button.thumbnail-item"
# Milliseconds that an answer takes at least, and between two clicks: fast fingers, on a slow line.
LATENCY, GAP = 200, 60


def slow_line(page: Page) -> None:
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    anything = {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
    client.send("Network.emulateNetworkConditions", {"latency": LATENCY, **anything})


def clicks(page: Page, *targets: tuple[str, int]) -> None:
    """Clicks on elements, each named by its selector and its place among those found, without waiting for any answer."""
    page.evaluate(
        """async ([targets, gap]) => {
            for (const [selector, index] of targets) {
                document.querySelectorAll(selector)[index].click();
                await new Promise((done) => setTimeout(done, gap));
            }
        }""",
        [targets, GAP],
    )


def come_to_rest(page: Page) -> None:
    """Waits until whatever was under way is done; not all of it is shown, and one thing may start another."""
    for _ in range(2):
        page.wait_for_timeout(2 * LATENCY)
        eventually(page, lambda: not UNDER_WAY[page], 60)
        settle(page)


def agrees(page: Page, index: int) -> None:
    """What is highlighted, shown large, saved and kept is the drawing of that number."""
    assert selected(page) == [index]
    assert alike(page, index)
    seed = seeds(page)[index]
    with page.expect_download() as download:
        page.click("#diversity-save")
    assert read_provenance(download.value.path())["seed"] == seed
    page.click("#diversity-keep")
    expect(page.locator("#tray .caption-label").last).to_have_text(f"seed {seed}")


@pytest.mark.parametrize("tiles", [(1, 6), (6, 1), (3, 6, 3), (5, 5)])
def test_the_last_drawing_that_is_clicked_wins(visit: Visit, tiles: Sequence[int]) -> None:
    page = visit("?count=8&seed=5&example=collins")
    slow_line(page)
    clicks(page, *((TILES, tile) for tile in tiles))
    come_to_rest(page)
    agrees(page, tiles[-1])


def test_new_drawings_at_once_after_a_choice_and_a_choice_at_once_after_new_drawings(visit: Visit) -> None:
    page = visit("?count=8&seed=5&example=collins")
    slow_line(page)
    before = contents(page, DRAWN)
    clicks(page, (TILES, 6), ("#dice", 0))
    expect(page.locator(DRAWN).first).not_to_have_attribute("src", "")
    come_to_rest(page)
    after = contents(page, DRAWN)
    assert not {*before} & {*after}
    (index,) = selected(page)
    agrees(page, index)
    clicks(page, ("#dice", 0), (TILES, 6))
    come_to_rest(page)
    assert not {*after} & {*contents(page, DRAWN)}
    (index,) = selected(page)
    agrees(page, index)


@pytest.mark.parametrize("photos", [(3, 1), (2, 4, 2)])
def test_the_last_photo_that_is_clicked_wins(visit: Visit, photos: Sequence[int]) -> None:
    page = visit("?count=2&seed=5&example=collins")
    slow_line(page)
    button = "#photo-examples button.gallery-item"
    clicks(page, *((button, photo) for photo in photos))
    come_to_rest(page)
    name = page.locator(button).nth(photos[-1]).get_attribute("aria-label")
    expect(page.locator("#photo img")).to_have_attribute("src", re.compile(name))
    unfold(page, "#diversity-all")
    assert f"example={name}" in page.locator("#link textarea, #link input").input_value()
    alone = visit(f"?count=2&seed=5&example={name}")
    assert contents(page, DRAWN) == contents(alone, DRAWN)
    assert contents(page, "#crop img") == contents(alone, "#crop img")
    agrees(page, 0)


def test_no_reference_that_is_clicked_is_lost(visit: Visit) -> None:
    page = visit("?count=1&example=collins")
    page.get_by_role("tab", name="From a picture").click()
    expect(page.locator(MIXED)).to_have_count(1)
    settle(page)
    slow_line(page)
    button = "#reference-examples button.gallery-item"
    clicks(page, (button, 1), (button, 2), (button, 3))
    expect(page.locator(MIXED)).to_have_count(5)  # and their blend
    expect(page.locator("#references .thumbnail-item")).to_have_count(4)
    come_to_rest(page)
    drawn = contents(page, MIXED)
    assert len({*drawn}) == 5
    page.locator("#references .delete-button").last.click()  # nor does one come back that was taken away
    expect(page.locator(MIXED)).to_have_count(4)
    settle(page)
    clicks(page, (button, 3))
    expect(page.locator(MIXED)).to_have_count(5)
    settle(page)
    assert contents(page, MIXED) == drawn


def test_the_last_reference_that_is_clicked_is_adjusted(visit: Visit) -> None:
    page = visit("?count=1&example=collins")
    open_adjusting(page)
    crops, labels = "#reference-crops button.thumbnail-item", "#which-reference input"

    def adjusted() -> tuple[list[str], list[int], list[int], bytes]:
        """The square, which reference is named and highlighted, and it as a whole."""
        chosen = [n for n, label in enumerate(page.locator(labels).all()) if label.is_checked()]
        marked = [n for n, crop in enumerate(page.locator(crops).all()) if "selected" in crop.get_attribute("class")]
        square = [number.input_value() for number in page.locator("#reference-square input").all()]
        return square, chosen, marked, contents(page, "#reference-whole img")[0]

    clicks(page, (labels, 1))
    come_to_rest(page)
    page.locator("#reference-whole .square").focus()
    for _ in range(10):
        page.keyboard.press("-")
    come_to_rest(page)
    each = {}
    for index in (0, 1):
        clicks(page, (labels, index))
        come_to_rest(page)
        each[index] = adjusted()
        assert each[index][1:3] == ([index], [index])
    assert each[0] != each[1]
    slow_line(page)
    for button in (crops, labels):
        for order in ((0, 1), (1, 0), (0, 1, 0)):
            clicks(page, *((button, index) for index in order))
            come_to_rest(page)
            eventually(page, lambda order=order: adjusted() == each[order[-1]])
            page.wait_for_timeout(5 * LATENCY)
            assert adjusted() == each[order[-1]], (button, order)  # and so it stays


def test_a_refresh_in_the_middle_begins_anew_and_keeps_the_favourites(visit: Visit) -> None:
    page = visit("?count=8&seed=5&example=collins")
    press(page, "#diversity-keep")
    expect(page.locator(TRAY)).to_have_count(1)
    slow_line(page)
    clicks(page, (TILES, 6), ("#dice", 0))
    page.reload()
    page.wait_for_selector(DRAWN)
    expect(page.locator(TRAY)).to_have_count(1)
    settle(page)
    assert seeds(page) == [str(seed) for seed in range(5, 13)]
    agrees(page, 0)
