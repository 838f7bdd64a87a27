"""Train the embedded model from nothing: `python -m enhance_a_video.toy.train --out runs/toy`.

Four stages, each resumable (kill it and start it again): the VAE, the encoding of the clips, the VAE's decoder on whole
clips, the transformer with its text encoder. The result is exported as a folder that
`diffusers.WanPipeline.from_pretrained` loads. The packaged model's card tells what one run took.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import world
from .recipe import Training, VaeTraining, build_tokenizer, build_trained, build_vae
from .train_transformer import encode_clips, train_transformer
from .train_vae import polish_decoder, save_atomically, train_vae

DEFAULTS = {
    "prompt": "A red ball bounces up and down while a striped blue star moves to the left over a green meadow.",
    "frames": world.FRAMES,
    "height": world.SIZE,
    "width": world.SIZE,
    "fps": world.FPS,
    "steps": 20,
    "guidance": 4.0,
    "extra": {"max_sequence_length": 32},  # the longest sentence of the world has fewer words; 512 works, slower
}


def export(folder: Path, recipe: Training, vae_recipe: VaeTraining, out: Path) -> None:
    """Write the trained parts as a WanPipeline folder, fp16, with its defaults, recipe and loss curves."""
    statistics = torch.load(folder / "latents.pt", weights_only=True)
    vae = build_vae(statistics["mean"].tolist(), statistics["std"].tolist())
    vae.load_state_dict(torch.load(folder / "decoder.pt", weights_only=True)["model"])
    tokenizer = build_tokenizer()
    trained = build_trained(len(tokenizer))
    trained.load_state_dict(torch.load(folder / "transformer.pt", weights_only=True)["average"])
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=trained["text_encoder"].half(),
        vae=vae.half(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=recipe.shift),
        transformer=trained["transformer"].half(),
    )
    pipeline.save_pretrained(out, safe_serialization=True, max_shard_size="9MB")
    index = json.loads((out / "model_index.json").read_text())
    # transformers 5 writes a name that 4 does not know
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (out / "defaults.json").write_text(json.dumps(DEFAULTS, indent=2) + "\n")
    (out / "recipe.json").write_text(
        json.dumps({"vae": asdict(vae_recipe), "transformer": asdict(recipe)}, indent=2) + "\n"
    )
    for log in ("vae-log.jsonl", "decoder-log.jsonl", "transformer-log.jsonl"):
        lines = (folder / log).read_text().splitlines()
        rows = {json.loads(line)["step"]: line for line in lines}  # a resumed run repeats some steps
        (out / log).write_text("\n".join(rows[step] for step in sorted(rows)) + "\n")


def start_from(model: Path, folder: Path) -> None:
    """Make a finished model the beginning of a run: its VAE is kept as it is, its transformer and text encoder go on.

    The optimiser starts afresh, and so do the clips: they are encoded again.
    """
    pipeline = WanPipeline.from_pretrained(model, torch_dtype=torch.float32)
    for name in ("vae.pt", "decoder.pt"):
        save_atomically({"model": pipeline.vae.state_dict()}, folder / name)
    for log in ("vae-log.jsonl", "decoder-log.jsonl"):
        (folder / log).write_text((model / log).read_text())
    parts = torch.nn.ModuleDict({"transformer": pipeline.transformer, "text_encoder": pipeline.text_encoder})
    save_atomically(parts.state_dict(), folder / "start.pt")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m enhance_a_video.toy.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/toy"), help="checkpoints, logs and the exported model")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's choice)")
    parser.add_argument("--vae-steps", type=int, default=VaeTraining.steps)
    parser.add_argument("--clips", type=int, default=Training.clips)
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--start-from", type=Path, default=None, help="go on from a finished model, e.g. the packaged")
    parser.add_argument("--export-to", type=Path, default=None, help="default: OUT/model")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    vae_recipe = VaeTraining(steps=options.vae_steps)
    recipe = Training(clips=options.clips, steps=options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.start_from and not (options.out / "start.pt").exists():
        start_from(options.start_from, options.out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=None)

        def say(message: str, done: int, total: int) -> None:
            progress.update(task, description=message, completed=done, total=total)

        train_vae(options.out, vae_recipe, say)
        encode_clips(options.out, recipe, say)
        polish_decoder(options.out, vae_recipe, say)
        train_transformer(options.out, recipe, say)
    target = options.export_to or options.out / "model"
    export(options.out, recipe, vae_recipe, target)
    print(f"exported to {target}")


if __name__ == "__main__":
    main()
