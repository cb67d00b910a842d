"use strict";
// The viewer of three planes: what is looked at, its controls, and its way through the table of lesions.

const moved = (matrix, place) =>
  matrix.slice(0, 3).map((row) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3]);

async function unpacked(text) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Viewer {
  constructor(pictures, volumes) {
    const [x, y] = pictures.shape;
    Object.assign(this, { pictures, volumes, strides: [1, x, x * y], cursor: [...pictures.start] });
    // From clear over red to yellow.
    this.heat = Uint32Array.from({ length: 256 }, (_, p) => rgba([255, Math.max(0, 2 * p - 255), 0], p));
    this.rows = [...document.querySelectorAll("tr[data-lesion]")];
    this.shown = [...document.querySelectorAll("input.target")]; // where there are several
    this.planes = pictures.views.map((view, n) =>
      new Plane(this, view, document.querySelector(`[data-view="${n}"]`)));
    this.listen();
  }

  // The targets whose outlines or areas are drawn, the outermost first.
  get targets() {
    return this.pictures.targets.filter((_, n) => this.shown[n]?.checked ?? true);
  }

  get radiological() {
    return element("convention").value === "right";
  }

  listen() {
    for (const id of ["overlay", "mode", "opacity", "contrast", "brightness", "crosshair", "convention"]) {
      element(id).addEventListener("input", () => this.draw());
    }
    element("reset").addEventListener("click", () => {
      for (const control of document.querySelectorAll(".controls input, .controls select")) {
        if (control.tagName === "SELECT") control.selectedIndex = 0;
        else [control.value, control.checked] = [control.defaultValue, control.defaultChecked];
      }
      this.draw();
    });
    for (const control of this.shown) control.addEventListener("input", () => this.draw());
    for (const row of this.rows) row.addEventListener("click", () => this.show(row));
    element("previous")?.addEventListener("click", () => this.turn(-1));
    element("next")?.addEventListener("click", () => this.turn(1));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, [type=text]")) return;
      if (event.key === "m") element("overlay").click();
      if (event.key === "n") this.turn(1);
      if (event.key === "p") this.turn(-1);
    });
  }

  move(axis, place) {
    this.cursor[axis] = Math.min(Math.max(place, 0), this.pictures.shape[axis] - 1);
    this.draw();
  }

  step(axis, by) {
    this.move(axis, this.cursor[axis] + by);
  }

  // Goes to a lesion of the table, and marks its row.
  show(row) {
    for (const other of this.rows) other.classList.toggle("current", other === row);
    this.cursor = [...this.pictures.lesions[row.dataset.lesion]];
    element("lesion").textContent = row.dataset.name;
    element("viewer").scrollIntoView({ block: "nearest" });
    this.draw();
  }

  // Goes to the next lesion in the order in which the table is sorted.
  turn(by) {
    const rows = [...document.querySelectorAll("tr[data-lesion]")];
    if (!rows.length) return;
    const current = rows.findIndex((row) => row.classList.contains("current"));
    const next = rows[current < 0 ? (by > 0 ? 0 : rows.length - 1) : (current + by + rows.length) % rows.length];
    this.show(next);
    next.scrollIntoView({ block: "nearest" });
  }

  greys() {
    const gain = (255 / this.pictures.white) * 4 ** (element("contrast").value / 100);
    const shift = element("brightness").value * 1.275;
    return Uint32Array.from({ length: 256 }, (_, value) => {
      const grey = Math.min(Math.max(Math.round(value * gain + shift), 0), 255);
      return rgba([grey, grey, grey], 255);
    });
  }

  readout() {
    const { pictures, cursor, volumes, strides } = this;
    const voxel = cursor.reduce((sum, place, axis) => sum + place * strides[axis], 0);
    const [right, front, up] = moved(pictures.affine, cursor).map((mm) => mm.toFixed(1).replace("-", "−"));
    const stored = moved(pictures.to_stored, cursor).map(Math.round).join(", ");
    const parts = [`x ${right}, y ${front}, z ${up} mm`, `voxel ${stored} of the file`];
    const names = (targets) => targets.map(({ name }) => name).join(", ");
    parts.push(names(pictures.targets.filter(({ volume }) => volumes[volume][voxel]))
      || `no ${names(pictures.targets)}`);
    if (volumes.probability) parts.push(`probability ${(volumes.probability[voxel] / 255).toFixed(2)}`);
    element("readout").textContent = parts.join(" · ");
  }

  // However many events ask for it, a screen's frame draws once.
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      for (const plane of this.planes) plane.draw();
      this.readout();
    });
  }
}

async function start() {
  const { volumes: packed, ...pictures } = JSON.parse(element("pictures").textContent);
  const names = Object.keys(packed);
  const volumes = await Promise.all(names.map((name) => unpacked(packed[name])));
  element("shown").hidden = false;
  new Viewer(pictures, Object.fromEntries(names.map((name, n) => [name, volumes[n]])));
  element("state").hidden = true;
}

start().catch((error) => {
  element("state").textContent = `The pictures cannot be shown (${error}); a browser of 2023 or later is needed.`;
});
