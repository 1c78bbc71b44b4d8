// The view of the cluster map. Turns what the store hears into flights, and draws; the same in replays.
(function (t) {
  'use strict';

  const MERGE_ABOVE = 64; // workers above which transfers merge into weighted edges
  const LOST_STAYS_MS = 20000;
  const MAX_FLIGHTS_A_FRAME = 26;
  const store = t.store;
  const flights = t.createFlights();
  const deaths = new Map(); // worker -> when we saw it die, by the browser's clock

  const BACK_EVERY_MS = 90;
  const BACK_EVERY_MANY_MS = 140;
  const GLIDE_MS = 700;

  let surface = null; // what moves
  let back = null; // what stands still or changes slowly, on a canvas behind
  let backKey = '';
  let backMs = 0;
  let glow = null; // edges are drawn at half the resolution: they are soft, and this is what costs most
  let layout = null;
  let layoutKey = '';
  let hovered = null;
  let table = null;
  let shownAt = 0;

  const shown = () => {
    const nowMs = performance.now();
    return store.sortedWorkers().filter((worker) => !worker.lost || nowMs - (deaths.get(worker.id) ?? -Infinity) < LOST_STAYS_MS);
  };
  const isMerged = () => store.workers.size > MERGE_ABOVE;

  const noticeDeaths = (how) => {
    if (how !== 'next') deaths.clear();
    for (const worker of store.workers.values()) {
      if (!worker.lost) deaths.delete(worker.id);
      else if (!deaths.has(worker.id)) {
        const agoUs = store.nowUs - (store.lostAtUs.get(worker.id) || 0);
        // When we join or seek, those long dead are not shown to die again.
        const ageMs = how === 'next' ? Math.min(agoUs / 1000, 300) : agoUs / 1000;
        deaths.set(worker.id, performance.now() - ageMs);
      }
    }
    for (const id of deaths.keys()) if (!store.workers.has(id)) deaths.delete(id);
  };

  const placeOf = (id) => {
    const node = layout.nodes.get(id);
    return node && isMerged() && layout.hosts.size > 1 && layout.hosts.size <= 160 ? layout.hosts.get(node.host) : node;
  };

  // Where a way leaves a worker: at its edge, so that its name stays readable.
  const rim = (place, towards) => {
    const away = Math.hypot(towards.x - place.x, towards.y - place.y);
    const share = away > 0 && t.mapNodes.isDetailed(layout) ? Math.min(0.8, (place.radius || 0) * 0.95 / away) : 0;
    return [place.x + (towards.x - place.x) * share, place.y + (towards.y - place.y) * share];
  };

  const curve = (from, to) => {
    const bend = t.mapBend(layout, from, to);
    const [x0, y0] = rim(from, bend);
    const [x1, y1] = rim(to, bend);
    return { x0, y0, bx: bend.x, by: bend.y, x1, y1 };
  };

  // One flight, or one edge, for all that goes the same way in a frame.
  const mergeTransfers = (transfers) => {
    const merged = new Map();
    for (const transfer of transfers) {
      const from = placeOf(transfer.from);
      const to = placeOf(transfer.to);
      if (!from || !to || from === to) continue;
      const key = `${from.id || from.name}>${to.id || to.name}>${transfer.way}`;
      const known = merged.get(key);
      if (known) { known.bytes += transfer.bytes; known.count += transfer.count; }
      else merged.set(key, { key, from, to, way: transfer.way, bytes: transfer.bytes, count: transfer.count });
    }
    return [...merged.values()].sort((one, other) => other.bytes - one.bytes);
  };

  const launchTransfers = (transfers, nowMs) => {
    const calm = t.colour.isCalm();
    let budget = isMerged() ? 14 : MAX_FLIGHTS_A_FRAME;
    for (const each of mergeTransfers(transfers)) {
      const colour = t.colour.way(each.way);
      const width = t.flightWidth(each.bytes, surface.rem);
      const path = curve(each.from, each.to);
      flights.glow(each.key, { ...path, colour, width: isMerged() ? width * 0.6 : Math.max(1, width * 0.45), strength: calm ? 0.8 : isMerged() ? 0.34 : 0.26 });
      if (calm) continue;
      const copies = isMerged() ? 1 : Math.min(3, each.count);
      for (let copy = 0; copy < copies && budget > 0; copy += 1, budget -= 1) {
        const length = Math.hypot(path.x1 - path.x0, path.y1 - path.y0);
        flights.fly({ ...path, colour, width, startMs: nowMs + Math.random() * 140 + copy * 90, lengthMs: 520 + length * 0.75 });
      }
    }
  };

  const launchAssignments = (assignments, nowMs) => {
    const calm = t.colour.isCalm();
    const centre = { x: layout.cx, y: layout.cy };
    const merged = isMerged();
    let budget = merged ? 18 : MAX_FLIGHTS_A_FRAME;
    for (const each of assignments) {
      const node = layout.nodes.get(each.worker);
      if (!node) continue;
      const colour = t.colour.operator(store.kind(each.graph, each.layer));
      const dx = node.x - centre.x;
      const dy = node.y - centre.y;
      const [x0, y0] = rim({ ...centre, radius: layout.core }, node);
      const [x1, y1] = rim(node, centre);
      const path = {
        x0, y0, x1, y1, bx: centre.x + dx / 2 - dy * 0.06, by: centre.y + dy / 2 + dx * 0.06,
      };
      if (calm || (merged && budget % 2)) {
        const place = placeOf(each.worker);
        flights.glow(`assign ${place.id || place.name}`, { ...path, x1: place.x, y1: place.y, colour, width: 1.2, strength: 0.3 });
      }
      if (calm || budget <= 0) continue;
      const copies = merged ? 1 : Math.min(4, Math.ceil(Math.log2(each.count + 1)));
      for (let copy = 0; copy < copies && budget > 0; copy += 1, budget -= 1) {
        flights.fly({
          ...path, colour, tail: 0.1, width: surface.rem * 0.15, startMs: nowMs + Math.random() * 110 + copy * 60, lengthMs: 380 + Math.hypot(dx, dy) * 0.5,
        });
      }
    }
  };

  const arrange = () => {
    const workers = shown();
    const key = `${surface.width} ${surface.height} ${workers.length} ${workers[0] && workers[0].id} ${workers.length && workers[workers.length - 1].id}`;
    if (key === layoutKey && !surface.changed) return workers;
    layoutKey = key;
    const before = layout;
    layout = t.mapLayout(workers, surface.width, surface.height, surface.rem);
    flights.clear();
    backKey = '';
    if (before && !surface.changed && !t.colour.isCalm() && t.mapNodes.isDetailed(layout)) startMoves(before);
    return workers;
  };

  // Workers glide to where they now belong; new ones come from the scheduler.
  const startMoves = (before) => {
    layout.movedMs = performance.now();
    layout.moves = [...layout.nodes.values()].map((node) => {
      const was = before.nodes.get(node.id) || { x: before.cx, y: before.cy };
      return { node, fromX: was.x, fromY: was.y, toX: node.x, toY: node.y };
    });
  };
  const glide = () => {
    if (!layout.moves) return false;
    const share = Math.min(1, (performance.now() - layout.movedMs) / GLIDE_MS);
    const eased = 1 - (1 - share) ** 3;
    for (const move of layout.moves) {
      move.node.x = move.fromX + (move.toX - move.fromX) * eased;
      move.node.y = move.fromY + (move.toY - move.fromY) * eased;
    }
    if (share >= 1) layout.moves = null;
    backKey = '';
    return true;
  };

  const most = (workers) => {
    const sums = {};
    for (const worker of workers) {
      for (const usage of worker.tiers) sums[usage.tier] = Math.max(sums[usage.tier] || 0, usage.used_bytes);
    }
    return sums;
  };

  const drawEdges = (nowMs) => {
    glow = glow || document.createElement('canvas');
    const width = Math.ceil(back.width / 2);
    const height = Math.ceil(back.height / 2);
    if (glow.width !== width || glow.height !== height) { glow.width = width; glow.height = height; }
    const context = glow.getContext('2d');
    context.setTransform(0.5, 0, 0, 0.5, 0, 0);
    context.clearRect(0, 0, back.width, back.height);
    flights.drawEdges(context, nowMs);
    back.context.drawImage(glow, 0, 0, width * 2, height * 2);
  };

  const drawBack = (workers, env) => {
    back.fit();
    const key = `${store.workersRevision} ${layoutKey} ${t.colour.isDark()}`;
    if (key === backKey && !back.changed && !(flights.hasEdges() && env.nowMs - backMs > (isMerged() ? BACK_EVERY_MANY_MS : BACK_EVERY_MS))) return;
    backKey = key;
    backMs = env.nowMs;
    back.context.clearRect(0, 0, back.width, back.height);
    t.mapNodes.drawHosts(back.context, layout, back);
    drawEdges(env.nowMs);
    t.mapNodes.drawWorkers(back.context, layout, workers, store, { ...env, surface: back, most: most(workers) });
  };

  const drawHover = (context) => {
    const node = hovered && layout.nodes.get(hovered);
    if (!node) return;
    context.beginPath();
    context.arc(node.x, node.y, node.radius * 1.25 + 4, 0, 2 * Math.PI);
    context.lineWidth = 2.5;
    context.strokeStyle = t.colour.css('--focus');
    context.stroke();
  };

  const draw = (nowMs) => {
    if (!surface.fit()) return false;
    const workers = arrange();
    const gliding = glide();
    const { context } = surface;
    context.clearRect(0, 0, surface.width, surface.height);
    const calm = t.colour.isCalm();
    // Nothing breathes while time stands still.
    const still = calm || !t.isMoving();
    const env = { nowMs, calm: still, surface };
    const detailed = t.mapNodes.isDetailed(layout);
    drawBack(workers, env);
    if (detailed) t.mapNodes.drawBusySlots(context, layout, workers, store, env);
    let moving = flights.drawFlights(context, nowMs) || flights.hasEdges() || gliding;
    for (const worker of workers) {
      if (!worker.lost) { moving = moving || (detailed && worker.running.length > 0 && !still); continue; }
      const node = layout.nodes.get(worker.id);
      const ageMs = performance.now() - deaths.get(worker.id);
      if (node) t.mapNodes.drawLost(context, node, worker, ageMs, LOST_STAYS_MS, { calm, surface });
      moving = true;
    }
    t.mapNodes.drawScheduler(context, layout, store, env);
    if (!workers.length) t.mapNodes.drawNobody(context, layout, surface);
    drawHover(context);
    return moving || (store.totals.graphs_running > 0 && !still);
  };

  const nodeAt = (x, y) => {
    let best = null;
    let least = Infinity;
    for (const node of layout ? layout.nodes.values() : []) {
      const distance = Math.hypot(node.x - x, node.y - y);
      if (distance < least && distance < Math.max(9, node.radius * 1.6)) { best = node; least = distance; }
    }
    return best;
  };

  const describe = (worker) => [
    ['worker', `${worker.id} on ${worker.host}, process ${worker.pid}`],
    worker.lost ? ['lost', worker.lost] : ['slots', `${worker.running.length} of ${worker.slots} busy, ${t.count(worker.queued)} queued`],
    worker.gpu && ['GPU', `${worker.gpu.ordinal}: ${worker.gpu.name}`],
    ...worker.tiers.map((usage) => [t.colour.TIER_NAMES[usage.tier] || usage.tier,
      `${t.bytes(usage.used_bytes)}${usage.limit_bytes ? ` of ${t.bytes(usage.limit_bytes)}` : ''}`]),
    ['finished', `${t.count(worker.finished)} tasks`],
    worker.stragglers.length ? ['stragglers', worker.stragglers.join(', ')] : null,
  ];
  t.describeWorker = describe;

  const hover = (id, x, y) => {
    hovered = id;
    const worker = id && store.workers.get(id);
    if (worker) t.showTooltip(x, y, worker.name || worker.id, describe(worker));
    else t.hideTooltip();
    t.loop.request();
  };

  const moveFocus = (step) => {
    const ids = layout ? [...layout.nodes.keys()] : [];
    if (!ids.length) return;
    const at = ids.indexOf(hovered);
    const id = ids[(at + step + ids.length) % ids.length];
    const node = layout.nodes.get(id);
    const box = surface.canvas.getBoundingClientRect();
    hover(id, box.left + node.x, box.top + node.y);
    const worker = store.workers.get(id);
    t.announce(describe(worker).filter(Boolean).map((pair) => pair.join(': ')).join(', '));
  };

  const listen = (canvas) => {
    canvas.addEventListener('pointermove', (event) => {
      const node = nodeAt(event.offsetX, event.offsetY);
      hover(node && node.id, event.clientX, event.clientY);
    });
    canvas.addEventListener('pointerleave', () => hover(null));
    canvas.addEventListener('blur', () => hover(null));
    canvas.addEventListener('click', () => { if (hovered) t.details.worker(hovered); });
    canvas.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); moveFocus(step); }
      if (event.key === 'Enter' && hovered) t.details.worker(hovered);
    });
  };

  const mount = (panel) => {
    const canvas = t.h('canvas', { tabindex: '0', role: 'application', 'aria-label': 'Cluster map. Arrow keys go from worker to worker.' });
    surface = t.surface(canvas);
    const behind = t.h('canvas', { 'aria-hidden': 'true', class: 'behind' });
    back = t.surface(behind);
    listen(canvas);
    table = t.altTable('Workers on the map', ['worker', 'host', 'state', 'busy slots', 'memory'], () => shown().map((worker) => [
      worker.id, worker.host, worker.lost ? `lost: ${worker.lost}` : 'alive', `${worker.running.length} of ${worker.slots}`,
      worker.tiers.map((usage) => `${usage.tier} ${t.bytes(usage.used_bytes)}`).join(', '),
    ]), 'point at a worker, or use the arrow keys; Enter opens it');
    panel.append(t.h('div', { class: 'split' },
      t.h('div', { class: 'stage' }, t.h('div', { class: 'layers-box' }, behind, canvas), table),
      t.mapSide.mount()));
  };

  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 400) return;
    shownAt = nowMs;
    const alive = shown().filter((worker) => !worker.lost);
    const busy = alive.reduce((sum, worker) => sum + worker.running.length, 0);
    t.setAttribute(surface.canvas, 'aria-label', `Cluster map: ${t.plural(alive.length, 'worker')} on ${
      t.plural(layout ? layout.hosts.size : 0, 'host')}, ${t.plural(busy, 'busy slot')}. Arrow keys go from worker to worker.`);
    table.update();
    t.mapSide.update();
  };

  store.onFrame((frame, how) => {
    if (how === 'about') return;
    noticeDeaths(how);
    if (how !== 'next') flights.clear();
    const seen = t.currentView === 'map' && !document.hidden && layout && surface.width;
    if (!frame || how !== 'next' || !seen) return;
    launchTransfers(frame.transfers || [], performance.now());
    launchAssignments(frame.assignments || [], performance.now());
  });
  t.colour.onChange(() => { flights.recolour(); backKey = ''; });

  t.views.push({ id: 'map', title: 'Map', mount, draw, update });
})(window.transload = window.transload || {});
