// Draws the task stream: time axis, how busy the cluster is, lanes with what ran in them.
// The stream's view calls it with where it is in time and in lanes. Knows nothing of the mouse and keyboard.
(function (t) {
  'use strict';

  const STEPS = [1, 2, 5];

  // A round step of time so that labels are about `wanted` apart.
  const roundStep = (us) => {
    const power = 10 ** Math.floor(Math.log10(Math.max(1, us)));
    for (const step of STEPS) if (step * power >= us) return step * power;
    return 10 * power;
  };

  // Colours by graph and layer: one look-up for each span, as there are many.
  const createPaint = (store, hidden) => {
    const graphs = new Map();
    return (span) => {
      let layers = graphs.get(span.graph);
      if (!layers) graphs.set(span.graph, layers = []);
      let paint = layers[span.layer];
      if (!paint) {
        const label = store.kind(span.graph, span.layer);
        const colour = t.colour.operator(label);
        paint = { label, graph: span.graph, layer: span.layer, colour, drawn: hidden.has(label) ? t.colour.alpha(colour, 0.1) : colour, us: 0, count: 0 };
        layers[span.layer] = paint;
        (graphs.list = graphs.list || []).push(paint);
      }
      return paint;
    };
  };

  const drawAxis = (context, view, surface) => {
    const top = view.top - surface.rem * 0.45;
    const step = roundStep(view.lengthUs / Math.max(2, view.width / (surface.rem * 7)));
    const originUs = view.originUs;
    context.font = surface.font(0.75);
    context.textAlign = 'center';
    context.textBaseline = 'alphabetic';
    for (let us = Math.ceil((view.startUs - originUs) / step) * step; us + originUs < view.startUs + view.lengthUs; us += step) {
      if (us < 0) continue;
      const x = view.x(us + originUs);
      context.fillStyle = t.colour.css('--line');
      context.fillRect(Math.round(x), view.top, 1, view.bottom - view.top);
      context.fillStyle = t.colour.css('--dim');
      const text = step >= 1e6 ? `${Math.round(us / 1e6)} s` : step >= 1e3 ? `${(us / 1e6).toFixed(step >= 1e5 ? 1 : step >= 1e4 ? 2 : 3)} s` : t.duration(us);
      context.fillText(text, x, top);
    }
  };

  // What tasks that run have used of each step from `first` on: they have no span yet.
  const runningLoad = (view, store, first) => {
    const { stepUs } = store.history.load;
    const used = [];
    if (!view.showsNow) return used;
    for (const worker of store.workers.values()) {
      if (worker.lost) continue;
      for (const task of worker.running) {
        const startUs = Math.max(first * stepUs, view.nowUs - task.running_ms * 1000);
        for (let step = Math.floor(startUs / stepUs); step * stepUs < view.nowUs; step += 1) {
          const us = Math.min(view.nowUs, (step + 1) * stepUs) - Math.max(startUs, step * stepUs);
          used[step - first] = (used[step - first] || 0) + us;
        }
      }
    }
    return used;
  };

  // The strip above the lanes: share of slots that were busy, and as a line the bytes that came in.
  const drawLoad = (context, view, store, surface) => {
    const { load } = store.history;
    const height = surface.rem * 2.1;
    const bottom = height + surface.rem * 0.3;
    let slots = 0;
    for (const worker of store.workers.values()) if (!worker.lost) slots += worker.slots;
    context.fillStyle = t.colour.css('--idle');
    context.fillRect(view.left, bottom - height, view.width, height);
    context.font = surface.font(0.7);
    context.textAlign = 'left';
    context.textBaseline = 'middle';
    context.fillStyle = t.colour.css('--accent');
    context.fillText('slots busy', 4, bottom - height * 0.72);
    context.fillStyle = t.colour.transfer();
    context.fillText('bytes coming in', 4, bottom - height * 0.25);
    if (!slots || !load.busyUs.length) return;
    const first = Math.max(0, Math.floor(view.startUs / load.stepUs) - load.first);
    const last = Math.min(load.busyUs.length, Math.ceil(Math.min(view.startUs + view.lengthUs, view.nowUs) / load.stepUs) - load.first);
    const merge = Math.max(1, Math.ceil(view.lengthUs / load.stepUs / view.width));
    const running = runningLoad(view, store, first + load.first);
    let most = 1;
    for (let at = first; at < last; at += 1) most = Math.max(most, load.bytes[at]);
    const accent = t.colour.css('--accent');
    const line = [];
    context.fillStyle = t.colour.alpha(accent, 0.65);
    for (let at = first; at < last; at += merge) {
      let busy = 0;
      let bytes = 0;
      const end = Math.min(last, at + merge);
      for (let each = at; each < end; each += 1) { busy += load.busyUs[each] + (running[each - first] || 0); bytes = Math.max(bytes, load.bytes[each]); }
      const x = Math.max(view.left, view.x((load.first + at) * load.stepUs));
      const right = Math.min(view.left + view.width, view.x((load.first + end) * load.stepUs));
      const share = Math.min(1, busy / ((end - at) * load.stepUs * slots));
      context.fillRect(x, bottom - height * share, Math.max(0.5, right - x - (right - x > 4 ? 0.5 : 0)), height * share);
      line.push([(x + right) / 2, bottom - height * 0.95 * bytes / most]);
    }
    context.strokeStyle = t.colour.transfer();
    context.lineWidth = 1.5;
    context.beginPath();
    line.forEach(([x, y], at) => (at ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  };

  const drawFailed = (context, x, y, width, height) => {
    context.fillStyle = t.colour.failed();
    context.fillRect(x, y, Math.max(2, width), height);
    context.strokeStyle = t.colour.alarm();
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, Math.max(1, width - 1), height - 1);
    if (width < 8 || height < 6) return;
    context.beginPath();
    for (let at = x - height; at < x + width; at += 6) {
      context.moveTo(Math.max(x, at), y + height - Math.max(0, x - at));
      const over = Math.max(0, at + height - x - width);
      context.lineTo(at + height - over, y + over);
    }
    context.stroke();
  };

  // The items of a lane. Those thinner than a pixel are skipped while the pixel is taken.
  const drawItems = (context, view, lane, y, height, paintOf, canLabel, surface) => {
    const { items } = lane;
    const perUs = view.width / view.lengthUs;
    const endUs = Math.min(view.startUs + view.lengthUs, view.nowUs);
    const right = view.left + view.width;
    let taken = -1;
    let at = t.lowerBound(items, view.startUs - lane.longestUs);
    while (at < items.length) {
      const item = items[at];
      if (item.start_us >= endUs) break;
      at += 1;
      if (item.end_us < view.startUs) continue;
      const from = Math.max(view.left, view.left + (item.start_us - view.startUs) * perUs);
      const to = Math.min(right, view.left + (Math.min(item.end_us, view.nowUs) - view.startUs) * perUs);
      const paint = paintOf(item);
      if (paint.us !== undefined) { paint.us += item.end_us - item.start_us; paint.count += item.count; }
      if (item.failed) { drawFailed(context, from, y, to - from, height); continue; }
      if (to < taken + 0.35) {
        // Far zoomed out: on to the first that reaches beyond this pixel.
        const ahead = at + 16;
        const nextUs = view.startUs + (taken + 0.35 - view.left) / perUs;
        if (ahead < items.length && items[ahead].end_us < nextUs) at = Math.max(at, t.lowerBound(items, nextUs - lane.longestUs));
        continue;
      }
      context.fillStyle = paint.drawn;
      const gap = to - from > 5 ? 0.75 : 0;
      context.fillRect(from, y, Math.max(0.8, to - from - gap), height);
      taken = to;
      if (canLabel && to - from > surface.rem * 4 && paint.drawn === paint.colour) {
        context.fillStyle = t.colour.on(paint.colour);
        context.fillText(t.fitText(context, paint.label, to - from - 8), from + 4, y + height / 2 + 0.5);
      }
    }
  };

  // Tasks that run have no end yet; they are hatched, in slots that are free.
  const drawRunning = (context, view, store, placed, paintOf) => {
    const taken = new Map(); // worker -> lanes that have one
    for (const { lane, y, height } of placed) {
      if (lane.kind !== 'task') continue;
      let state = taken.get(lane.worker);
      if (!state) {
        const worker = store.workers.get(lane.worker);
        const list = worker && !worker.lost ? worker.running.map((task) => ({
          task: task.task, isSlow: worker.stragglers.includes(task.task), graph: t.graphOf(task.task), layer: task.layer, start_us: view.nowUs - task.running_ms * 1000,
        })) : [];
        taken.set(lane.worker, state = list.sort((one, other) => one.start_us - other.start_us));
      }
      if (!state.length) continue;
      // The first that began after this lane's last one had ended, give or take what reports are late.
      const at = state.findIndex((task) => task.start_us >= lane.lastUs - 100000 && task.layer !== null);
      if (at < 0) continue;
      const [task] = state.splice(at, 1);
      const from = Math.max(view.left, view.x(Math.max(task.start_us, lane.lastUs)));
      const to = Math.min(view.left + view.width, view.x(view.nowUs));
      if (to - from < 1) continue;
      const { colour } = paintOf(task);
      context.fillStyle = t.colour.alpha(colour, 0.3);
      context.fillRect(from, y, to - from, height);
      // One that takes much longer than its like is what a person looks for.
      context.strokeStyle = task.isSlow ? t.colour.alarm() : t.colour.alpha(colour, 0.9);
      context.lineWidth = task.isSlow ? 2 : 1;
      context.strokeRect(from + 0.5, y + 0.5, Math.max(0.5, to - from - 1), Math.max(1, height - 1));
    }
  };

  const drawGutter = (context, view, lanes, store, surface) => {
    context.textBaseline = 'middle';
    context.textAlign = 'left';
    let free = -Infinity;
    for (const group of lanes.groups) {
      const y = view.y(group.unit);
      const height = group.height * view.unit;
      if (y + height < view.top) continue;
      if (y > view.bottom) break;
      const middle = Math.max(view.top + 6, Math.min(y + height / 2, view.bottom - 6));
      if (middle - free < surface.rem * 0.85) continue;
      free = middle;
      const worker = store.workers.get(group.id);
      context.font = surface.font(0.75, 600);
      context.fillStyle = t.colour.css(worker && worker.lost ? '--alarm' : '--text');
      context.fillText(group.id, 4, middle);
      if (!worker) continue;
      context.font = surface.font(0.68);
      context.fillStyle = t.colour.css('--dim');
      const from = 4 + surface.rem * (1 + group.id.length * 0.45);
      context.fillText(t.fitText(context, worker.lost ? 'lost' : worker.name || worker.host, view.left - from - 6), from, middle);
    }
  };

  // From whom a transfer came, as a curve from the worker that held it.
  t.drawFlow = (surface, view, lanes, { lane, item }) => {
    const from = lanes.groups.find((group) => group.id === item.from);
    const to = lanes.list.find((each) => each.lane === lane);
    if (!from || !to) return;
    const { context } = surface;
    const x0 = view.x(item.start_us);
    const y0 = view.y(from.unit + from.height / 2);
    const x1 = view.x(item.end_us);
    const y1 = view.y(to.unit + to.height / 2);
    context.save();
    context.beginPath();
    context.rect(view.left, view.top, view.width, view.bottom - view.top);
    context.clip();
    context.strokeStyle = t.colour.css('--focus');
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(x0, y0);
    context.bezierCurveTo(x0 + 30, y0, x1 - 30, y1, x1, y1);
    context.stroke();
    context.beginPath();
    context.arc(x0, y0, 4, 0, 2 * Math.PI);
    context.fillStyle = t.colour.css('--focus');
    context.fill();
    context.restore();
  };

  t.drawStream = (surface, view, lanes, store, hidden) => {
    const { context } = surface;
    context.clearRect(0, 0, surface.width, surface.height);
    drawLoad(context, view, store, surface);
    drawAxis(context, view, surface);
    context.save();
    context.beginPath();
    context.rect(0, view.top, surface.width, view.bottom - view.top);
    context.clip();
    const paintOf = createPaint(store, hidden);
    const paints = new Set();
    const taskPaint = (span) => { const paint = paintOf(span); paints.add(paint); return paint; };
    const transfer = { drawn: t.colour.alpha(t.colour.transfer(), hidden.has('transfer') ? 0.08 : 0.85) };
    const spill = { drawn: t.colour.alpha(t.colour.move(), hidden.has('spill') ? 0.08 : 1) };
    const copy = { drawn: t.colour.alpha(t.colour.move(), hidden.has('copy') ? 0.05 : 0.45) };
    const movePaint = (move) => (move.to === 'disk' ? spill : copy);
    const gap = view.unit > 6 ? 1 : 0;
    const canLabel = view.unit >= surface.rem * 0.85;
    const placed = [];
    context.textAlign = 'left';
    context.textBaseline = 'middle';
    context.font = surface.font(0.68, 500);
    for (let at = lanes.firstAt(view.scroll); at < lanes.list.length; at += 1) {
      const { lane, unit, height } = lanes.list[at];
      const y = view.y(unit);
      if (y > view.bottom) break;
      const tall = Math.max(0.8, height * view.unit - gap);
      context.fillStyle = t.colour.css('--idle');
      context.fillRect(view.left, y, view.width, tall);
      placed.push({ lane, y, height: tall });
      if (!lane.items.length) continue;
      const paint = lane.kind === 'task' ? taskPaint : lane.kind === 'transfer' ? () => transfer : movePaint;
      drawItems(context, view, lane, y, tall, paint, canLabel && lane.kind === 'task', surface);
    }
    if (view.showsNow) drawRunning(context, view, store, placed, paintOf);
    drawGutter(context, view, lanes, store, surface);
    context.restore();
    return { paints: [...paints], placed };
  };
})(window.transload = window.transload || {});
