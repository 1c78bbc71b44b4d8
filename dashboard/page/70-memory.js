// The view of memory: by tier over time, for the cluster and for each worker.
(function (t) {
  'use strict';

  const store = t.store;
  const ORDER = [2, 3, 0, 1]; // device, pinned, host, disk, as samples number them; drawn from below
  const RANGES = [['1 min', 60e6], ['5 min', 300e6], ['30 min', 1800e6]];
  let surface = null;
  let table = null;
  let rangeUs = RANGES[1][1];
  let shownAt = 0;
  let dirty = true;
  let plots = []; // { x, y, width, height, series, title }
  let hover = null; // { x, y }

  // First sample at or after `us`.
  const firstAt = (series, us) => {
    let low = 0;
    let high = series.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (series[middle].at_us < us) low = middle + 1;
      else high = middle;
    }
    return low;
  };

  const usedOf = (sample) => sample.used || sample.used_bytes;
  const totalOf = (sample) => usedOf(sample).reduce((sum, bytes) => sum + bytes, 0);

  const mostOf = ({ series }, fromUs, toUs) => {
    let most = 0;
    for (let at = Math.max(0, firstAt(series, fromUs) - 1); at < series.length && series[at].at_us <= toUs; at += 1) most = Math.max(most, totalOf(series[at]));
    return most;
  };

  const drawPlot = (plot, fromUs, toUs) => {
    const { context, rem } = surface;
    const { x, y, width, height, series, title } = plot;
    const first = Math.max(0, firstAt(series, fromUs) - 1);
    let last = firstAt(series, toUs + 1);
    // The second that has only begun is no sum yet.
    if (plot.isSum && last === series.length && t.mode === 'live') last -= 1;
    const head = rem * 1.25;
    const inner = height - head;
    const most = Math.max(1, plot.most ?? mostOf(plot, fromUs, toUs)) * 1.12;
    context.fillStyle = t.colour.css('--idle');
    context.beginPath();
    context.roundRect(x, y + head, width, inner, 4);
    context.fill();
    context.textBaseline = 'alphabetic';
    context.textAlign = 'left';
    context.font = surface.font(0.78, 600);
    context.fillStyle = t.colour.css('--text');
    const now = last > first ? t.bytes(totalOf(series[last - 1])) : '';
    context.font = surface.font(0.75);
    const nowWidth = context.measureText(now).width;
    context.font = surface.font(0.78, 600);
    context.fillText(t.fitText(context, title, width - nowWidth - rem), x, y + rem * 0.9);
    context.font = surface.font(0.75);
    context.fillStyle = t.colour.css('--dim');
    context.textAlign = 'right';
    context.fillText(now, x + width, y + rem * 0.9);
    if (last <= first) return;
    const xOf = (us) => x + t.clamp((us - fromUs) / (toUs - fromUs), 0, 1) * width;
    const yOf = (bytes) => y + head + inner - bytes / most * inner;
    const stride = Math.max(1, Math.floor((last - first) / Math.max(20, width)));
    const base = new Float64Array(last - first);
    for (const tier of ORDER) {
      const colour = t.colour.tier(t.colour.SAMPLE_TIERS[tier]);
      let any = false;
      const upper = [];
      const lower = [];
      for (let at = first; at < last; at += stride) {
        const bytes = usedOf(series[at])[tier];
        any = any || bytes > 0;
        lower.push([xOf(series[at].at_us), yOf(base[at - first])]);
        base[at - first] += bytes;
        upper.push([xOf(series[at].at_us), yOf(base[at - first])]);
      }
      if (!any) continue;
      // What was so a moment ago is taken to be so still.
      if (toUs - series[last - 1].at_us < 3e6) {
        upper.push([x + width, upper[upper.length - 1][1]]);
        lower.push([x + width, lower[lower.length - 1][1]]);
      }
      context.beginPath();
      upper.forEach(([px, py], at) => (at ? context.lineTo(px, py) : context.moveTo(px, py)));
      context.strokeStyle = colour;
      context.lineWidth = 1.5;
      context.stroke();
      lower.reverse().forEach(([px, py]) => context.lineTo(px, py));
      context.closePath();
      context.fillStyle = t.colour.alpha(colour, 0.45);
      context.fill();
    }
    if (height > rem * 9) {
      context.font = surface.font(0.7);
      context.fillStyle = t.colour.css('--dim');
      context.textAlign = 'left';
      context.strokeStyle = t.colour.css('--panel');
      context.lineWidth = 3;
      context.lineJoin = 'round';
      const label = (text, px, py) => { context.strokeText(text, px, py); context.fillText(text, px, py); };
      context.fillStyle = t.colour.css('--text');
      for (const share of [0.5, 1]) label(t.bytes(most * share), x + 6, y + head + inner * (1 - share) + rem * 0.9);
      label(store.clockText(fromUs), x + 6, y + height - 5);
      context.textAlign = 'right';
      label(store.clockText(toUs), x + width - 6, y + height - 5);
    }
  };

  const workersBySize = () => store.sortedWorkers().filter((worker) => !worker.lost).map((worker) => ({
    worker, bytes: worker.tiers.reduce((sum, usage) => sum + usage.used_bytes, 0),
  }));

  const arrange = () => {
    const { width, height, rem } = surface;
    const gap = rem * 0.9;
    const top = Math.min(height * 0.42, rem * 18);
    plots = [{ x: 0, y: 0, width, height: top, series: store.history.seconds, title: 'Cluster', isSum: true }];
    const wide = rem * 15;
    const tall = rem * 6.5;
    let columns = Math.max(1, Math.floor((width + gap) / (wide + gap)));
    const rows = Math.max(0, Math.floor((height - top) / (tall + gap)));
    let list = workersBySize();
    const fits = columns * rows;
    // Where not all fit: those that use most, as these are the ones in trouble.
    if (list.length > fits) list = list.sort((one, other) => other.bytes - one.bytes).slice(0, fits);
    columns = t.clamp(list.length, 1, columns);
    const each = (width - gap * (columns - 1)) / columns;
    const used = Math.max(1, Math.ceil(list.length / columns));
    const high = Math.min((height - top - gap * used) / used, rem * 18);
    list.forEach(({ worker }, at) => plots.push({
      x: (at % columns) * (each + gap), y: top + gap + Math.floor(at / columns) * (high + gap), width: each, height: high,
      series: store.history.samples.get(worker.id) || [], title: `${worker.id} ${worker.name}`,
    }));
  };

  const drawHover = (fromUs, toUs) => {
    const plot = hover && plots.find((each) => hover.x >= each.x && hover.x <= each.x + each.width && hover.y >= each.y && hover.y <= each.y + each.height);
    if (!plot || !plot.series.length) { t.hideTooltip(); return; }
    const us = fromUs + (hover.x - plot.x) / plot.width * (toUs - fromUs);
    const sample = plot.series[Math.min(plot.series.length - 1, firstAt(plot.series, us))];
    surface.context.fillStyle = t.colour.css('--focus');
    surface.context.fillRect(hover.x, plot.y + surface.rem * 1.25, 1, plot.height - surface.rem * 1.25);
    t.showTooltip(hover.clientX, hover.clientY, plot.title, [
      ['at', store.clockText(sample.at_us)],
      ...ORDER.map((tier) => [t.colour.TIER_NAMES[t.colour.SAMPLE_TIERS[tier]], t.bytes(usedOf(sample)[tier])]),
      sample.resident_bytes ? ['resident', t.bytes(sample.resident_bytes)] : null,
    ]);
  };

  const draw = () => {
    if (!surface.fit()) return false;
    if (!dirty && !surface.changed) return false;
    dirty = false;
    surface.context.clearRect(0, 0, surface.width, surface.height);
    arrange();
    const toUs = store.nowUs;
    // What is younger than the range is spread over all of it.
    const fromUs = Math.max(toUs - rangeUs, Math.min(store.history.seconds.length ? store.history.seconds[0].at_us : 0, toUs - 10e6));
    // Workers share one scale, so that they can be compared.
    const most = Math.max(1, ...plots.filter((plot) => !plot.isSum).map((plot) => mostOf(plot, fromUs, toUs)));
    for (const plot of plots) if (!plot.isSum) plot.most = most;
    for (const plot of plots) if (plot.height > 20) drawPlot(plot, fromUs, toUs);
    drawHover(fromUs, toUs);
    return false;
  };

  const touch = () => { dirty = true; t.loop.request(); };
  const legend = () => ORDER.map((tier) => t.h('span', { class: 'chip' },
    t.h('span', { class: 'key', style: { background: t.colour.tier(t.colour.SAMPLE_TIERS[tier]) } }), t.colour.TIER_NAMES[t.colour.SAMPLE_TIERS[tier]]));

  const mount = (panel) => {
    const canvas = t.h('canvas', { role: 'img', 'aria-label': 'Memory by tier over time' });
    surface = t.surface(canvas);
    canvas.addEventListener('pointermove', (event) => { hover = { x: event.offsetX, y: event.offsetY, clientX: event.clientX, clientY: event.clientY }; touch(); });
    canvas.addEventListener('pointerleave', () => { hover = null; t.hideTooltip(); touch(); });
    table = t.altTable('Memory of workers', ['worker', 'host', 'GPU used', 'pinned', 'host memory', 'disk', 'resident', 'spilled'], () => store.sortedWorkers().map((worker) => {
      const of = (tier) => {
        const usage = worker.tiers.find((each) => each.tier === tier);
        return usage ? `${t.bytes(usage.used_bytes)}${usage.limit_bytes ? ` of ${t.bytes(usage.limit_bytes)}` : ''}` : '–';
      };
      return [worker.id, worker.host, of('device'), of('pinned'), of('host'), of('disk'), t.bytes(worker.resident_bytes), t.bytes(worker.spilled_bytes)];
    }));
    const range = t.h('select', { 'aria-label': 'Time shown', onchange: () => { rangeUs = Number(range.value); touch(); } },
      RANGES.map(([text, us]) => t.h('option', { value: us, selected: us === rangeUs }, text)));
    const keys = t.h('div', { class: 'chips' }, legend());
    t.colour.onChange(() => { keys.replaceChildren(...legend()); touch(); });
    panel.append(t.h('div', { class: 'toolbar' }, t.h('label', {}, 'Last ', range), keys), t.h('div', { class: 'stage padded' }, canvas, table));
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 450) return;
    shownAt = nowMs;
    const { seconds } = store.history;
    const at = Math.min(seconds.length, firstAt(seconds, store.nowUs)) - 1;
    t.setAttribute(surface.canvas, 'aria-label', at >= 0 ? `Memory by tier over time; now ${t.colour.SAMPLE_TIERS.map((tier, index) =>
      `${t.colour.TIER_NAMES[tier]} ${t.bytes(seconds[at].used[index])}`).join(', ')}` : 'Memory by tier over time; nothing known yet');
    table.update();
    touch();
  };
  t.views.push({ id: 'memory', title: 'Memory', mount, draw, update, order: 5, shown: touch });
})(window.transload = window.transload || {});
