"""What is stored on people's disks stays readable: the keys of clips, and profiles. These values never change.

A key that changes makes every clip of a batch or study again, so a change here is a change of what users have.
"""

from pathlib import Path

import pytest
import torch

from enhance_a_video.alternatives import alternative_from_dict
from enhance_a_video.generation.requests import ClipRequest
from enhance_a_video.policies import GainContext, read_profile
from enhance_a_video.settings import Settings

PROFILES = Path(__file__).parent.parent / "studies" / "profiles"
LEARNED = str(PROFILES / "temporal-learned.json")
PROMPT = "A red ball moves left over a green meadow."
KEYS = [  # settings, options, key; the seeds are 7, 8, ...
    (None, {}, "b7d3598347b7cf1f"),
    (None, {"steps": 10, "guidance": 4.0, "frames": 33, "fps": 8}, "df8546eb499745a2"),
    ({}, {}, "363bb9ce47130f59"),
    ({"odds": 3.0}, {"width": 64, "height": 64, "negative": "blurry"}, "cd01dfaffd0394cb"),
    ({"strength": 0.3}, {}, "ea1ec4e37fcf5240"),
    ({"temperature": 4.0, "start": 0.0, "end": 1.0}, {"extra": {"max_sequence_length": 128}}, "f93e9dfb820da463"),
    ({"policy": {"name": "constant", "gain": 1.2}}, {}, "6d625ce87f9faf3c"),
    ({"policy": LEARNED}, {}, "b3f23ed936d52992"),
    ({"odds": 2.0, "layers": {"slice": [1, 4, None]}, "sites": None}, {"steps": 20}, "ffef1258f50e9dfd"),
    ({"alternative": "logit_temperature", "tau": 1.1}, {}, "f9683cc60209ba20"),
]


@pytest.mark.parametrize("number", range(len(KEYS)))
def test_the_key_of_a_clip(number):
    data, options, key = KEYS[number]
    read = alternative_from_dict if data and "alternative" in data else Settings.from_dict
    assert ClipRequest(PROMPT, 7 + number, "label", None if data is None else read(data), options).key == key


@pytest.mark.parametrize("name, gains", [
    ("learned", [1.454774, 1.21891, 1.037453, 2.838613, 1.557468, 1.076663]),
    ("searched", [2.509458, 1.501887, 1.071621, 1.018785, 1.01035, 1.002053]),
])  # fmt: skip
def test_the_gains_of_a_profile(name, gains):
    """At the first and the last layer, a quarter of the way, for three masses."""
    policy, mass = read_profile(PROFILES / f"temporal-{name}.json").policy, torch.tensor([0.1, 0.5, 0.9])
    found = [policy(mass, GainContext(17, layer, torch.tensor(0.25))) for layer in (0.0, 1.0)]
    assert torch.cat(found).tolist() == pytest.approx(gains, abs=2e-6)
