// The only place that knows the wire format of a server-sent stream.
//
// Bytes arrive cut anywhere: inside "ä", inside "data:", between CR and LF. The decoder keeps an unfinished
// character, the parser keeps an unfinished line, and an event counts only when its blank line has come.

/** Longest unfinished line kept, in characters; a server that sends more is not ours. */
const MAX_LINE_CHARS = 16 << 20;

/** The server sends a comment every 15 s; after three missed ones the line is dead, whatever TCP still believes. */
const MAX_SILENCE_MS = 45_000;

/** Turns pieces of text into events `{event, data, id}`; `data` is still text. */
export class SseParser {
  #tail = "";
  #skipLf = false;
  #event = "";
  #data = [];
  #id = null;

  /** Takes the next piece, gives the events that it completed. */
  push(text) {
    const events = [];
    // CR, LF and CR LF all end a line; a CR may be the last character of one piece and its LF the first of the next.
    this.#tail += this.#skipLf && text.startsWith("\n") ? text.slice(1) : text;
    if (text !== "") this.#skipLf = text.endsWith("\r");
    const lines = this.#tail.split(/\r\n|\r|\n/);
    this.#tail = lines.pop();
    for (const line of lines) this.#line(line, events);
    if (this.#tail.length > MAX_LINE_CHARS) throw new Error("the server sent a line without an end");
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length > 0) events.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id });
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the server says that it is still there
    const name = colon < 0 ? line : line.slice(0, colon);
    const rest = colon < 0 ? "" : line.slice(colon + 1);
    const value = rest.startsWith(" ") ? rest.slice(1) : rest;
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
  }
}

/** The events of a response body as they arrive, `data` parsed as JSON. Ends when the body ends; throws when it breaks. */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new SseParser();
  try {
    for (;;) {
      const { value, done } = await withinSilence(reader.read());
      if (done) return;
      for (const event of parser.push(decoder.decode(value, { stream: true }))) {
        yield { ...event, data: JSON.parse(event.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the connection may be gone already
  }
}

function withinSilence(read) {
  let timer = null;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("the server fell silent")), MAX_SILENCE_MS);
  });
  return Promise.race([read, silence]).finally(() => clearTimeout(timer));
}
