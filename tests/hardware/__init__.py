"""Tests that need a device. Each is skipped, with the reason, where that device is not."""
