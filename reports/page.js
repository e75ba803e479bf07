const plots = JSON.parse(document.getElementById("plot-data").textContent);
const narrow = window.matchMedia("(max-width: 600px)").matches;
const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: narrow ? false : "hover",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  plotlyServerURL: "",
};
for (const [name, plot] of Object.entries(plots)) {
  if (narrow) plot.layout.dragmode = false;  // a finger scrolls the page
  Plotly.newPlot(name, plot.data, plot.layout, config);
}
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not(.long)")) details.open = true;
});
