// The spectrum of a window of samples, and its colours.

export const WINDOW = 512;
export const BINS = WINDOW / 2;
// of a full-scale sine; what has the first colour, and what has the last
const LOWEST_DB = -95;
const HIGHEST_DB = -15;

const hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
const cosine = Float32Array.from({ length: BINS }, (_, i) => Math.cos((2 * Math.PI * i) / WINDOW));
const sine = Float32Array.from({ length: BINS }, (_, i) => -Math.sin((2 * Math.PI * i) / WINDOW));
const reversed = Uint16Array.from({ length: WINDOW }, (_, i) => {
  let mirrored = 0;
  for (let bit = 1; bit < WINDOW; bit *= 2) mirrored = mirrored * 2 + (i & bit ? 1 : 0);
  return mirrored;
});
const real = new Float32Array(WINDOW);
const imaginary = new Float32Array(WINDOW);

// Cooley and Tukey's transform of `real` and `imaginary`, which lie in bit-reversed order.
function transform() {
  for (let size = 2; size <= WINDOW; size *= 2) {
    const half = size / 2;
    const step = WINDOW / size;
    for (let start = 0; start < WINDOW; start += size) {
      for (let k = 0; k < half; k++) {
        const a = start + k;
        const b = a + half;
        const c = cosine[k * step];
        const s = sine[k * step];
        const re = real[b] * c - imaginary[b] * s;
        const im = real[b] * s + imaginary[b] * c;
        real[b] = real[a] - re;
        imaginary[b] = imaginary[a] - im;
        real[a] += re;
        imaginary[a] += im;
      }
    }
  }
}

// Writes levels in 0..1 of the bins from 0 Hz up to `levels`, of 16-bit samples around `centre`.
export function spectrum(samples, centre, levels) {
  const start = Math.round(centre) - BINS;
  for (let i = 0; i < WINDOW; i++) {
    real[reversed[i]] = ((samples[start + i] ?? 0) / 32768) * hann[i];
  }
  imaginary.fill(0);
  transform();
  for (let bin = 0; bin < levels.length; bin++) {
    const power = real[bin] ** 2 + imaginary[bin] ** 2;
    // a full-scale sine has a quarter of the window as its magnitude
    const db = 10 * Math.log10(power / (WINDOW / 4) ** 2 + 1e-12);
    levels[bin] = Math.min(1, Math.max(0, (db - LOWEST_DB) / (HIGHEST_DB - LOWEST_DB)));
  }
}

// A table of 256 colours [red, green, blue] through the given "#rrggbb".
export function colours(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((i) => parseInt(stop.slice(i, i + 2), 16)));
  const table = new Uint8ClampedArray(3 * 256);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (rgb.length - 1);
    const low = Math.min(Math.floor(place), rgb.length - 2);
    for (let i = 0; i < 3; i++) {
      table[3 * level + i] = rgb[low][i] + (place - low) * (rgb[low + 1][i] - rgb[low][i]);
    }
  }
  return table;
}
