// The page's lines to the studio: the socket (socket.py), and the HTTP interface (docs/http.md).

export const $ = (id) => document.getElementById(id);

export function complain(text) {
  $("notice").textContent = text || "";
  $("notice").hidden = !text;
}

class Line {
  #socket = null;
  #opened = null;
  #answers = new Map();
  #next = 1;
  onlost = () => {};

  #open() {
    const address = new URL("studio/socket", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = (this.#socket = new WebSocket(address));
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      const length = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      if (header.n === undefined) return complain(header.error);
      this.#answers.get(header.n)?.({ ...header, content: new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" }) });
      this.#answers.delete(header.n);
    };
    socket.onclose = () => {
      this.#opened = null;
      for (const answer of this.#answers.values()) answer({ error: "The studio was stopped, or cannot be reached." });
      this.#answers.clear();
      this.onlost();
    };
    return new Promise((done) => { socket.onopen = done; });
  }

  async send(what, header = {}, content = null) {
    await (this.#opened ??= this.#open());
    const n = this.#next++;
    const text = new TextEncoder().encode(JSON.stringify({ ...header, do: what, n }));
    const body = content ? new Uint8Array(await content.arrayBuffer()) : new Uint8Array();
    const message = new Uint8Array(4 + text.length + body.length);
    new DataView(message.buffer).setUint32(0, text.length);
    message.set(text, 4);
    message.set(body, 4 + text.length);
    return new Promise((answer) => {
      this.#answers.set(n, answer);
      this.#socket.send(message);
    });
  }

  // Like send, but an error is shown, and the answer is null then.
  async ask(what, header, content) {
    const answer = await this.send(what, header, content);
    if (answer.error) complain(answer.error);
    return answer.error ? null : answer;
  }
}

export const line = new Line();

export async function show(canvas, picture) {
  const bitmap = await createImageBitmap(picture);
  if (canvas.width !== bitmap.width) canvas.width = canvas.height = bitmap.width;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  canvas.dataset.shown = 1 + Number(canvas.dataset.shown || 0);
}

export async function upload(file) {
  const form = new FormData();
  form.append("files", file, file.name);
  const reply = await fetch("gradio_api/upload", { method: "POST", body: form });
  if (reply.status === 413) throw new Error(`${file.name} is too large for this studio.`);
  if (!reply.ok) throw new Error(`${file.name} could not be sent (${reply.status}).`);
  return { path: (await reply.json())[0], meta: { _type: "gradio.FileData" } };
}

// Calls an endpoint; `told` gets what it says on the way. Resolves with the last data, or null after `stop.abort()`.
export async function call(name, data, told = () => {}, stop = null) {
  const start = await fetch(`gradio_api/call/${name}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ data }),
  });
  if (!start.ok) throw new Error(`The studio did not take this (${start.status}).`);
  const { event_id } = await start.json();
  return new Promise((done, fail) => {
    const events = new EventSource(`gradio_api/call/${name}/${event_id}`);
    const end = (finish, value) => { events.close(); finish(value); };
    stop?.signal.addEventListener("abort", () => end(done, null));
    events.addEventListener("generating", (event) => told(JSON.parse(event.data)));
    events.addEventListener("complete", (event) => end(done, JSON.parse(event.data)));
    events.addEventListener("error", (event) => {
      let text = "The studio was stopped, or cannot be reached.";
      try { text = JSON.parse(event.data).error ?? text; } catch {}
      end(fail, new Error(text));
    });
  });
}

// A film, or without a player a mesh, with its progress bar, cancel button, player and link.
export async function makeFilm(prefix, player, name, data) {
  const box = $(`${prefix}-progress`), bar = box.querySelector("progress"), text = box.querySelector("span");
  const stop = new AbortController(), link = $(`${prefix}-link`);
  complain("");
  link.hidden = true;
  box.hidden = false;
  bar.removeAttribute("value");
  text.textContent = "waiting for its turn";
  box.querySelector("button").onclick = () => stop.abort();
  try {
    const result = await call(name, data, ([told]) => {
      if (!told?.done) return void (text.textContent = "looking at the files");
      if (told.of) bar.value = told.done / told.of;
      text.textContent = `${told.done}${told.of ? ` of ${told.of}` : ""} ${player ? "frames" : "expressions"}` + (told.left_s ? `, ${Math.ceil(told.left_s)} s left` : "");
    }, stop);
    if (!result) return null;
    const [told, file] = result;
    link.href = `studio/made/${file.path.split(/[\\/]/).pop()}?called=${link.download}`;
    link.hidden = false;
    if (!player) return void (link.textContent = `Download the mesh (${told.said})`);
    player.src = link.href;
    player.hidden = false;
    if (told.said?.length) complain(`Note: ${told.said.join("; ")}.`);
    player.play().catch(() => {});
    return file;
  } catch (error) {
    complain(error.message);
    return null;
  } finally {
    box.hidden = true;
  }
}
