"""Faces found, aligned, cropped and put back."""

from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import facenet_pytorch
import numpy as np
import pytest
import torch
from conftest import FACES
from PIL import Image

from stargan.models.config import ANIME_FRAMING
from stargan.pictures import faces
from stargan.pictures.io import open_photo

SIZE = 128
FRAMING = np.array(ANIME_FRAMING)


@pytest.fixture(scope="module")
def face(portrait: Image.Image) -> faces.Face:
    (found,) = faces.find(portrait)
    return found


@pytest.fixture(scope="module")
def aligned(portrait: Image.Image, face: faces.Face) -> faces.Aligned:
    return faces.align(portrait, face.landmarks, ANIME_FRAMING, SIZE)


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def distance(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference in levels."""
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def stripes(width: int, height: int) -> Image.Image:
    """Every pixel column and row its own colour, so that each pixel can be told from the others."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 37 % 256, y * 41 % 256, (x + y) * 11 % 256], axis=2).astype(np.uint8))


# finding


def test_a_portrait(face: faces.Face) -> None:
    left, top, right, bottom = face.box
    assert 0.9 <= face.score <= 1
    assert all(type(value) is float for value in (*face.box, face.score))
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == np.float64
    assert ((face.landmarks > (left, top)) & (face.landmarks < (right, bottom))).all()
    # of this photo, read off by hand
    by_hand = np.array([(205, 103), (247, 104), (225, 127), (204, 142), (246, 142)])
    assert np.abs(face.landmarks - by_hand).max() < 5
    with pytest.raises(ValueError, match="read-only"):
        face.landmarks[0] = 0  # it is shared by all who ask for the same photo


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "CMYK"])
def test_other_modes(portrait: Image.Image, face: faces.Face, mode: str) -> None:
    (found,) = faces.find(portrait.crop((120, 0, 330, 230)).convert(mode))
    assert np.abs(found.landmarks + np.array([120, 0]) - face.landmarks).max() < 4


def test_a_big_photo_in_its_own_coordinates(portrait: Image.Image, face: faces.Face) -> None:
    big = portrait.resize((2600, 2600), Image.Resampling.BICUBIC)
    (found,) = faces.find(big)
    assert np.abs(found.landmarks * 512 / 2600 - face.landmarks).max() < 2.5
    assert np.abs(np.array(found.box) * 512 / 2600 - face.box).max() < 12


@pytest.mark.parametrize("size", [(1, 1), (19, 19), (19, 400), (400, 19), (20, 20), (21, 37), (3000, 30), (1024, 20)])
def test_tiny_and_thin_pictures(size: tuple[int, int]) -> None:
    assert faces.find(stripes(*size)) == []


@pytest.mark.parametrize("colour", ["black", "white", "gray"])
def test_no_face(colour: str) -> None:
    assert faces.find(Image.new("RGB", (200, 150), colour)) == []


def test_no_face_in_a_landscape_of_noise() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    assert faces.find(Image.fromarray(levels)) == []


def test_ten_faces_biggest_first(portrait: Image.Image) -> None:
    head = portrait.crop((140, 10, 310, 190))
    canvas = Image.new("RGB", (1000, 420), (196, 186, 180))
    widths = [120 + 8 * n for n in range(10)]
    for n, width in enumerate(widths):
        canvas.paste(head.resize((width, width * 18 // 17), Image.Resampling.LANCZOS), (n % 5 * 200, n // 5 * 210))
    found = faces.find(canvas)
    assert len(found) == 10
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (face.box for face in found)]
    assert areas == sorted(areas, reverse=True)
    cells = [(int(x // 200), int(y // 210)) for x, y in (face.landmarks[2] for face in found)]
    assert sorted(cells) == [(x, y) for x in range(5) for y in range(2)]
    assert cells[0][1] == 1  # the lower row holds the bigger ones


@pytest.mark.parametrize(
    "box", [(190, 70, 512, 512), (0, 0, 250, 300), (100, 100, 300, 400), (0, 0, 300, 145), (200, 95, 400, 300)]
)
def test_a_face_cut_by_the_edge(portrait: Image.Image, face: faces.Face, box: tuple[int, ...]) -> None:
    cut = portrait.crop(box)
    (found,) = faces.find(cut)
    assert np.abs(found.landmarks + np.array(box[:2]) - face.landmarks).max() < 5  # of a face of 87 px
    left, top, right, bottom = found.box
    assert 0 <= left < right <= cut.width
    assert 0 <= top < bottom <= cut.height


def test_many_photos_at_once_as_one_by_one(portrait: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one size and of several, with and without a face, cut by the edge; in few batches, the results are the same."""
    head = portrait.crop((124, 0, 324, 200))
    photos = [head.rotate(angle) for angle in range(-12, 13, 4)]  # no face is in the same place
    photos += [
        portrait,
        portrait.crop((190, 40, 390, 240)),
        stripes(200, 200),
        Image.new("RGB", (19, 19)),
        head.convert("L"),
    ]
    photos += [photo.resize((150, 100)) for photo in photos[:3]]
    single = [faces.find(photo) for photo in photos]
    assert {len(found) for found in single} == {0, 1}
    batches: list[int] = []
    detect = faces._detect_batch
    monkeypatch.setattr(faces, "_detect_batch", lambda pictures: batches.append(len(pictures)) or detect(pictures))
    monkeypatch.setitem(faces.BATCH_PIXELS, "cpu", 10 * 200 * 200)
    together = faces.find_all(photos)
    assert batches[0] == 10  # of the 200 px; then the larger, the smaller, and those looked at again
    assert len(batches) < len(photos)
    for one, many in zip(single, together, strict=True):
        assert len(one) == len(many)
        for a, b in zip(one, many, strict=True):
            assert np.abs(a.landmarks - b.landmarks).max() < 1e-3
            assert np.abs(np.array(a.box) - b.box).max() < 1e-3
            assert abs(a.score - b.score) < 1e-5


def test_many_threads_share_one_detector(portrait: Image.Image) -> None:
    head = portrait.crop((140, 10, 310, 190))
    faces._detector.cache_clear()
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(faces.find, [head] * 6))
    assert faces._detector.cache_info().misses == 1
    assert all(len(found) == 1 for found in results)
    assert all(np.array_equal(found[0].landmarks, results[0][0].landmarks) for found in results)


def test_no_gpu_is_taken_where_another_device_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(facenet_pytorch, "MTCNN", lambda **options: options["device"])  # there is no GPU to put it on
    try:
        faces.search_on(torch.device("cpu"))
        assert faces._detector() == "cpu"
        faces.search_on(torch.device("cuda", 0))
        assert faces._detector() == "cuda"
    finally:
        faces._detector.cache_clear()


def test_the_detector_is_imported_when_it_is_needed() -> None:
    code = "import sys, stargan, stargan.pictures.faces; print('facenet_pytorch' in sys.modules, 'torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("domain", ["female", "male"])
def test_photos_of_many_people(domain: str) -> None:
    files = sorted((FACES / "val" / domain).glob("*.webp"))[::4]
    if not files:
        pytest.skip(f"{FACES} is absent")
    found = [faces.find(open_photo(file)) for file in files]
    assert np.mean([len(f) >= 1 for f in found]) >= 0.95
    # these photos are cropped to the framing, so their landmarks measure it
    with_face = [f[0].landmarks / open_photo(file).width for file, f in zip(files, found, strict=True) if f]
    assert np.abs(np.mean(with_face, axis=0) - FRAMING).max() < 0.04


# aligning


def test_similarity_is_recovered() -> None:
    angle, scale, shift = math.radians(33), 0.37, np.array([12.5, -40])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = np.random.default_rng(1).uniform(0, 500, (5, 2))
    matrix = faces.similarity(points, points @ turn.T + shift)
    assert matrix.shape == (2, 3)
    assert matrix.dtype == np.float64
    np.testing.assert_allclose(matrix, np.column_stack([turn, shift]), atol=1e-9)


def test_similarity_is_the_best_without_mirroring() -> None:
    from skimage.transform import SimilarityTransform

    dice = np.random.default_rng(2)
    for _ in range(20):
        source, target = dice.uniform(0, 100, (2, 5, 2))
        best = np.asarray(SimilarityTransform.from_estimate(source, target).params)[:2]
        np.testing.assert_allclose(faces.similarity(source, target), best, atol=1e-8)
        assert np.linalg.det(faces.similarity(source, target)[:, :2]) > 0


@pytest.mark.parametrize("points", [np.full((5, 2), 7.0), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_points_that_are_no_face(portrait: Image.Image, points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no face"):
        faces.align(portrait, points, ANIME_FRAMING, SIZE)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_landmarks_come_into_the_framing(portrait: Image.Image, face: faces.Face, size: int) -> None:
    result = faces.align(portrait, face.landmarks, ANIME_FRAMING, size)
    assert result.picture.size == (size, size)
    assert result.picture.mode == "RGB"
    assert np.abs(moved(result.matrix, face.landmarks) / size - FRAMING).max() < 0.03
    (again,) = faces.find(result.picture)  # the picture agrees with the matrix
    assert np.abs(again.landmarks / size - FRAMING).max() < 0.035


@pytest.mark.parametrize(
    ("angle", "scale", "offset"),
    [(0, 1, (60, 30)), (20, 1, (0, 0)), (-35, 0.7, (40, 10)), (0, 4.3, (0, 0)), (8, 0.5, (9, 0))],
)
def test_the_same_crop_however_the_photo_was_taken(
    portrait: Image.Image,
    face: faces.Face,
    aligned: faces.Aligned,
    angle: float,
    scale: float,
    offset: tuple[int, int],
) -> None:
    side = round(512 * scale)
    taken = portrait.resize((side, side), Image.Resampling.LANCZOS)
    taken = taken.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    canvas = Image.new("RGB", (taken.width + offset[0], taken.height + offset[1]), (190, 180, 175))
    canvas.paste(taken, offset)
    found = faces.find(canvas)[0]
    result = faces.align(canvas, found.landmarks, ANIME_FRAMING, SIZE)
    # where the taking brought the face, and alignment takes it back from
    turn = np.exp(-1j * math.radians(angle)) * side / 512
    points = (face.landmarks - 256) @ np.array([[turn.real, turn.imag], [-turn.imag, turn.real]])
    points += np.array(taken.size) / 2 + offset
    assert np.abs(moved(result.matrix, points) / SIZE - FRAMING).max() < 0.05
    middle = (16, 16, 112, 112)
    # a half-size photo has lost detail, which counts too; a crop that is 5 px off differs by 28
    assert distance(result.picture.crop(middle), aligned.picture.crop(middle)) < 24


@pytest.mark.parametrize("angle", [0, 30])
def test_the_matrix_is_what_the_picture_shows(angle: float) -> None:
    """A dot in the photo is where the matrix says, to a tenth of a pixel, however much the photo is reduced."""
    for step in (0.4, 1, 1.7, 3, 9, 33):
        width = round(64 * step * 1.6) + 40
        dot = np.array([width * 0.55, width * 0.47])
        y, x = np.mgrid[:width, :width] + 0.5
        levels = 255 * np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * (2.5 * max(step, 1)) ** 2))
        photo = Image.fromarray(levels.round().astype(np.uint8)).convert("RGB")
        c, s = math.cos(math.radians(angle)) / step, math.sin(math.radians(angle)) / step
        centre = np.array([width / 2, width / 2])
        turn = np.array([[c, -s], [s, c]])
        result = faces.warp(photo, np.column_stack([turn, [32, 32] - turn @ centre]), 64)
        seen = np.asarray(result.picture, dtype=float)[:, :, 0]
        y, x = np.mgrid[:64, :64] + 0.5
        where = np.array([(x * seen).sum(), (y * seen).sum()]) / seen.sum()
        np.testing.assert_allclose(where, moved(result.matrix, dot), atol=0.1, err_msg=f"at {step} px a pixel")


@pytest.mark.parametrize("step", [2, 5, 24])
def test_fine_patterns_do_not_alias(step: int) -> None:
    width = 64 * step
    board = np.indices((width, width)).sum(axis=0) % 2 * 255  # a checkerboard of single pixels: gray from afar
    photo = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    turn = faces.similarity(np.array([[0, 0], [width, 0]]), np.array([[10, 2], [62, 12]]))
    for result in (faces.warp(photo, turn, 64), faces.crop(photo, (0.3, 0.7, width - 0.5, width - 0.1), 64)):
        levels = np.asarray(result.picture, dtype=float)[4:-4, 4:-4]
        assert abs(levels.mean() - 127.5) < 3
        assert levels.std() < 6


def test_reflected_never_black(portrait: Image.Image, face: faces.Face) -> None:
    bright = Image.eval(portrait, lambda level: 128 + level // 2)
    for left, top, right, bottom in ((190, 70, 512, 512), (0, 0, 240, 150), (200, 95, 260, 150)):
        cut = bright.crop((left, top, right, bottom))
        result = faces.align(cut, face.landmarks - (left, top), ANIME_FRAMING, SIZE)
        assert np.asarray(result.picture).min() > 100
        # where the photo reaches, it is the same crop as of the whole photo
        whole = faces.align(bright, face.landmarks, ANIME_FRAMING, SIZE)
        y, x = np.mgrid[:SIZE, :SIZE] + 0.5
        origin = moved(np.linalg.inv(np.vstack([result.matrix, [0, 0, 1]]))[:2], np.stack([x, y], axis=-1))
        inside = ((origin > 3) & (origin < np.array(cut.size) - 3)).all(axis=-1)
        apart = np.abs(np.asarray(result.picture, dtype=float) - np.asarray(whole.picture, dtype=float))
        assert apart[inside].max() <= 2


# cropping


def test_a_crop_is_the_box(portrait: Image.Image) -> None:
    result = faces.crop(portrait, (100, 40, 228, 168), 128)
    assert distance(result.picture, portrait.crop((100, 40, 228, 168))) == 0
    np.testing.assert_allclose(result.matrix, [[1, 0, -100], [0, 1, -40]])
    half = faces.crop(portrait, (100, 40, 356, 296), 128)
    reduced = portrait.crop((100, 40, 356, 296)).resize((128, 128), Image.Resampling.LANCZOS)
    assert distance(half.picture, reduced) < 1.5


def test_a_crop_over_the_edge_is_mirrored() -> None:
    photo = stripes(40, 30)
    result = np.asarray(faces.crop(photo, (-50, -50, 50, 50), 100).picture)
    mirrored = np.pad(np.asarray(photo), ((50, 20), (50, 10), (0, 0)), mode="symmetric")
    np.testing.assert_array_equal(result, mirrored)


@pytest.mark.parametrize("box", [(10, 10, 10, 10), (20, 0, 10, 10), (float("nan"), 0, 10, 10), (0, 0, 1e9, 1e9)])
def test_boxes_that_cannot_be(portrait: Image.Image, box: faces.Box) -> None:
    with pytest.raises(ValueError, match="px"):
        faces.crop(portrait, box, 64)


def test_centre_crop(portrait: Image.Image) -> None:
    square = portrait.resize((128, 128))
    assert distance(faces.centre_crop(square, 128).picture, square) == 0
    wide = faces.centre_crop(portrait.crop((0, 100, 512, 228)), 128)
    assert distance(wide.picture, portrait.crop((192, 100, 320, 228))) == 0


@pytest.mark.parametrize("size", [(96, 96), (300, 900), (900, 300), (17, 16)])
def test_proposed_crop_is_a_square_of_the_picture(size: tuple[int, int]) -> None:
    left, top, right, bottom = faces.propose_crop(Image.new("RGB", size))
    assert right - left == bottom - top == min(size)
    assert left >= 0
    assert top >= 0
    assert right <= size[0]
    assert bottom <= size[1]
    assert (top + bottom) / 2 <= size[1] / 2  # faces are in the upper part of a standing figure


# putting back


@pytest.mark.parametrize("angle", [0, 24])
def test_an_untouched_crop_leaves_the_photo_as_it_was(portrait: Image.Image, face: faces.Face, angle: float) -> None:
    photo = portrait.rotate(angle, Image.Resampling.BICUBIC)
    turn = np.array([[math.cos(math.radians(angle)), -math.sin(math.radians(angle))]])
    turn = np.vstack([turn, [-turn[0, 1], turn[0, 0]]])
    landmarks = (face.landmarks - 256) @ turn + 256
    crop = faces.align(photo, landmarks, ANIME_FRAMING, 512)
    pasted = faces.paste_back(photo, crop, crop.picture)
    change = np.abs(np.asarray(pasted, dtype=float) - np.asarray(photo, dtype=float))
    # the crop is a twelfth of the photo; what is lost in it is the sharpness of single hairs
    assert change.mean() < 0.2
    assert np.percentile(change.max(axis=2), 99) < 8


def test_only_the_face_changes(portrait: Image.Image, face: faces.Face, aligned: faces.Aligned) -> None:
    before = portrait.copy()
    red = Image.new("RGB", (96, 96), (230, 30, 30))
    pasted = np.asarray(faces.paste_back(portrait, aligned, red), dtype=float)
    assert distance(portrait, before) == 0  # the photo given is not touched
    place = moved(aligned.matrix, np.stack(np.meshgrid(np.arange(512), np.arange(512)), axis=-1) + 0.5) / SIZE
    outside = ((place < 0) | (place > 1)).any(axis=-1)
    np.testing.assert_array_equal(pasted[outside], np.asarray(portrait)[outside])
    x, y = face.landmarks[2].round().astype(int)
    np.testing.assert_allclose(pasted[y, x], (230, 30, 30), atol=12)


@pytest.mark.parametrize("background", [(235, 235, 235), (20, 20, 40), (150, 60, 60)])
def test_no_frame_is_visible(background: tuple[int, int, int]) -> None:
    """A flat photo, a drawing of another flat colour: no step between neighbouring pixels may give the square away."""
    photo = Image.new("RGB", (400, 400), background)
    crop = faces.crop(photo, (100, 100, 300, 300), SIZE)
    drawn = Image.new("RGB", (SIZE, SIZE), (120, 130, 200))
    pasted = np.asarray(faces.paste_back(photo, crop, drawn), dtype=float)
    contrast = np.abs(np.array(background) - (120, 130, 200)).max()
    steps = max(np.abs(np.diff(pasted, axis=axis)).max() for axis in (0, 1))
    assert steps < contrast * 0.08
    np.testing.assert_allclose(pasted[200, 200], (120, 130, 200), atol=8)


def test_a_drawing_of_any_size_goes_to_the_same_place(portrait: Image.Image, aligned: faces.Aligned) -> None:
    drawn = aligned.picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    results = [
        faces.paste_back(portrait, aligned, drawn.resize((side, side), Image.Resampling.BICUBIC))
        for side in (128, 256, 512, 1024)
    ]
    assert max(distance(results[0], other) for other in results[1:]) < 0.3
    assert distance(results[0], portrait) > 0.5


def test_several_faces_in_succession(portrait: Image.Image, face: faces.Face) -> None:
    pair = Image.new("RGB", (620, 300))
    pair.paste(portrait.crop((70, 0, 380, 300)), (0, 0))
    pair.paste(portrait.crop((70, 0, 380, 300)), (310, 0))
    places = [face.landmarks + np.array([shift, 0]) for shift in (-70, 240)]
    crops = [faces.align(pair, landmarks, ANIME_FRAMING, SIZE) for landmarks in places]
    pasted = pair
    for crop, colour in zip(crops, ("red", "blue"), strict=True):
        pasted = faces.paste_back(pasted, crop, Image.new("RGB", (64, 64), colour))
    for landmarks, channel in zip(places, (0, 2), strict=True):
        pixel = pasted.getpixel(tuple(landmarks[2].round().astype(int).tolist()))
        assert pixel[channel] > 235
        assert sum(pixel) - pixel[channel] < 40


def test_a_face_at_the_edge_goes_back(portrait: Image.Image, face: faces.Face) -> None:
    cut = portrait.crop((200, 95, 400, 300))
    crop = faces.align(cut, face.landmarks - (200, 95), ANIME_FRAMING, SIZE)
    assert distance(faces.paste_back(cut, crop, crop.picture), cut) < 1.5
    apart = faces.crop(portrait, (-300, -300, -100, -100), 64)  # wholly beside the photo: nothing to do
    assert distance(faces.paste_back(portrait, apart, apart.picture), portrait) == 0


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000)])
def test_a_photo_of_twelve_megapixels_takes_little_memory(size: tuple[int, int]) -> None:
    import tracemalloc

    photo = Image.new("RGB", size, (200, 180, 170))
    tracemalloc.start()  # counts NumPy's arrays
    try:
        crop = faces.crop(photo, (-200, -200, 3200, 3200), SIZE)
        pasted = faces.paste_back(photo, crop, Image.new("RGB", (SIZE, SIZE), "navy"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pasted.size == size
    assert peak < 200e6
