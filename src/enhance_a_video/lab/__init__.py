"""Everything that measures, compares, studies and judges clips, and searches policies. Needs the extra [lab]."""
