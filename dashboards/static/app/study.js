"use strict";
// A study's candidates as the front is drawn from, and what bounds and replay leave of them.
nas.Study = class {
  constructor(view) {
    this.view = view;
    this.name = view.study;
    this.count = view.count;
    this.numbers = nas.unpack(view.numbers);
    this.metrics = new Map(view.metrics.map((metric) => [metric.name, metric]));
    this.metrics.set(nas.Study.TRIAL.name, nas.Study.TRIAL);
    this.columns = new Map(
      Object.entries(view.columns).map(([name, data]) => [name, nas.unpack(data)]),
    );
    this.columns.set(nas.Study.TRIAL.name, this.numbers);
    this.spreads = new Map(
      Object.entries(view.spreads.columns).map(([name, { low, high }]) => [
        name,
        [nas.unpack(low), nas.unpack(high)],
      ]),
    );
    this.spreadAt = new Map([...nas.unpack(view.spreads.rows)].map((row, at) => [row, at]));
    this.own = view.bounds.map((b) => `${b.metric}${b.relation}${b.bound}`);
    this.missing = new Float64Array(this.count).fill(NaN);
  }

  column(name) {
    return this.columns.get(name) || this.missing;
  }

  spread(name, row) {
    const found = this.spreads.get(name);
    const at = this.spreadAt.get(row);
    return found && at !== undefined ? [found[0][at], found[1][at]] : [NaN, NaN];
  }

  // How many layers have a variant of which kind; empty where none has.
  variants(row) {
    return this.view.variants[row] || "";
  }

  objectives() {
    return this.view.objectives.map((name) => this.metrics.get(name));
  }

  // What the study asks for: its objectives, then its bounds.
  asked() {
    return [...new Set([...this.view.objectives, ...this.view.bounds.map((b) => b.metric)])];
  }

  front(rows) {
    this.prepare();
    return this.finder(rows);
  }

  // Makes what finds the front of any rows: of very many that takes as long as a drawing.
  prepare() {
    const goals = this.objectives();
    this.finder ??= nas.pareto.finder(
      this.count,
      goals.map((metric) => this.column(metric.name)),
      goals.map((metric) => (metric.direction === "min" ? 1 : -1)),
    );
  }

  // The rows that keep bounds and were there by a trial, which of them are the front, which not.
  standing(bounds, until) {
    const tests = [...bounds]
      .filter(([name]) => this.columns.has(name))
      .map(([name, [low, high]]) => [this.column(name), low, high]);
    const isIn = until === null ? null : (row) => this.numbers[row] <= until;
    const rows = nas.pareto.kept(this.count, tests, isIn);
    const words = (list) => list.sort().join();
    const untouched = until === null && words(nas.writeBounds(bounds)) === words([...this.own]);
    // That of the study itself is as the record has it: of very many, columns here are rounded.
    const front = untouched ? this.view.front : this.front(rows);
    const state = new Uint8Array(this.count); // 1: within the bounds, 2: on the front
    for (const row of rows) state[row] = 1;
    for (const row of front) state[row] = 2;
    const outside = [];
    for (let row = 0; row < this.count; row += 1) if (!state[row]) outside.push(row);
    return { rows, front, dim: rows.filter((row) => state[row] === 1), outside };
  }

  // What a training gives.
  static QUALITIES = ["accuracy", "loss", "bits_per_byte"];

  static TRIAL = {
    name: "#trial",
    label: "Trial",
    title: "Trial",
    wish: "in the order proposed",
    direction: "min",
    unit: "",
    spread: "",
    ordinal: true,
  };
};
