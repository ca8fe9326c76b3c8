"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // A cell's data-v is its value where its text is not: a number without its unit, a name without the notes below it.
  const valueOf = (row, index) => row.children[index].dataset.v ?? row.children[index].textContent.trim();

  // Sorting: a click on a column's button.
  for (const header of all("table.sortable thead th")) {
    const button = make("button", { type: "button", title: "Sort by this column" }, ...header.childNodes);
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const table = header.closest("table");
      const index = [...header.parentNode.children].indexOf(header);
      const down = header.getAttribute("aria-sort") === "ascending";
      for (const other of header.parentNode.children) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const keyed = [...body.rows].map((row) => [valueOf(row, index), row]);
      const numbers = keyed.every(([text]) => text === "" || !Number.isNaN(Number(text)));
      keyed.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = numbers ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
        return down ? -order : order;
      });
      body.append(...keyed.map(([, row]) => row));
    });
  }

  // Filtering: a search field, and a menu for each column that is marked as a facet.
  for (const tools of all(".tools[data-for]")) {
    const table = document.getElementById(tools.dataset.for);
    const search = tools.querySelector("input");
    const menus = [];
    all("thead th[data-facet]", table).forEach((header) => {
      const index = [...header.parentNode.children].indexOf(header);
      const values = [...new Set([...table.tBodies[0].rows].map((row) => valueOf(row, index)))];
      if (values.length < 2) return;
      const menu = make("select", { ariaLabel: `Filter by ${header.dataset.facet}` }, make("option", { value: "" }, `${header.dataset.facet}: all`));
      menu.append(...values.map((value) => make("option", { value }, value)));
      menus.push([menu, index]);
      search.after(menu);
    });
    const tally = tools.querySelector("output");
    const state = tools.querySelector("select[data-state]");
    const apply = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0, total = 0;
      for (const body of table.tBodies) {
        let here = 0;
        for (const row of body.rows) {
          if (row.classList.contains("topic")) continue;
          const text = (row.dataset.text ?? row.textContent).toLowerCase();
          const fits = words.every((word) => text.includes(word))
            && menus.every(([menu, index]) => !menu.value || valueOf(row, index) === menu.value)
            && (!state || !state.value || row.dataset.state.split(" ").includes(state.value));
          row.hidden = !fits;
          here += fits;
          total += 1;
        }
        shown += here;
        for (const row of all("tr.topic", body)) row.hidden = !here;
      }
      tally.textContent = shown === total ? `${total} rows` : `${shown} of ${total} rows`;
    };
    for (const control of [search, state, ...menus.map(([menu]) => menu)]) control?.addEventListener("input", apply);
    apply();
  }

  // A cell of the matrix opens to its cases, or to its counts where all passed.
  const dialog = document.getElementById("cell-dialog");
  for (const cell of all(".cell")) cell.title = cell.getAttribute("aria-label");
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    event.preventDefault();
    const row = cell.closest("tr");
    const column = cell.closest("table").tHead.rows[0].children[cell.closest("td").cellIndex];
    const content = dialog.querySelector("[data-content]");
    const contract = row.querySelector("th");
    content.replaceChildren(
      make("h3", {}, `${contract.querySelector(".id").textContent} · ${column.textContent.trim()}`),
      contract.querySelector(".statement").cloneNode(true),
      make("p", {}, cell.getAttribute("aria-label")),
    );
    const detail = cell.hash && document.getElementById(cell.hash.slice(1));
    if (detail) content.append(...[...detail.children].map((child) => child.cloneNode(true)));
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // The data behind a figure: to the clipboard, or to a file.
  for (const holder of all(".csv")) {
    const area = holder.querySelector("textarea");
    const save = make("a", { className: "button", download: `${area.dataset.name}.csv` }, "Save as CSV");
    save.href = "#";
    save.addEventListener("click", () => { save.href = URL.createObjectURL(new Blob([area.value], { type: "text/csv" })); });
    const copy = make("button", { type: "button", className: "button" }, "Copy");
    copy.addEventListener("click", () => { area.select(); navigator.clipboard?.writeText(area.value); });
    holder.append(make("p", { className: "needs-script" }, copy, " ", save));
  }

  document.documentElement.dataset.ready = "true";
})();
