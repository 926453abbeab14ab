
/* ---- rules on the product's components, and where the components lie ---- */

const COMPONENT_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f"];
const TRUTHS = { kept: "good", uncertain: "unsure", broken: "defect" };

function ruleRange(limits) {
  return limits.map(([low, high]) => {
    if (low === null && high === null) return "–";
    if (low === null) return `at most ${number(high)}`;
    if (high === null) return `at least ${number(low)}`;
    return low === high ? number(low) : `${number(low)} to ${number(high)}`;
  }).join(", ");
}

function ruleRow(one, detail) {
  const verdict = TRUTHS[one.truth];
  const word = make("span", { class: `verdict ${verdict}` }, shape(verdict), one.truth);
  const value = one.value === null ? "–" : one.value.map(number).join(", ");
  const row = make("tr", {}, make("td", {}, word), make("td", {}, one.rule), make("td", { class: "number" }, value),
    make("td", { class: "number" }, ruleRange(one.limits)), make("td", { class: "number" }, number(one.p_value)), make("td", { class: "number" }, percent(one.confidence)));
  const light = (on) => {
    byId("rules").querySelectorAll("path[data-component]").forEach((path) => {
      path.classList.toggle("active", on && one.components.includes(Number(path.dataset.component)));
    });
  };
  row.addEventListener("pointerenter", () => light(true));
  row.addEventListener("pointerleave", () => light(false));
  return row;
}

function componentFigure(detail, names) {
  const colour = (one) => COMPONENT_COLOURS[names.indexOf(one.name) % COMPONENT_COLOURS.length];
  const svg = draw("svg", { viewBox: `0 0 ${detail.width} ${detail.height}`, preserveAspectRatio: "none", role: "img", "aria-label": "Components that were found" });
  detail.components.forEach((one, k) => {
    const d = outline(one);
    svg.append(draw("path", { d, class: "under" }),
      draw("path", { d, "data-component": k, style: `stroke:${colour(one)};fill:${colour(one)}`, class: one.sure ? null : "doubtful" }));
  });
  const legend = names.map((name) => {
    const own = detail.components.filter((one) => one.name === name);
    const doubtful = own.filter((one) => !one.sure).length;
    const told = doubtful > 0 ? `${own.length - doubtful} and ${doubtful} doubtful` : String(own.length);
    return make("li", {}, make("i", { style: `background:${COMPONENT_COLOURS[names.indexOf(name) % COMPONENT_COLOURS.length]}` }), ` ${name}: ${told}`);
  });
  const image = detail.assets.image ? [make("img", { src: detail.assets.image, alt: "" })] : [];
  return make("figure", { class: "components" },
    make("div", { class: "layers", style: `aspect-ratio:${detail.width} / ${detail.height}` }, ...image, svg),
    make("figcaption", {}, make("ul", {}, ...legend)));
}

function showRules(detail) {
  const parts = [];
  if (detail.rules?.length > 0) {
    const heads = [["Rule", 2], ["Measured", 1], ["Kept from, to", 1], ["p", 1], ["Confidence", 1]];
    parts.push(make("h2", {}, "Rules"), make("div", { class: "table" }, make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map(([name, span]) => make("th", { scope: "col", colspan: span, class: span === 2 ? null : "number" }, name)))),
      make("tbody", {}, ...detail.rules.map((one) => ruleRow(one, detail))))),
    make("p", { class: "quiet" }, "Numbers are counts, percent of the inspected area, or shares of the container or picture. Confidence is of the least sure part that counts; the outlines of doubtful parts are dashed."));
    if (detail.components.length > 0) parts.push(componentFigure(detail, [...new Set(detail.components.map((one) => one.name))]));
  }
  byId("rules").replaceChildren(...parts);
}
