// The view of notes: what happened, in words, newest first. Its tab counts those that nobody has seen.
(function (t) {
  'use strict';

  const MAX_SHOWN = 400;
  const KINDS = {
    worker_joined: 'joined', worker_lost: 'lost', graph_accepted: 'graph', graph_ended: 'graph', task_failed: 'failed',
    task_recomputed: 'again', straggler: 'slow', unschedulable: 'stuck', link: 'link', apart: 'apart',
  };
  const SERIOUS = new Set(['worker_lost', 'task_failed', 'unschedulable', 'straggler', 'link', 'apart', 'task_recomputed']);
  const store = t.store;
  const nodes = {};
  let shownAt = 0;
  let unread = 0;
  let onlySerious = false;
  let numbered = 0;

  // Two notes may say the same at the same time.
  const keyOf = (note) => note.key || (note.key = (numbered += 1));

  const make = (note) => t.h('li', { 'data-kind': note.kind },
    t.h('time', {}, store.clockText(note.at_us)), t.h('span', { class: 'badge' }, KINDS[note.kind] || note.kind), t.h('span', { class: 'text' }, note.text),
    t.h('span', { class: 'links' },
      note.worker && t.h('button', { type: 'button', class: 'link', onclick: () => t.details.worker(note.worker) }, note.worker),
      note.task ? t.h('button', { type: 'button', class: 'link', onclick: () => t.details.task(note.task) }, note.task)
        : note.graph && t.h('button', { type: 'button', class: 'link', onclick: () => t.details.graph(note.graph) }, note.graph)));

  store.onFrame((frame, how) => {
    if (how === 'whole') { unread = 0; t.setBadge('notes', 0); }
    if (how !== 'next' || t.currentView === 'notes' || !frame.notes) return;
    unread += frame.notes.filter((note) => SERIOUS.has(note.kind)).length;
    t.setBadge('notes', unread);
  });

  const mount = (panel) => {
    nodes.list = t.h('ul', { class: 'notes' });
    nodes.empty = t.h('p', { class: 'empty' }, 'Nothing has happened yet.');
    const serious = t.h('button', {
      type: 'button', 'aria-pressed': 'false',
      onclick: () => { onlySerious = !onlySerious; t.setAttribute(serious, 'aria-pressed', onlySerious); update(true); },
    }, 'Only troubles');
    panel.append(t.h('div', { class: 'toolbar' }, serious),
      t.h('div', { class: 'page scroll', tabindex: '0', role: 'region', 'aria-label': 'Notes' }, nodes.empty, nodes.list));
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 500) return;
    shownAt = nowMs;
    if (unread) { unread = 0; t.setBadge('notes', 0); }
    const notes = store.history.notes.filter((note) => note.at_us <= store.nowUs && (!onlySerious || SERIOUS.has(note.kind))).slice(-MAX_SHOWN).reverse();
    nodes.empty.hidden = notes.length > 0;
    t.keyed(nodes.list, notes, keyOf, make, () => {});
  };
  t.views.push({ id: 'notes', title: 'Notes', mount, update, order: 9 });
})(window.transload = window.transload || {});
