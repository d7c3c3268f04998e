// Loaded before the first paint, so that a dark room never sees a white flash. A classic script on purpose.
(() => {
  const stored = localStorage.getItem("mommygpt.theme");
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
})();
