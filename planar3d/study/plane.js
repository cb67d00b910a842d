"use strict";
// One plane of a scan. Volumes hold x (right) fastest, then y (anterior), then z (superior); the plane's own view says
// which axis it cuts, and which run along its rows and columns.

const LETTERS = ["LR", "PA", "IS"]; // the low and the high end of each axis

const element = (id) => document.getElementById(id);
const hex = (colour) => rgba([1, 3, 5].map((n) => parseInt(colour.slice(n, n + 2), 16)), 255);
const rgba = ([red, green, blue], alpha) => (alpha << 24) | (blue << 16) | (green << 8) | red;

class Plane {
  constructor(viewer, view, figure) {
    const { shape, spacing_mm: spacing } = viewer.pictures;
    Object.assign(this, { viewer, view, figure, count: shape[view.axis] });
    [this.columns, this.rows] = [shape[view.columns], shape[view.rows]];
    const size = [this.columns * spacing[view.columns], this.rows * spacing[view.rows]];
    this.box = figure.querySelector(".picture");
    this.canvas = figure.querySelector("canvas");
    this.slider = figure.querySelector("input");
    this.slider.max = this.count - 1;
    this.box.style.aspectRatio = `${size[0]} / ${size[1]}`;
    figure.style.flex = `${size[0]} 1 0`;
    figure.style.setProperty("--ratio", size[0] / size[1]);
    this.sheet = new OffscreenCanvas(this.columns, this.rows);
    this.listen();
  }

  get flipped() {
    return this.view.flip_columns !== (this.viewer.radiological && this.view.columns === 0);
  }

  listen() {
    const { viewer, view, box } = this;
    this.slider.addEventListener("input", () => viewer.move(view.axis, Number(this.slider.value)));
    const point = (event) => {
      const { left, top, width, height } = box.getBoundingClientRect();
      const column = Math.floor(((event.clientX - left) / width) * this.columns);
      const row = Math.floor(((event.clientY - top) / height) * this.rows);
      viewer.move(view.columns, this.flipped ? this.columns - 1 - column : column);
      viewer.move(view.rows, this.rows - 1 - row);
    };
    box.addEventListener("pointerdown", (event) => {
      box.setPointerCapture(event.pointerId);
      point(event);
    });
    box.addEventListener("pointermove", (event) => event.buttons && point(event));
    let turned = 0;
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      // A wheel's notch is one slice; a touch pad sends many small turns.
      turned += event.deltaMode ? 100 * event.deltaY : event.deltaY;
      const steps = Math.trunc(turned / 50) && Math.sign(turned);
      if (steps) [turned] = [0, viewer.step(view.axis, -steps)];
    }, { passive: false });
    box.addEventListener("keydown", (event) => this.press(event));
    const enlarge = this.figure.querySelector(".enlarge");
    enlarge.addEventListener("click", () => {
      const large = this.figure.classList.toggle("large");
      this.figure.parentNode.classList.toggle("single", large);
      enlarge.textContent = large ? "all planes" : "enlarge";
    });
    new ResizeObserver(() => viewer.draw()).observe(box);
  }

  press(event) {
    const { view, viewer } = this;
    const right = this.flipped ? -1 : 1;
    const steps = {
      ArrowLeft: [view.columns, -right], ArrowRight: [view.columns, right],
      ArrowUp: [view.rows, 1], ArrowDown: [view.rows, -1],
      PageUp: [view.axis, 1], PageDown: [view.axis, -1],
    }[event.key];
    if (!steps) return;
    event.preventDefault();
    viewer.step(...steps);
  }

  // Calls `visit(pixel, voxel)` for each pixel of the slice, from its upper left corner.
  each(visit) {
    const { view, rows, columns, viewer, flipped } = this;
    const first = viewer.cursor[view.axis] * viewer.strides[view.axis];
    const [down, along] = [viewer.strides[view.rows], viewer.strides[view.columns]];
    for (let row = 0, pixel = 0; row < rows; row++) {
      let voxel = first + (rows - 1 - row) * down + (flipped ? (columns - 1) * along : 0);
      for (let column = 0; column < columns; column++, pixel++, voxel += flipped ? -along : along) visit(pixel, voxel);
    }
  }

  // Lays a volume's slice over the canvas, in the colours that `table` has for its values.
  paint(context, volume, table, smooth) {
    const image = new ImageData(this.columns, this.rows);
    const pixels = new Uint32Array(image.data.buffer);
    this.each((pixel, voxel) => { pixels[pixel] = table[volume[voxel]]; });
    this.sheet.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = smooth;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.sheet, 0, 0, this.canvas.width, this.canvas.height);
  }

  // Draws the edges between pixels inside and outside the mask, true to the voxels also where slices are thick.
  outline(context, mask, colour, width) {
    const { rows, columns, canvas } = this;
    const inside = new Uint8Array(rows * columns);
    this.each((pixel, voxel) => { inside[pixel] = mask[voxel]; });
    const [across, down] = [canvas.width / columns, canvas.height / rows];
    context.beginPath();
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        if (!inside[row * columns + column]) continue;
        const line = (x, y, dx, dy) => {
          context.moveTo(x * across, y * down);
          context.lineTo((x + dx) * across, (y + dy) * down);
        };
        if (!row || !inside[(row - 1) * columns + column]) line(column, row, 1, 0);
        if (row === rows - 1 || !inside[(row + 1) * columns + column]) line(column, row + 1, 1, 0);
        if (!column || !inside[row * columns + column - 1]) line(column, row, 0, 1);
        if (column === columns - 1 || !inside[row * columns + column + 1]) line(column + 1, row, 0, 1);
      }
    }
    context.strokeStyle = colour;
    context.lineWidth = 1.5 * width * devicePixelRatio;
    context.lineCap = "square";
    context.stroke();
  }

  // Draws the places of the other two planes, with a gap around the point of interest.
  cross(context) {
    const { canvas, view, viewer, rows, columns } = this;
    const column = viewer.cursor[view.columns];
    const x = (((this.flipped ? columns - 1 - column : column) + 0.5) * canvas.width) / columns;
    const y = ((rows - 0.5 - viewer.cursor[view.rows]) * canvas.height) / rows;
    const gap = 9 * devicePixelRatio;
    context.beginPath();
    for (const [fromX, fromY, toX, toY] of [
      [0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height],
    ]) {
      context.moveTo(fromX, fromY);
      context.lineTo(toX, toY);
    }
    context.strokeStyle = "rgba(86, 180, 233, 0.75)";
    context.lineWidth = devicePixelRatio;
    context.lineCap = "butt";
    context.stroke();
  }

  draw() {
    const { view, viewer, canvas, box, figure } = this;
    const index = viewer.cursor[view.axis];
    this.slider.value = index;
    const { first, native, slices } = viewer.pictures; // numbers are those of the whole scan, as in overlays
    const number = Math.round(first[view.axis] + native[view.axis] * index) + 1;
    const text = `${view.name} ${number} of ${slices[view.axis]}`;
    figure.querySelector(".slice").textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    const ends = [...LETTERS[view.columns]];
    const letters = this.flipped ? ends.reverse() : ends;
    figure.querySelector(".left").textContent = letters[0];
    figure.querySelector(".right").textContent = letters[1];
    figure.querySelector(".bottom").textContent = LETTERS[view.rows][0];
    figure.querySelector(".top").textContent = LETTERS[view.rows][1];
    canvas.width = Math.round(box.clientWidth * devicePixelRatio);
    canvas.height = Math.round(box.clientHeight * devicePixelRatio);
    if (!canvas.width || !canvas.height) return;
    const context = canvas.getContext("2d");
    this.paint(context, viewer.volumes.scan, viewer.greys(), true);
    if (element("overlay").checked) {
      context.globalAlpha = element("opacity").value / 100;
      const mode = element("mode").value;
      if (mode === "probability") this.paint(context, viewer.volumes.probability, viewer.heat, false);
      else for (const { volume, colour, width } of viewer.targets) {
        if (mode === "outline") this.outline(context, viewer.volumes[volume], colour, width);
        else this.paint(context, viewer.volumes[volume], [0, hex(colour)], false);
      }
      context.globalAlpha = 1;
    }
    if (element("crosshair").checked) this.cross(context);
  }
}
