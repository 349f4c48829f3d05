"""What happens when something is clicked. Handlers take what components hold and return what components show.

A subject's six inputs (photo, chosen faces, square and black-and-white) come last, as :class:`Subject` names them.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import gradio as gr
from gradio.context import LocalContext
from PIL import Image

from stargan import drawing, video
from stargan.drawing import Drawn, Prepared, Recipe, Reference, Source, Square, Styles, Task
from stargan.errors import PhotoError, RequestError, UserError
from stargan.models.config import ModelConfig
from stargan.page import texts
from stargan.page.answers import Told, answering, i18n, say, shown
from stargan.page.files import FILES, write_whole, written_whole
from stargan.page.models import checked, config_of, painter
from stargan.page.panels import PANELS
from stargan.pictures import faces
from stargan.pictures.io import MAX_BYTES, is_shown, open_photo
from stargan.pictures.provenance import Provenance, save_picture
from stargan.stages import stage

EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTOS, DRAWINGS = (sorted((EXAMPLES / "page" / kind).glob("*.webp")) for kind in ("photos", "drawings"))
VIDEOS = sorted((EXAMPLES / "videos").glob("*.mp4"))
DEFAULTS = {"count": 8, "seed": 22, "psi": 0.7}  # seeds that differ, chosen by eye
# Small enough to be read out and typed.
MAX_NEW_SEED = 9999
# Side, px, of a drawing that is looked at and saved, and of the face beside it.
LARGE, FACE = 512, 256
# Side, px, of a drawing among others that shows its reference too.
TILE = 320
# Pixels of a photo up to which it is sent as a PNG, where browsers do not show it as it is; of more, a PNG would be many times
# as heavy as what was uploaded.
LOSSLESS = 4_000_000
# Longer side of a camera's picture, px: more would cost frames.
LIVE_SIZE = 640
CLIP_SECONDS, CLIP_RATE = 4, {".mp4": 25, ".gif": 12.5}


@dataclass(frozen=True)
class Subject:
    """What the page says is to be drawn.

    Attributes:
        photo: path of the uploaded file.
        chosen: numbers of its faces, from 1, the biggest.
        square: what to take where there is no face.
    """

    photo: str | None
    chosen: tuple[int, ...]
    square: Square
    grayscale: bool

    @classmethod
    def of(cls, photo: Any, chosen: Any, x: Any, y: Any, size: Any, grayscale: Any) -> Subject:
        if not isinstance(photo, str | None):
            raise PhotoError("photo_unreadable")
        numbers = chosen if isinstance(chosen, list) else [1] if chosen is None else [chosen]
        return cls(
            photo,
            tuple(drawing.whole("faces", number, 1, 1000) for number in numbers[:100]),
            square_of(x, y, size),
            bool(grayscale),
        )

    def source(self) -> Source:
        if not self.photo:
            raise RequestError("no_photo")
        return Source.open(self.photo)

    def prepared(self, config: ModelConfig) -> Prepared:
        source = self.source()
        many = config.framing is not None and len(source.faces) > 1
        # a face chosen in an earlier photo, which this one lacks, is left out
        chosen = [number for number in self.chosen if number <= len(source.faces)] if many else [1]
        if self.chosen and not chosen:
            chosen = [1]
        return drawing.prepare(source, config, chosen, self.square)


def new_seed() -> int:
    """Not by Python's generator: compiling in the background sets that back, and the dice would throw the same again."""
    return secrets.randbelow(MAX_NEW_SEED + 1)


def square_of(x: Any, y: Any, size: Any) -> Square:
    named = (("crop_x", x), ("crop_y", y), ("crop_size", size))
    return tuple(drawing.number(name, value, 0, 1) for name, value in named)  # type: ignore[return-value]


def saved(picture: Image.Image, name: str, provenance: Provenance | None = None) -> str:
    """A PNG to show; without ``provenance`` where it is no result, such as a crop of the photo."""
    return FILES.write(name, drawing.png(picture, provenance))


def looked_at(picture: Image.Image, name: str, provenance: Provenance | None = None) -> str:
    """As :func:`saved`, of what is looked at and never saved by the page: a WebP, a tenth as heavy. Whoever saves it from the
    browser's own menu has a picture that says that it is synthetic, but not by which seed."""
    return FILES.write(str(Path(name).with_suffix(".webp")), webp(picture, provenance))


def webp(picture: Image.Image, provenance: Provenance | None = None) -> bytes:
    out = io.BytesIO()
    if provenance:
        save_picture(picture, out, provenance, "WEBP")
    else:
        with stage("write"):
            picture.save(out, "WEBP", quality=88, method=2)
    return out.getvalue()


# The photo


class Looked(NamedTuple):
    """What is shown of a photo: note, picture with numbered faces, which of them are chosen, square, crop."""

    note: gr.Markdown
    numbered: gr.Image
    chosen: gr.CheckboxGroup
    square: gr.Column
    crop: str | None


@answering
def look(model: str, photo: str | None, chosen: Any, *rest: Any) -> Looked | tuple:
    """Which faces are in the photo, for another model? Those that were chosen stay chosen."""
    return _look(model, photo, chosen or [1], *rest)


def _look(model: str, photo: str | None, chosen: Any, *rest: Any) -> Looked | tuple:
    hidden = gr.Image(visible=False), gr.CheckboxGroup(visible=False), gr.Column(visible=False), None
    if not photo:
        return gr.skip(), *hidden
    config = config_of(model)
    try:
        subject = Subject.of(photo, chosen, *rest)
        source = subject.source()
        prepared = subject.prepared(config)
    except (UserError, OSError) as error:
        return Looked(_why(error), *hidden)
    found = () if config.framing is None else source.faces
    many = len(found) > 1
    faces_of = [number for number in subject.chosen if number <= len(found)] or [1][: len(found)]
    note = "note_one" if found else "note_none"
    if config.framing is None:
        note = "note_whole"
    elif many:
        note = "note_many" if faces_of == [1] else "note_some"
    return Looked(
        gr.Markdown(say(note, count=len(found)), visible=True),
        # its text anew: gradio translates none that was hidden at first
        gr.Image(
            looked_at(drawing.numbered(source), "faces.png") if many else None,
            visible=many,
            alt_text=say("numbered_alt"),
        ),
        gr.CheckboxGroup([(str(n), n) for n in range(1, len(found) + 1)], value=faces_of, visible=many),
        gr.Column(visible=not found),
        saved(prepared.crops[0], "crop.png"),
    )


def _why(error: Exception) -> gr.Markdown:
    """What went wrong, in a note's place."""
    return gr.Markdown(f"**{shown(error)}**", visible=True)


@answering
def look_anew(
    model: str, photo: str | None, _chosen: Any, _x: Any, _y: Any, _size: Any, grayscale: Any, standing: str | None
) -> tuple:
    """As :func:`look`, of another photo than before → also its square, in the middle as long as nobody moved it, and which
    photo stands there now. Where one is refused, or the one before comes back in the place of one that was, all stays; and where
    browsers do not show it, as :func:`displayable` brings another file of it."""
    stay = (gr.skip(),) * (len(Looked._fields) + 4)
    if photo and photo == standing:
        return stay
    stands = photo
    try:
        if photo:
            Source.open(photo)
            if not is_shown(Path(photo)):
                return stay
    except (PhotoError, OSError):
        if standing:
            return stay
        stands = None
    return *_look(model, photo, [1], *drawing.MIDDLE, grayscale), *drawing.MIDDLE, stands


@answering
def displayable(photo: str | None, standing: str | None) -> tuple[Any, Any]:
    """→ the photo as a file that browsers show, or the one before where it is no photo; and then, why. One that they show
    stays as it is: another path would be looked at and drawn again. That is wanted of the one before, chosen again: gradio gives
    the same file the same path, and that of what was deleted meanwhile, too."""
    as_it_is = (gr.skip(), gr.skip())
    return PANELS.replaced("photo", lambda: _displayable(photo, standing) or as_it_is, as_it_is, (photo, gr.skip()))


def _displayable(photo: str | None, standing: str | None) -> tuple[Any, Any] | None:
    if not photo:
        return None, gr.skip()
    try:
        shown_as = _for_browsers(photo, Source.open(photo))
        if shown_as == standing:
            shown_as = str(FILES.fresh(Path(photo).name))
            shutil.copyfile(photo, shown_as)
    except (PhotoError, OSError) as error:
        return standing, _why(error)
    return None if shown_as == photo else (shown_as, gr.skip())


def photo_gone() -> gr.Markdown:
    """The photo was taken off → no note of it."""
    PANELS.overtake("photo")
    return gr.Markdown(visible=False)


def _for_browsers(file: str, source: Source) -> str:
    """→ the file, or where browsers do not show such, another one of the same picture: light enough to be sent, and taken."""
    if is_shown(Path(file)):
        return file
    if source.pixels <= LOSSLESS:
        return saved(source.picture, f"{source.name}.png")
    out = io.BytesIO()
    source.picture.save(out, "JPEG", quality=95, subsampling=0)
    return FILES.write(f"{source.name}.jpg", out.getvalue())


@answering
def frame(model: str, *page: Any) -> str:
    """→ the crop of the photo's face, or of its square."""
    return saved(Subject.of(*page).prepared(config_of(model)).crops[0], "crop.png")


# Drawing


@dataclass(frozen=True, eq=False)
class Aside:
    """Other styles than the settings name, drawn in their place until one goes back.

    Attributes:
        recipe: of these styles.
        model: on the menu.
        chosen: which of the drawings before was looked at.
    """

    recipe: Recipe
    model: str
    chosen: int


class Results(NamedTuple):
    """What every way of drawing shows."""

    crop: str | None
    gallery: gr.Gallery | None
    face: str | None
    large: str | None
    save: gr.DownloadButton
    compare: tuple[str, str] | None
    sheet: str | None
    drawn: Drawn | None
    header: tuple[Image.Image, ...]
    chosen: int
    aside: Aside | None
    back: gr.Button
    link: str


AS_IT_WAS = (gr.skip(),) * len(Results._fields)
NOTHING = (
    None, None, None, gr.DownloadButton(value=None, interactive=False), None, None, None, (), 0, None, gr.Button(visible=False), "",
)  # fmt: skip


def results(
    panel: str,
    drawn: Drawn,
    header: tuple[Image.Image, ...] = (),
    *,
    in_photo: bool,
    sheet_open: bool,
    chosen: int = 0,
    aside: Aside | None = None,
    link: str = "",
) -> Results:
    """
    Args:
        panel: where it is shown: "diversity" or "mixing".
        in_photo, sheet_open: what of it is looked at, and so is made: the drawing in the photo, the sheet.
        aside: what it was drawn by, where it was not the settings.
    """
    crop, chosen = saved(drawn.prepared.crops[0], "crop.png"), min(chosen, len(drawn.pictures) - 1)
    now = PANELS.of(panel)  # what is looked at may have changed while it was drawn
    in_photo = in_photo if now.in_photo is None else now.in_photo
    sheet_open = sheet_open if now.sheet_open is None else now.sheet_open
    sheet = _sheet(drawn, header) if sheet_open else None
    compare = before_after(drawn, drawn.place(chosen)[1]) if in_photo else None
    gallery = gr.Gallery(gallery_of(drawn), selected_index=chosen)  # else the one before stays highlighted
    back = gr.Button(visible=aside is not None)
    return Results(crop, gallery, *large(drawn, chosen), compare, sheet, drawn, header, chosen, aside, back, link)


def beside(panel: str, aside: Aside, view: Any, sheet_open: Any, *page: Any) -> tuple:
    """The photo in the styles of ``aside``."""

    def make() -> tuple:
        drawn = draw(aside.model, aside.recipe, page)
        return results(panel, drawn, in_photo=view == "photo", sheet_open=bool(sheet_open), aside=aside)

    return PANELS.newest(panel, make, AS_IT_WAS)


def gallery_of(drawn: Drawn) -> list[tuple[str, str]]:
    """Every drawing, with its caption."""
    gallery = []
    for index, picture in enumerate(drawn.pictures):
        row, column = drawn.place(index)
        said = caption(drawn.styles, column)
        if len(drawn.rows) > 1:
            said = say("caption_face", number=drawn.prepared.numbers[row], caption=said)
        gallery.append((saved(picture, drawn.file_name(index), drawn.provenance(column)), said))
    return gallery


def caption(styles: Styles, index: int) -> str:
    kind, value = styles.captions[index]
    return say(f"caption_{kind}", value=value)


def large(drawn: Drawn, index: int) -> tuple[str, str, gr.DownloadButton]:
    """One drawing as it is looked at and saved: enlarged to 512 px, and saying so.

    Returns:
        The face that it is of, the drawing, the button that saves it: as a PNG, which is not sent before.
    """
    picture, about = drawn.enlarged(index, LARGE)
    row, _ = drawn.place(index)
    name = drawn.file_name(index)
    face = looked_at(drawn.prepared.close_up(row, FACE), "face.png")
    return face, looked_at(picture, name, about), gr.DownloadButton(value=saved(picture, name, about), interactive=True)


def before_after(drawn: Drawn, column: int) -> tuple[str, str]:
    """Previews of the photo as it was, and with the drawings of a column in it."""
    source = drawn.prepared.source
    before = FILES.root / f"before-{source.digest}" / "before.webp"
    if not before.exists():
        before.parent.mkdir(exist_ok=True)
        write_whole(before, webp(source.preview))
    after = drawn.in_preview(column)
    return str(before), looked_at(after, "in-photo.png", drawn.provenance(column, composite=True))


def _sheet(drawn: Drawn, header: tuple[Image.Image, ...]) -> str:
    return saved(drawn.sheet(header), f"{drawn.styles.domain}-sheet.png", drawn.sheet_provenance())


def draw(model: str, recipe: Recipe, page: tuple[Any, ...]) -> Drawn:
    subject = Subject.of(*page)
    return drawing.draw(
        subject.prepared(config_of(model)),
        recipe,
        painter(model),
        grayscale=subject.grayscale,
        progress=Told("drawing"),
    )


@answering
def draw_latent(*inputs: Any) -> tuple:
    """→ results."""
    return _latent(inputs)


@answering
def draw_first(*inputs: Any) -> Any:
    """As :func:`draw_latent` when a photo came, or went: nothing then stays of the one before, also where it cannot be drawn."""
    return _or_nothing("diversity", lambda: _seeds_or_none(inputs))


def _or_nothing(panel: str, make: Callable[[], tuple]) -> tuple:
    """What is made, or nothing, and that said."""
    try:
        return PANELS.newest(panel, make, AS_IT_WAS)
    except Exception as error:
        gr.Warning(shown(error))
        return PANELS.newest(panel, lambda: (gr.skip(), *NOTHING), AS_IT_WAS)


@answering
def draw_as_set(*inputs: Any) -> Any:
    """As :func:`draw_first` when a setting was changed; a field that was emptied waits for its number."""
    return _latent_as_set(inputs)


@answering
def draw_as_corrected(*inputs: Any) -> Any:
    """As :func:`draw_as_set` when a slider's number field is left: what is out of range in it, or missing, gradio brings into the
    range, and does not tell of."""
    model, domain, count, seed, psi, *rest = inputs
    corrected = _in_range(count, 1, drawing.MAX_COUNT), _in_range(psi, 0, drawing.MAX_PSI)
    if corrected == (count, psi):
        return AS_IT_WAS
    return _latent_as_set((model, domain, corrected[0], seed, corrected[1], *rest))


def _in_range(value: Any, low: float, high: float) -> Any:
    if value is None:
        return low
    return min(max(value, low), high) if isinstance(value, int | float) else value


@answering
def redraw_latent(aside: Aside | None, *inputs: Any) -> Any:
    """As :func:`draw_as_set` when something of the photo changed: other styles than the settings name stay."""
    if aside and inputs[7]:
        return beside("diversity", aside, *inputs[5:])
    return _latent_as_set(inputs)


@answering
def back_to_latent(aside: Aside | None, *inputs: Any) -> Any:
    """→ the drawings before, and of them the one that was looked at."""
    return _latent(inputs, aside.chosen if aside else 0)


def _latent_as_set(inputs: tuple[Any, ...]) -> Any:
    return AS_IT_WAS if None in inputs[2:5] else PANELS.newest("diversity", lambda: _seeds_or_none(inputs), AS_IT_WAS)


def _seeds_or_none(inputs: tuple[Any, ...]) -> tuple:
    return _of_seeds(inputs, 0) if inputs[7] else (None, *NOTHING)


def _latent(inputs: tuple[Any, ...], chosen: int = 0) -> tuple:
    return PANELS.newest("diversity", lambda: _of_seeds(inputs, chosen), AS_IT_WAS)


def _of_seeds(inputs: tuple[Any, ...], chosen: int) -> Results:
    model, domain, count, seed, psi, view, sheet_open, *page = inputs
    recipe = drawing.seeds(config_of(model), domain, count, seed, psi)
    drawn = draw(model, recipe, tuple(page))
    settings = {"model": checked(model), "domain": recipe.domain, "count": len(recipe), "seed": recipe.numbers[0]}
    settings |= {"psi": recipe.psi}
    settings |= {"grayscale": 1} if page[-1] else {}
    name = Path(page[0]).stem
    # a link holds no photo of a person's own, and says so
    settings |= {"example": name} if _is_example(page[0]) else {"photo": "own"}
    shown = {"in_photo": view == "photo", "sheet_open": bool(sheet_open)}
    return results("diversity", drawn, **shown, chosen=chosen, link=link(settings))


def _is_example(photo: str) -> bool:
    """Whether it is one, not only called like one."""
    named = next((path for path in PHOTOS if path.stem == Path(photo).stem), None)
    return named is not None and Source.open(named).digest == Source.open(photo).digest


@answering
def draw_mixed(opened: bool, *inputs: Any) -> Any:
    """→ results; nothing where there is no photo or no reference, and as it was where nobody has opened the tab yet."""
    return _mixed(inputs) if opened else AS_IT_WAS


@answering
def draw_mixed_anew(opened: bool, *inputs: Any) -> Any:
    """As :func:`draw_mixed` when a photo came, or went: nothing then stays of the one before, also where it cannot be drawn."""
    if not opened:
        return AS_IT_WAS
    return _or_nothing("mixing", lambda: _of_references(inputs, 0))


@answering
def draw_mixed_first(drawn: Drawn | None, opened: bool, *inputs: Any) -> Any:
    """As :func:`draw_mixed` when the tab is opened: what is drawn already stays."""
    return _mixed(inputs) if opened and drawn is None else AS_IT_WAS


@answering
def redraw_mixed(aside: Aside | None, opened: bool, *inputs: Any) -> Any:
    """As :func:`draw_mixed` when something of the photo changed: other styles than the references' stay."""
    if aside and inputs[7]:
        return beside("mixing", aside, *inputs[5:])
    return _mixed(inputs) if opened else AS_IT_WAS


@answering
def back_to_mixed(aside: Aside | None, _opened: bool, *inputs: Any) -> Any:
    """→ the drawings before, and of them the one that was looked at."""
    return _mixed(inputs, aside.chosen if aside else 0)


def _mixed(inputs: tuple[Any, ...], chosen: int = 0) -> tuple:
    return PANELS.newest("mixing", lambda: _of_references(inputs, chosen), AS_IT_WAS)


def _of_references(inputs: tuple[Any, ...], chosen: int) -> tuple:
    model, pictures, adjusted, domain, strength, view, sheet_open, *page = inputs
    if not pictures or not page[0]:
        return gr.skip(), *NOTHING
    recipe = drawing.references(config_of(model), references_of(pictures, adjusted), domain, strength)
    drawn = draw(model, recipe, tuple(page))
    found = results("mixing", drawn, recipe.crops, in_photo=view == "photo", sheet_open=bool(sheet_open), chosen=chosen)
    return found._replace(gallery=gr.Gallery(mixed_gallery(drawn, recipe.crops), selected_index=found.chosen))


def link(settings: dict[str, Any]) -> str:
    """The page's address with settings: they bring the same drawings back, of the same photo."""
    request = LocalContext.request.get()
    headers = request.headers if request else {}
    own = f"{headers.get('x-forwarded-proto', 'http')}://{headers.get('host')}/"
    # where it is part of somebody else's page, that is what is said to ask
    foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    page = urlsplit((not foreign and headers.get("referer")) or own)
    return page._replace(query=urlencode(settings), fragment="").geturl()


class Chosen(gr.EventData):
    """Which picture of a gallery was clicked; whatever else a program says was clicked, is none."""

    def __init__(self, target: Any, data: Any) -> None:
        super().__init__(target, data)
        self.index = data.get("index") if isinstance(data, dict) else None


@answering
def choose(panel: str, drawn: Drawn | None, view: Any, event: Chosen) -> tuple:
    """A drawing was chosen → as :func:`large`; before/after, where that is looked at; its number. Of drawings that others have
    taken the place of since, nothing."""
    return PANELS.of_what_is_there(panel, lambda: _chosen(panel, drawn, view, event.index), (gr.skip(),) * 5)


def _chosen(panel: str, drawn: Drawn | None, view: Any, index: Any) -> tuple:
    if drawn is None or type(index) is not int or not 0 <= index < len(drawn.pictures):
        raise RequestError("nothing_chosen")
    now = PANELS.of(panel).in_photo
    in_photo = view == "photo" if now is None else now
    compare = before_after(drawn, drawn.place(index)[1]) if in_photo else gr.skip()
    return *large(drawn, index), compare, index


def turn_to(panel: str, view: Any) -> None:
    """The drawing, or the photo with it, is to be looked at from now on."""
    PANELS.of(panel).in_photo = view == "photo"


@answering
def look_from(panel: str, view: Any, drawn: Drawn | None, chosen: int) -> tuple:
    """As :func:`turn_to` → which of them is shown, before/after."""
    turn_to(panel, view)
    in_photo = view == "photo"
    compare = before_after(drawn, drawn.place(chosen)[1]) if in_photo and drawn else None
    return gr.Row(visible=not in_photo), gr.ImageSlider(compare, visible=in_photo)


@answering
def unfold_sheet(panel: str, drawn: Drawn | None, header: tuple[Image.Image, ...]) -> tuple[str | None, bool]:
    """The sheet is looked at → it, and that it is."""
    PANELS.of(panel).sheet_open = True
    return (_sheet(drawn, header) if drawn else None), True


def fold_sheet(panel: str) -> bool:
    """The sheet is no longer looked at → that it is not."""
    PANELS.of(panel).sheet_open = False
    return False


@answering
def pack(drawn: Drawn | None, header: tuple[Image.Image, ...], chosen: int) -> str:
    """→ a zip of everything, made now."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    path = FILES.fresh(f"{drawn.styles.domain}.zip")
    with written_whole(path) as part:
        drawn.pack(part, drawn.place(chosen)[1], header, Told("packing"))
    return str(path)


class _Watched(io.BytesIO):
    """A file in memory that is given up when the work has been cancelled."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self._told = told

    def write(self, data: Any) -> int:
        self._told(0.5)
        return super().write(data)


@answering
def whole_photo(drawn: Drawn | None, chosen: int) -> str:
    """→ the photo at its full size with the chosen drawing in it, made now."""
    if drawn is None:
        raise RequestError("nothing_chosen")
    told, column = Told("packing"), drawn.place(chosen)[1]
    picture = drawn.in_photo(column)
    told(0.5)
    out = _Watched(told)
    save_picture(picture, out, drawn.provenance(column, composite=True))
    return FILES.write(f"{drawn.styles.domain}-in-photo.png", out.getvalue())


# References

# Adjustments by the digest of a reference: its path is another each time that the page sends it.
Adjusted = dict[str, Reference]


def references_of(gallery: Any, adjusted: Any) -> list[Reference]:
    """What a gallery of references and the adjustments of them say."""
    pictures = [path for path, *_ in gallery or [] if isinstance(path, str)]
    # of too many, which are refused, none is opened
    known = adjusted if isinstance(adjusted, dict) and len(pictures) <= drawing.MAX_REFERENCES else {}
    return [_adjusted(path, known) for path in pictures]


def _adjusted(path: str, known: Adjusted) -> Reference:
    found = known.get(drawing.open_reference(path).digest) if known else None
    return replace(found, photo=path) if isinstance(found, Reference) else Reference(path)


def _chosen_reference(pictures: Any, which: Any) -> str:
    if not pictures or not isinstance(which, int) or not 1 <= which <= len(pictures):
        raise RequestError("no_references")
    return pictures[which - 1][0]


@answering
def look_at_references(model: str, pictures: Any, adjusted: Adjusted, which: Any) -> tuple:
    """References came or went → which of them can be adjusted, their crops, and its :func:`adjustment`."""
    count = len(pictures or [])
    which = which if isinstance(which, int) and 1 <= which <= count else 1
    chosen = gr.Radio(list(range(1, count + 1)), value=which if count else None, visible=count > 1)
    return chosen, _crops(model, pictures, adjusted, which), *_adjustment(model, pictures, adjusted, which)


@answering
def adjust(
    model: str, pictures: Any, adjusted: Adjusted, which: Any, weight: Any, x: Any, y: Any, size: Any
) -> tuple[gr.Gallery, Adjusted]:
    """→ the references' crops with one of them moved, all adjustments."""
    path = _chosen_reference(pictures, which)
    moved = Reference(path, drawing.number("weight", weight, 0, 1), square_of(x, y, size))
    adjusted = adjusted | {drawing.open_reference(path).digest: moved}
    return _crops(model, pictures, adjusted, which), adjusted


@answering
def weigh(pictures: Any, adjusted: Adjusted, which: Any, weight: Any) -> Adjusted:
    """→ all adjustments, one of them with another weight."""
    path = _chosen_reference(pictures, which)
    weight = drawing.number("weight", weight, 0, 1)
    return adjusted | {drawing.open_reference(path).digest: replace(_adjusted(path, adjusted), weight=weight)}


@answering
def adjustment(model: str, pictures: Any, adjusted: Adjusted, which: Any) -> tuple:
    """→ one reference highlighted among the crops; it as a whole, its weight, square and number."""
    *about, number = _adjustment(model, pictures, adjusted, which)
    return gr.Gallery(selected_index=number - 1), *about, number


def _adjustment(model: str, pictures: Any, adjusted: Adjusted, which: Any) -> tuple:
    try:
        path = _chosen_reference(pictures, which)
    except RequestError:
        return None, 1.0, *drawing.MIDDLE, 1
    reference, source = _adjusted(path, adjusted), drawing.open_reference(path)
    square = reference.square or drawing.reference_square(source, config_of(model))
    return looked_at(source.preview, "reference.png"), reference.weight, *square, which


@answering
def choose_reference(event: Chosen) -> int:
    """A reference's crop was clicked → its number."""
    if type(event.index) is not int or not 0 <= event.index < drawing.MAX_REFERENCES:
        raise RequestError("bad_input")
    return event.index + 1


@dataclass(frozen=True)
class Added:
    """The references after so many additions: the page may not have heard of the last of them when the next one is made."""

    number: int = 0
    pictures: tuple[str, ...] = ()


@answering
def add_example(added: Added, seen: Any, pictures: list[tuple[str, str]] | None, index: Any) -> tuple:
    """→ the references with an example drawing added, the last ones where they are too many; the same, for the next
    addition, and its number."""
    return _added(added, seen, pictures, [_example(DRAWINGS, index)])


@answering
def add_own(added: Added, seen: Any, pictures: list[tuple[str, str]] | None, files: Any) -> tuple:
    """→ as :func:`add_example`, with a person's own.

    Raises:
        PhotoError: one of them cannot be used: nothing is added then.
    """
    own = [str(file) for file in files or [] if isinstance(file, str)][-drawing.MAX_REFERENCES :]
    return _added(added, seen, pictures, [_for_browsers(file, Source.open(file)) for file in own])


def _added(
    added: Added, seen: Any, pictures: list[tuple[str, str]] | None, further: list[str]
) -> tuple[list[str], Added, int]:
    heard = not isinstance(seen, int | float) or seen >= added.number
    before = [path for path, *_ in pictures or []] if heard else added.pictures
    now = [*before, *further][-drawing.MAX_REFERENCES :]
    return now, Added(added.number + 1, tuple(now)), added.number + 1


@answering
def example_photo(index: Any) -> str:
    PANELS.overtake("photo")
    return _example(PHOTOS, index)


@answering
def example_video(index: Any) -> str:
    return _example(VIDEOS, index)


def _example(paths: list[Path], index: Any) -> str:
    if type(index) is not int or not 0 <= index < len(paths):
        raise RequestError("bad_input")
    return str(paths[index])


def _crops(model: str, pictures: Any, adjusted: Adjusted, which: int) -> gr.Gallery:
    config = config_of(model)
    found = references_of((pictures or [])[: drawing.MAX_REFERENCES], adjusted)
    crops = crop_gallery([drawing.prepare_reference(drawing.open_reference(r.photo), config, r.square) for r in found])
    return gr.Gallery(crops, selected_index=which - 1 if crops else None)


def crop_gallery(crops: Any) -> list[tuple[str, str]]:
    return [(saved(crop, f"reference-{n}.png"), str(n)) for n, crop in enumerate(crops, 1)]


def mixed_gallery(drawn: Drawn, crops: tuple[Image.Image, ...]) -> list[tuple[str, str]]:
    """As :func:`gallery_of`, with the reference in a corner of each drawing that is in the style of one. What is saved of a
    drawing has no such corner."""
    gallery = []
    for index, (path, caption) in enumerate(gallery_of(drawn)):
        row, column = drawn.place(index)
        kind, number = drawn.styles.captions[column]
        if kind == "reference":
            shown = with_inset(drawn.rows[row][column], crops[number - 1])
            path = looked_at(shown, drawn.file_name(index), drawn.provenance(column, composite=True))
        gallery.append((path, caption))
    return gallery


def with_inset(picture: Image.Image, reference: Image.Image) -> Image.Image:
    """A picture, enlarged to 320 px, with another in its lower left corner."""
    shown = picture.resize((TILE, TILE), Image.Resampling.LANCZOS)
    side, edge = TILE // 3, TILE // 80
    shown.paste("white", (0, TILE - side - 2 * edge, side + 2 * edge, TILE))
    shown.paste(reference.resize((side, side), Image.Resampling.LANCZOS), (edge, TILE - side - edge))
    return shown


# Kept styles


class Kept(NamedTuple):
    """A kept style, and the model on the menu that it is of."""

    style: Styles
    model: str


def kept_style(slot: str, kept: Any, model: str) -> Styles:
    if not isinstance(kept, Kept):
        raise RequestError("nothing_kept", slot=slot)
    if kept.model != checked(model):
        raise RequestError("other_model", slot=slot, model=kept.model)
    return kept.style


@answering
def draw_between(model: str, a: Any, b: Any, part: Any, *page: Any) -> str:
    """→ the photo's face in the style between A and B, or in A's where there is no B."""
    start, end = kept_style("A", a, model), kept_style("B", b or a, model)
    style = start.towards(end, drawing.number("between", part, 0, 1))
    drawn = draw(model, style, page)
    return saved(drawn.pictures[0], f"{style.domain}-between.png", drawn.provenance(0))


@answering
def film(model: str, a: Any, b: Any, kind: Any, *page: Any) -> tuple[gr.Video, gr.Image]:
    """→ a clip of the walk from A to B: as a video, or as a picture where it is a GIF."""
    stops = drawing.joined([kept_style("A", a, model), kept_style("B", b, model)])
    gif = kind == "GIF"
    subject = Subject.of(*page)
    path = film_walk(model, subject.prepared(config_of(model)), stops, ".gif" if gif else ".mp4", subject.grayscale)
    return gr.Video(None if gif else path, visible=not gif), gr.Image(path if gif else None, visible=gif)


def film_walk(model: str, prepared: Prepared, stops: Recipe, suffix: str, grayscale: bool = False) -> str:
    """A clip of the first face going from style to style; its path."""
    path, rate = FILES.fresh(f"walk{suffix}"), CLIP_RATE[suffix]
    frames = round(CLIP_SECONDS * rate)
    pictures = drawing.walk(
        prepared.crops[0], stops, frames, painter(model), grayscale=grayscale, progress=Told("filming")
    )
    config = config_of(model)
    details = {"styles": _note(stops)} | ({"grayscale": "yes"} if grayscale else {})
    provenance = Provenance(config.name, None, details)
    return str(video.write_video(pictures, path, rate, provenance))


def _note(stops: Recipe) -> str:
    if isinstance(stops, drawing.Seeds):
        return f"{stops.domain}, seeds {', '.join(map(str, stops.numbers))}, psi {stops.psi:g}"
    if not isinstance(stops, Styles):
        return ""
    return "; ".join([stops.domain, *(stops.origin(index) for index in range(len(stops)))])


# The camera and clips


def one_style(model: str, a: Any, in_style_a: Any, domain: Any, seed: Any, psi: Any) -> Recipe:
    return kept_style("A", a, model) if in_style_a else drawing.seeds(config_of(model), domain, 1, seed, psi)


@answering
def draw_live(*inputs: Any) -> tuple[Any, gr.Markdown]:
    """→ the camera's picture with its face drawn, as a WebP's bytes, nothing new where it shows none; or why it could not be: the
    camera goes on, and would tell of each picture what it tells of the first.

    While one picture is drawn, the newest that arrives replaces the one that waits: Gradio keeps no queue of them. Neither
    the picture nor its drawing is stored."""
    try:
        return _drawn_live(*inputs), gr.Markdown(visible=False)
    except UserError as error:
        return gr.skip(), _why(error)


def _drawn_live(model: str, a: Any, in_style_a: Any, domain: Any, seed: Any, psi: Any, frame: bytes | None) -> Any:
    if frame is None or seed is None or psi is None:  # a field that was emptied waits for its number
        return gr.skip()
    recipe, config = one_style(model, a, in_style_a, domain, seed, psi), config_of(model)
    picture = open_photo(frame)
    picture.thumbnail((LIVE_SIZE, LIVE_SIZE))
    if config.framing is None:
        aligned = faces.centre_crop(picture, config.architecture.image_size)
    elif found := faces.find(picture):
        aligned = faces.align(picture, found[0].landmarks, config.framing, config.architecture.image_size)
    else:
        return gr.skip()
    painted = painter(model)(Task((aligned.picture,), recipe, passing=True), drawing.silent)
    drawn = faces.paste_back(picture, aligned, painted.rows[0][0])
    return webp(drawn, painted.styles.provenance(0, composite=True))


def camera_bytes(payload: Any) -> bytes | None:
    """A camera's picture, which comes as a data URL, unopened.

    Raises:
        PhotoError: it is something else.
    """
    if payload is None:
        return None
    url = getattr(payload, "url", None)
    if not isinstance(url, str) or not url.startswith("data:") or len(url) > 2 * MAX_BYTES:
        raise PhotoError("photo_unreadable")
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise PhotoError("photo_broken") from error


@answering
def draw_clip(*inputs: Any) -> tuple[Any, gr.Markdown]:
    """→ the clip with its face drawn, in one style; or why it could not be, and the one before stays."""
    try:
        return _drawn_clip(*inputs), gr.Markdown(visible=False)
    except (UserError, OSError) as error:
        if isinstance(error, UserError) and error.key == "cancelled":
            raise
        return gr.skip(), _why(error)


def _drawn_clip(model: str, a: Any, in_style_a: Any, domain: Any, seed: Any, psi: Any, clip: str | None) -> str:
    if not clip:
        raise RequestError("no_clip")
    recipe, config, paint = one_style(model, a, in_style_a, domain, seed, psi), config_of(model), painter(model)

    def drawn(crops: Any) -> list[Image.Image]:
        return [row[0] for row in paint(Task(tuple(crops), recipe, passing=True), drawing.silent).rows]

    told = Told("filming")
    provenance = Provenance(config.name, None, {"styles": _note(recipe)}, composite=True)
    size = config.architecture.image_size
    path = FILES.fresh("drawn.mp4")
    video.translate_clip(
        drawn, config.framing, size, clip, path, provenance=provenance, progress=lambda done, all_: told(done / all_)
    )
    return str(path)


# The page as a whole


@answering
def choose_model(model: str, *domains: Any) -> list[gr.Radio]:
    """→ the domains of a model, for every tab; those that were chosen stay, where it has them."""
    return [domain_menu(config_of(model).domains, chosen) for chosen in domains]


def domain_menu(domains: tuple[str, ...], chosen: str | None = None) -> gr.Radio:
    choices = domain_choices(domains)
    return gr.Radio(choices, value=chosen if chosen in domains else choices[0][1])


def domain_choices(domains: tuple[str, ...]) -> list[tuple[Any, str]]:
    return [(i18n(f"domain_{name}") if f"domain_{name}" in texts.TEXTS else name, name) for name in domains]


@answering
def arrive(search: str) -> tuple:
    """The page was opened: an example, or what its link asks for; what it does not know, it does not heed.

    Returns:
        Model, photo, count, seed, psi, grayscale, and each tab's domain, of which a link names those that seeds are of.
    """
    asked = dict(parse_qsl(search.removeprefix("?"))) if isinstance(search, str) else {}
    examples = {path.stem: str(path) for path in PHOTOS}
    first = next(iter(examples.values()), None)
    own = asked.get("photo") == "own"
    try:
        model = checked(asked.get("model"))
    except RequestError:
        model = checked(None)
    known = config_of(model).domains
    if own:
        gr.Info(say("link_own"))
    return (
        model,
        None if own else examples.get(asked.get("example", ""), first),
        int(_asked(asked, "count", 1, drawing.MAX_COUNT)),
        int(_asked(asked, "seed", 0, drawing.MAX_SEED)),
        _asked(asked, "psi", 0, drawing.MAX_PSI),
        asked.get("grayscale") == "1",
        *[domain_menu(known, domain) for domain in (asked.get("domain"), None, asked.get("domain"))],
    )


def _asked(asked: dict[str, str], name: str, low: float, high: float) -> float:
    """A number in a link, brought into its range; the default where it is none."""
    try:
        value = float(asked[name])
    except (KeyError, ValueError):
        value = math.nan
    return min(max(value, low), high) if math.isfinite(value) else DEFAULTS[name]
