"""Before and after as one picture, and how a browser hands it on."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont

from stargan.drawing import Drawn
from stargan.errors import RequestError
from stargan.page import texts
from stargan.page.answers import answering
from stargan.page.events import saved

# Side of the card, px, as feeds show it; the margin and the gap around its two pictures; the side of the smaller one.
SIDE, MARGIN, BEFORE = 1080, 60, 300
PAPER, INK, ACCENT = "#f5f5f4", "#292524", "#4338ca"

# JavaScript: hands the file on where the browser does that with files, and saves it where it does not. Whoever changes
# their mind has cancelled, and gets nothing.
HAND_ON = """async (made) => {
  if (!made) return;
  const name = made.orig_name || "card.png";
  const blob = await (await fetch(made.url)).blob();
  const files = [new File([blob], name, { type: "image/png" })];
  if (navigator.canShare?.({ files })) {
    try { await navigator.share({ files }); return; }
    catch (error) { if (error.name === "AbortError") return; }
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}"""


def card(before: Image.Image, after: Image.Image) -> Image.Image:
    """The drawing, large, and the face that it is of; 1080 × 1080 px. Its words are English: Pillow's font has no others."""
    shown = Image.new("RGB", (SIDE, SIDE), PAPER)
    pen = ImageDraw.Draw(shown)
    large = SIDE - 4 * MARGIN
    left, top = (SIDE - large) // 2, MARGIN
    _put(shown, after, (left, top), large)
    # the photo's face overlaps the drawing's lower left corner, as a stamp does
    corner = (left - MARGIN, top + large - BEFORE + MARGIN // 2)
    frame = 12
    pen.rounded_rectangle(
        (corner[0] - frame, corner[1] - frame, corner[0] + BEFORE + frame, corner[1] + BEFORE + frame), 36, PAPER
    )
    _put(shown, before, corner, BEFORE)
    name = texts.say("title", "en")
    font = ImageFont.load_default(size=44)
    pen.text((SIDE - MARGIN, SIDE - MARGIN), name, INK, font, anchor="rs")
    width = pen.textlength(name, font)
    pen.line((SIDE - MARGIN - width, SIDE - MARGIN + 18, SIDE - MARGIN, SIDE - MARGIN + 18), ACCENT, 6)
    return shown


def _put(shown: Image.Image, picture: Image.Image, corner: tuple[int, int], side: int) -> None:
    mask = Image.new("L", (4 * side, 4 * side), 0)  # reduced, for corners without steps
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * side - 1, 4 * side - 1), 112, 255)
    shown.paste(picture.resize((side, side), Image.Resampling.LANCZOS), corner, mask.reduce(4))


@answering
def share(drawn: Drawn | None, chosen: int) -> Any:
    """→ the card of the chosen drawing."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    row, column = drawn.place(chosen)
    about = drawn.provenance(column, composite=True)
    name = f"card-{drawn.file_name(chosen)}"
    return saved(card(drawn.prepared.close_up(row, BEFORE), drawn.pictures[chosen]), name, about)
