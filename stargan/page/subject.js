// The left column's script: "Upload a photo", "Use camera", and pictures that are pasted.
() => {
  const texts = {}; // texts
  const japanese = navigator.language.toLowerCase().startsWith("ja");
  const say = (key) => texts[key][japanese ? 1 : 0];
  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  const input = () => document.querySelector("#photo input[type=file]");
  const hand = (file) => {
    const files = new DataTransfer();
    files.items.add(file);
    input().files = files.files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  };

  // A phone's own camera app, opened with its front camera: it works wherever the page does, also without https.
  const phone = () => {
    document.querySelector("#phone-camera")?.remove();
    const camera = make("input", { type: "file", accept: "image/*", id: "phone-camera", hidden: true });
    camera.setAttribute("capture", "user");
    camera.onchange = () => camera.files[0] && hand(camera.files[0]);
    document.body.append(camera);
    camera.click();
  };

  // Mirrored, as people know themselves, and so is what is taken.
  const dialog = () => {
    const video = make("video", { autoplay: true, playsInline: true, muted: true });
    const sentence = make("p", { role: "status" });
    const shoot = make("button", { className: "primary", textContent: say("camera_shoot"), disabled: true });
    const cancel = make("button", { textContent: say("camera_cancel") });
    const shown = make("dialog", { id: "camera-shot" }, video, sentence, shoot, cancel);
    shown.setAttribute("aria-label", say("camera_title"));
    let stream, closed;
    shown.onclose = () => {
      closed = true;
      stream?.getTracks().forEach((track) => track.stop());
      shown.remove();
    };
    cancel.onclick = () => shown.close();
    shoot.onclick = () => {
      const { videoWidth: width, videoHeight: height } = video;
      const canvas = make("canvas", { width, height });
      const pen = canvas.getContext("2d");
      pen.setTransform(-1, 0, 0, 1, width, 0);
      pen.drawImage(video, 0, 0);
      canvas.toBlob((taken) => {
        hand(new File([taken], "camera.jpg", { type: "image/jpeg" }));
        shown.close();
      }, "image/jpeg", 0.95);
    };
    document.body.append(shown);
    shown.showModal();
    const wanted = { video: { facingMode: "user", width: { ideal: 1280 } } };
    (navigator.mediaDevices?.getUserMedia(wanted) ?? Promise.reject())
      .then((opened) => {
        stream = opened;
        if (closed) return shown.onclose();
        video.srcObject = stream;
        video.onplaying = () => {
          shoot.disabled = false;
          shoot.focus();
        };
      })
      .catch(() => {
        video.remove();
        shoot.remove();
        sentence.textContent = say("camera_refused");
      });
  };

  // Browsers that do not know a format give its files no type, and gr.Image takes what is called a picture.
  const formats = { heic: "heic", heif: "heif", avif: "avif", tif: "tiff", tiff: "tiff" };
  document.addEventListener("change", (event) => {
    const [file] = (event.target === input() && event.target.files) || [];
    const format = formats[file?.name.split(".").pop().toLowerCase()];
    if (!format || file.type) return;
    const files = new DataTransfer();
    files.items.add(new File([file], file.name, { type: `image/${format}` }));
    event.target.files = files.files; // gradio's own listener, which comes after this one, takes these
  }, true);

  // gradio would take the photo off before it looks at what is dropped onto it, and says nothing of what it does not take.
  document.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files, place = event.target.closest?.("#photo");
    if (!place || !(file || place.querySelector("img"))) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (file) hand(file);
  }, true);

  document.addEventListener("click", (event) => {
    if (event.target.closest("#upload-photo")) {
      input().accept = ["image/*", ...Object.keys(formats).map((suffix) => `.${suffix}`)].join(",");
      input().click();
    }
    if (event.target.closest("#use-camera")) (matchMedia("(pointer: coarse)").matches ? phone : dialog)();
  });
  document.addEventListener("paste", (event) => {
    const picture = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
    const shown = document.querySelector("#photo")?.offsetParent;
    const elsewhere = event.target !== document.body && !event.target.closest(".gradio-container"); // of a page around this one
    if (picture && shown && !elsewhere && !event.target.closest("#references")) hand(picture);
  });

  // Squares on pictures: what a model draws, or takes the style of, where no face is found. Their centre, in fractions of the
  // picture's width and height, and their side, in fractions of its shorter side, are in three number fields that nobody sees.
  // gr.ImageEditor is no such thing: it uploads what it cuts out, of any proportions, and the photo around it is lost; the
  // keyboard does not reach its corners; and it brings a drawing engine with it.
  const squares = [["#photo", "#square"], ["#reference-whole", "#reference-square"]].map(([picture, fields]) => {
    const frame = make("div", { className: "square", tabIndex: 0 });
    for (const corner of ["nw", "ne", "sw", "se"]) frame.append(make("i", { className: corner }));
    frame.setAttribute("role", "group");
    frame.setAttribute("aria-label", say("square_alt"));
    let held = null; // while a person moves it: the square, and what it was when it was taken hold of
    let waiting = 0;

    const inputs = () => [...document.querySelectorAll(`${fields} input`)];
    const root = () => document.querySelector(picture);
    const image = () => root()?.querySelector("img");
    // The picture as it is seen, in px of the page: without the margins beside a picture of other proportions than its place.
    const area = () => {
      const { naturalWidth, naturalHeight } = image();
      const place = image().getBoundingClientRect();
      const scale = Math.min(place.width / naturalWidth, place.height / naturalHeight);
      const [width, height] = [naturalWidth * scale, naturalHeight * scale];
      const left = place.left + (place.width - width) / 2, top = place.top + (place.height - height) / 2;
      return { left, top, width, height, short: Math.min(width, height) };
    };
    const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));
    // All of it in the picture.
    const inside = ([x, y, size], { width, height, short }) => {
      size = clamp(size, 0.05, 1);
      const [rx, ry] = [(size * short) / 2 / width, (size * short) / 2 / height];
      return [clamp(x, rx, 1 - rx), clamp(y, ry, 1 - ry), size];
    };
    const show = () => {
      const there = image()?.naturalWidth && image().offsetParent && inputs().length === 3;
      if (!there) return frame.remove();
      if (frame.parentElement !== root()) root().append(frame);
      const [x, y, size] = held?.now ?? inputs().map((input) => Number(input.value));
      const { left, top, width, height, short } = area(), host = root().getBoundingClientRect();
      const side = size * short;
      const style = {
        left: `${left - host.left - root().clientLeft + x * width - side / 2}px`,
        top: `${top - host.top - root().clientTop + y * height - side / 2}px`,
        width: `${side}px`,
        height: `${side}px`,
      };
      for (const name in style) if (frame.style[name] !== style[name]) frame.style[name] = style[name];
    };
    const send = () => {
      const values = held.now.map((value) => value.toFixed(4));
      held = null;
      if (inputs().every((input, index) => Number(input.value).toFixed(4) === values[index])) return; // only clicked
      // Gradio reads all fields at each event and sends several events side by side: only the last field's is listened to.
      inputs().forEach((input, index) => {
        input.value = values[index];
        input.dispatchEvent(new Event("input", { bubbles: true }));
      });
    };
    const hold = () => {
      clearTimeout(waiting);
      held ??= { now: inputs().map((input) => Number(input.value)) };
    };

    frame.addEventListener("pointerdown", (event) => {
      if (event.button || !event.isPrimary) return;
      event.preventDefault();
      frame.focus();
      frame.setPointerCapture(event.pointerId);
      hold();
      Object.assign(held, { was: held.now, x: event.clientX, y: event.clientY, corner: event.target.className });
    });
    frame.addEventListener("pointermove", (event) => {
      if (!held?.was) return;
      const within = area(), { width, height, short } = within;
      const [x, y, size] = held.was;
      const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
      if (held.corner === "square") {
        held.now = inside([x + dx / width, y + dy / height, size], within);
      } else { // the opposite corner stays
        const [sx, sy] = [held.corner.includes("e") ? 1 : -1, held.corner.includes("s") ? 1 : -1];
        const [ax, ay] = [x * width - (sx * size * short) / 2, y * height - (sy * size * short) / 2];
        const room = Math.min(sx > 0 ? width - ax : ax, sy > 0 ? height - ay : ay);
        const side = clamp(Math.min(Math.max(size * short + sx * dx, size * short + sy * dy), room), 0.05 * short, short);
        held.now = inside([(ax + (sx * side) / 2) / width, (ay + (sy * side) / 2) / height, side / short], within);
      }
      show();
    });
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => held?.was && send());
    frame.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 0.1 : 0.02;
      const moves = {
        ArrowLeft: [-step, 0, 0], ArrowRight: [step, 0, 0], ArrowUp: [0, -step, 0], ArrowDown: [0, step, 0],
        "+": [0, 0, 0.02], "=": [0, 0, 0.02], "-": [0, 0, -0.02], _: [0, 0, -0.02],
      };
      const move = moves[event.key];
      if (!move || held?.was || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      hold();
      held.now = inside(held.now.map((value, index) => value + move[index]), area());
      show();
      waiting = setTimeout(send, 300); // several presses are one change
    });
    return show;
  });
  setInterval(() => squares.forEach((show) => show()), 150); // pictures come, go and change their places

  // Notes come with their place, and screen readers tell only of what changes in one that was there before. Of another photo, the
  // same sentence is told again.
  const told = make("div", { id: "told" });
  told.setAttribute("role", "status");
  document.body.append(told);
  let photo, telling = 0;
  const soon = () => { // once for many changes, as it measures the page
    clearTimeout(telling);
    telling = setTimeout(tell, 200);
  };
  const tell = () => {
    const now = document.querySelector("#photo img")?.src;
    if (now !== photo) {
      photo = now;
      told.textContent = "";
      return soon();
    }
    const notes = [...document.querySelectorAll(":is(#note, #video-note, #camera-note) [data-testid=markdown-wrapper]")];
    const said = notes.filter((note) => note.offsetParent).map((note) => note.innerText.trim()).join(" ");
    if (told.textContent !== said) told.textContent = said;
  };
  new MutationObserver(soon).observe(document.body, { childList: true, subtree: true, characterData: true });

  // What gradio says of the queue, of the connection, and of files that it refuses itself, in English only.
  const sentences = [
    ["queue:", "待ち:"], ["processing |", "処理中 |"],
    [/^File\(s\) exceed the maximum allowed size of ([\d.]+) ?MB: (.*)$/is, "ファイルが大きすぎます（最大$1MB）：$2"],
    ["Connection to the server was lost. Attempting reconnection...", "サーバーとの接続が切れました。つなぎ直しています…"],
    ["This application is currently busy. Please try again.", "ただいま混み合っています。もう一度お試しください。"],
    ["Connection errored out.", "接続できませんでした。"],
    [/^Invalid file types?: (.*)\. Only .* allowed\.$/s, "この種類のファイルは使えません：$1"],
  ];
  if (japanese) new MutationObserver(() => {
    const told = ".gradio-container .progress-text, .gradio-container [data-testid=toast-text], .gradio-container [data-testid=toast-text] *";
    for (const text of document.querySelectorAll(told)) for (const node of text.childNodes) {
      const said = node.nodeValue ?? "", now = sentences.reduce((text, [english, word]) => text.replace(english, word), said);
      if (node.nodeType === Node.TEXT_NODE && now !== said) node.nodeValue = now;
    }
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
}
