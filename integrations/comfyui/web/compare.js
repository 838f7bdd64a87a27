// The player of the node Compare Videos: two clips on top of each other, in step, with a line to wipe between them.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const NODE = "EnhanceAVideoCompare";
const address = (file) => api.apiURL(`/view?${new URLSearchParams(file)}`);

function element(tag, style, more = {}) {
  return Object.assign(document.createElement(tag), more, { style });
}

function clip() {
  const style = "position:absolute;inset:0;width:100%;height:100%;object-fit:contain;background:#000";
  return element("video", style, { loop: true, muted: true, playsInline: true, autoplay: true });
}

function player() {
  const box = element("div", "display:flex;flex-direction:column;width:100%;height:100%;min-height:160px");
  const stage = element("div", "position:relative;flex:1;min-height:0;overflow:hidden;cursor:ew-resize;background:#000");
  const [left, right] = [clip(), clip()];
  const line = element("div", "position:absolute;top:0;bottom:0;width:2px;background:#fff;pointer-events:none");
  const label = "position:absolute;top:4px;padding:0 6px;background:#000a;color:#fff;font:12px sans-serif;pointer-events:none";
  stage.append(left, right, line);
  stage.append(element("span", `${label};left:4px`, { textContent: "first" }));
  stage.append(element("span", `${label};right:4px`, { textContent: "second" }));

  const bar = element("div", "display:flex;gap:6px;align-items:center;padding:4px");
  const play = element("button", "width:4em", { textContent: "pause", title: "Play or pause both" });
  const time = element("input", "flex:1;min-width:0", { type: "range", min: 0, max: 1000, value: 0, ariaLabel: "time" });
  const step = (text, frames) => element("button", "", { textContent: text, title: "One frame", onclick: () => move(frames) });
  const link = element("a", "color:inherit", { textContent: "mp4", target: "_blank", title: "Both side by side" });

  let fps = 16;

  const wipe = (share) => {
    const percent = 100 * Math.min(Math.max(share, 0), 1);
    right.style.clipPath = `inset(0 0 0 ${percent}%)`;
    line.style.left = `calc(${percent}% - 1px)`;
  };
  const seek = (seconds) => [left, right].forEach((video) => (video.currentTime = seconds));
  const pause = () => (left.pause(), right.pause(), (play.textContent = "play"));
  const run = () => (left.play(), right.play(), (play.textContent = "pause"));
  function move(frames) {
    pause();
    seek(Math.min(Math.max(left.currentTime + frames / fps, 0), left.duration || 0));
  }

  stage.onpointermove = (event) => wipe(event.offsetX / stage.clientWidth);
  play.onclick = () => (left.paused ? run() : pause());
  time.oninput = () => (pause(), seek((time.value / 1000) * (left.duration || 0)));
  left.ontimeupdate = () => {
    time.value = (1000 * left.currentTime) / (left.duration || 1);
    if (!left.paused && Math.abs(left.currentTime - right.currentTime) > 0.05) right.currentTime = left.currentTime;
  };
  bar.append(play, step("‹", -1), time, step("›", 1), link);
  box.append(stage, bar);
  wipe(0.5);
  return {
    box,
    show([first, second, both], rate) {
      fps = rate;
      left.src = address(first);
      right.src = address(second);
      link.href = address(both);
      run();
    },
  };
}

app.registerExtension({
  name: "EnhanceAVideo.Compare",
  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { onNodeCreated, onExecuted } = nodeType.prototype;
    nodeType.prototype.onNodeCreated = function (...args) {
      onNodeCreated?.apply(this, args);
      this.comparePlayer = player();
      this.addDOMWidget("player", "compare_videos", this.comparePlayer.box, { serialize: false, getMinHeight: () => 240 });
      this.setSize([Math.max(this.size[0], 480), Math.max(this.size[1], 460)]);
    };
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, [output]);
      if (output?.compare_videos) this.comparePlayer.show(output.compare_videos, output.fps?.[0] ?? 16);
    };
  },
});
