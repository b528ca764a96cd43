// Sorting, filtering, plots, images, differences of configs, and the theme of the page; there are no requests but
// to the server of a live page.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const data = JSON.parse(one("#data").textContent);
  const root = document.documentElement;

  // What the reader has chosen, which a reload keeps

  const place = `d2timm ${location.pathname}`;
  const chosen = (() => {
    try {
      return JSON.parse(sessionStorage.getItem(place)) || {};
    } catch {
      return {}; // a browser may forbid it for files
    }
  })();
  function remember(key, value) {
    chosen[key] = value;
    try {
      sessionStorage.setItem(place, JSON.stringify(chosen));
    } catch {
      // the page works without
    }
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Light and dark

  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => root.dataset.theme === "dark";
  function applyTheme() {
    root.dataset.theme = chosen.theme || (prefersDark.matches ? "dark" : "light");
    one("#theme").setAttribute("aria-pressed", isDark());
    for (const plot of all(".plot.drawn")) Plotly.relayout(plot, themeOf(plot));
  }
  function themeOf(plot) {
    const style = getComputedStyle(root);
    const value = (name) => style.getPropertyValue(name).trim();
    const theme = {
      "font.color": value("--text"), "font.family": getComputedStyle(document.body).fontFamily, "font.size": 13,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      "hoverlabel.bgcolor": value("--raised"), "hoverlabel.bordercolor": value("--line"),
      "hoverlabel.font.color": value("--text"), "modebar.color": value("--muted"),
      "modebar.activecolor": value("--accent"), "modebar.bgcolor": "rgba(0,0,0,0)",
    };
    for (const axis of ["xaxis", "yaxis"]) {
      theme[`${axis}.gridcolor`] = value("--grid");
      theme[`${axis}.linecolor`] = theme[`${axis}.zerolinecolor`] = value("--line");
    }
    return theme;
  }
  one("#theme").addEventListener("click", () => {
    remember("theme", isDark() ? "light" : "dark");
    applyTheme();
  });
  prefersDark.addEventListener("change", applyTheme);

  // Tables

  function setUpTable(table) {
    const heads = all("thead th", table);
    const body = table.tBodies[0];
    const first = [...body.rows];
    function sort(column, direction) {
      heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
      const isText = heads[column].classList.contains("text");
      const sign = direction === "ascending" ? 1 : -1;
      const text = (row) => row.cells[column].textContent.trim();
      const number = (row) => Number.parseFloat(text(row).replace(/^×/, ""));
      const rows = [...first].sort((a, b) => {
        if (isText) {
          if (!text(a) || !text(b)) return !text(a) - !text(b); // empty cells come last in both directions
          return sign * text(a).localeCompare(text(b), undefined, { numeric: true });
        }
        const [x, y] = [number(a), number(b)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      });
      body.append(...rows);
      remember(`sort ${table.id}`, [heads[column].textContent, direction]);
    }
    heads.forEach((head, column) => {
      one("button", head).addEventListener("click", () => {
        sort(column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
      });
    });
    const [header, direction] = chosen[`sort ${table.id}`] || [];
    const column = heads.findIndex((head) => head.textContent === header);
    if (column >= 0) sort(column, direction);
  }

  function setUpFilter(input) {
    const rows = all("tbody tr", one(`#${input.dataset.filter}`));
    const texts = rows.map((row) =>
      [...row.cells].map((cell) => `${cell.textContent} ${cell.title}`).join(" ").toLowerCase());
    function filter() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, i) => {
        row.hidden = !words.every((word) => texts[i].includes(word));
        shown += !row.hidden;
      });
      one(`#count-${input.dataset.filter}`).textContent = words.length ? `${shown} of ${rows.length}` : "";
      remember(`filter ${input.dataset.filter}`, input.value);
    }
    input.addEventListener("input", filter);
    input.value = chosen[`filter ${input.dataset.filter}`] || "";
    if (input.value) filter();
  }

  function setUpDetails(button) {
    const table = one(`#${button.dataset.details}`);
    function show(value) {
      table.classList.toggle("all", value);
      button.setAttribute("aria-pressed", value);
      remember(`details ${table.id}`, value);
    }
    button.addEventListener("click", () => show(!table.classList.contains("all")));
    if (chosen[`details ${table.id}`]) show(true);
  }

  // Plots

  function draw(plot) {
    const { data: traces, layout } = data.figures[plot.dataset.figure];
    const coarse = matchMedia("(pointer: coarse)").matches; // a finger scrolls the page instead of the plot
    const narrow = root.clientWidth < 600; // there is no room for names and buttons
    const config = {
      responsive: true, displaylogo: false, displayModeBar: coarse || narrow ? false : "hover",
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], // others send the plot to a server
    };
    if (coarse) layout.dragmode = false;
    if (narrow) layout.margin = { ...layout.margin, l: 45, r: 10 };
    const axis = layout.meta.axes[chosen[`axis ${plot.dataset.figure}`] || 0];
    plot.first = traces.map(({ x, y }) => ({ x, y }));
    if (narrow) for (const trace of traces) trace.mode = trace.mode.replace("+text", "");
    Plotly.newPlot(plot, traces, layout, config);
    plot.classList.add("drawn");
    Plotly.relayout(plot, themeOf(plot));
    if (axis && axis !== layout.meta.axes[0]) useAxis(plot, axis);
  }
  function useAxis(plot, axis) {
    const update = { x: axis.x || plot.first.map(({ x }) => x), y: axis.y || plot.first.map(({ y }) => y) };
    if (axis.text) update.text = axis.text;
    if (axis.position) update.textposition = axis.position;
    if (axis.color) update["marker.color"] = axis.color;
    Plotly.update(plot, update, {
      "xaxis.tickmode": axis.ticks ? "array" : "auto", "xaxis.tickvals": axis.ticks || null,
      "xaxis.title.text": axis.title, "xaxis.type": axis.type, "xaxis.autorange": true, "yaxis.autorange": true,
    });
  }
  function setUpAxes(choice) {
    const name = choice.dataset.axes;
    const { axes } = data.figures[name].layout.meta;
    const inputs = all("input", choice);
    const before = inputs[chosen[`axis ${name}`] || 0];
    if (before) before.checked = true;
    choice.addEventListener("change", () => {
      const number = inputs.findIndex((input) => input.checked);
      remember(`axis ${name}`, number);
      useAxis(one(`#plot-${name}`), axes[number]);
    });
  }

  function setUpLegend(legend) {
    const boxes = all("input[data-line]", legend);
    const names = boxes.map((box) => box.closest("label").textContent.trim());
    const key = `hidden ${legend.id}`;
    function apply() {
      const visible = boxes.map((box) => box.checked);
      for (const name of legend.dataset.plots.split(" ")) {
        const plot = one(`#plot-${name}`);
        if (plot) Plotly.restyle(plot, { visible }, visible.map((_, i) => i));
      }
      remember(key, names.filter((_, i) => !visible[i]));
    }
    legend.addEventListener("change", apply);
    for (const button of all("button[data-all]", legend)) {
      button.addEventListener("click", () => {
        for (const box of boxes) box.checked = button.dataset.all === "true";
        apply();
      });
    }
    const hidden = new Set(chosen[key] || []);
    boxes.forEach((box, i) => { box.checked = !hidden.has(names[i]); });
    if (hidden.size) apply();
  }

  // Images: the annotations, then the detections of each model

  const colors = ["#3b82f6", "#f97316", "#22c55e", "#f43f5e", "#a78bfa", "#facc15", "#ec4899", "#2dd4bf", "#94a3b8", "#a3e635"];
  const svg = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  // Shapes of an image from which on only the one under the pointer has a label
  const crowded = root.clientWidth < 600 ? 5 : 10;

  function setUpImages(images) {
    const threshold = one("#threshold");
    const labels = one("#labels");
    const thumbs = one("#thumbs");
    const source = (image) => `data:image/jpeg;base64,${image.jpeg}`;
    let shown = new Set(images.runs.flatMap((run, i) => (run.shown ? [i] : [])));
    if (chosen.models) shown = new Set(images.runs.flatMap((run, i) => (chosen.models.includes(run.label) ? [i] : [])));
    threshold.value = chosen.threshold ?? 0.5;
    labels.checked = chosen.labels ?? true;
    let current = Math.min(chosen.image ?? 0, images.images.length - 1);

    images.images.forEach((image, i) => {
      const input = element("input", { type: "radio", name: "image", value: i, checked: i === current });
      input.addEventListener("change", () => {
        current = i;
        remember("image", i);
        draw();
      });
      thumbs.append(element("label", { title: image.name }, input, element("img", { src: source(image), alt: image.name })));
    });
    if (images.images.length < 2) thumbs.hidden = true;

    if (one("#run-boxes")) {
      images.runs.forEach((run, i) => {
        const input = element("input", { type: "checkbox", checked: shown.has(i) });
        input.addEventListener("change", () => {
          if (input.checked) shown.add(i); else shown.delete(i);
          remember("models", [...shown].map((number) => images.runs[number].label));
          draw();
        });
        one("#run-boxes").append(element("li", {}, element("label", {}, input, run.label)));
      });
    }

    function shape([label, score, box, outlines]) {
      const group = svg("g", { class: "shape", "data-score": score ?? "" });
      const color = colors[label % colors.length];
      const name = `${images.classes[label]}${score === null ? "" : ` ${score.toFixed(2)}`}`;
      group.append(Object.assign(svg("title", {}), { textContent: name }));
      for (const outline of outlines) {
        group.append(svg("polygon", { points: outline.join(" "), fill: color, "fill-opacity": 0.35, stroke: color, "stroke-width": 1 }));
      }
      const [x0, y0, x1, y1] = box;
      group.append(svg("rect", {
        x: x0, y: y0, width: Math.max(x1 - x0, 1), height: Math.max(y1 - y0, 1),
        fill: outlines.length ? "none" : color, "fill-opacity": 0.08, stroke: color, "stroke-width": 2,
      }));
      const text = svg("text", { x: x0 + 2, y: y0 < 14 ? y0 + 14 : y0 - 4 });
      text.textContent = name;
      group.append(text);
      return group;
    }
    function panel(title, image, shapes, note) {
      const drawing = svg("svg", { viewBox: `0 0 ${image.width} ${image.height}`, role: "img" });
      drawing.setAttribute("aria-label", `${title}: ${note}`);
      drawing.append(svg("image", { href: source(image), width: image.width, height: image.height }), ...shapes.map(shape));
      drawing.classList.toggle("no-labels", !labels.checked || shapes.length > crowded);
      return element("figure", {}, element("figcaption", {}, element("strong", { textContent: title }), ` ${note}`), drawing);
    }
    function draw() {
      const image = images.images[current];
      const lowest = Number(threshold.value);
      one("#threshold-value").textContent = lowest.toFixed(2);
      if (one("#shown-count")) one("#shown-count").textContent = `${shown.size} of ${images.runs.length}`;
      const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
      const panels = [panel("Ground truth", image, image.objects, count(image.objects.length, "object"))];
      images.runs.forEach((run, i) => {
        const found = run.detections[current];
        if (!shown.has(i) || found === null) return;
        const confident = found.filter((detection) => detection[1] >= lowest);
        panels.push(panel(run.label, image, confident.reverse(), count(confident.length, "detection")));
      });
      one("#panels").replaceChildren(...panels);
      scale(image);
    }
    function scale(image) { // letters keep their size, however large a thumbnail is shown
      const unit = image.width / (one("#panels svg").clientWidth || image.width);
      one("#panels").style.setProperty("--unit", `${unit}px`);
    }
    addEventListener("resize", () => scale(images.images[current]));
    threshold.addEventListener("input", () => { remember("threshold", threshold.value); draw(); });
    labels.addEventListener("change", () => { remember("labels", labels.checked); draw(); });
    draw();
  }

  // Differences of configs

  function setUpConfigs(configs) {
    const selects = ["a", "b"].map((side) => one(`#config-${side}`));
    selects.forEach((select, side) => {
      configs.runs.forEach((label, i) => select.append(element("option", { value: i, textContent: label })));
      const before = configs.runs.indexOf((chosen.configs || [])[side]);
      select.value = before >= 0 ? before : side;
      select.addEventListener("change", compare);
    });
    function compare() {
      const [a, b] = selects.map((select) => Number(select.value));
      remember("configs", [configs.runs[a], configs.runs[b]]);
      one("#config-head-a").textContent = configs.runs[a];
      one("#config-head-b").textContent = configs.runs[b];
      const cell = (text) => element("td", text === null ? { className: "text muted", textContent: "–" } : { className: "text", textContent: text });
      const rows = configs.keys.flatMap((key, i) => {
        const [left, right] = [configs.values[a][i], configs.values[b][i]];
        if (left === right) return [];
        return [element("tr", {}, element("th", { scope: "row", className: "text", textContent: key, title: key }), cell(left), cell(right))];
      });
      one("#config-table tbody").replaceChildren(...rows);
      one("#config-count").textContent = rows.length === 0 ? "No differences" : `${rows.length} difference${rows.length === 1 ? "" : "s"}`;
    }
    compare();
  }

  // Commands

  async function copy(button) {
    const code = one("code", button.parentElement);
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code); // a browser may forbid the clipboard to files
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    one("#copied").textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; one("#copied").textContent = ""; }, 1500);
  }

  // A page that is served loads again when the runs have changed

  const PERIOD = 3000; // milliseconds
  async function follow() {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const version = await answer.text();
      if (answer.ok && version !== document.body.dataset.version) {
        remember("scroll", scrollY);
        history.scrollRestoration = "manual"; // the browser would do it before the page is complete
        location.reload();
        return;
      }
      one("#live").textContent = "This page follows the runs.";
    } catch {
      one("#live").textContent = "The server of this page has ended.";
    }
    setTimeout(follow, PERIOD);
  }

  applyTheme();
  all("table[id]").forEach((table) => { if (one("th > button", table)) setUpTable(table); });
  all("input[data-filter]").forEach(setUpFilter);
  all("button[data-details]").forEach(setUpDetails);
  all(".plot").forEach(draw);
  all(".choice[data-axes]").forEach(setUpAxes);
  all(".legend").forEach(setUpLegend);
  if (data.images) setUpImages(data.images);
  if (data.configs) setUpConfigs(data.configs);
  all("button[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
  all("details[id]").forEach((details) => {
    if (`open ${details.id}` in chosen) details.open = chosen[`open ${details.id}`];
    details.addEventListener("toggle", () => remember(`open ${details.id}`, details.open));
  });
  if ("scroll" in chosen) {
    scrollTo(0, chosen.scroll);
    remember("scroll", undefined);
  }
  if (document.body.dataset.version) setTimeout(follow, PERIOD);
})();
