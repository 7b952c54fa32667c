"use strict";
// Figures as files: Plotly's by Plotly, our own drawings with their colours written into them.
nas.picture = (() => {
  const LOOK = [
    "fill",
    "fill-opacity",
    "stroke",
    "stroke-width",
    "stroke-dasharray",
    "opacity",
    "font-family",
    "font-size",
    "font-weight",
    "paint-order",
  ];

  function standalone(drawing) {
    const copy = drawing.cloneNode(true);
    const from = drawing.querySelectorAll("*");
    copy.querySelectorAll("*").forEach((node, at) => {
      const look = getComputedStyle(from[at]);
      node.setAttribute(
        "style",
        LOOK.map((name) => `${name}:${look.getPropertyValue(name)}`).join(";"),
      );
      node.removeAttribute("class");
    });
    const { width, height } = drawing.viewBox.baseVal;
    const page = nas.svg("rect", { width, height, fill: nas.plot.colour("surface") });
    copy.prepend(page);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    return { text: new XMLSerializer().serializeToString(copy), width, height };
  }

  async function saveDrawing(drawing, format, name) {
    const { text, width, height } = standalone(drawing);
    if (format === "svg") {
      nas.save(`${name}.svg`, "image/svg+xml", text);
      return;
    }
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    await image.decode();
    const canvas = nas.el("canvas", { width: 2 * width, height: 2 * height });
    canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
    const content = await new Promise((done) => canvas.toBlob(done, "image/png"));
    nas.save(`${name}.png`, "image/png", content);
  }

  // Buttons below a figure; `source` gives a Plotly figure's element or an SVG drawing.
  function buttons(name, source) {
    const button = (format) =>
      nas.el(
        "button",
        {
          type: "button",
          class: "plain",
          "aria-label": `Save the figure ${name} as ${format.toUpperCase()}`,
          onclick: async () => {
            const drawn = source();
            if (drawn instanceof SVGElement) await saveDrawing(drawn, format, name);
            else await Plotly.downloadImage(drawn, { format, filename: name, scale: 2 });
          },
        },
        format.toUpperCase(),
      );
    return nas.el(
      "p",
      { class: "after save" },
      nas.el("span", {}, "Save as"),
      button("png"),
      button("svg"),
    );
  }

  return { buttons };
})();
