"use strict";
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const SVG = "http://www.w3.org/2000/svg";

  /** An element; text stays text, so nothing in the data can become markup. */
  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "rect", "text", "polyline"].includes(tag);
    const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  /* Theme --------------------------------------------------------------------------------- */

  const root = document.documentElement;
  const charts = all("[data-chart]");
  const PAPER = 940; // of a chart in print, in pixels
  const PAGE = 450; // what a page of it is high, less heading and caption

  function setTheme(theme) {
    root.dataset.theme = theme;
    const button = one("#theme");
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-pressed", theme === "dark");
    for (const chart of charts) if (chart.data) Plotly.relayout(chart, { template: template() });
  }

  /** What plotly takes for granted in all charts: the page's colours and type. */
  function template() {
    const of = getComputedStyle(root);
    const colour = (name) => of.getPropertyValue(`--${name}`).trim();
    const axis = {
      gridcolor: colour("line"), linecolor: colour("faint"), zerolinecolor: colour("line"),
      tickcolor: colour("faint"), automargin: true,
    };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: colour("ink") },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
        legend: { bgcolor: "rgba(0,0,0,0)" },
        hoverlabel: { bgcolor: colour("sheet"), bordercolor: colour("faint"), font: { color: colour("ink") } },
        updatemenudefaults: { bgcolor: colour("sheet"), bordercolor: colour("line") },
        margin: { l: 56, r: 16, t: 24, b: 48 },
      },
    };
  }

  /** Charts are drawn one after the other, so that the page answers meanwhile. */
  function drawCharts() {
    const chart = charts.find((waiting) => !waiting.data);
    if (!chart) return;
    drawChart(chart);
    setTimeout(drawCharts);
  }

  function drawChart(chart) {
    const { data, layout: wide } = DATA.charts[chart.dataset.chart];
    const layout = chart.clientWidth < NARROW ? stacked(wide) : wide;
    chart.style.height = `${layout.height ?? 400}px`;
    Plotly.newPlot(chart, data, { ...layout, template: template() }, {
      responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "",
    });
    // The buttons are for a mouse; who goes by keys would pass a dozen at each chart.
    const leaveOut = () => all(".modebar-btn", chart).forEach((button) => { button.tabIndex = -1; });
    leaveOut();
    chart.on("plotly_afterplot", leaveOut);
  }

  const NARROW = 560; // pixels, below which two panels have no room side by side

  /** The layout of a chart with its two panels one above the other, where they were side by side. */
  function stacked(layout) {
    const { xaxis, xaxis2, yaxis, yaxis2 } = layout;
    if (!xaxis2?.domain || xaxis2.domain[0] < xaxis.domain[1]) return layout;
    const [upper, lower] = [[0.57, 1], [0, 0.43]];
    const titles = (layout.annotations ?? []).filter(({ xref }) => xref === "paper");
    const others = (layout.annotations ?? []).filter(({ xref }) => xref !== "paper");
    const moved = titles.map((title, i) => ({ ...title, x: 0.5, y: (i ? lower : upper)[1] }));
    const { r = 20, ...margin } = layout.margin ?? {};
    return {
      ...layout, height: 1.6 * (layout.height ?? 400), annotations: [...moved, ...others],
      margin: { ...margin, r: Math.min(r, 110) },
      xaxis: { ...xaxis, domain: [0, 1] }, xaxis2: { ...xaxis2, domain: [0, 1], anchor: "y2" },
      yaxis: { ...yaxis, domain: upper },
      yaxis2: { ...yaxis2, domain: lower, anchor: "x2", showticklabels: true },
    };
  }

  function prepareTheme() {
    one("#theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
    let before = null;
    const tall = new Map();
    const resize = (chart, width, height) => {
      chart.style.height = `${height ?? 400}px`;
      Plotly.relayout(chart, { width, height: height ?? null, autosize: width === null });
    };
    addEventListener("beforeprint", () => {
      before = root.dataset.theme;
      one(".how").open = true;
      charts.filter((chart) => !chart.data).forEach(drawChart);
      for (const chart of charts) {
        tall.set(chart, chart.layout.height);
        resize(chart, PAPER, Math.min(PAGE, chart.layout.height ?? PAGE));
      }
      setTheme("light");
    });
    addEventListener("afterprint", () => {
      for (const chart of charts) resize(chart, null, tall.get(chart));
      setTheme(before);
    });
    setTheme(root.dataset.theme);
  }

  /* Contents, tips, copies ------------------------------------------------------------------ */

  function prepareContents() {
    const links = new Map(all(".toc a").map((link) => [link.hash.slice(1), link]));
    const seen = new Set();
    const watch = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) seen[isIntersecting ? "add" : "delete"](target.id);
      const current = [...links.keys()].find((id) => seen.has(id));
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(current)?.setAttribute("aria-current", "true");
    }, { rootMargin: "-110px 0px -55% 0px" });
    for (const id of links.keys()) watch.observe(document.getElementById(id));
  }

  function prepareTips() {
    const tip = one("#tip");
    const show = ({ target }) => {
      const owner = target.closest?.("[data-tip]");
      tip.hidden = !owner;
      if (!owner) return;
      tip.textContent = owner.dataset.tip;
      const at = owner.getBoundingClientRect();
      const left = Math.min(at.left, innerWidth - tip.offsetWidth - 12);
      const below = at.bottom + tip.offsetHeight + 12 < innerHeight;
      tip.style.left = `${Math.max(12, left)}px`;
      tip.style.top = `${below ? at.bottom + 6 : at.top - tip.offsetHeight - 6}px`;
    };
    const hide = () => { tip.hidden = true; };
    for (const event of ["mouseover", "focusin"]) document.addEventListener(event, show);
    document.addEventListener("focusout", hide);
    document.addEventListener("scroll", hide, { capture: true, passive: true });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  }

  function prepareCopies() {
    for (const button of all("[data-copy]")) {
      button.addEventListener("click", () => {
        const range = document.createRange();
        range.selectNodeContents(document.getElementById(button.dataset.copy));
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        // A page opened from a file may not use the newer interface in every browser.
        const copied = document.execCommand("copy");
        button.textContent = copied ? "Copied" : "Selected";
        one("#said").textContent = button.textContent;
        setTimeout(() => { button.textContent = "Copy"; }, 1600);
      });
    }
  }

  /* Table ----------------------------------------------------------------------------------- */

  function prepareTable() {
    const table = one("#table");
    const form = one("#table-controls");
    const rows = all("tbody tr", table);

    function show(view) {
      for (const head of all("thead [data-metric]", table)) {
        const { metric, main } = head.dataset;
        const isMain = main !== undefined && (view === "main" || metric === "cost");
        head.hidden = !(view === "all" || view === metric || isMain);
        const column = columnOf(table, head);
        for (const row of rows) row.cells[column].hidden = head.hidden;
      }
      for (const group of all("thead [data-group]", table)) {
        const columns = all(`thead th[data-metric="${group.dataset.group}"]:not([hidden])`, table);
        group.hidden = columns.length === 0;
        group.colSpan = Math.max(1, columns.length);
      }
    }
    function filter() {
      const { data, k, text } = form.elements;
      const wanted = text.value.trim().toLowerCase();
      for (const row of rows) {
        // What K does not change stands beside every K.
        const fits = [
          !data.value || row.dataset.data === data.value,
          !k.value || !row.dataset.k || row.dataset.k === k.value,
          !wanted || row.textContent.toLowerCase().includes(wanted),
        ];
        row.hidden = !fits.every(Boolean);
      }
      const shown = rows.filter((row) => !row.hidden).length;
      one("#table-count").textContent = `${shown} of ${rows.length} rows`;
    }
    form.addEventListener("input", (event) => (event.target.name === "view" ? show(event.target.value) : filter()));
    form.addEventListener("submit", (event) => event.preventDefault());
    all("thead button", table).forEach((button) => button.addEventListener("click", () => sort(table, rows, button)));
    table.classList.add("grouped");
    show(form.elements.view.value);
    filter();
  }

  /** Sorts by a column: figures from above first, names and costs from below; missing ones last. */
  function sort(table, rows, button) {
    const head = button.closest("th");
    const numeric = button.dataset.sort === "number";
    const falling = numeric && Boolean(head.dataset.metric) && !["image_ECE", "cost"].includes(head.dataset.metric);
    const before = head.getAttribute("aria-sort");
    const rising = before === "none" ? !falling : before === "descending";
    for (const other of all("thead [aria-sort]", table)) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const column = columnOf(table, head);
    const value = (row) => row.cells[column].dataset.v;
    const compare = (a, b) => (numeric ? a - b : a.localeCompare(b));
    const sorted = [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return rising ? compare(x, y) : compare(y, x);
    });
    table.classList.remove("grouped");
    table.tBodies[0].append(...sorted);
  }

  /** Position of a heading's column: the first line's lone headings stand before the second line. */
  function columnOf(table, head) {
    const [first, second] = table.tHead.rows;
    const lone = all("th[rowspan]", first);
    return head.parentNode === first ? lone.indexOf(head) : lone.length + [...second.cells].indexOf(head);
  }

  /* Pictures ---------------------------------------------------------------------------------- */

  const jpeg = (text) => `data:image/jpeg;base64,${text}`;

  /** A picture, a method's heat over it, and the outlines of lesion and prediction over both. */
  function stack(image, column, alt) {
    const [map, called] = column === null ? [null, null] : [image.maps[column], image.called[column]];
    const { height, width, picture, outline } = image;
    const made = make("span", { class: "stack", style: `aspect-ratio: ${width} / ${height}` });
    made.append(make("img", { src: jpeg(DATA.gallery.pictures[picture]), alt }));
    if (map === null) made.classList.add("plain");
    else {
      const canvas = make("canvas", { "aria-hidden": "true" });
      made.append(canvas);
      paint(canvas, map);
    }
    // Truth over prediction: solid over dashed leaves both to be seen.
    for (const [line, kind] of [[called, "called-line"], [outline, "truth-line"]]) {
      if (line === null) continue;
      const path = make("path", { d: DATA.gallery.outlines[line], "vector-effect": "non-scaling-stroke", class: kind });
      made.append(make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" }, path));
    }
    return made;
  }

  /** Colours a map: its grey values are looked up in the one scale; what is cold is see-through. */
  async function paint(canvas, map) {
    const source = new Image();
    source.src = jpeg(DATA.gallery.maps[map]);
    await source.decode();
    canvas.width = source.naturalWidth;
    canvas.height = source.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) colour(pixels.data, i, pixels.data[i]);
    context.putImageData(pixels, 0, 0);
  }

  function colour(data, at, value) {
    [data[at], data[at + 1], data[at + 2], data[at + 3]] = DATA.heat[value];
  }

  function paintBar() {
    const context = one("#bar").getContext("2d");
    const pixels = context.createImageData(256, 1);
    for (let value = 0; value < 256; value += 1) {
      [pixels.data[4 * value], pixels.data[4 * value + 1], pixels.data[4 * value + 2]] = DATA.heat[value];
      pixels.data[4 * value + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
  }

  const truth = (image) => (image.label === 1 ? "abnormal" : "normal");

  /** What a method's score says of an image, against the truth; nothing where none may be said. */
  function verdict(image, group, column) {
    const score = image.scores[column];
    if (score === null || !group.models[column].judged) return "";
    if ((score >= 0.5) === (image.label === 1)) return "right";
    return image.label === 1 ? "missed" : "false alarm";
  }

  /** A method's score of an image, and whether it is right, in words and by a sign. */
  function said(image, group, column) {
    const score = image.scores[column];
    if (score === null) return make("span", { class: "nothing" }, "not scored");
    const judged = verdict(image, group, column);
    const sign = { "": "", right: " ✓", missed: " ✗ missed", "false alarm": " ✗ false alarm" }[judged];
    const kind = judged === "right" ? "right" : "wrong";
    const without = image.maps[column] === null ? make("small", {}, " no heat map") : null;
    return make("span", { class: "said" }, score.toFixed(2), make("span", { class: kind }, sign), without);
  }

  function describe(image, group, column) {
    const score = image.scores[column];
    const says = score === null ? "not scored" : `score ${score.toFixed(2)}`;
    const words = [title(image, group), truth(image), group.models[column].label, says, verdict(image, group, column)];
    return words.filter(Boolean).join(", ");
  }

  function title(image, group) {
    return image.volume === null ? image.name : `${group.volumes[image.volume]}, slice ${image.slice}`;
  }

  function named({ model, label }) {
    return make("span", {}, make("span", { class: "dot", style: `--of: ${DATA.colours[model] ?? "gray"}` }), label);
  }

  function groupName(group) {
    const source = group.trained_on === group.data ? "" : `, trained on ${group.trained_on}`;
    return `${group.data}${source}, ${group.k === null ? "without K" : `K = ${group.k}`}`;
  }

  const options = (pairs) => pairs.map(([value, text]) => make("option", { value }, text));

  /* Gallery --------------------------------------------------------------------------------- */

  const STEP = 24;
  const WIDE = 9; // methods side by side; more are too small to see

  function prepareGallery() {
    const groups = DATA.gallery.groups;
    const form = one("#gallery-controls");
    const at = { group: groups[0], images: [], columns: [], shown: STEP };
    form.elements.group.append(...options(groups.map((group, i) => [i, groupName(group)])));

    function choose() {
      at.group = groups[form.elements.group.value];
      const models = at.group.models.map((model, i) => {
        const box = make("input", { type: "checkbox", name: "model", value: i, checked: model.kind !== "trivial" && i < WIDE });
        return make("label", {}, box, named(model));
      });
      one("#gallery-models").replaceChildren(make("legend", {}, "Methods"), ...models);
      const errors = at.group.models.flatMap(({ label, judged }, i) => (judged ? [[`error ${i}`, `error of ${label}`]] : []));
      const sorts = [["number", "number"], ["error", "largest error of any"], ["disagreement", "disagreement of methods"], ...errors];
      form.elements.sort.replaceChildren(...options(sorts));
    }
    function update() {
      at.columns = all("[name=model]:checked", form).map((box) => Number(box.value));
      at.images = at.group.images.filter(inClass(form.elements.class.value, at.group, at.columns));
      const key = sortKey(form.elements.sort.value, at.group, at.columns);
      if (key) at.images.sort((a, b) => key(b) - key(a) || a.number - b.number);
      at.shown = STEP;
      draw(at);
    }
    form.addEventListener("input", (event) => {
      if (event.target.name === "group") choose();
      update();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    one("#more").addEventListener("click", () => {
      const first = at.shown;
      at.shown += STEP;
      one("#pictures").append(...imageRows(at, first));
      one("#more").hidden = at.images.length <= at.shown;
      one(`#pictures [data-at="${first}"] .tile`).focus();
    });
    one("#pictures").addEventListener("click", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) enlarge(at, Number(tile.parentNode.dataset.at), tile);
    });
    prepareScale();
    choose();
    update();
  }

  function inClass(wanted, group, columns) {
    return {
      all: () => true,
      abnormal: (image) => image.label === 1,
      normal: (image) => image.label === 0,
      missed: (image) => columns.some((column) => verdict(image, group, column) === "missed"),
      alarm: (image) => columns.some((column) => verdict(image, group, column) === "false alarm"),
    }[wanted];
  }

  /** What images are sorted by, the largest first; nothing for their order in the test set. */
  function sortKey(wanted, group, columns) {
    const error = (image, column) => (verdict(image, group, column) ? Math.abs(image.label - image.scores[column]) : -1);
    if (wanted === "error") return (image) => Math.max(-1, ...columns.map((column) => error(image, column)));
    if (wanted === "disagreement") return (image) => deviation(columns.map((column) => image.ranks[column]));
    if (wanted.startsWith("error ")) return (image) => error(image, Number(wanted.slice(6)));
    return null;
  }

  function deviation(values) {
    const known = values.filter((value) => value !== null);
    const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
    return Math.sqrt(known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / known.length) || 0;
  }

  function imageRows({ group, images, columns, shown }, first) {
    return images.slice(first, shown).map((image, i) => imageRow(image, first + i, group, columns));
  }

  function draw(at) {
    const { group, images, columns, shown } = at;
    const titles = make("div", { class: "row titles" }, make("span", {}, "Image"), ...columns.map((i) => named(group.models[i])));
    const rows = imageRows(at, 0);
    const empty = make("p", { class: "empty" }, "No image is of this kind.");
    const home = one("#pictures");
    home.style.setProperty("--columns", Math.max(5, columns.length + 1));
    home.replaceChildren(titles, ...(rows.length ? rows : [empty]));
    one("#more").hidden = images.length <= shown;
    const left = group.images.length < group.stored ? ` (of ${group.stored} kept, to keep the page small)` : "";
    one("#gallery-count").textContent =
      `${images.length} of ${group.images.length} images${left}; ${group.tested} were tested; draw ${group.draw}`;
  }

  function imageRow(image, at, group, columns) {
    const plain = make("button", { type: "button", class: "tile" },
      stack(image, null, `${title(image, group)}, ${truth(image)}`),
      make("span", { class: "said" }, title(image, group), make("small", {}, ` ${truth(image)}`)));
    const tiles = columns.map((column) => make("button", { type: "button", class: "tile" },
      stack(image, column, describe(image, group, column)), said(image, group, column)));
    return make("div", { class: "row", "data-at": at }, plain, ...tiles);
  }

  function prepareScale() {
    paintBar();
    const heat = one("#heat");
    const show = () => root.style.setProperty("--heat", heat.value / 100);
    heat.addEventListener("input", show);
    for (const line of ["truth", "called"]) {
      one(`#${line}`).addEventListener("change", ({ target }) => root.classList.toggle(`without-${line}`, !target.checked));
    }
    show();
  }

  function panes(image, group, columns) {
    const plain = make("div", {}, make("b", {}, "Image"), stack(image, null, `${title(image, group)}, ${truth(image)}`),
      make("span", { class: "said" }, truth(image)));
    return [plain, ...columns.map((column) => make("div", {}, make("b", {}, named(group.models[column])),
      stack(image, column, describe(image, group, column)), said(image, group, column)))];
  }

  function enlarge(at, first, opener) {
    const dialog = one("#large");
    let place = first;
    const show = (step) => {
      place = Math.min(at.images.length - 1, Math.max(0, place + step));
      const image = at.images[place];
      const names = new Set([image.name, title(image, at.group)]);
      one("h3", dialog).textContent = `${[...names].join(": ")} (${place + 1} of ${at.images.length})`;
      one(".panes", dialog).replaceChildren(...panes(image, at.group, at.columns));
    };
    dialog.onkeydown = ({ key }) => {
      if (key === "ArrowLeft") show(-1);
      if (key === "ArrowRight") show(1);
    };
    dialog.onclick = ({ target }) => {
      if (target === dialog || target.closest("[data-close]")) dialog.close();
      const step = target.closest("[data-step]")?.dataset.step;
      if (step) show(Number(step));
    };
    dialog.onclose = () => opener.focus();
    show(0);
    dialog.showModal();
  }

  /* Volumes ---------------------------------------------------------------------------------- */

  function prepareVolumes() {
    const groups = DATA.gallery.groups.filter((group) => group.volumes.length);
    const choice = one("#volume-group");
    const show = () => {
      const group = groups[choice.value];
      one("#viewers").replaceChildren(...group.volumes.map((_, i) => viewer(group, i)));
    };
    choice.append(...options(groups.map((group, i) => [i, groupName(group)])));
    choice.addEventListener("input", show);
    show();
  }

  function viewer(group, volume) {
    const slices = group.images.filter((image) => image.volume === volume).sort((a, b) => a.slice - b.slice);
    const columns = group.models.flatMap(({ kind }, i) => (kind === "trivial" ? [] : [i]));
    const heading = make("small");
    const wide = Math.min(WIDE, Math.max(4, columns.length)) + 1;
    const pictures = make("div", { class: "panes", style: `--columns: ${wide}` });
    const slider = make("input", { type: "range", min: 0, max: slices.length - 1, value: 0, "aria-label": `Slice of ${group.volumes[volume]}` });
    const { lines, mark } = track(group, slices);
    const show = () => {
      const image = slices[slider.value];
      heading.textContent = `slice ${image.slice} (${Number(slider.value) + 1} of ${slices.length}), ${truth(image)}`;
      slider.setAttribute("aria-valuetext", heading.textContent);
      pictures.replaceChildren(...panes(image, group, columns));
      mark(slider.value);
    };
    slider.addEventListener("input", show);
    pictures.addEventListener("wheel", (event) => {
      const before = slider.value;
      slider.value = Number(before) + Math.sign(event.deltaY);
      if (slider.value === before) return; // at either end the page scrolls on
      event.preventDefault();
      show();
    }, { passive: false });
    show();
    const name = group.volumes[volume];
    return make("div", { class: "viewer", role: "group", "aria-label": name },
      make("h3", {}, name, heading), pictures, slider, lines,
      make("p", { class: "legend" }, "shaded: slices with a lesion; dashed grey line: threshold"));
  }

  const colourOf = ({ model }) => DATA.colours[model] ?? "gray";

  /** Scores of the slices, as one line per method, named at its end; slices with a lesion are shaded. */
  function track(group, slices) {
    const [width, height, edge] = [1000, 90, 8];
    const step = (width - 2 * edge) / Math.max(1, slices.length - 1);
    const x = (i) => edge + i * step;
    const y = (score) => 4 + (height - 14) * (1 - score);
    const svg = make("svg", { class: "track", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `Scores of ${slices.length} slices by ${group.models.map(({ label }) => label).join(", ")}; ${slices.filter((image) => image.label === 1).length} have a lesion.` });
    slices.forEach((image, i) => {
      const [from, to] = [Math.max(0, x(i) - step / 2), Math.min(width, x(i) + step / 2)];
      if (image.label === 1) svg.append(make("rect", { class: "truth", x: from, y: 4, width: to - from, height: height - 14 }));
    });
    for (const [score, kind] of [[0, "grid"], [0.5, "threshold"], [1, "grid"]]) {
      svg.append(make("line", { class: kind, x1: 0, x2: width, y1: y(score), y2: y(score), "vector-effect": "non-scaling-stroke" }));
    }
    group.models.forEach((model, column) => {
      if (!model.judged) return;
      const points = slices.map((image, i) => (image.scores[column] === null ? "" : `${x(i)},${y(image.scores[column])}`)).join(" ");
      svg.append(make("polyline", { points, stroke: colourOf(model), "vector-effect": "non-scaling-stroke" }));
    });
    const now = make("line", { class: "now", y1: 0, y2: height, "vector-effect": "non-scaling-stroke" });
    svg.append(now);
    const mark = (i) => { now.setAttribute("x1", x(i)); now.setAttribute("x2", x(i)); };
    const last = (column) => slices.map((image) => image.scores[column]).filter((score) => score !== null).at(-1);
    const ends = group.models.flatMap((model, column) => (model.judged && last(column) !== undefined
      ? [{ model, at: y(last(column)) / height }] : []));
    return { lines: make("div", { class: "lines" }, svg, endNames(ends)), mark };
  }

  /** Names beside the ends of lines, from above to below, none on another. */
  function endNames(ends) {
    const gap = Math.min(0.17, 1 / Math.max(1, ends.length));
    ends.sort((a, b) => a.at - b.at);
    ends.forEach((end, i) => { if (i) end.at = Math.max(end.at, ends[i - 1].at + gap); });
    const beyond = Math.max(0, (ends.at(-1)?.at ?? 0) + gap / 2 - 1);
    return make("span", { class: "ends", "aria-hidden": "true" }, ...ends.map(({ model, at }) =>
      make("span", { style: `top: ${100 * Math.max(0, at - beyond)}%; --of: ${colourOf(model)}` }, model.label)));
  }

  /* All together ------------------------------------------------------------------------------ */

  prepareTheme();
  prepareContents();
  prepareTips();
  prepareCopies();
  prepareTable();
  if (DATA.gallery.groups.length) prepareGallery();
  if (DATA.gallery.groups.some((group) => group.volumes.length)) prepareVolumes();
  drawCharts();
})();
