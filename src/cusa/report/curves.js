// Draws the curves of the training with uPlot, from the JSON in the page. Without scripts the page has still figures.
"use strict";
{
  const charts = JSON.parse(document.getElementById("curves-data").textContent);
  const place = document.getElementById("curves");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const together = uPlot.sync("curves");
  const drawn = [];

  function colours() {
    const style = getComputedStyle(document.documentElement);
    return { text: style.getPropertyValue("--text").trim(), line: style.getPropertyValue("--line").trim() };
  }

  function number(value) {
    return value == null ? "" : Number(value.toPrecision(4)).toString();
  }

  // What the legend says: the value under the pointer, or the last one where there is no pointer.
  function legend(plot, value, at, index) {
    return number(index == null ? plot.data[at].findLast((each) => each != null) : value);
  }

  function width() {
    return Math.max(280, place.clientWidth);
  }

  function draw(chart, box, quantity, logarithmic, shown) {
    const runs = chart.runs.filter((run) => quantity in run.y);
    const label = chart.quantities.find(([name]) => name === quantity)[1];
    const { text, line } = colours();
    const axis = { stroke: text, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const series = runs.map((run) => ({
      label: run.label,
      stroke: run.colour,
      width: 1.5,
      spanGaps: true,
      show: shown.get(run.label) !== false,
      points: { show: run.x.length < 2 },
      value: legend,
    }));
    const data = uPlot.join(runs.map((run) => [run.x, run.y[quantity]]));
    // There is nothing between two epochs of a chart that has a point after each.
    const whole = data[0].every(Number.isInteger) ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {};
    const options = {
      width: width(),
      height: 300,
      cursor: { sync: { key: together.key, setSeries: false }, drag: { x: true, y: false } },
      scales: { x: { time: false }, y: { distr: logarithmic ? 3 : 1 } },
      axes: [
        { ...axis, ...whole, label: "epoch" },
        { ...axis, size: 64, label, values: (_, ticks) => ticks.map(number) },
      ],
      series: [{ label: "epoch", value: legend }, ...series],
      hooks: { setSeries: [(plot, at, change) => "show" in change && shown.set(plot.series[at].label, change.show)] },
    };
    const target = box.querySelector(".plot");
    target.replaceChildren();
    const ends = runs.map((run) => {
      const values = run.y[quantity].filter((value) => value !== null);
      return `${run.label} from ${number(values[0])} to ${number(values.at(-1))}`;
    });
    target.setAttribute("aria-label", `${label}, over the epochs: ${ends.join(", ")}`);
    return new uPlot(options, data, target);
  }

  charts.forEach((chart, at) => {
    const box = document.createElement("div");
    box.className = "chart";
    const header = document.createElement("header");
    const heading = document.createElement("h3");
    heading.textContent = chart.title;
    const choice = document.createElement("select");
    choice.setAttribute("aria-label", `${chart.title}: what is drawn`);
    for (const [name, label] of chart.quantities) {
      const option = document.createElement("option");
      option.value = name;
      option.textContent = label;
      choice.append(option);
    }
    const scale = document.createElement("label");
    const tick = document.createElement("input");
    tick.type = "checkbox";
    scale.append(tick, " logarithmic");
    header.append(heading, choice, scale);
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.setAttribute("role", "group");
    box.append(header, plot);
    place.append(box);
    const shown = new Map();
    const again = () => {
      drawn[at]?.destroy();
      drawn[at] = draw(chart, box, choice.value, tick.checked, shown);
    };
    choice.addEventListener("change", again);
    tick.addEventListener("change", again);
    dark.addEventListener("change", again);
    chart.draw = again;
  });

  place.hidden = document.getElementById("curves-note").hidden = false;
  document.getElementById("figures").open = false;
  charts.forEach((chart) => chart.draw());
  window.addEventListener("resize", () => drawn.forEach((plot) => plot.setSize({ width: width(), height: 300 })));
}
