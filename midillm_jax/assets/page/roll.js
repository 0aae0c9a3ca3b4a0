// The piano roll of the page: draws props.value (serving/roll_view.py says what is in it), plays, and selects bars.
// Gradio calls this with element, trigger, props and watch when the component is on the page.

const find = (name) => element.querySelector(name);
const canvas = find("canvas");
const audio = find("audio");
const LEFT = 46, RIGHT = 12, TOP = 22, BOTTOM = 22, DRUM_ROW = 9, GAP = 10, HEIGHT = 360;
const DRUMS = 128;
const BLACK_KEYS = [1, 3, 6, 8, 10];
const CLICK_PIXELS = 5;
const REST_MS = 150;

let picture = document.createElement("canvas"); // all but selection and playhead
let size = { width: 0, scale: 1 };
let lanes = { low: 48, high: 84, row: 8, drums: [] };
let selected = null; // seconds [from, to]
let drag = null; // where a pointer went down
let telling = 0; // timer

const view = () => props.value || { notes: [], fresh: [], programs: [], bars: [], seconds: 30 };
const colour = (name) => getComputedStyle(element).getPropertyValue(name).trim();
const x = (seconds) => LEFT + (seconds / view().seconds) * (size.width - LEFT - RIGHT);
const seconds = (px) => Math.min(1, Math.max(0, (px - LEFT) / (size.width - LEFT - RIGHT))) * view().seconds;

function layOut() {
  const all = view().notes.concat(view().fresh);
  const drums = new Set(), pitches = [];
  for (const [, , program, pitch] of all) program === DRUMS ? drums.add(pitch) : pitches.push(pitch);
  let low = 48, high = 84;
  if (pitches.length) {
    low = pitches.reduce((a, b) => Math.min(a, b)) - 2;
    high = pitches.reduce((a, b) => Math.max(a, b)) + 2;
    // While notes come, the rows only grow, so that the picture does not jump.
    if (view().fresh.length) [low, high] = [Math.min(low, lanes.low), Math.max(high, lanes.high)];
    const missing = Math.max(0, 24 - (high - low));
    low = Math.max(0, low - Math.floor(missing / 2));
    high = Math.min(127, high + Math.ceil(missing / 2));
  }
  const keys = [...drums].sort((a, b) => b - a);
  const drumRow = Math.min(DRUM_ROW, 90 / Math.max(1, keys.length));
  const room = HEIGHT - TOP - BOTTOM - (keys.length ? keys.length * drumRow + GAP : 0);
  lanes = { low, high, row: room / (high - low + 1), drums: keys, drumRow, bottom: TOP + room };
}

const y = (pitch) => TOP + (lanes.high - pitch) * lanes.row;
const drumY = (key) => lanes.bottom + GAP + lanes.drums.indexOf(key) * lanes.drumRow;

function paint() {
  size = { width: Math.max(320, canvas.clientWidth), scale: window.devicePixelRatio || 1 };
  layOut();
  for (const each of [canvas, picture]) {
    each.width = size.width * size.scale;
    each.height = HEIGHT * size.scale;
  }
  const pen = picture.getContext("2d");
  pen.setTransform(size.scale, 0, 0, size.scale, 0, 0);
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  paintGrid(pen);
  const colours = new Map(view().programs.map(([program, , shade]) => [program, shade]));
  const writing = view().fresh.length > 0 || (view().span && !view().midi);
  for (const row of view().notes) paintNote(pen, row, colours, writing ? 0.35 : 1);
  for (const row of view().fresh) paintNote(pen, row, colours, 1);
  show();
}

function paintGrid(pen) {
  const right = size.width - RIGHT;
  pen.fillStyle = colour("--roll-paper");
  pen.fillRect(0, 0, size.width, HEIGHT);
  for (let pitch = lanes.low; pitch <= lanes.high; pitch++) {
    pen.fillStyle = colour(BLACK_KEYS.includes(pitch % 12) ? "--roll-black-key" : "--roll-lane");
    pen.fillRect(LEFT, y(pitch), right - LEFT, lanes.row + 0.5);
  }
  pen.textAlign = "right";
  for (let pitch = Math.ceil(lanes.low / 12) * 12; pitch <= lanes.high; pitch += 12) {
    pen.fillStyle = colour("--roll-octave");
    pen.fillRect(LEFT, y(pitch) + lanes.row - 0.5, right - LEFT, 1);
    pen.fillStyle = colour("--roll-ink");
    pen.fillText(`C${pitch / 12 - 1}`, LEFT - 8, y(pitch) + lanes.row / 2);
  }
  if (lanes.drums.length) {
    pen.fillStyle = colour("--roll-lane");
    pen.fillRect(LEFT, lanes.bottom + GAP, right - LEFT, lanes.drums.length * lanes.drumRow);
    pen.fillStyle = colour("--roll-ink");
    pen.fillText("drums", LEFT - 8, lanes.bottom + GAP + (lanes.drums.length * lanes.drumRow) / 2);
  }
  paintTimes(pen);
}

function paintTimes(pen) {
  const foot = HEIGHT - BOTTOM;
  pen.textAlign = "center";
  const bars = view().bars;
  const every = Math.max(1, Math.ceil(bars.length / ((size.width - LEFT) / 34)));
  bars.forEach(([number, at], index) => {
    pen.fillStyle = colour("--roll-line");
    if (bars.length < size.width / 6 || index % every === 0) pen.fillRect(x(at), TOP, 1, foot - TOP);
    if (index % every || index === bars.length - 1) return;
    pen.fillStyle = colour("--roll-ink");
    pen.textAlign = "left";
    pen.fillText(number, x(at) + 3, TOP / 2);
  });
  const most = (size.width - LEFT) / 60;
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300].find((each) => view().seconds / each <= most) || 600;
  pen.textAlign = "center";
  pen.fillStyle = colour("--roll-ink");
  for (let at = 0; at <= view().seconds; at += step) pen.fillText(at ? `${at} s` : "0", x(at), HEIGHT - BOTTOM / 2);
  pen.textAlign = "right";
  if (bars.length) pen.fillText("bar", LEFT - 8, TOP / 2);
}

function paintNote(pen, [at, long, program, pitch, velocity], colours, strength) {
  const left = x(at), width = Math.max(2, x(at + long) - left - 0.5);
  pen.globalAlpha = strength * (0.55 + 0.45 * Math.min(1, velocity / 100));
  pen.fillStyle = colours.get(program) || "#888";
  if (program === DRUMS) {
    pen.fillStyle = colour("--roll-drum");
    pen.fillRect(left, drumY(pitch) + 1, 3.5, Math.max(2, lanes.drumRow - 2));
  } else {
    const high = Math.max(2, lanes.row - 0.5);
    pen.beginPath();
    pen.roundRect(left, y(pitch), width, high, Math.min(2.5, width / 2, high / 2));
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function show() {
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.drawImage(picture, 0, 0);
  pen.setTransform(size.scale, 0, 0, size.scale, 0, 0);
  if (selected) {
    const [left, right] = selected.map(x);
    pen.fillStyle = colour("--roll-selection");
    pen.fillRect(left, TOP, right - left, HEIGHT - TOP - BOTTOM);
    pen.fillStyle = colour("--roll-accent");
    pen.fillRect(left - 1, TOP, 2, HEIGHT - TOP - BOTTOM);
    pen.fillRect(right - 1, TOP, 2, HEIGHT - TOP - BOTTOM);
  }
  if (audio.src && (audio.currentTime > 0 || !audio.paused)) {
    pen.fillStyle = colour("--roll-playhead");
    pen.fillRect(x(Math.min(audio.currentTime, view().seconds)) - 0.75, TOP, 1.5, HEIGHT - TOP - BOTTOM);
  }
}

function follow() {
  show();
  if (!audio.paused) requestAnimationFrame(follow);
}

// Words around the picture. They are set as text: titles are what people typed.

function describe() {
  const now = view();
  const count = now.notes.length + now.fresh.length;
  const end = now.notes.concat(now.fresh).reduce((last, [at, long]) => Math.max(last, at + long), 0);
  const facts = count ? `${count.toLocaleString("en")} notes \u00b7 ${end.toFixed(1)} s` : "";
  find(".roll-title").textContent = now.title || "";
  find(".roll-facts").textContent = facts;
  find(".roll-hint").hidden = count > 0 || Boolean(now.span);
  const names = now.programs.map(([, name]) => name);
  canvas.setAttribute("aria-label", count ? `Piano roll: ${facts}, ${names.join(", ")}` : "Piano roll, empty");
  find(".roll-legend").replaceChildren(
    ...now.programs.map(([, name, shade]) => {
      const entry = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = shade;
      entry.append(dot, name);
      return entry;
    }),
  );
  const silence = find(".roll-silence");
  silence.textContent = now.silence ? `No sound: ${now.silence}` : "";
  silence.hidden = !now.silence;
  offer(find(".roll-midi"), now.midi);
  offer(find(".roll-sound"), now.sound);
  offer(find(".roll-picture"), now.picture);
  audio.hidden = !now.sound;
  const url = now.sound ? new URL(now.sound, document.baseURI).href : "";
  if (url && audio.src !== url) audio.src = url;
  if (!url && audio.src) {
    audio.pause();
    audio.removeAttribute("src");
  }
}

function offer(link, address) {
  link.hidden = !address;
  if (!address) return;
  link.href = new URL(address, document.baseURI).href;
  link.download = decodeURIComponent(address.split("/").pop());
  link.textContent = `Download .${link.download.split(".").pop()}`;
}

// Bars by pointer or keyboard.

function barAt(at) {
  const bars = view().bars;
  if (bars.length < 2) return null;
  let index = bars.findIndex(([, begin]) => begin > at + 1e-6) - 1;
  if (index < 0) index = at < bars[0][1] ? 0 : bars.length - 2;
  return Math.min(index, bars.length - 2);
}

function choose(first, last) {
  const bars = view().bars;
  selected = [bars[first][1], bars[last + 1][1]];
  show();
}

// Told once the keys rest, so that answers do not overtake one another.
function chosen() {
  clearTimeout(telling);
  telling = setTimeout(() => {
    if (!selected) return trigger("select", { first: null, last: null });
    const first = barAt(selected[0]), last = barAt(selected[1] - 0.01);
    trigger("select", { first: view().bars[first][0], last: view().bars[last][0] });
  }, REST_MS);
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !view().midi) return;
  canvas.setPointerCapture(event.pointerId);
  drag = { from: event.offsetX, moved: false, before: selected };
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag) return;
  drag.moved = drag.moved || Math.abs(event.offsetX - drag.from) > CLICK_PIXELS;
  const ends = [barAt(seconds(drag.from)), barAt(seconds(event.offsetX))].sort((a, b) => a - b);
  if (drag.moved && ends[0] !== null) choose(...ends);
});
canvas.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { moved } = drag;
  drag = null;
  if (moved) return chosen();
  if (audio.src) audio.currentTime = Math.min(seconds(event.offsetX), audio.duration || 0);
  show();
});
canvas.addEventListener("pointercancel", () => {
  if (drag) selected = drag.before;
  drag = null;
  show();
});

canvas.addEventListener("keydown", (event) => {
  const count = view().bars.length - 1;
  if (event.key === " " && audio.src) {
    audio.paused ? audio.play() : audio.pause();
  } else if (event.key === "Escape" && selected) {
    selected = null;
    show();
    chosen();
  } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && view().midi && count > 0) {
    const step = event.key === "ArrowRight" ? 1 : -1;
    let [first, last] = selected ? [barAt(selected[0]), barAt(selected[1] - 0.01)] : [0, 0];
    if (selected) {
      if (event.shiftKey) last = Math.min(count - 1, Math.max(first, last + step));
      else if (first + step >= 0 && last + step < count) [first, last] = [first + step, last + step];
    }
    choose(first, last);
    chosen();
  } else {
    return;
  }
  event.preventDefault();
});

for (const name of ["play", "seeked", "pause"]) audio.addEventListener(name, follow);

// Ctrl+Enter writes, wherever the focus is.
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) document.querySelector("#write")?.click();
});

function update() {
  if ("span" in view()) selected = view().span;
  describe();
  paint();
}

new ResizeObserver(paint).observe(canvas);
watch("value", update);
update();
