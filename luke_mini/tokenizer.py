"""What every tokenizer of luke-mini can do, and the one function that finds the right one for a folder.

A tokenizer turns text into ids of the model's word vocabulary. Each kind is a file `tokenizer_<kind>.py` with a class
of its own; there is no base class: this text is the interface. So far: SentencePiece, for mLUKE and Japanese LUKE, and
for what is pretrained here from scratch. Still to come: byte-level BPE (LUKE) and WordPiece (LUKE on BERT).

    encode(text, prefix_space=True) -> Encoding   ids and character offsets (see spans.py), no special tokens added.
                                                  prefix_space=False: the text continues a word, unless it begins
                                                  with white space itself
    encode_pieces(texts, prefix_spaces)           the same for many pieces of text, ids only and fast: list of lists
    decode(ids) -> str                            the way back, as far as normalisation allows
    pieces(ids) -> list[str]                      each id as the vocabulary spells it
    save(folder)                                  writes the files that `load` reads
    len(tokenizer)                                rows of the word embedding table
    bos_id  pad_id  eos_id  unk_id  mask_id       <s> <pad> </s> <unk> <mask>
    ent_id  ent2_id                               <ent> and <ent2>, the markers around a head and a tail entity
    starts_word                                   bool array over the vocabulary: the piece begins a word (special
                                                  tokens and punctuation too), for whole-word masking

Special tokens that occur literally in a text are plain text to `encode`: in a pretraining corpus "<mask>" is something
that somebody wrote.
"""

from pathlib import Path

from luke_mini import tokenizer_sentencepiece

# The file that gives a kind of tokenizer away -> the function that loads it.
LOADERS = {tokenizer_sentencepiece.FILE_NAME: tokenizer_sentencepiece.load}


def load(folder: str | Path):
    """The tokenizer whose files lie in `folder`. ValueError naming the folder if there is none."""
    for name, loader in LOADERS.items():
        if (Path(folder) / name).is_file():
            return loader(folder)
    raise ValueError(f"{folder}: no tokenizer here, expected {' or '.join(LOADERS)}")
