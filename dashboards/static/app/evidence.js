"use strict";
// How a figure came about: in words, and as training curves and samples with the device's state.
nas.evidence = (() => {
  const { plot } = nas;
  const several = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

  function words(figure) {
    const { detail } = figure;
    if (!Object.keys(detail).length) {
      return figure.evaluator ? `computed by ${figure.evaluator}` : "";
    }
    const timed = Array.isArray(detail.samples_us);
    return [
      detail.device,
      timed &&
        [
          several(detail.samples_us.length, "sample"),
          several(new Set(detail.round_index).size, "round"),
        ].join(" in "),
      Array.isArray(detail.repeats) && several(detail.repeats.length, "repeat"),
      detail.batch && `batch ${detail.batch}`,
      detail.cache && `${detail.cache} cache`,
      detail.mode,
      detail.threads && several(detail.threads, "thread"),
      detail.dtype,
      detail.layout,
      detail.recipe && `recipe ${detail.recipe}`,
      Number.isFinite(detail.correct) && `${detail.correct} of ${detail.total} images right`,
      detail.seed !== undefined && `seed ${detail.seed}`,
      detail.warmup_converged === false && "warm-up was not stable",
      detail.shortened && "fewer samples than asked for",
      detail.driver && `driver ${detail.driver}`,
      detail.torch && `torch ${detail.torch}`,
      figure.measured &&
        `${figure.reused ? "taken from another trial, " : ""}${nas.moment(figure.measured)}`,
      figure.seconds ? `took ${nas.duration(figure.seconds)}` : "",
    ]
      .filter(Boolean)
      .join(" · ");
  }

  // Why a figure is not to be trusted; empty where it is.
  const doubts = (figure) =>
    [].concat(figure.detail.disturbed || []).filter((item) => typeof item === "string");

  // A training's score after each epoch is its first figure: accuracy, or a language model's loss.
  function training(box, metric, runs) {
    const colours = plot.series();
    const score = metric.label;
    const traces = runs.flatMap((run, i) => {
      const x = run.history.map((step) => step.epoch);
      return [
        {
          type: "scatter",
          mode: "lines",
          x,
          name: runs.length > 1 ? `seed ${run.seed}` : score.toLowerCase(),
          y: run.history.map((step) => step.validation),
          line: { color: colours[i % 4], width: 2 },
        },
        {
          type: "scatter",
          mode: "lines",
          x,
          yaxis: "y2",
          name: "training loss",
          showlegend: i === 0,
          y: run.history.map((step) => step.train_loss),
          line: { color: plot.colour("muted"), width: 1.5, dash: "dot" },
        },
      ];
    });
    return plot.draw(box, traces, {
      xaxis: plot.axis(null, {
        title: { text: "Epoch" },
        ...plot.whole(Math.max(...runs.map((run) => run.history.at(-1).epoch))),
      }),
      yaxis: plot.axis(null, {
        title: { text: metric.title },
        tickformat: metric.unit === "%" ? "~%" : "~g",
      }),
      yaxis2: plot.axis(null, {
        title: { text: "Training loss" },
        overlaying: "y",
        side: "right",
        showgrid: false,
        tickmode: "auto",
        rangemode: "tozero",
        tickformat: "~g",
      }),
      margin: { l: 60, r: 60, t: 30, b: 48 },
    });
  }

  // What the device did in each round, of what the record knows of it.
  const STATES = [
    ["sm_clock_mhz", "SM clock", "MHz"],
    ["memory_clock_mhz", "memory clock", "MHz"],
    ["frequency_mhz", "core clock", "MHz"],
    ["temperature_c", "temperature", "°C"],
    ["power_w", "power", "W"],
  ];
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  function clocks(run) {
    const rounds = run.states || [];
    return STATES.flatMap(([name, label, unit]) => {
      const per = rounds.map((ends) => ends.map((state) => state[name]).filter(Number.isFinite));
      if (!per.some((ends) => ends.length)) return [];
      return [{ label, unit, values: per.map((ends) => (ends.length ? mean(ends) : NaN)) }];
    });
  }

  function level(value, dash, axis) {
    const line = { color: plot.colour("muted"), width: 1, dash };
    return { type: "line", xref: "paper", x0: 0, x1: 1, yref: axis, y0: value, y1: value, line };
  }

  // Samples in the order taken, their distribution beside, and the reference and clocks below.
  function samples(box, figure, run) {
    const rounds = [...new Set(run.round_index)];
    const colours = plot.series();
    const ms = run.samples_us.map((value) => value / 1e3);
    const middle = [];
    const traces = rounds.map((round, i) => {
      const at = ms.map((_, k) => k).filter((k) => run.round_index[k] === round);
      middle[i] = mean(at) + 1;
      return {
        type: "scatter",
        mode: "markers",
        name: `round ${round + 1}`,
        showlegend: false,
        x: at.map((k) => k + 1),
        y: at.map((k) => ms[k]),
        marker: { size: 7, color: colours[i % 4], symbol: plot.SYMBOLS[i % 4] },
        hovertemplate: `%{y:.4~g} ms, round ${round + 1}<extra></extra>`,
      };
    });
    traces.push({
      type: "histogram",
      y: ms,
      xaxis: "x2",
      yaxis: "y",
      nbinsy: 30,
      showlegend: false,
      marker: { color: plot.colour("stairs") },
      hovertemplate: "%{x} samples<extra></extra>",
    });
    const reference = run.reference_us || [];
    const below = [
      ...(reference.length ? [{ label: "reference work", unit: "µs", values: reference }] : []),
      ...clocks(run),
    ];
    below.forEach((line, i) => {
      const best = Math.max(...line.values.filter(Number.isFinite));
      traces.push({
        type: "scatter",
        mode: "lines+markers",
        name: line.label,
        yaxis: "y2",
        x: middle,
        y: rounds.map((round) => (100 * line.values[round]) / best),
        line: { color: colours[(i + 1) % 4], width: 1.5 },
        marker: { size: 6, symbol: plot.SYMBOLS[(i + 1) % 4] },
        customdata: rounds.map((round) => Number(line.values[round]).toPrecision(4)),
        hovertemplate: `${line.label}: %{customdata} ${line.unit}<extra></extra>`,
      });
    });
    const detail = [run.p10_us, run.p90_us].filter(Number.isFinite).map((value) => value / 1e3);
    const split = below.length ? 0.36 : 0;
    return plot.draw(box, traces, {
      xaxis: plot.axis(null, {
        domain: [0, 0.8],
        title: { text: "Sample, in the order taken" },
        tickformat: "d",
        anchor: below.length ? "y2" : "y",
      }),
      xaxis2: plot.axis(null, {
        domain: [0.83, 1],
        title: { text: "Samples" },
        tickformat: "d",
        anchor: "y",
      }),
      yaxis: plot.axis(null, {
        domain: [split, 1],
        title: { text: "Latency (ms)" },
        tickformat: "~g",
      }),
      ...(below.length
        ? {
            yaxis2: plot.axis(null, {
              domain: [0, split - 0.1],
              title: { text: "% of highest" },
              tickformat: "~g",
            }),
          }
        : {}),
      legend: { orientation: "h", x: 0, y: split - 0.09, yanchor: "bottom", font: { size: 12 } },
      shapes: [
        level(figure.value, "solid", "y"),
        ...detail.map((value) => level(value, "dot", "y")),
      ],
      bargap: 0.05,
      margin: { l: 66, r: 16, t: 12, b: 48 },
    });
  }

  // Cards of a trial's figures, and what draws them once they stand on the page.
  function cards(view) {
    const found = [];
    const later = [];
    for (const figure of view.figures) {
      const { detail, metric } = figure;
      const runs = Array.isArray(detail.repeats) ? detail.repeats : [detail];
      const trained = runs.filter((run) => Array.isArray(run.history) && run.history.length);
      const timed = runs.find((run) => Array.isArray(run.samples_us));
      const name = `${view.study}-trial-${view.number}-${metric.name}`;
      // Bits a byte come from the same training, and its curve is that of the loss.
      if (trained.length && metric.name !== "bits_per_byte") {
        const box = plot.figure(`${name}-training`, `Training curve of ${metric.label}`, 340);
        found.push(nas.card(`Training: ${metric.label.toLowerCase()}`, box));
        later.push(() => training(box, metric, trained));
      }
      if (timed) {
        const box = plot.figure(`${name}-samples`, `Samples of ${metric.label}`, 420);
        found.push(
          nas.card(`Measurement: ${metric.label.toLowerCase()}`, box, nas.note(about(timed))),
        );
        later.push(() => samples(box, figure, timed));
      }
    }
    return {
      cards: found,
      draw: async () => {
        for (const one of later) await one();
      },
    };
  }

  function about(run) {
    const calls =
      `One dot is the mean of ${several(run.inner_repeats || 1, "call")}; ` +
      "lines at the median, and at the 10th and 90th percentile.";
    const drift = Number.isFinite(run.drift)
      ? ` Drift from the first to the last round ${(100 * run.drift).toFixed(1)} %.`
      : "";
    const dropped = Object.keys(run.rounds_disturbed || {}).length;
    const taken = run.rounds_taken
      ? ` ${dropped} of ${several(run.rounds_taken, "round")} disturbed.`
      : "";
    const clock = clocks(run).length ? "" : " The device's clocks were not to be read.";
    return calls + drift + taken + clock;
  }

  return { words, doubts, cards };
})();
