"""Enhance-A-Video: better generated video for free."""
