"""Picture models: no axis of frames, but those of the prompt and of space; for FLUX, SD3, Qwen-Image, PixArt, Lumina 2
and Z-Image."""

from torch import Tensor

from ..attention import Rows, Tokens
from ..errors import TokenLayoutError
from ..progress import Flow, VariancePreserving
from .device_reads import once
from .registry import Arguments, Columns, Config, Model, SelfAttention, register


# ------------------------------------------------------------------------------------------------------- FLUX
def _coordinates(arguments: Arguments) -> Tensor:
    """(N, 3 or 4): number of the picture, row, column of each token of the picture and of reference pictures."""
    ids = arguments.get("img_ids")
    if not isinstance(ids, Tensor):
        raise TokenLayoutError("the forward call did not give 'img_ids', from which the picture's tokens are read")
    return ids[0] if ids.ndim == 3 else ids


def _size(arguments: Arguments) -> tuple[int, int]:
    """Tokens of the picture and columns of its grid; reference pictures lie behind it and have other numbers."""
    ids = _coordinates(arguments)

    def read() -> tuple[int, int]:
        host = ids.long().cpu()  # waited for once
        first = host[host[:, 0] == host[0, 0]]
        return len(first), int(first[:, 2].max() - first[:, 2].min()) + 1

    return once(arguments["img_ids"], "size", read)


def _columns(config: Config, arguments: Arguments) -> int:
    return _size(arguments)[1]


def _picture(config: Config, arguments: Arguments) -> Rows:
    tokens = _size(arguments)[0]
    return None if tokens == arguments["hidden_states"].shape[1] else slice(0, tokens)


def _text(arguments: Arguments) -> int:
    return arguments["encoder_hidden_states"].shape[1]


def _picture_behind_text(config: Config, arguments: Arguments) -> Rows:
    return slice(_text(arguments), _text(arguments) + _size(arguments)[0])


def _behind_text(config: Config, arguments: Arguments) -> slice:
    return slice(_text(arguments), None)


_DOUBLE = SelfAttention(
    names=r"^transformer_blocks\.\d+\.attn$",
    tokens=Tokens("text first"),
    frames=None,
    columns=_columns,
    video=_picture,
)
_SINGLE = SelfAttention(
    names=r"^single_transformer_blocks\.\d+\.attn$",
    tokens=Tokens("video only"),
    frames=None,
    columns=_columns,
    video=_picture_behind_text,
    stream=_behind_text,
)

register(Model(
    name="FLUX",
    transformer="FluxTransformer2DModel",
    attention=(_DOUBLE, _SINGLE),
    noise=None,
    checkpoints=(
        "black-forest-labs/FLUX.1-dev", "black-forest-labs/FLUX.1-schnell", "black-forest-labs/FLUX.1-Kontext-dev",
    ),
    makes="pictures",
    notes="the tokens of reference pictures (Kontext) are neither counted nor changed",
    tested=("flux", "flux_kontext"),
))  # fmt: skip

register(Model(
    name="FLUX.2",
    transformer="Flux2Transformer2DModel",
    attention=(_DOUBLE, _SINGLE),
    noise=None,
    checkpoints=("black-forest-labs/FLUX.2-dev",),
    makes="pictures",
    notes="the tokens of reference pictures are neither counted nor changed; cached ones are not tried",
    tested=("flux2",),
))  # fmt: skip


# ------------------------------------------------------------------------------------------------- the others
register(Model(
    name="Stable Diffusion 3",
    transformer="SD3Transformer2DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn$",
        tokens=Tokens("video first"),
        frames=None,
        columns=Columns(),
    ),),
    noise=Flow(shift=3.0),
    checkpoints=("stabilityai/stable-diffusion-3.5-medium", "stabilityai/stable-diffusion-3.5-large"),
    makes="pictures",
    notes="the second attention of some blocks, to the picture alone, is left as it is",
    tested=("sd3",),
))  # fmt: skip


def _qwen_columns(config: Config, arguments: Arguments) -> int:
    shapes = arguments["img_shapes"]
    first = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
    return int(first[2])


def _qwen_picture(config: Config, arguments: Arguments) -> Rows:
    shapes = arguments["img_shapes"]
    frames, rows, columns = shapes[0][0] if isinstance(shapes[0], list) else shapes[0]
    tokens = frames * rows * columns
    return None if tokens == arguments["hidden_states"].shape[1] else slice(0, tokens)


register(Model(
    name="Qwen-Image",
    transformer="QwenImageTransformer2DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn$",
        tokens=Tokens("text first"),
        frames=None,
        columns=_qwen_columns,
        video=_qwen_picture,
    ),),
    noise=None,
    checkpoints=("Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit"),
    makes="pictures",
    notes="the tokens of pictures that are edited lie behind and are neither counted nor changed",
    tested=("qwen_image", "qwen_image_edit"),
))  # fmt: skip

register(Model(
    name="PixArt",
    transformer="PixArtTransformer2DModel",
    attention=(SelfAttention(
        names=r"^transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("video only"),
        frames=None,
        columns=Columns(),
    ),),
    noise=VariancePreserving(),
    checkpoints=("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "PixArt-alpha/PixArt-XL-2-1024-MS"),
    makes="pictures",
    notes="the prompt's cross-attention masks its padding, so it has no other keys",
    tested=("pixart",),
))  # fmt: skip


# --------------------------------------------------------------------------------------------------- Lumina 2
def _words_in_front(config: Config, arguments: Arguments) -> int:
    """The prompt's length without its padding, which is left out; one for all samples."""
    mask = arguments["encoder_attention_mask"]

    def read() -> int:
        lengths = set(mask.sum(1).tolist())  # waited for once
        if len(lengths) > 1:
            raise TokenLayoutError(
                "the prompts of one call have different lengths, so that the pictures begin at different tokens: "
                "make one prompt a call"
            )
        return int(lengths.pop())

    return once(mask, "length", read)


def _lumina_picture(config: Config, arguments: Arguments) -> Rows:
    rows, columns = (side // config["patch_size"] for side in arguments["hidden_states"].shape[-2:])
    return slice(_words_in_front(config, arguments), _words_in_front(config, arguments) + rows * columns)


def _lumina_stream(config: Config, arguments: Arguments) -> slice:
    return slice(_words_in_front(config, arguments), None)


register(Model(
    name="Lumina 2",
    transformer="Lumina2Transformer2DModel",
    attention=(SelfAttention(
        names=r"^layers\.\d+\.attn$",
        tokens=Tokens("video only"),
        frames=None,
        columns=Columns(),
        video=_lumina_picture,
        stream=_lumina_stream,
    ),),
    noise=None,
    makes="pictures",
    checkpoints=("Alpha-VLLM/Lumina-Image-2.0",),
    notes="prompts of different lengths in one call are refused; the refiners before the joint layers stay as they are",
    tested=("lumina2",),
))  # fmt: skip


# ---------------------------------------------------------------------------------------------------- Z-Image
_PADDED_TO = 32  # tokens: pictures and prompts are padded to a multiple of it


def _z_grid(arguments: Arguments) -> tuple[int, int]:
    """(rows, columns) of tokens."""
    pictures = arguments["x"]
    if isinstance(pictures[0], list):
        raise TokenLayoutError("several pictures in one call (Omni) are not tried")
    if len({picture.shape for picture in pictures}) > 1:
        raise TokenLayoutError("the pictures of one call have different sizes: make one size a call")
    patch = arguments.get("patch_size", 2)
    return pictures[0].shape[-2] // patch, pictures[0].shape[-1] // patch


def _z_columns(config: Config, arguments: Arguments) -> int:
    return _z_grid(arguments)[1]


def _z_picture(config: Config, arguments: Arguments) -> Rows:
    rows, columns = _z_grid(arguments)
    return slice(0, rows * columns)


def _z_stream(config: Config, arguments: Arguments) -> slice:
    rows, columns = _z_grid(arguments)
    return slice(0, -(-rows * columns // _PADDED_TO) * _PADDED_TO)


register(Model(
    name="Z-Image",
    transformer="ZImageTransformer2DModel",
    attention=(SelfAttention(
        names=r"^layers\.\d+\.attention$",
        tokens=Tokens("video only"),
        frames=None,
        columns=_z_columns,
        video=_z_picture,
        stream=_z_stream,
    ),),
    noise=None,
    makes="pictures",
    timestep="",
    batch=lambda config, arguments: len(arguments["x"]),
    checkpoints=("Tongyi-MAI/Z-Image", "Tongyi-MAI/Z-Image-Turbo"),
    notes="the refiners before the joint layers stay as they are; several pictures in one call (Omni) are refused",
    tested=("z_image",),
))  # fmt: skip
