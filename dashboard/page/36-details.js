// The panel at the side: what is known of a worker, graph, layer, task, transfer or move, and why it waits, which the server is asked.
// Every view opens it. Knows nothing of canvases.
(function (t) {
  'use strict';

  const store = t.store;
  let asked = 0;
  let opener = null;

  const close = () => {
    t.$('details').hidden = true;
    asked += 1;
    if (opener && opener.isConnected) opener.focus();
    t.loop.request();
  };

  const pairs = (list) => t.h('dl', { class: 'facts' }, list.filter(Boolean).map(([name, value]) => [
    t.h('dt', {}, name), t.h('dd', {}, value),
  ]));
  const sentences = (list) => list.length > 0 && t.h('ul', { class: 'sentences' }, list.map((text) => t.h('li', {}, text)));
  const link = (text, onclick) => t.h('button', { type: 'button', class: 'link', onclick }, text);
  const linkGraph = (id) => link(id, () => t.details.graph(id));
  const linkWorker = (id) => link(id, () => t.details.worker(id));
  const linkLayer = (graph, index) => {
    const layer = store.layer(graph, index);
    return link(t.shorten(layer ? t.layerTitle(layer, index) : `${index} ${store.label(graph, index)}`, 60), () => t.details.layer(graph, index));
  };

  const show = (title, ...content) => {
    const panel = t.$('details');
    if (panel.hidden) opener = document.activeElement;
    asked += 1;
    t.hideTooltip();
    const heading = t.h('h2', { tabindex: '-1' }, title);
    panel.replaceChildren(
      t.h('div', { class: 'details-head' }, heading, t.h('button', { type: 'button', class: 'close', 'aria-label': 'Close details', onclick: close }, '×')),
      ...content.flat().filter(Boolean));
    panel.hidden = false;
    panel.scrollTop = 0;
    heading.focus({ preventScroll: true });
    t.loop.request();
  };

  // Asks the server, and fills in when it answers; an answer to an older question is dropped.
  const explain = (title, parameters) => {
    const box = t.h('section', { class: 'explain', 'aria-label': title, 'aria-live': 'polite' }, t.h('h3', {}, title));
    if (t.mode !== 'live') {
      box.append(t.h('p', { class: 'dim' }, 'A recording cannot be asked; this works on a running cluster.'));
      return box;
    }
    const line = t.h('p', { class: 'dim' }, 'asking the scheduler …');
    box.append(line);
    const mine = asked + 1; // `show` counts up before it is seen
    fetch(t.url('api/v1/explain', parameters), { headers: { accept: 'application/json' } })
      .then((response) => response.text().then((text) => {
        if (!response.ok) throw new Error(text.trim() || `the server answered ${response.status}`);
        return JSON.parse(text);
      }))
      .then((answer) => {
        if (mine !== asked) return;
        line.className = 'summary';
        t.setText(line, answer.summary || 'Nothing is known of it any more.');
        const list = sentences(answer.details || []);
        if (list) box.append(list);
      })
      .catch((error) => { if (mine === asked) t.setText(line, `No answer: ${error.message}`); });
    return box;
  };

  const layerPairs = (layer) => [
    ['operator', layer.operator],
    ['tasks', `${t.count(layer.done)} done, ${t.count(layer.running)} running, ${t.count(layer.total - layer.done - layer.running)} waiting, of ${t.count(layer.total)}`],
    ['run time', t.duration(layer.run_us)],
    ['made', t.bytes(layer.bytes)],
  ];

  t.details = {
    close,
    isOpen: () => !t.$('details').hidden,
    worker: (id) => {
      const worker = store.workers.get(id);
      if (!worker) { show(id, t.h('p', {}, 'Nothing is known of this worker any more.')); return; }
      show(worker.name || id, pairs([
        ...t.describeWorker(worker),
        ['resident', worker.resident_bytes ? t.bytes(worker.resident_bytes) : 'not known'],
        ['spilled', t.bytes(worker.spilled_bytes)],
        ['addresses', worker.addresses.join(', ') || 'none'],
      ]), worker.running.length > 0 && t.h('h3', {}, 'Running'),
      worker.running.length > 0 && t.h('ul', { class: 'sentences' }, worker.running.map((task) => t.h('li', {},
        link(task.task, () => t.details.task(task.task)), ` for ${t.duration(task.running_ms * 1000)}, `,
        store.label(t.graphOf(task.task), task.layer)))));
    },
    graph: (id) => {
      const graph = store.graphs.get(id);
      if (!graph) { show(`Graph ${id}`, t.h('p', {}, 'Nothing is known of this graph any more.')); return; }
      show(`Graph ${id}`, graph.name && t.h('pre', { class: 'sql' }, graph.name), pairs([
        ['state', graph.state.replace('_', ' ')],
        graph.reason && ['reason', graph.reason],
        ['client', graph.client],
        ['took', t.duration((graph.end_us || store.nowUs) - graph.start_us)],
      ]), t.h('h3', {}, 'Layers'), t.h('ul', { class: 'sentences' }, graph.layers.map((_, index) => t.h('li', {}, linkLayer(id, index)))));
    },
    layer: (graph, index) => {
      const layer = store.layer(graph, index);
      if (!layer) { show(`Layer ${index} of ${graph}`, t.h('p', {}, 'Nothing is known of this layer any more.')); return; }
      show(t.layerName(layer), pairs([
        ['graph', linkGraph(graph)],
        ...layerPairs(layer),
        layer.reads.length > 0 && ['reads', layer.reads.map((read) => linkLayer(graph, read))],
      ]), explain('Why is it waiting?', { graph, layer: index }));
    },
    // Of a task that has run, its span is known; of others, only the name.
    task: (task, span) => {
      const graph = t.graphOf(task);
      const index = span ? span.layer : store.layerOfTask(task);
      show(`Task ${task}`, pairs([
        ['graph', linkGraph(graph)],
        index >= 0 && ['layer', linkLayer(graph, index)],
        span && ['worker', linkWorker(span.worker)],
        span && ['slot', String(span.lane)],
        span && ['began', store.clockText(span.start_us)],
        span && ['took', t.duration(span.end_us - span.start_us)],
        span && span.count > 1 && ['tasks', t.count(span.count)],
        span && ['made', t.bytes(span.bytes)],
        span && span.failed && ['failed', span.failed],
      ]), span && t.h('h3', {}, 'What the history tells'), span && sentences(t.diagnose(span, store)),
      explain(span ? 'Why? What the scheduler says' : 'Why is it waiting?', { task }));
    },
    transfer: (transfer) => {
      const task = transfer.partition.split('/')[0];
      const us = transfer.end_us - transfer.start_us;
      show(`Partition ${transfer.partition}`, pairs([
        ['from', linkWorker(transfer.from)],
        ['to', linkWorker(transfer.to)],
        ['made by', link(task, () => t.details.task(task))],
        ['bytes', t.bytes(transfer.bytes)],
        transfer.count > 1 && ['partitions', t.count(transfer.count)],
        ['took', t.duration(us)],
        ['speed', us > 0 ? t.rate(transfer.bytes / us * 1e6) : 'too short to tell'],
        ['by', `${transfer.transport} (${t.colour.WAY_NAMES[transfer.way] || transfer.way})`],
        ['began', store.clockText(transfer.start_us)],
      ]));
    },
    move: (move) => show(`From ${move.from} to ${move.to}`, pairs([
      ['worker', linkWorker(move.worker)],
      ['bytes', t.bytes(move.bytes)],
      ['partitions', t.count(move.count)],
      ['took', t.duration(move.end_us - move.start_us)],
      ['began', store.clockText(move.start_us)],
    ])),
  };
})(window.transload = window.transload || {});
