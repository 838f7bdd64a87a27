"""Runs in the environment that has VBench, as a program: python vbench_worker.py task.json. Written against 0.1.5.

Needs nothing of this package and of the standard library only what Python 3.8 has: that environment may be older.
"""

import json
import sys
from pathlib import Path


def main(task_file: str) -> None:
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    import torch
    import vbench

    device = task["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # Its list of prompts is only read in its standard mode, but its constructor requires the name.
    prompts_of_the_suite = Path(vbench.__file__).parent / "VBench_full_info.json"
    judge = vbench.VBench(torch.device(device), str(prompts_of_the_suite), task["results"])
    judge.evaluate(
        videos_path=task["videos"],
        name="scores",
        prompt_list=task["prompts"],
        dimension_list=task["dimensions"],
        local=True,  # weights from VBENCH_CACHE_DIR, downloaded there if they are missing
        mode="custom_input",
    )


if __name__ == "__main__":
    main(sys.argv[1])
