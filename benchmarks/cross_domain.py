"""How far does a model carry beyond the texts that it was trained on? Every model on every test set: accuracy with its 95 % interval.

Method: models of one kind, trained on tweets, reviews and film-critic phrases (SST-2), each judged on held-out texts of all three; a row is a model, a column a test set, the diagonal is home. The first --limit
texts of a shuffled test split are used. What a source calls neutral is left out.

    sentiment-nb prepare SST2.tsv --text-column sentence --label-column label --labels 0=negative,1=positive --out data/sst2
    sentiment-nb train data/sst2 --model minilm --out models/sst2-minilm --limit 16000 --epochs 1 --max-length 64
    python benchmarks/cross_domain.py --models models/quickstart models/imdb-256 models/sst2-minilm --data data/quickstart data/imdb-nocad data/sst2
"""
import argparse
from pathlib import Path
import numpy as np
from common import print_table, save
from sentiment_nb.cli import _label_indices, _predict_all, _short_scores
from sentiment_nb.data import load_prepared
from sentiment_nb.inference import Predictor

def judge(folder, data, limit, seed):
    "Accuracy and macro F1 of one model on one test split"
    predictor,test = Predictor(folder), load_prepared(data)['test'].shuffle(seed=seed)
    test = test.select(range(min(limit, len(test))))
    names = predictor.record.labels
    y = np.array(_label_indices(test, names))
    return _short_scores(_predict_all(predictor, test['text'][:]), y, len(names))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--models', nargs='+', required=True, help='model folders')
    p.add_argument('--data', nargs='+', required=True, help='prepared folders, in the order of the models')
    p.add_argument('--limit', type=int, default=5000, help='test texts of each')
    p.add_argument('--seed', type=int, default=42)
    args = p.parse_args()
    found = {Path(m).name: {Path(d).name: judge(m, d, args.limit, args.seed) for d in args.data} for m in args.models}
    def show(a): return f"{100*a['value']:.1f} [{100*a['low']:.1f}, {100*a['high']:.1f}]"
    for score in ('accuracy','macro_f1'):
        print_table([{'trained': m} | {f"on {d} ({f['n']:,})": show(f[score]) for d,f in row.items()} for m,row in found.items()], f'{score}, in percent, with 95 % intervals')
    save('cross_domain', args, 'onnxruntime', dict(results=found))

if __name__=='__main__': main()
