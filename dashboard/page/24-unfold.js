// Makes a film of a still: one frame with all that is remembered becomes many, as if somebody had looked all the time.
// The player calls it for recordings that begin with such a frame. Knows neither the page nor the store.
(function (t) {
  'use strict';

  const STEP_US = 100000;
  const WORKERS_EVERY_US = 500000;
  const MAX_FRAMES = 1500;
  const MAX_WORKER_STATES = 200000;

  // Sorted by when each is to be told.
  const byTime = (items, at) => (items || []).map((item) => ({ at: at(item), item })).sort((one, other) => one.at - other.at);
  const taker = (sorted) => {
    let next = 0;
    return (untilUs) => {
      const from = next;
      while (next < sorted.length && sorted[next].at <= untilUs) next += 1;
      return sorted.slice(from, next).map((entry) => entry.item);
    };
  };

  // Tasks that are handed out are not remembered; their starts tell of them.
  const toAssignments = (spans) => {
    const merged = new Map();
    for (const span of spans) {
      const key = `${span.worker} ${span.graph} ${span.layer}`;
      const known = merged.get(key);
      if (known) known.count += span.count;
      else merged.set(key, { worker: span.worker, graph: span.graph, layer: span.layer, count: span.count });
    }
    return [...merged.values()];
  };

  const graphsAt = (whole) => {
    const done = new Map(); // "graph layer" -> { tasks, run_us, bytes }
    const told = new Map();
    return {
      count: (spans) => {
        for (const span of spans) {
          const key = `${span.graph} ${span.layer}`;
          const sum = done.get(key) || { tasks: 0, run_us: 0, bytes: 0 };
          sum.tasks += span.failed ? 0 : span.count;
          sum.run_us += span.end_us - span.start_us;
          sum.bytes += span.bytes;
          done.set(key, sum);
        }
      },
      at: (nowUs, running) => {
        const changed = [];
        for (const graph of whole.graphs || []) {
          if (graph.start_us > nowUs) continue;
          const ended = graph.end_us !== null && graph.end_us !== undefined && graph.end_us <= nowUs;
          if (ended && told.get(graph.id) === 'ended') continue;
          told.set(graph.id, ended ? 'ended' : 'running');
          if (ended) { changed.push(graph); continue; }
          const layers = graph.layers.map((layer, index) => {
            const sum = done.get(`${graph.id} ${index}`) || { tasks: 0, run_us: 0, bytes: 0 };
            const tasks = Math.min(layer.total, sum.tasks);
            const busy = Math.min(layer.total - tasks, running.get(`${graph.id} ${index}`) || 0);
            // Of rows only the sum is known.
            const rows = tasks === layer.total ? layer.rows : 0;
            return { ...layer, done: tasks, running: busy, run_us: sum.run_us, bytes: sum.bytes, rows };
          });
          changed.push({ ...graph, state: 'running', reason: null, end_us: null, layers });
        }
        return changed;
      },
    };
  };

  const workersAt = (whole) => {
    const lost = new Map();
    const joined = new Map();
    for (const note of whole.notes || []) {
      if (note.kind === 'worker_lost' && note.worker) lost.set(note.worker, note.at_us);
      if (note.kind === 'worker_joined' && note.worker) joined.set(note.worker, note.at_us);
    }
    const finished = new Map();
    const memory = new Map();
    return {
      count: (spans) => { for (const span of spans) finished.set(span.worker, (finished.get(span.worker) || 0) + span.count); },
      remember: (samples) => { for (const sample of samples) memory.set(sample.worker, sample); },
      at: (nowUs, runningOf) => (whole.workers || [])
        .filter((worker) => !((joined.get(worker.id) || 0) > nowUs))
        .map((worker) => {
          const sample = memory.get(worker.id);
          const tiers = sample ? worker.tiers.map((usage) => {
            const index = t.colour.SAMPLE_TIERS.indexOf(usage.tier);
            return index < 0 ? usage : { ...usage, used_bytes: sample.used_bytes[index] };
          }) : worker.tiers;
          const gone = worker.lost && !((lost.get(worker.id) || 0) > nowUs);
          const running = gone ? [] : (runningOf.get(worker.id) || []).slice(0, Math.max(1, worker.slots)).map((span) => ({
            task: span.task, layer: span.layer, running_ms: Math.round((nowUs - span.start_us) / 1000),
          }));
          return {
            ...worker, tiers, running, lost: gone ? worker.lost : null, queued: 0, assigned: running.length, stragglers: [],
            resident_bytes: sample ? sample.resident_bytes : worker.resident_bytes, finished: finished.get(worker.id) || 0,
          };
        }),
    };
  };

  // Whether frame `whole` spans long enough to be worth it.
  const beginning = (whole) => {
    let first = whole.now_us;
    for (const graph of whole.graphs || []) first = Math.min(first, graph.start_us);
    for (const span of whole.spans || []) first = Math.min(first, span.start_us);
    for (const sample of whole.memory || []) first = Math.min(first, sample.at_us);
    return first;
  };

  t.unfold = (whole) => {
    const firstUs = beginning(whole);
    const lengthUs = whole.now_us - firstUs;
    if (lengthUs < 2 * STEP_US) return [whole];
    const stepUs = Math.max(STEP_US, lengthUs / MAX_FRAMES);
    const states = Math.max(1, Math.floor(MAX_WORKER_STATES / Math.max(1, (whole.workers || []).length)));
    const workersEveryUs = Math.max(WORKERS_EVERY_US, lengthUs / states);
    const take = {
      spans: taker(byTime(whole.spans, (span) => span.end_us)),
      starts: taker(byTime(whole.spans, (span) => span.start_us)),
      transfers: taker(byTime(whole.transfers, (transfer) => transfer.end_us)),
      moves: taker(byTime(whole.moves, (move) => move.end_us)),
      notes: taker(byTime(whole.notes, (note) => note.at_us)),
      memory: taker(byTime(whole.memory, (sample) => sample.at_us)),
    };
    const graphs = graphsAt(whole);
    const workers = workersAt(whole);
    const open = new Set();
    const frames = [];
    let workersUs = -Infinity;
    let finished = 0;
    let moved = 0;
    let spilled = 0;
    for (let nowUs = firstUs; ; nowUs += stepUs) {
      const last = nowUs >= whole.now_us;
      if (last) nowUs = whole.now_us;
      const starts = take.starts(nowUs);
      const frame = {
        type: 'frame', whole: frames.length === 0, now_us: nowUs, workers: null, pairs: null, spans: take.spans(nowUs),
        assignments: toAssignments(starts), transfers: take.transfers(nowUs), moves: take.moves(nowUs), notes: take.notes(nowUs),
        memory: take.memory(nowUs),
      };
      starts.forEach((span) => open.add(span));
      frame.spans.forEach((span) => open.delete(span));
      graphs.count(frame.spans);
      workers.count(frame.spans);
      workers.remember(frame.memory);
      const running = new Map();
      const runningOf = new Map();
      for (const span of open) {
        const key = `${span.graph} ${span.layer}`;
        running.set(key, (running.get(key) || 0) + 1);
        if (!runningOf.has(span.worker)) runningOf.set(span.worker, []);
        runningOf.get(span.worker).push(span);
      }
      // What ran before anything is remembered is counted in the last frame alone.
      frame.graphs = last ? whole.graphs : graphs.at(nowUs, running);
      const dies = frame.notes.some((note) => note.kind === 'worker_lost');
      if (last || dies || nowUs - workersUs >= workersEveryUs) {
        frame.workers = last ? whole.workers : workers.at(nowUs, runningOf);
        workersUs = nowUs;
      }
      for (const span of frame.spans) finished += span.count;
      for (const transfer of frame.transfers) moved += transfer.bytes;
      for (const move of frame.moves) if (move.to === 'disk') spilled += move.bytes;
      frame.totals = last ? whole.totals : {
        ...whole.totals, graphs_running: frame.graphs.filter((graph) => graph.state === 'running').length, tasks_ready: 0,
        tasks_finished: finished, moved_bytes: moved, spilled_bytes: spilled,
      };
      if (last || frames.length === 0) frame.pairs = whole.pairs;
      frames.push(frame);
      if (last) return frames;
    }
  };
})(window.transload = window.transload || {});
