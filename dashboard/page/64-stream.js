// The view of the task stream: where one looks in time and lanes, mouse, touch and keyboard, and its legend.
(function (t) {
  'use strict';

  const SHORTEST_US = 200;
  const LONGEST_US = 24 * 3600e6;
  const store = t.store;
  const lanes = t.createStreamLanes(store);
  const hidden = new Set(); // kinds whose spans are dimmed
  let surface = null;
  const nodes = {};
  let lengthUs = 20e6;
  let startUs = 0;
  let follow = true;
  let scroll = 0; // in units of lanes
  let unit = 0; // pixels of a lane; 0 chooses what fits
  let filter = '';
  let view = null;
  let drawn = { paints: [], placed: [] };
  let drawMs = 0;
  let hover = null; // { lane, item }
  let shownAt = 0;
  let dirty = true;

  const isWanted = (id, worker) => !filter || id === filter || Boolean(worker && `${worker.name} ${worker.host}`.toLowerCase().includes(filter));
  const touch = () => { dirty = true; t.loop.request(); };
  const setFollow = (on) => {
    follow = on;
    t.setAttribute(nodes.follow, 'aria-pressed', on);
    touch();
  };

  const frameView = () => {
    const { rem } = surface;
    const left = rem * 8;
    const top = rem * 4;
    const bottom = surface.height - 4;
    const width = Math.max(10, surface.width - left - rem * 0.6);
    const nowUs = t.nowUs();
    const origin = Number.isFinite(store.history.firstUs) ? store.history.firstUs : nowUs;
    // A young cluster fills the width; what was before it began is no use to anybody.
    const shownUs = follow ? Math.min(lengthUs, Math.max(2e6, (nowUs - origin) * 1.02)) : lengthUs;
    if (follow) startUs = nowUs - shownUs * 0.985;
    const fitting = (bottom - top) / Math.max(1, lanes.units);
    const pixels = unit || t.clamp(fitting, rem * 0.3, rem * 1.5);
    scroll = t.clamp(scroll, 0, Math.max(0, lanes.units - (bottom - top) / pixels));
    return {
      left, top, bottom, width, startUs, lengthUs: shownUs, nowUs, scroll, unit: pixels, originUs: Math.floor(origin / 1e6) * 1e6,
      showsNow: startUs + shownUs >= nowUs,
      x: (us) => left + (us - startUs) / shownUs * width,
      y: (at) => top + (at - scroll) * pixels,
      us: (x) => startUs + (x - left) / width * shownUs,
    };
  };

  const drawMarks = () => {
    const { context } = surface;
    const mark = (found, colour) => {
      const place = found && drawn.placed.find((each) => each.lane === found.lane);
      if (!place) return;
      const from = Math.max(view.left, view.x(found.item.start_us));
      const to = Math.min(view.left + view.width, view.x(found.item.end_us));
      context.strokeStyle = colour;
      context.lineWidth = 2;
      context.strokeRect(from - 1, place.y - 1, Math.max(3, to - from + 2), place.height + 2);
    };
    mark(hover, t.colour.css('--focus'));
    if (hover && hover.lane.kind === 'transfer') t.drawFlow(surface, view, lanes, hover);
    const total = lanes.units * view.unit;
    const room = view.bottom - view.top;
    if (total > room + 1) {
      context.fillStyle = t.colour.css('--line-strong');
      const tall = Math.max(20, room * room / total);
      context.fillRect(surface.width - 5, view.top + (room - tall) * scroll / Math.max(0.01, lanes.units - room / view.unit), 4, tall);
    }
  };

  const draw = () => {
    if (!surface.fit()) return false;
    const moving = follow && t.isMoving();
    // Where drawing takes long, what is new is drawn ten times a second rather than sixty.
    if (!dirty && !surface.changed && (!moving || drawMs > 9)) return moving && drawMs <= 9;
    dirty = false;
    const began = performance.now();
    lanes.refresh(isWanted, filter);
    view = frameView();
    drawn = t.drawStream(surface, view, lanes, store, hidden);
    drawMarks();
    drawMs = 0.7 * drawMs + 0.3 * (performance.now() - began);
    return moving && drawMs <= 9;
  };

  const zoom = (factor, x) => {
    const at = x === undefined ? view.left + view.width / 2 : t.clamp(x, view.left, view.left + view.width);
    const us = follow ? view.nowUs : view.us(at);
    const next = t.clamp(view.lengthUs * factor, SHORTEST_US, LONGEST_US);
    if (!follow) startUs = us - (us - startUs) * next / view.lengthUs;
    lengthUs = next;
    touch();
  };
  const pan = (pixels, lanesDown) => {
    if (pixels) { if (follow) { lengthUs = view.lengthUs; setFollow(false); } startUs += pixels / view.width * lengthUs; }
    scroll += lanesDown || 0;
    touch();
  };
  const fit = () => {
    const { firstUs } = store.history;
    lanes.refresh(isWanted, filter);
    if (!Number.isFinite(firstUs)) return;
    if (follow) setFollow(false);
    // Of a recording the end is when the last has ended, however long it went on after that.
    let endUs = t.mode === 'live' ? t.nowUs() : firstUs;
    for (const { lane } of lanes.list) endUs = Math.max(endUs, lane.lastUs);
    lengthUs = Math.max(SHORTEST_US, (endUs - firstUs) * 1.03);
    startUs = firstUs - lengthUs * 0.01;
    touch();
  };

  const find = (x, y) => {
    if (!view || x < view.left || y < view.top) return null;
    const place = drawn.placed.find((each) => y >= each.y && y <= each.y + each.height);
    const item = place && lanes.itemAt(place.lane, view.us(x), view.lengthUs / view.width * 2, view.nowUs);
    return item ? { lane: place.lane, item } : null;
  };

  const describe = ({ lane, item }) => {
    const took = ['took', t.duration(item.end_us - item.start_us)];
    if (lane.kind === 'task') {
      return [`Task ${item.task}`, [
        ['layer', store.label(item.graph, item.layer)], ['where', `${item.worker}, slot ${item.lane}`], took,
        ['made', t.bytes(item.bytes)], item.count > 1 && ['tasks', t.count(item.count)], item.failed && ['failed', item.failed],
      ]];
    }
    if (lane.kind === 'transfer') {
      const us = item.end_us - item.start_us;
      return [`Partition ${item.partition}`, [
        ['from', `${item.from} to ${item.to}`], ['bytes', t.bytes(item.bytes)], took, us > 0 && ['speed', t.rate(item.bytes / us * 1e6)],
        ['by', `${item.transport} (${t.colour.WAY_NAMES[item.way] || item.way})`], item.count > 1 && ['partitions', t.count(item.count)],
      ]];
    }
    return [item.to === 'disk' ? 'Spill' : 'Copy', [['from', `${item.from} to ${item.to}`], ['worker', item.worker], ['bytes', t.bytes(item.bytes)], took]];
  };
  const open = ({ lane, item }) => {
    if (lane.kind === 'task') t.details.task(item.task, item);
    else if (lane.kind === 'transfer') t.details.transfer(item);
    else t.details.move(item);
  };

  // By keyboard: to the next or previous item of the lane, or into the next lane that has something.
  const step = (along, across) => {
    let place = hover && drawn.placed.find((each) => each.lane === hover.lane);
    let item = hover && hover.item;
    if (!place || across) {
      const list = drawn.placed.filter((each) => each.lane.items.some((each2) => each2.end_us > view.startUs && each2.start_us < view.nowUs));
      place = list[t.clamp(list.indexOf(place) + (across || 1), 0, list.length - 1)];
      if (!place) return;
      item = lanes.itemAt(place.lane, hover ? hover.item.start_us : view.nowUs, lengthUs / 8, view.nowUs) || place.lane.items[place.lane.items.length - 1];
    } else {
      const { items } = place.lane;
      item = items[t.clamp(items.indexOf(item) + along, 0, items.length - 1)];
    }
    hover = { lane: place.lane, item };
    if (item.start_us < startUs || item.end_us > startUs + lengthUs) { setFollow(false); startUs = item.start_us - lengthUs / 2; }
    const [title, lines] = describe(hover);
    t.announce(`${title}: ${lines.filter(Boolean).map((pair) => pair.join(' ')).join(', ')}`);
    const box = surface.canvas.getBoundingClientRect();
    t.showTooltip(box.left + t.clamp(view.x(item.start_us), view.left, surface.width), box.top + place.y + place.height, title, lines);
    touch();
  };

  const onKey = (event) => {
    const far = view ? view.width / 8 : 100;
    const actions = {
      ArrowLeft: () => pan(-far), ArrowRight: () => pan(far), ArrowUp: () => pan(0, -3), ArrowDown: () => pan(0, 3),
      '+': () => zoom(0.7), '=': () => zoom(0.7), '-': () => zoom(1.4), 0: fit, f: () => setFollow(!follow),
      PageUp: () => pan(0, -20), PageDown: () => pan(0, 20),
      n: () => step(1), p: () => step(-1), j: () => step(0, 1), k: () => step(0, -1), Enter: () => hover && open(hover),
    };
    const action = actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey || !view) return;
    event.preventDefault();
    action();
  };

  const setHover = (found, x, y) => {
    const changed = (found && found.item) !== (hover && hover.item);
    hover = found;
    if (found) t.showTooltip(x, y, ...describe(found));
    else t.hideTooltip();
    if (changed) touch();
  };

  const mount = (panel) => {
    const canvas = t.h('canvas', {
      tabindex: '0', role: 'application',
      'aria-label': 'Task stream. Arrow keys move, plus and minus zoom, 0 shows all, F follows; J and K choose a lane, N and P a task, Enter opens it.',
    });
    surface = t.surface(canvas);
    canvas.addEventListener('keydown', onKey);
    t.dragAndZoom(canvas, {
      zoom: (factor, x) => view && zoom(factor, x),
      drag: (dx, dy) => { if (view) pan(-dx, -dy / view.unit); },
      wheelDown: (pixels) => view && pan(0, pixels / view.unit),
      isGutter: (x) => view && x < view.left,
      hover: (x, y, clientX, clientY) => setHover(find(x, y), clientX, clientY),
      leave: () => setHover(null),
      click: (x, y) => { const found = find(x, y); if (found) open(found); },
    });
    const button = (text, label, onclick) => t.h('button', { type: 'button', onclick, 'aria-label': label, title: label }, text);
    nodes.follow = t.h('button', { type: 'button', 'aria-pressed': String(follow), onclick: () => setFollow(!follow) }, 'Follow');
    nodes.legend = t.h('div', { class: 'chips', role: 'group', 'aria-label': 'Show or dim kinds of work' });
    const search = t.h('input', {
      type: 'search', placeholder: 'worker or host', 'aria-label': 'Show only workers with this in their name or host',
      oninput: () => { filter = search.value.trim().toLowerCase(); scroll = 0; touch(); },
    });
    const size = t.h('input', {
      type: 'range', min: '0', max: '40', value: '0', 'aria-label': 'Height of lanes; at 0 what fits',
      oninput: () => { unit = Number(size.value) ? Math.max(1, Number(size.value)) : 0; touch(); },
    });
    nodes.why = t.streamShares();
    nodes.table = t.streamTable(() => view, lanes);
    panel.append(
      t.h('div', { class: 'toolbar' }, nodes.follow, button('+', 'Zoom in', () => zoom(0.6)), button('−', 'Zoom out', () => zoom(1.6)),
        button('All', 'Show all that is remembered', fit), t.h('label', {}, 'Lanes ', size), search, nodes.why, nodes.legend),
      t.h('div', { class: 'stage' }, canvas, nodes.table));
  };

  const update = (force) => {
    touch();
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 700) return;
    shownAt = nowMs;
    t.streamLegend(nodes.legend, drawn.paints, hidden, touch);
    nodes.why.update(view, lanes);
    nodes.table.update();
  };
  t.colour.onChange(touch);
  // Before it is mounted, too: then it begins so.
  t.stream = { showAll: () => { follow = false; if (nodes.follow) setFollow(false); fit(); } };
  t.views.push({ id: 'tasks', title: 'Task stream', mount, draw, update, order: 2, shown: touch });
})(window.transload = window.transload || {});
