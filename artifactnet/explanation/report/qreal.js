// Filters over the images of Q-Real; without it all of them are shown.
(() => {
  const byId = (id) => document.getElementById(id);
  const entries = [...document.querySelectorAll(".entry")];
  if (!entries.length) return;
  const chosen = (id) => byId(id)?.value ?? "";
  const fits = ({ dataset }) => {
    const problem = chosen("problem");
    const flags = dataset.flags.split(" ");
    if (problem === "none") {
      if (flags.includes("realism") || flags.includes("plausibility")) return false;
    } else if (problem && !flags.includes(problem)) return false;
    if (chosen("generator") && dataset.generator !== chosen("generator")) return false;
    return dataset.words.includes(chosen("search").toLowerCase());
  };
  const refresh = () => {
    let count = 0;
    for (const entry of entries) {
      entry.hidden = !fits(entry);
      count += !entry.hidden;
    }
    byId("count").textContent = `${count} of ${entries.length} images shown`;
  };
  byId("filters").hidden = false;
  byId("filters").addEventListener("input", refresh);
  refresh();
})();
