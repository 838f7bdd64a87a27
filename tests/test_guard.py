"""The table cannot go stale in silence: video classes of the installed diffusers without a row fail here by name.

What counts as one is read off diffusers' source, so that nothing optional has to be importable: the transformers and
UNets that a video pipeline takes, modular ones included, and model classes that know frames.
"""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import diffusers
import pytest
from packaging.version import Version
from tiny_models import IMAGES, SOUNDS, TINY
from tiny_models.base import absent

from enhance_a_video.models import known_models
from enhance_a_video.models.table import REGENERATE, page

DIFFUSERS = Path(importlib.util.find_spec("diffusers").origin).parent
PAGE = Path(__file__).parent.parent / "docs" / "reference" / "models.md"

# Classes that the search finds and that need no row, and why.
LEFT_OUT = {
    "UNet2DConditionModel": "AnimateDiff's pipelines make a UNetMotionModel of it",
    "UNet2DModel": "pictures",
    "MotionAdapter": "a carrier of weights for UNetMotionModel",
    "TransformerTemporalModel": "a part of UNets; their rows name its attention layers",
    "TransformerSpatioTemporalModel": "a part of UNetSpatioTemporalConditionModel",
    "HunyuanImageTransformer2DModel": "pictures; its blocks are those of HunyuanVideo",
    "JoyImageEditTransformer3DModel": "edits pictures",
    "JoyImageEditPlusTransformer3DModel": "edits pictures",
    "MiniMaxMusic3Transformer1DModel": "music",
    "MiniMaxMusic3RVQDepthDecoder": "music",
}

FRAMES = {"num_frames", "video_length", "video", "videos"}


def sources(folder, about):
    """The files that have to do with something."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))
    return [text for text in texts if re.search(about, text)]


def class_definitions(texts):
    return [node for text in texts for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]


def words(node):
    """Names and the identifiers inside string annotations."""
    if node is None:
        return set()
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found | {word for text in texts for word in re.findall(r"\w+", text)}


def method(definition, name):
    return next((n for n in definition.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def of_pipelines(root):
    """Models that a pipeline takes whose call has to do with frames or returns them."""
    classes = class_definitions(sources(root / "pipelines", r"frames|video"))
    outputs = {
        c.name
        for c in classes
        if any(isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "frames" for n in c.body)
    }
    for pipeline in classes:
        init, call = method(pipeline, "__init__"), method(pipeline, "__call__")
        if init is None or call is None:
            continue
        if outputs & words(call) or FRAMES & {a.arg for a in [*call.args.args, *call.args.kwonlyargs]}:
            for argument in init.args.args:
                if argument.arg.startswith(("transformer", "unet")):
                    yield from words(argument.annotation)


def of_modular_pipelines(root):
    for package in (root / "modular_pipelines").glob("*/"):
        texts = sources(package, "")
        if any(re.search(rf"\b({'|'.join(FRAMES)})\b", text) for text in texts):
            for text in texts:
                yield from re.findall(r'ComponentSpec\(\s*"(?:transformer|unet)\w*",\s*(\w+)', text)


def of_names_and_code(root):
    """Model classes that are called after video or mention frames."""
    for folder in ("transformers", "unets"):
        for definition in class_definitions(sources(root / "models" / folder, "ModelMixin")):
            if not any("ModelMixin" in ast.unparse(base) for base in definition.bases):
                continue
            named = re.search(r"3D(?!i)|Video|Motion|Temporal", definition.name)
            if named or re.search(r"\b(num_)?frames\b", ast.unparse(definition)):
                yield definition.name


@functools.cache
def video_classes(root):
    found = {*of_pipelines(root), *of_modular_pipelines(root), *of_names_and_code(root)}
    return {name for name in found if re.match(r"[A-Z]\w*(Transformer|UNet|Model|Motion)", name)}


def test_every_video_class_of_diffusers_has_a_row_or_a_reason():
    rows = {family.transformer for family in known_models()}
    assert not rows & set(LEFT_OUT)
    found = video_classes(DIFFUSERS)
    assert len(found) > 20  # the search has not gone blind
    gaps = sorted(found - rows - set(LEFT_OUT))
    assert not gaps, f"diffusers {diffusers.__version__} has classes without a row (docs/guide/add-a-model.md): {gaps}"


def test_the_search_finds_every_row_that_diffusers_has():
    videos = [row for row in known_models() if row.makes == "videos"]
    present = {row.transformer for row in videos if hasattr(diffusers, row.transformer)}
    assert present and present - video_classes(DIFFUSERS) == set()


@pytest.mark.parametrize("path, source, found", [
    ("pipelines/new/pipeline_new.py", '''
class NewPipelineOutput:
    frames: list
class NewPipeline:
    def __init__(self, vae: AutoencoderKL, transformer: "NewTransformerModel | None" = None): ...
    def __call__(self, prompt): return NewPipelineOutput(frames=[])
''', {"NewTransformerModel"}),
    ("pipelines/new/pipeline_image.py", '''
class ImagePipeline:
    def __init__(self, transformer: ImageTransformerModel): ...
    def __call__(self, prompt): ...
''', set()),
    ("modular_pipelines/new/blocks.py", '''
class Denoise:
    components = [ComponentSpec("transformer", NewTransformerModel), ComponentSpec("vae", AutoencoderModel)]
    inputs = [InputParam("num_frames")]
''', {"NewTransformerModel"}),
    ("models/transformers/transformer_new.py", '''
class NewTransformerModel(ModelMixin):
    def forward(self, hidden_states):
        batch, channels, num_frames, height, width = hidden_states.shape
''', {"NewTransformerModel"}),
])  # fmt: skip
def test_the_search_finds_a_new_class(tmp_path, path, source, found):
    for folder in ("pipelines", "modular_pipelines", "models/transformers", "models/unets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(source)
    assert video_classes(tmp_path) == found


@pytest.mark.skipif(Version(diffusers.__version__) < Version("0.42"), reason="older than the newest that was tested")
def test_no_variant_is_skipped_with_the_newest_diffusers():
    assert [tiny.absent for tiny in TINY.values() if tiny.absent] == []
    assert [absent(f.transformer) for f in known_models() if absent(f.transformer)] == []


# ------------------------------------------------------------------------------------------------ the page
def test_the_page_is_made_of_the_rows():
    assert PAGE.read_text(encoding="utf-8") == page(), f"{PAGE.name} is stale: {REGENERATE}"


@pytest.mark.parametrize("family", known_models(), ids=lambda f: f.name)
def test_what_a_row_calls_tested_is(family):
    every = {**TINY, **IMAGES, **SOUNDS}
    variants = tuple(name for name, tiny in every.items() if tiny.transformer == family.transformer)
    assert family.tested == variants and bool(variants) != bool(family.refused)
