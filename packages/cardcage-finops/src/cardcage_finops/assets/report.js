/* The report's behaviour: daily chart, anomaly chart, sortable and filterable tables. Text from the bill or a plugin
   only ever reaches the page as textContent, never as markup. Amounts drawn here are rounded; exact ones are in the HTML. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const PALETTE = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e"];
  const OTHER = "#9498a0";
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const seriesColour = (group, index) => (group.other === index ? OTHER : PALETTE[index % PALETTE.length]);

  // What the content security policy stopped, so that a reader (or a test) can see that nothing tried to leave the page.
  let violations = 0;
  root.dataset.violations = "0";
  document.addEventListener("securitypolicyviolation", () => { root.dataset.violations = String(++violations); });

  const money = (value) => {
    const size = Math.abs(value);
    const options = size === 0 || size >= 1
      ? { minimumFractionDigits: 2, maximumFractionDigits: 2 }
      : { maximumSignificantDigits: 3 };
    return new Intl.NumberFormat("en-US", options).format(value);
  };
  const axisMoney = (value) => {
    const size = Math.abs(value);
    if (size >= 10000) return new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 }).format(value);
    return new Intl.NumberFormat("en-US", { maximumSignificantDigits: size === 0 ? 1 : 4 }).format(value);
  };
  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  const axes = (width) => {
    const line = { stroke: colour("--line"), width: 1 };
    const base = { stroke: colour("--muted"), font: "12px system-ui, sans-serif" };
    return [
      { ...base, size: 34, grid: { show: false }, ticks: { ...line, size: 4 }, space: width < 500 ? 60 : 80,
        values: (_, splits) => splits.map((at) => new Date(at * 1000).toISOString().slice(5, 10)),
        incrs: [1, 2, 3, 7, 14, 28, 91, 182, 364].map((days) => days * 86400) },
      { ...base, grid: line, ticks: { show: false }, size: 64, values: (_, splits) => splits.map(axisMoney) },
    ];
  };

  /* A box that follows the cursor; `rows(index)` answers [[colour, name, value], ...] and `flags(index)` sentences. */
  const tooltip = (rows, flags) => {
    const box = make("div", "tip");
    box.hidden = true;
    return {
      hooks: {
        init: (plot) => { plot.over.appendChild(box); plot.over.addEventListener("mouseleave", () => { box.hidden = true; }); },
        setCursor: (plot) => {
          const index = plot.cursor.idx;
          if (index === null || index === undefined || plot.cursor.left < 0) { box.hidden = true; return; }
          const table = make("table");
          for (const [tint, name, value] of rows(index)) {
            const row = table.insertRow();
            const label = row.insertCell();
            if (tint) { const swatch = make("span", "swatch"); swatch.style.background = tint; label.appendChild(swatch); }
            label.append(name);
            row.insertCell().textContent = value;
          }
          box.replaceChildren(make("strong", "", data.dayLabels[index]), table);
          for (const text of flags(index)) box.appendChild(make("p", "flag", "▲ " + text));
          box.hidden = false;
          const left = plot.cursor.left, free = plot.over.clientWidth - left;
          box.style.left = (free < box.offsetWidth + 20 ? left - box.offsetWidth - 12 : left + 12) + "px";
          box.style.top = "6px";
        },
      },
    };
  };

  const drawn = (holder) => ({ hooks: { draw: () => { holder.dataset.draws = String(Number(holder.dataset.draws || 0) + 1); } } });

  const triangle = (context, x, y, size, tint) => {
    context.beginPath();
    context.moveTo(x, y); context.lineTo(x - size, y - size * 1.7); context.lineTo(x + size, y - size * 1.7);
    context.closePath();
    context.fillStyle = tint; context.fill();
    context.lineWidth = 1.5; context.strokeStyle = colour("--card"); context.stroke();
  };

  const widthOf = (holder) => Math.max(260, Math.floor(holder.clientWidth));
  const DAY_S = 86400;

  function daily() {
    const holder = document.getElementById("daily-chart");
    if (!holder || data.days.length === 0) return;
    const keys = document.getElementById("daily-keys");
    const state = { group: "service", shape: "stacked", off: { service: new Set(), account: new Set() } };
    let plot = null;

    const build = () => {
      if (plot) plot.destroy();
      const group = data.groups[state.group];
      const off = state.off[state.group];
      const shown = group.labels.map((_, index) => index).filter((index) => !off.has(index));
      const stacked = state.shape === "stacked";
      const running = data.days.map(() => 0);
      const tops = shown.map((index) => {
        if (!stacked) return group.values[index];
        return group.values[index].map((value, day) => (running[day] += value));
      });
      // Bars are drawn from the tallest sum down, each over the last, so that what stays visible of each is its own part.
      const order = shown.map((index, place) => ({ index, place }));
      if (stacked) order.reverse();
      const bars = uPlot.paths.bars({ size: [0.72, 46], radius: 0 });
      const series = order.map(({ index }) => {
        const tint = seriesColour(group, index);
        return stacked
          ? { label: group.labels[index], stroke: tint, fill: tint, width: 0, paths: bars, points: { show: false } }
          : { label: group.labels[index], stroke: tint, width: 2, points: { show: data.days.length < 40, size: 5, fill: tint } };
      });
      const width = widthOf(holder);
      const marks = state.group === "service" || state.group === "account" ? data.marks : [];
      const flags = (day) => marks.filter((mark) => mark.day === day).map((mark) => mark.text);
      const total = (day) => shown.reduce((sum, index) => sum + group.values[index][day], 0);
      const rows = (day) => [
        ...shown.map((index) => [seriesColour(group, index), group.labels[index], money(group.values[index][day])]).reverse(),
        ["", "total", money(total(day)) + " " + data.currency],
      ];
      plot = new uPlot({
        width, height: 320, ms: 1e-3, tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
        legend: { show: false }, cursor: { points: { show: false }, drag: { x: true, y: false } },
        padding: [26, 8, 0, 0],
        scales: {
          x: { time: true, range: (_, low, high) => [low - DAY_S * 0.6, high + DAY_S * 0.6] },
          y: { range: (_, low, high) => [Math.min(0, low * 1.05), high > 0 ? high * 1.06 : 1] },
        },
        axes: axes(width), series: [{}, ...series],
        plugins: [tooltip(rows, flags), drawn(holder), { hooks: { draw: (self) => {
          const size = 5 * devicePixelRatio;
          for (const day of new Set(marks.map((mark) => mark.day))) {
            const top = stacked ? running[day] : Math.max(...shown.map((index) => group.values[index][day]), 0);
            const x = self.valToPos(data.days[day], "x", true), y = self.valToPos(top, "y", true);
            if (x < self.bbox.left || x > self.bbox.left + self.bbox.width) continue;
            triangle(self.ctx, x, y - 3 * devicePixelRatio, size, colour("--bad"));
          }
          holder.dataset.marks = String(new Set(marks.map((mark) => mark.day)).size);
        } } }],
      }, [data.days, ...order.map(({ place }) => tops[place])], holder);
      holder.dataset.series = String(series.length);
      holder.dataset.group = state.group;
    };

    const listKeys = () => {
      const group = data.groups[state.group];
      keys.replaceChildren(...group.labels.map((label, index) => {
        const item = make("li"), button = make("button"), swatch = make("span", "swatch");
        button.type = "button"; button.title = label;
        swatch.style.background = seriesColour(group, index);
        button.append(swatch, make("span", "name", label));
        button.setAttribute("aria-pressed", String(!state.off[state.group].has(index)));
        button.addEventListener("click", () => {
          const off = state.off[state.group];
          if (off.has(index)) off.delete(index); else if (off.size < group.labels.length - 1) off.add(index);
          listKeys(); build();
        });
        item.appendChild(button);
        return item;
      }));
    };
    const choose = (name) => {
      for (const button of document.querySelectorAll(`[data-${name}]`)) {
        button.addEventListener("click", () => {
          state[name] = button.dataset[name];
          for (const other of document.querySelectorAll(`[data-${name}]`)) other.setAttribute("aria-pressed", String(other === button));
          listKeys(); build();
        });
      }
    };
    choose("group"); choose("shape"); listKeys(); build();
    rebuild.push(build);
  }

  function anomalies() {
    const holder = document.getElementById("anomaly-chart");
    if (!holder || data.details.length === 0) return;
    const title = document.getElementById("anomaly-title");
    const rowsOf = [...document.querySelectorAll("[data-detail]")];
    let current = 0, plot = null;
    const build = () => {
      if (plot) plot.destroy();
      const detail = data.details[current];
      title.textContent = detail.label;
      const width = widthOf(holder), accent = colour("--accent"), bad = colour("--bad");
      const marks = detail.marks;
      const on = (day) => marks.filter((mark) => mark.first <= day && day <= mark.last);
      const rows = (day) => [
        [accent, "spent", money(detail.values[day]) + " " + data.currency],
        ...on(day).map((mark) => ["", "expected", money(mark.expected) + " " + data.currency]),
      ];
      const flags = (day) => on(day).map((mark) => mark.text);
      plot = new uPlot({
        width, height: 240, ms: 1e-3, tzDate: (at) => uPlot.tzDate(new Date(at * 1e3), "Etc/UTC"),
        legend: { show: false }, cursor: { drag: { x: true, y: false } }, padding: [22, 8, 0, 0],
        scales: {
          x: { time: true, range: (_, low, high) => [low - DAY_S * 0.6, high + DAY_S * 0.6] },
          y: { range: (_, low, high) => [Math.min(0, low * 1.05), high > 0 ? high * 1.1 : 1] },
        },
        axes: axes(width),
        series: [{}, { label: "spent", stroke: accent, width: 2, fill: colour("--accent-soft"), points: { show: false } }],
        plugins: [tooltip(rows, flags), drawn(holder), { hooks: { draw: (self) => {
          const context = self.ctx, ratio = devicePixelRatio;
          context.save();
          context.beginPath(); context.rect(self.bbox.left, 0, self.bbox.width, self.bbox.top + self.bbox.height); context.clip();
          for (const mark of marks) {
            const left = self.valToPos(data.days[mark.first] - DAY_S / 2, "x", true);
            const right = self.valToPos(data.days[mark.last] + DAY_S / 2, "x", true);
            context.globalAlpha = 0.12; context.fillStyle = bad;
            context.fillRect(left, self.bbox.top, right - left, self.bbox.height);
            context.globalAlpha = 1;
            const y = self.valToPos(mark.expected, "y", true);
            context.strokeStyle = colour("--ink"); context.lineWidth = 2 * ratio; context.setLineDash([5 * ratio, 4 * ratio]);
            context.beginPath(); context.moveTo(left, y); context.lineTo(right, y); context.stroke();
            context.setLineDash([]);
            const days = detail.values.slice(mark.first, mark.last + 1), peak = mark.first + days.indexOf(Math.max(...days));
            const top = self.valToPos(detail.values[peak], "y", true);
            triangle(context, self.valToPos(data.days[peak], "x", true), top - 3 * ratio, 5 * ratio, bad);
          }
          context.restore();
        } } }],
      }, [data.days, detail.values], holder);
      holder.dataset.detail = String(current);
    };
    const select = (row) => {
      current = Number(row.dataset.detail);
      for (const other of rowsOf) other.setAttribute("aria-selected", String(other === row));
      build();
    };
    for (const row of rowsOf) {
      row.addEventListener("click", () => select(row));
      row.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); select(row); } });
    }
    if (rowsOf.length) select(rowsOf[0]); else build();
    rebuild.push(build);
  }

  function sorting() {
    for (const button of document.querySelectorAll("button.sort")) {
      button.addEventListener("click", () => {
        const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
        const column = head.cellIndex;
        const ascending = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && button.dataset.first === "ascending");
        for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const value = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
        const rows = [...body.rows].sort((one, two) => {
          const a = value(one), b = value(two), x = Number(a), y = Number(b);
          const order = a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y) ? x - y : a.localeCompare(b);
          return ascending ? order : -order;
        });
        body.append(...rows);
      });
    }
  }

  function filtering() {
    for (const field of document.querySelectorAll("input[data-filter]")) {
      const table = document.getElementById(field.dataset.filter);
      const count = document.getElementById(field.dataset.filter + "-count");
      field.addEventListener("input", () => {
        const wanted = field.value.trim().toLowerCase();
        let shown = 0;
        for (const row of table.tBodies[0].rows) {
          row.hidden = wanted !== "" && !row.textContent.toLowerCase().includes(wanted);
          if (!row.hidden) shown += 1;
        }
        if (count) count.textContent = wanted === "" ? "" : `${shown} shown`;
      });
    }
  }

  const rebuild = [];
  daily(); anomalies(); sorting(); filtering();
  let waiting = 0;
  const redraw = () => { clearTimeout(waiting); waiting = setTimeout(() => rebuild.forEach((build) => build()), 80); };
  window.addEventListener("resize", redraw);
  dark.addEventListener("change", redraw);
  root.dataset.ready = "true";
})();
