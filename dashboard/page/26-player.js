// Replays a recording: goes to any moment, plays on from there at any speed. The page's controls call it; it feeds the store.
// Seeking restores the nearest keyframe and applies what follows, so that it costs the same everywhere.
// Knows nothing of what is drawn.
(function (t) {
  'use strict';

  const KEYFRAME_EVERY = 40;

  // JSON lines, or one array.
  t.parseRecording = (text) => {
    const trimmed = text.trim();
    if (trimmed.startsWith('[')) return JSON.parse(trimmed);
    return trimmed.split('\n').filter((line) => line.trim()).map((line, at) => {
      try { return JSON.parse(line); } catch (error) {
        throw new Error(`Line ${at + 1} of the recording is not JSON (${error.message}). Open a file that "Recording" or "transload trace record" made.`);
      }
    });
  };

  t.createPlayer = (messages, store) => {
    const frames = [];
    let about = null;
    for (const message of messages) {
      if (!message) continue;
      if (message.type === 'about') about = message;
      if (message.type !== 'frame') continue;
      if (message.whole && frames.length === 0) frames.push(...t.unfold(message));
      // A later whole frame repeats what is there already: somebody was connected anew. Its lists would come twice.
      else if (message.whole) frames.push({ ...message, whole: false, spans: [], transfers: [], moves: [], memory: [], notes: [] });
      else frames.push(message);
    }
    if (!frames.length) throw new Error('The recording has no frame: nothing was recorded. Record while the cluster does something.');
    frames.sort((one, other) => one.now_us - other.now_us);

    store.clear();
    if (about) store.apply(about);
    for (const frame of frames) store.history.add(frame);

    const keyframes = [];
    frames.forEach((frame, at) => {
      store.applyPresent(frame);
      if (at % KEYFRAME_EVERY === 0) keyframes.push(store.snapshot());
    });

    const player = {
      startUs: frames[0].now_us,
      endUs: frames[frames.length - 1].now_us,
      atUs: frames[0].now_us,
      speed: 1,
      playing: false,
      frames: frames.length,
    };
    let index = 0; // of the frame that was applied last

    // Last frame at or before `us`.
    const frameAt = (us) => {
      let low = 0;
      let high = frames.length - 1;
      while (low < high) {
        const middle = (low + high + 1) >>> 1;
        if (frames[middle].now_us <= us) low = middle;
        else high = middle - 1;
      }
      return low;
    };

    player.seek = (us) => {
      player.atUs = t.clamp(us, player.startUs, player.endUs);
      const target = frameAt(player.atUs);
      const key = Math.floor(target / KEYFRAME_EVERY);
      store.restore(keyframes[key]);
      for (let at = key * KEYFRAME_EVERY + 1; at <= target; at += 1) store.applyPresent(frames[at]);
      index = target;
      store.nowUs = player.atUs;
      store.sought();
    };
    player.play = () => {
      if (player.atUs >= player.endUs) player.seek(player.startUs);
      player.playing = true;
    };
    player.pause = () => { player.playing = false; };
    // Called for each drawn frame while it plays.
    player.advance = (elapsedMs) => {
      if (!player.playing) return;
      player.atUs = Math.min(player.endUs, player.atUs + elapsedMs * 1000 * player.speed);
      while (index + 1 < frames.length && frames[index + 1].now_us <= player.atUs) {
        index += 1;
        store.step(frames[index]);
      }
      store.nowUs = player.atUs;
      if (player.atUs >= player.endUs) player.playing = false;
    };
    player.seek(player.startUs);
    return player;
  };
})(window.transload = window.transload || {});
