"use strict";
// Which page is shown, what stands above it, and that it follows the record.
(() => {
  const { el, pages } = nas;
  const main = document.getElementById("main");
  const chooser = document.getElementById("study");
  const live = document.getElementById("live");
  const themeButton = document.getElementById("theme");
  const darkWish = matchMedia("(prefers-color-scheme: dark)");
  const POLL = 700; // ms between two looks at the record
  // How many times as long as a page took to renew it then rests, and how many ms at least: a
  // search at full speed always has something new, and shall keep its processor.
  const REST = 9;
  const LEAST_REST = 1500;
  let shown = { as: "", text: "" };
  let version = null;
  let study = ""; // that was looked at last
  let turn = 0;

  // Colours as the reader chose them, else as the system has them.
  function stored() {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null; // a private window keeps nothing
    }
  }
  const isDark = () => (stored() ? stored() === "dark" : darkWish.matches);
  function paint() {
    if (stored()) document.documentElement.dataset.theme = stored();
    const other = isDark() ? "Light" : "Dark";
    themeButton.textContent = other;
    themeButton.setAttribute("aria-label", `Show in ${other.toLowerCase()} colours`);
  }
  themeButton.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", next);
    } catch {
      /* then it lasts as long as the page */
    }
    document.documentElement.dataset.theme = next;
    paint();
    show();
  });
  darkWish.addEventListener("change", () => {
    paint();
    show();
  });
  paint();

  async function head(name, query) {
    const { studies } = await nas.get("studies");
    const listed = studies.map((study) => study.name);
    nas.listed = listed;
    if (!listed.includes(study)) study = listed[0] || "";
    study = query.get("study") || study;
    if ([...chooser.options].map((o) => o.value).join("\n") !== listed.join("\n")) {
      chooser.replaceChildren(...listed.map((item) => el("option", { value: item }, item)));
      chooser.disabled = listed.length < 2;
    }
    chooser.value = study;
    const links = Object.entries(pages).filter(([, page]) => !page.hidden);
    document.getElementById("pages").replaceChildren(
      ...links.map(([key, page]) => {
        const href = nas.link(key, page.study && study ? { study } : {});
        return el("a", { href, "aria-current": key === name ? "page" : null }, page.title);
      }),
    );
  }
  chooser.addEventListener("change", () => {
    const { page } = nas.place();
    const stays = pages[page]?.study && page !== "trial" && page !== "compare";
    nas.go(stays ? page : "front", { study: chooser.value });
  });

  // Make the page anew but leave the reader where they were: focus, and how far tables were moved.
  async function holding(build) {
    const active = main.contains(document.activeElement) ? document.activeElement : null;
    const name = (node) => `${node.tagName} ${node.getAttribute("aria-label") || node.textContent}`;
    const held = active && name(active);
    const moved = new Map(
      [...main.querySelectorAll(".scroll")].map((node) => [
        node.getAttribute("aria-label"),
        [node.scrollLeft, node.scrollTop],
      ]),
    );
    const at = window.scrollY;
    await build();
    for (const node of main.querySelectorAll(".scroll")) {
      [node.scrollLeft, node.scrollTop] = moved.get(node.getAttribute("aria-label")) || [0, 0];
    }
    window.scrollTo(0, at);
    if (held && !main.contains(document.activeElement)) {
      const again = [...main.querySelectorAll("a, button, input, select, summary, [tabindex]")];
      again.find((node) => name(node) === held)?.focus({ preventScroll: true });
    }
  }

  async function show({ fresh = true } = {}) {
    const mine = ++turn;
    const { page: name, query } = nas.place();
    const page = pages[name] || pages.studies;
    main.setAttribute("aria-busy", "true");
    // Where the address says all there is to know, the page's data are asked for at once.
    const early = !page.study || query.get("study") ? page.load(query) : null;
    early?.catch(() => {}); // it is awaited below
    try {
      await head(name, query);
      if (page.study && !query.get("study")) {
        if (!study) throw new Error("There is no study yet; this page fills by itself.");
        nas.keep({ study });
        query.set("study", study);
      }
      const titles = [page.title, page.study && query.get("study")].filter(Boolean);
      document.title = `${titles.join(": ")} - paretonas`;
      const as = `${name} ${query.get("study")}`;
      const view = await (early ?? page.load(query));
      if (mine !== turn) return;
      const same = !fresh && shown.as === as;
      if (page.renew && same) await page.renew(main, query, view);
      else {
        const text = page.renew ? "" : JSON.stringify(view);
        if (same && text === shown.text) return;
        if (same) await holding(() => page.make(main, query, view));
        else await page.make(main, query, view);
        shown = { as, text };
      }
    } catch (problem) {
      if (mine === turn) main.replaceChildren(nas.error(problem));
      shown = { as: "", text: "" };
    } finally {
      if (mine === turn) main.removeAttribute("aria-busy");
    }
  }
  nas.show = show;
  nas.renew = () => show({ fresh: false });

  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address says which page this is
    main.focus();
  });

  window.addEventListener("hashchange", async () => {
    await show();
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  });

  // The record is asked whether it changed; only then is the page's data read anew.
  async function follow() {
    let wait = POLL;
    if (!document.hidden) {
      try {
        const found = (await nas.get("version")).version;
        live.textContent = "live";
        live.className = "live on";
        live.title = "This page follows the record.";
        if (version !== null && found !== version) {
          const from = performance.now();
          await nas.renew();
          wait = Math.max(LEAST_REST, REST * (performance.now() - from));
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
    if (nas.embedded) live.textContent = `report of ${nas.moment(nas.embedded.made)}`;
    else follow();
  });
})();
