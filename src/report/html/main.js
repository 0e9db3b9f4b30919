// What is chosen, and what follows from it.

const state = {view: {kind: data.view.kind, snapshot: data.view.snapshot, from: data.view.from, to: data.view.to}, query: '', zoom: 0, sort: {id: 'cost', descending: true}, shown: ROWS, opened: new Set()};
let costs = costsOf(state.view);
let weighed = null;

const kinds = [
  ['leaks', 'Never freed'],
  ['expired', 'Expired'],
  ['peak', 'At the peak'],
  ['allocated', 'Allocated'],
  ...(data.temporaryKnown ? [['temporary', 'Temporary']] : []),
  ...(data.snapshots.length > 0 ? [['snapshot', 'Snapshot'], ['growth', 'Growth']] : []),
];

function drawViews() {
  byId('views').replaceChildren(...kinds.map(([kind, label]) => {
    const tab = element('button', {type: 'button', textContent: label, onclick: () => show({kind, snapshot: 1, from: 1, to: 0})});
    tab.setAttribute('role', 'tab');
    tab.dataset.view = kind;
    tab.setAttribute('aria-selected', String(state.view.kind === kind));
    return tab;
  }));
  const choice = (label, key, first) => {
    const select = element('select', {onchange: () => show({...state.view, [key]: Number(select.value)})});
    select.setAttribute('aria-label', label);
    const names = data.snapshots.map((taken, at) => [at + 1, taken.label]);
    for (const [value, text] of first ? [[0, first], ...names] : names) {
      select.append(element('option', {value: String(value), textContent: text, selected: state.view[key] === value}));
    }
    return select;
  };
  const moments = byId('moments');
  moments.hidden = !['snapshot', 'growth'].includes(state.view.kind);
  if (state.view.kind === 'snapshot') moments.replaceChildren(choice('Snapshot', 'snapshot', ''));
  else if (state.view.kind === 'growth') moments.replaceChildren('from', choice('From', 'from', 'the beginning'), 'to', choice('To', 'to', 'the end'));
}

// The call stacks that cost something and fit the query.
function fitting(matches) {
  const found = [];
  for (let site = 0; site < siteCount; site++) {
    if ((costs.bytes[site] !== 0 || costs.blocks[site] !== 0) && (!matches.sites || matches.sites(site))) found.push(site);
  }
  return found;
}

function draw() {
  const matches = matchesOf(state.query);
  byId('query').setAttribute('aria-invalid', String(matches.wrong));
  const inView = fitting({sites: null});
  const found = matches.sites ? fitting(matches) : inView;
  weighed = weigh(costs, found);
  if (state.zoom !== 0 && weighed.weight[state.zoom] === 0) state.zoom = 0;
  const culled = drawFlame(weighed, state.zoom, costs.differs, matches.functions);
  const through = sitesThrough(state.zoom);
  const selected = found.filter(through);
  tellFlame(culled, found);
  tellSelected(selected, inView, matches);
  drawHead(state.view.kind, state.sort, sortBy);
  drawRows(state.view.kind, sorted(selected, state.sort, costs), state.shown, costs, state.opened);
}

function tellFlame(culled, found) {
  const total = weighed.bytes[0];
  const blocks = weighed.blocks[0];
  const sign = costs.differs ? signed : (text) => text;
  byId('flame-note').textContent = costs.differs
    ? `${sign(humanBytes(total), total)} on the whole. Red grew, blue shrank; widths are bytes of both.`
    : `${humanBytes(total)} in ${plural(blocks, 'block')}. Widths are bytes; a click zooms.`;
  byId('flame-note').title = `${sign(grouped(total), total)} bytes`;
  byId('reset').hidden = state.zoom === 0;
  const weightless = found.filter((site) => costs.bytes[site] === 0);
  const said = [];
  if (weightless.length > 0) {
    const nothing = weightless.reduce((sum, site) => sum + costs.blocks[site], 0);
    said.push(`${plural(weightless.length, 'call stack')} with ${plural(nothing, 'block')} of 0 bytes together: no width, but in the table.`);
  }
  if (culled > 0) said.push(`${plural(culled, 'box').replace('boxs', 'boxes')} too narrow to be seen: zoom in.`);
  byId('flame-left').textContent = said.join(' ');
}

function tellSelected(selected, inView, matches) {
  const weight = (all) => all.reduce((sum, site) => sum + Math.abs(costs.bytes[site]), 0);
  const [part, whole] = [weight(selected), weight(inView)];
  const narrowed = matches.sites || state.zoom !== 0;
  const percent = whole > 0 ? ` (${((100 * part) / whole).toFixed(1)}%)` : '';
  byId('selected').textContent = matches.wrong
    ? 'no such expression'
    : narrowed
      ? `${grouped(selected.length)} of ${plural(inView.length, 'call stack')}, ${humanBytes(part)} of ${humanBytes(whole)}${percent}`
      : plural(inView.length, 'call stack');
}

function show(view) {
  state.view = view;
  if (!columnsIn(view.kind).some((of) => of.id === state.sort.id)) state.sort = {id: 'cost', descending: true};
  state.shown = ROWS;
  costs = costsOf(view);
  drawViews();
  draw();
  byId('flame').scrollTop = byId('flame').scrollHeight;
}

function zoomTo(box) {
  state.zoom = box;
  state.shown = ROWS;
  draw();
}

function sortBy(of) {
  const again = state.sort.id === of.id;
  state.sort = {id: of.id, descending: again ? !state.sort.descending : !of.text};
  state.shown = ROWS;
  draw();
  byId('sites').querySelector(`th[data-column="${of.id}"] button`).focus();
}

const boxUnder = (event) => {
  const group = event.target.closest('g[data-box]');
  return group ? Number(group.dataset.box) : null;
};
byId('graph').addEventListener('click', (event) => {
  const box = boxUnder(event);
  if (box !== null) zoomTo(box);
});
byId('graph').addEventListener('mousemove', (event) => {
  const box = boxUnder(event);
  if (box === null) hideTip();
  else showTip(event, boxLines(box, weighed, costs.differs));
});
byId('graph').addEventListener('mouseleave', hideTip);
byId('reset').addEventListener('click', () => zoomTo(0));
byId('more').addEventListener('click', () => {
  state.shown += ROWS;
  draw();
});
byId('sites').tBodies[0].addEventListener('click', (event) => {
  const row = event.target.closest('tr.site');
  if (!row || !window.getSelection().isCollapsed) return;
  const site = Number(row.dataset.site);
  const open = !state.opened.has(site);
  if (open) state.opened.add(site);
  else state.opened.delete(site);
  if (open) row.after(detailRow(site));
  else row.nextElementSibling.remove();
  row.classList.toggle('open', open);
  row.querySelector('button').setAttribute('aria-expanded', String(open));
});
byId('query').addEventListener('input', () => {
  state.query = byId('query').value.trim();
  state.shown = ROWS;
  draw();
});
window.addEventListener('keydown', (event) => {
  if (event.key === '/' && !event.target.matches('input, select')) {
    event.preventDefault();
    byId('query').focus();
  } else if (event.key === 'Escape' && state.zoom !== 0) {
    zoomTo(0);
  }
});
let drawnWidth = 0;
new ResizeObserver(() => {
  const width = byId('flame').clientWidth;
  if (width === drawnWidth) return;
  drawnWidth = width;
  draw();
}).observe(byId('flame'));
byId('report').hidden = false;
readTimeline((snapshot) => {
  show({kind: 'snapshot', snapshot, from: 1, to: 0});
  byId('report').scrollIntoView();
});
drawnWidth = byId('flame').clientWidth;
show(state.view);
