"""Clips made by one or more workers, each with the model loaded: what fails or dies costs one clip and is replaced.

with open_pool("embedded", {}, workers=2) as pool:
    for item, answer in pool.make(tasks): ...                # in the order in which they are ready

worker    one loaded pipeline: a task in, an answer for each of its clips out
local     workers as processes of this machine, one for each CUDA device; or a single one in this process
cluster   workers as actors of a Ray cluster
pool      the queue: who makes what, what happens when a clip fails or a worker dies
"""

from .pool import Count, Pool, open_pool
from .worker import Answer, Task, grouped

__all__ = ["Answer", "Count", "Pool", "Task", "grouped", "open_pool"]
