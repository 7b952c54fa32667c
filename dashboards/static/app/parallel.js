"use strict";
// Parallel coordinates on a canvas: better is up on every axis. Dragging along an axis bounds its
// metric; a click on a line of the front opens the candidate.
nas.parallel = (holder, { metrics, columnOf, dim, front, outside, bounds, brushed, opened }) => {
  const { el, svg } = nas;
  const colour = nas.plot.colour;
  const width = Math.max(holder.clientWidth, metrics.length * 96);
  const height = 430;
  const pad = { top: 18, bottom: 64, side: 56 };
  const x = (i) => pad.side + (metrics.length < 2 ? 0.5 : i / (metrics.length - 1)) * (width - 2 * pad.side);
  const all = [...dim, ...front, ...outside];
  const scales = metrics.map((metric) => {
    const column = columnOf(metric.name);
    let low = Infinity;
    let high = -Infinity;
    for (const row of all) {
      if (Number.isFinite(column[row])) { low = Math.min(low, column[row]); high = Math.max(high, column[row]); }
    }
    const log = low > 0 && high > 10 * low;
    const to = log ? Math.log10 : (v) => v;
    const [from, span] = [to(low), to(high) - to(low) || 1];
    const up = metric.direction === "max";
    return {
      low, high, log, column,
      y: (value) => {
        const share = (to(value) - from) / span;
        return pad.top + (up ? 1 - share : share) * (height - pad.top - pad.bottom);
      },
      value: (y) => {
        const share = (y - pad.top) / (height - pad.top - pad.bottom);
        const place = from + (up ? 1 - share : share) * span;
        return log ? 10 ** place : place;
      },
    };
  });

  const ratio = window.devicePixelRatio || 1;
  const canvas = el("canvas", { width: width * ratio, height: height * ratio, style: `width:${width}px;height:${height}px` });
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  function lines(rows, stroke, thick, alpha) {
    pen.strokeStyle = stroke;
    pen.lineWidth = thick;
    pen.globalAlpha = alpha;
    for (const row of rows) {
      pen.beginPath();
      let open = false;
      scales.forEach((scale, i) => {
        const value = scale.column[row];
        if (!Number.isFinite(value)) { open = false; return; }
        if (open) pen.lineTo(x(i), scale.y(value)); else pen.moveTo(x(i), scale.y(value));
        open = true;
      });
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }
  lines(outside, colour("dim"), 0.7, 0.15);
  lines(dim, colour("dim"), 0.8, dim.length > 300 ? 0.35 : 0.7);
  lines(front, colour("accent"), 1.8, 0.9);

  const layer = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Parallel coordinates of ${metrics.map((m) => m.label).join(", ")}; the sliders set the same bounds` });
  metrics.forEach((metric, i) => {
    const scale = scales[i];
    const [top, foot] = [pad.top, height - pad.bottom];
    layer.append(svg("line", { x1: x(i), x2: x(i), y1: top, y2: foot, stroke: colour("muted"), "stroke-width": 1 }));
    for (const [value, y] of [[scale.value(top), top], [scale.value((top + foot) / 2), (top + foot) / 2], [scale.value(foot), foot]]) {
      const label = svg("text", { x: x(i) - 8, y: y + 4, "text-anchor": "end", class: "tick" });
      label.textContent = nas.number(metric, value);
      layer.append(label);
    }
    const anchor = i === 0 ? "start" : i === metrics.length - 1 ? "end" : "middle";
    const at = i === 0 ? x(i) - pad.side + 4 : i === metrics.length - 1 ? x(i) + pad.side - 4 : x(i);
    const name = svg("text", { x: at, y: height - 34, "text-anchor": anchor, class: "axis-name" });
    name.textContent = metric.title;
    const wish = svg("text", { x: at, y: height - 16, "text-anchor": anchor, class: "tick" });
    wish.textContent = metric.wish;
    const bound = bounds.get(metric.name);
    const box = svg("rect", { x: x(i) - 9, width: 18, y: top, height: 0, class: "brush", fill: colour("ring") });
    if (bound) place(box, scale.y(bound[0] ?? scale.low), scale.y(bound[1] ?? scale.high));
    const grip = svg("rect", { x: x(i) - 14, width: 28, y: top - 6, height: foot - top + 12, class: "grip", "data-axis": metric.name });
    let from = null;
    const inside = (event) => Math.min(foot, Math.max(top, event.clientY - layer.getBoundingClientRect().top));
    grip.addEventListener("pointerdown", (event) => { from = inside(event); grip.setPointerCapture(event.pointerId); event.preventDefault(); });
    grip.addEventListener("pointermove", (event) => { if (from !== null) place(box, from, inside(event)); });
    grip.addEventListener("pointerup", (event) => {
      const to = inside(event);
      const moved = Math.abs(to - from) > 3;
      const values = [scale.value(from), scale.value(to)].sort((a, b) => a - b);
      from = null;
      // An end of the axis binds nothing.
      const slack = (scale.high - scale.low) * 1e-9;
      brushed(metric.name, moved ? [values[0] <= scale.low + slack ? null : values[0], values[1] >= scale.high - slack ? null : values[1]] : null);
    });
    layer.append(name, wish, box, grip);
  });
  function place(box, a, b) {
    box.setAttribute("y", Math.min(a, b));
    box.setAttribute("height", Math.max(2, Math.abs(a - b)));
  }
  layer.addEventListener("click", (event) => {
    if (event.target.classList.contains("grip")) return;
    const area = layer.getBoundingClientRect();
    const [px, py] = [event.clientX - area.left, event.clientY - area.top];
    let best = [8, null];
    for (const row of front) {
      for (let i = 0; i + 1 < metrics.length; i += 1) {
        if (px < x(i) || px > x(i + 1)) continue;
        const share = (px - x(i)) / (x(i + 1) - x(i));
        const y = scales[i].y(scales[i].column[row]) * (1 - share) + scales[i + 1].y(scales[i + 1].column[row]) * share;
        if (Math.abs(y - py) < best[0]) best = [Math.abs(y - py), row];
      }
    }
    if (best[1] !== null) opened(best[1]);
  });
  holder.replaceChildren(el("div", { class: "parallel", style: `width:${width}px;height:${height}px` }, canvas, layer));
};
