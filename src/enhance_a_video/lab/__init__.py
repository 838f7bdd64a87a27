"""Clips measured, compared, studied and judged; policies searched. Extra: [lab]."""
