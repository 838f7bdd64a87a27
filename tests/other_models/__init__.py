"""Small video models in the manner of code that is not in diffusers: what enhance_attention() is tried on.

wan_like        full 3D attention through a function of their own, flash_attention(q, k, v), rotary before it
open_sora_like  blocks for space and blocks for time in turns, attention written out by hand
joint           blocks of two streams, video and text, that compute attention themselves
pictures        temporal attention inside a UNet: the layer gets a video (B, C, T, H, W), not a sequence
"""

from .joint import JointModel
from .open_sora_like import OpenSoraLike, query_and_key
from .pictures import TemporalUNet
from .wan_like import WanLike

__all__ = ["JointModel", "OpenSoraLike", "TemporalUNet", "WanLike", "query_and_key"]
