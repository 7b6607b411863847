"""From raw frames to points: orientation, pedestal, suppression, filters."""
