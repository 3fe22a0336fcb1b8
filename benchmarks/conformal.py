"""Do prediction sets hold the right class as often as they promise, where calibration and test are alike?

Method: the answers that `sentiment-nb evaluate` left for all test texts are cut at random into two halves, a hundred times; thresholds come from one half, and the other says
how often its sets hold the right class, and how many classes they hold (`conformal_splits` of 05). Low and high hold the coverage of 95 of 100 cuts.

    sentiment-nb evaluate models/imdb-linear data/imdb
    python benchmarks/conformal.py --report reports/imdb-linear
"""
import argparse, json
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save
from sentiment_nb.evaluation import conformal_splits
from sentiment_nb.training import fit_conformal

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--report', default='reports/imdb-linear', help='folder that `evaluate` wrote')
    p.add_argument('--splits', type=int, default=100)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    known = json.loads((Path(args.report)/'metrics.json').read_text(encoding='utf-8'))
    table = pd.read_csv(Path(args.report)/'predictions.csv', keep_default_na=False)
    labels = np.array([known['labels'].index(l) for l in table.label])
    cuts = conformal_splits(table[[f'prob_{n}' for n in known['labels']]].to_numpy(), labels, fit_conformal, n_splits=args.splits, seed=args.seed).groupby('level')
    found = cuts[['coverage','empty','single','several']].mean().assign(low=cuts.coverage.quantile(.025), high=cuts.coverage.quantile(.975))
    rows = found.round(4).reset_index().to_dict('records')
    print_table(rows, f"{known['model']}: {len(labels):,} texts, {args.splits} cuts into halves; shares of texts")
    save('conformal', args, 'crepes numpy', dict(model=known['model'], n=len(labels), n_splits=args.splits, rows=rows))

if __name__=='__main__': main()
