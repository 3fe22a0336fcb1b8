r"""Do models judge a review and its minimal rewrite with the opposite label both right? And does training on such pairs help?

Data: counterfactually augmented IMDb (Kaushik et al. 2020, arXiv:1909.12434), a folder with `train_paired.tsv`,
`dev_paired.tsv` and `test_paired.tsv`, named by --pairs. The originals come from IMDb's training half, so a model that
is judged here must not have seen them: `originals` writes them to a file for `sentiment-nb prepare imdb --exclude`.
`mix` writes data/cad/mix: the training pairs and as many training reviews; for validation the dev pairs and the
validation reviews.

    python benchmarks/counterfactual.py originals --pairs FOLDER                 # writes data/cad/originals.csv
    sentiment-nb prepare imdb --out data/imdb-nocad --exclude data/cad/originals.csv --val-size .05
    sentiment-nb train data/imdb-nocad --model linear --out models/imdb-nocad-linear
    python benchmarks/counterfactual.py mix --pairs FOLDER --data data/imdb-nocad
    sentiment-nb prepare data/cad/mix --out data/cad-mix --test-size 0
    sentiment-nb train data/cad-mix --model models/imdb-256 --out models/imdb-pairs --epochs 1 --learning-rate 3e-5 \
        --max-length 256 --truncation head+tail
    python benchmarks/counterfactual.py judge --pairs FOLDER \
        --models models/imdb-nocad-linear models/imdb-256 models/imdb-pairs

What do the pairs themselves give? Two trainings that differ in nothing else, on 2,000 reviews; the same with 8000:

    python benchmarks/counterfactual.py mix --pairs FOLDER --reviews 2000 --out data/cad/mix-2000
    sentiment-nb prepare data/cad/mix-2000 --out data/imdb-2000-pairs --test-size 0
    sentiment-nb train data/imdb-nocad --model minilm --out models/imdb-2000 --limit 2000 --epochs 1 \
        --max-length 256 --truncation head+tail --bf16
    sentiment-nb train data/imdb-2000-pairs --model minilm --out models/imdb-2000-pairs --epochs 1 \
        --max-length 256 --truncation head+tail --bf16
    python benchmarks/counterfactual.py judge --pairs FOLDER --name counterfactual-2000 \
        --models models/imdb-nocad-linear models/imdb-2000 models/imdb-2000-pairs
"""
import argparse, sys
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save, say
from sentiment_nb.behaviour import load_pairs, pair_consistency, predict_suite
from sentiment_nb.cleaning import dedup_key, subsample
from sentiment_nb.data import load_prepared, load_source
from sentiment_nb.evaluation import mcnemar, paired_difference
from sentiment_nb.inference import Predictor

NAMES = ['negative','positive']

def read_pairs(args, part): return load_pairs(Path(args.pairs)/f'{part}_paired.tsv')

def originals(args):
    "Reviews of IMDb's training half that stand in a pair, letter by letter or by their first 80 cleaned characters"
    train = load_source('imdb')['train']
    keys = [dedup_key(t) for t in train['text'][:]]
    by_text = {k: i for i,k in enumerate(keys)}
    by_start = {k[:80]: i for i,k in enumerate(keys)}
    rows = set()
    for split in ('train','dev','test'):
        for _,pair in read_pairs(args, split).groupby('pair'):
            forms = [dedup_key(t) for t in pair.text]
            matches = {by_text[f] for f in forms if f in by_text}
            matches = matches or {by_start[f[:80]] for f in forms if f[:80] in by_start}
            if not matches: sys.exit(f"pair {pair.index[0]} of {split} has no original in IMDb's training half")
            rows |= matches
    reviews = train.select(sorted(rows)).to_pandas()
    write(reviews.assign(label=np.array(NAMES)[reviews.label]), 'data/cad/originals.csv')

def mix(args):
    """The training pairs, and as many reviews of IMDb that stand in no pair, or --reviews of them

    So nothing is forgotten. For validation the dev pairs, and reviews that no model was trained on.
    """
    splits = load_prepared(args.data)
    for name,split,part in (('train','train','train'), ('val','validation','dev')):
        pairs = read_pairs(args, part)
        limit = (args.reviews or len(pairs)) if split=='train' else None
        reviews = subsample(splits[split], limit, seed=args.seed).to_pandas()
        reviews = reviews.assign(label=np.array(NAMES)[reviews.label])
        write(pd.concat([pairs, reviews]), f'{args.out}/{name}.csv')
    (Path(args.out)/'prepared.json').write_text('{}') # a folder of splits, which `prepare` takes as they are

def write(rows, path):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows[['text','label']].to_csv(path, index=False)
    print(f'{len(rows):,} texts written to {path}')

def judge_model(predictor, pairs, is_original):
    "Its row of the table, and for every pair whether both texts are right"
    pair_ids = pairs['pair'].to_numpy()
    y = (pairs.label==NAMES[1]).to_numpy().astype(int)
    probs = predict_suite(predictor.predict_proba, NAMES, list(pairs.text))
    right = probs.argmax(1)==y
    exact = pair_consistency(probs, y, pair_ids)
    row = dict(model=predictor.name, engine=predictor.engine, pairs=exact['n_pairs'],
        consistency=f"{exact['value']:.4f} [{exact['low']:.3f}, {exact['high']:.3f}]",
        accuracy=round(float(right.mean()), 4),
        on_originals=round(float(right[is_original].mean()), 4),
        on_rewrites=round(float(right[~is_original].mean()), 4),
        exact=exact)
    return row, pd.Series(right).groupby(pair_ids).all().to_numpy().astype(int)

def compare_pairs(both, first_both, model, first_model, seed):
    "McNemar's test and the difference in pairs that are right"
    ones = np.ones_like(both)
    test = mcnemar(ones, both, first_both, model, first_model)
    return dict(mcnemar=test, difference=paired_difference(ones, both, first_both, 2, seed=seed)['accuracy'])

def judge(args):
    "Accuracy on originals, on rewrites, and pairs with both right"
    pairs = read_pairs(args, args.split)
    original = {dedup_key(t) for t in load_source('data/cad/originals.csv')['train']['text'][:]}
    is_original = np.array([dedup_key(t) in original for t in pairs.text])
    rows = []
    both = []
    for folder in args.models:
        predictor = Predictor(folder)
        classes = predictor.record.labels
        if classes!=NAMES: sys.exit(f"{folder} has the classes {', '.join(classes)}, expected {', '.join(NAMES)}")
        row,right_pairs = judge_model(predictor, pairs, is_original)
        rows.append(row)
        both.append(right_pairs)
    # all are compared with the first transformer
    first = next((i for i,r in enumerate(rows) if r['engine']!='linear'), 0)
    base = rows[first]
    for r,b in zip(rows, both): r['against'] = compare_pairs(b, both[first], r['model'], base['model'], args.seed)
    shown = [{k: v for k,v in r.items() if k not in ('exact','against')} for r in rows]
    print_table(shown, f'{args.split} pairs; consistency: both texts of a pair right [95 % interval]')
    for r in rows:
        if r is base: continue
        d = r['against']['difference']
        p = r['against']['mcnemar']['p']
        say(f"{r['model']} minus {base['model']}: {100*d['value']:+.1f} points "
            f"[{100*d['low']:+.1f}, {100*d['high']:+.1f}], McNemar p = {p:.2g}")
    save(args.name, args, 'onnxruntime', dict(rows=rows))

STEPS = dict(originals=originals, mix=mix, judge=judge)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('step', choices=STEPS)
    p.add_argument('--pairs', required=True, help='folder with the three files')
    p.add_argument('--data', default='data/imdb-nocad', help='prepared reviews for `mix`')
    p.add_argument('--reviews', type=int, help='training reviews for `mix`, those that `sentiment-nb train --limit` '
        'takes; as many as there are paired texts, if not given')
    p.add_argument('--out', default='data/cad/mix', help='folder for `mix`')
    p.add_argument('--models', nargs='+', default=[], help='model folders for `judge`')
    p.add_argument('--name', default='counterfactual', help='of the results of `judge`')
    p.add_argument('--split', default='test', choices=['train','dev','test'])
    p.add_argument('--seed', type=int, default=42)
    args = p.parse_args()
    STEPS[args.step](args)

if __name__=='__main__': main()
