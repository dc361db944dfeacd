// A prebuilt JupyterLab extension in plain JavaScript: no npm, no build step.
//
// JupyterLab prefers a widget to its text/html, and shows "Loading widget…" or "model not found" where the widget's model is
// gone: no kernel, another kernel, a notebook from somebody else. This wraps the widget renderer of every notebook so that a
// Flowmetal output shows its text/html (the static picture) for as long as there is no live view. Other widgets are left alone.
//
// The output of a flow that has ended is such a picture and no widget, so that every other viewer shows it. Beside the picture
// it names its live view, in a type of our own: where the kernel still has that view, it is shown in the picture's place.
//
// A kernel that was restarted makes its views anew, under the same names: what stood on the page is then drawn once more.
(() => {
  const WIDGET = "application/vnd.jupyter.widget-view+json";
  const HISTORY = "application/vnd.flowmetal.history+json";
  const OURS = 'alt="Flowmetal ';
  const AFTER_RESTART = [1000, 2500, 5000, 10000, 20000, 40000]; // milliseconds: a kernel needs a moment to make its views
  let scope;

  async function shared(name) {
    const versions = Object.values(scope[name]);
    return (await versions[0].get())();
  }

  function withFallback(renderer, makeHtml, drawn) {
    const render = renderer.renderModel.bind(renderer);
    renderer.renderModel = async (model) => {
      if (String(model.data["text/html"] || "").includes(OURS)) drawn.set(renderer, model);
      const picture = async () => {
        if (renderer.isDisposed || renderer.widgets.length) return;
        const html = makeHtml();
        await html.renderModel(model);
        if (renderer.isDisposed || renderer.widgets.length) return;
        renderer.node.textContent = "";
        renderer.node.append(html.node);
      };
      const fallback = String(model.data["text/html"] || "").includes(OURS);
      const done = render(model);
      if (fallback) await picture();
      await done;
      if (fallback && !renderer.isHidden) await picture();
    };
    return renderer;
  }

  // The same output as the widget renderer wants it; a copy, for that renderer writes into what it is given.
  function asWidget(model) {
    const named = model.data[HISTORY] || {};
    const view = { version_major: 2, version_minor: 0, model_id: String(named.model_id || "") };
    return { trusted: model.trusted, metadata: model.metadata, data: { ...model.data, [WIDGET]: view }, setData: () => {} };
  }

  // A view says of itself whether its kernel hears it (history.js); one that is not drawn yet will be when it is.
  function isAlive(renderer) {
    const view = renderer.node.querySelector(".fm-history");
    return renderer.widgets.length > 0 && (!view || view.isAlive());
  }

  // Draws again what has lost its kernel: the new kernel makes its views anew, sooner or later.
  function redraw(drawn) {
    for (const [renderer, model] of drawn) {
      if (renderer.isDisposed) drawn.delete(renderer);
      else if (!isAlive(renderer)) {
        for (const old of [...renderer.widgets]) old.parent = null; // not disposed: that would hide the output
        renderer.renderModel(model);
      }
    }
  }

  function watchRestarts(panel, drawn) {
    let restarting = false;
    panel.sessionContext.statusChanged.connect((_, status) => {
      if (status === "restarting" || status === "autorestarting") restarting = true;
      if (!restarting || status !== "idle") return;
      restarting = false;
      for (const wait of AFTER_RESTART) setTimeout(() => redraw(drawn), wait);
    });
  }

  function patch(panel) {
    const rendermime = panel.content.rendermime;
    const drawn = new Map();
    watchRestarts(panel, drawn);
    const create = rendermime.createRenderer.bind(rendermime);
    const widget = () => withFallback(create(WIDGET), () => create("text/html"), drawn);
    rendermime.createRenderer = (mimeType) => (mimeType === WIDGET ? widget() : create(mimeType));
    if (!rendermime.mimeTypes.includes(WIDGET)) return;
    const createRenderer = () => {
      const renderer = widget();
      const render = renderer.renderModel;
      renderer.renderModel = (model) => render(asWidget(model));
      return renderer;
    };
    rendermime.addFactory({ safe: false, mimeTypes: [HISTORY], createRenderer }, 0);
  }

  async function extension() {
    const { INotebookTracker } = await shared("@jupyterlab/notebook");
    const plugin = {
      id: "flowmetal-fallback:plugin",
      description: "Shows a Flowmetal history's static picture where its live view is missing.",
      autoStart: true,
      requires: [INotebookTracker],
      activate: (app, tracker) => {
        tracker.forEach(patch);
        tracker.widgetAdded.connect((_, panel) => patch(panel));
      },
    };
    return () => ({ __esModule: true, default: plugin });
  }

  const container = {
    init: (sharedScope) => void (scope = sharedScope),
    get: (module) => (module === "./extension" ? extension() : Promise.resolve(() => ({}))),
  };
  globalThis._JUPYTERLAB = globalThis._JUPYTERLAB || {};
  globalThis._JUPYTERLAB["flowmetal-fallback"] = container;
})();
