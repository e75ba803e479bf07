const plots = JSON.parse(document.getElementById("plot-data").textContent);
const narrow = window.matchMedia("(max-width: 600px)").matches;
const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: narrow ? false : "hover",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  plotlyServerURL: "",
};
const PAPER = 660;  // pixels of a page of A4 within its margins
function draw(within) {
  for (const chart of within.querySelectorAll(".chart:empty")) {
    if (!chart.offsetParent) continue;  // folded: drawn when it is opened
    const plot = plots[chart.id.split("-")[1]];
    if (narrow) plot.layout.dragmode = false;  // a finger scrolls the page
    chart.style.height = `${plot.layout.height}px`;  // which resizing would forget
    Plotly.newPlot(chart, plot.data, plot.layout, config);
  }
}
draw(document);
for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", () => draw(fold));
window.addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details:not(.long)")) fold.open = true;
  draw(document);
  for (const chart of document.querySelectorAll(".chart:not(:empty)"))
    Plotly.relayout(chart, { width: Math.min(chart.clientWidth, PAPER), autosize: false });
});
window.addEventListener("afterprint", () => {
  for (const chart of document.querySelectorAll(".chart:not(:empty)"))
    Plotly.relayout(chart, { width: null, autosize: true });
});
