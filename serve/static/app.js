// The page: what is asked for, the run that answers it, and what is shown of that.

import { Picture } from "./picture.js";
import { Speaker } from "./speaker.js";
import { Recording, Refusal, ask, pieces, saveKey } from "./stream.js";

const MODEL = "wavernn";
const RETRY_MS = 1000;
const element = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const speaker = new Speaker();
const picture = new Picture(element("wave"), element("spectrogram"));
let voices = [];
// the latest request and all that came of it
let run = null;

// ---- what is asked for ----

const voice = () => voices.find(({ id }) => id === element("voice").value);

function settings() {
  const given = { voice: element("voice").value };
  for (const name of ["seed", "temperature"])
    if (element(name).value) given[name] = element(name).value;
  return given;
}

function textRequest(text) {
  return (signal) => {
    const { seed, temperature, ...rest } = settings();
    const body = { model: MODEL, input: text, response_format: "pcm", ...rest };
    if (seed) body.seed = Number(seed);
    if (temperature) body.temperature = Number(temperature);
    // else it would come at the 24 kHz that clients of OpenAI expect
    if (voice()) body.sample_rate = voice().sample_rate;
    const headers = { "Content-Type": "application/json" };
    return ask("v1/audio/speech", { method: "POST", headers, body: JSON.stringify(body), signal });
  };
}

function fileRequest(file) {
  // what browsers call mel files differs, so that the server had better look itself
  const type = file.type.startsWith("audio/") ? file.type : "application/octet-stream";
  return (signal) => {
    const query = new URLSearchParams({ format: "pcm", ...settings() });
    const headers = { "Content-Type": type };
    return ask(`v1/vocode?${query}`, { method: "POST", headers, body: file, signal });
  };
}

const speakFile = (file) => start(fileRequest(file), file.name);

async function speakExample() {
  // before anything is waited for
  speaker.wake(rate());
  try {
    const response = await ask("example.npz");
    speakFile(new File([await response.blob()], "example.npz"));
  } catch (error) {
    fail(error);
  }
}

const rate = () => voice()?.sample_rate ?? 24000;

// ---- a run ----

async function start(request, name) {
  for (const field of [element("seed"), element("temperature")])
    if (!field.reportValidity()) return;
  stop();
  const own = { request, name, abort: new AbortController(), played: 0, underruns: 0 };
  run = own;
  speaker.wake(rate());
  picture.show(null);
  say(`Asking for ${name}…`);
  show();
  // on a phone it's below what was pressed
  element("result").scrollIntoView({ block: "nearest" });
  try {
    await receive(own);
    if (own.stopped) return;
    own.over = own.recording.complete = true;
    speaker.end();
    if (own.mute) say(`Made, but this browser can't play it: ${own.mute}`, true);
  } catch (error) {
    if (run !== own || own.stopped) return;
    own.over = own.heard = true;
    speaker.stop();
    if (own.recording?.length)
      say(`The connection broke off after ${seconds(own.recording.seconds)} of speech.`, true);
    else fail(error);
  }
  show();
}

async function receive(own) {
  own.begun = performance.now();
  const response = await own.request(own.abort.signal);
  const rate = Number(response.headers.get("x-sample-rate"));
  own.recording = new Recording(rate, Number(response.headers.get("content-length")) / 2);
  picture.show(own.recording);
  // without sound there's still something to see and to keep
  const opened = speaker
    .open(rate, (report) => heard(own, report))
    .catch(({ message }) => Object.assign(own, { heard: true, mute: message }));
  for await (const samples of pieces(response)) {
    if (!own.recording.length) {
      own.firstMs = performance.now() - own.begun;
      requestAnimationFrame(() => draw(own));
    }
    own.recording.append(samples);
    own.madeMs = performance.now() - own.begun;
    // the worklet is there once, and takes what came before it in order
    await opened;
    if (own.stopped) return;
    speaker.push(samples);
  }
  await opened;
}

function heard(own, { played, underruns, done }) {
  Object.assign(own, { played, underruns, heard: done });
  if (done) say(`Finished: ${seconds(own.recording.seconds)} of speech from ${own.name}.`);
  if (done) show();
}

function stop() {
  if (!run || (run.over && run.heard)) return;
  run.stopped = run.over = run.heard = true;
  run.abort.abort();
  speaker.stop();
  say(`Stopped after ${seconds(run.played / (run.recording?.rate ?? 1))}.`);
  show();
}

// ---- what is shown ----

const seconds = (value) => `${value.toFixed(2)} s`;

function say(sentence, wrong = false) {
  const status = element("status");
  // a screen reader would read it again
  if (status.textContent !== sentence) status.textContent = sentence;
  status.classList.toggle("error", wrong);
}

function fail(error) {
  if (!(error instanceof Refusal)) {
    const cause = error instanceof TypeError ? "" : ` (${error.message})`;
    say(`The server can't be reached, or broke the connection off${cause}.`, true);
    return;
  }
  // the server's own sentence, as a sentence
  const [first, ...rest] = error.message;
  say(`${first.toUpperCase()}${rest.join("")}${/[.!?]$/.test(error.message) ? "" : "."}`, true);
  if (error.status === 401) {
    element("key-form").hidden = false;
    element("key").focus();
  }
}

// Says in words what the pictures hold, for who doesn't see them.
function describe(recording) {
  const what = `${seconds(recording.seconds)} of speech`;
  element("wave").setAttribute("aria-label", `Waveform of ${what}`);
  element("spectrogram").setAttribute(
    "aria-label",
    `Spectrogram of ${what}, 0 to ${(recording.rate / 2000).toFixed(1)} kHz`,
  );
}

function put(id, text, samples) {
  element(id).textContent = text;
  if (samples !== undefined) element(id).dataset.samples = samples;
}

function show() {
  const { name, recording, firstMs, madeMs, played, underruns, over, heard: quiet } = run;
  const made = recording?.length ?? 0;
  put("first", made ? `${firstMs.toFixed(0)} ms` : "–");
  put("factor", made ? `${((1000 * recording.seconds) / madeMs).toFixed(1)}×` : "–");
  put("made", made ? seconds(recording.seconds) : "–", made);
  put("heard", made ? seconds(played / recording.rate) : "–", played);
  put("underruns", made ? String(underruns) : "–");
  enable("stop", !(over && quiet));
  enable("again", over && quiet);
  enable("download", over && made > 0);
  picture.played = played;
  picture.update();
  if (over && made) describe(recording);
  if (made && !quiet)
    say(speaker.held ? "Press any key, or touch the page, to hear it." : `Speaking ${name}…`);
}

// a disabled button would lose the focus
const enable = (id, can) => element(id).setAttribute("aria-disabled", String(!can));
const enabled = (id) => element(id).getAttribute("aria-disabled") === "false";

function draw(own) {
  if (run !== own || (own.over && own.heard)) return;
  show();
  if (calm.matches) setTimeout(draw, 500, own);
  else requestAnimationFrame(() => draw(own));
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(run.recording.wav());
  link.download = `${run.name.replace(/\.[^.]*$/, "")}-${element("voice").value}.wav`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// ---- voices and the key ----

async function loadVoices() {
  let wait = RETRY_MS;
  try {
    const response = await ask("v1/audio/voices");
    ({ voices } = await response.json());
    element("voice").replaceChildren(...voices.map(({ id, name }) => new Option(name, id)));
    // who was quicker isn't disturbed
    if (!run || run.heard) say(voices.length ? "Ready." : "The voices are being loaded…");
    if (voices.length) return;
  } catch (error) {
    fail(error);
    if (error.status !== 503) return;
    wait = 1000 * error.retryAfter || RETRY_MS;
  }
  setTimeout(loadVoices, wait);
}

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  saveKey(element("key").value.trim());
  element("key").value = "";
  element("key-form").hidden = true;
  element("text").focus();
  loadVoices();
});

// ---- keys, buttons and drops ----

element("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  start(textRequest(element("text").value), "the text");
});
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("text-form").requestSubmit();
});
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) speakFile(target.files[0]);
  // so that the same file can be chosen again
  target.value = "";
});
element("example").addEventListener("click", speakExample);
element("stop").addEventListener("click", () => enabled("stop") && stop());
element("again").addEventListener("click", () => enabled("again") && start(run.request, run.name));
element("download").addEventListener("click", () => enabled("download") && download());
addEventListener("keydown", ({ key }) => key === "Escape" && stop());
// a drop alone doesn't let the sound begin
for (const kind of ["keydown", "pointerup"])
  addEventListener(kind, () => {
    if (speaker.held && run?.recording && !run.heard) speaker.wake(run.recording.rate);
  });

const carriesFile = (event) => event.dataTransfer.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  element("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) element("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  element("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) speakFile(file);
});

loadVoices();
