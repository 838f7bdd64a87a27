"""Searches or learns a policy for a model: a reward against the plain model, Optuna or reinforcement, a profile.

prompts, others = chosen_prompts("embedded", None, 16, 48, 1000)
result = tune(Tuning("embedded", prompts, others, method="learn"), Path("runs/tune"))     # resumable
enhance(pipe, policy=result.profile)
"""

from .confirm import Confirmation
from .reward import REWARDS, Reward
from .tuning import METHODS, Result, Tuning, chosen_prompts, notices, result_to_dict, tune

__all__ = [
    "METHODS",
    "REWARDS",
    "Confirmation",
    "Result",
    "Reward",
    "Tuning",
    "chosen_prompts",
    "notices",
    "result_to_dict",
    "tune",
]
