"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const holder = document.getElementById("plots");
  const whole = document.getElementById("whole");
  const LEFT = 52, RIGHT = 8, TOP = 6, BOTTOM = 20, HEIGHT = 150, LANE = 18;
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const LEAST = 8; // slots that are shown at least
  let from = 0, to = data.count, drag = null, width = 0;

  const clock = (slot, least = 1) => {
    const text = new Date((data.start + slot * data.seconds) * 1000).toISOString();
    return least >= 86400 ? text.slice(5, 10) : text.slice(11, least >= 60 ? 16 : 19);
  };
  const milliseconds = (value) =>
    value >= 1000 ? `${+(value / 1000).toPrecision(3)} s` : `${+value.toPrecision(3)} ms`;
  const number = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : `${+value.toPrecision(3)}`);
  const draw = (name, attributes, parent) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent?.append(made);
    return made;
  };
  const colour = (element, style) => element.style.setProperty("--is", `var(--${style})`);
  const x = (slot) => LEFT + ((slot - from) / (to - from)) * (width - LEFT - RIGHT);
  const slotAt = (pixel) =>
    Math.min(to, Math.max(from, from + ((pixel - LEFT) / (width - LEFT - RIGHT)) * (to - from)));

  // A chart draws itself into its figure, and tells the values of one slot in its keys.
  const figure = (title, unit, height, names) => {
    const made = document.createElement("figure");
    const head = document.createElement("h2");
    const keys = names.map(({ name, style }) => {
      const key = document.createElement("span");
      key.className = "key";
      key.textContent = name;
      colour(key, style);
      key.append(document.createElement("b"));
      return key;
    });
    head.append(title, " ");
    if (unit) head.append(Object.assign(document.createElement("small"), { textContent: unit }));
    const svg = draw("svg", { height });
    made.append(head, ...keys, svg);
    holder.append(made);
    return { svg, tell: (texts) => keys.forEach((key, index) => (key.lastChild.textContent = texts[index] ?? "")) };
  };

  const timeAxis = (svg, bottom) => {
    const span = (to - from) * data.seconds, most = Math.max(2, (width - LEFT) / 90);
    const step = STEPS.find((each) => span / each <= most) ?? 86400 * Math.ceil(span / most / 86400);
    const first = Math.ceil((data.start + from * data.seconds) / step) * step;
    for (let at = first; at <= data.start + to * data.seconds; at += step) {
      const slot = (at - data.start) / data.seconds, place = x(slot);
      draw("line", { class: "grid", x1: place, x2: place, y1: TOP, y2: bottom }, svg);
      const edge = place > width - 40 ? "end" : "middle";
      draw("text", { x: Math.min(place, width), y: bottom + 15, "text-anchor": edge }, svg).textContent = clock(slot, step);
    }
  };

  const lanes = () => {
    const height = TOP + LANE * data.lanes.length;
    const { svg } = figure("Outages and pauses", "", height + BOTTOM, data.lanes);
    return () => {
      svg.replaceChildren();
      timeAxis(svg, height);
      data.lanes.forEach(({ spans, style }, index) => {
        const y = TOP + index * LANE;
        draw("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y + LANE - 3, y2: y + LANE - 3 }, svg);
        bands(svg, spans, style, "lane", y, LANE - 3);
      });
      return svg;
    };
  };
  const bands = (svg, spans, style, kind, y, height) => {
    for (const [begin, end] of spans) {
      if (end <= from || begin >= to) continue;
      const left = x(Math.max(begin, from)), right = x(Math.min(end, to));
      colour(draw("rect", { class: kind, x: left, y, width: Math.max(2, right - left), height }, svg), style);
    }
  };

  const linear = (highest) => {
    const rough = (highest || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= rough) * power;
    const count = Math.ceil((highest || 1) / step);
    const ticks = Array.from({ length: count + 1 }, (_, index) => index * step);
    return { ticks, place: (value) => value / (count * step), text: number };
  };
  const logarithmic = (values) => {
    const positive = values.filter((value) => value > 0);
    const [lowest, highest] = positive.length ? [Math.min(...positive), Math.max(...positive)] : [1, 10];
    const low = Math.floor(Math.log10(lowest));
    const high = Math.max(low + 1, Math.ceil(Math.log10(highest)));
    const ticks = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
    const place = (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low);
    return { ticks, place, text: milliseconds };
  };

  const chart = ({ title, unit, form, series }) => {
    const bottom = TOP + HEIGHT;
    const { svg, tell } = figure(title, unit, bottom + BOTTOM, series);
    const isStack = form === "stack", isLog = form === "log";
    const tops = isStack ? stacked(series) : series.map(({ values }) => values);
    const show = () => {
      svg.replaceChildren();
      const seen = tops.flatMap((values) => values.slice(from, to)).filter((value) => value !== null);
      const scale = isLog ? logarithmic(seen) : linear(seen.reduce((most, value) => Math.max(most, value), 0));
      const y = (value) => bottom - scale.place(value) * HEIGHT;
      timeAxis(svg, bottom);
      for (const { spans, style } of data.lanes) bands(svg, spans, style, "shade", TOP, HEIGHT);
      for (const tick of scale.ticks) {
        draw("line", { class: tick ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }, svg);
        draw("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, svg).textContent = scale.text(tick);
      }
      // From the top of a stack down, so that each layer covers what is below its own top.
      for (let index = series.length - 1; index >= 0; index--) {
        const d = isStack ? area(tops[index], y) : steps(tops[index], y);
        colour(draw("path", { class: isStack ? "area" : "line", d }, svg), series[index].style);
      }
      return svg;
    };
    const at = (slot) =>
      tell(slot === null ? [] : series.map(({ values: { [slot]: value } }) =>
        value === null ? "–" : isLog ? milliseconds(value) : number(value)));
    return Object.assign(show, { at });
  };
  const stacked = (series) => {
    const sums = new Array(data.count).fill(0);
    return series.map(({ values }) => values.map((value, index) => (sums[index] += value)));
  };
  // Each slot is level: nothing is known of what was between its beginning and its end.
  const level = (values, y, visit) => {
    for (let slot = from; slot < to; slot++)
      visit(x(slot), x(slot + 1), values[slot] === null ? null : y(values[slot]));
  };
  const steps = (values, y) => {
    let path = "", open = false;
    level(values, y, (left, right, place) => {
      if (place !== null) path += `${open ? "V" : `M${left.toFixed(1)} `}${place.toFixed(1)}H${right.toFixed(1)}`;
      open = place !== null;
    });
    return path;
  };
  const area = (top, y) => {
    let path = `M${x(from)} ${y(0)}`;
    level(top, y, (left, right, place) => (path += `V${place.toFixed(1)}H${right.toFixed(1)}`));
    return `${path}V${y(0)}Z`;
  };

  const shown = [lanes(), ...data.charts.filter(({ series }) => series.length).map(chart)];
  const render = () => {
    width = holder.querySelector("svg").getBoundingClientRect().width;
    whole.disabled = from === 0 && to === data.count;
    for (const show of shown) listen(show());
  };
  const listen = (svg) => {
    svg.onpointerdown = (event) => {
      if (event.button === 0) drag = event.offsetX;
    };
    svg.onpointermove = (event) => {
      const slot = Math.min(data.count - 1, Math.floor(slotAt(event.offsetX)));
      mark(Math.max(LEFT, Math.min(width - RIGHT, event.offsetX)));
      for (const show of shown) show.at?.(slot);
      whole.nextElementSibling.textContent = `${clock(slot)} UTC, ${data.seconds} s`;
    };
    svg.ondblclick = () => zoom(0, data.count);
  };
  // The cursor, and what is being chosen, on all charts at once.
  const mark = (place) => {
    document.querySelectorAll(".cursor, .chosen").forEach((each) => each.remove());
    for (const svg of holder.querySelectorAll("svg")) {
      const height = svg.getAttribute("height") - BOTTOM - TOP;
      if (drag !== null)
        draw("rect", { class: "chosen", x: Math.min(drag, place), y: TOP, width: Math.abs(place - drag), height }, svg);
      draw("line", { class: "cursor", x1: place, x2: place, y1: TOP, y2: TOP + height }, svg);
    }
  };
  const zoom = (begin, end) => {
    [from, to] = [begin, end];
    render();
  };
  window.addEventListener("pointerup", (event) => {
    const begin = drag;
    drag = null;
    if (begin === null) return;
    const end = event.clientX - holder.querySelector("svg").getBoundingClientRect().left;
    const [low, high] = [slotAt(Math.min(begin, end)), slotAt(Math.max(begin, end))].map(Math.round);
    if (Math.abs(end - begin) > 4 && high - low >= Math.min(LEAST, data.count)) zoom(low, high);
  });
  whole.onclick = () => zoom(0, data.count);
  window.addEventListener("resize", render);
  render();
})();
