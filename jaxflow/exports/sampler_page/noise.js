// Unit noise of a seed: sample i is that of `jaxflow sample --seed`.
//
// The generator is Threefry-2x32 (Salmon et al. 2011), as JAX counts through
// it; exports/seeds.py has the same steps. Random bits agree bit for bit; the
// normal numbers made of them agree to a few units of float32.

const ROTATIONS = [[13, 15, 26, 6], [17, 29, 16, 24]];

function threefry([a, b], high, low) {
  const words = [a, b, a ^ b ^ 0x1bd11bda];
  let x = (high + a) | 0;
  let y = (low + b) | 0;
  for (let round = 0; round < 5; round++) {
    for (const turn of ROTATIONS[round % 2]) {
      x = (x + y) | 0;
      y = ((y << turn) | (y >>> (32 - turn))) ^ x;
    }
    x = (x + words[(round + 1) % 3]) | 0;
    y = (y + words[(round + 2) % 3] + round + 1) | 0;
  }
  return [x, y];
}

// Polynomials of Giles 2012, Approximating the erfinv function, single.
const CENTRE = [
  2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087,
  -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
];
const TAIL = [
  -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844,
  0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
];

function normal(bits) {
  const low = -1 + 2 ** -24; // The float32 next to -1.
  const share = (bits >>> 9) * 2 ** -23;
  const u = Math.max(low, Math.fround(Math.fround(share * 2) + low));
  const w = -Math.log1p(-u * u);
  const [table, z] = w < 5 ? [CENTRE, w - 2.5] : [TAIL, Math.sqrt(w) - 3];
  return Math.SQRT2 * u * table.reduce((sum, c) => sum * z + c, 0);
}

// Returns noise of samples 0 to count - 1, each of `size` numbers.
export function unitNoise(seed, count, size) {
  const noise = new Float32Array(count * size);
  for (let row = 0; row < count; row++) {
    const key = threefry(threefry([0, seed | 0], 0, row), 0, 0);
    for (let n = 0; n < size; n++) {
      const [high, low] = threefry(key, 0, n);
      noise[row * size + n] = normal(high ^ low);
    }
  }
  return noise;
}

// Goes from a to b along a quarter of a circle: cos and sin keep the sum of two
// independent unit normals a unit normal, at every share.
export function between(a, b, share) {
  const [c, s] = [Math.cos(share * Math.PI / 2), Math.sin(share * Math.PI / 2)];
  return share === 0 ? a : a.map((x, i) => c * x + s * b[i]);
}
