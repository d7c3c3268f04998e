// One chat's messages and the answer being written in it. Knows the server, not the screen.
//
// The text of an answer comes from one place: the generation's own stream, numbered and replayable. A device that
// only hears of an answer through /api/events joins that stream, so nothing is ever pieced together from two sources.

import { ApiError, api, uuid } from "./api.js";
import { lastId, newestLeaf, pathTo, siblingIndex } from "./tree.js";

/** A broken stream is joined again this often before the page gives up and offers a button. */
const MAX_REJOINS = 6;
/** A busy server is asked again by itself this often, when it names a wait of at most MAX_WAIT_S. */
const MAX_BUSY_RETRIES = 5;
const MAX_WAIT_S = 20;
/** After Stop, the server has this long to say `done` before the page stops listening. */
const STOP_PATIENCE_MS = 5000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Conversation {
  /** `changed(conversation, what)`: "messages", "delta", "run" or "done". `isNew`: the server does not know it yet. */
  constructor(id, isNew, changed) {
    this.id = id;
    this.isNew = isNew;
    this.changed = (what) => changed(this, what);
    this.messages = new Map();
    this.leaf = null;
    this.nextCursor = null;
    this.loaded = isNew;
    this.run = null; // {controller, parent, replyId, lastEventId, progress, waitS, stopping}
    this.problem = null; // {text, retry}
    this.joinedFor = new Set();
  }

  path() {
    return pathTo(this.messages, this.leaf);
  }

  put(message) {
    const known = this.messages.get(message.id);
    this.messages.set(message.id, { ...message, parent_id: message.parent_id ?? null });
    return !known;
  }

  async load() {
    if (this.isNew) return;
    const page = await api.messages(this.id);
    this.#takePage(page, this.run?.replyId);
    this.loaded = true;
    const followed = this.leaf && !this.run && newestLeaf(this.messages, this.leaf);
    this.leaf = this.run ? this.leaf : (followed || lastId(this.messages));
    this.changed("messages");
    const last = this.messages.get(this.leaf);
    if (last && !this.run && (last.is_user || !last.finish_reason)) this.join();
  }

  /**
   * Takes the newest page in. Where it does not reach what was known, that is forgotten: a chat has no holes.
   * Of the answer `growing` here, the store has only what it had at its last checkpoint.
   */
  #takePage(page, growing = null) {
    const reaches = page.messages.some((message) => this.messages.has(message.id));
    if (!this.loaded || (!reaches && !this.run)) {
      this.messages.clear();
      this.nextCursor = page.next_cursor ?? null;
      this.leaf = null;
    }
    for (const message of page.messages) {
      if (message.id !== growing) this.put(message);
    }
  }

  async loadEarlier() {
    if (!this.nextCursor) return false;
    const page = await api.messages(this.id, this.nextCursor);
    this.nextCursor = page.next_cursor ?? null;
    const older = page.messages.map((message) => [message.id, { ...message, parent_id: message.parent_id ?? null }]);
    this.messages = new Map([...older, ...this.messages]);
    this.changed("messages");
    return true;
  }

  /** Shows the branch that holds `id`. */
  show(id) {
    this.leaf = newestLeaf(this.messages, id);
    this.changed("messages");
  }

  switchSibling(id, step) {
    const all = siblingIndex(this.messages).of(this.messages.get(id));
    const next = all[all.indexOf(id) + step];
    if (next) this.show(next);
  }

  /** Shows the person's message at once and sends it. The id is made here: sending it twice stores it once. */
  async send(content) {
    // What never reached the server cannot be answered; the new message stands beside it.
    const parent = this.path().findLast((message) => message.status !== "failed")?.id ?? null;
    const message = { id: uuid(), chat_id: this.id, parent_id: parent, content, is_user: true, created_at: new Date().toISOString(), status: "sending" };
    this.put(message);
    this.leaf = message.id;
    await this.deliver(message.id);
  }

  async deliver(id) {
    const message = { ...this.messages.get(id), status: "sending", error: null };
    this.put(message);
    const body = { id, content: message.content };
    if (message.parent_id) body.parent_id = message.parent_id;
    await this.follow(id, async (signal) => {
      if (this.isNew) await api.createChat({ id: this.id });
      this.isNew = false;
      return api.send(this.id, body, signal);
    }, (error) => {
      const unsent = this.messages.get(id);
      if (unsent?.status === "sending") this.put({ ...unsent, status: "failed", error: error.message });
      else this.problem = { text: error.message, retry: () => this.deliver(id) };
    });
  }

  async regenerate(replyId) {
    const reply = this.messages.get(replyId);
    this.leaf = reply.parent_id;
    await this.follow(reply.parent_id, (signal) => api.regenerate(this.id, replyId, signal), (error) => {
      this.leaf = newestLeaf(this.messages, reply.parent_id ?? replyId);
      this.problem = { text: error.message, retry: () => this.regenerate(replyId) };
    });
  }

  async edit(messageId, content) {
    const old = this.messages.get(messageId);
    const draft = { ...old, id: `draft-${uuid()}`, content, safety: null, status: "sending" };
    this.put(draft);
    this.leaf = draft.id;
    await this.follow(draft.id, (signal) => api.edit(this.id, messageId, content, signal), (error) => {
      if (!this.messages.delete(draft.id)) return;
      this.leaf = newestLeaf(this.messages, messageId);
      this.problem = { text: error.message, retry: () => this.edit(messageId, content) };
    });
  }

  /** Joins an answer that is being written already, from its beginning. */
  async join() {
    if (this.run || this.isNew) return;
    await this.follow(null, (signal) => api.resume(this.id, null, signal), () => {});
  }

  /** Runs one generation to its end: reads its events, joins again when the line breaks, reports what cannot be mended. */
  async follow(parent, start, failed) {
    if (this.run?.joining && this.run.replyId === null) this.run.controller.abort(); // it only asked whether there is one
    else if (this.run) return;
    const run = { controller: new AbortController(), parent, replyId: null, lastEventId: null, progress: null, waitS: null, joining: parent === null, fresh: true };
    this.run = run;
    this.problem = null;
    this.changed("run");
    try {
      await this.#readToEnd(run, start);
    } catch (error) {
      if (error.name !== "AbortError") failed(error instanceof ApiError ? error : new ApiError(0, "broken", "The answer broke off."));
    } finally {
      if (this.run === run) this.run = null;
      const reply = this.messages.get(run.replyId);
      if (reply?.writing) this.put({ ...reply, writing: false });
      this.changed("done");
    }
  }

  async #readToEnd(run, start) {
    let open = start;
    let busyRetries = 0;
    for (let rejoins = 0; rejoins <= MAX_REJOINS; ) {
      try {
        const events = await open(run.controller.signal);
        if (events === null) {
          if (!run.joining) await this.#reload();
          return;
        }
        run.waitS = null;
        for await (const event of events) {
          rejoins = 0;
          if (this.#take(run, event)) return;
        }
      } catch (error) {
        if (error.name === "AbortError") throw error;
        const busy = error instanceof ApiError && (error.status === 503 || error.status === 429) && error.retryAfterS <= MAX_WAIT_S;
        if (busy && busyRetries < MAX_BUSY_RETRIES) {
          busyRetries += 1;
          run.waitS = error.retryAfterS ?? 1;
          this.changed("run");
          await sleep(run.waitS * 1000);
          continue;
        }
        if (error instanceof ApiError && (error.status !== 0 || run.lastEventId === null)) throw error;
      }
      // The line broke. What was heard so far is kept; the server goes on writing.
      if (run.lastEventId === null && !run.joining) throw new ApiError(0, "broken", "The connection broke before the server answered.");
      rejoins += 1;
      await sleep(250 * 2 ** rejoins);
      open = (signal) => api.resume(this.id, run.lastEventId, signal);
    }
    throw new ApiError(0, "broken", "The connection to the server broke. What was written is kept there.");
  }

  /** Takes one event of a generation in; true when it was the last. */
  #take(run, { event, data, id }) {
    if (id !== null) run.lastEventId = id;
    if (event === "message") {
      if (String(run.parent).startsWith("draft-")) this.messages.delete(run.parent);
      this.put(data);
      run.parent = data.id;
      this.leaf = data.id;
      this.changed("messages");
    } else if (event === "progress") {
      run.progress = data;
      this.changed("run");
    } else if (event === "delta") {
      this.#append(run, data);
    } else if (event === "done") {
      this.put(data);
      this.leaf = data.id;
      run.replyId = data.id;
      return true;
    } else if (event === "error") {
      this.problem = { text: data.message ?? data.error?.message ?? "Something went wrong.", retry: () => this.again(run.replyId, run.parent) };
      this.#reload().catch(() => {});
      return true;
    }
    return false;
  }

  #append(run, { id, text }) {
    const known = this.messages.get(id);
    // A stream that is replayed from its start says everything again, also what a checkpoint had stored already.
    const before = run.fresh ? "" : (known?.content ?? "");
    run.fresh = false;
    const first = run.replyId === null;
    run.replyId = id;
    this.put({ id, chat_id: this.id, parent_id: known?.parent_id ?? run.parent, is_user: false, created_at: known?.created_at ?? new Date().toISOString(), content: before + text, finish_reason: null, writing: true });
    this.leaf = id;
    this.changed(first ? "messages" : "delta");
  }

  /** Another try after an error: a new answer beside the broken one, or the message once more. */
  async again(replyId, parent) {
    if (replyId && this.messages.has(replyId)) await this.regenerate(replyId);
    else if (parent) await this.deliver(parent);
  }

  async #reload() {
    this.#takePage(await api.messages(this.id));
    this.leaf = this.leaf && this.messages.has(this.leaf) ? newestLeaf(this.messages, this.leaf) : lastId(this.messages);
    this.changed("messages");
  }

  async stop() {
    const run = this.run;
    if (!run || run.stopping) return;
    run.stopping = true;
    this.changed("run");
    setTimeout(() => {
      if (this.run === run) run.controller.abort();
    }, STOP_PATIENCE_MS);
    await api.stop(this.id).catch(() => run.controller.abort());
  }

  /** A message that another device wrote, or the end of an answer seen from there. */
  heard(message) {
    if (this.messages.get(message.id)?.finish_reason && !message.finish_reason && !message.is_user) return; // late news
    if (this.run) {
      // Our own run shows its answer itself; anything else is only stored.
      if (message.id !== this.run.replyId && !this.messages.has(message.id)) this.put(message);
      return;
    }
    const isNew = this.put(message);
    const onPath = this.path().some((shown) => shown.id === message.parent_id || shown.id === message.id);
    if (isNew && (onPath || this.leaf === null || message.parent_id === null)) this.leaf = message.id;
    this.changed("messages");
  }

  /** Another device's answer has begun or goes on: listen to it, once for each answer. */
  heardDelta(replyId) {
    if (this.run || this.joinedFor.has(replyId) || this.messages.get(replyId)?.finish_reason) return;
    this.joinedFor.add(replyId);
    this.join();
  }
}
