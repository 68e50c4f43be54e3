"""Tracking: results exported to experiment trackers."""
