"use strict";
// A trial as a model to take along: what there is, what its audit found, and a button for more.
nas.exports = (() => {
  const { el } = nas;
  const FORMATS = [
    ["python", "Python source"],
    ["pt2", "torch.export (.pt2)"],
    ["onnx", "ONNX"],
  ];
  const FORMS = [
    ["plain", "plain"],
    ["packed", "packed"],
  ];
  // Both stay as the reader set them when a page is made anew.
  const wanted = new Set(["python"]);
  let form = "plain";

  const digits = (value) => (value === null ? "" : String(Number(value.toPrecision(4))));
  const verdict = (check) => {
    if (!check.passed) return "FAILED";
    return check.tolerance === null && check.found !== null ? "shown" : "passed";
  };

  function checks(view, audit, name) {
    const columns = [
      { title: "Check", value: (c) => c.name, node: (c) => el("b", {}, c.name) },
      {
        title: "Stated",
        number: true,
        value: (c) => c.stated ?? NaN,
        text: (c) => digits(c.stated),
      },
      { title: "Found", number: true, value: (c) => c.found ?? NaN, text: (c) => digits(c.found) },
      { title: "Gap", number: true, value: (c) => c.gap ?? NaN, text: (c) => digits(c.gap) },
      {
        title: "Tolerance",
        number: true,
        value: (c) => c.tolerance ?? NaN,
        text: (c) => digits(c.tolerance),
      },
      { title: "Unit", value: (c) => c.unit },
      {
        title: "Verdict",
        value: verdict,
        node: (c) => el("span", { class: `chip ${c.passed ? "on" : "failed"}` }, verdict(c)),
      },
      { title: "Remark", wide: true, value: (c) => c.note },
    ];
    return nas.table(columns, audit.checks, { name, label: "Checks of the audit" });
  }

  function one(view, { audit }, at) {
    const title = `${audit.form}: ${audit.formats.join(", ")}`;
    const name = `${view.study}-trial-${view.number}-audit-${view.audits.length - at}`;
    const address = nas.address("export", { study: view.study, number: view.number, audit: at });
    const failed = audit.checks.filter((check) => !check.passed).length;
    const result = audit.passed
      ? "reloaded in a clean process, every check passed"
      : `${failed} of ${audit.checks.length} checks failed`;
    return el(
      "div",
      { class: "export" },
      el(
        "p",
        { class: "actions" },
        el(
          "span",
          { class: `chip ${audit.passed ? "on" : "failed"}` },
          audit.passed ? "audit passed" : "audit failed",
        ),
        el("b", {}, title),
        el(
          "span",
          { class: "evidence" },
          `${result}, on ${audit.device || "cpu"}, ${nas.duration(audit.seconds)}`,
        ),
        nas.embedded
          ? ""
          : el("a", { class: "button", href: `/api/${address}`, download: "" }, "Download .zip"),
      ),
      nas.fold(name, "What the audit found", checks(view, audit, name)),
    );
  }

  function card(view) {
    const list = nas.requests.list(view, "export", nas.renew);
    const boxes = FORMATS.map(([value, label]) => {
      const change = (event) => (event.target.checked ? wanted.add(value) : wanted.delete(value));
      const box = el("input", {
        type: "checkbox",
        value,
        checked: wanted.has(value),
        disabled: value === "python",
        onchange: change,
      });
      return el("label", { class: "choice" }, box, label);
    });
    const forms = nas.select("Form", FORMS, form, (value) => {
      form = value;
    });
    const ask = () => {
      const to = FORMATS.map(([value]) => value).filter((value) => wanted.has(value));
      return list.ask({ form, to });
    };
    const button = el("button", { type: "button", onclick: ask }, "Export and audit");
    const wish = view.trained
      ? el("div", { class: "controls" }, forms, ...boxes, button)
      : nas.note("This candidate has no trained weights: there is no model to export.");
    const about = nas.note(
      "A plain model is ordinary PyTorch; a packed one has this package's kernels and runs as it " +
        "was measured. The export is reloaded in a clean process and held against the record. " +
        "The audit takes the device for itself, so a running study waits while it measures.",
    );
    return nas.card(
      "Export",
      ...(nas.embedded ? [] : [wish, list.holder, view.trained ? about : ""]),
      ...(view.audits.length
        ? view.audits.map((kept, at) => one(view, kept, at))
        : nas.embedded
          ? [nas.note("Nothing was exported.")]
          : []),
    );
  }

  return { card };
})();
