"""Calibration payloads by content hash: pedestal and lens response."""
