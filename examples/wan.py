"""Wan 2.1 on your GPU, without and with, from the same noise. About 10 GB of GPU memory; not run where we built this.

python examples/wan.py "A kitten plays the piano"
"""

import sys

import torch
from diffusers import WanPipeline
from diffusers.utils import export_to_video

from enhance_a_video import enhance

prompt = " ".join(sys.argv[1:]) or "A kitten plays the piano"
pipe = WanPipeline.from_pretrained("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", torch_dtype=torch.bfloat16)
pipe.enable_model_cpu_offload()


def video(name: str) -> None:
    frames = pipe(prompt, height=480, width=832, num_frames=81, generator=torch.Generator().manual_seed(0)).frames[0]
    export_to_video(frames, name, fps=16)


video("without.mp4")
with enhance(pipe) as handle:
    video("with.mp4")
print(handle.summary())
