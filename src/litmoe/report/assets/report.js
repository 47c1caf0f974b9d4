"use strict";
// The charts of a run report, drawn from its figures by the choices in the controls.

const AXES = {
  total_tokens: {name: "tokens", units: [[1e12, "trillions"], [1e9, "billions"], [1e6, "millions"], [1e4, "thousands", 1e3]]},
  step: {name: "steps", units: [[1e6, "millions"], [1e5, "thousands", 1e3]]},
  time: {name: "training time", units: [[172800, "days", 86400], [7200, "hours", 3600], [120, "minutes", 60], [0, "seconds", 1]]},
};

/** How to write positions up to `most` on an axis: what to divide by, and the label. */
function scaleOf(axis, most) {
  for (const [from, unit, size] of AXES[axis].units) {
    if (most >= from) return {by: size || from, label: `${AXES[axis].name} (${unit})`};
  }
  return {by: 1, label: AXES[axis].name};
}

/** What the controls say. */
function choices() {
  return {
    axis: chosen("axis"),
    logarithmic: chosen("scale") === "log",
    part: chosen("part"),
    hidden: new Set([...document.querySelectorAll('input[name="run"]:not(:checked)')].map((box) => Number(box.value))),
    run: Number(chosen("load-run") || 0),
    layers: chosen("layers"),
  };
}

/** The stretch of a run that is shown, in steps. */
function stretch(run, part) {
  const last = run.last.step || 0;
  const [from, to] = {all: [0, 1], settled: [0.1, 1], half: [0.5, 1], tenth: [0.9, 1]}[part];
  return [from * last, to * last];
}

/** Points of a curve inside the stretch, as columns; null where there are none. */
function columnsOf(run, curves, name, choice, divide) {
  const curve = curves.values[name];
  if (!curve) return null;
  const [from, to] = stretch(run, choice.part);
  const columns = {x: [], y: [], low: [], high: [], step: [], total_tokens: [], time: []};
  curve.mean.forEach((y, i) => {
    const x = curves[choice.axis][i];
    if (y === null || x === null || curves.step[i] < from || curves.step[i] > to) return;
    columns.x.push(x / divide);
    columns.y.push(y);
    columns.low.push(curve.low ? curve.low[i] : y);
    columns.high.push(curve.high ? curve.high[i] : y);
    for (const axis of Object.keys(AXES)) columns[axis].push(curves[axis][i]);
  });
  return columns.x.length ? columns : null;
}

/** The charts of curves: what each shows, from `curves` or `validation`. */
const CURVES = {
  loss: {label: "nats per token", scalable: true, format: "0.0000", lines: [
    {name: "train_loss", title: "training", band: true}, {name: "val_loss", from: "validation", title: "validation", dots: true}]},
  bits: {label: "bits per byte", scalable: true, format: "0.0000", lines: [
    {name: "val_bits_per_byte", from: "validation", title: "validation", dots: true}]},
  learning_rate: {label: "learning rate", format: "0.00e+0", lines: [{name: "learning_rate", title: "learning rate"}]},
  grad_norm: {label: "gradient norm", format: "0.000", lines: [{name: "grad_norm", title: "gradient norm", band: true}]},
  speed: {label: "tokens per second", format: "0,0", zero: true, lines: [{name: "tokens_per_second", title: "tokens per second", band: true}]},
  memory: {label: "GB", format: "0.00", zero: true, divide: 1e9, lines: [
    {name: "device_memory", title: "device"}, {name: "host_memory", title: "host", dash: [6, 3]}]},
  balance: {label: "maximum over mean", format: "0.00", lines: [{name: "load_max_over_mean", title: "worst layer"}]},
  entropy: {label: "nats", format: "0.000", lines: [{name: "router_entropy", title: "mean over layers"}]},
  dead: {label: "experts", format: "0.0", zero: true, lines: [{name: "dead_experts", title: "all layers"}]},
};

function drawCurves(id, target, choice) {
  const what = CURVES[id];
  const runs = figures.runs.filter((_, i) => !choice.hidden.has(i));
  const most = Math.max(1, ...runs.map((run) => run.last[choice.axis] || 0));
  const scale = scaleOf(choice.axis, most);
  const plot = chart({
    x_axis_label: scale.label, y_axis_label: what.label,
    y_axis_type: choice.logarithmic && what.scalable ? "log" : "linear",
  });
  const last = Math.max(0, ...runs.flatMap((run) => what.lines.map((line) => run.last[line.name] || 0))) / (what.divide || 1);
  plot.y_range = new Bokeh.DataRange1d({default_span: last || 1, ...(what.zero ? {start: 0} : {})});  // of a constant
  if (what.format === "0,0") plot.yaxis.formatter = new Bokeh.NumeralTickFormatter({format: "0,0"});
  const several = figures.runs.length > 1;
  const renderers = [];
  let markers = null;
  figures.runs.forEach((run, number) => {
    if (choice.hidden.has(number)) return;
    what.lines.forEach((line, place) => {
      const columns = columnsOf(run, run[line.from || "curves"], line.name, choice, scale.by);
      if (!columns) return;
      if (what.divide) for (const key of ["y", "low", "high"]) columns[key] = columns[key].map((v) => v / what.divide);
      const colour = Theme.category(several ? number : place);
      const source = new Bokeh.ColumnDataSource({data: columns, name: `${id}/${line.name}/${number}`});
      if (line.band && columns.low.some((low, i) => low !== columns.high[i])) {
        plot.varea({x: {field: "x"}, y1: {field: "low"}, y2: {field: "high"}, source, fill_color: colour, fill_alpha: 0.18});
      }
      const dash = line.dots && several ? [5, 3] : line.dash || [];
      const name = several ? `${run.name}, ${line.title}` : line.title;
      renderers.push(plot.line({x: {field: "x"}, y: {field: "y"}, source, line_color: colour, line_width: 2, line_dash: dash, name}));
      if (line.dots || columns.x.length === 1) {
        plot.scatter({x: {field: "x"}, y: {field: "y"}, source, size: 6, fill_color: colour, line_color: null, marker: several ? "diamond" : "circle"});
      }
      if (id === "loss" && line.name === "train_loss") markers = markEvents(plot, run, columns, choice, scale) || markers;
    });
    for (const event of id === "loss" ? [] : run.events.slice(-40)) {
      const at = event[choice.axis];
      const [from, to] = stretch(run, choice.part);
      if (at === null || event.step < from || event.step > to || QUIET.has(event.kind)) continue;
      plot.add_layout(new Bokeh.Span({
        location: at / scale.by, dimension: "height", line_color: Theme.colours().quiet, line_dash: [2, 4], line_width: 1,
      }));
    }
  });
  hover(plot, renderers, [
    ["curve", "$name"], [what.label, `@y{${what.format}}`], ["step", "@step{0,0}"], ["tokens", "@total_tokens{0,0}"], ["seconds", "@time{0,0}"],
  ], {mode: "mouse", line_policy: "nearest"});
  if (markers) hover(plot, [markers], [["event", "@kind"], ["step", "@step{0,0}"], ["", "@message"]]);
  plot.add_tools(new Bokeh.BoxZoomTool({dimensions: "width"}));
  return show(plot, target);
}

/** Events that are part of every run: in the table, not on the curves. */
const QUIET = new Set(["start", "finished", "saved"]);

/** Triangles on the training curve where something unusual happened. */
function markEvents(plot, run, columns, choice, scale) {
  const [from, to] = stretch(run, choice.part);
  const data = {x: [], y: [], kind: [], step: [], message: []};
  for (const event of run.events) {
    if (event[choice.axis] === null || event.step < from || event.step > to || QUIET.has(event.kind)) continue;
    let near = columns.step.findIndex((step) => step >= event.step);
    if (near < 0) near = columns.step.length - 1;
    data.x.push(event[choice.axis] / scale.by);
    data.y.push(columns.y[near]);
    data.kind.push(event.kind);
    data.step.push(event.step);
    data.message.push(event.message);
  }
  if (!data.x.length) return null;
  const source = new Bokeh.ColumnDataSource({data, name: "events"});
  return plot.scatter({
    x: {field: "x"}, y: {field: "y"}, source, marker: "inverted_triangle", size: 12,
    fill_color: "#e69f00", line_color: Theme.colours().ink,
  });
}

const EVEN_RANGE = 2;  // the colours end at a quarter and at four times an even share: two doublings

/** One heat map per layer: experts by time, coloured by their share of the tokens. */
function drawLoad(choice) {
  const run = figures.runs[choice.run];
  const holder = document.getElementById("load");
  if (!holder) return;
  holder.replaceChildren();
  document.getElementById("load-absent").hidden = Boolean(run.load);
  if (!run.load) return;
  const load = run.load;
  const [from, to] = stretch(run, choice.part);
  const inside = load.step.map((step, i) => i).filter((i) => load.step[i] >= from && load.step[i] <= to && load[choice.axis][i] !== null);
  const most = Math.max(1, run.last[choice.axis] || 0);
  const scale = scaleOf(choice.axis, most);
  const at = inside.map((i) => load[choice.axis][i] / scale.by);
  const edges = at.map((x, k) => (k ? (x + at[k - 1]) / 2 : at.length > 1 ? x - (at[1] - x) / 2 : x - 0.5));
  edges.push(at.length > 1 ? at[at.length - 1] + (at[at.length - 1] - at[at.length - 2]) / 2 : at[0] + 0.5);
  edges[0] = Math.max(0, edges[0]);
  const [first, end] = choice.layers ? choice.layers.split("-").map(Number) : [0, load.relative.length];
  load.relative.slice(first, end).forEach((rows, offset) => {
    const layer = first + offset;
    const box = document.createElement("figure");
    const heading = document.createElement("h3");
    heading.textContent = `Layer ${layer}`;
    const target = document.createElement("div");
    target.className = "plot";
    target.setAttribute("role", "img");
    target.setAttribute("aria-label", `Load of the experts of layer ${layer} over ${AXES[choice.axis].name}; the table below has the figures.`);
    box.append(heading, target);
    holder.append(box);
    const data = {left: [], right: [], bottom: [], top: [], level: [], share: [], expert: [], step: []};
    rows.forEach((row, expert) => inside.forEach((i, k) => {
      if (row[i] === null) return;
      data.left.push(edges[k]);
      data.right.push(edges[k + 1]);
      data.bottom.push(expert - 0.5);
      data.top.push(expert + 0.5);
      data.level.push(row[i] === 0 ? -99 : Math.max(-EVEN_RANGE, Math.min(EVEN_RANGE, Math.log2(row[i]))));
      data.share.push(row[i]);
      data.expert.push(expert);
      data.step.push(load.step[i]);
    }));
    const height = Math.max(110, Math.min(340, 62 + 16 * rows.length));
    const plot = chart({height, x_axis_label: scale.label, y_axis_label: load.pooled > 1 ? "experts by load" : "expert",
      y_range: new Bokeh.Range1d({start: rows.length - 0.5, end: -0.5}),
      x_range: new Bokeh.Range1d({start: edges[0], end: edges[edges.length - 1]})});
    plot.yaxis.ticker = new Bokeh.FixedTicker({ticks: ticksFor(rows.length)});
    plot.ygrid.grid_line_color = null;
    const source = cells(plot, data, Theme.diverging(), -EVEN_RANGE, EVEN_RANGE,
      [["expert", "@expert"], ["load", "@share{0.00} times an even share"], ["step", "@step{0,0}"]]);
    source.name = `load/${layer}`;
    show(plot, target);
  });
  const colours = Theme.diverging();
  document.querySelectorAll("#load-scale i").forEach((box, i) => { box.style.background = i === 0 ? DEAD : colours[(i - 1) * 2]; });
}

/** Every expert, or every so many, so that the labels do not touch. */
function ticksFor(count) {
  const stride = Math.ceil(count / 16);
  return Array.from({length: Math.ceil(count / stride)}, (_, i) => i * stride);
}

keepDrawn(() => {
  const choice = choices();
  for (const box of document.querySelectorAll(".swatch[data-run]")) box.style.background = Theme.category(Number(box.dataset.run));
  for (const target of document.querySelectorAll(".plot[data-chart]")) drawCurves(target.dataset.chart, target, choice);
  for (const swatch of document.querySelectorAll(".swatch[data-line]")) swatch.style.background = Theme.category(Number(swatch.dataset.line));
  for (const part of document.querySelectorAll("[data-of-run]")) part.hidden = Number(part.dataset.ofRun) !== choice.run;
  drawLoad(choice);
  document.documentElement.dataset.drawn = JSON.stringify({...choice, hidden: [...choice.hidden], dark: Theme.dark()});
});
