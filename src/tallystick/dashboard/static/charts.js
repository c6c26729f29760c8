// Draws every canvas[data-chart] from the JSON in #charts.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("charts").textContent);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const palette = [1, 2, 3, 4, 5, 6, 7].map((n) => color(`--series-${n}`));
  Chart.defaults.color = color("--muted");
  Chart.defaults.borderColor = color("--line");
  Chart.defaults.font.family = "system-ui, sans-serif";
  Chart.defaults.animation = false;
  for (const canvas of document.querySelectorAll("canvas[data-chart]")) {
    const { labels, series } = data[canvas.dataset.chart];
    const kind = canvas.dataset.kind;
    const isFlat = kind === "barh";
    const isStacked = kind === "bar";
    new Chart(canvas, {
      type: kind === "line" ? "line" : "bar",
      data: {
        labels: labels.map((label) => (isFlat ? label : label.slice(5))),
        datasets: series.map((one, n) => ({
          label: one.name,
          data: one.values,
          backgroundColor: isFlat ? color("--bad") : palette[n % palette.length],
          borderColor: palette[n % palette.length],
          borderWidth: kind === "line" ? 2 : 0,
          pointRadius: labels.length > 40 ? 0 : 2,
          tension: 0.2,
        })),
      },
      options: {
        indexAxis: isFlat ? "y" : "x",
        maintainAspectRatio: false,
        scales: {
          x: { stacked: isStacked, grid: { display: isFlat }, ticks: { maxTicksLimit: 8, maxRotation: 0 } },
          y: { stacked: isStacked, beginAtZero: true, grid: { display: !isFlat }, ticks: { maxTicksLimit: isFlat ? 12 : 6, autoSkip: !isFlat, font: { size: isFlat ? 10 : 12 } } },
        },
        plugins: { legend: { display: series.length > 1, position: "bottom", labels: { boxWidth: 10, boxHeight: 10 } } },
      },
    });
  }
})();
