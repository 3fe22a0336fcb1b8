r"""Does the general model hold away from home? Held-out texts of other makers, the suite, and the first minute.

FOLDER (`SENTIMENT_NB_DATA`) holds `sst2/glue_dev.tsv`, `imdb/test.parquet`, `sentiment140/testdata.manual…csv` and
`cad_imdb/paired/test_paired.tsv`; no text of theirs is trained on. Tweets: those of the model's own test split.

    for seed in 1 2 3; do python benchmarks/general.py train --seed $seed --out models/general-$seed; done
    python benchmarks/general.py evaluate --models models/general-1 models/general-2 models/general-3
    python benchmarks/general.py ablation --out models/ablation       # a quarter of the texts, one kind left out each time

Accuracies, pairs and calibration error are renormalised to two classes, neutral texts left out, so that models of two
and of three classes can be compared; `neutral` and macro F1 are those of three classes.
"""
import argparse, json, os, time
from collections import Counter
from functools import partial
from pathlib import Path
from unittest.mock import patch
import numpy as np
import pandas as pd
import torch
from common import save, say
from datasets import DatasetDict
from sentiment_nb.behaviour import check_first_minute, clustered_interval, make_suite, pair_consistency, run_suite
from sentiment_nb.calibration import ece, ece_if_calibrated
from sentiment_nb.cleaning import prepare_data, subsample
from sentiment_nb.core import LABELS
from sentiment_nb.data import load_prepared, load_source
from sentiment_nb.evaluation_report import predict_all
from sentiment_nb.general import QUICKSTART, add_lessons, train_general
from sentiment_nb.inference import Predictor, export_model
from sentiment_nb.lessons import make_lessons
from sentiment_nb.training import make_trainer, train_transformer
from sklearn.metrics import f1_score

HELD_OUT = ('tweets','sst2','imdb','manual','pairs') # Sets of texts, in the order of the table
PACKAGES = 'torch transformers onnxruntime numpy' # Whose versions matter
CAPABILITIES = ('negation','names','nationality','religion','neutral facts') # Of the suite, those that have a floor

def read_tweets(model, n):
    "Tweets of the model's own test split, in the proportions that the embedded tweets have: text, label (0 to 2)"
    test = load_prepared(f'data/{Path(model).name}')['test']
    names = test.features['label'].names
    rows = test.to_pandas()
    if 'domain' in rows: rows = rows[rows.domain=='tweets']
    rows['label'] = [LABELS.index(names[i]) for i in rows.label]
    weights = Counter(load_source('tweets')['train']['label'][:])
    counts = Counter(rows.label)
    total = min(min(counts[k]/weights[k] for k in counts), n/sum(weights[k] for k in counts))
    parts = [rows[rows.label==k].sample(int(total*weights[k]), random_state=0) for k in counts]
    return pd.concat(parts)

def read_set(name, model, n):
    "A held-out set: text, label (0 negative, 1 neutral, 2 positive), and for pairs `pair`"
    folder = Path(os.environ['SENTIMENT_NB_DATA'])
    if name=='tweets': return read_tweets(model, n)
    if name=='sst2':
        rows = pd.read_csv(folder/'sst2'/'glue_dev.tsv', sep='\t', quoting=3)
        return pd.DataFrame({'text': rows.sentence, 'label': 2*rows.label})
    if name=='imdb':
        rows = pd.read_parquet(folder/'imdb'/'test.parquet').sample(n, random_state=0)
        return pd.DataFrame({'text': rows.text, 'label': 2*rows.label})
    if name=='manual':
        file = folder/'sentiment140'/'testdata.manual.2009.06.14.csv'
        rows = pd.read_csv(file, header=None, encoding='iso-8859-1')
        return pd.DataFrame({'text': rows[5], 'label': rows[0]//2})
    rows = pd.read_csv(folder/'cad_imdb'/'paired'/'test_paired.tsv', sep='\t')
    return pd.DataFrame({'text': rows.Text, 'label': np.where(rows.Sentiment=='Negative', 0, 2), 'pair': rows.batch_id})

def all_classes(probs, labels):
    "Probabilities with a column for each of `LABELS`; a class that the model lacks has 0"
    columns = [LABELS.index(name) for name in labels]
    full = np.zeros((len(probs), len(LABELS)))
    full[:,columns] = probs
    return full

def interval(right): return clustered_interval(np.asarray(right), np.arange(len(right)))

def as_two_classes(labels, probs):
    "Of the texts with an opinion: probabilities of negative and positive, renormalised, and which of them is true"
    has_opinion = labels!=1
    two = probs[has_opinion][:,[0,2]]
    return two/two.sum(1, keepdims=True), labels[has_opinion]//2

def score(rows, probs, threshold):
    "Scores of one model on one set, shares from 0 to 1"
    labels = rows.label.to_numpy()
    has_opinion = labels!=1
    two,truth = as_two_classes(labels, probs)
    preds = probs.argmax(1)
    certain = (probs[has_opinion]>=threshold).sum(1)==1
    right = preds[has_opinion]==labels[has_opinion]
    perfect = ece_if_calibrated(two, n_draws=300)['mean']
    scores = {
        'n': len(rows),
        'accuracy': interval(two.argmax(1)==truth),
        'opinion_called_neutral': float((preds[has_opinion]==1).mean()),
        'ece_above_perfect': float(ece(two, truth) - perfect),
        'certain': float(certain.mean()),
        'certain_right': interval(right[certain])}
    if (labels==1).any():
        scores['macro_f1'] = float(f1_score(labels, preds, average='macro'))
        scores['neutral_called_neutral'] = interval(preds[labels==1]==1)
    if 'pair' in rows: scores['both_right'] = pair_consistency(two, truth, rows.pair.to_numpy())['value']
    return scores

def evaluate_folder(model, n, per_frame, sets):
    "All scores of one model folder, by the engine that serves it"
    predictor = Predictor(model)
    labels = predictor.record.labels
    predict = partial(predict_all, predictor)
    held_out = {}
    for name in sets:
        rows = read_set(name, model, n)
        probs = all_classes(predict(rows.text.tolist()), labels)
        held_out[name] = score(rows, probs, predictor.threshold)
    cases = run_suite(predict, labels, make_suite(0, per_frame))
    failed = cases.groupby('capability').failed.mean()
    first = check_first_minute(predict, labels)
    return {
        'model': Path(model).name,
        'engine': predictor.engine,
        'held_out': held_out,
        'suite': {c: float(v) for c,v in failed.items()},
        'first_minute': {'right': int((~first.failed).sum()), 'answers': first.to_dict('records')}}

def evaluate_once(model, args):
    "The scores of a model folder, kept in a file beside it, so that an interrupted run goes on"
    path = Path(f'{model}.scores.json')
    if path.is_file(): return json.loads(path.read_text(encoding='utf-8'))
    scores = evaluate_folder(model, args.texts, args.per_frame, HELD_OUT)
    path.write_text(json.dumps(scores), encoding='utf-8')
    return scores

def plain_values(scores):
    "Scores without their intervals"
    return {k: v['value'] if isinstance(v, dict) else v for k,v in scores.items()}

def print_scores(results):
    "A table for each model, and the means"
    for r in results:
        frame = pd.DataFrame([{'set': name} | plain_values(scores) for name,scores in r['held_out'].items()])
        say(f"\n{r['model']} ({r['engine']}); first minute {r['first_minute']['right']} of {len(r['first_minute']['answers'])}")
        say(frame.round(3).to_string(index=False, na_rep=''))
        say('suite, share failed: ' + ', '.join(f"{c} {r['suite'][c]:.3f}" for c in CAPABILITIES))

def evaluate(args):
    "Scores of each model, printed and saved"
    results = [evaluate_once(m, args) for m in args.models]
    print_scores(results)
    save(args.name, args, PACKAGES, {'texts': args.texts, 'per_frame': args.per_frame, 'models': results})

def train(args):
    "A model of the quickstart's length, exported"
    start = time.time()
    data = f'data/{Path(args.out).name}'
    train_general(args.out, data, seed=args.seed)
    say(f"{args.out}: seed {args.seed}, {time.time()-start:.0f} s")
    export_model(args.out, data)

# What an ablation leaves out: lessons whose names begin so, or a domain
LEFT_OUT = {
    'no negation': dict(lessons=('negated',)),
    'no then and now': dict(lessons=('then and now', 'now and then')),
    'no opinions of others': dict(lessons=('their opinion', 'whose opinion', 'comparison', 'contrast', 'lukewarm')),
    'no neutral lessons': dict(lessons=('facts', 'questions', 'requests')),
    'no irony': dict(lessons=('simple irony',)),
    'no plain lessons': dict(lessons=('plain',)),
    'no swaps': dict(lessons=('swapped',)),
    'no lessons': dict(lessons=('',)),
    'no film reviews': dict(domains=('film reviews',)),
    'no films': dict(domains=('film reviews', 'film sentences'))}
MASKED = 'neutral masked' # The variant in whose loss a film text never counts against neutral

def prepare_without(out, seed, lessons=(), domains=()):
    "A quarter of the quickstart's texts; lessons and domains to leave out are missing in `train` alone"
    quarter = {d: tuple(n//4 for n in counts) for d,counts in QUICKSTART['rows'].items()}
    n_lessons,n_swaps = (n//4 for n in QUICKSTART['lessons'])
    made = make_lessons(n_lessons, n_swaps, seed=seed)
    kept = made[[not name.startswith(lessons) for name in made.lesson]] if lessons else made
    def augment(splits):
        splits = add_lessons(splits, kept) if len(kept) else splits
        train = splits['train'].filter(lambda domain: domain not in domains, input_columns='domain')
        return DatasetDict({**splits, 'train': train})
    prepare_data('general', out, classes=3, limit=quarter, seed=seed, augment=augment)

def masked_loss(net_output, labels, num_items_in_batch=None):
    "Cross-entropy; for a label of 3 or more, which stands for a film text's, the neutral class takes no part"
    logits = net_output['logits']
    is_film = labels>=3
    masked = logits.clone()
    masked[is_film,1] = -1e4
    return torch.nn.functional.cross_entropy(masked, labels%3)

def train_masked(data, out, seed):
    "Fine-tune as the others are, by `masked_loss`"
    domains = subsample(load_prepared(data)['train'], seed=seed)['domain'][:]
    def make_masked(net, tokenizer, arguments, train, *args):
        labels = [y + 3*d.startswith('film') for y,d in zip(train['labels'][:], domains, strict=True)]
        coded = train.remove_columns('labels').add_column('labels', labels)
        trainer = make_trainer(net, tokenizer, arguments, coded, *args)
        trainer.compute_loss_func = masked_loss
        return trainer
    with patch('sentiment_nb.training.make_trainer', make_masked): # the one step that differs
        train_transformer(data, out, seed=seed, model='minilm', **QUICKSTART['training'])

def train_variant(name, folder, seed):
    "The model of one variant, and its float export"
    data = f'data/{folder.name}'
    prepare_without(data, seed, **LEFT_OUT.get(name, {}))
    if name==MASKED: train_masked(data, folder, seed)
    else: train_transformer(data, folder, seed=seed, model='minilm', **QUICKSTART['training'])
    export_model(folder, data, int8=False)

def judge_variant(folder, tweets_of, args):
    "For each share of the table: whether each text or case counts, and the group it belongs to"
    predictor = Predictor(folder)
    predict = partial(predict_all, predictor)
    columns = {}
    for name in HELD_OUT:
        rows = read_set(name, tweets_of if name=='tweets' else folder, args.texts)
        probs = predict(rows.text.tolist())
        labels = rows.label.to_numpy()
        two,truth = as_two_classes(labels, probs)
        right = two.argmax(1)==truth
        columns[f'{name}: accuracy'] = right.tolist(), list(range(len(right)))
        if len(right)==len(labels): continue
        neutral = probs[labels==1].argmax(1)==1
        columns[f'{name}: neutral called neutral'] = neutral.tolist(), list(range(len(neutral)))
    cases = run_suite(predict, predictor.record.labels, make_suite(0, args.per_frame))
    for capability in CAPABILITIES:
        of_capability = cases[cases.capability==capability]
        columns[f'suite: {capability} failed'] = of_capability.failed.tolist(), of_capability.frame.tolist()
    return columns

def change(without, whole):
    "Difference of two shares on the same cases, with its 95 % interval; cases of a group are drawn together"
    differences = np.asarray(without[0], float) - np.asarray(whole[0], float)
    sums = pd.DataFrame({'d': differences, 'group': without[1]}).groupby('group').d.agg(['sum','count'])
    weights = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1/len(sums)), size=2000)
    draws = weights@sums['sum'].to_numpy()/(weights@sums['count'].to_numpy())
    low,high = np.percentile(draws, [2.5, 97.5])
    return {'value': float(differences.mean()), 'low': float(low), 'high': float(high)}

def format_change(cell):
    "Points of a hundred: a share, or a change of it with its interval"
    if isinstance(cell, float): return f'{100*cell:.1f}'
    value,low,high = (100*cell[k] for k in ('value','low','high'))
    return f'{value:+.1f} [{low:+.1f}, {high:+.1f}]'

def ablation(args):
    "A quarter of the quickstart's texts, and the same without one kind of them, with paired intervals; an interrupted run goes on"
    judged = {}
    whole = Path(f'{args.out}-all')
    for name in ('all', *(args.variants or (MASKED, *LEFT_OUT))):
        folder = Path(f"{args.out}-{name.replace(' ', '-')}")
        kept = Path(f'{folder}.judged.json')
        if not (folder/'onnx').is_dir(): train_variant(name, folder, args.seed)
        if not kept.is_file(): kept.write_text(json.dumps(judge_variant(folder, whole, args)), encoding='utf-8')
        judged[name] = json.loads(kept.read_text(encoding='utf-8'))
    base = judged.pop('all')
    shares = {share: {'all': float(np.mean(hits))} for share,(hits,_) in base.items()}
    for name,columns in judged.items():
        for share,column in columns.items(): shares[share][name] = change(column, base[share])
    table = {share: {name: format_change(cell) for name,cell in row.items()} for share,row in shares.items()}
    say(pd.DataFrame(table).T.to_string())
    save('general-ablation', args, PACKAGES, {'texts': args.texts, 'per_frame': args.per_frame, 'shares': shares})

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsers = parser.add_subparsers(required=True)
    for func in (train, evaluate, ablation):
        p = parsers.add_parser(func.__name__, help=func.__doc__)
        p.set_defaults(func=func)
        p.add_argument('--seed', type=int, default=1)
        p.add_argument('--out', default='models/general')
        p.add_argument('--texts', type=int, default=2500, help='of each set, at most')
        p.add_argument('--per-frame', type=int, default=50, help='cases of each frame of the suite')
        p.add_argument('--name', default='general')
        p.add_argument('--models', nargs='+', default=['models/quickstart'])
        p.add_argument('--variants', nargs='+', choices=[MASKED, *LEFT_OUT], help='of the ablation; by default all')
    args = parser.parse_args()
    args.func(args)

if __name__=='__main__': main()
