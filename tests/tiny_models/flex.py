"""Flex attention outside torch.compile, as the tests call it.

By itself it compiles its eager form for every new shape, seconds each; this is torch's switch for that. Same numbers.
"""

import torch.nn.attention.flex_attention as home

if hasattr(home, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"):
    home._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
