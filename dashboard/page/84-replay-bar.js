// The bar at the bottom when a recording is shown: play, pause, speed, and a slider over all of it.
// The page mounts it. Knows nothing of views.
(function (t) {
  'use strict';

  const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 5, 10];
  let player = null;
  const nodes = {};
  let held = false; // the slider is being dragged

  const text = () => `${t.duration(player.atUs - player.startUs)} of ${t.duration(player.endUs - player.startUs)}`;

  const show = () => {
    t.setText(nodes.play, player.playing ? 'Pause' : 'Play');
    t.setText(nodes.time, text());
    if (!held) nodes.slider.value = player.atUs - player.startUs;
    t.setAttribute(nodes.slider, 'aria-valuetext', text());
  };

  const toggle = () => {
    if (player.playing) player.pause();
    else player.play();
    show();
    t.loop.request();
  };

  // Where something went wrong, so that one need not search.
  const marks = (store) => {
    const length = Math.max(1, player.endUs - player.startUs);
    return store.history.notes.filter((note) => ['worker_lost', 'task_failed', 'straggler'].includes(note.kind)).slice(-200).map((note) => t.h('span', {
      class: 'mark', 'data-kind': note.kind, title: note.text, style: { left: `${t.clamp(100 * (note.at_us - player.startUs) / length, 0, 100)}%` },
    }));
  };

  t.replayBar = {
    mount: (next, store, leave) => {
      player = next;
      nodes.play = t.h('button', { type: 'button', class: 'play', onclick: toggle }, 'Play');
      nodes.slider = t.h('input', {
        type: 'range', min: '0', max: String(Math.max(1, player.endUs - player.startUs)), step: '1000', value: '0', 'aria-label': 'Moment of the recording',
        oninput: () => { held = true; player.seek(player.startUs + Number(nodes.slider.value)); show(); },
        onchange: () => { held = false; },
      });
      nodes.speed = t.h('select', { 'aria-label': 'Speed', onchange: () => { player.speed = Number(nodes.speed.value); } },
        SPEEDS.map((speed) => t.h('option', { value: speed, selected: speed === 1 }, `${speed} ×`)));
      nodes.time = t.h('output', { class: 'time' });
      const bar = t.$('replay');
      bar.replaceChildren(nodes.play, nodes.speed, t.h('div', { class: 'track-box' }, nodes.slider, t.h('div', { class: 'marks', 'aria-hidden': 'true' }, marks(store))), nodes.time,
        leave && t.h('button', { type: 'button', onclick: leave }, 'Back to live'));
      if (!leave) bar.lastChild.remove();
      bar.hidden = false;
      show();
    },
    unmount: () => { player = null; t.$('replay').hidden = true; },
    // True asks for another frame.
    tick: (elapsedMs) => {
      if (!player || !player.playing) return false;
      player.advance(elapsedMs);
      show();
      return player.playing;
    },
    player: () => player,
    toggle,
  };
})(window.transload = window.transload || {});
