"use strict";
// Which candidates keep bounds, and which of these no other dominates.
nas.pareto = (() => {
  // bounds: [[column, low, high], ...]; an end that is null does not bind.
  function kept(count, bounds, isIn) {
    const rows = [];
    scan: for (let row = 0; row < count; row += 1) {
      if (isIn && !isIn(row)) continue;
      for (const [column, low, high] of bounds) {
        const value = column[row];
        if ((low !== null && !(value >= low)) || (high !== null && !(value <= high))) continue scan;
      }
      rows.push(row);
    }
    return rows;
  }

  // columns: one per objective; signs: 1 where less is better, -1 where more is. Equal ones stay.
  function front(rows, columns, signs) {
    const wide = columns.length;
    const cost = new Float64Array(rows.length * wide);
    rows.forEach((row, place) => {
      for (let i = 0; i < wide; i += 1) cost[place * wide + i] = signs[i] * columns[i][row];
    });
    const order = Uint32Array.from(rows.keys());
    order.sort((a, b) => {
      for (let i = 0; i < wide; i += 1) {
        const way = cost[a * wide + i] - cost[b * wide + i];
        if (way) return way;
      }
      return a - b;
    });
    // In this order only an earlier one can dominate; it moves up when it did, as it may again.
    const best = [];
    for (const item of order) {
      const by = best.findIndex((other) => dominates(cost, other, item, wide));
      if (by < 0) best.push(item);
      else if (by > 8) best.splice(by >> 1, 0, best.splice(by, 1)[0]);
    }
    return best.map((place) => rows[place]).sort((a, b) => a - b);
  }

  function dominates(cost, a, b, wide) {
    let better = false;
    for (let i = 0; i < wide; i += 1) {
      const mine = cost[a * wide + i];
      const other = cost[b * wide + i];
      if (mine > other) return false;
      if (mine < other) better = true;
    }
    return better;
  }

  // At most so many of the rows, evenly over them: the same ones each time.
  function sample(rows, most) {
    if (rows.length <= most) return rows;
    const step = rows.length / most;
    return Array.from({ length: most }, (_, i) => rows[Math.floor(i * step)]);
  }

  return { kept, front, sample };
})();
