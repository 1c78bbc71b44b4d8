// Where things are on the map: the scheduler in the middle, workers around it host by host, in several rows where one is too crowded.
// The map calls it when workers come or go or the window changes. Knows nothing of drawing.
(function (t) {
  'use strict';

  const MAX_ROWS = 14;
  const ROOMY = 15; // pixels between two workers below which another row is opened

  const perimeter = (rx, ry) => Math.PI * (3 * (rx + ry) - Math.sqrt((3 * rx + ry) * (rx + 3 * ry)));

  const byHost = (workers) => {
    const hosts = new Map();
    for (const worker of workers) {
      const name = worker.host || worker.name;
      if (!hosts.has(name)) hosts.set(name, []);
      hosts.get(name).push(worker);
    }
    return [...hosts.entries()].sort((one, other) => (one[0] < other[0] ? -1 : 1));
  };

  // Rows, and the room that each worker then has.
  const rowsFor = (count, hosts, rx, ry) => {
    const gaps = hosts > 1 ? hosts * 0.7 : 0;
    for (let rows = 1; ; rows += 1) {
      const inner = Math.max(0.45, 1 - (rows - 1) * 0.05);
      const room = perimeter(rx * (1 + inner) / 2, ry * (1 + inner) / 2) / (Math.ceil(count / rows) + gaps);
      if (room >= ROOMY || rows === MAX_ROWS || rows >= count) return { rows, room };
    }
  };

  t.mapLayout = (workers, width, height, rem) => {
    const cx = width / 2;
    const cy = height / 2;
    const hosts = byHost(workers);
    const least = Math.min(width, height);
    // Room for satellites and the labels of hosts.
    const margin = 3.4 * rem + least * 0.055;
    let ry = Math.max(40, height / 2 - margin);
    let rx = Math.min(Math.max(40, width / 2 - margin - rem), ry * 1.45);
    ry = Math.min(ry, rx * 1.15);
    const { rows, room } = rowsFor(Math.max(1, workers.length), hosts.length, rx, ry);
    const radius = t.clamp(room * (rows > 1 ? 0.4 : 0.26), 2.2, least * 0.062);
    const step = rows > 1 ? Math.min(room / Math.min(rx, ry), 0.5 / rows) : 0;

    const columns = hosts.map(([, list]) => Math.ceil(list.length / rows));
    const gap = hosts.length > 1 ? 0.7 : 0;
    const units = columns.reduce((sum, count) => sum + count + gap, 0) || 1;
    const angleOf = (unit) => -Math.PI / 2 + (2 * Math.PI * unit) / units;

    const nodes = new Map();
    const arcs = [];
    let unit = hosts.length > 1 ? gap / 2 : 0;
    hosts.forEach(([name, list], index) => {
      const from = angleOf(unit - 0.05);
      const to = angleOf(unit + columns[index] + 0.05);
      list.forEach((worker, at) => {
        const column = Math.floor(at / rows);
        const row = at % rows;
        // Odd rows are shifted by half, which packs circles closer.
        const angle = angleOf(unit + column + 0.5 + (rows > 1 && row % 2 ? 0.25 : rows > 1 ? -0.25 : 0));
        const scale = 1 - row * step;
        nodes.set(worker.id, {
          id: worker.id, host: name, angle, radius, x: cx + Math.cos(angle) * rx * scale, y: cy + Math.sin(angle) * ry * scale,
        });
      });
      const middle = (from + to) / 2;
      const inside = 1 - (rows - 1) * step / 2;
      arcs.push({ name, from, to, middle, count: list.length, x: cx + Math.cos(middle) * rx * inside, y: cy + Math.sin(middle) * ry * inside });
      unit += columns[index] + gap;
    });
    return { cx, cy, rx, ry, rows, radius, core: t.clamp(least * 0.055, 18, 90), nodes, arcs, hosts: new Map(arcs.map((arc) => [arc.name, arc])) };
  };

  // The control point of the curve from one place to another: bent towards the middle, and to one side, so that there and back differ.
  t.mapBend = (layout, from, to) => {
    const dx = to.x - from.x;
    const dy = to.y - from.y;
    const side = 0.13;
    return {
      x: (from.x + to.x) / 2 * 0.5 + layout.cx * 0.5 - dy * side,
      y: (from.y + to.y) / 2 * 0.5 + layout.cy * 0.5 + dx * side,
    };
  };
})(window.transload = window.transload || {});
