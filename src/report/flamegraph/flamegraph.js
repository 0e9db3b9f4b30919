'use strict';
(function () {
  const svg = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const drawnWidth = +svg.getAttribute('width');
  const height = +svg.getAttribute('height');
  const margin = 10;
  const character = 7.23;
  // Of the coordinates, which are rounded.
  const tolerance = 1e-7;

  // Each box with its place as a part of the whole's width, in the order of the file: a box before those upon it.
  const boxes = Array.from(byId('frames').children, (group) => {
    const rect = group.querySelector('rect');
    const inner = drawnWidth - 2 * margin;
    const title = group.querySelector('title').textContent;
    return {
      group, rect, title,
      text: group.querySelector('text'),
      name: title.slice(0, title.indexOf('\n')),
      start: (+rect.getAttribute('x') - margin) / inner,
      width: +rect.getAttribute('width') / inner,
      y: +rect.getAttribute('y'),
    };
  });
  const root = boxes[0];
  let zoomed = root;

  function columns(c) {
    return c.codePointAt(0) < 0x1100 ? 1 : 2;
  }

  // What of the name fits.
  function fitted(name, width) {
    let room = Math.floor((width - 5) / character);
    if (room < 3) return '';
    const all = Array.from(name);
    if (all.reduce((sum, c) => sum + columns(c), 0) <= room) return name;
    let text = '';
    for (const c of all) {
      room -= columns(c);
      if (room < 1) break;
      text += c;
    }
    return text + '…';
  }

  function draw() {
    const width = Math.max(360, window.innerWidth || drawnWidth);
    const inner = width - 2 * margin;
    svg.setAttribute('width', width);
    svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    document.querySelector('.paper').setAttribute('width', width);
    const end = zoomed.start + zoomed.width;
    for (const box of boxes) {
      const right = box.start + box.width;
      // Deeper boxes are higher up. Those that bear the chosen one are as wide as the picture.
      const bears = box.y > zoomed.y && box.start <= zoomed.start + tolerance && right >= end - tolerance;
      const upon = box.y <= zoomed.y && box.start >= zoomed.start - tolerance && right <= end + tolerance;
      const x = bears ? 0 : (box.start - zoomed.start) / zoomed.width;
      const w = bears ? 1 : box.width / zoomed.width;
      const shown = bears || upon;
      box.group.classList.toggle('hidden', !shown);
      box.group.classList.toggle('below', bears);
      if (!shown) continue;
      box.rect.setAttribute('x', margin + x * inner);
      box.rect.setAttribute('width', Math.max(w * inner, 0.1));
      const text = fitted(box.name, w * inner);
      if (text && !box.text) {
        box.text = document.createElementNS(svg.namespaceURI, 'text');
        box.text.setAttribute('y', box.y + 12.5);
        box.group.appendChild(box.text);
      }
      if (box.text) {
        box.text.textContent = text;
        box.text.setAttribute('x', margin + x * inner + 3);
      }
    }
    byId('reset').classList.toggle('hidden', zoomed === root);
    const place = (id, x) => byId(id).setAttribute('transform', `translate(${x},0)`);
    place('search', width - margin - 80);
    place('reset', width - margin - 180);
    byId('matched').setAttribute('x', width - margin);
    const field = byId('field');
    if (field) field.setAttribute('x', width - margin - 260);
  }

  function zoom(box) {
    zoomed = box;
    draw();
  }

  // A text, or /an expression/; the case does not matter.
  function matcher(term) {
    if (term.length > 2 && term.startsWith('/') && term.endsWith('/')) {
      const expression = new RegExp(term.slice(1, -1), 'i');
      return (name) => expression.test(name);
    }
    const text = term.toLowerCase();
    return (name) => name.toLowerCase().includes(text);
  }

  function search(term) {
    const matched = byId('matched');
    let matches = () => false;
    matched.textContent = '';
    if (term) {
      try {
        matches = matcher(term);
      } catch (error) {
        matched.textContent = 'no such expression';
      }
    }
    let part = 0;
    let count = 0;
    const hits = [];
    for (const box of boxes) {
      const hit = matches(box.name);
      box.group.classList.toggle('hit', hit);
      if (hit) hits.push(box);
    }
    // What lies upon a hit is counted with it.
    hits.sort((one, other) => one.start - other.start || other.width - one.width);
    let end = -1;
    for (const box of hits) {
      count += 1;
      if (box.start >= end - tolerance) {
        part += box.width;
        end = box.start + box.width;
      }
    }
    if (term && !matched.textContent) {
      matched.textContent = `${count} matched, ${(100 * part).toFixed(1)}%`;
    }
  }

  function openField() {
    let field = byId('field');
    if (!field) {
      field = document.createElementNS(svg.namespaceURI, 'foreignObject');
      field.id = 'field';
      field.setAttribute('y', byId('search').dataset.y);
      field.setAttribute('width', 170);
      field.setAttribute('height', 20);
      const input = document.createElementNS('http://www.w3.org/1999/xhtml', 'input');
      input.placeholder = 'function, or /regex/';
      input.addEventListener('input', () => search(input.value));
      field.appendChild(input);
      svg.appendChild(field);
      draw();
    }
    field.firstChild.focus();
    field.firstChild.select();
  }

  function closeField() {
    const field = byId('field');
    if (field) field.remove();
    search('');
  }

  const boxOf = new Map(boxes.map((box) => [box.group, box]));
  const under = (event) => boxOf.get(event.target.closest('#frames > g'));
  byId('frames').addEventListener('click', (event) => {
    const box = under(event);
    if (box) zoom(box);
  });
  byId('frames').addEventListener('mouseover', (event) => {
    const box = under(event);
    if (box) byId('details').textContent = box.title.replace(/\n/g, ' · ');
  });
  byId('frames').addEventListener('mouseleave', () => {
    byId('details').textContent = '';
  });
  byId('reset').addEventListener('click', () => zoom(root));
  byId('search').addEventListener('click', openField);
  window.addEventListener('keydown', (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === 'f') {
      event.preventDefault();
      openField();
    } else if (event.key === 'Escape') {
      if (byId('field')) closeField();
      else zoom(root);
    }
  });
  window.addEventListener('resize', draw);
  byId('search').classList.remove('hidden');
  draw();
})();
