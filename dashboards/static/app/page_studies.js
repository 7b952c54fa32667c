"use strict";
nas.pages.studies = {
  title: "Studies",
  async make(main) {
    const { el, link } = nas;
    const { studies } = await nas.get("studies");
    const now = new Date();
    const total = (row) => Object.values(row.states).reduce((a, b) => a + b, 0);
    const runs = (row) => row.driver && new Date(`${row.driver.expires.replace(" ", "T")}Z`) > now;
    const columns = [
      { title: "Study", value: (r) => r.name, node: (r) => el("a", { href: link("front", { study: r.name }) }, r.name) },
      { title: "State", value: (r) => (runs(r) ? "running" : r.archived ? "archived" : "at rest"),
        node: (r) => el("span", { class: runs(r) ? "chip on" : "chip" }, runs(r) ? "running" : r.archived ? "archived" : "at rest") },
      { title: "Complete", note: "of those asked for", number: true, value: (r) => r.states.complete || 0,
        text: (r) => `${(r.states.complete || 0).toLocaleString("en-US")} of ${r.trials.toLocaleString("en-US")}` },
      { title: "Trials", number: true, value: total, text: (r) => total(r).toLocaleString("en-US") },
      { title: "Dropped", number: true, value: (r) => r.states.dropped || 0 },
      { title: "Failed", number: true, value: (r) => r.states.failed || 0 },
      { title: "Objectives", value: (r) => r.objectives.map((m) => m.label).join(", ") },
      { title: "Space", value: (r) => r.space },
      { title: "Data", value: (r) => r.data },
      { title: "Device", value: (r) => r.device },
      { title: "Last activity", value: (r) => r.active, text: (r) => nas.moment(r.active) },
    ];
    main.replaceChildren(el("h1", {}, "Studies"),
      studies.length ? nas.card("", nas.table(columns, studies, { name: "studies", label: "Studies" }))
        : nas.card("No study yet", el("p", { class: "note" }, "The record is empty. A study begun with nas search appears here by itself.")));
  },
};
