"use strict";

// Asks /metrics and /readyz each second, and draws what changed. Nothing is kept but the last three minutes.

const EACH_MS = 1000;
const KEPT = 180;
const TIMEOUT_MS = 4000;

/** The last looks at the metrics, the oldest first. */
const looks = [];

const $ = (id) => document.getElementById(id);

/** Samples of the Prometheus text format, by name: each a set of labels and a value. */
function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    if (!samples.has(found[1])) samples.set(found[1], []);
    samples.get(found[1]).push({ labels, value: Number(found[3].replace("Inf", "Infinity")) });
  }
  return samples;
}

/** The sum of a metric over its labels, or over those that have these. */
function sum(samples, name, wanted = {}) {
  const fits = ({ labels }) => Object.entries(wanted).every(([label, value]) => labels[label] === value);
  return (samples.get(name) ?? []).filter(fits).reduce((all, sample) => all + sample.value, 0);
}

function by(samples, name, label) {
  return new Map((samples.get(name) ?? []).map((sample) => [sample.labels[label], sample.value]));
}

/** A quantile of what a histogram took in between two looks, by its buckets; null if that was nothing. */
function quantile(before, after, name, share) {
  const old = by(before, `${name}_bucket`, "le");
  const counts = [...by(after, `${name}_bucket`, "le")]
    .map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count - (old.get(bound) ?? 0)])
    .sort(([one], [other]) => one - other);
  const all = counts.at(-1)?.[1] ?? 0;
  if (all <= 0) return null;
  let [low, under] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= share * all) {
      return bound === Infinity ? low : low + (bound - low) * ((share * all - under) / Math.max(count - under, 1));
    }
    [low, under] = [bound, count];
  }
  return low;
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (value) => (value >= 10_000 ? short.format(value) : number.format(value >= 100 ? Math.round(value) : value));
const millis = (seconds) => (seconds >= 1 ? `${number.format(seconds)} s` : `${count(seconds * 1000)} ms`);
const bytes = (value) => (value >= 2 ** 30 ? `${number.format(value / 2 ** 30)} GiB` : `${number.format(value / 2 ** 20)} MiB`);
const percent = (share) => `${number.format(share * 100)} %`;

const rate = (name) => (before, after, seconds) => Math.max(0, sum(after, name) - sum(before, name)) / seconds;

/** The rate over some looks, of a count that goes up in whole seconds. */
const slow_rate = (name) => (_, after) => {
  const [first, last] = [looks.at(-Math.min(looks.length, 16)), looks.at(-1)];
  return Math.max(0, sum(after, name) - sum(first.samples, name)) / (last.at - first.at);
};

/** What is drawn: of each a figure, and for some a second one beside it. */
const CHARTS = [
  { title: "Messages committed", unit: "a second", show: count, one: rate("sealcast_messages_committed_total") },
  { title: "Entries delivered", unit: "a second", show: count, one: rate("sealcast_entries_delivered_total") },
  {
    title: "From submit to commit", unit: "for half", show: millis, second: "99 %:",
    one: (before, after) => quantile(before, after, "sealcast_submit_seconds", 0.5),
    two: (before, after) => quantile(before, after, "sealcast_submit_seconds", 0.99),
  },
  {
    title: "From commit to hand-over", unit: "for half", show: millis, second: "99 %:",
    one: (before, after) => quantile(before, after, "sealcast_hand_over_seconds", 0.5),
    two: (before, after) => quantile(before, after, "sealcast_hand_over_seconds", 0.99),
  },
  { title: "Connections", unit: "open", show: count, one: (_, after) => sum(after, "sealcast_connections") },
  {
    title: "Fullest queue", unit: "of its bound", show: percent, least: 1,
    one: (_, after) => Math.max(0, ...queues(after).map(({ depth, bound }) => (bound > 0 ? depth / bound : 0))),
  },
  {
    title: "Processor", unit: "of one core", show: percent, least: 1,
    one: slow_rate("process_cpu_seconds_total"),
  },
  { title: "Memory", unit: "resident", show: bytes, one: (_, after) => sum(after, "process_resident_memory_bytes") },
  { title: "Refused requests", unit: "a second", show: count, least: 1, one: rate("sealcast_refusals_total") },
];

function queues(samples) {
  const depths = by(samples, "sealcast_queue_depth", "queue");
  const full = by(samples, "sealcast_queue_full_total", "queue");
  return [...by(samples, "sealcast_queue_bound", "queue")].map(([queue, bound]) => ({
    queue, bound, depth: depths.get(queue) ?? 0, full: full.get(queue) ?? 0,
  }));
}

function element(name, parent, properties = {}) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  parent.append(made);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function svg(name, parent, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  parent.append(made);
  return made;
}

for (const chart of CHARTS) {
  const card = element("article", $("charts"));
  element("h3", card, { textContent: chart.title });
  const now = element("p", card, { className: "now" });
  chart.figure = element("output", now, { textContent: "–" });
  element("span", now, { textContent: chart.unit });
  if (chart.two) chart.beside = element("span", now, { className: "two" });
  chart.picture = svg("svg", card, { class: "chart", viewBox: `0 0 ${KEPT - 1} 84`, preserveAspectRatio: "none", role: "img" });
  for (const y of [0.5, 42, 83.5]) svg("line", chart.picture, { x1: 0, x2: KEPT - 1, y1: y, y2: y });
  chart.area = svg("path", chart.picture, { class: "area" });
  chart.second_line = svg("path", chart.picture, { class: "two" });
  chart.line = svg("path", chart.picture, { class: "one" });
  const scale = element("p", card, { className: "scale" });
  chart.most = element("span", scale);
  element("span", scale, { textContent: "3 minutes to now" });
  chart.values = [];
}

/** The lines through values, the newest at the right; a gap where nothing is known. */
function path(values, top) {
  let [text, is_open] = ["", false];
  values.forEach((value, place) => {
    if (value === null) return void (is_open = false);
    const x = KEPT - values.length + place;
    const y = 82 - (value / top) * 80;
    text += `${is_open ? "L" : "M"}${x} ${y.toFixed(1)}`;
    is_open = true;
  });
  return text;
}

function draw(chart) {
  const [ones, twos] = [chart.values.map(([one]) => one), chart.values.map(([, two]) => two)];
  const known = [...ones, ...twos].filter((value) => value !== null);
  const top = Math.max(chart.least ?? 0, ...known, Number.MIN_VALUE) * 1.05;
  chart.line.setAttribute("d", path(ones, top));
  chart.second_line.setAttribute("d", path(twos, top));
  const filled = chart.two ? "" : path(ones, top);
  const first = KEPT - ones.length + Math.max(0, ones.findIndex((value) => value !== null));
  chart.area.setAttribute("d", filled && `${filled}L${KEPT - 1} 84L${first} 84Z`);
  const [one, two] = chart.values.at(-1) ?? [null, null];
  const text = one === null ? "–" : chart.show(one);
  chart.figure.textContent = text;
  if (chart.beside) chart.beside.textContent = two === null ? "" : `${chart.second} ${chart.show(two)}`;
  const most = known.length > 0 ? Math.max(...known) : null;
  chart.most.textContent = most === null ? "nothing yet" : `at most ${chart.show(most)}`;
  chart.picture.setAttribute("aria-label", `${chart.title}: ${text} ${chart.unit}, ${chart.most.textContent} in three minutes`);
}

function rows(body, lines, nothing) {
  body.replaceChildren();
  for (const line of lines.length > 0 ? lines : [[nothing]]) {
    const row = element("tr", body);
    const columns = lines.length > 0 ? 1 : body.parentElement.tHead.rows[0].cells.length;
    line.forEach((text) => element("td", row, { textContent: text, colSpan: columns }));
  }
}

function facts(samples, up_s) {
  const shown = [
    ["Runs for", duration(up_s)],
    ["Logged in", count(sum(samples, "sealcast_connections", { state: "authenticated" }))],
    ["Chats loaded", count(sum(samples, "sealcast_chats_loaded"))],
    ["Messages on the way", count(sum(samples, "sealcast_messages_in_flight"))],
    ["Threads", count(sum(samples, "process_threads"))],
    ["Descriptors", `${count(sum(samples, "process_open_fds"))} of ${count(sum(samples, "process_max_fds"))}`],
    ["Database connections", `${count(sum(samples, "sealcast_pool_connections", { state: "in_use" }))} in use, ${count(sum(samples, "sealcast_pool_waiting"))} waited for`],
    ["Received, sent", `${bytes(sum(samples, "sealcast_received_bytes_total"))}, ${bytes(sum(samples, "sealcast_sent_bytes_total"))}`],
    ["Panics", count(sum(samples, "sealcast_panics_total"))],
  ];
  $("facts").replaceChildren();
  for (const [name, value] of shown) {
    element("dt", $("facts"), { textContent: name });
    element("dd", $("facts"), { textContent: value });
  }
}

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes} min` : minutes > 0 ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function say(state, sentence, reasons) {
  document.body.dataset.state = state;
  if ($("sentence").textContent !== sentence) $("sentence").textContent = sentence;
  document.title = state === "well" ? "Sealcast is well" : `Sealcast: ${sentence}`;
  const text = reasons.join("\n");
  if ($("reasons").dataset.text === text) return;
  $("reasons").dataset.text = text;
  $("reasons").replaceChildren();
  reasons.forEach((reason) => element("li", $("reasons"), { textContent: reason }));
}

const WANTING = {
  draining: "It is going down: it takes no new sessions, and answers what is open.",
  "database not reachable": "Postgres does not answer. Senders are told to try again, and nothing acknowledged is lost.",
  "writer not alive": "A writer has ended and is being started again.",
  "no answer": "Whether it is ready is not answered: Postgres hangs, or the machine is overloaded.",
};

/** What is wrong though the broker is ready, in plain words. */
function worries(samples) {
  const found = [];
  for (const { queue, depth, bound } of queues(samples)) {
    if (bound > 0 && depth >= 0.9 * bound) found.push(`The queue ${queue} is nearly full: ${count(depth)} of ${count(bound)}.`);
  }
  const panics = sum(samples, "sealcast_panics_total");
  if (panics > 0) found.push(`There were ${count(panics)} panics: faults of the program, each with a line in the log.`);
  const [open, most] = [sum(samples, "process_open_fds"), sum(samples, "process_max_fds")];
  if (most > 0 && open > 0.9 * most) found.push(`Descriptors run short: ${count(open)} of ${count(most)}.`);
  return found;
}

let last_answer = null;
let wanting = [];

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" });
  return { status: answer.status, text: await answer.text() };
}

function take_in(text) {
  const samples = parse(text);
  const at = performance.now() / 1000;
  // A count that goes back is of another process: what was before says nothing of it.
  const started = sum(samples, "process_start_time_seconds");
  if (looks.length > 0 && looks[0].started !== started) looks.length = 0;
  looks.push({ at, samples, started });
  if (looks.length > KEPT) looks.shift();
  const before = looks.at(-2);
  for (const chart of CHARTS) {
    const of = (figure) => (figure && before ? figure(before.samples, samples, at - before.at) : null);
    chart.values.push([of(chart.one), of(chart.two)]);
    if (chart.values.length > KEPT) chart.values.shift();
    draw(chart);
  }
  rows($("queues"), queues(samples).map(({ queue, depth, bound, full }) => [queue, count(depth), count(bound), count(full)]), "none yet");
  const minute = looks.at(-Math.min(looks.length, 61)).samples;
  const old = by(minute, "sealcast_refusals_total", "code");
  const refusals = [...by(samples, "sealcast_refusals_total", "code")].filter(([, all]) => all > 0).sort(([, one], [, other]) => other - one);
  rows($("refusals"), refusals.slice(0, 8).map(([code, all]) => [code, count(all - (old.get(code) ?? 0)), count(all)]), "none so far");
  const up_s = started > 0 ? Date.now() / 1000 - started : 0;
  facts(samples, up_s);
  const version = samples.get("sealcast_build_info")?.[0]?.labels.version ?? "";
  $("build").textContent = `version ${version}, runs for ${duration(up_s)}`;
  if (wanting.length > 0) return say("ill", "Not ready", wanting.map((reason) => WANTING[reason] ?? reason));
  const found = worries(samples);
  if (found.length > 0) return say("ill", "Serving, but look at this", found);
  const live = sum(samples, "sealcast_connections", { state: "authenticated" });
  say("well", "All is well", [`Serving ${count(live)} sessions; Postgres answers.`]);
}

/** Asked by itself: a Postgres that hangs holds this answer up, and not the figures. */
async function look_whether_ready() {
  try {
    const { status, text } = await ask("readyz");
    wanting = status === 200 ? [] : text.trim().split("\n");
  } catch {
    wanting = ["no answer"];
  }
}

async function look() {
  const ready = look_whether_ready();
  try {
    const { status, text } = await ask("metrics");
    if (status !== 200) throw new Error(`status ${status}`);
    await Promise.race([ready, new Promise((enough) => setTimeout(enough, EACH_MS))]);
    take_in(text);
    last_answer = new Date();
  } catch {
    const since = last_answer ? `No answer since ${last_answer.toLocaleTimeString()}.` : "No answer yet.";
    say("away", "The broker does not answer", [since, "Look at the process and its log; what it acknowledged is in Postgres."]);
  }
  setTimeout(look, EACH_MS);
}

look();
