"""Words and numbers on pages: plurals, decimals, the sentence that states a result, and explanations of terms.

A page explains each sign and term that occurs on it: `legend` finds them in a piece of HTML and appends their
explanations. A new term takes a row in `TERMS`.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from ..stats import Paired

# ------------------------------------------------------------------------------------------------------- numbers


def number(value: float, digits: int, *, sign: bool = False) -> str:
    """Fixed decimals, a true minus; "–" for NaN and infinity."""
    if not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def digits(value: float) -> int:
    """Decimals that show four significant digits."""
    return 3 if value == 0 else max(0, min(6, 3 - math.floor(math.log10(abs(value)))))


def percent(share: float) -> str:
    """A signed share in percent, with up to four decimals where fewer would show a small one as zero; "" for NaN."""
    if not math.isfinite(share):
        return ""
    places = 1 if abs(share) >= 0.001 or share == 0 else min(4, -math.floor(math.log10(abs(100 * share))))
    return f"{number(100 * share, places, sign=True)} %"


def capital(text: str) -> str:
    """The text with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def within(text: str) -> str:
    """A label inside a sentence."""
    return text[:1].lower() + text[1:]


def listed(names: Sequence[str]) -> str:
    """ " (a, b)" for names, "" for none."""
    return f" ({', '.join(names)})" if names else ""


# ------------------------------------------------------------------------------------------------------ sentences


STEADINESS = "warping_error"  # the measure of the first sentence: it counts flicker, not motion

_STEADIER = {
    "better": "Steadier", "maybe better": "Perhaps steadier",
    "worse": "Less steady", "maybe worse": "Perhaps less steady", "same": "Exactly as steady",
}  # fmt: skip


def steadiness(change: Paired, verdict: str) -> str:
    """The result that matters first to a creator, as a sentence: whether the video is steadier, and by how much.

    change: of the measure `STEADINESS`. verdict: a word as `report.judgement` and `Effect.verdict` give it.
    """
    word = _STEADIER.get(verdict, "No clear change in steadiness")
    scale = 100 / abs(change.before) if change.before else math.nan
    share, low, high = (number(x * scale, 1, sign=True) for x in (change.difference, change.low, change.high))
    interval = f"; 95 % interval {low} to {high} %" if math.isfinite(change.low) else ""
    return f"{word}: warping error {share} % (change from frame to frame that motion does not explain{interval})."


# --------------------------------------------------------------------------------------------------------- legends

# pattern in the text -> (the term as shown, its explanation), in the order of the legend. Patterns are regular
# expressions over the text of the page without its tags.
TERMS: dict[str, tuple[str, str]] = {
    r"[↑↓]": ("↑ ↓", "higher or lower is better"),
    r"·(?= |$)": ("·", "neither higher nor lower is better in itself: it shows what a change was paid with"),
    r"(?i)\bno good direction": (
        "no good direction",
        "neither higher nor lower is better in itself: it shows what a change was paid with",
    ),
    r"±": ("±", "half the width of the 95 % interval"),
    r"(?i)95 % (confidence )?interval": (
        "95 % interval",
        "the range in which the true mean lies, in 95 of 100 repetitions with other seeds or prompts",
    ),
    r"(?i)no clear change|\bunclear\b": (
        "no clear change",
        "the interval includes zero: the data are compatible with no change at all",
    ),
    r"(?i)\bmaybe (better|worse|more|less)": (
        "maybe better, maybe worse",
        "the interval excludes zero, but the change is not significant after the correction for many tests",
    ),
    r"(?i)\bcorrect(ed|ion)\b": (
        "corrected",
        "with many tests some come out clear by chance; the correction (Holm or Benjamini-Hochberg) allows for that",
    ),
    r"\bp\b(?=,| corrected|$)": ("p", "how probable a difference this large would be if the setting changed nothing"),
    r"(?i)\bpooled\b": (
        "pooled score",
        "the mean change over all measures that have a good direction, in standard deviations; positive is better",
    ),
    r"\bsd\b": ("sd", "standard deviation: how far the plain model's clips lie apart in that measure"),
    r"(?i)win ?/ ?tie ?/ ?loss": (
        "win / tie / loss",
        "pairs of clips that got better, stayed exactly equal, got worse (without a good direction: more, equal, less)",
    ),
    r"(?i)\bweak\b": ("weak", "a model with little training, in which frames take little notice of each other"),
    r"°": ("°", "the interval excludes zero, but the change is not significant after the correction for many tests"),
    r"(?i)\b(mean )?gain\b": (
        "gain",
        "the factor by which an attention layer's output, or with odds the part of it that comes from other frames, "
        "is multiplied; 1 changes nothing",
    ),
    r"(?i)\bmass\b": (
        "cross-frame mass",
        "the share of a frame's attention that goes to other frames: 0 none, 1 all of it",
    ),
    r"(?i)\bclipped\b": ("clipped", "the share of calls in which the gain was cut to the range that is allowed"),
    r"(?i)\bodds\b": (
        "odds",
        "the default setting's knob: by how much the odds are multiplied that attention leaves its own frame; "
        "1 changes nothing",
    ),
    r"(?i)\bstrength\b": ("strength", "in place of odds, the paper's gain on the whole output: at most 1 + strength"),
    r"(?i)\btemperature\b": ("temperature", "the paper's own knob for that gain; its effect depends on the length"),
    r"(?i)\bguidance\b": ("guidance", "how strictly the model follows the prompt (classifier-free guidance scale)"),
    r"(?i)\bseeds?\b": ("seed", "the number that the random initial noise is made from: the same seed, the same noise"),
    r"(?i)\blatent frames?\b": (
        "latent frame",
        "a frame as the model computes it, often for several frames of the video",
    ),
    r"(?i)\bdenoising steps?\b|\bsteps?\b": ("step", "a video is made from noise in steps, the first being all noise"),
    r"(?i)\bthe world’s own clips": (
        "the world’s own clips",
        "drawings of the same scenes by the program that made the embedded model's training videos",
    ),
    r"(?i)\bwarping error\b": (
        "warping error",
        "each frame is moved along the motion found between it and the next; what still differs is the error. "
        "Blur and standing still lower it too",
    ),
    r"(?i)\bsteadiness \(VBench\)": (
        "steadiness (VBench)",
        "1 minus the mean difference of neighbouring frames; a frozen video has 1",
    ),
    r"(?i)\bmotion smoothness\b": (
        "motion smoothness",
        "how well each frame can be predicted from the one before and the one after; 1 is perfect",
    ),
    r"(?i)\bdrift of the mean colour\b": (
        "drift of the mean colour",
        "distance between the mean colours of the first and the last third of the video",
    ),
    r"(?i)\bdE\*ab\b": ("dE*ab", "distance of two colours; a difference of about 2 is just visible"),
    r"(?i)\bfastest motion\b": ("fastest motion", "mean speed of the fastest 5 % of the picture, in % of its side"),
    r"(?i)px/frame(?!\^)": ("px/frame", "pixels from one frame to the next"),
    r"(?i)\bjerk\b": ("jerk", "how abruptly the speed of the objects changes along their paths"),
    r"(?i)\bIoU\b": ("1 − IoU", "share by which an object's outlines in neighbouring frames do not overlap"),
    r"(?i)\bforeground that nothing explains\b": (
        "foreground that nothing explains",
        "share of the picture that is neither the backdrop nor one of the objects in the prompt",
    ),
    r"(?i)\bbackdrop (error|flicker)\b": (
        "backdrop error, flicker",
        "how far the backdrop is from what the prompt describes, and how much it changes from frame to frame",
    ),
    r"(?i)\b(colour|area) drift of the objects\b": (
        "drift of the objects",
        "how much their colours and sizes change over the video",
    ),
    r"(?i)\bshare of full scale\b": ("share of full scale", "1 is the difference between black and white"),
    r"\b1e-[34]\b": ("1e-3, 1e-4", "the numbers are in thousandths, in ten-thousandths"),
    r"(?i)\brequested \w+( \w+)? (right|present)\b": (
        "requested … right",
        "share of what the prompt describes that is found in the video, by a program made for this simple world",
    ),
    r"(?i)\bsharpness\b": ("sharpness", "variance of the picture's second derivative; noise is sharp as well"),
    r"(?i)\bsaturation\b": ("saturation", "how colourful the picture is: 0 grey, 1 pure colours"),
    r"(?i)\bcontrast\b": ("contrast", "standard deviation of the brightness within a frame"),
}


def legend(page: str) -> str:
    """A piece of HTML, followed by the explanations of the terms of `TERMS` that occur in it.

    Returns:
        `page` and a folded list; `page` alone where nothing has to be explained.
    """
    from markupsafe import Markup

    found = terms(page)
    items = "".join(f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in found)
    folded = f'<details class="legend"><summary>What the words and signs mean</summary><dl>{items}</dl></details>'
    return Markup("".join([page, folded if found else ""]))


def terms(page: str) -> list[tuple[str, str]]:
    """(term, explanation) of each of `TERMS` that occurs in the visible text of a piece of HTML or in plain text."""
    text = visible(page)
    return list(dict.fromkeys(row for pattern, row in TERMS.items() if re.search(pattern, text, re.MULTILINE)))


def visible(page: str) -> str:
    """The text of a piece of HTML, a line for each element; scripts and styles are left out."""
    text = re.sub(r"(?s)<(script|style|pre|code)\b.*?</\1>", "\n", page)
    return html.unescape(re.sub(r"(?s)<[^>]*>", "\n", text))
