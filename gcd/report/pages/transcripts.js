"use strict";
// All that is shown comes from the element #records, and all that is chosen from the address:
// #task=…&row=…&row=…&outcome=…&sample=…&q=…. Texts get onto the page as text nodes only.

const { tasks, texts } = JSON.parse(document.getElementById("records").textContent);
const opened = new Set(); // keys of the samples that the reader has open

function byId(id) {
  return document.getElementById(id);
}

/** A new element; `children` are elements or strings. */
function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function readable(outcome) {
  return outcome.replaceAll("_", " ");
}

function succeeded(episode) {
  return episode.outcome === "success";
}

/** One character for an episode, or for a row that has none. */
function sign(episode) {
  if (episode === null) return "–";
  return { success: "✓", partly_right: "◐" }[episode.outcome] ?? "✗";
}

// --- What is chosen ---------------------------------------------------------------------------

function readChoice() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const query = fields.get("q") ?? "";
  return {
    task: fields.get("task") ?? "",
    rows: fields.getAll("row"),
    outcome: fields.get("outcome") ?? "",
    sample: fields.get("sample") ?? "",
    query,
    // The parentheses make split() keep what matched.
    pattern: query && new RegExp(`(${query.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")})`, "iu"),
  };
}

function address(choice) {
  const fields = new URLSearchParams();
  if (choice.task) fields.append("task", choice.task);
  for (const row of choice.rows) fields.append("row", row);
  if (choice.outcome) fields.append("outcome", choice.outcome);
  if (choice.sample) fields.append("sample", choice.sample);
  if (choice.query) fields.append("q", choice.query);
  return `#${fields}`;
}

function rowNames() {
  return new Set(tasks.flatMap((task) => task.rows.map((row) => row.name)));
}

/** Places in `task.rows` of the rows to show. */
function shownRows(task, choice) {
  const places = task.rows.keys();
  return [...places].filter(
    (place) => !choice.rows.length || choice.rows.includes(task.rows[place].name),
  );
}

function hasOutcome(episodes, outcome) {
  const successes = episodes.filter(succeeded).length;
  if (outcome === "") return true;
  if (outcome === "differs") return 0 < successes && successes < episodes.length;
  if (outcome === "failed") return successes < episodes.length;
  return episodes.some((episode) => episode.outcome === outcome);
}

/** The places in `texts` of all that a sample says in `episodes`. */
function messages(sample, episodes) {
  const turns = episodes.flatMap((episode) => episode.turns);
  return [
    sample.problem,
    ...episodes.map((episode) => episode.error),
    ...turns.flatMap((turn) => [turn.reply, turn.content, turn.observation]),
  ].filter((place) => place !== null);
}

/** The samples of `task` that fit the choice; `found` are the texts that hold the query. */
function chosenSamples(task, choice, found) {
  if (choice.task && choice.task !== task.name) return [];
  const places = shownRows(task, choice);
  return task.samples.filter((sample) => {
    if (choice.sample && choice.sample !== sample.index) return false;
    const episodes = places.map((place) => sample.episodes[place]).filter(Boolean);
    if (!hasOutcome(episodes, choice.outcome)) return false;
    if (!choice.query) return true;
    const labels = [sample.index, ...Object.values(sample.groups)];
    return (
      labels.some((label) => choice.pattern.test(label)) ||
      messages(sample, episodes).some((place) => found[place])
    );
  });
}

// --- What is shown ----------------------------------------------------------------------------

/** `text` as text nodes, with what was searched for in <mark>. */
function marked(text, pattern) {
  if (!pattern) return [text];
  return text
    .split(pattern)
    .map((part, place) => (place % 2 ? element("mark", { textContent: part }) : part));
}

/** A message in its box; `file` holds the whole of one that was cut. */
function box(label, place, file, choice) {
  const [text, cut] = texts[place];
  const parts = [element("p", { className: "label" }, label)];
  if (text) parts.push(element("pre", { dir: "auto" }, ...marked(text, choice.pattern)));
  else parts.push(element("p", { className: "empty" }, "(empty)"));
  if (cut) {
    const where = file ? `; the whole is in ${file}` : "";
    const note = `Cut here: ${cut} more character${cut === 1 ? "" : "s"}${where}.`;
    parts.push(element("p", { className: "cut" }, note));
  }
  return parts;
}

function showTurn(turn, file, choice) {
  const reply = turn.complete ? "Reply" : "Reply, cut by its token limit";
  const shown = element("li", {}, ...box(reply, turn.reply, file, choice));
  if (turn.action === null) {
    shown.append(element("p", { className: "label bad" }, "No valid action"));
  } else if (turn.content === null) {
    shown.append(element("p", { className: "label" }, `Action: ${turn.action}`));
  } else {
    shown.append(...box(`Action: ${turn.action}`, turn.content, file, choice));
  }
  if (turn.observation !== null) {
    shown.append(...box("Environment", turn.observation, file, choice));
  }
  return shown;
}

function showEpisode(row, episode, choice) {
  const title = element("h4", {}, row.name);
  if (episode === null) {
    const why = box("This row failed, and played nothing:", row.failure, null, choice);
    return element("section", { className: "episode" }, title, ...why);
  }
  const badge = element(
    "p",
    { className: `outcome ${episode.outcome}` },
    `${sign(episode)} ${readable(episode.outcome)}`,
  );
  const measures = Object.entries({ score: episode.score, ...episode.measures });
  const facts = [
    ...measures.map(([name, value]) => `${name} ${Number(value.toFixed(3))}`),
    `status: ${episode.status}`,
  ];
  const shown = element(
    "section",
    { className: "episode" },
    title,
    badge,
    element("p", { className: "why" }, episode.why),
    element("p", { className: "facts" }, facts.join(", ")),
  );
  if (episode.error !== null) shown.append(...box("Error", episode.error, row.file, choice));
  if (episode.turns.length) {
    const turns = episode.turns.map((turn) => showTurn(turn, row.file, choice));
    shown.append(element("ol", { className: "turns" }, ...turns));
  }
  return shown;
}

/** The inside of an open sample. */
function showEpisodes(task, sample, choice) {
  const places = shownRows(task, choice);
  const file = task.rows.find((row) => row.file)?.file;
  const only = { ...choice, task: task.name, sample: sample.index };
  const rows = element("div", { className: "rows", tabIndex: 0, role: "group" });
  rows.ariaLabel = `Sample ${sample.index}, row by row`;
  for (const place of places) {
    rows.append(showEpisode(task.rows[place], sample.episodes[place], choice));
  }
  return [
    ...box("Problem", sample.problem, file, choice),
    element("p", {}, element("a", { href: address(only) }, "Only this sample")),
    rows,
  ];
}

function showSample(task, sample, choice) {
  const key = `${task.name}/${sample.index}`;
  const shownEpisodes = shownRows(task, choice).map((place) => sample.episodes[place]);
  const episodes = shownEpisodes.filter(Boolean);
  const labels = [sample.index, ...Object.values(sample.groups)];
  const signs = shownEpisodes.map(sign).join("");
  const summary = element(
    "summary",
    {},
    element("h3", {}, ...marked(labels.join(" · "), choice.pattern)),
    element(
      "span",
      { className: "count" },
      `${episodes.filter(succeeded).length} of ${episodes.length} rows succeed `,
      element("span", { className: "signs", ariaHidden: "true" }, signs),
    ),
    element("span", { className: "problem", dir: "auto" }, texts[sample.problem][0]),
  );
  const shown = element("details", { className: "sample", open: opened.has(key) }, summary);
  // Thousands of boxes take seconds to make: a sample's are made when it is opened.
  const fill = () => {
    if (shown.open && shown.lastChild === summary) {
      shown.append(...showEpisodes(task, sample, choice));
    }
  };
  shown.addEventListener("toggle", () => {
    if (shown.open) opened.add(key);
    else opened.delete(key);
    fill();
  });
  fill();
  return shown;
}

/** Parts of the address that this page has nothing for. */
function unknown(choice) {
  const outcomes = [...byId("outcome").options].map((option) => option.value);
  const samples = tasks.flatMap((task) => task.samples.map((sample) => sample.index));
  const names = tasks.map((task) => task.name);
  return [
    ...(choice.task && !names.includes(choice.task) ? [`task ${choice.task}`] : []),
    ...choice.rows.filter((row) => !rowNames().has(row)).map((row) => `row ${row}`),
    ...(outcomes.includes(choice.outcome) ? [] : [`outcome ${choice.outcome}`]),
    ...(choice.sample && !samples.includes(choice.sample) ? [`sample ${choice.sample}`] : []),
  ];
}

function show() {
  const choice = readChoice();
  byId("task").value = choice.task;
  byId("outcome").value = choice.outcome;
  if (byId("query").value !== choice.query) byId("query").value = choice.query;
  for (const tick of byId("rows").querySelectorAll("input")) {
    tick.checked = choice.rows.includes(tick.value);
  }
  const found = choice.query ? texts.map(([text]) => choice.pattern.test(text)) : [];
  const chosen = tasks.map((task) => [task, chosenSamples(task, choice, found)]);
  const keys = chosen.flatMap(([task, samples]) =>
    samples.map((sample) => `${task.name}/${sample.index}`),
  );
  if (keys.length && !keys.some((key) => opened.has(key))) opened.add(keys[0]);
  const sections = chosen
    .filter(([, samples]) => samples.length)
    .map(([task, samples]) =>
      element(
        "section",
        {},
        element("h2", {}, task.name),
        ...samples.map((sample) => showSample(task, sample, choice)),
      ),
    );
  byId("samples").replaceChildren(...sections);
  const total = tasks.reduce((sum, task) => sum + task.samples.length, 0);
  const nothing = unknown(choice).map((part) => ` This page has no ${part}.`);
  byId("found").textContent = `${keys.length} of ${total} samples.${nothing.join("")}`;
}

function start() {
  for (const task of tasks) byId("task").append(element("option", {}, task.name));
  for (const row of rowNames()) {
    const tick = element("input", { type: "checkbox", name: "row", value: row });
    byId("rows").append(element("label", {}, tick, row));
  }
  byId("filters").addEventListener("input", () => {
    const ticked = byId("rows").querySelectorAll("input:checked");
    const choice = {
      task: byId("task").value,
      rows: [...ticked].map((tick) => tick.value),
      outcome: byId("outcome").value,
      sample: "",
      query: byId("query").value,
    };
    location.replace(address(choice)); // fires hashchange, and fills no history with keystrokes
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", show);
  byId("filters").hidden = false;
  show();
}

start();
