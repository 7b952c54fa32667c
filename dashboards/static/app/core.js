"use strict";
// What all pages share. Text of a study enters the page through textContent and attributes alone.
window.nas = (() => {
  const holder = document.getElementById("embedded");
  const embedded = holder ? JSON.parse(holder.textContent) : null;
  const token = document.querySelector('meta[name="token"]')?.content ?? "";
  const pages = {};

  function el(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "class") node.className = value;
      else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  function svg(tag, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.flat());
    return node;
  }

  function address(view, query) {
    const words = Object.entries(query)
      .filter(([, value]) => value !== undefined && value !== "")
      .flatMap(([name, value]) =>
        [].concat(value).map((item) => `${name}=${encodeURIComponent(item)}`),
      );
    return words.length ? `${view}?${words.join("&")}` : view;
  }

  // Ask for a view; in a report all there is lies in the page itself.
  async function get(view, query = {}) {
    const path = address(view, query);
    if (!embedded) return answered(fetch(`/api/${path}`));
    if (path in embedded.views) return embedded.views[path];
    throw new Error(
      view === "trial"
        ? `This candidate is not among the ${embedded.trials} whose pages the report holds.`
        : "This report does not hold that page; the dashboard has it.",
    );
  }

  // Ask for something to be done.
  function post(view, content) {
    const headers = { "Content-Type": "application/json", "X-Paretonas-Token": token };
    const body = JSON.stringify(content);
    return answered(fetch(`/api/${view}`, { method: "POST", headers, body }));
  }

  async function answered(request) {
    let answer;
    try {
      answer = await request;
    } catch {
      throw new Error("The dashboard's server does not answer; was it stopped?");
    }
    const content = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(content.error || `The server refused (${answer.status}).`);
    return content;
  }

  const kinds = { f8: Float64Array, f4: Float32Array, i4: Int32Array };
  function unpack({ type, data }) {
    const text = atob(data);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    return new kinds[type](bytes.buffer);
  }

  // The address after # says which page and how it is set: a link to it shows the same.
  function place() {
    const [page, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    return { page: page || "studies", query: new URLSearchParams(query) };
  }
  function link(page, query = {}) {
    const words = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      for (const item of [].concat(value ?? [])) words.append(name, item);
    }
    return `#/${page}${words.size ? `?${words}` : ""}`;
  }
  function go(page, query) {
    location.hash = link(page, query);
  }
  // Change settings of this page in its address, without a new step of the browser's history.
  function keep(changes) {
    const { page, query } = place();
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      for (const item of [].concat(value ?? [])) query.append(name, item);
    }
    history.replaceState(null, "", `#/${page}${query.size ? `?${query}` : ""}`);
  }

  function say(text) {
    document.getElementById("said").textContent = text;
  }

  function select(label, options, value, change) {
    return el(
      "label",
      { class: "field" },
      el("span", {}, label),
      el(
        "select",
        { onchange: (event) => change(event.target.value), "aria-label": label },
        options.map(([key, text]) => el("option", { value: key, selected: key === value }, text)),
      ),
    );
  }

  function card(title, ...children) {
    const head = title ? [el("h2", {}, title)] : [];
    return el("section", { class: "card" }, ...head, ...children);
  }
  const note = (...children) => el("p", { class: "note" }, ...children);

  // Folded content that stays as the reader left it when the page is made anew.
  const opened = new Set();
  function fold(key, summary, ...children) {
    const node = el("details", {}, el("summary", {}, summary), ...children);
    node.open = opened.has(key);
    node.addEventListener("toggle", () => (node.open ? opened.add(key) : opened.delete(key)));
    return node;
  }

  function save(name, type, content) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  function error(problem) {
    return el(
      "section",
      { class: "card error", role: "alert" },
      el("h2", {}, "This cannot be shown"),
      el("p", {}, problem.message),
    );
  }

  return {
    embedded,
    pages,
    el,
    svg,
    get,
    post,
    address,
    unpack,
    place,
    link,
    go,
    keep,
    say,
    select,
    card,
    note,
    fold,
    save,
    error,
  };
})();
