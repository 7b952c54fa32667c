"use strict";
// The front in two and three axes: what is on it, what it dominates, what the bounds leave out.
// set: { x, y, z, c, zoom } names metrics; c colours the front of a study that is shown alone.
nas.frontFigure = (() => {
  const { plot } = nas;
  const DRAWN = 1000; // dominated candidates drawn; all are counted
  const OUTSIDE = 250;
  const BARS = 120; // dominated candidates up to which they have bars too

  const of = (study, rows, name) => {
    const column = study.column(name);
    return rows.map((row) => column[row]);
  };

  function hover(study, row, names, standing, many) {
    const lines = [`<b>trial ${study.numbers[row]}</b>, ${standing}`];
    for (const name of names) {
      const metric = study.metrics.get(name);
      const value = study.column(name)[row];
      if (!metric || metric.ordinal || !Number.isFinite(value)) continue;
      const ends = nas.ends(metric, ...study.spread(name, row));
      const spread = [ends, ends && metric.spread].filter(Boolean).join(", ");
      lines.push(
        `${plot.plain(metric.label)}: <b>${plot.plain(nas.shown(metric, value))}</b>` +
          (spread ? ` (${plot.plain(spread)})` : ""),
      );
    }
    if (many) lines.push(plot.plain(study.name));
    return lines.join("<br>");
  }

  function bars(study, rows, name, colour) {
    if (!study.spreads.has(name)) return { visible: false };
    const away = rows.map((row) => {
      const value = study.column(name)[row];
      const [low, high] = study.spread(name, row);
      const distance = (end) => (Number.isFinite(end) ? Math.max(0, end) : 0);
      return [distance(value - low), distance(high - value)];
    });
    return {
      type: "data",
      symmetric: false,
      arrayminus: away.map((ends) => ends[0]),
      array: away.map((ends) => ends[1]),
      color: colour,
      thickness: 1.1,
      width: 0,
    };
  }

  // The candidates that no other beats in the two metrics shown, along the first.
  function stairs(study, rows, x, y) {
    const signs = [x, y].map((name) => (study.metrics.get(name).direction === "min" ? 1 : -1));
    const best = nas.pareto.front(rows, [study.column(x), study.column(y)], signs);
    return best.sort((a, b) => study.column(x)[a] - study.column(x)[b]);
  }

  // Colours of the front by a third metric, in the scale that suits it.
  function coloured(study, front, name) {
    const metric = study.metrics.get(name);
    const figures = of(study, front, name);
    const log = plot.kind(metric, [figures]).type === "log";
    const values = log ? figures.map(Math.log10) : figures;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const ticks = front.length ? [0, 0.25, 0.5, 0.75, 1].map((s) => low + s * (high - low)) : [];
    return {
      color: values,
      colorscale: plot.scale(),
      cmin: low,
      cmax: high === low ? low + 1 : high,
      colorbar: {
        title: {
          text: `${plot.plain(metric.title)}, ${metric.wish}`,
          side: "right",
          font: { size: 12 },
        },
        thickness: 10,
        outlinewidth: 0,
        x: 1.01,
        tickvals: ticks,
        ticktext: ticks.map((tick) => nas.number(metric, log ? 10 ** tick : tick)),
        tickfont: { size: 11, color: plot.colour("muted") },
      },
    };
  }

  function traces2d(study, index, studies, set, stand) {
    const many = studies.length > 1;
    const colour = plot.series()[index % 4];
    const names = [...new Set([...study.view.objectives, set.x, set.y, ...(set.c ? [set.c] : [])])];
    const label = (text) => (many ? `${plot.plain(study.name, 24)}: ${text}` : text);
    const points = (rows, standing, look) => ({
      type: "scatter",
      mode: "markers",
      name: label(standing),
      x: of(study, rows, set.x),
      y: of(study, rows, set.y),
      customdata: rows.map((row) => [index, study.numbers[row]]),
      hoverinfo: "text",
      hovertext: rows.map((row) => hover(study, row, names, standing, many)),
      ...look,
    });
    const traces = [];
    const outside = nas.pareto.sample(stand.outside, OUTSIDE);
    if (outside.length) {
      const marker = { size: 4.5, color: plot.colour("dim"), opacity: 0.28 };
      traces.push(points(outside, "outside the bounds", { showlegend: !many, marker }));
    }
    const drawn = nas.pareto.sample(stand.dim, DRAWN);
    const sparse = drawn.length < BARS;
    const both = (rows, bar) => ({
      error_x: bar ? bars(study, rows, set.x, bar) : { visible: false },
      error_y: bar ? bars(study, rows, set.y, bar) : { visible: false },
    });
    traces.push(
      points(drawn, "dominated", {
        showlegend: !many,
        marker: {
          size: sparse ? 7 : 4.5,
          color: many ? colour : plot.colour("dim"),
          opacity: many ? 0.25 : sparse ? 1 : 0.6,
        },
        ...both(drawn, sparse && !many ? plot.colour("dim-bar") : ""),
      }),
    );
    traces.push(stairsTrace(study, set, stand.front, many ? colour : ""));
    const marker = {
      size: 12,
      color: colour,
      symbol: plot.SYMBOLS[index % 4],
      line: { width: 1.2, color: plot.colour("surface") },
    };
    if (set.c && !many) {
      Object.assign(marker, coloured(study, stand.front, set.c));
      const dot = { size: 11, color: plot.colour("scale-3") }; // stands for all colours
      traces.push({
        type: "scatter",
        mode: "markers",
        x: [null],
        y: [null],
        name: "on the front",
        hoverinfo: "skip",
        marker: dot,
      });
    }
    traces.push(
      points(stand.front, "on the front", {
        marker,
        showlegend: many || !set.c,
        ...both(stand.front, plot.colour("bar")),
      }),
    );
    const baselines = study.view.baselines.filter((b) => set.x in b.values && set.y in b.values);
    if (baselines.length) traces.push(baselinesTrace(study, index, set, baselines, label));
    return traces;
  }

  function stairsTrace(study, set, front, colour) {
    const steps = stairs(study, front, set.x, set.y);
    return {
      type: "scatter",
      mode: "lines",
      name: "best of these two alone",
      x: of(study, steps, set.x),
      y: of(study, steps, set.y),
      line: {
        shape: study.metrics.get(set.x).direction === "min" ? "hv" : "vh",
        width: 2,
        color: colour || plot.colour("stairs"),
      },
      opacity: colour ? 0.5 : 1,
      hoverinfo: "skip",
      showlegend: !colour && steps.length > 1 && study.view.objectives.length > 2,
    };
  }

  function baselinesTrace(study, index, set, baselines, label) {
    return {
      type: "scatter",
      mode: "markers",
      name: label("baselines"),
      x: baselines.map((b) => b.values[set.x]),
      y: baselines.map((b) => b.values[set.y]),
      customdata: baselines.map((b) => [index, b.number]),
      hoverinfo: "text",
      hovertext: baselines.map((b) => `<b>trial ${b.number}</b>, baseline`),
      marker: { size: 13, symbol: "star", color: plot.colour("ring") },
    };
  }

  function axis2d(name, studies, stands, zoom) {
    const metric = studies[0].metrics.get(name);
    const kind = plot.kind(
      metric,
      studies.map((study) => study.column(name)),
    );
    const ends = studies.map((study, i) =>
      stands[i].front.flatMap((row) => study.spread(name, row)),
    );
    const range = plot.range([...studies.map((study) => study.column(name)), ...ends], kind.type);
    return plot.axis(metric, { ...kind, ...(zoom ? { range: zoom } : range) });
  }

  function draw2d(box, studies, set, stands, opened) {
    const traces = studies.flatMap((study, i) => traces2d(study, i, studies, set, stands[i]));
    return plot.draw(
      box,
      traces,
      {
        xaxis: axis2d(set.x, studies, stands, set.zoom?.x),
        yaxis: axis2d(set.y, studies, stands, set.zoom?.y),
        uirevision: `${set.x}|${set.y}`,
        margin: { l: 70, r: set.c ? 84 : 16, t: 40, b: 60 },
      },
      opened,
    );
  }

  function axis3d(name, studies) {
    const metric = studies[0].metrics.get(name);
    const kind = plot.kind(
      metric,
      studies.map((study) => study.column(name)),
    );
    return {
      title: { text: plot.plain(metric.title), font: { size: 13 } },
      gridcolor: plot.colour("grid"),
      color: plot.colour("muted"),
      tickfont: { size: 11 },
      showbackground: true,
      backgroundcolor: plot.colour("page"),
      ...(metric.unit === "%" ? { tickformat: "~%" } : kind),
    };
  }

  function draw3d(box, studies, set, stands, opened) {
    const many = studies.length > 1;
    const data = studies.flatMap((study, index) => {
      const names = [...new Set([...study.view.objectives, set.x, set.y, set.z])];
      const points = (rows, standing, marker) => ({
        type: "scatter3d",
        mode: "markers",
        name: many ? `${plot.plain(study.name, 24)}: ${standing}` : standing,
        x: of(study, rows, set.x),
        y: of(study, rows, set.y),
        z: of(study, rows, set.z),
        customdata: rows.map((row) => [index, study.numbers[row]]),
        hoverinfo: "text",
        hovertext: rows.map((row) => hover(study, row, names, standing, many)),
        marker,
      });
      const colour = plot.series()[index % 4];
      const dim = {
        size: 3.5,
        color: many ? colour : plot.colour("muted"),
        opacity: many ? 0.25 : 0.6,
      };
      return [
        points(nas.pareto.sample(stands[index].dim, DRAWN), "dominated", dim),
        points(stands[index].front, "on the front", { size: 6, color: colour }),
      ];
    });
    const eye = set.zoom?.eye || { x: 1.5, y: 1.5, z: 0.8 };
    const scene = {
      xaxis: axis3d(set.x, studies),
      yaxis: axis3d(set.y, studies),
      zaxis: axis3d(set.z, studies),
      camera: { eye, center: { x: 0, y: 0, z: -0.08 } },
    };
    const more = { scene, margin: { l: 0, r: 0, t: 30, b: 0 }, uirevision: "3d" };
    return plot.draw(box, data, more, opened);
  }

  return { DRAWN, OUTSIDE, draw2d, draw3d };
})();
