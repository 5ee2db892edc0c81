"""Solutions of lesson 01, and for each a mistake that is easily made: the checks must tell them apart."""


def window_side(longest, patch_size=224, object_size=128):
    return longest * patch_size / object_size


def wrong_window_side(longest, patch_size=224, object_size=128):
    return longest * object_size / patch_size  # the wrong way round: the window is larger than the object


def rle_area(counts):
    return sum(counts[1::2])


def wrong_rle_area(counts):
    return sum(counts[::2])  # these are the zeros: the code begins with them


def coco_iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def wrong_coco_iou(a, b):
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = width * height  # two negative sides make a positive area
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def rle_text(counts):
    text = ""
    for i, value in enumerate(counts):
        if i > 2:
            value -= counts[i - 2]
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


def wrong_rle_text(counts):
    text = ""
    for i, value in enumerate(counts):
        if i > 1:  # one too early: the third number is written as it is
            value -= counts[i - 2]
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text
