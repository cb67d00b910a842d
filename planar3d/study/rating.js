// The reader's rating, saved as a file by the browser without contacting a server.

for (const form of document.querySelectorAll("form.rating")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { scan, mask, file } = form.dataset;
    const { rating, comment } = form.elements;
    const content = { scan, mask_sha256: mask, rating: rating.value, comment: comment.value };
    content.date = new Date().toISOString();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2) + "\n"], { type: "application/json" }));
    link.download = file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000); // when the browser has taken it
    form.querySelector("output").textContent = `Put ${file} next to the mask, and run planar3d report on the folder.`;
  });
}
