"""What is done with drawings, in a real browser, served by the real app."""

# ruff: noqa: F811 - fixtures are imported, and are parameters then

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from serving import Server, start, untrained_model
from test_browser import (  # noqa: F401
    CHROMIUM,
    DRAWN,
    browser,
    choose_photo,
    contents,
    filmed,
    keep,
    pictures,
    press,
    server,
    settle,
    visit,
)

from stargan.pictures.provenance import read_provenance

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
Visit = Callable[..., Page]

TRAY = "#tray button.thumbnail-item"


def choose(page: Page, index: int) -> None:
    """Looks at one of the drawings."""
    shown = page.locator("#diversity-large img").get_attribute("src")
    page.locator(DRAWN).nth(index).click()
    expect(page.locator("#diversity-large img")).not_to_have_attribute("src", shown)
    settle(page)


def seeds(page: Page) -> list[str]:
    return [read_provenance(io.BytesIO(drawing))["seed"] for drawing in contents(page, DRAWN)]


def selected(page: Page) -> list[int]:
    """Which drawings are highlighted."""
    marks = page.locator("#diversity-gallery button.thumbnail-item").all()
    return [index for index, mark in enumerate(marks) if "selected" in mark.get_attribute("class")]


# Favourites


def test_favourites_survive_new_drawings_another_photo_and_a_refresh(visit: Visit, pictures: Path) -> None:
    page = visit("?count=4&seed=5&example=collins")
    expect(page.locator("#favourites")).not_to_be_visible()
    for number, index in enumerate((2, 1), 1):
        choose(page, index)
        keep(page)
        expect(page.locator(TRAY)).to_have_count(number)
    expect(page.locator("#tray .caption-label")).to_have_text(["seed 7", "seed 6"])
    before = contents(page, DRAWN)[2]
    press(page, "#dice")
    choose_photo(page, pictures / "four.jpg")
    expect(page.locator(TRAY)).to_have_count(2)
    page.reload()
    page.wait_for_selector(f"{TRAY} img")
    settle(page)
    expect(page.locator("#tray .caption-label")).to_have_text(["seed 7", "seed 6"])
    # the same photo in the first one's style is the same drawing, whatever the seed on the page is by now
    page.locator(TRAY).nth(0).click()
    expect(page.locator(DRAWN)).to_have_count(1)
    settle(page)
    assert contents(page, DRAWN)[0] == before
    # and another photo is drawn in it
    page.locator("#photo-examples button").nth(1).click()
    expect(page.locator(DRAWN)).to_have_count(4)
    settle(page)
    page.get_by_role("tab", name="From a picture").click()
    page.locator(TRAY).nth(1).click()
    expect(page.locator(DRAWN)).to_have_count(1)
    expect(page.locator(DRAWN)).to_be_visible()
    settle(page)
    (drawing,) = contents(page, DRAWN)
    assert drawing != before
    assert read_provenance(io.BytesIO(drawing))["seed"] == "6"


def test_favourites_are_deleted_one_by_one_and_all(visit: Visit) -> None:
    page = visit("?count=4&seed=5&example=collins")
    for index in (1, 2, 3):
        choose(page, index)
        keep(page)
    page.locator(TRAY).nth(1).click()
    settle(page)
    press(page, "#remove")
    expect(page.locator("#tray .caption-label")).to_have_text(["seed 6", "seed 8"])
    press(page, "#remove-all")
    expect(page.locator("#favourites")).not_to_be_visible()
    page.reload()
    page.wait_for_selector(DRAWN)
    settle(page)
    expect(page.locator("#favourites")).not_to_be_visible()


def test_a_thirteenth_favourite_is_refused_and_none_is_lost(visit: Visit) -> None:
    page = visit("?count=13&seed=5&example=collins")
    for index in range(12):
        if index:
            choose(page, index)
        page.click("#diversity-keep")
        expect(page.locator(TRAY)).to_have_count(index + 1)
    page.click("#diversity-keep")  # the same once more
    expect(page.get_by_test_id("toast-text")).to_have_text("This style is among your favourites already.")
    expect(page.locator(TRAY)).to_have_count(12)
    choose(page, 12)
    page.click("#diversity-keep")
    expect(page.get_by_test_id("toast-text").last).to_have_text("There is room for 12 favourites: remove one first.")
    page.reload()
    page.wait_for_selector(f"{TRAY} img")
    expect(page.locator(TRAY)).to_have_count(12)


def test_another_server_reads_them_and_drops_what_it_cannot(visit: Visit, server: Server, browser: Browser) -> None:
    """As the same one does when it was restarted."""
    page = visit("?count=2&seed=5&example=collins")
    keep(page)
    page.goto(f"{server.url}?count=2&seed=7&example=collins&model={untrained_model()}")
    page.wait_for_selector(f"{TRAY} img")
    expect(page.locator("#model input")).to_have_value("untrained")
    page.wait_for_selector(DRAWN)
    settle(page)
    page.click("#diversity-keep")
    expect(page.locator("#tray .caption-label")).to_have_text(["seed 5", "seed 7"])
    key, kept = page.evaluate("Object.entries(localStorage).find(([key]) => key.includes('favourites'))")
    other = start()  # without that model
    try:
        context = browser.new_context(locale="en-US")
        second = context.new_page()
        second.goto(other.url + "healthz")
        second.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, kept])
        second.goto(other.url + "?count=2&example=collins")
        expect(second.locator("#tray .caption-label")).to_have_text(["seed 5"])
        expect(second.get_by_test_id("toast-text")).to_have_text(
            "Favourites that cannot be used here were left out: 1."
        )
        second.reload()
        expect(second.locator("#tray .caption-label")).to_have_text(["seed 5"])
        second.wait_for_selector(DRAWN)
        settle(second)
        expect(second.get_by_test_id("toast-text")).to_have_count(0)
        context.close()
    finally:
        other.stop()
