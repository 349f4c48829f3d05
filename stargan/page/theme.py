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
            button_border_width="1px",
            input_background_fill="white",
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
#intro h1 { font-size: 1.75rem; letter-spacing: -0.01em; margin-bottom: 0.25rem; }
#intro p, #privacy p { max-width: 72ch; }
#privacy p { font-size: 0.9rem; color: var(--body-text-color-subdued); }
.small img { width: 100%; height: 100%; object-fit: contain; } /* drawings may have only 64 px */
/* the columns stay where there are fewer drawings than these */
.drawings .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)) !important; }
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
.toast-title { display: none !important; } /* always "Error", in English: the sentence below it says more */
@media (max-width: 640px) {
  .gradio-container { padding-inline: 0.5rem !important; }
  .drawings .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
  button { min-height: 44px; }
  .tab-container button { padding-inline: 0.4rem; font-size: 0.8125rem; } /* all three beside each other */
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""

# What settings of gradio's components cannot do. For screen readers: an example picture is called by its file's name, and
# an empty picture, an element that may have no name, has none. The page's title and language follow the visitor's, and so
# does the one text that gradio has in English only.
JS = """
() => {
  const japanese = navigator.language.toLowerCase().startsWith("ja");
  const name = () => {
    document.querySelectorAll(".empty[aria-label]").forEach((e) => e.removeAttribute("aria-label"));
    document.querySelectorAll("button.gallery-item:not([aria-label])").forEach((e) => {
      const file = e.querySelector("img, video")?.src.split("/").pop();
      if (file) e.setAttribute("aria-label", file.replace(/\\.\\w+$/, ""));
    });
    if (japanese) document.querySelectorAll("#photo .wrap, #camera .wrap").forEach((e) => {
      const text = e.lastChild;
      if (text?.nodeValue?.trim() === "Click to Access Webcam") text.nodeValue = "カメラを使う";
    });
  };
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
  if (japanese) {
    document.documentElement.lang = "ja";
    document.title = "顔写真をアニメに";
  }
}
"""
