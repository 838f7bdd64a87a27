"""Every error this package raises on purpose.

EnhanceAVideoError
├── SettingsError            (also ValueError)    arguments that conflict or are out of range
├── UnsupportedModelError    (also TypeError)     a model class no row describes
├── NoLayersError            (also LookupError)   a known model, but no attention layer matched
├── AlreadyEnhancedError     (also RuntimeError)  an enhancement is already present
├── TokenLayoutError         (also ValueError)    video tokens that do not divide into frames
├── VideoFileError           (also OSError)       a video that cannot be read or written
├── OutputExistsError        (also OSError)       an output is there already and force was not given
├── VoteError                (also ValueError)    a vote, a voter or a file of votes that cannot be accepted
├── PromptError              (also ValueError)    a prompt that is empty, or none of the embedded world's
├── ExternalToolError        (also RuntimeError)  a program that was called for a measure stopped
└── MissingExtraError        (also ImportError)   an optional dependency is not installed

EnhancementLostWarning       a processor was replaced after enhance()
UnknownPassWarning           passes="conditional" where the pass cannot be known
NoEffectWarning              an effect was requested and nothing is changed: layers that are not reached, one frame, ...
UnlabelledWarning            clips are written without content credentials, as what signs them is not installed
WholeOutputWarning           odds cannot act in some layers: their whole output is scaled instead

Every message names what was found and what to do about it.
"""


class EnhanceAVideoError(Exception):
    """Base of all errors of this package."""


class SettingsError(EnhanceAVideoError, ValueError):
    """Arguments that conflict or are out of range."""


class UnsupportedModelError(EnhanceAVideoError, TypeError):
    """A model class that no row describes."""


class NoLayersError(EnhanceAVideoError, LookupError):
    """A known model in which no attention layer matched."""


class AlreadyEnhancedError(EnhanceAVideoError, RuntimeError):
    """An enhancement is already present on the model."""


class TokenLayoutError(EnhanceAVideoError, ValueError):
    """Video tokens that do not divide into frames as its row describes them."""


class VideoFileError(EnhanceAVideoError, OSError):
    """A video that cannot be read or written."""


class OutputExistsError(EnhanceAVideoError, OSError):
    """An output is there already and overwriting was not requested."""


class VoteError(EnhanceAVideoError, ValueError):
    """A vote, a voter or a file of votes that cannot be accepted.

    reason: "invalid", "unknown" (no such voter or pair), "conflict" (with a vote that was kept before) or "failed" (the
    file cannot be used).
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class PromptError(EnhanceAVideoError, ValueError):
    """A prompt that no model can be given, or a sentence that the embedded world does not know."""


class ExternalToolError(EnhanceAVideoError, RuntimeError):
    """A program that was called for a measure, such as VBench, stopped."""


class MissingExtraError(EnhanceAVideoError, ImportError):
    """An optional dependency is not installed."""


class EnhancementLostWarning(UserWarning):
    """An attention processor was replaced after enhance(); the message names what was done about it."""


class UnlabelledWarning(UserWarning):
    """Clips are written without content credentials; the message has the reason and what to install."""


class WholeOutputWarning(UserWarning):
    """The cross-frame part of some layers cannot be separated; the message names why and what is scaled instead."""


class NoEffectWarning(UserWarning):
    """An enhancement changes nothing, or less than was requested; the message names the reason and what to do."""


class UnknownPassWarning(UserWarning):
    """Only the conditional pass was to be changed, but which pass a call belongs to is not known; both are changed."""
