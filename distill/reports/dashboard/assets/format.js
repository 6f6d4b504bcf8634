"use strict";
// Elements and words. Text from files only ever becomes text nodes and attributes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") node.style.cssText = value; // the page's policy forbids the attribute, not this
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
// Long names break behind a sign that joins words.
const breakable = (text) => text.match(/[^_/-]*[_/-]?/g).flatMap((part) => [part, element("wbr")]);
const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

function figure(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}
const decibels = (value) => (value === null ? "no PSNR" : `${value.toFixed(2)} dB`);
const colour = (run) => `var(--c${Object.keys(data.stages).indexOf(run.stage) % 8})`;

const tip = byId("tip");
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
}
const hideTip = () => { tip.hidden = true; };
