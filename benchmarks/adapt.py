"""What do 20 to 500 labels of one's own give, by which candidate, and is what cross-validation promises what further texts give?

Three kinds of text that the starting model did not see: airline tweets (a MiniLM of three classes, trained on 6,000 of the
embedded tweets without them), Sentiment140 and IMDb's test reviews, of which the first and the last 25 words are taken
so that the run takes minutes (the two-class quickstart, trained on tweets alone). Of a pool of 2,700 to 3,000 texts, n are
drawn as labels and 2,000 others are further texts.

    sentiment-nb prepare tweets --classes 3 --exclude Tweets.csv --out CACHE/tweets-no-airline
    sentiment-nb train CACHE/tweets-no-airline --model minilm --out CACHE/tweets-minilm --limit 6000 --epochs 1 \\
        --max-length 64 --batch-size 16 --learning-rate 2e-4 --freeze-layers 2
    python benchmarks/adapt.py embed --cache CACHE          # states and answers of each pool, once
    python benchmarks/adapt.py draw --cache CACHE           # candidates on each draw; goes on where it stopped
    python benchmarks/adapt.py curves --cache CACHE         # the tables
    python benchmarks/adapt.py finetuned --cache CACHE      # the expensive candidate, few draws
"""
import argparse, json, time
from itertools import product
from pathlib import Path
import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp
from common import print_table, save
from sentiment_nb.adapt import ALPHA, OwnRows, OwnTexts, compare_candidates, cross_validate, embed_texts
from sentiment_nb.adapt import finetune_candidate, fit_ngrams, fit_probe, make_folds, ngram_candidate, ngram_features
from sentiment_nb.adapt import open_encoder, open_general, probe_candidate, unchanged_candidate
from sentiment_nb.core import ModelRecord, linear_logits
from sentiment_nb.data import find_local, load_file, load_source
from sentiment_nb.ensemble import log_probs
from sentiment_nb.training import load_quickstart, torch_logits

PACKAGES = 'torch transformers scikit-learn scipy numpy'
DOMAINS = ('airline','sentiment140','imdb')
SIZES = (20, 50, 100, 200, 500)
FURTHER = 2000
ALPHAS = {'best mean': 1., '0.3': .3, '0.2': .2, '0.1': .1, '0.05': .05, '0.01': .01}

def start_of(domain, cache):
    "Starting model, and the prepared data that it was trained on"
    if domain=='airline': return cache/'tweets-minilm', cache/'tweets-no-airline'
    quick = load_quickstart()
    return quick.model, quick.data

def shorten(review):
    "The first and the last 25 words of a review"
    words = review.replace('<br />', ' ').split()
    return ' '.join(words if len(words)<=50 else words[:25] + words[-25:])

def load_pool(domain, n):
    "Different texts of a kind, drawn at random, and their classes"
    if domain=='airline':
        ds = load_file(find_local('imdb').parent/'airline'/'Tweets.csv', label_column='airline_sentiment')
        frame = ds.to_pandas()[['text','label']].drop_duplicates('text').sample(n, random_state=0)
        return frame.text.tolist(), frame.label.to_numpy()
    ds = load_source(domain)['test' if domain=='imdb' else 'train'].shuffle(seed=0).select(range(n+200))
    texts = list(map(shorten, ds['text'][:])) if domain=='imdb' else ds['text'][:]
    frame = pd.DataFrame({'text': texts, 'label': ds['label'][:]}).drop_duplicates('text')[:n]
    return frame.text.tolist(), (frame.label>0).astype(int).to_numpy()

def embed(args):
    "Keep states, log probabilities, classes and texts of each pool"
    for domain in args.domains:
        start,_ = start_of(domain, args.cache)
        texts,classes = load_pool(domain, 3000 if domain=='airline' else 2700)
        states = embed_texts(open_encoder(start), texts)
        logits = log_probs(ModelRecord.load(start).to_probs(torch_logits(start, texts)))
        np.savez(args.cache/f'{domain}-start.npz', pooled=states, logits=logits, y=classes, texts=np.array(texts))

class Pool:
    "Texts of one kind, with everything that does not depend on labels"
    def __init__(self, domain, cache):
        stored = np.load(cache/f'{domain}-start.npz')
        self.domain = domain
        self.texts = stored['texts'].tolist()
        self.X = stored['pooled']
        self.classes = stored['y']
        self.logits = stored['logits']
        names = ['negative','neutral','positive'] if self.classes.max()==2 else ['negative','positive']
        rows = OwnRows(self.texts, self.classes, np.arange(len(self.texts)))
        own = OwnTexts(rows, rows.select(np.arange(0)), names, {}, domain)
        self.names = names
        general = open_general(own, start_of(domain, cache)[1])
        ngrams = ngram_features(general, self.texts)
        used = np.unique(np.append(ngrams.indices, general.X.indices)) # empty columns cost time in each fit
        self.general = general._replace(X=general.X[:,used])
        self.ngrams = ngrams[:,used]

def right(logits, classes): return float((logits.argmax(1)==classes).mean())

def one_draw(pool, n, seed, with_ngrams):
    "Candidates on n labels: what cross-validation promises, and what further texts give"
    order = np.random.default_rng(seed).permutation(len(pool.texts))
    rows = order[:n]
    further = order[-FURTHER:]
    y = pool.classes[rows]
    folds = make_folds(y, seed=seed)
    start = time.process_time()
    results = [unchanged_candidate(pool.logits[rows]), cross_validate(probe_candidate(pool.X[rows], y), y, folds)]
    if with_ngrams: results.append(cross_validate(ngram_candidate(pool.ngrams[rows], y, pool.general), y, folds))
    scores = compare_candidates(results, y)
    seconds = time.process_time()-start
    truth = pool.classes[further]
    gives = {'unchanged': right(pool.logits[further], truth)}
    gives['probe'] = right(linear_logits(fit_probe(pool.X[rows], y, results[1].setting), pool.X[further]), truth)
    if with_ngrams:
        model = fit_ngrams(pool.ngrams[rows], y, pool.general, results[2].setting)
        gives['ngrams'] = right(linear_logits(model, pool.ngrams[further]), truth)
    row = dict(domain=pool.domain, n=n, seed=seed, seconds=seconds, scores={})
    for s in scores: row['scores'][s['name']] = dict(accuracy=s['accuracy'], gain=s['gain'], gives=gives[s['name']])
    return row

def draw(args):
    "Append draws to a file in the cache until there are enough, or the time is up"
    path = args.cache/'draws.jsonl'
    draws = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(d['domain'], d['n'], d['seed']) for d in draws}
    pools = {d: Pool(d, args.cache) for d in args.domains}
    end = time.monotonic() + 60*args.minutes
    with open(path, 'a') as f:
        for seed in range(args.seeds):
            for domain,pool in pools.items():
                for n in SIZES:
                    if (domain, n, seed) in done: continue
                    if time.monotonic()>end: return
                    f.write(json.dumps(one_draw(pool, n, seed, seed<args.ngram_seeds)) + '\n')
                    f.flush()

def chosen(scores, alpha):
    "Name of what `choose_candidate` would keep at a level"
    passed = {k: s['gain']['value'] for k,s in scores.items() if s['gain'] and (s['gain']['p']<alpha or alpha==1.)}
    if alpha==1.: passed['unchanged'] = 0.
    return max(passed, key=passed.get) if passed else 'unchanged'

def mean_interval(values):
    "Mean over seeds with its 95 % interval (Student's t)"
    values = np.asarray(values)
    mean = float(values.mean())
    if len(values)<2 or not np.ptp(values): return dict(value=mean, low=mean, high=mean)
    low,high = ttest_1samp(values, 0).confidence_interval()
    return dict(value=mean, low=float(low), high=float(high))

def holm(ps):
    "Holm's adjusted p-values"
    order = np.argsort(ps)
    adjusted = np.maximum.accumulate((len(ps)-np.arange(len(ps)))*np.asarray(ps)[order])
    back = np.empty(len(ps))
    back[order] = np.minimum(adjusted, 1)
    return back.tolist()

def gains_of(draws, case, alpha):
    "Gain of what is kept over the unchanged model, in each draw of a case"
    group = [d['scores'] for d in draws if (d['domain'], d['n'])==(case['domain'], case['n'])]
    return [scores[chosen(scores, alpha)]['gives'] - scores['unchanged']['gives'] for scores in group]

def p_value(gains, alternative):
    "Student's test over seeds"
    return float(ttest_1samp(gains, 0, alternative=alternative).pvalue) if np.ptp(gains) else 1.

def promise_row(candidate, scores):
    "In how many draws further texts give what was promised, how wide the promise is, and its bias"
    held = sum(s['accuracy']['low']<=s['gives']<=s['accuracy']['high'] for s in scores)
    width = np.mean([s['accuracy']['high']-s['accuracy']['low'] for s in scores])
    bias = np.mean([s['accuracy']['value']-s['gives'] for s in scores])
    return dict(candidate=candidate, draws=len(scores), held=held, mean_width=float(width), bias=float(bias))

def promise_rows(draws, alpha):
    "The promise of each candidate, at most 500 draws, and of what is kept"
    rows = []
    for name in ('unchanged','probe','ngrams'):
        rows.append(promise_row(name, [d['scores'][name] for d in draws if name in d['scores']][:500]))
    complete = [d['scores'] for d in draws if 'ngrams' in d['scores']]
    rows.append(promise_row('chosen', [scores[chosen(scores, alpha)] for scores in complete]))
    return rows

def curve_points(complete, domain, n, alpha):
    "Mean accuracy on further texts of each candidate, and of what is kept"
    group = [d['scores'] for d in complete if (d['domain'], d['n'])==(domain, n)]
    given = {name: [s[name]['gives'] for s in group] for name in ('unchanged','probe','ngrams')}
    given['chosen'] = [s[chosen(s, alpha)]['gives'] for s in group]
    return [dict(domain=domain, n=n, candidate=name, **mean_interval(values)) for name,values in given.items()]

def case_row(complete, domain, n, alpha):
    "What is kept against the unchanged model"
    group = [d['scores'] for d in complete if (d['domain'], d['n'])==(domain, n)]
    gains = gains_of(complete, dict(domain=domain, n=n), alpha)
    replaced = float(np.mean([chosen(s, alpha)!='unchanged' for s in group]))
    case = dict(domain=domain, n=n, seeds=len(group), gain=float(np.mean(gains)), replaced=replaced)
    return case | dict(p_worse=p_value(gains, 'less'), p_better=p_value(gains, 'greater'))

def level_row(complete, cases, name, alpha):
    "What a level of the choice gains and risks, over all cases"
    per_case = [gains_of(complete, c, alpha) for c in cases]
    flat = np.concatenate(per_case)
    row = dict(level=name, mean_gain=float(flat.mean()), worst_draw=float(flat.min()))
    row['worse_by_a_point'] = float((flat<-.01).mean())
    row['worst_mean'] = float(min(map(np.mean, per_case)))
    row['significantly_worse'] = sum(p<.05 for p in holm([p_value(g, 'less') for g in per_case]))
    return row

def curves(args):
    "Tables of the draws: curves, levels of the choice, promises"
    draws = [json.loads(line) for line in (args.cache/'draws.jsonl').read_text().splitlines()]
    draws.sort(key=lambda d: d['seed'])
    complete = [d for d in draws if 'ngrams' in d['scores']]
    grid = [(domain, n) for domain in args.domains for n in SIZES]
    points = [p for domain,n in grid for p in curve_points(complete, domain, n, args.alpha)]
    cases = [case_row(complete, domain, n, args.alpha) for domain,n in grid]
    for which in ('p_worse','p_better'):
        for case,p in zip(cases, holm([c[which] for c in cases])): case[f'{which}_holm'] = p
    levels = [level_row(complete, cases, name, alpha) for name,alpha in ALPHAS.items()]
    promises = promise_rows(draws, args.alpha)
    print_table(points, f'accuracy on {FURTHER:,} further texts, mean over seeds')
    print_table(cases, f'what is kept at a level of {args.alpha}, against the unchanged model')
    print_table(levels, 'levels at which a candidate replaces the unchanged model')
    print_table(promises, 'further texts give what cross-validation promised')
    seconds = float(np.median([d['seconds'] for d in complete if d['n']==200]))
    tables = dict(points=points, cases=cases, levels=levels, promises=promises, seconds_200=seconds)
    save('adapt', args, PACKAGES, tables, part='curves')

def one_finetuned(domain, n, seed, cache):
    "Fine-tune on n labels; accuracy on 500 further texts"
    stored = np.load(cache/f'{domain}-start.npz')
    texts = stored['texts']
    classes = stored['y']
    order = np.random.default_rng(seed).permutation(len(texts))
    labelled = order[:n]
    further = order[-FURTHER:][:500]
    names = ['negative','neutral','positive'] if classes.max()==2 else ['negative','positive']
    rows = OwnRows(texts.tolist(), classes, np.arange(len(texts)))
    logits = finetune_candidate(start_of(domain, cache)[0], rows, names, seed).fit_predict(labelled, further, None)
    truth = classes[further]
    row = dict(domain=domain, n=n, seed=seed, gives=right(logits, truth))
    return row | dict(unchanged=right(stored['logits'][further], truth))

def finetuned_row(group):
    "Means and range over seeds"
    gives = [r['gives'] for r in group]
    row = dict(domain=group[0]['domain'], n=group[0]['n'], seeds=len(group))
    row |= dict(unchanged=float(np.mean([r['unchanged'] for r in group])), finetuned=float(np.mean(gives)))
    return row | dict(lowest=min(gives), highest=max(gives))

def finetuned(args):
    "Fine-tuning that goes on from the starting model, on few draws and 500 further texts"
    path = args.cache/'finetuned.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(r['domain'], r['n'], r['seed']) for r in rows}
    end = time.monotonic() + 60*args.minutes
    for seed,domain,n in product(range(args.seeds), args.domains, args.sizes):
        if (domain, n, seed) in done or time.monotonic()>end: continue
        rows.append(one_finetuned(domain, n, seed, args.cache))
        with open(path, 'a') as f: f.write(json.dumps(rows[-1]) + '\n')
    keys = sorted({(r['domain'], r['n']) for r in rows})
    table = [finetuned_row([r for r in rows if (r['domain'], r['n'])==key]) for key in keys]
    print_table(table, 'fine-tuned further, 4 epochs at 5e-5; accuracy on 500 further texts')
    save('adapt', args, PACKAGES, dict(rows=table), part='finetuned')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('part', choices=('embed','draw','curves','finetuned'))
    p.add_argument('--cache', type=Path, required=True, help='folder for starting models, states and draws')
    p.add_argument('--domains', nargs='+', default=list(DOMAINS))
    p.add_argument('--sizes', nargs='+', type=int, default=list(SIZES), help='of the fine-tuned')
    p.add_argument('--seeds', type=int, default=34)
    p.add_argument('--ngram-seeds', type=int, default=10)
    p.add_argument('--alpha', type=float, default=ALPHA)
    p.add_argument('--minutes', type=float, default=9)
    p.add_argument('--seed', type=int, default=0)
    args = p.parse_args()
    dict(embed=embed, draw=draw, curves=curves, finetuned=finetuned)[args.part](args)

if __name__=='__main__': main()
