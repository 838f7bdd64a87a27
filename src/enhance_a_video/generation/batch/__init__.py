"""Many clips into one folder, by one or more workers, so that a kill at any moment costs the clips in the making only.

items = requests.expand(requests.read_prompts("prompts.jsonl"), range(4), [("enhanced", Settings())])
tally = run("clips", items, model="Wan-AI/Wan2.1-T2V-1.3B-Diffusers")

folder    the clips and manifest.jsonl: what is there, what is missing, how a clip is added
run       what is missing, made by a pool of workers
"""

from .run import Tally, run

__all__ = ["Tally", "run"]
