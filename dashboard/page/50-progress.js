// The view of progress: each graph with bars for its layers, newest first. Also the small bars that other views show.
(function (t) {
  'use strict';

  const MAX_SHOWN = 25;
  const store = t.store;
  let list = null;
  let empty = null;
  let more = null;
  let shownAt = 0;
  let showAll = false;

  // Comments that begin SQL say what it is for; titles go without them, and those who have room show them beside.
  t.graphComment = (graph) => {
    const comment = /^(?:\s*(?:--[^\n]*\n|\/\*[^]*?\*\/))*/.exec(graph.name || '')[0].trimEnd();
    return (graph.name || '').slice(comment.length).trim() ? comment : '';
  };
  const nameOf = (graph) => (graph.name || '').slice(t.graphComment(graph).length).trim();
  const title = (graph) => nameOf(graph) || (graph.layers.length ? graph.layers[graph.layers.length - 1].name : '') || `graph ${graph.id}`;
  t.graphTitle = title;
  t.graphState = (graph) => graph.state.replace('_', ' ');
  t.graphElapsed = (graph) => t.duration((graph.end_us ?? store.nowUs) - graph.start_us);

  const sums = (graph) => {
    const sum = { done: 0, running: 0, total: 0 };
    for (const layer of graph.layers) {
      sum.done += layer.done;
      sum.running += layer.running;
      sum.total += layer.total;
    }
    return sum;
  };
  t.graphSums = sums;

  const bar = () => t.h('div', { class: 'bar' }, t.h('div', { class: 'done' }), t.h('div', { class: 'running' }));
  const setBar = (node, counts, colour) => {
    const total = Math.max(1, counts.total);
    node.children[0].style.width = `${100 * counts.done / total}%`;
    node.children[1].style.width = `${100 * counts.running / total}%`;
    if (colour) {
      node.children[0].style.background = colour;
      node.children[1].style.background = `repeating-linear-gradient(45deg, ${colour} 0 4px, ${t.colour.alpha(colour, 0.4)} 4px 8px)`;
    }
  };
  const counted = (counts) => `${t.count(counts.done)} / ${t.count(counts.total)}${counts.running ? `, ${t.count(counts.running)} running` : ''}`;

  const makeLayer = () => t.h('li', { class: 'layer' },
    t.h('button', { type: 'button', class: 'link name' }), bar(), t.h('span', { class: 'number' }), t.h('span', { class: 'dim number' }));
  const updateLayer = (node, { graph, layer, index }) => {
    const label = t.layerName(layer);
    t.setText(node.children[0], label);
    node.children[0].title = label;
    node.children[0].onclick = () => t.details.layer(graph.id, index);
    setBar(node.children[1], layer, t.colour.operator(t.layerKind(layer)));
    t.setText(node.children[2], counted(layer));
    t.setText(node.children[3], layer.run_us ? `${t.duration(layer.run_us)}, ${t.bytes(layer.bytes)}` : '');
  };

  const makeCard = () => t.h('article', { class: 'card' },
    t.h('header', {}, t.h('h2', {}, t.h('button', { type: 'button', class: 'link' })), t.h('span', { class: 'state' }), t.h('span', { class: 'dim' })),
    bar(), t.h('p', { class: 'reason' }), t.h('ul', { class: 'layers' }));
  const updateCard = (node, graph) => {
    const [header, total, reason, layers] = node.children;
    const counts = sums(graph);
    const name = header.children[0].firstChild;
    t.setText(name, t.shorten(title(graph).replace(/\s+/g, ' '), 160));
    name.onclick = () => t.details.graph(graph.id);
    t.setText(header.children[1], t.graphState(graph));
    t.setAttribute(header.children[1], 'data-state', graph.state);
    t.setText(header.children[2], `${graph.id} · ${counted(counts)} · ${t.graphElapsed(graph)}`);
    setBar(total, counts);
    t.setAttribute(total, 'data-state', graph.state);
    t.setText(reason, graph.reason || '');
    reason.hidden = !graph.reason;
    // Ended graphs fold, so that what runs is what one sees.
    const open = graph.state === 'running' || graph.state === 'failed' || list.firstChild === node;
    t.keyed(layers, open ? graph.layers.map((layer, index) => ({ graph, layer, index })) : [], (each) => each.index, makeLayer, updateLayer);
  };

  t.progress = {
    bar, setBar, counted,
    makeSmall: () => t.h('div', { class: 'small-progress' }, t.h('button', { type: 'button', class: 'link' }), t.h('span', { class: 'dim' }), bar()),
    updateSmall: (node, graph) => {
      const counts = sums(graph);
      t.setText(node.children[0], t.shorten(title(graph).replace(/\s+/g, ' '), 70));
      node.children[0].onclick = () => t.details.graph(graph.id);
      t.setText(node.children[1], `${counted(counts)} · ${t.graphElapsed(graph)}`);
      setBar(node.children[2], counts);
    },
  };

  const mount = (panel) => {
    list = t.h('div', { class: 'cards wide' });
    empty = t.h('p', { class: 'empty' }, 'No graph has been submitted yet.');
    more = t.h('button', { type: 'button', onclick: () => { showAll = !showAll; update(true); } });
    panel.append(t.h('div', { class: 'page scroll', tabindex: '0', role: 'region', 'aria-label': 'Progress of graphs' }, empty, list, more));
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 250) return;
    shownAt = nowMs;
    const graphs = store.newestGraphs();
    t.keyed(list, showAll ? graphs : graphs.slice(0, MAX_SHOWN), (graph) => graph.id, makeCard, updateCard);
    empty.hidden = graphs.length > 0;
    more.hidden = graphs.length <= MAX_SHOWN;
    t.setText(more, showAll ? 'Show fewer' : `Show all ${graphs.length}`);
  };

  t.views.push({ id: 'progress', title: 'Progress', mount, update, order: 3 });
})(window.transload = window.transload || {});
