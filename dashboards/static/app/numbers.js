"use strict";
// Figures as people read them: three digits, shares in percent, all digits of large counts.
Object.assign(
  nas,
  (() => {
    function number(metric, value) {
      if (value === null || value === undefined || Number.isNaN(value)) return "";
      if (metric && metric.unit === "%") return `${(100 * value).toFixed(1)} %`;
      const size = Math.abs(value);
      if (size >= 1000 || (Number.isInteger(value) && size < 1e15)) return count(value);
      if (size !== 0 && size < 1e-3) return value.toExponential(2);
      return String(Number(value.toPrecision(3)));
    }
    const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
    const count = (value) => whole.format(value);

    function shown(metric, value) {
      const text = number(metric, value);
      return text && metric.unit && metric.unit !== "%" ? `${text} ${metric.unit}` : text;
    }

    function ends(metric, low, high) {
      const known = (end) => end !== null && Number.isFinite(end);
      if (!known(low) && !known(high)) return "";
      const word = (end) => (known(end) ? number(metric, end) : "?");
      return `${word(low).replace(" %", "")} to ${word(high)}`;
    }

    const compact = (value) => {
      if (value >= 1e9) return `${(value / 1e9).toPrecision(3)} G`;
      if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
      return value >= 1e4 ? `${(value / 1e3).toPrecision(3)} k` : count(value);
    };

    function duration(seconds) {
      const whole = Math.round(seconds);
      if (!seconds) return "0 s";
      if (seconds < 0.001) return `${Number((seconds * 1e6).toPrecision(2))} µs`;
      if (seconds < 1) return `${Number((seconds * 1e3).toPrecision(2))} ms`;
      if (whole < 60) return `${whole} s`;
      if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
      if (whole < 86400)
        return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
      return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
    }

    function moment(text) {
      if (!text) return "";
      const time = new Date(text);
      const year = time.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
      return Number.isNaN(time.getTime())
        ? text
        : time.toLocaleString(undefined, {
            year,
            month: "short",
            day: "numeric",
            hour: "2-digit",
            minute: "2-digit",
            second: "2-digit",
          });
    }

    // Sizes of a layer's output; an en space would be read as one word.
    const shape = (sizes) => sizes.join("×");

    return { number, count, shown, ends, compact, duration, moment, shape };
  })(),
);
