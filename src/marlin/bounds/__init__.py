"""Bounds that no scheduler can beat, and reachable reference points; see docs/bounds.md."""
