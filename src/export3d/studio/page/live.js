// The tab Live: pictures of the webcam go to the studio, two on the way at most, and the portrait comes back.
import { $, complain, line, show } from "./line.js";

const WIDE = 480; // of the pictures that are sent
const ON_THE_WAY = 2;
const form = $("live-form"), video = $("webcam"), picture = $("live-picture");
const still = picture.nextElementSibling;
let running = null; // one object for each start of the camera
let recorder = null;
let recording = false;

function options() {
  const [size, strength] = [form.elements.size, form.elements.strength].map((field) => Number(field.value));
  const chosen = Object.fromEntries(["relative", "pose", "freeze"].map((name) => [name, form.elements[name].checked]));
  return { ...chosen, size, strength };
}

async function start() {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch {
    return complain("The camera cannot be used. Allow it for this page in the browser, and close other programs that use it.");
  }
  complain("");
  if (!(await line.ask("live", { options: options() }))) return stream.getTracks().forEach((track) => track.stop());
  video.srcObject = stream;
  await video.play();
  const run = (running = { stream, waiting: 0, times: [], delays: [] });
  $("live-start").textContent = "Stop the camera";
  const next = () => {
    if (running !== run) return;
    if (run.waiting < ON_THE_WAY) send(run, next);
    video.requestVideoFrameCallback(next);
  };
  video.requestVideoFrameCallback(next);
}

async function send(run) {
  run.waiting += 1;
  const seen = performance.now(), scale = Math.min(1, WIDE / video.videoWidth);
  const canvas = new OffscreenCanvas(Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale));
  const paper = canvas.getContext("2d");
  if (form.elements.mirror.checked) paper.setTransform(-1, 0, 0, 1, canvas.width, 0);
  paper.drawImage(video, 0, 0, canvas.width, canvas.height);
  const sent = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 });
  const answer = await line.send("frame", {}, sent);
  run.waiting -= 1;
  if (running !== run || answer.late) return;
  if (answer.error) { complain(answer.error); return stop(); }
  still.hidden = true;
  await show(picture, answer.content);
  picture.sent = sent; // what this picture was made from
  tell(run, seen, answer.found);
}

function tell(run, seen, found) {
  const now = performance.now();
  run.times.push(now);
  run.delays.push(now - seen);
  while (run.times.length > 40) { run.times.shift(); run.delays.shift(); }
  const rate = run.times.length > 1 ? (1000 * (run.times.length - 1)) / (now - run.times[0]) : 0;
  const delay = [...run.delays].sort((a, b) => a - b)[run.delays.length >> 1];
  Object.assign(picture.dataset, { rate: rate.toFixed(2), delay: delay.toFixed(1) });
  $("live-figures").textContent = `${rate.toFixed(1)} pictures a second, ${Math.round(delay)} ms behind` + (found ? "" : " - no face to be seen");
}

async function stop() {
  if (!running) return;
  const { stream } = running;
  running = null;
  if (recording) await record();
  stream.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
  $("live-start").textContent = "Start the camera";
  $("live-figures").textContent = "The camera is off.";
  await line.send("stop");
}

async function record() {
  const button = $("record");
  if (!recording) {
    if (!running) return complain("Start the camera first.");
    recorder = $("sound").checked ? await hear() : null;
    if (!(await line.ask("record"))) return;
    recording = true;
    button.textContent = "Stop recording";
    $("recording-link").hidden = true;
    return;
  }
  recording = false;
  button.disabled = true;
  button.textContent = "Writing the film";
  const answer = await line.ask("recorded", {}, recorder ? await recorder.end() : null);
  Object.assign(button, { disabled: false, textContent: "Record" });
  if (!answer) return;
  Object.assign($("recording-link"), { href: `studio/made/${answer.file}?called=live.mp4`, hidden: false });
  $("recording-link").textContent = `Download the recording (${answer.frames} frames)`;
}

// The microphone, until `end`; null where there is none.
async function hear() {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const machine = new MediaRecorder(stream), parts = [];
    machine.ondataavailable = ({ data }) => parts.push(data);
    machine.start();
    return {
      end: () => new Promise((done) => {
        machine.onstop = () => {
          stream.getTracks().forEach((track) => track.stop());
          done(new Blob(parts));
        };
        machine.stop();
      }),
    };
  } catch {
    complain("No microphone can be used; the recording has no sound.");
    return null;
  }
}

form.onchange = () => {
  video.classList.toggle("mirror", form.elements.mirror.checked);
  if (running) line.ask("live", { options: options() });
};
form.elements.strength.oninput = ({ target }) => { target.nextElementSibling.value = Number(target.value).toFixed(2); };
form.onsubmit = (event) => event.preventDefault();
$("live-start").onclick = () => (running ? stop() : start());
$("calibrate").onclick = async () => {
  form.elements.relative.checked = true;
  if (!(await line.ask("live", { options: options() }))) return;
  line.ask("calibrate");
};
$("record").onclick = record;
$("camera-out").onchange = async (event) => {
  event.stopPropagation();
  if (!(await line.ask("camera", { on: event.target.checked }))) event.target.checked = false;
};
video.classList.add("mirror");
line.onlost = () => { if (running) stop(); };
export const live = { stop };
