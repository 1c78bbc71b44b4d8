// Where things are on the map: the scheduler in the middle, workers around it host by host, in several rows where one is too crowded.
// The map calls it when workers come or go or the window changes. Knows nothing of drawing.
(function (t) {
  'use strict';

  // Radius of a worker, in pixels, from which on its slots and tiers can be told apart.
  t.MAP_DETAILED = 12;

  const MAX_ROWS = 14;
  const ROOMY = 15; // pixels between two workers below which another row is opened
  const MAX_LABELS = 48; // hosts beyond which names would cover each other
  const WIDEST = [1.35, 1.7]; // of the ellipse, to its height: of few workers, of many

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

  // What tells hosts apart: the part before the first dot, where that is enough.
  const shortNames = (names) => {
    const first = names.map((name) => (/^[\d.]+$/.test(name) ? name : name.split('.')[0]));
    return new Set(first).size === names.length ? first : names;
  };

  // Between two hosts, in workers; where each host has but one, a gap for each would leave no room for workers.
  const gapFor = (count, hosts) => (hosts < 2 ? 0 : count < 2 * hosts && hosts > 8 ? 0.15 : 0.7);

  // Rows, and the room that each worker then has.
  const rowsFor = (count, hosts, rx, ry) => {
    const gaps = hosts * gapFor(count, hosts);
    for (let rows = 1; ; rows += 1) {
      const inner = Math.max(0.45, 1 - (rows - 1) * 0.05);
      const room = perimeter(rx * (1 + inner) / 2, ry * (1 + inner) / 2) / (Math.ceil(count / rows) + gaps);
      if (room >= ROOMY || rows === MAX_ROWS || rows >= count) return { rows, room };
    }
  };

  // How far beyond the middle of a worker the arc of its host is: past its rings and its GPU.
  const outsideOf = (radius) => radius * (radius >= t.MAP_DETAILED ? 2.55 : 1.7) + 6;

  const ring = (workers, hosts, width, height, rem) => {
    const least = Math.min(width, height);
    const labels = hosts.length <= MAX_LABELS ? rem * 1.5 : rem * 0.4;
    const fit = (radius) => {
      const outside = outsideOf(radius);
      const ry = Math.max(40, height / 2 - outside - labels);
      const rx = Math.max(40, width / 2 - outside - (labels > rem ? rem * 5.5 : rem));
      return { rx: Math.min(rx, ry * WIDEST[workers <= 12 ? 0 : 1]), ry: Math.min(ry, rx * 1.15) };
    };
    // The room depends on the margins and these on the room: twice is near enough.
    let radius = least * 0.062;
    let size = null;
    let rows = 1;
    let room = 0;
    for (let round = 0; round < 3; round += 1) {
      size = fit(radius);
      ({ rows, room } = rowsFor(Math.max(1, workers), hosts.length, size.rx, size.ry));
      radius = t.clamp(room * (rows > 1 ? 0.4 : 0.24), 2.2, least * (workers <= 8 ? 0.068 : 0.06));
    }
    return { ...fit(radius), rows, room, radius, outside: outsideOf(radius) };
  };

  t.mapLayout = (workers, width, height, rem) => {
    const cx = width / 2;
    const cy = height / 2;
    const hosts = byHost(workers);
    const { rx, ry, rows, room, radius, outside } = ring(workers.length, hosts, width, height, rem);
    const step = rows > 1 ? Math.min(room / Math.min(rx, ry), 0.5 / rows) : 0;
    const names = shortNames(hosts.map(([name]) => name));

    const columns = hosts.map(([, list]) => Math.ceil(list.length / rows));
    const gap = gapFor(workers.length, hosts.length);
    const units = columns.reduce((sum, count) => sum + count + gap, 0) || 1;
    const angleOf = (unit) => -Math.PI / 2 + (2 * Math.PI * unit) / units;

    const nodes = new Map();
    const arcs = [];
    let unit = gap / 2;
    hosts.forEach(([name, list], index) => {
      const from = angleOf(unit - gap / 14);
      const to = angleOf(unit + columns[index] + gap / 14);
      list.forEach((worker, at) => {
        const column = Math.floor(at / rows);
        const row = at % rows;
        // Odd rows are shifted by half, which packs circles closer.
        const angle = angleOf(unit + column + 0.5 + (rows === 1 ? 0 : row % 2 ? 0.25 : -0.25));
        const scale = 1 - row * step;
        nodes.set(worker.id, { id: worker.id, host: name, angle, radius, x: cx + Math.cos(angle) * rx * scale, y: cy + Math.sin(angle) * ry * scale });
      });
      const middle = (from + to) / 2;
      // Where edges of a whole host end: at its innermost row.
      const inside = 1 - (rows - 0.4) * step;
      arcs.push({
        name, label: hosts.length <= MAX_LABELS ? names[index] : '', from, to, middle, count: list.length,
        x: cx + Math.cos(middle) * rx * inside, y: cy + Math.sin(middle) * ry * inside,
      });
      unit += columns[index] + gap;
    });
    const core = t.clamp(Math.min(width, height) * 0.055, 18, 150);
    return { cx, cy, rx, ry, rows, radius, outside, core, nodes, arcs, hosts: new Map(arcs.map((arc) => [arc.name, arc])) };
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
