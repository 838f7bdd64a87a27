"""Attention: fused projections, and every attention backend of diffusers that runs here. Which of them a machine has
is up to its packages and its accelerator; a backend that does not run for the plain model either is listed with what
it says is missing.
"""

import contextlib
import warnings

import pytest
import torch
from cells import cells
from common import FAMILIES, ON, acts, by_hand, check, enhanced_output, run, same
from diffusers.models.attention_dispatch import AttentionBackendName, attention_backend
from torch.nn.attention import SDPBackend, sdpa_kernel

from enhance_a_video import enhance
from enhance_a_video.errors import EnhancementLostWarning

ROWS = {  # row -> the backends in it, and what they need
    "native": (("native",), "torch"),
    "_native_math": (("_native_math",), "torch"),
    "_native_flash": (("_native_flash",), "torch"),
    "flex": (("flex",), "torch 2.5 or newer"),
    "_native_efficient, _native_cudnn": (("_native_efficient", "_native_cudnn"), "a CUDA device"),
    "flash, flash_varlen, _flash_3, _flash_varlen_3": (
        ("flash", "flash_varlen", "_flash_3", "_flash_varlen_3"), "flash-attn or flash-attn-3 and a CUDA device",
    ),
    "flash_hub, …, aiter_fa2_hub, sage_hub, sage_blackwell_hub": (
        ("flash_hub", "flash_varlen_hub", "flash_4_hub", "_flash_3_hub", "_flash_3_varlen_hub", "aiter_fa2_hub",
         "sage_hub", "sage_blackwell_hub"),
        "the package kernels, a download of the kernel and a CUDA or ROCm device",
    ),
    "sage, sage_varlen, _sage_qk_…": (
        ("sage", "sage_varlen", "_sage_qk_int8_pv_fp8_cuda", "_sage_qk_int8_pv_fp8_cuda_sm90",
         "_sage_qk_int8_pv_fp16_cuda", "_sage_qk_int8_pv_fp16_triton"),
        "sageattention and a CUDA device",
    ),
    "xformers": (("xformers",), "xformers and a CUDA device"),
    "_native_npu, _native_xla": (("_native_npu", "_native_xla"), "torch_npu and an NPU, torch_xla and a TPU"),
}  # fmt: skip
KERNELS = {  # CogVideoX's processor calls torch's own attention, whose kernel is set in torch
    "_native_math": SDPBackend.MATH, "_native_flash": SDPBackend.FLASH_ATTENTION,
    "_native_efficient": SDPBackend.EFFICIENT_ATTENTION, "_native_cudnn": SDPBackend.CUDNN_ATTENTION,
}  # fmt: skip


def test_every_backend_of_diffusers_is_in_a_row():
    assert {b.value for b in AttentionBackendName} == {name for names, _ in ROWS.values() for name in names}


# ------------------------------------------------------------------------------------------- fused projections
NO_FUSION = "`fuse_qkv_projections()` changes nothing in this class"


def fused(family, model):
    return any(hasattr(m, "to_qkv") for m in family.modules(model).values())


@cells("fused QKV, before")
def test_fused_before(column, not_in_diffusers):
    """`fuse_qkv_projections()`, then enhanced: the enhanced model that is not fused, to 1e-5."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    twin = family.tiny.model()
    reference = enhanced_output(twin, lambda: run(twin, x))
    model.fuse_qkv_projections()
    if not fused(family, model):
        not_in_diffusers(NO_FUSION)
        return
    check(model, lambda: run(model, x), reference)


@cells("fused QKV, while enhanced")
def test_fused_while_enhanced(column, remark, not_in_diffusers):
    """Enhanced, then fused, run, unfused and run: both equal to the enhanced model before, to 1e-5; and after
    `remove()` the plain output, to the bit."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    plain = run(model, x)
    with enhance(model, **ON), warnings.catch_warnings():
        warnings.simplefilter("ignore", EnhancementLostWarning)
        expected = run(model, x)
        model.fuse_qkv_projections()
        fusion = fused(family, model)
        assert same(run(model, x), expected)
        model.unfuse_qkv_projections()
        assert same(run(model, x), expected) and acts(expected, plain)
    assert torch.equal(run(model, x), plain)
    if not fusion:
        not_in_diffusers(NO_FUSION)
    elif column == "CogVideoX":
        remark("diffusers puts other processors in place: they are followed, with an `EnhancementLostWarning`")


# --------------------------------------------------------------------------------------------------- backends
@contextlib.contextmanager
def backend(column, model, name):
    """As users choose a backend. Raises what diffusers or torch raises when it does not run here."""
    if column == "CogVideoX":
        with sdpa_kernel(KERNELS[name]) if name in KERNELS else contextlib.nullcontext():
            yield
        return
    with attention_backend(
        "native"
    ):  # puts the process-wide choice back, which set_attention_backend() changes as well
        model.set_attention_backend(name)
        try:
            yield
        finally:
            model.reset_attention_backend()


def check_backend(column, name):
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    with by_hand(family, model):
        reference = run(model, x)
    with backend(column, model, name):
        check(model, lambda: run(model, x), reference)
    with enhance(model, **ON) as handle, backend(column, model, name):
        assert same(run(model, x), reference)
    assert handle.summary().gain.min() > 1


def lacking(column, name):
    """Why the plain model does not run with a backend, in diffusers' or torch's words; None when it does."""
    family = FAMILIES[column]
    model = family.tiny.model()
    try:
        with backend(column, model, name):
            run(model, family.tiny.inputs())
    except (RuntimeError, ValueError, ImportError) as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("row", "column"),
    [pytest.param(r, c, marks=pytest.mark.cell(f"backend {r}", c)) for r in ROWS for c in FAMILIES],
)
def test_backend(row, column, not_in_diffusers, remark):
    """`set_attention_backend(...)` before and after `enhance()`: the output written out by hand on the native
    backend, to 1e-5; every layer was seen."""
    names, needs = ROWS[row]
    if column == "CogVideoX" and not set(names) & {"native", *KERNELS}:
        assert not hasattr(FAMILIES[column].tiny.model().transformer_blocks[0].attn1.processor, "_attention_backend")
        not_in_diffusers("diffusers' CogVideoX processor calls torch's attention directly and ignores this backend")
        return
    refused = {name: lacking(column, name) for name in names}
    for name in (n for n in names if refused[n] is None):
        check_backend(column, name)
    if any("attn_mask` is not supported" in (words or "") for words in refused.values()):
        not_in_diffusers("this backend takes no mask, and the class passes one")
    elif all(refused.values()):
        pytest.skip(f"needs {needs}")
    elif column == "CogVideoX" and row in KERNELS:
        remark("chosen with torch's `sdpa_kernel`: diffusers' CogVideoX processor calls torch's attention directly")
