"""Do prediction sets hold the right class as often as they promise, where calibration and test are alike?

Method: the answers that `sentiment-nb evaluate` left for all test texts are cut at random into two halves, a
hundred times; thresholds come from one half, and the other says how often its sets hold the right class, and how
many classes they hold (`coverage_by_split` of the chapter Calibration). Low and high hold the coverage of 95 of
100 cuts.

    sentiment-nb evaluate models/imdb-linear data/imdb
    python benchmarks/conformal.py --report reports/imdb-linear
"""
import argparse, json
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save
from sentiment_nb.calibration import coverage_by_split, fit_conformal

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--report', default='reports/imdb-linear', help='folder that `evaluate` wrote')
    p.add_argument('--splits', type=int, default=100)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    metrics = json.loads((Path(args.report)/'metrics.json').read_text(encoding='utf-8'))
    table = pd.read_csv(Path(args.report)/'predictions.csv', keep_default_na=False)
    names = metrics['labels']
    labels = np.array([names.index(l) for l in table.label])
    probs = table[[f'prob_{n}' for n in names]].to_numpy()
    coverage = coverage_by_split(probs, labels, fit_conformal, n_splits=args.splits, seed=args.seed)
    cuts = coverage.groupby('level')
    means = cuts[['coverage','empty','single','several']].mean()
    means = means.assign(low=cuts.coverage.quantile(.025), high=cuts.coverage.quantile(.975))
    rows = means.round(4).reset_index().to_dict('records')
    model = metrics['model']
    print_table(rows, f'{model}: {len(labels):,} texts, {args.splits} cuts into halves; shares of texts')
    save('conformal', args, 'crepes numpy', dict(model=model, n=len(labels), n_splits=args.splits, rows=rows))

if __name__=='__main__': main()
