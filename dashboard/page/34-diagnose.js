// What the history tells about one task: whether it is slow beside its like, and what its worker did before and meanwhile.
// The details call it; it works without a server. Knows nothing of what is drawn.
(function (t) {
  'use strict';

  const SLOW = 2; // times the median
  const LEAST_IDLE_US = 5000; // below which a gap between tasks is nobody's fault

  const durationOf = (span) => (span.end_us - span.start_us) / Math.max(1, span.count);

  const medianOf = (graph, layer, store) => {
    const durations = [];
    store.history.eachTask((span) => {
      if (span.graph === graph && span.layer === layer && !span.failed) durations.push(durationOf(span));
    });
    durations.sort((one, other) => one - other);
    return { median: durations[Math.floor(durations.length / 2)] || 0, count: durations.length };
  };

  // Time within [fromUs, toUs) in which the lane had something; what overlaps counts once.
  const overlap = (lane, fromUs, toUs) => {
    const sum = { us: 0, bytes: 0, count: 0 };
    if (!lane || toUs <= fromUs) return sum;
    let coveredUs = fromUs;
    for (let at = t.lowerBound(lane.items, fromUs - lane.longestUs); at < lane.items.length; at += 1) {
      const item = lane.items[at];
      if (item.start_us >= toUs) break;
      if (item.end_us <= fromUs) continue;
      const from = Math.max(coveredUs, item.start_us);
      const to = Math.min(toUs, item.end_us);
      if (to > from) { sum.us += to - from; coveredUs = to; }
      sum.bytes += item.bytes;
      sum.count += item.count;
    }
    return sum;
  };

  const before = (lane, span) => {
    const at = lane ? lane.items.indexOf(span) : -1;
    return at > 0 ? lane.items[at - 1] : null;
  };

  // Sentences on why `span` took as long as it did.
  t.diagnose = (span, store) => {
    const told = [];
    const row = store.history.rows.get(span.worker);
    const { median, count } = medianOf(span.graph, span.layer, store);
    const ratio = median ? durationOf(span) / median : 1;
    if (count > 2) {
      told.push(ratio >= SLOW
        ? `Slow: ${ratio.toFixed(1)} times the median of its layer, which is ${t.duration(median)}.`
        : `As fast as its like: the median of its layer is ${t.duration(median)}.`);
    }
    if (!row) return told;
    const previous = before(row.tasks[span.lane], span);
    const idleUs = previous ? span.start_us - previous.end_us : 0;
    if (idleUs > Math.max(LEAST_IDLE_US, (span.end_us - span.start_us) / 20)) {
      const fetched = overlap(row.transfers, previous.end_us, span.start_us);
      told.push(`Its slot stood idle for ${t.duration(idleUs)} before${fetched.us > idleUs / 4
        ? `; for ${t.duration(fetched.us)} of that the worker fetched ${t.bytes(fetched.bytes)}.`
        : ', and nothing was fetched for most of that: there was nothing to do, or it waited for others.'}`);
    }
    const fetches = overlap(row.transfers, span.start_us, span.end_us);
    if (fetches.us) told.push(`While it ran, ${t.plural(fetches.count, 'partition')} came in, ${t.bytes(fetches.bytes)} in ${t.duration(fetches.us)}.`);
    const moves = overlap(row.moves, span.start_us, span.end_us);
    if (moves.us) told.push(`While it ran, its worker moved ${t.bytes(moves.bytes)} between tiers for ${t.duration(moves.us)}: memory was short.`);
    if (span.count > 1) told.push(`${t.plural(span.count, 'task')} of the layer ran here right behind each other; they are shown as one.`);
    return told;
  };
})(window.transload = window.transload || {});
