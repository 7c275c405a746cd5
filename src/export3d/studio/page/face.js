// The tabs Face and 3D: what is asked of the portrait (studio/face.py), by sliders and by dragging.
import { $, complain, line, show } from "./line.js";

const PRESETS = {
  Smile: { mouthSmileLeft: 0.8, mouthSmileRight: 0.8, eyeSquintLeft: 0.4, eyeSquintRight: 0.4 },
  Surprise: { jawOpen: 0.5, browInnerUp: 0.9, browOuterUpLeft: 0.8, browOuterUpRight: 0.8 },
  Wink: { eyeBlinkLeft: 1, mouthSmileLeft: 0.6 },
  Sad: { browInnerUp: 0.8, mouthFrownLeft: 0.7, mouthFrownRight: 0.7 },
  Kiss: { mouthPucker: 0.9, mouthFunnel: 0.3 },
};
const NEUTRAL = { weights: {}, gaze: [0, 0], turn: [0, 0, 0], orbit: [0, 0], nearer: 1 };
const limit = (value, most) => Math.min(Math.max(value, -most), most);
const words = (name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`).replace(/^./, (letter) => letter.toUpperCase());

// One wish, the canvas that shows it, and the line to the studio: one picture on the way at a time, the newest wins.
class View {
  constructor(canvas, { drag, depth = null }) {
    Object.assign(this, { canvas, drag, depth, wish: structuredClone(NEUTRAL), busy: false, wanted: null, past: [] });
    this.onchange = () => {};
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.classList.add("held");
      this.keep();
      let [x, y] = [event.clientX, event.clientY];
      canvas.onpointermove = (move) => {
        this.move(limit(move.clientX - x, 400) / 4, limit(move.clientY - y, 400) / 4, move.shiftKey);
        [x, y] = [move.clientX, move.clientY];
      };
      canvas.onpointerup = canvas.onpointercancel = () => {
        canvas.onpointermove = null;
        canvas.classList.remove("held");
        this.draw();
      };
    };
    canvas.onkeydown = (event) => {
      const way = { ArrowLeft: [-4, 0], ArrowRight: [4, 0], ArrowUp: [0, -4], ArrowDown: [0, 4] }[event.key];
      const step = { "+": 1, "=": 1, "-": -1 }[event.key];
      if (event.ctrlKey || event.metaKey || (!way && !step)) return; // with Ctrl they are the browser's
      event.preventDefault();
      this.keep();
      if (way) this.move(...way, event.shiftKey);
      else this.nearer(step);
    };
    canvas.onkeyup = ({ key }) => { if (key.startsWith("Arrow")) this.draw(); };
    canvas.onwheel = (event) => {
      event.preventDefault();
      this.nearer(-Math.sign(event.deltaY));
    };
  }

  nearer(step) {
    this.wish.nearer = Math.min(Math.max(this.wish.nearer * (1 + 0.04 * step), 0.7), 1.5);
    this.draw();
  }

  move(yaw, pitch, shift) {
    const angles = this.wish[shift ? "orbit" : this.drag];
    angles[0] = limit(angles[0] + yaw, 60);
    angles[1] = limit(angles[1] + pitch, 40);
    this.draw(256);
  }

  keep() {
    this.past.push(structuredClone(this.wish));
    if (this.past.length > 100) this.past.shift();
  }

  set(wish) {
    this.wish = structuredClone({ ...NEUTRAL, ...wish });
    this.onchange();
    this.draw();
  }

  undo() {
    if (this.past.length) this.set(this.past.pop());
  }

  async draw(size = 512) {
    this.wanted = size;
    if (this.busy) return;
    this.busy = true;
    this.canvas.ariaBusy = "true";
    while (this.wanted) {
      const asked = this.wanted, start = performance.now();
      this.wanted = null;
      const wish = structuredClone(this.wish);
      const answer = await line.send("face", { wish, size: asked });
      if (answer.error) { complain(answer.error); break; }
      if (answer.content.size) await show(this.canvas, answer.content);
      this.canvas.dataset.ms = Math.round(performance.now() - start);
      if (this.depth && !this.wanted) {
        const depth = await line.send("face", { wish, depth: true });
        if (depth.content?.size && !depth.error) await show(this.depth, depth.content);
      }
    }
    this.busy = false;
    this.canvas.ariaBusy = "false";
  }
}

const made = new View($("face-picture"), { drag: "turn" });
const turned = new View($("turn-picture"), { drag: "orbit", depth: $("turn-depth") });
let own = {}, keys = [];

function buildSliders(groups) {
  own = Object.fromEntries(groups.flatMap(({ weights }) => weights.map(({ name, value }) => [name, value])));
  $("sliders").replaceChildren(...groups.map(({ title, weights }, place) => {
    const box = document.createElement("details"), head = document.createElement("summary");
    head.textContent = title;
    box.open = place === 0;
    box.append(head, ...weights.map(({ name, value }) => {
      const label = document.createElement("label"), text = document.createElement("span");
      const range = document.createElement("input"), number = document.createElement("output");
      text.textContent = words(name);
      Object.assign(range, { type: "range", min: 0, max: 1, step: 0.01, value, name });
      number.value = value.toFixed(2);
      range.onpointerdown = () => made.keep();
      range.onkeydown = ({ key }) => key.startsWith("Arrow") && made.keep();
      range.oninput = () => {
        made.wish.weights[name] = Number(range.value);
        number.value = Number(range.value).toFixed(2);
        made.draw(256);
      };
      range.onchange = () => made.draw();
      label.append(text, range, number);
      return label;
    }));
    return box;
  }));
}

made.onchange = () => {
  for (const range of $("sliders").querySelectorAll("input")) {
    range.value = made.wish.weights[range.name] ?? own[range.name];
    range.nextElementSibling.value = Number(range.value).toFixed(2);
  }
  const [x, y] = made.wish.gaze, dot = $("gaze").firstElementChild;
  dot.style.left = `${50 + (x / 30) * 50}%`;
  dot.style.top = `${50 - (y / 20) * 50}%`;
  $("gaze").setAttribute("aria-valuetext", x || y ? `${Math.round(x)} degrees aside, ${Math.round(y)} up` : "as in the photo");
};

function look(x, y, size) {
  made.wish.gaze = [limit(x, 30), limit(y, 20)];
  made.onchange();
  made.draw(size);
}
$("gaze").onpointerdown = (event) => {
  const pad = event.currentTarget, box = pad.getBoundingClientRect();
  const to = ({ clientX, clientY }) => look(((clientX - box.x) / box.width - 0.5) * 60, (0.5 - (clientY - box.y) / box.height) * 40, 256);
  pad.setPointerCapture(event.pointerId);
  made.keep();
  to(event);
  pad.onpointermove = to;
  pad.onpointerup = () => { pad.onpointermove = null; made.draw(); };
};
$("gaze").onkeydown = (event) => {
  const [x, y] = { ArrowLeft: [-3, 0], ArrowRight: [3, 0], ArrowUp: [0, 3], ArrowDown: [0, -3] }[event.key] ?? [0, 0];
  if (!x && !y) return;
  event.preventDefault();
  made.keep();
  look(made.wish.gaze[0] + x, made.wish.gaze[1] + y);
};

for (const [name, weights] of Object.entries(PRESETS)) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
  button.onclick = () => {
    const known = Object.entries(weights).filter(([weight]) => weight in own);
    made.keep();
    made.set({ ...made.wish, weights: Object.fromEntries(known) });
  };
  $("presets").append(button);
}
$("undo").onclick = () => made.undo();
$("reset").onclick = () => { made.keep(); made.set({}); };

function offer(name, address) {
  Object.assign($("face-link"), { href: address, download: name, textContent: `Download ${name}`, hidden: false });
}
$("still").onclick = async () => {
  const answer = await line.ask("still", { wish: made.wish });
  if (answer) offer("face.png", `studio/made/${answer.file}?called=face.png`);
};
$("save-preset").onclick = () => offer("preset.json", URL.createObjectURL(new Blob([JSON.stringify(made.wish, null, 1)], { type: "application/json" })));
$("load-preset").onchange = async ({ target }) => {
  try {
    const wish = JSON.parse(await target.files[0].text());
    made.keep();
    made.set(wish);
  } catch {
    complain(`${target.files[0]?.name}: this is no preset of the studio.`);
  }
  target.value = "";
};

function listKeys() {
  keys.sort((a, b) => a.time_s - b.time_s);
  $("keys").replaceChildren(...keys.map((key) => {
    const row = document.createElement("li");
    row.textContent = `${key.time_s} s`;
    const [seen, gone] = ["Show", "Remove"].map((textContent) => Object.assign(document.createElement("button"), { type: "button", textContent }));
    seen.onclick = () => { made.keep(); made.set(key.wish); };
    gone.onclick = () => { keys = keys.filter((one) => one !== key); listKeys(); };
    row.append(seen, gone);
    return row;
  }));
}
$("add-key").onclick = () => {
  const time_s = Number($("key-time").value);
  keys = keys.filter((key) => key.time_s !== time_s).concat({ time_s, wish: structuredClone(made.wish) });
  $("key-time").value = time_s + 1;
  listKeys();
};
$("save-motion").onclick = async () => {
  const answer = await line.ask("motion", { keyframes: keys });
  if (answer) offer("motion.safetensors", `studio/made/${answer.file}?called=motion.safetensors`);
};

export const face = {
  async newPortrait(groups) {
    buildSliders(groups);
    for (const view of [made, turned]) Object.assign(view, { wish: structuredClone(NEUTRAL), past: [] });
    made.onchange();
    keys = [];
    listKeys();
    $("face-link").hidden = $("orbit").hidden = $("orbit-link").hidden = $("mesh-link").hidden = true;
  },
  opened(tab) {
    if (!Object.keys(own).length && !$("samples").querySelector("[aria-pressed=true]")) return;
    if (tab === "tab-face") made.draw();
    if (tab === "tab-turn") turned.draw();
  },
};
