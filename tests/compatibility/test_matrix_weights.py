"""Weights: adapters, quantised and casted weights, offloading. The reference is always another plain model whose
weights were computed by hand from the same numbers (the adapter merged, the quantised weight read back), enhanced.
"""

import copy
import dataclasses

import pytest
import torch
from cells import cells
from common import CLOSE, FAMILIES, ON, acts, check, enhanced_output, generate, run, same
from diffusers import (
    BitsAndBytesConfig,
    GGUFQuantizationConfig,
    LTXVideoTransformer3DModel,
    TorchAoConfig,
)
from tiny_models import TEXT, noise
from tiny_models.cogvideox import cog
from tiny_models.hunyuan import hunyuan
from tiny_models.ltx import LTX
from tiny_models.wan import wan

from enhance_a_video import enhance

RANK, SCALE = 3, 0.7


# ------------------------------------------------------------------------------------------------------- LoRA
def lora(family, model, seed=0):
    """A LoRA on the query, key and value projections, as a state dict of diffusers' format; alpha is the rank."""
    found = {}
    generator = torch.Generator().manual_seed(seed)
    for name, module in family.modules(model).items():
        for projection in ("to_q", "to_k", "to_v"):
            out, into = getattr(module, projection).weight.shape
            key = f"transformer.{name}.{projection}"
            found[f"{key}.lora_A.weight"] = 0.3 * torch.randn(RANK, into, generator=generator)
            found[f"{key}.lora_B.weight"] = 0.3 * torch.randn(out, RANK, generator=generator)
    return found


def merged(model, adapter, scale=1.0):
    """A plain copy with the adapter added to its weights by hand."""
    twin = copy.deepcopy(model)
    weights = dict(twin.named_parameters())
    for key, a in adapter.items():
        if key.endswith(".lora_A.weight"):
            name = key.removeprefix("transformer.").removesuffix(".lora_A.weight")
            weights[f"{name}.weight"].data += scale * adapter[key.replace("lora_A", "lora_B")] @ a
    return twin


@pytest.fixture
def adapted(column):
    """(pipeline with the plain transformer, its adapter, a forward call, enhanced references by scale)."""
    pytest.importorskip("peft", reason="needs pip install peft")
    family = FAMILIES[column]
    pipe, _ = family.pipeline()
    adapter = lora(family, pipe.transformer)
    x = family.tiny.inputs()
    references = {}
    for scale in (0.0, SCALE, 1.0):
        twin = merged(pipe.transformer, adapter, scale)
        references[scale] = enhanced_output(twin, lambda twin=twin: run(twin, x))
    assert not same(references[1.0], references[0.0], 1e-3)
    return pipe, adapter, lambda: run(pipe.transformer, x), references


@cells("LoRA (PEFT), loaded before")
def test_lora_before(adapted):
    """`pipe.load_lora_weights(...)`, then enhanced: the adapter merged by hand; also at a scale of 0.7 by
    `set_adapters`, to 1e-5."""
    pipe, adapter, call, references = adapted
    pipe.load_lora_weights(dict(adapter), adapter_name="style")
    check(pipe.transformer, call, references[1.0], target=pipe)
    pipe.set_adapters("style", SCALE)
    check(pipe.transformer, call, references[SCALE], target=pipe)


@cells("LoRA (PEFT), loaded while enhanced")
def test_lora_while_enhanced(adapted):
    """Enhanced, then loaded, scaled and unloaded: merged by hand at each scale, to 1e-5, and the enhanced output
    without it; after `remove()` the plain output to the bit."""
    pipe, adapter, call, references = adapted
    plain = call()
    with enhance(pipe, **ON):
        assert same(call(), references[0.0])
        pipe.load_lora_weights(dict(adapter), adapter_name="style")
        assert same(call(), references[1.0])
        pipe.set_adapters("style", SCALE)
        assert same(call(), references[SCALE])
        pipe.unload_lora_weights()
        assert same(call(), references[0.0]) and acts(call(), plain)
    assert torch.equal(call(), plain)


@cells("LoRA, fused")
def test_lora_fused(adapted):
    """Loaded and `fuse_lora()`: enhanced after and before fusing, then `unfuse_lora()` while enhanced: merged by
    hand, to 1e-5."""
    pipe, adapter, call, references = adapted
    plain = call()
    pipe.load_lora_weights(dict(adapter))
    with enhance(pipe, **ON):
        pipe.fuse_lora()
        assert same(call(), references[1.0])
        pipe.unfuse_lora()
        assert same(call(), references[1.0])
    pipe.fuse_lora()
    check(pipe.transformer, call, references[1.0], target=pipe)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert same(call(), plain)


# ------------------------------------------------------------------------------------------------ quantisation
@cells("torchao int8 weight-only, `quantize_` before")
def test_torchao(column):
    """torchao's `quantize_(model, Int8WeightOnlyConfig())`, then enhanced: a plain model with the dequantised
    weights, to 1e-5."""
    quantization = pytest.importorskip("torchao.quantization", reason="needs pip install torchao")
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    twin = read_back(family.tiny.model(), model)
    check(model, lambda: run(model, x), enhanced_output(twin, lambda: run(twin, x)))


def read_back(twin, model):
    """The twin with the model's weights, quantised ones as plain numbers."""
    changed = 0
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None and hasattr(weight, "dequantize") and type(weight) is not torch.nn.Parameter:
            twin.get_submodule(name).weight.data = weight.dequantize().float()
            changed += 1
    assert changed > 4
    return twin


@cells("torchao int8, while enhanced")
def test_torchao_while_enhanced(column):
    """Enhanced, then quantised in place: the same reference; after `remove()` the plain output of the quantised
    model."""
    quantization = pytest.importorskip("torchao.quantization", reason="needs pip install torchao")
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    with enhance(model, **ON):
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
        enhanced = run(model, x)
    twin = read_back(family.tiny.model(), model)
    assert same(enhanced, enhanced_output(twin, lambda: run(twin, x)))
    assert same(run(model, x), run(twin, x)) and acts(enhanced, run(model, x))


# Quantised files come in blocks of 32 numbers: a little wider than the other tiny models. With the width of the text.
WIDE = {
    "CogVideoX": (lambda: cog(use_rotary_positional_embeddings=True), 8),
    "Wan": (lambda: wan(num_attention_heads=2, attention_head_dim=32, text_dim=64, freq_dim=64, ffn_dim=64), 64),
    "HunyuanVideo": (
        lambda: hunyuan(attention_head_dim=32, rope_axes_dim=(8, 12, 12), text_embed_dim=64), 64,
    ),
    "LTX-Video": (
        lambda: LTXVideoTransformer3DModel(
            **{**LTX, "attention_head_dim": 32, "cross_attention_dim": 64, "caption_channels": 64}
        ), 64,
    ),
}  # fmt: skip


def wide(column):
    """A plain model and its inputs, with rows of a multiple of 32 numbers."""
    build, text = WIDE[column]
    tiny = dataclasses.replace(FAMILIES[column].tiny, build=build)
    x = {**FAMILIES[column].tiny.inputs(), "encoder_hidden_states": noise(2, TEXT, text, seed=1)}
    return tiny.model(), x


@cells("torchao int8, `from_pretrained`")
def test_torchao_from_pretrained(column, tmp_path):
    """Loaded with `quantization_config=TorchAoConfig(Int8WeightOnlyConfig())`, then enhanced: dequantised, to 1e-5."""
    quantization = pytest.importorskip("torchao.quantization", reason="needs pip install torchao")
    plain, x = wide(column)
    plain.save_pretrained(tmp_path)
    config = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    model = type(plain).from_pretrained(tmp_path, quantization_config=config, torch_dtype=torch.float32)
    twin = read_back(plain, model)
    check(model, lambda: run(model, x), enhanced_output(twin, lambda: run(twin, x)))


@cells("GGUF, `from_single_file`")
def test_gguf(column, tmp_path, not_in_diffusers):
    """A Q8_0 file written by the package gguf, read with `GGUFQuantizationConfig`, then enhanced: a plain model with
    the weights as diffusers reads them back, to 1e-5."""
    gguf = pytest.importorskip("gguf", reason="needs pip install gguf")
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor

    plain, x = wide(column)
    if not hasattr(plain, "from_single_file"):
        not_in_diffusers("this class is not read from single files")
        return
    plain.save_pretrained(tmp_path)
    kind = gguf.GGMLQuantizationType.Q8_0
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "video")
    for name, weight in plain.state_dict().items():
        if name.endswith(".weight") and weight.ndim == 2 and weight.shape[-1] % 32 == 0 and "blocks." in name:
            writer.add_tensor(name, gguf.quants.quantize(weight.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, weight.numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    model = type(plain).from_single_file(
        tmp_path / "model.gguf", config=str(tmp_path), torch_dtype=torch.float32,
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
    )  # fmt: skip
    twin = copy.deepcopy(plain)
    packed = {n: p for n, p in model.named_parameters() if isinstance(p, GGUFParameter) and p.dtype == torch.uint8}
    assert len(packed) > 4
    for name, weight in packed.items():
        twin.get_parameter(name).data = dequantize_gguf_tensor(weight).float()
    check(model, lambda: run(model, x), enhanced_output(twin, lambda: run(twin, x)))


HALF = ("hidden_states", "encoder_hidden_states", "pooled_projections", "guidance")


@cells("bitsandbytes, `from_pretrained`")
@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes(column, bits, tmp_path):
    """Loaded in 8 and in 4 bits, then enhanced: it acts and is undone."""
    pytest.importorskip(
        "bitsandbytes", reason="needs bitsandbytes and a CUDA device: diffusers loads with it on no other"
    )
    if not torch.cuda.is_available():
        pytest.skip("needs bitsandbytes and a CUDA device: diffusers loads with it on no other")
    plain, x = wide(column)
    plain.half().save_pretrained(tmp_path)
    config = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    model = type(plain).from_pretrained(tmp_path, quantization_config=config, torch_dtype=torch.float16)
    x = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in x.items()}
    x = {k: v.half() if k in HALF else v for k, v in x.items()}
    check(model, lambda: run(model, x))


# ---------------------------------------------------------------------------------------- casting, offloading
@cells("layerwise casting (fp8 storage)")
def test_layerwise_casting(column):
    """`enable_layerwise_casting(float8_e4m3fn)` before and while enhanced: a plain model whose weights went through
    fp8 and back, to 1e-5."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    later = family.tiny.model()
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    twin = family.tiny.model()
    stored = {n: p for n, p in model.named_parameters() if p.dtype == torch.float8_e4m3fn}
    assert stored
    for name, p in twin.named_parameters():
        if name in stored:
            p.data = stored[name].float()
    reference = enhanced_output(twin, lambda: run(twin, x))
    check(model, lambda: run(model, x), reference)
    with enhance(later, **ON):
        later.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
        assert same(run(later, x), reference)
    assert torch.equal(run(later, x), run(model, x))


@cells("group offload")
@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offload(column, kind):
    """`enable_group_offload` in blocks and in leaves, before and while enhanced: the enhanced output without it, to
    the bit."""
    family = FAMILIES[column]
    model, later, x = family.tiny.model(), family.tiny.model(), family.tiny.inputs()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    twin = family.tiny.model()
    reference = enhanced_output(twin, lambda: run(twin, x))

    def offload(model):
        model.enable_group_offload(
            onload_device=device, offload_device=torch.device("cpu"), offload_type=kind, num_blocks_per_group=1
        )

    def call(model):
        return run(model, {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in x.items()}).cpu()

    offload(model)
    result = check(model, lambda: call(model), reference, tolerance=0.0 if device.type == "cpu" else CLOSE)
    with enhance(later, **ON):
        offload(later)
        assert torch.equal(call(later), result.enhanced)


@cells("group offload to disk")
def test_group_offload_to_disk(column, tmp_path):
    """The same in leaves with `offload_to_disk_path`."""
    family = FAMILIES[column]
    model, x = family.tiny.model(), family.tiny.inputs()
    twin = family.tiny.model()
    cpu = torch.device("cpu")
    model.enable_group_offload(
        onload_device=cpu, offload_device=cpu, offload_type="leaf_level", offload_to_disk_path=str(tmp_path)
    )
    assert any(tmp_path.iterdir())
    check(model, lambda: run(model, x), enhanced_output(twin, lambda: run(twin, x)))


@cells("model offload, sequential offload")
@pytest.mark.parametrize("kind", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offload(column, kind):
    """`pipe.enable_model_cpu_offload()` and `pipe.enable_sequential_cpu_offload()`, before and while enhanced."""
    if not torch.cuda.is_available():
        pytest.skip("needs an accelerator (CUDA)")
    family = FAMILIES[column]
    pipe, prompt = family.pipeline()
    later, _ = family.pipeline()
    getattr(pipe, kind)()
    result = check(pipe.transformer, lambda: generate(pipe, **prompt).cpu(), target=pipe)
    with enhance(later, **ON):
        getattr(later, kind)()
        assert same(generate(later, **prompt).cpu(), result.enhanced)


def test_the_wide_models_are_of_the_families():
    assert {c: type(wide(c)[0]) for c in WIDE} == {c: type(f.tiny.model()) for c, f in FAMILIES.items()}
