"use strict";
// Sorting: a header's button orders its table by the cells' data-v, numbers as numbers, cells without a value last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const first = head.dataset.first || "ascending";
    const order = head.getAttribute("aria-sort") === first ? (first === "ascending" ? "descending" : "ascending") : first;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1, value = (row) => row.cells[column].dataset.v ?? "";
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    };
    body.append(...[...body.rows].sort(compare));
  });
}
// Tokens: pointing at one, or reaching it by keyboard, fills the inspector. Texts are set as text, never as HTML.
const data = document.getElementById("tokens"), inspector = document.querySelector(".inspector");
if (data && inspector) {
  const demonstrations = JSON.parse(data.textContent);
  const make = (name, text) => Object.assign(document.createElement(name), { textContent: text });
  const percent = (p) => (p >= 0.001 ? (100 * p).toFixed(1) : (100 * p).toPrecision(1)) + " %";
  const names = { student: "student", target: "target Q", teacher: "teacher", reference: "reference" };
  const show = (element) => {
    const token = demonstrations[element.dataset.d].stages[element.dataset.s][element.dataset.t];
    for (const other of document.querySelectorAll(".token.on")) other.classList.remove("on");
    element.classList.add("on");
    const line = make("p", "");
    line.append(make("code", element.textContent), ` observed: p ${percent(token.p)}, trust γ ${token.gamma.toFixed(3)}, `
      + `the target gives it ${percent(token.q)}`);
    const lists = Object.assign(document.createElement("div"), { className: "lists" });
    for (const [key, title] of Object.entries(names)) {
      if (!token[key]) continue;
      const list = document.createElement("div");
      list.append(make("h4", title));
      for (const [text, share] of token[key]) {
        const row = document.createElement("span");
        row.append(make("code", JSON.stringify(text).slice(1, -1)), make("span", percent(share)));
        list.append(row);
      }
      lists.append(list);
    }
    inspector.replaceChildren(line, lists);
  };
  for (const event of ["pointerover", "focusin", "click"]) {
    document.addEventListener(event, (found) => found.target.classList?.contains("token") && show(found.target));
  }
}
