// What draws samples: here ONNX Runtime, in the browser.
//
// A backend has one function, `open() -> {note, device, draw}`. `note` is
// sampler.json, `device` says in words what computes, and
//   draw({labels, guidance, noise, stepNoise}) -> samples
// returns a promise of a Float32Array, of
//   labels     an Int32Array [n], or null
//   guidance   a number, or null
//   noise      a Float32Array [n * numbers of one sample's noise]
//   stepNoise  noise that is drawn between steps, a Float32Array
//              [n * steps * numbers of one sample's noise], or null
// What is null is no input in note.inputs: labels are `label` there, stepNoise
// is `step_noise`.

const FOLDER = new URL("onnxruntime-web/", import.meta.url).href;
const read = (file) => fetch(file).then((answer) => {
  if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
  return answer;
});

async function session(file) {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const found = [["wasm", "WebAssembly, one thread"]];
  if (adapter) found.unshift(["webgpu", "WebGPU"]);
  const graph = new Uint8Array(await (await read(file)).arrayBuffer());
  let failure;
  for (const [provider, device] of found) {
    try {
      const ort = await import(`${FOLDER}ort.${provider}.bundle.min.mjs`);
      ort.env.wasm.numThreads = 1; // More need headers of the server.
      ort.env.logLevel = "error";
      const options = { executionProviders: [provider] };
      const made = await ort.InferenceSession.create(graph, options);
      return { ort, session: made, device };
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

export async function open() {
  const note = await (await read("sampler.json")).json();
  const { ort, session: made, device } = await session(note.file);
  async function draw({ labels, guidance, noise, stepNoise }) {
    const size = note.noise_shape.reduce((a, b) => a * b, 1);
    const rows = noise.length / size;
    const values = {
      noise, step_noise: stepNoise, label: labels, guidance: [guidance],
    };
    const given = note.inputs.map(({ name, shape, dtype }) => {
      const sizes = shape.map((n) => n === "batch" ? rows : n);
      return [name, new ort.Tensor(dtype, values[name], sizes)];
    });
    const { samples } = await made.run(Object.fromEntries(given));
    const data = Float32Array.from(await samples.getData());
    samples.dispose();
    return data;
  }
  return { note, device, draw };
}
