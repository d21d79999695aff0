"use strict";
(() => {
  const root = document.documentElement;
  addEventListener("error", (e) => { root.dataset.error = e.message; });
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const nodes = new Map(), kernels = new Map(data.kernels.map((k) => [k.name, k]));
  (function walk(graph) {
    for (const n of graph.nodes) { nodes.set(n.id, n); n.graphs.forEach(walk); }
  })(data.graph);
  document.body.classList.add("tabbed");

  // -- theme: what the reader chose goes before what the system says
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const store = { get() { try { return localStorage.getItem("irc-theme"); } catch { return null; } },
    set(v) { try { localStorage.setItem("irc-theme", v); } catch { /* files may have none */ } } };
  if (store.get()) root.dataset.theme = store.get();
  $("theme").onclick = () => { root.dataset.theme = dark() ? "light" : "dark"; store.set(root.dataset.theme); paintMap(); };

  // -- the graph: pan and zoom move the whole drawing, so that nothing in it is laid out again
  const svg = $("graph-svg"), ground = $("ground"), map = $("map");
  const size = { w: +svg.dataset.width, h: +svg.dataset.height };
  const eye = { x: 0, y: 0, k: 1 };
  const clamp = (v, low, high) => Math.min(Math.max(v, low), high);
  svg.removeAttribute("viewBox");  // one unit is one pixel, also when the drawing grows
  function resize() {
    svg.style.width = `${size.w}px`;
    svg.style.height = `${size.h}px`;
  }
  function look() {
    svg.style.transform = `translate(${eye.x}px, ${eye.y}px) scale(${eye.k})`;
    drawMap();
  }
  function zoom(factor, x = ground.clientWidth / 2, y = ground.clientHeight / 2) {
    const k = clamp(eye.k * factor, 0.02, 4);
    eye.x = x - (x - eye.x) * k / eye.k;
    eye.y = y - (y - eye.y) * k / eye.k;
    eye.k = k;
    look();
  }
  function fit() {
    eye.k = clamp(Math.min((ground.clientWidth - 40) / size.w, (ground.clientHeight - 90) / size.h), 0.02, 1.25);
    eye.x = (ground.clientWidth - size.w * eye.k) / 2;
    eye.y = Math.max(52, (ground.clientHeight - size.h * eye.k) / 2);
    look();
  }
  function begin() {  // the whole graph where it can be read so, else its top
    fit();
    if (eye.k < 0.7) {
      eye.k = clamp((ground.clientWidth - 40) / size.w, 0.7, 1);
      eye.x = (ground.clientWidth - size.w * eye.k) / 2;
      const first = svg.querySelector(".node.input");
      if (first && size.w * eye.k > ground.clientWidth) {
        const box = place(first);
        eye.x = ground.clientWidth / 2 - (box.x + box.w / 2) * eye.k;
      }
      eye.y = 52;
      look();
    }
  }
  function place(g) {  // in the coordinates of the drawing
    const box = g.getBoundingClientRect(), frame = ground.getBoundingClientRect();
    return { x: (box.x - frame.x - eye.x) / eye.k, y: (box.y - frame.y - eye.y) / eye.k,
      w: box.width / eye.k, h: box.height / eye.k };
  }
  function show(g) {
    const box = place(g);
    eye.k = Math.max(eye.k, 0.8);
    const width = ground.clientWidth - ($("details").hidden ? 0 : 390);
    eye.x = width / 2 - (box.x + box.w / 2) * eye.k;
    eye.y = ground.clientHeight / 2 - (box.y + Math.min(box.h, 200) / 2) * eye.k;
    look();
  }
  ground.addEventListener("wheel", (e) => {
    e.preventDefault();
    const step = e.deltaMode ? 18 : 1;
    if (e.ctrlKey || e.metaKey) {
      const frame = ground.getBoundingClientRect();
      zoom(Math.exp(-e.deltaY * step / 240), e.clientX - frame.x, e.clientY - frame.y);
    } else {
      eye.x -= (e.shiftKey ? e.deltaY : e.deltaX) * step;
      eye.y -= (e.shiftKey ? 0 : e.deltaY) * step;
      look();
    }
  }, { passive: false });
  let held = null;
  ground.addEventListener("pointerdown", (e) => { held = { x: e.clientX, y: e.clientY, far: 0 }; });
  addEventListener("pointermove", (e) => {
    if (!held) return;
    const dx = e.clientX - held.x, dy = e.clientY - held.y;
    held.far += Math.abs(dx) + Math.abs(dy);
    if (held.far < 4) return;
    ground.classList.add("held");
    eye.x += dx; eye.y += dy; held.x = e.clientX; held.y = e.clientY;
    look();
  });
  addEventListener("pointerup", () => { ground.classList.remove("held"); setTimeout(() => { held = null; }); });
  $("zoom-in").onclick = () => zoom(1.3);
  $("zoom-out").onclick = () => zoom(1 / 1.3);
  $("zoom-fit").onclick = fit;
  $("zoom-one").onclick = () => zoom(1 / eye.k);

  // -- the map: every outer node as a mark, and the part in sight
  const outer = [...svg.querySelectorAll("#all > .graph > .node")];
  const marks = document.createElement("canvas");
  marks.width = map.width; marks.height = map.height;
  const scale = () => {
    const k = Math.min((map.width - 8) / size.w, (map.height - 8) / size.h);
    return { k, left: (map.width - size.w * k) / 2, top: (map.height - size.h * k) / 2 };
  };
  const colour = (name) => getComputedStyle(root).getPropertyValue(name);
  function paintMap() {  // where the nodes are, after they have moved or colours have changed
    resize();
    const pen = marks.getContext("2d"), { k, left, top } = scale(), known = new Map();
    pen.clearRect(0, 0, map.width, map.height);
    for (const g of outer) {
      let kind = g.classList[1];
      if (kind === "input" || kind === "output") kind = "port";
      if (!known.has(kind)) known.set(kind, colour(`--${kind}`) || colour("--edge"));
      pen.fillStyle = known.get(kind);
      pen.globalAlpha = kind === "control" ? 0.3 : 1;
      const box = g.children[1];
      pen.fillRect(left + (24 + +g.dataset.nowX) * k, top + (24 + +g.dataset.nowY) * k,
        Math.max(1.5, box.getAttribute("width") * k), Math.max(1, box.getAttribute("height") * k));
    }
    drawMap();
  }
  function drawMap() {
    const pen = map.getContext("2d"), { k, left, top } = scale();
    pen.clearRect(0, 0, map.width, map.height);
    pen.drawImage(marks, 0, 0);
    pen.strokeStyle = colour("--accent");
    pen.strokeRect(left - eye.x / eye.k * k, top - eye.y / eye.k * k,
      ground.clientWidth / eye.k * k, ground.clientHeight / eye.k * k);
    map.goal = (x, y) => { eye.x = ground.clientWidth / 2 - (x - left) / k * eye.k; eye.y = ground.clientHeight / 2 - (y - top) / k * eye.k; look(); };
  }
  map.addEventListener("pointerdown", (e) => { map.goal(e.offsetX, e.offsetY); map.setPointerCapture(e.pointerId); });
  map.addEventListener("pointermove", (e) => { if (e.buttons) map.goal(e.offsetX, e.offsetY); });

  // -- nodes that open: everything below moves down by as much as the rows above have grown
  const numbers = /(-?[\d.]+) (-?[\d.]+)/g;
  function children(graph, kind) { return [...graph.children].filter((c) => c.classList.contains(kind)); }
  function change(e, name, value) { if (e.getAttribute(name) !== value) e.setAttribute(name, value); }
  function settle(graph) {
    const bottoms = graph.dataset.bottoms.split(" ").map(Number), grown = bottoms.map(() => 0);
    const own = new Map();
    for (const g of children(graph, "node")) {
      let h = +g.dataset.h;
      if (g.classList.contains("open")) h = +g.dataset.open;
      const inner = [...g.children].flatMap((c) => children(c, "graph"));
      h += Math.max(0, ...inner.map((c) => +c.dataset.grown || 0));
      change(g.children[1], "height", `${h}`);
      own.set(g.id, h - g.dataset.h);
      const row = +g.dataset.row;
      grown[row] = Math.max(grown[row], +g.dataset.y + h - bottoms[row]);
    }
    const shift = (y) => y + grown.reduce((sum, d, r) => sum + (y > bottoms[r] + 0.5 ? Math.max(0, d) : 0), 0);
    for (const g of children(graph, "node")) {
      const y = shift(+g.dataset.y);
      g.dataset.nowX = g.dataset.x; g.dataset.nowY = y;
      change(g, "transform", `translate(${g.dataset.x} ${y})`);
    }
    for (const p of children(graph, "edge")) {
      p.dataset.d ||= p.getAttribute("d");
      let first = own.get(`n${p.dataset.from}`);
      change(p, "d", p.dataset.d.replace(numbers, (_, x, y) => {
        const at = shift(+y) + first;
        first = 0;
        return `${x} ${at}`;
      }));
    }
    graph.dataset.grown = grown.reduce((sum, d) => sum + Math.max(0, d), 0);
    const above = graph.parentElement.closest(".graph");
    if (above) settle(above); else size.h = +svg.dataset.height + +graph.dataset.grown;
  }
  function open(g, wanted) {
    if (!nodes.get(+g.id.slice(1)).ops.length) return;
    g.classList.toggle("open", wanted);
  }
  const graphs = [...svg.querySelectorAll(".graph")].reverse();  // inner ones first
  $("open-all").onclick = () => {
    const wanted = !svg.querySelector(".node.open");
    svg.querySelectorAll(".node").forEach((g) => open(g, wanted));
    graphs.forEach(settle);
    paintMap();
    look();
  };

  // -- details of a node
  const make = (tag, text, kind) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (kind) e.className = kind; return e; };
  const short = (t) => t.replace(/(\w+)\[([^[\]]*)\]/g, (_, d, s) => `${d} ${s.replace(/, (?![^(]*\))/g, "×")}`.trim());
  function list(pairs) {
    const dl = make("dl");
    for (const [k, v] of pairs) if (v !== "" && v !== null && v !== undefined) dl.append(make("dt", k), make("dd", v, "mono"));
    return dl;
  }
  const digits = (v, scale = 1) => v === null ? null : (v / scale).toPrecision(3);
  function sized(v, unit) {
    const step = Math.max(0, Math.min(3, Math.floor(Math.log10(v) / 3)));
    return `${+(v / 1000 ** step).toPrecision(3)} ${["", "k", "M", "G"][step]}${unit}`;
  }
  const timed = (s) => s < 1e-3 ? `${+(s * 1e6).toPrecision(3)} µs` : `${+(s * 1e3).toPrecision(3)} ms`;
  function tell(n) {
    const box = $("details"), k = kernels.get(n.kernel);
    const close = make("button", "×", "close");
    close.onclick = () => choose(null);
    box.replaceChildren(close, make("h2", n.title), make("p", n.place, "quiet"));
    box.append(list([["kind", n.kind], ["work", n.flops ? sized(n.flops, "FLOP") : ""], ["traffic", n.bytes ? sized(n.bytes, "B") : ""]]));
    if (k) {
      const link = make("a", k.name);
      link.href = `#k-${k.name}`;
      const title = make("h3", "kernel ");
      title.append(link);
      box.append(title, list([["calls", k.calls], ["per call", k.seconds === null ? null : timed(k.seconds / k.calls)],
        ["share", k.share === null ? null : `${(100 * k.share).toFixed(1)} %`], ["GFLOP/s", digits(k.gflops)], ["GB/s", digits(k.gbs)],
        ["% of peak", k.of_peak === null ? null : (100 * k.of_peak).toFixed(1)]]));
    }
    for (const [title, rows] of [["reads", n.inputs], ["gives", n.outputs]]) {
      if (rows.length) box.append(make("h3", title), list(rows.map(([name, type]) => [name, short(type)])));
    }
    if (Object.keys(n.attributes).length) box.append(make("h3", "attributes"), list(Object.entries(n.attributes)));
    if (n.ops.length) box.append(make("h3", "ops"));
    n.ops.forEach((op, i) => {
      const part = make("div", undefined, "step");
      part.append(make("b", `${i + 1} ${op.name}`));
      part.append(list([["of", op.reads.join(", ")], ["gives", short(op.result)], ["from", op.place], ...Object.entries(op.attributes)]));
      box.append(part);
    });
    box.hidden = false;
    box.scrollTop = 0;
    map.classList.add("beside");
  }
  let chosen = null;
  function choose(g) {
    svg.querySelectorAll(".chosen, .lit").forEach((e) => e.classList.remove("chosen", "lit"));
    if (!g) {
      $("details").hidden = true;
      map.classList.remove("beside");
      chosen = null;
      return;
    }
    chosen = g;
    g.classList.add("chosen");
    const id = g.id.slice(1);
    svg.querySelectorAll(`.edge[data-from="${id}"], .edge[data-to="${id}"]`).forEach((e) => e.classList.add("lit"));
    tell(nodes.get(+id));
  }
  function touch(g) {  // a second touch closes what the first one opened
    open(g, g !== chosen || !g.classList.contains("open"));
    settle(g.closest(".graph"));
    paintMap();
    choose(g);
    look();
  }
  ground.addEventListener("click", (e) => {
    if (held && held.far >= 4) return;
    const g = e.target.closest(".node");
    if (g) touch(g); else choose(null);
  });
  svg.addEventListener("keydown", (e) => {
    const g = e.target.closest(".node");
    if (g && (e.key === "Enter" || e.key === " ")) { e.preventDefault(); touch(g); }
  });
  addEventListener("keydown", (e) => { if (e.key === "Escape") choose(null); });

  // -- search: titles, kernels, places, ops
  const said = new Map([...nodes].map(([id, n]) => [id,
    [n.title, n.kernel, n.place, n.kind, ...n.ops.flatMap((o) => [o.name, o.place])].join(" ").toLowerCase()]));
  let hits = [], hit = -1;
  function seek(text) {
    svg.querySelectorAll(".match").forEach((g) => g.classList.remove("match"));
    text = text.trim().toLowerCase();
    hits = text ? [...said].filter(([, words]) => words.includes(text)).map(([id]) => $(`n${id}`)) : [];
    hits.forEach((g) => g.classList.add("match"));
    hit = -1;
    $("found").textContent = text ? `${hits.length} found` : "";
  }
  $("search").addEventListener("input", (e) => { seek(e.target.value); if (hits.length) { hit = 0; show(hits[0]); } });
  $("search").addEventListener("keydown", (e) => {
    if (e.key !== "Enter" || !hits.length) return;
    hit = (hit + (e.shiftKey ? hits.length - 1 : 1)) % hits.length;
    $("found").textContent = `${hit + 1} of ${hits.length}`;
    show(hits[hit]);
  });

  // -- tables that sort: numbers from large to small first
  document.querySelectorAll(".sortable").forEach((table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((th, column) => {
      const sort = () => {
        const numeric = th.classList.contains("num");
        const down = th.getAttribute("aria-sort") ? th.getAttribute("aria-sort") === "ascending" : numeric;
        heads.forEach((h) => h.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => { const v = row.cells[column].dataset.v; return numeric ? (v === "" ? -Infinity : +v) : v; };
        const rows = [...table.tBodies[0].rows].map((row, i) => [key(row), i, row]);
        rows.sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1) || i - j);
        table.tBodies[0].append(...rows.map((r) => r[2]));
      };
      th.addEventListener("click", sort);
      th.addEventListener("keydown", (e) => { if (e.key === "Enter") sort(); });
    });
  });

  // -- tabs, and links into them: #kernels, #n7 (a node), #k-NAME (a kernel's schedule)
  const sections = [...document.querySelectorAll("main > section")];
  let seen = false;
  function go() {
    const id = decodeURIComponent(location.hash.slice(1)) || "overview";
    const goal = $(id) || sections[0], home = goal.closest("main > section") || sections[0];
    sections.forEach((s) => s.classList.toggle("here", s === home));
    document.querySelectorAll("nav a").forEach((a) => a.classList.toggle("here", a.hash === `#${home.id}`));
    if (home.id === "graph" && !seen) { seen = true; begin(); }
    if (goal.tagName === "DETAILS") { goal.open = true; goal.scrollIntoView(); }
    else if (goal.classList.contains("node")) {
      open(goal, true);
      settle(goal.closest(".graph"));
      paintMap();
      choose(goal);
      show(goal);
    } else scrollTo(0, 0);
  }
  addEventListener("hashchange", go);
  addEventListener("resize", look);
  graphs.forEach(settle);
  paintMap();
  go();
  document.querySelector('#kernel-table th[data-key="share"]').click();
  root.dataset.ready = "1";
})();
