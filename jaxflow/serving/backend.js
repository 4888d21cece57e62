// What draws samples: here the server, on its devices.
//
// It has the interface that exports/sampler_page/backend.js describes.

async function answer(path, options) {
  const found = await fetch(path, options);
  if (found.ok) return found;
  const { error } = await found.json().catch(() => ({}));
  throw new Error(error ?? `${path}: ${found.status}`);
}

// Numbers as base 64 of float32, little-endian as every browser's.
function text(numbers) {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  const parts = [];
  for (let i = 0; i < bytes.length; i += 8192) {
    parts.push(String.fromCharCode(...bytes.subarray(i, i + 8192)));
  }
  return btoa(parts.join(""));
}

export async function open() {
  const note = await (await answer("sampler.json")).json();
  const size = note.noise_shape.reduce((a, b) => a * b, 1);
  const numbers = note.output.shape.slice(1).reduce((a, b) => a * b, 1);
  async function part({ labels, guidance, noise }) {
    const body = { num: noise.length / size, noise: text(noise), format: "raw" };
    if (labels) body.labels = [...labels];
    if (guidance !== null) body.guidance = guidance;
    const found = await answer("sample", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    return new Float32Array(await found.arrayBuffer());
  }
  // The server takes `max_num` samples a request.
  async function draw({ labels, guidance, noise }) {
    const samples = new Float32Array(noise.length / size * numbers);
    const each = note.max_num;
    for (let i = 0; i < noise.length / size; i += each) {
      samples.set(await part({
        labels: labels && labels.slice(i, i + each),
        guidance,
        noise: noise.slice(i * size, (i + each) * size),
      }), i * numbers);
    }
    return samples;
  }
  return { note, device: `the server's ${note.device}`, draw };
}
