// What every page is built with. Texts reach it as text nodes and attributes only.

const ROUNDING = 0.0005; // seconds by which a player's time may be short of a frame's own

const data = JSON.parse(document.getElementById("data").textContent);

// An element with attributes, `on…` listeners and children; a child that is not a node becomes text.
function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

// The same for SVG.
function s(tag, attributes = {}, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function mediaUrl(number, type) {
  const text = atob(document.getElementById(`media-${number}`).textContent);
  return URL.createObjectURL(new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))], { type }));
}

// Where a video of tiles shows one: left, top, width and height.
function tileOf({ columns, cell_width: cellWidth, cell_height: cellHeight, width, height }, number) {
  return [(number % columns) * cellWidth, Math.floor(number / columns) * cellHeight, width, height];
}

// The frame that is shown at a time, and a time at which a frame is shown.
function frameAt({ times }, time) {
  return Math.max(0, times.slice(0, -1).findLastIndex((start) => start <= time + ROUNDING));
}

function middleOf({ times }, frame) {
  return (times[frame] + times[frame + 1]) / 2;
}

// Call `draw` with the time of each frame that a video shows, for as long as it is wanted.
function onFrames(video, isWanted, draw) {
  const step = (_now, shown) => {
    if (!isWanted()) return;
    draw(shown?.mediaTime ?? video.currentTime);
    next();
  };
  const next = () => (video.requestVideoFrameCallback ? video.requestVideoFrameCallback(step) : requestAnimationFrame(step));
  next();
}
