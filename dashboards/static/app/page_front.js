"use strict";
// The front: any metric on any axis, bounds by sliders or brushes, replay, several studies.
(() => {
  const { el, plot } = nas;
  const HEIGHT = { "2d": 520, "3d": 520, parallel: 450 };
  const SOON = 50; // ms after the first picture until the next is prepared
  let page = null; // what is shown

  async function load(query) {
    const names = [query.get("study"), ...query.getAll("with")];
    const metric = nas.embedded ? [] : nas.frontTable.picked(query);
    const views = await Promise.all(names.map((study) => nas.get("front", { study, metric })));
    return views.map((view) => new nas.Study(view));
  }

  // Which metric is where: as the address says, else costs across, and up what a training gives.
  function axes(studies, query) {
    const [study] = studies;
    const goals = study.objectives();
    const isGain = (m) => m.direction === "max" || nas.Study.QUALITIES.includes(m.name);
    const cost = goals.find((m) => !isGain(m)) || goals.at(-1);
    const rest = goals.filter((m) => m !== cost);
    const gain = rest.find(isGain) || rest[0];
    const third = rest.find((m) => m !== gain);
    const [x, y] = gain ? [cost, gain] : [nas.Study.TRIAL, cost];
    const pick = (name, other) => (study.metrics.has(query.get(name)) ? query.get(name) : other);
    const plainColour = query.get("c") === "-" || studies.length > 1;
    return {
      view: query.get("view") in HEIGHT ? query.get("view") : "2d",
      x: pick("x", x.name),
      y: pick("y", y.name),
      c: plainColour ? "" : pick("c", third ? third.name : ""),
      z: pick("z", (third || y).name),
      zoom: nas.frontControls.readZoom(query.get("zoom")),
    };
  }

  class FrontPage {
    constructor(studies, query) {
      this.studies = studies;
      this.query = query;
      this.set = axes(studies, query);
      this.own = studies[0].own;
      this.bounds = nas.readBounds(query.has("b") ? query.getAll("b") : this.own);
      const until = query.has("until") ? Number(query.get("until")) : NaN;
      this.until = Number.isFinite(until) ? until : null;
      this.allFigures = false;
      this.waiting = false;
    }

    make(main) {
      const { studies, query, set } = this;
      const [first] = studies;
      const label = "Front; the table below gives the same in numbers";
      this.figure = plot.figure(`${first.name}-front-${set.view}`, label, HEIGHT[set.view]);
      this.marks = nas.frontTable.marks(first.name, query);
      this.count = el("p", { class: "count", id: "count", role: "status" });
      this.note = nas.note();
      this.table = el("div");
      this.sliders = el("div", { class: "filters" });
      this.replay = nas.frontControls.replay(studies, this.until, (until) => {
        this.until = until;
        this.changed();
      });
      this.empty = nas.note("No candidate is complete yet; this page fills by itself.");
      this.makeFilters();
      const controls = nas.frontControls.make(studies, set, query);
      const reset = el(
        "button",
        { type: "button", class: "plain", onclick: () => this.reset() },
        this.own.length ? "Back to the study's own" : "Clear all",
      );
      main.replaceChildren(
        el("h1", {}, "Pareto front ", el("small", {}, first.name)),
        this.count,
        el(
          "div",
          { class: "split" },
          el(
            "section",
            { class: "card" },
            controls,
            this.empty,
            this.figure,
            this.replay.row,
            this.note,
          ),
          el(
            "aside",
            { class: "card", "aria-label": "Constraints" },
            el("h2", {}, "Constraints"),
            this.sliders,
            reset,
            nas.frontControls.addMetric(first, query),
          ),
        ),
        nas.card("Candidates on the front", this.table),
      );
    }

    makeFilters() {
      const [first] = this.studies;
      const picked = this.query.getAll("m");
      const names = [...new Set([...first.asked(), ...this.bounds.keys(), ...picked])];
      const metrics = names.filter((n) => first.columns.has(n)).map((n) => first.metrics.get(n));
      const remove = (name) => () => {
        this.bounds.delete(name);
        nas.keep({ b: this.boundWords(), m: picked.filter((item) => item !== name) });
        nas.show();
      };
      this.filters = nas.filters(metrics, (name) => this.studies[0].column(name), {
        bounds: this.bounds,
        changed: () => this.changed(),
        removable: (name) => (picked.includes(name) ? remove(name) : null),
      });
      this.sliders.replaceChildren(
        ...this.filters.rows,
        first.count < 2 ? nas.note("Sliders come with the second candidate.") : "",
      );
    }

    reset() {
      this.bounds.clear();
      for (const [name, ends] of nas.readBounds(this.own)) this.bounds.set(name, ends);
      this.makeFilters();
      this.changed();
    }

    brushed(name, range) {
      if (range === null || (range[0] === null && range[1] === null)) this.bounds.delete(name);
      else this.bounds.set(name, range);
      this.makeFilters();
      this.changed();
    }

    // A dash says that none binds where the study itself has bounds.
    boundWords() {
      const words = nas.writeBounds(this.bounds);
      return words.length || !this.own.length ? words : ["-"];
    }

    // Drawn once a frame at most, however often a slider moves.
    changed() {
      nas.keep({ b: this.boundWords(), until: this.until === null ? [] : [this.until] });
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => this.draw());
    }

    async draw() {
      this.waiting = false;
      const { studies, set, figure } = this;
      const some = studies.some((study) => study.count > 0);
      this.empty.hidden = some;
      figure.hidden = !some;
      this.replay.row.hidden = !some;
      const stands = studies.map((study) => study.standing(this.bounds, this.until));
      this.count.replaceChildren(...studies.map((study, i) => counted(study, stands[i], studies)));
      this.note.textContent = some ? about(studies, stands, set.view) : "";
      const open = ([at, number]) => nas.go("trial", { study: studies[at].name, n: number });
      if (set.view === "parallel") this.drawParallel(stands, open);
      else if (some) {
        const way = set.view === "3d" ? nas.frontFigure.draw3d : nas.frontFigure.draw2d;
        await way(figure, studies, set, stands, open);
        nas.frontControls.keepZoom(figure);
      }
      this.fillTable(stands[0].front);
      figure.dataset.drawn = String(Number(figure.dataset.drawn || 0) + 1);
    }

    drawParallel(stands, open) {
      const { studies, bounds } = this;
      const names = [...new Set([...studies[0].view.objectives, ...this.query.getAll("m")])];
      if (names.length < 2) names.push(nas.Study.TRIAL.name);
      const known = names.filter((name) => studies.every((study) => study.columns.has(name)));
      const sets = studies.map((study, i) => ({
        columnOf: (name) => study.column(name),
        dim: nas.pareto.sample(stands[i].dim, nas.frontFigure.DRAWN),
        front: stands[i].front,
        outside: nas.pareto.sample(stands[i].outside, nas.frontFigure.OUTSIDE),
        colour: plot.series()[i % 4],
        title: (row) => `${studies.length > 1 ? `${study.name}: ` : ""}trial ${study.numbers[row]}`,
        opened: (row) => open([i, study.numbers[row]]),
      }));
      nas.parallel(this.figure.children[0], {
        metrics: known.map((name) => studies[0].metrics.get(name)),
        sets,
        bounds,
        brushed: (name, range) => this.brushed(name, range),
      });
    }

    fillTable(front) {
      const [first] = this.studies;
      const names = nas.frontTable.metrics(first, this.query, this.allFigures);
      const more = nas.frontTable.metrics(first, this.query, true).length - names.length;
      const toggle = () => {
        this.allFigures = !this.allFigures;
        this.fillTable(front);
      };
      const words = this.allFigures ? "Fewer figures" : `${more} more figures`;
      const button = el("button", { type: "button", class: "plain", onclick: toggle }, words);
      if (!front.length) {
        this.table.replaceChildren(nas.note("No candidate is on the front."));
        return;
      }
      this.table.replaceChildren(
        el("p", { class: "after" }, this.marks.button, more || this.allFigures ? button : ""),
        nas.frontTable.make(first, front, this.marks, names),
      );
    }

    // New trials enter the picture as it is set; what the reader holds is not replaced.
    async renew(fresh) {
      this.studies.splice(0, this.studies.length, ...fresh);
      this.filters.renew();
      this.replay.renew();
      await this.draw();
    }

    // Whether fresh data have the same studies and metrics, so that only the picture is new.
    fits(fresh) {
      const shape = (studies) =>
        JSON.stringify([studies.map((s) => s.name), [...studies[0].metrics.keys()]]);
      return shape(fresh) === shape(this.studies);
    }
  }

  function counted(study, stand, studies) {
    const bold = (kind, value) => el("b", { "data-count": kind }, nas.count(value));
    return el(
      "span",
      {},
      studies.length > 1 ? `${study.name}: ` : "",
      bold("kept", stand.rows.length),
      ` of ${nas.count(study.count)} candidates within the bounds, `,
      bold("front", stand.front.length),
      " on the front",
    );
  }

  function about(studies, stands, view) {
    const { DRAWN } = nas.frontFigure;
    const known = studies.filter((study) => study.view.device);
    const devices = [...new Set(known.map((study) => study.view.device))];
    const where =
      devices.length === 1
        ? devices[0]
        : known.map((study) => `${study.name} on ${study.view.device}`).join(", ");
    const spreads = studies[0].objectives().filter((metric) => metric.spread);
    const thin = stands.some((stand) => stand.dim.length > DRAWN);
    return [
      where ? `Measured: ${where}.` : "",
      view === "2d" && spreads.length
        ? `Bars: ${spreads.map((m) => `${m.label} ${m.spread}`).join(", ")}.`
        : "",
      thin ? `Of the dominated, ${nas.count(DRAWN)} are drawn, evenly over the trials.` : "",
      view === "2d" && studies.some((study) => study.count > 5000)
        ? "Bars are those of the study's own front."
        : "",
      "Click a point for its page.",
    ]
      .filter(Boolean)
      .join(" ");
  }

  nas.pages.front = {
    title: "Front",
    study: true,
    load,
    async make(main, query, studies) {
      page = new FrontPage(studies, query);
      page.make(main);
      await page.draw();
      setTimeout(() => studies.forEach((study) => study.prepare()), SOON);
    },
    async renew(main, query, studies) {
      if (page.fits(studies)) await page.renew(studies);
      else await this.make(main, query, studies);
    },
  };
})();
