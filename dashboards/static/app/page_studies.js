"use strict";
// The studies of the workspace.
(() => {
  const { el } = nas;

  const total = (row) => Object.values(row.states).reduce((a, b) => a + b, 0);
  function stateOf(row) {
    const until = row.driver && new Date(row.driver.expires);
    if (until && until > new Date()) return "running";
    return row.archived ? "archived" : "at rest";
  }

  const columns = [
    {
      title: "Study",
      value: (r) => r.name,
      node: (r) => el("a", { href: nas.link("front", { study: r.name }) }, r.name),
    },
    {
      title: "State",
      value: stateOf,
      node: (r) => el("span", { class: stateOf(r) === "running" ? "chip on" : "chip" }, stateOf(r)),
    },
    {
      title: "Complete",
      note: "of those asked for",
      number: true,
      value: (r) => r.states.complete || 0,
      text: (r) => `${nas.count(r.states.complete || 0)} of ${nas.count(r.trials)}`,
    },
    { title: "Trials", number: true, value: total, text: (r) => nas.count(total(r)) },
    { title: "Dropped", number: true, value: (r) => r.states.dropped || 0 },
    { title: "Failed", number: true, value: (r) => r.states.failed || 0 },
    { title: "Objectives", wraps: true, value: (r) => r.objectives.map((m) => m.label).join(", ") },
    { title: "Space", value: (r) => r.space },
    { title: "Data", value: (r) => r.data },
    { title: "Device", wraps: true, value: (r) => r.device },
    { title: "Last activity", value: (r) => r.active, text: (r) => nas.moment(r.active) },
  ];

  nas.pages.studies = {
    title: "Studies",
    load: () => nas.get("studies"),
    make(main, query, { studies }) {
      const table = () => nas.table(columns, studies, { name: "studies", label: "Studies" });
      main.replaceChildren(
        el("h1", {}, "Studies"),
        studies.length
          ? nas.card("", table())
          : nas.card(
              "No study yet",
              nas.note(
                "The record is empty. A study begun with nas search appears here by itself.",
              ),
            ),
      );
    },
  };
})();
