// The head of the page: whose dashboard it is, totals, connection, theme, downloads.
// The page mounts it and tells it when something changed.
(function (t) {
  'use strict';

  const RATE_OVER_US = 3e6;
  const store = t.store;
  const nodes = {};
  let shownAt = 0;
  let seen = []; // { us, tasks, bytes }, to tell how fast it goes

  const rates = () => {
    const now = { us: store.nowUs, tasks: store.totals.tasks_finished, bytes: store.totals.moved_bytes };
    if (seen.length && (now.us < seen[seen.length - 1].us || now.tasks < seen[seen.length - 1].tasks)) seen = [];
    seen.push(now);
    while (seen.length > 2 && now.us - seen[0].us > RATE_OVER_US) seen.shift();
    const us = now.us - seen[0].us;
    return us > 2e5 ? { tasks: (now.tasks - seen[0].tasks) / us * 1e6, bytes: (now.bytes - seen[0].bytes) / us * 1e6 } : { tasks: 0, bytes: 0 };
  };

  const alive = () => {
    let count = 0;
    for (const worker of store.workers.values()) if (!worker.lost) count += 1;
    return count;
  };

  const list = () => {
    const { totals } = store;
    const rate = rates();
    const lost = store.workers.size - alive();
    return [
      ['workers', t.count(alive()), lost ? `${t.count(lost)} lost` : ''],
      ['running', t.count(totals.graphs_running), totals.graphs_running === 1 ? 'graph' : 'graphs'],
      ['ready', t.count(totals.tasks_ready), 'tasks'],
      ['finished', t.count(totals.tasks_finished), rate.tasks >= 1 ? `${t.count(Math.round(rate.tasks))}/s` : 'tasks'],
      ['moved', t.bytes(totals.moved_bytes), rate.bytes >= 1 ? t.rate(rate.bytes) : ''],
      ['spilled', t.bytes(totals.spilled_bytes), ''],
      ['clients', t.count(totals.clients), ''],
      ...(totals.dropped_events ? [['not shown', t.count(totals.dropped_events), 'events']] : []),
    ];
  };

  const THEMES = ['auto', 'light', 'dark'];
  const setTheme = (theme) => {
    t.colour.setTheme(theme);
    t.setText(t.$('theme'), `Theme: ${theme}`);
  };

  t.header = {
    mount: () => {
      nodes.totals = t.$('totals');
      setTheme(t.colour.storedTheme());
      t.$('theme').addEventListener('click', () => {
        const at = THEMES.indexOf(document.documentElement.dataset.theme);
        setTheme(THEMES[(at + 1) % THEMES.length]);
      });
      t.$('record').href = t.url('api/v1/record');
      t.$('trace').href = t.url('api/v1/trace');
    },
    // Of a server only a server can give these.
    setMode: (mode) => {
      t.$('record').hidden = mode !== 'live';
      t.$('trace').hidden = mode !== 'live';
      t.$('pause').hidden = mode !== 'live';
    },
    connection: (state, text) => {
      const pill = t.$('connection');
      t.setAttribute(pill, 'data-state', state);
      t.setText(pill, text);
      document.body.dataset.connection = state;
    },
    about: () => {
      const { about } = store;
      t.setText(t.$('cluster-address'), about ? about.scheduler : 'no cluster yet');
      t.setText(t.$('cluster-version'), about ? `transload ${about.version}, protocol ${about.protocol}` : '');
      document.title = about ? `transload ${about.scheduler}` : 'transload';
    },
    update: (force) => {
      const nowMs = performance.now();
      if (!force && nowMs - shownAt < 300) return;
      shownAt = nowMs;
      t.keyed(nodes.totals, list(), (each) => each[0],
        () => t.h('div', {}, t.h('dt'), t.h('dd', {}, t.h('b'), ' ', t.h('small'))),
        (node, [name, value, extra]) => {
          t.setText(node.firstChild, name);
          t.setText(node.lastChild.firstChild, value);
          t.setText(node.lastChild.lastChild, extra);
        });
    },
  };
})(window.transload = window.transload || {});
