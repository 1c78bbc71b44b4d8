// The view of queries: a list of graphs by what their clients call them, and of the one chosen its text, its plan with times, a flame graph.
(function (t) {
  'use strict';

  const MAX_LISTED = 200;
  const store = t.store;
  const nodes = {};
  let flame = null;
  let chosen = null; // a graph's id, or null for the newest, whichever that is
  let shown = null;
  let shownAt = 0;
  let flameAt = 0;
  let flameFor = '';

  const choose = (id) => { chosen = id; update(true); };

  const makeItem = (graph) => t.h('li', {}, t.h('button', { type: 'button', class: 'query', onclick: () => choose(graph.id) },
    t.h('span', { class: 'state' }), t.h('span', { class: 'dim comment' }), t.h('span', { class: 'text' }), t.h('span', { class: 'dim' })));
  const updateItem = (node, graph) => {
    const button = node.firstChild;
    t.setAttribute(button, 'aria-current', graph.id === shown ? 'true' : 'false');
    t.setText(button.children[0], t.graphState(graph));
    t.setAttribute(button.children[0], 'data-state', graph.state);
    const comment = t.graphComment(graph).replace(/\s*(?:--|\/\*|\*\/)\s*/g, ' ').trim();
    t.setText(button.children[1], t.shorten(comment, 110));
    button.children[1].hidden = !comment;
    t.setText(button.children[2], t.shorten(t.graphTitle(graph).replace(/\s+/g, ' '), 110));
    t.setText(button.children[3], `${graph.id} · ${t.graphElapsed(graph)} · ${store.clockText(graph.start_us)}`);
  };

  // How far each layer is from its sources, shown by indenting: the plan as people know it, from below.
  const makeLayer = () => t.h('tr', {}, t.h('th', { scope: 'row' }, t.h('span', { class: 'key' }), t.h('button', { type: 'button', class: 'link' })),
    t.h('td'), t.h('td', { class: 'number' }), t.h('td', { class: 'number share' }), t.h('td', { class: 'number' }), t.h('td', { class: 'number' }), t.h('td', { class: 'number share' }));
  const updateLayer = (row, { graph, layer, index, most, mostBytes, sum }) => {
    const [head, reads, tasks, time, each, rows, bytes] = row.children;
    head.firstChild.style.background = t.colour.operator(t.layerKind(layer));
    t.setText(head.lastChild, t.layerTitle(layer, index));
    head.lastChild.onclick = () => t.details.layer(graph.id, index);
    t.setText(reads, layer.reads.map((read) => (graph.layers[read] ? t.layerNumber(graph.layers[read], read) : read)).join(', ') || '–');
    t.setText(tasks, t.progress.counted(layer));
    t.setText(time, `${t.duration(layer.run_us)} (${t.percent(layer.run_us / Math.max(1, sum))})`);
    time.style.setProperty('--share', `${100 * layer.run_us / Math.max(1, most)}%`);
    t.setText(each, layer.done ? t.duration(layer.run_us / layer.done) : '–');
    t.setText(rows, layer.rows ? t.count(layer.rows) : '–');
    t.setText(bytes, t.bytes(layer.bytes));
    bytes.style.setProperty('--share', `${100 * layer.bytes / Math.max(1, mostBytes)}%`);
  };

  const updateChosen = (graph) => {
    const counts = t.graphSums(graph);
    t.setText(nodes.title, `${graph.id}, ${t.graphState(graph)}, ${t.graphElapsed(graph)}`);
    const comment = t.graphComment(graph);
    t.setText(nodes.sql.firstChild, comment);
    t.setText(nodes.sql.lastChild, (graph.name || 'This graph has no name.').slice(comment.length));
    t.setText(nodes.reason, graph.reason || '');
    nodes.reason.hidden = !graph.reason;
    t.setText(nodes.facts, `From ${graph.client || 'an unnamed client'}, ${store.clockText(graph.start_us)} · ${t.progress.counted(counts)} tasks`);
    t.progress.setBar(nodes.bar, counts);
    const most = Math.max(...graph.layers.map((layer) => layer.run_us), 1);
    const mostBytes = Math.max(...graph.layers.map((layer) => layer.bytes), 1);
    const sum = graph.layers.reduce((total, layer) => total + layer.run_us, 0);
    t.keyed(nodes.layers, graph.layers.map((layer, index) => ({ graph, layer, index, most, mostBytes, sum })), (each) => each.index, makeLayer, updateLayer);
    const nowMs = performance.now();
    const key = `${graph.id} ${graph.state} ${t.colour.isDark()}`;
    // Going through all spans costs milliseconds; once a second is enough while it runs.
    if (key !== flameFor || (nowMs - flameAt > 1000 && (graph.state === 'running' || t.mode === 'recording'))) {
      flameFor = key;
      flameAt = nowMs;
      flame.update(graph);
    }
  };

  const mount = (panel) => {
    flame = t.createFlame();
    nodes.follow = t.h('button', { type: 'button', class: 'follow', 'aria-pressed': 'true', onclick: () => choose(chosen ? null : shown) }, 'Follow the newest');
    nodes.list = t.h('ul', { class: 'query-list' });
    nodes.empty = t.h('p', { class: 'empty' }, 'No query has been submitted yet.');
    nodes.title = t.h('h2');
    nodes.sql = t.h('pre', { class: 'sql', tabindex: '0', role: 'region', 'aria-label': 'Text of the query' }, t.h('span', { class: 'dim' }), t.h('span'));
    nodes.reason = t.h('p', { class: 'reason' });
    nodes.facts = t.h('p', { class: 'dim' });
    nodes.bar = t.progress.bar();
    nodes.layers = t.h('tbody');
    const table = t.h('table', { class: 'plan' }, t.h('caption', { class: 'hidden' }, 'Plan: layers with their tasks, time, rows and bytes'),
      t.h('thead', {}, t.h('tr', {}, ['layer', 'reads', 'tasks', 'run time', 'per task', 'rows made', 'bytes made'].map((head, at) => t.h('th', { scope: 'col', class: at > 1 ? 'number' : '' }, head)))), nodes.layers);
    nodes.chosen = t.h('div', { class: 'page scroll', tabindex: '0', role: 'region', 'aria-label': 'The query chosen' },
      nodes.title, nodes.facts, nodes.bar, nodes.reason, nodes.sql, t.h('h3', {}, 'Where the time went'), flame.node, t.h('h3', {}, 'Plan'),
      t.h('div', { class: 'scroll-x', tabindex: '0', role: 'region', 'aria-label': 'Plan' }, table));
    panel.append(t.h('div', { class: 'split left' },
      t.h('div', { class: 'side', tabindex: '0', role: 'region', 'aria-label': 'Queries' }, nodes.empty, nodes.follow, nodes.list), nodes.chosen));
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 300) return;
    shownAt = nowMs;
    const graphs = store.newestGraphs().slice(0, MAX_LISTED);
    if (!store.graphs.has(chosen)) chosen = null;
    shown = chosen || (graphs.length ? graphs[0].id : null);
    t.setAttribute(nodes.follow, 'aria-pressed', !chosen);
    nodes.follow.hidden = !graphs.length;
    nodes.empty.hidden = graphs.length > 0;
    nodes.chosen.hidden = !shown;
    t.keyed(nodes.list, graphs, (graph) => graph.id, makeItem, updateItem);
    if (shown) updateChosen(store.graphs.get(shown));
  };
  const draw = () => { flame.draw(); return false; };
  t.views.push({ id: 'queries', title: 'Queries', mount, draw, update, order: 8 });
})(window.transload = window.transload || {});
