// What flies on the map: assignments from the middle, transfers between workers; and the edges that glow where something flew and fade.
// The map adds flights and draws the two apart: flights at each frame, edges, which change slowly and cost most, less often.
// Knows neither the store nor workers.
(function (t) {
  'use strict';

  const MAX_FLIGHTS = 400;
  const MAX_EDGES = 260;
  const FADE_MS = 1300;
  const COLDEST = 0.06; // heat below which an edge is not seen

  // Pixels wide: a thousand times the bytes are about 3.5 times the width.
  const widthOf = (bytes, rem) => t.clamp(0.09 * Math.log2(Math.max(2, bytes / 512)), 0.12, 0.95) * rem * 0.46;
  t.flightWidth = widthOf;

  const pointAt = (flight, share) => {
    const rest = 1 - share;
    const a = rest * rest;
    const b = 2 * rest * share;
    const c = share * share;
    return [a * flight.x0 + b * flight.bx + c * flight.x1, a * flight.y0 + b * flight.by + c * flight.y1];
  };

  t.createFlights = () => {
    let flights = [];
    const edges = new Map(); // key -> { x0.., colour, width, heat }

    const sprites = new Map();
    // A soft dot, drawn once for each colour: gradients for each dot and frame would be slow.
    const sprite = (colour) => {
      let image = sprites.get(colour);
      if (!image) {
        image = document.createElement('canvas');
        image.width = 64;
        image.height = 64;
        const context = image.getContext('2d');
        const glow = context.createRadialGradient(32, 32, 0, 32, 32, 32);
        glow.addColorStop(0, t.colour.isDark() ? '#ffffff' : colour);
        glow.addColorStop(0.22, t.colour.alpha(colour, 0.95));
        glow.addColorStop(0.5, t.colour.alpha(colour, 0.28));
        glow.addColorStop(1, t.colour.alpha(colour, 0));
        context.fillStyle = glow;
        context.fillRect(0, 0, 64, 64);
        sprites.set(colour, image);
      }
      return image;
    };

    let cooledMs = 0;
    const drawEdges = (context, nowMs) => {
      const fade = Math.exp(-Math.min(1000, nowMs - cooledMs) / FADE_MS);
      cooledMs = nowMs;
      context.globalCompositeOperation = t.colour.isDark() ? 'lighter' : 'source-over';
      context.lineCap = 'round';
      for (const [key, edge] of edges) {
        edge.heat *= fade;
        if (edge.heat < COLDEST) { edges.delete(key); continue; }
        context.strokeStyle = t.colour.alpha(edge.colour, Math.min(1, edge.heat) * edge.strength);
        context.lineWidth = edge.width;
        context.beginPath();
        context.moveTo(edge.x0, edge.y0);
        context.quadraticCurveTo(edge.bx, edge.by, edge.x1, edge.y1);
        context.stroke();
      }
      context.globalCompositeOperation = 'source-over';
      return edges.size > 0;
    };

    const drawFlights = (context, nowMs) => {
      const pieces = flights.length > 160 ? 3 : flights.length > 70 ? 5 : 8;
      context.globalCompositeOperation = t.colour.isDark() ? 'lighter' : 'source-over';
      const kept = [];
      for (const flight of flights) {
        const share = (nowMs - flight.startMs) / flight.lengthMs;
        if (share >= 1) continue;
        kept.push(flight);
        if (share < 0) continue;
        // Leaves and arrives gently.
        const eased = share < 0.5 ? 2 * share * share : 1 - 2 * (1 - share) * (1 - share);
        const tail = Math.max(0, eased - flight.tail);
        let [x, y] = pointAt(flight, tail);
        context.lineCap = 'butt';
        for (let piece = 1; piece <= pieces; piece += 1) {
          const part = piece / pieces;
          const [nextX, nextY] = pointAt(flight, tail + (eased - tail) * part);
          context.strokeStyle = t.colour.alpha(flight.colour, part * part * 0.8);
          context.lineWidth = Math.max(0.6, flight.width * part);
          context.beginPath();
          context.moveTo(x, y);
          context.lineTo(nextX, nextY);
          context.stroke();
          x = nextX;
          y = nextY;
        }
        const size = flight.width * 3.4 + 3;
        context.drawImage(sprite(flight.colour), x - size / 2, y - size / 2, size, size);
      }
      context.globalCompositeOperation = 'source-over';
      flights = kept;
      return flights.length > 0;
    };

    return {
      fly: (flight) => { if (flights.length < MAX_FLIGHTS) flights.push({ tail: 0.22, ...flight }); },
      // Glows where something went; more of it glows stronger and wider.
      glow: (key, edge) => {
        const known = edges.get(key);
        if (known) {
          Object.assign(known, edge, { width: Math.max(edge.width, known.width * 0.97), heat: Math.min(1.4, known.heat + 0.35) });
        } else if (edges.size < MAX_EDGES) {
          edges.set(key, { heat: 0.9, strength: 0.3, ...edge });
        }
      },
      drawEdges,
      drawFlights,
      hasEdges: () => edges.size > 0,
      clear: () => { flights = []; edges.clear(); },
      recolour: () => { sprites.clear(); flights = []; edges.clear(); },
    };
  };
})(window.transload = window.transload || {});
