// Which lanes the task stream has and where they are: for each worker one lane per slot, one for what comes in, one for moves between tiers.
// The stream calls it. Knows nothing of drawing.
(function (t) {
  'use strict';

  const THIN = 0.62; // height of lanes of transfers and moves beside lanes of tasks

  const emptyLane = (kind, worker, index) => ({ kind, worker, index, items: [], longestUs: 0, lastUs: 0 });
  const number = (id) => Number(id.slice(1)) || 0;

  t.createStreamLanes = (store) => {
    let key = '';
    const lanes = { list: [], groups: [], units: 0 };

    // `keep` says which workers to show.
    lanes.refresh = (keep, filterKey) => {
      const { history } = store;
      const now = `${history.revision} ${store.workers.size} ${history.rows.size} ${filterKey}`;
      if (key === now && lanes.of === history) return;
      key = now;
      lanes.of = history;
      const ids = new Set([...store.workers.keys(), ...history.rows.keys()]);
      lanes.list = [];
      lanes.groups = [];
      let units = 0;
      const push = (lane, height) => { lanes.list.push({ lane, unit: units, height }); units += height; };
      for (const id of [...ids].sort((one, other) => number(one) - number(other))) {
        const worker = store.workers.get(id);
        const row = history.rows.get(id);
        // Long dead and nothing to show.
        if (!row && worker && worker.lost) continue;
        if (!keep(id, worker)) continue;
        const from = units;
        const slots = Math.max(worker ? worker.slots : 0, row ? row.tasks.length : 0);
        for (let slot = 0; slot < slots; slot += 1) push((row && row.tasks[slot]) || emptyLane('task', id, slot), 1);
        if (row && row.transfers) push(row.transfers, THIN);
        if (row && row.moves) push(row.moves, THIN);
        units += 0.35;
        lanes.groups.push({ id, unit: from, height: units - from - 0.35 });
      }
      lanes.units = units;
    };

    // Index of the first lane whose lower edge is below `unit`.
    lanes.firstAt = (unit) => {
      let low = 0;
      let high = lanes.list.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (lanes.list[middle].unit + lanes.list[middle].height <= unit) low = middle + 1;
        else high = middle;
      }
      return low;
    };

    // What stands in `lane` at `us`, give or take `slackUs`: the one that began last, as it is drawn on top.
    lanes.itemAt = (lane, us, slackUs, untilUs) => {
      let best = null;
      for (let at = t.lowerBound(lane.items, us - lane.longestUs - slackUs); at < lane.items.length; at += 1) {
        const item = lane.items[at];
        if (item.start_us > us + slackUs || item.start_us > untilUs) break;
        if (item.end_us >= us - slackUs) best = item;
      }
      return best;
    };
    return lanes;
  };
})(window.transload = window.transload || {});
