// Scores and intervals from counts: the formulas of memdb's statistics.sql, to the last bit.
"use strict";

/** Difference of two rates; NaN where an arm is empty. */
function scoreOf(kIn, nIn, kOut, nOut) {
  return nIn > 0 && nOut > 0 ? kIn / nIn - kOut / nOut : NaN;
}

/** Ends of the generalised Agresti-Caffo interval AC(z), clipped to [-1, 1] and always holding the score. */
function intervalOf(kIn, nIn, kOut, nOut, z) {
  const score = scoreOf(kIn, nIn, kOut, nOut);
  if (Number.isNaN(score)) return [NaN, NaN];
  const a = (z * z) / 4;
  const meanIn = (kIn + a) / (nIn + 2 * a), meanOut = (kOut + a) / (nOut + 2 * a);
  const varianceIn = Math.max(0, meanIn - meanIn * meanIn) / (nIn + 2 * a);
  const varianceOut = Math.max(0, meanOut - meanOut * meanOut) / (nOut + 2 * a);
  const centre = meanIn - meanOut, halfWidth = z * Math.sqrt(varianceIn + varianceOut);
  return [Math.max(-1, Math.min(score, centre - halfWidth)), Math.min(1, Math.max(score, centre + halfWidth))];
}

/** Multiplier that stays valid when one looks after every model and stops when one likes. */
function anytimeZ(nModels, alpha) {
  const log = Math.log(alpha);
  const tau = (nModels / 400) * (-2 * log + Math.log(1 - 2 * log - alpha * alpha) - alpha * alpha);
  return Math.sqrt((1 + 1 / tau) * (Math.log(1 + tau) - 2 * log));
}

/** Multiplier for the rows of a list that were chosen by their rank. */
function selectedZ(nModels, alpha, nShown, nRanked) {
  return anytimeZ(nModels, alpha * (nShown / nRanked));
}

/** Three decimals without a leading zero, as memdb's tables have them; exact ties go to the even digit. */
function brief(value, sign = "") {
  if (Number.isNaN(value)) return "–";
  let text = value.toFixed(3);
  const sixteenths = Math.abs(value) * 16;
  if (Number.isInteger(sixteenths) && sixteenths % 2 === 1) { // the only numbers halfway between two thousandths
    const below = Math.floor(sixteenths * 62.5);
    text = ((Math.sign(value) * (below + (below % 2))) / 1000).toFixed(3);
  }
  if (Math.abs(value) < 1) text = text.replace("0.", ".");
  return (sign && value >= 0 ? sign : "") + text.replace("-", "−");
}

function briefInterval([lo, hi], sign = "") {
  return Number.isNaN(lo) ? "–" : `[${brief(lo, sign)}, ${brief(hi, sign)}]`;
}

function briefQ(q) {
  return q < 0.001 ? "<.001" : brief(q);
}

function counted(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}
