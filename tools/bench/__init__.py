"""Yardsticks and measurements against the peers."""
