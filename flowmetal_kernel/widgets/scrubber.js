// The past of one flow: a slider over its steps, and below it the stack and the locals as they were at the step it stands on.
// Joined to history.js, which is the module that the browser loads. In: the steps, and past states from Python. Out: `onMove(step)`, `ask(step)` and
// `fork(step)`.

class Scrubber {
  constructor(at, onMove, ask, fork) {
    this.onMove = onMove;
    this.ask = ask;
    this.steps = [];
    this.at = at; // a step, or null: now
    this.states = new Map();
    this.root = make("div", "fm-past");
    this.controls = make("div", "fm-scrub");
    this.back = this.makeButton("‹", "one step back", () => this.go(this.position() - 1));
    this.slider = make("input", "fm-slider");
    this.slider.type = "range";
    this.slider.min = "0";
    this.slider.setAttribute("aria-label", "step of the flow's history");
    for (const name of ["keydown", "keyup", "keypress"]) this.slider.addEventListener(name, (e) => e.stopPropagation());
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.forth = this.makeButton("›", "one step on", () => this.go(this.position() + 1));
    this.where = make("span", "fm-where");
    this.now = this.makeButton("Now", "back to the present", () => this.go(this.steps.length));
    this.fork = this.makeButton("Fork", "a new flow that shares what came before this step, and asks it anew", () => fork(this.at));
    this.panel = make("div", "fm-stack");
    this.controls.append(make("span", "fm-label", "history"), this.back, this.slider, this.forth, this.where, this.now, this.fork);
    this.root.append(this.controls, this.panel);
    this.draw();
  }

  makeButton(text, title, click) {
    const button = make("button", "fm-button fm-small", text);
    button.type = "button";
    button.title = title;
    button.addEventListener("click", click);
    return button;
  }

  position() {
    const index = this.steps.findIndex((row) => row.step === this.at);
    return index < 0 ? this.steps.length : index;
  }

  setSteps(rows) {
    this.steps = rows.filter((row) => !row.mark);
    if (this.at !== null && this.steps.length && !this.steps.some((row) => row.step === this.at)) this.at = null;
    this.draw();
    this.need();
  }

  go(position) {
    const index = Math.min(Math.max(position, 0), this.steps.length);
    this.at = index === this.steps.length ? null : this.steps[index].step;
    this.draw();
    this.onMove(this.at);
    this.need();
  }

  // Asks for the state where the slider has come to rest, unless it is known.
  need() {
    clearTimeout(this.asking);
    if (this.at === null || this.states.has(this.at)) return;
    this.asking = setTimeout(() => this.at !== null && this.ask(this.at), 60);
  }

  receive(state) {
    this.states.set(state.step, state);
    this.draw();
  }

  draw() {
    this.root.hidden = !this.steps.length;
    const position = this.position();
    this.slider.max = String(this.steps.length);
    this.slider.value = String(position);
    this.back.disabled = position === 0;
    this.forth.disabled = this.now.disabled = this.fork.hidden = this.at === null;
    const row = this.steps[position];
    this.where.textContent = row ? `as it asked for step ${row.step}: ${row.op}` : "now";
    this.panel.replaceChildren();
    this.panel.hidden = this.at === null;
    const state = this.states.get(this.at);
    if (this.at === null) return;
    if (state) this.drawState(state);
    else this.panel.append(make("div", "fm-quiet", "…"));
  }

  drawState(state) {
    drawFrames(this.panel, state);
    if (!state.frames.length) this.panel.append(make("div", "fm-quiet", "no frames: the flow had ended, or had not begun"));
  }
}

// The frames of a state, innermost first, each with its locals.
function drawFrames(panel, state) {
  for (const frame of state.frames) {
    const head = make("div", "fm-frame");
    head.append(make("b", "", frame.function), make("span", "fm-quiet", frame.line ? ` line ${frame.line}` : ""));
    panel.append(head, make("code", "fm-source", frame.source));
    if (!frame.locals.length) continue;
    const list = make("dl", "fm-locals");
    for (const [name, value] of frame.locals) list.append(make("dt", "", name), make("dd", "", value));
    panel.append(list);
  }
  if (state.more) panel.append(make("div", "fm-quiet", `… ${state.more} more frames`));
}
