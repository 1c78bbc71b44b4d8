// What has happened: tasks, transfers and moves in lanes, memory over time, notes. Bounded: the oldest go first.
// Filled by the store; in a replay it also holds what is yet to come, and whoever draws stops at the store's clock.
// Knows neither the page nor where messages come from.
(function (t) {
  'use strict';

  const MAX_SPANS = 200000;
  const MAX_NOTES = 2000;
  const MAX_SAMPLES = 240000;
  const MAX_SECONDS = 3600;
  const LOAD_STEP_US = 100000;
  const MAX_LOAD = 36000; // steps: an hour

  // First index of which `items[index].start_us` is at least `us`.
  const lowerBound = (items, us) => {
    let low = 0;
    let high = items.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (items[middle].start_us < us) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  t.lowerBound = lowerBound;

  // Items come nearly sorted, as they are sent when they end.
  const insert = (lane, item) => {
    const items = lane.items;
    let at = items.length;
    while (at > 0 && items[at - 1].start_us > item.start_us) at -= 1;
    if (at === items.length) items.push(item);
    else items.splice(at, 0, item);
    const length = item.end_us - item.start_us;
    if (length > lane.longestUs) lane.longestUs = length;
    if (item.end_us > lane.lastUs) lane.lastUs = item.end_us;
  };

  const newLane = (kind, worker, index) => ({ kind, worker, index, items: [], longestUs: 0, lastUs: 0 });

  // How busy the whole cluster was, in steps of a tenth of a second: what a thousand lanes cannot show at once.
  const createLoad = () => {
    const load = { stepUs: LOAD_STEP_US, first: 0, busyUs: [], bytes: [] };
    const slot = (step) => {
      if (!load.busyUs.length) load.first = step;
      if (step < load.first) return -1;
      while (load.first + load.busyUs.length <= step) {
        // After a gap of more than an hour nothing before it is kept.
        if (step - load.first > 2 * MAX_LOAD) { load.first = step; load.busyUs = []; load.bytes = []; }
        load.busyUs.push(0);
        load.bytes.push(0);
      }
      if (load.busyUs.length > MAX_LOAD) {
        const surplus = load.busyUs.length - MAX_LOAD + MAX_LOAD / 10;
        load.busyUs.splice(0, surplus);
        load.bytes.splice(0, surplus);
        load.first += surplus;
      }
      return step - load.first;
    };
    load.ran = (startUs, endUs) => {
      for (let step = Math.max(load.first, Math.floor(startUs / LOAD_STEP_US)); step * LOAD_STEP_US < endUs; step += 1) {
        const at = slot(step);
        if (at >= 0) load.busyUs[at] += Math.min(endUs, (step + 1) * LOAD_STEP_US) - Math.max(startUs, step * LOAD_STEP_US);
      }
    };
    load.moved = (atUs, bytes) => {
      const at = slot(Math.floor(atUs / LOAD_STEP_US));
      if (at >= 0) load.bytes[at] += bytes;
    };
    return load;
  };

  t.createHistory = () => {
    const history = {
      rows: new Map(), // worker -> { tasks: [lane], transfers: lane or null, moves: lane or null }
      samples: new Map(), // worker -> [Sample]
      seconds: [], // { at_us, used: [4] }, sums over the cluster
      notes: [],
      load: createLoad(),
      count: 0,
      dropped: 0,
      spansSeen: 0,
      transfersSeen: 0,
      firstUs: Infinity,
      revision: 0, // changes when lanes come or go
    };
    let batches = []; // { count, endUs } in the order of arrival, to know what is oldest without sorting
    const lastOf = new Map(); // worker -> { second, used }, so that two samples in one second count once

    const rowOf = (worker) => {
      let row = history.rows.get(worker);
      if (!row) {
        history.rows.set(worker, row = { worker, tasks: [], transfers: null, moves: null });
        history.revision += 1;
      }
      return row;
    };

    const prune = () => {
      let doomed = 0;
      let cutoffUs = 0;
      while (batches.length > 1 && doomed < MAX_SPANS / 10) {
        const batch = batches.shift();
        doomed += batch.count;
        cutoffUs = Math.max(cutoffUs, batch.endUs);
      }
      let removed = 0;
      for (const row of history.rows.values()) {
        for (const lane of [...row.tasks, row.transfers, row.moves]) {
          if (!lane) continue;
          let at = 0;
          while (at < lane.items.length && lane.items[at].end_us <= cutoffUs) at += 1;
          if (at) lane.items.splice(0, at);
          removed += at;
        }
      }
      history.count -= removed;
      history.dropped += removed;
      history.firstUs = Math.max(history.firstUs, cutoffUs);
    };

    const addSample = (sample, perWorker) => {
      let list = history.samples.get(sample.worker);
      if (!list) history.samples.set(sample.worker, list = []);
      list.push(sample);
      if (list.length > perWorker) list.splice(0, Math.ceil(perWorker / 10));
      const second = Math.floor(sample.at_us / 1e6);
      const seconds = history.seconds;
      let sum = seconds[seconds.length - 1];
      if (!sum || sum.second < second) {
        seconds.push(sum = { second, at_us: second * 1e6, used: [0, 0, 0, 0] });
        if (seconds.length > MAX_SECONDS) seconds.splice(0, MAX_SECONDS / 10);
      }
      const before = lastOf.get(sample.worker);
      for (let tier = 0; tier < 4; tier += 1) {
        sum.used[tier] += sample.used_bytes[tier] - (before && before.second === sum.second ? before.used[tier] : 0);
      }
      lastOf.set(sample.worker, { second: sum.second, used: sample.used_bytes });
    };

    history.add = (frame) => {
      let endUs = 0;
      const spans = frame.spans || [];
      const transfers = frame.transfers || [];
      const moves = frame.moves || [];
      for (const span of spans) {
        const row = rowOf(span.worker);
        const index = Math.min(span.lane || 0, 4095);
        while (row.tasks.length <= index) {
          row.tasks.push(newLane('task', span.worker, row.tasks.length));
          history.revision += 1;
        }
        insert(row.tasks[index], span);
        history.load.ran(span.start_us, span.end_us);
        history.spansSeen += span.count;
        endUs = Math.max(endUs, span.end_us);
        history.firstUs = Math.min(history.firstUs, span.start_us);
      }
      for (const transfer of transfers) {
        const row = rowOf(transfer.to);
        if (!row.transfers) { row.transfers = newLane('transfer', transfer.to, 0); history.revision += 1; }
        insert(row.transfers, transfer);
        history.load.moved(transfer.end_us, transfer.bytes);
        history.transfersSeen += transfer.count;
        endUs = Math.max(endUs, transfer.end_us);
      }
      for (const move of moves) {
        const row = rowOf(move.worker);
        if (!row.moves) { row.moves = newLane('move', move.worker, 0); history.revision += 1; }
        insert(row.moves, move);
        endUs = Math.max(endUs, move.end_us);
      }
      const count = spans.length + transfers.length + moves.length;
      if (count) batches.push({ count, endUs });
      history.count += count;
      if (history.count > MAX_SPANS) prune();

      const memory = frame.memory || [];
      if (memory.length) {
        const workers = Math.max(1, history.samples.size);
        const perWorker = t.clamp(Math.floor(MAX_SAMPLES / workers), 60, 1800);
        for (const sample of memory) addSample(sample, perWorker);
      }
      for (const note of frame.notes || []) history.notes.push(note);
      if (history.notes.length > MAX_NOTES) history.notes.splice(0, history.notes.length - MAX_NOTES);
    };

    // Calls `visit` for every task, with no copy of the lists.
    history.eachTask = (visit) => {
      for (const row of history.rows.values()) {
        for (const lane of row.tasks) for (const item of lane.items) visit(item);
      }
    };
    return history;
  };
})(window.transload = window.transload || {});
