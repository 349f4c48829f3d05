"""What is done with drawings, in a real browser, served by the real app."""

# ruff: noqa: F811 - fixtures are imported, and are parameters then

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import wait_until
from PIL import Image, ImageChops, ImageStat
from playwright.sync_api import Browser, Page, Route, expect
from serving import Server, start, untrained_model
from test_browser import (  # noqa: F401
    CHROMIUM,
    DRAWN,
    MIXED,
    browser,
    choose_photo,
    contents,
    filmed,
    keep,
    look_in_photo,
    pictures,
    press,
    server,
    settle,
    show_morph,
    unfold,
    violations,
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


def test_the_highlighted_favourite_is_removed_though_it_could_not_be_drawn(visit: Visit) -> None:
    page = visit("?count=4&seed=5&example=collins")
    for index in (1, 2, 3):
        choose(page, index)
        keep(page)
    page.get_by_label("Remove Image").first.click()
    settle(page)
    page.locator(TRAY).nth(0).click()
    expect(page.get_by_test_id("toast-text").last).to_contain_text("Choose a photo first")
    settle(page)
    press(page, "#use-a")
    assert contents(page, "#style-a img") == contents(page, f"{TRAY} img")[:1]
    press(page, "#remove")
    expect(page.locator("#tray .caption-label")).to_have_text(["seed 7", "seed 8"])


def test_the_picked_favourite_is_used_on_another_photo(visit: Visit) -> None:
    page = visit("?count=3&seed=5&example=collins")
    choose(page, 1)
    keep(page)
    page.locator("#photo-examples button").nth(1).click()
    expect(page.locator("#photo img")).to_have_attribute("src", re.compile("female-2"))
    settle(page)
    expect(page.locator(DRAWN)).to_have_count(3)
    press(page, "#use")
    expect(page.locator(DRAWN)).to_have_count(1)
    assert seeds(page) == ["6"]
    press(page, "#diversity-back")
    expect(page.locator(DRAWN)).to_have_count(3)


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
            "Favourites that cannot be used here are not shown: 1."
        )
        second.reload()
        expect(second.locator("#tray .caption-label")).to_have_text(["seed 5"])
        second.wait_for_selector(DRAWN)
        settle(second)
        expect(second.get_by_test_id("toast-text")).to_have_count(0)
        context.close()
    finally:
        other.stop()


# Saving


def test_what_was_chosen_before_is_not_saved_in_the_place_of_what_is(visit: Visit) -> None:
    page = visit("?count=4&seed=5&example=collins")
    save = page.locator("#diversity-save")
    held: list[Route] = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.locator(DRAWN).nth(2).click()
    wait_until(lambda: page.wait_for_timeout(50) or held, 20)
    expect(save).to_be_disabled()
    held[0].continue_()
    page.unroute("**/queue/join*")
    expect(save).to_be_enabled()
    settle(page)
    with page.expect_download() as download:
        save.click()
    assert download.value.suggested_filename == "anime-seed-7.png"


# More like this


def test_more_like_this_and_back(visit: Visit) -> None:
    page = visit("?count=4&seed=5&example=collins")
    before = contents(page, DRAWN)
    choose(page, 2)
    expect(page.locator("#diversity-back")).not_to_be_visible()
    press(page, "#diversity-more-like")
    expect(page.locator(DRAWN)).to_have_count(8)
    near = contents(page, DRAWN)
    assert len({*near, *before}) == 12
    assert distance(near[0], before[2]) < distance(before[0], before[2])
    assert selected(page) == [0]
    # they are drawings as the others are: looked at, kept, drawn in black and white, and near others
    choose(page, 3)
    keep(page)
    expect(page.locator("#tray .caption-label")).to_have_text(["similar 4"])
    unfold(page, "#diversity-all")
    assert page.locator("#link textarea, #link input").input_value() == ""  # of no seed
    unfold(page, "#more")
    page.get_by_label("Black and white").check()
    settle(page)
    expect(page.locator("#diversity-gallery .caption-label").first).to_have_text("similar 1")
    assert all(map(gray, contents(page, DRAWN)))
    page.get_by_label("Black and white").uncheck()
    settle(page)
    assert contents(page, DRAWN) == near
    press(page, "#diversity-more-like")
    assert not {*contents(page, DRAWN)} & {*near}
    press(page, "#diversity-back")
    expect(page.locator(DRAWN)).to_have_count(4)
    expect(page.locator("#diversity-back")).not_to_be_visible()
    assert contents(page, DRAWN) == before
    assert selected(page) == [2]
    with page.expect_download() as download:
        page.click("#diversity-save")
    assert read_provenance(download.value.path())["seed"] == "7"


def test_more_like_a_reference_and_back(visit: Visit) -> None:
    page = visit("?count=1&example=collins")
    page.get_by_role("tab", name="From a picture").click()
    page.locator("#reference-examples button").first.click()
    expect(page.locator(MIXED).first).to_be_visible()
    settle(page)
    before = contents(page, MIXED)
    press(page, "#mixing-more-like")
    expect(page.locator(MIXED)).to_have_count(8)
    settle(page)
    press(page, "#mixing-back")
    expect(page.locator(MIXED)).to_have_count(len(before))
    assert contents(page, MIXED) == before


def test_the_highlight_is_of_what_is_looked_at(visit: Visit) -> None:
    page = visit("?count=8&seed=5&example=collins")
    assert selected(page) == [0]
    choose(page, 5)
    assert selected(page) == [5]
    press(page, "#dice")
    assert selected(page) == [0]
    assert alike(page, 0)
    choose(page, 6)
    page.reload()
    page.wait_for_selector(DRAWN)
    settle(page)
    assert selected(page) == [0]
    assert alike(page, 0)


def alike(page: Page, index: int) -> bool:
    """Whether the large drawing is that one."""
    (large,), tiles = contents(page, "#diversity-large img"), contents(page, DRAWN)
    return min(range(len(tiles)), key=lambda n: distance(tiles[n], large)) == index


def gray(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as picture:
        red, green, blue = (band.tobytes() for band in picture.convert("RGB").split())
    return red == green == blue


def distance(a: bytes, b: bytes) -> float:
    first, second = (Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64)) for data in (a, b))
    return sum(ImageStat.Stat(ImageChops.difference(first, second)).rms)


# Sharing


def card(data: bytes) -> dict[str, str]:
    """What a card says of itself; it is one, and shows something."""
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (1080, 1080)
        assert min(ImageStat.Stat(picture.convert("RGB")).stddev) > 20
    return read_provenance(io.BytesIO(data))


def test_a_card_is_saved_where_the_browser_shares_no_files(visit: Visit) -> None:
    page = visit("?count=2&seed=5&example=collins")
    assert page.evaluate("!navigator.canShare")  # of this browser's own accord
    choose(page, 1)
    with page.expect_download() as download:
        page.click("#diversity-share")
    assert download.value.suggested_filename == "card-anime-seed-6.png"
    facts = card(Path(download.value.path()).read_bytes())
    assert facts["seed"] == "6"
    assert "composite" in facts["DigitalSourceType"]


# How a phone's browser would.
SHARES = """
window.shared = [];
navigator.canShare = ({ files }) => files.every((file) => file.type === "image/png");
navigator.share = async ({ files }) => {
  const bytes = new Uint8Array(await files[0].arrayBuffer());
  window.shared.push([files[0].name, btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ""))]);
  if (window.says) throw new DOMException("", window.says);
};
"""


def test_a_card_is_handed_to_the_browser_that_shares_files(visit: Visit) -> None:
    page = visit("?count=2&seed=5&example=collins")
    page.evaluate(f"() => {{{SHARES}}}")
    downloads = []
    page.on("download", lambda download: downloads.append(download))
    press(page, "#diversity-share")
    page.wait_for_function("window.shared.length === 1")
    name, data = page.evaluate("window.shared[0]")
    assert name == "card-anime-seed-5.png"
    assert card(base64.b64decode(data))["seed"] == "5"
    page.evaluate("window.says = 'AbortError'")  # the visitor closes the menu
    press(page, "#diversity-share")
    page.wait_for_function("window.shared.length === 2")
    page.wait_for_timeout(500)
    assert downloads == []
    page.evaluate("window.says = 'NotAllowedError'")  # the browser refuses: the card is not lost
    with page.expect_download() as download:
        page.click("#diversity-share")
    assert card(Path(download.value.path()).read_bytes())["seed"] == "5"


# Before and after


def test_the_slider_works_by_keyboard(visit: Visit) -> None:
    page = visit("?count=2&seed=5&example=collins")
    page.locator("#diversity-view label").nth(1).click()
    slider = page.get_by_role("slider", name="Divider between before and after")
    expect(slider).to_be_visible()
    settle(page)
    expect(slider).to_have_attribute("aria-valuenow", "30")
    page.locator("#diversity-view input").nth(1).focus()
    page.keyboard.press("Tab")
    while not slider.evaluate("element => element === document.activeElement"):  # past the buttons of the picture
        page.keyboard.press("Tab")
    assert slider.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    for key, now in (
        ("ArrowRight", 35),
        ("ArrowLeft", 30),
        ("PageUp", 55),
        ("Home", 0),
        ("ArrowLeft", 0),
        ("End", 100),
    ):
        page.keyboard.press(key)
        expect(slider).to_have_attribute("aria-valuenow", str(now))
        part = slider.evaluate("""(handle) => {
            const image = handle.parentElement.querySelector("img").getBoundingClientRect();
            const box = handle.getBoundingClientRect();
            const side = Math.min(image.width, image.height);  // of the square photo, in the middle
            return (box.left + box.width / 2 - image.left - (image.width - side) / 2) / side;
        }""")  # the handle is there, too, and not only said to be
        assert part == pytest.approx(now / 100, abs=0.02)
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] - 150, box["y"] + 40)
    page.mouse.up()
    now = int(slider.get_attribute("aria-valuenow"))
    assert 20 < now < 90
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuenow", str(now + 5))
    assert violations(page) == []


# On a phone


def test_new_drawings_and_save_stay_in_sight_on_a_phone(visit: Visit) -> None:
    page = visit("?count=8&seed=5&example=collins", width=390)
    bar = [page.locator(button) for button in ("#dice", "#diversity-save")]
    for bottom in (False, True):
        page.evaluate(f"window.scrollTo(0, {1e6 if bottom else 0})")
        for button in bar:
            box = button.bounding_box()
            assert box["height"] >= 44
            assert 0 <= box["x"] < box["x"] + box["width"] <= 390
            assert 844 < box["y"] + box["height"] <= 900
            shown = button.evaluate("""(button) => {
                const { left, top, width, height } = button.getBoundingClientRect();
                return button.contains(document.elementFromPoint(left + width / 2, top + height / 2));
            }""")
            assert shown
    top = min(button.bounding_box()["y"] for button in bar)
    last = page.locator("footer").bounding_box()
    assert last["y"] + last["height"] <= top  # the end of the page can be read
    first = contents(page, DRAWN)
    press(page, "#dice")
    assert contents(page, DRAWN) != first
    with page.expect_download() as download:
        page.click("#diversity-save")
    assert read_provenance(download.value.path())["seed"] == seeds(page)[0]
    page.get_by_role("tab", name="Video & camera").click()
    for button in bar:
        expect(button).not_to_be_visible()


def test_one_drawing_is_no_larger_than_eight(visit: Visit) -> None:
    eight, one = (visit(f"?count={count}&seed=5&example=collins") for count in (8, 1))
    sizes = [page.locator(DRAWN).first.bounding_box()["width"] for page in (eight, one)]
    assert sizes[0] == pytest.approx(sizes[1], abs=1)
    assert 140 < sizes[0] < 170
    assert eight.locator("#diversity-large img").bounding_box()["width"] == pytest.approx(384, abs=3)
    tile = eight.locator("#diversity-gallery button.thumbnail-item")
    look = "element => getComputedStyle(element).borderColor + getComputedStyle(element).boxShadow"
    plain, selected = tile.nth(4).evaluate(look), tile.nth(0).evaluate(look)
    tile.nth(3).hover()
    eight.wait_for_timeout(400)  # of gradio's transition
    assert len({plain, selected, tile.nth(3).evaluate(look)}) == 3


def test_what_is_done_at_once_after_a_click_is_done_with_what_was_clicked(visit: Visit, pictures: Path) -> None:
    page = visit("?count=8&seed=5&example=collins")
    choose_photo(page, pictures / "phone.jpg")  # in which a click takes its time
    look_in_photo(page)

    def clicks(tile: int, button: str) -> None:  # as fast as hands could
        page.locator("#diversity-gallery button.thumbnail-item").nth(tile).click(no_wait_after=True)
        page.click(button, no_wait_after=True)

    clicks(6, "#diversity-keep")
    expect(page.locator("#tray .caption-label")).to_have_text(["seed 11"])
    settle(page)
    with page.expect_download() as download:
        clicks(3, "#diversity-share")
    assert read_provenance(download.value.path())["seed"] == "8"
    settle(page)
    clicks(5, "#diversity-more-like")
    expect(page.locator("#diversity-back")).to_be_visible()
    settle(page)
    press(page, "#diversity-back")
    expect(page.locator("#diversity-back")).not_to_be_visible()
    assert selected(page) == [5]
