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

  // Finds fronts among candidates again and again. columns: one per objective; signs: 1 where less
  // is better, -1 where more is. The order is found once: in it only an earlier one can dominate.
  function finder(count, columns, signs) {
    const wide = columns.length;
    const cost = new Float64Array(count * wide);
    columns.forEach((column, i) => {
      for (let row = 0; row < count; row += 1) cost[row * wide + i] = signs[i] * column[row];
    });
    const order = Uint32Array.from({ length: count }, (_, row) => row);
    order.sort((a, b) => {
      for (let i = 0; i < wide; i += 1) {
        const way = cost[a * wide + i] - cost[b * wide + i];
        if (way) return way;
      }
      return a - b;
    });

    function dominates(a, b) {
      let better = false;
      for (let i = 0; i < wide; i += 1) {
        const mine = cost[a * wide + i];
        const other = cost[b * wide + i];
        if (mine > other) return false;
        if (mine < other) better = true;
      }
      return better;
    }

    // The rows that no other of the rows dominates, rising; equal ones stay.
    return (rows) => {
      const isIn = new Uint8Array(count);
      for (const row of rows) isIn[row] = 1;
      const best = [];
      for (const row of order) {
        if (!isIn[row]) continue;
        let by = 0;
        while (by < best.length && !dominates(best[by], row)) by += 1;
        if (by === best.length) best.push(row);
        else if (by > 8) best.splice(by >> 1, 0, best.splice(by, 1)[0]); // it may do so again
      }
      return best.sort((a, b) => a - b);
    };
  }

  // At most so many of the rows, evenly over them: the same ones each time.
  function sample(rows, most) {
    if (rows.length <= most) return rows;
    const step = rows.length / most;
    return Array.from({ length: most }, (_, i) => rows[Math.floor(i * step)]);
  }

  const front = (rows, columns, signs) => {
    const own = columns.map((column) => rows.map((row) => column[row]));
    return finder(rows.length, own, signs)(rows.keys()).map((place) => rows[place]);
  };

  return { kept, finder, front, sample };
})();
