"use strict";
// What all pages share. Text of a study enters the page through textContent and attributes alone.
window.nas = (() => {
  const holder = document.getElementById("embedded");
  const embedded = holder ? JSON.parse(holder.textContent) : null;
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
    const words = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
    const text = words.flatMap(([name, value]) => [].concat(value).map(
      (item) => `${name}=${encodeURIComponent(item)}`)).join("&");
    return text ? `${view}?${text}` : view;
  }

  // Ask for a view; in a report all there is lies in the page itself.
  async function get(view, query = {}) {
    const path = address(view, query);
    if (embedded) {
      if (path in embedded.views) return embedded.views[path];
      throw new Error(view === "trial"
        ? `This report holds the pages of ${embedded.trials} candidates at most; this is not one of them.`
        : "This report does not hold that page; the dashboard has it.");
    }
    let answer;
    try {
      answer = await fetch(`/api/${path}`);
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

  // Figures as people read them: three digits, shares in percent, all digits of large counts.
  function number(metric, value) {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    if (metric && metric.unit === "%") return `${(100 * value).toFixed(1)} %`;
    const size = Math.abs(value);
    if (size >= 1000 || (Number.isInteger(value) && size < 1e15)) {
      return Math.round(value).toLocaleString("en-US");
    }
    return size !== 0 && size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(3)));
  }
  function shown(metric, value) {
    const text = number(metric, value);
    return text && metric.unit && metric.unit !== "%" ? `${text} ${metric.unit}` : text;
  }
  function ends(metric, low, high) {
    if (!Number.isFinite(low) && !Number.isFinite(high)) return "";
    const word = (end) => (Number.isFinite(end) ? number(metric, end) : "?");
    return `${word(low).replace(" %", "")} to ${word(high)}`;
  }
  function duration(seconds) {
    const whole = Math.round(seconds);
    if (seconds < 1) return `${Number(seconds.toPrecision(2))} s`;
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  }
  function moment(text) {
    if (!text) return "";
    const time = new Date(text);
    return Number.isNaN(time.getTime()) ? text : time.toLocaleString(undefined, {
      year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
    });
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
  function go(page, query) { location.hash = link(page, query); }
  // Change settings of this page in its address, without a new step of the browser's history.
  function keep(changes) {
    const { page, query } = place();
    for (const [name, value] of Object.entries(changes)) {
      query.delete(name);
      for (const item of [].concat(value ?? [])) query.append(name, item);
    }
    history.replaceState(null, "", `#/${page}${query.size ? `?${query}` : ""}`);
  }

  function say(text) { document.getElementById("said").textContent = text; }

  function select(label, options, value, change) {
    return el("label", { class: "field" }, el("span", {}, label),
      el("select", { onchange: (event) => change(event.target.value), "aria-label": label },
        options.map(([key, text]) => el("option", { value: key, selected: key === value }, text))));
  }
  function card(title, ...children) {
    const head = title ? [el("h2", {}, title)] : [];
    return el("section", { class: "card" }, ...head, ...children);
  }
  function facts(pairs) {
    return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== "" && value !== null
      && value !== undefined).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }
  function save(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  function error(problem) {
    return el("section", { class: "card error", role: "alert" }, el("h2", {}, "This cannot be shown"),
      el("p", {}, problem.message));
  }

  return { embedded, pages, el, svg, get, unpack, number, shown, ends, duration, moment, place, link,
    go, keep, say, select, card, facts, save, error };
})();
