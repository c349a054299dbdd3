"use strict";
// Light, dark, or as the system says.
(() => {
  const themes = ["auto", "light", "dark"];
  const root = document.documentElement;
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    root.dataset.theme = next;
    document.getElementById("theme-name").textContent = next;
  });
})();
