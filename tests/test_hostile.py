"""Strangers: every function of the running app, asked for what it was not made for."""

from __future__ import annotations

import base64
import http.client
import inspect
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from asking import Visitor, file_at, report
from PIL import Image
from serving import Server, start

from stargan.drawing import MAX_REFERENCES
from stargan.page import texts
from stargan.page.answers import LISTED
from stargan.page.serving import SESSIONS
from stargan.pictures.provenance import Provenance
from stargan.video import write_video

# Of an answer: longer than this is no sentence, and says back what was sent.
SENTENCE = 300
# On a machine that does much else; each is a matter of milliseconds.
SECONDS = 10.0
# By what was asked.
ANSWERED: dict[str, float] = {}
UNEXPECTED = texts.say("unexpected", "en")
# Values that an input may take: one that took so many heeds none, such as a flag, and each costs a drawing or a clip.
TAKEN = 2


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: dict[str, Any] = {
    "negative": -1,
    "fraction": 0.5,
    "huge": 1e308,
    "huge whole": 10**30,
    "infinite": math.inf,
    "none at all": math.nan,
    "text": "<img src=x onerror=alert(1)>",
    "long text": "x" * 200_000,
    "surrogate": "\ud800\0",
    "list": [1],
    "long list": ["x"] * 10_000,
    "nested": nested(200),
    "mixed": [None, {"a": [math.nan]}, "x" * 200_000],
    "dict": {"a": 1},
    "dict that updates": {"__type__": "update", "value": "x" * 1000, "visible": True},
    "value of a property": {"value": {"value": 1}},
    "file outside": file_at("/etc/passwd"),
    # gradio looks at what is marked as a file alone
    "unmarked file outside": {"path": "/etc/passwd"},
    "unmarked files outside": [{"image": {"path": "/etc/passwd"}, "caption": None}],
    "endless file": {"path": "/dev/zero"},
    "files outside": [{"image": file_at("/etc/passwd"), "caption": "x" * 200_000}],
    "url within": {"url": "http://127.0.0.1:9/", "path": "", "meta": {"_type": "gradio.FileData"}},
    "no data": {"url": "data:image/png;base64,AAAA", "path": "x" * 200_000, "meta": {"_type": "gradio.FileData"}},
    # last, as many inputs may be left empty
    "true": True,
    "empty text": "",
    "nothing": None,
}  # fmt: skip
# What came of a click: its place in a gallery, a table or a text.
EVENTS: list[Any] = [
    None,
    *({"index": value, "value": value} for value in (-1, 10**9, 1e308, math.nan, "x" * 200_000, [1], {"a": 1}, None)),
    {"x": 1}, [1], "x" * 200_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the app takes for the system's."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[Server]:
    server = start(TMPDIR=str(temporary))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def photo(portrait: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "portrait.png"
    portrait.save(path)
    return path


@pytest.fixture(scope="module")
def visitor(server: Server, photo: Path) -> Visitor:
    """One whose session holds drawings and a kept style, so that no function refuses for the lack of them."""
    visitor = Visitor(server.url)
    for function in visitor.functions:
        if any(function["api_name"].startswith(name) for name in ("draw_latent", "draw_mixed", "keep")):
            visitor.ask(function["id"], usual(visitor, function, photo))
    return visitor


def usual(visitor: Visitor, function: dict, photo: Path) -> list:
    """What the page would send: each component's own value, and a photo where one is wanted."""
    return [_usual(visitor, component, photo) for component in function["components"]]


def _usual(visitor: Visitor, component: dict, photo: Path) -> Any:
    kind, properties = component["type"], component["props"]
    if kind == "video":
        return visitor.upload(clip_of(photo))
    if kind == "image" and properties.get("streaming"):
        data = base64.b64encode(photo.read_bytes()).decode()
        return {"url": f"data:image/png;base64,{data}", "path": "", "meta": {"_type": "gradio.FileData"}}
    if kind == "image":
        return visitor.upload(photo)
    if kind == "gallery":
        return [{"image": visitor.upload(photo), "caption": None}]
    if kind == "checkboxgroup":
        return [1]
    if kind == "dataset":
        return 0
    return 1 if properties.get("label") in ("count",) else properties.get("value")


def clip_of(photo: Path) -> Path:
    """Three frames, beside the photo."""
    clip = photo.with_name("clip.mp4")
    if not clip.exists():
        with Image.open(photo) as picture:
            write_video([picture.resize((256, 256))] * 3, clip, 10, Provenance("", None, composite=True))
    return clip


def names() -> dict[str, bool]:
    """Of every function that the app has, with its number, as one handler serves several: whether an earlier one does the same
    with the same inputs."""
    from stargan.page import layout

    found, seen = {}, set()
    for number, function in layout.build().fns.items():
        if function.fn:
            inputs = tuple(component._id for component in function.inputs)
            same = (inspect.unwrap(function.fn).__code__, inputs, "select" in str(function.targets))
            found[f"{number}-{function.api_name}"] = same in seen
            seen.add(same)
    return found


def test_a_request_is_bounded(visitor: Visitor) -> None:
    assert visitor.post(0, ["x" * 9_000_000]).status_code == 413
    # what is called an upload and is none
    for path in ("gradio_api/call/upload", "gradio_api/run/upload", "upload"):
        assert visitor.http.post(path, content=b"x" * 9_000_000).status_code == 413
    parts = (b"x" * 1_000_000 for _ in range(12))  # without saying how much it will be
    with pytest.raises(httpx.HTTPError):
        visitor.http.post("gradio_api/queue/join", content=parts, timeout=10).raise_for_status()


def test_an_upload_is_bounded(visitor: Visitor) -> None:
    """By what it says, and by what comes."""
    address = visitor.http.base_url
    with closing(http.client.HTTPConnection(address.host, address.port, timeout=30)) as claiming:
        claiming.putrequest("POST", "/gradio_api/upload")
        claiming.putheader("Content-Length", "300000000")
        claiming.endheaders()
        assert claiming.getresponse().status == 413
    kind, sent = {"content-type": "multipart/form-data; boundary=x"}, 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(300):
            sent += 1_000_000
            yield bytes(1_000_000)
            if sent % 150_000_000 == 0:
                yield b'\r\n--x\r\nContent-Disposition: form-data; name="files"; filename="b.png"\r\n\r\n'

    with pytest.raises(httpx.HTTPError):
        visitor.http.post("gradio_api/upload", content=parts(), headers=kind).raise_for_status()
    assert sent < 290_000_000


def test_what_no_part_of_the_page_needs_is_not_there(visitor: Visitor, temporary: Path) -> None:
    """Gradio would hand a clip to ffmpeg, as often and as long as it takes, and keep it."""
    before = set(temporary.iterdir())
    for path in (
        "gradio_api/process_recording",
        "gradio_api/component_server",
        "process_recording/",
        "gradio_api/deep_link",
    ):
        answer = visitor.http.post(path, files={"video": ("a.mp4", bytes(100_000))}, follow_redirects=True)
        assert answer.status_code == 404
    assert not {file for file in set(temporary.iterdir()) - before if file.is_file()}


@pytest.mark.parametrize("body", [{"data": []}, {"data": [], "session_hash": "mine"}])
def test_an_endpoint_that_is_not_there_is_said_in_a_sentence(server: Server, visitor: Visitor, body: dict) -> None:
    before = server.log.stat().st_size
    for way in ("call", "run", "api"):
        answer = visitor.http.post(f"gradio_api/{way}/latent_gird", json=body)
        assert (answer.status_code, answer.json()["detail"].partition(":")[0]) == (404, "There is no such endpoint")
    assert "Traceback" not in server.log.read_text()[before:]


def test_no_file_is_read_that_nobody_uploaded(visitor: Visitor, photo: Path) -> None:
    """However it is written, of whatever function; nor is it told whether there is such a file."""
    asked = 0
    for function in visitor.functions:
        good = usual(visitor, function, photo)
        for index, component in enumerate(function["components"]):
            if component["type"] not in ("image", "gallery", "video"):
                continue
            answers = set()
            for path in (str(photo), f"{photo}.none", "/dev/zero", "/etc/passwd"):
                for file in ({"path": path}, {"path": path, "url": None, "is_stream": True}, file_at(path)):
                    value = [{"image": file, "caption": None}] if component["type"] == "gallery" else file
                    answer = visitor.ask(function["id"], [*good[:index], value, *good[index + 1 :]])
                    answers.add((answer["success"], (answer["output"] or {}).get("error")))
                    asked += 1
            assert answers == {(False, texts.say("bad_input", "en"))}, (function["api_name"], component["type"])
    assert asked > 100


def test_a_long_list_is_refused_unread(visitor: Visitor, photo: Path) -> None:
    function = next(one for one in visitor.functions if one["api_name"] == "reference_mix")
    good, file = usual(visitor, function, photo), visitor.upload(photo)
    gallery = [component["type"] for component in function["components"]].index("gallery")
    for count in (MAX_REFERENCES + 1, LISTED, LISTED + 1, 9_000):
        said = "many_references" if count <= LISTED else "bad_input"
        pictures = [{"image": file, "caption": None}] * count
        answer = visitor.ask(function["id"], [*good[:gallery], pictures, *good[gallery + 1 :]])
        assert answer["output"]["error"] == texts.say(said, "en", count=count, limit=MAX_REFERENCES), count


def test_programs_take_nobodys_session(visitor: Visitor, photo: Path) -> None:
    """Each of their calls has one of its own, to which it never comes back."""
    for _ in range(SESSIONS + 1):
        answer = visitor.http.post("gradio_api/call/list_models", json={"data": []}).raise_for_status()
        event = answer.json()["event_id"]
        assert "event: complete" in visitor.http.get(f"gradio_api/call/list_models/{event}").text
    pack = next(one for one in visitor.functions if one["api_name"] == "pack")
    answer = visitor.ask(pack["id"], usual(visitor, pack, photo))
    assert answer["success"], answer["output"]


def test_nothing_is_asked_past_the_queue(visitor: Visitor, photo: Path) -> None:
    """Where neither its length nor anybody's share of it would hold."""
    refused = "join the queue"
    for way in ("run", "api"):
        answer = visitor.http.post(f"gradio_api/{way}/latent_grid", json={"data": [visitor.upload(photo)]})
        assert answer.status_code == 404
        assert refused in answer.text
    direct = set()
    for function in visitor.functions:
        body = {"data": [], "fn_index": function["id"], "session_hash": visitor.session}
        answer = visitor.http.post("gradio_api/run/predict", json=body)
        if answer.status_code != 404 or refused not in answer.text:
            direct.add(function["api_name"].rstrip("_0123456789"))
    # what takes no time, and is not to wait for what does
    assert direct <= {"lambda", "example_photo", "remove", "remove_all", "as_slot"}


def test_a_file_of_another_host_is_not_handed_on(visitor: Visitor) -> None:
    url = "http://example.com/x.png"
    for path in (f"={url}", f"={url.replace('http', 'https')}", f"=HTTP{url[4:]}", f"/{url}", f"={url}/file=x"):
        answer = visitor.http.get(f"gradio_api/file{path}")
        assert answer.status_code == 403
        assert "no file of this app" in answer.text


@pytest.mark.parametrize("name", ["x.txt", "x.json", "x.html", "x.svg", "x.xml", "x.js", "x", "x.png", "x.mp4"])
def test_only_pictures_and_clips_are_shown(visitor: Visitor, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<script>alert(1)</script>")
    path = visitor.upload(tmp_path / name)["path"]
    headers = visitor.http.get(f"gradio_api/file={path}").raise_for_status().headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers.get("content-disposition", "").startswith("attachment") is (name not in ("x.png", "x.mp4"))


@pytest.mark.parametrize(("name", "repeated"), names().items())
def test_whatever_is_asked_gets_a_short_answer(
    server: Server, visitor: Visitor, photo: Path, name: str, repeated: bool
) -> None:
    number = int(name.partition("-")[0])
    function = next(function for function in visitor.functions if function["id"] == number)
    good, wrong, taken = usual(visitor, function, photo), [], Counter[str]()
    events = EVENTS if "select" in str(function["targets"]) and not repeated else []
    requests = [(good, event, "event", f"{event!s:.40}") for event in events]
    for index, component in enumerate([] if repeated else function["components"]):
        if component["type"] != "state":  # held by the app; what is sent for it is not read
            for kind, value in HOSTILE.items():
                where = f"{component['type']} {index}"
                requests.append(([*good[:index], value, *good[index + 1 :]], None, where, kind))
    requests += [(data, None, "values", str(len(data))) for data in ([], good * 3, good[:-1])]
    for data, event, where, kind in requests:
        if taken[where] >= TAKEN:
            continue
        label = f"{where}: {kind}"
        before, begin = server.log.stat().st_size, time.monotonic()
        answer = visitor.ask(number, data, event)
        seconds, error = time.monotonic() - begin, (answer["output"] or {}).get("error")
        taken[where] += answer["success"]
        with server.log.open("rb") as log:
            log.seek(before)
            said = log.read().decode(errors="replace")
        if not answer["success"] and not (isinstance(error, str) and 0 < len(error) < SENTENCE and error != UNEXPECTED):
            wrong.append(f"{label}: answered {error!s:.200}")
        if seconds > SECONDS:
            wrong.append(f"{label}: took {seconds:.1f} s")
        if "Traceback" in said or "ERROR" in said:
            wrong.append(f"{label}: {said[-600:]}")
        ANSWERED[f"{name} {label}"] = seconds
    assert not wrong, "\n".join(wrong)


def test_what_came_of_it() -> None:
    seconds = sorted(ANSWERED.values())
    report(
        "hostile", f"{len(seconds)} wrong values, a sentence each; the median after {seconds[len(seconds) // 2]:.3f} s"
    )
