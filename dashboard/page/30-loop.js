// When to draw: while something moves and somebody can see it, and once after each change. Also how long that took.
// Views and the page ask for frames here. Knows nothing of what they draw.
(function (t) {
  'use strict';

  const REMEMBERED_MS = 5000;
  let requested = 0;
  let lastMs = 0;
  let view = null;
  let ticking = []; // called first, with the elapsed milliseconds; true asks for another frame
  let times = []; // { atMs, gapMs, drawMs }

  // The clock that things move by: the store's, carried on smoothly between its frames.
  let clockUs = 0;
  let baseUs = 0;
  let baseMs = 0;
  const MAX_AHEAD_US = 400000;
  const DELAY_US = 120000;

  const onFrame = (nowMs) => {
    requested = 0;
    const gapMs = lastMs ? nowMs - lastMs : 0;
    lastMs = nowMs;
    const elapsedMs = Math.min(gapMs, 100);
    const began = performance.now();
    let again = false;
    t.colour.check();
    for (const tick of ticking) again = tick(elapsedMs) || again;
    if (view) {
      try { again = view.draw(nowMs, elapsedMs) || again; } catch (error) { t.reportError(error && error.stack); }
    }
    times.push({ atMs: nowMs, gapMs, drawMs: performance.now() - began });
    if (times.length > 1200) times = times.filter((time) => time.atMs > nowMs - REMEMBERED_MS);
    if (again) request();
    else lastMs = 0;
  };

  const request = () => {
    if (requested || document.hidden) return;
    requested = requestAnimationFrame(onFrame);
  };
  document.addEventListener('visibilitychange', () => { lastMs = 0; request(); });

  const quantiles = (values) => {
    if (!values.length) return { p50: 0, p95: 0, max: 0 };
    const sorted = values.sort((one, other) => one - other);
    const at = (share) => Math.round(10 * sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]) / 10;
    return { p50: at(0.5), p95: at(0.95), max: at(1) };
  };

  t.loop = {
    request,
    setView: (next) => { view = next; request(); },
    onTick: (tick) => ticking.push(tick),
    frameTimes: () => {
      const since = performance.now() - REMEMBERED_MS;
      const recent = times.filter((time) => time.atMs > since);
      return {
        gaps: quantiles(recent.filter((time) => time.gapMs > 0).map((time) => time.gapMs)),
        draws: quantiles(recent.map((time) => time.drawMs)),
      };
    },
    // Frames of the cluster come ten times a second and not quite evenly. What is drawn runs a little behind and evenly.
    heard: (nowUs, jump) => {
      baseUs = nowUs;
      baseMs = performance.now();
      if (jump || Math.abs(nowUs - clockUs) > 3e6) clockUs = nowUs - DELAY_US;
    },
    nowUs: () => {
      const targetUs = baseUs - DELAY_US + Math.min(MAX_AHEAD_US, (performance.now() - baseMs) * 1000);
      if (targetUs > clockUs) clockUs = targetUs;
      return clockUs;
    },
  };
})(window.transload = window.transload || {});
