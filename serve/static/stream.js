// Requests to the service, and 16-bit samples read from an answer while it comes.

// A refusal, with the sentence that the server gave.
export class Refusal extends Error {
  constructor(message, status, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const KEY = "wavernn-api-key";
export const saveKey = (key) => sessionStorage.setItem(KEY, key);

// Resolves to an answer with a good status; raises Refusal, or what fetch raises.
export async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const message = body?.error?.message || `the server answered ${response.status}`;
  throw new Refusal(message, response.status, Number(response.headers.get("Retry-After")));
}

// Yields Int16Arrays; a chunk may end within a sample.
export async function* pieces(response) {
  const reader = response.body.getReader();
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    const whole = bytes.length & ~1;
    rest = bytes.slice(whole);
    // every machine that runs a browser has little-endian integers
    if (whole) yield new Int16Array(bytes.buffer, 0, whole / 2);
  }
}

// All samples of a stream, in memory that grows.
export class Recording {
  constructor(rate, expected) {
    this.rate = rate;
    // in samples; 0 where the server doesn't know
    this.expected = expected;
    this.length = 0;
    this.memory = new Int16Array(expected || 4 * rate);
  }

  append(samples) {
    const length = this.length + samples.length;
    if (length > this.memory.length) {
      const larger = new Int16Array(Math.max(length, 2 * this.memory.length));
      larger.set(this.samples);
      this.memory = larger;
    }
    this.memory.set(samples, this.length);
    this.length = length;
  }

  get samples() {
    return this.memory.subarray(0, this.length);
  }

  get seconds() {
    return this.length / this.rate;
  }

  // What a picture of it has room for; doubles as it grows where the length isn't known.
  get span() {
    return this.expected || this.memory.length;
  }

  wav() {
    const bytes = 2 * this.length;
    const header = new DataView(new ArrayBuffer(44));
    const words = { 0: "RIFF", 8: "WAVE", 12: "fmt ", 36: "data" };
    for (const [place, word] of Object.entries(words))
      for (let i = 0; i < 4; i++) header.setUint8(Number(place) + i, word.charCodeAt(i));
    const longs = { 4: 36 + bytes, 16: 16, 24: this.rate, 28: 2 * this.rate, 40: bytes };
    for (const [place, value] of Object.entries(longs)) header.setUint32(Number(place), value, true);
    // integers, channels, bytes and bits of a sample
    const shorts = { 20: 1, 22: 1, 32: 2, 34: 16 };
    for (const [place, value] of Object.entries(shorts)) header.setUint16(Number(place), value, true);
    return new Blob([header, this.samples], { type: "audio/wav" });
  }
}
