"""Every text of the app, in English and Japanese.

Labels are translated by the page itself (the tables go to ``gr.I18n``); what has a number or a name in it is put
together here, in the language that the visitor's browser asks for.
"""

from __future__ import annotations

from stargan.errors import SENTENCES

LANGUAGES = ("en", "ja")

TEXTS: dict[str, tuple[str, str]] = {
    # the page
    "title": ("Anime portraits from your photo", "顔写真をアニメに"),
    "intro": (
        "# Anime portraits from your photo\nTurn a face photo into anime portraits. A small model draws them: simple, "
        "a little rough, and only loosely like you.",
        "# 顔写真をアニメに\n顔写真から、いろいろな絵柄のアニメを描きます。小さなモデルなので細部は粗く、似顔絵ほどには似ません。",
    ),
    "privacy": (
        "Your photo stays on the computer that runs this app, and is used for your drawings alone. "
        "Saved drawings say in their metadata that a model made them; where and when your photo was taken is not passed on.",
        "写真は、このアプリが動いているコンピューターの中で、絵を描くためだけに使われます。保存した絵には、"
        "モデルが作った画像であることが記録されます。元の写真の撮影場所や日時は引き継がれません。",
    ),
    "privacy_served": (
        "Your photo stays on the computer that runs this app; the face cut out of it is drawn on the cluster behind it. "
        "Saved drawings say in their metadata that a model made them; where and when your photo was taken is not passed on.",
        "写真は、このアプリが動いているコンピューターに置かれ、切り出した顔だけがクラスターに送られて絵になります。保存した絵には、"
        "モデルが作った画像であることが記録されます。元の写真の撮影場所や日時は引き継がれません。",
    ),
    "privacy_shared": (
        "Whoever comes by the public link sends the photo, and gets the drawings, through the host of that link.",
        "公開リンクから開いた場合、写真と絵は、そのリンクを提供するサーバーを通ります。",
    ),
    "model": ("Model", "モデル"),
    "tab_diversity": ("Many styles", "いろいろ描く"),
    "tab_mixing": ("From a picture", "お手本から"),
    "photo": ("Photo", "写真"),
    "examples": ("Examples", "サンプル"),
    "faces": ("Faces to draw", "描く顔"),
    "numbered": ("Faces found", "見つかった顔"),
    "numbered_alt": ("The photo with a numbered frame around each face", "顔ごとに番号つきの枠を付けた写真"),
    "crop_x": ("Square: left – right", "枠の左右"),
    "crop_y": ("Square: up – down", "枠の上下"),
    "crop_size": ("Square: size", "枠の大きさ"),
    "crop": ("Face", "顔"),
    "crop_alt": ("The crop of the face that is drawn", "描かれる顔の切り抜き"),
    "domain": ("Draw as", "仕上がり"),
    "domain_anime": ("Anime", "アニメ"),
    "domain_female": ("Female photo", "女性の写真"),
    "domain_male": ("Male photo", "男性の写真"),
    "domain_cat": ("Cat", "ネコ"),
    "domain_dog": ("Dog", "イヌ"),
    "domain_wild": ("Wild animal", "野生動物"),
    "count": ("Number of drawings", "枚数"),
    "seed": ("Seed", "シード"),
    "seed_info": ("The same seed gives the same drawings", "同じシードからは同じ絵ができます"),
    "dice": ("⚄ New drawings", "⚄ 別の絵にする"),
    "psi": ("Variety ψ", "変化の幅 ψ"),
    "psi_info": ("0: the average drawing; 1.5: most varied", "0は平均的な絵、1.5は最も多様"),
    "grayscale": ("Black and white", "白黒"),
    "more": ("Fine-tune", "細かい設定"),
    "save_all": ("Save all", "まとめて保存"),
    "view_drawing": ("Drawing", "絵"),
    "view_photo": ("In my photo", "写真に合成"),
    "chosen_drawing": ("Chosen drawing", "選んだ絵"),
    "save": ("Save", "保存"),
    "share": ("Share", "共有"),
    "drawings": ("Drawings", "できた絵"),
    "sheet": ("All in one picture", "一枚にまとめた絵"),
    "sheet_alt": ("Sheet of the photo's face beside its drawings", "写真の顔とできた絵を並べた画像"),
    "in_photo": ("In your photo: before and after", "写真に合成（ビフォー・アフター）"),
    "slider": ("Divider between before and after", "ビフォーとアフターの境目"),
    "archive": ("Save everything (ZIP)", "すべて保存 (ZIP)"),
    "whole_photo": ("Save in my photo (full size)", "写真に合成して保存（原寸）"),
    "packing": ("Getting it ready", "準備しています"),
    "link_own": (
        "The photo is not part of this link: choose your own, and it is drawn with the link's settings.",
        "このリンクに写真は含まれていません。写真を選ぶと、リンクの設定で描きます。",
    ),
    "link": ("Link to these settings", "この設定へのリンク"),
    "link_info": (
        "Brings back the same seed and settings; your photo is not part of it",
        "同じシードと設定に戻ります。写真は含まれません",
    ),
    "link_none": ("Only drawings of seeds have a link", "リンクにできるのは、シードから描いた絵だけです"),
    # taking a photo
    "upload_photo": ("Upload a photo", "写真を選ぶ"),
    "use_camera": ("Use camera", "カメラで撮る"),
    "deleted": ("Your photo is deleted within an hour.", "写真は1時間以内に消去されます。"),
    "camera_title": ("Take a photo", "写真を撮る"),
    "camera_shoot": ("Take the photo", "撮る"),
    "camera_cancel": ("Cancel", "やめる"),
    "camera_refused": (
        "The camera cannot be used: allow it in your browser, or upload a photo.",
        "カメラを使えません。ブラウザーで許可するか、写真をアップロードしてください。",
    ),
    "square_alt": (
        "Square around the face: drag it, or move it with the arrow keys and size it with + and −",
        "顔を囲む枠。ドラッグするか、矢印キーで動かし、＋と－で大きさを変えます",
    ),
    # style mixing
    "add_reference": ("Add a reference", "お手本を追加"),
    "own_reference": ("+ Your own", "＋ 自分の絵"),
    "reference_whole": ("Reference", "お手本"),
    "references": ("Reference pictures", "お手本の絵"),
    "references_domain": ("Reference type", "お手本の種類"),
    "strength": ("Strength", "強さ"),
    "strength_info": ("0: the photo's own style; 1: the reference's", "0は写真そのもの、1はお手本の絵柄"),
    "adjust": ("Crops and weights of the references", "お手本の切り抜きと重み"),
    "adjust_which": ("Reference", "お手本"),
    "adjust_info": (
        "Drawn faces are seldom recognised, so a square is proposed. Drag it until the face fills it.",
        "絵の顔はあまり検出されないため、枠を仮に置きます。顔がちょうど入るように枠を動かしてください。",
    ),
    "weight": ("Weight in the blend", "ブレンドの重み"),
    "mixed": ("One drawing per reference", "お手本ごとの絵"),
    "mixed_sheet": ("Photo × references", "写真 × お手本"),
    "mixed_sheet_alt": (
        "The references in the first row, the photo's face drawn in their styles below",
        "上段にお手本、下段にその絵柄で描いた顔",
    ),
    "crops": ("References as the model sees them", "モデルに渡す切り抜き"),
    # camera and clips
    "tab_live": ("Video & camera", "動画・カメラ"),
    "in_style_a": ("In style A", "スタイルAで描く"),
    "in_style_a_info": (
        "First keep a drawing (♡) and save it as style A, below",
        "先に絵を「♡ お気に入り」に入れ、下の「スタイルAに保存」を押します",
    ),
    "camera": ("Camera", "カメラ"),
    "camera_info": (
        "The camera's newest picture is drawn, as often as this machine can, for two minutes at a time; while no face is seen, the "
        "drawing stays as it is. The camera's pictures are not stored.",
        "カメラの最新の画像を、このコンピューターの速さに応じて描き続けます（1回につき2分まで）。顔が見えない間、絵は変わりません。"
        "カメラの画像は保存されません。",
    ),
    "camera_drawn": ("Drawn live", "ライブの絵"),
    "clip_upload": ("Video with a face, up to 20 seconds", "顔の映った動画（20秒まで）"),
    "clip_draw": ("Draw the video", "動画を描く"),
    "clip_drawn": ("Drawn video, with its sound", "描かれた動画（音声つき）"),
    # favourites
    "keep": ("♡ Keep", "♡ お気に入り"),
    "more_like": ("More like this", "似た絵を描く"),
    "back": ("← Back to the earlier drawings", "← 前の絵に戻る"),
    "favourites": ("Favourites and morph", "お気に入りとモーフ"),
    "favourites_info": (
        "Click a favourite to draw your photo in its style. This browser keeps them for your next visit.",
        "お気に入りを押すと、今の写真をその絵柄で描きます。このブラウザーに保存され、次に開いたときも使えます。",
    ),
    "use": ("Use on my photo", "今の写真に使う"),
    "use_a": ("Save as style A", "スタイルAに保存"),
    "use_b": ("Save as style B", "スタイルBに保存"),
    "remove": ("Remove", "削除"),
    "remove_all": ("Remove all", "すべて削除"),
    "kept_already": ("This style is among your favourites already.", "この絵柄はもうお気に入りに入っています。"),
    "favourites_dropped": (
        "Favourites that cannot be used here are not shown: {count}.",
        "お気に入りのうち{count}件は、ここでは使えないため表示していません。",
    ),
    "style_a": ("Style A", "スタイルA"),
    "style_b": ("Style B", "スタイルB"),
    "between": ("Morph from A to B", "AからBへモーフ"),
    "between_picture": ("In between", "AとBの間"),
    "format": ("Format", "形式"),
    "clip": ("Make a morph clip", "モーフ動画を作る"),
    "clip_result": ("Clip", "動画"),
    # what is going on; the first three are gradio's own: two are told to screen readers, and lack Japanese
    "common.complete": ("Complete", "完了"),
    "status.queue_position": ("In queue: {position} of {size}", "順番待ち：{size}件中{position}番目"),
    "errors.use_via_api": ("Use via API", "APIから使う"),
    "cancel": ("Cancel", "やめる"),
    "loading": ("Loading the model", "モデルを読み込んでいます"),
    "drawing": ("Drawing", "描いています"),
    "filming": ("Making the clip", "動画を作っています"),
    # captions
    "caption_seed": ("seed {value}", "シード {value}"),
    "caption_reference": ("reference {value}", "お手本 {value}"),
    "caption_blend": ("blend", "ブレンド"),
    "caption_face": ("face {number}: {caption}", "顔{number}・{caption}"),
    "caption_near": ("similar {value}", "似た絵 {value}"),
    "caption_between": ("{value} % of the way to B", "Bまでの{value}%"),
    # notes and refusals
    "note_some": (
        "{count} faces were found. Which are drawn can be chosen below.",
        "{count}人の顔が見つかりました。どの顔を描くかは、下で選べます。",
    ),
    "note_one": ("One face was found.", "顔が1つ見つかりました。"),
    "note_many": (
        "{count} faces were found. The biggest one is chosen; choose others below.",
        "{count}人の顔が見つかりました。いちばん大きい顔を選んであります。下で変えられます。",
    ),
    "note_none": (
        "**No face was found.** What is in the square is drawn instead: drag it over the face.",
        "**顔が見つかりませんでした。** 代わりに枠の中を描きます。写真の枠を顔に合わせてください。",
    ),
    "note_whole": (
        "This model looks for no face: it draws what is in the square on the photo. Move it as you like.",
        "このモデルは顔をさがさず、写真の枠の中を描きます。枠は自由に動かせます。",
    ),
    "photo_gone": (
        "The photo is no longer here: it was deleted after an hour. Please choose it again.",
        "写真は1時間たったため消去されました。もう一度選んでください。",
    ),
    "nothing": ("nothing", "空欄"),
    "model_failed": ("This model cannot be used. {detail}", "このモデルは使えません。{detail}"),
    "unexpected": (
        "Something went wrong on our side. Please try again; if it stays, try another picture.",
        "エラーが発生しました。もう一度お試しください。続く場合は別の画像をお試しください。",
    ),
}

# Of stargan.errors, whose English sentences stand there.
JAPANESE: dict[str, str] = {
    "photo_unreadable": "画像ファイルを読み込めません。",
    "photo_empty": "ファイルが空です。",
    "photo_slow": "画像を{seconds}秒以内に取得できませんでした。保存してからファイルを選んでください。",
    "photo_heavy": "ファイルが{size} MBあります。{limit} MBまでにしてください。",
    "photo_bomb": "画像が大きすぎます。{limit}メガピクセルまでにしてください。",
    "photo_kind": "ファイルが画像ではないか、読み込めない種類です。",
    "photo_large": "画像が{width}×{height}ピクセルあります。{limit}メガピクセルまでにしてください。",
    "photo_small": "画像が{width}×{height}ピクセルしかありません。{least}×{least}ピクセル以上にしてください。",
    "photo_broken": "画像が壊れているか、途中で切れています。",
    "no_face": "この画像から顔が見つかりませんでした。正面を向いた顔の写真を使ってください。",
    "no_such_face": "顔{number}はありません（見つかった顔は{count}個）。",
    "clip_gone": "動画{file}がありません。",
    "clip_kind": "{file}は読み込める動画ではありません。",
    "clip_empty": "{file}には映像がありません。",
    "clip_long": "{file}は{seconds}秒あります。{limit}秒までにしてください。",
    "clip_longer": "{file}が長すぎます。{limit}秒までにしてください。",
    "clip_broken": "{file}が壊れています。",
    "clip_no_face": "{file}から顔が見つかりませんでした。",
    "clip_heavy": "{file}は画素数が多すぎます。小さめの動画を使ってください。",
    "clip_unwritten": "{file}を書き込めませんでした（{detail}）。",
    "clip_format": "動画は.mp4か.gifで書き込みます（{file}は使えません）。",
    "no_photo": "先に写真を選んでください。",
    "no_faces_chosen": "描く顔が選ばれていません。1つ以上選んでください。",
    "no_clip": "先に動画を選んでください。",
    "no_references": "お手本の絵を1枚以上選んでください。",
    "many_references": "お手本は{limit}枚までです（{count}枚ありました）。",
    "many_drawings": "{faces}人の顔×{styles}種類の絵柄は多すぎます。合わせて{limit}枚までにしてください。",
    "nothing_kept": "先にお気に入りから絵柄を選び、「スタイル{slot}に保存」を押してください。",
    "many_kept": "お気に入りは{limit}件までです。先にどれかを削除してください。",
    "no_favourite": "先にお気に入りを1つ選んでください。",
    "nothing_chosen": "先に絵を選んでください。1時間以上前の絵は残っていないので、もう一度描いてください。",
    "reference_gone": "お手本の絵が1時間たったため消去されました。いちど外して、もう一度追加してください。",
    "drawn_by_another": "この絵はモデル{model}で描かれています。先にそのモデルを選んでください。",
    "other_model": "スタイル{slot}はモデル{model}のものです。そのモデルを選ぶか、別のお気に入りを使ってください。",
    "gpu_full": "GPUのメモリがいっぱいです。1分ほどしてから、枚数を減らしてお試しください。",
    "gpu_lost": "GPUが応答しなくなりました。アプリを動かしている人が再起動する必要があります。",
    "gpu_lent": "いまはGPUを借りられません（{detail}）。",
    "left": "ページが閉じられたため、途中でやめました。",
    "cancelled": "取りやめました。",
    "stopping": "アプリを再起動しています。1分ほどしてからもう一度お試しください。",
    "restarted": "アプリが再起動されたか、結果はすでに受け取られています。もう一度お試しください。",
    "bad_model": "モデル{value}はありません。{choices}から選んでください。",
    "bad_domain": "モデル{model}は{value}を描けません。{choices}から選んでください。",
    "bad_number": "{name}は{low}から{high}までの数です（{value}は使えません）。",
    "photo_dear": "この画像ファイルは読み込みに時間がかかりすぎます。別のソフトで保存し直してください。",
    "photo_deadly": "この画像を処理したプロセスが何度も終了したため、除外しました。",
    "photo_costly": "この画像は読み込みに時間かメモリがかかりすぎます。小さくして、JPEGかPNGで保存し直してください。",
    "disk_full": "アプリのディスクがいっぱいです。古い結果が消える1時間後にもう一度お試しください。",
    "queue_full": "たくさんの人が待っています。1分ほどしてからもう一度お試しください。",
    "queue_share": "あなたの依頼が{limit}件待っています。どれかが終わってからお試しください。",
    "bad_input": "送られた値は、ここで使えるものではありません。",
}


TEXTS |= {key: (SENTENCES[key], JAPANESE[key]) for key in SENTENCES}


def say(key: str, language: str, **values: object) -> str:
    """A text in a language, its ``{values}`` filled in; the value ``name`` is the key of a label, and is translated too."""
    if values.get("name") in TEXTS:
        values["name"] = say(str(values["name"]), language)
    values = {name: say("nothing", language) if value is None else value for name, value in values.items()}
    return TEXTS[key][LANGUAGES.index(language)].format(**values)


def tables() -> dict[str, dict[str, str]]:
    """Language → key → text, as ``gr.I18n`` takes them."""
    return {language: {key: texts[i] for key, texts in TEXTS.items()} for i, language in enumerate(LANGUAGES)}


def preferred(accept_language: str | None) -> str:
    """The language for an ``Accept-Language`` header: its first entry decides, as in the page; English where it is another."""
    first = (accept_language or "").split(",")[0].strip().lower()
    return "ja" if first.split("-")[0].split(";")[0] == "ja" else "en"
