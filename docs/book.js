// Search over WORDS: sections that hold every word, those with one in the heading first. index.html?q=WORDS asks at once.
const field = document.getElementById("search"), found = document.getElementById("found");

function search() {
  const asked = field.value.toLowerCase().split(/\s+/).filter(w => w.length > 1);
  const hits = [];
  for (const s of asked.length ? WORDS : []) {
    const title = (s.in + " " + s.title).toLowerCase(), all = title + " " + s.text.toLowerCase();
    if (asked.every(w => all.includes(w))) hits.push([asked.filter(w => title.includes(w)).length, s]);
  }
  hits.sort((a, b) => b[0] - a[0]);
  found.replaceChildren(...hits.slice(0, 30).map(([, s]) => {
    const li = document.createElement("li"), a = document.createElement("a"), small = document.createElement("small");
    a.href = s.at;
    a.textContent = s.in === s.title ? s.in : s.in + ": " + s.title;
    const from = Math.max(0, s.text.toLowerCase().indexOf(asked[0]) - 60);
    small.textContent = (from ? "... " : "") + s.text.slice(from, from + 180);
    li.append(a, small);
    return li;
  }));
  if (asked.length && !hits.length) found.textContent = "Nothing has all of these words.";
}

field.addEventListener("input", search);
found.addEventListener("click", () => { field.value = ""; search(); });
field.value = new URLSearchParams(location.search).get("q") || "";
search();

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => { d.open = true; }));

if (document.body.className === "slides") {
  const slides = [...document.querySelectorAll("section")];
  addEventListener("keydown", e => {
    const step = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }[e.key];
    if (!step) return;
    e.preventDefault();
    const now = slides.findLastIndex(s => s.getBoundingClientRect().top < innerHeight / 2);
    slides[Math.max(0, Math.min(slides.length - 1, now + step))].scrollIntoView();
  });
}
