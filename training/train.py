"""Trains an embedded model from nothing, on a CPU: `python -m training.train [--model wan] --out runs/toy`.

Four stages, each resumable (kill it and start it again): the VAE, the encoding of the clips, the VAE's decoder on whole
clips, the transformer with its text encoder. The result is exported as a folder that `diffusers.DiffusionPipeline`
loads. With --start-from, whatever parts of a finished model fit are kept: the VAE, the text encoder, the transformer.
The models' cards have the time and the samples of their runs.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.architectures import ARCHITECTURES, Architecture
from training.codecs import FRAMES
from training.recipe import Training, VaeTraining, build_tokenizer
from training.train_transformer import encode_clips, train_transformer
from training.train_vae import polish_decoder, save_atomically, train_vae

LOGS = ("vae-log.jsonl", "decoder-log.jsonl", "transformer-log.jsonl")


def export(folder: Path, architecture: Architecture, recipe: Training, vae_recipe: VaeTraining, out: Path) -> None:
    """Write the trained parts as a folder of their pipeline, fp16, with its defaults, recipe and loss curves."""
    tokenizer = build_tokenizer(architecture.codec.world)
    trained = architecture.modules(len(tokenizer))
    trained.load_state_dict(torch.load(folder / "transformer.pt", weights_only=True)["average"])
    pipeline = architecture.pipeline(
        tokenizer=tokenizer,
        text_encoder=trained["text_encoder"].half(),
        vae=_normalised_vae(folder, architecture).half(),
        transformer=trained["transformer"].half(),
    )
    pipeline.save_pretrained(out, safe_serialization=True, max_shard_size="9MB")
    index = json.loads((out / "model_index.json").read_text())
    # transformers 5 writes a name that 4 does not know
    index["tokenizer"] = ["transformers", "PreTrainedTokenizerFast"]
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (out / "defaults.json").write_text(json.dumps(architecture.defaults(), indent=2) + "\n")
    recipes = {"architecture": architecture.name, "vae": asdict(vae_recipe), "transformer": asdict(recipe)}
    (out / "recipe.json").write_text(json.dumps(recipes, indent=2) + "\n")
    for log in (log for log in LOGS if (folder / log).exists()):
        lines = (folder / log).read_text().splitlines()
        rows = {json.loads(line)["step"]: line for line in lines}  # a resumed run repeats some steps
        (out / log).write_text("\n".join(rows[step] for step in sorted(rows)) + "\n")


def _normalised_vae(folder: Path, architecture: Architecture) -> torch.nn.Module:
    """The VAE, telling (Wan's) or giving (Stable Diffusion's) latents of mean 0 and variance 1."""
    statistics = torch.load(folder / "latents.pt", weights_only=True)
    state = torch.load(folder / "decoder.pt", weights_only=True)["model"]
    mean, std = statistics["mean"], statistics["std"]
    if architecture.codec is not FRAMES:
        vae = architecture.codec.build(mean.tolist(), std.tolist())
        vae.load_state_dict(state)
        return vae
    vae = FRAMES.build()
    vae.load_state_dict(state)
    before, after, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    with torch.no_grad():  # its format has one scaling factor: the rest goes into its two 1 x 1 convolutions
        before.weight[:channels] /= std.view(-1, 1, 1, 1)
        before.bias[:channels] = (before.bias[:channels] - mean) / std
        before.bias[channels:] -= 2 * std.log()  # the log-variance
        after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
        after.weight *= std.view(1, -1, 1, 1)
    return vae


def start_from(model: Path, folder: Path, architecture: Architecture) -> None:
    """Make a finished model the beginning of a run: the parts of it that fit go on; a VAE that fits is kept as it is.

    The optimiser starts afresh, and so do the clips: they are encoded again.
    """
    pipeline = DiffusionPipeline.from_pretrained(str(model), torch_dtype=torch.float32)
    if type(pipeline.vae) is type(architecture.codec.build()):
        for name in ("vae.pt", "decoder.pt"):
            save_atomically({"model": pipeline.vae.state_dict()}, folder / name)
        for log in LOGS[:2]:
            (folder / log).write_text((model / log).read_text())
    parts = {"text_encoder": pipeline.text_encoder}
    if type(pipeline.transformer) is type(architecture.build()):
        parts["transformer"] = pipeline.transformer
    save_atomically(torch.nn.ModuleDict(parts).state_dict(), folder / "start.pt")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--model", choices=ARCHITECTURES, default="wan", help="which architecture")
    parser.add_argument("--out", type=Path, default=Path("runs/toy"), help="checkpoints, logs and the exported model")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's choice)")
    parser.add_argument("--vae-steps", type=int, default=None, help="default: of the architecture's VAE")
    parser.add_argument("--clips", type=int, default=Training.clips)
    parser.add_argument("--steps", type=int, default=Training.steps)
    parser.add_argument("--batch", type=int, default=Training.batch)
    parser.add_argument("--no-compile", action="store_true", help="quicker for a model of many small operations")
    parser.add_argument("--start-from", type=Path, default=None, help="go on from a finished model, e.g. the packaged")
    parser.add_argument("--export-to", type=Path, default=None, help="default: OUT/model")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    architecture = ARCHITECTURES[options.model]
    codec = architecture.codec
    vae_recipe = codec.recipe if options.vae_steps is None else replace(codec.recipe, steps=options.vae_steps)
    recipe = Training(clips=options.clips, steps=options.steps, batch=options.batch, compile=not options.no_compile)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.start_from and not (options.out / "start.pt").exists():
        start_from(options.start_from, options.out, architecture)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("starting", total=None)

        def report(message: str, done: int, total: int) -> None:
            progress.update(task, description=message, completed=done, total=total)

        train_vae(options.out, vae_recipe, report, codec)
        encode_clips(options.out, recipe, report, codec)
        polish_decoder(options.out, vae_recipe, report, codec)
        train_transformer(options.out, recipe, report, architecture)
    target = options.export_to or options.out / "model"
    export(options.out, architecture, recipe, vae_recipe, target)
    print(f"exported to {target}")


if __name__ == "__main__":
    main()
