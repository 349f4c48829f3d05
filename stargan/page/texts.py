"""Every text of the app, in English and Japanese.

Labels are translated by the page itself (the tables go to ``gr.I18n``); what has a number or a name in it is put
together here, in the language that the visitor's browser asks for.
"""

from __future__ import annotations

import re
from functools import partial

LANGUAGES = ("en", "ja")

TEXTS: dict[str, tuple[str, str]] = {
    # the page
    "title": ("Faces drawn as anime", "顔写真をアニメに"),
    "intro": (
        "# Faces drawn as anime\nA photo of a face goes in; drawings of the same face come out. Many different ones, or one in the "
        "style of a picture you choose.",
        "# 顔写真をアニメに\n顔写真を入れると、同じ顔のアニメ絵になります。いろいろな絵柄でも、選んだ絵の絵柄でも描けます。",
    ),
    "privacy": (
        "Your photo stays on the computer that runs this app, is used for your drawings alone, and is deleted within an hour. "
        "Saved drawings say in their metadata that a model made them; where and when your photo was taken is not passed on.",
        "写真はこのアプリが動いているコンピューターの中だけで、絵を描くためだけに使われ、1時間以内に消去されます。保存した絵には、"
        "モデルが作った画像であることが記録されます。元の写真の撮影場所や日時は引き継がれません。",
    ),
    "model": ("Model", "モデル"),
    "tab_diversity": ("Diversity", "いろいろな絵柄"),
    "tab_mixing": ("Style mixing", "絵柄を選ぶ"),
    "tab_explore": ("Explore", "絵柄をさがす"),
    "photo": ("Photo", "写真"),
    "examples": ("Examples", "例"),
    "faces": ("Faces to draw", "描く顔"),
    "numbered": ("Faces found", "見つかった顔"),
    "numbered_alt": ("The photo with a numbered frame around each face", "顔ごとに番号つきの枠を付けた写真"),
    "crop_x": ("Square: left – right", "枠の左右"),
    "crop_y": ("Square: up – down", "枠の上下"),
    "crop_size": ("Square: size", "枠の大きさ"),
    "crop": ("Face", "顔"),
    "crop_alt": ("The crop of the face that is drawn", "描かれる顔の切り抜き"),
    "domain": ("Draw as", "描くもの"),
    "domain_anime": ("Anime", "アニメ"),
    "domain_female": ("Female photo", "女性の写真"),
    "domain_male": ("Male photo", "男性の写真"),
    "domain_cat": ("Cat", "ネコ"),
    "domain_dog": ("Dog", "イヌ"),
    "domain_wild": ("Wild animal", "野生動物"),
    "count": ("How many", "枚数"),
    "seed": ("Seed", "シード"),
    "seed_info": ("The same seed gives the same drawings", "同じシードからは同じ絵ができます"),
    "dice": ("⚄ New drawings", "⚄ 別の絵にする"),
    "psi": ("Variety ψ", "変化の幅 ψ"),
    "psi_info": ("0: the average drawing; 1: as different as they come", "0は平均的な絵、1は最も多様"),
    "grayscale": ("Black and white", "白黒"),
    "more": ("More settings", "その他の設定"),
    "draw": ("Draw", "描く"),
    "drawings": ("Drawings", "できた絵"),
    "drawings_info": (
        "Choose a drawing to see it in the photo below, and to keep its style.",
        "絵を選ぶと、下の写真にはめ込まれます。絵柄を取っておくこともできます。",
    ),
    "sheet": ("All in one picture", "一枚にまとめた絵"),
    "sheet_alt": ("Sheet of the photo's face beside its drawings", "写真の顔とできた絵を並べた画像"),
    "in_photo": ("In your photo: before and after", "写真にはめ込む（前と後）"),
    "archive": ("Save everything (ZIP)", "すべて保存 (ZIP)"),
    "link": ("Link to these settings", "この設定へのリンク"),
    "link_info": (
        "Brings back the same seed and settings; your photo is not part of it",
        "同じシードと設定に戻ります。写真は含まれません",
    ),
    # style mixing
    "references": ("Reference pictures", "お手本の絵"),
    "references_domain": ("The references show", "お手本の種類"),
    "strength": ("Strength", "強さ"),
    "strength_info": ("0: the photo's own style; 1: the reference's", "0は写真そのもの、1はお手本の絵柄"),
    "adjust": ("Crops and weights of the references", "お手本の切り抜きと重み"),
    "adjust_which": ("Reference", "お手本"),
    "adjust_info": (
        "Drawn faces are seldom recognised, so a square is proposed. Move it until the face fills it.",
        "絵の顔はあまり検出されないため、枠を仮に置きます。顔が収まるように動かしてください。",
    ),
    "weight": ("Weight in the blend", "混ぜるときの重み"),
    "mixed": ("One drawing a reference", "お手本ごとの絵"),
    "mixed_sheet": ("Photo × references", "写真 × お手本"),
    "mixed_sheet_alt": (
        "The references in the first row, the photo's face drawn in their styles below",
        "上段にお手本、下段にその絵柄で描いた顔",
    ),
    "crops": ("References as the model sees them", "モデルに渡すお手本"),
    # camera and clips
    "tab_live": ("Camera and video", "カメラと動画"),
    "in_style_a": ("In style A", "絵柄Aで描く"),
    "in_style_a_info": ("Keep a style as A under Explore first", "先に「絵柄をさがす」でAとして取っておきます"),
    "camera": ("Camera", "カメラ"),
    "camera_info": (
        "The camera's newest picture is drawn, as often as this machine can; the camera's pictures are not stored.",
        "カメラの最新の画像を、このコンピューターの速さに応じて描き続けます。カメラの画像は保存されません。",
    ),
    "camera_drawn": ("Drawn live", "ライブの絵"),
    "clip_upload": ("Video with a face, up to 20 seconds", "顔の映った動画（20秒まで）"),
    "clip_draw": ("Draw the video", "動画を描く"),
    "clip_drawn": ("Drawn video, with its sound", "描かれた動画（音声つき）"),
    "no_clip": ("Choose a video first.", "先に動画を選んでください。"),
    # explore
    "explore_info": (
        "Choose a drawing in one of the other tabs and keep its style as A or B. Then draw more like it, walk from A to B, or draw "
        "another photo in it.",
        "ほかのタブで絵を選び、その絵柄をAまたはBとして取っておきます。似た絵を描いたり、AからBへ変化させたり、別の写真を描いたりできます。",
    ),
    "keep_a": ("Keep as A", "Aとして取っておく"),
    "keep_b": ("Keep as B", "Bとして取っておく"),
    "style_a": ("Style A", "絵柄A"),
    "style_b": ("Style B", "絵柄B"),
    "style_alt": ("A drawing in the kept style", "取っておいた絵柄の絵"),
    "like_a": ("More like A", "Aに似た絵"),
    "distance": ("How far from A", "Aからの遠さ"),
    "between": ("From A to B", "AからBへ"),
    "between_picture": ("Your photo, between A and B", "AとBの間の絵柄"),
    "clip_format": ("Format", "形式"),
    "clip": ("Make a clip from A to B", "AからBへの動画を作る"),
    "clip_result": ("Clip", "動画"),
    # what is going on
    "loading": ("Loading the model", "モデルを読み込んでいます"),
    "looking": ("Looking for faces", "顔をさがしています"),
    "drawing": ("Drawing", "描いています"),
    "filming": ("Making the clip", "動画を作っています"),
    # captions
    "caption_seed": ("seed {value}", "シード {value}"),
    "caption_reference": ("reference {value}", "お手本 {value}"),
    "caption_blend": ("blend", "混合"),
    "caption_face": ("face {number}: {caption}", "顔{number}・{caption}"),
    "caption_near": ("near A, {value}", "Aの近く {value}"),
    "caption_between": ("{value} % of the way to B", "Bまでの{value}%"),
    # notes and refusals
    "note_one": ("One face was found.", "顔が1つ見つかりました。"),
    "note_many": (
        "{count} faces were found. The biggest one is chosen; choose others below.",
        "顔が{count}個見つかりました。いちばん大きい顔を選んであります。下で変えられます。",
    ),
    "note_none": (
        "**No face was found.** The square below is drawn instead; move it over the face.",
        "**顔が見つかりませんでした。**代わりに下の枠の中を描きます。枠を顔に合わせてください。",
    ),
    "note_whole": (
        "This model looks for no face: it draws the square below, at first the middle of the picture. Move it as you like.",
        "このモデルは顔をさがさず、下の枠の中を描きます。枠ははじめ画像の中央にあり、動かせます。",
    ),
    "no_photo": ("Choose a photo first.", "先に写真を選んでください。"),
    "no_references": ("Choose at least one reference picture.", "お手本の絵を1枚以上選んでください。"),
    "many_references": (
        "{count} references are too many: at most {limit}.",
        "お手本は{limit}枚までです（{count}枚ありました）。",
    ),
    "no_face": (
        "No face was found in this picture. Take one that shows a face from the front.",
        "この画像から顔が見つかりませんでした。正面を向いた顔の写真を使ってください。",
    ),
    "no_such_face": (
        "There is no face {number}: {count} were found.",
        "顔{number}はありません（見つかった顔は{count}個）。",
    ),
    "nothing_kept": ("Keep a style as {slot} first.", "先に絵柄を{slot}として取っておいてください。"),
    "nothing_chosen": ("Choose a drawing first.", "先に絵を選んでください。"),
    "other_model": (
        "Style {slot} belongs to the model {model}. Choose that model, or keep another style.",
        "絵柄{slot}はモデル{model}のものです。そのモデルを選ぶか、別の絵柄を取っておいてください。",
    ),
    "bad_model": (
        "There is no model {value}: choose one of {choices}.",
        "モデル{value}はありません。{choices}から選んでください。",
    ),
    "bad_domain": (
        "The model {model} cannot draw {value}: choose one of {choices}.",
        "モデル{model}は{value}を描けません。{choices}から選んでください。",
    ),
    "bad_number": (
        "{name} must be a number from {low} to {high}, not {value}.",
        "{name}は{low}から{high}までの数です（{value}は使えません）。",
    ),
    "photo_gone": (
        "The photo is no longer here: it was deleted after an hour. Please choose it again.",
        "写真は1時間たったため消去されました。もう一度選んでください。",
    ),
    # sentences of stargan.pictures.io.open_photo, for translating them
    "photo_unreadable": ("The picture file cannot be read.", "画像ファイルを読み込めません。"),
    "photo_empty": ("The file is empty.", "ファイルが空です。"),
    "photo_heavy": (
        "The file has {size} MB; at most {limit} MB are accepted.",
        "ファイルが{size} MBあります。{limit} MBまでにしてください。",
    ),
    "photo_bomb": (
        "The picture is too large; at most {limit} megapixels are accepted.",
        "画像が大きすぎます。{limit}メガピクセルまでにしてください。",
    ),
    "photo_kind": (
        "The file is not a picture, or of a kind that cannot be read.",
        "ファイルが画像ではないか、読み込めない種類です。",
    ),
    "photo_large": (
        "The picture has {width} × {height} pixels; at most {limit} megapixels are accepted.",
        "画像が{width}×{height}ピクセルあります。{limit}メガピクセルまでにしてください。",
    ),
    "photo_small": (
        "The picture has only {width} × {height} pixels; at least {least} × {least2} are needed.",
        "画像が{width}×{height}ピクセルしかありません。{least}×{least2}ピクセル以上にしてください。",
    ),
    "photo_broken": ("The picture is broken or cut off.", "画像が壊れているか、途中で切れています。"),
    # sentences of stargan.video
    "clip_gone": ("There is no video {file}.", "動画{file}がありません。"),
    "clip_kind": ("{file} is not a video that can be read.", "{file}は読み込める動画ではありません。"),
    "clip_empty": ("{file} has no picture in it.", "{file}には映像がありません。"),
    "clip_long": (
        "{file} is {seconds} seconds long; at most {limit} are possible.",
        "{file}は{seconds}秒あります。{limit}秒までにしてください。",
    ),
    "clip_longer": (
        "{file} is longer than {limit} seconds, the most that is possible.",
        "{file}が長すぎます。{limit}秒までにしてください。",
    ),
    "clip_broken": ("{file} is broken.", "{file}が壊れています。"),
    "clip_no_face": ("No face was found in {file}.", "{file}から顔が見つかりませんでした。"),
    "clip_unwritten": ("{file} could not be written: {detail}.", "{file}を書き込めませんでした（{detail}）。"),
    "model_failed": ("This model cannot be used. {detail}", "このモデルは使えません。{detail}"),
    "unexpected": (
        "Something went wrong on our side. Please try again; if it stays, try another picture.",
        "こちら側で問題が起きました。もう一度お試しください。続く場合は別の画像をお試しください。",
    ),
}


class RequestError(ValueError):
    """What was asked for cannot be done, and the sentence that says why, in each language; ``str()`` gives the English."""

    def __init__(self, key: str, **values: object) -> None:
        super().__init__(say(key, "en", **values))
        self.key, self.values = key, values

    def __reduce__(self) -> tuple:  # what comes from a GPU's process must be as it was raised there
        return partial(RequestError, self.key, **self.values), ()


def say(key: str, language: str, **values: object) -> str:
    """A text in a language, its ``{values}`` filled in; the value ``name`` is the key of a label, and is translated too."""
    if "name" in values:
        values["name"] = say(str(values["name"]), language)
    return TEXTS[key][LANGUAGES.index(language)].format(**values)


def translated(sentence: str, language: str) -> str:
    """A sentence that another part of the project wrote in English; unchanged where it is not among the texts."""
    for key, (english, _) in TEXTS.items():
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(english))
        if found := re.fullmatch(pattern, sentence):
            return say(key, language, **found.groupdict())
    return sentence


def tables() -> dict[str, dict[str, str]]:
    """Language → key → text, as ``gr.I18n`` takes them."""
    return {language: {key: texts[i] for key, texts in TEXTS.items()} for i, language in enumerate(LANGUAGES)}


def preferred(accept_language: str | None) -> str:
    """The language for an ``Accept-Language`` header: its first entry decides, as in the page; English where it is another."""
    first = (accept_language or "").split(",")[0].strip().lower()
    return "ja" if first.split("-")[0].split(";")[0] == "ja" else "en"
