"""The look of the app: ink on paper, one accent, system fonts (nothing is fetched from anywhere)."""

from __future__ import annotations

from gradio.themes import Base, Font, colors, sizes

SANS = [
    Font(name)
    for name in ("ui-sans-serif", "system-ui", "Hiragino Sans", "Noto Sans CJK JP", "Yu Gothic UI", "sans-serif")
]
MONO = [Font(name) for name in ("ui-monospace", "Consolas", "monospace")]


class Paper(Base):
    def __init__(self) -> None:
        super().__init__(
            primary_hue=colors.indigo,
            secondary_hue=colors.indigo,
            neutral_hue=colors.stone,
            radius_size=sizes.radius_lg,
            spacing_size=sizes.spacing_md,
            text_size=sizes.text_md,
            font=SANS,
            font_mono=MONO,
        )
        self.set(
            body_background_fill="*neutral_100",
            body_background_fill_dark="*neutral_950",
            body_text_color_subdued="*neutral_600",  # 400, the default, is too pale to read on paper
            body_text_color_subdued_dark="*neutral_300",
            block_background_fill="white",
            block_border_width="1px",
            block_border_color="*neutral_200",
            block_shadow="none",
            block_label_text_color="*neutral_700",
            block_label_text_color_dark="*neutral_200",
            block_title_text_color="*neutral_700",
            block_title_text_color_dark="*neutral_200",
            block_info_text_color="*neutral_600",
            block_info_text_color_dark="*neutral_300",
            button_primary_background_fill="*primary_700",
            button_primary_background_fill_hover="*primary_800",
            button_primary_background_fill_dark="*primary_600",
            button_primary_text_color="white",
            button_secondary_background_fill="white",
            button_secondary_background_fill_hover="*neutral_100",
            button_secondary_border_color="*neutral_400",
            button_secondary_border_color_hover="*neutral_600",
            button_secondary_border_color_dark="*neutral_500",
            button_secondary_border_color_hover_dark="*neutral_300",
            button_border_width="1px",
            input_background_fill="white",
            input_border_width="1px",
            input_placeholder_color="*neutral_500",
            input_placeholder_color_dark="*neutral_400",
            input_border_color="*neutral_400",
            input_border_color_focus="*primary_600",
            slider_color="*primary_600",
            checkbox_label_text_color="*neutral_800",
            checkbox_label_text_color_dark="*neutral_100",
            checkbox_border_color="*neutral_400",
            checkbox_border_color_dark="*neutral_400",
            checkbox_background_color_dark="*neutral_800",
        )


CSS = """
.gradio-container { width: 100%; max-width: 1180px !important; margin-inline: auto !important; }
/* gradio applies no @media to what is not of the page's own: narrower than 641 px by other means */
.gradio-container > .main { padding-inline: clamp(0.75rem, (100vw - 640px) * 999, 2rem) !important; }
#intro h1 { font-size: 1.75rem; letter-spacing: -0.01em; margin-bottom: 0.25rem; }
p { text-wrap: pretty; } /* no last line of one word */
#intro p, .toast-message-text { word-break: auto-phrase !important; } /* or, in Japanese, of one character */
#privacy p, #privacy-shared p { font-size: 0.875rem; color: var(--body-text-color-subdued); }
.small img { width: 100%; height: 100%; object-fit: contain; } /* drawings may have only 64 px */
/* the columns stay where there are fewer drawings than these */
.drawings .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; grid-auto-rows: auto !important; }
.in-a-row .gallery { flex-wrap: nowrap; overflow-x: auto; }
.in-a-row .gallery > * { flex: none; }
.drawings .grid-wrap { min-height: 0; max-height: none; height: auto; }
#note { border-left: 3px solid var(--primary-600); padding: 0.25rem 0.75rem; }
#note p { margin: 0; }
button:focus-visible, input:focus-visible, [tabindex]:focus-visible {
  outline: 3px solid var(--primary-600) !important; outline-offset: 2px;
}
button[role="tab"].selected { color: var(--primary-700) !important; }
.dark button[role="tab"].selected { color: var(--primary-300) !important; }
footer .divider { display: none !important; } /* after the one link that is left */
footer button { min-height: 44px; }
/* always "Error", in English: the sentence says more, and has its place */
.toast-title, .toast-header .chevron { display: none !important; }
.toast-header { padding: 0.25rem !important; }
.toast-header + .toast-messages { margin: -44px 3.25rem 0.5rem 2.5rem; padding: 0; min-height: 44px; justify-content: center; }
.toast-header .toast-close { width: 44px; height: 44px; margin: 0; }
/* white on white, and in the dark on a track that shines, they were not seen */
.gradio-container input[type=range]::-webkit-slider-thumb { border: 2px solid var(--primary-600); margin-top: -4px; }
.gradio-container input[type=range]::-moz-range-thumb { border: 2px solid var(--primary-600); }
.dark .gradio-container input[type=range]::-webkit-slider-runnable-track { background: linear-gradient(to right,
  var(--slider-color) var(--range_progress), var(--neutral-600) var(--range_progress)); }
.dark .gradio-container input[type=range]::-moz-range-track { background: var(--neutral-600); }
@media (max-width: 1023px), (pointer: coarse) { /* what a finger hits */
  button:not(.thumbnail-item) { min-height: 44px; }
  .icon-button, .download-link { min-width: 44px; min-height: 44px; }
  .icon-button-wrapper { padding: 0; }
  .icon-button-wrapper button { margin: 0 !important; }
  label:has(> input[type=radio]), label:has(> input[type=checkbox]) { min-height: 44px; align-items: center; }
  input[type=range] { height: 44px; margin-block: -14px; }
  .tab-like-container { height: 46px !important; margin-left: 0.5rem; }
  .reset-button { min-width: 44px; }
  input[type=number] { min-height: 44px; }
  .tab-container button { padding-inline: 0.5rem; } /* all three beside each other */
  .tab-wrapper, .tab-container:not(.visually-hidden) { height: 46px !important; padding-bottom: 0; } /* with its underline */
}
@media (max-width: 640px) {
  #intro h1 { font-size: 1.25rem; }
  .tab-container button { padding-inline: 0.4rem; font-size: 0.8125rem; }
}
@media (max-width: 767px) { /* what is below the photo on a wide page comes last on a narrow one */
  #columns { flex-direction: column; flex-wrap: nowrap; }
  #columns > * { width: 100%; }
  #subject { display: contents; }
  #privacy, #privacy-shared { order: 1; }
}
#columns:has(#tab-live-button[aria-selected="true"]) #subject { display: contents; }
#columns:has(#tab-live-button[aria-selected="true"]) #subject :is(#privacy, #privacy-shared) { display: block !important; order: 1; }
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

# Drawings, and what is done with them.
CSS += """
.drawings .thumbnail-item { height: auto; aspect-ratio: 1; border-width: 2px; border-radius: var(--radius-md); }
.drawings .thumbnail-item:hover:not(.selected) { border-color: var(--neutral-500); filter: none; transform: none; }
.dark .drawings .thumbnail-item:hover:not(.selected) { border-color: var(--neutral-200); }
.drawings .thumbnail-item.selected { border-color: var(--primary-600); box-shadow: 0 0 0 2px var(--primary-600); }
.dark .drawings .thumbnail-item.selected { border-color: var(--primary-400); box-shadow: 0 0 0 2px var(--primary-400); }
.drawings .caption-label { max-width: 100%; padding: 0.05rem 0.4rem; font-size: 0.75rem; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.drawings .thumbnail-item:hover .caption-label { opacity: 1; }
/* their labels would lie on what they show */
#reference-crops .grid-container { margin-top: 1.25rem; }
#diversity-sheet .image-frame, #mixing-sheet .image-frame { padding-top: 2rem; }
.view .wrap { gap: 0.5rem; }
.view label { min-height: 44px; }
.pair { display: grid !important; grid-template-columns: minmax(0, 200px) auto minmax(0, 384px); align-items: center;
  justify-content: center; gap: 0.75rem; }
.pair::before { content: "→"; order: 1; font-size: 1.5rem; color: var(--body-text-color-subdued); }
.pair .large { order: 2; }
#subject:not(:has(#chosen)):not(:has(.square)) #crop { display: none; } /* the one face is shown beside its drawing */
#subject #photo:has(.image-frame img) { height: auto !important; }
#photo:has(.image-frame img) > label, #video:has(video) > label { display: none; } /* it would lie on a face */
#photo .image-frame { display: flex; align-items: center; min-height: 150px; }
#photo :is(.image-container, .upload-container, .image-frame) { width: 100% !important; } /* a small photo is enlarged */
#photo .image-frame img { width: 100%; height: auto; max-height: 366px; object-fit: contain; }
.pair:has(.large .empty), .view:has(+ .pair .large .empty) { display: none !important; } /* there is no photo */
#link label > :is(span, .info-text) { margin-right: 3rem; } /* beside the button that copies */
#camera-shot p:empty { display: none; }
#camera-shot button:not(.primary) { background: var(--button-secondary-background-fill); color: var(--body-text-color);
  border-color: var(--button-secondary-border-color); }
.label-wrap { align-items: center; }
.four { display: grid !important; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 0.75rem; }
.four > button, .three > * { min-width: 0 !important; }
.four > button { padding-inline: 0.5rem; line-height: 1.2; min-height: 44px; }
#use { grid-column: 1 / -1; }
#make-clip { align-self: center; }
.three { display: grid !important; grid-template-columns: repeat(3, minmax(0, 1fr)); }
@media (max-width: 1023px) { /* two columns of a tablet, or one of a phone */
  .drawings .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
  .drawings .caption-label { padding-inline: 0.2rem; font-size: 0.6875rem; }
  #diversity-sheet .image-frame, #mixing-sheet .image-frame { padding-top: 48px; }
  #photo:has(> .square) .image-frame { padding-top: 46px; } /* a corner of the square would lie below the buttons */
  .pair { grid-template-columns: minmax(0, 1fr); justify-items: center; }
  .pair::before, .pair .face { display: none !important; } /* the photo is beside it or just above */
  .pair .large { width: 100%; max-width: 512px; height: auto !important; aspect-ratio: 1; }
  #subject #take button { padding-inline: 0.25rem; font-size: 0.9375rem; }
}
#tray .grid-container { grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)) !important; }
.three .small { height: auto !important; min-height: 0; aspect-ratio: 1; }
.three label > span { display: none; } /* a symbol, for which there is no room */
.three label { padding-inline: 0.3rem; white-space: nowrap; }
#tray .caption-label { display: none; } /* too narrow for it; it is their name all the same */
[role=slider][data-testid=slider]:focus-visible { outline-offset: -2px !important; }
[data-testid=slider]::before { content: ""; position: absolute; inset: 0 -12px; } /* a finger is wider than the handle */
/* below all else, room for the bar of phones */
footer { margin-bottom: clamp(0px, (641px - 100vw) * 999, 4.5rem) !important; }
@media (max-width: 640px) {
  /* the chosen drawing comes before the others, and these two stay in sight; but as a part of somebody else's page, whose lower
     edge is not the window's */
  .view, .pair, #diversity-compare, #mixing-compare, .actions { order: -1; }
  .own-window #dice, .own-window #diversity-save { position: fixed; z-index: 60; width: auto; min-height: 48px; margin: 0;
    bottom: calc(0.5rem + env(safe-area-inset-bottom)); }
  .own-window #dice { left: 0.5rem; right: calc(40% + 0.25rem); }
  .own-window #diversity-save { left: calc(60% + 0.25rem); right: 0.5rem; }
  .own-window #diversity-gallery::after { content: ""; position: fixed; z-index: 55; inset: auto 0 0 0;
    height: calc(4rem + env(safe-area-inset-bottom)); background: var(--body-background-fill);
    border-top: 1px solid var(--border-color-primary); }
  .own-window .actions:has(#diversity-save) { grid-template-columns: 4fr 5fr 6fr; }
  .own-window .actions:has(#diversity-save) > button { padding-inline: 0.25rem; font-size: 0.875rem; }
  #photo .image-frame img { max-height: 150px; }
  #photo-examples .gallery :is(span, .container, img) { display: block; width: 64px; height: 64px; }
  #tray .grid-container { grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)) !important; }
}
"""

# What settings of gradio's components cannot do. For screen readers: an example picture is called by its file's name, and
# an empty picture, an element that may have no name, has none. The page's title and language follow the visitor's, and so
# do the one text and the names of buttons that gradio has in English only. As a part of somebody else's page it changes
# nothing of that.
JS = """
() => {
  const japanese = navigator.language.toLowerCase().startsWith("ja");
  const ours = document.querySelector("gradio-app[control_page_title=true]");
  const all = (selectors) => document.querySelectorAll(
    selectors.split(",").map((selector) => `.gradio-container ${selector}`).join(","));
  const names = [
    [/^Fullscreen$/, "全画面"], [/^Exit fullscreen mode$/, "全画面を閉じる"], [/^Remove Image$/, "画像を削除"],
    [/^Download$/, "ダウンロード"], [/^Copy$/, "コピー"], [/^Clear$/, "消去"], [/^Undo$/, "元に戻す"], [/^Close$/, "閉じる"],
    [/^Trim video to selection$/, "切り取る"], [/^Reset to default value$/, "初期値に戻す"], [/^File upload$/, "ファイルを選ぶ"],
    [/^Thumbnail (\\d+) of (\\d+)$/, "$2枚中の$1枚目"], [/^(?:number input|range slider) for /, ""],
    [/^Gradio footer navigation$/, "フッター"], [/^undo$/, "元に戻す"], [/^Reset video to initial value$/, "元の動画に戻す"],
    [/^grant webcam access$/, "カメラを使う"], [/^Delete image$/, "画像を削除"], [/^Adjust volume$/, "音量"],
    [/^play-pause-replay-button$/, "再生・一時停止"], [/^full-screen$/, "全画面"], [/^capture photo$/, "撮影"],
    [/^start recording$/i, "録画を始める"], [/^stop recording$/i, "録画を止める"],
    [/^More tabs$/, "ほかのタブ"], [/^Click to upload or drop files$/, "ファイルを選ぶか、ここに置く"],
    [/^Drag to adjust start time$/, "始まりを動かす"], [/^Drag to adjust end time$/, "終わりを動かす"],
  ];
  const translate = (element, attribute) => {
    const said = element.getAttribute(attribute);
    const now = said && names.reduce((text, [english, word]) => text.replace(english, word), said);
    if (now !== said) element.setAttribute(attribute, now);
  };
  const name = () => {
    all("#columns").forEach((e) => e.classList.toggle("own-window", Boolean(ours) && window === window.parent));
    if (japanese) all("[aria-label],[title]").forEach((e) => {
      translate(e, "aria-label");
      translate(e, "title");
    });
    all(".empty[aria-label]").forEach((e) => e.removeAttribute("aria-label"));
    all(".drawings .thumbnail-item").forEach((e) => { // by what stands on it, and whether it is the chosen one
      const caption = e.querySelector(".caption-label")?.textContent.trim();
      if (caption && caption !== e.getAttribute("aria-label")) e.setAttribute("aria-label", caption);
      const chosen = String(e.classList.contains("selected"));
      if (chosen !== e.getAttribute("aria-pressed")) e.setAttribute("aria-pressed", chosen);
    });
    all("button.gallery-item:not([aria-label])").forEach((e) => {
      const file = e.querySelector("img, video")?.src.split("/").pop();
      if (file) e.setAttribute("aria-label", file.replace(/\\.\\w+$/, ""));
    });
    if (japanese) all("#photo .wrap,#camera .wrap").forEach((e) => {
      const text = e.lastChild;
      if (text?.nodeValue?.trim() === "Click to Access Webcam") text.nodeValue = "カメラを使う";
    });
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true, attributeFilter: ["class"] });
  name();
  if (japanese && ours) {
    document.documentElement.lang = "ja";
    document.title = "顔写真をアニメに";
  }
}
"""
