// What stands beside the map: what runs, what the colours mean, what happened last.
// The map mounts and updates it.
(function (t) {
  'use strict';

  const store = t.store;
  const nodes = {};

  const key = (colour, text, shape) => t.h('li', {}, t.h('span', { class: `key ${shape || ''}`, style: { background: colour } }), t.h('span', {}, text));

  const legend = () => [
    t.h('h3', {}, 'Transfers'),
    t.h('ul', { class: 'legend' }, Object.entries(t.colour.WAY_NAMES).map(([way, name]) => key(t.colour.way(way), name, 'line'))),
    t.h('p', { class: 'dim small' }, 'The wider, the more bytes (logarithmic).'),
    t.h('h3', {}, 'Memory'),
    t.h('ul', { class: 'legend' }, t.colour.TIERS.map((tier) => key(t.colour.tier(tier), t.colour.TIER_NAMES[tier]))),
  ];

  // Labels of what runs now, with how many slots each has.
  const running = () => {
    const counts = new Map();
    for (const worker of store.workers.values()) {
      if (worker.lost) continue;
      for (const task of worker.running) {
        const graph = t.graphOf(task.task);
        const label = store.label(graph, task.layer);
        const known = counts.get(label);
        if (known) known.count += 1;
        else counts.set(label, { label, graph, layer: task.layer, count: 1 });
      }
    }
    return [...counts.values()].sort((one, other) => other.count - one.count).slice(0, 10);
  };

  t.mapSide = {
    mount: () => {
      nodes.graphs = t.h('div', { class: 'cards' });
      nodes.operators = t.h('ul', { class: 'legend' });
      nodes.idle = t.h('p', { class: 'dim small' });
      nodes.notes = t.h('ul', { class: 'ticker' });
      nodes.legend = t.h('div', {}, legend());
      t.colour.onChange(() => nodes.legend.replaceChildren(...legend()));
      return t.h('div', { class: 'side', tabindex: '0', role: 'region', 'aria-label': 'Running now, legend and latest notes' },
        t.h('h2', {}, 'Running now'), nodes.graphs, nodes.operators, nodes.idle,
        nodes.legend, t.h('h3', {}, 'Latest'), nodes.notes);
    },
    update: () => {
      const graphs = store.newestGraphs().filter((graph) => graph.state === 'running').slice(0, 3);
      t.keyed(nodes.graphs, graphs, (graph) => graph.id, t.progress.makeSmall, t.progress.updateSmall);
      const list = running();
      t.keyed(nodes.operators, list, (each) => each.label,
        () => t.h('li', {}, t.h('span', { class: 'key' }), t.h('button', { type: 'button', class: 'link' }), t.h('span', { class: 'dim' })),
        (node, each) => {
          node.children[0].style.background = t.colour.operator(each.label);
          t.setText(node.children[1], t.shorten(each.label, 48));
          node.children[1].onclick = () => t.details.layer(each.graph, each.layer);
          t.setText(node.children[2], `× ${t.count(each.count)}`);
        });
      t.setText(nodes.idle, list.length ? '' : 'No task runs.');
      const notes = store.history.notes.filter((note) => note.at_us <= store.nowUs).slice(-5).reverse();
      t.keyed(nodes.notes, notes, (note) => `${note.at_us} ${note.kind} ${note.text}`,
        (note) => t.h('li', { 'data-kind': note.kind }, t.h('time', {}, store.clockText(note.at_us)), ' ', t.shorten(note.text, 160)),
        () => {});
    },
  };
})(window.transload = window.transload || {});
