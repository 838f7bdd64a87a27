"""The node Compare Videos: two clips in one synchronised player with a wipe line, and side by side in one mp4."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import InputImpl, Types, io
from torch import Tensor

TIPS = {
    "first": "A video, or images that are its frames. Shown on the left of the line.",
    "second": "The video to compare it with, on the right of the line; in the size and the frame rate of the first.",
    "fps": "Frames per second of images. A video has its own.",
    "prefix": "Where the mp4 with both side by side is saved, under ComfyUI's output folder.",
}


class EnhanceAVideoCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="EnhanceAVideoCompare",
            display_name="Compare Videos",
            category="video",
            description="Plays two videos in step, with a line to wipe between them, and saves both side by side.",
            search_aliases=["video comparer", "side by side", "wipe", "A/B", "before after", "Enhance-A-Video"],
            inputs=[
                io.MultiType.Input("first", types=[io.Video, io.Image], tooltip=TIPS["first"]),
                io.MultiType.Input("second", types=[io.Video, io.Image], tooltip=TIPS["second"]),
                io.Float.Input("fps", default=16.0, min=1.0, max=120.0, step=1.0, tooltip=TIPS["fps"]),
                io.String.Input("filename_prefix", default="video/compare", tooltip=TIPS["prefix"]),
            ],
            outputs=[io.Video.Output(display_name="side_by_side")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, first: Any, second: Any, fps: float, filename_prefix: str) -> io.NodeOutput:
        (a, rate), (b, _) = _frames(first, fps), _frames(second, fps)
        a, b = alike(a, b)
        clips = [_save(clip, rate, "compare", folder_paths.get_temp_directory(), "temp") for clip in (a, b)]
        both = torch.cat([a, b], 2)  # (frames, height, 2 * width, 3)
        saved = _save(both, rate, filename_prefix, folder_paths.get_output_directory(), "output")
        return io.NodeOutput(_video(both, rate), ui={"compare_videos": [*clips, saved], "fps": [float(rate)]})


def alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Two clips (frames, height, width, 3) with one length, the shorter one standing still, and one even size."""
    height, width = (max(side // 2 * 2, 2) for side in a.shape[1:3])
    frames = max(len(a), len(b))
    return _fitted(a, frames, height, width), _fitted(b, frames, height, width)


def _fitted(clip: Tensor, frames: int, height: int, width: int) -> Tensor:
    clip = clip[..., :3].float().cpu()
    if clip.shape[1:3] != (height, width):
        clip = F.interpolate(clip.movedim(-1, 1), (height, width), mode="bilinear", antialias=True).movedim(1, -1)
    return torch.cat([clip, clip[-1:].expand(frames - len(clip), -1, -1, -1)]).clamp(0, 1)


def _frames(clip: Any, fps: float) -> tuple[Tensor, Fraction]:
    """Frames (frames, height, width, 3) between 0 and 1, and their number per second."""
    if isinstance(clip, Tensor):
        return clip, Fraction(fps).limit_denominator(1000)
    parts = clip.get_components()
    return parts.images, Fraction(parts.frame_rate)


def _video(frames: Tensor, rate: Fraction) -> Any:
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=rate))


def _save(frames: Tensor, rate: Fraction, prefix: str, folder: str, kind: str) -> dict[str, str]:
    """Write an mp4 and return where it is, in the form that ComfyUI's pages take."""
    height, width = frames.shape[1:3]
    place, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder, width, height)
    file = f"{name}_{counter:05}_.mp4"
    _video(frames, rate).save_to(str(Path(place) / file), format=Types.VideoContainer.MP4, codec=Types.VideoCodec.H264)
    return {"filename": file, "subfolder": subfolder, "type": kind}
