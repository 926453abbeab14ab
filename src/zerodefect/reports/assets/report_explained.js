/* ---- what chat models say of a picture, and what of it contradicts the evidence ---- */

function entryFacts(entry) {
  const facts = make("dl", { class: "facts" });
  for (const [name, value] of [["Where", entry.location], ["What", entry.kind], ["Its verdict", entry.verdict]]) {
    if (value) facts.append(fact(name, shownName(value)));
  }
  return facts;
}

function entryOf(entry) {
  const from = entry.sent_to ? `${entry.source} at ${entry.sent_to}, which the pictures were sent to` : `${entry.source}, in this process`;
  const parts = [];
  if (entry.question) parts.push(make("p", { class: "question" }, shownName(entry.question)));
  if (entry.fault) parts.push(make("p", { class: "quiet" }, `No answer: ${shownName(entry.fault)}`));
  else parts.push(make("blockquote", {}, shownName(entry.why || "(no sentence)")), entryFacts(entry));
  if (entry.said) parts.push(make("p", { class: "quiet" }, `It said: ${shownName(entry.said)}`));
  for (const sentence of entry.contradictions ?? []) {
    parts.push(make("p", { class: "contradiction" }, make("strong", {}, "Contradiction: "), shownName(sentence)));
  }
  for (const remark of entry.remarks ?? []) parts.push(make("p", { class: "quiet" }, shownName(remark)));
  parts.push(make("p", { class: "quiet source" }, shownName(from)));
  return make("div", { class: "entry" }, ...parts);
}

function showConversation(detail) {
  if (!(detail.conversation?.length > 0)) return [];
  return [make("h2", {}, "What a chat model says"),
    make("p", { class: "quiet" }, "It was not told the verdict, and changes none. A box that it names is drawn dashed."),
    ...detail.conversation.map(entryOf)];
}

/* Boxes that a model names, on the picture. */
function namedBoxes(detail) {
  return (detail.conversation ?? []).flatMap((entry) => entry.boxes ?? []).map(([x, y, width, height]) =>
    draw("rect", { class: "named", x, y, width, height }));
}
