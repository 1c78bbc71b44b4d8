// The one global object, and what every other script leans on: elements, text for numbers, addresses of the server.
// Knows nothing of clusters.
(function (t) {
  'use strict';

  t.views = [];
  t.errors = [];

  const remember = (text) => { if (t.errors.length < 100) t.errors.push(String(text)); };
  t.reportError = remember;
  window.addEventListener('error', (event) => remember(event.message));
  window.addEventListener('unhandledrejection', (event) => remember(event.reason));

  const fill = (node, properties, children) => {
    for (const [name, value] of Object.entries(properties || {})) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
      else if (name === 'style') Object.assign(node.style, value);
      else node.setAttribute(name, value === true ? '' : value);
    }
    // Text from the cluster comes this way only, so that no name and no SQL can become markup.
    for (const child of children.flat(Infinity)) {
      if (child === undefined || child === null || child === false) continue;
      node.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return node;
  };

  // An element with attributes, listeners (`onclick`) and children, which are nodes or plain text.
  t.h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
  t.svg = (tag, properties, ...children) =>
    fill(document.createElementNS('http://www.w3.org/2000/svg', tag), properties, children);
  t.$ = (id) => document.getElementById(id);

  // Writes only what differs: an unchanged text costs no layout.
  t.setText = (node, text) => {
    const next = String(text);
    if (node.textContent !== next) node.textContent = next;
  };
  t.setAttribute = (node, name, value) => {
    const next = String(value);
    if (node.getAttribute(name) !== next) node.setAttribute(name, next);
  };

  // Children of `parent` for `items`, in their order, made once for each key and updated in place, so that what has focus keeps it.
  t.keyed = (parent, items, key, make, update) => {
    const known = parent.keyedNodes || (parent.keyedNodes = new Map());
    const seen = new Set();
    let at = parent.firstChild;
    for (const item of items) {
      const id = key(item);
      seen.add(id);
      let node = known.get(id);
      if (!node) known.set(id, node = make(item));
      update(node, item);
      if (node === at) at = at.nextSibling;
      else parent.insertBefore(node, at);
    }
    for (const [id, node] of known) {
      if (seen.has(id)) continue;
      node.remove();
      known.delete(id);
    }
  };

  const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  t.bytes = (value) => {
    let size = Number(value) || 0;
    let unit = 0;
    while (size >= 1024 && unit < UNITS.length - 1) { size /= 1024; unit += 1; }
    return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
  };
  t.rate = (value) => (value ? `${t.bytes(value)}/s` : 'none yet');
  const grouped = new Intl.NumberFormat('en');
  t.count = (value) => grouped.format(Number(value) || 0);
  t.plural = (value, one, many) => `${t.count(value)} ${value === 1 ? one : many || `${one}s`}`;
  t.percent = (part) => `${Math.round(100 * part)} %`;
  t.duration = (us) => {
    const abs = Math.abs(us);
    if (abs < 1000) return `${Math.round(us)} µs`;
    if (abs < 1e6) return `${(us / 1e3).toFixed(abs < 1e5 ? 1 : 0)} ms`;
    if (abs < 6e7) return `${(us / 1e6).toFixed(abs < 1e7 ? 2 : 1)} s`;
    const seconds = Math.round(us / 1e6);
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  };
  t.shorten = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
  t.clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // The address of something of the server, relative to the page, so that a proxy may put us under any path. A token that came with the
  // page goes along.
  t.url = (path, parameters) => {
    const url = new URL(path, document.baseURI);
    const token = new URLSearchParams(window.location.search).get('token');
    if (token) url.searchParams.set('token', token);
    for (const [name, value] of Object.entries(parameters || {})) url.searchParams.set(name, value);
    return url;
  };

  // Says something to those who listen rather than look.
  t.announce = (text) => t.setText(t.$('live-region'), text);

  // 1.0.17, 1.0.17/2 and 1.0 begin with their graph.
  t.graphOf = (id) => {
    const second = id.indexOf('.', id.indexOf('.') + 1);
    return second < 0 ? id : id.slice(0, second);
  };
})(window.transload = window.transload || {});
