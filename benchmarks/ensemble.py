r"""How good is an ensemble on the texts that its members were judged on?

Their reports hold their answers, so nothing is predicted twice.

Method: the members' probabilities are read from the reports that `sentiment-nb evaluate` wrote, joined by the
ensemble's stored rule, calibrated as the ensemble is, and judged like any model. On --check texts the ensemble itself
predicts, through `Predictor`, and has to give the same labels where it is sure (reports from before 22 November 2026
hold int8 answers that moved a little with what stood in the same batch).

    sentiment-nb ensemble models/imdb-512 models/imdb-256 models/imdb-nocad-linear --data data/imdb-nocad \
        --method stack --out models/imdb-ensemble
    python benchmarks/ensemble.py --ensemble models/imdb-ensemble --data data/imdb-nocad \
        --reports reports/imdb-512 reports/imdb-256 reports/imdb-nocad-linear
"""
import argparse, json
from pathlib import Path
import numpy as np
from common import save, say
from sentiment_nb.data import label_indices, load_prepared
from sentiment_nb.evaluation_report import format_report, read_report, short_scores
from sentiment_nb.core import ModelRecord
from sentiment_nb.ensemble import combine, log_probs
from sentiment_nb.evaluation import evaluate_probs, majority_probs
from sentiment_nb.inference import Predictor

def check_members(ensemble, texts, probs):
    "The largest difference of `probs`, joined from reports, to what the ensemble predicts; its sure labels must agree"
    direct = Predictor(ensemble).predict_proba(texts)
    sure = np.abs(direct-.5).max(1)>.1 if probs.shape[1]==2 else np.ones(len(direct), bool)
    n_other = int((direct.argmax(1)!=probs.argmax(1))[sure].sum())
    if n_other:
        raise SystemExit(f'the ensemble itself gives {n_other} of {len(texts)} texts another label than its members\' '
            'reports do, and is sure of it: evaluate the members again')
    return float(np.abs(direct-probs).max())

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--ensemble', required=True, help='model folder')
    p.add_argument('--data', required=True, help='prepared data, whose test split the reports are about')
    p.add_argument('--reports', nargs='+', required=True, help='of every member')
    p.add_argument('--check', type=int, default=200, help='texts on which the ensemble itself predicts')
    args = p.parse_args()
    record = ModelRecord.load(args.ensemble)
    splits = load_prepared(args.data)
    test = splits['test']
    names = record.labels
    texts = test['text'][:]
    y = np.array(label_indices(test, names))
    stored = [read_report(r, texts, names) for r in args.reports]
    members = {n: q for n,_,q in stored}
    probs = record.to_probs(log_probs(combine(members, record.settings)))
    largest = check_members(args.ensemble, texts[:args.check], probs[:args.check])
    train_y = np.array(label_indices(splits['train'], names))
    base = {'majority': majority_probs(train_y, len(y), len(names))}
    base |= {'linear' if kind=='linear' else n: q for n,kind,q in stored}
    metrics = evaluate_probs(probs, y, names, texts, base, Path(args.ensemble).name)
    new = ~np.array(test['in_train'][:])
    if not new.all(): metrics['without_copies'] = short_scores(probs[new], y[new], len(names))
    say(json.dumps(record.settings, indent=None))
    say(format_report(metrics))
    say(f'largest difference of a probability to the ensemble asked itself, on {args.check} texts: {largest:.4f}')
    save(Path(args.ensemble).name, args, 'onnxruntime scikit-learn', metrics)

if __name__=='__main__': main()
