// Draws the bars of one lane over the last seconds. Each bar has a text; no information is in a colour only.

const SVG = "http://www.w3.org/2000/svg";
const SPAN = 8000; // milliseconds from the left edge to the right one
const GUTTER = 78;
const ROWS = 6;
const CHARACTER = 7.6; // width of a character of a label, about
const MARK_LINES = [13, 28]; // baselines of the labels above the rows
const MARKS = 36; // height of the labels
const REFRESH = 10;
const ROW = 17;
const TOP = MARKS + ROWS * REFRESH + 10;
const THIEF = TOP + ROWS * ROW + 4;
const BOTTOM = THIEF + ROW;
const HEIGHT = BOTTOM + 22;

const put = (parent, name, attributes = {}, text = "") => {
  const made = document.createElementNS(SVG, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
};

/** Return the function that draws a lane: its bars and marks as they are when it is called. */
export const waterfall = (svg, { words, still }) => {
  svg.setAttribute("height", HEIGHT);
  const grid = put(svg, "g", { class: "grid", "aria-hidden": "true" });
  const bands = put(svg, "g", { "aria-hidden": "true" });
  const markLines = put(svg, "g", { "aria-hidden": "true" });
  const barsDrawn = put(svg, "g", { role: "list", "aria-label": "Requests of the last seconds" });
  const verdict = put(svg, "g", { "aria-hidden": "true" });
  const markLabels = put(svg, "g", { "aria-hidden": "true" }); // above all lines
  const known = new Map();
  let width = 0;
  let thiefLabel;

  const x = (at, now) => GUTTER + (1 - (now - at) / SPAN) * (width - GUTTER);

  const layOut = () => {
    width = svg.clientWidth || 400;
    grid.replaceChildren();
    put(grid, "text", { x: 0, y: MARKS + 12 }, "refreshes");
    put(grid, "text", { x: 0, y: TOP + 12 }, "requests");
    thiefLabel = put(grid, "text", { x: 0, y: THIEF + 12, visibility: "hidden" }, "the thief");
    put(grid, "line", { x1: GUTTER, x2: width, y1: TOP - 5, y2: TOP - 5 });
    for (let second = 0; second <= SPAN; second += 2000) {
      const at = x(0, second);
      put(grid, "line", { x1: at, x2: at, y1: MARKS, y2: BOTTOM + 2 });
      const anchor = second === 0 ? "end" : second === SPAN ? "start" : "middle";
      put(grid, "text", { x: at, y: HEIGHT - 5, "text-anchor": anchor }, second ? `−${second / 1000} s` : "now");
    }
  };

  const place = (bar) => {
    if (bar.kind === "refresh") return { y: MARKS + (bar.row % ROWS) * REFRESH, height: REFRESH - 2 };
    if (bar.kind === "thief") return { y: THIEF, height: ROW - 5 };
    const y = TOP + bar.row * ROW;
    return bar.elsewhere ? { y: y + 9, height: 6 } : { y, height: bar.crowded ? 8 : ROW - 5 };
  };

  const drawPart = (group, part, { y, height }, now, kind) => {
    const [left, right] = [Math.max(x(part.begin, now), GUTTER), x(part.end ?? now, now)];
    if (right < GUTTER) return;
    const box = { x: left, y, width: Math.max(right - left, part.look === "failed" ? 14 : 2), height, rx: 2, class: `${kind} ${part.look}` };
    put(group, "rect", box);
    if (part.look === "waited") group.lastChild.setAttribute("fill", "url(#waited)");
    if (part.look === "failed") {
      const at = left + box.width / 2;
      const [middle, arm] = [y + height / 2, height > 7 ? 3 : 2];
      const path = `M${at - arm} ${middle - arm}l${2 * arm} ${2 * arm}m0 ${-2 * arm}l${-2 * arm} ${2 * arm}`;
      put(group, "path", { d: path, class: "cross" });
    }
  };

  const drawBar = (bar, now) => {
    let group = known.get(bar.id);
    if (!group) {
      group = put(barsDrawn, "g", { role: "listitem" });
      known.set(bar.id, group);
    }
    const said = words.bar(bar);
    if (group.getAttribute("aria-label") !== said) group.setAttribute("aria-label", said);
    group.replaceChildren();
    put(group, "title", {}, said);
    const where = place(bar);
    for (const part of bar.parts) drawPart(group, part, where, now, bar.kind);
  };

  const drawMarks = (marks, now) => {
    markLines.replaceChildren();
    markLabels.replaceChildren();
    const free = MARK_LINES.map(() => -Infinity); // where the last label of each line ends
    for (const { at, text } of marks) {
      const left = x(at, now);
      if (left < GUTTER) continue;
      put(markLines, "line", { x1: left, x2: left, y1: 4, y2: BOTTOM + 2, class: "mark" });
      const length = text.length * CHARACTER;
      const start = Math.min(left + 5, width - length);
      const line = free.findIndex((end) => start > end);
      if (line < 0) continue; // no room: the line alone
      put(markLabels, "text", { x: start, y: MARK_LINES[line], class: "mark" }, text);
      free[line] = start + length + 8;
    }
  };

  const drawOver = (over, now) => {
    bands.replaceChildren();
    verdict.replaceChildren();
    if (!over) return;
    const left = Math.max(x(over.at, now), GUTTER);
    put(bands, "rect", { x: left, y: MARKS, width: Math.max(width - left, 0), height: BOTTOM - MARKS, fill: "url(#over)" });
    put(bands, "line", { x1: left, x2: left, y1: MARKS, y2: BOTTOM, class: "over" });
    if (width - left > 118) put(verdict, "text", { x: (left + width) / 2, y: TOP + 2.5 * ROW, class: "over" }, "logged out");
  };

  new ResizeObserver(layOut).observe(svg);
  layOut();

  let drawnAt = -Infinity;
  return (lane, now) => {
    if (still() && now - drawnAt < 1000) return;
    drawnAt = now;
    for (const [id, group] of known) {
      const bar = lane.bars.get(id);
      if (bar && now - (bar.end ?? now) < SPAN) continue;
      group.remove();
      known.delete(id);
    }
    thiefLabel.setAttribute("visibility", [...lane.bars.values()].some(({ kind }) => kind === "thief") ? "visible" : "hidden");
    drawOver(lane.over, now);
    drawMarks(lane.marks, now);
    for (const bar of lane.bars.values()) if (now - (bar.end ?? now) < SPAN) drawBar(bar, now);
  };
};
