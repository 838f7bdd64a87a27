"""Clips made and kept: pipelines loaded, run with the method, workers, video files. Extra: [video]."""
