"""Trainers of the embedded models. Run from the root of the repository; not in the wheel."""
