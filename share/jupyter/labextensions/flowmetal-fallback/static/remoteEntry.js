// A prebuilt JupyterLab extension in plain JavaScript: no npm, no build step.
//
// JupyterLab prefers a widget to its text/html, and shows "Loading widget…" or "model not found" where the widget's model is
// gone: no kernel, another kernel, a notebook from somebody else. This wraps the widget renderer of every notebook so that a
// Flowmetal output shows its text/html (the static picture) for as long as there is no live view. Other widgets are left alone.
(() => {
  const WIDGET = "application/vnd.jupyter.widget-view+json";
  const OURS = 'alt="Flowmetal ';
  let scope;

  async function shared(name) {
    const versions = Object.values(scope[name]);
    return (await versions[0].get())();
  }

  function withFallback(renderer, makeHtml) {
    const render = renderer.renderModel.bind(renderer);
    renderer.renderModel = async (model) => {
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

  function patch(rendermime) {
    const create = rendermime.createRenderer.bind(rendermime);
    rendermime.createRenderer = (mimeType) =>
      mimeType === WIDGET ? withFallback(create(mimeType), () => create("text/html")) : create(mimeType);
  }

  async function extension() {
    const { INotebookTracker } = await shared("@jupyterlab/notebook");
    const plugin = {
      id: "flowmetal-fallback:plugin",
      description: "Shows a Flowmetal history's static picture where its live view is missing.",
      autoStart: true,
      requires: [INotebookTracker],
      activate: (app, tracker) => {
        tracker.forEach((panel) => patch(panel.content.rendermime));
        tracker.widgetAdded.connect((_, panel) => patch(panel.content.rendermime));
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
