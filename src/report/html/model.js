'use strict';
// What the report is made of: the profile's data as typed arrays, and what each view makes of it.

const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const siteCount = data.sites.leaf.length;

// Numbers above 2^53 come as text, so that their exact value can be shown; what is not known comes as null.
const column = (values) => Float64Array.from(values, (value) => (value === null ? NaN : Number(value)));
const sites = {};
for (const [name, values] of Object.entries(data.sites.columns)) sites[name] = column(values);

// The tree of places: each node names its parent by how far back that is.
const nodeCount = data.tree.back.length;
const parent = new Int32Array(nodeCount);
for (let node = 1; node < nodeCount; node++) parent[node] = node - data.tree.back[node];
const placeOf = data.tree.place;
const functionOf = (node) => data.places.function[placeOf[node]];

// The same merged by function, which is what a flame graph shows. Functions are numbered by name, so that boxes that lie side by side are too.
const merged = new Int32Array(nodeCount);
const boxes = (() => {
  const known = new Map();
  const parents = [0];
  const functions = [-1];
  const depths = [0];
  const total = data.functions.name.length;
  for (let node = 1; node < nodeCount; node++) {
    const below = merged[parent[node]];
    const key = below * total + functionOf(node);
    let box = known.get(key);
    if (box === undefined) {
      box = parents.length;
      known.set(key, box);
      parents.push(below);
      functions.push(functionOf(node));
      depths.push(depths[below] + 1);
    }
    merged[node] = box;
  }
  // By parent, and then by function.
  const order = Float64Array.from(parents, (below, box) => below * total + functions[box]).subarray(1).sort();
  const sorted = Int32Array.from(order, (key) => known.get(key));
  return {parent: Int32Array.from(parents), function: Int32Array.from(functions), depth: Int32Array.from(depths), order: sorted};
})();
const boxCount = boxes.parent.length;

// What each site costs in a view: {bytes, blocks, differs}. A view is {kind, snapshot?, from?, to?}; 0 is the beginning or the end.
function liveAt(snapshot) {
  if (snapshot === 0) return {bytes: sites.liveBytes, blocks: sites.liveBlocks};
  const live = {bytes: new Float64Array(siteCount), blocks: new Float64Array(siteCount)};
  const taken = data.snapshots[snapshot - 1];
  taken.site.forEach((site, at) => {
    live.bytes[site] = Number(taken.bytes[at]);
    live.blocks[site] = Number(taken.blocks[at]);
  });
  return live;
}

function costsOf(view) {
  switch (view.kind) {
    case 'expired':
      return {
        bytes: sites.expiredBytes.map((bytes, site) => bytes - sites.freedExpiredBytes[site]),
        blocks: sites.expiredBlocks.map((blocks, site) => blocks - sites.freedExpiredBlocks[site]),
      };
    case 'peak':
      return {bytes: sites.peakBytes, blocks: sites.peakBlocks};
    case 'allocated':
      return {bytes: sites.allocatedBytes, blocks: sites.allocatedBlocks};
    case 'temporary':
      return {bytes: sites.temporaryBytes, blocks: sites.temporaryBlocks};
    case 'snapshot':
      return liveAt(view.snapshot);
    case 'growth': {
      const nothing = new Float64Array(siteCount);
      const before = view.from === 0 ? {bytes: nothing, blocks: nothing} : liveAt(view.from);
      const after = liveAt(view.to);
      return {
        bytes: after.bytes.map((bytes, site) => bytes - before.bytes[site]),
        blocks: after.blocks.map((blocks, site) => blocks - before.blocks[site]),
        differs: true,
      };
    }
    default:
      return {bytes: sites.liveBytes, blocks: sites.liveBlocks};
  }
}

// A text, or /an expression/; the case does not matter. Null if there is no such expression.
function matcherOf(query) {
  if (query.length > 2 && query.startsWith('/') && query.endsWith('/')) {
    try {
      const expression = new RegExp(query.slice(1, -1), 'i');
      return (text) => expression.test(text);
    } catch (error) {
      return null;
    }
  }
  const wanted = query.toLowerCase();
  return (text) => text.toLowerCase().includes(wanted);
}

// Which functions, and which call stacks, a query is about: by function, module or file.
function matchesOf(query) {
  const matches = query && matcherOf(query);
  if (!matches) return {functions: null, sites: null, wrong: query !== '' && matches === null};
  const modules = data.modules.map((path) => matches(path));
  const files = data.files.map((path) => matches(path));
  const names = data.functions.name.map((name) => matches(name));
  const functions = names.map((hit, at) => hit || modules[data.functions.module[at]]);
  const nodes = new Uint8Array(nodeCount);
  for (let node = 1; node < nodeCount; node++) {
    const place = placeOf[node];
    const file = data.places.file[place];
    nodes[node] = nodes[parent[node]] || functions[data.places.function[place]] || (file >= 0 && files[file]) ? 1 : 0;
  }
  return {functions, sites: (site) => nodes[data.sites.leaf[site]] === 1, wrong: false};
}

// Which call stacks lead through a box.
function sitesThrough(box) {
  if (box === 0) return () => true;
  const through = new Uint8Array(boxCount);
  through[box] = 1;
  for (let at = box + 1; at < boxCount; at++) through[at] |= through[boxes.parent[at]];
  return (site) => through[merged[data.sites.leaf[site]]] === 1;
}

// The places of a call stack, the allocator's first.
function placesOf(site) {
  const places = [];
  for (let node = data.sites.leaf[site]; node !== 0; node = parent[node]) places.push(placeOf[node]);
  return places;
}

const nameAt = (place) => data.functions.name[data.places.function[place]];
const moduleAt = (place) => data.modules[data.functions.module[data.places.function[place]]];
