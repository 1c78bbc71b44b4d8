// The view of workers: a table that sorts by any column, a hundred rows at a time.
(function (t) {
  'use strict';

  const PER_PAGE = 100;
  const store = t.store;
  let body = null;
  let heads = [];
  let pager = null;
  let shownAt = 0;
  let filter = '';
  let page = 0;
  let sort = { column: 0, down: false };

  const tier = (name) => (worker) => {
    const usage = worker.tiers.find((each) => each.tier === name);
    return usage ? usage.used_bytes : -1;
  };
  const tierText = (name) => (worker) => {
    const usage = worker.tiers.find((each) => each.tier === name);
    if (!usage) return '–';
    return usage.limit_bytes ? `${t.bytes(usage.used_bytes)} / ${t.bytes(usage.limit_bytes)}` : t.bytes(usage.used_bytes);
  };
  const shareOf = (name) => (worker) => {
    const usage = worker.tiers.find((each) => each.tier === name);
    return usage && usage.limit_bytes ? usage.used_bytes / usage.limit_bytes : 0;
  };
  const state = (worker) => (worker.lost ? 'lost' : worker.stragglers.length ? 'slow' : worker.running.length ? 'busy' : 'idle');

  // { head, value to sort by, text, number, share for the bar behind }
  const COLUMNS = [
    { head: 'worker', value: (worker) => Number(worker.id.slice(1)) || 0, text: (worker) => worker.id },
    { head: 'name', value: (worker) => worker.name, text: (worker) => worker.name },
    { head: 'host', value: (worker) => worker.host, text: (worker) => `${worker.host}:${worker.pid}` },
    { head: 'state', value: state, text: (worker) => (worker.lost ? `lost: ${worker.lost}` : state(worker)) },
    { head: 'busy', number: true, value: (worker) => worker.running.length, text: (worker) => `${worker.running.length} / ${worker.slots}`, share: (worker) => worker.running.length / Math.max(1, worker.slots) },
    { head: 'queued', number: true, value: (worker) => worker.queued, text: (worker) => t.count(worker.queued) },
    { head: 'finished', number: true, value: (worker) => worker.finished, text: (worker) => t.count(worker.finished) },
    { head: 'GPU', number: true, value: tier('device'), text: tierText('device'), share: shareOf('device') },
    { head: 'pinned', number: true, value: tier('pinned'), text: tierText('pinned'), share: shareOf('pinned') },
    { head: 'host memory', number: true, value: tier('host'), text: tierText('host'), share: shareOf('host') },
    { head: 'disk', number: true, value: tier('disk'), text: tierText('disk'), share: shareOf('disk') },
    { head: 'resident', number: true, value: (worker) => worker.resident_bytes, text: (worker) => (worker.resident_bytes ? t.bytes(worker.resident_bytes) : '–') },
    { head: 'spilled', number: true, value: (worker) => worker.spilled_bytes, text: (worker) => (worker.spilled_bytes ? t.bytes(worker.spilled_bytes) : '–') },
    { head: 'stragglers', number: true, value: (worker) => worker.stragglers.length, text: (worker) => worker.stragglers.join(', ') || '–' },
    { head: 'address', value: (worker) => worker.addresses[0] || '', text: (worker) => worker.addresses.join(', ') },
  ];

  const compare = (one, other) => {
    const { value } = COLUMNS[sort.column];
    const a = value(one);
    const b = value(other);
    const order = a < b ? -1 : a > b ? 1 : COLUMNS[0].value(one) - COLUMNS[0].value(other);
    return sort.down ? -order : order;
  };

  const makeRow = (worker) => t.h('tr', {}, COLUMNS.map((column, at) => (at
    ? t.h('td', { class: column.number ? 'number' : '' })
    : t.h('th', { scope: 'row' }, t.h('button', { type: 'button', class: 'link', onclick: () => t.details.worker(worker.id) })))));
  const updateRow = (row, worker) => {
    t.setAttribute(row, 'data-state', state(worker));
    COLUMNS.forEach((column, at) => {
      const cell = row.children[at];
      t.setText(at ? cell : cell.firstChild, column.text(worker));
      if (column.share) {
        const share = Math.round(100 * t.clamp(column.share(worker), 0, 1));
        // A bar behind the number.
        if (cell.share !== share) { cell.share = share; cell.style.setProperty('--share', `${share}%`); }
      }
    });
  };

  const setSort = (column) => {
    // Numbers are wanted from the top first.
    sort = { column, down: sort.column === column ? !sort.down : Boolean(COLUMNS[column].number) };
    heads.forEach((head, at) => t.setAttribute(head, 'aria-sort', at === sort.column ? (sort.down ? 'descending' : 'ascending') : 'none'));
    page = 0;
    update(true);
  };

  const mount = (panel) => {
    heads = COLUMNS.map((column, at) => t.h('th', { scope: 'col', class: column.number ? 'number' : '', 'aria-sort': at ? 'none' : 'ascending' },
      t.h('button', { type: 'button', class: 'sort', onclick: () => setSort(at) }, column.head)));
    body = t.h('tbody');
    const search = t.h('input', {
      type: 'search', placeholder: 'worker, name, host or state', 'aria-label': 'Show only workers with this in their row',
      oninput: () => { filter = search.value.trim().toLowerCase(); page = 0; update(true); },
    });
    const turn = (by) => t.h('button', { type: 'button', onclick: () => { page += by; update(true); } }, by < 0 ? 'Previous' : 'Next');
    pager = t.h('div', { class: 'chips' }, turn(-1), t.h('span', { role: 'status' }), turn(1));
    panel.append(t.h('div', { class: 'toolbar' }, search, pager),
      t.h('div', { class: 'page scroll', tabindex: '0', role: 'region', 'aria-label': 'Workers' },
        t.h('table', { class: 'workers' }, t.h('caption', { class: 'hidden' }, 'Workers; the heads of columns sort'), t.h('thead', {}, t.h('tr', {}, heads)), body)));
  };
  const update = (force) => {
    const nowMs = performance.now();
    if (!force && nowMs - shownAt < 900) return;
    shownAt = nowMs;
    const list = store.sortedWorkers().filter((worker) => !filter || `${worker.id} ${worker.name} ${worker.host} ${state(worker)}`.toLowerCase().includes(filter)).sort(compare);
    const pages = Math.max(1, Math.ceil(list.length / PER_PAGE));
    page = t.clamp(page, 0, pages - 1);
    t.keyed(body, list.slice(page * PER_PAGE, (page + 1) * PER_PAGE), (worker) => worker.id, makeRow, updateRow);
    t.setText(pager.children[1], pages > 1 ? `page ${page + 1} of ${pages}, ${t.plural(list.length, 'worker')}` : t.plural(list.length, 'worker'));
    pager.children[0].hidden = pages === 1;
    pager.children[2].hidden = pages === 1;
    pager.children[0].disabled = page === 0;
    pager.children[2].disabled = page === pages - 1;
  };
  t.views.push({ id: 'workers', title: 'Workers', mount, update, order: 7 });
})(window.transload = window.transload || {});
