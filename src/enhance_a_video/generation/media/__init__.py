"""Video, picture and sound files as arrays, read as a player or a viewer shows them."""

from .frames import float_frames, to_uint8
from .pictures import as_rgb, open_picture
from .reader import OpenVideo, in_pieces, open_container, open_video, read_comment, read_video
from .sound import copied_as_it_is, with_sound
from .source import VideoSource, scan
from .wav import wav_bytes

__all__ = [
    "OpenVideo",
    "VideoSource",
    "as_rgb",
    "copied_as_it_is",
    "float_frames",
    "in_pieces",
    "open_container",
    "open_picture",
    "open_video",
    "read_comment",
    "read_video",
    "scan",
    "to_uint8",
    "wav_bytes",
    "with_sound",
]
