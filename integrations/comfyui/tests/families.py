"""The native families that the tests run, each as tiny as its code allows. dict(): the arguments of their classes."""
# ruff: noqa: C408

import torch

from .real import Family

WAN = dict(dim=48, ffn_dim=64, freq_dim=32, text_dim=32, num_heads=2, num_layers=2, in_dim=16, out_dim=16)
HUNYUAN = dict(
    in_channels=16, out_channels=16, vec_in_dim=16, context_in_dim=32, hidden_size=48, mlp_ratio=2.0, num_heads=2,
    depth=1, depth_single_blocks=1, axes_dim=[8, 8, 8], theta=256, patch_size=[1, 2, 2], qkv_bias=True,
    guidance_embed=True, byt5=False, meanflow=False, meanflow_sum=False, use_cond_type_embedding=False,
    vision_in_dim=None,
)  # fmt: skip
LTX = dict(in_channels=128, cross_attention_dim=48, attention_head_dim=24, num_attention_heads=2, caption_channels=32,
           num_layers=2)  # fmt: skip
LTX_2 = dict(
    LTX, audio_cross_attention_dim=32, audio_attention_head_dim=16, audio_num_attention_heads=2,
    connector_attention_head_dim=16, connector_num_attention_heads=2, connector_num_layers=1,
)  # fmt: skip
COSMOS = dict(
    max_img_h=32, max_img_w=32, max_frames=16, in_channels=16, out_channels=16, patch_spatial=2, patch_temporal=1,
    concat_padding_mask=True, model_channels=48, num_blocks=2, num_heads=2, mlp_ratio=2.0, crossattn_emb_channels=32,
    pos_emb_cls="rope3d", pos_emb_learnable=False, pos_emb_interpolation="crop", use_adaln_lora=True, adaln_lora_dim=8,
    extra_per_block_abs_pos_emb=False,
)  # fmt: skip
COSMOS_1 = {
    **COSMOS, "block_config": "FA-CA-MLP", "block_x_format": "THWBD", "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb": True, "extra_per_block_abs_pos_emb_type": "learnable",
}  # fmt: skip

MASKED = {"attention_mask": torch.ones(1, 7, dtype=torch.int64)}


def reference(frames: int = 1, channels: int = 16, height: int = 6, width: int = 8) -> torch.Tensor:
    return torch.randn(1, channels, frames, height, width, generator=torch.Generator().manual_seed(9))


def guided(strength: float = 1.0) -> dict:
    """The last latent frame is a guide for the first, as LTXVAddGuide puts it there."""
    entry = {"pre_filter_count": 12, "strength": strength, "latent_shape": [1, 3, 4]}
    coordinates = torch.zeros(1, 3, 12, 2)
    return {**MASKED, "keyframe_idxs": coordinates, "guide_attention_entries": [entry],
            "concat_mask": torch.ones(1, 1, 6, 3, 4)}  # fmt: skip


def _vace() -> dict:
    """One reference image in front, then a control video that is to be changed everywhere."""
    frames, mask = reference(6, 32), torch.ones(1, 64, 6, 6, 8)
    frames[:, 16:, :1], mask[:, :, :1] = 0.0, 0.0
    return {"vace_frames": [_as_output(frames)], "vace_mask": [mask], "vace_strength": [1.0]}


def _scail_2() -> dict:
    """Two reference images with a mask each, a pose and its mask; masks are (1, frames, 28, height, width)."""
    masks = torch.zeros(1, 7, 28, 6, 8)  # two references, then the video's five frames, which have none
    masks[:, :2, :14] = 1.0
    return {"reference_latents": [reference(), reference() + 1.0], "pose_video_latent": reference(5, 16, 4, 4),
            "ref_mask_28ch": masks, "driving_mask_28ch": torch.ones(1, 5, 28, 4, 4)}  # fmt: skip


def _as_output(latent: torch.Tensor) -> torch.Tensor:
    """What ComfyUI's process_latent_in turns into `latent`."""
    import comfy.latent_formats

    wan = comfy.latent_formats.Wan21()
    return torch.cat([wan.process_out(part) for part in latent.split(16, 1)], 1)


COGVIDEO = dict(
    num_attention_heads=2, attention_head_dim=32, in_channels=16, out_channels=16, time_embed_dim=32,
    text_embed_dim=32, num_layers=2, sample_width=8, sample_height=6, sample_frames=17, max_text_seq_length=7,
    use_rotary_positional_embeddings=True,
)  # fmt: skip

FAMILIES = (
    Family("Wan T2V", "WAN21_T2V", WAN, (16, 5, 6, 8), (5, 12)),
    Family("Wan 2.2 TI2V", "WAN22_T2V", {**WAN, "in_dim": 48, "out_dim": 48}, (48, 5, 6, 8), (5, 12)),
    Family("Wan I2V", "WAN21_I2V", {**WAN, "in_dim": 36}, (16, 5, 6, 8), (5, 12)),
    Family("Wan, odd size", "WAN21_T2V", WAN, (16, 5, 7, 5), (5, 12)),
    Family("Wan, as many text tokens as video tokens", "WAN21_T2V", WAN, (16, 5, 6, 8), (5, 12), text=(60, 32)),
    Family("Wan, reference latent", "WAN21_T2V", {**WAN, "in_dim_ref_conv": 16}, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"reference_latents": [reference()]}),
    Family("Wan, in-context latents", "WAN21_T2V", WAN, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"context_latents": [reference(2)]}),
    Family("Wan, latents behind in time", "WAN21_T2V", WAN, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"time_dim_concat": reference(2)}),
    Family("Wan Fun Control", "WAN21_FunControl2V", {**WAN, "in_dim": 48}, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"concat_latent_image": reference(5, 32)}),
    Family("Wan camera", "WAN21_Camera", {**WAN, "in_dim": 32}, (16, 5, 6, 8), (5, 12)),
    Family("Wan 2.2 camera", "WAN22_Camera", {**WAN, "in_dim": 36}, (16, 5, 6, 8), (5, 12)),
    Family("Wan FlowRVS", "WAN21_FlowRVS", WAN, (16, 5, 6, 8), (5, 12), from_latent=True),
    Family("Wan causal, with a plain sampler", "WAN21_CausalAR_T2V", WAN, (16, 5, 6, 8), (5, 12)),
    Family("Wan VACE", "WAN21_Vace", {**WAN, "vace_layers": 1, "vace_in_dim": 96}, (16, 6, 6, 8), (5, 12), first=1,
           conditions=_vace),
    Family("Wan Animate", "WAN22_Animate", {**WAN, "in_dim": 36}, (16, 6, 6, 8), (5, 12), first=1,
           conditions=lambda: {"pose_video_latent": reference(5)}),
    Family("Wan Animate 2", "WAN_Animate2", {**WAN, "in_dim": 36}, (16, 6, 6, 8), (5, 12), first=1),
    Family("HuMo", "WAN21_HuMo", WAN, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"reference_latents": [reference()]}),
    Family("Wan S2V", "WAN22_S2V", {**WAN, "audio_inject_layers": [0]}, (16, 5, 8, 8), (5, 16),
           conditions=lambda: {"reference_latents": [reference(1, 16, 8)], "reference_motion": reference(19, 16, 8)}),
    Family("SCAIL", "WAN21_SCAIL", {**WAN, "in_dim": 20}, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"reference_latents": [reference()], "pose_video_latent": reference(5, 16, 4, 4)}),
    Family("SCAIL 2, two references and masks", "WAN21_SCAIL2", {**WAN, "in_dim": 20, "mask_in_dim": 28},
           (16, 5, 6, 8), (5, 12), conditions=lambda: _scail_2()),
    Family("WanDancer", "WAN22_WanDancer", {**WAN, "in_dim": 36, "audio_inject_layers": [0], "music_dim": 32,
           "music_latent_dim": 32}, (16, 5, 6, 8), (5, 12)),
    Family("HunyuanVideo", "HunyuanVideo", HUNYUAN, (16, 5, 6, 8), (5, 12)),
    Family("HunyuanVideo, a guiding frame", "HunyuanVideo", HUNYUAN, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"guiding_frame_index": 0}),
    Family("HunyuanVideo I2V", "HunyuanVideoI2V", {**HUNYUAN, "in_channels": 33}, (16, 5, 6, 8), (5, 12),
           conditions=lambda: {"concat_latent_image": reference(5), "concat_mask": torch.ones(1, 1, 5, 6, 8)}),
    Family("HunyuanVideo 1.5", "HunyuanVideo15", {**HUNYUAN, "in_channels": 65, "out_channels": 32, "vec_in_dim": None,
           "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 1152, "patch_size": [1, 1, 1]},
           (32, 5, 3, 4), (5, 12)),
    Family("HunyuanVideo 1.5 SR", "HunyuanVideo15_SR_Distilled", {**HUNYUAN, "in_channels": 98, "out_channels": 32,
           "vec_in_dim": None, "guidance_embed": False, "use_cond_type_embedding": True, "vision_in_dim": 1152,
           "patch_size": [1, 1, 1]}, (32, 5, 3, 4), (5, 12)),
    Family("LTX-Video", "LTXV", LTX, (128, 5, 3, 4), (5, 12), conditions=lambda: MASKED),
    Family("LTX-Video, a guide frame", "LTXV", LTX, (128, 6, 3, 4), (5, 12), conditions=lambda: guided()),
    Family("LTX-2", "LTXAV", LTX_2, (128, 5, 3, 4), (5, 12), text=(7, 64), audio=(8, 90, 16),
           conditions=lambda: MASKED),
    Family("LTX-2, a guide frame", "LTXAV", LTX_2, (128, 6, 3, 4), (5, 12), text=(7, 64), audio=(8, 90, 16),
           conditions=lambda: {**guided(), "concat_mask": torch.ones(1, 1, 128 * 6 * 12 + 8 * 90 * 16)}),
    Family("Kandinsky 5", "Kandinsky5", dict(
        in_visual_dim=16, out_visual_dim=16, in_text_dim=32, in_text_dim2=16, time_dim=32, model_dim=48, ff_dim=64,
        visual_embed_dim=132, num_text_blocks=1, num_visual_blocks=2, axes_dims=(8, 8, 8),
    ), (16, 5, 6, 8), (5, 12)),
    Family("Cosmos 1", "CosmosT2V", COSMOS_1, (16, 5, 6, 8), (5, 12)),
    Family("Cosmos 1 I2V", "CosmosI2V", {**COSMOS_1, "in_channels": 17}, (16, 5, 6, 8), (5, 12)),
    Family("Cosmos Predict2", "CosmosT2IPredict2", COSMOS, (16, 5, 6, 8), (5, 12)),
    Family("Cosmos Predict2 I2V", "CosmosI2VPredict2", {**COSMOS, "in_channels": 17}, (16, 5, 6, 8), (5, 12)),
    Family("Mochi", "GenmoMochi", dict(
        in_channels=12, hidden_size_x=48, hidden_size_y=32, depth=2, num_heads=2, mlp_ratio_x=256.0,
        mlp_ratio_y=2.0, use_t5=True, t5_feat_dim=32, t5_token_length=7, learn_sigma=False, patch_embed_bias=True,
        timestep_mlp_bias=True, attend_to_padding=False,
        timestep_scale=1000.0, use_extended_posenc=False, rope_theta=10000.0,
        qk_norm=True, qkv_bias=False, out_bias=True, attn_drop=0.0,
    ), (12, 5, 6, 8), (5, 12), conditions=lambda: MASKED),
    Family("CogVideoX", "CogVideoX_T2V", COGVIDEO, (16, 5, 6, 8), (5, 12), width=64),
    Family("CogVideoX 1.5", "CogVideoX_T2V", dict(COGVIDEO, patch_size_t=2), (16, 10, 6, 8), (5, 12), width=64),
    Family("CogVideoX I2V", "CogVideoX_I2V", {**COGVIDEO, "in_channels": 32}, (16, 5, 6, 8), (5, 12), width=64,
           conditions=lambda: {"concat_latent_image": reference(5)}),
    Family("MiniMax-H3", "MiniMaxH3", dict(
        hidden_size=64, num_layers=2, token_refiner_num_layers=1, num_attention_heads=2, attention_head_dim=128,
        ffn_hidden_size=64, text_dim=32, timestep_input_dim=32, time_embed_hidden_size=32, time_embed_dim=32,
    ), (24, 5, 6, 8), (5, 12), audio=(32, 2, 4), width=256),
)  # fmt: skip

# Not enhanced: ComfyUI hands its attention no override.
SEEDVR2 = Family("SeedVR2", "SeedVR2", dict(
    norm_eps=1e-5, num_layers=2, mlp_type="normal", vid_dim=64, txt_in_dim=32, heads=2, head_dim=128, mm_layers=1,
    vid_out_norm=True,
), (16, 5, 6, 8), (5, 12), conditions=lambda: {"condition": torch.zeros(1, 17, 5, 6, 8)})  # fmt: skip
