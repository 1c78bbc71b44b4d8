// The cluster as it is at one moment, and its history. Whoever has messages calls `apply`; views read. A replay calls `restore` to go back.
// Knows neither the page nor where messages come from.
(function (t) {
  'use strict';

  const MAX_GRAPHS = 500;
  const NO_TOTALS = {
    clients: 0, graphs_running: 0, tasks_ready: 0, tasks_finished: 0, moved_bytes: 0, spilled_bytes: 0, dropped_events: 0,
  };

  const UNKNOWN = 'graph no longer known';
  const NUMBERED = /^(\d+)\. /; // as stages of SQL are

  t.layerName = (layer) => layer.name || layer.operator;
  // What people call it by: the number that is in its name, or its index.
  t.layerNumber = (layer, index) => (NUMBERED.exec(t.layerName(layer)) || [null, String(index)])[1];
  t.layerTitle = (layer, index) => (NUMBERED.test(t.layerName(layer)) ? t.layerName(layer) : `${index} ${t.layerName(layer)}`);
  // The work itself: two scans of one table are alike, whichever number they have in their queries.
  t.layerKind = (layer) => t.layerName(layer).replace(NUMBERED, '') || t.layerName(layer);

  t.createStore = () => {
    const store = {
      about: null,
      nowUs: 0,
      totals: NO_TOTALS,
      workers: new Map(), // id -> Worker
      workersRevision: 0,
      lostAtUs: new Map(), // worker -> when it was lost
      graphs: new Map(), // id -> Graph, in the order they came
      pairs: [],
      history: t.createHistory(),
      revision: 0, // changes with every frame
    };
    const listeners = [];
    store.onFrame = (listener) => listeners.push(listener);
    const tell = (frame, how) => {
      for (const listener of listeners) {
        // One view that fails must not silence the others.
        try { listener(frame, how); } catch (error) { t.reportError(error && error.stack); }
      }
    };

    const noteLost = (frame) => {
      for (const note of frame.notes || []) {
        if (note.kind === 'worker_lost' && note.worker) store.lostAtUs.set(note.worker, note.at_us);
      }
    };

    const setWorkers = (frame, whole) => {
      const before = store.workers;
      store.workers = new Map(frame.workers.map((worker) => [worker.id, worker]));
      for (const worker of frame.workers) {
        if (!worker.lost || store.lostAtUs.has(worker.id)) continue;
        const was = before.get(worker.id);
        // One that we never saw alive is not shown to die: it did so long ago.
        store.lostAtUs.set(worker.id, !whole && was && !was.lost ? frame.now_us : 0);
      }
      store.workersRevision += 1;
    };

    // Everything but the history.
    store.applyPresent = (frame) => {
      if (frame.whole) {
        store.graphs = new Map();
        store.lostAtUs = new Map();
        store.pairs = [];
      }
      store.nowUs = frame.now_us;
      store.totals = frame.totals || store.totals;
      noteLost(frame);
      if (frame.workers) setWorkers(frame, frame.whole);
      for (const graph of frame.graphs || []) {
        store.graphs.delete(graph.id);
        store.graphs.set(graph.id, graph);
      }
      if (store.graphs.size > MAX_GRAPHS) dropGraphs();
      if (frame.pairs) store.pairs = frame.pairs;
      store.revision += 1;
    };

    // The oldest that has ended goes first; `graphs` is in the order of last changes, so the first are the stalest.
    const dropGraphs = () => {
      for (const [id, graph] of store.graphs) {
        if (store.graphs.size <= MAX_GRAPHS) return;
        if (graph.state !== 'running') store.graphs.delete(id);
      }
      for (const id of store.graphs.keys()) {
        if (store.graphs.size <= MAX_GRAPHS) return;
        store.graphs.delete(id);
      }
    };

    store.apply = (message) => {
      if (message.type === 'about') { store.about = message; tell(null, 'about'); return; }
      if (message.type !== 'frame') return;
      if (message.whole) store.history = t.createHistory();
      store.history.add(message);
      store.applyPresent(message);
      tell(message, message.whole ? 'whole' : 'next');
    };

    // For replays, whose history is there from the start.
    store.step = (frame) => { store.applyPresent(frame); tell(frame, 'next'); };
    store.snapshot = () => ({
      nowUs: store.nowUs, totals: store.totals, workers: store.workers, pairs: store.pairs,
      graphs: new Map(store.graphs), lostAtUs: new Map(store.lostAtUs),
    });
    store.restore = (snapshot) => {
      Object.assign(store, snapshot, { graphs: new Map(snapshot.graphs), lostAtUs: new Map(snapshot.lostAtUs) });
      store.workersRevision += 1;
      store.revision += 1;
    };
    store.sought = () => tell(null, 'seek');
    store.clear = () => {
      Object.assign(store, {
        about: null, nowUs: 0, totals: NO_TOTALS, workers: new Map(), lostAtUs: new Map(), graphs: new Map(), pairs: [],
        history: t.createHistory(),
      });
      store.workersRevision += 1;
      tell(null, 'seek');
    };

    // Questions that several views ask.
    store.layer = (graph, index) => {
      const known = store.graphs.get(graph);
      return (known && known.layers[index]) || null;
    };
    store.layerOfTask = (task) => {
      const graph = store.graphs.get(t.graphOf(task));
      const index = Number(task.split('.')[2]);
      if (!graph) return -1;
      return graph.layers.findIndex((layer) => index >= layer.first_task && index < layer.first_task + layer.total);
    };
    store.label = (graph, layer) => {
      const known = store.layer(graph, layer);
      return known ? t.layerName(known) : UNKNOWN;
    };
    // What a task is coloured by.
    store.kind = (graph, layer) => {
      const known = store.layer(graph, layer);
      return known ? t.layerKind(known) : UNKNOWN;
    };
    store.newestGraphs = () => [...store.graphs.values()].sort((one, other) => other.start_us - one.start_us);
    store.sortedWorkers = () => {
      if (store.sortedFor !== store.workersRevision) {
        const number = (worker) => Number(worker.id.slice(1)) || 0;
        store.sorted = [...store.workers.values()].sort((one, other) => number(one) - number(other));
        store.sortedFor = store.workersRevision;
      }
      return store.sorted;
    };
    store.clockText = (us) => {
      if (!store.about) return t.duration(us);
      const at = new Date(store.about.unix_ms + (us - store.about.now_us) / 1000);
      return Number.isNaN(at.getTime()) ? t.duration(us) : at.toLocaleTimeString('en-GB');
    };
    return store;
  };

  t.store = t.createStore();
})(window.transload = window.transload || {});
