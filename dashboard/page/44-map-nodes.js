// Draws the scheduler, hosts and workers of the map, at three levels of detail by how much room a worker has. What breathes is drawn apart
// from what stands still, as the latter is drawn less often. The map calls it. Knows nothing of flights and events.
(function (t) {
  'use strict';

  const TURN = 2 * Math.PI;
  const TOP = -Math.PI / 2;
  const DETAILED = t.MAP_DETAILED;
  const PLAIN = 6.5;
  const MAX_PIPS = 16; // slots above which a ring shows them

  // What runs on a worker: colours, one for each busy slot.
  const busyColours = (worker, store, most) => (worker.running.length > most ? worker.running.slice(0, most) : worker.running).map((task) =>
    t.colour.operator(store.kind(t.graphOf(task.task), task.layer)));

  const shareOf = (usage, most) => {
    if (usage.limit_bytes) return t.clamp(usage.used_bytes / usage.limit_bytes, 0, 1);
    // No limit: in relation to whoever uses most of this tier.
    return most[usage.tier] ? 0.66 * usage.used_bytes / most[usage.tier] : 0;
  };

  const arc = (context, x, y, radius, from, to, width, colour) => {
    context.beginPath();
    context.arc(x, y, radius, from, to);
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.stroke();
  };

  const tiersOf = (worker) => t.colour.TIERS.map((tier) => worker.tiers.find((usage) => usage.tier === tier)).filter(Boolean);

  const drawTiers = (context, node, worker, most) => {
    const width = Math.max(2, node.radius * 0.115);
    let radius = node.radius + width * 1.3;
    for (const usage of tiersOf(worker)) {
      context.lineCap = 'butt';
      // Dashed where there is no limit, as full means nothing there.
      context.setLineDash(usage.limit_bytes ? [] : [2, 4]);
      arc(context, node.x, node.y, radius, 0, TURN, width, t.colour.alpha(t.colour.tier(usage.tier), usage.limit_bytes ? 0.16 : 0.3));
      context.setLineDash([]);
      const share = shareOf(usage, most);
      if (share > 0.002) {
        context.lineCap = 'round';
        arc(context, node.x, node.y, radius, TOP, TOP + TURN * Math.max(0.01, share), width,
          share > 0.95 && usage.limit_bytes ? t.colour.alarm() : t.colour.tier(usage.tier));
      }
      radius += width * 1.45;
    }
    return radius;
  };

  const drawSatellite = (context, node, worker, reach, surface) => {
    const size = Math.max(7, node.radius * 0.5);
    const away = reach + size * 0.95;
    const x = node.x + Math.cos(node.angle) * away;
    const y = node.y + Math.sin(node.angle) * away;
    const colour = t.colour.tier('device');
    context.strokeStyle = t.colour.alpha(colour, 0.5);
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(node.x + Math.cos(node.angle) * reach, node.y + Math.sin(node.angle) * reach);
    context.lineTo(x, y);
    context.stroke();
    const device = worker.tiers.find((usage) => usage.tier === 'device');
    const share = device && worker.gpu.memory_bytes ? t.clamp(device.used_bytes / (device.limit_bytes || worker.gpu.memory_bytes), 0, 1) : 0;
    context.beginPath();
    context.roundRect(x - size / 2, y - size / 2, size, size, size * 0.22);
    context.fillStyle = t.colour.css('--panel');
    context.fill();
    context.save();
    context.clip();
    context.fillStyle = t.colour.alpha(colour, 0.75);
    context.fillRect(x - size / 2, y + size / 2 - size * share, size, size * share);
    context.restore();
    context.lineWidth = 1.5;
    context.strokeStyle = colour;
    context.stroke();
    if (size > 13) {
      context.font = surface.font(Math.max(0.62, size / surface.rem * 0.5), 600);
      context.fillStyle = t.colour.css('--text');
      context.textAlign = 'center';
      context.textBaseline = 'middle';
      context.fillText(String(worker.gpu.ordinal), x, y + 0.5);
    }
  };

  // Where each slot's pip is. Slots of one worker stand on a circle; one alone in the middle.
  const pipsOf = (node, worker, busy) => {
    const slots = Math.max(worker.slots, busy, 1);
    const away = slots === 1 ? 0 : node.radius * 0.68;
    const size = Math.min(node.radius * 0.2, slots === 1 ? node.radius * 0.4 : TURN * away / slots * 0.34);
    return Array.from({ length: slots }, (_, at) => {
      // Half a step on: with four, left and right are free for the name.
      const angle = TOP + TURN * (at + 0.5) / slots;
      return { x: node.x + Math.cos(angle) * away, y: node.y + Math.sin(angle) * away, size };
    });
  };
  const hasPips = (worker, busy) => Math.max(worker.slots, busy) <= MAX_PIPS;

  const drawIdle = (context, node, worker, colours) => {
    if (hasPips(worker, colours.length)) {
      context.strokeStyle = t.colour.alpha(t.colour.css('--lost'), 0.7);
      context.lineWidth = 1.2;
      for (const pip of pipsOf(node, worker, colours.length).slice(colours.length)) {
        context.beginPath();
        context.arc(pip.x, pip.y, pip.size * 0.62, 0, TURN);
        context.stroke();
      }
      return;
    }
    const slots = Math.max(worker.slots, colours.length);
    const width = node.radius * 0.3;
    context.lineCap = 'butt';
    arc(context, node.x, node.y, node.radius * 0.72, 0, TURN, width, t.colour.alpha(t.colour.css('--lost'), 0.22));
    colours.forEach((colour, at) => arc(context, node.x, node.y, node.radius * 0.72, TOP + TURN * at / slots, TOP + TURN * (at + 0.9) / slots, width, colour));
  };

  // Busy slots breathe in their operator's colour.
  const drawBusy = (context, node, worker, colours, env) => {
    if (!colours.length || !hasPips(worker, colours.length)) return;
    const pips = pipsOf(node, worker, colours.length);
    colours.forEach((colour, at) => {
      const { x, y, size } = pips[at];
      const wave = env.calm ? 0.5 : 0.5 + 0.5 * Math.sin(env.nowMs / 260 + at * 1.7 + node.angle * 3);
      context.beginPath();
      context.arc(x, y, size * (1.5 + 0.9 * wave), 0, TURN);
      context.fillStyle = t.colour.alpha(colour, 0.14 + 0.16 * wave);
      context.fill();
      context.beginPath();
      context.arc(x, y, size * (0.85 + 0.25 * wave), 0, TURN);
      context.fillStyle = colour;
      context.fill();
    });
  };

  const drawDetailed = (context, node, worker, colours, env) => {
    const reach = drawTiers(context, node, worker, env.most);
    if (worker.gpu) drawSatellite(context, node, worker, reach, env.surface);
    context.beginPath();
    context.arc(node.x, node.y, node.radius, 0, TURN);
    context.fillStyle = t.colour.css('--panel');
    context.fill();
    if (colours.length) {
      context.fillStyle = t.colour.alpha(colours[0], 0.06 + 0.12 * Math.min(1, colours.length / Math.max(1, worker.slots)));
      context.fill();
    }
    context.lineWidth = 1.5;
    context.strokeStyle = worker.stragglers.length ? t.colour.alarm() : t.colour.css('--line-strong');
    context.stroke();
    drawIdle(context, node, worker, colours);
    if (node.radius * 0.8 > env.surface.rem * 0.9) {
      context.font = env.surface.font(Math.max(0.78, node.radius / env.surface.rem * 0.3), 650);
      context.fillStyle = t.colour.css('--text');
      context.textAlign = 'center';
      context.textBaseline = 'middle';
      context.fillText(worker.id, node.x, node.y + (worker.slots === 1 ? node.radius * 0.7 : 0.5));
    }
  };

  const drawPlain = (context, node, worker, colours) => {
    context.lineCap = 'butt';
    const slots = Math.max(1, worker.slots, colours.length);
    context.beginPath();
    context.arc(node.x, node.y, node.radius * 0.8, 0, TURN);
    context.fillStyle = t.colour.css('--idle');
    context.fill();
    colours.forEach((colour, at) => {
      context.beginPath();
      context.moveTo(node.x, node.y);
      context.arc(node.x, node.y, node.radius * 0.8, TOP + TURN * at / slots, TOP + TURN * (at + 1) / slots);
      context.fillStyle = colour;
      context.fill();
    });
    const usage = tiersOf(worker)[0];
    if (usage) {
      const share = usage.limit_bytes ? Math.min(1, usage.used_bytes / usage.limit_bytes) : 0;
      arc(context, node.x, node.y, node.radius, TOP, TOP + TURN * share, Math.max(1, node.radius * 0.2), t.colour.tier(usage.tier));
    }
  };

  // Here one colour is all that can be seen: that of the first.
  const drawSmall = (context, node, worker, colours) => {
    context.beginPath();
    context.arc(node.x, node.y, node.radius * 0.85, 0, TURN);
    const share = worker.running.length / Math.max(1, worker.slots);
    context.fillStyle = t.colour.css('--idle-dot');
    context.fill();
    if (!colours.length) return;
    context.fillStyle = t.colour.alpha(colours[0], 0.45 + 0.55 * Math.min(1, share));
    context.fill();
  };

  // An arc would tell nobody apart.
  const drawOnlyHost = (context, layout, surface) => {
    context.font = surface.font(0.8, 500);
    context.fillStyle = t.colour.css('--dim');
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    const y = layout.cy - layout.ry - layout.outside - surface.rem * 0.6;
    context.fillText(t.fitText(context, layout.arcs[0].label, surface.width / 2), layout.cx, Math.max(surface.rem * 0.7, y));
  };

  // Text that is read on whatever is behind.
  const outlined = (context, text, x, y, colour) => {
    context.lineJoin = 'round';
    context.lineWidth = 4;
    context.strokeStyle = t.colour.css('--bg');
    context.strokeText(text, x, y);
    context.fillStyle = colour;
    context.fillText(text, x, y);
  };

  // Who it was, over its cross and below.
  const drawWhoIsLost = (context, node, radius, worker, surface) => {
    const isRoomy = radius * 0.8 > surface.rem * 0.9;
    const called = [isRoomy ? '' : worker.id, isRoomy ? worker.name || worker.host : '', 'lost'].filter(Boolean).join(' ');
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    if (isRoomy) {
      context.font = surface.font(Math.max(0.78, radius / surface.rem * 0.3), 650);
      outlined(context, worker.id, node.x, node.y + 0.5, t.colour.css('--text'));
    }
    context.font = surface.font(0.8, 600);
    const text = t.fitText(context, called, surface.rem * 12);
    const half = context.measureText(text).width / 2 + 4;
    const x = t.clamp(node.x, half, Math.max(half, surface.width - half));
    const below = node.y + radius + surface.rem * 0.9;
    outlined(context, text, x, below < surface.height - surface.rem * 0.5 ? below : node.y - radius - surface.rem * 0.9, t.colour.alarm());
  };

  t.mapNodes = {
    isDetailed: (layout) => layout.radius >= DETAILED,

    drawHosts: (context, layout, surface) => {
      const { outside } = layout;
      if (layout.arcs.length === 1) { drawOnlyHost(context, layout, surface); return; }
      for (const host of layout.arcs) {
        context.beginPath();
        context.ellipse(layout.cx, layout.cy, layout.rx + outside, layout.ry + outside, 0, host.from, host.to);
        context.lineWidth = Math.max(2, surface.rem * 0.16);
        context.lineCap = 'round';
        context.strokeStyle = t.colour.css('--line-strong');
        context.stroke();
        if (!host.label) continue;
        const x = layout.cx + Math.cos(host.middle) * (layout.rx + outside + surface.rem * 0.7);
        const y = layout.cy + Math.sin(host.middle) * (layout.ry + outside + surface.rem * 0.8);
        const lean = Math.cos(host.middle);
        context.font = surface.font(layout.arcs.length > 24 ? 0.62 : 0.8, 500);
        context.fillStyle = t.colour.css('--dim');
        context.textAlign = lean > 0.25 ? 'left' : lean < -0.25 ? 'right' : 'center';
        context.textBaseline = 'middle';
        const room = lean > 0.25 ? surface.width - x - 4 : lean < -0.25 ? x - 4 : surface.width / 3;
        context.fillText(t.fitText(context, host.label, room), x, y);
      }
    },

    drawWorkers: (context, layout, workers, store, env) => {
      const draw = layout.radius >= DETAILED ? drawDetailed : layout.radius >= PLAIN ? drawPlain : drawSmall;
      for (const worker of workers) {
        const node = layout.nodes.get(worker.id);
        if (node && !worker.lost) draw(context, node, worker, busyColours(worker, store, draw === drawSmall ? 1 : Infinity), env);
      }
    },

    drawBusySlots: (context, layout, workers, store, env) => {
      for (const worker of workers) {
        const node = layout.nodes.get(worker.id);
        if (node && !worker.lost && worker.running.length) drawBusy(context, node, worker, busyColours(worker, store), env);
      }
    },

    // A death is seen: a flash, a cross, then grey, then nothing.
    drawLost: (context, node, worker, ageMs, lastsMs, env) => {
      const fade = t.clamp(1 - (ageMs - lastsMs * 0.7) / (lastsMs * 0.3), 0, 1);
      const heat = t.clamp(1 - ageMs / 4000, 0, 1);
      const radius = Math.max(4, node.radius);
      context.globalAlpha = fade;
      if (!env.calm && ageMs < 1400) {
        for (let ring = 0; ring < 3; ring += 1) {
          const share = t.clamp((ageMs - ring * 220) / 900, 0, 1);
          if (share <= 0 || share >= 1) continue;
          arc(context, node.x, node.y, radius * (1 + share * 3.4), 0, TURN, radius * 0.3 * (1 - share) + 0.5,
            t.colour.alpha(t.colour.alarm(), (1 - share) * 0.9));
        }
        if (ageMs < 260) {
          context.beginPath();
          context.arc(node.x, node.y, radius * 1.6, 0, TURN);
          context.fillStyle = t.colour.alpha('#ffffff', 0.9 * (1 - ageMs / 260));
          context.fill();
        }
      }
      context.beginPath();
      context.arc(node.x, node.y, radius, 0, TURN);
      context.fillStyle = t.colour.css('--idle');
      context.fill();
      context.fillStyle = t.colour.alpha(t.colour.alarm(), 0.55 * heat);
      context.fill();
      const arm = radius * 0.55;
      context.lineCap = 'round';
      context.lineWidth = Math.max(1.5, radius * 0.16);
      context.strokeStyle = heat > 0.05 ? t.colour.alarm() : t.colour.lost();
      context.beginPath();
      context.moveTo(node.x - arm, node.y - arm);
      context.lineTo(node.x + arm, node.y + arm);
      context.moveTo(node.x + arm, node.y - arm);
      context.lineTo(node.x - arm, node.y + arm);
      context.stroke();
      drawWhoIsLost(context, node, radius, worker, env.surface);
      context.globalAlpha = 1;
    },

    drawNobody: (context, layout, surface) => {
      context.font = surface.font(1);
      context.fillStyle = t.colour.css('--dim');
      context.textAlign = 'center';
      context.fillText('No worker has joined yet.', layout.cx, layout.cy + layout.core * 1.9);
    },

    drawScheduler: (context, layout, store, env) => {
      const { cx, cy, core } = layout;
      const accent = t.colour.css('--accent');
      const busy = store.totals.tasks_ready > 0 || store.totals.graphs_running > 0;
      const turn = env.calm || !busy ? 0 : env.nowMs / 2600;
      const glow = context.createRadialGradient(cx, cy, core * 0.2, cx, cy, core * 2.1);
      glow.addColorStop(0, t.colour.alpha(accent, busy ? 0.34 : 0.16));
      glow.addColorStop(1, t.colour.alpha(accent, 0));
      context.fillStyle = glow;
      context.fillRect(cx - core * 2.1, cy - core * 2.1, core * 4.2, core * 4.2);
      context.beginPath();
      context.arc(cx, cy, core, 0, TURN);
      context.fillStyle = t.colour.css('--panel');
      context.fill();
      arc(context, cx, cy, core, 0, TURN, 1.5, t.colour.alpha(accent, 0.5));
      context.lineCap = 'round';
      for (let part = 0; part < 3; part += 1) {
        const from = turn + part * TURN / 3;
        arc(context, cx, cy, core * 1.14, from, from + 1.15, Math.max(2, core * 0.06), accent);
      }
      context.textAlign = 'center';
      context.textBaseline = 'middle';
      context.fillStyle = t.colour.css('--text');
      context.font = env.surface.font(t.clamp(core / 34, 0.9, 2.6), 700);
      context.fillText(t.count(store.totals.tasks_ready), cx, cy - core * 0.1);
      context.fillStyle = t.colour.css('--dim');
      context.font = env.surface.font(t.clamp(core / 62, 0.6, 1), 500);
      context.fillText('ready', cx, cy + core * 0.36);
    },
  };
})(window.transload = window.transload || {});
