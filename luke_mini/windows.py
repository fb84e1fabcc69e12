"""Which part of a long document an input sees. All numbers are word pieces.

    context_window   one span in the middle, with as much of the document around it as fits
    equal_parts      the whole document, in parts of one size that cut no mention
"""

import numpy as np


def context_window(n: np.ndarray, before: np.ndarray, after: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of context to take on the left and on the right of a span; all arguments in pieces.

    n pieces in the span, `before` and `after` around it in the document. Each side gets half of the room; what the
    shorter side leaves goes to the other. Sentences of 100, 300, 200, 250 pieces and a limit of 510 take (0, 410),
    (100, 110), (155, 155), (260, 0). Context may cut words and cross sentences, never documents.
    """
    half = (limit - n) // 2
    left, right = np.minimum(before, half), np.minimum(after, half)
    left_is_shorter = before < after
    return (
        np.where(left_is_shorter, left, np.minimum(before, limit - n - right)),
        np.where(left_is_shorter, np.minimum(after, limit - n - left), right),
    )


def equal_parts(n: int, limit: int, spans: np.ndarray) -> list[int]:
    """Borders 0, ..., n of parts of at most `limit`: ceil(n / limit) of one size, if no border has to move.

    spans [mentions, 2], half-open: a border inside of one moves to its start. It stays inside of a mention that is
    longer than a part.
    """
    if n == 0:
        return [0, 0]
    n_parts = -(-n // limit)
    size = -(-n // n_parts)
    borders = [0]
    while borders[-1] < n:
        border = full = min(borders[-1] + size, n)
        # differs from LUKE: also in training, and for the first mention of a document, too; there, mentions may be cut
        while (inside := (spans[:, 0] < border) & (border < spans[:, 1])).any():
            border = int(spans[inside, 0].min())
        borders.append(border if border > borders[-1] else full)
    return borders
