"use strict";
/* The page of the inspection report. The data come in through zeroDefect.summary (one call: what the
   list shows of every image, column by column) and zeroDefect.chunk (details of consecutive images;
   in large reports loaded when an image is opened, by <script>, because fetch does not work on
   file://). Text enters the page through textContent and attributes only, never as HTML. */

const VERDICTS = ["defect", "unsure", "good"];
const PAGE_SIZE = 60;
const MAX_ROWS = 200; // regions listed and numbered per image; outlines are drawn for all
const P_VALUE = "share of good images, this one counted with them, that score at least as high; the smaller, the rarer among good parts";
const SVG = "http://www.w3.org/2000/svg";

let data = null; // the summary
let shown = []; // image numbers that pass the filters, in the chosen order
let page = 0;
let current = -1; // image number of the detail view, -1 in the list
let scrollBefore = 0;
const chunks = new Map(); // chunk number -> array of details
const loading = new Map(); // chunk number -> promise of that array

const zeroDefect = {
  summary(value) { data = value; },
  chunk(number, details) { chunks.set(number, details); },
  start,
};

/* ---- small helpers ---- */

const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const number = (value) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(4))));
const percent = (share) => (share === null || share === undefined ? "–" : `${Number((100 * share).toPrecision(3))} %`);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
// A method without maps says nothing of regions, not even that there are none.
const located = (count) => data.region_limit !== null || count > 0;
const kindName = (kind) => kind ?? "anomaly";
const counted = (one) => `${one.count} × ${kindName(one.kind)}${one.low === one.high ? "" : ` (${one.low} to ${one.high})`}`;

function shape(verdict) {
  return draw("svg", { class: "shape", "aria-hidden": "true" }, draw("use", { href: `#shape-${verdict}` }));
}

function badge(i) {
  const verdict = data.verdict[i];
  const word = data.calibrated ? verdict : `${verdict} (provisional)`;
  return make("span", { class: `verdict ${verdict}` }, shape(verdict), word);
}

/* What would act on the text around it (control characters, signs that turn it around) as escapes. */
const shownName = (path) => path.replace(/[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/gu,
  (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);

function splitPath(name) {
  const path = shownName(name);
  const cut = Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1;
  return [path.slice(0, cut), path.slice(cut)];
}

// File names may hold half a surrogate pair, which encodeURIComponent refuses.
const link = (i) => "#image=" + encodeURIComponent(data.image[i].replace(/\p{Surrogate}/gu, "\uFFFD"));

/* ---- the list: filter, sort, page ---- */

let nameRanks = null;
function nameRank(i) {
  if (!nameRanks) {
    const order = data.image.map((_, k) => k);
    const { compare } = new Intl.Collator("en", { numeric: true });
    order.sort((a, b) => compare(data.image[a], data.image[b]));
    nameRanks = new Array(order.length);
    order.forEach((image, rank) => { nameRanks[image] = rank; });
  }
  return nameRanks[i];
}

const KEYS = {
  score: (i) => data.score[i],
  p: (i) => data.p_value[i],
  area: (i) => data.area[i],
  count: (i) => data.count[i],
  name: nameRank,
  order: (i) => i,
  part: (i) => data.part[i], // parts are numbered from the worst on
};
const partName = (i) => (data.part[i] === null ? "" : data.parts[data.part[i]][0]);

function select() {
  const verdicts = new Set([...document.querySelectorAll("#verdicts input:checked")].map((box) => box.value));
  const kind = byId("kind").value === "" ? null : Number(byId("kind").value);
  const text = byId("text").value.trim().toLowerCase();
  const least = byId("least").value === "" ? 0 : Number(byId("least").value);
  const most = byId("most").value === "" ? Infinity : Number(byId("most").value);
  shown = [];
  for (let i = 0; i < data.image.length; i += 1) {
    if (verdicts.has(data.verdict[i]) && (kind === null || data.kinds[i].includes(kind))
        && data.count[i] >= least && data.count[i] <= most
        && (data.image[i].toLowerCase().includes(text) || partName(i).toLowerCase().includes(text))) shown.push(i);
  }
  sortShown();
  page = 0;
  showPage();
}

function sortShown() {
  const [name, direction] = byId("sort").value.split("-");
  const sign = direction === "up" ? 1 : -1;
  const key = KEYS[name];
  shown.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === y) return a - b;
    if (x === null) return 1; // unknown values last, whatever the direction
    if (y === null) return -1;
    return sign * (x - y);
  });
}

function card(i) {
  const [folder, name] = splitPath(data.image[i]);
  const thumb = make("div", { class: "thumb" });
  thumb.append(data.thumb[i] ? make("img", { src: data.thumb[i], alt: "", loading: "lazy" }) : "no picture kept");
  const p = data.p_value[i] === null ? "" : ` · p ${number(data.p_value[i])}`;
  const kinds = data.kinds[i].map((k) => kindName(data.vocabulary[k])).join(", ");
  const none = located(0) ? "no region" : "";
  const regions = data.count[i] === 0 ? none : `${data.count[i]} × ${kinds}`;
  const found = data.kinds[i].length > 1 ? `${plural(data.count[i], "region")}: ${kinds}` : regions;
  return make("li", {}, make("a", { class: "card", href: link(i), "data-image": i, title: shownName(data.image[i]) },
    thumb,
    make("div", { class: "text" },
      badge(i),
      make("span", { class: "values" }, `score ${number(data.score[i])}${p}`),
      make("span", { class: "kinds" }, found),
      ...(data.part[i] === null ? [] : [make("span", { class: "kinds" }, `part ${shownName(partName(i))}: ${data.parts[data.part[i]][1]}`)]),
      ...(data.against[i] ? [make("span", { class: "contradiction" }, "explanation against the evidence")] : []),
      ...(data.noted[i] ? [make("span", { class: "quiet" }, plural(data.noted[i], "note"))] : []),
      make("span", { class: "name" }, name),
      make("span", { class: "folder" }, folder))));
}

function showPage() {
  const pages = Math.max(1, Math.ceil(shown.length / PAGE_SIZE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const part = shown.slice(page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
  byId("grid").replaceChildren(...part.map(card));
  if (part.length === 0) {
    const words = data.image.length === 0 ? "No image was inspected." : "No image passes these filters.";
    byId("grid").append(make("li", { class: "empty" }, words));
  }
  byId("found").textContent = shown.length === data.image.length
    ? plural(shown.length, "image") : `${shown.length.toLocaleString("en")} of ${plural(data.image.length, "image")}`;
  byId("page-number").textContent = `Page ${page + 1} of ${pages}`;
  byId("page-back").disabled = page === 0;
  byId("page-on").disabled = page === pages - 1;
}

function turnPage(step) {
  page += step;
  showPage();
  byId("toolbar").scrollIntoView({ block: "start" });
}

function buildToolbar() {
  for (const verdict of VERDICTS) {
    const count = data.verdict.filter((v) => v === verdict).length;
    byId("verdicts").append(make("label", { class: verdict },
      make("input", { type: "checkbox", value: verdict, checked: "" }),
      make("span", { class: "verdict" }, shape(verdict), verdict),
      make("span", {}, count.toLocaleString("en"))));
  }
  byId("kind").append(make("option", { value: "" }, "any"));
  data.vocabulary.forEach((kind, k) => {
    const count = data.kinds.filter((kinds) => kinds.includes(k)).length;
    const name = kind ?? "anomaly (kind unknown)";
    byId("kind").append(make("option", { value: k }, `${name} (${count.toLocaleString("en")})`));
  });
  if (data.parts.length > 0) { // pictures of a part side by side, the worst part first
    byId("sort").append(make("option", { value: "part-up" }, "part, worst first"));
    byId("sort").value = "part-up";
  }
  byId("toolbar").addEventListener("input", select);
  byId("toolbar").addEventListener("reset", () => setTimeout(select)); // after the fields are reset
  byId("toolbar").addEventListener("submit", (event) => event.preventDefault());
  byId("page-back").addEventListener("click", () => turnPage(-1));
  byId("page-on").addEventListener("click", () => turnPage(1));
  byId("toolbar").hidden = data.image.length === 0;
  byId("pager").hidden = data.image.length === 0;
  byId("reading").textContent = "score: raw, higher is more anomalous"
    + (data.p_value.some((p) => p !== null) ? `. p: ${P_VALUE}.` : ".");
}

/* ---- histogram of image scores with the two limits ---- */

function countBins(low, width, bins) {
  const counts = VERDICTS.map(() => new Array(bins).fill(0));
  data.score.forEach((score, i) => {
    const bin = Math.min(bins - 1, Math.floor((score - low) / width));
    counts[VERDICTS.indexOf(data.verdict[i])][bin] += 1;
  });
  return counts;
}

function showHistogram() {
  if (data.score.length === 0) return;
  const limits = ["unsure", "defect"].map((name) => ({ name, at: data.limits[name] ?? null }))
    .filter((limit) => limit.at !== null);
  const marks = [...limits.map((limit) => limit.at), ...data.calibration_scores];
  let low = Infinity, high = -Infinity;
  for (const value of [data.score, marks].flat()) { low = Math.min(low, value); high = Math.max(high, value); }
  if (low === high) { const room = Math.abs(low) * 0.05 || 0.05; low -= room; high += room; }
  const bins = 48, width = 640, top = 46, floor = 190, height = 230;
  const x = (score) => 8 + (width - 16) * (score - low) / (high - low);
  const counts = countBins(low, (high - low) / bins, bins);
  const highest = Math.max(...counts[0].map((_, b) => counts.reduce((sum, row) => sum + row[b], 0)));
  const chart = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `Histogram of ${plural(data.score.length, "image score")} from ${number(low)} to ${number(high)}` });
  for (let b = 0; b < bins; b += 1) {
    let y = floor;
    const from = low + b * (high - low) / bins, to = low + (b + 1) * (high - low) / bins;
    for (let v = VERDICTS.length - 1; v >= 0; v -= 1) {
      if (counts[v][b] === 0) continue;
      const size = Math.max(2, (floor - top) * counts[v][b] / highest); // single images stay visible
      y -= size;
      chart.append(draw("rect", { class: `bar ${VERDICTS[v]}`, x: x(from) + 0.5, y, width: x(to) - x(from) - 1, height: size },
        draw("title", {}, `${plural(counts[v][b], "image")} called ${VERDICTS[v]}, score ${number(from)} to ${number(to)}`)));
    }
  }
  chart.append(draw("path", { class: "axis", d: `M8 ${floor}H${width - 8}` }));
  if (data.calibration_scores.length > 0) {
    const ticks = data.calibration_scores.map((score) => `M${x(score).toFixed(1)} ${floor + 4}v7`).join("");
    chart.append(draw("path", { class: "rug", d: ticks }, draw("title", {}, "Good images of the calibration")));
    chart.append(draw("text", { x: width / 2, y: height - 4, "text-anchor": "middle" }, "ticks: good images of the calibration"));
  }
  limits.forEach((limit, k) => {
    const at = x(limit.at);
    const left = limit.name === "unsure" ? at > 190 : at > width - 190; // side of the line with the words
    chart.append(draw("path", { class: "limit", d: `M${at} ${19 * k + 4}V${floor + 4}` }));
    chart.append(draw("text", { class: "limit-name", x: at + (left ? -5 : 5), y: 19 * k + 15, "text-anchor": left ? "end" : "start" },
      `${limit.name} above ${number(limit.at)}`));
  });
  chart.append(draw("text", { x: 8, y: height - 4 }, number(low)));
  chart.append(draw("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, number(high)));
  byId("histogram").append(chart);
  byId("histogram-panel").hidden = false;
}

/* ---- one image ---- */

function loadChunk(k) {
  if (chunks.has(k)) return Promise.resolve(chunks.get(k));
  if (!loading.has(k)) {
    const file = `data-${String(k).padStart(3, "0")}.js`;
    loading.set(k, new Promise((resolve, reject) => {
      const script = make("script", { src: file });
      const fail = () => {
        loading.delete(k);
        reject(new Error(`${file} cannot be read. Keep the folders "report" and "assets" together, or write the report again.`));
      };
      script.onload = () => (chunks.has(k) ? resolve(chunks.get(k)) : fail());
      script.onerror = fail;
      document.head.append(script);
    }));
  }
  return loading.get(k);
}

async function loadDetail(i) {
  const details = await loadChunk(Math.floor(i / data.chunk_size));
  const detail = details[i % data.chunk_size];
  if (!detail || detail.image !== data.image[i]) {
    throw new Error("The files of this report do not belong together. Write the report again.");
  }
  return detail;
}

const outline = (region) => region.polygons.map((points) => {
  let path = "";
  for (let k = 0; k < points.length; k += 2) path += `${k ? "L" : "M"}${points[k]} ${points[k + 1]}`;
  return path + "Z";
}).join("");

function activate(k, on) {
  byId("stage").querySelector(`path:not(.under)[data-region="${k}"]`)?.classList.toggle("active", on);
  byId("findings").querySelector(`tr[data-region="${k}"]`)?.classList.toggle("active", on);
}

function onPoint(node, k) {
  for (const type of ["mouseenter", "focus"]) node.addEventListener(type, () => activate(k, true));
  for (const type of ["mouseleave", "blur"]) node.addEventListener(type, () => activate(k, false));
}

/* ---- numbers beside the regions, whatever the zoom: all in screen pixels ---- */

const TAG = { height: 18, gaps: [3, 12, 26, 46, 76, 120, 180], room: 24 }; // room: around the picture
const SMALL = 24; // a region that is smaller on the screen gets a ring: its outline would cover it
const RING = { least: 20, room: 6 };

const tagWidth = (k) => 10 + 8 * String(k + 1).length;
const overlap = (a, b) => Math.max(0, Math.min(a[0] + a[2], b[0] + b[2]) - Math.max(a[0], b[0]))
  * Math.max(0, Math.min(a[1] + a[3], b[1] + b[3]) - Math.max(a[1], b[1]));

function aroundBox([x, y, w, h], width, height, gap) {
  const [left, right, above, below] = [x - gap - width, x + w + gap, y - gap - height, y + h + gap];
  const [inner, base] = [x + w - width, y + h - height];
  return [[x, above], [inner, above], [right, y], [left, y], [x, below], [inner, below], [right, base], [left, base],
    [right, above], [left, above], [right, below], [left, below]];
}

/* Boxes [x, y, w, h] of the numbers of the first ``count`` regions: beside their own region, on no
   other region and no other number, as near as that can be. */
function placeTags(boxes, count, width, height) {
  const placed = [];
  for (let k = 0; k < count; k += 1) {
    let best = null, least = Infinity;
    for (const gap of TAG.gaps) {
      for (const [x, y] of aroundBox(boxes[k], tagWidth(k), TAG.height, gap)) {
        const tag = [x, y, tagWidth(k), TAG.height];
        if (x < -TAG.room || y < -TAG.room || x + tag[2] > width + TAG.room || y + tag[3] > height + TAG.room) continue;
        let cost = gap / 1000;
        for (const box of boxes) cost += overlap(tag, box) / (box[2] * box[3]); // share that is hidden
        for (const other of placed) cost += 10 * Math.sign(overlap(tag, other));
        if (cost < least) [best, least] = [tag, cost];
      }
      if (least <= gap / 1000) break; // nothing is hidden, and nothing nearer will come
    }
    // a region as large as the picture: the number stands in its corner
    placed.push(best ?? [Math.max(boxes[k][0], 0), Math.max(boxes[k][1], 0), tagWidth(k), TAG.height]);
  }
  return placed;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/* The point of closed outlines [x0, y0, x1, y1, ...] that is nearest to a point. */
function nearestOn(outlines, [px, py]) {
  let best = null, least = Infinity;
  for (const points of outlines) {
    for (let k = 0; k < points.length; k += 2) {
      const [x, y] = [points[k], points[k + 1]];
      const [dx, dy] = [points[(k + 2) % points.length] - x, points[(k + 3) % points.length] - y];
      const along = clamp(((px - x) * dx + (py - y) * dy) / (dx * dx + dy * dy || 1), 0, 1);
      const found = [x + along * dx, y + along * dy], away = Math.hypot(found[0] - px, found[1] - py);
      if (away < least) [best, least] = [found, away];
    }
  }
  return best;
}

/* The line between a number and the outlines of its region, as a path; none where they are close. */
function leaderLine([x, y, w, h], outlines) {
  const end = nearestOn(outlines, [x + w / 2, y + h / 2]);
  if (!end) return "";
  const start = [clamp(end[0], x, x + w), clamp(end[1], y, y + h)];
  return Math.hypot(end[0] - start[0], end[1] - start[1]) < 6 ? "" : `M${start}L${end}`;
}

const isSmall = (box, across, down) => Math.max(box[2] * across, box[3] * down) < SMALL;

/* What a region takes on the screen: its box, or that of its ring. */
function screenBox(box, across, down) {
  const [x, y, w, h] = [box[0] * across, box[1] * down, box[2] * across, box[3] * down];
  if (!isSmall(box, across, down)) return [x, y, w, h];
  const side = Math.max(RING.least, Math.hypot(w, h) + 2 * RING.room);
  return [x + (w - side) / 2, y + (h - side) / 2, side, side];
}

const circle = ([x, y, side]) => Array.from({ length: 24 }, (_, k) => [Math.cos, Math.sin].map((f, i) =>
  (i ? y : x) + side / 2 + side / 2 * f(k * Math.PI / 12))).flat();
const ring = ([x, y, side]) => `M${x} ${y + side / 2}a${side / 2} ${side / 2} 0 1 0 ${side} 0a${side / 2} ${side / 2} 0 1 0 ${-side} 0`;

function layOutTags(detail) {
  const stage = byId("stage"), [width, height] = [stage.clientWidth, stage.clientHeight];
  if (!width) return; // the page shows the list
  const [across, down] = [width / detail.width, height / detail.height];
  const boxes = detail.regions.map((region) => screenBox(region.box, across, down));
  const marks = stage.querySelectorAll(".mark");
  const small = detail.regions.map((region) => isSmall(region.box, across, down));
  for (const line of stage.querySelectorAll("path[data-region]")) line.classList.toggle("ringed", small[line.dataset.region]);
  placeTags(boxes, marks.length, width, height).forEach((tag, k) => {
    // what stands in the mark counts from the corner of its region, so that it moves with it
    const [x, y] = [detail.regions[k].box[0] * across, detail.regions[k].box[1] * down];
    const [own, at] = [boxes[k], tag].map(([left, top, w, h]) => [left - x, top - y, w, h]);
    const shifted = (points) => points.map((value, i) => (i % 2 ? value * down - y : value * across - x));
    const outlines = small[k] ? [circle(own)] : detail.regions[k].polygons.map(shifted);
    const d = (small[k] ? ring(own) : "") + leaderLine(at, outlines);
    for (const line of marks[k].querySelectorAll("path")) line.setAttribute("d", d);
    marks[k].querySelector(".tag").setAttribute("style", `left:${at[0]}px;top:${at[1]}px;width:${at[2]}px`);
  });
}

const watchSize = new (globalThis.ResizeObserver ?? class { observe() {} disconnect() {} })(() => layOut());
let layOut = () => {};

function mark(region, k, detail) {
  const place = `left:${100 * region.box[0] / detail.width}%;top:${100 * region.box[1] / detail.height}%`;
  return make("span", { class: "mark", style: place, "aria-hidden": "true" },
    draw("svg", {}, draw("path", { class: "under" }), draw("path")), make("b", { class: "tag" }, String(k + 1)));
}

function showStage(detail) {
  const stage = byId("stage");
  const svg = draw("svg", { viewBox: `0 0 ${detail.width} ${detail.height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const parts = [svg];
  detail.regions.forEach((region, k) => {
    const d = outline(region);
    const marked = k < MAX_ROWS ? { "data-region": k } : {};
    const line = draw("path", { d, ...marked });
    svg.append(draw("path", { d, class: "under", ...marked }), line);
    onPoint(line, k);
    if (k < MAX_ROWS) parts.push(mark(region, k, detail));
  });
  svg.append(...namedBoxes(detail));
  if (detail.assets.heat) parts.unshift(make("img", { id: "heat", src: detail.assets.heat, alt: "Heat map" }));
  if (detail.assets.image) parts.unshift(make("img", { src: detail.assets.image, alt: shownName(detail.image) }));
  else parts.unshift(make("div", { class: "message" }, "No picture was kept for this image."));
  stage.style.setProperty("--ratio", detail.width / detail.height);
  stage.replaceChildren(...parts);
  byId("opacity").closest("label").hidden = !detail.assets.heat;
  byId("outlines").closest("label").hidden = !located(detail.regions.length);
  layOut = () => layOutTags(detail);
  applyControls();
  watchSize.disconnect();
  watchSize.observe(stage);
}

function applyControls() {
  const opacity = Number(byId("opacity").value);
  byId("opacity-value").textContent = `${opacity} %`;
  if (byId("heat")) byId("heat").style.opacity = opacity / 100;
  byId("stage").classList.toggle("plain", !byId("outlines").checked);
  byId("stage").style.setProperty("--zoom", byId("zoom").value);
  layOut();
}

function regionRow(region, k) {
  const cell = (value) => make("td", { class: "number" }, value);
  const row = make("tr", { tabindex: "0", "data-region": k },
    cell(String(k + 1)), make("td", {}, kindName(region.kind), ...(region.allowed ? [make("br"), `allowed: ${region.allowed}`] : [])), cell(percent(region.kind_score)),
    make("td", { class: "number" }, `${region.area.toLocaleString("en")} px`, make("br"), `${number(region.area_percent)} %`),
    cell(number(region.score)), cell(number(region.p_value)));
  onPoint(row, k);
  return row;
}

function regionTable(regions) {
  if (regions.length === 0) return [make("p", {}, "No region lies above the region limit.")];
  const heads = ["#", "Kind", "Share", "Area", "Score", "p"];
  const table = make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((name, k) =>
      make("th", { scope: "col", class: k === 1 ? null : "number" }, name)))),
    make("tbody", {}, ...regions.slice(0, MAX_ROWS).map(regionRow)));
  const box = make("div", { class: "table regions" }, table);
  if (regions.length > MAX_ROWS) box.append(make("p", { class: "quiet" }, `The ${MAX_ROWS} highest of ${regions.length} regions; all are in results.jsonl.`));
  return [box, readingHelp(regions)];
}

/* What the numbers of the table mean, where they stand. */
function readingHelp(regions) {
  const words = [["Score", "highest raw map value in the region"], ["Area", "pixels of the picture, and percent of the inspected area"]];
  if (regions.some((region) => region.kind_score !== null)) {
    words.unshift(["Share", "how much of all kinds' evidence speaks for this kind. It says which kind is likeliest, not that there is damage"]);
  }
  words.push(["p", data.calibrated ? "share of good images, this one counted with them, that reach this score somewhere; the smaller, the rarer on good parts"
    : "not known before a calibration"]);
  return make("dl", { class: "reading" }, ...words.map(([name, text]) => make("div", {}, make("dt", {}, name), make("dd", {}, text))));
}

function fact(name, value) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value));
}

/* The part that a picture shows, and its other pictures. */
function partOf(i) {
  const [name, verdict, score] = data.parts[data.part[i]];
  const others = data.image.map((_, k) => k).filter((k) => k !== i && data.part[k] === data.part[i]);
  const links = others.map((k) => make("li", {}, make("a", { href: link(k) }, splitPath(data.image[k])[1]), ` ${data.verdict[k]}, score ${number(data.score[k])}`));
  return [make("h2", {}, `Part ${shownName(name)}: ${verdict}`),
    make("p", { class: "quiet" }, `Score of the part, the highest of its pictures': ${number(score)}.`),
    ...(links.length > 0 ? [make("ul", {}, ...links)] : [])];
}

function showFindings(i, detail) {
  const [folder, name] = splitPath(data.image[i]);
  const parts = [make("p", { class: "eyebrow path" }, folder), make("h1", { tabindex: "-1" }, name), badge(i)];
  const facts = make("dl", { class: "facts" }, fact("Score", number(data.score[i])), fact("p-value", number(data.p_value[i])));
  if (located(data.count[i])) facts.append(fact("Regions", String(data.count[i])));
  parts.push(facts);
  if (data.part[i] !== null) parts.push(...partOf(i));
  if (data.p_value[i] !== null) parts.push(make("p", { class: "quiet" }, `p-value: ${P_VALUE}.`));
  if (detail) {
    if (detail.counts?.length > 0) facts.append(fact("Defects", detail.counts.map(counted).join("; ")));
    facts.append(fact("Size", `${detail.width} × ${detail.height} px`));
    if (detail.object) facts.append(fact("Product", detail.object));
    if (detail.explanation) parts.push(make("p", { class: "explanation" }, detail.explanation));
    if (detail.answer) parts.push(make("h2", {}, "The model's own words"), make("blockquote", {}, detail.answer));
    parts.push(...showConversation(detail));
    if (detail.notes.length > 0) parts.push(make("h2", {}, "Notes on the file"), make("ul", {}, ...detail.notes.map((note) => make("li", {}, note))));
    if (located(detail.regions.length)) parts.push(make("h2", {}, "Regions"), ...regionTable(detail.regions));
  }
  byId("findings").replaceChildren(...parts);
}

function showLegend() {
  const [low, high] = data.colour_range ?? [null, null];
  if (low === null) return;
  const ends = make("div", { class: "ends" }, make("span", {}, number(low)), make("span", {}, number(high)));
  const ramp = make("div", { class: "ramp", style: `background:linear-gradient(to right,${data.ramp.join(",")})` });
  const share = (data.region_limit - low) / (high - low);
  let limit = "";
  if (data.region_limit !== null && share >= 0 && share <= 1) {
    ramp.append(make("i", { style: `left:${100 * share}%` }));
    ends.append(make("span", { class: "at", style: `left:${100 * share}%` }, share > 0.15 && share < 0.85 ? number(data.region_limit) : ""));
  }
  if (data.region_limit !== null) limit = ` A region is outlined where the map lies above the region limit ${number(data.region_limit)}.`;
  byId("legend").replaceChildren(make("strong", {}, "Raw anomaly map"), ramp, ends,
    make("p", {}, `Colours are fixed for the whole run: one colour is one raw value in every picture. Values up to ${number(low)} are transparent.${limit}`));
}

async function showDetail(i) {
  const fromList = current < 0;
  const hadFocus = document.activeElement !== document.body;
  if (fromList) scrollBefore = window.scrollY;
  current = i;
  byId("overview").hidden = true;
  byId("detail").hidden = false;
  // A card that had the focus is hidden now; hand the focus on so that Tab goes on from here.
  if (fromList && hadFocus) byId("back").focus({ preventScroll: true });
  const place = shown.indexOf(i);
  byId("position").textContent = place < 0 ? "outside the filters" : `${(place + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`;
  byId("previous").disabled = place === 0 || shown.length === 0;
  byId("next").disabled = place === shown.length - 1;
  byId("stage").replaceChildren(make("div", { class: "message" }, "Loading …"));
  byId("rules").replaceChildren();
  byId("words").replaceChildren();
  showFindings(i, null);
  window.scrollTo(0, 0);
  try {
    const detail = await loadDetail(i);
    if (current !== i) return; // the reader has moved on meanwhile
    showStage(detail);
    showRules(detail);
    showCloud(detail);
    showWords(detail);
    showFindings(i, detail);
  } catch (error) {
    if (current === i) byId("stage").replaceChildren(make("div", { class: "message", role: "alert" }, error.message));
  }
}

function showList() {
  const last = current;
  current = -1;
  byId("detail").hidden = true;
  byId("overview").hidden = false;
  if (last < 0) return;
  const place = shown.indexOf(last);
  if (place >= 0 && Math.floor(place / PAGE_SIZE) !== page) {
    page = Math.floor(place / PAGE_SIZE);
    showPage();
  }
  window.scrollTo(0, scrollBefore);
  const card = document.querySelector(`[data-image="${last}"]`);
  card?.focus({ preventScroll: true });
  card?.scrollIntoView({ block: "nearest" });
}

function step(by) {
  const place = shown.indexOf(current);
  const target = place < 0 ? 0 : place + by;
  // replace, so that the browser's Back leads to the list and not through every image seen
  if (target >= 0 && target < shown.length) location.replace(link(shown[target]));
}

let imageNumbers = null;
function route() {
  if (!location.hash.startsWith("#image=")) { showList(); return; }
  if (!imageNumbers) imageNumbers = new Map(data.image.map((_, i) => [link(i), i]).reverse());
  let wanted = location.hash;
  try { wanted = "#image=" + encodeURIComponent(decodeURIComponent(location.hash.slice(7))); } catch { /* not ours: no image is called so */ }
  const i = imageNumbers.get(wanted);
  if (i === undefined) showList(); else showDetail(i);
}

function onKey(event) {
  if (current < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
  const moves = event.target.matches("input[type=range], select"); // these use the arrows themselves
  if (event.key === "Escape") location.hash = "";
  else if (event.key === "ArrowLeft" && !moves) step(-1);
  else if (event.key === "ArrowRight" && !moves) step(1);
  else return;
  event.preventDefault();
}

function start() {
  if (!data) {
    document.body.append(make("p", { class: "banner", role: "alert" }, "summary.js cannot be read. Keep it in the same folder as this page, or write the report again."));
    return;
  }
  buildToolbar();
  showHistogram();
  showLegend();
  select();
  for (const id of ["opacity", "outlines", "zoom"]) byId(id).addEventListener("input", applyControls);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", onKey);
  route();
}
