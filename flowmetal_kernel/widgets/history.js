// The live history of one flow. In: the trait `timeline`, the model that timeline.py makes, and messages {notice} and {state}.
// Out: {action, message?} for Python. The one rule: what comes from outside becomes text nodes, never HTML.

const TICK = 500;
const BUTTONS = [
  ["pause", "Pause", (t) => !t.ended && t.status !== "paused"],
  ["resume", "Resume", (t) => t.status === "paused"],
  ["step", "Step", (t) => t.status === "paused"],
  ["retry", "Retry", (t) => Boolean(t.failure)],
  ["send", "Send event", (t) => !t.ended],
  ["cancel", "Cancel", (t) => !t.ended],
];

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined && text !== null) node.textContent = String(text);
  return node;
}

export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  for (const [size, name, below, lower] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (seconds < size) continue;
    const rest = Math.floor((seconds % size) / below);
    return `${Math.floor(seconds / size)} ${name}` + (rest ? ` ${rest} ${lower}` : "");
  }
  return `${seconds} s`;
}

function clock(ms) {
  const moment = new Date(ms);
  const time = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const today = new Date().toDateString() === moment.toDateString();
  return today ? time : `${moment.toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" })} ${time}`;
}

class History {
  constructor(model, el) {
    this.model = model;
    this.open = new Set();
    this.drawn = new Map();
    this.skew = 0;
    this.until = Infinity;
    this.root = make("section", "fm-history");
    this.root.setAttribute("aria-label", "history of a flow");
    this.root.isAlive = () => this.act("watch");
    this.head = this.makeHead();
    this.rows = make("div", "fm-rows");
    this.foot = make("footer", "fm-foot");
    this.failed = make("div", "fm-failed");
    this.notice = make("div", "fm-notice");
    this.notice.setAttribute("role", "status");
    this.sender = this.makeSender();
    const asked = (action) => (step) => this.act(action, step);
    this.past = new Scrubber(model.get("at") || null, (step) => this.markPast(step), asked("state"), asked("fork"));
    this.root.append(this.head, this.sender, this.notice, this.rows, this.foot, this.failed, this.past.root);
    el.append(this.root);
  }

  makeHead() {
    const head = make("header", "fm-head");
    const title = make("div", "fm-title");
    this.name = make("strong", "fm-name");
    this.badge = make("span", "fm-badge");
    this.ident = make("code", "fm-id");
    this.args = make("code", "fm-args");
    this.times = make("div", "fm-times");
    this.buttons = BUTTONS.map(([action, label, shown]) => {
      const button = make("button", `fm-button fm-${action}`, label);
      button.type = "button";
      button.addEventListener("click", () => (action === "send" ? this.toggleSender() : this.act(action)));
      return [button, shown];
    });
    const actions = make("span", "fm-actions");
    actions.append(...this.buttons.map(([button]) => button));
    title.append(this.name, this.badge, this.ident, this.args, actions);
    head.append(title, this.times);
    return head;
  }

  makeSender() {
    const form = make("form", "fm-sender");
    form.hidden = true;
    const input = make("input", "fm-message");
    input.placeholder = 'a message as JSON: {"approved": true}';
    input.setAttribute("aria-label", "message to the flow, as JSON");
    const button = make("button", "fm-button", "Send");
    form.append(input, button);
    for (const name of ["keydown", "keyup", "keypress"]) input.addEventListener(name, (e) => e.stopPropagation());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.act("send", input.value);
      input.value = "";
      form.hidden = true;
    });
    return form;
  }

  toggleSender() {
    this.sender.hidden = !this.sender.hidden;
    if (!this.sender.hidden) this.sender.querySelector("input").focus();
  }

  // Asks something of the kernel; whether there is one that hears.
  act(action, message) {
    this.notice.textContent = "";
    try {
      this.model.send({ action, message });
      return true;
    } catch (error) {
      this.notice.textContent = "this view has lost its kernel: run the cell again, or reload the page";
      return false;
    }
  }

  hear(content) {
    if (content && content.state) this.past.receive(content.state);
    if (content && content.notice !== undefined) this.notice.textContent = String(content.notice);
  }

  now() {
    return Date.now() - this.skew;
  }

  draw() {
    const t = this.model.get("timeline");
    if (!t || !t.flow_id) return;
    this.timeline = t;
    this.skew = Date.now() - t.now;
    this.root.dataset.status = t.status;
    this.root.dataset.flow = t.flow_id;
    this.name.textContent = t.name;
    this.badge.textContent = t.status;
    this.badge.dataset.status = t.status;
    this.ident.textContent = t.short;
    this.ident.title = t.flow_id;
    this.args.textContent = t.args;
    this.args.title = t.args;
    for (const [button, shown] of this.buttons) button.hidden = !shown(t);
    if (t.ended) this.sender.hidden = true;
    this.drawRows(t);
    this.drawFailure(t.failure);
    this.past.setSteps(t.rows);
    this.markPast(this.past.at);
  }

  drawRows(t) {
    const wanted = new Map();
    if (t.earlier) wanted.set("earlier", { mark: `… ${t.earlier} earlier rows`, text: "" });
    t.rows.forEach((row, i) => wanted.set(row.mark ? `m${t.earlier + i}` : `s${row.step}`, row));
    for (const [key, old] of this.drawn) {
      if (wanted.has(key)) continue;
      old.node.remove();
      this.drawn.delete(key);
    }
    const atEnd = this.rows.scrollTop + this.rows.clientHeight >= this.rows.scrollHeight - 4;
    let previous = null;
    for (const [key, row] of wanted) {
      const text = JSON.stringify(row);
      let entry = this.drawn.get(key);
      if (!entry || entry.text !== text) {
        const made = row.mark ? this.makeMark(row) : this.makeStep(row, key);
        if (entry) entry.node.replaceWith(made.node);
        entry = { ...made, text, row };
        this.drawn.set(key, entry);
      }
      const place = previous ? previous.nextSibling : this.rows.firstChild;
      if (entry.node !== place) this.rows.insertBefore(entry.node, place);
      previous = entry.node;
    }
    if (atEnd) this.rows.scrollTop = this.rows.scrollHeight;
  }

  // Where the flow failed: the error with its place, and the frames with their locals, as they stood.
  drawFailure(failure) {
    const text = JSON.stringify(failure || null);
    if (text === this.failureDrawn) return;
    this.failureDrawn = text;
    this.failed.hidden = !failure;
    this.failed.replaceChildren();
    if (!failure) return;
    const panel = make("div", "fm-stack");
    panel.append(make("div", "fm-quiet", "where it failed"), make("pre", "fm-error", failure.error));
    drawFrames(panel, failure);
    this.failed.append(panel);
  }

  makeMark(row) {
    const node = make("div", "fm-mark");
    node.append(make("span", "fm-mark-kind", row.mark), make("span", "fm-mark-text", row.text));
    return { node };
  }

  makeStep(row, key) {
    const node = make("div", "fm-step");
    node.dataset.status = row.status;
    node.dataset.step = row.step;
    const line = make("div", "fm-line");
    line.tabIndex = 0;
    line.setAttribute("role", "button");
    const op = make("span", "fm-op");
    op.append(make("b", "", row.op), document.createTextNode(` ${row.target_short} ${row.args}`.trimEnd()));
    const track = make("span", "fm-track");
    const bar = make("span", "fm-bar");
    track.append(bar);
    const took = make("span", "fm-took");
    const pending = row.due ? `until ${clock(row.due)}` : row.pending;
    const result = make("span", row.end === null ? "fm-result fm-pending" : "fm-result", row.end === null ? pending : row.result);
    line.append(make("span", "fm-number", row.step), op, track, took, result);
    const details = this.makeDetails(row);
    this.makeFold(line, details, key);
    node.append(line, details);
    return { node, bar, took };
  }

  makeFold(line, details, key) {
    const show = () => {
      details.hidden = !this.open.has(key);
      line.setAttribute("aria-expanded", String(!details.hidden));
    };
    const toggle = () => {
      this.open.has(key) ? this.open.delete(key) : this.open.add(key);
      show();
    };
    line.addEventListener("click", toggle);
    line.addEventListener("keydown", (e) => {
      if (e.key !== "Enter" && e.key !== " ") return;
      e.preventDefault();
      e.stopPropagation();
      toggle();
    });
    show();
  }

  makeDetails(row) {
    const list = make("dl", "fm-details");
    const add = (name, value) => value && list.append(make("dt", "", name), make("dd", "", value));
    add("target", row.target);
    add("arguments", row.args_long);
    add(row.status === "failed" ? "error" : "result", row.end === null ? "" : row.result_long);
    add("asked", clock(row.start));
    add("answered", row.end === null ? "" : clock(row.end));
    add("due", row.due ? clock(row.due) : "");
    add("attempts", row.attempts > 1 || row.notes.length ? `${row.attempts}` : "");
    for (const note of row.notes) add("", note);
    add("line", row.line ? `${row.line}` : "");
    return list;
  }

  // Draws the rows as they were when the flow asked for a step: what came later is faint, what was not answered yet has no result.
  markPast(step) {
    const asked = step === null ? null : this.drawn.get(`s${step}`);
    this.until = asked ? asked.row.start : Infinity;
    this.root.classList.toggle("fm-in-past", Boolean(asked));
    let later = false;
    for (const entry of this.drawn.values()) {
      const { node, row } = entry;
      node.classList.toggle("fm-here", entry === asked);
      node.classList.toggle("fm-later", later);
      node.classList.toggle("fm-unanswered", entry === asked || (row.end ?? 0) > this.until);
      later = later || entry === asked;
    }
    this.tick();
  }

  tick() {
    const t = this.timeline;
    if (!t) return;
    const end = t.finished || this.now();
    const span = Math.max(end - t.started, 1);
    this.times.textContent = `started ${clock(t.started)}  ·  ${duration(end - t.started)}` + (t.info ? `  ·  ${t.info}` : "");
    for (const { row, bar, took } of this.drawn.values()) {
      if (!bar) continue;
      const until = Math.max(row.start, Math.min(row.end === null ? end : row.end, this.until));
      const left = Math.min(Math.max(0, (row.start - t.started) / span), 0.97);
      const width = Math.min(Math.max(0.03, (until - row.start) / span), 1 - left);
      bar.style.left = `${left * 100}%`;
      bar.style.width = `${width * 100}%`;
      took.textContent = (row.status === "recorded" ? "" : duration(until - row.start)) + (row.attempts > 1 ? ` ×${row.attempts}` : "");
    }
    this.drawFoot(t);
  }

  drawFoot(t) {
    let kind = "waiting";
    let text = "";
    if (t.error) [kind, text] = ["error", t.error];
    else if (t.status === "completed") [kind, text] = ["value", `→ ${t.result}`];
    else if (t.status === "paused") [kind, text] = ["paused", `paused: what arrives is kept until it is resumed${this.openText(t, "  ·  open: ")}`];
    else text = this.openText(t, t.status === "running" ? "busy with " : "waiting for ");
    this.foot.className = `fm-foot fm-${kind}`;
    if (this.foot.textContent !== text) this.foot.textContent = text;
    this.foot.hidden = !text;
  }

  openText(t, before) {
    const what = t.waiting.map((w) => {
      const due = w.due && w.due > this.now() ? `, due in ${duration(w.due - this.now())}` : "";
      return `${w.text}${w.step ? ` (step ${w.step})` : ""} since ${clock(w.since)}, for ${duration(this.now() - w.since)}${due}`;
    });
    return what.length ? before + what.join("; ") : "";
  }
}

export default {
  render({ model, el }) {
    const view = new History(model, el);
    const draw = () => view.draw();
    const hear = (content) => view.hear(content);
    model.on("change:timeline", draw);
    model.on("msg:custom", hear);
    draw();
    view.act("watch");
    const timer = setInterval(() => view.timeline && !view.timeline.ended && view.tick(), TICK);
    return () => {
      clearInterval(timer);
      model.off("change:timeline", draw);
      model.off("msg:custom", hear);
    };
  },
};
