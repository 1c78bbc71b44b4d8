// Puts the page together: tabs and views, live or recording, and what tests may ask. Runs last.
(function (t) {
  'use strict';

  const store = t.store;
  let needsUpdate = false;
  let current = null;
  let live = null;
  const SETTLED_MS = 350;
  let settling = 0;
  t.mode = 'live';
  t.currentView = '';

  // The clock that is drawn: carried on smoothly while live, the player's in a recording.
  t.nowUs = () => (t.mode === 'live' ? t.loop.nowUs() : store.nowUs);
  t.isMoving = () => (t.mode === 'live' ? Boolean(live && live.connected && !live.isHeld()) : Boolean(t.replayBar.player() && t.replayBar.player().playing));

  const views = t.views.sort((one, other) => (one.order || 1) - (other.order || 1));

  const select = (view, focus) => {
    if (current === view) return;
    if (current) current.panel.hidden = true;
    t.hideTooltip();
    current = view;
    t.currentView = view.id;
    for (const each of views) {
      const chosen = each === view;
      t.setAttribute(each.tab, 'aria-selected', chosen);
      each.tab.tabIndex = chosen ? 0 : -1;
    }
    if (focus) view.tab.focus();
    view.panel.hidden = false;
    if (!view.isMounted) { view.isMounted = true; view.mount(view.panel); }
    view.update(true);
    if (view.shown) view.shown();
    t.loop.setView(view.draw ? view : null);
    if (window.location.hash !== `#${view.id}`) {
      // Files and frames may forbid it; the view is shown all the same.
      try { window.history.replaceState(null, '', `#${view.id}`); } catch (_) { /* as said */ }
    }
  };
  t.showView = (id) => { const view = views.find((each) => each.id === id); if (view) select(view); };

  const onTabKey = (event, at) => {
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: views.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    select(views[(next + views.length) % views.length], true);
  };

  const mountTabs = () => views.forEach((view, at) => {
    view.badge = t.h('span', { class: 'count', hidden: true });
    view.tab = t.h('button', {
      type: 'button', role: 'tab', id: `tab-${view.id}`, 'aria-controls': `panel-${view.id}`, 'aria-selected': 'false', tabindex: '-1',
      onclick: () => select(view), onkeydown: (event) => onTabKey(event, at),
    }, view.title, view.badge);
    view.panel = t.h('section', { role: 'tabpanel', id: `panel-${view.id}`, 'aria-labelledby': `tab-${view.id}`, class: 'panel', hidden: true });
    t.$('tabs').append(view.tab);
    t.$('main').append(view.panel);
  });
  t.setBadge = (id, count) => {
    const { badge } = views.find((view) => view.id === id);
    badge.hidden = !count;
    t.setText(badge, count > 99 ? '99+' : count);
    badge.setAttribute('aria-label', `${count} new`);
    badge.setAttribute('role', 'img');
  };

  const settle = () => {
    t.header.update(true);
    try { if (current) current.update(true); } catch (error) { t.reportError(error && error.stack); }
    t.loop.request();
  };
  store.onFrame((frame, how) => {
    if (how === 'about') { t.header.about(); return; }
    if (t.mode === 'live') t.loop.heard(store.nowUs, how !== 'next');
    needsUpdate = true;
    t.loop.request();
    // Views update a few times a second at most; when no frame follows, the last one must be shown as well.
    clearTimeout(settling);
    settling = setTimeout(settle, SETTLED_MS);
  });
  t.loop.onTick((elapsedMs) => {
    const again = t.replayBar.tick(elapsedMs);
    if (needsUpdate) {
      needsUpdate = false;
      t.header.update();
      try { if (current) current.update(); } catch (error) { t.reportError(error && error.stack); }
    }
    return again;
  });
  t.colour.onChange(() => { needsUpdate = true; t.loop.request(); if (current) current.update(true); });

  const startLive = () => {
    t.mode = 'live';
    t.replayBar.unmount();
    store.clear();
    t.header.setMode('live');
    t.header.about();
    live = live || t.createLive(store, t.header.connection);
    live.start();
  };

  const canBeLive = () => window.location.protocol.startsWith('http') && !t.$('recording');

  const startRecording = (messages, name) => {
    // First, as it throws where there is nothing to play, and then all stays as it was.
    const player = t.createPlayer(messages, store);
    if (live) live.stop();
    if (live && live.isHeld()) togglePause();
    t.mode = 'recording';
    t.setBadge('notes', 0);
    t.header.setMode('recording');
    t.header.connection('recording', name ? `recording ${t.shorten(name, 40)}` : 'recording');
    t.header.about();
    // One sees all at first; playing begins where it began.
    player.seek(player.endUs);
    t.replayBar.mount(player, store, canBeLive() ? startLive : null);
    needsUpdate = true;
    t.loop.request();
  };

  const openText = (text, name) => {
    try { startRecording(t.parseRecording(text), name); } catch (error) {
      t.header.connection('lost', `not opened: ${t.shorten(error.message, 160)}`);
    }
  };
  const openFile = (file) => { if (file) file.text().then((text) => openText(text, file.name)); };

  const togglePause = () => {
    const held = !live.isHeld();
    if (held) live.hold();
    else live.release();
    t.setAttribute(t.$('pause'), 'aria-pressed', held);
    t.setText(t.$('pause'), held ? 'Resume' : 'Pause');
    t.loop.request();
  };

  const listen = () => {
    t.$('pause').addEventListener('click', togglePause);
    t.$('open-file').addEventListener('click', () => t.$('file').click());
    t.$('file').addEventListener('change', (event) => { openFile(event.target.files[0]); event.target.value = ''; });
    window.addEventListener('dragover', (event) => { event.preventDefault(); document.body.classList.add('dropping'); });
    window.addEventListener('dragleave', (event) => { if (!event.relatedTarget) document.body.classList.remove('dropping'); });
    window.addEventListener('drop', (event) => {
      event.preventDefault();
      document.body.classList.remove('dropping');
      openFile(event.dataTransfer.files[0]);
    });
    window.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      t.hideTooltip();
      if (t.details.isOpen()) t.details.close();
    });
    window.addEventListener('hashchange', () => t.showView(window.location.hash.slice(1)));
  };

  // For tests: plain data, no more than one sees.
  t.probe = () => {
    let lost = 0;
    for (const worker of store.workers.values()) if (worker.lost) lost += 1;
    const times = t.loop.frameTimes();
    return {
      mode: t.mode, connected: Boolean(live && live.connected), workers: store.workers.size - lost, lost,
      transfersSeen: store.history.transfersSeen, spansSeen: store.history.spansSeen, view: t.currentView,
      frameTimesMs: times.gaps, drawTimesMs: times.draws, kept: store.history.count, nowUs: store.nowUs, errors: [...t.errors],
    };
  };

  mountTabs();
  t.header.mount();
  listen();
  const wanted = window.location.hash.slice(1);
  const recording = t.$('recording');
  if (recording) t.mode = 'recording';
  select(views.find((view) => view.id === wanted) || views[0]);
  t.header.update(true);
  if (recording) {
    openText(recording.textContent, '');
    // Of a run that is over one wants to see all of it, not its last moment.
    if (!wanted) t.showView('tasks');
    t.stream.showAll();
  }
  if (!recording && canBeLive()) startLive();
  else if (!recording) { t.mode = 'recording'; t.header.setMode('recording'); t.header.connection('waiting', 'open a recording'); }
})(window.transload = window.transload || {});
