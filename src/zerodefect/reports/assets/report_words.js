
/* ---- words on the picture, and the area that words name ---- */

function overlaid(detail, name, ...caption) {
  const layers = ["image", name].filter((one) => detail.assets[one])
    .map((one) => make("img", { src: detail.assets[one], alt: "" }));
  return make("figure", { "data-overlay": name },
    make("div", { class: "layers", style: `aspect-ratio:${detail.width} / ${detail.height}` }, ...layers),
    make("figcaption", {}, ...caption));
}

function wordCaption(one) {
  const [low, high] = one.span;
  return [make("strong", {}, one.word), ` ${number(low)} to ${number(high)}, highest at ${one.at.join(", ")}`,
    ...(one.remark ? [make("br"), one.remark] : [])];
}

/* One scale for all words and pictures: what is not above its lower end stays transparent. */
function wordLegend() {
  const [low, high] = data.words.range;
  return make("div", { class: "word-legend" },
    make("div", { class: "ramp", style: `background:linear-gradient(to right,${data.words.ramp.join(",")})` }),
    make("div", { class: "ends" }, make("span", {}, number(low)), make("span", {}, number(high))),
    make("p", { class: "quiet" }, `How much rather a place speaks for the word than for no word, on one scale for all pictures: ${number(low)} for neither, and up to there transparent. It shows what the model takes for the word, not that it is there.`));
}

function showWords(detail) {
  const parts = [];
  if (detail.area) {
    const share = `${number(detail.area.percent)} % of the picture`;
    parts.push(make("h2", {}, "Inspected area"), make("div", { class: "overlays" },
      overlaid(detail, "area", make("strong", {}, detail.area.words), ` ${share}; what is dark was not inspected`)));
  }
  if (detail.words?.length > 0) {
    parts.push(make("h2", {}, "Words on the picture"), make("div", { class: "overlays" },
      ...detail.words.map((one, k) => overlaid(detail, `word${k}`, ...wordCaption(one)))), wordLegend());
  }
  byId("words").replaceChildren(...parts);
}
