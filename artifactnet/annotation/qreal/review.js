"use strict";
// Two tables of what one annotator answered on this page, as downloads. Nothing leaves the browser.
const annotator = document.getElementById("annotator");
const state = document.getElementById("state");

function table(head, rows) {
  const quote = (text) => '"' + String(text).replaceAll('"', '""') + '"';
  return [head, ...rows].map((row) => row.map(quote).join(",") + "\r\n").join("");
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
}

function answers() {
  return [...document.querySelectorAll("input:checked")].map((input) => [
    input.dataset.entity, annotator.value, input.dataset.question, input.value]);
}

function texts() {
  return [...document.querySelectorAll("textarea")]
    .filter((area) => area.value.trim())
    .map((area) => [
      area.dataset.entity, annotator.value, area.dataset.dimension, area.value.trim()]);
}

function left() {
  return document.querySelectorAll("fieldset").length - answers().length;
}

document.getElementById("save").addEventListener("click", () => {
  if (!annotator.value) {
    state.textContent = "Choose your name first.";
    return;
  }
  if (left()) {
    state.textContent = left() + " questions have no answer yet.";
    return;
  }
  state.textContent = "";
  const page = document.body.dataset.page + "-" + annotator.selectedIndex + ".csv";
  save("review-" + page, table(["entity", "annotator", "question", "answer"], answers()));
  save("texts-" + page, table(["entity", "annotator", "dimension", "text"], texts()));
});
