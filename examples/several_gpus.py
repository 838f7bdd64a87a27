"""One long video over several GPUs, enhanced: diffusers' context parallelism cuts the tokens, every rank holds a part.

torchrun --nproc-per-node 2 examples/several_gpus.py --model Wan-AI/Wan2.1-T2V-14B-Diffusers \
    --prompt "A kitten plays the piano" --frames 161 --height 720 --width 1280 --out kitten.mp4

Without --model it runs the embedded one, on CPUs too (that is how it is tested; on several GPUs we could not run it).
"""

import argparse
import os

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, WanPipeline

from enhance_a_video import enhance
from enhance_a_video.embedded import model_folder
from enhance_a_video.generation import pipelines, video

parser = argparse.ArgumentParser()
parser.add_argument("--model", default=None)
parser.add_argument("--prompt", default="A red ball bounces up and down over a green meadow.")
parser.add_argument("--frames", type=int, default=33)
parser.add_argument("--height", type=int, default=64)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", default="video.mp4")
options = parser.parse_args()

on_gpu = torch.cuda.is_available()
device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if on_gpu else torch.device("cpu")
if on_gpu:
    torch.cuda.set_device(device)
else:
    torch.accelerator.device_count = lambda: 1  # diffusers divides by it, and a CPU has none
dist.init_process_group("nccl" if on_gpu else "gloo")

pipe = WanPipeline.from_pretrained(options.model or model_folder(), torch_dtype=torch.bfloat16 if on_gpu else None)
pipe.to(device).set_progress_bar_config(disable=dist.get_rank() > 0)
pipe.transformer.set_attention_backend("native")
if dist.get_world_size() > 1:
    pipe.transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=dist.get_world_size()))
handle = enhance(pipe)  # before or after enable_parallelism()
frames = pipelines.generate(
    pipe, options.prompt, seed=options.seed, steps=options.steps,
    frames=options.frames, height=options.height, width=options.width,
)  # fmt: skip
if dist.get_rank() == 0:
    video.write_video(options.out, frames, pipelines.defaults(pipe)["fps"], force=True)
    print(handle.summary())
dist.barrier()
dist.destroy_process_group()
