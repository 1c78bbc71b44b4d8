// The connection to a running cluster: messages over a WebSocket go to the store; a lost connection is taken up again, later each time.
// Knows nothing of what is drawn.
(function (t) {
  'use strict';

  const FIRST_WAIT_MS = 500;
  const LONGEST_WAIT_MS = 15000;
  // About a minute of frames. Who pauses for longer gets everything anew.
  const MAX_HELD = 600;

  t.createLive = (store, onState) => {
    let socket = null;
    let timer = 0;
    let waitMs = FIRST_WAIT_MS;
    let stopped = false;
    let held = null; // messages that came while paused, or null
    const live = { connected: false };

    const state = (name, text) => {
      live.connected = name === 'live';
      onState(name, text);
    };

    const receive = (event) => {
      let message;
      try { message = JSON.parse(event.data); } catch (error) {
        t.reportError(`A message of the server is not JSON: ${error.message}`);
        return;
      }
      waitMs = FIRST_WAIT_MS;
      if (held && held.length >= MAX_HELD) return;
      if (held) held.push(message);
      else store.apply(message);
    };

    const connect = () => {
      clearTimeout(timer);
      if (stopped) return;
      const url = t.url('ws');
      url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
      try { socket = new WebSocket(url); } catch (error) { retry(error.message); return; }
      socket.onopen = () => state('live', 'live');
      socket.onmessage = receive;
      socket.onclose = () => retry();
    };

    const retry = () => {
      socket = null;
      if (stopped) return;
      state('lost', `disconnected, retrying in ${Math.max(1, Math.round(waitMs / 1000))} s`);
      // Chance keeps a hundred pages from coming back at once after a restart.
      timer = setTimeout(connect, waitMs * (0.75 + Math.random() / 2));
      waitMs = Math.min(LONGEST_WAIT_MS, waitMs * 1.7);
    };

    const close = () => {
      clearTimeout(timer);
      if (!socket) return;
      socket.onclose = null;
      socket.onmessage = null;
      socket.close();
      socket = null;
    };

    live.start = () => { stopped = false; state('waiting', 'connecting'); connect(); };
    live.stop = () => { stopped = true; live.connected = false; close(); };
    live.hold = () => { held = []; };
    live.release = () => {
      const messages = held || [];
      held = null;
      if (messages.length < MAX_HELD) messages.forEach(store.apply);
      else { close(); connect(); }
    };
    live.isHeld = () => held !== null;
    return live;
  };
})(window.transload = window.transload || {});
