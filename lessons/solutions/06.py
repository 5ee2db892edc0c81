"""Answers to lesson 06, each with a plausible mistake that its check must refuse."""


def mask_share(f, m):
    return m / (f + m)


def wrong_mask_share(f, m):
    return m / f


def encodings(k, grid, n):
    return [(k >> i, grid << i) for i in range(n + 1)]


def wrong_encodings(k, grid, n):
    return [(k >> i, grid << i) for i in range(n)]  # the last one is missing


def doubled_row(row):
    ends = [row[0], *row, row[-1]]
    out = []
    for before, x, after in zip(ends, row, ends[2:], strict=False):
        out += [0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after]
    return out


def wrong_doubled_row(row):
    out = []
    for x, after in zip(row, [*row[1:], row[-1]], strict=True):
        out += [x, (x + after) / 2]  # corners aligned: everything moves by a quarter of an old pixel
    return out


def outline_f(found, true, d):
    def share(a, b):
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= d * d for v, u in b) for y, x in a) / len(a)

    precision, recall = share(found, true), share(true, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def wrong_outline_f(found, true, d):
    def share(a, b):
        return sum(any(abs(y - v) <= d and abs(x - u) <= d for v, u in b) for y, x in a) / len(a)  # a square, not a disc

    precision, recall = share(found, true), share(true, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
