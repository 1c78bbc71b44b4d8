// Parts of the task stream's view: its legend, its table in words, and drag, wheel and pinch as one.
// Knows nothing of where the stream is.
(function (t) {
  'use strict';

  const FIXED = [
    ['transfer', 'transfer in', () => t.colour.transfer()],
    ['spill', 'spill to disk', () => t.colour.move()],
    ['copy', 'copy between tiers', () => t.colour.alpha(t.colour.move(), 0.45)],
  ];

  // One chip for each kind of work in sight; pressed means shown.
  t.streamLegend = (box, paints, hidden, changed) => {
    const byLabel = new Map();
    for (const paint of paints) {
      const known = byLabel.get(paint.label);
      if (known) known.us += paint.us;
      else byLabel.set(paint.label, { key: paint.label, text: paint.label, colour: paint.colour, us: paint.us });
    }
    // Those that are dimmed stay, or nobody could bring them back.
    for (const label of hidden) {
      if (!byLabel.has(label) && !FIXED.some(([key]) => key === label)) byLabel.set(label, { key: label, text: label, colour: t.colour.operator(label), us: 0 });
    }
    // By name: an order by time would make them jump under the finger.
    const list = [...byLabel.values()].sort((one, other) => other.us - one.us).slice(0, 24).sort((one, other) => (one.text < other.text ? -1 : 1));
    const all = [...list, ...FIXED.map(([key, text, colour]) => ({ key, text, colour: colour(), us: 0 })), { key: '', text: 'failed', colour: t.colour.failed() }];
    t.keyed(box, all, (each) => each.key, (each) => (each.key
      ? t.h('button', {
        type: 'button', class: 'chip',
        onclick: (event) => {
          if (hidden.has(each.key)) hidden.delete(each.key);
          else hidden.add(each.key);
          event.currentTarget.setAttribute('aria-pressed', !hidden.has(each.key));
          changed();
        },
      }, t.h('span', { class: 'key' }), t.h('span'))
      : t.h('span', { class: 'chip' }, t.h('span', { class: 'key failed' }), t.h('span'))),
    (node, each) => {
      node.firstChild.style.background = each.key ? each.colour : '';
      t.setText(node.lastChild, t.shorten(each.text, 42));
      if (each.key) { t.setAttribute(node, 'aria-pressed', !hidden.has(each.key)); node.title = each.text; }
    });
  };

  // What each worker did in the time in sight.
  t.streamTable = (view, lanes) => t.altTable('Work in the time shown', ['worker', 'busy', 'tasks', 'failed', 'partitions in', 'bytes in', 'bytes moved between tiers'], () => {
    const shown = view();
    if (!shown) return [];
    const sums = new Map();
    const endUs = Math.min(shown.nowUs, shown.startUs + shown.lengthUs);
    for (const { lane } of lanes.list) {
      let sum = sums.get(lane.worker);
      if (!sum) sums.set(lane.worker, sum = { busyUs: 0, slots: 0, tasks: 0, failed: 0, partitions: 0, bytes: 0, moved: 0 });
      if (lane.kind === 'task') sum.slots += 1;
      for (let at = t.lowerBound(lane.items, shown.startUs - lane.longestUs); at < lane.items.length && lane.items[at].start_us < endUs; at += 1) {
        const item = lane.items[at];
        if (item.end_us < shown.startUs) continue;
        if (lane.kind === 'task') {
          sum.busyUs += Math.min(item.end_us, endUs) - Math.max(item.start_us, shown.startUs);
          sum.tasks += item.count;
          if (item.failed) sum.failed += 1;
        } else if (lane.kind === 'transfer') { sum.partitions += item.count; sum.bytes += item.bytes; } else sum.moved += item.bytes;
      }
    }
    return [...sums.entries()].map(([worker, sum]) => [
      worker, t.percent(sum.busyUs / Math.max(1, sum.slots * (endUs - shown.startUs))), t.count(sum.tasks), t.count(sum.failed),
      t.count(sum.partitions), t.bytes(sum.bytes), t.bytes(sum.moved),
    ]);
  }, 'wheel zooms, drag moves, shift and wheel scrolls · keys: arrows, + −, 0 all, F follow, J K N P choose, Enter opens');

  const SAMPLED_TIMES = 80;
  const SAMPLED_WORKERS = 80;
  const SHARES = [
    ['busy', 'slots busy', () => t.colour.css('--accent')],
    ['fetching', 'idle while data came in', () => t.colour.transfer()],
    ['moving', 'idle while memory was moved', () => t.colour.move()],
    ['idle', 'idle', () => t.colour.lost()],
  ];

  // What slots did in the time in sight, as shares. Sampled, evenly over time and workers, so that it costs the same for a thousand.
  const shares = (view, lanes) => {
    const sums = { busy: 0, fetching: 0, moving: 0, idle: 0 };
    const fromUs = Math.max(view.startUs, lanes.of ? lanes.of.firstUs : 0);
    const lengthUs = Math.min(view.startUs + view.lengthUs, view.nowUs) - fromUs;
    if (!(lengthUs > 0)) return sums;
    const workers = new Map();
    for (const { lane } of lanes.list) {
      if (!workers.has(lane.worker)) workers.set(lane.worker, { tasks: [], transfer: null, move: null });
      const row = workers.get(lane.worker);
      if (lane.kind === 'task') row.tasks.push(lane);
      else row[lane.kind] = lane;
    }
    const all = [...workers.entries()];
    const every = Math.max(1, Math.ceil(all.length / SAMPLED_WORKERS));
    const isIn = (lane, us) => Boolean(lane && lanes.itemAt(lane, us, 0, view.nowUs));
    for (let at = 0; at < all.length; at += every) {
      const [id, row] = all[at];
      const worker = t.store.workers.get(id);
      // There may be more lanes than slots: a task that waits for room for its outputs has given its slot away.
      const slots = worker ? worker.slots : row.tasks.length;
      const lostUs = worker && worker.lost ? t.store.lostAtUs.get(id) || 0 : Infinity;
      for (let sample = 0; sample < SAMPLED_TIMES; sample += 1) {
        const us = fromUs + (sample + 0.5) / SAMPLED_TIMES * lengthUs;
        if (us > lostUs) break;
        const agoMs = (view.nowUs - us) / 1000;
        // Those that run now have no span yet.
        const running = worker && !worker.lost ? worker.running.filter((task) => task.running_ms >= agoMs).length : 0;
        const busy = Math.min(slots, row.tasks.filter((lane) => isIn(lane, us)).length + running);
        sums.busy += busy;
        const rest = slots - busy;
        if (rest > 0) sums[isIn(row.transfer, us) ? 'fetching' : isIn(row.move, us) ? 'moving' : 'idle'] += rest;
      }
    }
    return sums;
  };

  // A bar that says at a glance whether tasks, data or nothing at all kept the slots.
  t.streamShares = () => {
    const bar = t.h('div', { class: 'bar shares', 'aria-hidden': 'true' }, SHARES.map(() => t.h('div')));
    const text = t.h('span', {}, 'nothing to tell yet');
    const node = t.h('p', { class: 'why' }, t.h('span', { class: 'dim' }, 'In sight:'), bar, text);
    node.update = (view, lanes) => {
      if (!view) return;
      const sums = shares(view, lanes);
      const total = Object.values(sums).reduce((sum, each) => sum + each, 0);
      SHARES.forEach(([name, , colour], at) => {
        bar.children[at].style.width = `${100 * sums[name] / Math.max(1, total)}%`;
        bar.children[at].style.background = colour();
      });
      t.setText(text, total ? SHARES.filter(([name]) => name === 'busy' || sums[name] / total >= 0.005)
        .map(([name, label]) => `${t.percent(sums[name] / total)} ${label}`).join(', ') : 'nothing to tell yet');
    };
    return node;
  };

  // Mouse, wheel and touch on a canvas. A press that does not move is a click.
  t.dragAndZoom = (canvas, on) => {
    const pointers = new Map();
    let moved = false;
    let spread = 0;
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      const scale = event.deltaMode === 1 ? 16 : 1;
      if (event.shiftKey || on.isGutter(event.offsetX)) on.wheelDown((event.deltaY || event.deltaX) * scale);
      else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) on.drag(-event.deltaX * scale, 0);
      else on.zoom(Math.exp(t.clamp(event.deltaY * scale, -200, 200) * 0.0022), event.offsetX);
    }, { passive: false });
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      moved = false;
      spread = 0;
    });
    canvas.addEventListener('pointermove', (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) { on.hover(event.offsetX, event.offsetY, event.clientX, event.clientY); return; }
      const dx = event.clientX - before.clientX;
      const dy = event.clientY - before.clientY;
      if (!moved && Math.hypot(dx, dy) < 4) return;
      moved = true;
      pointers.set(event.pointerId, event);
      if (pointers.size === 1) { on.drag(dx, dy); return; }
      const [one, other] = [...pointers.values()];
      const now = Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      if (spread) on.zoom(spread / Math.max(10, now), (one.offsetX + other.offsetX) / 2);
      spread = now;
    });
    const release = (event) => {
      const was = pointers.delete(event.pointerId);
      if (was && !moved && event.type === 'pointerup') on.click(event.offsetX, event.offsetY);
    };
    canvas.addEventListener('pointerup', release);
    canvas.addEventListener('pointercancel', release);
    canvas.addEventListener('pointerleave', () => { if (!pointers.size) on.leave(); });
  };
})(window.transload = window.transload || {});
