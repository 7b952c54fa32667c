"use strict";
// Which page is shown, what stands above it, and that it follows the record.
(() => {
  const { el, pages } = nas;
  const main = document.getElementById("main");
  const chooser = document.getElementById("study");
  const live = document.getElementById("live");
  const POLL = 700; // ms
  let shownAs = "";
  let version = null;
  let listed = [];
  let turn = 0;

  function setTheme(theme) {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const button = document.getElementById("theme");
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Show in ${dark ? "light" : "dark"} colours`);
    return dark;
  }
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  setTheme(stored());
  document.getElementById("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    try { localStorage.setItem("theme", dark ? "light" : "dark"); } catch { /* a private window keeps nothing */ }
    setTheme(dark ? "light" : "dark");
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { setTheme(stored()); show(); });

  async function head(page, query) {
    const { studies } = await nas.get("studies");
    listed = studies.map((study) => study.name);
    const study = query.get("study") || listed[0] || "";
    chooser.replaceChildren(...listed.map((name) => el("option", { value: name, selected: name === study }, name)));
    chooser.disabled = listed.length < 2;
    document.getElementById("pages").replaceChildren(...Object.entries(pages).filter(([, one]) => !one.hidden).map(([name, one]) =>
      el("a", { href: nas.link(name, one.study && study ? { study } : {}), "aria-current": name === page ? "page" : null }, one.title)));
    return study;
  }
  chooser.addEventListener("change", () => {
    const { page } = nas.place();
    nas.go(pages[page] && pages[page].study && page !== "trial" && page !== "compare" ? page : "front", { study: chooser.value });
  });

  async function show({ fresh = true } = {}) {
    const mine = ++turn;
    const { page: name, query } = nas.place();
    const page = pages[name] || pages.studies;
    main.setAttribute("aria-busy", "true");
    try {
      const study = await head(name, query);
      if (page.study && !query.get("study")) {
        if (!study) throw new Error("There is no study yet; this page fills by itself.");
        nas.keep({ study });
        query.set("study", study);
      }
      if (mine !== turn) return;
      document.title = `${[page.title, query.get("study")].filter(Boolean).join(": ")} - paretonas`;
      await (fresh || !page.refresh ? page.make(main, query) : page.refresh(main, query));
      shownAs = `${name} ${query.get("study")}`;
    } catch (problem) {
      if (mine === turn) main.replaceChildren(nas.error(problem));
      shownAs = "";
    } finally {
      if (mine === turn) main.removeAttribute("aria-busy");
    }
  }
  nas.show = show;

  window.addEventListener("hashchange", () => show().then(() => { window.scrollTo(0, 0); main.focus({ preventScroll: true }); }));

  // The record is asked whether it changed; only then is the page's data read anew. A page that
  // takes long to read is read less often.
  async function follow() {
    let wait = POLL;
    if (!document.hidden) {
      try {
        const found = (await nas.get("version")).version;
        live.textContent = "live";
        live.className = "live on";
        if (version !== null && found !== version) {
          const from = performance.now();
          const scroll = window.scrollY;
          const { page, query } = nas.place();
          await show({ fresh: shownAs !== `${page} ${query.get("study")}` });
          window.scrollTo(0, scroll);
          wait = Math.max(POLL, 4 * (performance.now() - from));
        }
        version = found;
      } catch (problem) {
        live.textContent = "not connected";
        live.className = "live off";
        live.title = problem.message;
        version = "";
      }
    }
    setTimeout(follow, wait);
  }

  if (nas.embedded && !location.hash) {
    history.replaceState(null, "", nas.link("front", { study: nas.embedded.study }));
  }
  show().then(() => {
    if (!nas.embedded) { follow(); return; }
    live.textContent = `report of ${nas.moment(nas.embedded.made)}`;
  });
})();
