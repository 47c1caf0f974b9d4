"use strict";
// The routing explorer: the text coloured by expert, and the figures of the layer that is chosen.

const {layers, shown, groupings} = figures;
const LINES = ["solid", "double", "dotted", "dashed", "groove"];  // experts beyond eight share colours, not lines
let highlighted = null;

/** The element of a tag with text, a class and more attributes. Text is set as text, whatever it holds. */
function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

/** Background and underline of an expert. */
function paint(element, expert) {
  const colour = Theme.category(expert);
  const paper = Theme.dark() ? [20, 23, 27] : [255, 255, 255];
  element.style.background = mix(paper, rgb(colour), 11)[4];
  element.style.borderBottomColor = colour;
  element.style.borderBottomStyle = LINES[Math.floor(expert / CATEGORIES.length) % LINES.length];
}

/** Text with its line breaks and spaces to be seen. */
function visible(text) {
  const seen = text.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
  return seen.trim() ? seen : seen.replace(/ /g, "␣") || "∅";
}

function current() {
  const at = Number(chosen("layer"));
  return {at, layer: layers[at], choice: Number(chosen("choice") || 0), byLoss: chosen("colour") === "loss"};
}

/* The text */

const tokens = [];

function buildText() {
  const box = document.getElementById("text");
  shown.pieces_T.forEach((piece, i) => {
    const start = shown.starts.indexOf(i);
    if (start >= 0 && shown.sources[start]) {
      if (i) box.append("\n");
      box.append(make("h3", shown.sources[start]));
    } else if (start > 0) box.append("\n\n");
    const token = make("span", piece.replace(/\n/g, "⏎\n"), {class: "t", tabindex: i ? -1 : 0});
    token.dataset.i = i;
    tokens.push(token);
    box.append(token);
  });
  box.addEventListener("keydown", move);
  box.addEventListener("focusin", (event) => tell(event.target));
  box.addEventListener("pointerover", (event) => tell(event.target));
}

/** Arrow keys, Home and End go from token to token; the text is one stop of the Tab key. */
function move(event) {
  const at = Number(event.target.dataset.i);
  const steps = {ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 10, ArrowUp: at - 10, Home: 0, End: tokens.length - 1};
  if (!(event.key in steps) || Number.isNaN(at)) return;
  event.preventDefault();
  const to = Math.max(0, Math.min(tokens.length - 1, steps[event.key]));
  tokens[at].tabIndex = -1;
  tokens[to].tabIndex = 0;
  tokens[to].focus();
}

function colourText() {
  const {at, choice, byLoss} = current();
  const scale = Theme.sequential();
  tokens.forEach((token, i) => {
    const expert = shown.experts_LKT[at][choice][i];
    token.classList.toggle("off", highlighted !== null && !hasExpert(at, i, highlighted));
    token.dataset.label = byLoss ? `loss ${shown.loss_T[i].toFixed(2)}` : `expert ${expert}, ${percent(shown.weights_LKT[at][choice][i])}`;
    if (byLoss) {
      const colour = scale[Math.min(8, Math.floor(shown.loss_T[i] * 0.8))];
      token.style.background = colour;
      token.style.color = contrast(colour);
      token.style.borderBottomColor = "transparent";
    } else {
      token.style.color = "";
      paint(token, highlighted !== null && hasExpert(at, i, highlighted) ? highlighted : expert);
    }
  });
}

function hasExpert(at, i, expert) { return shown.experts_LKT[at].some((row) => row[i] === expert); }

/** All of a token's experts, in words. */
function tell(token) {
  if (!token.classList.contains("t")) return;
  const i = Number(token.dataset.i), {at, layer} = current();
  const experts = shown.experts_LKT[at].map((row, k) => `expert ${row[i]} (${percent(shown.weights_LKT[at][k][i])})`);
  const path = shown.experts_LKT.map((rows, l) => `${layers[l].layer}: ${rows[0][i]}`).join(", ");
  document.getElementById("detail").textContent =
    `“${visible(shown.pieces_T[i])}”, loss ${shown.loss_T[i].toFixed(2)}. Layer ${layer.layer}: ${experts.join(", ")}. First choice by layer: ${path}.`;
}

/* The experts */

function drawLegend() {
  const {layer} = current();
  const legend = document.getElementById("legend");
  const focused = document.activeElement && document.activeElement.dataset.expert;
  legend.replaceChildren(...layer.experts.map((expert, number) => {
    const button = make("button", "", {type: "button", "aria-pressed": String(highlighted === number)});
    button.dataset.expert = number;
    button.append(chip(number), `${number} · ${percent(expert.load)}`);
    button.addEventListener("click", () => {
      highlighted = highlighted === number ? null : number;
      drawLegend();
      colourText();
    });
    return button;
  }));
  if (focused !== undefined && legend.children[focused]) legend.children[focused].focus();
}

function chip(expert) {
  const box = make("span", "", {class: "chip", "aria-hidden": "true"}), square = make("i");
  paint(square, expert);
  box.append(square);
  return box;
}

function row(cells, tag = "td") {
  const line = make("tr");
  for (const cell of cells) {
    if (cell instanceof Node) line.append(cell);
    else line.append(make(tag, cell, tag === "th" ? {scope: "col"} : {}));
  }
  return line;
}

function drawExperts() {
  const {layer} = current();
  const most = Math.max(...layer.experts.map((e) => e.load));
  const measured = layer.experts.some((e) => e.without);
  const head = make("thead"), body = make("tbody");
  head.append(row(["expert", "load", "first choice", ...(measured ? ["rise without it"] : []), "typical tokens"], "th"));
  layer.experts.forEach((expert, number) => {
    const name = make("th", "", {scope: "row"});
    name.append(chip(number), String(number));
    const load = make("td"), bar = make("span", "", {class: "bar"});
    bar.style.width = `${(5 * expert.load) / most}rem`;
    load.append(bar, percent(expert.load, 1));
    const rise = expert.without;
    const without = rise ? [`${rise.rise.toFixed(4)} (${bound(rise.low)} to ${bound(rise.high)})`] : measured ? ["not measured"] : [];
    const list = make("td", "", {class: "words"}), box = make("div", "", {class: "tokens"});
    for (const token of expert.tokens) {
      const button = make("button", visible(token.text), {type: "button",
        title: `${token.count} times here, ${percent(token.share)} of its occurrences, ${token.lift.toFixed(1)} times the average`});
      button.addEventListener("click", () => context(token, number));
      button.addEventListener("focus", () => context(token, number));
      box.append(button);
    }
    list.append(box);
    body.append(row([name, load, percent(expert.first, 1), ...without, list]));
  });
  document.getElementById("expert-table").replaceChildren(head, body);
  document.getElementById("context").textContent = "";
  document.getElementById("typical-note").textContent = layer.state === "no structure"
    ? "The routing of this layer is not clear of chance: any router, trained or not, has tokens that go to one expert only, and these lists are no more than that."
    : "Typical tokens: those whose share here is the most above average; press one to see it in the text.";
}

const bound = (value) => (value === null ? "?" : value.toFixed(4));

function context(token, number) {
  const place = document.getElementById("context"), mark = make("strong", visible(token.text));
  place.replaceChildren(
    `Expert ${number}: ${token.count} times, ${percent(token.share)} of all its occurrences, ${token.lift.toFixed(1)} times the average. “… ${visible(token.before)}`,
    mark, `${visible(token.after)} …”`);
}

/* Kinds of tokens */

function drawShares() {
  const {layer} = current();
  const colours = Theme.diverging();
  document.getElementById("shares").replaceChildren(...groupings.map((grouping) => {
    const box = make("div"), one = layer.structure[grouping.name];
    box.append(make("h3", grouping.title));
    box.append(make("p", `${one.bits.toFixed(4)} bits; with shuffled weights ${one.shuffled_mean.toFixed(4)}, at most ${one.shuffled_high.toFixed(4)}: ${one.found ? "structure" : one.shuffles ? "no more than chance" : "no baseline"}.`, {class: "quiet"}));
    const scroll = make("div", "", {class: "scroll", tabindex: 0, role: "region", "aria-label": grouping.title});
    const table = make("table", "", {class: "heat"}), head = make("thead"), body = make("tbody");
    head.append(row(["", "tokens", ...layer.experts.map((_, number) => String(number))], "th"));
    layer.shares[grouping.name].forEach((shares, category) => {
      const cells = shares.map((share, expert) => {
        const cell = make("td", percent(share)), load = layer.experts[expert].load;
        const level = load && share ? Math.max(-2, Math.min(2, Math.log2(share / load))) : share ? 2 : load ? -2 : 0;
        const index = Math.round((level + 2) * 2);
        cell.style.background = colours[index];
        cell.style.color = contrast(colours[index]);
        return cell;
      });
      body.append(row([make("th", grouping.categories_C[category], {scope: "row"}), grouping.tokens_C[category].toLocaleString("en"), ...cells]));
    });
    table.append(head, body);
    scroll.append(table);
    box.append(scroll);
    return box;
  }));
}

/** Black or white, whichever reads better. */
function contrast(hex) {
  const [r, g, b] = rgb(hex).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff";
}

/* Pairs, flow, changes */

function drawMatrix(id, matrix, level, rows, axes, low, high, palette) {
  const data = {left: [], right: [], bottom: [], top: [], level: [], value: [], from: [], to: []};
  matrix.forEach((line, from) => line.forEach((value, to) => {
    if (value === null) return;
    data.left.push(to - 0.5);
    data.right.push(to + 0.5);
    data.bottom.push(from - 0.5);
    data.top.push(from + 0.5);
    data.level.push(level(value));
    data.value.push(value);
    data.from.push(from);
    data.to.push(to);
  }));
  const size = matrix.length;
  const plot = chart({height: 320, x_axis_label: axes[1], y_axis_label: axes[0],
    x_range: new Bokeh.Range1d({start: -0.5, end: size - 0.5}), y_range: new Bokeh.Range1d({start: size - 0.5, end: -0.5})});
  const stride = Math.ceil(size / 16), ticks = Array.from({length: Math.ceil(size / stride)}, (_, i) => i * stride);
  plot.xaxis.ticker = new Bokeh.FixedTicker({ticks});
  plot.yaxis.ticker = new Bokeh.FixedTicker({ticks});
  plot.ygrid.grid_line_color = null;
  cells(plot, data, palette, low, high, rows, {low_color: palette[0]}).name = id;
  show(plot, document.getElementById(id));
}

/** The greatest entries of a matrix, in words. */
function greatest(matrix, write, symmetric) {
  const all = [];
  matrix.forEach((line, i) => line.forEach((value, j) => { if (value !== null && (!symmetric || i < j)) all.push([value, i, j]); }));
  return all.sort((a, b) => b[0] - a[0]).slice(0, 3).map(([value, i, j]) => write(value, i, j)).join("; ");
}

function drawTogether() {
  const {layer} = current();
  const pairs = layer.pairs, flow = figures.flow.find((one) => one.layer === layer.layer);
  const say = (id, text) => { document.getElementById(id).textContent = text; };
  say("pairs-text", pairs ? `Strongest: ${greatest(pairs, (v, i, j) => `${i} with ${j}, ${v.toFixed(2)} times`, true)}.`
    : figures.experts_per_token < 2 ? "Each token has one expert." : "Too many experts to draw.");
  if (pairs) {
    drawMatrix("pairs", pairs, (v) => (v ? Math.max(-2, Math.min(2, Math.log2(v))) : -2), [["experts", "@from and @to"], ["together", "@value{0.00} times expected"]],
      ["expert", "expert"], -2, 2, Theme.diverging());
  }
  say("flow-text", flow ? `${flow.bits.toFixed(3)} bits; between different occurrences of one token ${flow.bits_same_token.toFixed(3)}, which the token alone explains; by chance ${flow.bits_shuffled.toFixed(3)}.` +
    (flow.shares ? ` Strongest: ${greatest(flow.shares, (v, i, j) => `${i} to ${j}, ${percent(v)}`)}.` : "") : "This is the last layer, or the next one is not shown.");
  if (flow && flow.shares) {
    drawMatrix("flow", flow.shares, (v) => v, [["from", "@from"], ["to", "@to in layer " + flow.to_layer], ["share", "@value{0.0%}"]],
      [`expert of layer ${flow.layer}`, `expert of layer ${flow.to_layer}`], 0, 1, Theme.sequential());
  }
}

function drawChanges() {
  const target = document.getElementById("changes-plot");
  if (!target) return;
  const names = figures.changes.map((change) => change.to_name);
  const plot = chart({height: 260, x_range: new Bokeh.FactorRange({factors: names}), y_axis_label: "share of the tokens", y_range: new Bokeh.Range1d({start: 0, end: 1})});
  plot.yaxis.formatter = new Bokeh.NumeralTickFormatter({format: "0%"});
  const renderers = [];
  figures.changes[0].changed_L.forEach((_, layer) => {
    const data = {x: names, y: figures.changes.map((c) => c.changed_L[layer]), chance: figures.changes.map((c) => c.by_chance_L[layer]), layer: names.map(() => layer)};
    const source = new Bokeh.ColumnDataSource({data, name: `changes/${layer}`});
    const colour = Theme.category(layer);
    plot.line({x: {field: "x"}, y: {field: "chance"}, source, line_color: colour, line_dash: [2, 4]});
    plot.line({x: {field: "x"}, y: {field: "y"}, source, line_color: colour, line_width: 2});
    renderers.push(plot.scatter({x: {field: "x"}, y: {field: "y"}, source, size: 8, fill_color: colour, line_color: null}));
  });
  hover(plot, renderers, [["layer", "@layer"], ["changed", "@y{0.0%}"], ["by chance", "@chance{0.0%}"], ["up to", "@x"]]);
  show(plot, target);
}

buildText();
keepDrawn(() => {
  const {at, layer, choice, byLoss} = current();
  for (const place of document.querySelectorAll("[data-layer]")) place.textContent = layer.layer;
  drawLegend();
  colourText();
  drawExperts();
  drawShares();
  drawTogether();
  drawChanges();
  document.documentElement.dataset.drawn = JSON.stringify({layer: at, choice, byLoss, dark: Theme.dark()});
});
