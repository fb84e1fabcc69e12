"""A tokenizer for the tests of question answering, and nothing but what they need of one."""

import re

from luke_mini.spans import Encoding


class Chunks:
    """Every word is cut into pieces of `size` characters, a lone mark of the space in front where the word begins with
    "z" (as SentencePiece does before rare characters). Ids are numbered as the pieces come."""

    bos_id, pad_id, eos_id, unk_id, mask_id = 0, 1, 2, 3, 4

    def __init__(self, size: int = 2):
        self.size, self.seen = size, {}

    def encode(self, text: str, prefix_space: bool = True) -> Encoding:
        assert prefix_space
        ids, offsets = [], []
        for word in re.finditer(r"\S+", text):
            start, end = word.span()
            spans = [(start, start)] * (word[0][0] == "z")
            spans += [(i, min(i + self.size, end)) for i in range(start, end, self.size)]
            for a, b in spans:
                ids.append(self.seen.setdefault((text[a:b], a == start), 10 + len(self.seen)))
            offsets += spans
        return Encoding(ids, offsets)
