"use strict";
// What both pages share: the figures, the theme, and charts in the look of the page. Draws with BokehJS.

const figures = JSON.parse(document.getElementById("figures").textContent);

/** Colours that people with any colour vision tell apart (Okabe and Ito), in an order that keeps neighbours apart. */
const CATEGORIES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f"];
const DEAD = "#d100d1";

const Theme = {
  choice: "system",
  dark() {
    if (this.choice !== "system") return this.choice === "dark";
    return window.matchMedia("(prefers-color-scheme: dark)").matches;
  },
  apply() { document.documentElement.dataset.theme = this.dark() ? "dark" : "light"; },
  colours() {
    return this.dark()
      ? {ink: "#e8eaed", quiet: "#a3acb8", line: "#333b45", paper: "#14171b"}
      : {ink: "#1b1f24", quiet: "#57606a", line: "#e1e5ea", paper: "#ffffff"};
  },
  category(index) {
    const colour = CATEGORIES[index % CATEGORIES.length];
    return this.dark() && index % CATEGORIES.length === 0 ? "#4aa8e0" : colour;
  },
  /** From few over even to many: blue, neutral, red; nine steps. */
  diverging() {
    const [few, even, many] = this.dark()
      ? [[74, 168, 224], [44, 50, 58], [240, 130, 90]]
      : [[5, 80, 150], [244, 244, 242], [178, 40, 25]];
    return mix(few, even, 5).concat(mix(even, many, 5).slice(1));
  },
  /** From none to much; nine steps. */
  sequential() {
    return this.dark() ? mix([29, 33, 39], [124, 192, 255], 9) : mix([246, 247, 249], [5, 80, 150], 9);
  },
};

/** Colours between two, both ends included, as hex. */
function mix(from, to, steps) {
  const hex = (part) => Math.round(part).toString(16).padStart(2, "0");
  return Array.from({length: steps}, (_, step) =>
    "#" + from.map((part, i) => hex(part + ((to[i] - part) * step) / (steps - 1))).join(""));
}

const standing = [];  // promises of the views on the page, to take them away again

/** Take all charts away. */
function clearCharts() {
  for (const view of standing.splice(0)) view.then(remove).catch(() => {});
  for (const target of document.querySelectorAll(".plot")) target.replaceChildren();
}

/** Take a chart away, and the document that Bokeh made for it. */
function remove(view) {
  const at = Bokeh.documents.indexOf(view.model.document);
  view.remove();
  if (at >= 0) Bokeh.documents.splice(at, 1);
}

/** An empty chart in the look of the page. `options` are Bokeh's, such as `height` and `x_axis_label`. */
function chart(options) {
  const {ink, quiet, line, paper} = Theme.colours();
  const plot = Bokeh.Plotting.figure({
    height: 260, sizing_mode: "stretch_width", toolbar_location: null, tools: [], output_backend: "canvas",
    background_fill_color: paper, border_fill_color: paper, outline_line_color: null, min_border_right: 12,
    ...options,
  });
  for (const axis of [plot.xaxis, plot.yaxis]) {
    axis.axis_label_text_color = quiet;
    axis.axis_label_text_font_style = "normal";
    axis.major_label_text_color = ink;
    axis.axis_line_color = line;
    axis.major_tick_line_color = line;
    axis.minor_tick_line_color = null;
  }
  for (const grid of [plot.xgrid, plot.ygrid]) grid.grid_line_color = line;
  plot.xgrid.grid_line_color = null;
  return plot;
}

/** Show a chart in an element; says when it stands. */
function show(plot, target) {
  const view = Bokeh.Plotting.show(plot, target);
  standing.push(Promise.resolve(view).then((views) => (Array.isArray(views) ? views[0] : views)));
  return standing[standing.length - 1];
}

/** A bubble with values where the pointer is. `rows` are pairs of a label and Bokeh's field. */
function hover(plot, renderers, rows, options = {}) {
  plot.add_tools(new Bokeh.HoverTool({renderers, tooltips: rows, ...options}));
}

/** Cells in colours by `level` (index into the palette's range low..high), with values on hover. */
function cells(plot, columns, palette, low, high, rows, extra = {}) {
  const source = new Bokeh.ColumnDataSource({data: columns});
  const transform = new Bokeh.LinearColorMapper({palette, low, high, low_color: DEAD, ...extra});
  const colour = {field: "level", transform};
  const renderer = plot.quad({
    left: {field: "left"}, right: {field: "right"}, bottom: {field: "bottom"}, top: {field: "top"},
    fill_color: colour, line_color: colour, line_width: 0.5, source,
  });
  hover(plot, [renderer], rows, {point_policy: "follow_mouse"});
  return source;
}

/** The chosen value of a group of radio buttons or of a select. */
function chosen(name) {
  const radio = document.querySelector(`input[name="${name}"]:checked`);
  if (radio) return radio.value;
  const select = document.querySelector(`select[name="${name}"]`);
  return select ? select.value : null;
}

/** Draw now, and again whenever a control, the system's theme or the paper changes. */
function keepDrawn(draw) {
  const now = () => { Theme.choice = chosen("theme") || "system"; Theme.apply(); clearCharts(); draw(); };
  for (const control of document.querySelectorAll(".controls input, .controls select")) {
    control.addEventListener("change", now);
  }
  for (const button of document.querySelectorAll(".controls button[data-redraw]")) button.addEventListener("click", now);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", now);
  window.addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    const dark = Theme.dark;
    Theme.dark = () => false;
    clearCharts();
    draw();
    Theme.dark = dark;
  });
  window.addEventListener("afterprint", now);
  now();
}
