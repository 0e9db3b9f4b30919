// The flame graph: the root at the bottom, widths are bytes (of growth: of both signs).

const ROW = 18;
const CHARACTER = 7.23;
const NARROWEST = 0.5;
const MOST_BOXES = 12000;

const columnsOf = (c) => (c.codePointAt(0) < 0x1100 ? 1 : 2);

// What of a name fits.
function fitted(name, width) {
  let room = Math.floor((width - 6) / CHARACTER);
  if (room < 3) return '';
  const all = Array.from(name);
  if (all.reduce((sum, c) => sum + columnsOf(c), 0) <= room) return name;
  let text = '';
  for (const c of all) {
    room -= columnsOf(c);
    if (room < 1) break;
    text += c;
  }
  return text + '…';
}

// The bytes of each box, whatever their signs (weight) and with them, and its blocks.
function weigh(costs, selected) {
  const weight = new Float64Array(boxCount);
  const bytes = new Float64Array(boxCount);
  const blocks = new Float64Array(boxCount);
  for (const site of selected) {
    const box = merged[data.sites.leaf[site]];
    weight[box] += Math.abs(costs.bytes[site]);
    bytes[box] += costs.bytes[site];
    blocks[box] += costs.blocks[site];
  }
  for (let box = boxCount - 1; box > 0; box--) {
    const below = boxes.parent[box];
    weight[below] += weight[box];
    bytes[below] += bytes[box];
    blocks[below] += blocks[box];
  }
  return {weight, bytes, blocks};
}

function growthClass(net, weight) {
  if (net === 0) return 'n0';
  const step = Math.min(5, Math.max(1, Math.ceil((5 * Math.abs(net)) / weight))) - 1;
  return `${net > 0 ? 'g' : 's'}${step}`;
}

const boxName = (box) => (box === 0 ? 'all' : data.functions.name[boxes.function[box]]);

// Draws what `weighed` has upon the box `zoom`. Returns how many boxes are too narrow to be drawn.
function drawFlame(weighed, zoom, differs, hits) {
  const graph = byId('graph');
  const width = Math.max(200, byId('flame').clientWidth - 12);
  const total = weighed.weight[zoom];
  const starts = new Float64Array(boxCount);
  const next = new Float64Array(boxCount);
  const shown = [];
  const bearing = [];
  for (let box = zoom; box !== 0; box = boxes.parent[box]) bearing.push(boxes.parent[box]);
  bearing.reverse();
  let culled = 0;
  if (total > 0 || zoom === 0) shown.push(zoom);
  const inside = new Uint8Array(boxCount);
  inside[zoom] = 1;
  for (const box of boxes.order) {
    const below = boxes.parent[box];
    if (!inside[below] || weighed.weight[box] === 0) continue;
    inside[box] = 1;
    starts[box] = next[below];
    next[below] += weighed.weight[box];
    next[box] = starts[box];
    if ((weighed.weight[box] / total) * width >= NARROWEST) shown.push(box);
    else culled += 1;
  }
  if (shown.length > MOST_BOXES) {
    // A box is no wider than the one below it: what is kept has its support.
    shown.sort((one, other) => weighed.weight[other] - weighed.weight[one] || boxes.depth[one] - boxes.depth[other]);
    culled += shown.length - MOST_BOXES;
    shown.length = MOST_BOXES;
  }
  const deepest = shown.reduce((most, box) => Math.max(most, boxes.depth[box]), boxes.depth[zoom]);
  const height = (deepest + 1) * ROW;
  const draw = (box, x, w, below) => {
    const kind = differs ? growthClass(weighed.bytes[box], weighed.weight[box]) : box === 0 ? 'n0' : data.functions.color[boxes.function[box]];
    const group = drawn('g', {'data-box': box});
    if (below) group.classList.add('below');
    if (hits && box !== 0 && hits[boxes.function[box]]) group.classList.add('hit');
    const y = height - (boxes.depth[box] + 1) * ROW;
    group.append(drawn('rect', {class: kind, x, y, width: Math.max(w, 0.3), height: ROW - 1}));
    const text = fitted(boxName(box), w);
    if (text) {
      const label = drawn('text', {x: x + 3, y: y + 12.5});
      label.textContent = text;
      group.append(label);
    }
    return group;
  };
  const part = (weight) => (total > 0 ? (weight / total) * width : width);
  graph.setAttribute('width', width);
  graph.setAttribute('height', height);
  graph.replaceChildren(
    ...bearing.map((box) => draw(box, 0, width, true)),
    ...shown.map((box) => draw(box, box === zoom ? 0 : part(starts[box]), box === zoom ? width : part(weighed.weight[box]), false)),
  );
  return culled;
}

// A box's numbers.
function boxLines(box, weighed, differs) {
  const bytes = weighed.bytes[box];
  const blocks = weighed.blocks[box];
  const sign = differs ? signed : (text) => text;
  const percent = weighed.weight[0] > 0 ? (100 * weighed.weight[box]) / weighed.weight[0] : 0;
  const lines = [
    boxName(box),
    `${sign(humanBytes(bytes), bytes)} (${sign(grouped(bytes), bytes)} bytes) in ${sign(plural(blocks, 'block'), blocks)}, ${percent.toFixed(2)}%`,
  ];
  if (box !== 0) lines.push(data.modules[data.functions.module[boxes.function[box]]] || 'code in no file');
  return lines;
}
