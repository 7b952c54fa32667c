"use strict";
// Layers of several networks beside each other: like with like, as few gaps as may be. Each network
// after the first is aligned with the rows so far by the best sum of matches (Needleman, Wunsch).
nas.align = (() => {
  const SAME = 3; // what a pair of equal layers counts, and one of the same kind; a gap counts 0
  const KIND = 1;

  function score(row, layer) {
    if (row.includes(layer)) return SAME;
    const kind = layer.split(" ", 1)[0];
    return row.some((item) => item.split(" ", 1)[0] === kind) ? KIND : 0;
  }

  // The way through both: for each step, whether a row and a layer is taken.
  function steps(rows, layers) {
    const best = Array.from({ length: rows.length + 1 }, () =>
      new Array(layers.length + 1).fill(0),
    );
    for (let i = rows.length - 1; i >= 0; i -= 1) {
      for (let j = layers.length - 1; j >= 0; j -= 1) {
        const pair = score(rows[i], layers[j]);
        const together = pair ? best[i + 1][j + 1] + pair : -1;
        best[i][j] = Math.max(together, best[i + 1][j], best[i][j + 1]);
      }
    }
    const taken = [];
    let [i, j] = [0, 0];
    while (i < rows.length || j < layers.length) {
      const pair = i < rows.length && j < layers.length ? score(rows[i], layers[j]) : 0;
      if (pair && best[i][j] === best[i + 1][j + 1] + pair) taken.push([1, 1]);
      else if (i < rows.length && best[i][j] === best[i + 1][j]) taken.push([1, 0]);
      else taken.push([0, 1]);
      i += taken.at(-1)[0];
      j += taken.at(-1)[1];
    }
    return taken;
  }

  // networks: lists of layers, each written as "kind attributes". Returns rows with one place for
  // every network: the number of its layer, or null.
  return (networks) => {
    let rows = networks[0].map((_, number) => [number]);
    networks.slice(1).forEach((layers, at) => {
      const texts = rows.map((row) =>
        row.flatMap((place, n) => (place === null ? [] : [networks[n][place]])),
      );
      const gap = new Array(at + 1).fill(null);
      let [i, j] = [0, 0];
      rows = steps(texts, layers).map(([takesRow, takesLayer]) => {
        const row = [...(takesRow ? rows[i] : gap), takesLayer ? j : null];
        i += takesRow;
        j += takesLayer;
        return row;
      });
    });
    return rows;
  };
})();
