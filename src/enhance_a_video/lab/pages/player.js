// Videos of one player run together, on the same frame; only players in view run. Pictures have the line alone. A clip that several players show is
// in the page once (in #clips) and becomes a video when it comes near.
"use strict";
const stored = JSON.parse(document.getElementById("clips")?.textContent || "{}"), made = {};
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const source = (key) => made[key] ??= URL.createObjectURL(new Blob([Uint8Array.from(atob(stored[key]), (c) => c.charCodeAt(0))], { type: "video/mp4" }));

class Player {
  constructor(root) {
    this.root = root; this.videos = [...root.querySelectorAll("video")]; this.lead = this.videos[0];
    this.wanted = !still; this.near = false; this.speed = 1; this.frame = 1 / (Number(root.dataset.fps) || 8);
    const on = (name, act) => root.querySelectorAll(`[data-do=${name}]`).forEach((control) => { control.onclick = () => act(control); });
    on("play", () => this.toggle());
    on("back", () => this.step(-1)); on("next", () => this.step(1));
    on("slow", (button) => { this.speed = this.speed === 1 ? 0.25 : 1; button.setAttribute("aria-pressed", this.speed !== 1); this.run(); });
    on("wipe", (button) => this.wipe(button));
    this.seek = root.querySelector("[data-do=seek]"); this.divider = root.querySelector(".divider");
    if (this.seek) this.seek.oninput = () => { this.wanted = false; this.run(); this.go(this.seek.value / 1000 * this.length()); };
    this.divider.oninput = () => root.style.setProperty("--at", this.divider.value / 100);
    root.querySelector(".controls").hidden = false;
    this.run();
  }
  length() { return this.lead && Math.min(...this.videos.map((video) => video.duration || 0)) || 0; }
  go(time) { const end = Math.max(0, this.length() - this.frame / 2); this.videos.forEach((video) => { video.currentTime = Math.min(Math.max(0, time), end); }); this.show(); }
  show() { if (this.length()) this.seek.value = 1000 * this.lead.currentTime / this.length(); }
  toggle() { this.wanted = !this.wanted; this.run(); if (!this.wanted) this.go(this.lead.currentTime); }
  step(by) { this.wanted = false; this.run(); this.go((Math.floor(this.lead.currentTime / this.frame + 0.01) + by + 0.5) * this.frame); }
  enter(near) {
    this.near = near;
    if (near) this.videos.forEach((video) => { if (!video.src && video.dataset.clip) video.src = source(video.dataset.clip); });
    this.run();
  }
  run() {
    const going = this.wanted && this.near;
    this.videos.forEach((video) => {
      video.playbackRate = this.speed;
      if (!going) video.pause();
      else video.play().catch((error) => { if (error.name === "NotAllowedError") { this.wanted = false; this.label(); } });
    });
    this.label();
  }
  label() { this.root.querySelectorAll("[data-do=play]").forEach((button) => { button.textContent = this.wanted ? "Pause" : "Play"; }); }
  wipe(button) {  // the first video and one other on the same place, with a line between them to move
    const figures = [...this.root.querySelectorAll("figure")], on = button.getAttribute("aria-pressed") !== "true";
    this.root.querySelectorAll("[data-do=wipe]").forEach((other) => other.setAttribute("aria-pressed", on && other === button));
    figures.forEach((figure, n) => { figure.classList.toggle("below", on && n === 0); figure.classList.toggle("above", on && n === Number(button.dataset.other)); });
    this.root.classList.toggle("wipe", on);
    if (on) this.divider.focus({ preventScroll: true });
  }
  keep_together() {  // small differences by speed, large ones by a jump; around the end, where videos begin again, none
    if (!this.lead || !this.wanted || !this.near || this.lead.readyState < 3) return;
    for (const video of this.videos.slice(1)) {
      const lag = this.lead.currentTime - video.currentTime, whole = this.length();
      if (video.seeking || video.readyState < 3 || !whole || Math.abs(lag) > whole - 2 * this.frame) continue;
      if (Math.abs(lag) > 0.2) video.currentTime = this.lead.currentTime;
      else video.playbackRate = Math.abs(lag) < 0.015 ? this.speed : this.speed * (1 + Math.max(-0.3, Math.min(0.3, 4 * lag)));
    }
    this.show();
  }
}

const players = new Map([...document.querySelectorAll(".player")].map((root) => [root, new Player(root)]));
const watch = new IntersectionObserver((entries) => entries.forEach((entry) => players.get(entry.target).enter(entry.isIntersecting)), { rootMargin: "150px" });
players.forEach((player, root) => watch.observe(root));
(function together() { players.forEach((player) => player.keep_together()); requestAnimationFrame(together); })();
