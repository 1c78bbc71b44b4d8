// The view of bandwidth: a square for each two workers, or hosts where there are many, by what moved between them or how fast.
(function (t) {
  'use strict';

  // From little to much, in both themes; interpolated.
  const DARK = [[18, 28, 54], [38, 70, 140], [30, 130, 190], [60, 200, 170], [210, 235, 110], [255, 250, 210]];
  const LIGHT = [[226, 236, 248], [160, 200, 235], [80, 150, 215], [40, 90, 180], [60, 40, 130], [40, 10, 70]];
  const store = t.store;
  let surface = null;
  let table = null;
  const MANY = 128; // workers above which hosts are shown, unless one asks for workers
  let by = 'bytes_per_s';
  let wanted = ''; // 'worker', 'host', or empty for what fits
  let shownAt = 0;
  let dirty = true;
  let hover = null;
  let image = null; // one pixel for each two workers, to be scaled
  let grid = null; // { list, count, cells: Map, low, high, x, y, size, cell, byHost }
  let scaleNodes = null;

  const ramp = (share) => {
    const stops = t.colour.isDark() ? DARK : LIGHT;
    const at = t.clamp(share, 0, 1) * (stops.length - 1);
    const low = Math.min(stops.length - 2, Math.floor(at));
    return stops[low].map((part, index) => Math.round(part + (stops[low + 1][index] - part) * (at - low)));
  };

  // Who stands in rows and columns: { id, host, text }, hosts next to each other.
  const parties = () => {
    const used = new Set();
    for (const pair of store.pairs) { used.add(pair.from); used.add(pair.to); }
    const workers = store.sortedWorkers().filter((worker) => !worker.lost || used.has(worker.id));
    const byHost = wanted ? wanted === 'host' : workers.length > MANY;
    const index = new Map();
    if (!byHost) {
      const sorted = [...workers].sort((one, other) => (one.host < other.host ? -1 : one.host > other.host ? 1 : 0));
      sorted.forEach((worker, at) => index.set(worker.id, at));
      return { byHost, index, list: sorted.map((worker) => ({ id: worker.id, host: worker.host, text: `${worker.name} on ${worker.host}` })) };
    }
    const hosts = [...new Set(workers.map((worker) => worker.host))].sort();
    const places = new Map(hosts.map((host, at) => [host, at]));
    workers.forEach((worker) => index.set(worker.id, places.get(worker.host)));
    return { byHost, index, list: hosts.map((host) => ({ id: host, host, text: host })) };
  };

  // Bytes of a cell add up; of bandwidths the best tells what the way can do.
  const merge = (cells, key, pair) => {
    const known = cells.get(key);
    if (!known) { cells.set(key, { ...pair }); return; }
    known.bytes += pair.bytes;
    known.partitions += pair.partitions;
    known.bytes_per_s = Math.max(known.bytes_per_s, pair.bytes_per_s);
    known.demoted = known.demoted || pair.demoted;
  };

  const prepare = () => {
    const { byHost, index, list } = parties();
    const cells = new Map();
    for (const pair of store.pairs) {
      const row = index.get(pair.from);
      const column = index.get(pair.to);
      if (row !== undefined && column !== undefined) merge(cells, row * list.length + column, pair);
    }
    let low = Infinity;
    let high = 0;
    for (const pair of cells.values()) if (pair[by] > 0) { low = Math.min(low, pair[by]); high = Math.max(high, pair[by]); }
    const { width, height, rem } = surface;
    const count = Math.max(1, list.length);
    const label = count <= 70 ? rem * 4 : rem * 1.6;
    const size = Math.max(50, Math.min(width - label - rem, height - label - rem));
    grid = { byHost, list, cells, low, high, count, size, cell: size / count, x: label + Math.max(0, (width - label - size) / 2), y: label };
  };

  // By order of magnitude: links differ by a thousand times.
  const shareOf = (value) => {
    if (!value) return -1;
    if (grid.high <= grid.low * 1.0001) return 0.75;
    return 0.08 + 0.92 * Math.log(value / grid.low) / Math.log(grid.high / grid.low);
  };

  const paintImage = () => {
    image = image || document.createElement('canvas');
    image.width = grid.count;
    image.height = grid.count;
    const context = image.getContext('2d');
    const pixels = context.createImageData(grid.count, grid.count);
    for (const [at, pair] of grid.cells) {
      const share = shareOf(pair[by]);
      if (share < 0) continue;
      const [red, green, blue] = ramp(share);
      pixels.data.set([red, green, blue, 255], at * 4);
    }
    context.putImageData(pixels, 0, 0);
  };

  const drawLabels = () => {
    const { context, rem } = surface;
    const { list, byHost, x, y, size, cell } = grid;
    context.fillStyle = t.colour.css('--dim');
    context.textBaseline = 'middle';
    if (cell >= rem * 0.8) {
      context.font = surface.font(Math.min(0.8, cell / rem * 0.75));
      list.forEach((party, at) => {
        const name = t.shorten(party.id, 9);
        const middle = (at + 0.5) * cell;
        context.textAlign = 'right';
        context.fillText(name, x - 6, y + middle);
        context.textAlign = 'center';
        if (cell > rem * 1.9) context.fillText(name, x + middle, y - rem * 0.6);
        else {
          context.save();
          context.translate(x + middle, y - 6);
          context.rotate(-Math.PI / 2);
          context.textAlign = 'left';
          context.fillText(name, 0, 0);
          context.restore();
        }
      });
    }
    context.font = surface.font(0.78, 600);
    context.textAlign = 'left';
    context.fillText('reads →', x, y - rem * (cell > rem * 1.9 ? 1.9 : cell >= rem * 0.8 ? 3.2 : 0.8));
    context.save();
    context.translate(x - rem * (cell >= rem * 0.8 ? 3.2 : 0.8), y + size);
    context.rotate(-Math.PI / 2);
    context.fillText('held by →', 0, 0);
    context.restore();
    // Lines between hosts, unless there would be nothing but lines.
    const borders = byHost ? [] : list.map((party, at) => at).filter((at) => at > 0 && list[at].host !== list[at - 1].host);
    if (borders.length * 8 > size) return;
    context.fillStyle = t.colour.css('--line-strong');
    for (const at of borders) {
      context.fillRect(x + at * cell - 0.5, y, 1, size);
      context.fillRect(x, y + at * cell - 0.5, size, 1);
    }
  };

  const drawMarks = () => {
    const { context, rem } = surface;
    const { cells, count, x, y, cell } = grid;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (const [at, pair] of cells) {
      const left = x + (at % count) * cell;
      const top = y + Math.floor(at / count) * cell;
      if (cell > rem * 4.2 && pair[by]) {
        context.font = surface.font(0.75, 600);
        context.fillStyle = t.colour.on(`#${ramp(shareOf(pair[by])).map((part) => part.toString(16).padStart(2, '0')).join('')}`);
        context.fillText(by === 'bytes' ? t.bytes(pair.bytes) : t.rate(pair.bytes_per_s), left + cell / 2, top + cell / 2);
      }
      if (!pair.demoted || cell < 3) continue;
      // A corner that is turned down: a better way was tried and failed.
      const corner = Math.max(3, Math.min(cell * 0.35, rem));
      context.fillStyle = t.colour.alarm();
      context.beginPath();
      context.moveTo(left + cell - corner, top);
      context.lineTo(left + cell, top);
      context.lineTo(left + cell, top + corner);
      context.fill();
    }
  };

  const draw = () => {
    if (!surface.fit()) return false;
    if (!dirty && !surface.changed) return false;
    dirty = false;
    prepare();
    const { context } = surface;
    context.clearRect(0, 0, surface.width, surface.height);
    context.fillStyle = t.colour.css('--idle');
    context.fillRect(grid.x, grid.y, grid.size, grid.size);
    paintImage();
    context.imageSmoothingEnabled = false;
    context.drawImage(image, grid.x, grid.y, grid.size, grid.size);
    if (grid.cell > 8) {
      context.fillStyle = t.colour.css('--bg');
      for (let at = 0; at <= grid.count; at += 1) {
        context.fillRect(grid.x + at * grid.cell - 0.5, grid.y, 1, grid.size);
        context.fillRect(grid.x, grid.y + at * grid.cell - 0.5, grid.size, 1);
      }
    }
    drawLabels();
    drawMarks();
    if (hover) {
      context.strokeStyle = t.colour.css('--focus');
      context.lineWidth = 2;
      context.strokeRect(grid.x + hover.column * grid.cell, grid.y + hover.row * grid.cell, Math.max(3, grid.cell), Math.max(3, grid.cell));
    }
    t.setText(scaleNodes.low, grid.high ? (by === 'bytes' ? t.bytes(grid.low) : t.rate(grid.low)) : '');
    t.setText(scaleNodes.high, grid.high ? (by === 'bytes' ? t.bytes(grid.high) : t.rate(grid.high)) : '');
    return false;
  };

  const touch = () => { dirty = true; t.loop.request(); };

  const onMove = (event) => {
    if (!grid) return;
    const column = Math.floor((event.offsetX - grid.x) / grid.cell);
    const row = Math.floor((event.offsetY - grid.y) / grid.cell);
    const inside = column >= 0 && row >= 0 && column < grid.list.length && row < grid.list.length;
    hover = inside ? { row, column } : null;
    touch();
    if (!inside) { t.hideTooltip(); return; }
    const pair = grid.cells.get(row * grid.count + column);
    const from = grid.list[row];
    const to = grid.list[column];
    t.showTooltip(event.clientX, event.clientY, `${from.id} to ${to.id}`, pair ? [
      ['from', from.text], ['to', to.text], ['bytes', t.bytes(pair.bytes)], ['partitions', t.count(pair.partitions)],
      [grid.byHost ? 'fastest' : 'speed', t.rate(pair.bytes_per_s)], ['by', pair.transport], pair.demoted && ['not better, as', pair.demoted],
    ] : ['Nothing has moved here.']);
  };

  const mount = (panel) => {
    const canvas = t.h('canvas', { role: 'img', 'aria-label': 'What moved between each two workers', onpointermove: onMove,
      onpointerleave: () => { hover = null; t.hideTooltip(); touch(); } });
    surface = t.surface(canvas);
    const choice = t.h('select', { 'aria-label': 'Colour by', onchange: () => { by = choice.value; touch(); } },
      t.h('option', { value: 'bytes_per_s' }, 'bandwidth'), t.h('option', { value: 'bytes' }, 'bytes moved'));
    const who = t.h('select', { 'aria-label': 'Rows and columns', onchange: () => { wanted = who.value; touch(); } },
      t.h('option', { value: '' }, 'what fits'), t.h('option', { value: 'worker' }, 'workers'), t.h('option', { value: 'host' }, 'hosts'));
    scaleNodes = { low: t.h('span'), high: t.h('span'), strip: t.h('span', { class: 'ramp' }) };
    const paint = () => {
      scaleNodes.strip.style.background = `linear-gradient(90deg, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map((share) => `rgb(${ramp(share).join(',')})`).join(',')})`;
    };
    paint();
    t.colour.onChange(() => { paint(); touch(); });
    table = t.altTable('What moved between workers, most first', ['pair', 'bytes', 'partitions', 'bandwidth', 'transport', 'why not better'], () => [...store.pairs]
      .sort((one, other) => other.bytes - one.bytes)
      .map((pair) => [`${pair.from} to ${pair.to}`, t.bytes(pair.bytes), t.count(pair.partitions), t.rate(pair.bytes_per_s), pair.transport, pair.demoted || '–']));
    panel.append(t.h('div', { class: 'toolbar' }, t.h('label', {}, 'Colour by ', choice), t.h('label', {}, 'Show ', who), scaleNodes.low, scaleNodes.strip, scaleNodes.high,
      t.h('span', { class: 'dim' }, t.h('span', { class: 'key corner' }), ' a better transport failed here')),
    t.h('div', { class: 'stage padded' }, canvas, table));
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 900) return;
    shownAt = nowMs;
    const total = store.pairs.reduce((sum, pair) => sum + pair.bytes, 0);
    t.setAttribute(surface.canvas, 'aria-label', `Bandwidth matrix: ${t.plural(store.pairs.length, 'pair')} of workers moved ${t.bytes(total)}. The table below has them all.`);
    table.update();
    touch();
  };
  t.views.push({ id: 'bandwidth', title: 'Bandwidth', mount, draw, update, order: 6, shown: touch });
})(window.transload = window.transload || {});
