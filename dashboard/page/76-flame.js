// A flame graph of one graph: where the time of its tasks went, by layer, then worker, then task. A click goes into a part, a click on the
// top goes out again. The view of queries mounts it.
(function (t) {
  'use strict';

  const ROWS = 4;
  const MAX_TASKS = 20000;
  const store = t.store;

  const child = (parent, key, make) => {
    let node = parent.byKey.get(key);
    if (!node) {
      parent.byKey.set(key, node = { us: 0, count: 0, bytes: 0, byKey: new Map(), parent, ...make() });
      parent.children.push(node);
    }
    return node;
  };

  const titleOf = (graph, index) => (graph.layers[index] ? t.layerTitle(graph.layers[index], index) : `layer ${index}`);

  const build = (graph) => {
    const root = { label: t.graphTitle(graph).replace(/\s+/g, ' '), us: 0, count: 0, bytes: 0, byKey: new Map(), children: [], colour: null };
    let tasks = 0;
    store.history.eachTask((span) => {
      if (span.graph !== graph.id || span.end_us > store.nowUs) return;
      const colour = t.colour.operator(store.kind(span.graph, span.layer));
      const layer = child(root, span.layer, () => ({ label: titleOf(graph, span.layer), colour, layer: span.layer, children: [] }));
      const worker = child(layer, span.worker, () => ({ label: span.worker, colour, worker: span.worker, children: [] }));
      const us = span.end_us - span.start_us;
      for (const node of [root, layer, worker]) { node.us += us; node.count += span.count; node.bytes += span.bytes; }
      if ((tasks += 1) < MAX_TASKS) worker.children.push({ label: span.task, us, count: span.count, bytes: span.bytes, colour, parent: worker, children: [], span });
    });
    // The history may have begun after the graph: then layers are all that is known.
    if (!root.us) {
      graph.layers.forEach((layer, index) => {
        if (!layer.run_us) return;
        root.children.push({ label: t.layerTitle(layer, index), us: layer.run_us, count: layer.done, bytes: layer.bytes, colour: t.colour.operator(t.layerKind(layer)), parent: root, layer: index, children: [] });
        root.us += layer.run_us;
        root.count += layer.done;
      });
    }
    root.children.sort((one, other) => one.layer - other.layer);
    root.children.forEach((layer) => {
      layer.children.sort((one, other) => other.us - one.us);
      layer.children.forEach((worker) => worker.children.sort((one, other) => other.us - one.us));
    });
    return root;
  };

  t.createFlame = () => {
    const canvas = t.h('canvas', { class: 'flame', tabindex: '0', role: 'application', 'aria-label': 'Flame graph' });
    const surface = t.surface(canvas);
    let root = null;
    let focus = null; // path of labels to what fills the width
    let placed = [];
    let hovered = null;
    let shownGraph = '';

    const focused = () => {
      let node = root;
      for (const label of focus || []) {
        const next = node.children.find((each) => each.label === label);
        if (!next) break;
        node = next;
      }
      return node;
    };
    const pathOf = (node) => (node.parent ? [...pathOf(node.parent), node.label] : []);

    const place = (node, x, width, row) => {
      placed.push({ node, x, width, row });
      if (row + 1 >= ROWS) return;
      let at = x;
      for (const each of node.children) {
        const wide = node.us ? width * each.us / node.us : 0;
        // But for layers they are sorted: the rest is as thin.
        if (wide < 0.6 && node.parent) break;
        place(each, at, wide, row + 1);
        at += wide;
      }
    };

    const draw = () => {
      if (!root || !surface.fit()) return;
      const { context, width, height, rem } = surface;
      const tall = height / ROWS;
      context.clearRect(0, 0, width, height);
      placed = [];
      const top = focused();
      // Above what fills the width stand those it is part of.
      let depth = 0;
      const path = [];
      for (let node = top; node.parent; node = node.parent) path.unshift(node.parent);
      path.forEach((node) => { placed.push({ node, x: 0, width, row: depth }); depth += 1; });
      place(top, 0, width, depth);
      context.font = surface.font(0.75, 500);
      context.textAlign = 'left';
      context.textBaseline = 'middle';
      for (const { node, x, width: wide, row } of placed) {
        const colour = node.colour || t.colour.css('--line-strong');
        const fill = row < 2 ? colour : t.colour.scale(colour, row === 2 ? 0.88 : 0.94);
        context.fillStyle = fill;
        context.fillRect(x, row * tall, Math.max(0.6, wide - 1), tall - 1.5);
        if (node === hovered) {
          context.strokeStyle = t.colour.css('--focus');
          context.lineWidth = 2;
          context.strokeRect(x + 1, row * tall + 1, Math.max(1, wide - 3), tall - 3.5);
        }
        if (wide < rem * 2) continue;
        context.fillStyle = t.colour.on(fill);
        context.fillText(t.fitText(context, `${node.label}  ${t.duration(node.us)}`, wide - 10), x + 5, row * tall + tall / 2);
      }
    };

    const at = (event) => {
      const row = Math.floor(event.offsetY / surface.height * ROWS);
      return placed.find((each) => each.row === row && event.offsetX >= each.x && event.offsetX <= each.x + each.width);
    };
    const describe = (node) => [
      ['time', `${t.duration(node.us)}, ${t.percent(node.us / Math.max(1, root.us))} of all`],
      ['tasks', t.count(node.count)], ['made', t.bytes(node.bytes)],
    ];
    const enter = (node) => {
      if (node.span) { t.details.task(node.span.task, node.span); return; }
      focus = node === focused() && node.parent ? pathOf(node.parent) : pathOf(node);
      t.loop.request();
    };
    canvas.addEventListener('pointermove', (event) => {
      const found = at(event);
      hovered = found ? found.node : null;
      if (found) t.showTooltip(event.clientX, event.clientY, found.node.label, describe(found.node));
      else t.hideTooltip();
      t.loop.request();
    });
    canvas.addEventListener('pointerleave', () => { hovered = null; t.hideTooltip(); t.loop.request(); });
    canvas.addEventListener('click', (event) => { const found = at(event); if (found) enter(found.node); });
    canvas.addEventListener('keydown', (event) => {
      if (!placed.length) return;
      const index = placed.findIndex((each) => each.node === hovered);
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (step) {
        event.preventDefault();
        hovered = placed[(index + step + placed.length) % placed.length].node;
        t.announce(`${hovered.label}: ${describe(hovered).map((pair) => pair.join(' ')).join(', ')}`);
      } else if (event.key === 'Enter' && hovered) enter(hovered);
      else if (event.key === 'Escape' && focus) focus = null;
      t.loop.request();
    });

    const table = t.altTable('Time of tasks by layer', ['layer', 'time', 'share', 'tasks', 'workers'], () => (root ? root.children.map((layer) => [
      layer.label, t.duration(layer.us), t.percent(layer.us / Math.max(1, root.us)), t.count(layer.count), t.count(layer.children.length),
    ]) : []));
    return {
      node: t.h('div', { class: 'flame-box' }, canvas, table),
      draw,
      update: (graph) => {
        if (shownGraph !== graph.id) { focus = null; shownGraph = graph.id; }
        root = build(graph);
        t.setAttribute(canvas, 'aria-label', `Flame graph: ${t.plural(root.children.length, 'layer')}, ${t.duration(root.us)} in tasks. Arrow keys choose, Enter goes in, Escape goes out.`);
        table.update();
        t.loop.request();
      },
    };
  };
})(window.transload = window.transload || {});
