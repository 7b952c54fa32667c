"use strict";
// What takes long is asked of the server and done there in a queue: exports, layer measurements.
nas.requests = (() => {
  const { el } = nas;
  const POLL = 1000; // ms

  const ago = (request) => nas.duration(Math.max(0, Date.now() / 1000 - request.since));
  function words(request) {
    const before = request.before
      ? `behind ${request.before} other${request.before > 1 ? "s" : ""}`
      : "next";
    const what = {
      waiting: `waits, ${before}`,
      running: `at work for ${ago(request)}`,
      done: "done",
      failed: request.message,
    };
    return what[request.state];
  }

  // A list of the requests of one kind about a trial, followed while one is open; `done` is called
  // when one has ended well.
  function list(view, kind, done) {
    const holder = el("div", { class: "requests", role: "status" });
    const seen = new Map();
    let timer = null;
    async function look() {
      timer = null;
      if (!holder.isConnected && seen.size) return;
      let found;
      try {
        found = (await nas.get("requests", { study: view.study, number: view.number })).requests;
      } catch {
        return; // the head of the page says that the server is gone
      }
      const own = found.filter((request) => request.kind === kind);
      const open = own.filter((request) => ["waiting", "running"].includes(request.state));
      const failed = own[0]?.state === "failed" ? [own[0]] : [];
      holder.replaceChildren(
        ...[...open, ...failed].map((request) =>
          el(
            "p",
            { class: request.state === "failed" ? "reason" : "working" },
            request.to.length ? `${request.form}, ${request.to.join(", ")}: ` : "",
            words(request),
          ),
        ),
      );
      const ended = own.some(
        (r) => r.state === "done" && ["waiting", "running"].includes(seen.get(r.id)),
      );
      for (const request of own) seen.set(request.id, request.state);
      if (ended) done();
      else if (open.length && !timer) timer = setTimeout(look, POLL);
    }
    async function ask(more = {}) {
      const wish = { kind, study: view.study, trial: view.number, ...more };
      try {
        const made = await nas.post("requests", wish);
        seen.set(made.id, made.state);
        await look();
      } catch (problem) {
        holder.replaceChildren(el("p", { class: "reason", role: "alert" }, problem.message));
      }
    }
    if (!nas.embedded) look();
    return { holder, ask };
  }

  return { list };
})();
