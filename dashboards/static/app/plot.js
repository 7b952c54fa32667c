"use strict";
// Plotly as all pages use it: our colours and type, nothing that leaves the machine.
nas.plot = (() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const scale = () => Array.from({ length: 6 }, (_, i) => [i / 5, colour(`scale-${i}`)]);
  // Told apart by lightness as well as hue; the first is the accent.
  const series = () => [colour("accent"), colour("ring"), colour("second"), colour("third")];

  const config = (name) => ({
    displaylogo: false,
    responsive: true,
    showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
    modeBarButtonsToAdd: [{
      name: "Download as SVG",
      icon: Plotly.Icons.disk,
      click: (div) => Plotly.downloadImage(div, { format: "svg", filename: name }),
    }],
    toImageButtonOptions: { format: "png", scale: 2, filename: name },
  });

  // Study text in Plotly: its few tags and entities are taken literally.
  const plain = (text, limit = 60) => {
    const cut = text.length > limit ? `${text.slice(0, limit - 1)}\u2026` : text;
    return cut.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  };

  function axis(metric, more = {}) {
    const small = { size: 12, color: colour("muted") };
    const { title = { text: metric ? axisTitle(metric) : "" }, ...rest } = more;
    return {
      title: { font: { size: 13.5 }, standoff: 8, ...title },
      tickfont: small, gridcolor: colour("grid"), linecolor: colour("muted"), zeroline: false,
      showline: true, ticks: "outside", ticklen: 4, tickcolor: colour("muted"), automargin: true,
      tickformat: metric && metric.unit === "%" ? "~%" : "~s", ...rest,
    };
  }
  const axisTitle = (metric) => `${plain(metric.title)}<br><i>${plain(metric.wish)}</i>`;

  // Logarithmic beyond a decade; a count of trials never is.
  function kind(columns) {
    let low = Infinity;
    let high = -Infinity;
    for (const column of columns) {
      for (const value of column) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    const log = low > 0 && high > 10 * low;
    return { type: log ? "log" : "linear", tickformat: log || high >= 10000 ? "~s" : "~g", ...(log ? { dtick: high < 60 * low ? "D2" : 1 } : {}) };
  }

  // Room for the values and for the spreads that matter; those of dominated points may run out.
  function range(values, type) {
    const ends = values.filter((v) => Number.isFinite(v) && (type !== "log" || v > 0)).map((v) => (type === "log" ? Math.log10(v) : v));
    if (!ends.length) return {};
    let [low, high] = [Infinity, -Infinity];
    for (const end of ends) { low = Math.min(low, end); high = Math.max(high, end); }
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return { range: [low - room, high + room] };
  }

  function layout(more = {}) {
    const ink = colour("ink");
    const surface = colour("surface");
    return {
      template: {}, paper_bgcolor: surface, plot_bgcolor: surface, hovermode: "closest",
      font: { family: colour("font"), size: 13, color: ink },
      margin: { l: 64, r: 16, t: 36, b: 56 },
      hoverlabel: { align: "left", bgcolor: surface, bordercolor: colour("muted"),
        font: { family: colour("font"), size: 13, color: ink } },
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("dim"), activecolor: colour("ink") },
      ...more,
    };
  }

  async function draw(div, traces, more, name) {
    try {
      await Plotly.react(div, traces, layout(more), config(name));
    } catch (problem) {
      div.replaceChildren(nas.el("p", { class: "note" }, `This figure cannot be drawn here: ${problem.message || problem}`));
    }
  }

  const figure = (label, height) =>
    nas.el("div", { class: "figure", role: "group", "aria-label": label, style: `height: ${height}px` });

  return { colour, scale, series, plain, axis, axisTitle, kind, range, draw, figure };
})();
