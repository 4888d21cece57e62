// Draws samples on a canvas: pictures as a grid, points as a scatter.

const GAP = 2;
const LEAST = 64; // Pixels of the side of a sample, from which none is enlarged.
const PLANE = 640;

export function paint(canvas, samples, shape, range) {
  if (shape.length === 1) scatter(canvas, samples);
  else grid(canvas, samples, shape, range);
}

function grid(canvas, samples, [height, width, channels], [low, high]) {
  const count = samples.length / (height * width * channels);
  const columns = Math.ceil(Math.sqrt(count));
  const zoom = Math.max(1, Math.ceil(LEAST / Math.max(height, width)));
  const [stepX, stepY] = [width * zoom + GAP, height * zoom + GAP];
  canvas.width = columns * stepX - GAP;
  canvas.height = Math.ceil(count / columns) * stepY - GAP;
  const target = canvas.getContext("2d");
  // Enlarged, small pictures are read more easily without the edges of pixels.
  target.imageSmoothingEnabled = zoom > 1;
  target.imageSmoothingQuality = "high";
  const one = new OffscreenCanvas(width, height);
  const pen = one.getContext("2d");
  const image = pen.createImageData(width, height);
  for (let i = 0; i < count; i++) {
    for (let p = 0; p < height * width; p++) {
      for (let c = 0; c < 3; c++) {
        const from = (i * height * width + p) * channels + c % channels;
        image.data[4 * p + c] = 255 * (samples[from] - low) / (high - low);
      }
      image.data[4 * p + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
    const [x, y] = [(i % columns) * stepX, Math.floor(i / columns) * stepY];
    target.drawImage(one, x, y, width * zoom, height * zoom);
  }
}

function scatter(canvas, samples) {
  canvas.width = canvas.height = PLANE;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, PLANE, PLANE);
  const largest = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
  // Steps of the scale, so that it does not move with every draw.
  const scale = PLANE / 2 / (1.1 * 2 ** (Math.ceil(2 * Math.log2(largest)) / 2));
  pen.strokeStyle = "#ccc";
  pen.strokeRect(PLANE / 2, -1, 0.01, PLANE + 2);
  pen.strokeRect(-1, PLANE / 2, PLANE + 2, 0.01);
  pen.fillStyle = "#2563c9";
  for (let i = 0; i < samples.length; i += 2) {
    pen.beginPath();
    const [x, y] = [samples[i] * scale, -samples[i + 1] * scale];
    pen.arc(PLANE / 2 + x, PLANE / 2 + y, 3, 0, 2 * Math.PI);
    pen.fill();
  }
}
