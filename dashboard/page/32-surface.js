// A canvas that fits its box at every resolution, the tooltip, and the table that says in words what a canvas shows.
// Views with canvases use it. Knows nothing of what is drawn.
(function (t) {
  'use strict';

  // Walls have four times a laptop's pixels; more of them than these cost time and show nothing.
  const MAX_PIXELS = 3840 * 2400;

  t.surface = (canvas) => {
    const surface = { canvas, context: canvas.getContext('2d'), width: 0, height: 0, ratio: 1, rem: 16 };
    surface.fit = () => {
      const width = canvas.clientWidth;
      const height = canvas.clientHeight;
      if (!width || !height) return false;
      let ratio = window.devicePixelRatio || 1;
      if (width * height * ratio * ratio > MAX_PIXELS) ratio = Math.max(1, Math.sqrt(MAX_PIXELS / (width * height)));
      const changed = width !== surface.width || height !== surface.height || ratio !== surface.ratio;
      if (changed) {
        Object.assign(surface, { width, height, ratio });
        canvas.width = Math.round(width * ratio);
        canvas.height = Math.round(height * ratio);
        surface.rem = parseFloat(getComputedStyle(document.documentElement).fontSize) || 16;
      }
      surface.context.setTransform(ratio, 0, 0, ratio, 0, 0);
      surface.changed = changed;
      return true;
    };
    surface.font = (rems, weight) => `${weight || 400} ${Math.round(rems * surface.rem)}px system-ui, "Segoe UI", Roboto, sans-serif`;
    new ResizeObserver(() => t.loop.request()).observe(canvas);
    return surface;
  };

  // Text that fits into `width`, shortened with an ellipsis; empty where nothing fits.
  t.fitText = (context, text, width) => {
    if (width < 8) return '';
    if (context.measureText(text).width <= width) return text;
    let low = 0;
    let high = Math.min(text.length, 200);
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (context.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
      else high = middle - 1;
    }
    return low > 0 ? `${text.slice(0, low)}…` : '';
  };

  // `lines` is [[name, value]] or text; the first is the title.
  t.showTooltip = (x, y, title, lines) => {
    const box = t.$('tooltip');
    box.replaceChildren(
      t.h('strong', {}, title),
      ...lines.filter(Boolean).map((line) => (Array.isArray(line)
        ? t.h('div', { class: 'pair' }, t.h('span', { class: 'dim' }, line[0]), t.h('span', {}, line[1]))
        : t.h('div', {}, line))),
    );
    box.hidden = false;
    const margin = 12;
    const left = x + margin + box.offsetWidth > window.innerWidth ? x - margin - box.offsetWidth : x + margin;
    const top = y + margin + box.offsetHeight > window.innerHeight ? y - margin - box.offsetHeight : y + margin;
    box.style.left = `${Math.max(4, left)}px`;
    box.style.top = `${Math.max(4, top)}px`;
  };
  t.hideTooltip = () => { t.$('tooltip').hidden = true; };

  // A table under a canvas that says the same in words. It is filled only while it is open, as a thousand rows cost time.
  // `hint` says how the canvas is used.
  t.altTable = (caption, heads, rows, hint) => {
    const body = t.h('tbody');
    const table = t.h('table', {}, t.h('caption', {}, caption),
      t.h('thead', {}, t.h('tr', {}, heads.map((head) => t.h('th', { scope: 'col' }, head)))), body);
    const box = t.h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption }, table);
    const details = t.h('details', { class: 'alt' }, t.h('summary', {}, 'As a table', hint && t.h('span', { class: 'hint' }, hint)), box);
    let filledMs = 0;
    const fill = () => {
      filledMs = performance.now();
      const list = rows();
      t.keyed(body, list.slice(0, 300), (row) => row[0],
        (row) => t.h('tr', {}, row.map((_, at) => t.h(at ? 'td' : 'th', at ? {} : { scope: 'row' }))),
        (node, row) => row.forEach((cell, at) => t.setText(node.children[at], cell)));
    };
    details.addEventListener('toggle', () => { if (details.open) fill(); });
    details.update = () => { if (details.open && performance.now() - filledMs > 1000) fill(); };
    return details;
  };
})(window.transload = window.transload || {});
