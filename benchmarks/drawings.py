"""The drawings of docs/guide/how-it-works.md, from the library's own formulas.

python benchmarks/drawings.py --out docs/pictures

share.svg     what a frame takes from itself and from the others, without and with the default
gain.svg      the gain by the measured mass, and what becomes of the mass: odds, strengths, the paper's temperature
window.svg    the same window at 10 and at 40 steps
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from matplotlib import pyplot as plt
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

from enhance_a_video.policies import GainContext, Odds, Strength, Temperature
from enhance_a_video.progress import Flow, progress_at_steps

OWN, OTHERS, GREY = "#3f51b5", "#e64a19", "#9e9e9e"
FRAMES, MIDDLE, MASS = 5, 2, 0.4  # drawn frames, the one that looks, the share of its attention that leaves it


def gain(policy, mass, num_frames=9):
    context = GainContext(num_frames=num_frames, layer=0.5, progress=torch.tensor(0.5))
    return policy(torch.as_tensor(mass, dtype=torch.float32), context).numpy()


def share(out: Path) -> None:
    """One frame of a ball that moves, and where its attention goes."""
    figure, axes = plt.subplots(2, 1, figsize=(6.4, 4.9))
    after = float(MASS * gain(Odds(2.0), [MASS])[0])
    for axis, mass, title in zip(axes, (MASS, after), ("without", "with odds=2"), strict=True):
        _frames(axis)
        _attention(axis, mass)
        axis.set_title(title, loc="left", fontsize=12, fontweight="bold")
    _save(figure, out / "share.svg")


def _frames(axis) -> None:
    for n in range(FRAMES):
        looks = n == MIDDLE
        edge = {"edgecolor": OWN if looks else GREY, "linewidth": 2.5 if looks else 1.2}
        axis.add_patch(Rectangle((n * 1.3, 0), 1, 0.8, facecolor="#f5f5f5", **edge))
        axis.add_patch(Circle((n * 1.3 + 0.22 + 0.14 * n, 0.4), 0.14, facecolor="#c62828"))
        axis.text(n * 1.3 + 0.5, -0.08, f"frame {n + 1}", ha="center", va="top", fontsize=10)
    axis.set(xlim=(-0.1, FRAMES * 1.3 - 0.2), ylim=(-0.6, 1.6), aspect="equal")
    axis.axis("off")


def _attention(axis, mass: float) -> None:
    """Arrows from the frame that looks: as wide as the share of attention that goes there."""
    start = (MIDDLE * 1.3 + 0.5, 0.83)
    for n in range(FRAMES):
        weight, colour = (1 - mass, OWN) if n == MIDDLE else (mass / (FRAMES - 1), OTHERS)
        end = (n * 1.3 + 0.5, 0.83)
        text = {"color": colour, "ha": "center", "va": "top", "fontsize": 12, "fontweight": "bold"}
        axis.text(end[0], -0.3, f"{weight:.0%}", **text)
        if n == MIDDLE:
            loop = {"connectionstyle": "arc3,rad=-2", "arrowstyle": "-"}
            start_, end = (start[0] - 0.16, 0.83), (start[0] + 0.16, 0.83)
            axis.add_patch(FancyArrowPatch(start_, end, color=colour, linewidth=14 * weight, **loop))
        else:
            bend = {"connectionstyle": f"arc3,rad={0.35 if n < MIDDLE else -0.35}", "arrowstyle": "-|>"}
            begin = (start[0] + (0.32 if n > MIDDLE else -0.32), 0.83)
            axis.add_patch(
                FancyArrowPatch(begin, end, color=colour, linewidth=14 * weight, mutation_scale=13, shrinkB=0, **bend)
            )


def gains(out: Path) -> None:
    figure, (left, right) = plt.subplots(2, 1, figsize=(6.4, 7.2))
    mass = np.linspace(0, 1, 201)
    for factor, line in ((1.5, ":"), (2.0, "-"), (3.0, "--")):
        s = gain(Odds(factor), mass)
        left.plot(mass, s, OTHERS, linestyle=line, label=f"odds={factor:g}, of what comes from others")
        right.plot(mass, s * mass, OTHERS, linestyle=line, label=f"odds={factor:g}")
    left.plot(mass, gain(Strength(0.3), mass), OWN, linestyle=":", label="strength=0.3, of everything")
    for frames, line in ((9, "-"), (21, "--")):
        text = f"temperature=4, {frames} latent frames, of everything"
        left.plot(mass, gain(Temperature(4.0), mass, frames), OWN, linestyle=line, label=text)
    right.plot([0, 1], [0, 1], GREY, linewidth=1, label="plain")
    left.set(xlabel="mass: share of attention that leaves the frame", ylabel="gain", ylim=(0.9, 3.05))
    right.set(xlabel="mass without", ylabel="mass with", ylim=(0, 1.02))
    for axis in (left, right):
        axis.set_xlim(0, 1)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9)
    _save(figure, out / "gain.svg")


def window(out: Path) -> None:
    """Noise level against progress for two numbers of steps; the window of strength=0.3 ends at 0.7."""
    figure, axis = plt.subplots(figsize=(6.4, 3.6))
    for steps, colour, size in ((40, OWN, 14), (10, OTHERS, 50)):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
        progress = progress_at_steps(scheduler, Flow(5.0), steps).numpy()
        scheduler.set_timesteps(steps)
        axis.scatter(progress, scheduler.sigmas[:-1], s=size, color=colour, zorder=3, label=f"{steps} steps")
    axis.axvspan(0, 0.7, color=OTHERS, alpha=0.08)
    axis.text(0.35, 0.05, "start=0 … end=0.7", ha="center", fontsize=11)
    axis.set(xlim=(-0.02, 1.02), ylim=(0, 1.05), ylabel="noise in the latents")
    axis.set_xlabel("progress: 0 is pure noise, 1 is clean")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper right", fontsize=10)
    _save(figure, out / "window.svg")


def _save(figure, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"svg.hashsalt": "drawings", "font.size": 11})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    for draw in (share, gains, window):
        draw(folder)


if __name__ == "__main__":
    main()
