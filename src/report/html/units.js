// Numbers for people; exact ones are for titles.

function humanBytes(bytes) {
  const size = Math.abs(bytes);
  const sign = bytes < 0 ? '−' : '';
  if (size < 1024) return `${sign}${size} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let unit = 0;
  let value = size / 1024;
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${sign}${value.toFixed(1)} ${units[unit]}`;
}

function humanCount(count) {
  const size = Math.abs(count);
  if (size < 100000) return grouped(count);
  const units = ['k', 'M', 'G', 'T', 'P', 'E'];
  let unit = -1;
  let value = size;
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${count < 0 ? '−' : ''}${value.toFixed(1)} ${units[unit]}`;
}

// Exact, also of numbers that came as text.
function grouped(number) {
  return BigInt(number).toString().replace(/\B(?=(\d{3})+(?!\d))/g, ',').replace('-', '−');
}

function plural(count, noun) {
  return `${grouped(count)} ${noun}${count === 1 ? '' : 's'}`;
}

// From nanoseconds.
function humanTime(nanoseconds) {
  const time = Number(nanoseconds);
  if (time === 0) return '0 s';
  if (time < 1e3) return `${time} ns`;
  if (time < 999950) return `${(time / 1e3).toFixed(1)} µs`;
  if (time < 999950000) return `${(time / 1e6).toFixed(1)} ms`;
  const seconds = Math.floor(time / 1e9);
  if (seconds < 60) return `${(time / 1e9).toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

function signed(text, number) {
  return number > 0 ? `+${text}` : text;
}

// Elements. Text is only ever set as text.
function element(name, properties, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}

const SVG = 'http://www.w3.org/2000/svg';

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// What is beside the mouse: lines, the first in bold.
function showTip(event, lines) {
  const tip = byId('tip');
  tip.replaceChildren(...lines.map((line, at) => {
    const paragraph = element('p', {});
    paragraph.append(at === 0 ? element('b', {textContent: line}) : line);
    return paragraph;
  }));
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  const x = Math.min(event.clientX + 14, window.innerWidth - width - 8);
  const y = event.clientY + 18 + height > window.innerHeight ? event.clientY - height - 12 : event.clientY + 18;
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}

function hideTip() {
  byId('tip').hidden = true;
}
