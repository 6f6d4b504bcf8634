// Sorting: figures by value, words by the alphabet, empty cells last either way.

function makeSortable(table) {
  table.tHead.rows[0].querySelectorAll("th button").forEach((button, index) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const figures = head.classList.contains("n");
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : figures;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => (figures ? row.cells[index].dataset.value : row.cells[index].textContent) || null;
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        return (figures ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}

function figureTable(title, listed) {
  if (!listed) return [];
  const numeric = listed.columns.map((_, n) => listed.rows.every((row) => typeof row[n] !== "string"));
  const cells = (row) => row.map((value, n) => element("td", { class: numeric[n] ? "n" : null }, figure(value)));
  const head = listed.columns.map((name, n) => element("th", { class: numeric[n] ? "n" : null }, name));
  const body = listed.rows.map((row) => element("tr", {}, ...cells(row)));
  const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  return [element("h3", {}, title), element("div", { class: "scroll" }, table)];
}
