// <wipe-player>: one video whose halves lie above each other (first, second) on one canvas, with a line to move between
// them. One video, so both sides always show the same frame. Without a second label it just plays.
// All of it lies in a shadow root: Gradio changes an element's attributes and children in place when its HTML changes.
"use strict";
const STYLE = `
  :host { display: block; width: 100%; max-width: 620px; contain: inline-size; font-family: system-ui, -apple-system, "Segoe UI", sans-serif; }
  video { position: absolute; width: 1px; height: 1px; opacity: 0; pointer-events: none; }
  .ev-stage { position: relative; background: #16181d; border-radius: 10px; overflow: hidden; }
  .ev-stage canvas { display: block; width: 100%; height: auto; }
  .ev-stage span { position: absolute; top: 8px; padding: 2px 9px; border-radius: 99px; background: #000a; color: #fff; font-size: 13px; font-weight: 600; pointer-events: none; max-width: 45%; }
  .ev-left { left: 8px; } .ev-right { right: 8px; }
  .ev-wipe { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; appearance: none; -webkit-appearance: none; background: none; cursor: ew-resize; touch-action: pan-y; }
  .ev-wipe::-webkit-slider-runnable-track { background: none; }
  .ev-wipe::-webkit-slider-thumb { -webkit-appearance: none; width: 30px; height: 30px; border-radius: 50%; background: #fff; border: 2px solid #16181d; }
  .ev-wipe::-moz-range-track { background: none; }
  .ev-wipe::-moz-range-thumb { width: 26px; height: 26px; border-radius: 50%; background: #fff; border: 2px solid #16181d; }
  .ev-controls { display: flex; gap: 6px; align-items: center; margin-top: 8px; }
  .ev-seek { flex: 1; min-width: 40px; accent-color: var(--color-accent); }
  .ev-controls button { border: 1px solid var(--border-color-primary); background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); border-radius: 8px; min-height: 38px; min-width: 38px; padding: 0 12px; font: 600 14px system-ui, sans-serif; cursor: pointer; }
  .ev-controls button:first-child { min-width: 70px; }
  .ev-controls button[aria-pressed=true] { background: var(--color-accent); color: #fff; }
`;
if (!customElements.get("wipe-player")) customElements.define("wipe-player", class extends HTMLElement {
  static observedAttributes = ["data-src"];
  attributeChangedCallback() { if (this.isConnected) this.build(); }
  connectedCallback() { this.build(); }
  disconnectedCallback() { this.video?.pause(); }
  build() {
    this.video?.pause();
    this.root = this.shadowRoot || this.attachShadow({ mode: "open" });
    this.root.replaceChildren();
    this.make("style", "", this.root).textContent = STYLE;
    this.video = this.make("video", "", this.root);
    Object.assign(this.video, { muted: true, loop: true, playsInline: true, preload: "auto", src: this.dataset.src });
    this.two = Boolean(this.dataset.second);
    this.frame = 1 / (Number(this.dataset.fps) || 8);
    this.stage = this.make("div", "ev-stage");
    this.canvas = this.make("canvas", "", this.stage);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", this.dataset.about + (this.two ? ", left " + this.dataset.first + ", right " + this.dataset.second : ""));
    if (this.two) {
      this.make("span", "ev-left", this.stage).textContent = this.dataset.first;
      this.make("span", "ev-right", this.stage).textContent = this.dataset.second;
      this.wipe = this.range("ev-wipe", "Wipe between " + this.dataset.first + " and " + this.dataset.second, this.stage, 0.5);
      this.wipe.oninput = () => this.draw();
    }
    const bar = this.make("div", "ev-controls");
    this.play = this.button(bar, "Play", () => (this.video.paused ? this.run() : this.video.pause()));
    this.button(bar, "‹", () => this.step(-1), "One frame back");
    this.button(bar, "›", () => this.step(1), "One frame on");
    this.seek = this.range("ev-seek", "Time", bar, 0);
    this.seek.oninput = () => { this.video.pause(); this.video.currentTime = this.seek.value * (this.video.duration || 0); };
    this.slow = this.button(bar, "Slow", () => {
      this.video.playbackRate = this.video.playbackRate === 1 ? 0.25 : 1;
      this.slow.setAttribute("aria-pressed", this.video.playbackRate !== 1);
    });
    for (const name of ["play", "pause"]) this.video.addEventListener(name, () => { this.play.textContent = this.video.paused ? "Play" : "Pause"; });
    for (const name of ["seeked", "loadeddata"]) this.video.addEventListener(name, () => this.draw());
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.run();
    const own = this.video, again = () => { if (!this.isConnected || this.video !== own) return; if (!this.video.paused) this.draw(); requestAnimationFrame(again); };
    requestAnimationFrame(again);
  }
  run() { this.video.play().catch(() => {}); }
  make(tag, name, parent = this.root) { const made = document.createElement(tag); if (name) made.className = name; parent.append(made); return made; }
  range(name, label, parent, value) {
    const made = this.make("input", name, parent);
    Object.assign(made, { type: "range", min: 0, max: 1, step: 0.001, value });
    made.setAttribute("aria-label", label);
    return made;
  }
  button(parent, text, act, label) {
    const made = this.make("button", "", parent);
    made.type = "button"; made.textContent = text; made.onclick = act;
    if (label) made.setAttribute("aria-label", label);
    return made;
  }
  step(by) {
    this.video.pause();
    const end = Math.max(0, (this.video.duration || 0) - this.frame / 2);
    this.video.currentTime = Math.min(Math.max(0, (Math.floor(this.video.currentTime / this.frame + 0.01) + by + 0.5) * this.frame), end);
  }
  draw() {
    const { video, canvas } = this, width = video.videoWidth, height = video.videoHeight / (this.two ? 2 : 1);
    if (!width || !canvas) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d"), at = this.two ? Math.round(this.wipe.value * width) : width;
    if (at > 0) context.drawImage(video, 0, 0, at, height, 0, 0, at, height);
    if (at < width) context.drawImage(video, at, height, width - at, height, at, 0, width - at, height);
    if (this.two) { context.fillStyle = "#fff"; context.fillRect(at - 1, 0, 2, height); }
    if (video.duration) this.seek.value = video.currentTime / video.duration;
  }
});
