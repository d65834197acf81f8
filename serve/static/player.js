// Plays 16-bit samples on the audio thread, as they come, and says when there were too few.

// what must wait before a start, and again after an underrun
const PREBUFFER_S = 0.06;
// a report to the page is sent every so many calls, of 128 samples each
const REPORT_CALLS = 8;

class Player extends AudioWorkletProcessor {
  constructor() {
    super();
    this.blocks = [];
    // of the first block, how much was played; and how much of all waits
    this.place = 0;
    this.waiting = 0;
    this.playing = this.ended = this.stopped = false;
    this.played = this.underruns = this.calls = 0;
    this.port.onmessage = ({ data }) => {
      if (data === "end") this.ended = true;
      else if (data === "stop") this.stopped = true;
      else {
        this.blocks.push(data);
        this.waiting += data.length;
      }
    };
  }

  // Fills the next 128 samples; false ends the node.
  process(_inputs, [[out]]) {
    if (this.stopped) return false;
    if (!this.playing) this.playing = this.ended || this.waiting >= PREBUFFER_S * sampleRate;
    if (this.playing) this.fill(out);
    const done = this.ended && !this.waiting;
    if (done || ++this.calls % REPORT_CALLS === 0) {
      this.port.postMessage({ played: this.played, underruns: this.underruns, done });
    }
    return !done;
  }

  fill(out) {
    let filled = 0;
    while (filled < out.length && this.waiting) {
      const [block] = this.blocks;
      const count = Math.min(block.length - this.place, out.length - filled);
      for (let i = 0; i < count; i++) out[filled + i] = block[this.place + i] / 32768;
      filled += count;
      this.place += count;
      this.waiting -= count;
      if (this.place === block.length) {
        this.blocks.shift();
        this.place = 0;
      }
    }
    this.played += filled;
    if (filled < out.length && !this.ended) {
      this.underruns++;
      this.playing = false;
    }
  }
}

registerProcessor("player", Player);
