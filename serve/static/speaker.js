// The page's side of the player: an audio context at the voice's rate, and a node for each stream.

// after the last sample has left the worklet, until it has left the loudspeaker
const TAIL_MS = 500;

export class Speaker {
  constructor() {
    this.context = this.loading = this.node = null;
  }

  // Called while a key or button is pressed, since some browsers let sound begin only then.
  wake(rate) {
    clearTimeout(this.timer);
    if (this.context?.sampleRate !== rate) {
      this.context?.close();
      this.context = null;
      this.loading = this.load(rate);
      // `open` tells of it
      this.loading.catch(() => {});
    }
    // is put off until the browser allows it
    this.context?.resume().catch(() => {});
  }

  async load(rate) {
    this.context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
    await this.context.audioWorklet.addModule(new URL("player.js", import.meta.url));
  }

  // True where the browser holds the sound back until the reader presses something.
  get held() {
    return this.context?.state === "suspended";
  }

  // Begins a stream; `report` is given {played, underruns, done} as it's played. Raises what the
  // browser says where it has no sound.
  async open(rate, report) {
    this.wake(rate);
    await this.loading;
    this.stop();
    clearTimeout(this.timer);
    const node = new AudioWorkletNode(this.context, "player", {
      numberOfInputs: 0,
      outputChannelCount: [1],
    });
    node.port.onmessage = ({ data }) => {
      if (node !== this.node) return;
      report(data);
      if (data.done) this.rest();
    };
    node.connect(this.context.destination);
    this.node = node;
  }

  // Takes an Int16Array, which is empty afterwards.
  push(samples) {
    this.node?.port.postMessage(samples, [samples.buffer]);
  }

  end() {
    this.node?.port.postMessage("end");
  }

  // Falls silent at once.
  stop() {
    this.node?.port.postMessage("stop");
    this.node?.disconnect();
    this.rest();
  }

  rest() {
    this.node = null;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.context?.suspend(), TAIL_MS);
  }
}
