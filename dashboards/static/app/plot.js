"use strict";
// Plotly as all pages use it: our colours and type, nothing that leaves the machine.
nas.plot = (() => {
  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const scale = () => Array.from({ length: 6 }, (_, i) => [i / 5, colour(`scale-${i}`)]);
  // Told apart by lightness as well as hue; the first is the accent.
  const series = () => [colour("accent"), colour("ring"), colour("second"), colour("third")];
  const SYMBOLS = ["circle", "diamond", "square", "triangle-up"];

  // Plotly is the last script, so that pages ask for their data while the browser still reads it.
  const loaded = new Promise((done) => {
    if (document.readyState === "complete") done();
    else window.addEventListener("load", done, { once: true });
  });

  const config = {
    displaylogo: false,
    responsive: true,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["sendChartToCloud", "toImage", "select2d", "lasso2d", "autoScale2d"],
  };

  // Study text in Plotly: its few tags and entities are taken literally.
  const plain = (text, limit = 60) => {
    const cut = text.length > limit ? `${text.slice(0, limit - 1)}…` : text;
    return cut.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  };

  function axis(metric, more = {}) {
    const { title = { text: metric ? axisTitle(metric) : "" }, ...rest } = more;
    return {
      title: { font: { size: 13.5 }, standoff: 8, ...title },
      tickfont: { size: 12, color: colour("muted") },
      gridcolor: colour("grid"),
      linecolor: colour("muted"),
      zeroline: false,
      showline: true,
      ticks: "outside",
      ticklen: 4,
      tickcolor: colour("muted"),
      automargin: true,
      tickformat: metric && metric.unit === "%" ? "~%" : "~s",
      ...rest,
    };
  }
  const axisTitle = (metric) => `${plain(metric.title)}<br><i>${plain(metric.wish)}</i>`;

  // Logarithmic beyond a decade; shares never are.
  function kind(metric, columns) {
    if (metric.unit === "%") return {};
    if (metric.ordinal)
      return { type: "linear", ...whole(Math.max(...columns.map((c) => c.at(-1) ?? 0))) };
    let low = Infinity;
    let high = -Infinity;
    for (const column of columns) {
      for (const value of column) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    const log = low > 0 && high > 10 * low;
    return {
      type: log ? "log" : "linear",
      tickformat: log || high >= 10000 ? "~s" : "~g",
      ...(log ? { dtick: high < 60 * low ? "D2" : 1 } : {}),
    };
  }

  // Ticks of a count: no fractions where there are few.
  const whole = (most) => (most < 12 ? { dtick: 1, tickformat: "d" } : { tickformat: "~s" });

  // Room for the values and for the spreads that matter; those of dominated points may run out.
  function range(columns, type) {
    let low = Infinity;
    let high = -Infinity;
    for (const column of columns) {
      for (const value of column) {
        if (!Number.isFinite(value) || (type === "log" && value <= 0)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (low > high) return {};
    if (type === "log") [low, high] = [Math.log10(low), Math.log10(high)];
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return { range: [low - room, high + room] };
  }

  function layout(more = {}) {
    const [ink, surface, family] = ["ink", "surface", "font"].map(colour);
    return {
      template: {},
      paper_bgcolor: surface,
      plot_bgcolor: surface,
      hovermode: "closest",
      font: { family, size: 13, color: ink },
      margin: { l: 64, r: 16, t: 36, b: 56 },
      hoverlabel: {
        align: "left",
        bgcolor: surface,
        bordercolor: colour("muted"),
        font: { family, size: 13, color: ink },
      },
      legend: {
        orientation: "h",
        x: 0,
        xanchor: "left",
        y: 1.02,
        yanchor: "bottom",
        font: { size: 12 },
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("dim"), activecolor: ink },
      ...more,
    };
  }

  // A figure with its buttons. One of the same name that is on the page is taken over, so that a
  // page which is made anew keeps how its figures were zoomed.
  function figure(name, label, height) {
    const there = document.querySelector(`.figure-box[data-name="${CSS.escape(name)}"]`);
    const box = there?.querySelector(".figure") ? there : make(name);
    const [holder] = box.children;
    holder.setAttribute("aria-label", label);
    holder.style.height = `${height}px`;
    return box;
  }
  function make(name) {
    const holder = nas.el("div", { class: "figure", role: "group" });
    return nas.el(
      "div",
      { class: "figure-box", "data-name": name },
      holder,
      nas.picture.buttons(name, () => holder.querySelector("svg.parallel") || holder),
    );
  }

  // `opened` is called with the customdata of a point that is clicked.
  async function draw(box, traces, more, opened = null) {
    const [holder] = box.children;
    await loaded;
    try {
      await Plotly.react(holder, traces, layout({ uirevision: box.dataset.name, ...more }), config);
    } catch (problem) {
      const reason = problem.message || problem;
      box.replaceChildren(nas.note(`This figure cannot be drawn here: ${reason}`));
      return;
    }
    holder.removeAllListeners("plotly_click");
    if (!opened) return;
    holder.on("plotly_click", (event) => {
      const data = event.points[0]?.customdata;
      if (data !== undefined) opened(data);
    });
  }

  return {
    SYMBOLS,
    colour,
    scale,
    series,
    plain,
    axis,
    axisTitle,
    kind,
    whole,
    range,
    draw,
    figure,
  };
})();
