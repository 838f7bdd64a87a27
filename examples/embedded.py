"""The embedded model in plain diffusers, on any machine: prints and plots what the method measures, layer by layer."""

import torch
from diffusers import WanPipeline

from enhance_a_video import enhance
from enhance_a_video.embedded import model_folder

pipe = WanPipeline.from_pretrained(model_folder())
with enhance(pipe, observe_only=True, start=0.0, end=1.0) as handle:
    pipe(
        "A red ball bounces up and down over a green meadow.",
        height=64, width=64, num_frames=33, num_inference_steps=20, guidance_scale=6.0,
        max_sequence_length=32, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
print(handle.summary())
handle.summary().plot("cross-frame-mass.png")
