r"""Do the intervals of shares hold the truth as often as they promise, and what does a model save?

Method: of texts whose labels are all known, a population with a chosen share of a class is put together, a sample is
drawn and estimated, and the truth is looked up; 2,000 times for each case. Models: as it is; `calibrated` to the share
of each population (Saerens, Latinne and Decaestecker 2002, doi:10.1162/089976602753284446); `biased` (probabilities of the
class raised to the power 0.3); `guesses` (random probabilities).

    python benchmarks/prevalence.py coverage --reports reports/quickstart reports/tweets-imdb
    python benchmarks/prevalence.py default --reports reports/quickstart
    python benchmarks/prevalence.py groups --reports reports/quickstart
    python benchmarks/prevalence.py adjusted --reports reports/quickstart
    python benchmarks/prevalence.py airline --scored airline-scored.csv

`default` is `coverage` of the three-class model of `quickstart`, on its tweets alone, with a name of its own among the results.
The reports are what `sentiment-nb evaluate` left for held-out texts. `airline-scored.csv` is what `sentiment-nb predict`
says of the airline tweets by a model that was trained without them (`quickstart --exclude`, or `prepare --exclude`).
"""
import argparse
from pathlib import Path
import numpy as np
import pandas as pd
from common import print_table, save
from sentiment_nb.prevalence import adjusted_shares, compare_groups, draw_sample, estimate_share, estimate_shares
from sentiment_nb.prevalence import expected_widths, make_sample, period_names, shares_table, split_groups

PACKAGES = 'numpy scipy pandas'
SHARES = (.03, .1, .3, .6)
COUNTS = (50, 100, 200, 400)

def read_report(folder):
    "Probabilities, labels and class names of the held-out texts of a report; of a mixed one the tweets"
    table = pd.read_csv(Path(folder)/'predictions.csv', keep_default_na=False)
    if 'domain' in table: table = table[table.domain=='tweets']
    names = [c.removeprefix('prob_') for c in table if c.startswith('prob_')]
    return table[[f'prob_{n}' for n in names]].to_numpy(float), np.array([names.index(v) for v in table.label]), names

def weaken(probs, model, rng, shares=(.5, .5)):
    "Probabilities of one class as another model would give them; `shares` are those of the test texts and of the population"
    if model=='biased': return probs**.3
    if model=='guesses': return rng.random(len(probs))
    return move_share(probs, *shares) if model=='calibrated' else probs

def move_share(probs, before, after):
    "Probabilities of a class after its share has moved, all else being equal"
    of_class = probs*after/before
    return of_class/(of_class + (1-probs)*(1-after)/(1-before))

def make_population(is_class, share, n, rng):
    "Positions of `n` texts, of which `share` is of the class; drawn with replacement only where there are too few"
    n_class = round(share*n)
    parts = []
    for wanted,pool in ((n_class, np.flatnonzero(is_class)), (n-n_class, np.flatnonzero(~is_class))):
        parts.append(rng.choice(pool, wanted, replace=wanted>len(pool)))
    return np.concatenate(parts)

def coverage_case(probs, truth, n_labels, draws, rng):
    "Coverage, and mean width beside that of the labels alone, for one population"
    n_texts = len(probs)
    share = truth.mean()
    none = np.zeros(n_texts)
    held,widths,widths_alone = [],[],[]
    for _ in range(draws):
        rows = rng.choice(n_texts, n_labels, replace=False)
        sample = make_sample(rows, truth[rows].astype(int), n_texts)
        low,high = estimate_share(probs, truth[rows], sample).interval()
        low_alone,high_alone = estimate_share(none, truth[rows], sample).interval()
        held.append(low<=share<=high)
        widths.append(high-low)
        widths_alone.append(high_alone-low_alone)
    return dict(coverage=np.mean(held), mean_width=np.mean(widths), width=np.mean(widths)/np.mean(widths_alone))

def coverage(args):
    "One group: every share, number of labels, model and class"
    rng = np.random.default_rng(args.seed)
    rows = []
    for report in args.reports:
        all_probs,labels,names = read_report(report)
        for name in ('negative','positive'):
            k = names.index(name)
            for model in ('as it is','calibrated','biased','guesses'):
                for share in SHARES:
                    population = make_population(labels==k, share, args.texts, rng)
                    truth = labels[population]==k
                    probs = weaken(all_probs[population,k], model, rng, ((labels==k).mean(), truth.mean()))
                    expected = {r['labels']: r['width'] for r in expected_widths(probs, COUNTS)}
                    for n in COUNTS:
                        case = coverage_case(probs, truth, n, args.draws, rng)
                        row = dict(texts=Path(report).name, label=name, model=model, share=share, labels=n)
                        rows.append(row | case | dict(expected_width=expected[n]))
    print_table(rows, f'{args.texts:,} texts, {args.draws:,} draws a case')
    save('prevalence', args, PACKAGES, dict(rows=rows), part=args.part)

def hold_all(rows, truths, low, high):
    "Whether each row's interval holds its truth"
    return [r[low]<=t<=r[high] for r,t in zip(rows, truths)]

def groups_case(probs, truth, months, n_labels, strata, draws, rng):
    "Coverage of the shares of twelve months, of the changes, and of all at once"
    groups = split_groups({'month': pd.Series(months)})
    shares = [truth[members].mean() for _,members in groups]
    differences = np.diff(shares[1:])
    both = np.column_stack([probs, 1-probs])
    alone = np.full((draws, len(groups)), np.nan)
    changes,all_shares,all_changes = [],[],[]
    for d in range(draws):
        rows,chance = draw_sample(len(truth), n_labels, months if strata else None, rng.integers(2**31))
        sample = make_sample(rows, 1-truth[rows].astype(int), len(truth), chance, months[rows] if strata else None)
        estimates = [s for s in estimate_shares(both, ['yes','no'], sample, groups) if s.label=='yes' and s.estimate]
        answered = [position(groups, s.group) for s in estimates]
        truths = [shares[i] for i in answered]
        table = shares_table(estimates)
        alone[d,answered] = hold_all(table, truths, 'low', 'high')
        all_shares.append(all(hold_all(table, truths, 'low_all', 'high_all')))
        if len(estimates)<len(groups): continue
        compared = compare_groups(estimates, 'month')
        changes.append(hold_all(compared, differences, 'low', 'high'))
        all_changes.append(all(hold_all(compared, differences, 'low_all', 'high_all')))
    by_group = np.nanmean(alone, 0)
    by_change = np.mean(changes, 0)
    shares_held = dict(coverage=by_group.mean(), lowest=by_group.min(), all_shares=np.mean(all_shares))
    changes_held = dict(changes=by_change.mean(), lowest_change=by_change.min(), all_changes=np.mean(all_changes))
    return shares_held | changes_held

def groups(args):
    "Twelve months of different shares, with and without strata"
    rng = np.random.default_rng(args.seed)
    rows = []
    for report in args.reports:
        all_probs,labels,names = read_report(report)
        k = names.index('negative')
        for model in ('as it is','biased'):
            monthly = np.repeat(SHARES, 3)
            population = np.concatenate([make_population(labels==k, s, args.texts//12, rng) for s in monthly])
            months = np.repeat([f'2024-{m+1:02}' for m in range(12)], args.texts//12)
            truth = labels[population]==k
            probs = weaken(all_probs[population,k], model, rng)
            for n in (200, 400):
                for strata in (False, True):
                    case = groups_case(probs, truth, months, n, strata, args.draws, rng)
                    rows.append(dict(texts=Path(report).name, model=model, labels=n, strata=strata, **case))
    print_table(rows, f'{args.texts:,} texts in 12 months with shares of 3, 10, 30 and 60 %; {args.draws:,} draws a case')
    save('prevalence', args, PACKAGES, dict(rows=rows), part='groups')

def adjusted(args):
    "The adjusted count: confusion matrix of one half of the texts, shares of the other half moved"
    rng = np.random.default_rng(args.seed)
    rows = []
    for report in args.reports:
        probs,labels,names = read_report(report)
        preds = probs.argmax(1)
        k = names.index('negative')
        for share in SHARES:
            held,counted = [],[]
            for _ in range(args.draws//4):
                order = rng.permutation(len(labels))
                first,others = np.array_split(order, 2)
                confusion = np.zeros((len(names),)*2)
                np.add.at(confusion, (labels[first], preds[first]), 1)
                population = others[make_population(labels[others]==k, share, 400, rng)] # few enough to need none twice
                counts = np.bincount(preds[population], minlength=len(names))
                _,low,high = adjusted_shares(counts, confusion, draws=400)
                truth = (labels[population]==k).mean()
                held.append(low[k]<=truth<=high[k])
                counted.append(counts[k]/counts.sum())
            rows.append(dict(texts=Path(report).name, share=share, counted=np.mean(counted), coverage=np.mean(held)))
    print_table(rows, f'adjusted count of 400 texts; {args.draws//4:,} draws a case')
    save('prevalence', args, PACKAGES, dict(rows=rows), part='adjusted')

def airline(args):
    "Share of negatives of each airline and of each day with 1,000 tweets, from 300 random labels"
    frame = pd.read_csv(args.scored, keep_default_na=False)
    names = [c.removeprefix('prob_') for c in frame if c.startswith('prob_')]
    probs = frame[[f'prob_{n}' for n in names]].to_numpy(float)
    truth = frame.airline_sentiment.map({n: i for i,n in enumerate(names)}).to_numpy()
    days = period_names(frame.tweet_created, 'tweet_created', 'day')
    days = days.where(days.map(days.value_counts())>=1000)
    groups = split_groups({'airline': frame.airline, 'day': days})
    groups = [g for g in groups if len(g[0])<2]
    shares = [float((truth[members]==0).mean()) for _,members in groups]
    rng = np.random.default_rng(args.seed)
    held = np.zeros((args.draws, len(groups)))
    all_held = []
    n_told = 0
    n_wrong = 0
    for d in range(args.draws):
        rows = rng.choice(len(truth), 300, replace=False)
        sample = make_sample(rows, truth[rows], len(truth))
        estimates = [s for s in estimate_shares(probs, names, sample, groups) if s.label=='negative']
        table = shares_table(estimates)
        held[d] = hold_all(table, shares, 'low', 'high')
        all_held.append(all(hold_all(table, shares, 'low_all', 'high_all')))
        for c in compare_groups([e for e in estimates if 'airline' in e.group]):
            is_told = c['low_all']>0 or c['high_all']<0
            right = shares[position(groups, c['to'])]>shares[position(groups, c['from'])]
            n_told += is_told
            n_wrong += is_told and right!=(c['difference']>0)
    preds = probs.argmax(1)
    rows = []
    for (group,members),share,c in zip(groups, shares, held.mean(0)):
        row = dict(group=' '.join(group.values()) or 'all', texts=len(members), share=share)
        rows.append(row | dict(counted=float((preds[members]==0).mean()), coverage=c))
    print_table(rows, f"300 labels of {len(truth):,} tweets, {args.draws:,} draws")
    facts = dict(mean_coverage=float(held.mean()), lowest=float(held.mean(0).min()))
    facts['all_at_once'] = float(np.mean(all_held))
    facts |= dict(orders_told=n_told/args.draws, of_these_wrong=n_wrong/max(n_told, 1))
    print_table([facts])
    save('prevalence', args, PACKAGES, dict(rows=rows, **facts), part='airline')

def position(groups, group): return next(i for i,(g,_) in enumerate(groups) if g==group)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('part', choices=('coverage','default','groups','adjusted','airline'))
    p.add_argument('--reports', nargs='+', default=['reports/quickstart'], help='folders that `evaluate` wrote')
    p.add_argument('--scored', help='the airline tweets with probabilities')
    p.add_argument('--texts', type=int, default=3000)
    p.add_argument('--draws', type=int, default=2000)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    dict(coverage=coverage, default=coverage, groups=groups, adjusted=adjusted, airline=airline)[args.part](args)

if __name__=='__main__': main()
