"use strict";
// What a chart shows under the pointer: the nearest value of each of its lines. Without it the page says the same.
const SVG = "http://www.w3.org/2000/svg";

function nearest(places, x) {
  let best = 0;
  places.forEach((place, at) => { if (Math.abs(place - x) < Math.abs(places[best] - x)) best = at; });
  return best;
}

function element(name, parent, text) {
  const made = document.createElement(name);
  made.textContent = text;
  parent.append(made);
  return made;
}

for (const chart of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(chart.dataset.lines);
  const figure = chart.closest("figure");
  const bubble = element("div", figure, "");
  const here = document.createElementNS(SVG, "path");
  here.setAttribute("class", "here");
  chart.append(here);
  const leave = () => { bubble.hidden = true; here.setAttribute("d", ""); };
  bubble.className = "bubble";
  leave();
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("pointermove", (event) => {
    const frame = chart.getBoundingClientRect();
    const box = chart.viewBox.baseVal;
    const x = ((event.clientX - frame.left) / frame.width) * box.width;
    const at = lines.map((line) => nearest(line.x, x));
    const steps = lines.map((line, number) => line.steps[at[number]]);
    bubble.replaceChildren();
    element("small", bubble, `${chart.dataset.x} ${steps[0]}`);
    lines.forEach((line, number) => {
      const row = element("div", bubble, "");
      element("i", row, "").className = `swatch ${line.style}`;
      const elsewhere = steps[number] === steps[0] ? "" : ` at ${chart.dataset.x} ${steps[number]}`;
      row.append(`${line.name}  ${line.values[at[number]]}${elsewhere}`);
    });
    const place = lines[0].x[at[0]];
    here.setAttribute("d", `M${place} 10V${box.height - 24}`);
    bubble.hidden = false;
    const left = (place / box.width) * frame.width;
    bubble.style.left = `${left > frame.width / 2 ? left - bubble.offsetWidth - 12 : left + 12}px`;
  });
}
