"""How good is an ensemble on the texts that its members were judged on? Their reports hold their answers, so nothing is asked twice.

Method: the members' probabilities are read from the reports that `sentiment-nb evaluate` wrote, joined by the ensemble's stored rule, calibrated as the ensemble is, and judged like any model. On --check texts the
ensemble itself is asked, through `Predictor`, and has to give the same labels where it is sure (reports from before 22 November 2026 hold int8 answers that moved a little with what stood in the same batch).

    sentiment-nb ensemble models/imdb-512 models/imdb-256 models/imdb-nocad-linear --data data/imdb-nocad --method stack --out models/imdb-ensemble
    python benchmarks/ensemble.py --ensemble models/imdb-ensemble --data data/imdb-nocad --reports reports/imdb-512 reports/imdb-256 reports/imdb-nocad-linear
"""
import argparse, json
from pathlib import Path
import numpy as np
from common import save, say
from sentiment_nb.cli import _label_indices, _short_scores, _stored
from sentiment_nb.core import ModelRecord
from sentiment_nb.data import load_prepared
from sentiment_nb.ensemble import combine, log_probs
from sentiment_nb.evaluation import evaluate, format_report, majority_probs
from sentiment_nb.inference import Predictor

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--ensemble', required=True, help='model folder')
    p.add_argument('--data', required=True, help='prepared data, whose test split the reports are about')
    p.add_argument('--reports', nargs='+', required=True, help='of every member')
    p.add_argument('--check', type=int, default=200, help='texts on which the ensemble is asked')
    args = p.parse_args()
    record,splits = ModelRecord.load(args.ensemble), load_prepared(args.data)
    test = splits['test']
    texts,y = test['text'][:], np.array(_label_indices(test, record.labels))
    stored = [_stored(r, texts, record.labels) for r in args.reports]
    members = {n: q for n,_,q in stored}
    probs = record.to_probs(log_probs(combine(members, record.settings)))
    asked = Predictor(args.ensemble).predict_proba(texts[:args.check])
    sure = np.abs(asked-.5).max(1)>.1 if len(record.labels)==2 else np.ones(len(asked), bool)
    far,other = float(np.abs(asked-probs[:args.check]).max()), int((asked.argmax(1)!=probs[:args.check].argmax(1))[sure].sum())
    if other: raise SystemExit(f'the ensemble itself gives {other} of {args.check} texts another label than its members\' reports do, and is sure of it: evaluate the members again')
    base = {'majority': majority_probs(np.array(_label_indices(splits['train'], record.labels)), len(y), len(record.labels))} | {'linear' if kind=='linear' else n: q for n,kind,q in stored}
    found = evaluate(probs, y, record.labels, texts, base, Path(args.ensemble).name)
    new = ~np.array(test['in_train'][:])
    if not new.all(): found['without_copies'] = _short_scores(probs[new], y[new], len(record.labels))
    say(json.dumps(record.settings, indent=None))
    say(format_report(found))
    say(f'largest difference of a probability to the ensemble asked itself, on {args.check} texts: {far:.4f}')
    save(Path(args.ensemble).name, args, 'onnxruntime scikit-learn', found)

if __name__=='__main__': main()
