"""Video and picture files as arrays, read as a player or a viewer shows them."""

from .frames import float_frames, to_uint8
from .pictures import as_rgb, open_picture
from .reader import OpenVideo, in_pieces, open_container, open_video, read_comment, read_video

__all__ = [
    "OpenVideo",
    "as_rgb",
    "float_frames",
    "in_pieces",
    "open_container",
    "open_picture",
    "open_video",
    "read_comment",
    "read_video",
    "to_uint8",
]
