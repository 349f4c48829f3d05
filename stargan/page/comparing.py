"""The slider between before and after, by keyboard: Gradio's own knows the mouse and the finger alone."""

from __future__ import annotations

import json

from stargan.page import texts

# Part of the picture's width that an arrow key moves the slider by, and a page key.
STEP, LEAP = 0.05, 0.25

# JavaScript. Each slider's handle becomes one to a screen reader, too. A key is passed on as a drag to where it leads, so
# that all else stays Gradio's own.
SLIDER = """() => {
  const label = LABELS[navigator.language.toLowerCase().startsWith("ja") ? "ja" : "en"];
  const measure = (handle) => {  // where the picture lies in the handle's box, and where the handle is
    const image = handle.parentElement.querySelector("img"), box = image.parentElement.getBoundingClientRect();
    const width = Math.min(box.width, (box.height * image.naturalWidth) / image.naturalHeight || box.width);
    const left = (box.width - width) / 2, x = new DOMMatrix(getComputedStyle(handle).transform).m41;
    return { left, width, part: Math.min(1, Math.max(0, (x - left) / width || 0)) };
  };
  const tell = (handle) => {
    const now = String(Math.round(100 * measure(handle).part));
    if (handle.getAttribute("aria-valuenow") !== now) handle.setAttribute("aria-valuenow", now);
  };
  const go = (handle, part) => {
    const { left, width } = measure(handle), box = handle.parentElement.getBoundingClientRect();
    const at = { view: window, bubbles: true, clientX: box.left + left + part * width, clientY: box.top + box.height / 2 };
    handle.dispatchEvent(new MouseEvent("mousedown", at));
    window.dispatchEvent(new MouseEvent("mouseup", at));
  };
  const press = (event) => {
    const handle = event.currentTarget, part = Math.round(100 * measure(handle).part) / 100;  // as it was told
    const to = {
      ArrowLeft: part - STEP, ArrowDown: part - STEP, ArrowRight: part + STEP, ArrowUp: part + STEP,
      PageDown: part - LEAP, PageUp: part + LEAP, Home: 0, End: 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    go(handle, Math.min(1, Math.max(0, to)));
  };
  const found = () => document.querySelectorAll("[data-testid=slider]:not([role=slider])").forEach((handle) => {
    if (!handle.parentElement.querySelector("img")) return;
    Object.entries({
      role: "slider", tabindex: "0", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100",
    }).forEach(([name, value]) => handle.setAttribute(name, value));
    handle.addEventListener("keydown", press);
    new MutationObserver(() => tell(handle)).observe(handle, { attributeFilter: ["style"] });
    tell(handle);
  });
  new MutationObserver(found).observe(document.body, { childList: true, subtree: true });
  found();
}"""
SLIDER = (
    SLIDER.replace("LABELS", json.dumps(dict(zip(texts.LANGUAGES, texts.TEXTS["slider"], strict=True))))
    .replace("STEP", str(STEP))
    .replace("LEAP", str(LEAP))
)
