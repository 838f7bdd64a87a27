"""UNets: pictures convolved frame by frame, with temporal attention between the layers, (B*S, T, C)."""

from ..attention import Tokens
from ..progress import Karras, VariancePreserving
from .registry import FrameCount, Model, SelfAttention, register

_TEMPORAL_ATTENTION = r"(^transformer_in|\.temp_attentions\.\d+)\.transformer_blocks\.\d+\.attn[12]$"

register(Model(
    name="ModelScope and Zeroscope",
    transformer="UNet3DConditionModel",
    attention=(SelfAttention(
        names=_TEMPORAL_ATTENTION,
        tokens=Tokens("temporal"),
        frames=FrameCount("sample", dim=2),
    ),),
    noise=VariancePreserving(),
    checkpoints=("ali-vilab/text-to-video-ms-1.7b", "cerspense/zeroscope_v2_576w", "cerspense/zeroscope_v2_XL"),
    notes="both attentions of a temporal block are self-attention over frames",
    tested=("unet3d",),
))  # fmt: skip

register(Model(
    name="I2VGen-XL",
    transformer="I2VGenXLUNet",
    attention=(SelfAttention(
        names=_TEMPORAL_ATTENTION,
        tokens=Tokens("temporal"),
        frames=FrameCount("sample", dim=2),
    ),),
    noise=VariancePreserving(),
    checkpoints=("ali-vilab/i2vgen-xl",),
    notes="the temporal encoder of the image condition is left alone: it sees no video",
    tested=("i2vgen",),
))  # fmt: skip

register(Model(
    name="AnimateDiff",
    transformer="UNetMotionModel",
    attention=(SelfAttention(
        names=r"\.motion_modules\.\d+\.transformer_blocks\.\d+\.attn[12]$",
        tokens=Tokens("temporal"),
        frames=FrameCount("sample", dim=2),
    ),),
    noise=VariancePreserving(),
    checkpoints=(
        "guoyww/animatediff-motion-adapter-v1-5-2", "guoyww/animatediff-motion-adapter-v1-5-3",
        "guoyww/animatediff-motion-adapter-sdxl-beta", "wangfuyun/AnimateLCM",
    ),
    notes="both attentions of a motion module; FreeNoise's windows are shorter than the video and are refused",
    tested=("animatediff",),
))  # fmt: skip

register(Model(
    name="Stable Video Diffusion",
    transformer="UNetSpatioTemporalConditionModel",
    attention=(SelfAttention(
        names=r"\.temporal_transformer_blocks\.\d+\.attn1$",
        tokens=Tokens("temporal"),
        frames=FrameCount("sample", dim=1),
    ),),
    noise=Karras(highest=700.0, lowest=0.002),
    checkpoints=("stabilityai/stable-video-diffusion-img2vid", "stabilityai/stable-video-diffusion-img2vid-xt"),
    notes="attn1 of the temporal blocks; attn2 sees the image condition",
    tested=("svd",),
))  # fmt: skip
