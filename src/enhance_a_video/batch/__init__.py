"""Many clips into one folder, by one or more workers, so that a kill at any moment costs the clips in the making only.

items = plan.expand(plan.read_prompts("prompts.jsonl"), range(4), [("enhanced", Settings())])
tally = run("clips", items, model="Wan-AI/Wan2.1-T2V-1.3B-Diffusers")

folder    the clips and manifest.jsonl: what is there, what is missing, how a clip is added
worker    one loaded pipeline: a task in, an mp4 as bytes and its record out
local     workers as processes of this machine, one for each CUDA device
cluster   workers as actors of a Ray cluster
driver    the queue: who makes what, what happens when a clip fails or a worker dies
"""

from .driver import Progress, Tally, run

__all__ = ["Progress", "Tally", "run"]
