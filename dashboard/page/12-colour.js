// Colours: of the theme, of operators, ways and tiers. Colours that canvases draw are asked for here, as canvases know no style sheets.
// Knows nothing of where they are drawn.
(function (t) {
  'use strict';

  // Neither red, orange nor black: these are transfers, moves between tiers, and failures.
  const OPERATORS = [
    '#4e9de6', '#35b779', '#9b6cf0', '#12b5c9', '#d6b31c', '#e06bb8', '#7fa83a', '#6279e8',
    '#2fa58c', '#b58bd9', '#5fb8e8', '#a98a5e', '#56c456', '#c25ad0', '#8193a8', '#b9c23f',
  ];
  const DARK = {
    ways: { tcp: '#ffb020', ucx_shm: '#35d07f', ucx_rdma: '#38bdf8', device: '#c084fc', process: '#94a3b8', other: '#f472b6' },
    tiers: { device: '#c084fc', pinned: '#2dd4bf', host: '#60a5fa', disk: '#f0a04b' },
    transfer: '#f4515f', move: '#f08a24', failed: '#000000', lost: '#7a8699', alarm: '#ff5d6c',
  };
  const LIGHT = {
    ways: { tcp: '#b86e00', ucx_shm: '#0f8a4c', ucx_rdma: '#0369a1', device: '#8b2fd6', process: '#5b6b80', other: '#be2a77' },
    tiers: { device: '#8b3fd9', pinned: '#0d8f84', host: '#2b6fd6', disk: '#b8650a' },
    transfer: '#d62839', move: '#d9700f', failed: '#000000', lost: '#8a94a3', alarm: '#c81e33',
  };
  const WAY_NAMES = {
    tcp: 'TCP', ucx_shm: 'UCX shared memory', ucx_rdma: 'UCX RDMA', device: 'NVLink / cuda_ipc', process: 'within a process', other: 'other',
  };
  const TIERS = ['device', 'pinned', 'host', 'disk'];
  const TIER_NAMES = { device: 'GPU', pinned: 'pinned', host: 'host', disk: 'disk' };
  // As samples of memory list them.
  const SAMPLE_TIERS = ['host', 'disk', 'device', 'pinned'];

  const system = window.matchMedia('(prefers-color-scheme: dark)');
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
  let cache = new Map();
  // What the style sheet has made of the system's theme: queries of media are not always told of its changes.
  const sheet = { text: '', isDark: system.matches };
  const taken = new Map();
  const names = new Map();

  const isDark = () => {
    const wanted = document.documentElement.dataset.theme;
    return wanted === 'dark' || (wanted !== 'light' && sheet.isDark);
  };
  const set = () => (isDark() ? DARK : LIGHT);

  // A custom property of the style sheet. Asking the style engine for each shape would cost more than drawing it.
  const css = (name) => {
    let value = cache.get(name);
    if (value === undefined) {
      value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      cache.set(name, value);
    }
    return value;
  };

  const parse = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const alpha = (hex, opacity) => {
    const key = `${hex}${Math.round(opacity * 50)}`;
    let value = cache.get(key);
    if (value === undefined) {
      value = `rgba(${parse(hex).join(',')},${Math.round(opacity * 50) / 50})`;
      cache.set(key, value);
    }
    return value;
  };
  const scale = (hex, factor) =>
    `#${parse(hex).map((part) => Math.min(255, Math.round(part * factor)).toString(16).padStart(2, '0')).join('')}`;

  const hash = (text) => {
    let sum = 2166136261;
    for (let at = 0; at < text.length; at += 1) sum = Math.imul(sum ^ text.charCodeAt(at), 16777619);
    return (sum ^ (sum >>> 15)) >>> 0;
  };

  // The same name has the same colour in every session, unless another took it before in this one: then the next that is free.
  const operator = (name) => {
    let index = names.get(name);
    if (index === undefined) {
      const first = hash(name) % OPERATORS.length;
      index = first;
      for (let step = 0; step < OPERATORS.length; step += 1) {
        const candidate = (first + step) % OPERATORS.length;
        if (!taken.has(candidate)) { index = candidate; break; }
      }
      taken.set(index, name);
      // A client that makes up names for ever does not fill the memory.
      if (names.size < 5000) names.set(name, index);
    }
    return isDark() ? OPERATORS[index] : lightOperator(index);
  };
  const light = [];
  const lightOperator = (index) => light[index] || (light[index] = scale(OPERATORS[index], 0.82));

  const luminance = (hex) => {
    const [red, green, blue] = parse(hex).map((part) => (part / 255 <= 0.04 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  // The text that is read best on `hex`.
  const onColours = new Map();
  const on = (hex) => {
    let text = onColours.get(hex);
    if (!text) onColours.set(hex, text = luminance(hex) > 0.179 ? '#05080f' : '#ffffff');
    return text;
  };

  const listeners = [];
  const changed = () => { cache = new Map(); listeners.forEach((listener) => listener()); };
  // Before each frame.
  const check = () => {
    const text = getComputedStyle(document.documentElement).getPropertyValue('--text').trim();
    if (text === sheet.text || !/^#[0-9a-f]{6}$/i.test(text)) return;
    sheet.text = text;
    sheet.isDark = luminance(text) > 0.4;
    changed();
  };
  system.addEventListener('change', changed);
  calm.addEventListener('change', changed);

  t.colour = {
    TIERS, TIER_NAMES, SAMPLE_TIERS, WAY_NAMES, isDark, css, alpha, scale, on, operator, hash,
    way: (way) => set().ways[way] || set().ways.other,
    tier: (tier) => set().tiers[tier] || set().lost,
    transfer: () => set().transfer,
    move: () => set().move,
    failed: () => set().failed,
    lost: () => set().lost,
    alarm: () => set().alarm,
    isCalm: () => calm.matches,
    check,
    onChange: (listener) => listeners.push(listener),
    // `auto`, `light` or `dark`, kept where the browser lets us.
    setTheme: (theme) => {
      document.documentElement.dataset.theme = theme;
      try { window.localStorage.setItem('transload-theme', theme); } catch (_) { /* Not kept: a file, or forbidden. */ }
      changed();
    },
    storedTheme: () => {
      try { return window.localStorage.getItem('transload-theme') || 'auto'; } catch (_) { return 'auto'; }
    },
  };
})(window.transload = window.transload || {});
