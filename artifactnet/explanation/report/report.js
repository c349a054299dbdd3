// The gallery and the page of each image. Texts from data only ever become text nodes or
// attributes (createElement, textContent), never markup.
(() => {
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const root = document.documentElement;
  const head = read("head");
  const entries = read("index");
  const layerOf = new Map(head.layers.map((layer) => [layer.key, layer]));
  const categoryOf = new Map(head.categories.map((category) => [category.label, category]));

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // ---- words ---------------------------------------------------------------------------
  // a share is never rounded to a certainty that the detector did not state
  const percent = (share) => {
    if (share > 0 && share < 0.001) return "< 0.1\u00a0%";
    if (share < 1 && share > 0.999) return "> 99.9\u00a0%";
    return `${(100 * share).toFixed(1)}\u00a0%`;
  };
  const verdict = (entry) => head.labels[entry.verdict];
  const outcome = (entry) => {
    if (entry.correct === null) return "";
    return entry.correct ? "correct" : "wrong";
  };
  const classOf = (label) => ({ 0: "real", 1: "fake" })[label] ?? "not stated";
  const categoryName = (label) => categoryOf.get(label)?.name ?? label;
  const describe = (entry) => {
    const parts = [verdict(entry), `${fold(head.labels.probability)} ${percent(entry.probability)}`];
    if (outcome(entry)) parts.push(`${outcome(entry)} verdict`);
    return parts.join(", ");
  };
  const absence = (entry, key) => {
    const missing = entry.missing.includes(key);
    if (key === "mask" && !entry.predicted.length) return "No artifact region predicted";
    if (key === "annotation" && !entry.annotated.length) {
      if (entry.label === 0) return "Real image: nothing annotated";
      return missing ? "Artifacts not annotated" : "Annotated: no artifact";
    }
    return missing ? `No ${layerOf.get(key).label} for this image` : "";
  };

  // ---- skip link -----------------------------------------------------------------------
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the part behind # says which image is open
    const target = byId("detail").hidden ? byId("images-heading") : byId("detail-heading");
    target.focus();
    target.scrollIntoView();
  });
  if (!entries.length) return;
  byId("images").hidden = false;

  // ---- layers --------------------------------------------------------------------------
  const controls = byId("view-controls");
  const chosenLayer = () => controls.querySelector("input[name=layer]:checked").value;
  // parsed anew each time: keeping hundreds of images' strings twice would cost more
  const layersOf = (entry) => read(`layers-${entry.id}`);
  const setPicture = (image, uri) => {
    if (uri) image.src = uri;
    else image.removeAttribute("src");
    image.hidden = !uri;
  };
  const say = (node, text) => {
    node.textContent = text;
    node.hidden = !text;
  };

  const paint = (card) => {
    const key = chosenLayer();
    if (card.painted === key) return;
    card.painted = key;
    setPicture(card.overlay, key === "image" ? "" : layersOf(card.entry)[key]);
    say(card.absence, key === "image" ? "" : absence(card.entry, key));
  };

  // a card out of view keeps no layer that is no longer chosen, not even on paper
  const clear = (card) => {
    if (!card.painted) return;
    card.painted = "";
    setPicture(card.overlay, "");
    say(card.absence, "");
  };

  const scales = {
    minmax:
      "Stretched from 0 to 1 within each image: the colours say where in an image, " +
      "and cannot be compared between images.",
    probability: "A probability from 0 to 1: colours can be compared between images.",
    model:
      "Brought to 0\u20131 by the normalisation saved with the model; whether colours can be " +
      "compared between images depends on it.",
  };
  const swatch = (category) => {
    const color = make("span", { class: "swatch", "aria-hidden": "true" });
    color.style.backgroundColor = category.color;
    return make("li", {}, color, category.name);
  };
  const showLegend = () => {
    const layer = layerOf.get(chosenLayer());
    const isMap = Boolean(layer.scale);
    byId("legend-scale").hidden = !isMap;
    byId("legend-categories").hidden = !["mask", "annotation"].includes(layer.key);
    const sentence = layer.description.replace(/\.?$/, ".");
    byId("legend-text").textContent = isMap ? `${sentence} ${scales[layer.scale]}` : sentence;
  };
  byId("ramp").style.backgroundImage = `linear-gradient(to right, ${head.ramp.join(", ")})`;
  byId("legend-categories").append(...head.categories.map(swatch));

  // ---- cards ---------------------------------------------------------------------------
  const stackOf = (...images) => make("span", { class: "stack" }, ...images);
  const makeCard = (entry) => {
    const overlay = make("img", { class: "overlay", alt: "", hidden: "" });
    const stack = stackOf(
      make("img", { alt: describe(entry), src: entry.thumb, decoding: "async" }),
      overlay,
    );
    // the box has the image's shape, so that picture and overlay fill it alike
    const longest = Math.max(entry.width, entry.height);
    stack.style.width = `${(100 * entry.width) / longest}%`;
    stack.style.height = `${(100 * entry.height) / longest}%`;
    const missing = make("span", { class: "absence", hidden: "" });
    const name = make("bdi", { class: "name", title: entry.name }, entry.name);
    const wrong = entry.correct === false;
    const badge = make(
      "span",
      { class: `badge ${entry.verdict}${wrong ? " wrong" : ""}` },
      verdict(entry) + (wrong ? " \u2013 wrong" : ""),
    );
    // the alternative text of the picture says the same
    const facts = make("span", { class: "facts", "aria-hidden": "true" }, badge);
    facts.append(make("span", { class: "probability" }, `${head.labels.short} ${percent(entry.probability)}`));
    const generator = make("bdi", { class: "generator" }, entry.generator ?? "");
    const link = make("a", { href: `#image=${entry.id}` });
    link.append(make("span", { class: "frame" }, stack, missing), name, facts, generator);
    const node = make("li", { class: "card" }, link);
    return { entry, node, link, overlay, absence: missing, search: fold(entry.name), painted: "" };
  };
  const fold = (text) => text.normalize("NFC").toLowerCase();
  const cards = entries.map(makeCard);
  const cardOf = new Map(cards.map((card) => [card.node, card]));

  const inView = new Set();
  const watcher = new IntersectionObserver(
    (changes) => {
      for (const change of changes) {
        const card = cardOf.get(change.target);
        if (change.isIntersecting) {
          inView.add(card);
          paint(card);
        } else {
          inView.delete(card);
        }
      }
    },
    { rootMargin: "300px" },
  );
  for (const card of cards) watcher.observe(card.node);

  // ---- filters, search, order ------------------------------------------------------------
  const filters = byId("filters");
  const value = (id) => byId(id)?.value ?? "";
  const tests = {
    verdict: (choice) => (entry) =>
      choice === "wrong" ? entry.correct === false : entry.verdict === choice,
    // an option's value is the place in the list: a generator may have any name, even none
    generator: (choice) => (entry) => entry.generator === head.generators[Number(choice)],
    category: (choice) => (entry) =>
      entry.annotated.includes(choice) || entry.predicted.includes(choice),
    // compared as it is displayed, in tenths of a percent
    lowest: (bound) => (entry) => Math.round(1000 * entry.confidence) >= 10 * Number(bound),
    highest: (bound) => (entry) => Math.round(1000 * entry.confidence) <= 10 * Number(bound),
  };
  const names = new Intl.Collator("en", { numeric: true });
  const shareOf = (entry) => entry.artifact_share ?? -1;
  const orders = {
    given: () => 0,
    fake: (a, b) => b.probability - a.probability,
    real: (a, b) => a.probability - b.probability,
    sure: (a, b) => b.confidence - a.confidence,
    unsure: (a, b) => a.confidence - b.confidence,
    share: (a, b) => shareOf(b) - shareOf(a),
    name: (a, b) => names.compare(a.name, b.name),
  };
  let shown = [];
  const refresh = () => {
    const active = Object.entries(tests)
      .filter(([id]) => value(id) !== "")
      .map(([id, test]) => test(value(id)));
    const query = fold(value("search").trim());
    const order = orders[value("order")];
    shown = cards
      .filter((card) => card.search.includes(query) && active.every((test) => test(card.entry)))
      .sort((a, b) => order(a.entry, b.entry));
    // faster by far than hiding those that do not fit
    byId("grid").replaceChildren(...shown.map((card) => card.node));
    byId("count").textContent = `Showing ${shown.length} of ${cards.length} images`;
    byId("empty").hidden = shown.length > 0;
  };
  const reset = () => {
    for (const input of filters.querySelectorAll("input")) input.value = "";
    for (const select of filters.querySelectorAll("select")) select.selectedIndex = 0;
    refresh();
  };

  // ---- the page of one image ---------------------------------------------------------------
  const detail = byId("detail");
  const entryOf = new Map(cards.map((card) => [card.entry.id, card]));
  let open = null; // the card whose page is open
  let scrolled = 0;

  const paintDetail = () => {
    const key = chosenLayer();
    const layers = layersOf(open.entry);
    const overlay = byId("detail-overlay");
    setPicture(byId("detail-image"), layers.image);
    setPicture(overlay, key === "image" ? "" : layers[key]);
    overlay.alt = overlay.hidden ? "" : `${layerOf.get(key).label}, laid over the image`;
    drawBoxes(open.entry, key);
    const words = [absence(open.entry, key)];
    if (!layers.image) words.push("The picture itself is missing from this report");
    say(byId("detail-absence"), words.filter(Boolean).join(". "));
  };
  // numbered as in the table of regions
  const drawBoxes = ({ regions = [], width, height }, key) => {
    const boxes = regions.map(({ bbox: [left, top, right, bottom], caption }, k) => {
      const box = make("span", { class: "box", title: caption }, String(k + 1));
      box.style.left = `${(100 * left) / width}%`;
      box.style.top = `${(100 * top) / height}%`;
      box.style.width = `${(100 * (right - left)) / width}%`;
      box.style.height = `${(100 * (bottom - top)) / height}%`;
      return box;
    });
    byId("detail-boxes").replaceChildren(...(key === "image" ? [] : boxes));
  };
  const row = (header, ...cells) =>
    make("tr", {}, make("th", { scope: "row" }, header), ...cells.map((c) => make("td", {}, c)));
  const fill = (id, rows) => {
    byId(id).replaceChildren(...rows);
    byId(`${id}-part`).hidden = !rows.length;
  };
  const shareText = ({ artifact_share: share }) =>
    share === null ? "not measured" : `${percent(share)} ${head.share.text}`;
  const listed = (labels) => labels.map(categoryName).join(", ") || "none";
  const marks = (entry) => {
    const rows = [["Categories predicted", "mask", entry.predicted]];
    rows.push(["Categories annotated", "annotation", entry.annotated]);
    return rows
      .filter(([, key]) => layerOf.has(key))
      .map(([term, key, labels]) => [term, absence(entry, key) || listed(labels)]);
  };
  const facts = (entry) => [
    ["Verdict", verdict(entry) + (outcome(entry) ? ` (${outcome(entry)})` : "")],
    [head.labels.probability, `${percent(entry.probability)} (${head.called})`],
    ["Confidence", percent(entry.confidence)],
    ["Label", classOf(entry.label)],
    ["Generator", entry.generator ?? "not stated"],
    ["Size", `${entry.width} \u00d7 ${entry.height} pixels`],
    ...(entry.tags ? [["Tags of the image", entry.tags.join(", ") || "none"]] : []),
    [head.share.name, shareText(entry)],
    ...marks(entry),
  ];
  const showTables = (entry) => {
    const terms = facts(entry).flatMap(([term, text]) => [
      make("dt", {}, term),
      make("dd", {}, text),
    ]);
    byId("facts").replaceChildren(...terms);
    const score = (scores) => [scores.iou, scores.pointing, scores.mass].map((x) => x.toFixed(3));
    const labelOf = (method) => layerOf.get(`heat:${method}`)?.label ?? method;
    const scored = Object.entries(entry.scores);
    fill("scores", scored.map(([method, scores]) => row(labelOf(method), ...score(scores))));
    const instances = entry.instances.map((instance) => {
      const area = instance.area.toLocaleString("en");
      const box = instance.box.join(", ");
      return row(categoryName(instance.category), box, area, percent(instance.confidence));
    });
    // regions with captions say the same, and more
    fill("instances", entry.regions ? [] : instances);
    const regions = (entry.regions ?? []).map(({ bbox, caption }, k) => {
      const corners = bbox.map((corner) => corner.toFixed(1)).join(", ");
      return row(String(k + 1), make("bdi", {}, caption), corners);
    });
    fill("regions", regions);
    fill("image-warnings", entry.warnings.map((warning) => make("li", {}, warning)));
  };
  // score and explanation, of models that give them
  const showWords = (entry) => {
    const { score } = entry;
    byId("score-part").hidden = score === undefined;
    if (score !== undefined) {
      byId("score").textContent = score.toFixed(3);
      byId("score-fill").style.width = `${100 * score}%`;
    }
    const words = byId(`words-${entry.id}`);
    byId("explanation-part").hidden = !words;
    detail.classList.toggle("explained", Boolean(words));
    for (const [part, text] of Object.entries(words ? read(words.id) : {})) {
      byId(`explanation-${part}`).textContent = text || "(nothing was written)";
    }
  };
  const link = (id, card) => {
    const node = byId(id);
    if (card) node.setAttribute("href", `#image=${card.entry.id}`);
    else node.removeAttribute("href"); // without a target it takes no focus
    node.setAttribute("aria-disabled", String(!card));
  };
  const showDetail = (card) => {
    if (!open) scrolled = window.scrollY;
    open = card;
    const { entry } = card;
    const place = shown.indexOf(card);
    byId("detail-heading").textContent = entry.name;
    byId("place").textContent =
      place < 0 ? "Not among the images shown" : `${place + 1} of ${shown.length} shown`;
    link("previous", place < 0 ? undefined : shown[place - 1]);
    link("next", shown[place + 1]);
    byId("detail-image").alt = `${entry.name}: ${describe(entry)}`;
    const stack = byId("detail-stack");
    stack.style.aspectRatio = `${entry.width} / ${entry.height}`;
    stack.style.width = `min(100%, ${(75 * entry.width) / entry.height}vh)`;
    showTables(entry);
    showWords(entry);
    byId("detail-controls").append(controls);
    byId("overview").hidden = byId("gallery").hidden = true;
    detail.hidden = false;
    paintDetail();
    document.title = `${entry.name} \u2013 ${head.title}`;
    window.scrollTo(0, 0);
    byId("detail-heading").focus();
  };
  const showGallery = () => {
    const card = open;
    open = null;
    document.title = head.title;
    detail.hidden = true;
    byId("overview").hidden = byId("gallery").hidden = false;
    byId("gallery-controls").append(controls);
    window.scrollTo(0, scrolled);
    const target = card.node.isConnected ? card.link : byId("images-heading");
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "nearest" });
  };
  const route = () => {
    const asked = /^#image=(\d+)$/.exec(location.hash);
    const card = asked && entryOf.get(Number(asked[1]));
    say(byId("unknown-image"), asked && !card ? `This report has no image ${asked[1]}.` : "");
    if (card) showDetail(card);
    else if (open) showGallery();
  };

  // ---- events --------------------------------------------------------------------------
  controls.addEventListener("input", (event) => {
    if (event.target.id === "opacity") {
      root.style.setProperty("--opacity", event.target.value / 100);
      byId("opacity-value").textContent = `${event.target.value}\u00a0%`;
      return;
    }
    showLegend();
    for (const card of cards) if (!inView.has(card)) clear(card);
    for (const card of inView) paint(card);
    if (open) paintDetail();
  });
  filters.addEventListener("input", refresh);
  for (const button of document.querySelectorAll(".reset")) button.addEventListener("click", reset);
  window.addEventListener("hashchange", route);
  window.addEventListener("beforeprint", () => shown.forEach(paint));
  document.addEventListener("keydown", (event) => {
    // arrows belong to radio buttons and sliders where one of these has the focus
    if (!open || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const inControl = event.target.closest("input, select");
    const keys = { ArrowLeft: "previous", ArrowRight: "next" };
    if (event.key === "Escape") location.hash = "#all";
    else if (keys[event.key] && !inControl) byId(keys[event.key]).click();
  });
  showLegend();
  refresh();
  route();
})();
