"""What may be said to the person who asked: errors with a key and values.

``str(error)`` is the English sentence; the page says the same in the visitor's language, by the key.
"""

from __future__ import annotations

from functools import partial

# Of what a person gave, no more is said back than this many characters.
ECHO = 60
# Of what another program says went wrong, no more than this many.
MESSAGE = 300

SENTENCES: dict[str, str] = {
    # pictures
    "photo_unreadable": "The picture file cannot be read.",
    "photo_empty": "The file is empty.",
    "photo_heavy": "The file has {size} MB; at most {limit} MB are accepted.",
    "photo_bomb": "The picture is too large; at most {limit} megapixels are accepted.",
    "photo_kind": "The file is not a picture, or of a kind that cannot be read.",
    "photo_large": "The picture has {width} × {height} pixels; at most {limit} megapixels are accepted.",
    "photo_small": "The picture has only {width} × {height} pixels; at least {least} × {least} are needed.",
    "photo_broken": "The picture is broken or cut off.",
    "photo_dear": "The picture file would take too long to read. Save it anew with another program.",
    "photo_slow": "The picture was not there within {seconds} seconds. Save it, and give the file.",
    "photo_deadly": "Processes that worked on this picture ended: it is left out.",
    "photo_costly": "Reading this picture takes too much time or memory. Save it smaller, as JPEG or PNG.",
    # faces
    "no_face": "No face was found in this picture. Take one that shows a face from the front.",
    "no_such_face": "There is no face {number}: {count} were found.",
    # videos
    "clip_gone": "There is no video {file}.",
    "clip_kind": "{file} is not a video that can be read.",
    "clip_empty": "{file} has no picture in it.",
    "clip_long": "{file} is {seconds} seconds long; at most {limit} are possible.",
    "clip_longer": "{file} is longer than {limit} seconds, the most that is possible.",
    "clip_heavy": "{file} takes too long to read. Take a shorter video, or one of a smaller size.",
    "clip_broken": "{file} is broken.",
    "clip_no_face": "No face was found in {file}.",
    "clip_unwritten": "{file} could not be written: {detail}.",
    "clip_format": "A video is written as .mp4 or .gif, not as {file}.",
    # what was asked for
    "disk_full": "The app's disk is full. Please try again in an hour, when old results are deleted.",
    "queue_full": "Too many people are waiting. Please wait a minute and try again.",
    "queue_share": "{limit} of your requests are waiting. Please wait until one of them is done.",
    "bad_input": "What was sent is not what is asked for here.",
    "no_photo": "Choose a photo first.",
    "no_faces_chosen": "No face is chosen: choose at least one.",
    "no_clip": "Choose a video first.",
    "no_references": "Choose at least one reference picture.",
    "many_references": "{count} references are too many: at most {limit}.",
    "many_drawings": "{faces} faces in {styles} styles are too many drawings: at most {limit}.",
    "nothing_kept": "Save one of your favourites as style {slot} first.",
    "many_kept": "There is room for {limit} favourites: remove one first.",
    "no_favourite": "Choose one of your favourites first.",
    "nothing_chosen": "Choose a drawing first. Those of more than an hour ago are gone: they have to be drawn again.",
    "reference_gone": "A reference picture was deleted after an hour. Please remove it, and add it again.",
    "drawn_by_another": "These drawings are by the model {model}. Choose that model first.",
    "other_model": "Style {slot} belongs to the model {model}. Choose that model, or another favourite.",
    "gpu_full": "The graphics card's memory is full. Please try again in a minute, with fewer drawings.",
    "gpu_lost": "The graphics card does not answer any more. Whoever runs this app has to restart it.",
    "gpu_lent": "No graphics card can be lent for this now: {detail}",
    "left": "This was stopped, as the page that asked for it was closed.",
    "cancelled": "It was cancelled.",
    "stopping": "The app is being restarted. Please try again in a minute.",
    "restarted": "The app was restarted meanwhile, or the answer was fetched already. Please try again.",
    "bad_model": "There is no model {value}: choose one of {choices}.",
    "bad_domain": "The model {model} cannot draw {value}: choose one of {choices}.",
    "bad_number": "{name} must be a number from {low} to {high}, not {value}.",
}  # fmt: skip


class UserError(ValueError):
    """What was asked for cannot be done.

    Attributes:
        key: of the sentence, in :data:`SENTENCES`.
        values: what the sentence names; long ones are cut. None is said as nothing, in the sentence's language.
    """

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(key)
        self.key = key
        self.values = {name: _brief(value, MESSAGE if name == "detail" else ECHO) for name, value in values.items()}

    def __str__(self) -> str:
        return SENTENCES[self.key].format(**{name: _said(value) for name, value in self.values.items()})

    def __reduce__(self) -> tuple:  # what comes from another process must be as it was raised there
        return partial(type(self), self.key, **self.values), ()


class PhotoError(UserError):
    """A file that cannot be used as a picture."""


class NoFaceError(UserError):
    """No face was found where one is needed, or none of that number."""

    def __init__(self, key: str = "no_face", **values: object) -> None:
        super().__init__(key, **values)


class VideoError(UserError):
    """A video that cannot be read, used or written."""


class RequestError(UserError):
    """Something that no model can draw: nothing chosen, a number out of range, a domain or model that there is not."""


def _said(value: object) -> object:
    return "nothing" if value is None else value


def _brief(value: object, most: int) -> object:
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**most):
        return value
    text = str(value) if isinstance(value, str | Exception) else f"{type(value).__name__}"
    text = text if len(text) <= most else text[:most] + "…"
    # half a surrogate pair cannot be sent, and nothing invisible is worth saying back
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
