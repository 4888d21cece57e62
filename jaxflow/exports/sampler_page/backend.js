// What draws samples: here ONNX Runtime, in the browser.
//
// A backend has one function, `open() -> {note, device, draw}`. `note` is
// sampler.json, `device` says in words what computes, and
//   draw({labels, guidance, noise}) -> samples
// takes an Int32Array [n] or null, a number or null, and a Float32Array
// [n * numbers of one sample's noise]; it returns a promise of a Float32Array.

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
  async function draw({ labels, guidance, noise }) {
    const size = note.noise_shape.reduce((a, b) => a * b, 1);
    const shape = [noise.length / size, ...note.noise_shape];
    const values = {
      noise: () => new ort.Tensor("float32", noise, shape),
      label: () => new ort.Tensor("int32", labels, [labels.length]),
      guidance: () => new ort.Tensor("float32", [guidance], []),
    };
    const given = note.inputs.map(({ name }) => [name, values[name]()]);
    const { samples } = await made.run(Object.fromEntries(given));
    const data = Float32Array.from(await samples.getData());
    samples.dispose();
    return data;
  }
  return { note, device, draw };
}
