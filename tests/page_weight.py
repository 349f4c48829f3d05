"""How heavy the page is, and how long it takes until it can be used; run by hand:

    .venv/bin/python tests/page_weight.py [--url http://127.0.0.1:7860/] [--files 15]

Without a URL it starts the app itself, and opens the page once before it measures: the server is warm. Each visit has an empty
cache. "usable" is when the photo's buttons are there, "drawn" when the first drawing is on the screen. Then, with a phone's photo
of 12 megapixels: from the upload until its eight drawings are on the screen, and from a click until the photo is there before and
after; each a median of seven.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageEnhance
from playwright.sync_api import Browser, Page, sync_playwright
from serving import start

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Name → bits a second and latency in ms; None: as it comes. 1.6 Mbit/s and 150 ms are Lighthouse's slow 4G.
NETWORKS = {"unthrottled": None, "1.6 Mbit/s, 150 ms": (1_600_000, 150)}
DRAWING = "#diversity-gallery button.thumbnail-item img"
PORTRAIT = Path(__file__).parents[1] / "examples" / "photos" / "collins.png"
TURNS = 7


@dataclass
class Visit:
    usable: float = 0.0
    drawn: float = 0.0
    sizes: Counter[str] = field(default_factory=Counter)  # bytes as transferred, by URL
    kinds: Counter[str] = field(default_factory=Counter)
    at_drawn: tuple[int, int] = (0, 0)  # requests and bytes until then


def visit(browser: Browser, url: str, network: tuple[int, int] | None) -> Visit:
    found, kinds, urls = Visit(), {}, {}
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    if network:
        rate, latency = network
        throughput = {"downloadThroughput": rate / 8, "uploadThroughput": rate / 16}
        client.send("Network.emulateNetworkConditions", {"offline": False, "latency": latency, **throughput})

    def answered(event: dict) -> None:
        urls[event["requestId"]] = event["response"]["url"]
        kinds[event["requestId"]] = event["type"]

    def finished(event: dict) -> None:
        key = event["requestId"]
        found.sizes[urls.get(key, key)] += int(event["encodedDataLength"])
        found.kinds[kinds.get(key, "?")] += int(event["encodedDataLength"])

    client.on("Network.responseReceived", answered)
    client.on("Network.loadingFinished", finished)
    page.goto(url, wait_until="commit")
    now = "performance.now() / 1000"
    page.wait_for_function("document.querySelector('#upload-photo')?.offsetParent", polling=30, timeout=120_000)
    found.usable = page.evaluate(now)
    page.wait_for_function(
        f"(() => {{ const i = document.querySelector('{DRAWING}'); return i?.complete && i.naturalWidth > 0 }})()",
        polling=30,
        timeout=120_000,
    )
    found.drawn = page.evaluate(now)
    found.at_drawn = len(found.sizes), sum(found.sizes.values())
    finished_so_far = -1
    while finished_so_far != len(found.sizes):  # until nothing came for two seconds: one connection always stays open
        finished_so_far = len(found.sizes)
        page.wait_for_timeout(2000)
    context.close()
    return found


def until_new(page: Page, selector: str, count: int, act: Callable[[], object]) -> float:
    """Seconds until there are ``count`` pictures that were not there before, all of them on the screen."""
    images = f"[...document.querySelectorAll('{selector}')]"
    before = page.evaluate(f"{images}.map((i) => i.src)")
    begin = time.monotonic()
    act()
    page.wait_for_function(
        f"""([before, count]) => {{
            const now = {images}.filter((i) => i.complete && i.naturalWidth && !before.includes(i.src));
            return now.length >= count;
        }}""",
        arg=[before, count],
        polling=20,
    )
    return time.monotonic() - begin


def phone_photo(browser: Browser, url: str) -> None:
    page = browser.new_page(locale="en-US", viewport={"width": 1280, "height": 900})
    page.goto(url)
    page.wait_for_selector(DRAWING)
    portrait = Image.open(PORTRAIT).convert("RGB").resize((3464, 3464), Image.Resampling.BICUBIC)
    uploads, clicks = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(TURNS):
            photo = Path(folder) / f"{turn}.jpg"  # another each time: nothing of it is remembered
            ImageEnhance.Brightness(portrait).enhance(0.9 + 0.02 * turn).save(photo, quality=92)
            page.wait_for_timeout(1500)
            given = page.locator("#photo input[type=file]")
            uploads.append(until_new(page, DRAWING, 8, lambda given=given, photo=photo: given.set_input_files(photo)))
            page.wait_for_timeout(1500)
            compare = "#diversity-compare img"
            clicks.append(until_new(page, compare, 2, lambda: page.locator("#diversity-view label").nth(1).click()))
            page.wait_for_timeout(500)
            page.locator("#diversity-view label").nth(0).click()
    page.close()
    for what, seconds in (("upload to eight drawings", uploads), ("click to before and after", clicks)):
        print(f"12 megapixels, {what}: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--files", type=int, default=0, help="how many of the largest files to list")
    options = parser.parse_args()
    url = options.url or start().url
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        visit(browser, url, None)
        print(f"{'':20} {'usable':>8} {'drawn':>8} {'requests':>9} {'MB':>6}   until drawn: requests, MB")
        for name, network in NETWORKS.items():
            found = visit(browser, url, network)
            total = sum(found.sizes.values()) / 1e6
            count, size = found.at_drawn
            print(
                f"{name:20} {found.usable:7.1f}s {found.drawn:7.1f}s {len(found.sizes):9} {total:6.2f}   {count}, {size / 1e6:.2f}"
            )
        print(", ".join(f"{kind} {size / 1e3:.0f} kB" for kind, size in found.kinds.most_common()))
        for name, size in found.sizes.most_common(options.files):
            print(f"{size / 1e3:9.1f} kB  {name.removeprefix(url)[:110]}")
        phone_photo(browser, url)
        browser.close()


if __name__ == "__main__":
    main()
