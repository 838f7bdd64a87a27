"""Picture files as RGB, upright, with 8 bits, on white where they are transparent: what a video starts from.

Pillow's own `convert("RGB")` leaves a phone's picture on its side, makes 16-bit grey white and shows what transparent
pixels hide.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import EnhanceAVideoError, SettingsError, VideoFileError
from ...limits import ordinary


def open_picture(path: str | Path) -> Any:
    """The picture in a file, as a PIL image in mode RGB; the first one of an animation or of several pages.

    Raises:
        SettingsError: no such file; not a picture, damaged, too large, or with values whose white is not defined.
    """
    from PIL import Image

    with decoding(f"The picture {path} cannot be read", SettingsError), open(ordinary(path), "rb") as file:
        return as_rgb(Image.open(file))


def as_rgb(picture: Any) -> Any:
    """A PIL image in mode RGB, as a viewer shows it: turned by its EXIF orientation, 16 bits scaled, on white.

    Raises:
        SettingsError: floating point outside 0..1 or whole numbers of more than 16 bits.
    """
    from PIL import Image, ImageOps

    picture = _eight_bits(ImageOps.exif_transpose(picture))
    if "transparency" not in picture.info and picture.mode not in ("RGBA", "LA", "PA", "RGBa"):
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    ground.alpha_composite(picture)
    return ground.convert("RGB")


def picture_comment(path: str | Path) -> str:
    """The comment in a picture's metadata; "" where there is none. Raises VideoFileError: it cannot be read."""
    from PIL import Image

    with decoding(f"{path} cannot be read", VideoFileError), open(ordinary(path), "rb") as file:
        return str(Image.open(file).info.get("Comment", ""))


@contextmanager
def decoding(trouble: str, kind: type[EnhanceAVideoError]) -> Iterator[None]:
    """Turns whatever Pillow raises for a file that it cannot decode into one error: `trouble` and the reason."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, twice which is an error, and of damage that does not show
            yield
    except EnhanceAVideoError as error:
        raise kind(f"{trouble}: {error}") from error
    except FileNotFoundError as error:
        raise kind(f"{trouble}: there is no such file.") from error
    except UnidentifiedImageError as error:
        raise kind(f"{trouble}: Pillow does not know its format. Save it as PNG or JPEG.") from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise kind(f"{trouble}: it has more than {most} megapixels. Make it smaller.") from error
    except OSError as error:
        raise kind(f"{trouble}: {error.strerror or error}.") from error
    except Exception as error:  # damaged files raise SyntaxError, EOFError, struct.error, IndexError and others
        raise kind(f"{trouble}: it is damaged ({type(error).__name__}: {error}).") from error


def _eight_bits(picture: Any) -> Any:
    """Grey of 16 bits or floating point as grey of 8 bits; Pillow would cut it off at 255."""
    import numpy as np
    from PIL import Image

    if picture.mode[0] not in "IF":
        return picture
    values = np.asarray(picture, np.float64)  # (H, W)
    white = 1 if picture.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= white):  # refuses NaN as well
        raise SettingsError(
            f"its values lie in {values.min():g}..{values.max():g}, expected is 0..{white}. Save it with 8 or 16 bits."
        )
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
