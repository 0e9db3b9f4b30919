// The time line is drawn already; this reads it out under the mouse.

function readTimeline(onSnapshot) {
  const over = document.querySelector('.over');
  if (!over) return;
  const line = element('div', {className: 'read', hidden: true});
  const dot = element('div', {className: 'dot', hidden: true});
  over.append(line, dot);
  const times = column(data.timeline.at);
  const lives = column(data.timeline.bytes);
  over.addEventListener('mousemove', (event) => {
    const area = over.getBoundingClientRect();
    const at = ((event.clientX - area.left) / area.width) * data.timeline.end;
    let nearest = 0;
    let high = times.length - 1;
    while (nearest < high) {
      const middle = (nearest + high) >> 1;
      if (times[middle] < at) nearest = middle + 1;
      else high = middle;
    }
    if (nearest > 0 && at - times[nearest - 1] < times[nearest] - at) nearest -= 1;
    const x = `${(100 * times[nearest]) / data.timeline.end}%`;
    line.style.left = x;
    dot.style.left = x;
    dot.style.top = `${100 - (100 * lives[nearest]) / data.timeline.top}%`;
    line.hidden = false;
    dot.hidden = false;
    showTip(event, [
      `${humanBytes(lives[nearest])} live after ${humanTime(times[nearest])}`,
      `${grouped(data.timeline.bytes[nearest])} bytes in ${plural(data.timeline.blocks[nearest], 'block')}`,
      `${humanBytes(Number(data.timeline.allocatedBytes[nearest]))} allocated until then`,
    ]);
  });
  over.addEventListener('mouseleave', () => {
    line.hidden = true;
    dot.hidden = true;
    hideTip();
  });
  for (const mark of over.querySelectorAll('button.mark')) {
    const place = data.snapshots.findIndex((taken) => taken.number === Number(mark.dataset.snapshot));
    // Those for which the file had no room are marked, too.
    if (place < 0) mark.disabled = true;
    else mark.addEventListener('click', () => onSnapshot(place + 1));
  }
}
