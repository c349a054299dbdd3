"""The benchmark's rules with full-size masks and loops, written without looking at the package."""

import cv2
import numpy as np


def draw(polygons, height, width):
    """Union of polygons of fractional points, by the rule for ground truth."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for polygon in polygons:
        points = np.array(polygon, dtype=np.int32)
        points[:, 0] = np.clip(points[:, 0], 0, width - 1)
        points[:, 1] = np.clip(points[:, 1], 0, height - 1)
        cv2.fillPoly(mask, [points], 255)
    return mask


def instances(mask):
    """One full-size bool mask per ground-truth instance."""
    dilated = cv2.dilate((mask > 0).astype(np.uint8), np.ones((5, 5), np.uint8), iterations=1)
    count, labels = cv2.connectedComponents(dilated, connectivity=8)
    return [(labels == k) & (mask > 0) for k in range(1, count)]


def box_region(box, height, width):
    """Full-size mask of a box, or None where it is invalid."""
    x0, y0, x1, y1 = (float(value) for value in box)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        return None
    region = np.zeros((height, width), dtype=bool)
    region[int(y0) : int(y1), int(x0) : int(x1)] = True
    return region if region.any() else None


def point_region(point, height, width):
    x, y = (float(value) for value in point)
    if not (0 <= x < width and 0 <= y < height):
        return None
    region = np.zeros((height, width), dtype=bool)
    region[int(y), int(x)] = True
    return region


def mask_region(mask):
    return mask > 0 if (mask > 0).any() else None


def match(truths, regions, t):
    """(predicted flags, instance flags, invalid flags), each pair looked at by itself."""
    predicted, found = [False] * len(regions), [False] * len(truths)
    for i, region in enumerate(regions):
        for k, truth in enumerate(truths):
            if region is not None and np.sum(region & truth) / np.sum(region) > t:
                predicted[i] = found[k] = True
    return predicted, found, [region is None for region in regions]


def counts(predicted, found, invalid):
    """TP, FP, FN, invalid."""
    return sum(found), predicted.count(False), found.count(False), sum(invalid)


def ratios(tp, fp, fn):
    """Precision, recall, F1."""
    p = tp / (tp + fp) if tp + fp else 0.0
    r = tp / (tp + fn) if tp + fn else 0.0
    return p, r, 2 * p * r / (p + r) if p + r else 0.0


def random_polygons(rng, height, width):
    """Fractional, out of bounds, overlapping, touching, degenerate; sometimes none."""
    polygons = []
    for _ in range(rng.integers(0, 7)):
        count = rng.integers(3, 9)
        if rng.random() < 0.3:  # anywhere, far outside included
            points = rng.uniform(-20, 70, (count, 2))
        else:  # small, so that instances stay apart
            points = rng.uniform(0, (width, height)) + rng.normal(
                0, rng.uniform(0.5, 6), (count, 2)
            )
        if polygons and rng.random() < 0.2:  # beside an earlier one, at every small distance
            points = polygons[-1] + rng.integers(-9, 10, 2)
        polygons.append(points)
    return polygons
