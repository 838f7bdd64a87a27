"""The table of all rows: what `enhance-a-video models` prints and what docs/reference/models.md is made of."""

from typing import Any

from ..progress import Flow, Karras, LinearQuadratic, Noise, VariancePreserving
from .registry import Model, known_models

REGENERATE = "python -m enhance_a_video.models > docs/reference/models.md"

_HEAD = f"""\
# Models

<!-- Made from the rows in src/enhance_a_video/models: {REGENERATE} -->

{{count}} transformer and UNet classes of diffusers, some of them of pictures or sound. They are found by class,
checkpoints and fine-tunes alike; a class of your own takes one row: [add-a-model.md](../guide/add-a-model.md).
`enhance-a-video models` prints the list.

**What was tested.** Every variant named under *tested* is a tiny random-weight model of the real class, on the CPU, in
fp32. On each of them: the layers found and the frames counted at every call; planted videos whose answer is known
(equal frames attend to each other, unrelated ones do not), on which a wrong axis, a wrong frame count and a slice that
is one frame off are noticed; an effect; as many tokens scaled as are seen; bit-equal when observing, outside the window
and with one frame; a batch of two equal to two batches of one; complete undo; plain copies. What a class cannot do (one
frame, a batch, a place in the denoising without a scheduler) is skipped, and so is a class that the installed diffusers
lacks. **None of the published checkpoints was run** where this was built.

**Attention.** *3D*: full self-attention over all frames, of which the intensity measures one site in all frames at a
time; *joint*: in one sequence with text. *Temporal*: layers that see one site in all frames, next to others that see
single frames. **Axes**: which partitions of the keys odds can act on (what each is worth:
[axes.md](../results/axes.md)). **Window**: what the timestep means to a bare transformer, so that `start` and `end` can
be placed; in a pipeline its scheduler comes first.

**Picture models** (*2D*) have no axis of frames; `enhance(pipe, axis="space", odds=1.2)` acts on them, and so do the
commands `generate` and `compare`. **Sound models** (*1D*): a step of the latent sound is a frame of one token, so that
`near:32` are the others at most 32 steps away; in Python.
"""


def described(row: Model) -> dict[str, Any]:
    """A row for its readers, JSON-able."""
    return {
        "name": row.name,
        "transformer": row.transformer,
        "makes": row.makes,
        "attention": _attention(row),
        "axes": list(row.axes),
        "window": _noise(row.noise),
        "checkpoints": list(row.checkpoints),
        "notes": row.notes,
        "tested": list(row.tested),
        "refused": row.refused,
    }


def described_all() -> list[dict[str, Any]]:
    """Every row, by name."""
    return sorted((described(row) for row in known_models()), key=lambda row: row["name"].lower())


def _attention(row: Model) -> str:
    if row.refused:
        return "none that can be enhanced"
    kind = row.attention[0]
    size, what = {"videos": ("3D", "video"), "pictures": ("2D", "picture"), "sounds": ("1D", "sound")}[row.makes]
    if kind.tokens.place == "temporal":
        return "temporal"
    if kind.video is not None:
        return f"{size}, {'joint, ' * (what == 'picture')}{what} among other tokens"
    if kind.tokens.keys != "none":
        return f"{size}, video and cached keys"
    places = {"video only": f"{what} alone", "text first": f"joint, {what} last", "video first": f"joint, {what} first"}
    return f"{size}, {places[kind.tokens.place]}"


def _noise(noise: Noise | None) -> str:
    if isinstance(noise, Flow):
        return f"flow, shift {noise.shift:g}"
    if isinstance(noise, LinearQuadratic):
        return "flow, linear then quadratic steps"
    if isinstance(noise, VariancePreserving):
        return "variance preserving"
    if isinstance(noise, Karras):
        return "Karras sigmas"
    return "from a scheduler only"


def page() -> str:
    """docs/reference/models.md."""
    rows = described_all()
    kept, refused = [r for r in rows if not r["refused"]], [r for r in rows if r["refused"]]
    lines = [_HEAD.format(count=len(kept)), "| model | class | attention | axes | window |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['name']} | `{r['transformer']}` | {r['attention']} | {', '.join(r['axes'])} | {r['window']} |"
        for r in kept
    ]
    for row in kept:
        lines += ["", f"## {row['name']}", "", f"`{row['transformer']}`{_sentence(row['notes'])}", ""]
        lines += [f"- [{name}](https://huggingface.co/{name})" for name in row["checkpoints"]]
        lines += ["", f"*tested:* {', '.join(f'`{n}`' for n in row['tested']) or 'nothing'}"]
    lines += ["", "## Refused", ""]
    lines += [f"- {r['name']} (`{r['transformer']}`): {r['refused']}" for r in refused]
    return "\n".join(lines) + "\n"


def _sentence(notes: str) -> str:
    return f": {notes}." if notes else ""
