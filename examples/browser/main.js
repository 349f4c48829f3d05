// A photo drawn on the visitor's own device. Beside this page lie onnx/, which `python -m stargan export` wrote, and ort/, two
// files of onnxruntime-web: see README.md. No other host is asked for anything, and nothing is sent anywhere.

const COUNT = 8;
// Longer side of the photo as it is shown and cut, px: a phone's camera takes more than a face needs.
const LARGEST = 1600;

const TEXTS = {
  en: {
    square: "The square around the face", photo: "Your photo", drawing: "Drawing", anime: "Anime", female: "Female photo", male: "Male photo",
    loading: "Loading the model …", ready: "Choose a photo of a face.", working: "Drawing …",
    found: "A face was found. Move the square if it is not well around it.", place: "Put the square around the face.",
    none: "No face was found: put the square around it.",
    done: (seconds) => `${COUNT} drawings, ${seconds} seconds each.`,
    broken: "This file is no picture that your browser can read.",
    failed: "The model could not be loaded: see README.md beside this page.",
  },
  ja: {
    title: "顔写真をアニメに", promise: "写真はこの端末の外に出ません。絵はブラウザーの中で描かれます。",
    empty: "顔写真を選ぶか、ここにドロップしてください。", choose: "写真を選ぶ",
    hint: "四角で顔を囲んでください。目が中央より少し上、あごが内側に入るように。四角や角をドラッグするか、キーボードでは矢印で移動、＋と−で大きさを変えます。",
    size: "四角の大きさ", domain: "何に描くか", variety: "絵柄の幅", draw: "新しい絵",
    synthetic: "ここに出る絵はモデル（StarGAN v2）が描いたもので、写真ではありません。",
    square: "顔を囲む四角", photo: "あなたの写真", drawing: "絵", anime: "アニメ", female: "女性の写真", male: "男性の写真",
    loading: "モデルを読み込んでいます…", ready: "顔写真を選んでください。", working: "描いています…",
    found: "顔が見つかりました。ずれていたら四角を動かしてください。", place: "四角で顔を囲んでください。",
    none: "顔が見つかりませんでした。四角で顔を囲んでください。",
    done: (seconds) => `${COUNT}枚、1枚あたり${seconds}秒。`,
    broken: "このファイルは、ブラウザーで読める画像ではありません。",
    failed: "モデルを読み込めませんでした。このページと同じ場所の README.md をご覧ください。",
  },
};

const $ = (id) => document.getElementById(id);
const language = navigator.language.toLowerCase().startsWith("ja") ? "ja" : "en";
const texts = TEXTS[language];
const [stage, photo, square, corner, size, domain, psi, button] =
  ["stage", "photo", "square", "corner", "size", "domain", "psi", "draw"].map($);
const say = (sentence) => ($("status").textContent = sentence);

document.documentElement.lang = language;
document.querySelectorAll("[data-text]").forEach((e) => (e.textContent = texts[e.dataset.text] ?? e.textContent));
document.title = texts.title ?? document.title;
square.setAttribute("aria-label", texts.square);
photo.setAttribute("aria-label", texts.photo);

// The model

let ort; // onnxruntime-web
let about; // onnx/model.json
const sessions = {};

async function load() {
  ort = await import("./ort/ort.wasm.bundle.min.mjs"); // here, so that a page without it can say so
  about = await (await fetch("onnx/model.json")).json();
  for (const name of ["encoder", "mapping_network", "decoder"]) {
    // fp16 files: half of the download, and what they change nobody sees
    sessions[name] = await ort.InferenceSession.create(`onnx/${about.networks[name].files.fp16}`);
  }
}

const tensor = (values, ...shape) => new ort.Tensor("float32", Float32Array.from(values), shape);

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

/** RGBA pixels of a square → what the decoder needs of it. */
async function encode(pixels) {
  const side = about.image_size, area = side * side;
  const values = Float32Array.from({ length: 3 * area }, (_, i) => pixels[4 * (i % area) + Math.floor(i / area)] / 127.5 - 1);
  return (await sessions.encoder.run({ picture: tensor(values, 1, 3, side, side) })).features;
}

/** A latent code → the style that it stands for in a domain, truncated. */
async function styleOf(code, name, truncation) {
  const index = new ort.Tensor("int64", BigInt64Array.of(BigInt(about.domains.indexOf(name))), [1]);
  const { style } = await sessions.mapping_network.run({ latent: tensor(code, 1, about.latent_dim), domain: index });
  const mean = about.mean_styles[name];
  return tensor(mean.map((value, i) => value + truncation * (style.data[i] - value)), 1, about.style_dim);
}

/** Features and a style → ImageData. */
async function decode(features, style, name) {
  const { picture } = await sessions.decoder.run({ features, style });
  const side = about.image_size, area = side * side, drawn = new ImageData(side, side);
  const gray = about.grayscale_domains.includes(name);
  for (let i = 0; i < area; i++) {
    const rgb = [0, 1, 2].map((channel) => (picture.data[channel * area + i] + 1) * 127.5);
    const luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
    drawn.data.set([...(gray ? [luma, luma, luma] : rgb), 255], 4 * i); // rounded and clipped as it is stored
  }
  return drawn;
}

// The photo and its square

const crop = { x: 0, y: 0, side: 0 }; // in px of the photo's canvas

let opening = 0; // a photo that is chosen meanwhile takes the place of this one

async function open(file) {
  const mine = ++opening;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    if (mine === opening) say(texts.broken);
    return;
  }
  if (mine !== opening) return;
  const scale = Math.min(1, LARGEST / Math.max(picture.width, picture.height));
  photo.width = Math.max(1, Math.round(picture.width * scale));
  photo.height = Math.max(1, Math.round(picture.height * scale));
  const context = photo.getContext("2d");
  context.fillStyle = "white"; // below what is transparent
  context.fillRect(0, 0, photo.width, photo.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, photo.width, photo.height);
  picture.close();
  photo.parentElement.hidden = false;
  $("empty").hidden = true;
  size.disabled = button.disabled = false;
  const side = 0.5 * Math.min(photo.width, photo.height);
  const detected = await find();
  if (mine !== opening) return;
  place(detected ?? { x: (photo.width - side) / 2, y: (photo.height - side) / 5, side });
  say(detected ? texts.found : "FaceDetector" in window ? texts.none : texts.place);
  codes = newCodes();
  await draw();
}

/** The square of the biggest face, where the browser has a face detector. */
async function find() {
  if (!("FaceDetector" in window)) return null;
  try {
    const faces = await new FaceDetector().detect(photo);
    if (!faces.length) return null;
    const { boundingBox: box, landmarks } = faces.sort((a, b) => b.boundingBox.width - a.boundingBox.width)[0];
    const frame = about.framing.landmarks;
    const eyes = (landmarks ?? []).filter((l) => l.type === "eye").map((l) => l.locations).map((points) => ({
      x: points.reduce((sum, p) => sum + p.x, 0) / points.length, y: points.reduce((sum, p) => sum + p.y, 0) / points.length,
    }));
    if (eyes.length === 2 && frame) {
      const side = Math.hypot(eyes[0].x - eyes[1].x, eyes[0].y - eyes[1].y) / (frame[1][0] - frame[0][0]);
      const middle = [0, 1].map((axis) => (frame[0][axis] + frame[1][axis]) / 2);
      return { x: (eyes[0].x + eyes[1].x) / 2 - middle[0] * side, y: (eyes[0].y + eyes[1].y) / 2 - middle[1] * side, side };
    }
    const side = 1.2 * Math.max(box.width, box.height);
    return { x: box.x + (box.width - side) / 2, y: box.y + (box.height - side) / 2, side };
  } catch {
    return null; // some browsers have the class and no detector behind it
  }
}

/** Moves the square, within the photo. */
function place({ x = crop.x, y = crop.y, side = crop.side }) {
  const least = Math.min(photo.width, photo.height);
  crop.side = Math.min(Math.max(side, least / 20), least);
  crop.x = Math.min(Math.max(x, 0), photo.width - crop.side);
  crop.y = Math.min(Math.max(y, 0), photo.height - crop.side);
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  square.style.left = percent(crop.x, photo.width);
  square.style.top = percent(crop.y, photo.height);
  square.style.width = percent(crop.side, photo.width);
  square.style.height = percent(crop.side, photo.height);
  size.value = (100 * crop.side) / least;
}

/** Changes the square's size around its middle. */
function resize(side) {
  const before = crop.side;
  place({ side });
  place({ x: crop.x + (before - crop.side) / 2, y: crop.y + (before - crop.side) / 2 });
}

/** RGBA of the square at the model's size; halved step by step, since one big step would leave pixels out. */
function cropped() {
  let side = Math.max(about.image_size, Math.round(crop.side)), from = photo, box = [crop.x, crop.y, crop.side];
  for (;;) {
    side = Math.max(about.image_size, Math.ceil(side / 2));
    const canvas = new OffscreenCanvas(side, side), context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.drawImage(from, box[0], box[1], box[2], box[2], 0, 0, side, side);
    if (side === about.image_size) return context.getImageData(0, 0, side, side).data;
    [from, box] = [canvas, [0, 0, side]];
  }
}

// Drawing

let codes = [], turn = 0;
const newCodes = () => Array.from({ length: COUNT }, () => Float32Array.from({ length: about.latent_dim }, normal));

/** Draws the square in all styles; whatever is asked for meanwhile takes its place. */
async function draw() {
  const mine = ++turn, start = performance.now(), name = domain.value;
  say(texts.working);
  await new Promise(requestAnimationFrame); // shows that
  const features = await encode(cropped());
  for (const [index, code] of codes.entries()) {
    if (mine !== turn) return;
    const drawn = await decode(features, await styleOf(code, name, Number(psi.value)), name);
    if (mine !== turn) return;
    $("drawings").children[index].getContext("2d").putImageData(drawn, 0, 0);
    await new Promise((resolve) => setTimeout(resolve)); // clicks come in between
  }
  const seconds = (performance.now() - start) / 1000 / COUNT;
  $("drawings").dataset.seconds = seconds;
  say(texts.done(seconds.toFixed(2)));
}

// What the visitor does

let held = null; // where the pointer took hold, and of what

square.addEventListener("pointerdown", (event) => {
  held = { corner: event.target === corner, x: event.clientX, y: event.clientY, from: { ...crop } };
  square.setPointerCapture(event.pointerId);
});
square.addEventListener("pointermove", (event) => {
  if (!held) return;
  const scale = photo.width / photo.getBoundingClientRect().width;
  const [dx, dy] = [(event.clientX - held.x) * scale, (event.clientY - held.y) * scale];
  const { x, y, side } = held.from;
  if (held.corner) place({ x, y, side: Math.min(side + Math.max(dx, dy), photo.width - x, photo.height - y) });
  else place({ x: x + dx, y: y + dy });
});
for (const ended of ["pointerup", "pointercancel"]) {
  square.addEventListener(ended, () => {
    if (held) draw();
    held = null;
  });
}
let waiting;
const drawSoon = () => {
  clearTimeout(waiting);
  waiting = setTimeout(draw, 250); // a key that is held down moves on
};
square.addEventListener("keydown", (event) => {
  const step = crop.side / 20;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const sizes = { "+": 1.05, "=": 1.05, "-": 1 / 1.05 };
  if (event.key in moves) place({ x: crop.x + moves[event.key][0], y: crop.y + moves[event.key][1] });
  else if (event.key in sizes) resize(crop.side * sizes[event.key]);
  else return;
  event.preventDefault();
  drawSoon();
});
size.addEventListener("input", () => {
  resize((size.value / 100) * Math.min(photo.width, photo.height));
  drawSoon();
});
for (const control of [domain, psi]) control.addEventListener("change", () => codes.length && draw());
button.addEventListener("click", () => {
  codes = newCodes();
  draw();
});
$("file").addEventListener("change", (event) => {
  if (event.target.files[0]) open(event.target.files[0]);
  event.target.value = ""; // so that the same can be chosen again
});
stage.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
stage.addEventListener("dragleave", () => stage.classList.remove("over"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && $("file").disabled) early = file;
  else if (file) open(file);
});

// The start

let early; // a photo that came before the model
say(texts.loading);
$("file").disabled = true;
try {
  await load();
  psi.max = about.psi.largest;
  for (const name of about.domains) domain.add(new Option(texts[name] ?? name, name));
  for (let i = 1; i <= COUNT; i++) {
    const canvas = Object.assign(document.createElement("canvas"), { width: about.image_size, height: about.image_size });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${texts.drawing} ${i}`);
    $("drawings").append(canvas);
  }
  $("file").disabled = false;
  say(texts.ready);
  if (early) open(early);
} catch (error) {
  say(texts.failed);
  throw error;
}
