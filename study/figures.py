"""Medians, and how far values lie around them."""

import math


def quantile(values, share):
    """Linear between the two nearest; the same as the program's own (src/study/statistics.h)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def median(values):
    return quantile(values, 0.5)


def spread(values):
    """None if there are no values."""
    if not values:
        return None
    middle = median(values)
    return {"n": len(values), "median": middle, "q1": quantile(values, 0.25), "q3": quantile(values, 0.75),
            "mad": median([abs(value - middle) for value in values]), "min": min(values), "max": max(values)}


def ranks(values):
    """1 for the smallest; equal values share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) + 1) / 2 for value in values]


def rank_correlation(pairs):
    """Spearman's: 1 if both rise together, -1 if one falls as the other rises; None of fewer than 3."""
    if len(pairs) < 3:
        return None
    left, right = (ranks(column) for column in zip(*pairs))
    mean = (len(pairs) + 1) / 2
    above = sum((a - mean) * (b - mean) for a, b in zip(left, right))
    below = math.sqrt(sum((a - mean) ** 2 for a in left) * sum((b - mean) ** 2 for b in right))
    return above / below if below else None


def squares(value, smallest, largest, most):
    """1 to `most`, by equal ratios between the smallest and the largest."""
    if value is None or min(value, smallest) <= 0:
        return None
    if largest <= smallest:
        return 1
    share = math.log(value / smallest) / math.log(largest / smallest)
    return 1 + round(share * (most - 1))


def slowdown(run, before, after, better):
    """How many times as bad as undisturbed: 1 is no impact, more is worse. The undisturbed runs are
    those right before and after."""
    undisturbed = math.sqrt(before * after)
    return run / undisturbed if better == "less" else undisturbed / run
