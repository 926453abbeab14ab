// As much of a browser as the report's page asks for, so that Node can run its script:
//   node fake_browser.js report.html 'expression' -> its value as JSON, after the page has started.
"use strict";
const fs = require("fs");

class Node {
  constructor(tag) {
    Object.assign(this, { tag, attributes: {}, children: [], names: new Set(), parent: null });
    Object.assign(this, { hidden: false, value: "", checked: true, clientWidth: 640, clientHeight: 480 });
    this.style = { setProperty: (name, value) => { this.style[name] = value; } };
    this.classList = { toggle: (name, on) => (on ? this.names.add(name) : this.names.delete(name)) };
  }

  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name === "class") String(value).split(" ").forEach((one) => this.names.add(one));
    if (name === "value") this.value = String(value);
  }

  append(...nodes) {
    for (const node of nodes) if (node instanceof Node) node.parent = this;
    this.children.push(...nodes);
  }

  replaceChildren(...nodes) { this.children = []; this.append(...nodes); }
  get dataset() { return { region: this.attributes["data-region"] }; }
  set textContent(text) { this.children = [String(text)]; }
  get textContent() { return this.children.map((one) => (one instanceof Node ? one.textContent : one)).join(" "); }
  get inside() { return this.children.flatMap((one) => (one instanceof Node ? [one, ...one.inside] : [])); }

  fits(selector) { // tag, .class, :not(.class), [attribute] and [attribute="value"]
    const [, tag, parts] = selector.match(/^([a-z]*)(.*)$/);
    const checks = [...parts.matchAll(/:not\(\.([a-z]+)\)|\.([a-z]+)|\[([a-z-]+)(?:="([^"]*)")?\]/g)];
    return (!tag || tag === this.tag) && checks.every(([, not, has, name, value]) => (not ? !this.names.has(not)
      : has ? this.names.has(has) : name in this.attributes && (value === undefined || this.attributes[name] === value)));
  }

  querySelectorAll(selector) { return this.inside.filter((one) => one.fits(selector)); }
  querySelector(selector) { return this.querySelectorAll(selector)[0] ?? null; }
  closest() { return this.parent ?? new Node("label"); }
  addEventListener() {}
  scrollIntoView() {}
  focus() {}
}

const html = fs.readFileSync(process.argv[2], "utf8");
const named = {};
for (const [, tag, id] of html.matchAll(/<([a-z]+)[^>]*\bid="([a-z-]+)"/g)) named[id] = new Node(tag);
Object.assign(named.zoom, { value: "1" });
Object.assign(named.opacity, { value: "70" });
Object.assign(named.sort, { value: "score-down" });
const verdicts = ["defect", "unsure", "good"].map((value) => ({ value }));
globalThis.window = { scrollY: 0, scrollTo() {}, addEventListener() {} };
globalThis.location = { hash: "", replace() {} };
globalThis.document = {
  getElementById: (id) => named[id] ?? named.stage.querySelector(`[id="${id}"]`),
  createElement: (tag) => new Node(tag),
  createElementNS: (space, tag) => new Node(tag),
  querySelectorAll: () => verdicts,
  querySelector: () => null,
  addEventListener() {},
  body: new Node("body"),
  head: new Node("head"),
};
const scripts = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map(([, script]) => script);
eval(`${scripts.join("\n")}
(async () => console.log(JSON.stringify(await (${process.argv[3]}))))();`);
