"""How the page looks at three widths, as far as it can be measured: sizes, places and contrasts are judged by eye."""

# ruff: noqa: F811 - fixtures are imported, and are parameters then

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from test_browser import (  # noqa: F401
    CHROMIUM,
    TABS,
    browser,
    choose_photo,
    filmed,
    pictures,
    press,
    server,
    settle,
    show_morph,
    visit,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

# What is wrong with what is shown, a sentence each.
FAULTS = """(fingers) => {
  const faults = new Set(), wide = document.documentElement.clientWidth;
  const seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const place = (element) => element.getBoundingClientRect();
  if (document.documentElement.scrollWidth > wide) faults.add("the page scrolls sideways");
  const targets = "button, a.download-link, [role=tab], input:is([type=range], [type=number]), "
    + "label:has(> input:is([type=radio], [type=checkbox]))";
  if (fingers) for (const target of document.querySelectorAll(targets)) {
    const { width, height } = place(target);
    if (seen(target) && width && Math.min(width, height) < 43.5)
      faults.add(`${Math.round(width)} × ${Math.round(height)}: ${target.ariaLabel || target.innerText || target.type}`);
  }
  const texts = document.createTreeWalker(document.querySelector(".gradio-container"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, said = text.nodeValue.trim(), parent = text.parentElement;
    if (!said || !seen(parent) || parent.closest("style, script, .sr-only, .visually-hidden, .hide, .in-a-row")) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    const box = range.getBoundingClientRect();
    const lines = new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size;
    if (lines > 1 && said.length / lines <= 4) faults.add(`${lines} lines: ${said}`);
    if (box.left < -1 || box.right > wide + 1) faults.add(`beside the page: ${said}`);
    for (let outer = parent; outer !== document.body; outer = outer.parentElement) {
      if (getComputedStyle(outer).overflowX === "visible") continue;
      const { left, right, top, bottom } = place(outer);
      if (box.left < left - 1.5 || box.right > right + 1.5 || box.top < top - 2 || box.bottom > bottom + 2)
        faults.add(`cut off: ${said}`);
    }
  }
  return [...faults];
}"""


@pytest.mark.parametrize(("width", "locale"), [(390, "en-US"), (390, "ja-JP"), (768, "en-US"), (1280, "ja-JP")])
def test_nothing_is_cut_off_or_too_small_for_a_finger(visit: Callable[..., Page], width: int, locale: str) -> None:
    page = visit("?count=3&seed=9998&example=collins", locale=locale, width=width, phone=width < 1024)
    show_morph(page)
    press(page, "#diversity-more-like")
    for tab, accordions in TABS[locale].items():
        page.get_by_role("tab", name=tab).click()  # none of them in a menu
        if "#adjust" in accordions:
            expect(page.locator("#mixing-save")).to_be_enabled()
        for accordion in accordions:
            page.locator(f"{accordion} button").first.click()
        page.wait_for_timeout(300)
        settle(page)
        assert page.evaluate(FAULTS, width < 1024) == [], tab


def test_several_faces_fit_too(visit: Callable[..., Page], pictures: Path) -> None:
    page = visit("?count=2&seed=9998&example=collins", width=768, phone=True)
    choose_photo(page, pictures / "four.jpg")
    page.locator("#chosen input").nth(2).check()
    expect(page.locator("#diversity-gallery button.thumbnail-item")).to_have_count(4)
    settle(page)
    assert page.evaluate(FAULTS, True) == []
    expect(page.locator("#numbered img")).to_have_attribute("alt", "The photo with a numbered frame around each face")
