"use strict";
// What sets the front: axes, studies beside each other, how far in the figure is, and the replay.
nas.frontControls = (() => {
  const { el } = nas;
  const VIEWS = [
    ["2d", "2-D"],
    ["3d", "3-D"],
    ["parallel", "Parallel"],
  ];
  const FRAME = 120; // ms between two pictures of a replay
  const PICTURES = 100; // of a replay

  function reload(changes) {
    nas.keep(changes);
    nas.show();
  }

  // How far in the figure is: x0,x1,y0,y1 of two axes, or the eye's place of three.
  function readZoom(text) {
    const parts = (text || "").split(",").map(Number);
    if (!parts.every(Number.isFinite)) return null;
    if (parts.length === 3) return { eye: { x: parts[0], y: parts[1], z: parts[2] } };
    return parts.length === 4 ? { x: parts.slice(0, 2), y: parts.slice(2) } : null;
  }

  function keepZoom(figure) {
    const [holder] = figure.children;
    if (!holder.on || holder.dataset.kept) return;
    holder.dataset.kept = "1";
    const words = (values) => values.map((value) => Number(value).toPrecision(5)).join(",");
    holder.on("plotly_relayout", (event) => {
      if (event["scene.camera"]) {
        const { x, y, z } = event["scene.camera"].eye;
        nas.keep({ zoom: words([x, y, z]) });
      } else if (event["xaxis.autorange"] || event["yaxis.autorange"]) {
        nas.keep({ zoom: [] });
      } else if (Object.keys(event).some((name) => /^[xy]axis\.range/.test(name))) {
        const { xaxis, yaxis } = holder._fullLayout;
        nas.keep({ zoom: words([...xaxis.range, ...yaxis.range]) });
      }
    });
  }

  function addMetric(study, query) {
    const picked = query.getAll("m");
    const taken = [...study.asked(), ...picked, nas.Study.TRIAL.name];
    const rest = [...study.metrics.values()].filter((metric) => !taken.includes(metric.name));
    if (!rest.length) return "";
    const options = [["", "choose a figure"], ...rest.map((m) => [m.name, m.label])];
    const add = (name) => name && reload({ m: [...picked, name] });
    return nas.select("Bound or show also", options, "", add);
  }

  function beside(studies, query) {
    const others = nas.listed.filter((name) => name !== studies[0].name);
    if (!others.length || nas.embedded) return [];
    const now = query.getAll("with");
    const toggled = (name) =>
      now.includes(name) ? now.filter((item) => item !== name) : [...now, name];
    const word = (name) => [name, `${now.includes(name) ? "without" : "with"} ${name}`];
    const first = ["", now.length ? `${now.length} more` : "no other"];
    const change = (name) => name && reload({ with: toggled(name) });
    return [nas.select("Beside", [first, ...others.map(word)], "", change)];
  }

  function make(studies, set, query) {
    const metrics = [...studies[0].metrics.values()].map((metric) => [metric.name, metric.label]);
    const tab = ([key, text]) => {
      const onclick = () => reload({ view: key, zoom: [] });
      const pressed = String(set.view === key);
      return el("button", { type: "button", "aria-pressed": pressed, onclick }, text);
    };
    const axis = (label, name) =>
      nas.select(label, metrics, set[name], (value) => reload({ [name]: value, zoom: [] }));
    const fields = [];
    if (set.view !== "parallel") fields.push(axis("Across", "x"), axis("Up", "y"));
    if (set.view === "3d") fields.push(axis("Depth", "z"));
    if (set.view === "2d" && studies.length < 2) {
      const options = [["-", "none"], ...metrics];
      fields.push(nas.select("Colour", options, set.c || "-", (value) => reload({ c: value })));
    }
    return el(
      "div",
      { class: "controls" },
      el("div", { class: "tabs", role: "group", "aria-label": "View" }, VIEWS.map(tab)),
      ...fields,
      ...beside(studies, query),
    );
  }

  // The study as it was after any of its trials; null stands for all.
  function replay(studies, begin, set) {
    const last = () => Math.max(...studies.map((study) => study.view.last), 0);
    let until = begin;
    let timer = null;
    const output = el("output");
    const label = "Replay up to trial";
    const slider = el("input", { type: "range", id: "time", min: 0, "aria-label": label });
    const play = el("button", { type: "button" }, "Replay");
    function tell() {
      const count = last() + 1;
      const all = count === 1 ? "the only trial" : `all ${nas.count(count)} trials`;
      output.textContent = until === null ? all : `up to trial ${nas.count(until)}`;
      slider.setAttribute("aria-valuetext", output.textContent);
    }
    function renew() {
      slider.max = last();
      if (until === null) slider.value = last();
      tell();
    }
    function moved() {
      until = Number(slider.value) >= last() ? null : Number(slider.value);
      tell();
      set(until);
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Replay";
    }
    function step() {
      if (!play.isConnected) {
        stop();
        return;
      }
      slider.value = Number(slider.value) + Math.max(1, Math.ceil(last() / PICTURES));
      moved();
      if (until === null) stop();
    }
    slider.addEventListener("input", moved);
    play.addEventListener("click", () => {
      if (timer) {
        stop();
        return;
      }
      if (until === null) slider.value = 0;
      play.textContent = "Stop";
      timer = setInterval(step, FRAME);
    });
    slider.max = last();
    slider.value = until === null ? last() : until;
    tell();
    return { row: el("div", { class: "replay" }, play, slider, output), renew };
  }

  return { readZoom, keepZoom, addMetric, make, replay };
})();
