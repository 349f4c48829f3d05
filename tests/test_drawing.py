"""The core: a photo's way to its drawings, what of it is done once, and what styles can do."""

from __future__ import annotations

import io
import pickle
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from stargan import Translator, drawing
from stargan.cache import ByteCache
from stargan.drawing import Near, Reference, References, Seeds, Source, Styles, Task
from stargan.errors import NoFaceError, PhotoError, RequestError, UserError
from stargan.models.checkpoint import Model
from stargan.models.config import ANIME_FRAMING, Architecture, ModelConfig
from stargan.pictures.provenance import read_provenance
from stargan.stages import Stages, counted

ROOT = Path(__file__).resolve().parents[1]


def build(framing=ANIME_FRAMING, name: str = "small") -> Translator:
    torch.manual_seed(0)
    architecture = Architecture(image_size=32, style_dim=8, latent_dim=4, base_channels=8, max_channels=16)
    model = Model.build(ModelConfig(name, ("anime", "photo"), architecture, framing))
    for block in model.generator.decode:  # fresh networks hardly heed the style
        block.norm1.fc.weight *= 20
        block.norm2.fc.weight *= 20
    return Translator(model, "cpu", "exact")


@pytest.fixture(scope="module")
def translator() -> Translator:
    return build()


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    drawing.CACHE.clear()
    yield
    drawing.CACHE.clear()


@pytest.fixture(scope="module")
def photo(portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6  # as a phone held upright takes it: to be turned by 90° when shown
    portrait.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=turned)
    return path


def same(first: list[Image.Image], second: list[Image.Image]) -> bool:
    return [picture.tobytes() for picture in first] == [picture.tobytes() for picture in second]


# what a photo may be


def test_a_photo_may_be_a_path_bytes_a_file_or_a_picture(translator: Translator, photo: Path) -> None:
    expected = translator.latent(photo, count=2)
    with photo.open("rb") as file, Image.open(photo) as picture:
        for given in (str(photo), photo.read_bytes(), file, io.BytesIO(photo.read_bytes()), picture):
            assert same(translator.latent(given, count=2), expected), type(given)


def test_an_open_file_may_be_given_again(translator: Translator, photo: Path) -> None:
    """Wherever the one before has left off; several at once or one by itself."""
    expected = translator.reference(photo, [photo])
    with photo.open("rb") as file:
        file.read(100)
        assert same(translator.reference(file, [file, file]), expected * 2)
        for one in (file, str(photo), photo, photo.read_bytes()):
            assert same(translator.reference(photo, one), expected), type(one)


@pytest.mark.parametrize("name", ["x" * 300, "null\0byte", "/", "/dev/zero"])
def test_what_is_no_file_is_a_photo_that_cannot_be_read(translator: Translator, name: str) -> None:
    with pytest.raises(PhotoError) as refused:
        translator.latent(name)
    assert refused.value.key == "photo_unreadable"


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_a_picture_may_have_any_mode(translator: Translator, portrait: Image.Image, mode: str) -> None:
    before = portrait.convert(mode)
    bytes_before = before.tobytes()
    (drawn,) = translator.latent(before, count=1)
    assert (drawn.mode, drawn.size) == ("RGB", (32, 32))
    assert before.mode == mode
    assert before.tobytes() == bytes_before
    (styled,) = translator.reference(portrait, [before])
    assert (styled.mode, styled.size) == ("RGB", (32, 32))


def test_nothing_asked_for_is_an_empty_list(translator: Translator, photo: Path) -> None:
    assert translator.latent(photo, count=0) == []
    assert translator.reference(photo, []) == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"count": -1}, "count must be a number from 0"),
        ({"seed": 1.5}, "seed must be a number from 0"),
        ({"psi": float("nan")}, "psi must be a number from 0 to 1.5, not nan"),
        ({"domain": "cat"}, "The model small cannot draw cat: choose one of anime, photo."),
    ],
)
def test_mistakes_get_a_sentence(translator: Translator, photo: Path, settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        translator.latent(photo, **settings)


def test_what_is_no_photo_gets_a_sentence(translator: Translator, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="not a picture"):
        translator.latent(b"text")
    with pytest.raises(NoFaceError, match="No face was found"):
        translator.latent(Image.new("RGB", (64, 64)))
    with pytest.raises(FileNotFoundError):
        translator.latent(tmp_path / "none.jpg")


# what is done once


def stages(stages: Stages) -> dict[str, int]:
    return {name: stages.runs.get(name, 0) for name in ("open", "detect", "encode")}


def test_a_photo_is_opened_searched_and_encoded_once(translator: Translator, photo: Path) -> None:
    def draw(recipe: drawing.Recipe) -> drawing.Drawn:
        prepared = drawing.prepare(Source.open(photo), translator.config)
        return drawing.draw(prepared, recipe, translator.paint)

    with counted() as first:
        drawn = draw(drawing.seeds(translator.config, None, 4, 0, 0.7))
    assert stages(first) == {"open": 1, "detect": 1, "encode": 1}
    assert first.runs["decode"] == 4  # a CPU decodes style by style
    style = drawn.styles.part(0, 1)
    others = [
        drawing.seeds(translator.config, None, 4, 100, 0.7),
        drawing.seeds(translator.config, None, 4, 0, 1.0),
        drawing.near(style, 0.3, 4, 0),
        style.towards(drawn.styles.part(1, 2), 0.5),
    ]
    with counted() as again:  # whatever changes only the style runs the decoder alone
        for recipe in others:
            draw(recipe)
        for column in range(4):  # and looking at the drawings in the photo not even that
            drawn.in_preview(column)
    assert stages(again) == {"open": 0, "detect": 0, "encode": 0}
    assert again.runs["decode"] == 13

    with counted() as mixed:
        reference = Reference(ROOT / "examples" / "drawings" / "seed-9.png")
        draw(drawing.references(translator.config, [reference], None))
    assert stages(mixed) == {"open": 1, "detect": 1, "encode": 1}  # all of the reference
    with counted() as weaker:
        draw(drawing.references(translator.config, [reference], None, 0.5))
    # strength needs the photo's own style, and the reference's style, which is not kept, is encoded anew
    assert stages(weaker) == {"open": 0, "detect": 0, "encode": 2}


def test_the_same_content_under_another_name_is_the_same_source(
    translator: Translator, photo: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(photo.read_bytes())
    translator.latent(photo, count=1)
    with counted() as again:
        translator.latent(copy, count=1)
    assert stages(again) == {"open": 0, "detect": 0, "encode": 0}


def test_a_file_that_is_written_anew_is_another_source(translator: Translator, portrait: Image.Image, tmp_path: Path):
    path = tmp_path / "photo.png"
    portrait.save(path)
    first = translator.latent(path, count=1)
    portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    assert not same(translator.latent(path, count=1), first)


def test_a_photo_that_was_deleted_is_missed_only_once_the_cache_let_go_of_it(
    portrait: Image.Image, tmp_path: Path
) -> None:
    path = tmp_path / "photo.png"
    portrait.save(path)
    source = Source.open(path)
    path.unlink()
    assert source.picture.size == portrait.size
    drawing.CACHE.clear()
    with pytest.raises(FileNotFoundError):
        source.picture  # noqa: B018


def test_the_cache_is_bounded_in_bytes() -> None:
    cache, made = ByteCache(100), []

    def get(key: str, size: int) -> str:
        return cache.get(key, lambda: made.append(key) or key, lambda _: size)

    for key in ("a", "b", "c"):
        get(key, 40)
    assert cache.size == 80
    get("c", 40)
    get("a", 40)  # was let go of
    assert made == ["a", "b", "c", "a"]
    get("huge", 101)
    get("huge", 101)  # never kept
    assert made[4:] == ["huge", "huge"]
    assert cache.size <= 100


def test_what_is_old_is_let_go_of_however_often_it_is_used() -> None:
    now = [0.0]
    cache = ByteCache(100, lambda: now[0])
    for now[0] in (0.0, 1000.0, 2000.0, 2999.0):
        cache.get("photo", lambda: 1, lambda _: 1)
        cache.drop_older(3000)
    assert cache.size == 1
    now[0] = 3001.0
    cache.drop_older(3000)
    assert cache.size == 0


def test_what_is_unused_is_let_go_of_but_for_a_little() -> None:
    now = [0.0]
    cache = ByteCache(100, lambda: now[0])
    for now[0], key, size in ((0, "first", 20), (1, "large", 40), (2, "asked for", 20), (3, "small", 15)):
        cache.get(key, lambda: 1, lambda _, size=size: size)
    now[0] = 20.0
    cache.get("asked for", lambda: 2, lambda _: 20)
    now[0] = 32.0
    cache.drop_unused(30, 60)  # the first one has to go, the second one, too, and then it is little enough
    assert cache.size == 35
    now[0] = 49.0
    cache.drop_unused(30, 10)
    assert cache.size == 20
    cache.drop_unused(0, 20)
    assert cache.size == 20


def test_looking_for_what_is_unused_is_no_use() -> None:
    cache = ByteCache(3)
    for key in "abca":
        cache.get(key, lambda: 1, lambda _: 1)
    cache.drop_unused(30, 0)
    cache.drop_older(30)
    cache.get("d", lambda: 1, lambda _: 1)
    assert [key for key in "abcd" if key in cache] == ["a", "c", "d"]


def test_what_two_ask_for_at_once_is_made_once() -> None:
    cache, made = ByteCache(100), []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        cache.get("key", lambda: made.append(1), lambda _: 1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_what_cannot_be_made_is_tried_again() -> None:
    cache = ByteCache(100)
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 // 0, lambda _: 1)
    assert cache.get("key", lambda: 7, lambda _: 1) == 7


# styles


def test_styles_are_values_with_their_origin(translator: Translator) -> None:
    styles = Seeds("anime", (3, 4), 0.7).styles(translator)
    assert styles.captions == (("seed", 3), ("seed", 4))
    about = styles.provenance(1)
    assert (about.model, about.seed, about.details) == ("small", 4, {"domain": "anime", "psi": "0.7"})
    halfway = styles.part(0, 1).towards(styles.part(1, 2), 0.5)
    torch.testing.assert_close(halfway.vectors[0], styles.vectors.mean(dim=0))
    assert halfway.captions == (("between", 50),)
    weighted = styles.blend([3, 1])
    torch.testing.assert_close(weighted.vectors[0], 0.75 * styles.vectors[0] + 0.25 * styles.vectors[1])
    torch.testing.assert_close(styles.blend([0, 0]).vectors[0], styles.vectors.mean(dim=0))
    walk = styles.walk(9)
    assert len(walk) == 9
    torch.testing.assert_close(walk.vectors[[0, -1]], styles.vectors)
    both = drawing.joined([styles, walk])
    assert len(both) == len(both.captions) == len(both.about) == 11


def test_neighbours_lie_between_a_style_and_those_of_seeds(translator: Translator) -> None:
    styles = Seeds("anime", (0,), 1.0).styles(translator)
    seeds = Seeds("anime", (5, 6), 1.0).styles(translator)
    near = Near(styles, (5, 6), 0.25).styles(translator)
    torch.testing.assert_close(near.vectors, 0.75 * styles.vectors + 0.25 * seeds.vectors)
    assert near.captions == (("near", 1), ("near", 2))
    assert near.provenance(1).details["towards"] == "6"


def test_what_a_style_was_made_of_is_told(translator: Translator) -> None:
    """All that it takes to make it again, as the metadata of a saved picture promises."""
    a, b = Seeds("anime", (22,), 0.7).styles(translator), Seeds("anime", (5,), 1.0).styles(translator)
    near = Near(a, (4711,), 0.3).styles(translator)
    assert near.about == ({"of": "seed 22, psi 0.7", "distance": "0.3", "towards": "4711"},)
    between = near.towards(b, 0.4)
    origin = "near 1, of seed 22, psi 0.7, distance 0.3, towards 4711"
    assert between.about == ({"between": "40 %", "from": origin, "to": "seed 5, psi 1"},)
    for _ in range(9):
        between = between.towards(b, 0.4)
    assert max(map(len, between.about[0].values())) <= drawing.MAX_ORIGIN
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    blend = drawing.References("anime", tuple(pictures), ("ab", "cd"), (0.2, 1.0), 1.0).styles(translator).part(2, 3)
    assert blend.about == ({"reference": "ab, cd", "strength": "1", "weights": "0.2, 1"},)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_each_faces_drawing_is_drawn_again_by_its_style(
    strength: float, translator: Translator, portrait: Image.Image
) -> None:
    """Of less strength, a reference's style has some of the face's own."""
    two = Image.new("RGB", (1024, 512))
    two.paste(portrait, (0, 0))
    two.paste(ImageEnhance.Color(portrait).enhance(3), (512, 0))
    prepared = drawing.prepare(Source.open(two), translator.config, (1, 2))
    recipe = drawing.References("anime", (Image.new("RGB", (32, 32), "red"),), ("ab",), None, strength)
    drawn = drawing.draw(prepared, recipe, translator.paint)
    for index, crop in enumerate(prepared.crops):
        again = translator.paint(Task((crop,), drawn.style(index))).rows[0]
        assert same(list(again), [drawn.pictures[index]])
    assert (strength == 1) == torch.equal(*drawn.vectors)


def test_what_is_saved_says_whether_it_is_black_and_white_and_all_that_is_on_a_sheet(
    translator: Translator, portrait: Image.Image
) -> None:
    prepared = drawing.prepare(Source.open(portrait), translator.config)
    recipe = drawing.seeds(translator.config, None, 2, 7, 0.5)
    gray, colour = (drawing.draw(prepared, recipe, translator.paint, grayscale=g) for g in (True, False))
    assert gray.provenance(1).details == {"domain": "anime", "psi": "0.5", "grayscale": "yes"}
    assert colour.provenance(1).details == {"domain": "anime", "psi": "0.5"}
    assert gray.enlarged(0, 64)[1].details["grayscale"] == "yes"
    sheet = colour.sheet_provenance()
    assert (sheet.seed, sheet.composite) == (None, True)  # the face as it was is on it
    assert sheet.details == {"domain": "anime", "psi": "0.5", "styles": "seed 7, seed 8"}


def test_styles_of_another_model_are_refused(translator: Translator) -> None:
    with pytest.raises(RequestError, match="belongs to the model other"):
        translator.paint(Task((), Styles(torch.zeros(1, 8), "other", "anime", (("seed", 0),), ({},))))


def test_strength_zero_is_the_photos_own_style(translator: Translator, portrait: Image.Image) -> None:
    crop = drawing.prepare(Source.open(portrait), translator.config).crops[0]
    references = (Image.new("RGB", (32, 32), "red"), Image.new("RGB", (32, 32), "blue"))
    painted = translator.paint(Task((crop,), References("anime", references, ("a", "b"), None, 0.0)))
    assert same([painted.rows[0][0]], [painted.rows[0][1]])
    own = translator.own_style(translator.encode(crop))
    torch.testing.assert_close(painted.styles.vectors, own.expand(2, -1))
    full = translator.paint(Task((crop,), References("anime", references, ("a", "b"), None, 1.0)))
    assert not same([full.rows[0][0]], [full.rows[0][1]])
    # what was drawn can be drawn again from its styles alone
    assert same(list(translator.paint(Task((crop,), painted.styles)).rows[0]), list(painted.rows[0]))


def test_several_references_end_in_their_blend(translator: Translator, portrait: Image.Image) -> None:
    pictures = [Reference(portrait, 1.0), Reference(portrait.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.0)]
    recipe = drawing.references(translator.config, pictures, "photo")
    assert len(recipe) == 3
    styles = recipe.styles(translator)
    assert styles.captions == (("reference", 1), ("reference", 2), ("blend", 0))
    torch.testing.assert_close(styles.vectors[2], styles.vectors[0])
    assert len(drawing.references(translator.config, pictures[:1], "photo")) == 1
    with pytest.raises(RequestError, match="9 references are too many: at most 8"):
        drawing.references(translator.config, pictures[:1] * 9, "photo")
    with pytest.raises(RequestError, match="at least one reference"):
        drawing.references(translator.config, [], "photo")


# drawing


def test_what_crosses_to_another_process_is_small_and_comes_back_the_same(
    translator: Translator, portrait: Image.Image
) -> None:
    crop = drawing.prepare(Source.open(portrait), translator.config).crops[0]
    style = Seeds("anime", (1,), 1.0).styles(translator)
    recipes = [Seeds("anime", (1, 2), 0.7), References("anime", (crop,), ("x",), (1.0,), 0.5), Near(style, (1,), 0.5)]
    for recipe in [*recipes, style]:
        task = Task((crop,), recipe)
        sent = pickle.dumps(task)
        assert len(sent) < 20_000
        expected = translator.paint(task)
        answer = pickle.loads(pickle.dumps(translator.paint(pickle.loads(sent))))
        assert same(list(answer.rows[0]), list(expected.rows[0]))
        assert torch.equal(answer.styles.vectors, expected.styles.vectors)
    for error in (PhotoError("photo_large", width=9, height=9, limit=50), NoFaceError(), RequestError("no_photo")):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.key, copy.values, str(copy)) == (type(error), error.key, error.values, str(error))


def test_work_is_bounded_as_a_product(translator: Translator, portrait: Image.Image) -> None:
    prepared = drawing.prepare(Source.open(portrait), translator.config)
    many = drawing.Prepared(prepared.source, prepared.aligned * 5)
    with pytest.raises(RequestError, match="5 faces in 16 styles are too many drawings: at most 64"):
        drawing.draw(many, drawing.seeds(translator.config, None, 16, 0, 1), translator.paint)


def test_faces_are_chosen_by_number(translator: Translator, portrait: Image.Image) -> None:
    source = Source.open(portrait)
    assert len(drawing.prepare(source, translator.config, (1, 1)).aligned) == 1
    assert drawing.prepare(source, translator.config).numbers == (1,)
    with pytest.raises(NoFaceError, match="There is no face 2: 1 were found"):
        drawing.prepare(source, translator.config, (1, 2))
    with pytest.raises(RequestError, match="No face is chosen"):
        drawing.prepare(source, translator.config, ())
    wall = Source.open(Image.new("RGB", (90, 60), "#887766"))
    with pytest.raises(NoFaceError):
        drawing.prepare(wall, translator.config)
    assert drawing.prepare(wall, translator.config, square=drawing.MIDDLE).crops[0].size == (32, 32)


def test_a_preview_shows_what_the_whole_photo_does(translator: Translator, portrait: Image.Image) -> None:
    large = portrait.resize((3000, 3000), Image.Resampling.BICUBIC)
    prepared = drawing.prepare(Source.open(large), translator.config)
    drawn = drawing.draw(prepared, drawing.seeds(translator.config, None, 2, 0, 1), translator.paint)
    small, whole = drawn.in_preview(1), drawn.in_photo(1)
    assert (small.size, whole.size) == ((1024, 1024), (3000, 3000))
    reduced = np.asarray(whole.resize((1024, 1024), Image.Resampling.LANCZOS), int)
    assert abs(np.asarray(small, int) - reduced).mean() < 1.5
    assert abs(np.asarray(drawn.prepared.source.preview, int) - reduced)[240:480].mean() > 5


def test_the_second_face_s_hair_is_found_in_the_photo_whatever_was_looked_at_before(
    translator: Translator, portrait: Image.Image
) -> None:
    two = Image.new("RGB", (1024, 512))
    for left in (0, 512):
        two.paste(portrait, (left, 0))
    prepared = drawing.prepare(Source.open(two), translator.config, (1, 2))
    drawn = drawing.draw(prepared, drawing.seeds(translator.config, None, 2, 0, 1), translator.paint)
    drawing.CACHE.clear()
    expected = drawn.in_photo(0).tobytes()
    drawing.CACHE.clear()
    drawn.in_photo(1)
    assert drawn.in_photo(0).tobytes() == expected


def test_everything_in_one_archive(translator: Translator, portrait: Image.Image) -> None:
    prepared = drawing.prepare(Source.open(portrait), translator.config)
    drawn = drawing.draw(prepared, drawing.seeds(translator.config, None, 2, 7, 1), translator.paint)
    told: list[float] = []
    out = io.BytesIO()
    drawn.pack(out, 1, progress=told.append)
    with zipfile.ZipFile(out) as archive:
        names = ["crop.png", "anime-seed-7.png", "anime-seed-8.png", "anime-sheet.png", "anime-in-photo.png"]
        assert archive.namelist() == names
        assert read_provenance(io.BytesIO(archive.read("anime-seed-8.png")))["seed"] == "8"
        whole = archive.read("anime-in-photo.png")
        assert "composite" in read_provenance(io.BytesIO(whole))["DigitalSourceType"]
        assert Image.open(io.BytesIO(whole)).size == portrait.size
    assert told == sorted(told)
    assert told[-1] == 1


def test_an_archive_has_every_face(translator: Translator, portrait: Image.Image) -> None:
    two = Image.new("RGB", (1024, 512))
    for left in (0, 512):
        two.paste(portrait, (left, 0))
    prepared = drawing.prepare(Source.open(two), translator.config, (1, 2))
    drawn = drawing.draw(prepared, drawing.seeds(translator.config, None, 1, 7, 1), translator.paint)
    told: list[float] = []
    drawn.pack(out := io.BytesIO(), 0, progress=told.append)
    with zipfile.ZipFile(out) as archive:
        assert [name for name in archive.namelist() if "crop" in name] == ["face-1-crop.png", "face-2-crop.png"]
    assert told[-1] == 1


def test_a_morph_to_another_domain_says_so(translator: Translator) -> None:
    """A seed is another style in each domain."""
    a, b = (drawing.seeds(translator.config, domain, 1, 7, 0.5).styles(translator) for domain in ("anime", "photo"))
    assert a.towards(b, 0.4).provenance(0).details == {
        "domain": "anime",
        "between": "40 %",
        "from": "seed 7, psi 0.5",
        "to": "seed 7, domain photo, psi 0.5",
    }
    assert [drawing.joined([a, b]).origin(index) for index in (0, 1)] == [
        "seed 7, psi 0.5",
        "seed 7, domain photo, psi 0.5",
    ]
    assert "domain" not in a.towards(a, 0.4).provenance(0).details["to"]


def test_a_walk_has_a_picture_a_frame(translator: Translator, portrait: Image.Image) -> None:
    crop = drawing.prepare(Source.open(portrait), translator.config).crops[0]
    stops = Seeds("anime", (0, 1), 1.0)
    frames = list(drawing.walk(crop, stops, 70, translator.paint))
    assert len(frames) == 70
    ends = translator.paint(Task((crop,), stops)).rows[0]
    assert same([frames[0], frames[-1]], list(ends))


def test_after_the_last_seed_comes_the_first(translator: Translator) -> None:
    last = drawing.MAX_SEED
    assert drawing.seeds(translator.config, None, 3, last - 1, 0.7).numbers == (last - 1, last, 0)
    style = drawing.seeds(translator.config, None, 1, last, 0.7)
    assert drawing.near(style, 0.5, 2, last).numbers == (last, 0)


@pytest.mark.parametrize(
    "value", [None, "much", [], {}, "9" * 200_000, float("inf"), float("nan"), -1, 17, 1.5, 10**400, b"\0"]
)
def test_numbers_are_checked_whatever_they_are(translator: Translator, value: object) -> None:
    with pytest.raises(RequestError) as refused:
        drawing.seeds(translator.config, None, value, 0, 0.7)
    assert len(str(refused.value)) < 200


def test_what_is_said_back_is_cut() -> None:
    assert len(str(UserError("bad_model", value="x" * 10**6, choices="y" * 10**6))) < 300
