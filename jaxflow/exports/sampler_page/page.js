// The page: reads what is chosen, asks the backend, paints, says how long.

import { open } from "./backend.js";
import { between, stepNoise, unitNoise } from "./noise.js";
import { paint } from "./picture.js";

const at = (id) => document.getElementById(id);
const NO_LABEL = "no class";
const MANY = 20; // Classes from which they can be searched.

// What was drawn last: labels, samples, milliseconds; for who reads the page.
export const last = {};
let backend, wanted, busy;

function chips({ num_classes, no_label, class_names }) {
  const names = class_names ?? Array.from({ length: num_classes }, (_, i) => i);
  const rows = names.map((name, i) => [i, String(name)]);
  if (no_label !== null) rows.push([no_label, NO_LABEL]);
  for (const [value, name] of rows) {
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), {
      type: "checkbox", value, checked: name !== NO_LABEL,
    });
    label.append(box, name);
    at("chips").append(label);
  }
  at("filter").hidden = rows.length < MANY;
  at("classes").hidden = false;
}

const boxes = () => [...at("chips").querySelectorAll("input")];

function chosen(count) {
  const classes = boxes().filter((x) => x.checked).map((x) => Number(x.value));
  if (!classes.length) return null;
  return Int32Array.from({ length: count }, (_, i) => classes[i % classes.length]);
}

function seed(id) {
  const value = at(id);
  return value.checkValidity() ? value.valueAsNumber >>> 0 : 0;
}

function request() {
  const { note } = backend;
  const count = Number(at("count").value);
  const size = note.noise_shape.reduce((a, b) => a * b, 1);
  const share = Number(at("between").value);
  const takes = (name) => note.inputs.find((x) => x.name === name);
  const steps = takes("step_noise")?.shape[1];
  const [a, b] = ["first", "second"].map(
    (id, i) => i && !share ? null : unitNoise(seed(id), count, size));
  return {
    labels: takes("label") ? chosen(count) : null,
    guidance: takes("guidance") ? Number(at("guidance").value) : null,
    noise: between(a, b, share),
    stepNoise: steps ? stepNoise(seed("first"), count, steps, size) : null,
  };
}

function show() {
  at("guidance-value").value = Number(at("guidance").value).toFixed(1);
  at("between-value").value = Number(at("between").value).toFixed(2);
}

// Draws what is chosen now; a choice made meanwhile is drawn next.
async function update() {
  show();
  wanted = true;
  if (busy) return;
  busy = true;
  try {
    while (wanted) {
      wanted = false;
      await drawOnce();
      tell();
    }
  } catch (error) {
    fail(error);
  } finally {
    busy = false;
  }
}

async function drawOnce() {
  const { note, device } = backend;
  const given = request();
  const labelled = note.inputs.some((x) => x.name === "label");
  if (labelled && !given.labels) {
    at("latency").textContent = "Choose a class.";
    return;
  }
  // The first call also prepares the graph, which is not what a call takes.
  if (!last.count) await backend.draw(given);
  const began = performance.now();
  const samples = await backend.draw(given);
  const ms = performance.now() - began;
  const shape = note.output.shape.slice(1);
  const size = shape.reduce((a, b) => a * b, 1);
  const count = samples.length / size;
  paint(at("grid"), samples, shape, note.range);
  const calls = note.nfe === 1 ? "one call" : `${note.nfe} calls`;
  const text = `${count} ${count === 1 ? "sample" : "samples"}, ${calls} of the network`;
  at("grid").setAttribute("aria-label", text);
  at("latency").textContent = `${text}: ${ms.toFixed(1)} ms (${device})`;
  Object.assign(last, { ...given, samples, ms, count: (last.count ?? 0) + 1 });
  document.body.dataset.drawn = last.count;
}

function tell() {
  const { nfe } = backend.note;
  const calls = nfe === 1 ? "one network call" : `${nfe} network calls`;
  at("about").className = "";
  at("about").textContent = `Noise becomes samples in ${calls}.`;
}

function fail(error) {
  at("about").className = "error";
  at("about").textContent = `This page cannot draw: ${error.message ?? error}`;
}

function download() {
  at("grid").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${backend.note.data}-${seed("first")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

function listen() {
  at("controls").addEventListener("input", (event) => {
    if (event.target !== at("filter")) update();
  });
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const [id, checked] of [["all", true], ["none", false]]) {
    at(id).addEventListener("click", () => {
      for (const box of boxes()) {
        if (!box.parentNode.hidden) {
          box.checked = checked && box.parentNode.textContent !== NO_LABEL;
        }
      }
      update();
    });
  }
  at("filter").addEventListener("input", () => {
    const text = at("filter").value.toLowerCase();
    for (const { parentNode: label } of boxes()) {
      label.hidden = !label.textContent.toLowerCase().includes(text);
    }
  });
  at("again").addEventListener("click", () => {
    for (const id of ["first", "second"]) {
      at(id).value = crypto.getRandomValues(new Uint32Array(1))[0];
    }
    update();
  });
  at("download").addEventListener("click", download);
}

async function start() {
  backend = await open();
  const { note } = backend;
  document.title = at("title").textContent = `${note.data}: ${note.method}`;
  tell();
  at("footer").textContent =
    `jaxflow ${note.versions.jaxflow}, step ${note.step}. ` +
    "Noise i of seed A is that of jaxflow sample --seed.";
  if (note.inputs.some((x) => x.name === "label")) chips(note);
  const { is_input: guided, default: scale } = note.guidance;
  at("guided").hidden = !guided;
  Object.assign(at("guidance"), { min: 0, max: Math.max(4, 2 * scale) });
  at("guidance").value = scale;
  at("controls").hidden = false;
  listen();
  await update();
}

start().catch(fail);
