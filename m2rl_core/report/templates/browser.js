// The sample browser. Everything that a model wrote reaches the page as textContent only.
"use strict";
const samples = JSON.parse(document.getElementById("samples").textContent);
const room = document.getElementById("browser");
const filters = ["source", "domain", "verdict", "reward"];
const label = (value) => (value === null ? "none" : String(value));

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function select(name) {
  const box = make("label", "", name + " ");
  const choice = make("select");
  choice.name = name;
  choice.append(new Option("all", ""));
  for (const value of new Set(samples.map((s) => label(s[name])))) choice.append(new Option(value, "=" + value));
  choice.addEventListener("change", list);
  box.append(choice);
  return box;
}

const form = make("form", "filters");
form.append(...filters.map(select));
const words = make("input");
words.type = "search";
words.name = "text";
words.placeholder = "text";
words.setAttribute("aria-label", "text in the question or the response");
words.addEventListener("input", list);
form.addEventListener("submit", (event) => event.preventDefault());
form.append(words);
const count = make("p", "note");
count.setAttribute("aria-live", "polite");
const items = make("ol", "items");
const detail = make("article", "detail");
const halves = make("div", "halves");
halves.append(items, detail);
room.replaceChildren(form, count, halves);

function text(sample) {
  return [...sample.question, ...sample.response].map((message) => message[1]).join("\n").toLowerCase();
}

function chosen(sample) {
  const needle = words.value.toLowerCase();
  const fits = (name) => !form.elements[name].value || form.elements[name].value === "=" + label(sample[name]);
  return filters.every(fits) && (!needle || text(sample).includes(needle));
}

function list() {
  const found = samples.filter(chosen);
  count.textContent = found.length + " of the " + samples.length + " samples in this page";
  items.replaceChildren(...found.map(entry));
  if (found.length) show(found[0], items.firstChild.firstChild);
  else detail.replaceChildren();
}

function entry(sample) {
  const button = make("button", "verdict " + sample.verdict);
  button.type = "button";
  const step = sample.step === null ? "" : " step " + sample.step;
  button.append(make("b", "", sample.source + step), make("span", "", sample.domain + " · " + sample.prompt));
  button.addEventListener("click", () => show(sample, button));
  const item = make("li");
  item.append(button);
  return item;
}

function show(sample, button) {
  for (const other of items.querySelectorAll("[aria-current]")) other.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
  const verdict = make("p", "verdict " + sample.verdict);
  verdict.append(make("b", "", sample.verdict), " reward " + label(sample.reward) + " · " + sample.reason + " · " + sample.finish);
  detail.replaceChildren(verdict);
  for (const [role, content] of [...sample.question, ...sample.response]) {
    const block = make("div", "message " + (["user", "assistant", "system", "tool"].includes(role) ? role : ""));
    block.append(make("small", "", role), make("pre", "", content));
    detail.append(block);
  }
  if (sample.gold) {
    const block = make("div", "message");
    block.append(make("small", "", "ground truth"), make("pre", "", sample.gold));
    detail.append(block);
  }
  if (sample.tokens.length) {
    detail.append(make("small", "", "tokens: grey ones were given, coloured ones sampled, the redder the less likely"));
    detail.append(...stream(sample.tokens));
  }
}

// The tokens, and a line that tells of the one that was clicked or touched what a mouse shows above it.
function stream(tokens) {
  const line = make("pre", "tokens");
  const told = make("p", "note told", "Choose a token to see its log-prob.");
  told.setAttribute("aria-live", "polite");
  for (const [content, logp, version] of tokens) {
    const token = make("span", logp === null ? "given" : "sampled", content);
    token.title = logp === null ? "given, not trained on" : "log-prob " + logp + ", probability " + Math.exp(logp).toPrecision(3) + ", policy version " + version;
    if (logp !== null) token.style.setProperty("--doubt", Math.round(100 * (1 - Math.exp(logp))) + "%");
    token.addEventListener("click", () => (told.textContent = JSON.stringify(content) + ": " + token.title));
    line.append(token);
  }
  return [line, told];
}

list();
