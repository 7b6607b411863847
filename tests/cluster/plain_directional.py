"""The directional method written plainly: all distances in one matrix, one point after the other, `numpy.polyfit`."""

from __future__ import annotations

from typing import Any

import numpy as np

NDArray = np.ndarray


def plain_directional(
    rows: NDArray, cols: NDArray, weights: NDArray, *, expand_noncore: bool = True, steal: bool = False,
    eps: float = 12, min_samples: int = 20, radius: float = 28, min_accuracy: float = 0.95, min_points: int = 12,
    thickness: float = 6.5, max_attempts: int = 3, isolation_radius: float = 5,
) -> tuple[NDArray, NDArray]:  # fmt: skip
    """Labels (n,) and whether the point is on a track (n,)."""
    x, y = rows.astype(float), cols.astype(float)
    distance = abs(x[:, None] - x) + abs(y[:, None] - y)
    near, far = distance <= eps, distance <= radius
    core = near @ weights >= min_samples
    everything = np.ones(len(x), bool)
    seeds = spread(near, core, everything)
    sizes = np.bincount(seeds[seeds >= 0])

    straight = []
    for number in range(seeds.max() + 1):
        members = seeds == number
        if members.sum() > min_points:
            accuracy = on_line(x[members], y[members])
            if accuracy < min_accuracy:
                s = np.sqrt(0.5)
                accuracy = on_line(s * (x - y)[members], s * (x + y)[members])
            if accuracy > min_accuracy:
                perfect = sizes[number] if accuracy == 1 else 0
                straight.append((-accuracy, -perfect, number, np.flatnonzero(members & core)[0]))
    if not straight:
        return seeds, np.zeros(len(x), bool)

    spreads = everything if expand_noncore else core
    labels, track = np.full(len(x), -1), 0
    for *_, seed in sorted(straight):
        if labels[seed] != -1:
            continue
        free = labels == -1
        parts = spread(near, spreads, free)
        members = parts == parts[seed]
        if members.sum() > min_points:
            degree, model = 1, fit(x, y, members, 1, thickness)
            if model is None:
                degree, model = 2, fit(x, y, members, 2, thickness)
            if model is None:
                continue
            labels[members] = track
            size = 0
            for attempt in range(max_attempts + 1):
                last_size = size
                allowed = band(x, y, model, thickness) & (everything if steal else labels == -1)
                members = labels == track
                parts = spread(far, spreads, members | allowed)
                labels[np.isin(parts, parts[members & spreads])] = track
                members = labels == track
                size = members.sum()
                model = fit(x, y, members, degree, thickness)
                if attempt == max_attempts:
                    break
                if size == last_size or model is None:
                    if degree == 2:
                        break
                    degree, model = 2, fit(x, y, members, 2, thickness)
                    if model is None:
                        break
        labels[members] = track
        track += 1
    for number in range(track):
        if (labels == number).sum() < min_points:
            labels[labels == number] = -1
    on_track = labels >= 0

    squares = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    beside = (squares[:, on_track] < isolation_radius**2).any(axis=1)
    rest = spread(near, core, ~on_track & ~beside)
    for number in range(rest.max() + 1):
        members = rest == number
        if members.sum() >= sizes.min():
            labels[members] = track
            track += 1
    return labels, on_track


def spread(neighbours: NDArray, spreads: NDArray, allowed: NDArray) -> NDArray:
    """Clusters of allowed points, one after the other from every point that spreads."""
    labels, number = np.full(len(allowed), -1), 0
    for start in np.flatnonzero(spreads & allowed):
        if labels[start] == -1:
            stack = [start]
            while stack:
                i = stack.pop()
                if labels[i] == -1:
                    labels[i] = number
                    if spreads[i]:
                        stack.extend(np.flatnonzero(neighbours[i] & allowed & (labels == -1)))
            number += 1
    return labels


def on_line(x: NDArray, y: NDArray) -> float:
    tolerance = np.median(abs(y - np.median(y))) or 0.1
    chosen, most = np.ones(len(x), bool), 0
    for _ in range(4):
        if len(np.unique(x[chosen])) < 2:
            break
        # Compared with some room for rounding: the method itself works on whole numbers.
        chosen = abs(np.polyval(np.polyfit(x[chosen], y[chosen], 1), x) - y) <= tolerance + 1e-9
        most = max(most, chosen.sum())
    return most / len(x)


def fit(x: NDArray, y: NDArray, members: NDArray, degree: int, thickness: float) -> Any:
    """(whether columns are along the track, coefficients), or None."""
    turned = np.var(y[members]) > np.var(x[members]) + 1e-9
    along, across = (y[members], x[members]) if turned else (x[members], y[members])
    first = np.polyfit(along, across, degree)
    inside = distance_to(first, along, across) < thickness
    if inside.sum() <= 0.8 * len(along):
        return None
    return turned, np.polyfit(along[inside], across[inside], degree)


def band(x: NDArray, y: NDArray, model: Any, thickness: float) -> NDArray:
    turned, curve = model
    along, across = (y, x) if turned else (x, y)
    return distance_to(curve, along, across) < thickness


def distance_to(curve: NDArray, along: NDArray, across: NDArray) -> NDArray:
    return abs(np.polyval(curve, along) - across) / np.sqrt(1 + np.polyval(np.polyder(curve), along) ** 2)
