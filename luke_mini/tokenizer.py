"""What every tokenizer of luke-mini can do, and the one function that finds the right one for a folder.

A tokenizer turns text into ids of the model's word vocabulary. Each kind is a file `tokenizer_<kind>.py` with a class
of its own; there is no base class: this text is the interface. Byte-level BPE is LUKE's and RoBERTa's, SentencePiece
that of mLUKE, of Japanese LUKE and of what is pretrained here from scratch; Unigram is the same from a tokenizer.json
alone; WordPiece is BERT's.

    encode(text, prefix_space=True) -> Encoding   ids and character offsets (see spans.py), no special tokens added.
                                                  prefix_space=False: the text continues a word, unless it begins
                                                  with white space itself
    encode_pieces(texts, prefix_spaces)           the same for many pieces of text, ids only and fast: list of lists
    encode_cut(text, cuts) -> ids, before         ids as the released tokenizers give them, see below
    encode_stretches(stretches) -> ids, counts    the same for texts that are cut already, fast: arrays over all of them
    decode(ids) -> str                            the way back, as far as normalisation allows
    pieces(ids) -> list[str]                      each id as the vocabulary spells it
    save(folder)                                  writes the files that `load` reads
    len(tokenizer)                                rows of the word embedding table
    bos_id  pad_id  eos_id  unk_id  mask_id       <s> <pad> </s> <unk> <mask>
    ent_id  ent2_id                               <ent> and <ent2>, the markers around a head and a tail entity
    starts_word                                   bool array over the vocabulary: the piece begins a word (special
                                                  tokens and punctuation too), for whole-word masking

There are two ways to read a text, as LUKE was pretrained with one and is used with the other:

- `encode` and `encode_pieces` are for pretraining and for whole texts. A special token that somebody wrote out,
  "<mask>", is ordinary text there.
- `encode_cut` is the released tokenizers' way. `cuts` are sorted, distinct positions from 0 to len(text); the stretches
  text[:c1], text[c1:c2], ..., text[ck:] are tokenised each by itself, and `before[i]` is the number of ids before
  cuts[i]. No stretch gets a prefix space, unless a BPE folder says add_prefix_space (in SentencePiece each gets its ▁
  all the same, even in mid-word), and special tokens that are written out count; <mask> swallows the white space on
  its left, unless the folder says otherwise.
"""

from pathlib import Path

from luke_mini import files, tokenizer_bpe, tokenizer_sentencepiece
from luke_mini import tokenizer_unigram, tokenizer_wordpiece

# The file that gives a kind of tokenizer away -> the function that loads it.
LOADERS = {
    tokenizer_sentencepiece.FILE_NAME: tokenizer_sentencepiece.load,
    "vocab.json": tokenizer_bpe.load,
    tokenizer_wordpiece.FILE_NAME: tokenizer_wordpiece.load,
}
# The same by the model in tokenizer.json, where that is the only file.
MODELS = {"BPE": tokenizer_bpe.load, "WordPiece": tokenizer_wordpiece.load, "Unigram": tokenizer_unigram.load}


def load(folder: str | Path):
    """The tokenizer whose files lie in `folder`. ValueError naming the folder if there is none."""
    folder = Path(folder)
    for name, loader in LOADERS.items():
        if (folder / name).is_file():
            return loader(folder)
    if (folder / "tokenizer.json").is_file():
        kind = files.read_object(folder / "tokenizer.json").get("model", {}).get("type")
        if kind in MODELS:
            return MODELS[kind](folder)
        raise ValueError(f"{folder / 'tokenizer.json'}: model of type {kind}, expected {' or '.join(MODELS)}")
    raise ValueError(f"{folder}: no tokenizer here, expected {' or '.join(LOADERS)} or tokenizer.json")
