// The page: tabs, the portrait, and the tabs Animate and Check.
import { $, call, complain, line, makeFilm, upload } from "./line.js";
import { face } from "./face.js";
import { live } from "./live.js";

let photo = null; // the File of the portrait
let ready = Promise.resolve();
const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab) {
  for (const one of tabs) {
    one.setAttribute("aria-selected", one === tab);
    one.tabIndex = one === tab ? 0 : -1;
    $(one.getAttribute("aria-controls")).hidden = one !== tab;
  }
  complain("");
  if (tab.id !== "tab-live") live.stop();
  ready.then(() => face.opened(tab.id));
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
}

for (const [place, tab] of tabs.entries()) {
  tab.onclick = () => choose(tab);
  tab.onkeydown = ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!step) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    next.focus();
    choose(next);
  };
}

function take(file, sample = null) {
  ready = ready.then(async () => {
    complain("");
    document.body.setAttribute("aria-busy", "true");
    const answer = await line.ask("portrait", { name: file.name }, file);
    document.body.removeAttribute("aria-busy");
    if (!answer) return;
    photo = file;
    for (const image of document.querySelectorAll(".still")) {
      image.src = URL.createObjectURL(answer.content);
      image.hidden = false;
    }
    $("film").hidden = $("film-link").hidden = true;
    if (!sample) sample = addSample(file.name, URL.createObjectURL(file), () => take(file, sample));
    for (const button of $("samples").children) button.setAttribute("aria-pressed", button === sample);
    await face.newPortrait(answer.sliders);
    face.opened(document.querySelector("[aria-selected=true]").id);
  });
  return ready;
}

function addSample(name, address, onclick) {
  const button = document.createElement("button"), image = document.createElement("img");
  Object.assign(image, { src: address, alt: name });
  Object.assign(button, { type: "button", title: name, onclick });
  button.append(image);
  $("samples").append(button);
  return button;
}

async function offered(kind, name) {
  const reply = await fetch(`studio/offered/${kind}/${encodeURIComponent(name)}`);
  return new File([await reply.blob()], name);
}

function accepts(box, use) {
  box.ondragover = (event) => { event.preventDefault(); box.classList.add("over"); };
  box.ondragleave = () => box.classList.remove("over");
  box.ondrop = (event) => {
    event.preventDefault();
    box.classList.remove("over");
    if (event.dataTransfer.files[0]) use(event.dataTransfer.files[0]);
  };
}

for (const label of document.querySelectorAll("label[tabindex]"))
  label.onkeydown = ({ key }) => { if (key === "Enter" || key === " ") label.click(); };

$("photo").onchange = ({ target }) => target.files[0] && take(target.files[0]);
accepts($("portrait"), take);
document.onpaste = ({ clipboardData }) => {
  const file = [...clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) take(file);
};

$("snapshot").onclick = async () => {
  const dialog = $("snap"), video = dialog.querySelector("video"), [shot, close] = dialog.querySelectorAll("button");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 960 } });
  } catch {
    return complain("The camera cannot be used. Allow it for this page in the browser, and close other programs that use it.");
  }
  dialog.showModal();
  dialog.onclose = () => video.srcObject.getTracks().forEach((track) => track.stop());
  close.onclick = () => dialog.close();
  shot.onclick = () => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.convertToBlob({ type: "image/png" }).then((blob) => take(new File([blob], "snapshot.png")));
    dialog.close();
  };
};

$("driving").onchange = ({ target }) => { $("driving-name").textContent = target.files[0]?.name ?? ""; };
$("clip").onchange = () => { $("driving").value = ""; $("driving-name").textContent = "A video, photo, sound, motion file, or take (.csv)"; };
$("clip").onchange();
accepts($("animate"), (file) => {
  const files = new DataTransfer();
  files.items.add(file);
  $("driving").files = files.files;
  $("driving").onchange({ target: $("driving") });
});

$("film-form").onsubmit = async (event) => {
  event.preventDefault();
  const form = event.target, button = $("make"), options = { regions: [] };
  for (const field of form.elements) {
    if (field.name === "regions") options.regions.push(...(field.checked ? [field.value] : []));
    else if (field.name) options[field.name] = field.type === "checkbox" ? field.checked : Number(field.value);
  }
  button.disabled = true;
  try {
    await ready;
    if (!photo) throw new Error("Choose a portrait first.");
    if (!options.regions.length) throw new Error("Nothing follows: choose at least one of lips, jaw, lids, brows, gaze and head.");
    const clip = $("driving").files[0] ?? (await offered("clips", $("clip").value));
    const data = [await upload(photo), await upload(clip), options];
    if (await makeFilm("film", $("film"), "animate", data)) document.querySelector("#animate .still").hidden = true;
  } catch (error) {
    complain(error.message);
  }
  button.disabled = false;
};

$("orbit-form").onsubmit = async (event) => {
  event.preventDefault();
  const form = event.target.elements;
  await ready;
  if (!photo) return complain("Choose a portrait first.");
  const numbers = [form.yaw, form.pitch, form.seconds, form.size].map((field) => Number(field.value));
  await makeFilm("orbit", $("orbit"), "turn", [await upload(photo), ...numbers, form.depth.checked]);
};
for (const range of document.querySelectorAll("#orbit-form [type=range], #film-form [type=range]"))
  range.oninput = () => { range.nextElementSibling.value = Number(range.value).toFixed(range.step ? 2 : 0); };

$("mesh-form").onchange = ({ currentTarget: { elements } }) => {
  elements.shapes.disabled = elements.kind.value !== "glb";
  if (elements.shapes.disabled) elements.shapes.checked = false;
};
$("mesh-form").onsubmit = async (event) => {
  event.preventDefault();
  const { kind, shapes } = event.target.elements;
  await ready;
  if (!photo) return complain("Choose a portrait first.");
  $("mesh-link").download = `head.${kind.value}`;
  await makeFilm("mesh", null, "mesh", [await upload(photo), kind.value, shapes.checked]);
};

const VERDICTS = {
  0: "Made with Export3D, and unchanged since", 60: "It has a valid manifest, but no mark of ours",
  61: "Made with Export3D, and encoded again since", 62: "It says nothing of how it was made", 63: "It was changed after it was signed",
};
async function check(file) {
  const place = $("verdict");
  complain("");
  place.textContent = `Looking at ${file.name} ...`;
  try {
    const [report] = await call("check", [await upload(file)]);
    const title = document.createElement("h2"), words = document.createElement("pre");
    title.textContent = VERDICTS[report.code];
    words.textContent = report.words;
    place.replaceChildren(title, words);
  } catch (error) {
    place.textContent = "";
    complain(error.message);
  }
}
$("check-file").onchange = ({ target }) => target.files[0] && check(target.files[0]);
accepts($("check-drop"), check);

const offer = await (await fetch("studio/offered")).json();
$("version").textContent = `Export3D ${offer.version}`;
$("own-photo").hidden = offer.restricted;
for (const name of offer.clips) $("clip").add(new Option(name.replace(/\.\w+$/, ""), name));
for (const name of offer.portraits) {
  const button = addSample(name, `studio/offered/portraits/${encodeURIComponent(name)}`, async () => take(await offered("portraits", name), button));
}
const wanted = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash);
$("samples").firstElementChild?.click();
if (wanted) choose(wanted);
