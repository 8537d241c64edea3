"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const LOOKED = one("#policy").dataset.looked;
  for (const element of all(".needs-script")) element.hidden = false;

  // --- the rule of a device ---

  const rows = (group) => all("tr[data-box]", group);
  const stateOf = (row) => one("select", row)?.value ?? "blank";

  function ruleOf(group) {
    const looked = one(".looked", group).checked;
    const blank = [], left = [], not = [];
    for (const row of rows(group)) {
      const line = `${row.dataset.box},  # ${row.dataset.told}`;
      const state = stateOf(row);
      if (state === "blank" || (looked && state === "found")) blank.push(`  ${line}`);
      else if (state === "found") left.push(`  # ${line}`);
      else if (!looked && row.dataset.way === "detector") not.push(`  ${line}`);
    }
    const keep = not.length ? ["keep = [", ...not, "]"] : ["keep = []"];
    const told = looked ? "looked = true" : LOOKED;
    const lines = [group.dataset.head, "blank = [", ...blank, ...left, "]"];
    return [...lines, ...keep, told, ""].join("\n");
  }

  function draw(group) {
    for (const row of all("tr[data-place]", group)) {
      const rects = all(`rect[data-place="${row.dataset.place}"]`, group);
      const here = shown && groupOf(shown) === group ? all(".stage rect") : [];
      const same = here.filter((rect) => rect.dataset.place === row.dataset.place);
      for (const rect of [...rects, ...same]) {
        rect.classList.toggle("not", stateOf(row) === "not");
      }
    }
    const own = all("tr.own", group).map((row) => JSON.parse(row.dataset.box));
    const places = all("svg", group);
    if (shown && groupOf(shown) === group) places.push(...all(".stage svg"));
    for (const svg of places) {
      for (const rect of all("rect.own", svg)) rect.remove();
      for (const box of own) svg.append(rectOf(box, "own"));
    }
  }

  function change(group, { use = true } = {}) {
    one("pre", group).textContent = ruleOf(group);
    if (use) one(".use", group).checked = true;
    draw(group);
    collect();
  }

  function collect() {
    const policy = one("#policy");
    const used = all(".group.named").filter((group) => one(".use", group).checked);
    const text = [policy.dataset.start, ...used.map(ruleOf)].join("\n");
    one("pre", policy).textContent = used.length ? text : "";
    one(".n-used", policy).textContent = String(used.length);
    policy.classList.toggle("quiet", used.length === 0);
  }

  function rectOf([top, left, bottom, right], kind) {
    const rect = document.createElementNS(SVG, "rect");
    rect.setAttribute("class", kind);
    rect.setAttribute("x", left);
    rect.setAttribute("y", top);
    rect.setAttribute("width", right - left);
    rect.setAttribute("height", bottom - top);
    return rect;
  }

  function addBox(group, box) {
    const row = document.createElement("tr");
    row.className = "own";
    row.dataset.box = `[${box.join(", ")}]`;
    row.dataset.told = "added";
    for (const text of ["+", row.dataset.box, "added", "", ""]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    const remove = Object.assign(document.createElement("button"), {
      type: "button", textContent: "Remove",
    });
    remove.addEventListener("click", () => { row.remove(); change(group); });
    row.append(document.createElement("td"));
    row.lastChild.append(remove);
    one("tbody", group).append(row);
    change(group);
  }

  async function copy(button, pre) {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(pre);
      button.textContent = "Selected: copy it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  for (const button of all("button.copy")) {
    const pre = one("pre", button.closest(".group, #policy"));
    button.addEventListener("click", () => copy(button, pre));
  }
  for (const group of all(".group.named")) {
    one("pre", group).textContent = ruleOf(group); // a browser may restore choices
    for (const input of all(".rule select, .looked", group)) {
      input.addEventListener("change", () => change(group));
    }
    one(".use", group).addEventListener("change", collect);
  }

  // --- filters ---

  const filters = one(".filters");
  function filter() {
    const word = one("#word").value.trim().toLowerCase();
    const least = Number(one("#least").value);
    const kinds = { blanked: one("#blanked").checked, empty: one("#empty").checked };
    for (const figure of all("figure")) {
      const low = Number(figure.dataset.doubt) < least;
      figure.classList.toggle("quiet", low || !kinds[figure.dataset.kind]);
    }
    for (const group of all(".group")) {
      const lacks = !one("h2", group).textContent.toLowerCase().includes(word);
      const bare = least > 0 && !one("figure:not(.quiet)", group);
      group.classList.toggle("quiet", lacks || bare);
    }
    const n = all(".group:not(.quiet)").length;
    one("#n-shown").textContent = `${n} of ${all(".group").length} devices`;
  }
  filters.addEventListener("input", filter);
  filter();

  // --- the viewer ---

  const viewer = one("#viewer"), stage = one(".stage");
  let shown = null, start = null, drawn = null;
  const groupOf = (figure) => figure.closest(".group");
  const canEdit = () => groupOf(shown).classList.contains("named");

  function show(figure) {
    shown = figure;
    const parts = all(".open span", figure).map((part) => part.cloneNode(true));
    stage.replaceChildren(...parts);
    one(".told", viewer).textContent = one("figcaption", figure).textContent;
    one(".edit", viewer).hidden = !canEdit();
    brighten();
    draw(groupOf(figure));
    if (!viewer.open) viewer.showModal();
  }

  function step(by) {
    const seen = all("figure").filter((figure) => figure.offsetParent !== null);
    const next = seen[seen.indexOf(shown) + by];
    if (next) show(next);
  }

  function at(svg, event) {
    const point = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = point.matrixTransform(svg.getScreenCTM().inverse());
    const { width, height } = svg.viewBox.baseVal;
    const within = (value, most) => Math.min(most, Math.max(0, Math.round(value)));
    return [within(y, height), within(x, width)];
  }

  const boxOf = ([top, left], [bottom, right]) => [
    Math.min(top, bottom), Math.min(left, right),
    Math.max(top, bottom), Math.max(left, right),
  ];

  stage.addEventListener("pointerdown", (event) => {
    const svg = event.target.closest("svg");
    if (!svg || !canEdit() || event.button !== 0) return;
    start = { svg, point: at(svg, event), target: event.target };
    svg.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    const svg = start?.svg ?? event.target.closest("svg");
    if (!svg) return;
    const [row, column] = at(svg, event);
    one(".cursor", viewer).textContent = `row ${row}, column ${column}`;
    if (!start) return;
    drawn?.remove();
    drawn = rectOf(boxOf(start.point, [row, column]), "own");
    svg.append(drawn);
  });
  stage.addEventListener("pointerup", (event) => {
    if (!start) return;
    const { svg, point, target } = start;
    const box = boxOf(point, at(svg, event));
    drawn?.remove();
    start = drawn = null;
    if (box[2] - box[0] >= 3 && box[3] - box[1] >= 3) addBox(groupOf(shown), box);
    else if (target.dataset.place) cycle(groupOf(shown), target.dataset.place);
  });
  stage.addEventListener("pointercancel", () => {
    drawn?.remove();
    start = drawn = null;
  });

  function cycle(group, place) {
    const select = one(`tr[data-place="${place}"] select`, group);
    if (!select) return;
    select.value = select.value === "not" ? "found" : "not";
    change(group);
  }

  function brighten() {
    const value = one("#bright").value;
    for (const image of all("image", stage)) image.style.filter = `brightness(${value})`;
  }
  one("#bright").addEventListener("input", brighten);
  for (const button of all("button.open")) {
    button.addEventListener("click", () => show(button.closest("figure")));
  }
  one(".previous", viewer).addEventListener("click", () => step(-1));
  one(".next", viewer).addEventListener("click", () => step(1));
  one(".close", viewer).addEventListener("click", () => viewer.close());
  viewer.addEventListener("close", () => { shown = null; });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("input")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  collect();
})();
