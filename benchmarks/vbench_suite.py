"""VBench's standard suite around `enhance-a-video batch`: its prompts in, its file names and total score out.

    python benchmarks/vbench_suite.py prompts VBench_full_info.json suite.jsonl     # 944 prompts, 6220 clips an arm
    enhance-a-video batch suite.jsonl -o clips --plain --model ...                  # both arms, the same noise
    python benchmarks/vbench_suite.py link clips videos                             # videos/plain, videos/enhanced
    vbench evaluate --videos_path videos/plain --dimension ... --output_path results/plain
    python benchmarks/vbench_suite.py total results/plain results/enhanced

docs/guide/vbench.md has every command for the models of the paper. VBench_full_info.json lies in the package vbench.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

SAMPLES, FOR_FLICKER = 5, 25  # VBench's prompts/README.md: 25 where a filter will pick five that stand still

# VBench's scripts/constant.py: the range each dimension is normalised to, and its weight within its half.
QUALITY = {
    "subject_consistency": (0.1462, 1.0, 1.0), "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0), "motion_smoothness": (0.706, 0.9975, 1.0),
    "aesthetic_quality": (0.0, 1.0, 1.0), "imaging_quality": (0.0, 1.0, 1.0), "dynamic_degree": (0.0, 1.0, 0.5),
}  # fmt: skip
SEMANTIC = {
    "object_class": (0.0, 1.0, 1.0), "multiple_objects": (0.0, 1.0, 1.0), "human_action": (0.0, 1.0, 1.0),
    "color": (0.0, 1.0, 1.0), "spatial_relationship": (0.0, 1.0, 1.0), "scene": (0.0, 0.8222, 1.0),
    "appearance_style": (0.0009, 0.2855, 1.0), "temporal_style": (0.0, 0.364, 1.0),
    "overall_consistency": (0.0, 0.364, 1.0),
}  # fmt: skip


def prompts(info: Path, out: Path, only: list[str]) -> None:
    """Writes the suite as a prompts file of `batch`. Each clip has a seed of its own, the same in every arm."""
    wanted: dict[str, int] = {}
    for row in json.loads(info.read_text(encoding="utf-8")):
        if not only or set(only) & set(row["dimension"]):
            count = FOR_FLICKER if "temporal_flickering" in row["dimension"] else SAMPLES
            wanted[row["prompt_en"]] = max(count, wanted.get(row["prompt_en"], 0))
    lines = [
        json.dumps({"prompt": prompt, "seeds": [FOR_FLICKER * n + k for k in range(count)]}, ensure_ascii=False)
        for n, (prompt, count) in enumerate(wanted.items())
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{out}: {len(lines)} prompts, {sum(wanted.values())} clips an arm")


def link(clips: Path, out: Path) -> None:
    """Gives the clips of a batch the names that VBench expects, PROMPT-NUMBER.mp4, a folder for each arm."""
    arms: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for line in (clips / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["status"] == "done":
            arms[record["label"]][record["prompt"]][record["seed"]] = record["file"]
    for label, of_prompt in arms.items():
        (out / label).mkdir(parents=True, exist_ok=True)
        for prompt, of_seed in of_prompt.items():
            for number, seed in enumerate(sorted(of_seed)):
                name = out / label / f"{prompt}-{number}.mp4"
                name.unlink(missing_ok=True)
                name.symlink_to((clips / of_seed[seed]).resolve())
        print(f"{out / label}: {sum(map(len, of_prompt.values()))} clips of {len(of_prompt)} prompts")


def total(folder: Path) -> dict[str, float]:
    """VBench's quality, semantic and total score, in percent, from the results of all 16 dimensions in a folder.

    Raises ValueError where a dimension is missing: VBench's own script counts it as zero.
    """
    found: dict[str, float] = {}
    for file in sorted(folder.rglob("*_eval_results.json")):
        found |= {name: float(value[0]) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
    missing = [name for name in (*QUALITY, *SEMANTIC) if name not in found]
    if missing:
        raise ValueError(f"{folder} has no result of {', '.join(missing)}: run vbench evaluate for them first.")
    quality, semantic = _half(QUALITY, found), _half(SEMANTIC, found)
    return {"quality": 100 * quality, "semantic": 100 * semantic, "total": 100 * (4 * quality + semantic) / 5}


def _half(rows: dict[str, tuple[float, float, float]], found: dict[str, float]) -> float:
    weighted = sum(weight * (found[name] - low) / (high - low) for name, (low, high, weight) in rows.items())
    return weighted / sum(weight for _, _, weight in rows.values())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("prompts")
    step.add_argument("info", type=Path, help="VBench_full_info.json")
    step.add_argument("out", type=Path, help="the .jsonl to write")
    step.add_argument("--dimension", nargs="*", default=[], help="only the prompts of these dimensions")
    step = steps.add_parser("link")
    step.add_argument("clips", type=Path, help="the folder of `enhance-a-video batch`")
    step.add_argument("out", type=Path)
    step = steps.add_parser("total")
    step.add_argument("folders", type=Path, nargs="+", help="an --output_path of vbench evaluate for each arm")
    options = parser.parse_args(argv)
    if options.step == "prompts":
        prompts(options.info, options.out, options.dimension)
    elif options.step == "link":
        link(options.clips, options.out)
    else:
        try:
            for folder in options.folders:
                print(f"{folder}: " + ", ".join(f"{name} {value:.2f}" for name, value in total(folder).items()))
        except ValueError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
