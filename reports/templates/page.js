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
  for (const header of all("table.sortable thead th, table[data-sort] thead th")) {
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

  // Copying and saving: what is shown of a table, in its order, or the data behind a figure.
  const said = (cell) => (cell.querySelector(".cell")?.getAttribute("aria-label") ?? cell.innerText ?? cell.textContent).replace(/\s+/g, " ").trim();
  const grid = (table) => {
    const lines = [], below = [];
    for (const row of table.rows) {
      if (row.hidden || row.classList.contains("topic")) continue;
      const line = [];
      for (const cell of row.cells) {
        while (below[line.length]?.rows) { below[line.length].rows -= 1; line.push(below[line.length].text); }
        const text = said(cell);
        for (let k = 0; k < cell.colSpan; k += 1) {
          if (cell.rowSpan > 1) below[line.length] = { rows: cell.rowSpan - 1, text };
          line.push(k ? "" : text);
        }
      }
      lines.push(line);
    }
    return lines;
  };
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch {
      // Without leave for the clipboard a selection can still be copied.
      const area = make("textarea", { value: text, className: "unseen", readOnly: true });
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  const takeOut = (name, tabs, commas) => {
    const told = make("output", { className: "muted" });
    const copy = make("button", { type: "button", className: "button" }, "Copy");
    copy.addEventListener("click", async () => {
      const text = tabs();
      told.textContent = await copied(text) ? `copied ${text.trimEnd().split("\n").length} lines` : "the browser did not let it be copied";
      copy.focus();
    });
    const save = make("a", { className: "button", download: `${name}.csv`, href: "#" }, "Save as CSV");
    save.addEventListener("click", () => {
      URL.revokeObjectURL(save.href);
      save.href = URL.createObjectURL(new Blob([commas()], { type: "text/csv" }));
    });
    return [copy, save, told];
  };
  for (const table of all("table[data-name]")) {
    const lines = (between, each) => `${grid(table).map((line) => line.map(each).join(between)).join("\n")}\n`;
    const parts = takeOut(table.dataset.name, () => lines("\t", (text) => text), () => lines(",", quoted));
    const tools = table.id && document.querySelector(`.tools[data-for="${table.id}"]`);
    if (tools) tools.append(...parts);
    else table.closest(".scroll").after(make("div", { className: "tools after" }, ...parts));
  }
  for (const holder of all(".csv")) {
    const area = holder.querySelector("textarea");
    holder.append(make("p", { className: "tools" }, ...takeOut(area.dataset.name, () => area.value, () => area.value)));
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
    const mutants = contract.querySelector("[data-mutants]");
    content.replaceChildren(
      make("h3", {}, `${contract.querySelector(".id").textContent} · ${column.textContent.trim()}`),
      contract.querySelector(".statement").cloneNode(true),
      ...(mutants ? [make("p", { className: "note" }, `Shown to reject: ${mutants.dataset.mutants}`)] : []),
      make("p", {}, cell.getAttribute("aria-label")),
    );
    const detail = cell.hash && document.getElementById(cell.hash.slice(1));
    if (detail) content.append(...[...detail.children].map((child) => child.cloneNode(true)));
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // By keyboard the matrix is one stop, and the arrows go from cell to cell.
  const matrix = document.getElementById("matrix");
  const reach = (cell) => {
    for (const other of all(".cell[tabindex='0']", matrix)) other.tabIndex = -1;
    cell.tabIndex = 0;
  };
  if (matrix) {
    for (const cell of all(".cell", matrix)) cell.tabIndex = -1;
    const first = matrix.querySelector(".cell");
    if (first) reach(first);
    matrix.addEventListener("focusin", (event) => { if (event.target.matches(".cell")) reach(event.target); });
    document.querySelector(".tools[data-for=matrix]").addEventListener("input", () => {
      const shown = all("tr:not([hidden]) .cell", matrix);
      if (shown.length && !shown.some((cell) => cell.tabIndex === 0)) reach(shown[0]);
    });
    matrix.addEventListener("keydown", (event) => {
      const cell = event.target.closest(".cell");
      const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!cell || !by) return;
      event.preventDefault();
      const rows = all("tbody tr:not(.topic):not([hidden])", matrix);
      let line = rows.indexOf(cell.closest("tr")), column = cell.closest("td").cellIndex;
      for (;;) {
        line += by[0];
        column += by[1];
        const place = rows[line]?.cells[column];
        if (!place) return;
        const next = place.querySelector(".cell");
        if (next) { next.focus(); return; }
      }
    });
  }
  // A link to a contract that the filter hides shows it.
  addEventListener("hashchange", () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row?.hidden) return;
    for (const control of all(".tools[data-for=matrix] input, .tools[data-for=matrix] select")) {
      control.value = "";
      control.dispatchEvent(new Event("input"));
    }
    row.scrollIntoView();
  });

  // Values at the mark that is nearest to the pointer, where browsers would show them late, and only right on the mark.
  const tip = make("div", { className: "tip", hidden: true });
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  for (const plot of all("figure .plot")) {
    const marks = all("use > title", plot).map((title) => {
      const mark = [title.parentNode, title.textContent];
      title.remove();
      return mark;
    });
    const hide = () => { tip.hidden = true; };
    const show = (event) => {
      let best = 14, text = "";
      for (const [mark, value] of marks) {
        const box = mark.getBoundingClientRect();
        const distance = Math.hypot(box.x + box.width / 2 - event.clientX, box.y + box.height / 2 - event.clientY);
        if (distance < best) { best = distance; text = value; }
      }
      tip.hidden = !text;
      if (!text) return;
      tip.textContent = text;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left)}px`;
      tip.style.top = `${event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18}px`;
    };
    plot.addEventListener("pointermove", show);
    plot.addEventListener("pointerdown", show);
    plot.addEventListener("pointerleave", hide);
    addEventListener("scroll", hide, { passive: true });
  }

  // On paper nothing can be unfolded: figures and tables are open while the page is printed.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details.fold:not([open])");
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });

  document.documentElement.dataset.ready = "true";
})();
