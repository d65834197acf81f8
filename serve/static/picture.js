// Waveform and spectrogram of a recording, drawn from left to right as it grows.

import { BINS, WINDOW, colours, spectrum } from "./spectrogram.js";

export class Picture {
  constructor(wave, spectrogram) {
    this.wave = wave;
    this.spectrogram = spectrogram;
    this.recording = null;
    this.played = 0;
    this.levels = new Float32Array(BINS);
    this.readColours();
    new ResizeObserver(() => this.restart()).observe(wave);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.readColours();
      this.restart();
    });
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    this.colours = { made: read("--wave"), played: read("--accent") };
    this.heat = colours(read("--heat").split(/\s+/));
  }

  show(recording) {
    this.recording = recording;
    this.played = 0;
    this.restart();
  }

  // Forgets what was drawn, at the present size.
  restart() {
    const scale = Math.min(devicePixelRatio, 2);
    for (const canvas of [this.wave, this.spectrogram]) {
      canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
      canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
    }
    this.span = this.recording?.span;
    this.waveTo = this.heatTo = this.playedTo = 0;
    this.update();
  }

  // Draws what is new since the last time.
  update() {
    const recording = this.recording;
    if (!recording?.length) return;
    if (recording.span !== this.span) return this.restart();
    const width = this.wave.width;
    const perPixel = this.span / width;
    const complete = recording.complete;
    const columns = (samples) => Math.min(width, Math.floor(samples / perPixel));
    const made = complete ? Math.ceil(recording.length / perPixel) : columns(recording.length);
    const played = columns(this.played);
    this.drawWave(this.playedTo, played, perPixel, this.colours.played);
    this.drawWave(Math.max(this.waveTo, played), made, perPixel, this.colours.made);
    this.playedTo = played;
    this.waveTo = made;
    // a window needs samples on both sides of its middle
    const seen = complete ? made : columns(Math.max(0, recording.length - WINDOW / 2));
    this.drawHeat(this.heatTo, seen, perPixel);
    this.heatTo = Math.max(this.heatTo, seen);
  }

  drawWave(from, to, perPixel, colour) {
    const context = this.wave.getContext("2d");
    const middle = this.wave.height / 2;
    const { samples } = this.recording;
    context.fillStyle = colour;
    for (let x = from; x < to; x++) {
      let low = 0;
      let high = 0;
      const last = Math.min(samples.length, Math.ceil((x + 1) * perPixel));
      for (let i = Math.floor(x * perPixel); i < last; i++) {
        if (samples[i] < low) low = samples[i];
        else if (samples[i] > high) high = samples[i];
      }
      const top = Math.floor(middle - (high / 32768) * middle);
      const bottom = Math.ceil(middle - (low / 32768) * middle);
      context.clearRect(x, 0, 1, this.wave.height);
      context.fillRect(x, top, 1, Math.max(1, bottom - top));
    }
  }

  drawHeat(from, to, perPixel) {
    if (to <= from) return;
    const context = this.spectrogram.getContext("2d");
    const height = this.spectrogram.height;
    const image = context.createImageData(to - from, height);
    for (let x = from; x < to; x++) {
      spectrum(this.recording.samples, (x + 0.5) * perPixel, this.levels);
      for (let y = 0; y < height; y++) {
        const bin = Math.floor(((height - 1 - y) / height) * BINS);
        const colour = 3 * Math.round(255 * this.levels[bin]);
        const pixel = 4 * (y * image.width + x - from);
        for (let i = 0; i < 3; i++) image.data[pixel + i] = this.heat[colour + i];
        image.data[pixel + 3] = 255;
      }
    }
    context.putImageData(image, from, 0);
  }
}
