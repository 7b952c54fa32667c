"use strict";
// A network as a drawing: one box a layer, places as the server laid them out.
nas.graph = (() => {
  const { svg } = nas;
  const STEP = { x: 206, y: 52 };
  const BOX = { width: 190, height: 34 };
  const PAD = 12;
  const LONGEST = 26; // characters of an operator that fit a box

  const centre = ([column, layer]) => [
    PAD + column * STEP.x + BOX.width / 2,
    PAD + layer * STEP.y + BOX.height / 2,
  ];

  // An edge runs straight through the layers that it skips and bends between them.
  function edge(corners) {
    const points = corners.map(centre);
    const half = BOX.height / 2;
    let path = `M ${points[0][0]} ${points[0][1] + half}`;
    for (let i = 1; i < points.length; i += 1) {
      const [x0, y0] = [points[i - 1][0], points[i - 1][1] + half];
      const [x1, y1] = [points[i][0], points[i][1] - half];
      if (i > 1) path += ` L ${x0} ${y0}`;
      path += ` C ${x0} ${y0 + 9}, ${x1} ${y1 - 9}, ${x1} ${y1}`;
    }
    return svg("path", { d: path, class: "edge" });
  }

  function kind(layer) {
    if (layer.gain !== null) return "weighted";
    return layer.inputs.length > 1 ? "join" : "light";
  }

  function box(layer, place, picked) {
    const [x, y] = centre(place);
    const op = svg("text", { x, y: y - 1, "text-anchor": "middle" });
    op.textContent = layer.op.length > LONGEST ? `${layer.op.slice(0, LONGEST - 1)}…` : layer.op;
    const size = svg("text", { x, y: y + 12, "text-anchor": "middle", class: "size" });
    size.textContent = nas.shape(layer.shape) + (layer.variant ? ` · ${layer.variant}` : "");
    const title = svg("title");
    title.textContent = `${layer.number}: ${layer.op}${layer.scope ? ` (${layer.scope})` : ""}`;
    const { width, height } = BOX;
    return svg(
      "g",
      {
        class: `node ${kind(layer)}${layer.variant ? " varied" : ""}`,
        "data-node": layer.number,
        onclick: () => picked(layer.number),
      },
      title,
      svg("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: 6 }),
      op,
      size,
    );
  }

  // `picked` is called with the number of a layer that is clicked.
  return (view, picked) => {
    const { nodes, edges, width, height } = view.drawing;
    const wide = width * STEP.x - (STEP.x - BOX.width) + 2 * PAD;
    const high = height * STEP.y - (STEP.y - BOX.height) + 2 * PAD;
    return svg(
      "svg",
      {
        width: wide,
        height: high,
        viewBox: `0 0 ${wide} ${high}`,
        class: "graph",
        role: "img",
        "aria-label": "Graph of the network; the table of layers gives the same",
      },
      edges.map(edge),
      nodes.map((place, number) => box(view.layers[number], place, picked)),
    );
  };
})();
