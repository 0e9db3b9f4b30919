// The table of call stacks, and what is known of each.

const ROWS = 100;

// What the table tells of a call stack; all but the first, `cost` and `blocks` are the data's own columns.
const tableColumns = [
  {id: 'stack', label: 'Call stack', text: true},
  {id: 'cost', label: 'Bytes', title: 'in this view', bytes: true, share: true},
  {id: 'blocks', label: 'Blocks', title: 'in this view'},
  {id: 'liveBytes', is: 'leaks', label: 'Live', title: 'bytes that were never freed', bytes: true},
  {id: 'liveBlocks', is: 'leaks', label: 'Live blocks', title: 'blocks that were never freed'},
  {id: 'allocatedBytes', is: 'allocated', label: 'Allocated', title: 'bytes of all blocks', bytes: true},
  {id: 'allocatedBlocks', is: 'allocated', label: 'Allocations', title: 'all blocks'},
  {id: 'expiredBlocks', label: 'Expired', title: 'blocks that lived longer than the expiry time, freed since or not'},
  {id: 'peakBytes', is: 'peak', label: 'At peak', title: 'bytes that were live when most were', bytes: true},
  {id: 'meanLife', label: 'Mean life', title: 'of the freed blocks', time: true},
  {id: 'oldest', label: 'Oldest', title: 'age of the oldest block that was never freed', time: true},
];

const insides = /^(<?(std|core|alloc|hashbrown|__gnu_cxx)::|operator new|(aligned_|c|m|re|v|pv)alloc$|malloc|calloc|realloc|reallocarray|posix_memalign|mmap|__rust_alloc|__rdl_alloc)/;

// Who asked the allocator, its and the standard libraries' insides left out, and their callers.
const trails = new Array(siteCount);
function trailOf(site) {
  if (!trails[site]) {
    const names = placesOf(site).map(nameAt);
    let first = names.findIndex((name, at) => at > 0 && !insides.test(name));
    if (first < 0) first = Math.min(1, names.length - 1);
    trails[site] = {name: names[first] || 'unknown', callers: names.slice(first + 1, first + 7)};
  }
  return trails[site];
}

// Without those that would repeat the view.
const columnsIn = (kind) => tableColumns.filter((of) => of.is !== kind);

function valuesOf(id, costs) {
  if (id === 'cost') return costs.bytes;
  if (id === 'blocks') return costs.blocks;
  return sites[id];
}

// Sites in the order of a column; those of equal worth by bytes.
function sorted(selected, sort, costs) {
  if (sort.id === 'stack') {
    const order = (one, other) => (trailOf(one).name < trailOf(other).name ? -1 : trailOf(one).name > trailOf(other).name ? 1 : one - other);
    return selected.sort((one, other) => (sort.descending ? order(other, one) : order(one, other)));
  }
  const values = valuesOf(sort.id, costs);
  const direction = sort.descending ? -1 : 1;
  // Unknown is always last.
  return selected.sort((one, other) => {
    const [a, b] = [values[one], values[other]];
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
    return (a === b || Number.isNaN(a) ? costs.bytes[other] - costs.bytes[one] || one - other : direction * (a - b));
  });
}

function drawHead(kind, sort, onSort) {
  const row = byId('sites').tHead.rows[0];
  row.replaceChildren(...columnsIn(kind).map((of) => {
    const head = element('th', {scope: 'col', title: of.title || ''}, element('button', {type: 'button', textContent: of.label, onclick: () => onSort(of)}));
    head.dataset.column = of.id;
    if (sort.id === of.id) head.setAttribute('aria-sort', sort.descending ? 'descending' : 'ascending');
    return head;
  }));
}

function cell(of, value, exact, costs, largest) {
  const td = element('td', {});
  if (Number.isNaN(value)) {
    td.textContent = '–';
    td.className = 'zero';
    td.title = 'not known';
    return td;
  }
  const sign = costs.differs && (of.share || of.id === 'blocks') ? signed : (text) => text;
  if (of.time) {
    td.textContent = humanTime(value);
    td.title = `${grouped(exact)} ns`;
  } else {
    td.textContent = sign(of.bytes ? humanBytes(value) : humanCount(value), value);
    td.title = sign(of.bytes ? `${grouped(exact)} bytes` : plural(exact, 'block'), value);
  }
  if (value === 0) td.className = 'zero';
  if (of.share) {
    td.className = value < 0 ? 'share down' : 'share';
    const bar = element('i', {});
    bar.style.width = `${largest > 0 ? (100 * Math.abs(value)) / largest : 0}%`;
    td.append(bar);
  }
  return td;
}

function siteRow(site, kind, costs, largest, open) {
  const trail = trailOf(site);
  const name = element('button', {type: 'button', textContent: trail.name});
  name.setAttribute('aria-expanded', String(open));
  const callers = element('span', {className: 'trail', textContent: trail.callers.map((caller) => ` ← ${caller}`).join('')});
  const first = element('td', {className: 'stack', title: [trail.name, ...trail.callers].join('\n')}, name, callers);
  const row = element('tr', {className: open ? 'site open' : 'site'}, first);
  row.dataset.site = site;
  for (const of of columnsIn(kind).slice(1)) {
    const value = valuesOf(of.id, costs)[site];
    const inView = of.id === 'cost' || of.id === 'blocks';
    row.append(cell(of, value, inView || Number.isNaN(value) ? value : data.sites.columns[of.id][site], costs, largest));
  }
  return row;
}

function stackPart(site) {
  const list = element('ol', {className: 'frames', start: 0});
  for (const place of placesOf(site)) {
    const file = data.places.file[place];
    const line = data.places.line[place];
    const module = moduleAt(place);
    const item = element('li', {}, element('b', {textContent: nameAt(place)}));
    if (data.places.inlined[place]) item.append(' ', element('span', {className: 'tag', textContent: 'inlined'}));
    if (file >= 0) item.append(` ${data.files[file]}${line > 0 ? `:${line}` : ''}`);
    const base = module ? module.slice(module.lastIndexOf('/') + 1) : 'code in no file';
    item.append(element('span', {textContent: `  ${base}`, title: module ? `${module}+0x${BigInt(data.places.offset[place]).toString(16)}` : ''}));
    list.append(item);
  }
  const part = element('div', {}, element('h3', {textContent: 'Call stack, the allocator first'}), list);
  const remarks = [];
  if (data.sites.ending[site] >= 0) remarks.push(`Backtrace ${data.endings[data.sites.ending[site]]}.`);
  if (data.sites.guessed[site]) remarks.push(`Backtrace ${data.guessed}.`);
  for (const text of remarks) part.append(element('p', {className: 'note', textContent: text}));
  return part;
}

function numbersPart(site) {
  const list = element('dl', {className: 'numbers'});
  const row = (label, blocks, bytes) => {
    if (Number.isNaN(sites[blocks][site])) return;
    const exact = (id) => data.sites.columns[id][site];
    list.append(
      element('dt', {textContent: label}),
      element('dd', {textContent: plural(exact(blocks), 'block')}),
      element('dd', {textContent: `${humanBytes(sites[bytes][site])} (${grouped(exact(bytes))} bytes)`}),
    );
  };
  row('Allocated', 'allocatedBlocks', 'allocatedBytes');
  row('Freed', 'freedBlocks', 'freedBytes');
  row('Never freed', 'liveBlocks', 'liveBytes');
  row('Expired', 'expiredBlocks', 'expiredBytes');
  row('Expired, then freed', 'freedExpiredBlocks', 'freedExpiredBytes');
  row('At the peak', 'peakBlocks', 'peakBytes');
  row('Temporary', 'temporaryBlocks', 'temporaryBytes');
  const time = (label, id) => {
    if (Number.isNaN(sites[id][site])) return;
    list.append(element('dt', {textContent: label}), element('dd', {textContent: humanTime(sites[id][site])}), element('dd', {textContent: ''}));
  };
  time('Shortest life', 'shortestLife');
  time('Mean life', 'meanLife');
  time('Longest life', 'longestLife');
  time('Oldest live block', 'oldest');
  return [element('h3', {textContent: 'Numbers'}), list];
}

// Buckets of powers of two: [the first one's number, counts…].
function histogramPart(label, histogram, show) {
  if (!histogram || histogram.length < 2) return [];
  const [first, ...counts] = histogram;
  const most = counts.reduce((one, other) => Math.max(one, Number(other)), 0);
  const grid = element('div', {className: 'histogram'});
  counts.forEach((count, at) => {
    const bucket = first + at;
    const from = bucket === 0 ? 0 : 2 ** (bucket - 1);
    const bar = element('div', {className: 'column'});
    bar.style.width = `${(100 * Number(count)) / most}%`;
    bar.hidden = Number(count) === 0;
    const range = bucket < 2 ? show(from) : `${show(from)} – ${show(2 * from)}`;
    grid.append(element('span', {className: 'range', textContent: range}), element('span', {}, bar), element('span', {textContent: humanCount(Number(count)), title: grouped(count)}));
  });
  return [element('h3', {textContent: label}), grid];
}

function sparkPart(site) {
  const changes = data.sites.growth[site];
  if (!changes || changes.length === 0 || data.growthColumns < 2) return [];
  const values = new Float64Array(data.growthColumns);
  let at = 0;
  let live = 0;
  for (let spot = 0; spot < values.length; spot++) {
    while (at < changes.length && changes[at] <= spot) {
      live = Number(changes[at + 1]);
      at += 2;
    }
    values[spot] = live;
  }
  const most = values.reduce((one, other) => Math.max(one, other), 0);
  if (most === 0) return [];
  const points = Array.from(values, (value, spot) => `${((100 * spot) / (values.length - 1)).toFixed(2)},${(30 - (29 * value) / most).toFixed(2)}`);
  const spark = drawn('svg', {class: 'spark', viewBox: '0 0 100 30', preserveAspectRatio: 'none', role: 'img', 'aria-label': `Live bytes over time, at most ${humanBytes(most)}`});
  spark.append(drawn('polygon', {class: 'area', points: `0,30 ${points.join(' ')} 100,30`}), drawn('polyline', {class: 'curve', points: points.join(' ')}));
  return [element('h3', {textContent: `Live bytes over time, at most ${humanBytes(most)}`}), spark];
}

function detailRow(site) {
  const right = element('div', {}, ...numbersPart(site), ...sparkPart(site),
    ...histogramPart('Sizes', data.sites.sizes[site], humanBytes),
    ...histogramPart('Life times of the freed blocks', data.sites.lifetimes[site], humanTime));
  const holder = element('td', {colSpan: tableColumns.length}, element('div', {className: 'parts'}, stackPart(site), right));
  return element('tr', {className: 'detail'}, holder);
}

function drawRows(kind, order, shown, costs, opened) {
  let largest = 0;
  for (const site of order) largest = Math.max(largest, Math.abs(costs.bytes[site]));
  const rows = [];
  for (const site of order.slice(0, shown)) {
    rows.push(siteRow(site, kind, costs, largest, opened.has(site)));
    if (opened.has(site)) rows.push(detailRow(site));
  }
  if (rows.length === 0) {
    rows.push(element('tr', {}, element('td', {colSpan: tableColumns.length, textContent: 'No call stack.'})));
  }
  byId('sites').tBodies[0].replaceChildren(...rows);
  const more = byId('more');
  more.hidden = order.length <= shown;
  more.textContent = `Show ${grouped(Math.min(ROWS, order.length - shown))} more of ${grouped(order.length)}`;
}
