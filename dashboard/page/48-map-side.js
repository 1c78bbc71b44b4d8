// What stands beside the map: what runs, what the colours mean, what happened last.
// The map mounts and updates it.
(function (t) {
  'use strict';

  const TROUBLE_STAYS_US = 60e6;
  const MAX_TROUBLES = 6;
  const MAX_OTHERS = 5;
  const TROUBLES = new Set(['worker_lost', 'task_failed', 'straggler', 'unschedulable', 'apart']);
  // Of these there may be hundreds at once.
  const FOLDED = new Set(['task_recomputed', 'task_failed', 'straggler', 'unschedulable']);
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

  // Kinds of work that run now, with how many tasks each has.
  const running = (graphs) => {
    const counts = new Map();
    const add = (graph, layer, count) => {
      const kind = store.kind(graph, layer);
      const known = counts.get(kind);
      if (known) known.count += count;
      else counts.set(kind, { kind, graph, layer, count });
    };
    for (const worker of store.workers.values()) {
      if (!worker.lost) worker.running.forEach((task) => add(t.graphOf(task.task), task.layer, 1));
    }
    // Workers report twice a second; shorter tasks are known only by what was handed out.
    if (!counts.size) {
      for (const graph of graphs) graph.layers.forEach((layer, index) => { if (layer.running) add(graph.id, index, layer.running); });
    }
    return [...counts.values()].sort((one, other) => other.count - one.count).slice(0, 10);
  };

  // Notes to show, each with how many of its kind it stands for: first the troubles of the last minute, then what else came last.
  const latest = () => {
    const { notes } = store.history;
    const troubles = [];
    const others = [];
    const folded = new Map(); // kind -> the newest that the others come with
    for (let at = notes.length - 1; at >= 0; at -= 1) {
      const note = notes[at];
      if (note.at_us > store.nowUs) continue;
      const isFresh = store.nowUs - note.at_us < TROUBLE_STAYS_US;
      if (!isFresh && others.length >= MAX_OTHERS) break;
      const known = FOLDED.has(note.kind) && folded.get(note.kind);
      if (known && known.note.at_us - note.at_us < TROUBLE_STAYS_US) { known.count += 1; continue; }
      const entry = { note, count: 1 };
      folded.set(note.kind, entry);
      if (isFresh && TROUBLES.has(note.kind)) troubles.push(entry);
      else if (others.length < MAX_OTHERS) others.push(entry);
    }
    return [...troubles.slice(0, MAX_TROUBLES), ...others].map((entry, at) => ({ ...entry, at }));
  };
  const noteText = ({ note, count }) => {
    if (count === 1) return t.shorten(note.text, 160);
    return note.kind === 'task_recomputed' ? `${t.count(count)} tasks run again; the last: ${t.shorten(note.text, 100)}`
      : `${t.shorten(note.text, 130)} (and ${t.count(count - 1)} more like this)`;
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
      const graphs = store.newestGraphs().filter((graph) => graph.state === 'running');
      t.keyed(nodes.graphs, graphs.slice(0, 3), (graph) => graph.id, t.progress.makeSmall, t.progress.updateSmall);
      const list = running(graphs);
      t.keyed(nodes.operators, list, (each) => each.kind,
        () => t.h('li', {}, t.h('span', { class: 'key' }), t.h('button', { type: 'button', class: 'link' }), t.h('span', { class: 'dim' })),
        (node, each) => {
          node.children[0].style.background = t.colour.operator(each.kind);
          t.setText(node.children[1], t.shorten(each.kind, 48));
          node.children[1].onclick = () => t.details.layer(each.graph, each.layer);
          t.setText(node.children[2], `× ${t.count(each.count)}`);
        });
      t.setText(nodes.idle, list.length ? '' : 'No task runs.');
      t.keyed(nodes.notes, latest(), (each) => each.at, () => t.h('li', {}, t.h('time'), ' ', t.h('span')), (node, each) => {
        t.setAttribute(node, 'data-kind', each.note.kind);
        t.setText(node.firstChild, store.clockText(each.note.at_us));
        t.setText(node.lastChild, noteText(each));
      });
    },
  };
})(window.transload = window.transload || {});
