"""What does each cleaning rule give? One rule of `minimal` is changed at a time, and the model is trained and judged again.

Method: only training texts are used, never a test split; rows of the prepared train and validation splits, by
folds for the linear model and by one split for MiniLM. The same rows are held out for every variant, so that each
is compared with `minimal` text by text: the difference in accuracy with its 95 % interval (paired bootstrap) and
McNemar's p. Rules that cannot reach a model are left out: an uncased tokenizer lower-cases by itself. For the
linear model the penalty is the one that validation chose for `minimal`. For MiniLM `minimal` is trained with a
second seed too, and each variant is compared with both: the interval allows for other texts, not for another
training.

    python benchmarks/ablation.py --part tweets                                   # linear; also sentiment140, imdb
    python benchmarks/ablation.py --part minilm --variants minimal ftfy           # in pieces: answers are kept in --work
"""
import argparse, json
from pathlib import Path
import ftfy
import numpy as np
from common import print_table, save
from sentiment_nb.cleaning import POLICIES, prepare_data, remove_emojis, shorten_elongations, strip_punctuation
from sentiment_nb.data import load_prepared
from sentiment_nb.evaluation import mcnemar, paired_difference
from sentiment_nb.training import fit_linear, linear_weighting

MINIMAL = POLICIES['minimal']
def without(*names): return tuple(r for r in MINIMAL if r.__name__ not in names)
def instead(old, new): return tuple(new if r.__name__==old else r for r in MINIMAL)
def no_apostrophes(text): return text.replace("'", ' ').replace('’', ' ')

VARIANTS = {
    'minimal': MINIMAL,
    'raw text': (),
    'entities and tags left': without('unescape_html', 'strip_tags'),
    'emojis left': without('emojis_to_words'),
    'emojis removed': instead('emojis_to_words', remove_emojis),
    'links and users left': without('mask_urls', 'mask_users'),
    'elongation shortened': (*MINIMAL, shorten_elongations),
    'punctuation removed': (*MINIMAL, strip_punctuation),
    'apostrophes removed': (*MINIMAL, no_apostrophes),
    'mojibake repaired': (ftfy.fix_text, *MINIMAL),
    'classic': POLICIES['classic']}

POLICIES['as it comes'] = () # MiniLM's texts are cleaned here, not by the model

def clean(texts, variant):
    "Texts by the rules of a variant"
    def one(t):
        for rule in VARIANTS[variant]: t = rule(t)
        return t
    return [one(t) for t in texts]

def rows_of(source, work):
    "Training and validation texts with their labels"
    folder = Path(work)/source
    if not folder.is_dir(): prepare_data(source, folder)
    splits = load_prepared(folder)
    parts = [splits[s] for s in ('train','validation')]
    texts = sum((p['text'][:] for p in parts), [])
    return texts, np.concatenate([p['label'][:] for p in parts])

def linear_answers(texts, y, variant, folds, C):
    "Out-of-fold predictions, each by a model fitted on the other folds"
    from sklearn.model_selection import StratifiedKFold
    x = np.array(clean(texts, variant), dtype=object)
    preds = np.full(len(y), -1)
    splits = StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
    for fit,held in list(splits)[:folds]:
        preds[held] = fit_linear(list(x[fit]), y[fit], C=C).predict(list(x[held]))
    return preds

def best_C(texts, y):
    "The penalty that the first fold chooses for `minimal`"
    from sentiment_nb.training import tune_C
    from sklearn.model_selection import train_test_split
    x,v,a,b = train_test_split(clean(texts, 'minimal'), y, test_size=.2, stratify=y, random_state=0)
    return tune_C((x, a), (v, b))[1]

def format_difference(d): return f"{100*d['value']:+.2f} [{100*d['low']:+.2f}, {100*d['high']:+.2f}]"

def compare(answers, y, base='minimal'):
    "Each variant against `minimal` on the texts that were held out"
    rows = []
    for name,a in answers.items():
        held = a>=0
        truth = y[held]
        ours = a[held]
        theirs = answers[base][held]
        difference = paired_difference(truth, ours, theirs, int(y.max())+1)['accuracy']
        rows.append(dict(variant=name, n=int(held.sum()), accuracy=round(float((ours==truth).mean()), 4),
            difference=format_difference(difference), p=f"{mcnemar(truth, ours, theirs)['p']:.3f}",
            changed=int((ours!=theirs).sum())))
    return rows

def linear(source, work):
    texts,y = rows_of(source, work)
    folds = 5 if len(y)<25_000 and linear_weighting(texts)=='tfidf' else 2
    C = best_C(texts, y)
    answers = {}
    for v in VARIANTS:
        answers[v] = linear_answers(texts, y, v, folds, C)
        print(v, flush=True)
    rows = compare(answers, y)
    model = f'linear ({linear_weighting(texts)}, C={C:g})'
    print_table(rows, f'{source}: {model}, {folds} of 5 folds held out; difference to minimal in points')
    return dict(rows=rows, C=C, folds=folds)

def minilm_answers(texts, y, variant, seed, work, n_train=8000, n_held=6000):
    "Predictions for held-out tweets of MiniLM trained on the others, cleaned by the variant"
    from sentiment_nb.training import torch_logits, train_transformer
    place = Path(work)/'minilm'
    file = place/f'{variant}-{seed}.json'
    if file.exists(): return np.array(json.loads(file.read_text()))
    order = np.random.default_rng(0).permutation(len(y))
    held = order[:n_held]
    source = place/f'{variant}.parquet'
    data = place/'data'
    place.mkdir(parents=True, exist_ok=True)
    import pandas as pd
    x = clean(texts, variant)
    rows = order[n_held:n_held+n_train+500]
    table = pd.DataFrame({'text': [x[i] or '.' for i in rows], 'label': [['negative','positive'][y[i]] for i in rows]})
    table.to_parquet(source, index=False) # a raw tweet may hold a line break
    prepare_data(source, data, sizes=(.05, 0))
    folder = train_transformer(data, place/'model', 'minilm', epochs=1, max_length=128, batch_size=16,
        learning_rate=2e-4, freeze_layers=2, seed=seed, policy='as it comes')
    preds = np.full(len(y), -1)
    preds[held] = torch_logits(folder, [x[i] for i in held]).argmax(1)
    file.write_text(json.dumps(preds.tolist()))
    return preds

def minilm(work, variants):
    texts,y = rows_of('tweets', work)
    for v in variants:
        minilm_answers(texts, y, v, 42, work)
        print(v, flush=True)
    again = minilm_answers(texts, y, 'minimal', 43, work)
    trained = [v for v in VARIANTS if (Path(work)/'minilm'/f'{v}-42.json').exists()]
    answers = {v: minilm_answers(texts, y, v, 42, work) for v in trained} | {'minimal, another seed': again}
    rows = compare(answers, y)
    for row,other in zip(rows, compare(answers, y, 'minimal, another seed')):
        row |= {'to the other seed': other['difference'], 'p to the other seed': other['p']}
    print_table(rows, 'tweets: MiniLM, 8,000 texts, one epoch, two layers frozen; difference to minimal in points')
    return dict(rows=rows, seeds=[42, 43])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--part', choices=['tweets','sentiment140','imdb','minilm'], required=True)
    p.add_argument('--variants', nargs='+', default=[v for v in VARIANTS], choices=list(VARIANTS), help='of MiniLM: train these now')
    p.add_argument('--work', default='data/ablation', help='prepared data and answers are kept here')
    args = p.parse_args()
    measured = minilm(args.work, args.variants) if args.part=='minilm' else linear(args.part, args.work)
    save('ablation', args, 'scikit-learn torch transformers ftfy', measured, part=args.part)

if __name__=='__main__': main()
