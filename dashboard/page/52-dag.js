// The view of one graph: its layers as boxes, what they read as curves between them, with counts by state.
(function (t) {
  'use strict';

  const WIDTH = 230;
  const HEIGHT = 92;
  const GAP_X = 70;
  const GAP_Y = 26;
  const store = t.store;
  let picker = null;
  let drawing = null;
  let box = null;
  let shades = null;
  let hint = null;
  let empty = null;
  let chosen = null; // a graph's id, or null for the newest
  let drawnKey = '';
  let shownAt = 0;
  const parts = new Map(); // layer -> its nodes, to be updated in place

  // Longest way from a source: what is read stands left of who reads it.
  const ranks = (layers) => {
    const rank = layers.map(() => 0);
    for (let round = 0; round < layers.length; round += 1) {
      let moved = false;
      layers.forEach((layer, at) => {
        for (const read of layer.reads) {
          if (read < layers.length && rank[read] + 1 > rank[at] && rank[read] + 1 < layers.length) { rank[at] = rank[read] + 1; moved = true; }
        }
      });
      if (!moved) break;
    }
    // Then as far right as its readers allow: a scan stands beside the join that reads it.
    const readers = layers.map(() => []);
    layers.forEach((layer, at) => layer.reads.forEach((read) => readers[read] && readers[read].push(at)));
    for (let at = layers.length - 1; at >= 0; at -= 1) {
      if (readers[at].length) rank[at] = Math.max(rank[at], Math.min(...readers[at].map((reader) => rank[reader])) - 1);
    }
    return rank;
  };

  // What stands in the columns: layers, and where an edge passes columns between, a gap for it, so that it runs behind no box.
  const stations = (layers) => {
    const rank = ranks(layers);
    const items = layers.map((_, at) => ({ column: rank[at], height: HEIGHT, before: [], after: [] }));
    const routes = [];
    layers.forEach((layer, to) => layer.reads.forEach((from) => {
      if (from >= layers.length || rank[from] >= rank[to]) return;
      const route = [from];
      for (let column = rank[from] + 1; column < rank[to]; column += 1) {
        items.push({ column, height: GAP_Y, before: [], after: [] });
        route.push(items.length - 1);
      }
      route.push(to);
      for (let step = 1; step < route.length; step += 1) {
        items[route[step]].before.push(route[step - 1]);
        items[route[step - 1]].after.push(route[step]);
      }
      routes.push(route);
    }));
    return { items, routes };
  };

  // Places each near the mean of what it reads and of who reads it, by a few sweeps there and back.
  const place = (layers) => {
    const { items, routes } = stations(layers);
    const columns = [];
    items.forEach((item, at) => (columns[item.column] = columns[item.column] || []).push(at));
    const stack = (column) => {
      const heights = column.reduce((sum, at) => sum + items[at].height + GAP_Y, -GAP_Y);
      let y = -heights / 2;
      for (const at of column) {
        items[at].middle = y + items[at].height / 2;
        y += items[at].height + GAP_Y;
      }
      return heights;
    };
    const settle = (column, side) => {
      const mean = (at) => {
        const list = items[at][side];
        return list.length ? list.reduce((sum, each) => sum + items[each].middle, 0) / list.length : items[at].middle;
      };
      const means = new Map(column.map((at) => [at, mean(at)]));
      column.sort((one, other) => means.get(one) - means.get(other));
      stack(column);
    };
    columns.forEach(stack);
    for (let sweep = 0; sweep < 3; sweep += 1) {
      columns.forEach((column) => settle(column, 'before'));
      [...columns].reverse().forEach((column) => settle(column, 'after'));
    }
    const tallest = Math.max(...columns.map(stack));
    const at = items.map((item) => ({ x: 12 + item.column * (WIDTH + GAP_X), middle: 12 + tallest / 2 + item.middle, y: 12 + tallest / 2 + item.middle - item.height / 2 }));
    return { width: columns.length * (WIDTH + GAP_X) - GAP_X + 24, height: tallest + 24, at, routes };
  };

  // From box to box, straight through the gaps between.
  const edge = (route, at) => {
    const bend = GAP_X * 0.55;
    let path = `M${at[route[0]].x + WIDTH},${at[route[0]].middle}`;
    let from = { x: at[route[0]].x + WIDTH, y: at[route[0]].middle };
    route.slice(1).forEach((each, step) => {
      const isLast = step === route.length - 2;
      const { x, middle } = at[each];
      const end = isLast ? x - 7 : x;
      path += ` C${from.x + bend},${from.y} ${end - bend},${middle} ${end},${middle}`;
      if (!isLast) path += ` H${x + WIDTH}`;
      from = { x: x + WIDTH, y: middle };
    });
    return t.svg('path', { class: 'edge', d: path, 'marker-end': 'url(#arrow)' });
  };

  const boxOf = (graph, layer, index, at) => {
    const label = t.layerName(layer);
    const open = () => t.details.layer(graph.id, index);
    const node = {
      counts: t.svg('text', { x: 12, y: 44, class: 'counts' }),
      cost: t.svg('text', { x: 12, y: 61, class: 'counts' }),
      done: t.svg('rect', { x: 12, y: 72, height: 8, rx: 2 }),
      running: t.svg('rect', { y: 72, height: 8, rx: 2, class: 'running' }),
      group: t.svg('g', {
        class: 'node', transform: `translate(${at.x},${at.y})`, tabindex: '0', role: 'button',
        onclick: open, onkeydown: (event) => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); open(); } },
      }),
    };
    node.group.append(
      t.svg('rect', { class: 'box', width: WIDTH, height: HEIGHT, rx: 8 }, t.svg('title', {}, label)),
      t.svg('rect', { class: 'tone', width: 5, height: HEIGHT - 16, x: 0, y: 8, rx: 2, fill: t.colour.operator(t.layerKind(layer)) }),
      t.svg('text', { x: 12, y: 24, class: 'name' }, t.shorten(t.layerTitle(layer, index), 27)), node.counts, node.cost,
      t.svg('rect', { x: 12, y: 72, width: WIDTH - 24, height: 8, rx: 2, class: 'track' }), node.done, node.running);
    parts.set(index, node);
    return node.group;
  };

  const draw = (graph) => {
    parts.clear();
    const laid = place(graph.layers);
    const marker = t.svg('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 1, refY: 4, markerWidth: 7, markerHeight: 7, orient: 'auto' },
      t.svg('path', { d: 'M0,0 L8,4 L0,8 z', class: 'arrow' }));
    const edges = laid.routes.map((route) => edge(route, laid.at));
    const svg = t.svg('svg', {
      viewBox: `0 0 ${laid.width} ${laid.height}`, role: 'group', 'aria-label': `Layers of graph ${graph.id}`, class: 'dag',
      // As large as there is room, but never so small that nobody can read it.
      style: { width: `min(100%, ${laid.width / 9}rem)`, minWidth: `${laid.width / 17}rem` },
    }, t.svg('defs', {}, marker), edges, graph.layers.map((layer, index) => boxOf(graph, layer, index, laid.at[index])));
    drawing.replaceChildren(svg);
  };

  const updateBoxes = (graph) => graph.layers.forEach((layer, index) => {
    const node = parts.get(index);
    if (!node) return;
    const colour = t.colour.operator(t.layerKind(layer));
    const waiting = Math.max(0, layer.total - layer.done - layer.running);
    const text = `${t.count(layer.done)} done · ${t.count(layer.running)} run · ${t.count(waiting)} wait`;
    t.setText(node.counts, text);
    t.setText(node.cost, layer.run_us ? `${t.duration(layer.run_us)} · ${t.bytes(layer.bytes)}` : '');
    const room = WIDTH - 24;
    const done = room * layer.done / Math.max(1, layer.total);
    const running = Math.min(room - done, Math.max(layer.running ? 3 : 0, room * layer.running / Math.max(1, layer.total)));
    t.setAttribute(node.done, 'width', done);
    t.setAttribute(node.done, 'fill', colour);
    t.setAttribute(node.running, 'fill', colour);
    t.setAttribute(node.running, 'x', 12 + done);
    t.setAttribute(node.running, 'width', Math.max(0, running));
    t.setAttribute(node.group, 'data-state', layer.done >= layer.total ? 'done' : layer.running ? 'running' : 'waiting');
  });

  // Says where layers are out of sight: a shade at that edge, and in words how many.
  const updateHint = () => {
    const far = (hidden) => hidden > 8;
    const ways = [
      far(box.scrollLeft) && 'left', far(box.scrollWidth - box.clientWidth - box.scrollLeft) && 'right',
      far(box.scrollTop) && 'above', far(box.scrollHeight - box.clientHeight - box.scrollTop) && 'below',
    ].filter(Boolean);
    t.setAttribute(shades, 'data-more', ways.join(' '));
    const seen = box.getBoundingClientRect();
    let out = 0;
    if (ways.length) {
      for (const { group } of parts.values()) {
        const at = group.getBoundingClientRect();
        const x = at.left + at.width / 2;
        const y = at.top + at.height / 2;
        if (x < seen.left || x > seen.right || y < seen.top || y > seen.bottom) out += 1;
      }
    }
    t.setText(hint, out ? `${t.plural(out, 'layer')} out of sight: scroll ${ways.join(', ')}` : '');
  };

  // A list to choose a graph from, kept up to date without losing the choice.
  t.graphPicker = (label, onchange) => {
    const select = t.h('select', { 'aria-label': label, onchange: () => onchange(select.value || null) });
    select.fill = (graphs, id) => {
      t.keyed(select, [{ id: '', text: 'newest' }, ...graphs.slice(0, 100).map((graph) => ({
        id: graph.id, text: `${graph.id} ${t.shorten(t.graphTitle(graph).replace(/\s+/g, ' '), 60)} (${t.graphState(graph)})`,
      }))], (each) => each.id, (each) => t.h('option', { value: each.id }), (node, each) => t.setText(node, each.text));
      if (select.value !== (id || '')) select.value = id || '';
    };
    return select;
  };

  const mount = (panel) => {
    picker = t.graphPicker('Graph to show', (id) => { chosen = id; update(true); });
    drawing = t.h('div');
    empty = t.h('p', { class: 'empty' }, 'No graph has been submitted yet.');
    box = t.h('div', { class: 'page scroll', tabindex: '0', role: 'region', 'aria-label': 'Layers of the graph', onscroll: () => updateHint() }, empty, drawing);
    shades = t.h('div', { class: 'shades' }, box, ['left', 'right', 'above', 'below'].map((way) => t.h('div', { class: `shade ${way}`, 'aria-hidden': 'true' })));
    hint = t.h('span', { class: 'dim' });
    panel.append(t.h('div', { class: 'toolbar' }, t.h('label', {}, 'Graph ', picker), hint), shades);
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 250) return;
    shownAt = nowMs;
    const graphs = store.newestGraphs();
    if (chosen && !store.graphs.has(chosen)) chosen = null;
    picker.fill(graphs, chosen);
    const graph = store.graphs.get(chosen) || graphs[0];
    empty.hidden = Boolean(graph);
    drawing.hidden = !graph;
    if (!graph) return;
    const key = `${graph.id} ${graph.layers.length} ${t.colour.isDark()}`;
    if (key !== drawnKey) { drawnKey = key; draw(graph); }
    updateBoxes(graph);
    updateHint();
  };

  t.views.push({ id: 'graph', title: 'Graph', mount, update, order: 4 });
})(window.transload = window.transload || {});
